// One training run as the lab keeps it. It needs no browser: the tests run it in Node.

import { descend } from "./descent.mjs";
import { jacobian, largestRate, meanRates, spectra } from "./kernel.mjs";
import { isUniform, onLine } from "./line.mjs";
import { Fourier, Plain } from "./network.mjs";
import { problem } from "./problems.mjs";
import { frequencies, init } from "./random.mjs";

const FREQUENCIES = 8; // rows of B: twice as many Fourier features
const UPDATE_EVERY = 100; // steps between Algorithm 1's weights
const GROWTH_LIMIT = 1e6; // a run whose loss has grown by this has diverged, as in the library
const ROWS = 1.02; // each row of the history comes this much later than the one before: a few hundred in all
const REMEMBERED = 1000; // damped steps that are kept for the prediction; by then no mode is left

/** Problem and network of the settings: their residuals and gradients. */
export class Model {
  constructor(settings, params) {
    this.problem = problem(settings);
    const { dim, mean, deviation } = this.problem;
    const { width, activation, scaled, fourier, seed } = settings;
    const B = fourier > 0 ? frequencies(seed, FREQUENCIES, dim, fourier) : null;
    const inputs = B ? 2 * FREQUENCIES : dim;
    this.params = params ?? init(width, seed, inputs);
    const [shift, scale] = scaled ? [mean, deviation] : [[0, 0], [1, 1]];
    const options = { width, activation, dim, inputs, shift, scale };
    this.net = B ? new Fourier(this.params, { ...options, frequencies: B }) : new Plain(this.params, options);
    this.conditions = this.problem.conditions;
    const fast = (condition) => activation === "tanh" && !B && isUniform(this.net, condition);
    this.onLine = this.conditions.map((condition) => (fast(condition) ? onLine(this.net, condition) : null));
    this.C = new Float64Array(5); // the coefficients of a linearised product
  }

  /** Calls `use(index of the condition, index of the point, residual, add)` for each residual; add(c, to) adds c times
   * its gradient to `to`. */
  each(use, skipped = []) {
    const { net, problem: { dim }, C } = this;
    const add = (c, to) => net.add(c, to);
    net.refresh();
    this.conditions.forEach(({ n, sites, x, C: all, f, product }, index) => {
      if (skipped[index]) return;
      for (let i = 0; i < n; i++) {
        if (product) {
          const { A, a, B, b } = product;
          net.activate(x, i * dim);
          const first = net.combine(A, 5 * i) + a[i];
          const second = net.combine(B, 5 * i) + b[i];
          const residual = net.combine(all, 5 * i) + first * second - f[i];
          for (let j = 0; j < 5; j++) C[j] = all[5 * i + j] + second * A[5 * i + j] + first * B[5 * i + j];
          net.combine(C, 0);
          use(index, i, residual, add);
        } else if (sites === 1) {
          use(index, i, net.at(x, i * dim, all, 5 * i) - f[i], add);
        } else {
          const at = (site) => net.at(x, (i * sites + site) * dim, all, 5 * (i * sites + site));
          use(index, i, at(0) + at(1) - f[i], (c, to) => {
            net.add(c, to); // of the second site, the last combined
            at(0);
            net.add(c, to);
          });
        }
      }
    });
  }

  /** All residuals, condition by condition. */
  residuals() {
    const found = [];
    this.each((index, i, residual) => found.push(residual));
    return Float64Array.from(found);
  }

  /** Fills `gradient` with that of the weighted loss, and returns the losses, means of squares. */
  gradient(weights, gradient) {
    const losses = new Float64Array(this.conditions.length);
    gradient.fill(0);
    this.each((index, i, residual, add) => {
      const { n } = this.conditions[index];
      losses[index] += (residual * residual) / n;
      add((2 * weights[index] * residual) / n, gradient);
    }, this.onLine);
    this.onLine.forEach((fast, index) => {
      if (fast) losses[index] = fast(weights[index], gradient);
    });
    return losses;
  }

  losses() {
    const losses = new Float64Array(this.conditions.length);
    this.each((index, i, residual) => (losses[index] += residual ** 2 / this.conditions[index].n));
    return losses;
  }

  /** u on a grid: 201 points in a line, or 41 x 41 in a plane, the last coordinate fastest. */
  solution() {
    const { net, grid, exact, scale, shift } = this.onGrid();
    net.refresh();
    const network = Float64Array.from(shift, (g, i) => g + scale[i] * net.value(grid, i * this.problem.dim));
    return { grid, exact, network };
  }

  onGrid() {
    if (this.found) return this.found;
    const { dim, lower, upper, exact, lift, distance } = this.problem;
    const n = dim === 1 ? 201 : 41;
    const at = (i, j) => lower[j] + ((upper[j] - lower[j]) * i) / (n - 1);
    const rows = Array.from({ length: n ** dim }, (_, i) => (dim === 1 ? [at(i, 0)] : [at(Math.floor(i / n), 0), at(i % n, 1)]));
    this.found = {
      net: this.net,
      grid: Float64Array.from(rows.flat()),
      exact: Float64Array.from(rows, (x) => exact(...x)),
      shift: Float64Array.from(rows, lift),
      scale: Float64Array.from(rows, distance),
    };
    return this.found;
  }

