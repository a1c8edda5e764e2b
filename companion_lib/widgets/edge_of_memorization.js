// Samples beside their nearest training points, and where copies begin, over models computed ahead.

const HUES = ["green", "blue", "purple", "sky"]; // one for each training size
const WIDE = 560;

// The first capacity where straight lines between the ratios reach 1/2.
function crossing(capacities, ratios) {
  let [low, before] = [0, 0];
  for (let i = 0; i < ratios.length; i++) {
    const [high, after] = [capacities[i], ratios[i]];
    if (after >= 0.5) return low + ((0.5 - before) / (after - before)) * (high - low);
    [low, before] = [high, after];
  }
  return Infinity;
}

const isCopy = ([near, far]) => near <= far / 3;

const leastAt = (values) => values.indexOf(Math.min(...values));

function render({ model, el }) {
  const view = new View(
    { model, el },
    "The edge of memorization",
    `Raise the capacity until the first sample is framed as a copy. When it comes, has the model
     been getting better on new images, or worse?`,
  );
  const { sizes, capacities, models, images } = view.get("data");
  const unpacked = unpack(images).values;
  const pixels = images.shape[1];
  const side = Math.round(Math.sqrt(pixels));
  const shown = models[0][0].nearest.length;
  // Pictures of the training points come first, then the samples of one model after another.
  const firstSample = Math.max(...sizes);
  const curves = models.map((several, i) => {
    const pick = (name) => several.map((one) => one[name]);
    const ratios = pick("ratio");
    return {
      size: sizes[i], color: `var(--cw-${HUES[i]})`, ratios, loss: pick("loss"),
      unseen: pick("held_out"), edge: crossing(capacities, ratios),
    };
  });
  const nearestCapacity = (value) =>
    capacities[leastAt(capacities.map((capacity) => Math.abs(capacity - value)))];
  const choose = (value) => view.put("capacity", nearestCapacity(value));
  let row, column, now;

  // ---- samples and their neighbors
  const canvas = h("canvas", { "aria-hidden": "true" });
  const frames = s("g", { class: "edge-frames" });
  const words = s("g");
  const sheet = s("svg", { class: "plot", role: "img" }, frames, words);
  const sheetBox = h("div", { class: "edge-sheet" }, canvas, sheet);

  // ---- the share of copies
  const margin = { left: 40, right: 12, top: 26, bottom: 40 };
  const plot = new Plot({
    label: "Share of memorized samples against capacity, for each training size",
    margin, className: "scrub",
  });
  const half = s("path", { class: "edge-half" });
  const lines = curves.map(({ color }) => s("path", { class: "curve", stroke: color }));
  const beads = s("g");
  const legend = s("g");
  const edgeMark = s("path", { class: "dot", fill: "var(--cw-orange)" });
  plot.clip.append(half, ...lines);

  // ---- the losses
  const chart = new Plot({
    label: "Denoising loss on training points and on new ones against capacity",
    margin, className: "scrub",
  });
  const gap = s("path", { class: "edge-gap" });
  const faint = s("g", { class: "edge-faint" });
  const lossLine = s("path", { class: "curve", "stroke-dasharray": "6 4" });
  const unseenLine = s("path", { class: "curve" });
  const lossText = s("text", { class: "strong halo", "text-anchor": "end" }, "training images");
  const unseenText = s("text", { class: "strong halo", "text-anchor": "end" }, "new images");
  const bestMark = s("path", { class: "dot" });
  const bestText = s("text", { class: "halo" }, "best on new images");
  chart.clip.append(gap, faint, lossLine, unseenLine);

  const [cursor, chartCursor] = [plot, chart].map(() => s("line", { class: "cursor" }));
  const [ratioDot, lossDot, unseenDot] = [0, 1, 2].map(() => s("circle", { class: "dot", r: 7 }));
  plot.over.append(cursor, beads, legend, edgeMark, ratioDot);
  chart.over.append(chartCursor, bestMark, bestText, lossText, unseenText, lossDot, unseenDot);

  const percent = (value) => `${pretty(value)}%`;
  const share = (value) => `${Number((100 * value).toFixed(1))}%`;
  const numbers = Object.fromEntries(
    [
      ["means", "means <i>M</i>", String],
      ["ratio", `<span class="orange">memorized</span>`, share],
      ["framed", `framed here`, (value) => `${value} of ${shown}`],
      ["edge", "half are copies at <i>M</i>/<i>N</i> =", (value) => (Number.isFinite(value) ? pretty(value, 2) : "none")],
      ["loss", "loss on training images", percent],
      ["held_out", "on new images", percent],
      ["gap", "gap", percent],
      ["best", "best on new images at <i>M</i>/<i>N</i> =", String],
      ["within", "variance inside a ball", percent],
    ].map(([name, label, show]) => [name, view.readout(name, label, show)]),
  );
  const verdict = h("p", { class: "verdict", role: "status" });
  const [left, right] = [h("div", {}, plot.svg), h("div", {}, chart.svg)];

  view.root.append(
    h(
      "div",
      { class: "controls" },
      h(
        "div",
        { class: "edge-sizes" },
        rich("training images <i>N</i>"),
        view.choice("size", "training images N", sizes.map((N) => ({ value: N, text: String(N) }))),
      ),
      view.slider("capacity", {
        label: "capacity <i>M</i>/<i>N</i>", min: capacities[0], max: capacities.at(-1),
        step: Number((capacities[1] - capacities[0]).toFixed(6)), show: String, write: choose,
      }),
    ),
    sheetBox,
    verdict,
    h("div", { class: "pair-of-plots" }, left, right),
    h("div", { class: "readouts" }, ...Object.values(numbers).map(({ node }) => node)),
    rich(
      `Each model is a mixture of <i>M</i> equal balls that learned to denoise <i>N</i> images, and
       <i>M</i>/<i>N</i> is its capacity. All samples start from the same noise. Numbers under the
       samples are <i>d</i>₁/<i>d</i>₂, the distance to the nearest training image over that to the
       second nearest; at 1/3 or less a sample counts as memorized and is framed with its original.
       Losses are in percent of the variance of the data.`,
      "p", { class: "remark" },
    ),
  );

  // ---- numbers
  function compute() {
    row = sizes.indexOf(view.get("size"));
    column = capacities.indexOf(nearestCapacity(view.get("capacity")));
    now = models[row][column];
    const { edge, unseen, color } = curves[row];
    for (const name of ["means", "ratio", "loss", "held_out", "within"]) numbers[name].set(now[name]);
    numbers.framed.set(now.distances.filter(isCopy).length);
    numbers.gap.set(now.held_out - now.loss);
    numbers.edge.set(edge);
    numbers.best.set(capacities[leastAt(unseen)]);
    view.root.style.setProperty("--edge-hue", color);
    judge();
  }

  function judge() {
    const { ratio, means, held_out: unseen, loss } = now;
    const [state, tells] = ratio < 0.05
      ? ["falls", "hardly any sample is a copy"]
      : ratio < 0.5
        ? ["wavers", "some samples are copies, most are not"]
        : ["diverges", "most samples are copies of training images"];
    verdict.dataset.state = state;
    verdict.replaceChildren(
      `With ${means} means for ${sizes[row]} images, ${tells} (`, h("b", {}, share(ratio)),
      `). On images it has not seen the error is ${(unseen / loss).toFixed(1)} times as large.`,
    );
  }

  // ---- samples
  let layout = null;

  function frameSheet(width) {
    const columns = width < WIDE ? shown / 2 : shown;
    const labels = width < WIDE ? 54 : 64;
    const cell = (width - labels) / columns;
    const picture = Math.floor(Math.min(cell - (width < WIDE ? 7 : 10), 60));
    const tops = [4, picture + 26, 2 * picture + 32]; // of sample, nearest, second nearest
    const block = 3 * picture + 54;
    const height = Math.ceil(shown / columns) * block - 12;
    layout = { width, height, columns, labels, cell, picture, tops, block };
    place(sheet, { width, height, viewBox: `0 0 ${width} ${height}` });
    drawSheet();
  }

  // The upper left corner of a sample's column.
  function corner(i) {
    const { columns, labels, cell, picture, block } = layout;
    const x = Math.round(labels + (i % columns) * cell + (cell - picture) / 2);
    return [x, Math.floor(i / columns) * block];
  }

  function drawSheet() {
    if (!layout) return;
    const { width, height, columns, picture, tops, block } = layout;
    const { nearest, distances } = now;
    const from = firstSample + (row * capacities.length + column) * shown;
    paint(canvas, width, height, (context) => {
      for (let i = 0; i < shown; i++) {
        const [x, y] = corner(i);
        [from + i, ...nearest[i]].forEach((index, k) => drawImage(context, index, x, y + tops[k], picture));
      }
    });
    const parts = [];
    const boxes = [];
    for (let y = 0; y < shown / columns; y++) {
      const middle = (k) => y * block + tops[k] + picture / 2 + 4;
      ["sample", "nearest", "second"].forEach((text, k) =>
        parts.push(s("text", { x: 0, y: middle(k) }, text)),
      );
      parts.push(s("text", { x: 0, y: y * block + picture + 18 }, "d₁ / d₂"));
    }
    distances.forEach((pair, i) => {
      const [x, y] = corner(i);
      const copy = isCopy(pair);
      const text = { x: x + picture / 2, y: y + picture + 18, "text-anchor": "middle" };
      parts.push(s("text", { ...text, class: copy ? "strong" : "" }, (pair[0] / pair[1]).toFixed(2)));
      if (!copy) return;
      const size = { width: picture + 6, height: tops[1] + picture - tops[0] + 6 };
      boxes.push(s("rect", { x: x - 3, y: y + tops[0] - 3, rx: 4, ...size }));
    });
    words.replaceChildren(...parts);
    frames.replaceChildren(...boxes);
    place(sheet, {
      "aria-label": `${shown} samples, each over its two nearest training images; ${boxes.length} are copies`,
    });
  }

  const stamp = h("canvas", { width: side, height: side });

  function drawImage(context, index, x, y, size) {
    const [paper, ink] = [rgb(view.color("paper")), rgb(view.color("ink"))];
    const small = stamp.getContext("2d");
    const picture = small.createImageData(side, side);
    for (let p = 0; p < pixels; p++) {
      const value = unpacked[index * pixels + p];
      for (let c = 0; c < 3; c++) picture.data[4 * p + c] = paper[c] + value * (ink[c] - paper[c]);
      picture.data[4 * p + 3] = 255;
    }
    small.putImageData(picture, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(stamp, x, y, size, size);
    context.strokeStyle = view.color("line");
    context.strokeRect(x - 0.5, y - 0.5, size + 1, size + 1);
  }

  // ---- curves
  const diamond = (x, y) => `M${x},${y - 7}l7,7l-7,7l-7,-7Z`;
  const span = [0, capacities.at(-1) * 1.04];
  const steps = ticks(0, capacities.at(-1), 5);

  function drawCurves() {
    if (!plot.width) return;
    plot.domain(span, [0, 1.05]);
    plot.drawAxes({
      x: steps, y: [0, 0.5, 1], showY: (value) => `${100 * value}%`,
      titleX: "capacity M/N", titleY: "samples that are memorized",
    });
    place(half, { d: plot.line(span, [0.5, 0.5]) });
    const notes = [];
    curves.forEach(({ size, color, ratios, edge }, i) => {
      const chosen = i === row;
      place(lines[i], { d: plot.line(capacities, ratios), "stroke-width": 3, opacity: chosen ? 1 : 0.6 });
      const y = plot.margin.top + 12 + 17 * i;
      const x = plot.margin.left + 10;
      const note = `N = ${size}, ${Number.isFinite(edge) ? `half are copies at ${pretty(edge, 2)}` : "never half"}`;
      notes.push(
        s("line", { x1: x, x2: x + 16, y1: y - 4, y2: y - 4, stroke: color, "stroke-width": 3, opacity: chosen ? 1 : 0.6 }),
        s("text", { x: x + 22, y, class: chosen ? "strong halo" : "halo" }, note),
      );
    });
    legend.replaceChildren(...notes);
    const { ratios, color, edge } = curves[row];
    beads.replaceChildren(
      ...capacities.map((capacity, i) =>
        s("circle", { cx: plot.x(capacity), cy: plot.y(ratios[i]), r: 3, fill: color }),
      ),
    );
    const found = Number.isFinite(edge);
    place(edgeMark, { d: found ? diamond(plot.x(edge), plot.y(0.5)) : "" });
  }

  const everyLoss = curves.flatMap(({ loss, unseen }) => [...loss, ...unseen]);
  const [least, most] = [Math.min(...everyLoss), Math.max(...everyLoss)];
  const room = 0.2 * (most - least); // for the labels

  function drawLosses() {
    if (!chart.width) return;
    const domain = [Math.max(0, least - room), most + room];
    chart.domain(span, domain);
    chart.drawAxes({
      x: steps, y: ticks(...domain, 4), showY: (value) => `${value}%`,
      titleX: "capacity M/N", titleY: "denoising loss, % of variance",
    });
    faint.replaceChildren(
      ...curves.flatMap(({ loss, unseen, color }, i) => (i === row ? [] : [loss, unseen]).map((values, k) =>
        s("path", { class: "curve", d: chart.line(capacities, values), stroke: color, "stroke-dasharray": k ? null : "6 4" }),
      )),
    );
    const { loss, unseen, color } = curves[row];
    place(gap, { d: chart.band(capacities, loss, unseen), fill: color });
    place(lossLine, { d: chart.line(capacities, loss), stroke: color });
    place(unseenLine, { d: chart.line(capacities, unseen), stroke: color });
    const at = chart.x(capacities.at(-1));
    place(lossText, { x: at, y: chart.y(loss.at(-1)) + 18 });
    place(unseenText, { x: at - 10, y: chart.y(unseen.at(-1)) - 8 });
    const best = leastAt(unseen);
    const [x, y] = [chart.x(capacities[best]), chart.y(unseen[best])];
    place(bestMark, { d: diamond(x, y), fill: color });
    place(bestText, { x: x - 7, y: y - 12 });
  }

  function drawChosen() {
    const capacity = capacities[column];
    const { color } = curves[row];
    for (const [one, line, dots] of [
      [plot, cursor, [[ratioDot, now.ratio]]],
      [chart, chartCursor, [[lossDot, now.loss], [unseenDot, now.held_out]]],
    ]) {
      if (!one.width) continue;
      const x = one.x(capacity);
      place(line, { x1: x, x2: x, y1: one.margin.top, y2: one.height - one.margin.bottom });
      for (const [dot, value] of dots) place(dot, { cx: x, cy: one.y(value), fill: color });
    }
  }

  const both = ["size", "capacity"];
  view.watch(both, compute);
  view.watch(both, drawSheet);
  view.watch(["size"], () => {
    drawCurves();
    drawLosses();
  });
  view.watch(both, drawChosen);
  for (const one of [plot, chart]) {
    view.drag(one.svg, { move: (event) => choose(one.xOf(event)) });
  }
  view.onWidth(sheetBox, frameSheet);
  for (const [box, one, draw] of [[left, plot, drawCurves], [right, chart, drawLosses]]) {
    view.onWidth(box, (width) => {
      one.resize(width, clamp(0.7 * width, 210, 250));
      draw();
      drawChosen();
    });
  }
  view.onTheme(drawSheet);
  return () => view.destroy();
}

export default { render };
