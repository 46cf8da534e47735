import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import pinnntk_lib as pn
from pinnntk_lib.training import View
from pinnntk_lib.training._step import run_steps

SGD = optax.sgd(1e-6)


def losses_of(setup, points):
    model, _, problem, _ = setup

    def losses(params):
        residuals = problem.residuals(lambda x: model.apply(params, x), points)
        return {name: jnp.mean(r**2) for name, r in residuals.items()}

    return losses


def weights_at(setup, weighting, points=None, step=0, state=None):
    model, params, problem, default = setup
    points = default if points is None else points
    view = View(jnp.asarray(step), model.apply, params, problem.operators, points, losses_of(setup, points), None)
    return weighting.update(weighting.init(list(problem.conditions)) if state is None else state, view)[0]


def test_algorithm_1(poisson, wave):
    """If all conditions have equally many points, lambda_i = Tr(K)/Tr(K_ii), for any number of conditions."""
    for setup in (poisson, wave):
        model, params, problem, points = setup
        K = pn.ntk(model.apply, params, problem, points)
        for normalize in ("mean", "trace"):
            weights = weights_at(setup, pn.NTKWeights(normalize=normalize))
            for name in K.names:
                assert np.isclose(weights[name], K.trace() / K.trace(name), rtol=1e-12)


def test_repeating_points_changes_no_weight(poisson):
    """Repeating points changes neither the losses nor the weights from means; it does change those from traces."""
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
    old = {"weights": {"u": jnp.asarray(10.0), "r": jnp.asarray(2.0)}, "points": {}}
    smooth = pn.NTKWeights(smoothing=0.75)
    assert np.isclose(weights_at(poisson, smooth, step=100, state=old)["u"], 0.75 * 10 + 0.25 * new["u"])
    # at step 0 there is nothing to smooth
    assert np.isclose(weights_at(poisson, smooth)["u"], new["u"])


def test_a_condition_without_gradient_keeps_the_weights_finite():
    def apply(params, x):
        return params["a"] * x[0]  # u_xx is zero for every a

    setup = pn.MLP(1), {"a": jnp.array(2.0)}, pn.problems.Poisson1D(), pn.problems.Poisson1D().points(4)
    view = View(jnp.asarray(0), apply, setup[1], setup[2].operators, setup[3], None, None)
    weights, _ = pn.NTKWeights().update(pn.NTKWeights().init(["u", "r"]), view)
    assert weights == {"u": 1.0, "r": 1.0}


def test_fixed_weights_are_those_given(poisson):
    assert weights_at(poisson, pn.Fixed({"u": 3, "r": 0.25})) == {"u": 3.0, "r": 0.25}
    assert weights_at(poisson, pn.Fixed()) == {"u": 1.0, "r": 1.0}


def test_traces_on_points_of_their_own(poisson):
    """The traces can be computed at other points than the training points; new points do not recompile."""
    model, params, problem, points = poisson
    everywhere = problem.points(40)
    weights = weights_at(poisson, pn.NTKWeights(points=everywhere))
    expected = weights_at(poisson, pn.NTKWeights(), everywhere)
    assert np.isclose(weights["u"], expected["u"], rtol=1e-12)
    assert not np.isclose(weights["u"], weights_at(poisson, pn.NTKWeights())["u"], rtol=1e-3)

    def first(points):
        result = pn.train(model.apply, params, problem, points_of_a_step, SGD, 5, pn.NTKWeights(points=points))
        return result.history["weights"]["u"][0]

    points_of_a_step = problem.points(4)
    assert np.isclose(first(everywhere), expected["u"], rtol=1e-12)
    size = run_steps.specialised.cache_info().misses
    moved = jax.tree.map(lambda x: 0.5 * x, everywhere)
    assert np.isclose(first(moved), weights_at(poisson, pn.NTKWeights(), moved)["u"], rtol=1e-12)
    assert run_steps.specialised.cache_info().misses == size


