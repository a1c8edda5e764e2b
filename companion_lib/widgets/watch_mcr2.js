// One network trained twice, epoch by epoch: who is close to whom, what it costs, how many directions.

const KEPT = 16; // singular values of each class
const EASE = 200; // milliseconds from one picture to the next
const BEAT = 450; // and from one epoch to the next when playing

// Mean |cosine| over pairs of the same class and of different ones.
function meanSizes(cosines, labels) {
  const sums = { within: 0, between: 0 };
  const counts = { within: 0, between: 0 };
  let at = 0;
  for (let i = 0; i < labels.length; i++) {
    for (let j = i + 1; j < labels.length; j++) {
      const name = labels[i] === labels[j] ? "within" : "between";
      sums[name] += Math.abs(cosines[at++]);
      counts[name] += 1;
    }
  }
  return { within: sums.within / counts.within, between: sums.between / counts.between };
}

// (Σσ²)² / Σσ⁴ of singular values whose squares sum to one.
const effectiveRank = (sigmas) => 1 / sigmas.reduce((sum, sigma) => sum + sigma ** 4, 0);

const article = (label) => (label === 8 ? "an" : "a");

function render({ model, el }) {
  const view = new View(
    { model, el },
    "Watch MCR² train",
    `One network, trained twice from the same start: to maximize the rate reduction Δ<i>R</i>, and
     to minimize cross entropy. How many directions will each leave to a class? Predict, then play
     both.`,
  );
  const stored = view.get("data");
  const { epochs, labels } = stored;
  const m = labels.length;
  const k = labels.at(-1) + 1;
  const last = epochs.length - 1;
  const pairs = (m * (m - 1)) / 2;
  const images = unpack(stored.images);
  const side = Math.round(Math.sqrt(images.shape[1]));
  const bound = stored.bound / Math.LN2;
  const trainings = stored.trainings.map(({ rates, spectra, cosines }) => {
    const [spectraValues, cosineValues] = [unpack(spectra).values, unpack(cosines).values];
    return epochs.map((_, at) => {
      const [rate, apart] = rates[at].map((nats) => nats / Math.LN2);
      const sigmas = spectraValues.subarray(at * k * KEPT, (at + 1) * k * KEPT);
      const own = Array.from({ length: k }, (_, c) => sigmas.subarray(c * KEPT, (c + 1) * KEPT));
      const seen = cosineValues.subarray(at * pairs, (at + 1) * pairs);
      const ranks = own.map(effectiveRank);
      return {
        rate, apart, reduction: rate - apart, sigmas, ranks, cosines: seen,
        rank: ranks.reduce((sum, rank) => sum + rank, 0) / k,
        ...meanSizes(seen, labels),
      };
    });
  });
  const training = () => trainings[Number(view.get("collapse"))];
  const now = () => training()[view.get("snapshot")];
  // Where the cosine of samples i ≠ j is stored.
  const pairAt = (i, j) => {
    const [a, b] = i < j ? [i, j] : [j, i];
    return a * m - (a * (a + 1)) / 2 + b - a - 1;
  };

  // ---- the cosines
  const heat = new Plot({
    label: `Cosines of ${m} test samples, sorted by class; arrow keys choose a pair`,
    margin: { left: 20, right: 1, top: 20, bottom: 1 },
    className: "pick",
  });
  place(heat.svg, { tabindex: 0 });
  const heatPicture = h("canvas", { class: "net", width: m, height: m, "aria-hidden": "true" });
  const ring = s("circle", { class: "ring", r: 6 });
  const halo = s("circle", { class: "ring halo", r: 6 });
  heat.over.append(halo, ring);
  const heatBox = h("div", { class: "net-box" }, heatPicture, heat.svg);

  // ---- the pair under the pointer
  const faces = [0, 1].map(() =>
    h("canvas", { class: "face", width: side, height: side, "aria-hidden": "true" }),
  );
  const pairText = h("p", { role: "status" });
  const pair = h("div", { class: "pair-panel" }, ...faces, pairText);

  // ---- the rates
  const plot = new Plot({
    label: "Rates of the training features in bits per sample, over the epochs",
    margin: { left: 34, right: 34, top: 26, bottom: 38 },
    className: "scrub",
  });
  const kinds = [
    { name: "rate", color: "purple", text: "R" },
    { name: "apart", color: "orange", text: "Rᶜ" },
    { name: "reduction", color: "blue", text: "ΔR" },
  ];
  const boundLine = s("path", { class: "curve", stroke: "var(--cw-green)", "stroke-dasharray": "7 3" });
  const boundText = s("text", { class: "strong" }, "bound on ΔR");
  const other = s("path", { class: "curve", stroke: "var(--cw-muted)", "stroke-dasharray": "4 4" });
  const otherText = s("text", { "text-anchor": "end" });
  plot.clip.append(boundLine, other);
  const cursor = s("line", { class: "cursor" });
  plot.over.append(boundText, otherText, cursor);
  for (const kind of kinds) {
    kind.line = s("path", { class: "curve", stroke: `var(--cw-${kind.color})` });
    kind.label = s("text", { class: "strong" }, kind.text);
    kind.dot = s("circle", { class: "dot", r: 6, fill: `var(--cw-${kind.color})` });
    plot.clip.append(kind.line);
    plot.over.append(kind.label, kind.dot);
  }
  const ratesBox = h("div", {}, plot.svg);

  // ---- the spectra
  const spectra = s("svg", {
    class: "plot", role: "img", "aria-label": "Singular values of the training features of each class",
  });
  const cells = Array.from({ length: k }, (_, label) => ({
    bars: s("path", { fill: "var(--cw-blue)" }),
    base: s("line", { class: "base" }),
    ideal: s("path", { class: "curve", stroke: "var(--cw-green)", "stroke-dasharray": "5 3" }),
    name: s("text", { class: "strong" }, String(label)),
    rank: s("text"),
  }));
  for (const cell of cells) spectra.append(cell.bars, cell.base, cell.ideal, cell.name, cell.rank);
  const spectraBox = h("div", { class: "board" }, spectra);

  const tenth = (value) => minus(value.toFixed(1));
  const hundredth = (value) => value.toFixed(2);
  const numbers = Object.fromEntries(
    [
      ["rate", `<span class="purple"><i>R</i>, all together</span>`, tenth],
      ["apart", `<span class="orange"><i>R</i>ᶜ, class by class</span>`, tenth],
      ["reduction", `<span class="blue">Δ<i>R</i></span>`, tenth],
      ["bound", `<span class="green">its bound</span>`, tenth],
      ["within", "mean |cosine| in a class", hundredth],
      ["between", "between classes", hundredth],
      ["rank", "mean effective rank", tenth],
    ].map(([name, label, show]) => [name, view.readout(name, label, show)]),
  );
  numbers.bound.set(bound);
  const pick = (...names) => names.map((name) => numbers[name].node);
  const play = view.button("Play", () => run());

  view.root.append(
    h(
      "div",
      { class: "toolbar" },
      view.choice("collapse", "what the network is trained for", [
        { value: false, text: "rate reduction" },
        { value: true, text: "cross entropy" },
      ]),
      play,
    ),
    h(
      "div",
      { class: "controls" },
      view.slider("snapshot", {
        label: "epoch", min: 0, max: last, step: 1, show: (at) => String(epochs[at]),
      }),
    ),
    h("div", { class: "two watch" }, heatBox, h("div", { class: "panel-right" }, ratesBox, pair)),
    h("div", { class: "readouts" }, h("span", { class: "readout" }, "bits per sample:"), ...pick("rate", "apart", "reduction", "bound")),
    spectraBox,
    h("div", { class: "readouts" }, ...pick("rank", "within", "between")),
    rich(
      `The square holds |cosines| of ${m} test samples, from <b>0</b> (blank) to <b>1</b>; point at it
       to see which. Each small picture has the ${KEPT} largest singular values of one class of
       training features, and their effective rank (Σ<i>σ</i>²)² / Σ<i>σ</i>⁴. Dashed in green, the
       optimum of rate reduction: orthogonal classes, each with its energy spread evenly over
       ${pretty(stored.rank, 2)} directions on average over the classes. Cross entropy only has to tell classes apart, and one
       direction each will do: neural collapse.`,
      "p", { class: "remark" },
    ),
  );

  // ---- numbers
  function count() {
    const state = now();
    for (const name of ["rate", "apart", "reduction", "within", "between", "rank"]) {
      numbers[name].set(state[name]);
    }
  }

  // ---- pictures that glide from one epoch to the next: cosines, then singular values
  let drawn = null;
  let gliding = 0;

  function glide() {
    const { cosines, sigmas } = now();
    const target = Float64Array.from([...cosines, ...sigmas]);
    cancelAnimationFrame(gliding);
    if (!drawn || reducedMotion()) {
      drawn = target;
      drawGliding();
      return;
    }
    const from = drawn;
    let begun = null;
    const tick = (time) => {
      begun ??= time;
      const share = clamp((time - begun) / EASE, 0, 1);
      const weight = share * share * (3 - 2 * share);
      drawn = from.map((value, at) => value + weight * (target[at] - value));
      drawGliding();
      if (share < 1) gliding = requestAnimationFrame(tick);
    };
    gliding = requestAnimationFrame(tick);
  }

  function drawGliding() {
    drawHeat();
    drawBars();
  }

  function drawHeat() {
    const [paper, full] = [rgb(view.color("paper")), rgb(view.color("blue"))];
    const context = heatPicture.getContext("2d");
    const picture = context.createImageData(m, m);
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < m; j++) {
        const size = i === j ? 1 : Math.abs(drawn[pairAt(i, j)]);
        const at = 4 * (i * m + j);
        for (let c = 0; c < 3; c++) picture.data[at + c] = paper[c] + size * (full[c] - paper[c]);
        picture.data[at + 3] = 255;
      }
    }
    context.putImageData(picture, 0, 0);
  }

  function frameHeat() {
    if (!heat.width) return;
    heat.domain([0, m], [m, 0]);
    const { left, top } = heat.margin;
    Object.assign(heatPicture.style, {
      left: `${left}px`, top: `${top}px`, width: `${heat.innerWidth}px`, height: `${heat.innerHeight}px`,
    });
    const names = Array.from({ length: k }, (_, label) => {
      const middle = labels.indexOf(label) + labels.filter((l) => l === label).length / 2;
      return [
        s("text", { x: heat.x(middle), y: top - 7, "text-anchor": "middle" }, String(label)),
        s("text", { x: left - 7, y: heat.y(middle) + 4, "text-anchor": "end" }, String(label)),
      ];
    });
    const frame = { class: "frame", x: left, y: top, width: heat.innerWidth, height: heat.innerHeight };
    heat.axes.replaceChildren(...names.flat(), s("rect", frame));
  }

  let cellSize = [0, 0];
  let columns = 1;

  function frameSpectra(width) {
    columns = width < 560 ? Math.ceil(k / 2) : k;
    const rows = Math.ceil(k / columns);
    cellSize = [width / columns, 108];
    const height = rows * cellSize[1];
    place(spectra, { width, height, viewBox: `0 0 ${width} ${height}` });
    cells.forEach(({ base, ideal, name, rank }, c) => {
      const { left, right, bottom, y } = cellBox(c);
      place(base, { x1: left, x2: right, y1: bottom, y2: bottom });
      place(name, { x: left, y: bottom - 86 });
      place(rank, { x: left + 15, y: bottom - 86 });
      const end = left + (stored.rank / KEPT) * (right - left);
      const level = y(1 / Math.sqrt(stored.rank));
      place(ideal, { d: `M${left},${level}H${end}V${bottom}` });
    });
    if (drawn) drawBars();
  }

  function cellBox(c) {
    const [width, height] = cellSize;
    const left = (c % columns) * width + 5;
    const bottom = Math.floor(c / columns) * height + height - 6;
    return { left, right: left + width - 10, bottom, y: (sigma) => bottom - 78 * sigma };
  }

  function drawBars() {
    if (!cellSize[0]) return;
    cells.forEach(({ bars, rank }, c) => {
      const { left, right, bottom, y } = cellBox(c);
      const step = (right - left) / KEPT;
      const from = pairs + c * KEPT;
      const path = Array.from(drawn.subarray(from, from + KEPT), (sigma, i) => {
        const x = left + i * step;
        return `M${x.toFixed(2)},${bottom}V${y(sigma).toFixed(2)}h${(0.8 * step).toFixed(2)}V${bottom}Z`;
      });
      place(bars, { d: path.join("") });
      rank.textContent = `${cellSize[0] > 64 ? "rank " : ""}${tenth(now().ranks[c])}`;
    });
  }

  // ---- rates
  const places = epochs.map((epoch) => Math.log1p(epoch));

  function drawRates() {
    if (!plot.width) return;
    const states = training();
    const highest = Math.max(bound, ...trainings.flat().map(({ rate }) => rate));
    plot.domain([0, places[last]], [0, 1.05 * highest]);
    const end = epochs[last];
    const marks = [0, 1, 3, 10, 30, 100, 300, 1000].filter((epoch) => epoch < 0.7 * end);
    plot.drawAxes({
      x: [...marks, end].map(Math.log1p),
      y: ticks(0, highest, 4),
      showX: (value) => String(Math.round(Math.expm1(value))),
      titleX: "epoch",
      titleY: "bits per sample",
    });
    place(boundLine, { d: plot.line([0, places[last]], [bound, bound]) });
    place(boundText, { x: plot.margin.left + 6, y: plot.y(bound) - 6 });
    const collapse = view.get("collapse");
    const reductions = trainings[Number(!collapse)].map(({ reduction }) => reduction);
    place(other, { d: plot.line(places, reductions) });
    otherText.textContent = `ΔR, trained for ${collapse ? "rate reduction" : "cross entropy"}`;
    // Above a curve that climbs, below one that stays low.
    const level = collapse ? reductions[last] : Math.min(...reductions.slice(last / 2));
    const y = plot.y(level) + (collapse ? -12 : 14);
    place(otherText, { x: plot.x(places[last]) - 4, y });
    const ends = kinds.map((kind) => {
      place(kind.line, { d: plot.line(places, states.map((state) => state[kind.name])) });
      return { kind, y: plot.y(states[last][kind.name]) + 4 };
    });
    ends.sort((one, next) => one.y - next.y);
    ends.forEach(({ kind, y }, i) => {
      if (i > 0) ends[i].y = Math.max(y, ends[i - 1].y + 13);
      place(kind.label, { x: plot.width - plot.margin.right + 9, y: ends[i].y });
    });
  }

  function drawEpoch() {
    if (!plot.width) return;
    const x = plot.x(places[view.get("snapshot")]);
    const { top } = plot.margin;
    place(cursor, { x1: x, x2: x, y1: top, y2: top + plot.innerHeight });
    for (const { name, dot } of kinds) place(dot, { cx: x, cy: plot.y(now()[name]) });
  }

  // ---- the pair
  let chosen = [labels.indexOf(3), labels.indexOf(8)].map((at) => Math.max(at, 0));

  function drawPair() {
    const [paper, ink] = [rgb(view.color("paper")), rgb(view.color("ink"))];
    chosen.forEach((sample, at) => {
      const context = faces[at].getContext("2d");
      const picture = context.createImageData(side, side);
      for (let p = 0; p < side * side; p++) {
        const value = clamp(images.values[sample * side * side + p], 0, 1);
        for (let c = 0; c < 3; c++) picture.data[4 * p + c] = paper[c] + value * (ink[c] - paper[c]);
        picture.data[4 * p + 3] = 255;
      }
      context.putImageData(picture, 0, 0);
    });
    const [i, j] = chosen;
    const cosine = i === j ? 1 : now().cosines[pairAt(i, j)];
    const [one, two] = chosen.map((sample) => labels[sample]);
    const names = i === j ? `${article(one)} ${one} and itself` : `${article(one)} ${one} and ${article(two)} ${two}`;
    pairText.replaceChildren(
      names, h("br"), "cosine ", h("b", {}, minus(cosine.toFixed(2))),
    );
    if (!heat.width) return;
    for (const circle of [halo, ring]) {
      place(circle, { cx: heat.x(j + 0.5), cy: heat.y(i + 0.5) });
    }
  }

  function point(event) {
    const box = heat.svg.getBoundingClientRect();
    const { left, top } = heat.margin;
    const column = Math.floor(((event.clientX - box.left - left) / heat.innerWidth) * m);
    const row = Math.floor(((event.clientY - box.top - top) / heat.innerHeight) * m);
    chosen = [clamp(row, 0, m - 1), clamp(column, 0, m - 1)];
    soon();
  }
  const soon = oncePerFrame(drawPair);

  // ---- moving
  let running = 0;

  function stop() {
    clearInterval(running);
    running = 0;
    play.textContent = "Play";
  }

  function run() {
    if (running) return stop();
    if (reducedMotion()) return view.put("snapshot", last);
    if (view.get("snapshot") === last) view.put("snapshot", 0);
    play.textContent = "Pause";
    running = setInterval(() => {
      const next = view.get("snapshot") + 1;
      view.put("snapshot", Math.min(next, last));
      if (next >= last) stop();
    }, BEAT);
  }

  const both = ["snapshot", "collapse"];
  view.watch(both, count);
  view.watch(both, glide);
  view.watch(["collapse"], drawRates);
  view.watch(both, drawEpoch);
  view.watch(both, drawPair);
  view.root.querySelector("input[type=range]").addEventListener("input", stop);
  view.drag(plot.svg, {
    start: stop,
    move: (event) => {
      const at = plot.xOf(event);
      const distances = places.map((place) => Math.abs(place - at));
      view.put("snapshot", distances.indexOf(Math.min(...distances)));
    },
  });
  view.listen(heat.svg, "pointermove", point);
  view.listen(heat.svg, "pointerdown", point);
  view.listen(heat.svg, "keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (!step[event.key]) return;
    event.preventDefault();
    chosen = chosen.map((at, axis) => clamp(at + step[event.key][axis], 0, m - 1));
    drawPair();
  });
  view.onWidth(heatBox, (width) => {
    heat.resize(width, width);
    frameHeat();
    drawPair();
  });
  view.onWidth(ratesBox, (width) => {
    plot.resize(width, 250);
    drawRates();
    drawEpoch();
  });
  view.onWidth(spectraBox, frameSpectra);
  view.onTheme(() => {
    drawHeat();
    drawPair();
  });
  return () => {
    stop();
    cancelAnimationFrame(gliding);
    view.destroy();
  };
}

export default { render };
