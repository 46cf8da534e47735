// Kernel descent with the library's search for the damping (`kernel_gradient_descent`): steps along the direction
// -J^T (K + mu I)^-1 r, corrected to second order, with the least damping mu for which one of three lengths is predicted
// well. What is predicted is the level: the squared length of the step that would correct the residuals or, with more
// residuals than parameters, the loss.

import { dot, jacobian, kernel } from "./kernel.mjs";

const TRIES = 10;
const LENGTHS = [1, 0.5, 0.25];
const SHORTFALL = 0.9; // by this much, times the length, the decrease in the level may fall short of the predicted one
const BEND = 0.75; // the correction is left out if it is longer than this fraction of the direction
const FACTOR = 3; // between the first two dampings that are tried; it grows with each further one: 3, 9, 27, ...
const MOST = 1e12;
const BLURRED = 10; // multiple of the least damping below which the loss has to decrease, whatever the level
const UNCHANGED = 1 - 10 * 2 ** -52; // a level that falls by less is the same up to rounding errors

/** Takes a step in place. Returns the losses before it; its damping mu and length, null if no step was taken; and the
 * damping that the next step tries first, a fraction of the mean eigenvalue. */
export function descend(model, weights, fraction) {
  const { params } = model;
  const J = jacobian(model);
  const n = J.rows.length;
  const root = J.owner.map((index) => Math.sqrt(weights[index] / J.counts[index]));
  const r = Float64Array.from(J.residuals, (value, i) => root[i] * value);
  const A = kernel(J, root);
  const mean = A.reduce((sum, row, i) => sum + row[i], 0) / n;
  const least = 0.1 * 2 ** -52 * Math.min(n, params.length); // with less, rounding errors are larger than mu
  const losses = new Float64Array(J.counts.length);
  J.residuals.forEach((value, i) => (losses[J.owner[i]] += value ** 2 / J.counts[J.owner[i]]));

  const before = params.slice();
  const after = (step) => {
    for (let p = 0; p < params.length; p++) params[p] = before[p] + step[p];
    return model.residuals().map((value, i) => root[i] * value);
  };
  const problem = { J, root, A, r, after };
  const clip = (value) => Math.min(Math.max(value, least), MOST);
  fraction = clip(fraction);
  let [found, failed] = [null, false];
  for (let tried = 0; tried < TRIES && !(found && failed); tried++) {
    const best = bestAt(problem, fraction * mean, fraction < BLURRED * least);
    if (best) found = { ...best, mu: fraction * mean, fraction };
    failed ||= !best || fraction <= least; // at the least damping, nothing is left to try
    const factor = FACTOR ** (tried + 1);
    fraction = clip(best ? fraction / factor : fraction * factor);
  }
  for (let p = 0; p < params.length; p++) params[p] = before[p] + (found?.step[p] ?? 0);
  return { losses, mu: found?.mu ?? null, length: found?.length ?? null, fraction: found?.fraction ?? fraction };
}

/** The step of least level among those at this damping that are predicted well, {step, length}; null if there is none.
 * If rounding errors blur the level, the loss has to decrease too. */
function bestAt({ J, root, A, r, after }, mu, blurred) {
  const solve = solver(J.rows, root, A, mu);
  const direction = solve(r).map((d) => -d);
  const first = J.rows.map((row, i) => root[i] * dot(row, direction));
  const second = secondDerivative((t) => after(direction.map((d) => t * d)), r);
  let bend = solve(second).map((d) => -d / 2);
  if (!(dot(bend, bend) <= BEND ** 2 * dot(direction, direction))) bend = bend.fill(0);
  const counted = r.length <= direction.length ? solve : (residuals) => residuals;
  const now = counted(r);
  const change = counted(first);
  const level = dot(now, now);
  let best = null;
  for (const length of LENGTHS) {
    const step = direction.map((d, p) => length * d + length ** 2 * bend[p]);
    const residuals = after(step);
    const reached = counted(residuals);
    const found = dot(reached, reached);
    const falls = found < UNCHANGED * level && (!blurred || dot(residuals, residuals) < dot(r, r));
    const linear = now.map((value, i) => value + length * change[i]);
    const promise = (1 - SHORTFALL * length) * (level - dot(linear, linear));
    if (falls && level - found >= promise && !(best?.level <= found)) best = { step, length, level: found };
  }
  return best;
}

/** The second derivative at 0 of a function from numbers to arrays, whose value there is c, by differences of fourth
 * order. */
function secondDerivative(f, c) {
  const h = 2e-3; // balances truncation, h^4, and rounding, 1e-16 / h^2
  const [a, b, d, e] = [-2, -1, 1, 2].map((k) => f(k * h));
  return c.map((_, i) => (16 * (b[i] + d[i]) - 30 * c[i] - a[i] - e[i]) / (12 * h * h));
}

/** v -> J^T (A + mu I)^-1 v by a Cholesky factorisation, NaN if there is none. A is the lower half; `rows` are those of
 * J before they are scaled by `root`. */
function solver(rows, root, A, mu) {
  const L = A.map((row) => row.slice());
  for (let i = 0; i < L.length; i++) {
    const row = L[i];
    row[i] += mu;
    for (let j = 0; j <= i; j++) {
      const other = L[j];
      let sum = row[j];
      for (let k = 0; k < j; k++) sum -= row[k] * other[k];
      row[j] = j < i ? sum / other[j] : Math.sqrt(sum);
    }
  }
  return (v) => {
    const y = Float64Array.from(v);
    for (let i = 0; i < L.length; i++) {
      for (let k = 0; k < i; k++) y[i] -= L[i][k] * y[k];
      y[i] /= L[i][i];
    }
    for (let i = L.length - 1; i >= 0; i--) {
      y[i] /= L[i][i];
      for (let k = 0; k < i; k++) y[k] -= L[i][k] * y[i];
    }
    const step = new Float64Array(rows[0].length);
    rows.forEach((row, i) => {
      const c = root[i] * y[i];
      for (let p = 0; p < step.length; p++) step[p] += c * row[p];
    });
    return step;
  };
}
