"""Shared fixtures. Tests run in float64, which is set here and never by the library; tests in float32 say so."""

import shutil
import signal
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import hypothesis
import jax
import numpy as np
import pytest

import pinnntk_lib as pn

ROOT = Path(__file__).parents[1]
HTML = ROOT / "_build" / "html"

collect_ignore = [
    "training/killed_program.py",
    "kernel/sharded_program.py",
    "training/sharded_program.py",
    "typed_program.py",
]  # programs, not tests

# no deadline, because the first example of a shape compiles
hypothesis.settings.register_profile("default", deadline=None, derandomize=True)
hypothesis.settings.load_profile("default")
jax.config.update("jax_enable_x64", True)
# A shell makes its background jobs ignore Ctrl-C, and the processes that the tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def same(a, b):
    """Return whether two pytrees of the same structure have equal dtypes and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    leaves = [[np.asarray(leaf) for leaf in jax.tree.leaves(tree)] for tree in (a, b)]
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(*leaves))


@pytest.fixture
def poisson():
    """The paper's Poisson problem with points and a small network: (model, params, problem, points)."""
    problem = pn.problems.Poisson1D(a=4)
    points = problem.points(10)
    model = pn.MLP(width=12, **pn.normalization(points["r"]))
    return model, model.init(jax.random.key(0)), problem, points


@pytest.fixture
def wave():
    """The wave equation with points and a network of two hidden layers: (model, params, problem, points)."""
    problem = pn.problems.Wave1D()
    points = problem.points(7, jax.random.key(1))
    model = pn.MLP(width=8, depth=2, dim=2, shift=0.5, scale=0.3)
    return model, model.init(jax.random.key(0)), problem, points


# ---------------------------------------------------------------- the built book in a browser

# On every page with a widget, html-manager's validator says this of its own schema; any other warning counts.
HARMLESS = "strict mode: use allowUnionTypes"


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        pytest.skip("no Chromium or Chrome is installed")
    with sync_api.sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=executable)
        yield instance
        instance.close()


def complaint(message):
    return message.type in ("error", "warning") and not message.text.startswith(HARMLESS)


def lost(request):
    return request.failure != "net::ERR_ABORTED"  # the page itself cancels requests when it navigates away


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def site():
    if not HTML.is_dir():
        pytest.skip("the book is not built: make book")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def visit(browser, site):
    """Return ``visit(path, **context options)``, which loads a page.

    Fail at the end if the browser reported an error or the pages requested anything from another site.
    """
    contexts, errors, requests, roots = [], [], [], [site]

    def visit(path, root=site, **options):
        roots.append(root)
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(120_000)  # ms; the default of 30 s is too short on a machine ten times slower
        page = context.new_page()
        page.on("console", lambda message: complaint(message) and errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("requestfailed", lambda request: lost(request) and errors.append(f"failed: {request.url}"))
        page.on("response", lambda answer: answer.status >= 400 and errors.append(f"{answer.status}: {answer.url}"))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{root}/{path}")  # until loaded: on a slow machine the network can be idle before parsing
        page.wait_for_load_state("networkidle")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not errors
    assert [url for url in requests if not url.startswith((*roots, "data:", "blob:"))] == []


def assert_accessible(page, structure=True, contrast=True):
    """Check a page against axe-core's rules for WCAG 2.1 AA: those on structure, on contrast, or both."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    # Typeset formulas are MathJax's responsibility, and axe would check their thousands of boxes one by one.
    page.evaluate("document.querySelectorAll('mjx-container').forEach(formula => formula.remove())")
    tags = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    options = {
        "runOnly": tags if structure else {"type": "rule", "values": ["color-contrast"]},
        "rules": {"color-contrast": {"enabled": contrast}},
        "resultTypes": ["violations"],
        "preload": False,  # preloading fetches the styles again, which a page opened from a file cannot
    }
    found = axe.run(page, options=options)
    assert not found.response["violations"], found.generate_report()


def layout_shifts(page, selector):
    """Return the sum of the layout shifts so far that moved something inside the element."""
    return page.evaluate(
        """selector => new Promise(done => {
        let total = 0;
        const element = document.querySelector(selector);
        const own = ({ sources }) => sources.some(({ node }) => element.contains(node));
        new PerformanceObserver(list => list.getEntries().filter(own).forEach(entry => (total += entry.value)))
            .observe({ type: 'layout-shift', buffered: true });
        setTimeout(() => done(total), 500);
    })""",
        selector,
    )
