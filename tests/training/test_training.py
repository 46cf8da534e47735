import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pinnntk_lib as pn
from conftest import same
from pinnntk_lib.training._step import run_steps

SGD = optax.sgd(1e-5)


def train(setup, steps=100, optimizer=SGD, weights=None, **options):
    model, params, problem, points = setup
    return pn.train(model.apply, params, problem, options.pop("points", points), optimizer, steps, weights, **options)


def losses_by_hand(model, params, problem, points):
    return {
        name: float(np.mean([condition.residual(lambda y: model.apply(params, y), x) ** 2 for x in points[name]]))
        for name, condition in problem.conditions.items()
    }


def test_a_step_is_gradient_descent_on_the_weighted_loss(poisson):
    model, params, problem, points = poisson
    weights = {"u": 7.0, "r": 0.5}

    def loss(params):
        total = 0.0
        for name, condition in problem.conditions.items():
            r = jax.vmap(lambda x, c=condition: c.residual(lambda y: model.apply(params, y), x))(points[name])
            total += weights[name] * jnp.mean(r**2)
        return total

    expected = jax.tree.map(lambda p, g: p - 1e-5 * g, params, jax.grad(loss)(params))
    for a, b in zip(jax.tree.leaves(train(poisson, 1, weights=weights).params), jax.tree.leaves(expected)):
        assert np.allclose(a, b, rtol=1e-13, atol=1e-15)


def test_history(poisson):
    model, params, problem, points = poisson
    result = train(poisson, 25, log_every=10)
    history = result.history
    assert history["step"].tolist() == [0, 10, 20, 25]
    for row, at in ((0, params), (-1, result.params)):
        expected = losses_by_hand(model, at, problem, points)
        for name in expected:
            assert np.isclose(history["losses"][name][row], expected[name], rtol=1e-12)
    x = problem.grid(1000)
    u = jax.vmap(lambda p: model.apply(result.params, p))(x)
    assert np.isclose(history["error"][-1], pn.relative_l2_error(u, problem.exact(x)), rtol=1e-12)
    assert history["weights"]["u"].tolist() == [1, 1, 1, 1]


def test_snapshots_and_measures(poisson):
    """Each snapshot step has its own history row, and ``measure`` adds columns to every row."""
    model, params, problem, points = poisson

    def kernel(params):
        return {"K": pn.ntk(model.apply, params, problem, points).matrix}

    result = train(poisson, 30, log_every=10, snapshots=[15, 0, 30], measure=kernel)
    assert result.history["step"].tolist() == [0, 10, 15, 20, 30]
    assert list(result.snapshots) == [0, 15, 30]
    assert same(result.snapshots[0], params)
    assert same(result.snapshots[15], train(poisson, 15).params)
    assert same(result.snapshots[30], result.params)
    assert result.history["K"].shape == (5, 20, 20)
    assert same(result.history["K"][2], kernel(result.snapshots[15])["K"])
    with pytest.raises(ValueError, match=r"measure: expected the columns of earlier rows, \[.*'K'\], got"):
        train(poisson, 40, log_every=10, resume=result)


def test_no_error_without_an_exact_solution(poisson):
    model, params, problem, points = poisson
    unknown = pn.Problem(problem.conditions, problem.lower, problem.upper)
    assert "error" not in pn.train(model.apply, params, unknown, points, SGD, 5).history


def test_the_first_loss_falls_as_the_kernel_says(poisson):
    """In a small step the loss changes at the rate that the kernel predicts, dL/dt = -r^T D K D r."""
    model, params, problem, points = poisson
    eta = 1e-10
    total = sum(train(poisson, 1, optax.sgd(eta), log_every=1).history["losses"].values())
    K = pn.ntk(model.apply, params, problem, points)
    r = jnp.concatenate(
        [
            jax.vmap(lambda x, c=c: c.residual(lambda y: model.apply(params, y), x))(points[n])
            for n, c in problem.conditions.items()
        ]
    )
    Dr = 2 / 10 * r
    # the loss is about 1e4 with a rounding error of 1e-12; its change is about 1e-2
    assert np.isclose((total[1] - total[0]) / eta, -(Dr @ K.matrix @ Dr), rtol=1e-6)


@pytest.mark.parametrize("weights", [None, pn.NTKWeights(every=7)])
def test_resuming_is_bit_identical(poisson, weights):
    optimizer = optax.adam(1e-3)
    whole = train(poisson, 60, optimizer, weights, log_every=10)
    part = train(poisson, 33, optimizer, weights, log_every=10)
    resumed = train(poisson, 60, optimizer, weights, log_every=10, resume=part)
    assert same(whole.state, resumed.state)
    kept = np.isin(resumed.history["step"], whole.history["step"])
    assert same(whole.history, jax.tree.map(lambda column: column[kept], resumed.history))


