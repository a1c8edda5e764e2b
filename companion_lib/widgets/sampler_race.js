// Two samplers with a perfect denoiser: which of them ends closer to the data, after how many calls?

const MOST_STEPS = 64;
const SIZES = [1, 2, 4, 8, 16, 32, 64]; // steps in the chart of errors
const FITTED = 8; // the slope is fitted to the sizes from here on
const BEAT = 45; // milliseconds of the race for each call of the denoiser
const PARTICLES = 25;
const REACH = 2.6; // the pictures show x from -REACH to REACH

// ---------------------------------------------------------------- processes and their grids

// alpha and sigma at the times of each grid; the state says where grids begin and end.
function levels({ process, grid, steps }, { start, stop, exponent }) {
  const shares = Array.from({ length: steps + 1 }, (_, l) => 1 - l / steps);
  if (grid === "log_snr") return shares.map((_, l) => atRatio(process, ratioAt(l, steps, start, stop)));
  const times = {
    uniform: (u) => (process === "VE" ? start * u : u),
    exponential: (u) => (start * Math.expm1(exponent * u)) / Math.expm1(exponent),
    angle: (u) => Math.sin((Math.PI / 2) * u),
  };
  return shares.map((u) => atTime(process, times[grid](u)));
}

// sigma/alpha: evenly spaced in its logarithm, and zero at the end.
const ratioAt = (l, steps, start, stop) =>
  l === steps ? 0 : start * (stop / start) ** (steps > 1 ? l / (steps - 1) : 0);

function atTime(process, t) {
  if (process === "VE") return [1, t];
  return process === "VP" ? [Math.sqrt((1 - t) * (1 + t)), t] : [1 - t, t];
}

function atRatio(process, ratio) {
  if (process === "VE") return [1, ratio];
  const alpha = process === "VP" ? 1 / Math.hypot(1, ratio) : 1 / (1 + ratio);
  return [alpha, ratio * alpha];
}

// The angle whose tangent is sigma/alpha, in degrees: 90 is noise alone, 0 the data.
const angleOf = ([alpha, sigma]) => (Math.atan2(sigma, alpha) * 180) / Math.PI;

// ---------------------------------------------------------------- the law of the data

class Mixture {
  constructor({ weights, means, variances }) {
    Object.assign(this, { weights, means, variances });
  }

  // E[x | alpha x + sigma g = each of xs] and its derivative there, for two components.
  denoise(xs, [alpha, sigma], mean, slope) {
    const [[w0, w1], [m0, m1], [s0, s1]] = [this.weights, this.means, this.variances];
    const [v0, v1] = [s0, s1].map((variance) => alpha * alpha * variance + sigma * sigma);
    const [c0, c1] = [(alpha * s0) / v0, (alpha * s1) / v1];
    const odds = Math.log(w0 / w1) - Math.log(v0 / v1) / 2;
    for (let i = 0; i < xs.length; i++) {
      const d0 = xs[i] - alpha * m0;
      const d1 = xs[i] - alpha * m1;
      const first = 1 / (1 + Math.exp((d0 * d0) / (2 * v0) - (d1 * d1) / (2 * v1) - odds));
      const one = m0 + c0 * d0;
      const two = m1 + c1 * d1;
      mean[i] = first * one + (1 - first) * two;
      slope[i] =
        first * c0 + (1 - first) * c1 +
        first * (1 - first) * (d1 / v1 - d0 / v0) * (one - two);
    }
  }

  // The density of alpha x + sigma g.
  density(x, alpha = 1, sigma = 0) {
    let sum = 0;
    for (let k = 0; k < 2; k++) {
      const deviation = Math.sqrt(alpha * alpha * this.variances[k] + sigma * sigma);
      sum += (this.weights[k] / deviation) * normal((x - alpha * this.means[k]) / deviation);
    }
    return sum;
  }

  // P(X > x) if side is 1, P(X < x) if it is -1.
  tail(x, side) {
    return this.weights.reduce((sum, weight, k) => {
      const z = (x - this.means[k]) / Math.sqrt(this.variances[k]);
      return sum + weight * upperTail(side * z);
    }, 0);
  }

