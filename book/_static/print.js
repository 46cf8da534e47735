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
