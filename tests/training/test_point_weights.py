"""Weights per point, and weight zero."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pinnntk_lib as pn
from pinnntk_lib.kernel import gauss_newton_matrix, jacobian


def test_a_step_follows_the_gradient_of_the_weighted_mean(poisson):
    model, params, problem, points = poisson
    w = jnp.linspace(0.0, 3.0, 10)
    weights = {"u": 2.0, "r": w}
    stepped = pn.train(model.apply, params, problem, points, optax.sgd(1e-3), 1, weights).params

    def loss(params):
        r = problem.residuals(lambda x: model.apply(params, x), points)
        return 2.0 * jnp.mean(r["u"] ** 2) + jnp.mean(w * r["r"] ** 2)

    expected = jax.tree.map(lambda leaf, g: leaf - 1e-3 * g, params, jax.grad(loss)(params))
    for found, leaf in zip(jax.tree.leaves(stepped), jax.tree.leaves(expected)):
        assert np.allclose(found, leaf, rtol=1e-12, atol=1e-13)


@given(c=st.floats(0.01, 100.0))
def test_equal_weights_per_point_are_one_weight(c):
    problem, model = pn.problems.Poisson1D(a=2), pn.MLP(8)
    setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(10), optax.sgd(1e-5)
    one = pn.train(*setting, 3, {"u": 1.0, "r": c}, log_every=1)
    each = pn.train(*setting, 3, {"u": 1.0, "r": np.full(10, c)}, log_every=1)
    assert np.allclose(one.history["losses"]["r"], each.history["losses"]["r"], rtol=1e-12)
    assert np.allclose(each.history["weights"]["r"], c, rtol=1e-12)


def test_points_without_weight_might_as_well_not_be_there(poisson):
    model, params, problem, points = poisson
    some = np.arange(10) % 2 == 0
    fewer = {**points, "r": points["r"][some]}
    setting = model.apply, params, problem
    all_points = pn.train(*setting, points, optax.adam(1e-2), 20, {"u": 1.0, "r": 2.0 * some}).params
    half = pn.train(*setting, fewer, optax.adam(1e-2), 20).params
    for a, b in zip(jax.tree.leaves(all_points), jax.tree.leaves(half)):
        assert np.allclose(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [{"u": 10, "r": 10}, {"u": 2, "r": 60}], ids=["fewer residuals", "fewer parameters"])
def test_kernel_descent_knows_weights_per_point(sizes):
    """A condition with weights w is the condition times sqrt(w), with weight 1, for this optimiser too."""
    problem = pn.problems.Poisson1D(a=2)
    model = pn.MLP(12, shift=0.5, scale=0.3)
    params, points = model.init(jax.random.key(0)), problem.points(sizes)
    r = problem.conditions["r"]
    w = lambda x: 1.0 + 3.0 * x[0]  # noqa: E731
    scaled = pn.Condition(
        lambda u, x: jnp.sqrt(w(x)) * r.operator(u, x), lambda x: jnp.sqrt(w(x)) * r.target(x), r.sampler
    )
    other = pn.Problem({**problem.conditions, "r": scaled}, problem.lower, problem.upper)
    weights = {"u": 1.0, "r": np.array([w(x) for x in points["r"]])}
    descent = pn.kernel_gradient_descent()
    by_weights = pn.train(model.apply, params, problem, points, descent, 4, weights).params
    by_operator = pn.train(model.apply, params, other, points, descent, 4).params
    for a, b in zip(jax.tree.leaves(by_weights), jax.tree.leaves(by_operator)):
        assert np.allclose(a, b, rtol=1e-6, atol=1e-8)


def test_the_gauss_newton_matrix_takes_scales_per_point(poisson):
    model, params, problem, points = poisson
    scales = {"u": 0.5, "r": jnp.linspace(0, 1, 10)}
    J = jacobian(model.apply, params, problem, points, dict.fromkeys(points, 1.0))
    rows = np.concatenate([np.full(10, 0.5), scales["r"]])
    scaled = rows[:, None] * J
    assert np.allclose(jacobian(model.apply, params, problem, points, scales), scaled, rtol=1e-12)
    G = gauss_newton_matrix(model.apply, params, problem, points, scales, memory=20_000)
    assert np.allclose(G, scaled.T @ scaled, rtol=1e-10, atol=1e-10 * np.abs(G).max())


@pytest.mark.slow
def test_a_system_has_one_weight_per_point():
    problem = pn.problems.Schrodinger1D()
    points = problem.points(12)
    network = pn.MLP(8, dim=2)

    def apply(params, x):
        return jnp.stack([network.apply(part, x) for part in params])

    params = [network.init(key) for key in jax.random.split(jax.random.key(0))]
    weights = {name: np.ones(len(x)) for name, x in points.items()}
    setting = apply, params, problem, points
    for optimizer in (optax.sgd(1e-3), pn.kernel_gradient_descent()):
        plain, each = (pn.train(*setting, optimizer, 2, w).history["losses"]["r"] for w in (None, weights))
        assert np.allclose(plain, each, rtol=1e-8)


def test_weight_zero_switches_a_condition_off(poisson):
    model, params, problem, points = poisson
    only = pn.Problem({"r": problem.conditions["r"]}, problem.lower, problem.upper, problem.exact)
    off = pn.train(model.apply, params, problem, points, optax.sgd(1e-5), 50, {"u": 0.0, "r": 1.0})
    alone = pn.train(model.apply, params, only, {"r": points["r"]}, optax.sgd(1e-5), 50)
    assert np.allclose(off.history["losses"]["r"], alone.history["losses"]["r"], rtol=1e-10)
    assert off.history["weights"]["u"].tolist() == [0.0, 0.0]
    found = pn.diagnose(model.apply, params, problem, points, weights={"u": 0.0, "r": 1.0})
    assert list(found.rates) == ["r"]
    alone = pn.diagnose(model.apply, params, only, {"r": points["r"]})
    assert found.condition_number == pytest.approx(alone.condition_number)
    of_operators = pn.diagnose(model.apply, params, problem.operators, points, weights={"u": 0, "r": 1})
    assert list(of_operators.rates) == ["r"]


def test_causal_weights_are_their_formula(wave):
    model, params, problem, points = wave
    view = None

    @dataclass(frozen=True)
    class Spy:
        def init(self, names):
            return {}

        def update(self, state, seen):
            nonlocal view
            view = seen
            return dict.fromkeys(seen.operators, jnp.ones(())), state

    weighting = pn.CausalWeights(epsilon=1e-3, bins=4, weights={"u": 7.0, "ut": 1.0, "r": 2.0})
    names = list(problem.conditions)
    pn.train(model.apply, params, problem, points, optax.sgd(0.0), 1, Spy())
    t = np.asarray(points["r"][:, 0])
    r = np.asarray(problem.residuals(lambda x: model.apply(params, x), points)["r"])
    seen = view._replace(
        params=params, points=points, residuals=lambda p: problem.residuals(lambda x: model.apply(p, x), points)
    )
    weights, _ = weighting.update(weighting.init(names), seen)
    edges = np.linspace(t.min(), t.max(), 5)
    interval = np.clip(np.searchsorted(edges, t, side="right") - 1, 0, 3)
    means = [np.mean(r[interval == k] ** 2) if (interval == k).any() else 0.0 for k in range(4)]
    expected = [2.0 * np.exp(-1e-3 * sum(means[:k])) for k in interval]
    assert np.allclose(weights["r"], expected, rtol=1e-10)
    assert float(weights["u"]) == 7.0


def test_residual_attention_is_its_formula(poisson):
    model, params, problem, points = poisson
    weighting = pn.ResidualAttention({"r": 10}, rate=0.1, decay=0.9, weights={"u": 5.0, "r": 3.0})
    result = pn.train(model.apply, params, problem, points, optax.sgd(0.0), 2, weighting)
    r = np.abs(np.asarray(problem.residuals(lambda x: model.apply(params, x), points)["r"]))
    multipliers = 0.1 * (1 + 0.9) * r / r.max()
    assert np.allclose(result.state.weighting_state["multipliers"]["r"], multipliers, rtol=1e-10)
    assert result.history["weights"]["r"][0] == pytest.approx(3.0 * np.mean((0.1 * r / r.max()) ** 2))
    assert result.history["weights"]["u"].tolist() == [5.0, 5.0]


def test_what_point_weightings_refuse(poisson):
    model, params, problem, points = poisson

    def train(weighting, points=points, **more):
        return pn.train(model.apply, params, problem, points, optax.sgd(1e-5), 2, weighting, **more)

    with pytest.raises(ValueError, match=r"condition: expected one of \['u', 'r'\], got 'f'"):
        train(pn.CausalWeights(condition="f"))
    with pytest.raises(ValueError, match=r"axis: expected a coordinate from 0 to 0, got 1"):
        train(pn.CausalWeights(axis=1))
    with pytest.raises(ValueError, match=r"n: expected the conditions \[\], got \['f'\]"):
        train(pn.ResidualAttention({"f": 3}))
    with pytest.raises(ValueError, match=r"n for condition 'r': expected its 10 points, got 3"):
        train(pn.ResidualAttention({"r": 3}))
    with pytest.raises(TypeError, match=r"n: expected {name: number of points}, got 10"):
        pn.ResidualAttention(10)
    with pytest.raises(
        ValueError, match="points: expected fixed points, since ResidualAttention has a weight for each"
    ):
        train(pn.ResidualAttention({"r": 10}), pn.RandomPoints(problem, 10), key=jax.random.key(0))


@pytest.mark.slow
def test_causality_trains_the_beginning_first():
    problem = pn.problems.Advection1D()
    model = pn.MLP(30, depth=2, dim=2, shift=(0.5, np.pi), scale=(0.3, 1.8), parameterization="standard")
    points = problem.points({"u": 100, "b": 50, "r": 300})
    setting = model.apply, model.init(jax.random.key(0)), problem, points, optax.adam(1e-3)
    early = {}
    for name, weights in (("plain", None), ("causal", pn.CausalWeights(epsilon=20.0, bins=10))):
        params = pn.train(*setting, 1500, weights).params
        grid = problem.grid(30)
        first = grid[grid[:, 0] < 0.2 * grid[:, 0].max()]
        u = jax.vmap(lambda x, p=params: model.apply(p, x))(first)
        early[name] = float(pn.relative_l2_error(u, problem.exact(first)))
    assert early["causal"] < early["plain"]
