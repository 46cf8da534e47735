"""The built book in a real browser, without a Jupyter kernel or requests to other sites.

Needs `make book` and an installed Chromium or Chrome; without either, these tests are skipped.
"""

import gzip
import itertools
from urllib.parse import urlsplit

import pytest

from conftest import HTML, ROOT, assert_accessible, layout_shifts

pytestmark = pytest.mark.browser

PAGES = sorted(f"book/{path.stem}.html" for kind in ("md", "ipynb") for path in ROOT.glob(f"book/*.{kind}"))
CHAPTER = "book/01-when-pinns-fail.html"
# {page with a widget: (text of its picture, text of its sliders)}, with the first slider at its minimum and the second
# at its maximum
WIDGETS = {
    CHAPTER: ("width 10, learning rate 0.1", "Width 10, Learning rate 1e-1"),
    "book/05-infinite-width-during-training.html": ("width 16, learning rate 0.05", "Width 16, Learning rate 5e-2"),
}
PICTURE = ".widget-html img:visible"


@pytest.mark.parametrize("path", PAGES)
def test_every_page(visit, path):
    """Every page is complete on a phone and on a wide screen, in dark and in light."""
    page = visit(path, viewport={"width": 390, "height": 900}, color_scheme="dark")
    for width, scheme in ((390, "dark"), (390, "light"), (1280, "light"), (1280, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        switch(page, scheme)
        assert_whole(page, width)


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_accessible(visit, path):
    """Structure does not depend on the colours, or colours on the width."""
    page = visit(path, viewport={"width": 1280, "height": 900}, color_scheme="dark")
    assert_accessible(page, structure=False)
    switch(page, "light")
    assert_accessible(page)
    page.set_viewport_size({"width": 390, "height": 900})
    page.wait_for_timeout(500)  # the theme waits 300 ms before it makes what now scrolls reachable by keyboard
    assert_accessible(page, contrast=False)


def test_the_panels_of_a_figure_are_stacked_on_a_phone(visit):
    page = visit("book/06-why-they-fail.html", viewport={"width": 390, "height": 900})
    panels = page.locator(".pn-panels").first.locator(".pn-panel")
    boxes = [panels.nth(i).bounding_box() for i in range(panels.count())]
    assert len(boxes) == 3
    assert all(box["x"] >= 0 and 300 < box["width"] <= 390 for box in boxes)
    assert all(lower["y"] >= upper["y"] + upper["height"] for upper, lower in itertools.pairwise(boxes))
    assert page.locator(".pn-whole:visible").count() == 0
    caption = page.locator("figcaption", has_text="network minus exact solution")
    assert "Top: the trained network" in caption.inner_text()
    assert "Left" not in caption.inner_text()
    page.set_viewport_size({"width": 1280, "height": 900})
    assert page.locator(".pn-panels:visible").count() == 0
    assert page.locator(".pn-whole:visible").count() > 0
    assert "Left: the trained network" in caption.inner_text()
    assert "Top" not in caption.inner_text()


def switch(page, scheme):
    """Switch the colour scheme and wait until no colour is still changing."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)
    page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    page.wait_for_function("!document.getAnimations().some(found => found.playState === 'running')")


def assert_whole(page, width):
    """Check that nothing is wider than the screen, no picture or icon is missing, and all maths is typeset."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    images = page.locator("img:visible")
    for i in range(images.count()):
        assert images.nth(i).evaluate("image => image.complete && image.naturalWidth > 0")
        is_further_panel = images.nth(i).evaluate("image => image.matches('.pn-panel + .pn-panel img')")
        assert images.nth(i).get_attribute("alt") or is_further_panel  # the first panel has the figure's text
    assert page.locator("mjx-merror").count() == 0
    assert page.locator("svg[data-icon] path").count() == page.locator("svg[data-icon]").count() > 5
    assert page.locator("svg .missing").count() == 0  # an icon missing from the built site
    # no dollar or backslash may be left in the text outside code
    text = page.evaluate("""() => {
        const copy = document.querySelector('article').cloneNode(true);
        copy.querySelectorAll('pre, code, .sig, mjx-container, script').forEach(element => element.remove());
        return copy.textContent;
    }""")
    assert "$" not in text
    assert "\\" not in text


def test_maths_is_typeset(visit):
    page = visit(CHAPTER)
    assert page.locator("mjx-container:visible").count() > 30


@pytest.mark.parametrize("protocol", ["http", "file"])
@pytest.mark.parametrize("path", WIDGETS)
def test_the_widget_by_keyboard(visit, site, path, protocol):
    page = visit(path, root=site if protocol == "http" else HTML.as_uri())
    page.wait_for_selector(PICTURE)
    width, rate = page.locator(".noUi-handle").all()
    seen = {picture(page)}
    width.focus()
    page.keyboard.press("ArrowRight")
    seen.add(changed(page, seen))
    rate.focus()
    page.keyboard.press("ArrowRight")
    seen.add(changed(page, seen))
    page.keyboard.press("End")
    seen.add(changed(page, seen))
    width.focus()
    page.keyboard.press("Home")
    seen.add(changed(page, seen))
    assert WIDGETS[path][0] in picture(page)


@pytest.mark.parametrize("path", WIDGETS)
def test_the_widget_by_ear(visit, path):
    page = visit(path)
    page.wait_for_selector(PICTURE)
    width, rate = page.locator(".noUi-handle").all()
    width.focus()
    page.keyboard.press("Home")
    rate.focus()
    page.keyboard.press("End")
    changed(page, set())
    said = [
        f"{handle.get_attribute('aria-label')} {handle.get_attribute('aria-valuetext')}" for handle in (width, rate)
    ]
    assert ", ".join(said) == WIDGETS[path][1]


def test_the_widget_by_mouse(visit):
    page = visit(CHAPTER, viewport={"width": 1280, "height": 900})
    page.wait_for_selector(PICTURE)
    before = picture(page)
    bar = page.locator(".noUi-target").first
    bar.scroll_into_view_if_needed()
    box = bar.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2)
    assert "width 500, learning rate 1e-05" in changed(page, {before})


@pytest.mark.parametrize("path", WIDGETS)
def test_three_pictures_at_a_time_and_no_dead_button(visit, path):
    page = visit(path)
    page.wait_for_selector(PICTURE)
    assert page.locator(PICTURE).count() == 3
    assert page.locator(".pn-needs-kernel").count() == 1
    assert not page.locator(".pn-needs-kernel").is_visible()


def test_the_front_page_leads_to_the_book(visit):
    page = visit("index.html")
    page.wait_for_url("**/book/intro.html")
    page.get_by_role("link", name="When PINNs fail").first.click()
    page.wait_for_url("**/book/01-when-pinns-fail.html")
    assert "When PINNs fail" in page.locator("article h1").inner_text()


STORY = "book/intro.html"


def test_the_story_by_buttons(visit):
    """The front page begins with the answer that is wrong, and the steps can be walked through."""
    page = visit(STORY, viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    picture, cure = page.locator(".pn-story-pinned img"), page.get_by_role("button", name="Cure it")
    assert "2-answer" in picture.get_attribute("src")
    for part in (picture, cure):
        box = part.bounding_box()
        assert box["y"] + box["height"] <= 800
    page.get_by_role("button", name="Next").click()
    assert "3-line" in picture.get_attribute("src")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
    assert picture.bounding_box()["y"] >= 0  # it stays on the screen
    assert page.locator(".pn-story-pinned [role=status]").inner_text() == "3 of 8"


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_the_network_of_the_story_is_cured_on_the_page(visit, motion):
    page = visit(STORY, viewport={"width": 1280, "height": 800}, reduced_motion=motion)
    button = page.locator(".pn-story-pinned [name=cure]")
    before = button.bounding_box()
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => parseFloat(document.querySelector('.pn-live')?.innerText.split('relative error ')[1]) < 0.1",
        timeout=60_000,
    )
    assert button.bounding_box() == before  # nothing has moved
    assert button.inner_text() == "Stop"
    assert "relative error 0.0" in page.locator(".pn-live [role=img]").get_attribute("aria-label")
    button.press("Enter")
    assert button.inner_text() == "Again"
    assert_accessible(page)
    page.get_by_role("button", name="Next").click()
    assert not page.locator(".pn-live").is_visible()
    assert "3-line" in page.locator(".pn-story-pinned img").get_attribute("src")
    assert button.inner_text() == "Cure it"


def test_the_story_without_scripts(browser):
    """Without JavaScript there are eight pictures with captions, and each leads to its chapter."""
    page = browser.new_page(java_script_enabled=False)  # not `visit`: the scripts that are preloaded count as lost
    page.goto(f"{HTML.as_uri()}/{STORY}")
    pictures = page.locator(".pn-story li img")
    assert pictures.count() == 8
    for i in range(8):
        assert pictures.nth(i).is_visible()
        assert pictures.nth(i).get_attribute("alt")
        target = page.locator(".pn-story li figcaption a").nth(i).get_attribute("href")
        assert (HTML / "book" / target).is_file()
    page.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_of_the_story_moves_while_it_loads(visit, width):
    page = visit(STORY, viewport={"width": width, "height": 800})
    assert layout_shifts(page, ".pn-story") == 0


def test_on_paper_it_is_light_and_unfolded(visit):
    page = visit(CHAPTER, color_scheme="dark")
    folded = page.locator("article details:not([open])")
    before = folded.count()
    assert before > 3
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded.count() == 0
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert page.locator("article details summary:visible").count() == 0
    assert page.locator("article details pre").first.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert folded.count() == before
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_site_is_light(visit):
    """For slow connections, the site stays below 16 MB and the first page, compressed, below 1 MB."""
    assert sum(path.stat().st_size for path in HTML.rglob("*") if path.is_file()) < 16e6
    page = visit("book/intro.html")
    urls = page.evaluate("performance.getEntries().map(entry => entry.name).filter(name => name.startsWith('http'))")
    files = {HTML / urlsplit(url).path.lstrip("/") for url in urls}
    assert len(files) > 10
    assert sum(len(gzip.compress(file.read_bytes())) for file in files) < 1e6


def test_the_lab_is_light():
    assert len(gzip.compress((HTML / "_static/lab/lab.js").read_bytes())) < 150e3


def picture(page):
    """Return the alternative text of the first visible picture."""
    return page.locator(PICTURE).first.get_attribute("alt")


def changed(page, seen):
    """Wait for a picture whose text is not in ``seen``, and return its text."""
    for _ in range(50):
        if picture(page) not in seen:
            return picture(page)
        page.wait_for_timeout(100)
    raise AssertionError(f"the picture stayed: {picture(page)}")
