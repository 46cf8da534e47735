// The front page's story: one pinned picture, moved by scrolling or by buttons. "Cure it" goes on with the network of
// the picture that is wrong, on this page. Without this script the page shows all eight pictures with their captions.
(function () {
  const pinned = document.querySelector(".pn-story-pinned");
  if (!pinned) return;
  const steps = Array.from(document.querySelectorAll(".pn-story li"));
  const pictures = steps.map((step) => step.querySelector("img"));
  const [wrong, cured] = [1, 5]; // the steps whose pictures show the network before and after
  let shown = -1;

  const find = (selector) => pinned.querySelector(selector);
  const [image, place, cure, status] = ["img", ".pn-live", "[name=cure]", "[role=status]"].map(find);

  function show(i) {
    if (i === shown) return;
    shown = i;
    leave();
    image.src = pictures[i].src;
    image.alt = pictures[i].alt;
    steps.forEach((step, k) => step.toggleAttribute("data-shown", k === i));
    find("[name=back]").disabled = i === 0;
    find("[name=next]").disabled = i === steps.length - 1;
  }

  function go(i) {
    show(i);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    steps[i].scrollIntoView({ block: "center", behavior: still ? "auto" : "smooth" });
  }

  /** From the network that trains back to the pictures. */
  function leave() {
    place.live?.stop();
    place.hidden = true;
    image.hidden = false;
    cure.textContent = "Cure it";
    status.textContent = `${shown + 1} of ${steps.length}`;
  }

  function train() {
    place.live.told = (running, text) => {
      status.textContent = text;
      cure.textContent = running ? "Stop" : "Again";
    };
    image.hidden = true;
    place.hidden = false;
    place.live.start();
  }

  /** Fetches the lab on the first press: nobody has to wait for it who only reads. */
  function cureIt() {
    if (place.live?.worker) {
      place.live.stop();
      place.live.told(false, "Stopped.");
    } else if (place.live) train();
    else {
      const script = document.createElement("script");
      script.src = pictures[0].src.replace("landing/1-loss.png", "lab/lab.js");
      script.onload = train;
      script.onerror = () => go(cured);
      document.head.append(script);
    }
  }

  find("[name=back]").onclick = () => go(shown - 1);
  find("[name=next]").onclick = () => go(shown + 1);
  cure.onclick = cureIt;
  const middle = new IntersectionObserver(
    (entries) => entries.forEach((entry) => entry.isIntersecting && scrollY > 0 && show(steps.indexOf(entry.target))),
    { rootMargin: "-50% 0px -50% 0px" },
  );
  steps.forEach((step) => middle.observe(step));
  addEventListener("load", () => pictures.forEach((picture) => (new Image().src = picture.src)));
  show(wrong);
})();
