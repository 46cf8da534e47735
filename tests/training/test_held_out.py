"""Losses at held-out points, and stopping by them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pinnntk_lib as pn
from conftest import same


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
    assert losses[-1] > 1.05 * losses[least]
    assert (np.diff(whole.history["losses"]["data"]) < 0).all()
    assert early.best_step == whole.history["step"][least]
    assert early.history["step"][-1] == early.best_step + 200 == int(early.state.step)
    assert same(early.best_params, pn.train(*_setting(noisy), early.best_step).params)


def _setting(noisy):
    apply, problem, points, _ = noisy
    return apply, jnp.zeros(12), problem, points, optax.sgd(0.1)


def test_stopping_survives_a_restart(noisy, tmp_path):
    whole = fit(noisy, patience=20)
    for stop in (whole.best_step - 20, whole.best_step + 50):
        fit(noisy, stop, patience=20, checkpoints=tmp_path / str(stop), checkpoint_every=10)
        resumed = fit(noisy, patience=20, resume=tmp_path / str(stop))
        assert same((whole.state, whole.history, whole.snapshots), (resumed.state, resumed.history, resumed.snapshots))
        assert resumed.best_step == whole.best_step


def test_snapshots_that_were_asked_for_stay(noisy):
    result = fit(noisy, 50, snapshots=[0, 20], log_every=10)
    assert set(result.snapshots) == {0, 20, result.best_step}


def test_losses_are_compared_by_the_newest_weights(poisson):
    """With the weights of Algorithm 1, which change, the best row is the best by the weights of its own time."""
    model, params, problem, points = poisson
    setting = model.apply, params, problem, points, optax.adam(1e-3), 60, pn.NTKWeights(5)
    history = (result := pn.train(*setting, log_every=10, held_out=problem.points(7))).history
    best = 0
    for row in range(len(history["step"])):
        of = [sum(history["weights"][n][row] * history["held_out"][n][i] for n in ("u", "r")) for i in (row, best)]
        best = row if of[0] < of[1] else best
    assert result.best_step == history["step"][best]


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


def test_no_best_parameters_without_held_out_points(noisy):
    with pytest.raises(ValueError, match="best_params: expected the result of a run with held_out points"):
        _ = fit(noisy, 5, held_out=None).best_params
