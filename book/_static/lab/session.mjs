// One training run as the lab keeps it. It needs no browser: the tests run it in Node.

import { EigenvalueDecomposition } from "ml-matrix";

import { algorithm1, kernel, poisson, rates, stepper, value } from "./pinn.mjs";
import { init } from "./random.mjs";

const UPDATE_EVERY = 100; // steps between Algorithm 1's weights
const GROWTH_LIMIT = 1e6; // a run whose loss has grown by this has diverged, as in the library
const ROWS = 1.02; // each row of the history comes this much later than the one before: a few hundred in all
const TEST_POINTS = 201;

export class Session {
  /**
   * settings: {a, width, seed, rate, scheme: "equal" | "ntk" | "fixed", fixed: the boundary's weight if so};
   * params: the initial parameters, the seed's if left out.
   */
  constructor(settings, params = init(settings.width, settings.seed)) {
    this.problem = poisson(settings.a);
    this.params = params;
    this.take = stepper(params, this.problem);
    this.step = 0;
    this.diverged = null;
    this.history = { step: [], u: [], r: [], weightU: [], weightR: [], error: [] };
    this.nextRow = 0;
    this.change(settings);
    this.losses = this.lossesNow();
    this.limit = GROWTH_LIMIT * (this.losses.u + this.losses.r);
  }

  /** Sets the learning rate and the weights, which may change in the middle of training. */
  change({ rate, scheme, fixed }) {
    this.rate = rate;
    this.adaptive = scheme === "ntk";
    this.weights = this.adaptive ? algorithm1(rates(this.params, this.problem)) : { u: scheme === "fixed" ? fixed : 1, r: 1 };
  }

  /** Takes steps: as many as asked for, or as there are before training diverges. */
  advance(steps) {
    for (let i = 0; i < steps && !this.diverged; i++) {
      if (this.adaptive && this.step % UPDATE_EVERY === 0) this.weights = algorithm1(rates(this.params, this.problem));
      const isRow = this.step >= this.nextRow;
      const error = isRow ? this.error() : null; // before the step moves the parameters
      const losses = this.take(this.rate, this.weights);
      if (!(losses.u + losses.r <= this.limit)) {
        this.diverged = { step: this.step, losses };
        return;
      }
      this.losses = losses;
      if (isRow) this.record(error);
      this.step++;
    }
  }

  /** The losses of the present parameters, by a step of length zero: `losses` are those before the last step. */
  lossesNow() {
    return this.take(0, this.weights);
  }

  record(error) {
    const row = { step: this.step, ...this.losses, weightU: this.weights.u, weightR: this.weights.r, error };
    for (const [name, column] of Object.entries(this.history)) column.push(row[name]);
    this.nextRow = Math.max(this.step + 1, Math.ceil(this.step * ROWS));
  }

  /** The network and the exact solution on a grid. */
  solution() {
    const x = Array.from({ length: TEST_POINTS }, (_, i) => i / (TEST_POINTS - 1));
    return { x, exact: x.map(this.problem.exact), network: x.map((at) => value(this.params, this.problem, at)) };
  }

  /** The relative L2 error. */
  error({ exact, network } = this.solution()) {
    const square = (sum, v) => sum + v * v;
    return Math.sqrt(exact.map((v, i) => v - network[i]).reduce(square, 0) / exact.reduce(square, 0));
  }

  /**
   * The eigenvalues of K_uu and of K_rr, largest first, and the largest stable learning rate 2 / lambda_max of K times
   * the weights 2 lambda_i / n_i.
   */
  spectrum() {
    const K = kernel(this.params, this.problem);
    const boundary = this.problem.points.u.length;
    const block = (from, to) => K.slice(from, to).map((row) => Array.from(row.subarray(from, to)));
    const scale = K.map((_, i) => {
      const name = i < boundary ? "u" : "r";
      return Math.sqrt((2 * this.weights[name]) / this.problem.points[name].length);
    });
    const weighted = K.map((row, i) => Array.from(row, (entry, j) => scale[i] * entry * scale[j]));
    return {
      u: eigenvalues(block(0, boundary)),
      r: eigenvalues(block(boundary, K.length)),
      bound: 2 / eigenvalues(weighted)[0],
    };
  }
}

function eigenvalues(matrix) {
  const found = new EigenvalueDecomposition(matrix, { assumeSymmetric: true }).realEigenvalues;
  return Array.from(found).sort((a, b) => b - a);
}
