// The modes of a run: where they stand in the residual now, and where theory, with the kernel of the base step, had said
// that they would be. Modes are followed from frame to frame by their overlap, so that none changes sign or place at
// random.

import { dot, eigenpairs, jacobian, scales, spectra } from "./kernel.mjs";
import { Model } from "./session.mjs";

const FOLLOWED = 40;
const SHOWN = 12;
const RANK = 80; // of the kernel at many points; at a hundred all modes are computed
const FEW = 150;
const RESOLVED = 1e-11; // of the largest eigenvalue: slower modes are rounding error
const OVERTAKES = 1.15; // modes change places when their rates differ by this factor
const LARGEST_MOVE = 0.1; // of the parameters, root mean square, that a mode is excited with

export class Theatre {
  constructor(settings) {
    this.model = new Model(settings);
    this.base = null;
    this.followed = [];
  }

  /** The modes of the parameters, for residuals with the weights: eigenvalues, eigenvectors, amplitudes. */
  modes(params, weights) {
    this.model.params.set(params);
    const J = jacobian(this.model);
    const scale = scales(J, weights);
    const { values, vectors } = eigenpairs(J, scale, J.rows.length > FEW ? RANK : Infinity);
    const residual = Float64Array.from(J.residuals, (r, i) => scale[i] * r);
    return { J, scale, values, vectors, residual, amplitudes: vectors.map((q) => dot(q, residual)) };
  }

  /** state: {params, step, weights, optimizer, rate, base: {id, step, params, weights, damped}}; withSpectra: whether
   * to compute the eigenvalues of each condition's own kernel too. */
  frame({ params, step, weights, optimizer, rate, base }, withSpectra) {
    if (this.base?.id !== base.id) this.begin(base);
    const now = this.modes(params, weights);
    this.follow(now);
    this.now = now;
    const owners = now.J.owner;
    const shown = this.followed.flatMap((mode, rank) => (this.chosen.has(mode.id) ? [{ ...mode, rank: rank + 1 }] : []));
    const modes = shown.map((mode) => {
      const shares = now.J.counts.map(() => 0);
      mode.vector.forEach((q, i) => (shares[owners[i]] += q * q));
      return {
        id: mode.id,
        rank: mode.rank,
        rate: mode.value,
        vector: mode.vector,
        shares,
        left: Math.abs(mode.amplitude),
        expected: Math.abs(mode.start) * left(mode.kappa, optimizer, rate, step - base.step, base.damped),
      };
    });
    return {
      step,
      baseStep: base.step,
      modes,
      largest: this.largest,
      bound: 2 / now.values[0],
      baseBound: 2 / this.base.values[0],
      blocks: withSpectra ? spectra(now.J) : null,
      first: withSpectra ? (this.first ??= spectra(this.start)) : null,
      predicted: optimizer === "sgd" ? this.predicted(rate) : null,
    };
  }

  /** Takes the modes at the base as those to be followed. */
  begin(base) {
    const found = this.modes(base.params, base.weights);
    const count = found.values.filter((value) => value > RESOLVED * found.values[0]).length;
    const before = this.followed;
    this.base = { ...base, ...found };
    this.start ??= found.J;
    this.largest = Math.max(...found.amplitudes.slice(0, count).map(Math.abs), 1e-300);
    this.followed = found.values.slice(0, Math.min(count, FOLLOWED)).map((value, i) => {
      const same = before.find((mode) => mode.vector.length === found.vectors[i].length && Math.abs(dot(mode.vector, found.vectors[i])) > 0.5);
      const sign = same && dot(same.vector, found.vectors[i]) < 0 ? -1 : 1;
      const [vector, amplitude] = [found.vectors[i].map((q) => sign * q), sign * found.amplitudes[i]];
      return { id: i, value, vector, amplitude, kappa: value, start: amplitude };
    });
    this.chosen = this.choose(found);
  }

