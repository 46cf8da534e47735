// Kernel descent: damped Gauss-Newton steps -J^T (K + mu I)^-1 r, with the library's rule for the damping
// (`kernel_gradient_descent`): the better a step agrees with its prediction, the less the next one is damped; one that
// does not reduce the loss is tried again with more.

import { dot, jacobian, kernel } from "./kernel.mjs";

const TRIES = 10;

/** Takes a step in place. Returns the losses before it, mu (null if no step was taken) and the next damping,
 * {fraction of the mean eigenvalue, growth at the next rejection}. */
export function descend(model, weights, { fraction, growth }) {
  const { params } = model;
  const J = jacobian(model);
  const n = J.rows.length;
  const root = J.owner.map((index) => Math.sqrt(weights[index] / J.counts[index]));
  const r = Float64Array.from(J.residuals, (value, i) => root[i] * value);
  const A = kernel(J, root);
  const mean = A.reduce((sum, row, i) => sum + row[i], 0) / n;
  const loss = dot(r, r);
  const least = 10 * 2 ** -52 * n; // with less damping the factorisation would fail
  const losses = new Float64Array(J.counts.length);
  J.residuals.forEach((value, i) => (losses[J.owner[i]] += value ** 2 / J.counts[J.owner[i]]));

  const before = params.slice();
  fraction = Math.max(fraction, least);
  for (let tried = 0; tried < TRIES; tried++) {
    const mu = fraction * mean;
    const y = solve(A, mu, r);
    params.set(before);
    J.rows.forEach((row, i) => {
      const c = -root[i] * y[i];
      for (let p = 0; p < params.length; p++) params[p] += c * row[p];
    });
    let after = 0;
    model.residuals().forEach((value, i) => (after += (root[i] * value) ** 2));
    const left = mu * mu * dot(y, y); // of the linearised residuals
    const gain = (loss - after) / (loss - left);
    const better = gain > 0; // false for NaN
    fraction = Math.min(Math.max(fraction * (better ? Math.max(1 / 3, 1 - (2 * gain - 1) ** 3) : growth), least), 1e12);
    growth = better ? 2 : 2 * growth;
    if (better) return { losses, mu, damping: { fraction, growth } };
  }
  params.set(before);
  return { losses, mu: null, damping: { fraction, growth } };
}

/** Solves (A + mu I) y = r by a Cholesky factorisation; NaN if there is none. A is the lower half, kept as it is. */
function solve(A, mu, r) {
  const L = A.map((row) => row.slice());
  const y = Float64Array.from(r);
  for (let i = 0; i < L.length; i++) {
    const row = L[i];
    row[i] += mu;
    for (let j = 0; j <= i; j++) {
      const other = L[j];
      let sum = row[j];
      for (let k = 0; k < j; k++) sum -= row[k] * other[k];
      row[j] = j < i ? sum / other[j] : Math.sqrt(sum);
    }
    for (let k = 0; k < i; k++) y[i] -= row[k] * y[k];
    y[i] /= row[i];
  }
  for (let i = L.length - 1; i >= 0; i--) {
    y[i] /= L[i][i];
    for (let k = 0; k < i; k++) y[k] -= L[i][k] * y[i];
  }
  return y;
}
