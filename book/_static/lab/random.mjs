// The random numbers of JAX, so that a seed is the same network here and in the book: Threefry-2x32 (Salmon et al.
// 2011) in counter mode, one call a number, and the inverse error function by Giles' polynomials (2010), as XLA has it.

const ROTATIONS = [
  [13, 15, 26, 6],
  [17, 29, 16, 24],
];

/** Threefry-2x32 with 20 rounds: two 32-bit words of a key and two of a counter to two of output. */
export function threefry([k0, k1], [c0, c1]) {
  const keys = [k0, k1, k0 ^ k1 ^ 0x1bd11bda];
  let x0 = (c0 + keys[0]) | 0;
  let x1 = (c1 + keys[1]) | 0;
  for (let group = 0; group < 5; group++) {
    for (const bits of ROTATIONS[group % 2]) {
      x0 = (x0 + x1) | 0;
      x1 = ((x1 << bits) | (x1 >>> (32 - bits))) ^ x0;
    }
    x0 = (x0 + keys[(group + 1) % 3]) | 0;
    x1 = (x1 + keys[(group + 2) % 3] + group + 1) | 0;
  }
  return [x0 >>> 0, x1 >>> 0];
}

/** `jax.random.split(key, count)`. */
export function split(key, count) {
  return Array.from({ length: count }, (_, i) => threefry(key, [0, i]));
}

/** `jax.random.normal(key, (count,))` in float64. */
export function normal(key, count) {
  return Float64Array.from({ length: count }, (_, i) => {
    const [high, low] = threefry(key, [0, i]);
    const unit = (high * 2 ** 20 + (low >>> 12)) * 2 ** -52; // 52 random bits
    return Math.SQRT2 * inverseErf(2 * unit + (-1 + 2 ** -53));
  });
}

/** Initial parameters as `MLP(width, dim=inputs).init(jax.random.key(seed))` draws them: W0, b0, W1, b1 in one array. */
export function init(width, seed, inputs = 1) {
  const counts = [inputs * width, width, width, 1];
  const params = new Float64Array((inputs + 2) * width + 1);
  let start = 0;
  split([0, seed], 4).forEach((key, i) => {
    params.set(normal(key, counts[i]), start);
    start += counts[i];
  });
  return params;
}

/** The matrix B of Fourier features, `bandwidth * normal(fold_in(key(seed), 99), (count, dim))`, its rows one array. */
export function frequencies(seed, count, dim, bandwidth) {
  return normal(threefry([0, seed], [0, 99]), count * dim).map((value) => bandwidth * value);
}

function inverseErf(x) {
  const w = -Math.log1p(-x * x);
  if (w < 6.25) return x * polynomial(CENTRE, w - 3.125);
  if (w < 16) return x * polynomial(TAIL, Math.sqrt(w) - 3.25);
  return x * polynomial(FAR, Math.sqrt(w) - 5);
}

function polynomial(coefficients, x) {
  return coefficients.reduce((sum, coefficient) => sum * x + coefficient, 0);
}

// prettier-ignore
const CENTRE = [
  -3.6444120640178196996e-21, -1.685059138182016589e-19, 1.2858480715256400167e-18, 1.115787767802518096e-17,
  -1.333171662854620906e-16, 2.0972767875968561637e-17, 6.6376381343583238325e-15, -4.0545662729752068639e-14,
  -8.1519341976054721522e-14, 2.6335093153082322977e-12, -1.2975133253453532498e-11, -5.4154120542946279317e-11,
  1.051212273321532285e-9, -4.1126339803469836976e-9, -2.9070369957882005086e-8, 4.2347877827932403518e-7,
  -1.3654692000834678645e-6, -1.3882523362786468719e-5, 0.0001867342080340571352, -0.00074070253416626697512,
  -0.0060336708714301490533, 0.24015818242558961693, 1.6536545626831027356,
];
// prettier-ignore
const TAIL = [
  2.2137376921775787049e-9, 9.0756561938885390979e-8, -2.7517406297064545428e-7, 1.8239629214389227755e-8,
  1.5027403968909827627e-6, -4.013867526981545969e-6, 2.9234449089955446044e-6, 1.2475304481671778723e-5,
  -4.7318229009055733981e-5, 6.8284851459573175448e-5, 2.4031110387097893999e-5, -0.0003550375203628474796,
  0.00095328937973738049703, -0.0016882755560235047313, 0.0024914420961078508066, -0.0037512085075692412107,
  0.005370914553590063617, 1.0052589676941592334, 3.0838856104922207635,
];
// prettier-ignore
const FAR = [
  -2.7109920616438573243e-11, -2.5556418169965252055e-10, 1.5076572693500548083e-9, -3.7894654401267369937e-9,
  7.6157012080783393804e-9, -1.4960026627149240478e-8, 2.9147953450901080826e-8, -6.7711997758452339498e-8,
  2.2900482228026654717e-7, -9.9298272942317002539e-7, 4.5260625972231537039e-6, -1.9681778105531670567e-5,
  7.5995277030017761139e-5, -0.00021503011930044477347, -0.00013871931833623122026, 1.0103004648645343977,
  4.8499064014085844221,
];
