// The equations: where their conditions hold, with which coefficients, and the solution. They are the problems of the
// library with the same names, with its points; time, if there is any, is the first coordinate.
//
// A condition is {n, sites, x, C, f}: n residuals; x, the coordinates of the points that each of them takes the network
// at (one, or two for a jump); C, five coefficients a point (of u, u_0, u_1, u_00, u_11); f, the targets. A product of
// two combinations of u is {A, a, B, b}: coefficients and constants of its factors.

const { PI, sin, cos, exp } = Math;
const CHANNELS = 5;
const IN_LINE = 100; // residual points of equations in one dimension
const IN_PLANE = 300; // and in two

// What is held by construction under a hard boundary: u = g + p(x_0) q(x_1) N, with p and q as coefficients of a
// polynomial of degree two, and g a function of the last coordinate, which returns its value and two derivatives.
const zero = () => [0, 0, 0];
const ends = { drop: ["u"], p: [0, 1, -1], q: [1, 0, 0], lift: zero };
const wave = (k, size = 1) => (x) => [size * sin(k * x), size * k * cos(k * x), -size * k * k * sin(k * x)];
const sum = (f, g) => (x) => f(x).map((v, i) => v + g(x)[i]);

/** {name: {label, formula, dim, coordinates, lower, upper, rate: of gradient descent,
 * coefficients: {name: [start, from, to, step, label]},
 * build}}; `build` takes the coefficients and returns exact, conditions and what a hard boundary is. */
