"""Training speed of the lab in headless Chromium, its page's response time meanwhile, and the growth of its memory.

    python tests/benchmarks/lab.py

Needs a built book and Chromium; takes about three minutes. The page is opened from its file, as by a reader without a
web server.
"""

import shutil
import statistics
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from pinnntk_lib import experiments

HTML = Path(__file__).parents[2] / "_build" / "html"

# Records the longest delay from a key press to the next frame, and the longest gap between two frames.
WATCH = """() => {
  window.longest = { frame: 0, answer: 0 };
  let last = performance.now();
  const frame = (now) => {
    longest.frame = Math.max(longest.frame, now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  document.querySelector('.pn-lab [name=fixed]').addEventListener('input', () => {
    const pressed = performance.now();
    requestAnimationFrame(() => { longest.answer = Math.max(longest.answer, performance.now() - pressed); });
  });
}"""


# Counts how often the numbers, which are written with the pictures, and the modes change.
FRAMES = """() => {
  window.counted = { pictures: 0, modes: 0 };
  new MutationObserver(() => counted.pictures++).observe(document.querySelector('.pn-lab dl'), { childList: true });
  const card = document.querySelector('.pn-lab-stage button');
  new MutationObserver(() => counted.modes++).observe(card, { attributeFilter: ['aria-label'] });
}"""


def step(page):
    return int(page.locator(".pn-lab dd").first.inner_text().replace(",", ""))


def error(page):
    return float(page.locator(".pn-lab dd").nth(2).inner_text())


def start(page, query=""):
    page.goto(f"{(HTML / 'book/lab.html').as_uri()}?{query}")
    page.wait_for_selector(".pn-lab dd")
    page.get_by_role("button", name="Start", exact=True).click()


def renderer_memory(session):
    """Return the resident memory of the pages' processes in megabytes."""
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    pages = [process["id"] for process in processes if process["type"] == "renderer"]
    statuses = [Path(f"/proc/{pid}/status").read_text().splitlines() for pid in pages]
    return sum(int(line.split()[1]) for lines in statuses for line in lines if line.startswith("VmRSS")) / 1024


def speed(page, seconds=60):
    start(page, "scheme=fixed&until=10000000")
    page.evaluate(WATCH)
    rates, before = [], (time.perf_counter(), step(page))
    for second in range(seconds):
        page.wait_for_timeout(1000)
        page.locator(".pn-lab [name=fixed]").press("ArrowLeft" if second % 2 else "ArrowRight")
        now = time.perf_counter(), step(page)
        rates.append((now[1] - before[1]) / (now[0] - before[0]))
        before = now
    longest = page.evaluate("longest")
    print(f"steps per second: median {statistics.median(rates):,.0f}, from {min(rates):,.0f} to {max(rates):,.0f}")
    print(f"longest frame gap: {longest['frame']:.0f} ms; longest response to a key: {longest['answer']:.0f} ms")


def in_the_plane(page, equation, seconds=15):
    """Speed of an equation in two dimensions, and how often its modes are drawn."""
    start(page, f"equation={equation}&optimizer=adam&rate=1e-3&until=10000000")
    page.wait_for_timeout(3000)  # until it is compiled
    page.evaluate(FRAMES)
    began, before = time.perf_counter(), step(page)
    page.wait_for_timeout(1000 * seconds)
    passed = time.perf_counter() - began
    frames = page.evaluate("counted")
    print(
        f"{equation}: {(step(page) - before) / passed:,.0f} steps per second, "
        f"{frames['pictures'] / passed:.1f} pictures and {frames['modes'] / passed:.1f} frames of the modes per second"
    )


def adaptive(page):
    start(page, "scheme=ntk")
    began, below = time.perf_counter(), None
    while step(page) < 40_000:
        if below is None and error(page) < 1e-2:
            below = time.perf_counter() - began
        page.wait_for_timeout(50)
    seconds = time.perf_counter() - began
    print(
        f"Algorithm 1: error {error(page)} at step 40,000, after {seconds:.1f} s; first below 1e-2 after {below:.1f} s"
    )


def memory(page, session):
    start(page, "rate=1e-6&until=1000000")
    sizes = {}
    for at in (20_000, 100_000, 200_000):
        while step(page) < at:
            page.wait_for_timeout(200)
        sizes[at] = renderer_memory(session)
    print("memory:", ", ".join(f"{size:.0f} MB at step {at:,d}" for at, size in sizes.items()))


def main():
    print(experiments.machine())
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        print("Chromium", browser.version)
        page, session = browser.new_page(), browser.new_browser_cdp_session()
        speed(page)
        for equation in ("wave", "helmholtz", "burgers"):
            in_the_plane(page, equation)
        adaptive(page)
        memory(page, session)
        browser.close()


if __name__ == "__main__":
    main()
