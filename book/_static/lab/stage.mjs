// The theatre's view: a card for each mode, with its curve and two bars.

import { colorOf, integer, isDark, NAMES, number, paint } from "./figures.mjs";

const CARDS = 12;
const DECADES = 4; // that the bars show
const PIXELS = 24; // of a mode over a rectangle, each way

/** Where a share of the largest mode ends on a bar, from 0 to 1. */
const onBar = (share) => Math.max(0, Math.min(1, 1 + Math.log10(Math.max(share, 1e-300)) / DECADES));

export class Stage {
  /** problem: of the settings; excite(id): called when a mode is clicked. */
  constructor(parent, excite) {
    this.element = document.createElement("div");
    this.element.className = "pn-lab-stage";
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", "Modes, fastest to slowest. Press one to excite it.");
    parent.append(this.element);
    this.cards = Array.from({ length: CARDS }, () => {
      const card = document.createElement("button");
      card.type = "button";
      card.innerHTML =
        '<svg viewBox="0 0 100 44" preserveAspectRatio="none" aria-hidden="true"><line class="zero" x1="0" x2="100" y1="22" y2="22"/>' +
        '<path class="straight"/><path class="curve"/><g></g></svg><canvas hidden></canvas>' +
        '<span class="bars" aria-hidden="true"><i class="left"></i><i class="theory"></i></span><small aria-hidden="true"></small>';
      card.onclick = () => card.dataset.id !== undefined && excite(Number(card.dataset.id));
      this.element.append(card);
      return card;
    });
  }

  /** A new run: the conditions and points of its problem. */
  begin(problem) {
    this.problem = problem;
    this.offsets = [];
    let start = 0;
    for (const { n } of problem.conditions) {
      this.offsets.push(start);
      start += n;
    }
    const r = problem.conditions.at(-1);
    if (problem.dim === 2) this.nearest = nearestPoints(r.rows, problem);
    this.order = problem.dim === 1 ? r.rows.map(([x]) => (100 * (x - problem.lower[0])) / (problem.upper[0] - problem.lower[0])) : null;
    this.frame = null;
    for (const card of this.cards) {
      card.disabled = true;
      card.style.visibility = "hidden";
      card.querySelector("svg").toggleAttribute("hidden", problem.dim === 2);
      card.querySelector("canvas").hidden = problem.dim === 1;
    }
  }

  show(frame, optimizer, rate) {
    this.frame = frame;
    this.cards.forEach((card, i) => {
      const mode = frame.modes[i];
      card.disabled = !mode;
      card.style.visibility = mode ? "" : "hidden";
      if (mode) this.card(card, mode, frame, optimizer, rate);
    });
  }

  card(card, mode, frame, optimizer, rate) {
    const { conditions, dim } = this.problem;
    const owner = mode.shares.indexOf(Math.max(...mode.shares));
    const { name } = conditions[owner];
    card.dataset.id = mode.id;
    card.style.setProperty("--color", colorOf(name));
    const [left, theory] = card.querySelectorAll("i");
    left.style.transform = `scaleX(${onBar(mode.left / frame.largest)})`;
    theory.style.transform = `scaleX(${onBar(mode.expected / frame.largest)})`;
    theory.hidden = !Number.isFinite(mode.expected);
    if (dim === 1) this.curve(card, mode.vector);
    else this.field(card, mode.vector, owner);
    const constant = brief(1 / (rate * mode.rate));
    const [pace, spoken] = optimizer === "sgd" ? [`τ ${constant}`, `time constant ${constant} steps`] : [`κ ${number(mode.rate, 2)}`, `rate ${number(mode.rate, 2)}`];
    card.querySelector("small").innerHTML = `${mode.rank} <b>${NAMES[name]}</b> <span>${pace}</span>`;
    const share = (value) => `${number((100 * value) / frame.largest, 2)} %`;
    const theoryText = Number.isFinite(mode.expected) ? `, theory ${share(mode.expected)}` : "";
    card.setAttribute("aria-label", `Mode ${mode.rank}, ${NAMES[name]}, ${spoken}: left ${share(mode.left)}${theoryText}. Excite.`);
  }

  curve(card, vector) {
    const largest = vector.reduce((top, v) => Math.max(top, Math.abs(v)), 0);
    const y = (v) => (22 - (19 * v) / largest).toFixed(1);
    const start = this.offsets.at(-1);
    const curve = this.order.map((x, k) => `${k ? "L" : "M"}${x.toFixed(1)} ${y(vector[start + k])}`).join("");
    card.querySelector(".curve").setAttribute("d", curve);
    const ends = start === 2 ? [y(vector[0]), y(vector[1])] : [];
    card.querySelector(".straight").setAttribute("d", ends.length ? `M1.5 ${ends[0]}L98.5 ${ends[1]}` : "");
    card.querySelector("g").innerHTML = ends.map((at, k) => `<ellipse cx="${k ? 97.5 : 2.5}" cy="${at}" rx="2.4" ry="1.6"/>`).join("");
  }

  /** The residual's part of the mode, and around it that of the other conditions that are on the border. */
  field(card, vector, owner) {
    const largest = vector.reduce((top, v) => Math.max(top, Math.abs(v)), 0);
    const start = this.offsets.at(-1);
    const values = Float64Array.from(this.nearest, (i) => vector[start + i]);
    const { lower, upper, conditions } = this.problem;
    const border = conditions[owner === conditions.length - 1 ? 0 : owner];
    const from = this.offsets[conditions.indexOf(border)];
    if (border !== conditions.at(-1))
      border.rows.forEach((row, k) => {
        const [i, j] = row.map((v, axis) => Math.round(((PIXELS - 1) * (v - lower[axis])) / (upper[axis] - lower[axis])));
        for (const d of [0, 1]) {
          const [p, q] = [i + (i === 0 ? d : 0) - (i === PIXELS - 1 ? d : 0), j + (j === 0 ? d : 0) - (j === PIXELS - 1 ? d : 0)];
          values[p * PIXELS + q] = vector[from + k];
        }
      });
    paint(card.querySelector("canvas"), values, largest);
  }
}

/** The index of the point nearest to each pixel. */
function nearestPoints(rows, { lower, upper }) {
  const place = (row) => row.map((v, axis) => (v - lower[axis]) / (upper[axis] - lower[axis]));
  const places = rows.map(place);
  return Array.from({ length: PIXELS ** 2 }, (_, k) => {
    const [x, y] = [(Math.floor(k / PIXELS) + 0.5) / PIXELS, ((k % PIXELS) + 0.5) / PIXELS];
    let [best, least] = [0, Infinity];
    places.forEach(([p, q], i) => {
      const distance = (p - x) ** 2 + (q - y) ** 2;
      if (distance < least) [best, least] = [i, distance];
    });
    return best;
  });
}

function brief(steps) {
  if (steps < 1) return "< 1";
  if (steps < 1e4) return integer(Number(steps.toPrecision(2)));
  return steps < 1e9 ? `${number(steps / (steps < 1e6 ? 1e3 : 1e6), 2)}${steps < 1e6 ? " k" : " M"}` : "∞";
}
