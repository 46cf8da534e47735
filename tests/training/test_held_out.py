"""Losses at held-out points, and stopping by them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pinnntk_lib as pn
from conftest import same
from pinnntk_lib.training._log import Log
from pinnntk_lib.training._stops import Stops


@pytest.fixture(scope="module")
def noisy():
    """A polynomial of degree 11 through 13 noisy values of a sine, and 12 values to be held out."""
    x, noise = jnp.linspace(0, 1, 25)[:, None], 0.3 * jax.random.normal(jax.random.key(1), (25,))
    values = np.asarray(jnp.sin(2 * jnp.pi * x[:, 0]) + noise)

    def problem(part):
        fit = pn.Condition(lambda u, x: u(x), values[part], lambda n, key: x[part])
        return pn.Problem({"data": fit}, (0.0,), (1.0,))

    def apply(params, x):
        return params @ jnp.cos(jnp.arange(12) * jnp.arccos(jnp.clip(2 * x[0] - 1, -1, 1)))

    train, rest = slice(0, None, 2), slice(1, None, 2)
    return apply, problem(train), {"data": x[train]}, (problem(rest), {"data": x[rest]})


def fit(noisy, steps=4000, **options):
    apply, problem, points, held_out = noisy
    options = {"held_out": held_out, "log_every": 10, "progress": False} | options
    return pn.train(apply, jnp.zeros(12), problem, points, optax.sgd(0.1), steps, **options)


def test_held_out_losses_are_mean_squares(wave):
    model, params, problem, points = wave
    kept = problem.points({"u": 5, "ut": 4, "r": 9}, jax.random.key(7))
    held_out = {"r": kept["r"], "u": kept["u"]}
    result = pn.train(model.apply, params, problem, points, optax.sgd(1e-5), 3, log_every=1, held_out=held_out)
    residuals = problem.residuals(lambda x: model.apply(result.params, x), kept)
    assert list(result.history["held_out"]) == ["u", "r"]
    for name in held_out:
        assert np.isclose(result.history["held_out"][name][-1], np.mean(residuals[name] ** 2), rtol=1e-12)


def test_noise_is_not_fitted(noisy):
    """The training loss falls throughout; the held-out loss has a minimum, at which the run stops."""
    whole, early = fit(noisy), fit(noisy, patience=20)
    losses = whole.history["held_out"]["data"]
    least = int(np.argmin(losses[: len(early.history["step"])]))
    step, params = early.best
    assert losses[-1] > 1.05 * losses[least]
    assert (np.diff(whole.history["losses"]["data"]) < 0).all()
    assert step == whole.history["step"][least]
    assert early.history["step"][-1] == step + 200 == int(early.state.step)
    apply, problem, points, _ = noisy
    assert same(params, pn.train(apply, jnp.zeros(12), problem, points, optax.sgd(0.1), int(step)).params)


@pytest.mark.parametrize("after", [-20, 50, 53])
def test_stopping_survives_a_restart(noisy, tmp_path, after):
    """Also where the run was interrupted between two rows: this row does not count."""
    whole = fit(noisy, patience=20)
    stop = int(whole.best[0]) + after
    part = fit(noisy, stop, patience=20, checkpoints=tmp_path, checkpoint_every=10)
    for source in (tmp_path, part):
        resumed = fit(noisy, patience=20, resume=source)
        assert same((whole.state, whole.best), (resumed.state, resumed.best))
        extra = [] if stop % 10 == 0 else [stop]
        assert sorted({*whole.history["step"].tolist(), *extra}) == resumed.history["step"].tolist()


def test_losses_are_compared_by_the_newest_weights(poisson):
    """With the weights of Algorithm 1, which change, the best row is the best by the weights of its own time."""
    model, params, problem, points = poisson
    setting = model.apply, params, problem, points, optax.adam(1e-3), 60, pn.NTKWeights(5)
    history = (result := pn.train(*setting, log_every=10, held_out=problem.points(7))).history
    best = 0
    for row in range(len(history["step"])):
        of = [sum(history["weights"][n][row] * history["held_out"][n][i] for n in ("u", "r")) for i in (row, best)]
        best = row if of[0] < of[1] else best
    assert result.best[0] == history["step"][best]


def test_a_system_and_a_snapshot_at_the_best_step():
    problem = pn.problems.Schrodinger1D()
    model, points = pn.MLP(6, dim=2), problem.points(6)
    params = [model.init(key) for key in jax.random.split(jax.random.key(0))]

    def apply(params, x):
        return jnp.stack([model.apply(part, x) for part in params])

    options = {"held_out": problem.points(9), "snapshots": [4], "log_every": 2}
    result = pn.train(apply, params, problem, points, optax.adam(1e-3), 4, **options)
    residuals = problem.residuals(lambda x: apply(result.params, x), options["held_out"])
    assert all(np.isclose(result.history["held_out"][n][-1], np.mean(r**2), rtol=1e-10) for n, r in residuals.items())
    resumed = pn.train(apply, params, problem, points, optax.adam(1e-3), 8, resume=result, **options)
    assert list(resumed.snapshots) == [4]


def test_losses_that_are_not_finite_are_never_the_best(noisy):
    state = fit(noisy, 1).state
    log = Log(pn.Result({}, state), None, 1000, Stops(100, 10, [], 0), patience=1)
    best = []
    for step, loss in enumerate((np.nan, 2.0, np.nan, 1.0, 3.0)):
        row = {"step": 10 * step, "losses": {"data": 1.0}, "weights": {"data": 1.0}, "held_out": {"data": loss}}
        log.record(state, row)
        best.append(log.result(state).best)
    assert [found and found[0] for found in best] == [None, 10, 10, 30, 30]
    assert log.stale


@pytest.mark.parametrize(("first", "then"), [(["u", "r"], ["r"]), (["r"], ["u", "r"]), (["r"], None), (None, ["r"])])
def test_a_resumed_run_has_the_same_held_out_conditions(poisson, first, then):
    model, params, problem, points = poisson
    kept = problem.points(5)
    options = [{"held_out": names and {name: kept[name] for name in names}} for names in (first, then)]
    setting = model.apply, params, problem, points, optax.sgd(1e-6)
    result = pn.train(*setting, 5, **options[0])
    with pytest.raises(ValueError, match=r"held_out: expected those of the resumed run, .*, got .*; to begin a second"):
        pn.train(*setting, 10, resume=result, **options[1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"held_out": None, "patience": 3}, ValueError, "held_out: expected points, since patience is 3, got None"),
        ({"patience": 0}, ValueError, "patience: expected a positive integer, got 0"),
        ({"held_out": 3}, TypeError, r"held_out: expected {name: \(n, d\) array}, or a pair .* got int"),
        (
            {"held_out": {"other": jnp.zeros((3, 1))}},
            ValueError,
            r"held_out: .* conditions, \['data'\], got \['other'\]",
        ),
    ],
)
def test_bad_input(noisy, options, error, message):
    with pytest.raises(error, match=message):
        fit(noisy, 5, **options)


@pytest.mark.parametrize(
    ("x", "target", "error", "message"),
    [
        (jnp.ones((3, 2)), 0.0, ValueError, "held_out: expected points of dimension 1, as in the problem, got 2"),
        (jnp.full((3, 1), jnp.nan), 0.0, ValueError, r"held_out\['u'\]: expected finite coordinates"),
        (jnp.zeros((0, 1)), 0.0, ValueError, r"held_out\['u'\]: expected a non-empty array"),
        (jnp.ones((3, 1)), lambda x: jnp.log(x[0] - 2), ValueError, r"held_out\['u'\]: expected a finite initial loss"),
    ],
)
def test_bad_points(poisson, x, target, error, message):
    model, params, problem, points = poisson
    other = pn.Problem({"u": pn.Condition(lambda u, x: u(x), target, None)}, problem.lower, problem.upper)
    with pytest.raises(error, match=message):
        pn.train(model.apply, params, problem, points, optax.sgd(1e-6), 5, held_out=(other, {"u": x}))


def test_there_is_no_best_without_held_out_points(noisy):
    assert fit(noisy, 5, held_out=None).best is None
