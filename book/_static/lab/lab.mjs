// The lab: a form, a worker that trains, one that computes modes, and pictures. It fills every element of class pn-lab
// on the page; the element's data attributes (data-a, data-scheme, ...) and then the page's address say where it starts.

import { Fields, integer, Lines, NAMES, number } from "./figures.mjs";
import { Form, MARKUP } from "./form.mjs";
import { EQUATIONS, problem } from "./problems.mjs";
import { program } from "./python.mjs";
import { settingsFrom, STARTS } from "./settings.mjs";
import { Stage } from "./stage.mjs";

import WORKER from "./worker.mjs"; // its text, and that of what it imports: see the book's bundle

const PARTS = { settings: "Settings", solution: "Solution", losses: "Losses", modes: "Modes" };
const LIVE = ["optimizer", "rate", "scheme", "fixed"]; // what can change while it trains
const FRAME_EVERY = 90; // milliseconds between frames of the modes, at least
const REST = 0.2; // and this share of the time that the last one took, so that other work gets its turn

export const newWorker = () => new Worker(URL.createObjectURL(new Blob([WORKER], { type: "text/javascript" })));

class Lab {
  constructor(root) {
    this.root = root;
    root.innerHTML = MARKUP;
    this.find = (selector) => root.querySelector(selector);
    this.status = this.find("[role=status]");
    this.here = settingsFrom(Object.entries(root.dataset), STARTS); // what this page starts with
    const address = new URLSearchParams(location.search);
    this.settings = settingsFrom(address, this.here);
    this.form = new Form(this.find("form"), (name) => this.heard(name), (changes) => this.chosen(changes));
    this.run = 0;
    this.trainer = this.hire((data) => this.report(data));
    this.theatre = this.hire((data) => this.frame(data));
    this.stage = new Stage(this.find("[data-part=modes]"), (id) => this.theatre.postMessage({ command: "excitation", run: this.run, id }));
    this.buttons();
    this.part("view" in root.dataset ? "modes" : "solution"); // a page that asks for a picture of the kernel wants it seen
    this.look(root.dataset.view ?? "modes");
    if (address.has("teach")) this.teach(true);
    this.form.write(this.settings);
    this.reset();
  }

  hire(listen) {
    const worker = newWorker();
    worker.onmessage = ({ data }) => data.run === this.run && listen(data);
    worker.onerror = (event) => this.say(`The lab has stopped: ${event.message}`);
    return worker;
  }

  send(command, rest = {}) {
    this.trainer.postMessage({ command, ...rest });
  }

