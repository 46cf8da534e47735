"""Trials of remedies, and the evidence of kernels."""

import dataclasses
import importlib
import itertools
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import multivariate_normal

import pinnntk_lib as pn
from pinnntk_lib.__main__ import main

sys.path.insert(0, str(Path(__file__).parents[1] / "diagnosis"))

import seen_cases as cases

remedies = importlib.import_module("pinnntk_lib.comparison._remedies")
turns = importlib.import_module("pinnntk_lib.comparison._compare")


@pytest.fixture
def poisson():
    """The paper's Poisson problem, with a small network and enough points for it."""
    problem = pn.problems.Poisson1D(a=4)
    points = problem.points({"u": 2, "r": 30})
    model = pn.MLP(width=20, **pn.normalization(points["r"]))
    return model, model.init(jax.random.key(0)), problem, points


@pytest.fixture
def clock(monkeypatch):
    """A clock by which every step takes a millisecond, so that no result depends on how busy the machine is."""
    train, now = turns.train, [0.0]

    def timed(*setting, resume, **options):
        now[0] += 1e-3 * (setting[5] - (0 if resume is None else int(resume.state.step)) + 2)  # the two that train adds
        return train(*setting, resume=resume, **options)

    monkeypatch.setattr(turns, "train", timed)
    monkeypatch.setattr(turns, "time", SimpleNamespace(perf_counter=lambda: now[0]))


def compare(*setting, seconds=1.5, **more):
    return pn.compare(*setting, seconds=seconds, progress=False, **more)


@pytest.mark.slow
def test_trials_start_from_the_same_parameters_and_take_equal_time(poisson, clock):
    model, params, problem, points = poisson
    found = compare(model.apply, params, problem, points)
    assert list(found.trials) == ["as it is", "NTK weights", "kernel descent"]
    starts = {name: trial.errors[0] for name, trial in found.trials.items()}
    assert len(set(starts.values())) == 1
    for trial in found.trials.values():
        assert trial.steps[0] == trial.seconds[0] == 0
        assert (np.diff(trial.steps) > 0).all()
        assert (np.diff(trial.seconds) >= 0).all()
        assert 1.5 <= trial.seconds[-1] < 3
        assert trial.diverged is None
        assert pn.relative_l2_error(
            jax.vmap(lambda x, p=trial.params: model.apply(p, x))(problem.grid(1000)), problem.exact(problem.grid(1000))
        ) == pytest.approx(trial.errors[-1])
    assert found.best == "kernel descent"
    assert found.trials["kernel descent"].errors[-1] < 1e-3 * starts["as it is"]
    assert found.ranking == sorted(found.trials, key=lambda name: found.trials[name].errors[-1])


@pytest.mark.slow
def test_the_report_names_the_trial_that_helps(poisson, clock):
    model, params, problem, points = poisson
    found = compare(model.apply, params, problem, points, seconds=1)
    report = str(found)
    assert max(map(len, report.splitlines())) <= 100
    error = found.trials[found.best].errors[-1]
    assert f"Best: kernel descent. After 1 s the relative error is {error:.2g}" in report
    assert "\n   optimizer=pn.kernel_gradient_descent()\n" in report
    assert "<table>" in found._repr_html_()
    assert f"{error:.2g}" in found._repr_html_()
    (axes,) = found.plot().axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == found.ranking
    assert repr(found).startswith("<Comparison of 3 trials: Best: kernel descent.")


@pytest.mark.slow
def test_wrappers_that_findings_suggest_are_tried(clock):
    """Temperatures of 300 at inputs of 1e-3: neither wrapper suffices without the other."""
    value, line = cases.value, cases.line()
    problem = pn.Problem(
        {
            "u": pn.Condition(value, 300.0, lambda n, key: 1e-3 * cases.at(0.0, 1.0)(n, key)),
            "r": pn.Condition(
                lambda u, x: 1e-6 * pn.dd(u, 0)(x),
                lambda x: -1e3 * jnp.sin(3e3 * x[0]),
                lambda n, key: 1e-3 * line(n, key),
            ),
        },
        (0.0,),
        (1e-3,),
    )
    model = pn.MLP(width=40)
    found = compare(model.apply, model.init(jax.random.key(0)), problem, problem.points(30), seconds=1)
    names = list(found.trials)
    assert names[1] == "normalised inputs and scaled output"
    wrapped = found.trials[names[1]]
    assert [line.split("(")[0] for line in wrapped.code] == [
        "apply = pn.models.normalized_inputs",
        "apply = pn.models.scaled_output",
    ]
    assert found.trials["kernel descent"].code[:2] == wrapped.code
    assert found.trials["kernel descent"].worst[-1] < 1e-3
    assert wrapped.worst[-1] < 0.1 * found.trials["as it is"].worst[-1]
    assert wrapped.errors is None
    assert "The solution is not known" in str(found)
    names = {"apply": model.apply, "pn": pn}  # the lines are right as they stand
    exec("\n".join(wrapped.code), names)
    residuals = problem.residuals(lambda x: names["apply"](wrapped.params, x), problem.points(30))
    own = np.sqrt(np.mean(residuals["u"] ** 2)) / found.diagnosis.natural_sizes["u"]
    assert wrapped.residuals["u"][-1] == pytest.approx(float(own), rel=1e-6)  # its points are always the same two


