// Clustering by steepest descent on the bits: the path of merges, and where it should have led.

const DIMENSION = 3;
const TILT = 0.95; // the steepest view from above or below, in radians
const SPREAD = 137.508; // degrees between the hues of new clusters: far apart, however many
const TRUE_COLORS = ["blue", "orange", "green"];
const NEAR = 5e-3; // bits; partitions that differ by less are called equal

// Half the log det of I + a S, S the second moments of `n` vectors in R³. One or two vectors leave
// S short of full rank, and rounding in place of its zeros; so they are expanded in powers of a.
function halfLogDet([xx, yy, zz, xy, xz, yz], n, a) {
  if (n < 3) {
    const minors = n > 1 ? xx * yy - xy * xy + xx * zz - xz * xz + yy * zz - yz * yz : 0;
    return Math.log1p(a * (xx + yy + zz) + a * a * Math.max(minors, 0)) / 2;
  }
  const first = 1 + a * xx;
  const [u, v] = [(a * xy) / first, (a * xz) / first];
  const second = Math.max(1, 1 + a * yy - u * a * xy);
  const w = a * yz - u * a * xz;
  const third = Math.max(1, 1 + a * zz - v * a * xz - (w * w) / second);
  return (Math.log(first) + Math.log(second) + Math.log(third)) / 2;
}

// The coding length of one cluster in nats, its share of the membership code included.
function length({ sums, n }, eps, overhead, total) {
  const rate = halfLogDet(sums, n, DIMENSION / (n * eps * eps));
  return (overhead ? n + DIMENSION : n) * rate + n * Math.log(total / n);
}

function single(X, i) {
  const [x, y, z] = X.subarray(3 * i, 3 * i + 3);
  return { sums: [x * x, y * y, z * z, x * y, x * z, y * z], n: 1 };
}

const union = (one, other) => ({
  sums: one.sums.map((value, k) => value + other.sums[k]),
  n: one.n + other.n,
});

const lengthOf = (clusters, eps, overhead, total) =>
  clusters.reduce((sum, cluster) => sum + length(cluster, eps, overhead, total), 0);

// Total coding length after 0, 1, …, N − 1 merges.
function lengths(X, merges, eps, overhead) {
  const total = X.length / 3;
  const clusters = Array.from({ length: total }, (_, i) => single(X, i));
  const own = clusters.map((cluster) => length(cluster, eps, overhead, total));
  let sum = own.reduce((all, value) => all + value, 0);
  const result = [sum];
  for (const [kept, gone] of merges) {
    clusters[kept] = union(clusters[kept], clusters[gone]);
    sum -= own[kept] + own[gone];
    own[kept] = length(clusters[kept], eps, overhead, total);
    result.push((sum += own[kept]));
  }
  return result;
}

// The cluster of every point after `count` merges, named by the cluster's kept point.
function labelsAfter(merges, count, total) {
  const parent = Array.from({ length: total }, (_, i) => i);
  for (let t = 0; t < count; t++) parent[merges[t][1]] = merges[t][0];
  return parent.map((_, i) => {
    while (parent[i] !== i) i = parent[i];
    return i;
  });
}

const pairs = (count) => (count * (count - 1)) / 2;

function tally(keys) {
  const counts = new Map();
  for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1);
  return [...counts.values()].reduce((sum, count) => sum + pairs(count), 0);
}

// 1 for equal partitions, 0 on average for random ones of the same sizes.
function adjustedRand(labels, truth) {
  const both = tally(labels.map((label, i) => `${label} ${truth[i]}`));
  const [one, other] = [tally(labels), tally(truth)];
  const expected = (one * other) / pairs(labels.length);
  const highest = (one + other) / 2;
  return highest === expected ? 1 : (both - expected) / (highest - expected);
}

