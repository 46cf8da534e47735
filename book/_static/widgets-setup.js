// Before the widgets: modules are looked for beside them, never on another site; and html-manager's call to version 2
// of MathJax, on whatever object MathJax is by then, goes to version 3.
(function () {
  window.require = { baseUrl: new URL("./", document.currentScript.src).href };

  const Queue = () => window.MathJax.typesetPromise && window.MathJax.typesetPromise();
  const withHub = (mathjax) => Object.assign(mathjax, { Hub: { Queue } });
  let current = withHub(window.MathJax || {});
  Object.defineProperty(window, "MathJax", {
    get: () => current,
    set: (mathjax) => {
      current = withHub(mathjax);
    },
  });
})();

// Sliders say to a screen reader what they say to the eye: their description, and the chosen option rather than its
// number.
(function () {
  const say = (handle) => {
    const widget = handle.closest(".widget-inline-hbox");
    const text = (part) => widget?.querySelector(part)?.textContent.trim();
    const attributes = { "aria-label": text(".widget-label"), "aria-valuetext": text(".widget-readout") };
    for (const [name, value] of Object.entries(attributes)) {
      if (value && handle.getAttribute(name) !== value) handle.setAttribute(name, value);
    }
  };
  const sayAll = () => document.querySelectorAll(".noUi-handle").forEach(say);
  new MutationObserver(sayAll).observe(document, {
    subtree: true,
    childList: true,
    characterData: true,
    attributeFilter: ["aria-valuetext"],
  });
})();
