"""All methods in the benchmarks compute the same result; their time and memory are not tested."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import pinnntk_lib as pn

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


@pytest.mark.slow
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


def run_gpu(*options):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def check_errors(record):
    """Check the library's errors in float32 and float64, and in training, in a record of gpu.py."""
    bounds = {"float32": 1e-5, "float64": 1e-12, "against the CPU": 1e-8}
    for row in record["parts"]["correctness"]:
        bound = bounds[row["what"].rpartition(", ")[2]]
        errors = {name: value for name, value in row.items() if name not in ("what", "bound") and "vmap" not in name}
        assert len(errors) >= 2
        assert all(error < bound for error in errors.values()), row


def test_without_a_gpu_there_is_no_record(tmp_path):
    done = run_gpu("--out", tmp_path / "gpu.json")
    assert done.returncode == 2
    assert done.stderr.startswith("gpu.py: no GPU here")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_gpu_script_measures_every_part(tmp_path):
    """Tiny sizes on the CPU, without a failure; a second run replaces the parts that are asked for, and no others."""
    file = tmp_path / "gpu.json"
    assert run_gpu("--anywhere", "--quick", "--out", file).returncode == 0
    record = json.loads(file.read_text())
    parts = record["parts"]
    assert list(parts) == ["correctness", "costs", "kernel", "diagonal", "training", "descent"]
    assert record["platform"] == "cpu"
    assert record["left_out"] == []
    assert not any("failed" in row for rows in parts.values() for row in rows)
    check_errors(record)
    for part, ours in (("kernel", "auto"), ("diagonal", "ntk_diagonal"), ("training", "library")):
        assert {row["dtype"] for row in parts[part]} == {"float32", "float64"}
        for row in parts[part]:
            assert row["seconds"].keys() > {ours}
            assert all(value > 0 for value in row["seconds"].values())
            assert all(value < 1e-5 for value in row.get("difference", {}).values())
            assert any("default" in name for name in row["seconds"]) == (row["dtype"] == "float32")

    # with no time at all, everything is left out
    assert run_gpu("--anywhere", "--quick", "--out", file, "--parts", "descent", "--seconds", 0).returncode == 0
    again = json.loads(file.read_text())
    assert again["parts"] == {name: rows for name, rows in parts.items() if name != "descent"}
    assert {what.partition(":")[0] for what in again["left_out"]} == {"descent"}
    assert again["earlier"][0]["command"] == record["command"]


def test_the_library_was_exact_on_the_recorded_gpu():
    file = BENCHMARKS.parents[1] / "book/data/gpu.json"
    if not file.exists():
        pytest.skip("no run on a GPU is recorded")
    record = json.loads(file.read_text())
    assert record["platform"] == "gpu"
    check_errors(record)


@pytest.fixture
def damping(monkeypatch):
    """The program that compares rules for damping, and a tiny problem with fewer residuals than parameters."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import damping
    import damping_problems

    monkeypatch.setattr("pinnntk_lib.kernel._normal.MOST_ROWS", 4)
    yield damping, damping_problems.on_fixed_points(pn.problems.Poisson1D(a=1), 8, 1, 9, 20)
    for name in ("damping", "damping_problems"):
        sys.modules.pop(name)


@pytest.mark.slow
def test_steps_are_solved_in_the_space_of_the_residuals_or_of_the_parameters(damping):
    """Both directions are those of a dense Jacobian."""
    damping, case = damping
    params, points = case.init(jax.random.key(0)), case.points(None)
    kernel, gauss_newton = (damping.least_squares(case, space)(params, points) for space in (True, False))
    J = np.asarray(jax.jacrev(kernel.after)(jnp.zeros_like(kernel.gradient)))
    K, r = J @ J.T, np.asarray(kernel.residuals)
    np.testing.assert_allclose(r @ r, sum(np.mean(v**2) for v in exact_residuals(case, params, points)), rtol=1e-12)
    mu = 1e-3 * np.trace(K) / len(K)
    direction = -J.T @ np.linalg.solve(K + mu * np.eye(len(K)), r)
    for system in (kernel, gauss_newton):
        np.testing.assert_allclose(system.mean, np.trace(K) / len(K), rtol=1e-12)
        np.testing.assert_allclose(-system.solver(mu)(r), direction, rtol=1e-9)
        decrease = r @ r - np.sum((r + 0.5 * J @ direction) ** 2)
        np.testing.assert_allclose(system.decrease(direction, mu, 0.5), decrease, rtol=1e-9)


def exact_residuals(case, params, points):
    return case.problem.residuals(lambda x: case.apply(params, x), points).values()


@pytest.mark.slow
def test_one_step_of_every_rule_lowers_the_loss(damping):
    damping, case = damping
    linearise = damping.least_squares(case)
    params, points = case.init(jax.random.key(0)), case.points(None)

    def step(rule):
        system = linearise(params, points)
        found = rule(system, damping.Memory(jnp.array(1e-3), jnp.array(2.0)))
        return found, system.loss, damping.squared(system.after(found.step))

    for name, rule in damping.RULES.items():
        found, before, after = jax.jit(lambda rule=rule: step(rule))()
        assert after < before, name
        assert found.attempts >= 1, name
        assert 0 < found.length <= 1, name


def test_the_record_of_a_comparison_has_every_run(damping, monkeypatch, tmp_path):
    damping, case = damping
    monkeypatch.setitem(damping.PROBLEMS, "tiny", lambda: case)
    file = tmp_path / "damping.json"
    options = {"problems": ["tiny"], "rules": ["nielsen"], "seconds": 1e-9, "seeds": 2, "single": False, "out": file}
    damping.main(SimpleNamespace(**options))
    record = json.loads(file.read_text())
    assert record["precision"] == "float64"
    assert [(row["problem"], row["rule"], row["seed"], row["steps"]) for row in record["rows"]] == [
        ("tiny", "nielsen", seed, 1) for seed in (0, 1)
    ]


# ---------------------------------------------------------------- optimisers


@pytest.fixture
def optimisers(monkeypatch):
    """The program that compares optimisers, and a tiny problem whose points may be drawn anew."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import damping_problems
    import optimisers

    problem, model = pn.problems.Poisson1D(a=1), pn.MLP(8, shift=0.5, scale=0.3)
    sampler = pn.RandomPoints(problem, {"u": 2, "r": 9})
    yield optimisers, damping_problems.Case(problem, model.apply, model.init, sampler, problem.grid(20))
    for name in ("optimisers", "optimiser_methods", "damping_problems"):
        sys.modules.pop(name)


