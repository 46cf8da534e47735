// Before the widgets: modules are looked for beside this file, never on another site; and html-manager's call to
// version 2 of MathJax goes to version 3.
(function () {
  const here = document.currentScript.src;
  window.require = { baseUrl: new URL("html-manager/", here).href };
  window.MathJax = window.MathJax || {};
  window.MathJax.Hub = {
    Queue: function () {
      if (window.MathJax.typesetPromise) window.MathJax.typesetPromise();
    },
  };
})();
