"""Closed-form training with a constant kernel, checked against training a model whose kernel is constant."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pinnntk_lib as pn

PROBLEM = pn.problems.Poisson1D(a=2)
POINTS = PROBLEM.points({"u": 4, "r": 9})
TEST = {"u": PROBLEM.grid(7)}


def apply(params, x):
    """A model linear in its parameters, so that its kernel does not depend on them."""
    k = jnp.arange(1.0, 7.0)
    return params["a"] @ jnp.sin(k * x[0]) + params["b"] @ jnp.cos(k * x[0])


PARAMS = {name: jax.random.normal(jax.random.key(i), (6,)) for i, name in enumerate("ab")}
K = pn.ntk(apply, PARAMS, PROBLEM, POINTS)
CROSS = pn.ntk(apply, PARAMS, PROBLEM, POINTS, other_points=TEST)
RESIDUALS = PROBLEM.residuals(lambda x: apply(PARAMS, x), POINTS)


def at(params):
    return jax.vmap(lambda x: apply(params, x))(TEST["u"])


@pytest.mark.parametrize("weights", [None, {"u": 30.0, "r": 0.1}])
def test_gradient_descent_of_a_linear_model(weights):
    model = pn.Linearized(K, RESIDUALS, weights)
    eta = 0.7 * float(model.largest_stable_learning_rate)
    run = pn.train(apply, PARAMS, PROBLEM, POINTS, optax.sgd(eta), 300, weights, log_every=10, progress=False)
    losses = model.losses(run.history["step"], eta)
    for name in K.names:
        np.testing.assert_allclose(losses[name], run.history["losses"][name], rtol=1e-9)
    change = model.change(CROSS, [0, 300], eta)["u"]
    np.testing.assert_allclose(change[0], 0.0, atol=1e-12)
    np.testing.assert_allclose(change[1], at(run.params) - at(PARAMS), atol=1e-10)
    residuals = model.residuals_at([300], eta)
    reached = PROBLEM.residuals(lambda x: apply(run.params, x), POINTS)
    for name in K.names:
        np.testing.assert_allclose(residuals[name][0], reached[name], atol=1e-9)


def test_above_the_stable_rate_it_grows():
    model = pn.Linearized(K, RESIDUALS)
    bound = float(model.largest_stable_learning_rate)
    assert np.isclose(bound, pn.largest_stable_learning_rate(K), rtol=1e-12)
    total = lambda eta: sum(loss[-1] for loss in model.losses([0, 4000], eta).values())  # noqa: E731
    assert total(0.99 * bound) < total(1.01 * bound)
    assert total(1.01 * bound) > 1e6 * sum(loss[0] for loss in model.losses([0], bound).values())


@settings(max_examples=20)
@given(weight=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
def test_flow(weight, seed):
    """Gradient flow solves the differential equation, is a semigroup, and is the limit of small steps."""
    draw = np.random.default_rng(seed)
    residuals = {name: jnp.asarray(draw.normal(size=n)) for name, n in K.sizes}
    weights = {"u": weight, "r": 1.0}
    model = pn.Linearized(K, residuals, weights)
    time = float(model.time_constants[2])
    r = jnp.concatenate([x[0] for x in model.residuals_at([time]).values()])
    # the matrix exponential, computed by an independent routine
    D = np.concatenate([np.full(n, 2 * weights[name] / n) for name, n in K.sizes])
    start = jnp.concatenate([residuals[name] for name in K.names])
    expected = jax.scipy.linalg.expm(-time * K.matrix * D) @ start
    np.testing.assert_allclose(r, expected, atol=1e-9 * abs(start).max())
    halfway = {name: x[0] for name, x in model.residuals_at([time / 2]).items()}
    again = jnp.concatenate([x[0] for x in pn.Linearized(K, halfway, weights).residuals_at([time / 2]).values()])
    np.testing.assert_allclose(again, r, atol=1e-9 * abs(start).max())
    steps = 10**6
    small = jnp.concatenate([x[0] for x in model.residuals_at([steps], time / steps).values()])
    np.testing.assert_allclose(small, r, atol=1e-3 * abs(start).max())
    for one, other in zip(model.change(CROSS, [time]).values(), model.change(CROSS, [steps], time / steps).values()):
        np.testing.assert_allclose(one, other, atol=1e-3 * abs(one).max())


def test_modes_and_energies():
    weights = {"u": 3.0, "r": 1.0}
    model = pn.Linearized(K, RESIDUALS, weights)
    rates = model.rates
    assert (np.diff(rates) <= 0).all()
    assert (rates >= 0).all()
    loss = sum(weights[name] * np.mean(r**2) for name, r in RESIDUALS.items())
    assert np.isclose(model.energies.sum(), 2 * loss, rtol=1e-12)
    # a residual along one mode decays at the rate of that mode
    mode = {name: m[:, 1] for name, m in model.modes.items()}
    alone = pn.Linearized(K, mode, weights).residuals_at([1.0 / float(rates[1])])
    for name in K.names:
        np.testing.assert_allclose(alone[name][0], mode[name] / np.e, atol=1e-10)


def test_a_mode_without_a_rate_moves_what_it_is_told_to():
    """A residual along a mode of rate 0 is constant, so its integral over time is the time itself, not 0/0.

    Such modes occur: repeated boundary points make K singular.
    """
    singular = pn.NTK(jnp.diag(jnp.array([2.0, 0.0])), (("u", 2),))
    cross = pn.NTK(jnp.eye(2), (("u", 2),), (("u", 2),))
    model = pn.Linearized(singular, {"u": jnp.ones(2)})
    np.testing.assert_allclose(model.change(cross, [3.0])["u"][0], [-(1 - np.exp(-6.0)) / 2, -3.0], rtol=1e-12)
    np.testing.assert_allclose(model.change(cross, [30], 0.1)["u"][0], [-(1 - 0.8**30) / 2, -3.0], rtol=1e-12)


def test_an_untrained_network_of_infinite_width():
    """``Linearized`` accepts the kernel of an infinitely wide network, and long training then solves the equation."""
    network = pn.MLP(1, **pn.normalization(POINTS["r"]))
    limit = pn.limit.ntk(network, PROBLEM, POINTS)
    cross = pn.limit.ntk(network, PROBLEM, POINTS, other_points=TEST)
    zero = PROBLEM.residuals(lambda x: 0.0 * x[0], POINTS)
    model = pn.Linearized(limit, zero, {"u": 1e3, "r": 1.0})
    u = model.change(cross, [1e12])["u"][0]
    # after a long time this is kernel interpolation, which satisfies the equation at its nine points
    assert pn.relative_l2_error(u, PROBLEM.exact(TEST["u"])) < 1e-2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pn.Linearized(CROSS, RESIDUALS), "K: expected the kernel of one set of points, got a cross kernel"),
        (lambda: pn.Linearized(K, {"u": RESIDUALS["u"]}), r"residuals: expected the conditions .*missing \['r'\]"),
        (lambda: pn.Linearized(K, RESIDUALS | {"r": jnp.ones(3)}), r"residuals\['r'\]: expected shape \(9,\)"),
        (lambda: pn.Linearized(K, RESIDUALS, {"u": 1.0}), r"weights: expected the conditions .*missing \['r'\]"),
        (lambda: pn.Linearized(K, RESIDUALS).losses(3.0), r"t: expected an array \(T,\)"),
        (lambda: pn.Linearized(K, RESIDUALS).losses([-1.0]), r"t: expected an array \(T,\)"),
        (lambda: pn.Linearized(K, RESIDUALS).losses([1], -0.1), "learning_rate: expected a positive number, got -0.1"),
        (lambda: pn.Linearized(K, RESIDUALS).losses([float("nan")]), r"t: expected an array \(T,\)"),
        (
            lambda: pn.Linearized(K, RESIDUALS).change(K, [1.0]),
            "cross: expected a cross kernel, got the kernel of one set of points",
        ),
        (
            lambda: pn.Linearized(K, RESIDUALS).change(pn.NTK(jnp.eye(2), (("u", 2),), (("u", 2),)), [1.0]),
            r"cross: expected a cross kernel with rows \(\('u', 4\), .*, got rows \(\('u', 2\),\)",
        ),
        (
            lambda: pn.Linearized(K, RESIDUALS | {"r": jnp.full(9, jnp.nan)}),
            r"residuals\['r'\]: expected finite numbers, got NaN or infinity",
        ),
        (
            lambda: pn.Linearized(K, RESIDUALS, {"u": -1.0, "r": 1.0}),
            r"weights\['u'\]: expected a number that is not negative, got",
        ),
        (
            lambda: pn.Linearized(K, RESIDUALS, {"u": np.nan, "r": 1.0}),
            r"weights\['u'\]: expected a finite number, got",
        ),
        (
            lambda: pn.largest_stable_learning_rate(K, {"u": 1.0, "r": jnp.asarray(0.0)}),
            r"weights\['r'\]: expected a positive number, got 0.0",
        ),
        (lambda: pn.largest_stable_learning_rate(CROSS), "K: expected the kernel of one set of points, got a cross"),
        (
            lambda: pn.largest_stable_learning_rate(pn.NTK(jnp.full((2, 2), jnp.nan), (("u", 2),))),
            "K: expected a kernel of finite numbers, got NaN or infinity",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pn.Linearized(K.matrix, RESIDUALS), "K: expected a kernel, as pinnntk_lib.ntk returns, got"),
        (lambda: pn.Linearized(K, [1.0]), r"residuals: expected {name: \(n_name,\) array}, got list"),
        (
            lambda: pn.Linearized(K, RESIDUALS | {"u": jnp.ones(4, int)}),
            r"residuals\['u'\]: expected real floating-point numbers, got int64",
        ),
        (
            lambda: pn.Linearized(K, RESIDUALS | {"u": jnp.ones(4, complex)}),
            r"residuals\['u'\]: expected real floating-point numbers, got complex128",
        ),
        (lambda: pn.Linearized(K, RESIDUALS).change(K.matrix, [1.0]), "cross: expected a cross kernel, got"),
        (lambda: pn.largest_stable_learning_rate(K, 3.0), "weights: expected {name: number}, got 3.0"),
    ],
)
def test_wrong_types(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_weights_may_be_jax_scalars_traced_or_not():
    weights = {name: jnp.asarray(2.0) for name in K.names}
    bound = pn.largest_stable_learning_rate(K, {"u": 2.0, "r": 2.0})
    assert pn.largest_stable_learning_rate(K, weights) == bound
    assert np.isclose(jax.jit(pn.largest_stable_learning_rate)(K, weights), bound, rtol=1e-12)