@pytest.mark.slow
def test_a_learning_rate_beyond_the_bound_diverges_and_is_mended(clock):
    problem = pn.problems.Poisson1D(a=1)
    model = pn.MLP(width=300, shift=0.5, scale=0.3)
    setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(20)
    found = compare(*setting, optimizer=optax.sgd(1.0), seconds=0.5)
    plain, stable = found.trials["as it is"], found.trials["a stable learning rate"]
    assert plain.diverged is not None
    assert plain.final == np.inf
    assert found.ranking.index("as it is") > found.ranking.index("a stable learning rate")
    assert stable.diverged is None
    assert f"diverged at step {plain.diverged}" in str(found)
    assert stable.residuals["r"][-1] < stable.residuals["r"][0]


@pytest.mark.slow
def test_residuals_are_fractions_of_natural_sizes_at_held_out_points(poisson):
    model, params, problem, points = poisson
    held_out = problem.points(40, jax.random.key(5))
    found = compare(model.apply, params, problem, points, held_out=held_out, seconds=0.2)
    for trial in found.trials.values():
        residuals = problem.residuals(lambda x, p=trial.params: model.apply(p, x), held_out)
        for name, r in residuals.items():
            expected = np.sqrt(np.mean(r**2)) / found.diagnosis.natural_sizes[name]
            assert trial.residuals[name][-1] == pytest.approx(float(expected), rel=1e-10)


def made(code, error):
    """Return a trial that ends with this error."""
    ends = np.array([1.0, error])
    return pn.comparison.Trial(code, np.array([0, 10]), np.array([0.0, 3.0]), {"r": ends}, ends, None, None)


def test_the_verdict_names_the_best_trial():
    found = pn.Comparison({"as it is": made((), 1.0), "NTK weights": made(("weights",), 0.1)}, None, (), 3.0)
    assert found.verdict == "Best: NTK weights. After 3 s the relative error is 0.1, 10 times smaller than as it is."


def test_code_is_given_only_if_it_helps():
    found = pn.Comparison({"as it is": made((), 0.1), "NTK weights": made(("weights=mine",), 0.06)}, None, (), 3.0)
    assert found.best == "NTK weights"
    for text in (str(found), found._repr_html_()):
        assert "Nothing that was tried halves the relative error in 3 s: it is 0.1 as it is." in text
        assert "weights=mine" not in text
    found = pn.Comparison({"as it is": made((), 0.0), "NTK weights": made(("weights=mine",), 0.0)}, None, (), 3.0)
    assert "Nothing that was tried halves the relative error" in str(found)


@pytest.mark.slow
def test_a_warning_of_all_turns_is_given_once(clock):
    """Kernel descent, which single precision stalls, says in each turn for how many steps it has."""
    problem = pn.Problem({"u": pn.Condition(cases.value, lambda x: jnp.sin(4 * x[0]), cases.line())}, (0.0,), (1.0,))
    model = pn.MLP(width=50)
    params, points = jax.tree.map(lambda a: a.astype(jnp.float32), (model.init(jax.random.key(0)), problem.points(30)))
    said = "kernel descent: kernel_gradient_descent: none of the last"
    with pytest.warns(UserWarning, match=said) as warned:
        compare(model.apply, params, problem, points, seconds=1)
    assert len(warned) == 1
    assert warned[0].filename == __file__


def test_own_trials_join_the_others(poisson, clock):
    model, params, problem, points = poisson
    trials = {"L-BFGS": {"optimizer": optax.lbfgs()}, "sine": {"apply": pn.MLP(12, activation="sin").apply}}
    weights = {"u": 300.0, "r": 1.0}
    found = compare(model.apply, params, problem, points, weights=weights, trials=trials, seconds=0.3)
    assert set(found.trials) == {"as it is", "NTK weights", "kernel descent", *trials}
    assert found.diagnosis.weights == weights
    assert found.diagnosis.verdict != "u"  # which lags with equal weights
    assert found.trials["sine"].errors[0] != found.trials["as it is"].errors[0]
    assert found.trials["sine"].code == ("trials['sine']",)