export const EQUATIONS = {
  poisson: {
    label: "Poisson",
    formula: "u″ = f",
    rate: 1e-5,
    dim: 1,
    coefficients: { a: [4, 1, 8, 1, "half-waves a"] },
    build({ a }) {
      const exact = (x) => sin(a * PI * x);
      return {
        exact,
        conditions: { u: [bothEnds, [1], exact], r: [line, [0, 0, 0, 1], (x) => -((a * PI) ** 2) * exact(x)] },
        hard: ends,
      };
    },
  },
  layer: {
    label: "Boundary layer",
    formula: "ε u″ + u′ = 1",
    rate: 1e-2,
    dim: 1,
    coefficients: { eps: [0.05, 0.01, 1, 0.01, "ε"] },
    build({ eps }) {
      return {
        exact: (x) => x - (1 - exp(-x / eps)) / (1 - exp(-1 / eps)),
        conditions: { u: [bothEnds, [1], () => 0], r: [line, [0, 1, 0, eps], () => 1] },
        hard: ends,
      };
    },
  },
  own: {
    label: "Your own",
    formula: "p u″ + q u′ + s u = f",
    rate: 1e-5,
    dim: 1,
    coefficients: {
      a: [4, 1, 8, 1, "half-waves a"],
      p: [1, -2, 2, 0.1, "p"],
      q: [0, -20, 20, 1, "q"],
      s: [0, -200, 200, 10, "s"],
    },
    build({ a, p, q, s }) {
      const w = a * PI;
      return {
        exact: (x) => sin(w * x),
        conditions: {
          u: [bothEnds, [1], () => 0],
          r: [line, [s, q, 0, p], (x) => (s - p * w * w) * sin(w * x) + q * w * cos(w * x)],
        },
        hard: ends,
      };
    },
  },
  heat: {
    label: "Heat",
    formula: "uₜ = D uₓₓ",
    rate: 1e-2,
    dim: 2,
    coordinates: ["t", "x"],
    coefficients: { D: [0.1, 0.01, 1, 0.01, "diffusivity D"], k: [1, 1, 6, 1, "half-waves k"] },
    build({ D, k }) {
      const exact = (t, x) => exp(-D * (k * PI) ** 2 * t) * sin(k * PI * x);
      return {
        exact,
        conditions: { u: [startAndEnds(90), [1], exact], r: [inside, [0, 1, 0, 0, -D], () => 0] },
        hard: { drop: ["u"], p: [0, 1, 0], q: [0, 1, -1], lift: wave(k * PI) },
      };
    },
  },
  advection: {
    label: "Advection",
    formula: "uₜ + c uₓ = 0",
    rate: 1e-3,
    dim: 2,
    coordinates: ["t", "x"],
    upper: [1, 2 * PI],
    coefficients: { c: [10, 1, 40, 1, "speed c"] },
    build({ c }) {
      const exact = (t, x) => sin(x - c * t);
      return {
        exact,
        conditions: {
          u: [side(30, 0, 0), [1], exact],
          b: [side(30, 1, 0), [1], () => 0, { across: 2 * PI }],
          r: [inside, [0, 1, c], () => 0],
        },
        hard: { drop: ["u"], p: [0, 1, 0], q: [1, 0, 0], lift: wave(1) },
      };
    },
  },
  wave: {
    label: "Wave",
    formula: "uₜₜ = 4 uₓₓ",
    rate: 1e-4,
    dim: 2,
    coordinates: ["t", "x"],
    coefficients: {},
    build() {
      const exact = (t, x) => sin(PI * x) * cos(2 * PI * t) + 0.5 * sin(4 * PI * x) * cos(8 * PI * t);
      return {
        exact,
        conditions: {
          u: [startAndEnds(90), [1], exact],
          ut: [side(30, 0, 0), [0, 1], () => 0],
          r: [inside, [0, 0, 0, 1, -4], () => 0],
        },
        hard: { drop: ["u", "ut"], p: [0, 0, 1], q: [0, 1, -1], lift: sum(wave(PI), wave(4 * PI, 0.5)) },
      };
    },
  },
  helmholtz: {
    label: "Helmholtz",
    formula: "Δu + u = q",
    rate: 1e-4,
    dim: 2,
    coordinates: ["x", "y"],
    lower: [-1, -1],
    coefficients: { a: [4, 1, 8, 1, "half-waves a"] },
    build({ a }) {
      const exact = (x, y) => sin(PI * x) * sin(a * PI * y);
      const sides = [side(20, 0, -1), side(20, 0, 1), side(20, 1, -1), side(20, 1, 1)];
      return {
        exact,
        conditions: {
          u: [together(...sides), [1], exact],
          r: [inside, [1, 0, 0, 1, 1], (x, y) => (1 - PI * PI * (1 + a * a)) * exact(x, y)],
        },
        hard: { drop: ["u"], p: [1, 0, -1], q: [1, 0, -1], lift: zero },
      };
    },
  },
  burgers: {
    label: "Burgers",
    formula: "uₜ + u uₓ = ν uₓₓ",
    rate: 1e-2,
    dim: 2,
    coordinates: ["t", "x"],
    lower: [0, -1],
    coefficients: { nu: [0.05, 0.01, 0.5, 0.01, "viscosity ν"] },
    build({ nu }) {
      const exact = coleHopf(nu);
      return {
        exact,
        conditions: {
          u: [startAndEnds(90), [1], exact],
          r: [inside, [0, 1, 0, 0, -nu], () => 0, { product: [[1], [0, 0, 1]] }],
        },
        hard: { drop: ["u"], p: [0, 1, 0], q: [1, 0, -1], lift: wave(PI, -1) },
      };
    },
  },
};

/** Burgers' solution from -sin(pi x): integrals against exp(-z^2), by the trapezoidal rule, which converges
 * exponentially for them. */
function coleHopf(nu) {
  const nodes = Array.from({ length: 601 }, (_, i) => (i - 300) / 25);
  return (t, x) => {
    const spread = Math.sqrt(4 * nu * t);
    const heights = nodes.map((z) => -z * z - cos(PI * (x - spread * z)) / (2 * PI * nu));
    const top = Math.max(...heights);
    let [above, below] = [0, 0];
    nodes.forEach((z, i) => {
      const weight = exp(heights[i] - top);
      above += weight * sin(PI * (x - spread * z));
      below += weight;
    });
    return -above / below;
  };
}

// ---------------------------------------------------------------- points: functions of the box that return rows

const spaced = (n, from, to) => Array.from({ length: n }, (_, i) => from + ((to - from) * i) / (n - 1));
const bothEnds = ({ lower, upper }) => [[lower[0]], [upper[0]]];
const line = ({ lower, upper }) => spaced(IN_LINE, lower[0], upper[0]).map((x) => [x]);
const side = (n, axis, at) => ({ lower, upper }) =>
  spaced(n, lower[1 - axis], upper[1 - axis]).map((v) => (axis === 0 ? [at, v] : [v, at]));
