// One signal, a network of ISTA layers: every column is a layer, every row an atom.

const MAX_LAYERS = 200;
const FLOOR = 1e-12;

const shrinkBy = (value, threshold) =>
  value > threshold ? value - threshold : value < -threshold ? value + threshold : 0;

// ‖x − z D‖² + λ‖z‖₁, its gradient's smooth part 2 (z D − x) Dᵀ, and the KKT residual at z.
function lasso({ D, x, m, d }, z, lam) {
  const residual = Float64Array.from(x, (value) => -value);
  let l1 = 0;
  for (let j = 0; j < m; j++) {
    if (z[j] === 0) continue;
    l1 += Math.abs(z[j]);
    for (let i = 0; i < d; i++) residual[i] += z[j] * D[j * d + i];
  }
  const gradient = new Float64Array(m);
  let kkt = 0;
  for (let j = 0; j < m; j++) {
    let sum = 0;
    for (let i = 0; i < d; i++) sum += residual[i] * D[j * d + i];
    gradient[j] = 2 * sum;
    const violation =
      z[j] === 0 ? Math.abs(gradient[j]) - lam : Math.abs(gradient[j] + lam * Math.sign(z[j]));
    kkt = Math.max(kkt, violation);
  }
  const square = residual.reduce((sum, value) => sum + value * value, 0);
  return { objective: square + lam * l1, gradient, kkt };
}

// All layers at once: codes, objectives and KKT residuals of z_0 = 0, z_1, …, z_200.
function unroll(problem, lam, stepSize, momentum) {
  const { m } = problem;
  let z = new Float64Array(m);
  let v = z;
  let t = 1;
  let at = lasso(problem, z, lam);
  const layers = [{ z, objective: at.objective, kkt: at.kkt }];
  for (let k = 0; k < MAX_LAYERS; k++) {
    const gradient = v === z ? at.gradient : lasso(problem, v, lam).gradient;
    const next = new Float64Array(m);
    for (let j = 0; j < m; j++) {
      next[j] = shrinkBy(v[j] - stepSize * gradient[j], stepSize * lam);
    }
    at = lasso(problem, next, lam);
    layers.push({ z: next, objective: at.objective, kkt: at.kkt });
    if (momentum) [v, t] = extrapolate(z, v, next, t);
    else v = next;
    z = next;
  }
  return layers;
}

// Nesterov's momentum; it starts anew when the step points against the move just made.
function extrapolate(z, v, next, t) {
  let against = 0;
  for (let j = 0; j < z.length; j++) against += (v[j] - next[j]) * (next[j] - z[j]);
  if (against > 0) t = 1;
  const after = (1 + Math.sqrt(1 + 4 * t * t)) / 2;
  return [next.map((value, j) => value + ((t - 1) / after) * (value - z[j])), after];
}

// The minimum itself, by coordinate descent, so that gaps can be told to a dozen digits.
function minimum(problem, lam, start) {
  const { D, x, m, d } = problem;
  const z = Float64Array.from(start);
  const residual = Float64Array.from(x);
  for (let j = 0; j < m; j++) {
    for (let i = 0; i < d; i++) residual[i] -= z[j] * D[j * d + i];
  }
  for (let sweep = 0; sweep < 3000; sweep++) {
    let moved = 0;
    for (let j = 0; j < m; j++) {
      let [inner, norm] = [0, 0];
      for (let i = 0; i < d; i++) {
        inner += residual[i] * D[j * d + i];
        norm += D[j * d + i] ** 2;
      }
      const value = shrinkBy(inner + norm * z[j], lam / 2) / norm;
      const change = value - z[j];
      if (change === 0) continue;
      for (let i = 0; i < d; i++) residual[i] -= change * D[j * d + i];
      z[j] = value;
      moved = Math.max(moved, Math.abs(change));
    }
    if (moved < 1e-14) break;
  }
  return { z, objective: lasso(problem, z, lam).objective };
}

