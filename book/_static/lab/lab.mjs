// The lab: a form, a worker that trains, four pictures. It fills every element of class pn-lab on the page; the
// element's data attributes (data-a, data-scheme, ...) and then the page's address say where it starts.

import uPlot from "uplot";

import WORKER from "./worker.mjs"; // its text, and that of what it imports: see the book's bundle

const WIDTHS = [5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500];
const SCHEMES = { equal: "equal", ntk: "Algorithm 1", fixed: "fixed" };
const PACES = { 10: "10 steps a second", 100: "100 steps a second", 1000: "1,000 steps a second", max: "full speed" };

// What a setting may be; anything else in the address is left out.
const SETTINGS = {
  a: { start: 4, valid: (v) => Number.isInteger(v) && v >= 1 && v <= 8 },
  width: { start: 100, valid: (v) => Number.isInteger(v) && v >= 5 && v <= 500 },
  seed: { start: 0, valid: (v) => Number.isInteger(v) && v >= 0 && v < 2 ** 32 },
  rate: { start: 1e-5, valid: (v) => v >= 1e-6 && v <= 1 },
  scheme: { start: "equal", valid: (v) => v in SCHEMES },
  fixed: { start: 100, valid: (v) => v >= 1 && v <= 1e5 },
  pace: { start: "max", valid: (v) => v in PACES },
};

// The chapters' stories, as changes of the start.
const STORIES = {
  "It works": { a: 1, rate: 1e-3 },
  "It fails": {},
  "It diverges": { rate: 1e-2 },
  "Algorithm 1": { scheme: "ntk" },
  "A slow seed": { scheme: "ntk", seed: 3 },
};

// Told apart by line as well as by colour, on light and on dark ground.
const LOOKS = {
  exact: { light: "#333333", dark: "#dddddd", dash: [] },
  network: { light: "#b34700", dark: "#ff9c5b", dash: [6, 3] },
  u: { light: "#0060a8", dark: "#6cb8f0", dash: [] },
  r: { light: "#b34700", dark: "#ff9c5b", dash: [6, 3] },
  error: { light: "#555555", dark: "#c4c4c4", dash: [2, 3] },
};

const FORM = `
  <form aria-label="Settings of the lab">
    <div role="group" aria-label="Stories" class="pn-lab-stories"></div>
    <label>half-waves of the solution, <i>a</i> <b aria-hidden="true"></b>
      <input type="range" name="a" min="1" max="8" step="1"></label>
    <label>width <b aria-hidden="true"></b>
      <input type="range" name="width" min="0" max="${WIDTHS.length - 1}" step="1"></label>
    <label>learning rate <b aria-hidden="true"></b>
      <input type="range" name="rate" min="-6" max="0" step="0.1">
      <span class="pn-lab-bound"></span></label>
    <label>seed
      <input type="number" name="seed" min="0" max="4294967295" step="1" required></label>
    <label>weights
      <select name="scheme"></select></label>
    <label>weight of the boundary <b aria-hidden="true"></b>
      <input type="range" name="fixed" min="0" max="5" step="0.1"></label>
    <label>speed
      <select name="pace"></select></label>
    <div role="group" aria-label="Training">
      <button type="button" name="start">Start</button>
      <button type="button" name="one">One step</button>
      <button type="button" name="reset">Reset</button>
    </div>
  </form>
  <p role="status"></p>
  <dl></dl>
  <div class="pn-lab-figures"></div>`;

const FIGURES = {
  solution: { title: "Solution", x: "x", y: "u", lines: { exact: "exact", network: "network" } },
  losses: {
    title: "Losses and relative error",
    x: "step",
    y: "loss, error",
    log: true,
    lines: { u: "boundary", r: "residual", error: "relative error of u" },
  },
  spectrum: {
    title: "Eigenvalues of the kernel",
    x: "rank",
    y: "eigenvalue",
    log: true,
    points: true,
    lines: { u: "K_uu", r: "K_rr", u0: "K_uu at step 0", r0: "K_rr at step 0" },
  },
  weights: { title: "Weights", x: "step", y: "weight", log: true, lines: { u: "boundary", r: "residual" } },
};

