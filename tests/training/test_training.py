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
    size = run_steps.specialised.cache_info().misses
    train(poisson, 5, weights={"u": 2.0, "r": 3.0})
    pn.train(model.apply, params, pn.problems.Poisson1D(a=1), points, SGD, 5)
    assert run_steps.specialised.cache_info().misses == size


class WithoutResiduals:
    """A sampler whose method ``adapted`` lacks an argument."""

    def __call__(self, key):
        return {"u": jnp.zeros((2, 1)), "r": jax.random.uniform(key, (4, 1))}

    def adapted(self, key):
        return self(key)


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
        (
            {"weights": {"u": 1.0, "r": -1}},
            ValueError,
            r"weights\['r'\]: expected a number that is not negative, got -1",
        ),
        ({"weights": {"u": 0, "r": 0.0}}, ValueError, "weights: expected at least one that is not zero, got"),
        (
            {"weights": {"u": 1.0, "r": np.ones(3)}},
            ValueError,
            r"weights\['r'\]: expected a number, or one per point in an array of shape \(10,\), got shape \(3,\)",
        ),
        (
            {"weights": {"u": 1.0, "r": -np.ones(10)}},
            ValueError,
            r"weights\['r'\]: expected finite numbers that are not negative, got",
        ),
        (
            {"weights": {"u": 1.0, "r": np.ones((10, 1))}},
            TypeError,
            r"weights\['r'\]: expected a number, or an array \(n,\) of one per point, got",
        ),
        ({"weights": {"u": 1.0, "r": "2"}}, TypeError, r"weights\['r'\]: expected a finite number, got '2'"),
        ({"weights": 3.0}, TypeError, "weights: expected {name: number} or a weighting, got 3.0"),
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
        (
            {"optimizer": optax.adam},
            TypeError,
            "optimizer: expected an optax gradient transformation, got <function adam",
        ),
        (
            {"optimizer": pn.NTKWeights()},
            TypeError,
            r"optimizer: expected .*, with update\(updates, state, params\), got NTKWeights",
        ),
        ({"optimizer": optax.GradientTransformation}, TypeError, "optimizer: .*, got the class GradientTransformation"),
        ({"weights": pn.NTKWeights}, TypeError, "weights: expected .* or a weighting, got the class NTKWeights"),
        ({"points": pn.RandomPoints}, TypeError, "points: expected .*, got the class RandomPoints"),
        (
            {"points": lambda: {}, "key": jax.random.key(0)},
            ValueError,
            "points: could not be called with a random key: .* takes 0 positional arguments but 1 was given",
        ),
        (
            {"points": WithoutResiduals(), "key": jax.random.key(0)},
            ValueError,
            r"points\.adapted: could not be called with a random key and residuals: .* takes 2 positional arguments",
        ),
        ({"progress": np.zeros(2)}, TypeError, "progress: expected True or False, got array"),
        ({"points": lambda key: {}, "key": 5}, TypeError, "key: expected a JAX random key, got 5"),
        ({"measure": {"a": 1.0}}, TypeError, "measure: expected a function params -> {name: array}, got {'a': 1.0}"),
        ({"resume": 3}, TypeError, "resume: expected a Result or a directory with checkpoints, got 3"),
        ({"checkpoints": 3}, TypeError, "checkpoints: expected a directory, got 3"),
    ],
)
def test_bad_input(poisson, options, error, message):
    with pytest.raises(error, match=message):
        train(poisson, **options)


def test_a_class_for_a_model(poisson):
    _, params, problem, points = poisson
    with pytest.raises(TypeError, match=r"apply: expected a function apply\(params, x\), got the class MLP"):
        pn.train(pn.MLP, params, problem, points, SGD, 5)


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
        ValueError, match=r"conditions\['root'\]: expected a finite initial loss, got inf; .* -inf at the point \[0.0\]"
    ):
        pn.train(model.apply, params, broken, {"u": points["u"], "root": points["r"]}, optax.sgd(1e-5), 10)


