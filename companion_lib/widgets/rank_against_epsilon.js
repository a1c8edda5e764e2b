// The rank that makes ΔR largest against ε, and what the best representation looks like.

const SIDE = 43; // samples per class in the picture of cosines; a prime, see `shuffled`
const LEAST = 0.25;
const MOST = 5;

// ΔR in bits per sample of k orthogonal classes of rank r, with all singular values equal.
function gain(r, { k, d }, eps) {
  const x = d / (r * eps * eps);
  return (r / (2 * Math.LN2)) * (k * Math.log1p(x / k) - Math.log1p(x));
}

const fullRank = ({ k, d }) => Math.floor(d / k);

const allRanks = (sizes) => Array.from({ length: fullRank(sizes) }, (_, i) => i + 1);

function bestRank(sizes, eps) {
  const gains = allRanks(sizes).map((r) => gain(r, sizes, eps));
  return gains.indexOf(Math.max(...gains)) + 1;
}

// Where a function changes from positive to negative, by halving in the logarithm.
function root(falling, low, high) {
  for (let i = 0; i < 60; i++) {
    const middle = Math.sqrt(low * high);
    if (falling(middle) > 0) low = middle;
    else high = middle;
  }
  return low;
}

// The largest ε at which rank r is better than r - 1.
const lastEps = (r, sizes) =>
  root((eps) => gain(r, sizes, eps) - gain(r - 1, sizes, eps), 0.1, 10);

// Without the bound d/k, and for r of any size, the best r is d/(x ε²) with this x.
const bestRatio = (k) =>
  root((x) => x / (1 + x / k) - x / (1 + x) - k * Math.log1p(x / k) + Math.log1p(x), 0.1, 100);

// The cosine of two samples of a class of rank r: sines and cosines of r/2 frequencies, and a
// constant if r is odd, make samples of unit length and r equal singular values.
function cosine(steps, r) {
  let value = r % 2;
  for (let j = 1; j <= Math.floor(r / 2); j++) value += 2 * Math.cos((2 * Math.PI * j * steps) / SIDE);
  return value / r;
}

// The order of samples: inverses modulo a prime, so that neighbors are not alike.
function shuffled() {
  return Array.from({ length: SIDE }, (_, i) => {
    for (let j = 1; j < SIDE; j++) if ((i * j) % SIDE === 1) return j;
    return 0;
  });
}