@pytest.mark.slow
def test_gradient_norms(poisson, wave):
    """The weights equal the formula, evaluated term by term."""
    for setup in (poisson, wave):
        _, params, problem, points = setup
        losses = losses_of(setup, points)
        gradients = {name: ravel_pytree(gradient)[0] for name, gradient in jax.jacrev(losses)(params).items()}
        old = {
            name: jnp.asarray(weight) for name, weight in {"r": 1.0, "u": 3.0, "ut": 0.5}.items() if name in gradients
        }
        weights = weights_at(setup, pn.GradientNormWeights(), step=20, state={"weights": old})
        for name, gradient in gradients.items():
            new = np.abs(gradients["r"]).max() / np.abs(old[name] * gradient).mean()
            expected = 0.9 * old[name] + 0.1 * new
            assert np.isclose(weights[name], 1.0 if name == "r" else expected, rtol=1e-12)


def test_gradient_norms_are_not_the_kernel(poisson):
    """Doubling the targets changes the gradients of the losses, but not the kernel."""
    model, params, problem, points = poisson

    def doubled(condition):
        return pn.Condition(condition.operator, lambda x: 2 * condition.target(x), condition.sampler)

    conditions = {"u": problem.conditions["u"], "r": doubled(problem.conditions["r"])}
    other = pn.Problem(conditions, problem.lower, problem.upper)
    setups = (poisson, (model, params, other, points))
    ntk = [weights_at(setup, pn.NTKWeights())["u"] for setup in setups]
    norms = [weights_at(setup, pn.GradientNormWeights(smoothing=0))["u"] for setup in setups]
    assert ntk[0] == ntk[1]
    assert norms[1] > 1.5 * norms[0]


@pytest.mark.slow
def test_a_constant_ratio_of_gradients_leads_to_its_square_root():
    """If the gradients of the two losses stay at 1 and 100, the weight tends to 10, the square root of their ratio."""
    weighting = pn.GradientNormWeights()
    state = weighting.init(["u", "r"])
    for step in range(0, 1000, 10):
        losses = lambda params: {"u": params, "r": 100.0 * params}  # noqa: E731
        view = View(jnp.asarray(step), None, jnp.ones(()), {}, {}, losses, None)
        weights, state = weighting.update(state, view)
    assert np.isclose(weights["u"], 10.0, rtol=1e-6)


def test_an_unknown_reference(poisson):
    with pytest.raises(ValueError, match=r"reference: expected one of the conditions \['u', 'r'\], got 'f'"):
        weights_at(poisson, pn.GradientNormWeights(reference="f"))


def constant(losses, weighting, steps):
    """Return the weights after ``steps`` steps with constant losses."""
    losses = {name: jnp.asarray(loss) for name, loss in losses.items()}
    state = weighting.init(list(losses))
    for step in range(steps):
        view = View(jnp.asarray(step), None, None, {}, {}, lambda params: losses, None)
        weights, state = weighting.update(state, view)
    return {name: float(weight) for name, weight in weights.items()}


def test_uncertainty_weights_tend_to_one_over_the_losses():
    weights = constant({"u": 0.02, "r": 400.0}, pn.UncertaintyWeights(learning_rate=0.1), 500)
    assert np.isclose(weights["u"], 1 / 0.02, rtol=1e-6)
    assert np.isclose(weights["r"], 1 / 400, rtol=1e-6)
    bounded = constant({"u": 0.0, "r": 1.0}, pn.UncertaintyWeights(learning_rate=1.0, max_weight=30.0), 100)
    assert np.isclose(bounded["u"], 30.0)


def test_relative_loss_weights():
    weighting = pn.RelativeLossWeights(alpha=0.5, rho=0.5, temperature=2.0)
    # constant losses: all weights are 1
    assert constant({"u": 3.0, "r": 5.0, "ut": 1.0}, weighting, 4) == pytest.approx({"u": 1, "r": 1, "ut": 1})
    # u halves and r stays; the weights are computed by hand
    state = weighting.init(["u", "r"])
    for step, losses in enumerate(({"u": 4.0, "r": 1.0}, {"u": 2.0, "r": 1.0})):
        losses = {name: jnp.asarray(loss) for name, loss in losses.items()}
        view = View(jnp.asarray(step), None, None, {}, {}, lambda params, losses=losses: losses, None)
        weights, state = weighting.update(state, view)
    softmax = 2 * np.exp(0.25) / (np.exp(0.25) + np.exp(0.5))
    assert np.isclose(weights["u"], 0.5 * (0.5 * 1 + 0.5 * softmax) + 0.5 * softmax)
    assert np.isclose(weights["u"] + weights["r"], 2)