function number(value, digits = 3) {
  if (!Number.isFinite(value)) return "not finite";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(digits - 1);
  return value.toLocaleString("en", { maximumSignificantDigits: digits });
}

const whole = (value) => value.toLocaleString("en");

function settingsFrom(entries, fallback) {
  const found = { ...fallback };
  for (const [name, text] of entries) {
    if (!(name in SETTINGS)) continue;
    const value = typeof SETTINGS[name].start === "number" ? Number(text) : text;
    if (SETTINGS[name].valid(value)) found[name] = value;
  }
  return found;
}

const starts = Object.fromEntries(Object.entries(SETTINGS).map(([name, { start }]) => [name, start]));

// ---------------------------------------------------------------- pictures

/** A picture of one or more lines that are redrawn as data come; `show(x, {line: values}, description)`. */
class Figure {
  constructor(parent, { title, x, y, log = false, points = false, lines }) {
    Object.assign(this, { x, y, log, points, lines });
    this.element = document.createElement("figure");
    this.element.innerHTML = `<figcaption><strong>${title}</strong><br></figcaption><div role="img" aria-label="${title}"></div>`;
    parent.append(this.element);
    this.place = this.element.querySelector("div");
    this.data = [[], ...Object.keys(lines).map(() => [])];
    this.build();
    new ResizeObserver(() => this.plot.setSize(this.size())).observe(this.place);
  }

  size() {
    return { width: Math.max(this.place.clientWidth, 120), height: 220 };
  }

  /** Draws anew, in the colours of the page as they are now. */
  build() {
    const dark = document.documentElement.dataset.theme === "dark";
    const ink = getComputedStyle(this.place).color;
    const faint = dark ? "#ffffff22" : "#00000018";
    const look = (name) => LOOKS[name.replace("0", "")];
    const series = Object.keys(this.lines).map((name) => {
      const color = look(name)[dark ? "dark" : "light"];
      const [before, dash] = [name.endsWith("0"), look(name).dash];
      const points = { show: this.points && !before, size: 5, stroke: color, fill: color };
      return { stroke: color, width: before ? 1 : 2, dash: before ? [1, 3] : dash, points };
    });
    const axis = { stroke: ink, grid: { stroke: faint }, ticks: { stroke: faint } };
    const scale = this.log ? { distr: 3 } : {};
    const ticks = this.log
      ? { splits: (_, i, low, high) => decades(low, high), values: (_, splits) => splits.map(tick), filter: (_, splits) => splits }
      : { values: (_, splits) => splits.map((v) => number(v)) };
    this.plot?.destroy();
    this.plot = new uPlot(
      {
        ...this.size(),
        legend: { show: false },
        cursor: { show: false },
        scales: { x: { time: false, ...scale }, y: scale },
        axes: [
          { ...axis, ...ticks, label: this.x, labelSize: 20, size: 34 },
          { ...axis, ...ticks, label: this.y, labelSize: 20, size: 56 },
        ],
        series: [{}, ...series],
      },
      this.data,
      this.place,
    );
    const caption = this.element.querySelector("figcaption");
    caption.querySelectorAll("span").forEach((span) => span.remove());
    Object.entries(this.lines).forEach(([, label], i) => caption.append(sample(series[i], label)));
  }

  show(x, lines, description) {
    const drawn = (v) => (Number.isFinite(v) && (!this.log || v > 0) ? v : null);
    this.data = [x, ...Object.keys(this.lines).map((name) => Array.from(x, (_, i) => drawn(lines[name][i])))];
    this.plot.setData(this.data);
    this.place.setAttribute("aria-label", description);
  }
}

/** Powers of ten from low to high, eight at most. */
function decades(low, high) {
  const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const step = Math.ceil((last - first + 1) / 8);
  return Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, i) => 10 ** (first + i * step));
}

function tick(v) {
  return v > 9e-3 && v < 2e3 ? number(v) : `1e${Math.round(Math.log10(v))}`;
}