  // The point with as much of the law below it as a standard normal has below z: Newton's method on
  // the logarithm of the tail, with halving where it would leave the bracket or slows down.
  quantile(z, guess = 0) {
    const side = z > 0 ? 1 : -1;
    const share = upperTail(side * z);
    let [low, high, x, stride] = [-6, 6, guess, 12];
    while (high - low > 1e-14) {
      const tail = this.tail(x, side);
      if (tail > share === side > 0) low = x;
      else high = x;
      const newton = x + (side * Math.log(tail / share) * tail) / this.density(x);
      const usable = newton > low && newton < high && Math.abs(newton - x) < stride / 2;
      const next = usable ? newton : (low + high) / 2;
      stride = Math.abs(next - x);
      x = next;
      if (stride < 1e-14) break;
    }
    return x;
  }
}

const normal = (z) => Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);

// P(N > z) with full relative precision: a power series near zero, a continued fraction beyond.
function upperTail(z) {
  if (z < 0) return 1 - upperTail(-z);
  if (z > 3) {
    let fraction = z;
    for (let k = 40; k > 0; k--) fraction = z + k / fraction;
    return normal(z) / fraction;
  }
  let [term, sum] = [z, z];
  for (let k = 3; term > 1e-17 * sum; k += 2) sum += term *= (z * z) / k;
  return 0.5 - normal(z) * sum;
}

