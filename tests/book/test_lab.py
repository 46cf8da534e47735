"""The lab computes the same numbers as the library, and its page is usable."""

import json
import re
import shutil
import subprocess
from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest

import pinnntk_lib as pn
from conftest import HTML, ROOT, assert_accessible, layout_shifts
from pinnntk_lib.training import largest_stable_learning_rate

PAGE = "book/lab.html"
# Changes of the lab's starting values. Together they have every equation, optimiser, weighting and kind of network.
CASES = {
    "paper": {},
    "adaptive": {"width": 50, "seed": 3, "rate": 2e-5, "scheme": "ntk"},
    "one wave": {"a": 1, "width": 5, "seed": 2**32 - 1, "rate": 1e-4, "scheme": "fixed", "fixed": 30},
    "wide": {"a": 8, "width": 500, "seed": 7, "rate": 1e-6, "scheme": "ntk"},
    "hard": {"hard": 1, "a": 3, "width": 30, "rate": 1e-5},
    "kernel descent": {"optimizer": "kernel", "until": 5},
    "kernel descent, Algorithm 1": {"equation": "burgers", "optimizer": "kernel", "scheme": "ntk", "until": 4},
    "layer": {"equation": "layer", "activation": "sin", "optimizer": "adam", "rate": 1e-3, "scaled": 0, "width": 50},
    "own": {"equation": "own", "a": 2, "p": 0.5, "q": -3, "s": 20, "rate": 1e-4, "width": 30},
    "heat, hard": {"equation": "heat", "D": 0.3, "k": 2, "hard": 1, "optimizer": "adam", "rate": 1e-3, "width": 20},
    "advection": {"equation": "advection", "c": 3, "scheme": "fixed", "fixed": 10, "rate": 1e-4, "width": 20},
    "wave": {"equation": "wave", "optimizer": "adam", "rate": 1e-3, "scheme": "ntk", "width": 20, "scaled": 0},
    "wave, hard": {"equation": "wave", "hard": 1, "optimizer": "kernel", "until": 4, "activation": "sin", "width": 30},
    "Helmholtz, Fourier": {"equation": "helmholtz", "a": 2, "fourier": 2, "rate": 1e-5, "width": 10, "until": 300},
    "Fourier, hard": {"fourier": 1, "hard": 1, "width": 10, "rate": 1e-6, "scaled": 0, "activation": "sin"},
    "Burgers": {"equation": "burgers", "rate": 1e-3, "width": 20, "activation": "sin"},
    "Burgers, hard": {"equation": "burgers", "hard": 1, "rate": 1e-3, "width": 20, "nu": 0.1},
}
LONG = ("paper", "kernel descent, Algorithm 1", "wave, hard", "Helmholtz, Fourier")
IN_CHROMIUM = ("paper", "adaptive", "wave, hard", "Fourier, hard")

# What the lab computes from settings, at the start and at the last step, and the program that it offers for them.
MEASURED = """
function measured(changes) {
  const settings = settingsFrom(Object.entries({ until: 1000, ...changes }));
  const session = new Session(settings);
  const state = () => ({ losses: session.losses, weights: session.weights, error: session.model.error() });
  const numbers = (_, v) => (v instanceof Float64Array ? Array.from(v) : v);
  const plain = (object) => JSON.parse(JSON.stringify(object, numbers));
  const found = plain({
    program: program(settings),
    names: session.names,
    init: session.params,
    start: state(),
    K: kernel(jacobian(session.model)),
    ...session.spectrum(),
  });
  session.advance(settings.until);
  const error = session.model.error();
  const losses = session.model.losses();
  session.advance(1); // its weights are those of the last step
  found.end = plain({ weights: session.weights, error, losses });
  return found;
}
"""


@pytest.fixture
def training(monkeypatch):
    """The source of the lab's training modules and of ``measured``."""
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    import lab

    return lab.training(ROOT) + lab.modules(ROOT, "settings", "python") + MEASURED


def in_node(program):
    """Run a program in Node, and return what it prints, which is JSON."""
    node = shutil.which("node") or pytest.skip("Node is not installed")
    done = subprocess.run([node, "--input-type=module", "-"], input=program, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=["node", pytest.param("chromium", marks=pytest.mark.browser)])