@pytest.mark.parametrize("weights", [{"u": 0.0, "r": 1.0}, pn.NTKWeights(), {"u": 1.0, "r": np.ones(30)}])
def test_the_diagnosis_has_every_condition_whatever_the_weights(poisson, weights):
    model, params, problem, points = poisson
    found = compare(model.apply, params, problem, points, weights=weights, seconds=0.01)
    assert found.diagnosis.weights == {"u": 1.0, "r": 1.0}


def test_large_problems_are_solved_on_minibatches(poisson, monkeypatch, clock):
    monkeypatch.setattr(remedies, "LARGEST", 20)
    monkeypatch.setattr(remedies, "BATCH", 10)
    model, params, problem, points = poisson
    found = compare(model.apply, params, problem, points, seconds=0.3)
    (line,) = found.trials["kernel descent"].code
    assert line.startswith("points=pn.Minibatches(points, {'u': 1, 'r': 9}), ")


def test_measured_values_are_judged_at_their_own_points(clock):
    x = jnp.linspace(0, 1, 20)[:, None]
    values = np.sin(3 * x[:, 0])
    problem = pn.Problem({"data": pn.Condition(cases.value, values, lambda n, key: x)}, (0.0,), (1.0,))
    model = pn.MLP(width=15)
    found = compare(model.apply, model.init(jax.random.key(0)), problem, {"data": x}, seconds=0.3)
    assert list(found.trials) == ["as it is", "kernel descent"]  # a single condition needs no weights
    assert found.trials["kernel descent"].worst[-1] < 1e-3


@pytest.mark.slow
def test_what_only_a_person_can_mend_is_said():
    cause, make = next(case for case in cases.CASES.values() if case[0] == "unreachable condition")
    *setting, optimizer = make()
    found = compare(*setting, optimizer=optimizer, seconds=0.2)
    assert cause in [finding.name for finding in found.by_hand]
    assert f"Not tried, because it needs you ({cause})" in " ".join(str(found).split())


@pytest.mark.slow
def test_fresh_points_come_from_a_sampler(poisson):
    model, params, problem, _ = poisson
    sampler = pn.RandomPoints(problem, 10)
    found = compare(model.apply, params, problem, sampler, seconds=0.3, key=jax.random.key(2))
    assert found.trials["NTK weights"].steps[-1] > 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no timers that signal")
def test_ctrl_c_returns_what_there_is(poisson, clock, monkeypatch):
    train, legs = turns.train, itertools.count()

    def soon_interrupted(*arguments, **options):
        if next(legs) == 20:
            # again each 2 s, because Python loses a KeyboardInterrupt that comes while a weak reference is removed
            signal.setitimer(signal.ITIMER_REAL, 0.01, 2.0)
        return train(*arguments, **options)

    monkeypatch.setattr(turns, "train", soon_interrupted)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    model, params, problem, points = poisson
    found = compare(model.apply, params, problem, points, seconds=300)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert found.interrupted
    assert "Ctrl-C ended the comparison early." in str(found)
    spent = [trial.seconds[-1] for trial in found.trials.values()]
    assert 0 < max(spent) < 3 * min(spent)


def test_ctrl_c_before_each_trial_has_begun_is_passed_on(poisson, monkeypatch):
    train = turns.train

    def interrupted(*arguments, **options):
        return dataclasses.replace(train(*arguments, **options), interrupted=True)

    monkeypatch.setattr(turns, "train", interrupted)
    model, params, problem, points = poisson
    with pytest.raises(KeyboardInterrupt):
        compare(model.apply, params, problem, points)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"seconds": 0}, ValueError, "seconds: expected a positive number, got 0"),
        ({"trials": {"as it is": {}}}, ValueError, "trials: expected names other than those of the remedies, got 'as"),
        ({"trials": {"a": {"lr": 1}}}, ValueError, r"trials\['a'\]: expected some of .*'weights'\], got \['lr'\]"),
        ({"trials": {"a": 1}}, TypeError, "trials: expected {name: {argument: value}}, got"),
        ({"trials": 7}, TypeError, "trials: expected {name: {argument: value}}, got 7"),
        ({"trials": np.zeros(0)}, TypeError, "trials: expected {name: {argument: value}}, got array"),
        ({"points": lambda: 1}, ValueError, "points: could not be called with a random key: .* takes 0 positional"),
        ({"held_out": {"u": jnp.zeros((3, 1))}}, ValueError, r"held_out: expected the conditions \['u', 'r'\], got"),
    ],
)
def test_compare_refuses_what_cannot_be(poisson, changes, error, message):
    model, params, problem, points = poisson
    with pytest.raises(error, match=message):
        pn.compare(model.apply, params, problem, **{"points": points, "seconds": 0.1, "progress": False, **changes})


def test_compare_needs_targets(poisson):
    model, params, problem, points = poisson
    with pytest.raises(TypeError, match=r"problem: expected a pinnntk_lib\.Problem, got dict"):
        compare(model.apply, params, problem.operators, points)


