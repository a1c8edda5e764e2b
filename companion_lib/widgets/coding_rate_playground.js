// Points in two or three classes: what they cost together, what apart, and the difference.

const DEGREES = 180 / Math.PI;
const KNOB = 26; // pixels that a class's knob needs beyond the end of its ellipse
const CLASSES = [
  { color: "blue", shape: "circle" },
  { color: "orange", shape: "square" },
  { color: "green", shape: "triangle" },
];

// ---- small vectors and symmetric matrices

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const times = (a, factor) => a.map((value) => value * factor);
const plus = (a, b, factor = 1) => a.map((value, i) => value + factor * b[i]);
const norm = (a) => Math.sqrt(dot(a, a));
const unit = (a) => times(a, 1 / (norm(a) || 1));
const cross = (a, b) => [
  a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0],
];
const sum = (values) => values.reduce((total, value) => total + value, 0);
const identity = (d) => Array.from({ length: d }, (_, i) => Array.from({ length: d }, (_, j) => +(i === j)));
const apply = (M, a) => M.map((row) => dot(row, a));

function gram(points) {
  const d = points[0].length;
  const S = identity(d).map((row) => times(row, 0));
  for (const z of points) {
    for (let i = 0; i < d; i++) for (let j = 0; j < d; j++) S[i][j] += z[i] * z[j];
  }
  return S;
}

// I + a S
const lifted = (S, a) => S.map((row, i) => row.map((value, j) => a * value + (i === j)));

// The lower triangular L with L Lᵀ = M.
function cholesky(M) {
  const L = M.map((row) => times(row, 0));
  for (let i = 0; i < M.length; i++) {
    for (let j = 0; j <= i; j++) {
      const rest = M[i][j] - dot(L[i].slice(0, j), L[j].slice(0, j));
      L[i][j] = i === j ? Math.sqrt(rest) : rest / L[j][j];
    }
  }
  return L;
}

// ½ log₂ det(I + a S)
const bits = (S, a) => sum(cholesky(lifted(S, a)).map((row, i) => Math.log2(row[i])));

function inverse(M) {
  const L = cholesky(M);
  const d = M.length;
  return identity(d).map((e) => {
    const x = [...e];
    for (let i = 0; i < d; i++) {
      for (let j = 0; j < i; j++) x[i] -= L[i][j] * x[j];
      x[i] /= L[i][i];
    }
    for (let i = d - 1; i >= 0; i--) {
      for (let j = i + 1; j < d; j++) x[i] -= L[j][i] * x[j];
      x[i] /= L[i][i];
    }
    return x;
  });
}

// The largest eigenvalue of S and its unit eigenvector, by Jacobi rotations.
function principal(S) {
  const d = S.length;
  const A = S.map((row) => [...row]);
  const V = identity(d);
  for (let sweep = 0; sweep < 12; sweep++) {
    for (let p = 0; p < d; p++) {
      for (let q = p + 1; q < d; q++) {
        if (A[p][q] === 0) continue;
        const half = 0.5 * Math.atan2(2 * A[p][q], A[p][p] - A[q][q]);
        const [c, s] = [Math.cos(half), Math.sin(half)];
        const mix = (M, i, j, k, l) => {
          [M[i][j], M[k][l]] = [c * M[i][j] + s * M[k][l], c * M[k][l] - s * M[i][j]];
        };
        for (let k = 0; k < d; k++) mix(A, k, p, k, q);
        for (let k = 0; k < d; k++) mix(A, p, k, q, k);
        for (let k = 0; k < d; k++) mix(V, k, p, k, q);
      }
    }
  }
  const values = A.map((row, i) => row[i]);
  const best = values.indexOf(Math.max(...values));
  return { value: values[best], vector: V.map((row) => row[best]) };
}

// ---- coding rates, in bits per point

// The classes follow one another, and have equally many points.
function split(points) {
  const [k, m] = [points[0].length, points.length / points[0].length];
  return Array.from({ length: k }, (_, i) => points.slice(i * m, (i + 1) * m));
}

const total = (matrices) => matrices.reduce((A, B) => A.map((row, i) => plus(row, B[i])));

function rates(grams, n, eps, scale = 1) {
  const d = grams[0].length;
  const a = (d * scale * scale) / (n * eps * eps);
  const whole = bits(total(grams), a);
  const shares = grams.map((S) => bits(S, a * grams.length) / grams.length);
  return { whole, shares, apart: sum(shares), reduction: whole - sum(shares) };
}