def measured(request, training):
    """``measured(changes)``, run in Node and in a browser."""

    def in_chromium(call):
        page = request.getfixturevalue("browser").new_page()
        try:
            return page.evaluate(f"(() => {{ {training}\nreturn {call}; }})()")
        finally:
            page.close()

    def run(changes):
        call = f"measured({json.dumps(changes)})"
        if request.param == "chromium":
            return in_chromium(call)
        return in_node(f"{training}\nconsole.log(JSON.stringify({call}))")

    return run


def flat(params):
    """Return the parameters in the lab's order: W0, b0, W1, b1."""
    return np.concatenate([np.ravel(layer[name]) for layer in params for name in ("W", "b")])


@cache
def by_the_library(program):
    """Run a program that the lab offers, and return ``(parameters, K, history)``."""
    found = {}
    exec(program, found)
    apply = found.get("apply") or found.get("network") or found["model"].apply
    K = pn.ntk(apply, found["params"], found["problem"], found["points"])
    return flat(found["params"]), K, found["result"].history


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow if case in LONG else ()) for case in CASES])
def test_the_numbers_are_the_library_s(measured, case, request):
    if "chromium" in request.node.name and case not in IN_CHROMIUM and shutil.which("node"):
        pytest.skip("compared in Node; the browser has the same engine")
    found = measured(CASES[case])
    params, K, history = by_the_library(found["program"])
    np.testing.assert_allclose(found["init"], params, rtol=1e-13, atol=1e-15)
    lower = np.tril_indices(len(K.matrix))
    entries = np.concatenate(found["K"])
    np.testing.assert_allclose(entries, K.matrix[lower], rtol=0, atol=1e-10 * abs(K.matrix).max())
    assert found["names"] == list(K.names)
    for name, eigenvalues in zip(K.names, found["blocks"]):
        expected = K.eigvalsh(name)
        padded = np.zeros(len(expected))
        padded[: len(eigenvalues)] = eigenvalues  # those above rounding error
        np.testing.assert_allclose(padded, expected, rtol=0, atol=1e-10 * expected[0])
    weights = {name: column[0] for name, column in history["weights"].items()}
    np.testing.assert_allclose(found["bound"], largest_stable_learning_rate(K, weights), rtol=1e-10)
    for when, row, rtol in (("start", 0, 1e-10), ("end", -1, 1e-6)):
        np.testing.assert_allclose(found[when]["error"], history["error"][row], rtol=rtol)
        for kind in ("losses", "weights"):
            for i, name in enumerate(K.names):
                np.testing.assert_allclose(found[when][kind][i], history[kind][name][row], rtol=rtol)


def test_the_network_of_the_front_page_fails_and_is_cured(training):
    """The parameters that the front page starts from are those that the library ends at, and weights cure them."""
    failed = json.loads((ROOT / "book" / "_static" / "landing" / "failed.json").read_text())
    error, of_u, of_r, step, cured = in_node(f"""
      {training}
      const session = new Session(STARTS, Float64Array.from({failed["params"]}), {failed["step"]});
      const found = [session.model.error(), ...session.losses];
      session.change({{ ...STARTS, scheme: "ntk" }});
      session.advance(4000);
      console.log(JSON.stringify([...found, session.step, session.model.error()]));
    """)
    problem, model = pn.problems.Poisson1D(a=4), pn.MLP(width=100, **pn.normalization(jnp.linspace(0, 1, 100)[:, None]))
    W0, b0, W1, b1 = np.split(np.array(failed["params"]), [100, 200, 300])
    params = [{"W": W0[:, None], "b": b0}, {"W": W1[None], "b": b1}]
    at = problem.residuals(lambda x: model.apply(params, x), problem.points({"u": 2, "r": 100}))
    np.testing.assert_allclose([of_u, of_r], [np.mean(at["u"] ** 2), np.mean(at["r"] ** 2)], rtol=1e-9)
    assert error > 2.5
    assert step == failed["step"] + 4000
    assert cured < 0.1


