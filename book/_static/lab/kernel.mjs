// The kernel K = J J^T at a model's points, and its modes: the eigenvectors of D^(1/2) K D^(1/2), D = 2 lambda / n.

import { EigenvalueDecomposition } from "ml-matrix";

const ROUNDING = 1e-14; // of the largest diagonal entry: what is left below it is noise

/** The Jacobian, one row a residual: {rows, owner: the condition of each, counts: residuals of each condition}. */
export function jacobian(model) {
  const [rows, owner, residuals] = [[], [], []];
  model.each((index, i, residual, add) => {
    const row = new Float64Array(model.params.length);
    add(1, row);
    rows.push(row);
    owner.push(index);
    residuals.push(residual);
  });
  return { rows, owner, residuals, counts: model.conditions.map(({ n }) => n) };
}

export function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** The kernel's lower half, an array of rows, each times the scales of both its residuals. */
export function kernel({ rows }, scale = rows.map(() => 1)) {
  return rows.map((row, i) => Float64Array.from({ length: i + 1 }, (_, j) => scale[i] * scale[j] * dot(row, rows[j])));
}

/** Average convergence rates Tr(K_ii) / n_i. */
export function meanRates(model) {
  const rates = new Float64Array(model.conditions.length);
  const row = new Float64Array(model.params.length);
  model.each((index, i, residual, add) => {
    row.fill(0);
    add(1, row);
    rates[index] += dot(row, row) / model.conditions[index].n;
  });
  return rates;
}

/** The diagonal of D^(1/2) for each residual. */
export function scales({ owner, counts }, weights) {
  return owner.map((index) => Math.sqrt((2 * weights[index]) / counts[index]));
}

/** Eigenvalues, largest first, and eigenvectors of S K S, for the residuals chosen, at most `most` of them. A Cholesky
 * factorisation that takes the largest pivots first stops at rounding error, after a few dozen columns: L^T L has the
 * eigenvalues of L L^T. */
export function eigenpairs({ rows }, scale, most = Infinity, chosen = rows.map((_, i) => i)) {
  const n = chosen.length;
  const A = chosen.map((i) => rows[i].map((v) => scale[i] * v));
  const left = Float64Array.from(A, (row) => dot(row, row));
  const floor = ROUNDING * Math.max(...left);
  const columns = [];
  for (let rank = 0; rank < Math.min(n, most); rank++) {
    const pivot = left.indexOf(Math.max(...left));
    if (!(left[pivot] > floor)) break;
    const root = Math.sqrt(left[pivot]);
    const column = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      if (left[i] === 0) continue; // a former pivot
      let entry = dot(A[i], A[pivot]);
      for (let k = 0; k < columns.length; k++) entry -= columns[k][i] * columns[k][pivot];
      column[i] = entry / root;
    }
    for (let i = 0; i < n; i++) left[i] = i === pivot ? 0 : Math.max(left[i] - column[i] ** 2, 0);
    columns.push(column);
  }
  if (!columns.length) return { values: [], vectors: [] };
  const gram = columns.map((a, i) => columns.map((b, j) => (j <= i ? dot(a, b) : 0)));
  gram.forEach((row, i) => row.forEach((v, j) => (gram[j][i] = i > j ? v : gram[j][i])));
  const found = new EigenvalueDecomposition(gram, { assumeSymmetric: true });
  const order = found.realEigenvalues.map((value, i) => [value, i]).sort((a, b) => b[0] - a[0]);
  const V = found.eigenvectorMatrix;
  const vectors = order.map(([value, j]) => {
    const vector = new Float64Array(n);
    columns.forEach((column, k) => {
      const c = V.get(k, j);
      for (let i = 0; i < n; i++) vector[i] += c * column[i];
    });
    const size = Math.sqrt(dot(vector, vector)) || 1;
    return vector.map((v) => v / size);
  });
  return { values: order.map(([value]) => Math.max(value, 0)), vectors };
}

/** The eigenvalues of each condition's own kernel, largest first. */
export function spectra(J) {
  const one = J.rows.map(() => 1);
  return J.counts.map((_, index) => {
    const own = J.owner.flatMap((of, i) => (of === index ? [i] : []));
    return eigenpairs(J, one, Infinity, own).values;
  });
}

/** The largest learning rate at which gradient descent is stable, by the kernel as it is: 2 / kappa_max. */
export function largestRate(J, weights) {
  return 2 / eigenpairs(J, scales(J, weights)).values[0];
}