function sample({ stroke, width, dash }, label) {
  const span = document.createElement("span");
  span.innerHTML =
    `<svg width="26" height="8" aria-hidden="true"><line x1="0" x2="26" y1="4" y2="4" stroke="${stroke}" ` +
    `stroke-width="${width}" stroke-dasharray="${dash.join(" ")}"/></svg> ${label.replace(/_(\w+)/, "<sub>$1</sub>")}`;
  return span;
}

// ---------------------------------------------------------------- the lab

class Lab {
  constructor(root) {
    this.root = root;
    root.innerHTML = FORM;
    this.form = root.querySelector("form");
    this.status = root.querySelector("[role=status]");
    this.here = settingsFrom(Object.entries(root.dataset), starts); // what this page starts with
    this.settings = settingsFrom(new URLSearchParams(location.search), this.here);
    this.figures = Object.fromEntries(
      Object.entries(FIGURES).map(([name, figure]) => [name, new Figure(root.querySelector(".pn-lab-figures"), figure)]),
    );
    this.worker = new Worker(URL.createObjectURL(new Blob([WORKER], { type: "text/javascript" })));
    this.worker.onmessage = ({ data }) => this.show(data);
    this.worker.onerror = (event) => this.say(`The lab has stopped: ${event.message}`);
    this.fill();
    this.listen();
    this.reset();
  }

  send(command, rest = {}) {
    this.worker.postMessage({ command, ...rest });
  }

  say(text) {
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  // ------------------------------ form

  fill() {
    const { scheme, pace } = this.form.elements;
    for (const [select, options] of [
      [scheme, SCHEMES],
      [pace, PACES],
    ])
      for (const [value, label] of Object.entries(options)) select.add(new Option(label, value));
    for (const [label, change] of Object.entries(STORIES)) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
      button.onclick = () => {
        this.settings = { ...starts, ...change, pace: this.settings.pace };
        this.written();
        this.reset();
        this.start();
      };
      this.form.querySelector(".pn-lab-stories").append(button);
    }
    this.write();
  }

  /** Settings to form. */
  write() {
    const { a, width, rate, seed, scheme, fixed, pace } = this.settings;
    const nearest = WIDTHS.reduce((best, w, i) => (Math.abs(w - width) < Math.abs(WIDTHS[best] - width) ? i : best), 0);
    const shown = {
      a: [a, a],
      width: [nearest, width],
      rate: [Math.log10(rate), rate.toExponential(1)],
      fixed: [Math.log10(fixed), number(fixed)],
    };
    for (const [name, [position, text]] of Object.entries(shown)) {
      const input = this.form.elements[name];
      input.value = position;
      input.setAttribute("aria-valuetext", text);
      input.closest("label").querySelector("b").textContent = text;
    }
    Object.assign(this.form.elements.seed, { value: seed });
    this.form.elements.scheme.value = scheme;
    this.form.elements.pace.value = pace;
    this.form.elements.fixed.closest("label").hidden = scheme !== "fixed";
  }

  /** Form to settings: the one that has changed. */
  read(name) {
    const { value } = this.form.elements[name];
    const rounded = (position) => Number((10 ** Number(position)).toPrecision(2));
    const readers = { a: Number, width: (i) => WIDTHS[i], rate: rounded, seed: Number, fixed: rounded };
    const found = (readers[name] ?? String)(value);
    if (!SETTINGS[name].valid(found)) return false;
    this.settings[name] = found;
    return true;
  }

  /** The settings to the form and to the address, so that they can be sent to someone. */
  written() {
    this.write();
    const changed = Object.entries(this.settings).filter(([name, value]) => value !== this.here[name]);
    history.replaceState(null, "", `?${new URLSearchParams(changed)}${location.hash}`);
  }