def test_resuming_draws_the_same_batches(wave):
    model, params, problem, _ = wave
    options = {"points": lambda key: problem.points(4, key), "key": jax.random.key(5)}
    whole = train(wave, 20, log_every=5, **options)
    resumed = train(wave, 20, log_every=5, resume=train(wave, 10, log_every=5, **options), **options)
    assert same((whole.state, whole.history), (resumed.state, resumed.history))
    assert len(set(whole.history["losses"]["r"].tolist())) == 5


def test_an_interrupted_run_keeps_what_there_is(poisson, monkeypatch):
    whole = train(poisson, 60, log_every=10)
    calls = []

    def run(*arguments):
        calls.append(1)
        if len(calls) == 5:  # one call for the first losses, one for each row
            raise KeyboardInterrupt
        return original(*arguments)

    original = run_steps
    monkeypatch.setattr("pinnntk_lib.training._loop.run_steps", run)
    part = train(poisson, 60, log_every=10)
    assert part.interrupted
    assert part.history["step"].tolist() == [0, 10, 20]
    resumed = train(poisson, 60, log_every=10, resume=part)
    assert not resumed.interrupted
    assert same((whole.state, whole.history), (resumed.state, resumed.history))


def test_divergence_names_step_condition_and_bound(poisson):
    model, params, problem, points = poisson
    bound = float(pn.largest_stable_learning_rate(pn.ntk(model.apply, params, problem, points)))
    with pytest.raises(pn.DivergenceError) as caught:
        train(poisson, 1000, optax.sgd(100 * bound), log_every=50)
    error = caught.value
    assert 0 < error.step < 50
    assert error.losses[error.condition] == max(error.losses.values()) > 1e6
    assert error.result.history["step"].tolist() == [0]
    assert same(error.result.params, params)
    assert np.isclose(error.bound, bound, rtol=1e-12)
    assert f"diverged at step {error.step}, in condition {error.condition!r}" in str(error)
    assert f"2/lambda_max = {bound:.3g}" in str(error)


def test_divergence_after_a_while_keeps_the_history(poisson):
    """The rows before the divergence are kept. The learning rate jumps at step 35, between two rows."""
    schedule = optax.piecewise_constant_schedule(1e-6, {35: 1e6})
    with pytest.raises(pn.DivergenceError) as caught:
        train(poisson, 1000, optax.sgd(schedule), log_every=10)
    assert caught.value.result.history["step"].tolist() == [0, 10, 20, 30]
    assert int(caught.value.result.state.step) == 30
    assert caught.value.step > 35


def test_the_bound_is_where_gradient_descent_of_a_linear_model_turns():
    """For a model that is linear in its parameters, the kernel is constant and the bound exact."""

    def apply(params, x):
        return params @ jnp.array([1.0, 2.0]) * (1 + x[0])

    problem = pn.problems.Poisson1D(a=1)
    conditions = {"u": problem.conditions["u"]}
    problem = pn.Problem(conditions, problem.lower, problem.upper)
    points, params = problem.points(6), jnp.array([0.3, -0.2])
    bound = float(pn.largest_stable_learning_rate(pn.ntk(apply, params, problem, points)))
    below = pn.train(apply, params, problem, points, optax.sgd(0.99 * bound), 2000)
    assert below.history["losses"]["u"][-1] < 1e-15
    with pytest.raises(pn.DivergenceError):
        pn.train(apply, params, problem, points, optax.sgd(1.01 * bound), 2000)


def test_it_learns(poisson):
    """The easiest problem is solved to a small error, in double and in single precision."""
    model, _, _, _ = poisson
    problem = pn.problems.Poisson1D(a=1)
    points = problem.points(20)
    model = pn.MLP(50, **pn.normalization(points["r"]))
    params = model.init(jax.random.key(0))
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, points))
    for p, x in ((params, points), single):
        result = pn.train(model.apply, p, problem, x, optax.adam(1e-3), 4000, pn.NTKWeights(100))
        assert result.history["error"][-1] < 1e-2
        assert jax.tree.leaves(result.params)[0].dtype == jax.tree.leaves(p)[0].dtype


