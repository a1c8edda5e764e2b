// A mixture of three Gaussians under noise: its density, the way back, and what both do to entropy.

const LEAST = 0.05;
const MOST = 10;
const FINE = 0.5; // spacing of the quadrature, in smallest standard deviations
const COARSE = 0.8; // the same for the curve, which is only looked at
const PIXELS = 150; // of the heat map along a side
const GROWTH = 4; // the first step back is about exp(4) times as long as the last
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

const bits = (nats) => nats / Math.LN2;

// ---------------------------------------------------------------- the mixture under noise

// Each component of x + t g: its mean, the inverse of its covariance, and log(weight × peak).
function noisy({ means, factors }, t) {
  return means.map(([x, y], k) => {
    const [[a, b], [c, d]] = factors[k];
    const [xx, xy, yy] = [a * a + b * b + t * t, a * c + b * d, c * c + d * d + t * t];
    const det = xx * yy - xy * xy;
    return {
      x, y, xx, xy, yy,
      ixx: yy / det, ixy: -xy / det, iyy: xx / det,
      log: -Math.log(means.length * 2 * Math.PI * Math.sqrt(det)),
    };
  });
}

const density = (parts, px, py) =>
  parts.reduce((sum, { x, y, ixx, ixy, iyy, log }) => {
    const [dx, dy] = [px - x, py - y];
    return sum + Math.exp(log - (ixx * dx * dx + 2 * ixy * dx * dy + iyy * dy * dy) / 2);
  }, 0);

// All that is needed at a place: log p_t, its gradient, and trace and determinant of its Hessian.
// The result is written into `spot`, for this runs a million times a second.
const spot = { log: 0, gx: 0, gy: 0, trace: 0, det: 0 };
const scratch = { log: new Float64Array(3), ux: new Float64Array(3), uy: new Float64Array(3) };

function look(parts, px, py) {
  const { log, ux, uy } = scratch;
  let top = -Infinity;
  for (let k = 0; k < 3; k++) {
    const part = parts[k];
    const dx = px - part.x;
    const dy = py - part.y;
    ux[k] = -(part.ixx * dx + part.ixy * dy);
    uy[k] = -(part.ixy * dx + part.iyy * dy);
    log[k] = part.log + (ux[k] * dx + uy[k] * dy) / 2;
    if (log[k] > top) top = log[k];
  }
  let total = 0, gx = 0, gy = 0, xx = 0, xy = 0, yy = 0;
  for (let k = 0; k < 3; k++) {
    const part = parts[k];
    const weight = Math.exp(log[k] - top);
    total += weight;
    gx += weight * ux[k];
    gy += weight * uy[k];
    xx += weight * (ux[k] * ux[k] - part.ixx);
    xy += weight * (ux[k] * uy[k] - part.ixy);
    yy += weight * (uy[k] * uy[k] - part.iyy);
  }
  gx /= total;
  gy /= total;
  xx = xx / total - gx * gx;
  xy = xy / total - gx * gy;
  yy = yy / total - gy * gy;
  spot.log = top + Math.log(total);
  spot.gx = gx;
  spot.gy = gy;
  spot.trace = xx + yy;
  spot.det = xx * yy - xy * xy;
}

// E[x | x_t] = x_t + t² ∇ log p_t(x_t).
function denoise(parts, t, [x, y]) {
  look(parts, x, y);
  return [x + t * t * spot.gx, y + t * t * spot.gy];
}

const towards = ([x, y], [cx, cy], share) => [x + share * (cx - x), y + share * (cy - y)];