const together = (...samplers) => (box) => samplers.flatMap((sampler) => sampler(box));
const startAndEnds = (n) => (box) =>
  together(side(n / 3, 0, box.lower[0]), side(n / 3, 1, box.lower[1]), side(n / 3, 1, box.upper[1]))(box);
const inside = ({ lower, upper }) =>
  Array.from({ length: IN_PLANE }, (_, i) => {
    const unit = [(i + 0.5) / IN_PLANE, (0.5 + (i * (Math.sqrt(5) - 1)) / 2) % 1];
    return unit.map((v, j) => lower[j] + (upper[j] - lower[j]) * v);
  });

// ---------------------------------------------------------------- a problem with its settings

/** The problem of settings {equation, hard, and the equation's coefficients}. */
export function problem(settings) {
  const { dim, lower = [0, 0], upper = [1, 1], build } = EQUATIONS[settings.equation];
  const box = { lower: lower.slice(0, dim), upper: upper.slice(0, dim) };
  const { exact, conditions, hard } = build(settings);
  const held = settings.hard ? hard : { drop: [], p: [1, 0, 0], q: [1, 0, 0], lift: zero };
  const names = Object.keys(conditions).filter((name) => !held.drop.includes(name));
  const r = conditions.r[0](box);
  const mean = box.lower.map((_, j) => r.reduce((total, x) => total + x[j], 0) / r.length);
  const deviation = mean.map((m, j) => Math.sqrt(r.reduce((total, x) => total + (x[j] - m) ** 2, 0) / r.length));
  return {
    dim,
    ...box,
    exact,
    names,
    mean,
    deviation,
    conditions: names.map((name) => condition(name, conditions[name], box, held)),
    lift: (x) => held.lift(x[dim - 1])[0],
    distance: (x) => distance(held, x)[0],
  };
}

function condition(name, [sampler, coefficients, target, { across, product } = {}], box, held) {
  const rows = sampler(box);
  const other = (row) => [row[0], row[1] + across];
  const points = across ? rows.flatMap((row) => [row, other(row)]) : rows;
  const sites = points.length / rows.length;
  const sign = (i) => (i % sites ? -1 : 1);
  /** Coefficients on the network, and the constants that the rest of u adds. */
  const on = (C) => {
    const full = Array.from({ length: CHANNELS }, (_, i) => C[i] ?? 0);
    const pairs = points.map((x) => through(held, x, full));
    const constants = new Float64Array(rows.length);
    pairs.forEach(([, constant], i) => (constants[Math.floor(i / sites)] += sign(i) * constant));
    return [Float64Array.from(pairs.flatMap(([found], i) => found.map((c) => sign(i) * c))), constants];
  };
  const [C, constants] = on(coefficients);
  const targets = rows.map((row) => target(...row));
  const [[A, a], [B, b]] = product ? product.map(on) : [[], []];
  return {
    name,
    n: rows.length,
    sites,
    rows,
    x: Float64Array.from(points.flat()),
    C,
    f: Float64Array.from(targets, (value, i) => value - constants[i]),
    size: targets.reduce((total, value) => total + value ** 2, 0) / rows.length,
    product: product && { A, a, B, b },
  };
}

/** p(x_0) q(x_1) with its derivatives: five numbers, as the coefficients' order has them. */
function distance({ p, q }, x) {
  const along = (c, at) => [c[0] + at * (c[1] + at * c[2]), c[1] + 2 * c[2] * at, 2 * c[2]];
  const [P, Q] = [along(p, x[0]), along(q, x[1] ?? 0)];
  return [P[0] * Q[0], P[1] * Q[0], P[0] * Q[1], P[2] * Q[0], P[0] * Q[2]];
}

/** What a combination C of u = g + d N is as a combination of N, by the product rule, and the constant part. */
function through(held, x, C) {
  const d = distance(held, x);
  const [g, g1, g2] = held.lift(x.at(-1));
  const on = C.map((c) => c * d[0]);
  for (let i = 1; i < CHANNELS; i++) on[0] += C[i] * d[i];
  on[1] += 2 * C[3] * d[1];
  on[2] += 2 * C[4] * d[2];
  const constant = x.length === 1 ? C[0] * g + C[1] * g1 + C[3] * g2 : C[0] * g + C[2] * g1 + C[4] * g2;
  return [on, constant];
}
