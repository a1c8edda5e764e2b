// What the widgets share: elements, the glue between controls and the model, plots, numbers.
// Each widget's own module follows this text in the same ES module.

const SVG = "http://www.w3.org/2000/svg";

// ---------------------------------------------------------------- elements

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const h = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

const s = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

const place = (node, attributes) => fill(node, attributes, []);

// Text with <i>…</i> for symbols; only ever called with the widget's own fixed strings.
function rich(text, tag = "span", attributes = {}) {
  const node = h(tag, attributes);
  node.innerHTML = text;
  return node;
}

// ---------------------------------------------------------------- numbers

function unpack({ int16, int8, scale, shape }) {
  const bytes = Uint8Array.from(atob(int16 ?? int8), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const size = int16 ? 2 : 1;
  const values = new Float64Array(bytes.length / size);
  for (let i = 0; i < values.length; i++) {
    values[i] = scale * (int16 ? view.getInt16(2 * i, true) : view.getInt8(i));
  }
  return { values, shape };
}

const minus = (text) => text.replace(/-/g, "\u2212");

const SUPERSCRIPT = Object.fromEntries([..."0123456789-+"].map((c, i) => [c, "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺"[i]]));

// A number as people write it: 0.0312, 12.4, 3.1 × 10⁻⁹.
function pretty(value, digits = 3) {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return "∞";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size >= -3 && size < 5) return minus(value.toFixed(Math.max(0, digits - 1 - size)));
  const [mantissa, exponent] = value.toExponential(1).split("e");
  return `${minus(mantissa)} × ${powerOfTen(Number(exponent))}`;
}

const powerOfTen = (exponent) => "10" + [...String(exponent)].map((c) => SUPERSCRIPT[c]).join("");

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((multiple) => multiple * unit >= rough);
  const result = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) {
    result.push(Number((k * step).toPrecision(12)));
  }
  return result;
}

const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// Several calls before the next frame become one.
function oncePerFrame(action) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      action();
    });
  };
}

// ---------------------------------------------------------------- a view of a model

class View {
  constructor({ model, el }, title, invitation) {
    this.model = model;
    this.cleanups = [];
    this.actions = [];
    this.flush = oncePerFrame(() => {
      for (const action of this.actions) {
        if (!action.due) continue;
        action.due = false;
        action.run();
      }
    });
    this.save = oncePerFrame(() => model.save_changes());
    this.root = h(
      "section",
      { class: "companion-widget", "aria-label": title },
      h("header", {}, h("h4", {}, title), rich(invitation, "p")),
    );
    // JupyterLab takes the arrow keys for moving between cells, unless the focused element says no.
    this.root.addEventListener("focusin", ({ target }) => {
      target.setAttribute("data-lm-suppress-shortcuts", "true");
    });
    el.append(this.root);
  }

  get(name) {
    return this.model.get(name);
  }

  // A change by the reader: seen at once, sent to Python at most once a frame.
  put(name, value) {
    this.model.set(name, value);
    this.save();
  }

  listen(target, event, listener) {
    target.addEventListener(event, listener);
    this.cleanups.push(() => target.removeEventListener(event, listener));
  }

  // Runs `run` now, and once per frame in which one of the traits has changed. One frame's actions
  // run in the order of their `watch` calls, so what is computed first is ready for what follows.
  watch(names, run) {
    const action = { run, due: false };
    this.actions.push(action);
    const soon = () => {
      action.due = true;
      this.flush();
    };
    for (const name of names) {
      this.model.on(`change:${name}`, soon);
      this.cleanups.push(() => this.model.off(`change:${name}`, soon));
    }
    run();
  }

  // Calls `action` when the width given to `node` changes (and once at the start).
  onWidth(node, action) {
    let last = 0;
    const observer = new ResizeObserver(() => {
      const width = Math.floor(node.clientWidth);
      if (width > 0 && width !== last) action((last = width));
    });
    observer.observe(node);
    this.cleanups.push(() => observer.disconnect());
  }

