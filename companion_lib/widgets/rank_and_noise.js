// Denoise digits by keeping a few principal components; see what is lost and what noise is kept.

const SIDE = 28;
const ROWS = ["clean", "noisy", "denoised"];

// Coordinates of each row of `images` (minus `center`, if given) in the orthonormal rows of `basis`.
function encode(images, center, basis) {
  const [count, pixels] = images.shape;
  const k = basis.shape[0];
  const codes = new Float64Array(count * k);
  for (let i = 0; i < count; i++) {
    for (let j = 0; j < k; j++) {
      let sum = 0;
      for (let p = 0; p < pixels; p++) {
        sum += (images.values[i * pixels + p] - (center ? center[p] : 0)) * basis.values[j * pixels + p];
      }
      codes[i * k + j] = sum;
    }
  }
  return codes;
}

// What each component is multiplied by: 1, or the Wiener factor if shrinking; 0 beyond the rank.
const gain = (eigenvalue, noise, shrinks) =>
  shrinks ? eigenvalue / (eigenvalue + noise * noise) : 1;

// Expected squared error per pixel on unseen digits for every rank 0..K, in its two parts.
function expectedErrors({ eigenvalues, energies, total_energy, pixels }, noise, shrinks) {
  let lost = total_energy;
  let kept = 0;
  const result = [{ lost: lost / pixels, kept: 0, error: lost / pixels }];
  eigenvalues.forEach((eigenvalue, j) => {
    const w = gain(eigenvalue, noise, shrinks);
    lost += ((1 - w) ** 2 - 1) * energies[j];
    kept += w * w * noise * noise;
    result.push({ lost: lost / pixels, kept: kept / pixels, error: (lost + kept) / pixels });
  });
  return result;
}

const lowest = (curve) =>
  curve.reduce((best, { error }, rank) => (error < curve[best].error ? rank : best), 0);