// The three clusters left before the last two merges get the colors of the lines and the plane, each
// the one it has most points of.
function lastColors(merges, truth) {
  const last = labelsAfter(merges, truth.length - 3, truth.length);
  const overlaps = [...new Set(last)].flatMap((label) =>
    TRUE_COLORS.map((color, k) => {
      const shared = last.filter((other, i) => other === label && truth[i] === k).length;
      return { label, color, shared };
    }),
  );
  overlaps.sort((one, other) => other.shared - one.shared);
  const colors = new Map();
  const taken = new Set();
  for (const { label, color } of overlaps) {
    if (colors.has(label) || taken.has(color)) continue;
    colors.set(label, color);
    taken.add(color);
  }
  return colors;
}

// The color of every cluster after `count` merges: a union has the color of its larger part, and
// the smaller part a color of its own, the name of a house color or a number for a hue.
function colorsAfter({ merges, sizes, final }, count) {
  const colors = new Map(final);
  const from = merges.length - 2;
  for (let t = from; t < count; t++) {
    const [kept, gone] = merges[t];
    if (sizes[t][1] > sizes[t][0]) colors.set(kept, colors.get(gone));
  }
  for (let t = from - 1; t >= count; t--) {
    const [kept, gone] = merges[t];
    const color = colors.get(kept);
    const [large, small] = sizes[t][0] >= sizes[t][1] ? [kept, gone] : [gone, kept];
    colors.set(large, color);
    colors.set(small, t);
  }
  return colors;
}

// A curve that keeps its value around each x.
function staircase(xs, ys) {
  const half = (xs[1] - xs[0]) / 2;
  const inside = (x) => clamp(x, xs[0], xs.at(-1));
  return [xs.flatMap((x) => [inside(x - half), inside(x + half)]), ys.flatMap((y) => [y, y])];
}

// The sizes of the two parts of every merge.
function sizesAlong(merges, total) {
  const size = new Array(total).fill(1);
  return merges.map(([kept, gone]) => {
    const parts = [size[kept], size[gone]];
    size[kept] += size[gone];
    return parts;
  });
}

