// The lab's two workers. One trains, in slices, so that messages get through, and reports a dozen times a second; the other
// computes the modes of the parameters that it is sent.

import { Session } from "./session.mjs";
import { Theatre } from "./theatre.mjs";

const SLICE = 15; // milliseconds
const REPORT_EVERY = 80;

let session = null;
let run = 0; // counts the runs, so that nobody takes one's report for another's
let running = false;
let waiting = false; // whether the next slice is on its way
let pace = Infinity; // steps a second
let until = Infinity; // the step to pause at
let began = { time: 0, step: 0 };
let reported = 0;
let bases = 0;
let theatre = null;

// A message to oneself gives the others their turn; a timer would wait for four milliseconds each time.
const again = new MessageChannel();
again.port1.onmessage = slice;

function slice() {
  waiting = false;
  if (!running) return;
  const end = performance.now() + SLICE;
  while (performance.now() < end && !session.diverged && session.step < Math.min(allowed(), until)) session.advance(1);
  if (session.diverged || session.step >= until) running = false;
  if (!running || performance.now() - reported >= REPORT_EVERY) report();
  if (!running) return;
  waiting = true;
  if (session.step < allowed()) again.port2.postMessage(null);
  else setTimeout(slice, SLICE);
}

function allowed() {
  return pace === Infinity ? Infinity : began.step + (pace * (performance.now() - began.time)) / 1000;
}

function report() {
  reported = performance.now();
  const { step, names, weights, history, diverged, params, base, model, optimizer, rate } = session;
  base.id ??= ++bases;
  const solution = model.solution();
  const losses = diverged ? session.losses : model.losses();
  const state = { step, params: params.slice(), weights, optimizer, rate, base };
  const ended = step >= until;
  postMessage({ run, step, names, losses, weights, history, diverged, running, ended, solution, error: model.error(solution), state });
}

const commands = {
  reset(data) {
    running = false;
    run = data.run;
    until = Infinity;
    session = new Session(data.settings, data.params, data.step);
    report();
  },
  change({ settings }) {
    if (session.diverged) return;
    session.change(settings);
    report();
  },
  start(data) {
    if (running || session.diverged) return;
    running = true;
    until = data.until > session.step ? data.until : Infinity;
    began = { time: performance.now(), step: session.step };
    if (!waiting) slice();
  },
  pause() {
    running = false;
    report();
  },
  one() {
    running = false;
    session.advance(1);
    report();
  },
  pace({ steps }) {
    pace = steps;
    if (running) began = { time: performance.now(), step: session.step };
  },
  excite({ step }) {
    if (session.diverged || step.length !== session.params.length) return;
    session.excite(step);
    report();
  },

  // those of the other worker
  stage({ settings }) {
    theatre = new Theatre(settings);
  },
  frame({ run, state, withSpectra }) {
    postMessage({ run, frame: theatre.frame(state, withSpectra) });
  },
  excitation({ run, id }) {
    postMessage({ run, step: theatre.excitation(id) });
  },
};

onmessage = ({ data }) => commands[data.command](data);
