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

    yield cases, run, with_jax
    for name in ("cases", "run", "with_jax"):
        sys.modules.pop(name)


@pytest.mark.parametrize("equation", ["wave", "laplace3d"])
def test_all_methods_agree(modules, equation):
    cases, run, with_jax = modules
    case = cases.Case(equation, 2, 9, 5)
    kernels = [np.asarray(with_jax.METHODS[method](case, "float64")()) for method in run.KERNELS]
    diagonals = [np.asarray(with_jax.METHODS[method](case, "float64")()) for method in run.DIAGONALS]
    for kernel in kernels:
        np.testing.assert_allclose(kernel, kernels[-1], rtol=1e-11, atol=1e-11 * np.abs(kernels[-1]).max())
    for diagonal in diagonals:
        np.testing.assert_allclose(diagonal, np.diag(kernels[-1]), rtol=1e-11)


@pytest.mark.slow
def test_all_ways_to_train_take_the_same_steps(monkeypatch):
    """In double precision, all loops reach the same parameters from the same initialisation and batches."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import training

    runs = training.methods(steps=3)
    plain, channels, library = (jax.tree.leaves(runs[name]()) for name in ("plain", "channels", "library"))
    for a, b, c in zip(plain, channels, library, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(c, a, rtol=1e-9, atol=1e-12)
    sys.modules.pop("training")


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
