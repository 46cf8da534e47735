import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pinnntk_lib as pn
from pinnntk_lib.weighting import View

SGD = optax.sgd(1e-6)


def weights_at(setup, weighting, points=None, step=0, state=None):
    model, params, problem, default = setup
    view = View(jnp.asarray(step), model.apply, params, problem.operators, default if points is None else points)
    return weighting.update(weighting.init(list(problem.conditions)) if state is None else state, view)[0]


def test_algorithm_1(poisson, wave):
    """lambda_i = Tr(K)/Tr(K_ii) where every condition has as many points as the next, for any number of conditions."""
    for setup in (poisson, wave):
        model, params, problem, points = setup
        K = pn.ntk(model.apply, params, problem, points)
        for normalize in ("mean", "trace"):
            weights = weights_at(setup, pn.NTKWeights(normalize=normalize))
            for name in K.names:
                assert np.isclose(weights[name], K.trace() / K.trace(name), rtol=1e-12)


def test_repeating_points_changes_no_weight(poisson):
    """Means do not see how often a point is repeated, nor do the losses; traces do."""
    _, _, _, points = poisson
    repeated = {"u": jnp.tile(points["u"], (5, 1)), "r": points["r"]}
    mean = [weights_at(poisson, pn.NTKWeights(), x) for x in (points, repeated)]
    assert np.isclose(mean[0]["u"], mean[1]["u"], rtol=1e-12)
    assert np.isclose(mean[0]["r"], mean[1]["r"], rtol=1e-12)
    trace = [weights_at(poisson, pn.NTKWeights(normalize="trace"), x) for x in (points, repeated)]
    assert np.isclose(trace[1]["u"] / trace[1]["r"], trace[0]["u"] / trace[0]["r"] / 5, rtol=1e-12)


def test_the_weighted_rates_are_equal(wave):
    model, params, problem, points = wave
    weights = weights_at(wave, pn.NTKWeights())
    K = pn.ntk(model.apply, params, problem, points)
    rates = [float(weights[name] * K.convergence_rate(name)) for name in K.names]
    assert np.allclose(rates, rates[0], rtol=1e-12)


def test_the_schedule(poisson):
    model, params, problem, points = poisson
    result = pn.train(model.apply, params, problem, points, SGD, 25, pn.NTKWeights(every=10), log_every=1)
    changes = np.flatnonzero(np.diff(result.history["weights"]["u"])) + 1
    assert changes.tolist() == [10, 20]
    assert np.isclose(result.history["weights"]["u"][0], weights_at(poisson, pn.NTKWeights())["u"])


def test_smoothing(poisson):
    new = weights_at(poisson, pn.NTKWeights())
    old = {"u": jnp.asarray(10.0), "r": jnp.asarray(2.0)}
    smooth = pn.NTKWeights(smoothing=0.75)
    assert np.isclose(weights_at(poisson, smooth, step=100, state=old)["u"], 0.75 * 10 + 0.25 * new["u"])
    # there is nothing to smooth at first
    assert np.isclose(weights_at(poisson, smooth)["u"], new["u"])


def test_a_condition_without_gradient_keeps_the_weights_finite():
    def apply(params, x):
        return params["a"] * x[0]  # u_xx is zero, whatever a

    setup = pn.MLP(1), {"a": jnp.array(2.0)}, pn.problems.Poisson1D(), pn.problems.Poisson1D().points(4)
    view = View(jnp.asarray(0), apply, setup[1], setup[2].operators, setup[3])
    weights, _ = pn.NTKWeights().update({"u": jnp.ones(()), "r": jnp.ones(())}, view)
    assert weights == {"u": 1.0, "r": 1.0}


def test_fixed_weights_are_those_given(poisson):
    assert weights_at(poisson, pn.Fixed({"u": 3, "r": 0.25})) == {"u": 3.0, "r": 0.25}
    assert weights_at(poisson, pn.Fixed()) == {"u": 1.0, "r": 1.0}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every": 0}, ValueError, "every: expected a positive integer, got 0"),
        ({"every": 1.0}, TypeError, "every: expected a positive integer, got 1.0"),
        ({"normalize": "max"}, ValueError, "normalize: expected 'mean' or 'trace', got 'max'"),
        ({"smoothing": 1}, ValueError, r"smoothing: expected a number in \[0, 1\), got 1"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        pn.NTKWeights(**arguments)


def test_the_weights_of_a_loss_with_unknown_names(poisson):
    K = pn.ntk(poisson[0].apply, *poisson[1:])
    with pytest.raises(ValueError, match=r"weights: expected the conditions \['u', 'r'\], got unknown \['b'\]"):
        pn.largest_stable_learning_rate(K, {"u": 1, "r": 1, "b": 1})


def test_a_weighting_of_ones_own_trains(poisson):
    """The interface is a pair of functions, and this is all it takes."""

    class Ramp:
        def init(self, names):
            return {name: jnp.ones(()) for name in names}

        def update(self, state, view):
            return {"u": 1.0 + view.step, "r": 1.0}, state

    model, params, problem, points = poisson
    history = pn.train(model.apply, params, problem, points, SGD, 3, Ramp(), log_every=1).history
    assert history["weights"]["u"].tolist() == [1, 2, 3, 4]
