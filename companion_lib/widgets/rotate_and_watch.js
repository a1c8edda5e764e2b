// Rotate a frame over sparse data: variance cannot see the axes, the sparsity measures can.

const DEGREES = 180 / Math.PI;
const SWEEP = Array.from({ length: 181 }, (_, i) => i);
const STRIPS = [
  { name: "variance", label: "variance along axis 1 (PCA)", color: "purple" },
  { name: "l4", label: "mean ℓ⁴ of both responses", color: "green" },
  { name: "l1", label: "− mean ℓ¹", color: "green", sign: -1 },
  { name: "kurtosis", label: "|kurtosis|, both axes", color: "green" },
];

const wrap = (angle, period) => ((angle % period) + period) % period;
const frame = (angle) => [Math.cos(angle / DEGREES), Math.sin(angle / DEGREES)];

// Samples x = U z + noise from the stored draws; z = Bernoulli(theta) * N(0, 1/theta).
function sample({ gaussians, uniforms, noises, true_angle }, theta, noise) {
  const [c, d] = frame(true_angle);
  const n = gaussians.shape[0];
  const x = new Float64Array(n);
  const y = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const [j, k] = [2 * i, 2 * i + 1];
    const z1 = uniforms.values[j] < theta ? gaussians.values[j] / Math.sqrt(theta) : 0;
    const z2 = uniforms.values[k] < theta ? gaussians.values[k] / Math.sqrt(theta) : 0;
    x[i] = c * z1 - d * z2 + noise * noises.values[j];
    y[i] = d * z1 + c * z2 + noise * noises.values[k];
  }
  return { x, y, n };
}

// Second and fourth moments are all that variance, ℓ⁴ and kurtosis need, at every angle.
function moments({ x, y, n }) {
  const sums = { m20: 0, m11: 0, m02: 0, m40: 0, m31: 0, m22: 0, m13: 0, m04: 0 };
  for (let i = 0; i < n; i++) {
    const [xx, xy, yy] = [x[i] * x[i], x[i] * y[i], y[i] * y[i]];
    sums.m20 += xx;
    sums.m11 += xy;
    sums.m02 += yy;
    sums.m40 += xx * xx;
    sums.m31 += xx * xy;
    sums.m22 += xx * yy;
    sums.m13 += xy * yy;
    sums.m04 += yy * yy;
  }
  for (const name in sums) sums[name] /= n;
  return sums;
}

const second = (m, c, d) => c * c * m.m20 + 2 * c * d * m.m11 + d * d * m.m02;

const fourth = (m, c, d) =>
  c ** 4 * m.m40 +
  4 * c ** 3 * d * m.m31 +
  6 * c * c * d * d * m.m22 +
  4 * c * d ** 3 * m.m13 +
  d ** 4 * m.m04;

function measure(data, m, angle) {
  const [c, d] = frame(angle);
  const variances = [second(m, c, d), second(m, -d, c)];
  const fourths = [fourth(m, c, d), fourth(m, -d, c)];
  let l1 = 0;
  for (let i = 0; i < data.n; i++) {
    l1 += Math.abs(c * data.x[i] + d * data.y[i]) + Math.abs(c * data.y[i] - d * data.x[i]);
  }
  return {
    variance: variances[0],
    l4: fourths[0] + fourths[1],
    l1: l1 / data.n,
    kurtosis:
      Math.abs(fourths[0] - 3 * variances[0] ** 2) + Math.abs(fourths[1] - 3 * variances[1] ** 2),
  };
}

// One step of matching, stretching, projection: the polar factor of (responses³)ᵀ X, in 2-D.
function mspStep({ x, y, n }, angle) {
  const [c, d] = frame(angle);
  const M = [0, 0, 0, 0];
  for (let i = 0; i < n; i++) {
    const r1 = (c * x[i] + d * y[i]) ** 3;
    const r2 = (c * y[i] - d * x[i]) ** 3;
    M[0] += r1 * x[i];
    M[1] += r1 * y[i];
    M[2] += r2 * x[i];
    M[3] += r2 * y[i];
  }
  // Its determinant is never negative, by Cauchy and Schwarz, so the factor is a rotation.
  return wrap(Math.atan2(M[1] - M[2], M[0] + M[3]) * DEGREES, 180);
}

// The factor by which MSP shrinks a small error per step, when the axes are the true ones.
function contraction(theta, noise) {
  const gaussian = 3 * (1 + noise * noise) ** 2;
  return gaussian / (gaussian + (3 * (1 - theta)) / theta);
}