  /** The modes to show: the fastest, but of each condition at least two that are mostly its own. */
  choose({ J }) {
    const chosen = new Set();
    const last = J.counts.length - 1;
    const shareOf = ({ vector }, index) => vector.reduce((sum, q, i) => sum + (J.owner[i] === index ? q * q : 0), 0);
    for (let index = 0; index < last; index++)
      for (const mode of this.followed.filter((mode) => shareOf(mode, index) > 0.5).slice(0, 2)) chosen.add(mode.id);
    for (const { id } of this.followed) if (chosen.size < SHOWN) chosen.add(id);
    return chosen;
  }

  /** Gives each followed mode the new eigenvector that overlaps with it most, best pairs first. */
  follow({ values, vectors, amplitudes }) {
    const pairs = [];
    const candidates = vectors.slice(0, 2 * FOLLOWED);
    this.followed.forEach((mode, m) => candidates.forEach((q, i) => pairs.push([dot(mode.vector, q), m, i])));
    pairs.sort((a, b) => Math.abs(b[0]) - Math.abs(a[0]));
    const [seen, taken] = [new Set(), new Set()];
    for (const [overlap, m, i] of pairs) {
      if (seen.has(m) || taken.has(i)) continue;
      seen.add(m);
      taken.add(i);
      const sign = overlap < 0 ? -1 : 1;
      const [vector, amplitude] = [vectors[i].map((q) => sign * q), sign * amplitudes[i]];
      Object.assign(this.followed[m], { value: values[i], vector, amplitude });
    }
    // fastest to slowest, but two that are nearly as fast stay where they are
    for (let moved = true; moved; ) {
      moved = false;
      for (let m = 1; m < this.followed.length; m++) {
        const [a, b] = [this.followed[m - 1], this.followed[m]];
        if (b.value > OVERTAKES * a.value) {
          this.followed.splice(m - 1, 2, b, a);
          moved = true;
        }
      }
    }
  }

  /** The change of parameters that adds the mode to the residual, as much as the largest mode had at the base. */
  excitation(id) {
    const mode = this.followed.find((followed) => followed.id === id);
    const { J, scale } = this.now;
    const step = new Float64Array(this.model.params.length);
    J.rows.forEach((row, i) => {
      for (let p = 0; p < step.length; p++) step[p] += scale[i] * mode.vector[i] * row[p];
    });
    const size = Math.sqrt(mode.value); // of this sum
    const most = LARGEST_MOVE * Math.sqrt(step.length);
    const factor = Math.min(this.largest / size, most) / size;
    return step.map((value) => (mode.amplitude < 0 ? -1 : 1) * factor * value);
  }

  /** The losses that theory predicts for gradient descent from the base: {step, losses of each condition}. */
  predicted(rate) {
    if (this.prediction?.rate === rate && this.prediction.id === this.base.id) return this.prediction;
    const { values, vectors, amplitudes, residual, scale, J, step } = this.base;
    const rest = residual.map((r, i) => r - vectors.reduce((sum, q, m) => sum + q[i] * amplitudes[m], 0));
    const after = [0];
    while (after.at(-1) < 1e6) after.push(Math.max(after.at(-1) + 1, Math.ceil(after.at(-1) * 1.25)));
    const losses = J.counts.map(() => []);
    for (const steps of after) {
      const now = rest.slice();
      vectors.forEach((q, m) => {
        const amplitude = amplitudes[m] * (1 - rate * values[m]) ** steps;
        q.forEach((v, i) => (now[i] += v * amplitude));
      });
      const sums = J.counts.map(() => 0);
      now.forEach((r, i) => (sums[J.owner[i]] += (r / scale[i]) ** 2 / J.counts[J.owner[i]]));
      sums.forEach((sum, i) => losses[i].push(sum));
    }
    this.prediction = { id: this.base.id, rate, step: after.map((s) => step + s), losses };
    return this.prediction;
  }
}

/** The fraction of a mode that is left, by theory: null for Adam, which follows no kernel. */
function left(kappa, optimizer, rate, steps, damped) {
  if (optimizer === "adam") return NaN;
  if (optimizer === "sgd") return Math.abs(1 - rate * kappa) ** steps;
  return damped.reduce((product, { mu, length }) => product * (1 - (length * kappa) / (kappa + 2 * mu)), 1);
}