# ---------------------------------------------------------------- the exact solution


@pytest.mark.parametrize(
    ("exact", "shape"),
    [(lambda x: jnp.sin(x), r"\(1000, 1\)"), (lambda x: jnp.stack([x[:, 0]] * 2, 1), r"\(1000, 2\)")],
)
def test_an_exact_solution_of_another_shape(poisson, exact, shape):
    """An exact solution of shape (n, 1) would be broadcast against the model's (n,) to n x n differences."""
    model, params, problem, points = poisson
    wrong = pn.Problem(problem.conditions, problem.lower, problem.upper, exact)
    message = rf"problem.exact: expected shape \(1000,\) at points of shape \(1000, 1\), .* got {shape}"
    with pytest.raises(ValueError, match=message):
        pn.train(model.apply, params, wrong, points, SGD, 5)


def test_errors_of_different_shapes():
    with pytest.raises(ValueError, match=r"u, exact: expected the same shape, got \(3,\) and \(3, 1\)"):
        pn.relative_l2_error(jnp.ones(3), jnp.ones((3, 1)))
    assert float(pn.relative_l2_error([3.0, 5.0], [3.0, 4.0])) == pytest.approx(0.2)


# ---------------------------------------------------------------- measure


@pytest.mark.parametrize(
    ("found", "error", "message"),
    [
        (None, TypeError, "measure: expected a function params -> {name: array}, got one that returns None"),
        (3.0, TypeError, "measure: expected a function params -> {name: array}, got one that returns 3.0"),
        ({1: 3.0}, TypeError, "measure: expected a function params -> {name: array}, got one that returns {1: 3.0}"),
        ({"a": "text"}, TypeError, "measure: expected an array of numbers under 'a', got 'text'"),
        ({"a": [[1.0], [1.0, 2.0]]}, TypeError, "measure: expected an array of numbers under 'a'"),
        ({"error": 1.0, "step": 2}, ValueError, r"measure: expected names other than .*, got \['error', 'step'\]"),
    ],
)
def test_a_bad_measure_is_found_before_training(poisson, found, error, message):
    calls = []

    def measure(params):
        calls.append(params)
        return found

    with pytest.raises(error, match=message):
        train(poisson, 10**9, log_every=10**9, measure=measure)
    assert same(calls, [poisson[1]])


@pytest.mark.parametrize(
    ("later", "error", "message"),
    [
        ({"a": np.zeros(3)}, ValueError, r"measure: expected 'a' of shape \(2,\), as in earlier rows, got \(3,\)"),
        ({"b": np.zeros(2)}, ValueError, r"measure: expected the columns of earlier rows, \[.*'a'\], got \[.*'b'\]"),
        (None, TypeError, "measure: expected a function params -> {name: array}, got one that returns None"),
        (ZeroDivisionError("mine"), ZeroDivisionError, "mine"),
    ],
)
def test_a_measure_that_fails_later_loses_nothing(poisson, later, error, message):
    def measure(params, rows=[]):  # noqa: B006 -- counts the rows
        rows.append(1)
        if len(rows) < 4:
            return {"a": np.zeros(2)}
        if isinstance(later, Exception):
            raise later
        return later

    with pytest.raises(error, match=message) as caught:
        train(poisson, 60, log_every=10, measure=measure)
    assert "step 30; everything so far is in this error's .result" in caught.value.__notes__[0]
    part = caught.value.result
    assert part.history["step"].tolist() == [0, 10, 20]
    resumed = train(poisson, 60, log_every=10, resume=part, measure=lambda params: {"a": np.zeros(2)})
    whole = train(poisson, 60, log_every=10, measure=lambda params: {"a": np.zeros(2)})
    assert same((whole.state, whole.history), (resumed.state, resumed.history))