  listen() {
    this.form.onsubmit = (event) => event.preventDefault();
    this.form.oninput = ({ target }) => {
      if (!this.read(target.name)) return;
      this.written();
      if (target.name === "pace") this.setPace();
      else if (["rate", "scheme", "fixed"].includes(target.name))
        this.send("change", { settings: this.settings, reweighted: target.name !== "rate" });
      else this.reset();
    };
    const { start, one, reset } = this.form.elements;
    start.onclick = () => (this.running ? this.pause() : this.start());
    one.onclick = () => this.send("one");
    reset.onclick = () => this.reset();
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && this.running) {
        this.pause();
        this.resumes = true;
      } else if (!document.hidden && this.resumes) this.start();
    });
    new MutationObserver(() => Object.values(this.figures).forEach((figure) => figure.build())).observe(
      document.documentElement,
      { attributeFilter: ["data-theme"] },
    );
  }

  // ------------------------------ training

  setPace() {
    this.send("pace", { steps: this.settings.pace === "max" ? Infinity : Number(this.settings.pace) });
  }

  reset() {
    this.resumes = false;
    this.last = null;
    this.setPace();
    this.send("reset", { settings: this.settings });
    this.say("Ready.");
  }

  start() {
    this.resumes = false;
    this.send("start");
    this.say("Training.");
    this.state(true);
  }

  pause() {
    this.resumes = false;
    this.send("pause");
    this.say("Paused.");
    this.state(false);
  }

  state(running) {
    this.running = running;
    this.form.elements.start.textContent = running ? "Pause" : "Start";
  }

  // ------------------------------ what the worker reports

  show(report) {
    const now = performance.now();
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (calm && report.running && now - (this.shown ?? 0) < 1000) return;
    this.shown = now;
    this.state(report.running);
    this.numbers(report, now);
    if (report.diverged) {
      const { step, losses } = report.diverged;
      this.say(
        `Training diverged at step ${whole(step)}: the loss is ${number(losses.u + losses.r)}. At the learning rate ` +
          `${this.settings.rate.toExponential(1)} it was bound to: gradient descent was stable below ` +
          `${this.bound.toExponential(1)}, by the kernel before.`,
      );
    }
    this.draw(report);
  }

  numbers({ step, losses, weights, error, bound }, now) {
    const speed = this.last && now > this.last.now ? ((step - this.last.step) / (now - this.last.now)) * 1000 : 0;
    this.last = { now, step };
    if (bound) this.bound = bound;
    const above = this.settings.rate > this.bound;
    const shown = this.root.querySelector(".pn-lab-bound");
    shown.textContent = `${above ? "too large: " : ""}stable below ${this.bound.toExponential(1)}`;
    shown.classList.toggle("pn-lab-above", above);
    const rows = {
      step: whole(step),
      "steps a second": this.running ? number(speed, 2) : "0",
      "relative error": number(error),
      "boundary loss": number(losses.u),
      "residual loss": number(losses.r),
      "weights (u, r)": `${number(weights.u)}, ${number(weights.r, 5)}`,
    };
    this.root.querySelector("dl").innerHTML = Object.entries(rows)
      .map(([name, value]) => `<div><dt>${name}</dt><dd>${value}</dd></div>`)
      .join("");
  }

  draw({ step, solution, history, losses, weights, error, spectrum, first }) {
    const { figures } = this;
    const at = `at step ${whole(step)}`;
    figures.solution.show(
      solution.x,
      solution,
      `The exact solution and the network's ${at}; relative error ${number(error)}.`,
    );
    const steps = history.step.map((s) => Math.max(s, 1));
    figures.losses.show(
      steps,
      history,
      `Losses against the step; ${at}: boundary ${number(losses.u)}, residual ${number(losses.r)}.`,
    );
    figures.weights.show(
      steps,
      { u: history.weightU, r: history.weightR },
      `Weights against the step; ${at}: boundary ${number(weights.u)}, residual ${number(weights.r, 5)}.`,
    );
    if (spectrum && first) {
      const above = (values) => values.map((v) => (v > 1e-14 * values[0] ? v : null));
      const lines = { u: spectrum.u, r: spectrum.r, u0: first.u, r0: first.r };
      figures.spectrum.show(
        spectrum.r.map((_, i) => i + 1),
        Object.fromEntries(Object.entries(lines).map(([name, values]) => [name, above(values)])),
        `Eigenvalues by rank ${at}: the largest of K_uu is ${number(spectrum.u[0])}, of K_rr ${number(spectrum.r[0])}.`,
      );
    }
  }
}

for (const root of document.querySelectorAll(".pn-lab")) new Lab(root);
