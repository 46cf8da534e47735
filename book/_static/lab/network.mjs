// A network of one hidden layer in NTK parameterisation, u(x) = W1 . s(W0 z / sqrt(m) + b0) / sqrt(N) + b1, in float64.
// z are the m inputs: the d coordinates, shifted and scaled, or Fourier features of them. Its parameters are one array,
// W0 (N x m), b0 (N), W1 (N), b1.
//
// Everything that a linear condition needs at a point is a combination of the network's value and derivatives with five
// coefficients C, of u, u_0, u_1, u_00 and u_11. The derivatives of w s(a . x + b) are powers of a times derivatives of
// s, so that no general library is needed, which would take a hundred times as long for a step of this size.

import { ACTIVATIONS, tanh } from "./activations.mjs";

const VALUE = Float64Array.of(1, 0, 0, 0, 0);

class Layer {
  constructor(params, { width, inputs, activation, shift, scale }) {
    const array = () => new Float64Array(width);
    Object.assign(this, { params, width, inputs, activation, shift, scale });
    this.fill = ACTIVATIONS[activation];
    this.root = Math.sqrt(width);
    // where b0, W1 and b1 begin
    [this.b0, this.W1, this.b1] = [inputs * width, (inputs + 1) * width, (inputs + 2) * width];
    [this.y, this.s, this.s1, this.s2, this.s3] = [array(), array(), array(), array(), array()];
    [this.h, this.g, this.v] = [array(), array(), array()]; // v is W1 / sqrt(N)
    this.bias = 0; // the coefficient of u in the last combination: the derivative by b1
  }

  /** The combination with the coefficients at C[p] of the network at the point that begins at x[o]. */
  at(x, o, C, p) {
    this.activate(x, o);
    return this.combine(C, p);
  }

  /** The network's value at the point that begins at x[o]. */
  value(x, o) {
    return this.at(x, o, VALUE, 0);
  }

  outputWeights() {
    for (let k = 0; k < this.width; k++) this.v[k] = this.params[this.W1 + k] / this.root;
  }
}

/** The network on the coordinates themselves, one or two. Call `refresh` after a change of the parameters, `activate` at
 * a point, `combine` for a combination, and then `add` for its gradient. */
export class Plain extends Layer {
  constructor(params, options) {
    super(params, options);
    // w: weights; a: slopes of the pre-activation; e: what the slope adds to the gradient, one for each coordinate
    for (const name of ["w", "w1", "a", "a1", "e", "e1"]) this[name] = new Float64Array(this.width);
    this.z = this.z1 = 0;
    this.refresh();
  }

  refresh() {
    const { params, width, inputs, scale } = this;
    this.outputWeights();
    [
      [this.w, this.a],
      [this.w1, this.a1],
    ].forEach(([w, a], j) => {
      for (let k = 0; k < width && j < inputs; k++) {
        w[k] = params[k * inputs + j] / Math.sqrt(inputs);
        a[k] = w[k] / scale[j];
      }
    });
  }

  activate(x, o) {
    const { params, width, inputs, y, w, w1, shift, scale, b0 } = this;
    const z = (this.z = (x[o] - shift[0]) / scale[0]);
    if (inputs === 1) for (let k = 0; k < width; k++) y[k] = w[k] * z + params[b0 + k];
    else {
      const z1 = (this.z1 = (x[o + 1] - shift[1]) / scale[1]);
      for (let k = 0; k < width; k++) y[k] = w[k] * z + w1[k] * z1 + params[b0 + k];
    }
    this.fill(y, this.s, this.s1, this.s2, this.s3);
  }

