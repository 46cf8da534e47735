// The lab's markup and its form: settings to form and back.

import { EQUATIONS } from "./problems.mjs";
import { CHOICES, PRESETS, SETTINGS, WIDTHS } from "./settings.mjs";
import { number } from "./figures.mjs";

const select = (name, label) => `<label>${label} <select name="${name}"></select></label>`;
const range = (name, label, from, to, step, more = "") =>
  `<label>${label} <b aria-hidden="true"></b><input type="range" name="${name}" min="${from}" max="${to}" step="${step}">${more}</label>`;
const check = (name, label) => `<label class="pn-lab-check"><input type="checkbox" name="${name}"> ${label}</label>`;

export const MARKUP = `
  <form class="pn-lab-page" aria-label="Settings of the lab">
    <div class="pn-lab-stories" role="group" aria-label="Presets"></div>
    <div class="pn-lab-bar">
      <span role="group" aria-label="Training">
        <button type="button" name="start">Start</button>
        <button type="button" name="one">One step</button>
        <button type="button" name="reset">Reset</button>
      </span>
      <dl></dl>
      <span role="group" aria-label="Share">
        <button type="button" name="copy">Copy as Python</button>
        <button type="button" name="teach" aria-pressed="false" title="Pictures alone, on the whole screen">Teach</button>
      </span>
    </div>
    <p role="status"></p>
    <div class="pn-lab-tabs" role="group" aria-label="Part shown"></div>
    <div class="pn-lab-controls" data-part="settings">
      ${select("equation", "equation")}
      <div class="pn-lab-coefficients"></div>
      ${select("optimizer", "optimiser")}
      ${range("rate", "learning rate", -6, 0, 0.1, '<span class="pn-lab-bound"></span>')}
      <div class="pn-lab-pair">${select("scheme", "weights")}${select("pace", "speed")}</div>
      ${range("fixed", "weight of the other losses", 0, 5, 0.1)}
      ${range("width", "width", 0, WIDTHS.length - 1, 1)}
      <div class="pn-lab-pair">${select("activation", "activation")}
      <label>seed <input type="number" name="seed" min="0" max="4294967295" step="1" required></label></div>
      <div class="pn-lab-checks">${check("scaled", "scaled inputs")}${check("hard", "hard boundary")}</div>
      ${range("fourier", "Fourier bandwidth", 0, 10, 0.5)}
    </div>
    <div class="pn-lab-plot" data-part="solution"></div>
    <div class="pn-lab-plot" data-part="losses"></div>
    <div class="pn-lab-plot pn-lab-views" data-part="modes">
      <div class="pn-lab-viewbar"><span role="group" aria-label="Picture of the kernel">
        <button type="button" data-view="modes" aria-pressed="true">Modes</button>
        <button type="button" data-view="eigenvalues" aria-pressed="false">Eigenvalues</button>
        <button type="button" data-view="weights" aria-pressed="false">Weights</button></span>
        <span class="pn-lab-legend"><i class="left"></i> left in the residual <i class="theory"></i> <span>theory</span></span></div>
    </div>
  </form>`;

const tenTo = (position) => Number((10 ** Number(position)).toPrecision(2));
const READERS = { width: (i) => WIDTHS[i], rate: tenTo, fixed: tenTo };

export class Form {
  /** heard(name): called after a setting has changed; chosen(changes): after a preset. */
  constructor(element, heard, chosen) {
    this.element = element;
    for (const [name, options] of Object.entries({ ...CHOICES, equation: labels() }))
      for (const [value, label] of Object.entries(options)) this.field(name).add(new Option(label, value));
    for (const [label, changes] of Object.entries(PRESETS)) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
      button.onclick = () => chosen(changes);
      element.querySelector(".pn-lab-stories").append(button);
    }
    element.onsubmit = (event) => event.preventDefault();
    element.oninput = ({ target }) => target.name && heard(target.name);
  }

  field(name) {
    return this.element.elements[name];
  }

  /** Settings to form. */
  write(settings) {
    const { equation, optimizer, scheme } = settings;
    this.coefficients(equation);
    const nearest = WIDTHS.reduce((best, w, i) => (Math.abs(w - settings.width) < Math.abs(WIDTHS[best] - settings.width) ? i : best), 0);
    const shown = {
      width: [nearest, `${settings.width}`],
      rate: [Math.log10(settings.rate), settings.rate.toExponential(1)],
      fixed: [Math.log10(settings.fixed), number(settings.fixed)],
      fourier: [settings.fourier, settings.fourier ? number(settings.fourier) : "off"],
    };
    for (const name of Object.keys(EQUATIONS[equation].coefficients)) shown[name] = [settings[name], number(settings[name])];
    for (const [name, [position, text]] of Object.entries(shown)) {
      const input = this.field(name);
      input.value = position;
      input.setAttribute("aria-valuetext", text);
      input.closest("label").querySelector("b").textContent = text;
    }
    for (const name of ["equation", "optimizer", "scheme", "pace", "activation", "seed"]) this.field(name).value = settings[name];
    for (const name of ["scaled", "hard"]) this.field(name).checked = settings[name] === 1;
    this.field("fixed").closest("label").hidden = scheme !== "fixed";
    this.field("rate").closest("label").hidden = optimizer === "kernel";
  }

  /** The sliders of the equation's own numbers. */
  coefficients(equation) {
    if (this.equation === equation) return;
    this.equation = equation;
    this.element.querySelector(".pn-lab-coefficients").innerHTML = Object.entries(EQUATIONS[equation].coefficients)
      .map(([name, [, from, to, step, label]]) => range(name, label, from, to, step))
      .join("");
  }

  /** The value of a setting in the form; undefined if it is none that is valid. */
  read(name) {
    const { type, value, checked } = this.field(name);
    const read = type === "checkbox" ? Number(checked) : (READERS[name] ?? (typeof SETTINGS[name].start === "number" ? Number : String))(value);
    return SETTINGS[name].valid(read) && value !== "" ? read : undefined;
  }
}

function labels() {
  return Object.fromEntries(Object.entries(EQUATIONS).map(([name, { label, formula }]) => [name, `${label}: ${formula}`]));
}