@pytest.mark.parametrize("equation", ["poisson", "wave", "burgers"])
def test_the_fast_loops_agree_with_differences(training, equation):
    """The gradient of the loss agrees with central differences of the loss along a random direction."""
    program = """
        const session = new Session({ ...STARTS, equation: EQUATION, width: 20 });
        const { model, params, gradient } = session;
        const weights = model.conditions.map((_, i) => i + 1);
        const direction = normal([0, 1], params.length);
        const loss = () => total(model.losses().map((value, i) => weights[i] * value));
        const along = (t) => { params.forEach((_, p) => (params[p] += t * direction[p])); return loss(); };
        model.gradient(weights, gradient);
        const expected = dot(gradient, direction);
        const h = 1e-4;
        const found = [1, 2].map((n) => {
          const above = along(n * h);
          const below = along(-2 * n * h);
          along(n * h);
          return (above - below) / (2 * n * h);
        });
        console.log(JSON.stringify([(4 * found[0] - found[1]) / 3, expected]));
    """.replace("EQUATION", json.dumps(equation))
    difference, expected = in_node(training + program)
    np.testing.assert_allclose(difference, expected, rtol=1e-8)


# ---------------------------------------------------------------- the page


def step(page):
    return int(page.locator(".pn-lab dd").first.inner_text().replace(",", ""))


def shown(page, *names):
    """Return the values that stand beside sliders."""
    return [page.locator(f".pn-lab label:has([name={name}]) b").inner_text() for name in names]


def status(page):
    return page.locator(".pn-lab [role=status]").inner_text()


def press(page, name):
    button = page.get_by_role("button", name=name, exact=True)
    button.focus()
    page.keyboard.press("Enter")


def until(page, condition):
    for _ in range(150):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"not so after 15 seconds; the lab says: {status(page)}, step {step(page)}")


@pytest.mark.browser
@pytest.mark.parametrize("protocol", ["http", "file"])
def test_training_by_keyboard(visit, site, protocol):
    page = visit(PAGE, root=site if protocol == "http" else HTML.as_uri())
    until(page, lambda: status(page) == "Ready.")
    press(page, "One step")
    until(page, lambda: step(page) == 1)
    press(page, "Start")
    until(page, lambda: step(page) > 500)
    assert status(page) == "Training."
    press(page, "Pause")
    until(page, lambda: status(page) == "Paused.")
    page.wait_for_timeout(300)
    stopped = step(page)
    page.wait_for_timeout(500)
    assert step(page) == stopped
    press(page, "Reset")
    until(page, lambda: step(page) == 0)


@pytest.mark.browser
def test_an_address_is_an_experiment(visit):
    page = visit(PAGE)
    page.get_by_label("learning rate").focus()
    page.keyboard.press("ArrowRight")
    page.locator("[name=width]").focus()
    page.keyboard.press("End")
    page.locator("[name=scheme]").select_option("Algorithm 1")
    assert page.url.endswith("?width=500&rate=0.000013&scheme=ntk")
    again = visit(page.url.partition("/book/")[2].join(("book/", "")))
    assert again.locator("[name=width]").get_attribute("aria-valuetext") == "500"
    assert again.locator("[name=scheme]").input_value() == "ntk"
    assert shown(again, "a", "width", "rate") == ["4", "500", "1.3e-5"]
    # invalid values are ignored
    broken = visit(f"{PAGE}?a=99&width=ten&rate=-1&scheme=magic&seed=3&equation=toString&fourier=")
    assert shown(broken, "a", "width", "rate", "fourier") == ["4", "100", "1.0e-5", "off"]
    assert broken.get_by_label("seed").input_value() == "3"
    # an equation brings its own sliders
    page.locator("[name=equation]").select_option("burgers")
    page.get_by_label("viscosity").press("Home")
    assert "equation=burgers" in page.url
    assert "nu=0.01" in page.url


@pytest.mark.browser
def test_divergence_is_said_with_its_bound(visit):
    page = visit(PAGE)
    press(page, "It diverges")
    until(page, lambda: "diverged at step 4" in status(page) and "stable below 7.6e-3" in status(page))
    assert "too large: stable below 7.6e-3" in page.locator(".pn-lab-bound").inner_text()
    # the run cannot go on: another one begins, and with a smaller rate it trains
    press(page, "Start again")
    until(page, lambda: "diverged at step 4" in status(page))
    page.get_by_label("learning rate").press("Home")
    press(page, "Start")
    until(page, lambda: step(page) > 100)
    assert status(page) == "Training."
    press(page, "Algorithm 1")
    until(page, lambda: step(page) > 100)
    assert status(page) == "Training."


@pytest.mark.browser
def test_the_bound_of_a_divergence_is_not_measured_in_it(visit):
    """The reported bound comes from before the divergence: the kernel of exploding parameters explains nothing.

    The test advances by single steps, as a slow machine does.
    """
    page = visit(f"{PAGE}?rate=0.01")
    for n in range(1, 5):
        press(page, "One step")
        until(page, lambda n=n: step(page) == n)
    press(page, "One step")
    until(page, lambda: "diverged at step 4" in status(page) and "stable below 7.6e-3" in status(page))


