// The lab's worker: trains in slices, so that messages get through, and reports ten times a second.

import { Session } from "./session.mjs";

const SLICE = 20; // milliseconds
const REPORT_EVERY = 100;
const SPECTRUM_EVERY = 500;

let session = null;
let first = null; // the spectrum before training
let running = false;
let waiting = false; // whether the next slice is on its way
let pace = Infinity; // steps a second
let began = { time: 0, step: 0 };
let reported = 0;
let measured = 0;
let calm = null; // the largest stable learning rate where the loss was least, of those measured

// A message to oneself gives the others their turn; a timer would wait for four milliseconds each time.
const again = new MessageChannel();
again.port1.onmessage = slice;

function slice() {
  waiting = false;
  if (!running) return;
  const until = performance.now() + SLICE;
  while (performance.now() < until && !session.diverged && session.step < allowed()) session.advance(1);
  const now = performance.now();
  if (session.diverged) running = false;
  if (!running || now - reported >= REPORT_EVERY) report(!running || now - measured >= SPECTRUM_EVERY);
  if (!running) return;
  waiting = true;
  if (session.step < allowed()) again.port2.postMessage(null);
  else setTimeout(slice, SLICE);
}

function allowed() {
  return pace === Infinity ? Infinity : began.step + (pace * (performance.now() - began.time)) / 1000;
}

function report(withSpectrum) {
  reported = performance.now();
  const { step, losses, weights, history, diverged } = session;
  const solution = session.solution();
  const message = { step, losses, weights, history, diverged, running, solution, error: session.error(solution) };
  if (withSpectrum && !diverged) {
    measured = reported;
    message.spectrum = session.spectrum();
    message.first = first ??= message.spectrum;
    const { u, r } = session.lossesNow();
    if (!calm || u + r < calm.loss) calm = { loss: u + r, bound: message.spectrum.bound };
  }
  // Of a run that has diverged, the calm one tells why; the kernel of parameters that blow up would not.
  message.bound = diverged ? calm.bound : message.spectrum?.bound;
  postMessage(message);
}

const commands = {
  reset({ settings }) {
    running = false;
    session = new Session(settings);
    first = calm = null;
    report(true);
  },
  change({ settings, reweighted }) {
    session.change(settings);
    if (reweighted && !session.diverged) calm = null; // the bound depends on the weights, not on the rate
    if (reweighted || !running) report(true);
  },
  start() {
    if (running || session.diverged) return;
    running = true;
    began = { time: performance.now(), step: session.step };
    if (!waiting) slice();
  },
  pause() {
    running = false;
    report(true);
  },
  one() {
    running = false;
    session.advance(1);
    report(true);
  },
  pace({ steps }) {
    pace = steps;
    if (running) began = { time: performance.now(), step: session.step };
  },
};

onmessage = ({ data }) => commands[data.command](data);