// Entropy and Fisher information by sums over a grid that holds all but 1e-10 of the law. Kept are
// its places and their probabilities, where these are at least `least`.
function measure(mixture, t, spacing, least = 1e-12) {
  const parts = noisy(mixture, t);
  const small = parts.map(({ xx, xy, yy }) => (xx + yy) / 2 - Math.hypot((xx - yy) / 2, xy));
  const step = spacing * Math.sqrt(Math.min(...small));
  const edge = (mean, variance, side) =>
    parts.map((part) => part[mean] + side * 6.5 * Math.sqrt(part[variance]));
  const left = Math.min(...edge("x", "xx", -1));
  const low = Math.min(...edge("y", "yy", -1));
  const columns = Math.ceil((Math.max(...edge("x", "xx", 1)) - left) / step) + 1;
  const rows = Math.ceil((Math.max(...edge("y", "yy", 1)) - low) / step) + 1;
  const kept = ["x", "y", "weights", "traces", "dets"].map(() => new Float64Array(columns * rows));
  const [xs, ys, weights, traces, dets] = kept;
  let entropy = 0, fisher = 0, n = 0;
  for (let i = 0; i < columns; i++) {
    for (let j = 0; j < rows; j++) {
      const x = left + i * step;
      const y = low + j * step;
      look(parts, x, y);
      const weight = Math.exp(spot.log) * step * step;
      entropy -= weight * spot.log;
      fisher += weight * (spot.gx * spot.gx + spot.gy * spot.gy);
      if (weight < least) continue;
      xs[n] = x;
      ys[n] = y;
      weights[n] = weight;
      traces[n] = spot.trace;
      dets[n] = spot.det;
      n += 1;
    }
  }
  return { t, entropy, fisher, xs, ys, weights, traces, dets, n };
}

// What the step to s takes from the entropy: the mean of -log det of its Jacobian, which is
// I + (1 - s/t) t² ∇² log p_t. For curves, places of less than `least` probability may be left out.
function gainOf({ t, weights, traces, dets, n }, s, least = 0) {
  const factor = (1 - s / t) * t * t;
  let gain = 0;
  for (let i = 0; i < n; i++) {
    if (weights[i] < least) continue;
    gain -= weights[i] * Math.log1p(factor * traces[i] + factor * factor * dets[i]);
  }
  return gain;
}

const boundOf = ({ t, fisher }, s) => (1 - s / t) * t * t * fisher;

// Noise levels from t to 0 in ever shorter steps.
const levels = (t, steps) =>
  Array.from({ length: steps + 1 }, (_, l) => (t * Math.expm1(GROWTH * (1 - l / steps))) / Math.expm1(GROWTH));

// Where the particles are at each of these levels, by DDIM.
function walkBack(mixture, particles, times) {
  const path = [particles];
  for (let l = 0; l + 1 < times.length; l++) {
    const parts = noisy(mixture, times[l]);
    const share = 1 - times[l + 1] / times[l];
    path.push(path[l].map((p) => towards(p, denoise(parts, times[l], p), share)));
  }
  return path;
}

// The entropy of the law of all such particles on their way: the grid walks along. Between levels
// there are places of a step that is not over yet, more of them where steps are long.
function entropiesBack(mixture, times) {
  const t = times[0];
  const { entropy, xs, ys, weights, n } = measure(mixture, t, clamp(0.35 / t, 0.2, 0.8), 1e-6);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const track = [{ level: t, entropy }];
  const pieces = Math.ceil(12 / (times.length - 1));
  for (let l = 0; l + 1 < times.length; l++) {
    const parts = noisy(mixture, times[l]);
    const end = Math.min(times[l], Math.max(times[l + 1], LEAST));
    const stops = Array.from({ length: pieces }, (_, m) => times[l] * (end / times[l]) ** ((m + 1) / pieces));
    stops[pieces - 1] = times[l + 1];
    const factors = stops.map((stop) => (times[l] - stop) * times[l]);
    const gains = new Float64Array(pieces);
    const whole = factors[pieces - 1];
    for (let i = 0; i < n; i++) {
      look(parts, xs[i], ys[i]);
      for (let m = 0; m < pieces; m++) {
        gains[m] -= (weights[i] / total) * Math.log1p(factors[m] * (spot.trace + factors[m] * spot.det));
      }
      xs[i] += whole * spot.gx;
      ys[i] += whole * spot.gy;
    }
    const before = track.at(-1).entropy;
    stops.forEach((stop, m) => track.push({ level: stop, entropy: before - gains[m] }));
  }
  return track;
}

function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

function draw({ means, factors }, t) {
  const k = Math.floor(means.length * Math.random());
  const [g, h, e, f] = [normal(), normal(), normal(), normal()];
  return means[k].map((mean, i) => mean + factors[k][i][0] * g + factors[k][i][1] * h + t * [e, f][i]);
}

// ---------------------------------------------------------------- the figure