function normalQuantile(share) {
  let [low, high] = [-9, 9];
  for (let i = 0; i < 55; i++) {
    const middle = (low + high) / 2;
    if (upperTail(middle) > 1 - share) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

// ---------------------------------------------------------------- samplers

// Takes noise zs through the noise levels: DDIM, or with order 2 its second-order multistep form.
// Returns where the zs end, the derivatives of that map, and with `keep` every point between.
function sample(law, path, order, zs, keep = false) {
  const n = zs.length;
  const last = path.length - 2;
  const half = path.map(([alpha, sigma]) => Math.log(alpha / sigma)); // half of each log-SNR
  const x = Float64Array.from(zs, (z) => path[0][1] * z);
  const dx = new Float64Array(n).fill(path[0][1]);
  let [mean, slope, before, slopeBefore] = Array.from({ length: 4 }, () => new Float64Array(n));
  const trail = keep ? [x.slice()] : null;
  for (let l = 0; l <= last; l++) {
    law.denoise(x, path[l], mean, slope);
    const shrink = path[l + 1][1] / path[l][1];
    const pull = path[l + 1][0] - shrink * path[l][0];
    const multistep = order === 2 && l > 0 && l < last;
    const more = multistep ? (half[l + 1] - half[l]) / (2 * (half[l] - half[l - 1])) : 0;
    for (let i = 0; i < n; i++) {
      slope[i] *= dx[i];
      const target = mean[i] + (more && more * (mean[i] - before[i]));
      const targetSlope = slope[i] + (more && more * (slope[i] - slopeBefore[i]));
      x[i] = shrink * x[i] + pull * target;
      dx[i] = shrink * dx[i] + pull * targetSlope;
    }
    [mean, before, slope, slopeBefore] = [before, mean, slopeBefore, slope];
    if (keep) trail.push(x.slice());
  }
  return { x, dx, trail };
}

// What the pictures and readouts need of an increasing map from noise to data.
class Judge {
  constructor(law, { points, reach, split }) {
    Object.assign(this, { law, split });
    this.step = (2 * reach) / (points - 1);
    this.zs = Float64Array.from({ length: points }, (_, i) => -reach + i * this.step);
    this.phi = this.zs.map(normal);
    let last = 0;
    this.exact = this.zs.map((z) => (last = law.quantile(z, last)));
  }

  // One minus what the densities of samples and data have in common; at the ends that is nothing.
  totalVariation({ x, dx }) {
    let common = 0;
    for (let i = 0; i < x.length; i++) {
      common += Math.min(this.phi[i], this.law.density(x[i]) * Math.max(dx[i], 0));
    }
    return 1 - common * this.step;
  }

  gap({ x }) {
    return this.phi.reduce((sum, phi, i) => sum + phi * Math.abs(x[i] - this.exact[i]), 0) * this.step;
  }

  // The share of samples below the split between the bumps.
  share({ x }) {
    const after = x.findIndex((value) => value > this.split);
    if (after <= 0) return after ? 1 : 0;
    const part = (this.split - x[after - 1]) / (x[after] - x[after - 1]);
    return upperTail(-(this.zs[after - 1] + part * this.step));
  }
}

// The slope of log TV against log L by least squares.
function fitSlope(errors) {
  const points = SIZES.map((steps, i) => [Math.log(steps), Math.log(errors[i])]).filter(
    (_, i) => SIZES[i] >= FITTED,
  );
  const [mx, my] = [0, 1].map((c) => points.reduce((sum, point) => sum + point[c], 0) / points.length);
  const top = points.reduce((sum, [x, y]) => sum + (x - mx) * (y - my), 0);
  return top / points.reduce((sum, [x]) => sum + (x - mx) ** 2, 0);
}

// About how many steps bring the error down to `goal`, by straight lines in the chart.
function stepsFor(errors, goal) {
  const at = errors.findIndex((error) => error <= goal);
  if (at <= 0) return at ? Infinity : 1;
  const [e0, e1] = [errors[at - 1], errors[at]].map(Math.log);
  return SIZES[at - 1] * 2 ** ((e0 - Math.log(goal)) / (e0 - e1));
}

// ---------------------------------------------------------------- the widget

const PROCESSES = [
  { value: "VE", text: "VE", full: "variance exploding" },
  { value: "VP", text: "VP", full: "variance preserving" },
  { value: "FM", text: "FM", full: "flow matching" },
];
const GRIDS = [
  { value: "uniform", text: "uniform" },
  { value: "exponential", text: "exponential", only: "VE", why: "exponential is for VE, whose time runs over decades" },
  { value: "angle", text: "angle", only: "VP", why: "angle is for VP, where <i>t</i> = sin <i>θ</i>" },
  { value: "log_snr", text: "log-SNR" },
];
const ORDERS = [
  { value: 1, text: "1st order" },
  { value: 2, text: "2nd order" },
];
const COLORS = { a: "blue", b: "orange" };
const fits = (grid, process) => !grid.only || grid.only === process;

// Radio buttons of which some cannot be chosen now; arrow keys pass over those.
function gridChoice(view, name, process, label) {
  const why = h("p", { class: "race-why", id: `race-why-${Math.random().toString(36).slice(2)}` });
  const buttons = GRIDS.map((grid) =>
    h("button", {
      type: "button", role: "radio", "data-value": grid.value,
      onclick: () => fits(grid, view.get(process)) && view.put(name, grid.value),
    }, grid.text),
  );
  view.watch([name, process], () => {
    GRIDS.forEach((grid, i) => {
      const [chosen, open] = [view.get(name) === grid.value, fits(grid, view.get(process))];
      place(buttons[i], { "aria-checked": chosen, tabindex: chosen ? 0 : -1, "aria-disabled": !open });
      if (open) buttons[i].removeAttribute("aria-describedby");
      else place(buttons[i], { "aria-describedby": why.id });
    });
    const closed = GRIDS.filter((grid) => !fits(grid, view.get(process)));
    why.innerHTML = `${closed.map((grid) => grid.why).join("; ")}.`;
  });
  const group = h("div", { class: "choice", role: "radiogroup", "aria-label": label }, ...buttons);
  group.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const open = GRIDS.filter((grid) => fits(grid, view.get(process)));
    const now = open.findIndex(({ value }) => value === view.get(name));
    const next = open[(now + move + open.length) % open.length];
    view.put(name, next.value);
    buttons[GRIDS.indexOf(next)].focus();
  });
  return [group, why];
}

