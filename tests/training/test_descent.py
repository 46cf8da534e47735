"""Kernel gradient descent, checked against Levenberg–Marquardt steps that are computed in parameter space."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import pinnntk_lib as pn
from conftest import same

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def one_step(model, params, problem, points, weights=None, **options):
    """Return the parameters after one step, as a flat array."""
    optimizer = pn.kernel_gradient_descent(**options)
    return ravel_pytree(pn.train(model.apply, params, problem, points, optimizer, 1, weights).params)[0]


def levenberg_marquardt(model, params, problem, points, weights, damping):
    """Return the parameters after the step ``-(J^T J + mu I)^{-1} J^T r``, computed from a dense Jacobian.

    ``mu`` is the damping, relative to the mean diagonal entry of ``J J^T``, times the first of 1, 2, 8, ... that
    lowers the loss.
    """
    flat, unravel = ravel_pytree(params)

    def scaled(flat):
        r = problem.residuals(lambda x: model.apply(unravel(flat), x), points)
        return jnp.concatenate([jnp.sqrt(weights[name] / len(v)) * v for name, v in r.items()])

    J, r = jax.jacrev(scaled)(flat), scaled(flat)
    mu, factor = damping * jnp.trace(J @ J.T) / len(r), 2
    while True:
        new = flat - jnp.linalg.solve(J.T @ J + mu * jnp.eye(len(flat)), J.T @ r)
        if jnp.sum(scaled(new) ** 2) < jnp.sum(r**2):
            return new
        mu, factor = mu * factor, 2 * factor


@pytest.mark.parametrize("weights", [{"u": 1.0, "r": 1.0}, {"u": 100.0, "r": 0.5}])
@pytest.mark.parametrize("damping", [1e-3, 1.0])
def test_a_step_is_a_levenberg_marquardt_step(poisson, weights, damping):
    expected = levenberg_marquardt(*poisson, weights, damping)
    assert np.allclose(one_step(*poisson, weights, damping=damping), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("weights", [{"u": 1.0, "r": 1.0}, {"u": 100.0, "r": 0.5}])
def test_with_more_residuals_than_parameters(poisson, weights):
    """The system is then solved in parameter space."""
    _, _, problem, _ = poisson
    points, model = problem.points({"u": 4, "r": 60}), pn.MLP(5, shift=0.5, scale=0.3)
    setting = model, model.init(jax.random.key(0)), problem, points
    assert np.allclose(one_step(*setting, weights), levenberg_marquardt(*setting, weights, 1e-3), rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_three_conditions_and_two_layers(wave):
    weights = {"u": 3.0, "ut": 1.0, "r": 0.1}
    assert np.allclose(one_step(*wave, weights), levenberg_marquardt(*wave, weights, 1e-3), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_units_of_the_loss_do_not_matter(scale):
    problem = pn.problems.Poisson1D(a=2)
    points, model = problem.points(8), pn.MLP(width=6)
    params = model.init(jax.random.key(0))
    first, second = (one_step(model, params, problem, points, {"u": c, "r": c}) for c in (1.0, scale))
    assert np.allclose(first, second, rtol=1e-7, atol=1e-9)


def test_a_linear_model_is_solved_at_once():
    """A linear least-squares problem needs a single step, up to the effect of the damping."""
    problem = pn.problems.Poisson1D(a=1)
    points = problem.points(12)

    def apply(params, x):
        return jnp.polyval(params, x[0], unroll=9)

    optimizer = pn.kernel_gradient_descent(damping=1e-10)
    result = pn.train(apply, jnp.zeros(9), problem, points, optimizer, 2, log_every=1)
    first, last = (result.history["losses"]["r"][i] for i in (0, -1))
    assert last < 1e-8 * first
    assert result.history["error"][-1] < 1e-6


def test_the_loss_never_rises(poisson):
    model, params, problem, points = poisson
    setting = model.apply, params, problem, points, pn.kernel_gradient_descent()
    losses = pn.train(*setting, 60, log_every=1).history["losses"]
    total = losses["u"] + losses["r"]
    assert (np.diff(total) <= 0).all()
    assert total[-1] < 1e-4 * total[0]


def test_a_step_that_cannot_be_improved_leaves_all_as_it_is():
    """At the minimum of a problem without a solution, no step lowers the loss and the parameters stay as they are."""
    condition = pn.Condition(lambda u, x: u(x), lambda x: 1.0 * (x[0] > 0.5), lambda n, key: jnp.array([[0.0], [1.0]]))
    problem = pn.Problem({"u": condition}, (0.0,), (1.0,))

    def apply(params, x):
        return params[0] + 0.0 * x[0]

    params = jnp.array([0.5])  # the mean of both targets, which is the minimum
    result = pn.train(apply, params, problem, problem.points(2), pn.kernel_gradient_descent(), 5)
    assert np.allclose(result.params, params, atol=1e-7)
    assert np.isfinite(result.state.opt_state.damping)


@pytest.mark.slow
def test_fresh_points_and_adaptive_weights(wave):
    model, params, problem, _ = wave
    sampler = pn.RandomPoints(problem, 20)
    setting = model.apply, params, problem, sampler, pn.kernel_gradient_descent()
    history = pn.train(*setting, 50, pn.NTKWeights(every=10), key=jax.random.key(0), log_every=10).history
    assert history["error"][-1] < history["error"][0]
    assert history["losses"]["u"][-1] < 0.5 * history["losses"]["u"][0]


def test_resumed_bit_for_bit(wave, tmp_path):
    model, params, problem, points = wave
    setting = model.apply, params, problem, points, pn.kernel_gradient_descent()
    whole = pn.train(*setting, 20, log_every=5)
    pn.train(*setting, 10, log_every=5, checkpoints=tmp_path)
    rest = pn.train(*setting, 20, log_every=5, resume=tmp_path)
    assert same(whole.state, rest.state)


def test_float32(poisson):
    model, params, problem, points = poisson
    params, points = jax.tree.map(lambda leaf: leaf.astype(np.float32), (params, points))
    setting = model.apply, params, problem, points, pn.kernel_gradient_descent()
    result = pn.train(*setting, 60)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(result.params))
    assert result.history["losses"]["r"][-1] < 1e-2 * result.history["losses"]["r"][0]


def test_l_bfgs_of_optax_has_what_it_asks_for(poisson):
    model, params, problem, points = poisson
    losses = pn.train(model.apply, params, problem, points, optax.lbfgs(), 50, log_every=50).history["losses"]
    assert losses["r"][-1] + losses["u"][-1] < 0.1 * (losses["r"][0] + losses["u"][0])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"damping": 0.0}, "damping"),
        ({"damping": np.nan}, "damping"),
        ({"max_tries": 0}, "max_tries"),
        ({"memory": -1}, "memory"),
    ],
)
def test_arguments_are_checked(options, named):
    with pytest.raises(ValueError, match=f"{named}: expected"):
        pn.kernel_gradient_descent(**options)


@pytest.mark.slow
def test_the_paper_s_model_problem_to_four_digits():
    """A hundred steps solve the paper's problem to a median error below 1e-4 over ten seeds.

    Plain training fails on this problem, and Algorithm 1 reaches 2e-3 in 40,000 steps.
    """
    problem = pn.problems.Poisson1D(a=4)
    points, optimizer = problem.points(100), pn.kernel_gradient_descent()
    model = pn.MLP(width=100, **pn.normalization(points["r"]))
    errors = []
    for seed in range(10):
        setting = model.apply, model.init(jax.random.key(seed)), problem, points, optimizer
        errors.append(pn.train(*setting, 100, progress=False).history["error"][-1])
    assert np.median(errors) < 1e-4
    assert max(errors) < 1e-3
