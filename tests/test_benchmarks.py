"""All methods in the benchmarks compute the same result; their time and memory are not tested."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cases
    import run
    import with_jax
    import with_library

    yield cases, run, with_library.METHODS | with_jax.METHODS
    for name in ("cases", "run", "with_jax", "with_library"):
        sys.modules.pop(name)


@pytest.mark.parametrize("equation", ["wave", "laplace3d", "value"])
def test_all_methods_agree(modules, equation):
    cases, run, methods = modules
    case = cases.Case(equation, 2, 9, 5)
    kernels = [np.asarray(methods[method](case, "float64")()) for method in run.KERNELS]
    diagonals = [np.asarray(methods[method](case, "float64")()) for method in run.DIAGONALS]
    for kernel in kernels:
        np.testing.assert_allclose(kernel, kernels[-1], rtol=1e-11, atol=1e-11 * np.abs(kernels[-1]).max())
    for diagonal in diagonals:
        np.testing.assert_allclose(diagonal, np.diag(kernels[-1]), rtol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("equation", ["wave problem", "Poisson problem, d = 10"])
def test_all_ways_to_train_take_the_same_steps(modules, equation):
    """In double precision, all loops reach the same parameters from the same start."""
    cases, _, methods = modules
    case = cases.Case(equation, 2, 9, 14)
    plain, *others = (
        jax.tree.leaves(methods[method](case, "float64", 3)()) for method in ("plain", "channels", "jet", "library")
    )
    for leaves in others:
        for a, b in zip(plain, leaves, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)


def test_contestants_take_turns_in_processes_of_their_own(modules, monkeypatch):
    """Two methods alternate, the absent and the failing are reported, and the record has every number."""
    cases, run, _ = modules
    asked = []
    ask = run.Process.ask
    monkeypatch.setattr(
        run.Process, "ask", lambda self, *request: asked.append((self, request[0])) or ask(self, *request)
    )
    pythons = dict.fromkeys(run.CONTESTANTS, sys.executable) | {"with_netket": None}
    monkeypatch.setitem(run.MODULE, "nothing", "with_nothing")
    monkeypatch.setitem(run.CONTESTANTS, "with_nothing", (None, ["nothing"]))
    task = run.Task(
        cases.Case("Laplacian, d = 2", 1, 5, 4), ("auto", "vmap(grad)", "netket", "nothing"), "float64", rounds=2
    )
    record = run.record_of("laplacian", [task], pythons | {"with_nothing": sys.executable}, quick=True)

    repeated = [worker for worker, request in asked if request == "again"]
    assert repeated[:2] == repeated[2:]
    assert repeated[0] is not repeated[1]
    assert record["absent"] == {"netket": "netket is not installed"}
    assert record["versions"].keys() >= {"jax", "pinnntk_lib"}
    ours, plain, nothing = record["rows"]
    assert "with_nothing" in nothing["failed"]
    assert plain["difference"] < 1e-12
    assert ours["ratio"] == 1
    assert plain["ratio"] == plain["seconds"] / ours["seconds"]
    for row in (ours, plain):
        assert row["quartiles"][0] <= row["seconds"] <= row["quartiles"][1] < row["first"]
        assert row["cpu"] > 0


def test_the_recorded_run_is_of_these_cases(modules):
    """The record has every case and method of the current benchmark, and all methods of a case agreed."""
    cases, run, _ = modules
    record = json.loads((BENCHMARKS.parents[1] / "book/data/benchmarks.json").read_text())
    found = {(cases.Case(**row["case"]), row["method"]): row for row in record["rows"]}
    for case in cases.CASES:
        others = [
            row for (of, method), row in found.items() if of == case and method not in run.KERNELS + run.DIAGONALS
        ]
        sums = [row["sum"] for row in others if "failed" not in row]
        sums += [found[case, method]["sum"] for method in run.KERNELS]
        np.testing.assert_allclose(sums, sums[-1], rtol=1e-4)  # float32 sums of about n^2 entries
        sums = [found[case, method]["sum"] for method in run.DIAGONALS]
        np.testing.assert_allclose(sums, sums[-1], rtol=1e-4)
    for sweep in cases.SWEEPS.values():
        assert all((case, method) in found for case in sweep for method in run.SWEPT)
