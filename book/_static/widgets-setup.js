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