  // Canvases do not follow style sheets: redraw them when the page turns dark or light.
  onTheme(action) {
    const soon = oncePerFrame(action);
    const observer = new MutationObserver(soon);
    for (const node of [document.documentElement, document.body]) {
      observer.observe(node, { attributes: true });
    }
    this.cleanups.push(() => observer.disconnect());
    this.listen(matchMedia("(prefers-color-scheme: dark)"), "change", soon);
  }

  color(name) {
    return getComputedStyle(this.root).getPropertyValue(`--cw-${name}`).trim();
  }

  destroy() {
    this.actions = []; // a frame may still be pending
    for (const cleanup of this.cleanups) cleanup();
  }

  // ---- controls, each bound to a trait

  // `log` spaces the values evenly in their logarithm; `step` is then in powers of ten. A number
  // that is computed from traits rather than one of them says which (`of`), and how to `read` and
  // `write` it.
  slider(name, {
    label, min, max, step,
    show = (value) => pretty(value), speak = "", marks = [], log = false,
    of = [name], read = () => this.get(name), write = (value) => this.put(name, value),
  }) {
    const caption = rich(label);
    // The spoken name begins with the visible words, as voice control expects.
    const spoken = caption.textContent + (speak && `, ${speak}`);
    const position = log ? Math.log10 : Number;
    const ends = { min: position(min), max: position(max) };
    const kind = { "data-scale": log ? "log" : null };
    const input = h("input", { type: "range", ...ends, step, "aria-label": spoken, ...kind });
    const output = h("output", { "data-name": name, "aria-live": "off" });
    const share = (value) => clamp((position(value) - ends.min) / (ends.max - ends.min), 0, 1);
    input.addEventListener("input", () => {
      const value = Number(input.value);
      write(log ? clamp(10 ** value, min, max) : value);
    });
    this.watch(of, () => {
      const value = read();
      input.value = position(value);
      input.style.setProperty("--fill", share(value));
      const text = show(value);
      output.textContent = text;
      output.dataset.value = value;
      input.setAttribute("aria-valuetext", text);
    });
    const track = h("span", { class: "track" }, input);
    for (const { at, text } of marks) {
      const stop = h("span", { class: "stop" }, text);
      stop.style.setProperty("--at", share(at));
      track.append(stop);
    }
    return h("label", { class: "slider" }, caption, output, track);
  }

  checkbox(name, label) {
    const input = h("input", { type: "checkbox" });
    input.addEventListener("change", () => this.put(name, input.checked));
    this.watch([name], () => (input.checked = this.get(name)));
    return h("label", { class: "checkbox" }, input, rich(label));
  }

  // Two or more ways to go on, of which one is in force; values are the trait's values.
  choice(name, label, options) {
    const buttons = options.map(({ value, text }) =>
      h("button", { type: "button", role: "radio", onclick: () => this.put(name, value) }, text),
    );
    this.watch([name], () => {
      options.forEach(({ value }, i) =>
        place(buttons[i], {
          "aria-checked": this.get(name) === value,
          tabindex: this.get(name) === value ? 0 : -1,
        }),
      );
    });
    const group = h("div", { class: "choice", role: "radiogroup", "aria-label": label }, ...buttons);
    group.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!move) return;
      event.preventDefault();
      const now = options.findIndex(({ value }) => value === this.get(name));
      const next = (now + move + options.length) % options.length;
      this.put(name, options[next].value);
      buttons[next].focus();
    });
    return group;
  }

  button(text, action) {
    return h("button", { type: "button", class: "action", onclick: action }, text);
  }

  // A named number; the unrounded value is kept beside the rounded one.
  readout(name, label, show = (value) => pretty(value)) {
    const value = h("b", { "data-name": name });
    const node = h("span", { class: "readout" }, rich(label), value);
    const set = (number) => {
      value.textContent = show(number);
      value.dataset.value = number;
    };
    return { node, set };
  }

  // Reports pointer drags on `node`, mouse, pen and finger alike, until `destroy`.
  drag(node, { start = () => {}, move, end = () => {} }) {
    this.listen(node, "pointerdown", (event) => {
      if (event.button !== 0) return;
      node.setPointerCapture(event.pointerId);
      start(event);
      move(event);
    });
    this.listen(node, "pointermove", (event) => {
      if (node.hasPointerCapture(event.pointerId)) move(event);
    });
    this.listen(node, "lostpointercapture", end);
  }
}