const reductionOf = (points, eps) => rates(split(points).map(gram), points.length, eps).reduction;

// ΔR of d orthogonal lines, one for each class, with points of unit length.
const mostReduction = (d, eps) =>
  (d * Math.log2(1 + 1 / eps ** 2) - Math.log2(1 + d / eps ** 2)) / 2;

// One step along the gradient of ΔR with every point kept at unit length. The gradient of point z
// in class k is z (M⁻¹ - M_k⁻¹), up to a factor, with M = I + a ZᵀZ. `gain` multiplies it, but no
// point moves further than `reach`; both are halved until ΔR rises. Null where it does not.
function ascend(points, eps, gain, reach) {
  const start = points.map(unit);
  const [n, d] = [points.length, points[0].length];
  const grams = split(start).map(gram);
  const a = d / (n * eps * eps);
  const whole = inverse(lifted(total(grams), a));
  const pulls = grams.map((S) => inverse(lifted(S, a * grams.length)));
  const moves = start.map((z, i) => {
    const pull = plus(apply(whole, z), apply(pulls[Math.floor((i * d) / n)], z), -1);
    return plus(pull, z, -dot(pull, z));
  });
  const before = rates(grams, n, eps).reduction;
  let step = Math.min(gain, reach / Math.max(...moves.map(norm)));
  for (let halvings = 0; halvings < 20; halvings++, step /= 2) {
    const next = start.map((z, i) => unit(plus(z, moves[i], step)));
    const rise = reductionOf(next, eps) - before;
    if (rise > 0) return { points: next, rise, gain: 2 * step };
  }
  return null;
}

// ---- directions and turns

// The direction in which a class is longest, on the side of its first point.
function direction(S, first) {
  const { value, vector } = principal(S);
  return { value, vector: times(vector, dot(vector, first) < 0 ? -1 : 1) };
}

function somePerpendicular(u) {
  if (u.length === 2) return [-u[1], u[0]];
  const sizes = u.map(Math.abs);
  const at = sizes.indexOf(Math.min(...sizes));
  return unit(cross(u, identity(3)[at]));
}

// From unit vector u to unit vector v: the angle, and the direction across u that leads to v.
function between(u, v) {
  const cosine = dot(u, v);
  const towards = plus(v, u, -cosine);
  const length = norm(towards);
  return {
    angle: Math.atan2(length, cosine),
    across: length > 1e-9 ? times(towards, 1 / length) : somePerpendicular(u),
  };
}

// Turns z by `angle` in the plane of the orthonormal u and w, from u to w.
function turned(z, u, w, angle) {
  const [along, across] = [dot(z, u), dot(z, w)];
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  return plus(plus(z, u, (c - 1) * along - s * across), w, s * along + (c - 1) * across);
}

function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

const randomUnit = (d) => unit(Array.from({ length: d }, normal));

function nearLines(d, m) {
  return Array.from({ length: d }, () => randomUnit(d)).flatMap((line) =>
    Array.from({ length: m }, (_, i) => {
      const size = (i % 2 ? 1 : -1) * (0.45 + 0.85 * Math.random());
      return line.map((value) => size * value + 0.07 * normal());
    }),
  );
}

// ---- the figure