  /** The relative L2 error. */
  error({ exact, network } = this.solution()) {
    let [above, below] = [0, 0];
    exact.forEach((value, i) => {
      above += (value - network[i]) ** 2;
      below += value ** 2;
    });
    return Math.sqrt(above / below);
  }
}

export class Session {
  /** settings: see `SETTINGS` in settings.mjs; params: the parameters at this step, the seed's if left out. */
  constructor(settings, params, step = 0) {
    this.model = new Model(settings, params);
    this.params = this.model.params;
    this.names = this.model.problem.names;
    this.gradient = new Float64Array(this.params.length);
    this.moments = { m: new Float64Array(this.params.length), v: new Float64Array(this.params.length), steps: 0 };
    this.damping = 1e-3;
    this.step = step;
    this.diverged = null;
    this.history = { step: [], error: [], losses: this.names.map(() => []), weights: this.names.map(() => []) };
    this.nextRow = step;
    this.change(settings);
    this.losses = this.model.losses();
    const targets = this.model.conditions.reduce((sum, { size }) => sum + size, 0);
    this.limit = GROWTH_LIMIT * Math.max(total(this.losses), targets, 1);
  }

  /** Sets optimiser, learning rate and weights, which may change in the middle of training. */
  change({ optimizer, rate, scheme, fixed }) {
    if (optimizer !== this.optimizer) {
      this.moments.m.fill(0);
      this.moments.v.fill(0);
      this.moments.steps = 0;
      this.damping = 1e-3;
    }
    Object.assign(this, { optimizer, rate, adaptive: scheme === "ntk" });
    this.weights = this.adaptive ? this.algorithm1() : this.names.map((name) => (scheme === "fixed" && name !== "r" ? fixed : 1));
    this.begin();
  }

  /** From here the prediction is made: at this step, with these parameters. */
  begin() {
    this.base = { step: this.step, params: this.params.slice(), weights: Array.from(this.weights), damped: [] };
  }

  /** Algorithm 1's weights: the sum of the average convergence rates divided by each. */
  algorithm1() {
    const rates = meanRates(this.model);
    const sum = total(rates);
    return Array.from(rates, (rate) => (rate > 0 ? sum / rate : 1));
  }

  /** Takes steps: as many as asked for, or as there are before training diverges. */
  advance(steps) {
    for (let i = 0; i < steps && !this.diverged; i++) {
      if (this.adaptive && this.step % UPDATE_EVERY === 0) this.weights = this.algorithm1();
      const isRow = this.step >= this.nextRow;
      const error = isRow ? this.model.error() : null; // before the step moves the parameters
      const losses = this.optimizer === "kernel" ? this.kernelStep() : this.model.gradient(this.weights, this.gradient);
      if (!(total(losses) <= this.limit)) {
        this.diverged = { step: this.step, losses };
        return;
      }
      if (this.optimizer === "sgd") this.move((p) => this.rate * this.gradient[p]);
      if (this.optimizer === "adam") this.adam();
      this.losses = losses;
      if (isRow) this.record(error);
      this.step++;
    }
  }

  move(by) {
    const { params } = this;
    for (let p = 0; p < params.length; p++) params[p] -= by(p);
  }

  adam() {
    const { m, v } = this.moments;
    const t = ++this.moments.steps;
    const [c, d] = [1 - 0.9 ** t, 1 - 0.999 ** t];
    this.move((p) => {
      const g = this.gradient[p];
      m[p] = 0.9 * m[p] + 0.1 * g;
      v[p] = 0.999 * v[p] + 0.001 * g * g;
      return (this.rate * (m[p] / c)) / (Math.sqrt(v[p] / d) + 1e-8);
    });
  }

  kernelStep() {
    const { losses, mu, length, fraction } = descend(this.model, this.weights, this.damping);
    this.damping = fraction;
    if (mu !== null && this.base.damped.length < REMEMBERED) this.base.damped.push({ mu, length });
    return losses;
  }

  record(error) {
    const { history, losses, weights } = this;
    history.step.push(this.step);
    history.error.push(error);
    losses.forEach((loss, i) => history.losses[i].push(loss));
    weights.forEach((weight, i) => history.weights[i].push(weight));
    this.nextRow = Math.max(this.step + 1, Math.ceil(this.step * ROWS));
  }

  /** Moves the parameters by a step in the direction J^T d of residuals, as large as asked for. */
  excite(step) {
    this.move((p) => -step[p]);
    this.begin();
    this.losses = this.model.losses();
  }

  /** The eigenvalues of each condition's own kernel, largest first, and the largest stable learning rate. */
  spectrum() {
    const J = jacobian(this.model);
    return { blocks: spectra(J), bound: largestRate(J, this.weights) };
  }
}

export const total = (numbers) => numbers.reduce((sum, value) => sum + value, 0);