  /** The combination with the five coefficients that begin at C[o], of the network at the last point activated. */
  combine(C, o) {
    const { width, inputs, s, s1, s2, s3, h, g, v } = this;
    const { a, a1, e, e1 } = this;
    const C0 = C[o];
    const C1 = C[o + 1];
    const C2 = C[o + 2];
    const C3 = C[o + 3];
    const C4 = C[o + 4];
    let sum = 0;
    if (inputs === 1)
      for (let k = 0; k < width; k++) {
        const p = C3 * a[k];
        h[k] = C0 * s[k] + (C1 * s1[k] + p * s2[k]) * a[k];
        g[k] = C0 * s1[k] + (C1 * s2[k] + p * s3[k]) * a[k];
        e[k] = C1 * s1[k] + 2 * p * s2[k];
        sum += v[k] * h[k];
      }
    else
      for (let k = 0; k < width; k++) {
        const p1 = C1 * a[k] + C2 * a1[k];
        const q = C3 * a[k];
        const q1 = C4 * a1[k];
        const p2 = q * a[k] + q1 * a1[k];
        h[k] = C0 * s[k] + p1 * s1[k] + p2 * s2[k];
        g[k] = C0 * s1[k] + p1 * s2[k] + p2 * s3[k];
        e[k] = C1 * s1[k] + 2 * q * s2[k];
        e1[k] = C2 * s1[k] + 2 * q1 * s2[k];
        sum += v[k] * h[k];
      }
    this.bias = C0;
    return sum + C0 * this.params[this.b1];
  }

  /** The value alone, without derivatives. */
  value(x, o) {
    const { params, width, inputs, w, w1, v, shift, scale, b0 } = this;
    const z = (x[o] - shift[0]) / scale[0];
    const z1 = inputs === 2 ? (x[o + 1] - shift[1]) / scale[1] : 0;
    let sum = params[this.b1];
    if (this.activation === "tanh") for (let k = 0; k < width; k++) sum += v[k] * tanh(w[k] * z + w1[k] * z1 + params[b0 + k]);
    else for (let k = 0; k < width; k++) sum += v[k] * Math.sin(w[k] * z + w1[k] * z1 + params[b0 + k]);
    return sum;
  }

  /** `activate` and `combine` in one, which for two inputs and tanh takes two thirds of the time. */
  at(x, o, C, p) {
    if (this.inputs === 1 || this.activation !== "tanh") {
      this.activate(x, o);
      return this.combine(C, p);
    }
    const { params, width, w, w1, a, a1, h, g, e, e1, v, shift, scale, b0 } = this;
    const z = (this.z = (x[o] - shift[0]) / scale[0]);
    const z1 = (this.z1 = (x[o + 1] - shift[1]) / scale[1]);
    const C0 = C[p];
    const C1 = C[p + 1];
    const C2 = C[p + 2];
    const C3 = C[p + 3];
    const C4 = C[p + 4];
    let sum = 0;
    for (let k = 0; k < width; k++) {
      const t = tanh(w[k] * z + w1[k] * z1 + params[b0 + k]);
      const t1 = 1 - t * t;
      const t2 = -2 * t * t1;
      const q = C3 * a[k];
      const q1 = C4 * a1[k];
      const p1 = C1 * a[k] + C2 * a1[k];
      const p2 = q * a[k] + q1 * a1[k];
      const value = C0 * t + p1 * t1 + p2 * t2;
      h[k] = value;
      g[k] = C0 * t1 + p1 * t2 + p2 * t1 * (4 - 6 * t1);
      e[k] = C1 * t1 + 2 * q * t2;
      e1[k] = C2 * t1 + 2 * q1 * t2;
      sum += v[k] * value;
    }
    this.bias = C0;
    return sum + C0 * params[this.b1];
  }

  /** Adds c times the gradient of the last combination to the array `to`. */
  add(c, to) {
    const { width, inputs, h, g, v, e, e1, b0, W1, root, scale } = this;
    const unit = 1 / Math.sqrt(inputs);
    const z = this.z * unit;
    const z1 = this.z1 * unit;
    const f = unit / scale[0];
    const f1 = unit / scale[1];
    const d = c / root;
    if (inputs === 1)
      for (let k = 0; k < width; k++) {
        const cv = c * v[k];
        to[k] += cv * (g[k] * z + e[k] * f);
        to[b0 + k] += cv * g[k];
        to[W1 + k] += d * h[k];
      }
    else
      for (let k = 0; k < width; k++) {
        const cv = c * v[k];
        to[2 * k] += cv * (g[k] * z + e[k] * f);
        to[2 * k + 1] += cv * (g[k] * z1 + e1[k] * f1);
        to[b0 + k] += cv * g[k];
        to[W1 + k] += d * h[k];
      }
    to[this.b1] += c * this.bias;
  }
}