function render({ model, el }) {
  const view = new View(
    { model, el },
    "Coding rate playground",
    `Guess first: at which angle between the classes does knowing the class save most bits? Then
     turn a class by its numbered knob, or drag any point.`,
  );
  const { starts, per_class: m } = view.get("data");
  let facts; // all that follows from points and eps
  let chosen = 0; // the point that the keys move
  let held = false; // while something is dragged the picture keeps its scale

  // ---- the stage: a canvas to see, and handles to take hold of
  const canvas = h("canvas", { "aria-hidden": "true" });
  const hands = s("svg", { class: "hands", role: "group", "aria-label": "points and classes" });
  const globe = s("circle", { class: "globe", "aria-label": "view; arrow keys turn it", role: "img" });
  const knobs = CLASSES.map(({ color }, k) => {
    const knob = s(
      "g",
      { class: "knob-handle", tabindex: 0, role: "img" },
      s("circle", { r: 22, fill: "transparent" }),
      s("circle", { class: "dot", r: 10, fill: `var(--cw-${color})` }),
      s("text", { class: "knob", "text-anchor": "middle", dy: 4 }, String(k + 1)),
    );
    knob.setAttribute(
      "aria-label",
      `class ${k + 1}; left and right arrow turn it, up and down stretch it`,
    );
    return knob;
  });
  let grips = [];
  const grains = s("g");
  hands.append(globe, grains, ...knobs);
  const stage = h("div", { class: "stage" }, canvas, hands);

  // ---- the bars
  const bars = new Plot({
    label: "Bars: the rate of all points is the mean rate of the classes plus the reduction",
    margin: { left: 1, right: 8, top: 0, bottom: 22 },
  });
  const number = (name, extra = {}) => {
    const node = s("tspan", { "data-name": name, class: "value", ...extra });
    const set = (value) => {
      node.textContent = minus(value.toFixed(2));
      node.dataset.value = value;
    };
    return { node, set };
  };
  const symbol = (text, low = "") => [
    s("tspan", { class: "symbol", "font-style": "italic" }, text),
    ...(low ? [s("tspan", { class: "low", dy: 3 }, low), s("tspan", { dy: -3 }, "\u200a")] : []),
  ];
  const rate = number("rate");
  const classRate = number("class_rate");
  const reduction = number("reduction");
  const most = number("most");
  const shares = CLASSES.map((_, k) => number(`share_${k + 1}`));
  const wholeText = s("text", { class: "strong" }, ...symbol("R"), " all coded together: ", rate.node, " bits a point");
  const apartText = s("text", { class: "strong" }, ...symbol("R", "c"), " classes apart: ", classRate.node);
  const savedText = s("text", { class: "strong" }, s("tspan", {}, "Δ"), ...symbol("R"), " saved: ", reduction.node);
  const ofMost = s("tspan", { class: "light" }, " of ", most.node);
  savedText.append(ofMost);
  const wholeBar = s("rect", { class: "whole" });
  const shareBars = CLASSES.map(({ color }) => s("rect", { fill: `var(--cw-${color})` }));
  const savedBar = s("rect", { fill: "var(--cw-purple)" });
  const mostMark = s("path", { class: "most" });
  const drop = s("line", { class: "drop" });
  const marks = CLASSES.map((_, k) => s("tspan", {}, `${"●■▲"[k]} `));
  const shareTexts = shares.map(({ node }, k) =>
    s("text", { class: "share", "text-anchor": "middle" }, marks[k], node),
  );
  bars.over.append(
    wholeBar, ...shareBars, savedBar, drop, mostMark,
    wholeText, apartText, savedText, ...shareTexts,
  );
  const board = h("div", { class: "bars" }, bars.svg);

  // ---- three sliders, each below ΔR as it would be at the slider's other values
  const scaleOf = () => Math.sqrt(current().energy / current().n);
  const dials = [
    {
      name: "eps",
      low: 0.05, high: 1, log: true,
      free: "end", // where the curve leaves room for a name
      at: (value) => rates(facts.grams, facts.n, value).reduction,
      slider: { label: "precision <i>ε</i>, radius of the discs", speak: "epsilon", step: Math.log10(20) / 130 },
    },
    {
      name: "angle",
      low: 0, high: 180,
      free: "start",
      at: (value) => rates(turnedGrams(value), facts.n, view.get("eps")).reduction,
      slider: {
        label: "angle of classes 1 and 2",
        speak: "in degrees",
        step: 1,
        show: (value) => `${value.toFixed(0)}°`,
        of: ["points"],
        read: () => facts.turn.angle * DEGREES,
        write: (value) => move(turnTo(value)),
      },
    },
    {
      name: "scale",
      low: 0.2, high: 2,
      free: "start",
      at: (value) => rates(facts.grams, facts.n, view.get("eps"), value / scaleOf()).reduction,
      slider: {
        label: "scale: root mean square length",
        step: 0.01,
        show: (value) => value.toFixed(2),
        of: ["points"],
        read: () => scaleOf(),
        write: (value) => scaleOf() > 0 && move(current().points.map((z) => times(z, value / scaleOf()))),
      },
    },
  ];

  // ---- computing
  function compute() {
    const [points, eps] = [view.get("points"), view.get("eps")];
    const groups = split(points);
    const grams = groups.map(gram);
    const axes = grams.map((S, k) => direction(S, groups[k][0]));
    facts = {
      points, eps, grams, axes,
      n: points.length,
      d: points[0].length,
      energy: sum(points.map((z) => dot(z, z))),
      turn: between(axes[0].vector, axes[1].vector),
      ...rates(grams, points.length, eps),
    };
  }

  // The facts, also between a change and the next frame.
  function current() {
    if (facts.points !== view.get("points") || facts.eps !== view.get("eps")) compute();
    return facts;
  }

  // Class 1 turned until its angle to class 2 is `degrees`.
  function turnTo(degrees) {
    const { points, axes, turn } = current();
    const { angle, across } = turn;
    const u = axes[0].vector;
    return points.map((z, i) => (i < m ? turned(z, u, across, angle - degrees / DEGREES) : z));
  }

  const turnedGrams = (degrees) => [gram(turnTo(degrees).slice(0, m)), ...facts.grams.slice(1)];

  function move(points) {
    view.put("points", points);
  }

  // ---- projecting
  let size = 0;
  let half = 2; // what lies between the middle and the rim
  const toPixels = () => size / 2 / half;

  // Rows: to the right, up, and towards the reader.
  function frame() {
    if (facts.d === 2) return identity(2);
    const [azimuth, elevation] = view.get("camera").map((angle) => angle / DEGREES);
    const [c, d] = [Math.cos(azimuth), Math.sin(azimuth)];
    const [e, f] = [Math.cos(elevation), Math.sin(elevation)];
    return [[-d, c, 0], [-f * c, -f * d, e], [e * c, e * d, f]];
  }

  function seen(z, P) {
    const [x, y, depth = 0] = apply(P, z);
    return { x: size / 2 + x * toPixels(), y: size / 2 - y * toPixels(), depth };
  }

  // Where the ellipse of a class ends along its direction.
  const tip = (k) => {
    const { value, vector } = facts.axes[k];
    return times(vector, Math.sqrt((facts.d * value) / m + view.get("eps") ** 2));
  };

  function fit() {
    if (held) return;
    const far = Math.max(...facts.axes.map((_, k) => norm(tip(k))), ...facts.points.map(norm));
    half = Math.max(1.5, far / (1 - (2 * KNOB) / size));
  }

  // ---- drawing
  function draw() {
    if (!size) return;
    fit();
    const P = frame();
    paint(canvas, size, size, (context) => {
      context.clearRect(0, 0, size, size);
      drawSphere(context, P);
      drawDiscs(context, P);
      drawEllipses(context, P);
      drawPoints(context, P);
      drawRuler(context, P);
    });
    placeHands(P);
  }

  function drawSphere(context, P) {
    const R = toPixels();
    context.strokeStyle = view.color("muted");
    context.lineWidth = 1;
    context.globalAlpha = 0.55;
    context.beginPath();
    context.arc(size / 2, size / 2, R, 0, 2 * Math.PI);
    context.stroke();
    if (facts.d === 2) return;
    for (const [i, j] of [[0, 1], [1, 2], [2, 0]]) {
      for (let k = 0; k < 72; k++) {
        const ends = [k, k + 1].map((step) => {
          const z = [0, 0, 0];
          [z[i], z[j]] = [Math.cos((step * Math.PI) / 36), Math.sin((step * Math.PI) / 36)];
          return seen(z, P);
        });
        context.globalAlpha = ends[0].depth > 0 ? 0.4 : 0.13;
        context.beginPath();
        context.moveTo(ends[0].x, ends[0].y);
        context.lineTo(ends[1].x, ends[1].y);
        context.stroke();
      }
    }
  }

  // All discs of a class are one area, so that overlaps do not add up.
  function drawDiscs(context, P) {
    const radius = view.get("eps") * toPixels();
    split(facts.points).forEach((group, k) => {
      context.fillStyle = context.strokeStyle = view.color(CLASSES[k].color);
      context.beginPath();
      for (const z of group) {
        const { x, y } = seen(z, P);
        context.moveTo(x + radius, y);
        context.arc(x, y, radius, 0, 2 * Math.PI);
      }
      context.globalAlpha = 0.12;
      context.fill();
      context.globalAlpha = 0.14;
      context.stroke();
    });
  }

  // Outlines of {z: zᵀ (S + ε²/d I)⁻¹ z <= d}, as seen.
  function drawEllipses(context, P) {
    const { n, d, grams } = facts;
    const floor = view.get("eps") ** 2 / d;
    const shown = P.slice(0, 2);
    const outline = (S, count) => {
      const spread = S.map((row, i) => row.map((value, j) => value / count + (i === j) * floor));
      const flat = shown.map((p) => shown.map((q) => dot(p, apply(spread, q))));
      const L = cholesky(flat);
      const r = Math.sqrt(d) * toPixels();
      context.beginPath();
      for (let k = 0; k <= 90; k++) {
        const [c, t] = [Math.cos((k * Math.PI) / 45), Math.sin((k * Math.PI) / 45)];
        context.lineTo(size / 2 + r * L[0][0] * c, size / 2 - r * (L[1][0] * c + L[1][1] * t));
      }
      context.stroke();
    };
    context.lineWidth = 1.5;
    context.globalAlpha = 0.8;
    context.strokeStyle = view.color("ink");
    context.setLineDash([5, 4]);
    outline(total(grams), n);
    context.setLineDash([]);
    grams.forEach((S, k) => {
      context.strokeStyle = view.color(CLASSES[k].color);
      context.globalAlpha = 0.9;
      outline(S, m);
      const [end, far] = [tip(k), times(tip(k), -1)].map((z) => seen(z, P));
      context.globalAlpha = 0.4;
      context.beginPath();
      context.moveTo(end.x, end.y);
      context.lineTo(far.x, far.y);
      context.stroke();
    });
  }

  function drawPoints(context, P) {
    const shown = facts.points.map((z, i) => ({ ...seen(z, P), k: Math.floor(i / m) }));
    shown.sort((a, b) => a.depth - b.depth);
    context.strokeStyle = view.color("paper");
    context.lineWidth = 1.5;
    for (const { x, y, depth, k } of shown) {
      const near = facts.d === 2 ? 1 : clamp(0.72 + 0.28 * depth, 0.4, 1.25);
      context.globalAlpha = clamp(near, 0.4, 1);
      context.fillStyle = view.color(CLASSES[k].color);
      outlineMarker(context, CLASSES[k].shape, x, y, 5.5 * Math.sqrt(near));
      context.fill();
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  function outlineMarker(context, shape, x, y, r) {
    context.beginPath();
    if (shape === "circle") context.arc(x, y, r, 0, 2 * Math.PI);
    else if (shape === "square") context.rect(x - 0.88 * r, y - 0.88 * r, 1.76 * r, 1.76 * r);
    else {
      context.moveTo(x, y - 1.25 * r);
      context.lineTo(x + 1.15 * r, y + 0.8 * r);
      context.lineTo(x - 1.15 * r, y + 0.8 * r);
      context.closePath();
    }
  }

  // The radius of one disc, the chosen point's, with its name, away from the middle.
  function drawRuler(context, P) {
    const { x, y } = seen(facts.points[chosen], P);
    const radius = view.get("eps") * toPixels();
    const [c, d] = unit(plus([x, y], [size / 2, size / 2], -1));
    context.strokeStyle = context.fillStyle = view.color("ink");
    context.lineWidth = 1.25;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.stroke();
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x + radius * c, y + radius * d);
    context.stroke();
    context.font = "italic 15px Georgia, serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText("ε", x + (radius + 9) * c, y + (radius + 9) * d);
  }

  function placeHands(P) {
    place(hands, { width: size, height: size, viewBox: `0 0 ${size} ${size}` });
    place(globe, {
      cx: size / 2, cy: size / 2, r: toPixels(),
      tabindex: facts.d === 3 ? 0 : null,
      visibility: facts.d === 3 ? "visible" : "hidden",
    });
    if (grips.length !== facts.n) makeGrips();
    grips.forEach((grip, i) => {
      const { x, y } = seen(facts.points[i], P);
      place(grip, { cx: x, cy: y, tabindex: i === chosen ? 0 : -1 });
    });
    knobs.forEach((knob, k) => {
      const there = k < facts.axes.length;
      place(knob, { visibility: there ? "visible" : "hidden", tabindex: there ? 0 : -1 });
      if (!there) return;
      const { x, y, depth } = seen(tip(k), P);
      const out = times(unit(plus([x, y], [size / 2, size / 2], -1)), KNOB - 12);
      const [tx, ty] = plus([x, y], out);
      place(knob, { transform: `translate(${tx},${ty})`, opacity: depth < -0.05 ? 0.75 : 1 });
    });
  }

  const round = (value) => Math.round(100 * value) / 100;
  const describe = (i) =>
    `class ${Math.floor(i / m) + 1}, point ${(i % m) + 1} at ${facts.points[i].map(round).join(", ")}; ` +
    "arrow keys move it, page up and page down choose another";

  const tops = [0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30, 40];

  function drawBars() {
    if (!bars.width) return;
    const { whole, apart, d } = facts;
    const ceiling = mostReduction(d, view.get("eps"));
    rate.set(whole);
    classRate.set(apart);
    reduction.set(facts.reduction);
    most.set(ceiling);
    const top = tops.find((value) => value >= 1.02 * Math.max(whole, apart + ceiling)) ?? 1.02 * whole;
    bars.domain([0, top], [0, 1]);
    const scale = ticks(0, top, 4);
    bars.drawAxes({ x: scale, showX: (value) => (value === scale.at(-1) ? `${value} bits` : `${value}`) });
    bars.axes.querySelectorAll("text").forEach((text, i) => {
      place(text, { "text-anchor": i === 0 ? "start" : scale[i] === top ? "end" : "middle" });
    });
    const x = (value) => bars.x(value);
    const span = (bar, from, to, y) =>
      place(bar, { x: x(from), width: Math.max(0, x(to) - x(from)), y, height: 20 });
    place(wholeText, { x: x(0), y: 12 });
    span(wholeBar, 0, whole, 18);
    place(drop, { x1: x(whole), x2: x(whole), y1: 38, y2: 70 });
    let from = 0;
    CLASSES.forEach((_, k) => {
      const share = facts.shares[k] ?? 0;
      span(shareBars[k], from, from + share, 50);
      shares[k].set(share);
      const room = x(from + share) - x(from);
      marks[k].style.display = room > 56 ? "" : "none";
      place(shareTexts[k], {
        x: x(from) + room / 2, y: 64, visibility: room > 34 ? "visible" : "hidden",
      });
      from += share;
    });
    span(savedBar, apart, whole, 50);
    place(apartText, { x: x(0), y: 86 });
    const mark = x(apart + ceiling);
    const normalized = facts.points.every((z) => Math.abs(norm(z) - 1) < 1e-6);
    for (const node of [mostMark, ofMost]) node.style.display = normalized ? "" : "none";
    place(mostMark, { d: `M${mark},46V74` });
    // Below its bar, but clear of the other text and not beyond the edge.
    const [before, own] = [apartText, savedText].map((text) => text.getComputedTextLength());
    place(savedText, { x: clamp(x(apart), before + 14, Math.max(before + 14, bars.width - own)), y: 86 });
  }

  // ---- the small curves above the sliders
  const COUNT = 60;
  const knobsAt = Array.from({ length: COUNT + 1 }, (_, i) => i / COUNT);
  for (const dial of dials) {
    const { low, high, log } = dial;
    dial.value = (share) => (log ? low * (high / low) ** share : low + share * (high - low));
    dial.share = (value) => (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
  }

  function drawDials() {
    for (const { plot, curve, area, dot: spot, at, value, share, now } of dials) {
      if (!plot.width) continue;
      const heights = knobsAt.map((t) => at(value(t)));
      const top = Math.max(...heights, 1e-9);
      plot.domain([0, 1], [0, 1.06 * top]);
      place(curve, { d: plot.line(knobsAt, heights) });
      place(area, { d: plot.band(knobsAt, knobsAt.map(() => 0), heights) });
      place(spot, { cx: plot.x(clamp(share(now()), 0, 1)), cy: plot.y(Math.min(facts.reduction, 1.06 * top)) });
    }
  }

  // At once, not at the next frame, so that what follows finds points of the right dimension.
  function changeDimension() {
    if (view.get("points")[0].length === view.get("d")) return;
    chosen = 0;
    restart(starts[view.get("d")]);
  }
  model.on("change:d", changeDimension);
  view.cleanups.push(() => model.off("change:d", changeDimension));
  view.watch(["points", "eps"], compute);

  const sliders = dials.map((dial) => {
    const { name, low, high, log = false, slider } = dial;
    dial.now = slider.read ?? (() => view.get(name));
    const write = slider.write ?? ((value) => view.put(name, value));
    const options = { ...slider, min: low, max: high, log };
    const node = view.slider(name, options);
    node.querySelector("input").addEventListener("input", stop);
    dial.plot = new Plot({ label: "", margin: { left: 9, right: 9, top: 5, bottom: 1 }, className: "spark scrub" });
    place(dial.plot.svg, { "aria-hidden": "true" });
    dial.area = s("path", { class: "spark-area" });
    dial.curve = s("path", { class: "curve", stroke: "var(--cw-purple)" });
    dial.dot = s("circle", { class: "dot", r: 5, fill: "var(--cw-purple)" });
    dial.plot.clip.append(dial.area, dial.curve);
    dial.title = s("text", { class: "halo", y: 15, "text-anchor": dial.free }, "Δ", ...symbol("R"));
    dial.plot.over.append(dial.title, dial.dot);
    node.querySelector(".track").prepend(dial.plot.svg);
    view.drag(dial.plot.svg, {
      move: (event) => {
        stop();
        write(dial.value(clamp(dial.plot.xOf(event), 0, 1)));
      },
    });
    return node;
  });
  const dimension = view.choice("d", "dimension", [
    { value: 2, text: "2-D" },
    { value: 3, text: "3-D" },
  ]);
  const panel = h("div", { class: "panel" }, board, ...sliders);

  const runButton = view.button("Run", () => (running ? stop() : run()));
  const keys = rich("", "p", { class: "remark" });
  view.root.append(
    h("div", { class: "playground" }, h("div", { class: "stage-column" }, dimension, stage), panel),
    h(
      "div",
      { class: "toolbar" },
      h("span", { class: "readout" }, "Start"),
      view.button("near lines", () => restart(nearLines(current().d, m))),
      view.button("at random", () => restart(current().points.map(() => randomUnit(facts.d)))),
      view.button("Normalize", () => restart(current().points.map(unit))),
      view.button("Step uphill", () => (stop(), climb(1, 0.3))),
      runButton,
    ),
    keys,
  );

  // ---- moving
  let running = 0;

  function stop() {
    cancelAnimationFrame(running);
    running = 0;
    runButton.textContent = "Run";
  }

  function restart(points) {
    stop();
    move(points);
  }

  // One step of gradient ascent; the next one's gain, or 0 where there is no way up.
  function climb(gain, reach) {
    const next = ascend(view.get("points"), view.get("eps"), gain, reach);
    if (!next) return 0;
    move(next.points);
    return next.rise > 1e-11 ? next.gain : 0;
  }

  function run() {
    let gain = 1;
    if (reducedMotion()) {
      for (let k = 0; k < 5000 && gain; k++) gain = climb(gain, 0.3);
      return;
    }
    runButton.textContent = "Stop";
    const tick = () => {
      gain = climb(gain, 0.03);
      if (gain) running = requestAnimationFrame(tick);
      else stop();
    };
    running = requestAnimationFrame(tick);
  }

  // The plane of the picture: a shift of the pointer as a shift in space.
  const shift = (dx, dy, P) => plus(times(P[0], dx / toPixels()), P[1], -dy / toPixels());

  const inside = (z) => times(z, Math.min(1, (0.95 * half) / (norm(z) || 1)));

  function movePoint(i, z) {
    stop();
    move(current().points.map((old, j) => (j === i ? inside(z) : old)));
  }

  // Turns and stretches class k so that what was at `from` comes to lie at `to`.
  function moveClass(k, points, from, to) {
    stop();
    const { angle, across } = between(unit(from), unit(to));
    const eps = view.get("eps");
    // The knob is at the end of the ellipse, which noise makes longer.
    const bare = (length) => Math.sqrt(Math.max(length ** 2 - eps ** 2, 0.02));
    const stretch = bare(Math.min(norm(to), 0.95 * half)) / bare(norm(from));
    move(
      points.map((z, i) =>
        Math.floor(i / m) === k ? times(turned(z, unit(from), across, angle), stretch) : z,
      ),
    );
  }

  const pixel = (event) => {
    const box = hands.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const letGo = () => {
    held = false;
    draw();
  };

  let grasp;
  view.drag(grains, {
    start: (event) => {
      held = true;
      const [x, y] = pixel(event);
      const P = frame();
      const distance = (z) => Math.hypot(seen(z, P).x - x, seen(z, P).y - y);
      // The nearest point, not the topmost circle.
      const nearest = facts.points.reduce(
        (best, z, i) => (distance(z) < distance(facts.points[best]) ? i : best), 0,
      );
      choose(nearest);
      grasp = { x, y, z: facts.points[nearest], P };
    },
    move: (event) => {
      const [x, y] = pixel(event);
      movePoint(chosen, plus(grasp.z, shift(x - grasp.x, y - grasp.y, grasp.P)));
    },
    end: letGo,
  });
  knobs.forEach((knob, k) => {
    view.drag(knob, {
      start: (event) => {
        held = true;
        const [x, y] = pixel(event);
        grasp = { x, y, points: current().points, from: tip(k), P: frame() };
      },
      move: (event) => {
        const [x, y] = pixel(event);
        const to = plus(grasp.from, shift(x - grasp.x, y - grasp.y, grasp.P));
        if (norm(to) > 1e-6) moveClass(k, grasp.points, grasp.from, to);
      },
      end: letGo,
    });
    view.listen(knob, "keydown", (event) => {
      const turn = { ArrowLeft: 3, ArrowRight: -3 }[event.key];
      const stretch = { ArrowUp: 1.05, ArrowDown: 1 / 1.05 }[event.key];
      if (!turn && !stretch) return;
      event.preventDefault();
      const [{ points }, P] = [current(), frame()];
      const from = tip(k);
      const to = turn ? turned(from, P[0], P[1], turn / DEGREES) : times(from, stretch);
      moveClass(k, points, from, to);
    });
  });
  view.drag(globe, {
    start: (event) => (grasp = { at: pixel(event), camera: view.get("camera") }),
    move: (event) => {
      const [x, y] = pixel(event);
      lookFrom(
        grasp.camera[0] - (x - grasp.at[0]) * 0.6,
        grasp.camera[1] + (y - grasp.at[1]) * 0.6,
      );
    },
  });
  view.listen(globe, "keydown", (event) => {
    const [dx, dy] = ARROWS[event.key] ?? [0, 0];
    if (!dx && !dy) return;
    event.preventDefault();
    const [azimuth, elevation] = view.get("camera");
    lookFrom(azimuth - 5 * dx, elevation - 5 * dy);
  });

  function lookFrom(azimuth, elevation) {
    view.put("camera", [((azimuth % 360) + 360) % 360, clamp(elevation, -90, 90)]);
  }

  function choose(i) {
    chosen = i;
    draw();
  }

  function makeGrips() {
    grips = facts.points.map((_, i) => {
      const grip = s("circle", { class: "grip", r: 14, fill: "transparent", role: "img" });
      grip.addEventListener("focus", () => {
        choose(i);
        grip.setAttribute("aria-label", describe(i));
      });
      grip.addEventListener("keydown", (event) => {
        const along = { PageDown: 1, PageUp: -1 }[event.key];
        const [dx, dy] = ARROWS[event.key] ?? [0, 0];
        if (!along && !dx && !dy) return;
        event.preventDefault();
        if (along) grips[(i + along + facts.n) % facts.n].focus();
        else {
          const step = 0.05 * toPixels();
          movePoint(i, plus(current().points[i], shift(dx * step, -dy * step, frame())));
        }
      });
      return grip;
    });
    grains.replaceChildren(...grips);
  }

  view.watch(["d"], () => {
    const space = view.get("d") === 3;
    keys.innerHTML = `${space ? "Balls" : "Discs"} of radius <i>ε</i> show the error allowed to a
      point. Ellipses show the spread of each class and, dashed, of all points, error included:
      2<sup><i>R</i></sup> ${space ? "balls have the volume" : "discs have the area"} of the
      ellipse. The small curves show Δ<i>R</i> along each slider. <b>Step</b> and <b>run</b> climb
      Δ<i>R</i> with all points at unit length; a mark then shows the most that can be saved.
      ${space ? "Drag the sphere to look from another side. " : ""}<b>Keys:</b> Tab to a point or
      knob; arrows move it; Page Up and Page Down choose another point.`;
  });
  view.watch(["points", "eps"], drawBars);
  view.watch(["points", "eps"], drawDials);
  view.watch(["points", "eps", "camera"], draw);
  view.onWidth(stage, (width) => {
    size = Math.min(width, 420);
    draw();
  });
  view.onWidth(board, (width) => {
    bars.resize(width, 116);
    drawBars();
  });
  view.onWidth(panel, () => {
    for (const { plot, title, free } of dials) {
      const width = plot.svg.parentNode.clientWidth;
      plot.resize(width, 40);
      place(title, { x: free === "start" ? 12 : width - 12 });
    }
    drawDials();
  });
  view.onTheme(draw);
  return () => {
    stop();
    view.destroy();
  };
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export default { render };