def test_a_measure_may_change_its_array_in_place(poisson):
    counter = np.zeros((), ">i8")  # not in the machine's byte order

    def measure(params):
        counter[...] += 1
        return {"count": counter}

    history = train(poisson, 20, log_every=10, measure=measure).history
    assert history["count"].tolist() == [1, 2, 3]
    assert history["count"].dtype == np.int64


# ---------------------------------------------------------------- divergence


@pytest.mark.parametrize("start", [1e-9, 0.0])
@pytest.mark.parametrize("slope", [3.0, 0.0])  # the targets set the scale of the losses, or leave it to be 1
def test_a_loss_near_zero_may_grow(start, slope):
    """From a solved problem, Adam's first steps raise the loss by any factor, which is no divergence."""
    fit = pn.Condition(lambda u, x: u(x), lambda x: slope * x[0], lambda n, key: jnp.linspace(0, 1, n)[:, None])
    problem = pn.Problem({"u": fit}, (0.0,), (1.0,))

    def run(optimizer, start):
        setting = problem, problem.points(5), optimizer, 200
        return pn.train(lambda a, x: a * x[0], jnp.asarray(slope + start), *setting, log_every=1, progress=False)

    assert 1e-20 < run(optax.adam(0.1), start + 1e-12).history["losses"]["u"].max() < 10
    assert run(optax.sgd(0.1), start).history["losses"]["u"].max() < 1e-17
    with pytest.raises(pn.DivergenceError):
        run(optax.sgd(1e3), start + 1e-9)


def test_a_divergence_with_weights_that_are_not_numbers(poisson):
    """Weights that become NaN make training diverge; the error says so, without a bound."""

    class Broken:
        def init(self, names):
            return ()

        def update(self, state, view):
            weight = jnp.where(view.step < 10, 0.0, jnp.nan)
            return dict.fromkeys(view.operators, weight), state

    with pytest.raises(
        pn.DivergenceError, match=r"training diverged at step 11, .* nan\); earlier steps are in"
    ) as caught:
        train(poisson, 60, weights=Broken(), log_every=10)
    assert np.isnan(caught.value.bound)
    assert caught.value.result.history["step"].tolist() == [0, 10]


# ---------------------------------------------------------------- targets


def measured(poisson, target):
    """Return the problem with another target for the boundary condition, whose points are 0 and 1, five times each."""
    _, _, problem, _ = poisson
    u = problem.conditions["u"]
    return pn.Problem({**problem.conditions, "u": pn.Condition(u.operator, target, u.sampler)}, (0.0,), (1.0,))


@pytest.mark.parametrize("target", [0.5, np.full(10, 0.5)])
def test_numbers_and_measured_values_as_targets(poisson, target):
    model, params, _, points = poisson
    run = pn.train(model.apply, params, measured(poisson, target), points, SGD, 20)
    expected = pn.train(model.apply, params, measured(poisson, lambda x: 0.5), points, SGD, 20)
    assert same((run.state, run.history), (expected.state, expected.history))


def test_a_number_as_target_of_fresh_points(poisson):
    model, params, _, _ = poisson
    losses = []
    for target in (jnp.asarray(0.5), lambda x: 0.5):
        problem = measured(poisson, target)
        points = pn.RandomPoints(problem, 5)
        run = pn.train(model.apply, params, problem, points, SGD, 20, key=jax.random.key(0))
        losses.append(run.history["losses"])
    assert same(*losses)


def test_measured_values_belong_to_fixed_points(poisson):
    model, params, _, points = poisson
    problem = measured(poisson, np.zeros(10))
    for sampler in (pn.RandomPoints(problem, 10), pn.Minibatches(points, 10)):
        with pytest.raises(
            ValueError, match=r"conditions\['u'\].target: .* got values of shape \(10,\), which belong to"
        ):
            pn.train(model.apply, params, problem, sampler, SGD, 5, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"conditions\['u'\].target: .* of shape \(12,\), got shape \(10,\)"):
        pn.train(model.apply, params, problem, problem.points(12), SGD, 5)


