// On paper: light, whatever the screen is, with what is folded on the screen unfolded.
(function () {
  let theme, folded;
  addEventListener("beforeprint", () => {
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    folded = document.querySelectorAll("article details:not([open])");
    folded.forEach((details) => (details.open = true));
  });
  addEventListener("afterprint", () => {
    document.documentElement.dataset.theme = theme;
    folded.forEach((details) => (details.open = false));
  });
})();

// A table that is too wide scrolls in its own box, and the keyboard must be able to get into it.
(function () {
  const observer = new ResizeObserver((changes) =>
    changes.forEach(({ target: table }) => {
      if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
      else table.removeAttribute("tabindex");
    }),
  );
  addEventListener("load", () => document.querySelectorAll("article table").forEach((table) => observer.observe(table)));
})();