@pytest.mark.browser
def test_a_story_ends_as_the_chapters_say(visit):
    """With Algorithm 1 at a learning rate of 8e-5, seed 0 reaches an error below 1e-2 long before step 40,000."""
    page = visit(f"{PAGE}?scheme=ntk&rate=8e-5&until=5000")
    press(page, "Start")
    until(page, lambda: "Paused at step 5,000" in status(page))
    assert step(page) == 5_000
    page.wait_for_timeout(300)
    error = float(page.locator(".pn-lab dd").nth(2).inner_text())
    assert error < 1e-2
    described = page.locator(".pn-lab [role=img]").evaluate_all("all => all.map(e => e.ariaLabel)")
    assert len(described) == 4
    assert f"relative error {page.locator('.pn-lab dd').nth(2).inner_text()}" in described[0]
    # it pauses once, and the reader may go on
    press(page, "Start")
    until(page, lambda: step(page) > 5_000)


def cards(page):
    """Return what the modes' cards say: ``[(rank, percentage left, percentage by theory)]``."""
    said = page.locator(".pn-lab-stage button:enabled").evaluate_all("all => all.map(e => e.ariaLabel)")
    found = [
        re.fullmatch(r"Mode (\d+), .*: left ([\d.e+-]+) %(?:, theory ([\d.e+-]+) %)?. Excite.", text) for text in said
    ]
    return [tuple(float(number or "nan") for number in match.groups()) for match in found]


@pytest.mark.browser
def test_modes_drain_as_theory_says_and_can_be_excited(visit):
    """A wide network at a small rate follows the kernel of step 0; a mode that is pressed fills up again."""
    page = visit(f"{PAGE}?a=1&width=500&rate=3e-5&until=300")
    until(page, lambda: len(cards(page)) == 12)
    before = cards(page)
    assert [rank for rank, *_ in before] == sorted(rank for rank, *_ in before)
    for _, left, theory in before:
        assert left == theory
    press(page, "Start")
    until(page, lambda: "Paused at step 300" in status(page))
    page.wait_for_timeout(1000)
    after = cards(page)
    drained = [(b[1], a[1], a[2]) for b, a in zip(before, after) if a[2] < 0.5 * b[2] and a[2] > 1]
    assert drained
    for at_start, left, theory in drained:
        assert left < at_start
        np.testing.assert_allclose(left, theory, rtol=0.3)
    loss = total_loss(page)
    page.locator(".pn-lab-stage button").first.focus()
    page.keyboard.press("Enter")
    until(page, lambda: total_loss(page) > 1.2 * loss)
    until(page, lambda: cards(page)[0][1] > 1.2 * after[0][1])


def total_loss(page):
    return sum(float(page.locator(".pn-lab dd").nth(i).inner_text().replace(",", "")) for i in (3, 4))


@pytest.mark.browser
@pytest.mark.parametrize("equation", ["heat", "advection", "wave", "helmholtz", "burgers", "layer", "own"])
def test_every_equation_trains_and_shows_its_modes(visit, equation):
    page = visit(PAGE)
    page.locator("[name=equation]").select_option(equation)
    until(page, lambda: step(page) == 0 and len(cards(page)) == 12)
    press(page, "Start")
    until(page, lambda: step(page) > 20)
    assert status(page) == "Training."
    for optimizer in ("kernel", "sgd"):
        page.locator("[name=optimizer]").select_option(optimizer)
        reached = step(page)
        until(page, lambda reached=reached: step(page) > reached + 1)
        assert status(page) == "Training."


