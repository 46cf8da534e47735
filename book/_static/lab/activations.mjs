// The activations of a whole layer with their first three derivatives, to rounding error. V8's own tanh takes most of the
// time of a training step; a table and a short series around its entries are four times as fast.

const FINE = 32; // entries per unit of the table of tanh
const FLAT = 20; // beyond, tanh is 1 in double precision
const TANH = Float64Array.from({ length: 2 * FINE * FLAT + 1 }, (_, i) => Math.tanh(i / FINE - FLAT));

const COARSE = 1 / FINE;
const MIDDLE = FINE * FLAT + 0.5;
const [T3, T5, T7, T9] = [-1 / 3, 2 / 15, -17 / 315, 62 / 2835]; // its series; V8 would divide at each call

const LAST = 1023;
const TURN = 1024; // entries per turn of the table of the sine
const ARC = (2 * Math.PI) / TURN;
const ARC_HIGH = Math.fround(ARC); // a multiple of it is exact, so that the remainder loses no digits
const ARC_LOW = ARC - ARC_HIGH;
const ARCS = 1 / ARC;
const [S3, S5, C4, C6] = [-1 / 6, 1 / 120, 1 / 24, -1 / 720];
const SIN = Float64Array.from({ length: TURN }, (_, i) => Math.sin(i * ARC));

/** tanh(y), by the addition theorem from the nearest entry. */
export function tanh(y) {
  if (!(y > -FLAT && y < FLAT)) return Math.tanh(y);
  const i = (y * FINE + MIDDLE) | 0;
  const d = y - (i * COARSE - FLAT);
  const q = d * d;
  const t = d + d * q * (T3 + q * (T5 + q * (T7 + q * T9)));
  const near = TANH[i];
  return (near + t) / (1 + near * t);
}

/** Each of these fills s, s1, s2 and s3 with the activation of y and its first three derivatives. */
export const ACTIVATIONS = {
  tanh(y, s, s1, s2, s3) {
    for (let k = 0; k < y.length; k++) {
      const t = tanh(y[k]);
      const t1 = 1 - t * t;
      s[k] = t;
      s1[k] = t1;
      s2[k] = -2 * t * t1;
      s3[k] = t1 * (4 - 6 * t1);
    }
  },

  sin(y, s, s1, s2, s3) {
    for (let k = 0; k < y.length; k++) {
      const n = Math.floor(y[k] * ARCS + 0.5);
      const d = y[k] - n * ARC_HIGH - n * ARC_LOW;
      const q = d * d;
      const along = d + d * q * (S3 + q * S5);
      const across = 1 - q * (0.5 - q * (C4 + q * C6));
      const near = SIN[n & LAST];
      const next = SIN[(n + TURN / 4) & LAST];
      s[k] = near * across + next * along;
      s1[k] = next * across - near * along;
      s2[k] = -s[k];
      s3[k] = -s1[k];
    }
  },
};