function render({ model, el }) {
  const view = new View(
    { model, el },
    "Blur and unblur",
    `Turn the noise up and watch three clusters melt into one. Drop particles on the blur, by touch
     or click, and play them back. Then set the steps to 1 and guess where they land.`,
  );
  const { most, ...mixture } = view.get("data");
  const middle = [0, 1].map((i) => mixture.means.reduce((sum, mean) => sum + mean[i], 0) / mixture.means.length);
  let now; // the quadrature at t
  let times, path, way; // the way back: noise levels, particles, entropies
  let clock = null; // how many steps have been walked, whole or not; null before the first

  // ---- the stage: a heat map, and over it all that moves
  const canvas = h("canvas", { "aria-hidden": "true" });
  const picture = document.createElement("canvas");
  const ellipses = s("g", { class: "blur-clean" });
  const trails = s("path", { class: "blur-trails" });
  const stops = s("path", { class: "blur-stops" });
  const leads = s("path", { class: "blur-leads" });
  const targets = s("path", { class: "blur-targets" });
  const arrows = s("path", { class: "blur-arrows" });
  const heads = s("path", { class: "blur-heads" });
  const origins = s("g", { class: "blur-origins" });
  const dots = s("g", { class: "blur-dots" });
  const cursor = s("path", { class: "blur-cursor", d: "M-13,0H-4M4,0H13M0,-13V-4M0,4V13" });
  const ruler = s("path", { class: "blur-ruler" });
  const rulerText = s("text", { class: "strong halo" });
  const plane = s(
    "svg",
    {
      class: "blur-plane", tabindex: 0, role: "application",
      "aria-label":
        "The plane with its particles. Arrow keys move a cursor, Enter drops a particle there, " +
        "Delete takes the nearest one away.",
    },
    ellipses, trails, stops, leads, targets, arrows, heads, origins, dots, ruler, rulerText, cursor,
  );
  const stage = h("div", { class: "stage" }, canvas, plane);

  // ---- entropy against the noise level
  const plot = new Plot({
    label: "Entropy in bits against the noise level, and where one step leads",
    margin: { left: 30, right: 10, top: 26, bottom: 40 },
    className: "scrub",
  });
  const cleanLine = s("line", { class: "blur-level" });
  const cleanText = s("text", { class: "halo", "text-anchor": "end" }, "the data themselves");
  const curve = s("path", { class: "curve", stroke: "var(--cw-blue)" });
  const stepCurve = s("path", { class: "curve", stroke: "var(--cw-orange)", "stroke-dasharray": "5 4" });
  const level = s("line", { class: "blur-level" });
  const promised = s("rect", { class: "blur-promised" });
  const beyond = s("rect", { class: "blur-beyond" });
  const nowDot = s("circle", { class: "dot", r: 7, fill: "var(--cw-blue)" });
  const stepDot = s("circle", { class: "dot", r: 6, fill: "var(--cw-orange)" });
  const walker = s("circle", { class: "dot", r: 6, fill: "var(--cw-green)" });
  const wayCurve = s("path", { class: "curve", stroke: "var(--cw-green)" });
  plot.clip.append(stepCurve, curve, wayCurve);
  plot.over.append(cleanLine, cleanText, level, promised, beyond, nowDot, stepDot, walker);

  const inBits = (value) => `${pretty(value)} bits`;
  const xt = "<i>x<sub>t</sub></i>";
  const numbers = {
    entropy: view.readout("entropy", `<span class="blue">entropy <i>h</i>(${xt})</span>`, inBits),
    growth: view.readout("growth", "it grows by <i>t</i> <i>J</i>", (value) => `${pretty(value)} bits per unit`),
    step_entropy: view.readout(
      "step_entropy", `<span class="orange">after the step</span> <i>h</i>(E[<i>x<sub>s</sub></i> | ${xt}])`, inBits,
    ),
    gain: view.readout("gain", "compression gained", inBits),
    bound: view.readout("bound", "at least (1 − <i>s</i>/<i>t</i>) <i>t</i>² <i>J</i>", inBits),
    way_entropy: view.readout(
      "way_entropy", `<span class="green">after <span class="blur-steps"></span> to 0</span>`, inBits,
    ),
    clean_entropy: view.readout("clean_entropy", "the data <i>h</i>(<i>x</i>)", inBits),
  };
  const board = h("div", {}, plot.svg);
  const status = h("span", { class: "readout blur-status", role: "status" });
  const playButton = view.button("Play back", () => (running ? stop() : play()));

  view.root.append(
    h(
      "div",
      { class: "blur-both" },
      stage,
      h(
        "div",
        { class: "blur-panel" },
        board,
        h(
          "div",
          { class: "readouts blur-numbers" },
          ...["entropy", "growth", "step_entropy", "gain", "bound", "way_entropy", "clean_entropy"].map((name) => numbers[name].node),
        ),
      ),
    ),
    h(
      "div",
      { class: "toolbar" },
      playButton,
      view.button("Rewind", () => rewind()),
      view.button("Drop 24 samples", () => sample()),
      view.button("Clear", () => change([])),
      status,
    ),
    h(
      "div",
      { class: "controls" },
      ...[
        ["t", "noise level <i>t</i>", "standard deviation"],
        ["s", "one step leads to level <i>s</i>", "standard deviation, at most t"],
      ].map(([name, label, speak]) =>
        view.slider(name, {
          label, speak, min: LEAST, max: MOST, step: Math.log10(MOST / LEAST) / 230, log: true,
        }),
      ),
      view.slider("steps", {
        label: "steps of the way back to 0", min: 1, max: 64, step: 1, show: String,
      }),
    ),
    rich(
      `<b class="orange">Arrows</b> take each particle a share 1 − <i>s</i>/<i>t</i> of the way to
       E[<i>x</i> | ${xt}], the small ring; the solid part of the bar beside them is what such a
       step must take from the entropy, whatever the data. Many small steps walk down the
       <b class="blue">blue</b> curve, and the data's law returns. One long step falls far below:
       it ends at averages of what is possible, which have less variety than the data. Thin
       ellipses: the clusters without noise, at two standard deviations. <b>Keys:</b> Tab to the
       plane; arrows move a cursor, Enter drops a particle, Delete takes the nearest away.`,
      "p", { class: "remark" },
    ),
  );

  // ---- projecting
  let size = 0;
  const clockTime = () => {
    if (clock === null) return view.get("t");
    const l = Math.min(Math.floor(clock), times.length - 2);
    return times[l] + (clock - l) * (times[l + 1] - times[l]);
  };
  // The view widens more slowly than the blur, so that the blur is seen to grow.
  const toPixels = () => size / 2 / Math.hypot(8, 1.8 * clockTime());
  const seen = ([x, y], unit) => [size / 2 + (x - middle[0]) * unit, size / 2 - (y - middle[1]) * unit];
  const inPlane = (px, py, unit) => [middle[0] + (px - size / 2) / unit, middle[1] - (py - size / 2) / unit];

  // ---- drawing the stage
  function drawHeat() {
    const parts = noisy(mixture, clockTime());
    const unit = toPixels();
    const values = new Float64Array(PIXELS * PIXELS);
    let peak = 0;
    for (let j = 0, at = 0; j < PIXELS; j++) {
      for (let i = 0; i < PIXELS; i++, at++) {
        const [x, y] = inPlane(((i + 0.5) * size) / PIXELS, ((j + 0.5) * size) / PIXELS, unit);
        values[at] = density(parts, x, y);
        peak = Math.max(peak, values[at]);
      }
    }
    const [paper, ink] = [rgb(view.color("paper")), rgb(view.color("blue"))];
    picture.width = picture.height = PIXELS;
    const context = picture.getContext("2d");
    const image = context.createImageData(PIXELS, PIXELS);
    values.forEach((value, at) => {
      const share = 0.8 * Math.sqrt(value / peak);
      for (let c = 0; c < 3; c++) image.data[4 * at + c] = paper[c] + share * (ink[c] - paper[c]);
      image.data[4 * at + 3] = 255;
    });
    context.putImageData(image, 0, 0);
    paint(canvas, size, size, (context) => {
      context.imageSmoothingQuality = "high";
      context.drawImage(picture, 0, 0, size, size);
    });
  }

  const point = ([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`;
  const ring = ([x, y], r) => `M${(x - r).toFixed(1)},${y.toFixed(1)}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0Z`;

  function head([x, y], [tx, ty]) {
    const length = Math.hypot(tx - x, ty - y);
    if (length < 3) return "";
    const r = Math.min(7, length);
    const [c, d] = [(r * (tx - x)) / length, (r * (ty - y)) / length];
    return `M${point([tx, ty])}L${point([tx - c - 0.5 * d, ty - d + 0.5 * c])}L${point([tx - c + 0.5 * d, ty - d - 0.5 * c])}Z`;
  }

  function drawStage() {
    if (!size) return;
    drawHeat();
    const unit = toPixels();
    place(plane, { width: size, height: size, viewBox: `0 0 ${size} ${size}` });
    ellipses.replaceChildren(
      ...noisy(mixture, 0).map(({ x, y, xx, xy, yy }) => {
        const turn = Math.atan2(2 * xy, xx - yy) / 2;
        const [mean, half] = [(xx + yy) / 2, Math.hypot((xx - yy) / 2, xy)];
        const [px, py] = seen([x, y], unit);
        return s("ellipse", {
          rx: 2 * unit * Math.sqrt(mean + half), ry: 2 * unit * Math.sqrt(mean - half),
          transform: `translate(${px},${py}) rotate(${(-turn * 180) / Math.PI})`,
        });
      }),
    );
    if (clock === null) drawArrows(unit);
    else drawTrails(unit);
    drawRuler(unit);
    drawCursor(unit);
  }

  function drawArrows(unit) {
    const t = view.get("t");
    const share = 1 - view.get("s") / t;
    const parts = noisy(mixture, t);
    const lines = { lead: "", target: "", arrow: "", head: "" };
    for (const particle of view.get("particles")) {
      const clean = denoise(parts, t, particle);
      const [from, to, end] = [particle, towards(particle, clean, share), clean].map((p) => seen(p, unit));
      lines.lead += `M${point(from)}L${point(end)}`;
      lines.target += ring(end, 2.5);
      lines.arrow += `M${point(from)}L${point(to)}`;
      lines.head += head(from, to);
    }
    place(leads, { d: lines.lead });
    place(targets, { d: lines.target });
    place(arrows, { d: lines.arrow });
    place(heads, { d: lines.head });
    for (const node of [trails, stops]) place(node, { d: "" });
    origins.replaceChildren();
    drawDots(view.get("particles"), unit);
  }

  function drawTrails(unit) {
    const l = Math.min(Math.floor(clock), path.length - 2);
    const places = path[l].map((p, i) => towards(p, path[l + 1][i], clock - l));
    const done = path.slice(0, Math.floor(clock) + 1);
    let [line, marks] = ["", ""];
    places.forEach((p, i) => {
      const walked = [...done.map((points) => points[i]), p].map((q) => seen(q, unit));
      line += `M${walked.map(point).join("L")}`;
      marks += walked.slice(1, -1).map((q) => `M${point(q)}h0`).join("");
    });
    place(trails, { d: line });
    place(stops, { d: marks });
    for (const node of [leads, targets, arrows, heads]) place(node, { d: "" });
    origins.replaceChildren(
      ...path[0].map((p) => {
        const [cx, cy] = seen(p, unit);
        return s("circle", { cx, cy, r: 3.5 });
      }),
    );
    drawDots(places, unit);
  }

  function drawDots(places, unit) {
    while (dots.childNodes.length > places.length) dots.lastChild.remove();
    while (dots.childNodes.length < places.length) dots.append(s("circle", { r: 4.5 }));
    dots.classList.toggle("blur-moved", clock !== null);
    places.forEach((p, i) => {
      const [cx, cy] = seen(p, unit);
      place(dots.childNodes[i], { cx, cy, "data-x": p[0], "data-y": p[1] });
    });
  }

  // A bar as long as the noise is strong.
  function drawRuler(unit) {
    const t = clockTime();
    const [x, y] = [12, size - 12];
    place(ruler, { d: `M${x},${y - 4}v8M${x},${y}h${(t * unit).toFixed(1)}M${(x + t * unit).toFixed(1)},${y - 4}v8` });
    place(rulerText, { x, y: y - 10 });
    rulerText.textContent = clock === null ? `t = ${pretty(t)}` : `on the way back: ${t.toFixed(2)}`;
  }

  // ---- the plot
  const axis = Array.from({ length: 53 }, (_, i) => LEAST * (MOST / LEAST) ** (i / 52));
  const noisedBits = axis.map((t) => bits(measure(mixture, t, COARSE).entropy));
  const cleanBits = bits(measure(mixture, 0, FINE).entropy);

  function compute() {
    now = measure(mixture, view.get("t"), FINE);
    numbers.entropy.set(bits(now.entropy));
    numbers.growth.set(bits(now.t * now.fisher));
    numbers.clean_entropy.set(cleanBits);
  }

  function computeStep() {
    const level = view.get("s");
    const gain = level < now.t ? gainOf(now, level) : 0;
    numbers.gain.set(bits(gain));
    numbers.bound.set(bits(boundOf(now, level)));
    numbers.step_entropy.set(bits(now.entropy - gain));
    return gain;
  }

  function drawPlot() {
    if (!plot.width) return;
    plot.domain([Math.log10(LEAST), Math.log10(MOST)], [2.6, 11.4]);
    plot.drawAxes({
      x: [0.1, 0.3, 1, 3, 10].map(Math.log10),
      showX: (value) => String(Number((10 ** value).toPrecision(1))),
      y: [4, 6, 8, 10],
      titleX: "noise level",
      titleY: "entropy, bits",
    });
    const xs = axis.map(Math.log10);
    place(curve, { d: plot.line(xs, noisedBits) });
    const [left, right] = [plot.x(xs[0]), plot.x(xs.at(-1))];
    const y = plot.y(cleanBits);
    place(cleanLine, { x1: left, x2: right, y1: y, y2: y });
    place(cleanText, { x: right, y: y + 14 });
  }

  function drawSteps() {
    if (!plot.width) return;
    const { t } = now;
    const level_s = view.get("s");
    const gain = computeStep();
    const top = bits(now.entropy);
    const ahead = Array.from({ length: 25 }, (_, i) => LEAST * (t / LEAST) ** (i / 24));
    const after = ahead.map((s) => bits(now.entropy - gainOf(now, s, 1e-7)));
    place(stepCurve, { d: plot.line(ahead.map(Math.log10), after) });
    const [x, xt] = [plot.x(Math.log10(level_s)), plot.x(Math.log10(t))];
    const heights = [top, top - bits(boundOf(now, level_s)), top - bits(gain)].map((value) => plot.y(value));
    place(level, { x1: x, x2: xt, y1: heights[0], y2: heights[0] });
    place(promised, { x: x - 5, width: 10, y: heights[0], height: Math.max(0, heights[1] - heights[0]) });
    place(beyond, { x: x - 5, width: 10, y: heights[1], height: Math.max(0, heights[2] - heights[1]) });
    place(nowDot, { cx: xt, cy: heights[0] });
    place(stepDot, { cx: x, cy: heights[2] });
  }

  // The way back as the entropies see it; it ends at the left edge, where level 0 cannot be.
  function drawWay() {
    if (!plot.width) return;
    const hidden = { visibility: clock === null ? "hidden" : "visible" };
    place(walker, hidden);
    place(wayCurve, hidden);
    if (clock === null) return;
    const at = (level) => Math.log10(Math.max(level, LEAST));
    place(wayCurve, { d: plot.line(way.map(({ level }) => at(level)), way.map(({ entropy }) => bits(entropy))) });
    const level = clockTime();
    const i = Math.max(1, way.findIndex((stop) => stop.level <= level));
    const [old, next] = [way[i - 1], way[i]];
    const share = (old.level - level) / (old.level - next.level || 1);
    place(walker, { cx: plot.x(at(level)), cy: plot.y(bits(old.entropy + share * (next.entropy - old.entropy))) });
  }

  // ---- playing
  let running = 0;

  function stop() {
    cancelAnimationFrame(running);
    running = 0;
    playButton.textContent = "Play back";
  }

  function show() {
    drawStage();
    drawWay();
  }

  function say() {
    const count = view.get("particles").length;
    const what = count === 1 ? "1 particle" : `${count} particles`;
    const landed = clock !== null && clock === path.length - 1;
    status.textContent = `${what}${landed ? " back at level 0" : ""}`;
  }

  function rewind() {
    stop();
    clock = null;
    show();
    say();
  }

  function play() {
    const last = times.length - 1;
    if (reducedMotion()) {
      clock = last;
      show();
      say();
      return;
    }
    const [begun, length] = [performance.now(), 1400 + 45 * last];
    playButton.textContent = "Stop";
    const tick = (time) => {
      clock = clamp((time - begun) / length, 0, 1) * last;
      show();
      if (clock < last) running = requestAnimationFrame(tick);
      else stop();
      say();
    };
    running = requestAnimationFrame(tick);
  }

  function schedule() {
    times = levels(view.get("t"), view.get("steps"));
    way = entropiesBack(mixture, times);
    numbers.way_entropy.set(bits(way.at(-1).entropy));
    const steps = times.length - 1;
    numbers.way_entropy.node.querySelector(".blur-steps").textContent = steps === 1 ? "1 step" : `${steps} steps`;
  }

  function plan() {
    path = walkBack(mixture, view.get("particles"), times);
  }

  // ---- dropping particles
  let hand = [...middle];
  const rounded = (p) => p.map((value) => Math.round(1000 * value) / 1000);

  function change(particles) {
    view.put("particles", particles.slice(-most));
  }

  const drop = (p) => change([...view.get("particles"), rounded(p)]);

  function nearest(p) {
    const away = view.get("particles").map((q) => Math.hypot(q[0] - p[0], q[1] - p[1]));
    const i = away.indexOf(Math.min(...away));
    return { i, away: away[i] ?? Infinity };
  }

  const takeAway = (i) => change(view.get("particles").filter((_, j) => j !== i));

  function sample() {
    change(Array.from({ length: 24 }, () => rounded(draw(mixture, view.get("t")))));
  }

  function drawCursor(unit) {
    const [x, y] = seen(hand, unit);
    place(cursor, { transform: `translate(${x.toFixed(1)},${y.toFixed(1)})` });
  }

  view.listen(plane, "click", (event) => {
    const box = plane.getBoundingClientRect();
    hand = inPlane(event.clientX - box.left, event.clientY - box.top, toPixels());
    const { i, away } = nearest(hand);
    if (clock === null && away * toPixels() < 9) takeAway(i);
    else drop(hand);
  });
  view.listen(plane, "keydown", (event) => {
    const [dx, dy] = ARROWS[event.key] ?? [0, 0];
    if (!dx && !dy && !["Enter", " ", "Delete", "Backspace"].includes(event.key)) return;
    event.preventDefault();
    if (event.key === "Enter" || event.key === " ") drop(hand);
    else if (!dx && !dy) takeAway(nearest(hand).i);
    else {
      const reach = (0.96 * size) / 2 / toPixels();
      hand = hand.map((value, i) => clamp(value + [dx, dy][i] * reach * 0.04, middle[i] - reach, middle[i] + reach));
      drawCursor(toPixels());
    }
  });

  // Of t and s, the slider that was moved takes the other one along.
  view.watch(["t"], () => view.get("s") > view.get("t") && view.put("s", view.get("t")));
  view.watch(["s"], () => view.get("s") > view.get("t") && view.put("t", view.get("s")));
  view.watch(["t"], compute);
  view.watch(["t", "s"], computeStep);
  view.watch(["t", "s", "particles"], () => {
    stop();
    clock = null;
  });
  view.watch(["steps"], () => {
    if (clock === null) return;
    stop();
    clock = view.get("steps"); // the way with so many steps, walked to its end
  });
  view.watch(["t", "steps"], schedule);
  view.watch(["t", "particles", "steps"], plan);
  view.watch(["t", "s"], drawSteps);
  view.watch(["t", "s", "particles", "steps"], () => {
    show();
    say();
  });
  view.drag(plot.svg, {
    move: (event) => view.put("t", clamp(10 ** plot.xOf(event), LEAST, MOST)),
  });
  view.onWidth(stage, (width) => {
    size = Math.min(width, 400);
    drawStage();
  });
  view.onWidth(board, (width) => {
    plot.resize(width, clamp(0.66 * width, 210, 250));
    drawPlot();
    drawSteps();
    drawWay();
  });
  view.onTheme(drawStage);
  return () => {
    stop();
    view.destroy();
  };
}

export default { render };