// ---------------------------------------------------------------- plots

// Scales between numbers and pixels inside the margins, and an SVG to draw in.
class Plot {
  constructor({ label, margin, className = "" }) {
    this.margin = { top: 8, right: 8, bottom: 24, left: 40, ...margin };
    this.axes = s("g", { class: "axes" });
    this.clip = s("svg", { overflow: "hidden" });
    this.over = s("g");
    this.svg = s("svg", { class: `plot ${className}`, role: "img", "aria-label": label });
    this.svg.append(this.axes, this.clip, this.over);
  }

  resize(width, height) {
    const { top, right, bottom, left } = this.margin;
    Object.assign(this, { width, height });
    Object.assign(this, { innerWidth: width - left - right, innerHeight: height - top - bottom });
    place(this.svg, { width, height, viewBox: `0 0 ${width} ${height}` });
    place(this.clip, { x: left, y: top, width: this.innerWidth, height: this.innerHeight });
    place(this.clip, { viewBox: `${left} ${top} ${this.innerWidth} ${this.innerHeight}` });
  }

  domain(x, y) {
    this.domainX = x;
    this.domainY = y;
  }

  x(value) {
    const [low, high] = this.domainX;
    return this.margin.left + ((value - low) / (high - low)) * this.innerWidth;
  }

  y(value) {
    const [low, high] = this.domainY;
    return this.margin.top + ((high - value) / (high - low)) * this.innerHeight;
  }

  // The number under a pointer, along x.
  xOf(event) {
    const [low, high] = this.domainX;
    const pixel = event.clientX - this.svg.getBoundingClientRect().left - this.margin.left;
    return low + (pixel / this.innerWidth) * (high - low);
  }

  drawAxes({ x = [], y = [], showX = String, showY = String, titleX = "", titleY = "" }) {
    const { top, left } = this.margin;
    const right = left + this.innerWidth;
    const bottom = top + this.innerHeight;
    const parts = [];
    for (const value of y) {
      const at = this.y(value);
      parts.push(s("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }));
      parts.push(s("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, minus(showY(value))));
    }
    for (const value of x) {
      const at = this.x(value);
      parts.push(s("line", { class: "tick", x1: at, x2: at, y1: bottom, y2: bottom + 4 }));
      parts.push(
        s("text", { x: at, y: bottom + 16, "text-anchor": "middle" }, minus(showX(value))),
      );
    }
    parts.push(s("line", { class: "base", x1: left, x2: right, y1: bottom, y2: bottom }));
    if (titleX) {
      const end = { class: "title", x: right, y: bottom + 31, "text-anchor": "end" };
      parts.push(s("text", end, titleX));
    }
    if (titleY) parts.push(s("text", { class: "title", x: left, y: top - 8 }, titleY));
    this.axes.replaceChildren(...parts);
  }

  line(xs, ys) {
    let path = "";
    for (let i = 0; i < xs.length; i++) {
      path += `${i ? "L" : "M"}${this.x(xs[i]).toFixed(2)},${this.y(ys[i]).toFixed(2)}`;
    }
    return path;
  }

  // The area between two curves over the same xs.
  band(xs, low, high) {
    const back = this.line([...xs].reverse(), [...low].reverse());
    return `${this.line(xs, high)}L${back.slice(1)}Z`;
  }
}

// A canvas as sharp as the screen; `draw` gets a context in CSS pixels.
function paint(canvas, width, height, draw) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  draw(context);
}

// "#rrggbb" as three numbers.
const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