function render({ model, el }) {
  const view = new View(
    { model, el },
    "ISTA, unrolled",
    `Each column is a layer: <span class="symbol"><i>z</i> ← <i>S</i><sub><i>ηλ</i></sub>(<i>z</i> − 2<i>η</i>
     (<i>zD</i> − <i>x</i>)<i>D</i><sup>⊤</sup>)</span>.
     Drag across the picture to add layers. Then push the step past its limit.`,
  );
  const stored = view.get("data");
  const dictionary = unpack(stored.dictionary);
  const truth = unpack(stored.code).values;
  const [m, d] = dictionary.shape;
  const problem = { D: dictionary.values, x: unpack(stored.signal).values, m, d };
  const reach = 1.25 * Math.max(...truth.map(Math.abs));
  let layers;
  let best = { z: new Float64Array(m), objective: 0 };

  // ---- the network: layers from left to right, atoms from top to bottom
  const margin = { left: 46, right: 6, top: 20, bottom: 4 };
  const net = new Plot({ label: "Codes of all atoms at every layer", margin, className: "scrub" });
  const picture = h("canvas", { class: "net", width: MAX_LAYERS, height: m, "aria-hidden": "true" });
  const netCursor = s("line", { class: "cursor" });
  const coming = s("g", { class: "coming" });
  net.over.append(coming, netCursor);
  const netBox = h("div", { class: "net-box" }, picture, net.svg);

  // ---- the code at the chosen layer, atom by atom beside the network
  const stems = new Plot({
    label: "The code at this layer as stems, the true code as rings",
    margin: { left: 6, right: 10, top: 20, bottom: 4 },
  });
  const stemLines = s("g", { class: "stems" });
  stems.clip.setAttribute("overflow", "visible");
  stems.clip.append(stemLines);
  const stemBox = h("div", {}, stems.svg);

  // ---- how far the objective is from its minimum
  const curve = new Plot({
    label: "Gap of the objective to its minimum at every layer, logarithmic scale",
    margin: { ...margin, top: 26, bottom: 38 },
    className: "scrub",
  });
  const gapLine = s("path", { class: "curve", stroke: "var(--cw-green)" });
  const gapCursor = s("line", { class: "cursor" });
  const gapDot = s("circle", { class: "dot", r: 7, fill: "var(--cw-green)" });
  curve.clip.append(gapLine);
  curve.over.append(gapCursor, gapDot);
  const curveBox = h("div", {}, curve.svg);

  const count = (value) => String(value);
  const readouts = Object.fromEntries(
    [
      ["objective", "objective"],
      ["optimum", "its minimum"],
      ["gap", `<span class="green">gap</span>`],
      ["kkt", "KKT residual"],
      ["nonzeros", "nonzero entries", count],
      ["found", `of the ${truth.filter((value) => value !== 0).length} true atoms, active`, count],
    ].map(([name, label, show]) => [name, view.readout(name, label, show)]),
  );
  const verdict = h("p", { class: "verdict", role: "status" });

  view.root.append(
    h(
      "div",
      { class: "unrolled" },
      netBox,
      stemBox,
      curveBox,
      h("div", { class: "readouts column" }, ...Object.values(readouts).map(({ node }) => node)),
    ),
    verdict,
    h(
      "div",
      { class: "toolbar" },
      view.choice("momentum", "method", [
        { value: false, text: "ISTA" },
        { value: true, text: "FISTA, with momentum" },
      ]),
    ),
    h(
      "div",
      { class: "controls" },
      view.slider("layers", {
        label: "layers", min: 1, max: MAX_LAYERS, step: 1, show: String,
      }),
      view.slider("lam", {
        label: "penalty <i>λ</i>", speak: "lambda", min: 0.02, max: 1, step: 0.02,
        show: (value) => value.toFixed(2),
      }),
      view.slider("step", {
        label: "step <i>η</i> ÷ limit",
        speak: "eta as a multiple of its limit",
        min: 0.2, max: 3, step: 0.05,
        show: (value) => value.toFixed(2),
        marks: [{ at: 1, text: "limit" }, { at: 2, text: "2 × limit" }],
      }),
    ),
    rich(
      `Up to the limit, <i>η</i> ≤ 1/(2‖<i>D</i>‖²), every ISTA layer is sure to lower the objective
       ‖<i>x</i> − <i>zD</i>‖² + <i>λ</i>‖<i>z</i>‖₁. The guarantee is cautious. Only from twice the limit,
       <i>η</i> ≥ 1/‖<i>D</i>‖², does the steepest direction overshoot by more than it came: without the
       penalty plain ISTA would then diverge, and with it the shrinkage has to win back more than that
       (a small <i>λ</i> cannot). Momentum is faster, and breaks sooner. In the picture
       <span class="blue">positive</span> and <span class="orange">negative</span> entries; rings are
       the true code.`,
      "p", { class: "remark" },
    ),
  );

  // ---- computing
  function compute() {
    const lam = view.get("lam");
    best = minimum(problem, lam, best.z);
    layers = unroll(problem, lam, view.get("step") / stored.lipschitz, view.get("momentum"));
    readouts.optimum.set(best.objective);
  }

  const gapOf = ({ objective }) => objective - best.objective;

  function judge() {
    const rises = layers.slice(1).filter((layer, k) => gapOf(layer) > gapOf(layers[k]) + FLOOR).length;
    const grown = layers[MAX_LAYERS].objective > layers[0].objective;
    const beyond = view.get("step") > 1 ? ", though the step is past its limit" : "";
    const state = grown ? "diverges" : rises > 0 ? "wavers" : "falls";
    verdict.dataset.state = state;
    verdict.textContent = {
      diverges: "Diverges: the step is too long, each layer overshoots by more than the last.",
      wavers: `Converges, though the objective rises at ${rises} of ${MAX_LAYERS} layers.`,
      falls: `The objective falls at every layer${beyond}.`,
    }[state];
  }

  // ---- drawing
  function drawNet() {
    const colors = { plus: rgb(view.color("blue")), minus: rgb(view.color("orange")) };
    const context = picture.getContext("2d");
    const image = context.createImageData(MAX_LAYERS, m);
    for (let k = 0; k < MAX_LAYERS; k++) {
      const { z } = layers[k + 1];
      for (let j = 0; j < m; j++) {
        if (z[j] === 0) continue;
        const at = 4 * (j * MAX_LAYERS + k);
        const color = z[j] > 0 ? colors.plus : colors.minus;
        for (let c = 0; c < 3; c++) image.data[at + c] = color[c];
        image.data[at + 3] = 255 * clamp(0.2 + (1.2 * Math.abs(z[j])) / reach, 0, 1);
      }
    }
    context.putImageData(image, 0, 0);
  }

  function frameNet() {
    if (!net.width) return;
    net.domain([0, MAX_LAYERS], [m, 0]);
    const { left, top } = margin;
    Object.assign(picture.style, {
      left: `${left}px`, top: `${top}px`, width: `${net.innerWidth}px`, height: `${net.innerHeight}px`,
    });
    const tick = { "text-anchor": "end", x: left - 6 };
    net.axes.replaceChildren(
      s("text", { class: "title", x: left, y: 11 }, "layer by layer →"),
      ...[1, m].map((j) => s("text", { ...tick, y: net.y(j - 0.5) + 4 }, String(j))),
      s("text", { ...tick, y: net.y(m / 2) + 4 }, "atoms"),
      s("rect", {
        class: "frame", x: left, y: top, width: net.innerWidth, height: net.innerHeight,
      }),
    );
  }

  function drawCurve() {
    if (!curve.width) return;
    curve.domain([0, MAX_LAYERS], [-12, 2]);
    curve.drawAxes({
      x: ticks(0, MAX_LAYERS, 4),
      y: [-12, -9, -6, -3, 0],
      showY: powerOfTen,
      titleX: "layer",
      titleY: "objective − minimum",
    });
    const levels = layers.map((layer) => clamp(Math.log10(Math.max(gapOf(layer), FLOOR)), -12, 3));
    place(gapLine, { d: curve.line(levels.map((_, k) => k), levels) });
  }

  function drawLayer() {
    const depth = view.get("layers");
    const { z, objective, kkt } = layers[depth];
    readouts.objective.set(objective);
    readouts.gap.set(gapOf(layers[depth]));
    readouts.kkt.set(kkt);
    readouts.nonzeros.set(z.filter((value) => value !== 0).length);
    readouts.found.set(z.filter((value, j) => value !== 0 && truth[j] !== 0).length);
    if (net.width) {
      const { left, top } = margin;
      const at = net.x(depth);
      place(netCursor, { x1: at, x2: at, y1: top, y2: top + net.innerHeight });
      const rest = { x: at, y: top, width: left + net.innerWidth - at, height: net.innerHeight };
      coming.replaceChildren(s("rect", rest));
    }
    if (curve.width) {
      const at = curve.x(depth);
      const { top } = curve.margin;
      place(gapCursor, { x1: at, x2: at, y1: top, y2: top + curve.innerHeight });
      const level = clamp(Math.log10(Math.max(gapOf(layers[depth]), FLOOR)), -12, 2);
      place(gapDot, { cx: at, cy: curve.y(level) });
    }
    if (stems.width) drawStems(z);
  }

  function drawStems(z) {
    stems.domain([-reach, reach], [m, 0]);
    const zero = stems.x(0);
    const parts = [s("line", { class: "base", x1: zero, x2: zero, y1: stems.y(0), y2: stems.y(m) })];
    for (let j = 0; j < m; j++) {
      const y = stems.y(j + 0.5);
      if (truth[j] !== 0) parts.push(s("circle", { class: "ring", cx: stems.x(truth[j]), cy: y, r: 5.5 }));
      if (z[j] === 0) continue;
      const x = stems.x(clamp(z[j], -1.02 * reach, 1.02 * reach));
      const color = `var(--cw-${z[j] > 0 ? "blue" : "orange"})`;
      parts.push(s("line", { x1: zero, x2: x, y1: y, y2: y, stroke: color, "stroke-width": 2 }));
      parts.push(s("circle", { cx: x, cy: y, r: 2.8, fill: color }));
    }
    stemLines.replaceChildren(...parts);
    stems.axes.replaceChildren(
      s("text", { class: "title", x: zero, y: 11, "text-anchor": "middle" }, "code at this layer"),
    );
  }

  const parameters = ["lam", "step", "momentum"];
  view.watch(parameters, compute);
  view.watch(parameters, judge);
  view.watch(parameters, drawNet);
  view.watch(parameters, drawCurve);
  view.watch([...parameters, "layers"], drawLayer);
  for (const plot of [net, curve]) {
    const move = (event) => view.put("layers", clamp(Math.round(plot.xOf(event)), 1, MAX_LAYERS));
    view.drag(plot.svg, { move });
  }
  const rows = 300;
  view.onWidth(netBox, (width) => {
    net.resize(width, rows);
    frameNet();
    drawLayer();
  });
  view.onWidth(stemBox, (width) => {
    stems.resize(width, rows);
    drawLayer();
  });
  view.onWidth(curveBox, (width) => {
    curve.resize(width, 200);
    drawCurve();
    drawLayer();
  });
  view.onTheme(drawNet);
  return () => view.destroy();
}

export default { render };
