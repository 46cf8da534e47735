// The front page's network: where chapter 1 leaves it, its answer wrong, and cured by Algorithm 1 while the reader
// watches. It fills every element of class pn-live on the page, which then has `live`, with `start` and `stop`.

import { integer, Lines, number } from "./figures.mjs";
import { newWorker } from "./lab.mjs";
import { STARTS } from "./settings.mjs";

import FAILED from "../landing/failed.json"; // the network's step and parameters: see the book's bundle

const STEPS = 40000; // of the cure, as many as those of the failure
const PACE = 50; // steps a second at first: the boundary's modes are gone after a few hundred steps
const DOUBLED_UNTIL = 7; // seconds in which the pace doubles each second; then it is as fast as it can be
const BEAT = 250; // milliseconds between changes of the pace

class Live {
  constructor(root) {
    this.told = () => {}; // called with (running, what to say)
    this.plot = new Lines(root, { title: "Solution", x: "x", y: "u", lines: { exact: "exact", network: "network" }, range: { y: [-3.5, 3.5] } });
    this.numbers = document.createElement("span");
    this.plot.caption.append(this.numbers);
    new MutationObserver(() => this.plot.draw()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  start() {
    this.stop();
    this.worker = newWorker();
    this.worker.onmessage = ({ data }) => this.report(data);
    this.worker.onerror = (event) => this.told(false, `The network has stopped: ${event.message}`);
    const send = (command, rest) => this.worker.postMessage({ command, ...rest });
    send("reset", { run: 0, settings: STARTS, step: FAILED.step, params: Float64Array.from(FAILED.params) });
    send("change", { settings: { ...STARTS, scheme: "ntk" } });
    send("pace", { steps: PACE });
    send("start", { until: FAILED.step + STEPS });
    const began = performance.now();
    this.beat = setInterval(() => {
      const seconds = (performance.now() - began) / 1000;
      send("pace", { steps: seconds < DOUBLED_UNTIL ? PACE * 2 ** seconds : Infinity });
      if (seconds >= DOUBLED_UNTIL) clearInterval(this.beat);
    }, BEAT);
    this.told(true, "Training.");
  }

  /** Ends the run; the picture stays. */
  stop() {
    clearInterval(this.beat);
    this.worker?.terminate();
    this.worker = null;
  }

  report({ step, error, solution: { grid, exact, network }, ended }) {
    const now = performance.now();
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (calm && !ended && now - (this.drawn ?? -Infinity) < 1000) return;
    this.drawn = now;
    const steps = `${integer(step - FAILED.step)} steps with weights`;
    this.numbers.textContent = `${steps}: relative error ${number(error, 2)}`;
    this.plot.show({ exact: [grid, exact], network: [grid, network] }, `The exact solution and the network's after ${steps}; relative error ${number(error, 2)}.`);
    if (!ended) return;
    this.stop();
    this.told(false, `Relative error ${number(error, 2)}.`);
  }
}

for (const root of document.querySelectorAll(".pn-live")) root.live = new Live(root);