function render({ model, el }) {
  const view = new View(
    { model, el },
    "Rank and noise",
    `Turn the noise up, then drag the <i>rank</i> to the bottom of the curve. Why does the best
     rank fall as the noise grows?`,
  );
  const stored = view.get("data");
  const basis = unpack(stored.basis);
  const images = unpack(stored.images);
  const noises = unpack(stored.noises);
  const mean = unpack(stored.mean).values;
  const [count, pixels] = images.shape;
  const K = basis.shape[0];
  const ranks = Array.from({ length: K + 1 }, (_, rank) => rank);
  const cleanCodes = encode(images, mean, basis);
  const noiseCodes = encode(noises, null, basis);
  const facts = { ...stored, pixels };
  let curves, denoised, shownError;

  // ---- the pictures
  const canvases = ROWS.map(() =>
    h("canvas", { class: "digits", width: count * (SIDE + 2) - 2, height: SIDE, role: "img" }),
  );
  const captions = ["digits never seen in training", "what we are given", "what we make of it"];
  const pictures = h("div", { class: "pictures" });
  const errors = [null, "noisy_error", "measured"].map((name) =>
    name ? view.readout(name, "squared error per pixel", (value) => pretty(value, 2)) : null,
  );
  ROWS.forEach((row, i) => {
    const head = h("div", { class: "picture-head" }, h("span", {}, h("b", {}, row), ` ${captions[i]}`));
    if (errors[i]) head.append(errors[i].node);
    place(canvases[i], { "aria-label": `${count} digits, ${row}` });
    pictures.append(head, canvases[i]);
  });

  // ---- the curve
  const plot = new Plot({
    label: "Squared error per pixel against rank: discarded signal falls, kept noise grows",
    margin: { left: 44, right: 12, top: 24, bottom: 40 },
    className: "scrub",
  });
  const lostArea = s("path", { fill: "var(--cw-blue)", "fill-opacity": 0.3 });
  const keptArea = s("path", { fill: "var(--cw-orange)", "fill-opacity": 0.35 });
  const other = s("path", { class: "curve", stroke: "var(--cw-muted)", "stroke-dasharray": "4 4" });
  const total = s("path", { class: "curve", stroke: "var(--cw-ink)" });
  const cursor = s("line", { class: "cursor" });
  const best = s("path", { fill: "var(--cw-green)", class: "dot" });
  const bestText = s("text", { class: "strong", "text-anchor": "middle" });
  const measured = s("circle", { r: 11, fill: "none", stroke: "var(--cw-ink)", "stroke-width": 1.5 });
  const dot = s("circle", { class: "dot", r: 7, fill: "var(--cw-ink)" });
  const lostText = s("text", { class: "strong", "text-anchor": "middle" }, "lost signal");
  const keptText = s("text", { class: "strong", "text-anchor": "middle" }, "kept noise");
  plot.clip.append(lostArea, keptArea, other, total, lostText, keptText);
  plot.over.append(cursor, best, bestText, measured, dot);
  const board = h("div", { class: "board" }, plot.svg);

  const numbers = Object.fromEntries(
    [
      ["error", "expected error per pixel", 3],
      ["lost", `<span class="blue">lost signal</span>`, 3],
      ["kept", `<span class="orange">kept noise</span>`, 3],
    ].map(([name, label, digits]) => [name, view.readout(name, label, (v) => pretty(v, digits))]),
  );
  const bestRank = view.readout("best_rank", `<span class="green">best rank</span>`, (rank) =>
    rank === K ? `${K} or more` : String(rank),
  );
  const bestError = view.readout("best_error", "with error");

  view.root.append(
    pictures,
    h(
      "div",
      { class: "toolbar" },
      view.choice("shrink", "how components are kept", [
        { value: false, text: "projection" },
        { value: true, text: "shrinkage" },
      ]),
      view.button("Go to the best rank", () => view.put("rank", Math.max(1, lowest(curves.now)))),
    ),
    h(
      "div",
      { class: "controls" },
      view.slider("rank", {
        label: "rank", speak: "number of components kept", min: 1, max: K, step: 1, show: String,
      }),
      view.slider("noise", {
        label: "noise <i>σ</i>",
        speak: "sigma, standard deviation",
        min: 0, max: 1, step: 0.01,
        show: (value) => value.toFixed(2),
      }),
    ),
    board,
    h("div", { class: "readouts" }, ...Object.values(numbers).map(({ node }) => node), h("span", { class: "pair" }, bestRank.node, bestError.node)),
    rich(
      `The curve is the error expected on unseen digits: the <span class="blue">signal</span> in the
       components we drop, and the <span class="orange">noise</span> in those we keep. The ring is
       the error of the digits above. <b>Projection</b> keeps a component whole or not at all;
       <b>shrinkage</b> multiplies it by <i>λ</i>/(<i>λ</i> + <i>σ</i>²), and then more components
       hardly hurt. The dashed line is the other way.`,
      "p", { class: "remark" },
    ),
  );

  // ---- computing
  function denoise() {
    const [rank, noise, shrinks] = [view.get("rank"), view.get("noise"), view.get("shrink")];
    denoised = new Float64Array(count * pixels);
    for (let i = 0; i < count; i++) {
      const row = denoised.subarray(i * pixels, (i + 1) * pixels);
      row.set(mean);
      for (let j = 0; j < rank; j++) {
        const at = i * K + j;
        const code =
          (cleanCodes[at] + noise * noiseCodes[at]) * gain(stored.eigenvalues[j], noise, shrinks);
        for (let p = 0; p < pixels; p++) row[p] += code * basis.values[j * pixels + p];
      }
    }
  }

  function meanSquare(difference) {
    let sum = 0;
    for (let p = 0; p < count * pixels; p++) sum += difference(p) ** 2;
    return sum / (count * pixels);
  }

  // ---- drawing
  function drawDigits(canvas, pixel) {
    const paper = rgb(view.color("paper"));
    const ink = rgb(view.color("ink"));
    const context = canvas.getContext("2d");
    const picture = context.createImageData(canvas.width, SIDE);
    for (let i = 0; i < count; i++) {
      for (let p = 0; p < pixels; p++) {
        const value = clamp(pixel(i * pixels + p), 0, 1);
        const at = 4 * (Math.floor(p / SIDE) * canvas.width + i * (SIDE + 2) + (p % SIDE));
        for (let c = 0; c < 3; c++) picture.data[at + c] = paper[c] + value * (ink[c] - paper[c]);
        picture.data[at + 3] = 255;
      }
    }
    context.putImageData(picture, 0, 0);
  }

  function drawGiven() {
    const noise = view.get("noise");
    drawDigits(canvases[0], (p) => images.values[p]);
    drawDigits(canvases[1], (p) => images.values[p] + noise * noises.values[p]);
    errors[1].set(noise ** 2 * meanSquare((p) => noises.values[p]));
  }

  function drawDenoised() {
    denoise();
    drawDigits(canvases[2], (p) => denoised[p]);
    shownError = meanSquare((p) => denoised[p] - images.values[p]);
    errors[2].set(shownError);
  }

  function computeCurves() {
    const [noise, shrinks] = [view.get("noise"), view.get("shrink")];
    curves = {
      now: expectedErrors(facts, noise, shrinks),
      other: expectedErrors(facts, noise, !shrinks),
    };
    const at = lowest(curves.now);
    bestRank.set(at);
    bestError.set(curves.now[at].error);
  }

  function drawCurves() {
    if (!plot.width) return;
    const errorsOf = (curve) => curve.map(({ error }) => error);
    const lost = curves.now.map((point) => point.lost);
    const sum = errorsOf(curves.now);
    const top = 1.08 * Math.max(sum[0], sum[K]);
    plot.domain([0, K], [0, top]);
    const narrow = plot.width < 480;
    plot.drawAxes({
      x: ticks(0, K, narrow ? 4 : 8),
      y: ticks(0, top, 4),
      titleX: "rank: number of components kept",
      titleY: "squared error per pixel",
    });
    place(lostArea, { d: plot.band(ranks, ranks.map(() => 0), lost) });
    place(keptArea, { d: plot.band(ranks, lost, sum) });
    place(total, { d: plot.line(ranks, sum) });
    place(other, { d: plot.line(ranks, errorsOf(curves.other)) });
    nameArea(lostText, 0.13, (rank) => [0, lost[rank]]);
    nameArea(keptText, 0.88, (rank) => [lost[rank], sum[rank]]);
    const at = lowest(curves.now);
    const [x, y] = [plot.x(at), plot.y(sum[at])];
    place(best, { d: `M${x},${y - 8}l8,8l-8,8l-8,-8Z` });
    // Clear of the other curve, which runs above for shrinkage and below for projection.
    const beside = { x: Math.min(x, plot.width - 74), y: view.get("shrink") ? y + 24 : y - 15 };
    place(bestText, beside);
    bestText.textContent = at === K ? `best: ${K} or more` : `best: ${at}`;
  }

  // Writes a name into its area, where there is room for it.
  function nameArea(text, share, ends) {
    const rank = Math.round(share * K);
    const [bottom, top] = ends(rank).map((value) => plot.y(value));
    const free = bottom - top > 22 ? "visible" : "hidden";
    place(text, { x: plot.x(rank), y: 0.68 * bottom + 0.32 * top + 4, visibility: free });
  }

  function drawPoint() {
    const rank = view.get("rank");
    const point = curves.now[rank];
    for (const name of ["error", "lost", "kept"]) numbers[name].set(point[name]);
    if (!plot.width) return;
    const { top } = plot.margin;
    const bottom = top + plot.innerHeight;
    const x = plot.x(rank);
    place(cursor, { x1: x, x2: x, y1: top, y2: bottom });
    place(dot, { cx: x, cy: plot.y(point.error) });
    place(measured, { cx: x, cy: clamp(plot.y(shownError), top, bottom) });
  }

  view.watch(["noise"], drawGiven);
  view.watch(["noise", "shrink"], computeCurves);
  view.watch(["noise", "shrink"], drawCurves);
  view.watch(["rank", "noise", "shrink"], drawDenoised);
  view.watch(["rank", "noise", "shrink"], drawPoint);
  view.drag(plot.svg, {
    move: (event) => view.put("rank", clamp(Math.round(plot.xOf(event)), 1, K)),
  });
  view.onWidth(board, (width) => {
    plot.resize(width, clamp(0.42 * width, 220, 290));
    drawCurves();
    drawPoint();
  });
  view.onTheme(() => {
    drawGiven();
    drawDenoised();
  });
  return () => view.destroy();
}

export default { render };