def test_compiled_code_is_shared(poisson):
    model, params, problem, points = poisson
    train(poisson, 3)
    size = run_steps._cache_size()
    train(poisson, 5, weights={"u": 2.0, "r": 3.0})
    pn.train(model.apply, params, pn.problems.Poisson1D(a=1), points, SGD, 5)
    assert run_steps._cache_size() == size


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps: expected a positive integer, got 0"),
        ({"log_every": 1.5}, TypeError, "log_every: expected a positive integer, got 1.5"),
        ({"optimizer": 1e-3}, TypeError, "optimizer: expected an optax gradient transformation, got 0.001"),
        (
            {"weights": {"u": 1.0}},
            ValueError,
            r"weights: expected the conditions \['u', 'r'\], got .* \(missing \['r'\]",
        ),
        ({"weights": {"u": 1.0, "r": 0.0}}, ValueError, r"weights\['r'\]: expected a positive number, got 0.0"),
        ({"weights": {"u": 1.0, "r": "2"}}, TypeError, r"weights\['r'\]: expected a finite number, got '2'"),
        ({"weights": 3.0}, TypeError, "weights: expected {name: positive number} or a weighting, got 3.0"),
        (
            {"points": {"u": jnp.ones((2, 1))}},
            ValueError,
            r"points: expected the conditions \['u', 'r'\], got .* \(missing",
        ),
        ({"points": lambda key: {}}, ValueError, "key: expected a JAX random key, since points is a function, got"),
        (
            {"points": lambda key: {}, "key": jax.random.key(0)},
            ValueError,
            r"points: expected the conditions .*missing",
        ),
        ({"snapshots": 5}, TypeError, "snapshots: expected step numbers, got 5"),
        ({"snapshots": [0, 101]}, ValueError, "snapshots: expected steps from 0 to 100, got 101"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every: expected a positive integer, got 0"),
        ({"test_points": jnp.ones(5)}, ValueError, r"test_points: expected shape \(m, 1\), got \(5,\)"),
    ],
)
def test_bad_input(poisson, options, error, message):
    with pytest.raises(error, match=message):
        train(poisson, **options)


def test_what_is_not_a_problem(poisson):
    model, params, problem, points = poisson
    with pytest.raises(TypeError, match=r"problem: expected a pinnntk_lib[.]Problem, got dict"):
        pn.train(model.apply, params, problem.operators, points, SGD, 5)


def test_parameters_with_nan(poisson):
    model, params, problem, points = poisson
    params[0]["b"] = params[0]["b"].at[3].set(jnp.nan)
    with pytest.raises(ValueError, match=r"params\[0\]\['b'\]: expected finite numbers, got NaN or infinity"):
        pn.train(model.apply, params, problem, points, SGD, 5)


def test_a_system_trains_and_adapts_its_weights():
    """Conditions with two outputs train, and Algorithm 1 takes their weights from the traces of the kernel."""

    def cauchy_riemann(u, x):
        first, second = pn.d(u, 0)(x), pn.d(u, 1)(x)
        return jnp.stack([first[0] - second[1], second[0] + first[1]])

    def square(x):  # z^2
        return jnp.array([x[0] ** 2 - x[1] ** 2, 2 * x[0] * x[1]])

    def sampler(n, key):
        return jnp.stack(jnp.meshgrid(*[jnp.linspace(0, 1, 4)] * 2), -1).reshape(-1, 2)

    problem = pn.Problem(
        {
            "u": pn.Condition(pn.System(lambda u, x: u(x), 2), square, sampler),
            "r": pn.Condition(pn.System(cauchy_riemann, 2), lambda x: jnp.zeros(2), sampler),
        },
        lower=(0.0, 0.0),
        upper=(1.0, 1.0),
    )
    keys = jax.random.split(jax.random.key(0), 2)
    params = {"V": jax.random.normal(keys[0], (20, 2)), "W": jax.random.normal(keys[1], (2, 20)) / 5}

    def apply(params, x):
        return params["W"] @ jnp.tanh(params["V"] @ x)

    points = problem.points(16)
    weighting = pn.NTKWeights(every=50)
    result = pn.train(apply, params, problem, points, optax.adam(1e-2), 400, weighting, progress=False)
    losses, weights = result.history["losses"], result.history["weights"]
    assert all(loss[-1] < loss[0] / 10 for loss in losses.values())
    K = pn.ntk(apply, params, problem, points)
    np.testing.assert_allclose(weights["u"][0], float(K.trace() / K.trace("u")), rtol=1e-12)


def test_targets_of_another_shape(poisson):
    """A target of shape (1,) is rejected: broadcast against n residuals, it would give n x n differences."""
    model, params, problem, points = poisson
    u = pn.Condition(problem.conditions["u"].operator, lambda x: x, problem.conditions["u"].sampler)
    wrong = pn.Problem({"u": u, "r": problem.conditions["r"]}, problem.lower, problem.upper)
    with pytest.raises(
        ValueError, match=r"problem.conditions\['u'\].target: expected shape \(\) at a point, got \(1,\)"
    ):
        pn.train(model.apply, params, wrong, points, SGD, 10)


def test_a_loss_that_is_not_finite_at_the_start(poisson):
    """A loss that is not finite is reported before the first step.

    The square root has no second derivative at 0, where the boundary is.
    """
    model, params, problem, points = poisson
    root = pn.Condition(lambda u, x: pn.dd(lambda y: jnp.sqrt(y[0]) * u(y), 0)(x), lambda x: 0.0, lambda n, key: None)
    broken = pn.Problem({"u": problem.conditions["u"], "root": root}, (0.0,), (1.0,))
    with pytest.raises(
        ValueError, match=r"problem.conditions\['root'\]: expected a finite initial loss, got (nan|inf)"
    ):
        pn.train(model.apply, params, broken, {"u": points["u"], "root": points["r"]}, optax.sgd(1e-5), 10)
