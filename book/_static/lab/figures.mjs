// Pictures, drawn on canvases: lines over a number, and fields over a rectangle.

// Told apart by line as well as by colour, on light and on dark ground.
export const LOOKS = {
  exact: { light: "#333333", dark: "#dddddd", dash: [] },
  network: { light: "#b34700", dark: "#ff9c5b", dash: [6, 3] },
  u: { light: "#0060a8", dark: "#6cb8f0", dash: [] },
  r: { light: "#b34700", dark: "#ff9c5b", dash: [6, 3] },
  ut: { light: "#00703c", dark: "#5fce94", dash: [10, 3, 2, 3] },
  b: { light: "#8a1f8a", dark: "#e08ae0", dash: [3, 3] },
  error: { light: "#555555", dark: "#c4c4c4", dash: [2, 3] },
};
export const NAMES = { u: "boundary", ut: "velocity", b: "periodicity", r: "residual" };

export const isDark = () => document.documentElement.dataset.theme === "dark";
export const colorOf = (name) => LOOKS[name.replace("0", "")][isDark() ? "dark" : "light"];
export const integer = (value) => value.toLocaleString("en");

export function number(value, digits = 3) {
  if (!Number.isFinite(value)) return "not finite";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(digits - 1);
  return value.toLocaleString("en", { maximumSignificantDigits: digits });
}

/** A figure with its caption and a place for canvases, which is redrawn when its size or the page's colours change. */
class Figure {
  constructor(parent, title) {
    this.element = document.createElement("figure");
    this.element.innerHTML = `<figcaption><strong>${title}</strong> </figcaption><div role="img" aria-label="${title}"></div>`;
    parent.append(this.element);
    [this.caption, this.place] = this.element.children;
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.place);
  }

  remove() {
    this.observer.disconnect();
    this.element.remove();
  }

  canvas(x = 0, share = 1) {
    const canvas = document.createElement("canvas");
    Object.assign(canvas.style, { left: `${100 * x}%`, width: `${100 * share}%` });
    this.place.append(canvas);
    return canvas;
  }

  describe(text) {
    this.place.setAttribute("aria-label", text);
  }
}

/** Gives a canvas the pixels of its size on the screen; returns its context, in CSS pixels, or null if it is hidden. */
function prepared(canvas) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return null;
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

const MARGINS = { left: 46, right: 10, top: 6, bottom: 34 };

/** Lines: `show({line: [x values, y values]}, description)`. A name that ends in 0 is of the start: thin and dotted. */
export class Lines extends Figure {
  constructor(parent, { title, x, y, log = false, dots = false, lines, range = {} }) {
    super(parent, title);
    Object.assign(this, { labels: { x, y }, log, dots, lines, range, data: {} });
    this.plot = this.canvas();
    for (const [name, label] of Object.entries(lines)) if (label) this.caption.append(sample(name, label));
  }

  look(name) {
    const start = name.endsWith("0");
    return { color: colorOf(name), width: start ? 1.25 : 2, dash: start ? [1.5, 3] : LOOKS[name].dash };
  }

  show(data, description) {
    this.data = data;
    this.describe(description);
    this.draw();
  }

  /** From and to on an axis (0 for x, 1 for y), which all that is drawn lies between. */
  limits(axis) {
    let [low, high] = this.range[axis === 0 ? "x" : "y"] ?? [Infinity, -Infinity];
    for (const name of Object.keys(this.lines))
      for (const v of this.data[name]?.[axis] ?? [])
        if (Number.isFinite(v) && (!this.log || v > 0)) [low, high] = [Math.min(low, v), Math.max(high, v)];
    if (!(low <= high)) [low, high] = this.log ? [1, 10] : [0, 1];
    if (axis === 0) return [low, high > low ? high : low + 1];
    if (this.log) return [10 ** Math.floor(Math.log10(low)), 10 ** Math.max(Math.ceil(Math.log10(high)), Math.floor(Math.log10(low)) + 1)];
    const margin = 0.06 * (high - low || 1);
    return [low - margin, high + margin];
  }

  draw() {
    const found = prepared(this.plot);
    if (!found) return;
    const { context, width, height } = found;
    const scale = this.log ? Math.log10 : (v) => v;
    const [[x0, x1], [y0, y1]] = [this.limits(0), this.limits(1)];
    const { left, right, top, bottom } = MARGINS;
    const px = (v) => left + ((scale(v) - scale(x0)) / (scale(x1) - scale(x0))) * (width - left - right);
    const py = (v) => height - bottom - ((scale(v) - scale(y0)) / (scale(y1) - scale(y0))) * (height - top - bottom);
    this.axes(found, px, py, [x0, x1], [y0, y1]);
    context.save();
    context.beginPath();
    context.rect(left - 2, top - 2, width - left - right + 4, height - top - bottom + 4);
    context.clip();
    for (const name of Object.keys(this.lines)) this.line(context, name, px, py);
    context.restore();
  }