function render({ model, el }) {
  const view = new View(
    { model, el },
    "Rank against ε",
    `Turn <i>ε</i> up until classes lose dimensions. Then guess: when <i>ε</i> doubles from there,
     what share of its dimensions does a class keep?`,
  );
  const order = shuffled();
  let sizes, best;

  // ---- ΔR against the rank
  const plot = new Plot({
    label: "Rate reduction against the rank of each class",
    margin: { left: 36, right: 12, top: 26, bottom: 40 },
  });
  const curve = s("path", { class: "curve", stroke: "var(--cw-purple)" });
  const beads = s("g", { fill: "var(--cw-purple)" });
  const top = s("circle", { class: "dot", r: 7, fill: "var(--cw-purple)" });
  const topText = s("text", { class: "strong halo" });
  plot.clip.append(curve);
  plot.over.append(beads, top, topText);

  // ---- the best rank against ε
  const stairs = new Plot({
    label: "Best rank against epsilon, a staircase that falls",
    margin: { left: 36, right: 12, top: 26, bottom: 40 },
    className: "scrub",
  });
  const room = s("path", { class: "stairs-area" });
  const law = s("path", { class: "curve", stroke: "var(--cw-muted)", "stroke-dasharray": "4 4" });
  const steps = s("path", { class: "curve", stroke: "var(--cw-blue)" });
  const lawText = s("text", { "text-anchor": "end" }, "dashed: ∝ 1/ε²");
  const cursor = s("line", { class: "cursor" });
  const dot = s("circle", { class: "dot", r: 7, fill: "var(--cw-blue)" });
  const limit = s("path", { class: "dot", fill: "var(--cw-green)" });
  const limitText = s("text", { class: "strong halo" });
  stairs.clip.append(room, law, steps);
  stairs.over.append(cursor, lawText, limit, limitText, dot);

  // ---- the representation
  const spectrum = new Plot({
    label: "Singular values of each class at the best rank",
    margin: { left: 36, right: 12, top: 26, bottom: 24 },
  });
  const slots = s("g", { class: "slots" });
  const names = s("g");
  spectrum.over.append(slots, names);
  const canvas = h("canvas", { class: "cosines", role: "img" });

  const numbers = {
    best_rank: view.readout("best_rank", `<span class="blue">best rank</span>`, String),
    best: view.readout("best", `with Δ<i>R</i>`, (value) => `${pretty(value)} bits`),
    full_rank: view.readout("full_rank", "full rank", String),
    full: view.readout("full", `with Δ<i>R</i>`, (value) => `${pretty(value)} bits`),
    full_rank_eps: view.readout("full_rank_eps", `<span class="green">the best up to</span> <i>ε</i> =`),
    singular_value: view.readout("singular_value", "singular values", (value) => `${pretty(value)} √nₖ`),
    free_rank: view.readout("free_rank", "with room to spare, 1/<i>ε</i>² (dashed)"),
  };
  const together = (...names) =>
    h("span", { class: "pair" }, ...names.map((name) => numbers[name].node));

  const left = h("div", {}, plot.svg);
  const right = h("div", {}, stairs.svg);
  const below = h("div", {}, spectrum.svg);
  view.root.append(
    h(
      "div",
      { class: "controls" },
      view.slider("eps", {
        label: "precision <i>ε</i>", speak: "epsilon", min: LEAST, max: MOST,
        step: Math.log10(MOST / LEAST) / 260, log: true,
      }),
      view.slider("k", { label: "number of classes <i>K</i>", min: 2, max: 10, step: 1, show: String }),
      view.slider("d", { label: "dimension <i>d</i>", min: 4, max: 64, step: 1, show: String }),
    ),
    h("div", { class: "pair-of-plots" }, left, right),
    h(
      "div",
      { class: "representation" },
      below,
      h("figure", {}, canvas, rich("|cosines| between samples", "figcaption")),
    ),
    h(
      "div",
      { class: "readouts" },
      together("best_rank", "best"),
      together("full_rank", "full"),
      numbers.full_rank_eps.node,
      numbers.singular_value.node,
      numbers.free_rank.node,
    ),
    rich(
      `The classes are orthogonal, equally large and of unit mean square length, so at <i>ε</i> = 1
       the allowed error is as large as the signal. Up to about there each class takes all the room
       there is, <i>d</i>/<i>K</i> dimensions. Beyond, the best rank follows 1/<i>ε</i>²: twice the
       <i>ε</i> leaves a quarter of the dimensions, until each class is a line and its samples
       differ only in sign.`,
      "p", { class: "remark" },
    ),
  );

  // ---- drawing
  function compute() {
    sizes = { k: view.get("k"), d: view.get("d") };
    const eps = view.get("eps");
    best = bestRank(sizes, eps);
    const full = fullRank(sizes);
    numbers.best_rank.set(best);
    numbers.best.set(gain(best, sizes, eps));
    numbers.full_rank.set(full);
    numbers.full.set(gain(full, sizes, eps));
    numbers.full_rank_eps.set(full === 1 ? Infinity : lastEps(full, sizes));
    numbers.singular_value.set(1 / Math.sqrt(best));
    numbers.free_rank.set(sizes.d / (bestRatio(sizes.k) * eps * eps));
  }

  const whole = (low, high, count) => ticks(low, high, count).filter(Number.isInteger);

  function drawCurve() {
    if (!plot.width) return;
    const eps = view.get("eps");
    const ranks = allRanks(sizes);
    const gains = ranks.map((r) => gain(r, sizes, eps));
    const full = ranks.length;
    const high = 1.18 * Math.max(...gains);
    plot.domain([Math.min(0.5, 1 - 0.04 * full), full + Math.max(0.5, 0.04 * full)], [0, high]);
    plot.drawAxes({
      x: full <= 10 ? ranks : whole(1, full, 6),
      y: ticks(0, high, 4),
      titleX: "rank of each class",
      titleY: "ΔR, bits per sample",
    });
    place(curve, { d: plot.line(ranks, gains) });
    beads.replaceChildren(
      ...ranks.map((r, i) => s("circle", { cx: plot.x(r), cy: plot.y(gains[i]), r: full > 16 ? 2.5 : 3.5 })),
    );
    const [x, y] = [plot.x(best), plot.y(gains[best - 1])];
    place(top, { cx: x, cy: y });
    const late = x > plot.width / 2;
    place(topText, { x: x + (late ? 8 : -6), y: y - 12, "text-anchor": late ? "end" : "start" });
    topText.textContent = `best: ${best}`;
  }

  function drawStairs() {
    if (!stairs.width) return;
    const full = fullRank(sizes);
    stairs.domain([Math.log10(LEAST), Math.log10(MOST)], [0, full * 1.15]);
    stairs.drawAxes({
      x: [0.25, 0.5, 1, 2, 4].map(Math.log10),
      showX: (value) => String(Number((10 ** value).toFixed(2))),
      y: whole(0, full, 4),
      titleX: "precision ε",
      titleY: "best rank",
    });
    const [xs, ys] = [[Math.log10(LEAST)], [full]];
    for (let r = full; r > 1; r--) {
      const at = Math.log10(lastEps(r, sizes));
      xs.push(at, at);
      ys.push(r, r - 1);
    }
    xs.push(Math.log10(MOST));
    ys.push(1);
    place(steps, { d: stairs.line(xs, ys) });
    place(room, { d: stairs.band(xs, xs.map(() => 0), ys) });
    const ratio = sizes.d / bestRatio(sizes.k);
    const along = Array.from({ length: 61 }, (_, i) => xs[0] + ((xs.at(-1) - xs[0]) * i) / 60);
    place(law, { d: stairs.line(along, along.map((at) => ratio / 10 ** (2 * at))) });
    place(lawText, { x: stairs.x(Math.log10(MOST)), y: stairs.y(Math.max(0.45 * full, 1.2)) });
    const marked = full > 1 ? "visible" : "hidden";
    const [x, y] = [stairs.x(xs[1] ?? 0), stairs.y(full)];
    place(limit, { d: `M${x},${y - 7}l7,7l-7,7l-7,-7Z`, visibility: marked });
    place(limitText, { x: x + 12, y: y - 4, visibility: marked });
    limitText.textContent = `full rank up to ${pretty(10 ** xs[1], 2)}`;
  }

  function drawCursor() {
    if (!stairs.width) return;
    const x = stairs.x(Math.log10(view.get("eps")));
    const { top: high, bottom } = stairs.margin;
    place(cursor, { x1: x, x2: x, y1: high, y2: stairs.height - bottom });
    place(dot, { cx: x, cy: stairs.y(best) });
  }

  function drawSpectrum() {
    if (!spectrum.width) return;
    const { k } = sizes;
    const full = fullRank(sizes);
    spectrum.domain([0, k], [0, 1.05]);
    spectrum.drawAxes({ y: [0, 0.5, 1], titleY: "singular values of each class, divided by √nₖ" });
    const width = (0.86 * spectrum.innerWidth) / k / full;
    const height = 1 / Math.sqrt(best);
    const parts = [];
    const labels = [];
    for (let c = 0; c < k; c++) {
      for (let r = 0; r < full; r++) {
        const used = r < best;
        const y = spectrum.y(used ? height : 0.012);
        parts.push(
          s("rect", {
            x: spectrum.x(c + 0.07) + r * width, y,
            width: Math.max(1, width - (width > 4 ? 1.5 : 0.5)), height: spectrum.y(0) - y,
            class: used ? "used" : "empty",
          }),
        );
      }
      const text = spectrum.innerWidth / k > 52 ? `class ${c + 1}` : String(c + 1);
      labels.push(
        s("text", { x: spectrum.x(c + 0.5), y: spectrum.y(0) + 16, "text-anchor": "middle" }, text),
      );
    }
    slots.replaceChildren(...parts);
    names.replaceChildren(...labels);
  }

  function drawCosines() {
    const side = sizes.k * SIDE;
    const [paper, ink] = [rgb(view.color("paper")), rgb(view.color("blue"))];
    const table = Array.from({ length: SIDE }, (_, steps) => Math.abs(cosine(steps, best)));
    place(canvas, {
      width: side, height: side,
      "aria-label": `Cosines between samples: ${sizes.k} blocks of rank ${best}, zero outside`,
    });
    const context = canvas.getContext("2d");
    const picture = context.createImageData(side, side);
    for (let i = 0; i < side; i++) {
      for (let j = 0; j < side; j++) {
        const same = Math.floor(i / SIDE) === Math.floor(j / SIDE);
        const steps = Math.abs(order[i % SIDE] - order[j % SIDE]);
        const value = same ? table[steps] : 0;
        const at = 4 * (i * side + j);
        for (let c = 0; c < 3; c++) picture.data[at + c] = paper[c] + value * (ink[c] - paper[c]);
        picture.data[at + 3] = 255;
      }
    }
    context.putImageData(picture, 0, 0);
  }

  // Each class needs a dimension: the slider that was moved takes the other one along.
  view.watch(["k"], () => view.get("k") > view.get("d") && view.put("d", view.get("k")));
  view.watch(["d"], () => view.get("k") > view.get("d") && view.put("k", view.get("d")));
  view.watch(["eps", "k", "d"], compute);
  view.watch(["k", "d"], drawStairs);
  view.watch(["eps", "k", "d"], () => {
    drawCurve();
    drawCursor();
    drawSpectrum();
    drawCosines();
  });
  view.drag(stairs.svg, {
    move: (event) => view.put("eps", clamp(10 ** stairs.xOf(event), LEAST, MOST)),
  });
  view.onWidth(left, (width) => {
    plot.resize(width, clamp(0.58 * width, 190, 230));
    drawCurve();
  });
  view.onWidth(right, (width) => {
    stairs.resize(width, clamp(0.58 * width, 190, 230));
    drawStairs();
    drawCursor();
  });
  view.onWidth(below, (width) => {
    spectrum.resize(width, clamp(0.45 * width, 160, 190));
    drawSpectrum();
  });
  view.onTheme(drawCosines);
  return () => view.destroy();
}

export default { render };