# ---------------------------------------------------------------- resuming another run


def resumed_from(poisson, first, then, tmp_path):
    """Yield ``resume`` options, a result and a directory, of a run of 20 steps with other options."""
    result = train(poisson, 20, checkpoints=tmp_path / "run", **first)
    for resume in (result, tmp_path / "run"):
        yield lambda steps=40, resume=resume: train(poisson, steps, resume=resume, **then)


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (
            {},
            {"optimizer": optax.adam(1e-3)},
            r"same optimizer \(ScaleByAdamState at \[0\]\), got another \(EmptyState at",
        ),
        (
            {"optimizer": optax.adam(1e-3)},
            {},
            r"same optimizer \(EmptyState at \[0\]\), got another \(ScaleByAdamState",
        ),
        # these two have states of the same arrays
        ({"optimizer": optax.adam(1e-3)}, {"optimizer": optax.adabelief(1e-3)}, r"same optimizer \(ScaleByBeliefState"),
        ({}, {"weights": pn.NTKWeights()}, "same weights .*result.params as params, without resume"),
        ({"weights": pn.RelativeLossWeights()}, {"weights": pn.NTKWeights()}, "same weights .*result.params as params"),
        # the states of these hold a number per condition, of different meanings
        ({"weights": pn.UncertaintyWeights()}, {}, "same weights .*result.params as params"),
        ({"weights": pn.UncertaintyWeights()}, {"weights": pn.GradientNormWeights()}, "same weights"),
        ({"weights": pn.GradientNormWeights()}, {}, "same weights .*result.params as params"),
    ],
)
def test_resuming_another_run(poisson, tmp_path, first, then, message):
    for resumed in resumed_from(poisson, first, then, tmp_path):
        with pytest.raises(ValueError, match=f"resume: expected a run with the {message}"):
            resumed()


def test_resuming_other_parameters_or_another_problem(poisson):
    model, params, problem, points = poisson
    result = train(poisson, 20)
    other = pn.MLP(width=5)
    with pytest.raises(
        ValueError, match=r"same params \(float64\[5, 1\] at \[0\]\['W'\]\), got .* \(float64\[12, 1\] at"
    ):
        pn.train(other.apply, other.init(jax.random.key(0)), problem, points, SGD, 40, resume=result)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    with pytest.raises(
        ValueError, match=r"same params \(float32\[12, 1\] at \[0\]\['W'\]\), got .* \(float64\[12, 1\] at"
    ):
        pn.train(model.apply, single, problem, points, SGD, 40, resume=result)
    part = pn.Problem({"r": problem.conditions["r"]}, (0.0,), (1.0,))
    with pytest.raises(
        ValueError, match=r"resume: expected the conditions \['r'\], got \['u', 'r'\] \(unknown \['u'\]"
    ):
        pn.train(model.apply, params, part, part.points(10), SGD, 40, resume=result)
    wrong = {"u": jnp.ones((3, 2)), "r": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match="could not be evaluated"):
        pn.train(model.apply, params, problem, wrong, SGD, 40, resume=result)


def test_fewer_steps_than_the_run_has(poisson, tmp_path):
    for resumed in resumed_from(poisson, {}, {}, tmp_path):
        with pytest.raises(
            ValueError, match="steps: expected at least 20, the steps that the resumed run has made, got 19"
        ):
            resumed(19)
        assert int(resumed(20).state.step) == 20


def test_a_second_stage_begins_from_the_parameters(poisson):
    model, _, problem, points = poisson
    first = train(poisson, 20, optax.adam(1e-3))
    second = pn.train(model.apply, first.params, problem, points, SGD, 10, log_every=10)
    assert second.history["step"].tolist() == [0, 10]
    assert second.history["losses"]["r"][0] == first.history["losses"]["r"][-1]
