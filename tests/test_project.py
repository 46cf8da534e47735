"""The project around the library: requirements, documents, workflows, and make's messages when something is missing."""

import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import pinnntk_lib as pn
from pinnntk_lib import experiments, plotting, widgets

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import attribute_types  # noqa: E402 -- its folder is no package


def requirements():
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    return [line for line in lines if line]


def version():
    return re.search(r'__version__ = "(.*)"', (ROOT / "pinnntk_lib/version.py").read_text())[1]


def test_the_ranges_are_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for declared in (project["dependencies"], *project["optional-dependencies"].values()):
        assert set(declared) <= set(requirements())


def test_the_conda_recipe_has_the_version_and_the_ranges():
    recipe = (ROOT / ".conda/meta.yaml").read_text()
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    run = recipe.partition("  run:\n")[2].partition("\ntest:")[0]
    found = {line.strip("- ").replace(" >=", ">=") for line in run.strip().splitlines()}
    as_on_conda = {line.replace("matplotlib>", "matplotlib-base>") for line in wanted["dependencies"]}
    assert found == {f"python{wanted['requires-python']}", *as_on_conda}
    assert f'version = "{version()}"' in recipe


def test_nothing_that_colab_brings_is_capped():
    """With a lower bound alone, pip keeps the version that Colab has."""
    for name in ("jax", "jaxlib", "numpy", "matplotlib", "optax", "ipywidgets", "tqdm"):
        (requirement,) = (line for line in requirements() if re.match(rf"{name}\b", line))
        assert re.fullmatch(rf"{name}>=[\d.]+", requirement)