@pytest.mark.browser
def test_idle_pictures_show_the_start(visit):
    """Before training, every picture has something drawn in it, among it the theory's losses."""
    page = visit(PAGE)
    until(page, lambda: len(cards(page)) == 12)
    for view in ("Modes", "Eigenvalues", "Weights"):
        press(page, view)
        page.wait_for_timeout(1500)
        inked = page.locator(".pn-lab [role=img] canvas").evaluate_all(
            """all => all.filter(canvas => canvas.clientWidth).map(canvas => {
                const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d');
                copy.drawImage(canvas, 0, 0);
                const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
                let coloured = 0;
                for (let i = 0; i < data.length; i += 4) coloured += data[i + 3] > 200 && data[i] !== data[i + 2];
                return coloured;
            })"""
        )
        assert len(inked) == (2 if view == "Modes" else 3)
        assert min(inked) > 20


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_is_on_one_screen(visit, scheme):
    page = visit(PAGE, viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    until(page, lambda: len(cards(page)) == 12)
    for part in (
        ".pn-lab-controls",
        "[name=fourier]",
        "[name=start]",
        *(f"div[data-part={p}]" for p in ("solution", "losses", "modes")),
    ):
        box = page.locator(f".pn-lab {part}").bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 800
        assert box["x"] + box["width"] <= 1280


@pytest.mark.browser
def test_on_a_phone_the_parts_are_tabs(visit):
    page = visit(PAGE, viewport={"width": 390, "height": 844})
    until(page, lambda: len(cards(page)) == 12)
    parts = {
        name: page.locator(f".pn-lab div[data-part={name.lower()}]")
        for name in ("Settings", "Solution", "Losses", "Modes")
    }
    for name in parts:
        press(page, name)
        assert [other for other, part in parts.items() if part.is_visible()] == [name]
        box = parts[name].bounding_box()
        assert box["y"] + box["height"] <= 844


@pytest.mark.browser
def test_the_program_is_copied(visit):
    page = visit(f"{PAGE}?equation=heat&optimizer=kernel&until=7&seed=5")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    press(page, "Copy as Python")
    until(page, lambda: "Copied" in status(page))
    text = page.evaluate("navigator.clipboard.readText()")
    for line in (
        "pn.problems.Heat1D(diffusivity=0.1, k=1)",
        "jax.random.key(5)",
        "steps=7",
        "pn.kernel_gradient_descent()",
    ):
        assert line in text


@pytest.mark.browser
def test_teaching_shows_pictures_alone(visit):
    page = visit(PAGE, viewport={"width": 1280, "height": 800})
    until(page, lambda: len(cards(page)) == 12)
    press(page, "Teach")
    assert "teach=1" in page.url
    assert page.locator(".pn-lab").bounding_box() == {"x": 0, "y": 0, "width": 1280, "height": 800}
    assert (
        not page.locator(".pn-lab-controls, .pn-lab figcaption, .pn-lab dl, .pn-lab small")
        .locator("visible=true")
        .count()
    )
    for part in ("solution", "losses", "modes"):
        box = page.locator(f".pn-lab div[data-part={part}]").bounding_box()
        assert box["height"] > 250
        assert box["y"] + box["height"] <= 800
    press(page, "Start")
    page.wait_for_timeout(500)
    page.keyboard.press("Escape")
    assert page.locator(".pn-lab-controls").is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_of_the_lab_moves_while_the_page_loads_and_trains(visit, width):
    page = visit(PAGE, viewport={"width": width, "height": 844})
    page.wait_for_timeout(1000)
    press(page, "Start")
    until(page, lambda: step(page) > 100)
    assert layout_shifts(page, ".pn-lab") == 0


@pytest.mark.browser
def test_a_hidden_page_rests(visit):
    page = visit(PAGE)
    press(page, "Start")
    until(page, lambda: step(page) > 100)
    hide = """hidden => {
        Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    page.evaluate(hide, True)
    page.wait_for_timeout(500)
    resting = step(page)
    page.wait_for_timeout(500)
    assert step(page) == resting
    page.evaluate(hide, False)
    until(page, lambda: step(page) > resting)


@pytest.mark.browser
def test_a_reader_who_wants_less_motion_gets_less(visit):
    count = """() => new Promise(done => {
        let changes = 0;
        const seen = new MutationObserver(() => changes++);
        seen.observe(document.querySelector('.pn-lab dl'), { childList: true });
        setTimeout(() => done(changes), 3000);
    })"""
    changes = {}
    for motion in ("no-preference", "reduce"):
        page = visit(PAGE, reduced_motion=motion)
        press(page, "Start")
        until(page, lambda page=page: step(page) > 100)
        changes[motion] = page.evaluate(count)
    assert changes["reduce"] <= 4 < changes["no-preference"]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_keeps_a_reader_out(visit, scheme, width):
    """The page is accessible while it trains, in both colour schemes and at both widths."""
    page = visit(PAGE, viewport={"width": width, "height": 900}, color_scheme=scheme)
    press(page, "Start")
    until(page, lambda: step(page) > 100)
    assert_accessible(page)