  line(context, name, px, py) {
    const [xs = [], ys = []] = this.data[name] ?? [];
    const { color, width, dash } = this.look(name);
    const points = [];
    context.beginPath();
    let pen = false;
    for (let i = 0; i < xs.length; i++) {
      if (!Number.isFinite(ys[i]) || (this.log && !(ys[i] > 0))) pen = false;
      else {
        const at = [px(xs[i]), py(ys[i])];
        if (pen) context.lineTo(...at);
        else context.moveTo(...at);
        pen = true;
        points.push(at);
      }
    }
    Object.assign(context, { strokeStyle: color, fillStyle: color, lineWidth: width });
    context.setLineDash(dash);
    context.stroke();
    context.setLineDash([]);
    if ((this.dots && !name.endsWith("0")) || points.length === 1)
      for (const [x, y] of points) {
        context.beginPath();
        context.arc(x, y, points.length === 1 ? 3.5 : 2, 0, 7);
        context.fill();
      }
  }

  axes({ context, width, height }, px, py, xs, ys) {
    const { left, right, top, bottom } = MARGINS;
    const ticks = this.log ? decades : nice;
    const write = this.log ? tick : (v) => number(v);
    Object.assign(context, { fillStyle: getComputedStyle(this.place).color, strokeStyle: isDark() ? "#ffffff2a" : "#0000001c", lineWidth: 1, font: "11px sans-serif", textAlign: "center" });
    context.beginPath();
    for (const v of ticks(...xs, Math.floor((width - left) / 45))) {
      context.moveTo(px(v), top);
      context.lineTo(px(v), height - bottom);
      context.fillText(write(v), px(v), height - bottom + 14);
    }
    context.textAlign = "right";
    for (const v of ticks(...ys, Math.floor((height - bottom) / 22))) {
      context.moveTo(left, py(v));
      context.lineTo(width - right, py(v));
      context.fillText(write(v), left - 5, py(v) + 4);
    }
    context.stroke();
    context.textAlign = "center";
    context.fillText(this.labels.x, (left + width - right) / 2, height - 5);
    context.save();
    context.translate(11, (top + height - bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.fillText(this.labels.y, 0, 0);
    context.restore();
  }
}

/** Two fields on a square grid side by side, of the network and of its error: `show(network, exact, description)`. */
export class Fields extends Figure {
  constructor(parent, { title, coordinates: [x, y] }) {
    super(parent, title);
    this.caption.append(`${x} to the right, ${y} upwards`);
    this.place.classList.add("pn-lab-fields");
    this.parts = ["network", "error"].map((name, i) => [name, this.canvas(i * 0.51, 0.49), document.createElement("span")]);
    for (const [name, , label] of this.parts) {
      label.textContent = name;
      this.place.append(label);
    }
  }

  show(network, exact, description) {
    this.data = { network, exact };
    this.describe(description);
    this.draw();
  }

  draw() {
    if (!this.data) return;
    const { network, exact } = this.data;
    const largest = exact.reduce((top, v) => Math.max(top, Math.abs(v)), 0);
    const fields = [network, network.map((v, i) => v - exact[i])];
    this.parts.forEach(([name, canvas, label], i) => {
      paint(canvas, fields[i], largest);
      label.textContent = `${name}, ±${number(largest, 2)}`;
    });
  }
}

/** Paints values on a square grid, the last coordinate fastest and upwards, from -largest (blue) to largest (orange). */
export function paint(canvas, values, largest) {
  const n = Math.round(Math.sqrt(values.length));
  if (canvas.width !== n || canvas.height !== n) Object.assign(canvas, { width: n, height: n });
  const context = canvas.getContext("2d");
  const image = context.createImageData(n, n);
  const [middle, low, high] = isDark() ? [[28, 30, 34], [80, 170, 255], [255, 150, 70]] : [[250, 250, 250], [0, 90, 170], [190, 75, 0]];
  values.forEach((value, k) => {
    const share = Math.max(-1, Math.min(1, value / largest)) || 0;
    const end = share < 0 ? low : high;
    const o = 4 * ((n - 1 - (k % n)) * n + Math.floor(k / n));
    for (let c = 0; c < 3; c++) image.data[o + c] = middle[c] + Math.abs(share) * (end[c] - middle[c]);
    image.data[o + 3] = 255;
  });
  context.putImageData(image, 0, 0);
}

/** Powers of ten from low to high, `most` at most. */
function decades(low, high, most) {
  const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const step = Math.ceil((last - first + 1) / Math.max(most, 2));
  return Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, i) => 10 ** (first + i * step));
}

/** Round numbers from low to high, `most` at most. */
function nice(low, high, most) {
  const rough = (high - low) / Math.max(most, 2);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((s) => s * power).find((s) => s >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function tick(v) {
  return v > 9e-3 && v < 999 ? number(v) : `1e${Math.round(Math.log10(v))}`;
}

/** The sample of a line for the caption, in the page's colours. */
function sample(name, label) {
  const { light, dark, dash } = LOOKS[name.replace("0", "")];
  const [width, pattern] = name.endsWith("0") ? [1.5, "2 3"] : [2, dash.join(" ")];
  const span = document.createElement("span");
  span.innerHTML =
    `<svg width="24" height="8" aria-hidden="true" style="--light: ${light}; --dark: ${dark}"><line x1="0" x2="24" y1="4" y2="4" ` +
    `stroke-width="${width}" stroke-dasharray="${pattern}"/></svg> ${label.replace(/_(\w+)/, "<sub>$1</sub>")}`;
  return span;
}
