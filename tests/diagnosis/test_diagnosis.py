"""Diagnoses of problems with known answers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import pinnntk_lib as pn
from pinnntk_lib.diagnosis import LAG

line = pn.problems.Poisson1D().conditions["r"].sampler


def condition(operator):
    return pn.Condition(operator, lambda x: jnp.zeros(()), line)


def value(scale):
    """Return a condition on ``scale * u(x)``, whose kernel is ``scale**2`` times that of u."""
    return condition(lambda u, x: scale * u(x))


MODEL = pn.MLP(width=16)
PARAMS = MODEL.init(jax.random.key(0))


@pytest.mark.slow
@settings(max_examples=15)  # each example is traced again
@given(
    scales=st.lists(st.floats(-2.0, 2.0), min_size=2, max_size=4),
    order=st.randoms(use_true_random=False),
)
def test_blind(scales, order):
    """Of conditions that differ only by a factor, those at least ten times slower than the fastest are named.

    The slowest comes first. If there are none, the verdict is "balanced". The conditions' names carry no hint.
    """
    names = [chr(ord("a") + i) for i in range(len(scales))]
    order.shuffle(names)
    factors = dict(zip(names, 10.0 ** np.array(scales)))
    ratios = {name: (max(factors.values()) / factor) ** 2 for name, factor in factors.items()}
    if any(abs(ratio / LAG - 1) < 1e-3 for ratio in ratios.values()):
        return  # too close to the threshold
    problem = pn.Problem({name: value(factor) for name, factor in factors.items()}, (0.0,), (1.0,))
    found = pn.diagnose(MODEL.apply, PARAMS, problem, problem.points(5))
    slow = [name for name in sorted(ratios, key=ratios.get, reverse=True) if ratios[name] > LAG]
    assert set(found.lagging) == set(slow)
    assert found.verdict == (", ".join(found.lagging) or "balanced")
    assert [ratios[name] for name in found.lagging] == sorted((ratios[n] for n in slow), reverse=True)


def helmholtz(k):
    """Return the condition ``u_xx + k^2 u = 0``."""
    return condition(lambda u, x: pn.dd(u, 0)(x) + k**2 * u(x))


# {case: (conditions, scale of the inputs, expected verdict)}. A value lags where the residual has a large factor or
# derivatives of a steep network; a residual lags where its units make it small.
KNOWN = {
    "boundary values beside two derivatives": (
        {"g": value(1.0), "f": condition(lambda u, x: pn.dd(u, 0)(x))},
        0.1,
        "g",
    ),
    "a high wave number": ({"edge": value(1.0), "inside": helmholtz(30.0)}, 1.0, "edge"),
    "a fast flow": ({"left": value(1.0), "flow": condition(lambda u, x: 30.0 * pn.d(u, 0)(x))}, 0.5, "left"),
    "a residual in small units": ({"a": value(1.0), "b": condition(lambda u, x: 1e-3 * pn.d(u, 0)(x))}, 0.5, "b"),
    "two that lag": ({"x": value(0.01), "y": value(1.0), "z": value(0.1)}, 0.5, "x, z"),
    "values twice": ({"one": value(1.0), "two": value(1.0)}, 0.5, "balanced"),
    "values and a mild slope": ({"v": value(1.0), "s": condition(lambda u, x: pn.d(u, 0)(x))}, 1.0, "balanced"),
}


@pytest.mark.parametrize("case", KNOWN)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_lags_is_named(case, seed):
    conditions, scale, expected = KNOWN[case]
    problem = pn.Problem(conditions, (0.0,), (1.0,))
    model = pn.MLP(width=64, shift=0.5, scale=scale)
    found = pn.diagnose(model.apply, model.init(jax.random.key(seed)), problem, problem.points(20))
    assert found.verdict == expected


@pytest.mark.parametrize("a", [1, 4])
def test_the_paper_s_problem_and_its_cure(poisson, a):
    model, params, _, points = poisson
    model = pn.MLP(width=100, **pn.normalization(points["r"]))
    params = model.init(jax.random.key(0))
    problem = pn.problems.Poisson1D(a)
    found = pn.diagnose(model.apply, params, problem, points)
    assert found.verdict == "u"
    cured = pn.diagnose(model.apply, params, problem, points, weights=found.algorithm_1)
    assert cured.verdict == "balanced"
    assert np.ptp(list(cured.rates.values())) < 1e-6 * cured.rates["u"]
    assert found.stable_rate_with_algorithm_1 == pytest.approx(cured.largest_stable_learning_rate)


@pytest.mark.slow
def test_the_numbers_are_those_of_the_kernel(wave):
    model, params, problem, points = wave
    weights = {"u": 2.0, "ut": 1.0, "r": 0.5}
    K = pn.ntk(model.apply, params, problem, points)
    found = pn.diagnose(model.apply, params, problem, points, optimizer=1e-3, weights=weights)
    residuals = problem.residuals(lambda x: model.apply(params, x), points)
    theory = pn.Linearized(K, residuals, weights)
    assert found.largest_stable_learning_rate == pytest.approx(float(pn.largest_stable_learning_rate(K, weights)))
    assert np.allclose(found.eigenvalues, theory.rates, atol=1e-9 * found.eigenvalues[0])
    fastest, slowest = found.time_constants
    assert fastest == pytest.approx(1 / (1e-3 * found.eigenvalues[0]))
    assert slowest / fastest == pytest.approx(found.condition_number)
    assert found.modes_within(1e3) == sum(found.eigenvalues >= 1e-3 * found.eigenvalues[0])
    for name in K.names:
        assert found.rates[name] == pytest.approx(weights[name] * float(K.convergence_rate(name)))
        assert np.allclose(found.spectra[name], K.eigvalsh(name), atol=1e-9 * found.spectra[name][0])
        steps = found.steps_to_a_hundredth[name]
        if np.isfinite(steps):
            now, then = theory.losses([0.0, 1e-3 * steps])[name]
            assert 0.005 < then / now <= 0.0101  # the grid of steps grows by about a tenth


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        (optax.sgd(0.02), 0.02),
        (0.02, 0.02),
        (optax.chain(optax.scale(0.5), optax.sgd(0.04)), 0.02),
        (optax.sgd(0.02, momentum=0.9), None),
        (optax.adam(0.02), None),
        (optax.lbfgs(), None),
        (optax.chain(optax.clip(1e-3), optax.sgd(0.02)), None),
        (pn.kernel_gradient_descent(), None),
    ],
)
def test_gradient_descent_is_known_by_what_it_does(poisson, optimizer, rate):
    model, params, problem, points = poisson
    found = pn.diagnose(model.apply, params, problem, points, optimizer=optimizer)
    assert found.learning_rate == (None if rate is None else pytest.approx(rate))
    assert found.gradient_descent is (rate is not None)
    assert any("not plain gradient descent" in limit for limit in found.limits) is (rate is None)
    assert (found.time_constants is None) is (rate is None)


def test_drift(poisson):
    model, params, problem, points = poisson
    first = pn.diagnose(model.apply, params, problem, points)
    same = pn.diagnose(model.apply, params, problem, points, before=first)
    assert set(same.drift.values()) == {0.0}
    moved = jax.tree.map(lambda leaf: 1.1 * leaf, params)
    second = pn.diagnose(model.apply, moved, problem, points, before=first)
    a, b = first.K.block("r", "r"), second.K.block("r", "r")
    assert second.drift["r"] == pytest.approx(float(jnp.linalg.norm(b - a) / jnp.linalg.norm(a)))


def test_models_that_are_not_ours_and_operators_without_targets(poisson):
    _, _, problem, points = poisson
    mlp = eqx.nn.MLP(1, "scalar", 16, 2, jnp.tanh, key=jax.random.key(0))
    arrays, static = eqx.partition(mlp, eqx.is_array)
    found = pn.diagnose(lambda p, x: eqx.combine(p, static)(x), arrays, problem.operators, points)
    assert found.residuals is None
    assert found.steps_to_a_hundredth is None
    assert found.num_params == sum(leaf.size for leaf in jax.tree.leaves(arrays))

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first, self.last = nnx.Linear(1, 16, rngs=rngs), nnx.Linear(16, 1, rngs=rngs)

        def __call__(self, x):
            return self.last(jnp.tanh(self.first(x)))[0]

    graph, state = nnx.split(Net(nnx.Rngs(0)))
    found = pn.diagnose(lambda p, x: nnx.merge(graph, p)(x), state, problem, points)
    assert found.verdict in ("balanced", "u", "r", "slow modes")
    assert "loss" in str(found)


def test_the_report_says_what_was_found(poisson):
    model, params, problem, points = poisson
    found = pn.diagnose(model.apply, params, problem, points, optimizer=1.0, before=None)
    report = str(found)
    assert all(name in report for name in found.K.names)
    assert "all that float64 can tell" in report  # smooth residuals: the last modes are rounding error
    assert "the slowest in more than" in report
    assert "it diverges" in report
    assert report.count("\n- ") == len(found.limits) >= 3
    assert set(found.data) >= {"rates", "verdict", "algorithm_1", "eigenvalues", "limits"}


def test_a_condition_that_no_parameter_moves(poisson):
    """It does not lag, no weight is advised for it, and without it the conditions do not determine u."""
    model, params, problem, points = poisson
    operators = dict(problem.operators) | {"u": lambda u, x: 1.0 + 0.0 * x[0]}
    found = pn.diagnose(model.apply, params, operators, points)
    assert found.lagging == ()
    assert found.verdict == "undetermined"
    assert np.isfinite(list(found.algorithm_1.values())).all()
    assert [finding.name for finding in found.findings] == [
        "undetermined",
        "condition met by construction",
        "unused parameter",
    ]
    assert "No parameter moves u: no weight will change that" in str(found)


def test_the_figure(poisson):
    model, params, problem, points = poisson
    figure = pn.diagnose(model.apply, params, problem, points).plot()
    left, right = figure.axes
    assert {line.get_label() for line in left.lines} == {"u", "r"}
    assert [label.get_text() for label in right.get_yticklabels()] == ["now", "Algorithm 1"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"weights": {"u": 1.0}}, "weights"),
        ({"weights": {"u": -1.0, "r": 1.0}}, r"weights\['u'\]"),
        ({"weights": pn.NTKWeights()}, "weights"),
        ({"optimizer": -1.0}, "optimizer"),
        ({"before": "yesterday"}, "before"),
        ({"weights": pn.NTKWeights}, "weights"),
        ({"optimizer": optax.adam}, "optimizer"),
        ({"optimizer": optax.GradientTransformation}, "optimizer"),
    ],
)
def test_arguments_are_checked(poisson, arguments, named):
    model, params, problem, points = poisson
    with pytest.raises((ValueError, TypeError), match=f"{named}: expected"):
        pn.diagnose(model.apply, params, problem, points, **arguments)


@pytest.mark.parametrize("target", [0.5, np.full(10, 0.5)])
def test_numbers_and_measured_values_as_targets(poisson, target):
    model, params, problem, points = poisson
    u = problem.conditions["u"]
    given, same = (
        pn.Problem({**problem.conditions, "u": pn.Condition(u.operator, target, u.sampler)}, (0.0,), (1.0,))
        for target in (target, lambda x: 0.5)
    )
    found = pn.diagnose(model.apply, params, given, points, optimizer=1e-5)
    expected = pn.diagnose(model.apply, params, same, points, optimizer=1e-5)
    assert str(found) == str(expected)
    few = pn.Problem({"u": pn.Condition(u.operator, np.zeros(9), u.sampler)}, (0.0,), (1.0,))
    with pytest.raises(ValueError, match=r"conditions\['u'\].target: expected .*shape \(10,\), got shape \(9,\)"):
        pn.diagnose(model.apply, params, few, {"u": points["u"]})


def test_a_target_of_another_shape(poisson):
    model, params, _, points = poisson
    wrong = pn.Problem({"u": pn.Condition(lambda u, x: u(x), lambda x: jnp.zeros(2), line)}, (0.0,), (1.0,))
    with pytest.raises(ValueError, match=r"conditions\['u'\].target: expected shape \(\) at a point, got \(2,\)"):
        pn.diagnose(model.apply, params, wrong, {"u": points["u"]}, optimizer=0.1)


def polar(u, x):
    """The Laplacian of a function of the radius, which is not finite at 0."""
    return pn.dd(u, 0)(x) + pn.d(u, 0)(x) / x[0]


def test_what_is_not_finite_is_named_with_its_point(poisson):
    """A condition, a target or a kernel that is not finite is named; LAPACK would only say that it failed."""
    model, params, _, points = poisson
    points = {"r": points["r"][::-1]}
    shown = r"conditions\['r'\].*\[0.0\]"
    with pytest.raises(ValueError, match=shown):
        pn.diagnose(model.apply, params, {"r": polar}, points)
    with pytest.raises(ValueError, match=shown):
        pn.diagnose(model.apply, params, pn.Problem({"r": condition(polar)}, (0.0,), (1.0,)), points)
    target = pn.Condition(lambda u, x: u(x), lambda x: 1 / x[0], line)
    with pytest.raises(
        ValueError, match=r"conditions\['r'\]: expected a finite residual at every point, got -inf at \[0.0\]"
    ):
        pn.diagnose(model.apply, params, pn.Problem({"r": target}, (0.0,), (1.0,)), points)
    system = pn.System(lambda u, x: jnp.stack([u(x), u(x) / x[0]]), 2)
    with pytest.raises(ValueError, match=shown):
        pn.diagnose(model.apply, params, {"r": system}, points)