function render({ model, el }) {
  const view = new View(
    { model, el },
    "Rotate and watch",
    `Drag the <b class="blue">blue</b> axis until its shadow turns spiky. Which of the four
     objectives noticed?`,
  );
  const stored = view.get("data");
  const draws = {
    gaussians: unpack(stored.gaussians),
    uniforms: unpack(stored.uniforms),
    noises: unpack(stored.noises),
    true_angle: stored.true_angle,
  };
  let data, m, curves, reach;
  let visited = [];

  // ---- the cloud with its two axes and their shadows
  const canvas = h("canvas", { "aria-hidden": "true" });
  const cloud = s("svg", {
    class: "cloud",
    role: "img",
    "aria-label": "Data points and two perpendicular axes; each axis shows the histogram of its responses",
  });
  const truth = s("g", { class: "truth" });
  const turning = s("g");
  const shadows = ["blue", "orange"].map((color) =>
    s("path", { class: "histogram", fill: `var(--cw-${color})`, stroke: `var(--cw-${color})` }),
  );
  const axes = ["blue", "orange"].map((color, i) => ({
    line: s("line", { stroke: `var(--cw-${color})`, "stroke-width": 2.5, "stroke-linecap": "round" }),
    grip: s("line", { class: "grab", stroke: "transparent", "stroke-width": 26 }),
    knob: s("circle", { r: 12, fill: `var(--cw-${color})`, class: "dot" }),
    number: s("text", { class: "knob", "text-anchor": "middle", dy: 4 }, String(i + 1)),
    handle: s("circle", { class: "grab", r: 22, fill: "transparent" }),
  }));
  const rim = s("circle", { class: "rim" });
  turning.append(...shadows);
  cloud.append(rim, truth, turning);
  for (const { line, knob, number } of axes) cloud.append(line, knob, number);
  for (const { grip, handle } of axes) cloud.append(grip, handle);
  const stage = h("div", { class: "stage" }, canvas, cloud);

  // ---- one strip for each objective
  const plots = STRIPS.map(({ label, color }) => {
    const plot = new Plot({
      label: `${label}, over the angle of the frame`,
      margin: { left: 2, right: 2, top: 20, bottom: 6 },
      className: "scrub",
    });
    plot.curve = s("path", { class: "curve", stroke: `var(--cw-${color})` });
    plot.level = s("line", { class: "grid" });
    plot.truth = s("g", { class: "truth" });
    plot.trail = s("g", { class: "trail", fill: `var(--cw-${color})` });
    plot.cursor = s("line", { class: "cursor" });
    plot.dot = s("circle", { class: "dot", r: 6, fill: `var(--cw-${color})` });
    plot.clip.append(plot.level, plot.truth, plot.curve);
    plot.over.append(plot.trail, plot.cursor, plot.dot);
    return plot;
  });
  const numbers = STRIPS.map(({ name, label, color, sign = 1 }) => {
    const colored = `<span class="${color}">${label}</span>`;
    const readout = view.readout(name, colored, (value) => pretty(sign * value));
    readout.node.classList.add("strip-label");
    return readout;
  });
  const scale = new Plot({ label: "angle of the frame", margin: { left: 2, right: 2, top: 0, bottom: 18 } });
  const strips = h("div", { class: "strips" });
  plots.forEach((plot, i) => strips.append(h("div", { class: "strip" }, numbers[i].node, plot.svg)));
  strips.append(scale.svg);

  const next = view.readout("msp_angle", "one MSP step leads to", (value) => `${value.toFixed(2)}°`);
  const rate = view.readout("rate", "an error shrinks per step by, in theory,", (value) => value.toFixed(2));
  const seen = view.readout("shrinking", "seen in the last step", (value) =>
    Number.isFinite(value) ? value.toFixed(2) : "–",
  );
  const reveal = h("input", { type: "checkbox" });

  view.root.append(
    h("div", { class: "rotate" }, stage, strips),
    h(
      "div",
      { class: "toolbar" },
      view.button("One MSP step", () => step()),
      view.button("Run MSP", () => run()),
      view.button("Random start", () => jump(Math.random() * 180)),
      h("label", { class: "checkbox" }, reveal, "show the true axes"),
    ),
    h(
      "div",
      { class: "controls" },
      view.slider("angle", {
        label: "angle of the frame",
        speak: "in degrees",
        min: 0, max: 180, step: 0.5,
        show: (value) => `${value.toFixed(1)}°`,
      }),
      view.slider("theta", {
        label: "fraction of active codes <i>θ</i>",
        speak: "theta",
        min: 0.05, max: 1, step: 0.01,
        show: (value) => value.toFixed(2),
      }),
      view.slider("noise", {
        label: "noise <i>σ</i>",
        speak: "sigma, standard deviation",
        min: 0, max: 1, step: 0.01,
        show: (value) => value.toFixed(2),
      }),
    ),
    h("div", { class: "readouts" }, next.node, rate.node, seen.node),
    rich(
      `Each strip shows its own mean (thin line) ± 36 %, so a curve that looks flat is flat. Shadows
       are histograms on a square-root scale. As <i>θ</i> goes to 1 the codes become Gaussian, the
       cloud becomes round, and nobody can find the axes any more.`,
      "p", { class: "remark" },
    ),
  );

  // ---- drawing
  function resample() {
    const [theta, noise] = [view.get("theta"), view.get("noise")];
    data = sample(draws, theta, noise);
    m = moments(data);
    curves = SWEEP.map((angle) => measure(data, m, angle));
    const radii = Float64Array.from(data.x, (x, i) => Math.hypot(x, data.y[i])).sort();
    reach = 1.1 * radii[Math.floor(0.99 * data.n)] || 1;
    visited = [];
    rate.set(contraction(theta, noise));
    drawCloud();
    drawCurves();
    drawFrame();
  }

  let size = 0;
  const center = () => size / 2;
  const radius = () => 0.35 * size;

  function drawCloud() {
    if (!size) return;
    paint(canvas, size, size, (context) => {
      context.clearRect(0, 0, size, size);
      context.fillStyle = view.color("ink");
      context.globalAlpha = 0.34;
      const unit = radius() / reach;
      for (let i = 0; i < data.n; i++) {
        const [px, py] = [data.x[i] * unit, data.y[i] * unit];
        if (Math.hypot(px, py) > radius()) continue;
        context.beginPath();
        context.arc(center() + px, center() - py, 1.7, 0, 2 * Math.PI);
        context.fill();
      }
    });
    place(cloud, { width: size, height: size, viewBox: `0 0 ${size} ${size}` });
    place(rim, { cx: center(), cy: center(), r: radius() });
    drawTruth();
  }

  function drawTruth() {
    const angles = reveal.checked ? [stored.true_angle, stored.true_angle + 90] : [];
    truth.replaceChildren(...angles.map((angle) => diameter(angle, radius())));
    for (const plot of plots) {
      if (!plot.width) continue;
      const { top } = plot.margin;
      plot.truth.replaceChildren(
        ...angles.map((angle) => {
          const at = plot.x(wrap(angle, 180));
          return s("line", { x1: at, x2: at, y1: top, y2: top + plot.innerHeight });
        }),
      );
    }
  }

  function diameter(angle, length) {
    const [c, d] = frame(angle);
    const [x, y] = [c * length, d * length];
    const [cx, cy] = [center(), center()];
    return s("line", { x1: cx - x, y1: cy + y, x2: cx + x, y2: cy - y });
  }

  function drawCurves() {
    plots.forEach((plot, i) => {
      if (!plot.width) return;
      const { name, sign = 1 } = STRIPS[i];
      const values = curves.map((curve) => sign * curve[name]);
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      const half = Math.max(0.36 * Math.abs(mean), name === "kurtosis" ? 1.5 : 0);
      const low = name === "kurtosis" ? Math.max(0, mean - half) : mean - half;
      plot.domain([0, 180], [low, mean + half]);
      const level = plot.y(mean);
      place(plot.level, { x1: plot.x(0), x2: plot.x(180), y1: level, y2: level });
      place(plot.curve, { d: plot.line(SWEEP, values) });
    });
    if (!scale.width) return;
    scale.domain([0, 180], [0, 1]);
    scale.drawAxes({ x: [0, 45, 90, 135, 180], showX: (value) => `${value}°` });
    scale.axes.querySelectorAll("text").forEach((text, i, all) => {
      place(text, { "text-anchor": i === 0 ? "start" : i === all.length - 1 ? "end" : "middle" });
    });
    drawTruth();
  }

  function drawFrame() {
    const angle = view.get("angle");
    const now = measure(data, m, angle);
    STRIPS.forEach(({ name }, i) => numbers[i].set(now[name]));
    next.set(mspStep(data, angle));
    plots.forEach((plot, i) => {
      if (!plot.width) return;
      const { name, sign = 1 } = STRIPS[i];
      const height = (value) =>
        clamp(plot.y(sign * value), plot.margin.top, plot.margin.top + plot.innerHeight);
      const at = plot.x(angle);
      const { top } = plot.margin;
      place(plot.cursor, { x1: at, x2: at, y1: top, y2: top + plot.innerHeight });
      place(plot.dot, { cx: at, cy: height(now[name]) });
      plot.trail.replaceChildren(
        ...visited.slice(-12).map((old, k, all) =>
          s("circle", {
            cx: plot.x(old), cy: height(measure(data, m, old)[name]),
            r: 3.5, opacity: 0.2 + (0.5 * (k + 1)) / all.length,
          }),
        ),
      );
    });
    if (size) turnFrame(angle);
  }

  function turnFrame(angle) {
    axes.forEach(({ line, grip, knob, number, handle }, i) => {
      const [c, d] = frame(angle + 90 * i);
      const [x, y] = [c * radius(), d * radius()];
      const ends = { x1: center() - x, y1: center() + y, x2: center() + x, y2: center() - y };
      place(line, ends);
      place(grip, ends);
      const [kx, ky] = [center() + x, center() - y];
      for (const circle of [knob, handle]) place(circle, { cx: kx, cy: ky });
      place(number, { x: kx, y: ky });
      place(shadows[i], { d: shadow(c, d, i === 0 ? 1 : -1) });
    });
  }

  // The histogram of the responses to the axis (c, d), standing on a line beside the cloud.
  function shadow(c, d, side) {
    const bins = 33;
    const span = 0.74;
    const counts = new Float64Array(bins);
    for (let i = 0; i < data.n; i++) {
      const place = (c * data.x[i] + d * data.y[i]) / reach / span;
      const bin = Math.floor(((place + 1) / 2) * bins);
      if (bin >= 0 && bin < bins) counts[bin] += 1;
    }
    const R = radius();
    const room = size / 2 - R - 4;
    const point = (along, out) => {
      const [a, b] = [along * R * span, side * (R + 4 + out * room)];
      return `${(center() + c * a + d * b).toFixed(1)},${(center() - d * a + c * b).toFixed(1)}`;
    };
    let path = `M${point(-1, 0)}`;
    for (let k = 0; k < bins; k++) {
      const height = Math.min(1, 1.2 * Math.sqrt(counts[k] / data.n));
      path += `L${point((2 * k) / bins - 1, height)}L${point((2 * k + 2) / bins - 1, height)}`;
    }
    return `${path}L${point(1, 0)}Z`;
  }

  // ---- moving
  let running = 0;
  let lastMove = NaN;

  function stop() {
    cancelAnimationFrame(running);
    running = 0;
  }

  function jump(angle) {
    stop();
    visited = [];
    lastMove = NaN;
    seen.set(NaN);
    view.put("angle", wrap(angle, 180));
  }

  // The signed turn from one frame to another; a frame repeats every 90 degrees.
  const turn = (from, to) => wrap(to - from + 45, 90) - 45;

  function land(from, to) {
    const move = Math.abs(turn(from, to));
    seen.set(move / lastMove);
    lastMove = move;
    visited.push(from);
    view.put("angle", to);
    return move;
  }

  function step() {
    stop();
    const from = view.get("angle");
    land(from, mspStep(data, from));
  }

  function run() {
    stop();
    if (reducedMotion()) {
      for (let k = 0; k < 200; k++) {
        const from = view.get("angle");
        if (land(from, mspStep(data, from)) < 1e-6) return;
      }
      return;
    }
    glide();
  }

  // Moves to the next iterate in a third of a second, and on until the steps have died away.
  function glide() {
    const from = view.get("angle");
    const to = mspStep(data, from);
    const distance = wrap(to - from + 90, 180) - 90;
    const begun = performance.now();
    const tick = (time) => {
      const share = clamp((time - begun) / 320, 0, 1);
      if (share < 1) {
        view.put("angle", wrap(from + distance * share * share * (3 - 2 * share), 180));
        running = requestAnimationFrame(tick);
      } else if (land(from, to) > 0.01) {
        glide();
      } else {
        running = 0;
      }
    };
    running = requestAnimationFrame(tick);
  }

  const pointed = (event) => {
    const box = cloud.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left - center(), center() - (event.clientY - box.top)];
    return Math.atan2(y, x) * DEGREES;
  };
  for (const { grip, handle } of axes) {
    let offset = 0;
    const start = (event) => (offset = view.get("angle") - pointed(event));
    const move = (event) => jump(pointed(event) + offset);
    view.drag(grip, { start, move });
    view.drag(handle, { start, move });
  }
  for (const plot of plots) {
    view.drag(plot.svg, { move: (event) => jump(clamp(plot.xOf(event), 0, 179.999)) });
  }
  for (const input of view.root.querySelectorAll("input[type=range]")) {
    input.addEventListener("input", () => {
      stop();
      lastMove = NaN;
      visited = [];
      seen.set(NaN);
    });
  }
  reveal.addEventListener("change", drawTruth);

  seen.set(NaN);
  view.watch(["theta", "noise"], resample);
  view.watch(["angle"], drawFrame);
  view.onWidth(stage, (width) => {
    size = Math.min(width, 400);
    drawCloud();
    drawFrame();
  });
  view.onWidth(strips, (width) => {
    for (const plot of plots) plot.resize(width, 82);
    scale.resize(width, 20);
    drawCurves();
    drawFrame();
  });
  view.onTheme(drawCloud);
  return () => {
    stop();
    view.destroy();
  };
}

export default { render };