function render({ model, el }) {
  const view = new View(
    { model, el },
    "Cluster by cost",
    `Two noisy lines and a noisy plane. At first every point is a cluster; then, again and again,
     the two whose union saves most bits are merged. For which precision <i>ε</i> will that find the
     three? Predict, then move <i>ε</i>.`,
  );
  const stored = view.get("data");
  const X = unpack(stored.points).values;
  const { truth, grid, noise } = stored;
  const total = truth.length;
  const last = total - 1;
  const perVector = 1 / (total * Math.LN2);
  const counts = Array.from({ length: total }, (_, t) => Math.log10(total - t));
  const allMerges = unpack(stored.merges).values;
  const parts = (labels) => {
    const found = new Map();
    labels.forEach((label, i) =>
      found.set(label, found.has(label) ? union(found.get(label), single(X, i)) : single(X, i)),
    );
    return [...found.values()];
  };
  const trueParts = parts(truth);

  // ---- one path of merges for each precision and objective, computed when first needed
  const paths = new Map();
  function pathAt(index, overhead) {
    const key = `${index} ${overhead}`;
    if (!paths.has(key)) {
      const first = (Number(overhead) * grid.length + index) * 2 * last;
      const merges = Array.from({ length: last }, (_, t) => [
        allMerges[first + 2 * t],
        allMerges[first + 2 * t + 1],
      ]);
      const eps = 10 ** grid[index];
      paths.set(key, {
        merges,
        bits: lengths(X, merges, eps, overhead).map((nats) => nats * perVector),
        stop: stored.stops[Number(overhead)][index],
        truth: lengthOf(trueParts, eps, overhead, total) * perVector,
      });
    }
    return paths.get(key);
  }
  const indexOf = (exponent) =>
    clamp(Math.round((exponent - grid[0]) / (grid[1] - grid[0])), 0, grid.length - 1);
  const chosen = () => indexOf(Math.log10(view.get("eps")));
  let now, labels, curves;

  // ---- the points
  const canvas = h("canvas", {
    class: "turn", tabindex: 0, role: "img",
    "aria-label": "The points in space, colored by cluster; arrow keys turn them",
  });
  const space = h("div", { class: "stage" }, canvas);

  // ---- the path
  const path = new Plot({
    label: "Bits per vector along the path of merges, from every point alone to one cluster",
    margin: { left: 40, right: 14, top: 26, bottom: 40 },
    className: "scrub",
  });
  const walked = s("path", { class: "curve", stroke: "var(--cw-ink)" });
  const beyond = s("path", { class: "curve", stroke: "var(--cw-muted)", "stroke-dasharray": "4 4" });
  const truthLine = s("path", { class: "curve", stroke: "var(--cw-green)", "stroke-dasharray": "7 3" });
  const truthText = s("text", { class: "strong" }, "true partition");
  const pathCursor = s("line", { class: "cursor" });
  const stopMark = s("path", { fill: "var(--cw-ink)", class: "dot" });
  const stopText = s("text", { class: "strong" }, "greedy stops");
  const pathDot = s("circle", { class: "dot", r: 7, fill: "var(--cw-blue)" });
  path.clip.append(truthLine, beyond, walked);
  path.over.append(truthText, pathCursor, stopMark, stopText, pathDot);
  const pathBox = h("div", {}, path.svg);

  // ---- everything over the precision
  const margin = { left: 40, right: 14, top: 26, bottom: 8 };
  const many = new Plot({ label: "Number of clusters where greedy merging stops, over ε", margin, className: "scrub" });
  const excess = new Plot({
    label: "Bits per vector beyond those of the true partition, over ε",
    margin: { ...margin, bottom: 40 },
    className: "scrub",
  });
  const manyLine = s("path", { class: "curve", stroke: "var(--cw-ink)" });
  many.clip.append(manyLine);
  const series = [
    { name: "alone", color: "purple", of: ({ bits }) => bits[0] },
    { name: "one", color: "sky", of: ({ bits }) => bits[last] },
    { name: "greedy", color: "ink", of: ({ bits, stop }) => bits[stop] },
  ];
  const zero = s("path", { class: "curve", stroke: "var(--cw-green)", "stroke-dasharray": "7 3" });
  excess.clip.append(zero);
  for (const one of series) {
    one.line = s("path", { class: "curve", stroke: `var(--cw-${one.color})` });
    excess.clip.append(one.line);
  }
  const names = ["every point alone", "one cluster", "true partition"].map((name) =>
    s("text", { class: "strong" }, name),
  );
  excess.over.append(...names);
  for (const plot of [many, excess]) {
    plot.stuck = s("g", { class: "stuck" });
    plot.clip.prepend(plot.stuck);
    plot.level = s("line", { class: "noise-level" });
    plot.cursor = s("line", { class: "cursor" });
    plot.dot = s("circle", { class: "dot", r: 6, fill: "var(--cw-ink)" });
    plot.over.append(plot.level, plot.cursor, plot.dot);
  }
  const noiseText = s("text", { class: "strong", "text-anchor": "middle" }, "noise");
  many.over.append(noiseText);
  const board = h("div", { class: "board" }, many.svg, excess.svg);

  const bitsText = (value) => value.toFixed(2);
  const numbers = Object.fromEntries(
    [
      ["greedy_bits", `<span class="ink">greedy</span>`, bitsText],
      ["true_bits", `<span class="green">true partition</span>`, bitsText],
      ["one_bits", `<span class="sky">one cluster</span>`, bitsText],
      ["alone_bits", `<span class="purple">every point alone</span>`, bitsText],
      ["clusters", "clusters", String],
      ["bits", "bits per vector", bitsText],
      ["rand", "adjusted Rand index", (value) => minus(value.toFixed(3))],
    ].map(([name, label, show]) => [name, view.readout(name, label, show)]),
  );
  const pick = (...names) => names.map((name) => numbers[name].node);
  const verdict = h("p", { class: "verdict", role: "status" });
  const play = view.button("Play the merges", () => run());
  const mergesSlider = view.slider("merges", {
    label: "merges", min: 0, max: last, step: 1, show: String, marks: [{ at: 0, text: "stop" }],
  });
  const stopOnTrack = mergesSlider.querySelector(".stop");

  view.root.append(
    h("div", { class: "two" }, space, pathBox),
    h("div", { class: "readouts" }, ...pick("clusters", "bits", "rand")),
    h(
      "div",
      { class: "controls" },
      mergesSlider,
      view.slider("eps", {
        label: "precision <i>ε</i>",
        speak: "epsilon",
        log: true,
        min: stored.ends[0], max: stored.ends[1], step: grid[1] - grid[0],
        show: (value) => pretty(value, 2),
        marks: [{ at: noise, text: "noise" }],
      }),
    ),
    h(
      "div",
      { class: "toolbar" },
      view.choice("overhead", "what a cluster costs", [
        { value: false, text: "nₖR, printed" },
        { value: true, text: "(nₖ + d)R, plotted" },
      ]),
      play,
    ),
    verdict,
    h(
      "div",
      { class: "readouts" },
      h("span", { class: "readout" }, "bits per vector:"),
      ...pick("greedy_bits", "true_bits", "one_bits", "alone_bits"),
    ),
    board,
    rich(
      `A cluster of <i>n</i><sub><i>k</i></sub> points costs <i>n</i><sub><i>k</i></sub> times its coding
       rate <i>R</i>, with or without <i>d</i> = 3 more for its own model, and the points' membership.
       Greedy merging stops where the next merge would cost bits. The dashed path goes on past that.
       In the lowest picture the true partition is the zero line, and at the shaded precisions another
       partition is cheaper than what <span class="ink">greedy</span> found.`,
      "p", { class: "remark" },
    ),
  );

  // ---- computing
  function choose() {
    now = pathAt(chosen(), view.get("overhead"));
    now.sizes ??= sizesAlong(now.merges, total);
    now.final ??= lastColors(now.merges, truth);
    numbers.greedy_bits.set(now.bits[now.stop]);
    numbers.true_bits.set(now.truth);
    numbers.one_bits.set(now.bits[last]);
    numbers.alone_bits.set(now.bits[0]);
    stopOnTrack.style.setProperty("--at", now.stop / last);
  }

  // What is known to cost less than greedy's partition, the cheapest first.
  function cheaper({ bits, stop, truth: ofTruth }) {
    const known = [
      ["the true partition", ofTruth],
      ["one cluster", bits[last]],
      ["every point alone", bits[0]],
    ];
    return known.filter(([, cost]) => cost < bits[stop] - NEAR).sort((a, b) => a[1] - b[1]);
  }

  function judge() {
    const { bits, stop } = now;
    const K = total - stop;
    const known = cheaper(now);
    const found = `Greedy stops at ${K} cluster${K > 1 ? "s" : ""} and ${bitsText(bits[stop])} bits`;
    verdict.dataset.state = known.length ? "diverges" : "falls";
    if (!known.length) {
      verdict.textContent = `${found}, and no partition we know is cheaper. This regime is real.`;
      return;
    }
    const better = known.slice(0, 2).map(([name, cost]) => `${name} costs ${bitsText(cost)}`).join(" and ");
    const further = Math.min(...bits.slice(stop)) < bits[stop] - NEAR;
    const advice = further ? " Drag the merges past the stop: after a small rise the bits fall on." : "";
    verdict.textContent = `${found}, but ${better}. It is stuck, not at the optimum.${advice}`;
  }

  function computeCurves() {
    const overhead = view.get("overhead");
    curves = grid.map((_, index) => pathAt(index, overhead));
  }

  // ---- drawing the points
  let size = 0;
  let [turn, tilt] = [-0.62, 0.36];
  const height = () => Math.round(0.8 * size);

  // A point as (right, up, toward the eye), after turning about the vertical and tilting.
  function seen([x, y, z]) {
    const [c, d] = [Math.cos(turn), Math.sin(turn)];
    const [e, f] = [Math.cos(tilt), Math.sin(tilt)];
    const away = d * x + c * y;
    return [c * x - d * y, e * z + f * away, f * z - e * away];
  }

  function paintColor(color, dark) {
    if (typeof color === "string") return view.color(color);
    return `hsl(${(color * SPREAD) % 360} ${dark ? "55% 62%" : "60% 46%"})`;
  }

  function drawSpace() {
    if (!size) return;
    const dark = getComputedStyle(view.root).colorScheme === "dark";
    const colors = colorsAfter(now, view.get("merges"));
    const crowd = new Map();
    for (const label of labels) crowd.set(label, (crowd.get(label) ?? 0) + 1);
    const fills = new Map();
    for (const [label, count] of crowd) {
      fills.set(label, count > 1 ? paintColor(colors.get(label), dark) : view.color("muted"));
    }
    const unit = 0.33 * size;
    const at = (point) => {
      const [right, up, near] = seen(point);
      return [size / 2 + unit * right, height() / 2 - unit * up, near / 1.5];
    };
    const dots = labels.map((label, i) => [...at(X.subarray(3 * i, 3 * i + 3)), label]);
    dots.sort((one, other) => one[2] - other[2]);
    paint(canvas, size, height(), (context) => {
      drawScaffold(context, at);
      for (const [x, y, near, label] of dots) {
        const alone = crowd.get(label) === 1;
        context.globalAlpha = (alone ? 0.35 : 0.6) + 0.3 * near;
        context.fillStyle = fills.get(label);
        context.beginPath();
        context.arc(x, y, (alone ? 1.9 : 2.6) + 0.8 * near, 0, 2 * Math.PI);
        context.fill();
      }
    });
  }

  // The plane as a square with a grid, and the two lines: what the points were drawn from.
  function drawScaffold(context, at) {
    const stroke = (...points) => {
      context.beginPath();
      points.map(at).forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.stroke();
    };
    context.strokeStyle = view.color("line");
    context.lineWidth = 1;
    for (const level of [-1, -0.5, 0, 0.5, 1]) {
      stroke([-1, level, 0], [1, level, 0]);
      stroke([level, -1, 0], [level, 1, 0]);
    }
    for (const line of stored.lines) stroke(line.map((x) => -1.15 * x), line.map((x) => 1.15 * x));
  }

  function count() {
    const merges = view.get("merges");
    labels = labelsAfter(now.merges, merges, total);
    numbers.clusters.set(total - merges);
    numbers.bits.set(now.bits[merges]);
    numbers.rand.set(adjustedRand(labels, truth));
  }

  // ---- drawing the curves
  function drawPath() {
    if (!path.width) return;
    const { bits, stop } = now;
    const low = Math.min(...bits, now.truth);
    const high = Math.max(...bits, now.truth);
    const room = 0.08 * (high - low);
    path.domain([counts[0], 0], [low - 1.5 * room, high + room]);
    path.drawAxes({
      x: [1, 3, 10, 30, 100, total].map(Math.log10),
      y: ticks(low - 1.5 * room, high + room, 4),
      showX: (value) => String(Math.round(10 ** value)),
      titleX: "clusters left →",
      titleY: "bits per vector",
    });
    place(walked, { d: path.line(counts.slice(0, stop + 1), bits.slice(0, stop + 1)) });
    place(beyond, { d: path.line(counts.slice(stop), bits.slice(stop)) });
    place(truthLine, { d: path.line([counts[0], 0], [now.truth, now.truth]) });
    const level = path.y(now.truth);
    const [stopX, stopY] = [path.x(counts[stop]), path.y(bits[stop])];
    place(stopMark, { d: `M${stopX},${stopY - 8}l8,8l-8,8l-8,-8Z` });
    const corners = bits.map((value, t) => [path.x(counts[t]), path.y(value)]);
    const curve = corners.slice(1).flatMap(([x, y], t) => {
      const [oldX, oldY] = corners[t];
      const between = Math.ceil(Math.hypot(x - oldX, y - oldY) / 6);
      return Array.from({ length: between }, (_, k) => {
        const share = (k + 1) / between;
        return [oldX + share * (x - oldX), oldY + share * (y - oldY)];
      });
    });
    const line = Array.from({ length: 41 }, (_, k) => [path.x((counts[0] * k) / 40), level]);
    const beside = [-14, 14].flatMap((dx) =>
      [-42, -27, -13, 4, 21].map((dy) => [stopX + dx, stopY + dy, -dx]),
    );
    const taken = putText(stopText, beside, [...curve, ...line]);
    const { left } = path.margin;
    const ofLine = [left + 6, left + path.innerWidth - 6].flatMap((x, k) =>
      [-7, 15].map((dy) => [x, level + dy, k ? 1 : -1]),
    );
    putText(truthText, ofLine, [...curve, ...taken]);
  }

  // Writes where it is farthest from the points in its way, and returns the place it took as such
  // points. A place is x, y and whether the text ends (> 0) or starts (< 0) there.
  function putText(text, places, points) {
    const width = 6.6 * text.textContent.length;
    const { top, left } = path.margin;
    const roomOf = ([x, y, end]) => {
      const [from, to] = end > 0 ? [x - width, x] : [x, x + width];
      if (from < left || to > left + path.innerWidth + 8) return -1;
      if (y < top + 6 || y > top + path.innerHeight) return -1;
      const away = points.map(([px, py]) =>
        Math.hypot(px - clamp(px, from, to), 1.5 * (py - clamp(py, y - 9, y))),
      );
      return Math.min(...away);
    };
    const [x, y, end] = places.reduce((best, one) => (roomOf(one) > roomOf(best) ? one : best));
    place(text, { x, y, "text-anchor": end > 0 ? "end" : "start" });
    return Array.from({ length: 9 }, (_, k) => [x + (end > 0 ? -1 : 1) * (width * k) / 8, y - 4]);
  }

  function drawPosition() {
    if (!path.width) return;
    const merges = view.get("merges");
    const x = path.x(counts[merges]);
    const { top } = path.margin;
    place(pathCursor, { x1: x, x2: x, y1: top, y2: top + path.innerHeight });
    place(pathDot, { cx: x, cy: path.y(now.bits[merges]) });
  }

  // Bands over the precisions for which a cheaper partition than greedy's is known.
  function stuckZones(plot) {
    const half = (grid[1] - grid[0]) / 2;
    return curves.flatMap((curve, index) => {
      if (!cheaper(curve).length) return [];
      const [x, right] = [grid[index] - half, grid[index] + half].map((power) =>
        plot.x(clamp(power, ...ends())),
      );
      const height = plot.innerHeight;
      return [s("rect", { x, y: plot.margin.top, width: right - x + 0.3, height })];
    });
  }

  const ends = () => [grid[0], grid.at(-1)];
  const stops = () => curves.map(({ stop }) => Math.log10(total - stop));

  function drawOverEps() {
    if (!many.width) return;
    const exponents = ticks(...ends(), many.width < 480 ? 5 : 9).filter(Number.isInteger);
    many.domain(ends(), [-0.1, counts[0] + 0.1]);
    many.drawAxes({
      y: [1, 3, 30, total].map(Math.log10),
      showY: (value) => String(Math.round(10 ** value)),
      titleY: "clusters where greedy stops",
    });
    place(manyLine, { d: many.line(...staircase(grid, stops())) });
    const beyondTruth = series.map(({ of }) => curves.map((curve) => of(curve) - curve.truth));
    const all = beyondTruth.flat();
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const room = 0.06 * (high - low);
    excess.domain(ends(), [low - 2 * room, high + room]);
    excess.drawAxes({
      x: exponents,
      y: ticks(low - 2 * room, high + room, 5),
      showX: powerOfTen,
      titleX: "precision ε",
      titleY: `bits per vector, minus ${many.width < 400 ? "the truth's" : "those of the true partition"}`,
    });
    series.forEach(({ line }, k) => place(line, { d: excess.line(grid, beyondTruth[k]) }));
    place(zero, { d: excess.line(ends(), [0, 0]) });
    const spot = Math.round(0.2 * grid.length);
    const heights = [...beyondTruth.slice(0, 2).map((values) => values[spot]), 0];
    names.forEach((text, k) => {
      const shift = k < 2 && heights[k] >= 0 ? -7 : 15;
      place(text, { x: excess.x(grid[spot]), y: excess.y(heights[k]) + shift });
    });
    for (const plot of [many, excess]) {
      const x = plot.x(Math.log10(noise));
      const { top } = plot.margin;
      plot.stuck.replaceChildren(...stuckZones(plot));
      place(plot.level, { x1: x, x2: x, y1: top, y2: top + plot.innerHeight });
    }
    place(noiseText, { x: many.x(Math.log10(noise)), y: many.margin.top - 8 });
  }

  function drawEps() {
    if (!many.width) return;
    const index = chosen();
    const x = many.x(grid[index]);
    for (const plot of [many, excess]) {
      const { top } = plot.margin;
      place(plot.cursor, { x1: x, x2: x, y1: top, y2: top + plot.innerHeight });
    }
    place(many.dot, { cx: x, cy: many.y(stops()[index]) });
    place(excess.dot, { cx: x, cy: excess.y(now.bits[now.stop] - now.truth) });
  }

  // ---- moving
  let running = 0;

  function stop() {
    cancelAnimationFrame(running);
    running = 0;
    play.textContent = "Play the merges";
  }

  // Up to the stop, as long for each halving of the number of clusters.
  function run() {
    if (running) return stop();
    const goal = now.stop;
    if (reducedMotion()) return view.put("merges", goal);
    const from = view.get("merges") < goal ? view.get("merges") : 0;
    const [begin, end] = [counts[from], counts[goal]];
    const duration = 500 + 1500 * (begin - end);
    const begun = performance.now();
    play.textContent = "Pause";
    const tick = (time) => {
      const share = clamp((time - begun) / duration, 0, 1);
      const left = 10 ** (begin + share * (end - begin));
      view.put("merges", share < 1 ? clamp(Math.round(total - left), from, goal) : goal);
      if (share < 1) running = requestAnimationFrame(tick);
      else stop();
    };
    running = requestAnimationFrame(tick);
  }

  // A reader who takes another precision or cost goes to where that path stops; so does Python,
  // where its own changes come from.
  const put = view.put.bind(view);
  view.put = (name, value) => {
    put(name, value);
    if (name === "merges") return;
    stop();
    put("merges", pathAt(chosen(), view.get("overhead")).stop);
  };
  const settings = ["eps", "overhead"];
  view.watch(settings, choose);
  view.watch(settings, judge);
  view.watch(["overhead"], computeCurves);
  view.watch(["overhead"], drawOverEps);
  view.watch([...settings, "merges"], count);
  view.watch(settings, drawPath);
  view.watch(settings, drawEps);
  view.watch([...settings, "merges"], drawPosition);
  view.watch([...settings, "merges"], drawSpace);
  mergesSlider.addEventListener("input", stop);
  view.drag(path.svg, {
    start: stop,
    move: (event) => {
      const left = 10 ** clamp(path.xOf(event), 0, counts[0]);
      view.put("merges", clamp(Math.round(total - left), 0, last));
    },
  });
  for (const plot of [many, excess]) {
    view.drag(plot.svg, { move: (event) => view.put("eps", 10 ** grid[indexOf(plot.xOf(event))]) });
  }
  let held = [0, 0];
  const turnBy = (right, down) => {
    turn += right;
    tilt = clamp(tilt + down, -TILT, TILT);
    soon();
  };
  const soon = oncePerFrame(drawSpace);
  view.drag(canvas, {
    start: ({ clientX, clientY }) => (held = [clientX, clientY]),
    move: ({ clientX, clientY }) => {
      turnBy((clientX - held[0]) / 120, (clientY - held[1]) / 120);
      held = [clientX, clientY];
    },
  });
  view.listen(canvas, "keydown", (event) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    if (!step[event.key]) return;
    event.preventDefault();
    turnBy(...step[event.key]);
  });
  view.onWidth(space, (width) => {
    size = Math.min(width, 400);
    drawSpace();
  });
  view.onWidth(pathBox, (width) => {
    path.resize(width, 300);
    drawPath();
    drawPosition();
  });
  view.onWidth(board, (width) => {
    many.resize(width, 120);
    excess.resize(width, 230);
    drawOverEps();
    drawEps();
  });
  view.onTheme(drawSpace);
  return () => {
    stop();
    view.destroy();
  };
}

export default { render };