def test_the_lock_file_has_every_requirement():
    locked = set(re.findall(r"^([\w-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert {re.match(r"[\w-]+", line)[0] for line in requirements()} <= locked


def test_citation_credits_paper_and_software_apart():
    citation = (ROOT / "CITATION.cff").read_text()
    software, _, paper = citation.partition("references:")
    assert "pinnntk_lib" in software
    assert "10.1016/j.jcp.2021.110768" in paper
    assert f"version: {version()}" in software


@pytest.fixture
def make(tmp_path):
    """``make(*arguments)`` in a copy with nothing installed returns the exit status and the lines on standard error."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)

    def run(*arguments):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PACKAGES"))}
        done = subprocess.run(["make", *arguments], cwd=tmp_path, capture_output=True, text=True, env=environment)
        said = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
        return done.returncode, said

    return run


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_no_such_target(make):
    assert make("bok") == (2, ["There is no target 'bok': 'make help' lists them."])


def test_no_python(make):
    status, said = make("book", "PYTHON=no-such-python")
    assert status != 0
    (sentence,) = said
    assert sentence.startswith("Python 3.11 or newer is needed, and 'no-such-python' was not found")


def test_python_too_old(make, tmp_path):
    old = script(tmp_path / "old-python", '[ "$1" = --version ] && echo Python 3.9.2 && exit; exit 1')
    status, said = make("test", f"PYTHON={old}")
    assert status != 0
    (sentence,) = said
    assert sentence.startswith(f"Python 3.11 or newer is needed, and '{old}' is Python 3.9.2")


def test_no_venv_module(make, tmp_path):
    bare = script(tmp_path / "bare-python", '[ "$1" = -m ] && exit 1; exit 0')
    status, said = make("book", f"PYTHON={bare}")
    assert status != 0
    (sentence,) = said
    assert sentence.startswith("Python could not make a virtual environment")


def test_no_network(make, tmp_path):
    venv = 'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; exit; fi'
    fake = f'{venv}; [ "$2" = pip ] && exit 1; exit 0'
    offline = script(tmp_path / "offline-python", fake)
    status, said = make("book", f"PYTHON={offline}")
    assert status != 0
    (sentence,) = said
    assert sentence.startswith("The packages could not be installed: is there a network?")


@pytest.mark.slow
def test_the_readme_keeps_its_word():
    """The README's examples compute the numbers that it states, to the digits stated."""
    readme = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"```python\n(import jax.*?)```", readme, re.DOTALL)
    (further,) = re.findall(r"```python\n(print\(pn.diagnose.*?)```", readme, re.DOTALL)
    names = {}
    exec(example, names)
    rates = [names["K"].convergence_rate(name) for name in ("r", "u")]
    assert f"{rates[0] / rates[1]:.0f}" in example
    assert f"{names['result'].history['error'][-1]:.2g}" in example
    start = [names[name] for name in ("params", "problem", "points")]
    plain = pn.train(names["model"].apply, *start, optax.sgd(1e-5), 40_000)
    assert f"{plain.history['error'][-1]:.2g}" in example
    exec(further, names)
    assert names["result"].history["error"][-1] < 1e-5


def test_the_api_reference_has_every_public_name():
    reference = set(
        re.findall(r"^\.\. auto\w+:: (?:pinnntk_lib\.)?(\S+)", (ROOT / "book/api.md").read_text(), re.MULTILINE)
    )
    public = {name for name in pn.__all__ if callable(getattr(pn, name))}
    public |= {f"limit.{name}" for name in pn.limit.__all__}
    assert public <= reference


def test_types_of_attributes_are_shown_as_those_of_parameters_are():
    line = ":vartype sampler: collections.abc.Callable[[int, jax.jaxlib._jax.Array | None], jax.jaxlib._jax.Array]"
    assert attribute_types.shorten(line) == ":vartype sampler: Callable[[int, Array | None], Array]"
    prose = ":ivar error: K.error is an estimate, see pinnntk_lib.limit.ntk"
    assert attribute_types.shorten(prose) == prose


def test_every_public_name_has_an_example():
    """Every public name has a docstring with an example, which doctest runs."""
    public = [getattr(pn, name) for name in pn.__all__] + [getattr(pn.limit, name) for name in pn.limit.__all__]
    assert [thing.__name__ for thing in public if callable(thing) and ">>>" not in thing.__doc__] == []


def public_functions():
    """Yield every public function and method as ``(name, function)``: all that a user's ``mypy --strict`` sees."""
    fronts = [pn, pn.limit, pn.problems, pn.operators, pn.models, pn.training, experiments, plotting, widgets]
    for front in fronts:
        for name in front.__all__:
            thing = getattr(front, name)
            if inspect.isclass(thing):
                for method, value in vars(thing).items():
                    function = getattr(value, "fget", getattr(value, "func", value))
                    if method[0] == "_" and method not in ("__init__", "__call__"):
                        continue
                    if inspect.isfunction(function) and function.__module__ != "typing":
                        yield f"{front.__name__}.{name}.{method}", function
            elif inspect.isfunction(thing):
                yield f"{front.__name__}.{name}", thing


def test_every_public_signature_is_typed():
    untyped = []
    for name, function in public_functions():
        signature = inspect.signature(function)
        given = [p.annotation for p in signature.parameters.values() if p.name not in ("self", "_")]
        # an __init__ generated by a dataclass is annotated with None
        returned = signature.return_annotation
        if inspect.Parameter.empty in (*given, returned):
            untyped.append(name)
    assert untyped == []


def test_the_examples_for_contributors_work():
    names = {}
    for example in re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL):
        exec(example, names)
    heat, model = names["heat"](), pn.MLP(width=10, dim=2)
    points = heat.points(30)
    assert all(abs(values).max() < 1e-12 for values in heat.residuals(heat.exact, points).values())
    weights = names["InverseLossWeights"]()
    setting = model.apply, model.init(jax.random.key(0)), heat, points
    history = pn.train(*setting, optax.adam(1e-3), 10, weights).history
    for name, losses in history["losses"].items():
        assert np.allclose(losses * history["weights"][name], 1)


def test_workflows_pin_what_they_use_and_may_do_little():
    workflows = {path.stem: path.read_text() for path in ROOT.glob(".github/workflows/*.yml")}
    assert set(workflows) == {"tests", "book", "newest", "release"}
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in workflows.values():
        assert all(re.fullmatch(r"[0-9a-f]{40} # v[\d.]+", used) for used in re.findall(r"uses: \S+@(.*)", text))
        assert "\npermissions:\n  contents: read\n" in text
        assert text.count("timeout-minutes") == text.count("runs-on")
        assert set(" ".join(re.findall(r"run: make ([a-z ]+)\b", text)).split()) <= targets


def test_importing_the_library_imports_nothing_heavy():
    """Whoever imports it does not wait for optimisers, checkpoints, figures, widgets and sparse matrices."""
    heavy = ("optax", "matplotlib", "ipywidgets", "orbax", "scipy.sparse", "scipy.integrate", "pandas")
    program = f"import sys, pinnntk_lib; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
