// The paper's model problem (section 7.1) in float64: u'' = f on [0, 1] with the solution sin(a pi x), and a network
// of one hidden layer, u(x) = W1 . tanh(W0 z + b0) / sqrt(N) + b1, of the normalised input z = (x - shift) / scale.
// Its derivatives are written out, since a general library takes a hundred times as long for a step of this size.

/** The problem with n residual points on a uniform grid; its boundary is the two ends. */
export function poisson(a, n = 100) {
  const omega = a * Math.PI;
  const x = Float64Array.from({ length: n }, (_, i) => i / (n - 1));
  const exact = (at) => Math.sin(omega * at);
  const mean = x.reduce((sum, at) => sum + at, 0) / n;
  const variance = x.reduce((sum, at) => sum + (at - mean) ** 2, 0) / n;
  return {
    exact,
    points: { u: Float64Array.of(0, 1), r: x },
    targets: { u: Float64Array.of(exact(0), exact(1)), r: x.map((at) => -omega * omega * exact(at)) },
    shift: mean,
    scale: Math.sqrt(variance),
  };
}

/** The parameters as one array, W0, b0, W1, b1, of 3 N + 1 numbers; `views` gives its parts. */
export function views(params) {
  const width = (params.length - 1) / 3;
  return {
    width,
    W0: params.subarray(0, width),
    b0: params.subarray(width, 2 * width),
    W1: params.subarray(2 * width, 3 * width),
    b1: params.subarray(3 * width),
  };
}

/** The network's value at a point. */
export function value(params, { shift, scale }, x) {
  const { width, W0, b0, W1, b1 } = views(params);
  const z = (x - shift) / scale;
  let sum = 0;
  for (let k = 0; k < width; k++) sum += W1[k] * Math.tanh(W0[k] * z + b0[k]);
  return sum / Math.sqrt(width) + b1[0];
}

/** A function that takes steps of gradient descent on lambda_u L_u + lambda_r L_r, in place, and returns the losses
 * (means of squares) before the step. */
export function stepper(params, problem) {
  const { width, W0, b0, W1, b1 } = views(params);
  const { points, targets, shift, scale } = problem;
  const root = Math.sqrt(width);
  const array = () => new Float64Array(width);
  const [s, s2, s3, e, factor] = [array(), array(), array(), array(), array()];
  const sums = Array.from({ length: 6 }, array);
  const [ofS, ofS1, ofS1z, ofS2, ofS3, ofS3z] = sums;

  return function step(rate, weights) {
    for (const sum of sums) sum.fill(0);
    const losses = { u: 0, r: 0 };
    let ofOne = 0;

    // Each point adds (derivative of the loss by the residual) * (derivative of the residual by the activations).
    for (let i = 0; i < points.u.length; i++) {
      const z = (points.u[i] - shift) / scale;
      let u = 0;
      for (let k = 0; k < width; k++) u += W1[k] * (s[k] = Math.tanh(W0[k] * z + b0[k]));
      const residual = u / root + b1[0] - targets.u[i];
      losses.u += residual ** 2 / points.u.length;
      const c = (2 * weights.u * residual) / points.u.length;
      ofOne += c;
      for (let k = 0; k < width; k++) {
        ofS[k] += c * s[k];
        const d = c * (1 - s[k] * s[k]);
        ofS1[k] += d;
        ofS1z[k] += d * z;
      }
    }
    for (let k = 0; k < width; k++) factor[k] = Math.exp((2 * W0[k] * (points.r[1] - points.r[0])) / scale);
    for (let i = 0; i < points.r.length; i++) {
      const z = (points.r[i] - shift) / scale;
      // tanh y = 1 - 2 / (exp(2 y) + 1), and along a uniform grid the exponential goes on by a factor: it is computed
      // anew often enough for rounding not to add up.
      if (i % 10 === 0) for (let k = 0; k < width; k++) e[k] = Math.exp(2 * (W0[k] * z + b0[k]));
      else for (let k = 0; k < width; k++) e[k] *= factor[k];
      let sum = 0;
      for (let k = 0; k < width; k++) {
        const t = 1 - 2 / (e[k] + 1);
        const t1 = 1 - t * t;
        s2[k] = -2 * t * t1;
        s3[k] = t1 * (6 * t * t - 2);
        sum += W1[k] * s2[k] * W0[k] * W0[k];
      }
      const residual = sum / (root * scale * scale) - targets.r[i];
      losses.r += residual ** 2 / points.r.length;
      const c = (2 * weights.r * residual) / (points.r.length * scale * scale);
      for (let k = 0; k < width; k++) {
        ofS2[k] += c * s2[k];
        const d = c * s3[k];
        ofS3[k] += d;
        ofS3z[k] += d * z;
      }
    }

    const by = rate / root;
    for (let k = 0; k < width; k++) {
      const w = W0[k];
      const v = W1[k];
      W1[k] -= by * (ofS[k] + w * w * ofS2[k]);
      b0[k] -= by * v * (ofS1[k] + w * w * ofS3[k]);
      W0[k] -= by * v * (ofS1z[k] + w * w * ofS3z[k] + 2 * w * ofS2[k]);
    }
    b1[0] -= rate * ofOne;
    return losses;
  };
}

/** The Jacobian's row of the residual at a point of condition "u" or "r": its derivatives by all parameters. */
export function gradient(params, { shift, scale }, condition, x, row) {
  const { width, W0, b0, W1 } = views(params);
  const root = Math.sqrt(width);
  const z = (x - shift) / scale;
  for (let k = 0; k < width; k++) {
    const [w, v] = [W0[k], W1[k]];
    const t = Math.tanh(w * z + b0[k]);
    const t1 = 1 - t * t;
    if (condition === "u") {
      row[k] = (v * t1 * z) / root;
      row[width + k] = (v * t1) / root;
      row[2 * width + k] = t / root;
    } else {
      const t2 = -2 * t * t1;
      const t3 = t1 * (6 * t * t - 2);
      const unit = root * scale * scale;
      row[k] = (v * (t3 * w * w * z + 2 * t2 * w)) / unit;
      row[width + k] = (v * t3 * w * w) / unit;
      row[2 * width + k] = (t2 * w * w) / unit;
    }
  }
  row[3 * width] = condition === "u" ? 1 : 0;
  return row;
}

/** Average convergence rates Tr(K_uu) / n_u and Tr(K_rr) / n_r. */
export function rates(params, problem) {
  const row = new Float64Array(params.length);
  const mean = (condition) => {
    const x = problem.points[condition];
    let sum = 0;
    for (const at of x) for (const entry of gradient(params, problem, condition, at, row)) sum += entry * entry;
    return sum / x.length;
  };
  return { u: mean("u"), r: mean("r") };
}

/** Algorithm 1's weights from average convergence rates: their sum divided by each. */
export function algorithm1({ u, r }) {
  return { u: (u + r) / u, r: (u + r) / r };
}

/** The kernel K as an array of rows, boundary points first. */
export function kernel(params, problem) {
  const rows = ["u", "r"].flatMap((condition) =>
    Array.from(problem.points[condition], (x) =>
      gradient(params, problem, condition, x, new Float64Array(params.length)),
    ),
  );
  const K = rows.map(() => new Float64Array(rows.length));
  for (let i = 0; i < rows.length; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0;
      for (let p = 0; p < params.length; p++) sum += rows[i][p] * rows[j][p];
      K[i][j] = K[j][i] = sum;
    }
  }
  return K;
}
