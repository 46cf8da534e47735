// The front page's story: one pinned picture, moved by scrolling or by buttons. Without this script the page shows all
// eight pictures with their captions.
(function () {
  const pinned = document.querySelector(".pn-story-pinned");
  if (!pinned) return;
  const steps = Array.from(document.querySelectorAll(".pn-story li"));
  const pictures = steps.map((step) => step.querySelector("img"));
  let shown = -1;

  pinned.innerHTML =
    '<img alt="" width="840" height="540"><p><button type="button" name="back">Back</button> ' +
    '<button type="button" name="next">Next</button> <button type="button" name="cure">Cure it</button> <span role="status"></span></p>';
  const image = pinned.querySelector("img");

  function show(i) {
    if (i === shown) return;
    shown = i;
    image.src = pictures[i].src;
    image.alt = pictures[i].alt;
    steps.forEach((step, k) => step.toggleAttribute("data-shown", k === i));
    pinned.querySelector("[role=status]").textContent = `${i + 1} of ${steps.length}`;
    pinned.querySelector("[name=back]").disabled = i === 0;
    pinned.querySelector("[name=next]").disabled = i === steps.length - 1;
  }

  function go(i) {
    show(i);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    steps[i].scrollIntoView({ block: "center", behavior: still ? "auto" : "smooth" });
  }

  pinned.querySelector("[name=back]").onclick = () => go(shown - 1);
  pinned.querySelector("[name=next]").onclick = () => go(shown + 1);
  pinned.querySelector("[name=cure]").onclick = () => go(steps.findIndex((step) => step.id === "pn-story-6"));
  const middle = new IntersectionObserver(
    (entries) => entries.forEach((entry) => entry.isIntersecting && scrollY > 0 && show(steps.indexOf(entry.target))),
    { rootMargin: "-50% 0px -50% 0px" },
  );
  steps.forEach((step) => middle.observe(step));
  addEventListener("load", () => pictures.forEach((picture) => (new Image().src = picture.src)));
  show(1); // the answer that is wrong
})();