# ---------------------------------------------------------------- the command

PINN = """
import jax
import pinnntk_lib as pn

problem = pn.problems.Poisson1D(a=2)
points = problem.points(12)
model = pn.MLP(width=10, **pn.normalization(points["r"]))
apply, params = model.apply, model.init(jax.random.key(0))
"""


def test_the_command_diagnoses_and_compares(tmp_path, capsys):
    file = tmp_path / "mine.py"
    (tmp_path / "beside.py").write_text("WIDTH = 10")
    file.write_text(
        PINN.replace("width=10", "width=WIDTH") + 'trials = {"fixed": {"weights": {"u": 100.0, "r": 1.0}}}\n'
    )
    file.write_text("from beside import WIDTH\n" + file.read_text())
    picture = tmp_path / "trials.svg"
    assert main(["compare", str(file), "--seconds", "0.3", "--figure", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "24 residuals of 31 parameters" in printed
    assert "fixed" in printed
    assert "Best: " in printed or "Nothing that was tried halves" in printed
    assert picture.read_text().lstrip().startswith("<?xml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("apply = 1", "expected it to define apply, params, problem, points; params, problem, points missing"),
        (PINN + "points = {}", "ValueError: points: expected the conditions"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, capsys, text, message):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    assert main(["compare", str(file)]) == 1
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------- evidence


def test_the_evidence_is_that_of_a_gaussian_with_the_best_amplitude(poisson):
    model, params, problem, points = poisson
    K = pn.ntk(model.apply, params, problem, points)
    r = np.concatenate(list(problem.residuals(lambda x: model.apply(params, x), points).values()))
    root = np.concatenate([np.full(n, np.sqrt(n / K.trace(name))) for name, n in K.sizes])
    A = root[:, None] * np.asarray(K.matrix) * root
    C = np.asarray(K.matrix) + np.diag(1e-8 * np.linalg.eigvalsh(A)[-1] / root**2)
    amplitudes = float(r @ np.linalg.solve(C, r) / len(r)) * np.array([0.9, 1.0, 1.1])
    densities = [multivariate_normal.logpdf(r, cov=s * C, allow_singular=False) for s in amplitudes]
    assert densities[1] == max(densities)
    assert pn.log_evidence(model.apply, params, problem, points) == pytest.approx(densities[1], rel=1e-6)


def test_the_evidence_changes_as_a_density_does(poisson):
    """A condition in other units, c r for r, divides the density by c at each of its points."""
    model, params, problem, points = poisson
    condition = problem.conditions["r"]
    scaled = pn.Condition(
        lambda u, x: 1e3 * condition.operator(u, x), lambda x: 1e3 * condition.target(x), condition.sampler
    )
    other = pn.Problem({**problem.conditions, "r": scaled}, problem.lower, problem.upper)
    before, after = (pn.log_evidence(model.apply, params, p, points) for p in (problem, other))
    assert before - after == pytest.approx(len(points["r"]) * np.log(1e3), rel=1e-5)


@pytest.mark.parametrize(("a", "expected"), [(1, (1.0, 4.0)), (4, (2.0, 8.0)), (16, (8.0, 32.0))])
def test_the_bandwidth_follows_the_solutions_frequency(a, expected):
    problem = pn.problems.Poisson1D(a=a)
    points, model = problem.points(100), pn.MLP(width=60, dim=60)
    directions = jax.random.normal(jax.random.key(1), (30, 1))
    params = model.init(jax.random.key(0))
    bandwidth = pn.fourier_bandwidth(model.apply, params, problem, points, directions)
    assert expected[0] <= bandwidth <= expected[1]


def test_bandwidths_must_be_positive(poisson):
    _, _, problem, points = poisson
    model = pn.MLP(width=5, dim=4)
    setting = model.apply, model.init(jax.random.key(0)), problem, points, np.ones((2, 1))
    with pytest.raises(ValueError, match=r"bandwidths\[1\]: expected a positive number, got 0"):
        pn.fourier_bandwidth(*setting, bandwidths=[1.0, 0.0])
    with pytest.raises(ValueError, match="bandwidths: expected at least one positive number, got none"):
        pn.fourier_bandwidth(*setting, bandwidths=[])
    with pytest.raises(TypeError, match="bandwidths: expected real numbers, got"):
        pn.fourier_bandwidth(*setting, bandwidths=[jax.random.key(0)])
    with pytest.raises(TypeError, match="bandwidths: expected a list of positive numbers, got 2"):
        pn.fourier_bandwidth(*setting, bandwidths=2)
    with pytest.raises(TypeError, match=r"problem: expected a pinnntk_lib.Problem, got dict"):
        pn.log_evidence(*setting[:2], problem.operators, points)