def one_step_of(optimisers, case, name, variant=""):
    """Return the parameters before and after one step of a method, on the same points."""
    seen, method = [], optimisers.METHODS[name][variant]

    def clock(params):
        seen.append(ravel_pytree(params)[0])
        if len(seen) == 2:
            raise optimisers.Stopped

    with pytest.raises(optimisers.Stopped):
        method(case, 0, clock)
    return seen


@pytest.mark.parametrize(("name", "n"), [("ENGD-W", 9), ("SPRING", 9), ("NGD", 9), ("ENGD-W", 40)])
def test_steps_of_others_follow_their_formula(optimisers, name, n):
    """The first step is along -(J^T J + damping I)^-1 J^T r, with fewer residuals than parameters or with more."""
    optimisers, case = optimisers
    points = case.problem.points({"u": 2, "r": n})
    case = dataclasses.replace(case, points=lambda key: points)
    variant = next(iter(optimisers.METHODS[name]))
    before, after = one_step_of(optimisers, case, name, variant)
    _, unravel = ravel_pytree(case.init(jax.random.key(0)))

    def scaled(flat):
        residuals = case.problem.residuals(lambda x: case.apply(unravel(flat), x), points)
        return jnp.concatenate([r / jnp.sqrt(r.size) for r in residuals.values()])

    J, r = jax.jacrev(scaled)(before), scaled(before)
    phi = -jnp.linalg.solve(J.T @ J + float(variant) * jnp.eye(len(before)), J.T @ r)
    eta = (after - before) @ phi / (phi @ phi)
    assert np.allclose(after - before, eta * phi, rtol=1e-4, atol=1e-6 * abs(phi).max())
    assert 0 < eta <= 1
    assert (scaled(after) ** 2).sum() < (r**2).sum()


def test_soap_is_adam_in_the_eigenbasis_of_the_gradient(optimisers):
    """For gradients that are always diagonal, this basis is that of the axes."""
    import optimiser_methods

    gradient = jnp.diag(jnp.array([3.0, 1.0, 0.2]))
    optimizer, params = optimiser_methods.soap(lambda count: 1e-2), jnp.zeros((3, 3))
    state = optimizer.init(params)
    for _ in range(12):
        updates, state = optimizer.update(gradient, state, params)
        params = params + updates
    np.testing.assert_allclose(params, -0.12 * np.eye(3), rtol=1e-6, atol=1e-9)  # 12 steps of the rate


@pytest.mark.slow
def test_the_record_of_optimisers_has_every_run(optimisers, monkeypatch, tmp_path):
    optimisers, case = optimisers
    monkeypatch.setitem(optimisers.PROBLEMS, "tiny", lambda: case)
    monkeypatch.setitem(optimisers.SECONDS, "tiny", 0.3)
    file, methods = tmp_path / "peers.json", ["kernel descent", "ENGD-W", "L-BFGS", "residual-based points"]
    file.write_text('{"other": {"runs": []}}')
    optimisers.main(SimpleNamespace(problems=["tiny"], methods=methods, seeds=2, scale=1.0, out=str(file)))
    record = json.loads(file.read_text())
    assert list(record) == ["other", "tiny"]
    runs = record["tiny"]["runs"]
    assert [(run["seed"], run["method"]) for run in runs] == [(seed, name) for seed in (0, 1) for name in methods]
    assert all(run["variant"] in optimisers.METHODS[run["method"]] for run in runs)
    for run in runs:
        steps, seconds, _ = zip(*run["rows"])
        assert sorted(steps) == list(steps)
        assert sorted(seconds) == list(seconds)
    best = min(run["rows"][-1][2] for run in runs if run["method"] == "kernel descent")
    assert best < 1e-3


def test_the_median_time_to_an_error(optimisers):
    optimisers, _ = optimisers
    runs = [{"method": "m", "variant": "", "rows": [[1, t, 0.05], [2, 2 * t, 1e-3]]} for t in (1.0, 2.0, 4.0)]
    assert optimisers.seconds_to(runs[0], 1e-2) == 2.0
    assert optimisers.seconds_to(runs[0], 1e-4) == np.inf
    assert optimisers.table(runs).split("\n")[1].split()[:4] == ["m", "1.0e-03", "2.00", "4.00"]
