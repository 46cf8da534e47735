// What can be set, what it may be, and the presets. Anything else in an address is left out.

import { EQUATIONS } from "./problems.mjs";

export const WIDTHS = [5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500];
export const CHOICES = {
  activation: { tanh: "tanh", sin: "sin" },
  optimizer: { sgd: "gradient descent", adam: "Adam", kernel: "kernel descent" },
  scheme: { equal: "equal", fixed: "fixed", ntk: "Algorithm 1" },
  pace: { 10: "10 steps/s", 100: "100 steps/s", 1000: "1,000 steps/s", max: "full speed" },
};

const between = (low, high) => (v) => v >= low && v <= high;
const integers = (low, high) => (v) => Number.isInteger(v) && between(low, high)(v);
const flag = { start: 0, valid: (v) => v === 0 || v === 1 };

export const SETTINGS = {
  equation: { start: "poisson", valid: (v) => Object.hasOwn(EQUATIONS, v) },
  width: { start: 100, valid: integers(5, 500) },
  activation: { start: "tanh", valid: (v) => Object.hasOwn(CHOICES.activation, v) },
  scaled: { ...flag, start: 1 },
  hard: flag,
  fourier: { start: 0, valid: between(0, 20) },
  seed: { start: 0, valid: integers(0, 2 ** 32 - 1) },
  optimizer: { start: "sgd", valid: (v) => Object.hasOwn(CHOICES.optimizer, v) },
  rate: { start: 1e-5, valid: between(1e-6, 1) },
  scheme: { start: "equal", valid: (v) => Object.hasOwn(CHOICES.scheme, v) },
  fixed: { start: 100, valid: between(1, 1e5) },
  pace: { start: "max", valid: (v) => Object.hasOwn(CHOICES.pace, v) },
  until: { start: 40000, valid: integers(1, 1e7) }, // where a run pauses: the chapters' runs end there
};
for (const { coefficients } of Object.values(EQUATIONS))
  for (const [name, [start, from, to]] of Object.entries(coefficients)) SETTINGS[name] ??= { start, valid: between(from, to) };
SETTINGS.a.valid = SETTINGS.k.valid = integers(1, 8);

export const STARTS = Object.fromEntries(Object.entries(SETTINGS).map(([name, { start }]) => [name, start]));

/** Settings from pairs of name and text, over those that they would otherwise be. */
export function settingsFrom(entries, fallback = STARTS) {
  const found = { ...fallback };
  for (const [name, text] of entries) {
    if (!Object.hasOwn(SETTINGS, name)) continue;
    const value = typeof SETTINGS[name].start === "number" ? Number(text) : text;
    if (text !== "" && SETTINGS[name].valid(value)) found[name] = value;
  }
  return found;
}

/** The chapters' stories and a few more, as changes of the start. */
export const PRESETS = {
  "It works": { a: 1, rate: 1e-3 },
  "It fails": {},
  "It diverges": { rate: 1e-2 },
  "Algorithm 1": { scheme: "ntk" },
  "A slow seed": { scheme: "ntk", seed: 3 },
  "Kernel descent": { optimizer: "kernel", until: 200 },
  "Boundary layer": { equation: "layer", eps: 0.02, optimizer: "adam", rate: 1e-3 },
  "Wave": { equation: "wave", optimizer: "adam", rate: 1e-3, scheme: "ntk" },
  "Fast transport": { equation: "advection", c: 30, optimizer: "adam", rate: 1e-3 },
  "Shock": { equation: "burgers", nu: 0.01, optimizer: "kernel", until: 200 },
};
