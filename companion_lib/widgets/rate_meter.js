// What a sample costs with three codes at each precision, and the denoising errors it is a sum of.

const LEAST = 0.1;
const MOST = 1e4;
const MOST_BITS = 24;
const MOST_POWER = 4.6;

function render({ model, el }) {
  const view = new View(
    { model, el },
    "Rate meter",
    `A denoiser’s squared errors, added up from coarse noise to fine, are what a sample costs in
     bits. Look finer and finer: which code is cheapest, for samples it has stored and for new ones?`,
  );
  // `even`: bits between prices that count as equal
  const { decades, bits, powers, sizes, even } = view.get("data");
  let codes, cost;

  const COLORS = { memory: "orange", gaussian: "blue", planes: "green" };
  const NAMES = { memory: "the memory", gaussian: "one Gaussian", planes: "the planes" };
  const each = (make) => Object.fromEntries(Object.keys(COLORS).map((code) => [code, make(code)]));

  // ---- prices
  const prices = new Plot({
    label: "Bits per sample against the signal-to-noise ratio, for three codes",
    margin: { left: 40, right: 14, top: 26, bottom: 24 },
    className: "scrub",
  });
  const ghost = s("path", { class: "curve rate-ghost" });
  const curves = each((code) => s("path", { class: "curve", stroke: `var(--cw-${COLORS[code]})` }));
  const level = s("line", { class: "rate-level" });
  const levelText = s("text", { class: "halo" });
  const cursor = s("line", { class: "cursor" });
  const turn = s("path", { class: "dot rate-mark" });
  const crossing = s("path", { class: "dot rate-mark" });
  const dots = each((code) => s("circle", { class: "dot", r: 6, fill: `var(--cw-${COLORS[code]})` }));
  const labels = each((code) => s("text", { class: "strong halo", "text-anchor": "end" }, NAMES[code]));
  prices.clip.append(ghost, level, curves.gaussian, curves.planes, curves.memory);
  prices.over.append(cursor, levelText, ...Object.values(labels), turn, crossing, ...Object.values(dots));

  // ---- errors
  const errors = new Plot({
    label: "Half the squared error times s, whose area up to the cursor is the price",
    margin: { left: 40, right: 14, top: 26, bottom: 40 },
    className: "scrub",
  });
  const areas = each((code) => s("path", { class: "rate-area", fill: `var(--cw-${COLORS[code]})` }));
  const lines = each((code) => s("path", { class: "curve", stroke: `var(--cw-${COLORS[code]})` }));
  const edge = s("line", { class: "cursor" });
  errors.clip.append(
    areas.gaussian, areas.planes, areas.memory, lines.gaussian, lines.planes, lines.memory,
  );
  errors.over.append(edge);

  const showBits = (value) => `${pretty(value)} bits`;
  const named = (code, text) => `<span class="${COLORS[code]}">${text}</span>`;
  const numbers = {
    memory: view.readout("memory", named("memory", "memory"), showBits),
    gaussian: view.readout("gaussian", named("gaussian", "one Gaussian"), showBits),
    planes: view.readout("planes", named("planes", "planes"), showBits),
    number: view.readout("number", `log₂ <i>N</i>`, showBits),
    t: view.readout("t", `precision <i>t</i> =`),
    turn: view.readout("turn", `planes cost log₂ <i>N</i> at <i>s</i> =`),
    crossing: view.readout("crossing", `new samples: memory dearer than one Gaussian from <i>s</i> =`),
  };
  const verdict = h("p", { class: "verdict rate-verdict", "aria-live": "polite" });

  const nearest = (value) =>
    sizes.reduce((a, b) => (Math.abs(Math.log(b / value)) < Math.abs(Math.log(a / value)) ? b : a));
  const both = h("div", {}, prices.svg, errors.svg);
  view.root.append(
    h(
      "div",
      { class: "toolbar" },
      h("span", {}, "The memory codes"),
      view.choice("new", "what the memory codes", [
        { value: false, text: "samples it has stored" },
        { value: true, text: "new samples" },
      ]),
    ),
    h(
      "div",
      { class: "controls" },
      view.slider("snr", {
        label: "signal-to-noise ratio <i>s</i>", min: LEAST, max: MOST, step: 0.02, log: true,
      }),
      view.slider("size", {
        label: "stored samples <i>N</i>", min: sizes[0], max: 1.001 * sizes.at(-1), step: Math.log10(4),
        log: true, show: (value) => value.toLocaleString("en-US"),
        write: (value) => view.put("size", nearest(value)),
      }),
    ),
    both,
    h("div", { class: "readouts" }, ...Object.values(numbers).map(({ node }) => node)),
    verdict,
    rich(
      `Six planes in eight dimensions. At precision <i>t</i> the receiver gets the sample up to
       noise of that size in each coordinate, <i>s</i> = 1/<i>t</i>². The shaded areas below, over
       log₂ <i>s</i>, are the prices above: a code for the law pays 1 bit for each doubling of
       <i>s</i>, half of its planes’ dimension; one Gaussian pays for all eight dimensions; a memory
       pays log₂ <i>N</i> once, for what it has stored. Dashed: the memory on the other kind of samples.
       Diamonds: where the planes cost log₂ <i>N</i>, and where memory and Gaussian cross.`,
      "p", { class: "remark" },
    ),
  );

  // ---- numbers
  function at(curve, x) {
    const i = clamp(decades.findLastIndex((value) => value <= x), 0, decades.length - 2);
    const share = (x - decades[i]) / (decades[i + 1] - decades[i]);
    return curve[i] + share * (curve[i + 1] - curve[i]);
  }

  // Where a curve last changes from negative to positive.
  function lastRise(curve) {
    const i = curve.findLastIndex((value) => value < 0);
    return decades[i] + ((decades[i + 1] - decades[i]) * curve[i]) / (curve[i] - curve[i + 1]);
  }

  const place10 = { turn: 0, crossing: 0 };
  function compute() {
    const size = view.get("size");
    const fresh = bits[`new ${size}`];
    codes = { memory: `${view.get("new") ? "new" : "stored"} ${size}`, gaussian: "gaussian", planes: "planes" };
    const x = Math.log10(view.get("snr"));
    cost = each((code) => at(bits[codes[code]], x));
    place10.turn = lastRise(bits.planes.map((value) => value - Math.log2(size)));
    place10.crossing = lastRise(fresh.map((value, i) => value - bits.gaussian[i] - even));
    for (const code of Object.keys(COLORS)) numbers[code].set(cost[code]);
    numbers.number.set(Math.log2(size));
    numbers.t.set(view.get("snr") ** -0.5);
    numbers.turn.set(10 ** place10.turn);
    numbers.crossing.set(10 ** place10.crossing);
    judge();
  }

  function judge() {
    const order = Object.keys(COLORS).sort((a, b) => cost[a] - cost[b]);
    const [best, next] = order;
    const less = pretty(cost[next] - cost[best], 2);
    const said = {
      memory: `Cheapest: <b>the memory</b>, by ${less} bits. It pays for a number, not for a place.`,
      planes: `Cheapest: <b>the planes</b>, by ${less} bits.`,
      gaussian: `Cheapest: <b>one Gaussian</b>, by ${less} bits.`,
      three: "No code is cheaper yet: at this precision the planes cannot be told from a cloud.",
      two: `<b>The memory is as good as the planes</b>: it has a sample in every cell that this
            precision can tell apart.`,
      rest: "Two codes cost the same here.",
    };
    let state = best;
    if (cost[order[2]] - cost[best] < even) state = "three";
    else if (cost[next] - cost[best] < even) state = order[2] === "gaussian" ? "two" : "rest";
    let text = said[state];
    if (view.get("new") && cost.memory > cost.gaussian + even) {
      text += ` The memory is the worst code for a new sample: even one Gaussian is cheaper.`;
    }
    verdict.innerHTML = text;
    verdict.dataset.state = state;
  }

  // ---- drawing
  const domainX = [Math.log10(LEAST), Math.log10(MOST)];
  const powersOfTen = [-1, 0, 1, 2, 3, 4];
  const showX = (value) => (value < 0 ? String(10 ** value) : (10 ** value).toLocaleString("en-US"));

  function drawCurves() {
    if (!prices.width) return;
    prices.domain(domainX, [0, MOST_BITS]);
    prices.drawAxes({ x: powersOfTen, showX: () => "", y: [0, 8, 16, 24], titleY: "bits per sample" });
    errors.domain(domainX, [0, MOST_POWER]);
    errors.drawAxes({
      x: powersOfTen, showX, y: [0, 1, 2, 3, 4],
      titleX: "signal-to-noise ratio s",
      titleY: "½ s · squared error: bits for each doubling of s",
    });
    const shown = (curve, most) => curve.map((value) => Math.min(value, 3 * most));
    for (const code of Object.keys(COLORS)) {
      place(curves[code], { d: prices.line(decades, shown(bits[codes[code]], MOST_BITS)) });
      place(lines[code], { d: errors.line(decades, shown(powers[codes[code]], MOST_POWER)) });
      drawLabel(code);
    }
    const size = view.get("size");
    const other = bits[`${view.get("new") ? "stored" : "new"} ${size}`];
    place(ghost, { d: prices.line(decades, shown(other, MOST_BITS)) });
    const y = prices.y(Math.log2(size));
    place(level, { x1: prices.x(domainX[0]), x2: prices.x(domainX[1]), y1: y, y2: y });
    place(levelText, { x: prices.x(domainX[0]) + 6, y: y - 5 });
    levelText.textContent = `log₂ ${size.toLocaleString("en-US")} = ${Math.log2(size)} bits`;
    const height = at(bits.gaussian, place10.crossing) + even;
    const seen = view.get("new") && height < MOST_BITS ? "visible" : "hidden";
    place(turn, { d: diamond(place10.turn, Math.log2(size)) });
    place(crossing, { d: diamond(place10.crossing, height), visibility: seen });
  }

  function diamond(x, y) {
    return `M${prices.x(x)},${prices.y(y) - 6}l6,6l-6,6l-6,-6Z`;
  }

  // At the right end of its curve, or beside it where it leaves the picture.
  function drawLabel(code) {
    const curve = bits[codes[code]];
    const end = at(curve, domainX[1]);
    const height = { memory: 0.8, gaussian: 0.93, planes: 1 }[code] * MOST_BITS;
    if (end < height) {
      const below = code === "memory" && end > at(bits.planes, domainX[1]) - 5;
      place(labels[code], { x: prices.x(domainX[1]), y: prices.y(end) + (below ? 18 : -8) });
      return;
    }
    const i = curve.findIndex((value) => value > height);
    const share = (height - curve[i - 1]) / (curve[i] - curve[i - 1]);
    const x = decades[i - 1] + share * (decades[i] - decades[i - 1]);
    const beside = code === "gaussian" ? { x: prices.x(x) + 10, "text-anchor": "start" } : { x: prices.x(x) - 8 };
    place(labels[code], { y: prices.y(height) + 4, ...beside });
  }

  function drawCursor() {
    if (!prices.width) return;
    const now = Math.log10(view.get("snr"));
    for (const [plot, line] of [[prices, cursor], [errors, edge]]) {
      const { top, bottom } = plot.margin;
      place(line, { x1: plot.x(now), x2: plot.x(now), y1: top, y2: plot.height - bottom });
    }
    const xs = [...decades.filter((value) => value < now), now];
    for (const code of Object.keys(COLORS)) {
      const inside = cost[code] <= MOST_BITS;
      place(dots[code], {
        cx: prices.x(now), cy: prices.y(Math.min(cost[code], MOST_BITS)),
        visibility: inside ? "visible" : "hidden",
      });
      const high = xs.map((x) => Math.min(at(powers[codes[code]], x), 3 * MOST_POWER));
      place(areas[code], { d: errors.band(xs, xs.map(() => 0), high) });
    }
  }

  view.watch(["snr", "size", "new"], compute);
  view.watch(["size", "new"], drawCurves);
  view.watch(["snr", "size", "new"], drawCursor);
  for (const plot of [prices, errors]) {
    view.drag(plot.svg, {
      move: (event) => view.put("snr", clamp(10 ** plot.xOf(event), LEAST, MOST)),
    });
  }
  view.onWidth(both, (width) => {
    prices.resize(width, clamp(0.42 * width, 220, 290));
    errors.resize(width, clamp(0.26 * width, 165, 190));
    drawCurves();
    drawCursor();
  });
  return () => view.destroy();
}

export default { render };