/** The network on the features cos(B z) and sin(B z); `frequencies` are the rows of B, one array. */
export class Fourier extends Layer {
  constructor(params, options) {
    super(params, { ...options, inputs: (2 * options.frequencies.length) / options.dim });
    const { dim, frequencies } = options;
    Object.assign(this, { dim, frequencies });
    const count = 1 + 2 * dim; // value, first and second derivatives
    this.order = dim === 1 ? [0, 1, 3] : [0, 1, 2, 3, 4]; // their places among the five channels
    this.phi = Array.from({ length: count }, () => new Float64Array(this.inputs));
    this.d = Array.from({ length: count }, () => new Float64Array(this.width)); // pre-activation and its derivatives
    this.e = Array.from({ length: count }, () => new Float64Array(this.width));
    this.refresh();
  }

  refresh() {
    this.outputWeights();
  }

  activate(x, o) {
    const { params, width, inputs, dim, frequencies, phi, d, y, shift, scale, b0 } = this;
    const half = inputs / 2;
    const unit = 1 / Math.sqrt(inputs);
    for (let m = 0; m < half; m++) {
      let angle = 0;
      for (let j = 0; j < dim; j++) angle += (frequencies[m * dim + j] * (x[o + j] - shift[j])) / scale[j];
      const [c, s] = [unit * Math.cos(angle), unit * Math.sin(angle)];
      [phi[0][m], phi[0][half + m]] = [c, s];
      for (let j = 0; j < dim; j++) {
        const b = frequencies[m * dim + j] / scale[j];
        [phi[1 + j][m], phi[1 + j][half + m]] = [-b * s, b * c];
        [phi[1 + dim + j][m], phi[1 + dim + j][half + m]] = [-b * b * c, -b * b * s];
      }
    }
    for (let i = 0; i < phi.length; i++)
      for (let k = 0; k < width; k++) {
        let sum = 0;
        for (let m = 0; m < inputs; m++) sum += params[k * inputs + m] * phi[i][m];
        d[i][k] = sum;
      }
    for (let k = 0; k < width; k++) y[k] = d[0][k] + params[b0 + k];
    this.fill(y, this.s, this.s1, this.s2, this.s3);
  }

  combine(C, o) {
    const { width, dim, s, s1, s2, s3, h, g, v, d, e } = this;
    for (let k = 0; k < width; k++) {
      h[k] = C[o] * s[k];
      g[k] = C[o] * s1[k];
    }
    for (let j = 0; j < dim; j++) {
      const [first, second] = [C[o + 1 + j], C[o + 3 + j]];
      const [dj, djj, ej, ejj] = [d[1 + j], d[1 + dim + j], e[1 + j], e[1 + dim + j]];
      for (let k = 0; k < width; k++) {
        const [p, pp] = [dj[k], djj[k]];
        h[k] += first * s1[k] * p + second * (s2[k] * p * p + s1[k] * pp);
        g[k] += first * s2[k] * p + second * (s3[k] * p * p + s2[k] * pp);
        ej[k] = first * s1[k] + 2 * second * s2[k] * p;
        ejj[k] = second * s1[k];
      }
    }
    e[0].set(g);
    let sum = 0;
    for (let k = 0; k < width; k++) sum += v[k] * h[k];
    this.bias = C[o];
    return sum + C[o] * this.params[this.b1];
  }

  add(c, to) {
    const { width, inputs, phi, h, g, v, e, b0, W1, root } = this;
    for (let i = 0; i < phi.length; i++)
      for (let k = 0; k < width; k++) {
        const f = c * v[k] * e[i][k];
        if (f !== 0) for (let m = 0; m < inputs; m++) to[k * inputs + m] += f * phi[i][m];
      }
    for (let k = 0; k < width; k++) {
      to[b0 + k] += c * v[k] * g[k];
      to[W1 + k] += (c / root) * h[k];
    }
    to[this.b1] += c * this.bias;
  }
}