  say(text) {
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  // ------------------------------ what the reader does

  heard(name) {
    const value = this.form.read(name);
    if (value === undefined) return;
    this.settings[name] = value;
    if (name === "equation") Object.assign(this.settings, ofEquation(value));
    if (name === "optimizer") this.settings.rate = rateOf(this.settings);
    this.written();
    if (name === "pace") this.setPace();
    else if (LIVE.includes(name) && !this.diverged) this.send("change", { settings: this.settings });
    else this.reset();
  }

  chosen(changes) {
    this.settings = { ...STARTS, ...changes, pace: this.settings.pace };
    this.written();
    this.reset();
    this.start();
  }

  /** The settings to the form and to the address, so that they can be sent to someone. */
  written() {
    this.form.write(this.settings);
    const changed = Object.entries(this.settings).filter(([name, value]) => value !== this.here[name]);
    if (this.teaching) changed.push(["teach", 1]);
    history.replaceState(null, "", `?${new URLSearchParams(changed)}${location.hash}`);
  }

  buttons() {
    const { start, one, reset, copy, teach } = this.form.element.elements;
    start.onclick = () => (this.running ? this.pause() : this.start());
    one.onclick = () => (this.diverged ? this.reset() : this.send("one"));
    reset.onclick = () => this.reset();
    copy.onclick = () => this.copy();
    teach.onclick = () => this.teach(!this.teaching);
    for (const [name, label] of Object.entries(PARTS)) {
      const tab = Object.assign(document.createElement("button"), { type: "button", textContent: label });
      tab.dataset.tab = name;
      tab.onclick = () => this.part(name);
      this.find(".pn-lab-tabs").append(tab);
    }
    for (const button of this.root.querySelectorAll("[data-view]")) button.onclick = () => this.look(button.dataset.view);
    addEventListener("keydown", ({ key }) => key === "Escape" && this.teaching && this.teach(false));
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && this.running) {
        this.pause();
        this.resumes = true;
      } else if (!document.hidden && this.resumes) this.start();
    });
    new MutationObserver(() => this.redraw()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  async copy() {
    const text = program(this.settings);
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = Object.assign(document.createElement("textarea"), { value: text }); // where a page may not use the clipboard
      this.root.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    this.say("Copied: a program for pinnntk_lib with these settings.");
  }

  teach(on) {
    this.teaching = on;
    this.root.classList.toggle("pn-lab-teach", on);
    this.form.field("teach").setAttribute("aria-pressed", on);
    this.form.field("teach").textContent = on ? "Back to the page" : "Teach";
    if (this.shown) this.written();
  }

  /** On a narrow screen, shows one of the parts. */
  part(name) {
    this.root.dataset.part = name;
    for (const tab of this.root.querySelectorAll("[data-tab]")) tab.setAttribute("aria-pressed", tab.dataset.tab === name);
  }

  /** Chooses the picture of the kernel. */
  look(view) {
    this.view = view;
    this.root.dataset.view = view;
    for (const button of this.root.querySelectorAll("button[data-view]")) button.setAttribute("aria-pressed", button.dataset.view === view);
    this.redraw();
    if (this.latest) this.ask(this.latest);
  }

  // ------------------------------ training

  setPace() {
    this.send("pace", { steps: this.settings.pace === "max" ? Infinity : Number(this.settings.pace) });
  }

  reset() {
    this.run++;
    this.resumes = this.diverged = this.busy = false;
    this.last = this.shown = this.scene = this.waiting = this.latest = null;
    this.problem = problem(this.settings);
    this.figures();
    this.stage.begin(this.problem);
    this.setPace();
    this.theatre.postMessage({ command: "stage", settings: this.settings });
    this.send("reset", { run: this.run, settings: this.settings });
    this.state(false);
    this.say("Ready.");
  }

  start() {
    if (this.diverged) this.reset();
    this.resumes = false;
    this.send("start", { until: this.settings.until });
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
    this.form.element.elements.start.textContent = running ? "Pause" : this.diverged ? "Start again" : "Start";
  }

  // ------------------------------ pictures

  figures() {
    const { names, dim } = this.problem;
    const key = [names, dim, EQUATIONS[this.settings.equation].coordinates].join();
    if (this.pictured === key) return;
    this.pictured = key;
    for (const figure of Object.values(this.plots ?? {})) figure.remove();
    const of = (more) => Object.fromEntries(names.map((name) => [name, more(name)]));
    const starts = (more) => Object.fromEntries(names.map((name) => [`${name}0`, more(name)]));
    const [solution, losses, modes] = ["solution", "losses", "modes"].map((part) => this.find(`[data-part=${part}]`));
    const lines = { exact: "exact", network: "network" };
    this.plots = {
      solution:
        dim === 1
          ? new Lines(solution, { title: "Solution", x: "x", y: "u", lines })
          : new Fields(solution, { title: "Solution", coordinates: EQUATIONS[this.settings.equation].coordinates }),
      losses: new Lines(losses, {
        title: "Losses",
        x: "step",
        y: "loss, error",
        log: true,
        lines: { ...of((name) => NAMES[name]), error: "relative error", ...starts((name) => (name === "r" ? "theory" : "")) },
      }),
      eigenvalues: new Lines(modes, {
        title: "Eigenvalues",
        x: "rank",
        y: "eigenvalue",
        log: true,
        dots: true,
        lines: { ...of((name) => `K_${name}${name}`), ...starts((name) => (name === "r" ? "at step 0" : "")) },
      }),
      weights: new Lines(modes, { title: "Weights", x: "step", y: "weight", log: true, lines: of((name) => NAMES[name]) }),
    };
    this.plots.eigenvalues.element.dataset.of = "eigenvalues";
    this.plots.weights.element.dataset.of = "weights";
  }

  redraw() {
    for (const figure of Object.values(this.plots ?? {})) figure.draw();
    if (this.scene) this.stage.show(this.scene, this.settings.optimizer, this.settings.rate);
  }

  report(data) {
    const now = performance.now();
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.latest = data.state;
    if (calm && data.running && now - (this.drawn ?? 0) < 1000) return;
    this.drawn = now;
    this.shown = data;
    this.diverged = Boolean(data.diverged);
    this.state(data.running);
    this.numbers(data, now);
    if (data.diverged) this.explain(data.diverged);
    else if (data.ended) this.say(`Paused at step ${integer(data.step)}, where the chapters' runs end. Start goes on.`);
    this.draw(data);
    // Of a run that has diverged, the base tells why; the kernel of parameters that blow up would not.
    const { base } = data.state;
    this.ask(data.diverged ? { ...data.state, ...base, base } : data.state);
  }

  explain({ step, losses }) {
    const sum = losses.reduce((total, loss) => total + loss, 0);
    const { optimizer, rate } = this.settings;
    const bound = this.scene && optimizer === "sgd" ? ` Gradient descent was stable below ${this.scene.baseBound.toExponential(1)}, by the kernel before.` : "";
    this.say(`Training diverged at step ${integer(step)}: the loss is ${number(sum)}. The learning rate ${rate.toExponential(1)} is too large.${bound}`);
  }

  /** Asks for the modes of a state; while the worker is busy, the newest one waits. */
  ask(state) {
    if (this.busy) return void (this.waiting = state);
    this.busy = true;
    this.waiting = null;
    this.asked = performance.now();
    this.theatre.postMessage({ command: "frame", run: this.run, state, withSpectra: this.view === "eigenvalues" });
  }

  frame({ frame, step }) {
    if (step) return this.send("excite", { step });
    const took = performance.now() - this.asked;
    const [run, rest] = [this.run, Math.max(REST * took, FRAME_EVERY - took)];
    setTimeout(() => {
      if (run !== this.run) return;
      this.busy = false;
      if (this.waiting) this.ask(this.waiting);
    }, rest);
    this.scene = frame;
    if (this.diverged) this.explain(this.shown.diverged);
    this.stage.show(frame, this.settings.optimizer, this.settings.rate);
    this.find(".pn-lab-legend span").textContent = this.settings.optimizer === "adam" ? "(none for Adam)" : `theory, from step ${integer(frame.baseStep)}`;
    this.bound();
    if (frame.blocks) this.spectrum(frame);
    this.draw(this.shown);
  }

  bound() {
    const { optimizer, rate } = this.settings;
    const bound = this.diverged ? this.scene.baseBound : this.scene.bound;
    const above = optimizer === "sgd" && rate > bound;
    const shown = this.find(".pn-lab-bound");
    shown.textContent = optimizer === "sgd" ? `${above ? "too large: " : ""}stable below ${bound.toExponential(1)}` : "";
    shown.classList.toggle("pn-lab-above", above);
  }

  numbers({ step, names, losses, weights, error }, now) {
    const speed = this.last && now > this.last.now ? ((step - this.last.step) / (now - this.last.now)) * 1000 : 0;
    this.last = { now, step };
    const rows = { step: integer(step), "steps/s": this.running ? number(speed, 2) : "0", "relative error": number(error) };
    names.forEach((name, i) => (rows[`${NAMES[name]} loss`] = number(losses[i])));
    rows.weights = Array.from(weights, (w) => number(w)).join(", ");
    this.find("dl").innerHTML = Object.entries(rows)
      .map(([name, value]) => `<div><dt>${name}</dt><dd>${value}</dd></div>`)
      .join("");
  }

  draw({ step, names, solution, history, losses, weights, error }) {
    const at = `at step ${integer(step)}`;
    const { plots, scene } = this;
    const { grid, exact, network } = solution;
    const described = `The exact solution and the network's ${at}; relative error ${number(error)}.`;
    if (this.problem.dim === 1) plots.solution.show({ exact: [grid, exact], network: [grid, network] }, described);
    else plots.solution.show(network, exact, described);
    const steps = [...history.step, step].map((s) => Math.max(s, 1));
    const list = (values) => names.map((name, i) => `${NAMES[name]} ${number(values[i])}`).join(", ");
    const columns = Object.fromEntries(names.map((name, i) => [name, [steps, [...history.losses[i], losses[i]]]]));
    const theory = scene?.predicted;
    if (theory) names.forEach((name, i) => (columns[`${name}0`] = [theory.step.map((s) => Math.max(s, 1)), theory.losses[i]]));
    plots.losses.range = { x: [1, Math.max(this.settings.until, step)] };
    if (theory) clip(columns, plots.losses.range.x[1]);
    plots.losses.show({ ...columns, error: [steps, [...history.error, error]] }, `Losses against the step; ${at}: ${list(losses)}.`);
    const constant = Object.fromEntries(names.map((name, i) => [name, [steps, [...history.weights[i], weights[i]]]]));
    plots.weights.range = plots.losses.range;
    plots.weights.show(constant, `Weights against the step; ${at}: ${list(weights)}.`);
  }

  spectrum({ blocks, first, step }) {
    const { names } = this.problem;
    const ranked = (values) => {
      const above = values.filter((v) => v > 1e-14 * values[0]);
      return [above.map((_, i) => i + 1), above];
    };
    const lines = {};
    names.forEach((name, i) => Object.assign(lines, { [name]: ranked(blocks[i]), [`${name}0`]: ranked(first[i]) }));
    const largest = names.map((name, i) => `K_${name}${name} ${number(blocks[i][0])}`).join(", ");
    this.plots.eigenvalues.show(lines, `Eigenvalues by rank at step ${integer(step)}; the largest: ${largest}.`);
  }
}

/** Leaves out what a prediction says about steps beyond the last. */
function clip(columns, last) {
  for (const name of Object.keys(columns))
    if (name.endsWith("0")) {
      const count = columns[name][0].filter((s) => s <= last).length;
      columns[name] = columns[name].map((values) => values.slice(0, count));
    }
}

/** A learning rate that suits the equation and the optimiser. */
function rateOf({ equation, optimizer }) {
  return optimizer === "adam" ? 1e-3 : EQUATIONS[equation].rate;
}

/** What changes with the equation: the rate, for an optimiser that does well on it. */
function ofEquation(equation) {
  const optimizer = equation === "poisson" ? "sgd" : "adam";
  return { optimizer, rate: rateOf({ equation, optimizer }) };
}

for (const root of document.querySelectorAll(".pn-lab")) new Lab(root);