SCHEMES = [
    pn.NTKWeights(),
    pn.GradientNormWeights(),
    pn.UncertaintyWeights(),
    pn.RelativeLossWeights(),
    pn.CausalWeights(epsilon=0.01, weights=pn.NTKWeights(every=50)),
    pn.ResidualAttention({"u": 7, "r": 7}, rate=0.1),
]


@pytest.mark.parametrize("weighting", SCHEMES, ids=lambda weighting: type(weighting).__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_scheme_trains_resumes_and_keeps_the_precision(wave, weighting, dtype):
    model, params, problem, points = wave
    params, points = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, points))
    optimizer = optax.adam(1e-3)

    def train(steps, resume=None):
        return pn.train(model.apply, params, problem, points, optimizer, steps, weighting, log_every=5, resume=resume)

    whole, resumed = train(200), train(200, train(100))
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, (whole.state, resumed.state))))
    assert jax.tree.leaves(whole.params)[0].dtype == dtype
    weights = np.array([*whole.history["weights"].values()])
    assert (np.isfinite(weights) & (weights > 0)).all()
    assert np.ptp(weights, axis=1).max() > 0.01  # the weights adapt
    total = sum(whole.history["losses"].values())
    assert total[-1] < total[0] / 2


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


@pytest.mark.parametrize(
    ("scheme", "arguments", "message"),
    [
        (pn.GradientNormWeights, {"every": 0}, "every: expected a positive integer, got 0"),
        (pn.GradientNormWeights, {"smoothing": 1.0}, r"smoothing: expected a number in \[0, 1\), got 1.0"),
        (pn.UncertaintyWeights, {"learning_rate": 0}, "learning_rate: expected a positive number, got 0"),
        (pn.UncertaintyWeights, {"max_weight": -1}, "max_weight: expected a positive number, got -1"),
        (pn.RelativeLossWeights, {"temperature": 0}, "temperature: expected a positive number, got 0"),
        (pn.RelativeLossWeights, {"rho": 1}, r"rho: expected a number in \[0, 1\), got 1"),
        (pn.CausalWeights, {"epsilon": 0}, "epsilon: expected a positive number, got 0"),
        (pn.CausalWeights, {"axis": -1}, "axis: expected 0 or a positive integer, got -1"),
        (pn.ResidualAttention, {"n": {"r": 0}}, "n for condition 'r': expected a positive integer, got 0"),
        (pn.ResidualAttention, {"n": {"r": 1}, "decay": 1}, r"decay: expected a number in \[0, 1\), got 1"),
    ],
)
def test_bad_input_of_the_other_schemes(scheme, arguments, message):
    with pytest.raises(ValueError, match=message):
        scheme(**arguments)


def test_points_with_unknown_names(poisson):
    points = {"b": jnp.ones((2, 1))}
    with pytest.raises(ValueError, match=r"points: expected the conditions \['u', 'r'\], got .* \(unknown \['b'\]"):
        weights_at(poisson, pn.NTKWeights(points=points))


def test_the_weights_of_a_loss_with_unknown_names(poisson):
    K = pn.ntk(poisson[0].apply, *poisson[1:])
    with pytest.raises(ValueError, match=r"weights: expected the conditions \['u', 'r'\], got .* \(unknown \['b'\]"):
        pn.largest_stable_learning_rate(K, {"u": 1, "r": 1, "b": 1})


def test_a_weighting_of_ones_own_trains(poisson):
    """A user's own weighting needs nothing but ``init`` and ``update``."""

    class Ramp:
        def init(self, names):
            return {name: jnp.ones(()) for name in names}

        def update(self, state, view):
            return {"u": 1.0 + view.step, "r": 1.0}, state

    model, params, problem, points = poisson
    history = pn.train(model.apply, params, problem, points, SGD, 3, Ramp(), log_every=1).history
    assert history["weights"]["u"].tolist() == [1, 2, 3, 4]