function render({ model, el }) {
  const view = new View(
    { model, el },
    "Sampler race",
    `Two samplers start from the same noise and ask the same perfect denoiser. They differ in when
     they ask and in what they do with the answer. Change one thing at a time, and guess before you
     do: will it end closer to the data?`,
  );
  const { law: parameters, grids, judge: judged } = view.get("data");
  const law = new Mixture(parameters);
  const judge = new Judge(law, judged);
  const particles = Float64Array.from({ length: PARTICLES }, (_, i) =>
    normalQuantile((i + 0.5) / PARTICLES),
  );

  // The points of a trail in the scale in which the noised data have the same paths in every process.
  const scaled = (path, trail) =>
    trail.map((x, l) => x.map((value) => value / Math.hypot(...path[l])));
  const finePath = levels({ process: "VP", grid: "angle", steps: 256 }, grids);
  const flow = {
    angles: finePath.map(angleOf),
    trail: scaled(finePath, sample(law, finePath, 2, particles, true).trail),
  };

  const errors = new Map();
  function errorOf(choice) {
    const key = Object.values(choice).join(" ");
    if (!errors.has(key)) {
      const path = levels(choice, grids);
      errors.set(key, judge.totalVariation(sample(law, path, choice.order, judge.zs)));
    }
    return errors.get(key);
  }

  // ---- one of the two samplers: its controls, its paths, its numbers
  function makeEntry(letter) {
    const traits = ["process", "grid", "order", "steps"].map((name) => `${name}_${letter}`);
    const [process, grid, order, steps] = traits;
    const color = COLORS[letter];
    const name = letter.toUpperCase();
    const plot = new Plot({
      label: `Sampler ${name}: paths of ${PARTICLES} particles from noise to data, and the density of its samples over that of the data`,
      margin: { left: 24, right: 86, top: 22, bottom: 38 },
    });
    const canvas = h("canvas", { role: "img", "aria-label": `Paths of the particles of ${name}` });
    const rug = s("path", { class: "race-rug", stroke: `var(--cw-${color})` });
    const target = s("path", { class: "race-target" });
    const found = s("path", { class: "curve", stroke: `var(--cw-${color})` });
    const strip = s("svg", { overflow: "hidden" });
    const stripText = s("text", { class: "title" }, "density");
    strip.append(target, found);
    plot.svg.append(strip);
    plot.over.append(stripText, rug);

    const percent = (value) => `${(100 * value).toFixed(1)} %`;
    const signed = (value) => (Number.isFinite(value) ? minus(value.toFixed(2)) : "none");
    const numbers = Object.fromEntries(
      [
        ["tv", "total variation", (value) => pretty(value)],
        ["slope", `slope from <i>L</i> = ${FITTED}`, signed],
        ["gap", "error of the map", (value) => pretty(value)],
        ["share", "left bump", percent],
      ].map(([key, label, show]) => [key, view.readout(`${key}_${letter}`, label, show)]),
    );

    const pick = (trait, label, options) => {
      const group = view.choice(trait, label, options);
      place(group, { "data-trait": trait });
      options.forEach(({ value }, i) => place(group.children[i], { "data-value": value }));
      return group;
    };
    const processes = pick(process, `process of ${name}`, PROCESSES);
    PROCESSES.forEach(({ text, full }, i) =>
      place(processes.children[i], { title: full, "aria-label": `${text}, ${full}` }),
    );
    const [gridGroup, why] = gridChoice(view, grid, process, `time grid of ${name}`);
    place(gridGroup, { "data-trait": grid });
    const box = h("div", { class: "race-paths" }, canvas, plot.svg);
    const node = h(
      "div",
      { class: "race-entry", role: "group", "aria-label": `sampler ${name}`, "data-sampler": letter },
      h("div", { class: "race-choices" },
        h("b", { class: `race-name ${color}` }, name),
        processes,
        pick(order, `order of ${name}`, ORDERS),
        gridGroup,
      ),
      why,
      view.slider(steps, {
        label: `calls of the denoiser, <i>L</i>`, speak: `sampler ${name}`,
        min: 1, max: MOST_STEPS, step: 1, show: String,
      }),
      box,
      h("div", { class: "readouts race-readouts" }, ...Object.values(numbers).map(({ node: readout }) => readout)),
    );
    return { letter, name, color, traits, plot, canvas, box, rug, strip, stripText, target, found, numbers, node };
  }

  const entries = ["a", "b"].map(makeEntry);
  const [a, b] = entries;
  const allTraits = entries.flatMap(({ traits }) => traits);

  // ---- the map and the errors
  const map = new Plot({
    label: "The map from noise to data of both samplers, and the exact one",
    margin: { left: 28, right: 10, top: 26, bottom: 40 },
  });
  const exactLine = s("path", { class: "race-exact" });
  map.clip.append(exactLine);
  const chart = new Plot({
    label: "Total variation against the number of calls, both in logarithms",
    margin: { left: 40, right: 12, top: 26, bottom: 40 },
    className: "scrub",
  });
  const guides = [1, 2].map((power) => ({
    power,
    line: s("path", { class: "curve race-guide" }),
    text: s("text", {}, `slope −${power}`),
  }));
  chart.clip.append(...guides.flatMap(({ line, text }) => [line, text]));
  for (const entry of entries) {
    const stroke = `var(--cw-${entry.color})`;
    const dashes = entry === b ? "7 5" : null; // what is below shows through where both agree
    entry.mapLine = s("path", { class: "curve", stroke, "stroke-dasharray": dashes });
    map.clip.append(entry.mapLine);
    entry.errorLine = s("path", { class: "curve", stroke, "stroke-dasharray": dashes });
    entry.beads = s("g", { fill: stroke });
    entry.dot = s("circle", { class: "dot", r: 7, fill: stroke });
    chart.clip.append(entry.errorLine);
  }
  chart.over.append(
    ...entries.flatMap(({ beads, dot }) => [beads, dot]),
  );
  const mapBox = h("div", {}, map.svg);
  const chartBox = h("div", {}, chart.svg);
  const verdict = h("p", { class: "verdict race-verdict", role: "status" });
  const raceButton = view.button("Race", () => (running ? stop() : race()));

  view.root.append(
    h("div", { class: "race-entries" }, a.node, b.node),
    h("div", { class: "race-result" }, raceButton, verdict),
    h("div", { class: "race-plots" }, mapBox, chartBox),
    rich(
      `The data are ${law.weights[0]} <i>N</i>(${minus(String(law.means[0]))}, ${law.variances[0]}) +
       ${law.weights[1]} <i>N</i>(${law.means[1]}, ${law.variances[1]}), whose best denoiser is known:
       there is no network and no sampling error here, only steps. The left bump should get
       ${100 * law.weights[0]} % of the samples. The truth is gray: shading and
       thin lines are the density and the exact flow of the noised data. The angle says how much
       noise there is, tan <i>θ</i> = <i>σ</i>/<i>α</i>, strokes mark the calls of the denoiser, and
       points are divided by √(<i>α</i>² + <i>σ</i>²), so that VE (exploding variance), VP (preserving
       it) and FM (flow matching) can be compared. VE and all log-SNR grids begin at
       <i>σ</i>/<i>α</i> = ${grids.start}, where noise still holds a trace of the data that the start
       ignores: it keeps their error near 0.005 or above. What happens when A and B have log-SNR
       grids and different processes? Drag across the chart of errors to set <i>L</i> for both.`,
      "p", { class: "remark" },
    ),
  );

  // ---- numbers
  function compute(entry) {
    const [process, grid, order, steps] = entry.traits.map((trait) => view.get(trait));
    entry.choice = { process, grid, order, steps };
    const path = levels(entry.choice, grids);
    entry.angles = path.map(angleOf);
    entry.trail = scaled(path, sample(law, path, order, particles, true).trail);
    entry.map = sample(law, path, order, judge.zs);
    entry.errors = SIZES.map((size) => errorOf({ ...entry.choice, steps: size }));
    entry.error = judge.totalVariation(entry.map);
    entry.numbers.tv.set(entry.error);
    entry.numbers.slope.set(fitSlope(entry.errors));
    entry.numbers.gap.set(judge.gap(entry.map));
    entry.numbers.share.set(judge.share(entry.map));
  }

  const calls = (count) => `${count} ${count === 1 ? "call" : "calls"}`;

  function judgeBoth() {
    const [first, second] = a.error <= b.error ? [a, b] : [b, a];
    const same = a.map.x.every((value, i) => Math.abs(value - b.map.x[i]) < 1e-8);
    const ratio = second.error / first.error;
    const spot = ({ color, name }) => `<b class="${color}">${name}</b>`;
    verdict.dataset.winner = same || ratio < 1.01 ? "none" : first.letter;
    if (same) {
      verdict.innerHTML = view.get("process_a") === view.get("process_b")
        ? "A and B are the same sampler."
        : "A and B draw the same samples. At the same log-SNRs the process makes no difference.";
      return;
    }
    const [mine, other] = [first, second].map(({ choice }) => choice.steps);
    if (ratio < 1.01) {
      verdict.innerHTML = `A and B end equally close, after ${calls(view.get("steps_a"))} and ${calls(view.get("steps_b"))}.`;
      return;
    }
    const times = ratio < 1.95 ? `${Math.round(100 * (ratio - 1))} % more error` : `${pretty(ratio, 2)} times the error`;
    const budget = mine === other ? `With ${calls(mine)} each` : `With ${other} against ${calls(mine)}`;
    const needed = stepsFor(second.errors, first.error);
    const need = needed > MOST_STEPS ? `more than ${MOST_STEPS} calls` : `about ${calls(Math.round(needed))}`;
    verdict.innerHTML =
      `${budget}, ${spot(second)} has ${times} of ${spot(first)}. ` +
      `To end as close, ${spot(second)} needs ${need}.`;
  }

  // ---- pictures

  // The grid points that a line through `pointOf` each needs, a hundredth and a half apart.
  function sparse(pointOf) {
    let last = [-Infinity, 0];
    const chosen = [];
    judge.zs.forEach((_, i) => {
      const point = pointOf(i);
      if (Math.abs(point[0] - last[0]) < 0.015 && Math.abs(point[1] - last[1]) < 0.015) return;
      chosen.push(i);
      last = point;
    });
    return chosen;
  }

  let progress = Infinity; // calls made so far, while racing
  let running = 0;

  function drawTruth(entry) {
    const { plot } = entry;
    if (!plot.width) return;
    plot.domain([90, 0], [-REACH, REACH]);
    plot.drawAxes({
      x: [90, 60, 30, 0], y: [-2, -1, 0, 1, 2], showX: (value) => `${value}°`,
      titleX: "noise  →  data", titleY: "x",
    });
    const { left, top, right } = plot.margin;
    const strip = { x: left + plot.innerWidth + 12, y: top, width: right - 14, height: plot.innerHeight };
    place(entry.strip, { ...strip, viewBox: `0 ${top} ${strip.width} ${strip.height}` });
    place(entry.stripText, { x: strip.x, y: top - 8 });
    entry.across = (density) => Math.min(density, 3) * strip.width;
    const xs = Array.from({ length: 161 }, (_, i) => -REACH + (2 * REACH * i) / 160);
    const outline = xs.map((x) => `L${entry.across(law.density(x)).toFixed(2)},${plot.y(x).toFixed(2)}`);
    place(entry.target, { d: `M0,${plot.y(-REACH)}${outline.join("")}L0,${plot.y(REACH)}Z` });
    entry.ground = h("canvas");
    paint(entry.ground, plot.innerWidth, plot.innerHeight, (context) => {
      context.drawImage(shade(plot), 0, 0, plot.innerWidth, plot.innerHeight);
      context.translate(-left, -top);
      context.strokeStyle = view.color("ink");
      context.globalAlpha = 0.35;
      for (let i = 0; i < PARTICLES; i++) trace(context, plot, flow, i, flow.angles.length - 1);
    });
  }

  // The density of the noised data at every angle, one pixel for two on the screen each way.
  function shade(plot) {
    const [width, height] = [plot.innerWidth, plot.innerHeight].map((size) => Math.ceil(size / 2));
    const picture = new ImageData(width, height);
    const [paper, ink] = [rgb(view.color("paper")), rgb(view.color("muted"))];
    for (let column = 0; column < width; column++) {
      const angle = (Math.PI / 2) * (1 - (column + 0.5) / width);
      const [alpha, sigma] = [Math.cos(angle), Math.sin(angle)];
      for (let line = 0; line < height; line++) {
        const x = REACH * (1 - (2 * (line + 0.5)) / height);
        const weight = 0.5 * Math.sqrt(Math.min(1, law.density(x, alpha, sigma) / 0.63));
        const at = 4 * (line * width + column);
        for (let c = 0; c < 3; c++) picture.data[at + c] = paper[c] + weight * (ink[c] - paper[c]);
        picture.data[at + 3] = 255;
      }
    }
    const canvas = h("canvas", { width, height });
    canvas.getContext("2d").putImageData(picture, 0, 0);
    return canvas;
  }

  function drawPaths(entry) {
    const { plot, canvas, angles, trail } = entry;
    if (!plot.width) return;
    const { left, top } = plot.margin;
    Object.assign(canvas.style, { left: `${left}px`, top: `${top}px` });
    const steps = angles.length - 1;
    const now = Math.min(progress, steps);
    paint(canvas, plot.innerWidth, plot.innerHeight, (context) => {
      context.drawImage(entry.ground, 0, 0, plot.innerWidth, plot.innerHeight);
      context.translate(-left, -top);
      context.lineJoin = "round";
      context.lineWidth = 1;
      context.strokeStyle = context.fillStyle = view.color(entry.color);
      context.lineWidth = 1.4;
      for (let i = 0; i < PARTICLES; i++) {
        const [x, y] = trace(context, plot, entry, i, now);
        context.beginPath();
        context.arc(x, y, progress < Infinity ? 2.6 : 1.8, 0, 2 * Math.PI);
        context.fill();
      }
    });
    const bottom = top + plot.innerHeight;
    const made = angles.slice(0, Math.min(steps, Math.floor(now) + 1));
    place(entry.rug, { d: made.map((angle) => `M${plot.x(angle).toFixed(2)},${bottom}v-9`).join("") });
    place(entry.found, { visibility: now < steps ? "hidden" : "visible" });
  }

  // Draws a particle's way up to so many calls; returns where that is.
  function trace(context, plot, { angles, trail }, i, upTo) {
    const whole = Math.floor(upTo);
    context.beginPath();
    let [x, y] = [0, 0];
    for (let l = 0; l <= whole; l++) {
      [x, y] = [plot.x(angles[l]), plot.y(trail[l][i])];
      if (l) context.lineTo(x, y);
      else context.moveTo(x, y);
    }
    if (upTo > whole) {
      const part = upTo - whole;
      x += part * (plot.x(angles[whole + 1]) - x);
      y += part * (plot.y(trail[whole + 1][i]) - y);
      context.lineTo(x, y);
    }
    context.stroke();
    return [x, y];
  }

  function drawDensity(entry) {
    const { plot, across } = entry;
    if (!plot.width) return;
    const { x, dx } = entry.map;
    const seen = sparse((i) => [x[i] * 2, 0]).filter((i) => Math.abs(x[i]) <= REACH);
    const points = seen.map((i) => {
      const density = judge.phi[i] / Math.max(dx[i], 1e-9);
      return `${across(density).toFixed(2)},${plot.y(x[i]).toFixed(2)}`;
    });
    // One step from pure noise ends in a single point, of infinite density.
    const spike = () => `M0,${plot.y(x[0])}H${plot.width}`;
    place(entry.found, { d: points.length > 1 ? `M${points.join("L")}` : spike() });
  }

  function drawMapFrame() {
    map.domain([-3.2, 3.2], [-REACH, REACH + 0.3]);
    map.drawAxes({
      x: [-3, -2, -1, 0, 1, 2, 3], y: [-2, -1, 0, 1, 2],
      titleX: "noise z", titleY: "where z ends; gray: the exact map",
    });
    drawMapLine(exactLine, judge.exact);
  }

  function drawMapLine(line, x) {
    if (!map.width) return;
    const seen = sparse((i) => [judge.zs[i], x[i]]);
    place(line, { d: map.line(seen.map((i) => judge.zs[i]), seen.map((i) => x[i])) });
  }

  const { log2, log10 } = Math;

  function drawChartFrame() {
    chart.domain([-0.25, 6.25], [-3, 0.08]);
    chart.drawAxes({
      x: SIZES.map(log2), y: [0, -1, -2, -3],
      showX: (value) => String(2 ** value), showY: (value) => String(10 ** value),
      titleX: "calls of the denoiser, L", titleY: "total variation",
    });
    for (const { power, line, text } of guides) {
      const at = (x) => log10(0.16) - power * (x - 0.5) * log10(2);
      const [end, named] = power === 1 ? [6, 5.2] : [4.1, 3.1];
      place(line, { d: chart.line([0.5, end], [at(0.5), at(end)]) });
      place(text, { x: chart.x(named) - 6, y: chart.y(at(named)) + 12, "text-anchor": "end" });
    }
  }

  function drawErrors({ errors: found, error, choice, errorLine, beads, dot }) {
    if (!chart.width) return;
    place(errorLine, { d: chart.line(SIZES.map(log2), found.map(log10)) });
    beads.replaceChildren(
      ...SIZES.map((size, i) =>
        s("circle", { cx: chart.x(log2(size)), cy: chart.y(log10(found[i])), r: 3 }),
      ),
    );
    place(dot, { cx: chart.x(log2(choice.steps)), cy: chart.y(log10(error)) });
  }

  // ---- the race
  function race() {
    if (reducedMotion()) return;
    const goal = Math.max(...entries.map(({ choice }) => choice.steps));
    const pace = clamp(BEAT * goal, 900, 2900) / goal;
    let begun = null;
    const tick = (time) => {
      begun ??= time;
      progress = (time - begun) / pace;
      if (progress >= goal) return stop();
      entries.forEach(drawPaths);
      running = requestAnimationFrame(tick);
    };
    raceButton.textContent = "Stop";
    running = requestAnimationFrame(tick);
  }

  function stop() {
    cancelAnimationFrame(running);
    running = 0;
    progress = Infinity;
    raceButton.textContent = "Race";
    entries.forEach(drawPaths);
  }

  // A process takes a grid it does not know back to the uniform one.
  for (const { traits: [process, grid] } of entries) {
    view.watch([process], () => {
      const now = GRIDS.find(({ value }) => value === view.get(grid));
      if (!fits(now, view.get(process))) view.put(grid, "uniform");
    });
  }
  for (const entry of entries) {
    view.watch(entry.traits, () => {
      compute(entry);
      if (running) stop();
      drawDensity(entry);
      drawPaths(entry);
      drawMapLine(entry.mapLine, entry.map.x);
      drawErrors(entry);
    });
  }
  view.watch(allTraits, judgeBoth);
  view.drag(chart.svg, {
    move: (event) => {
      const steps = clamp(Math.round(2 ** chart.xOf(event)), 1, MOST_STEPS);
      view.put("steps_a", steps);
      view.put("steps_b", steps);
    },
  });
  for (const entry of entries) {
    view.onWidth(entry.box, (width) => {
      entry.plot.resize(width, clamp(0.66 * width, 210, 250));
      drawTruth(entry);
      drawDensity(entry);
      drawPaths(entry);
    });
  }
  view.onWidth(mapBox, (width) => {
    map.resize(width, clamp(0.66 * width, 220, 250));
    drawMapFrame();
    for (const entry of entries) drawMapLine(entry.mapLine, entry.map.x);
  });
  view.onWidth(chartBox, (width) => {
    chart.resize(width, clamp(0.66 * width, 220, 250));
    drawChartFrame();
    entries.forEach(drawErrors);
  });
  view.onTheme(() => {
    entries.forEach(drawTruth);
    entries.forEach(drawPaths);
  });
  return () => {
    cancelAnimationFrame(running);
    view.destroy();
  };
}

export default { render };
