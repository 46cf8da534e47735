"""Runs of several stages: optimisers that take turns, and single before double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pinnntk_lib as pn
from conftest import same

ADAM, DESCENT = optax.adam(1e-3), pn.kernel_gradient_descent()


def train(setup, steps, optimizer, **options):
    model, params, problem, points = setup
    params = options.pop("params", params)
    return pn.train(model.apply, params, problem, points, optimizer, steps, **options)


@pytest.mark.slow
def test_joined_optimisers_are_runs_one_after_the_other(poisson):
    """Each starts anew: Adam's bias correction and L-BFGS's memory know nothing of earlier steps."""
    optimizers = [ADAM, optax.lbfgs(), DESCENT]
    params = poisson[1]
    for optimizer, steps in zip(optimizers, (7, 5, 3)):
        params = train(poisson, steps, optimizer, params=params).params
    joined = train(poisson, 15, pn.join_optimizers(optimizers, [7, 12])).params
    for a, b in zip(jax.tree.leaves(joined), jax.tree.leaves(params)):
        assert np.allclose(a, b, rtol=1e-7, atol=1e-9)


def test_joined_optimisers_resume_on_either_side_of_a_boundary(poisson):
    optimizer = pn.join_optimizers([ADAM, DESCENT], [6])
    whole = train(poisson, 10, optimizer, log_every=2)
    for stop in (4, 6, 8):
        resumed = train(poisson, 10, optimizer, log_every=2, resume=train(poisson, stop, optimizer, log_every=2))
        assert same((whole.state, whole.history), (resumed.state, resumed.history))


@pytest.mark.parametrize(
    ("optimizers", "boundaries", "error", "message"),
    [
        (ADAM, [], TypeError, "optimizers: expected a list of optax optimisers, got Gradient"),
        ([], [], TypeError, "optimizers: expected a list of optax optimisers"),
        ([ADAM, 3], [5], TypeError, r"optimizers\[1\]: expected an optax gradient transformation, got 3"),
        ([ADAM, ADAM], [], ValueError, r"boundaries: expected 1 steps, one per handover, got \[\]"),
        ([ADAM, ADAM], [0], ValueError, r"boundaries\[0\]: expected a positive integer, got 0"),
        ([ADAM, ADAM], [2.5], TypeError, r"boundaries\[0\]: expected a positive integer, got 2.5"),
        ([ADAM, ADAM, ADAM], [5, 5], ValueError, r"boundaries: expected increasing steps, got \[5, 5\]"),
    ],
)
def test_bad_joins(optimizers, boundaries, error, message):
    with pytest.raises(error, match=message):
        pn.join_optimizers(optimizers, boundaries)


def test_a_join_needs_the_parameters(poisson):
    optimizer = pn.join_optimizers([ADAM, ADAM], [3])
    with pytest.raises(ValueError, match="params: expected the parameters, from which a later optimiser begins, got N"):
        optimizer.update(poisson[1], optimizer.init(poisson[1]))


# ---------------------------------------------------------------- precision


def test_single_steps_are_those_of_single_precision(poisson):
    """Their parameters are those of a run in single precision throughout, and the state stays in double precision."""
    model, params, problem, points = poisson
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, points))
    expected = pn.train(model.apply, single[0], problem, single[1], ADAM, 20).params
    found = train(poisson, 20, ADAM, single_steps=20)
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected)):
        assert a.dtype == jnp.float64
        assert np.allclose(a, b, rtol=1e-4, atol=1e-6)
        assert (a == a.astype(jnp.float32)).all()  # no bits of double precision
    assert all(leaf.dtype != jnp.float32 for leaf in jax.tree.leaves(found.state))


def test_after_single_steps_the_run_goes_on_in_double_precision(poisson):
    first = train(poisson, 20, ADAM, single_steps=20)
    expected = train(poisson, 40, ADAM, resume=first)
    found = train(poisson, 40, ADAM, single_steps=20)
    assert same(found.state, expected.state)
    assert found.history["step"].tolist() == [0, 20, 40]
    assert not all((leaf == leaf.astype(jnp.float32)).all() for leaf in jax.tree.leaves(found.params))


def test_single_steps_with_fresh_points_weights_and_a_schedule(poisson):
    model, params, problem, _ = poisson
    optimizer = optax.adam(optax.exponential_decay(1e-3, 10, 0.9))
    setting = model.apply, params, problem, pn.RandomPoints(problem, 8), optimizer, 30, pn.NTKWeights(10)
    options = {"key": jax.random.key(0), "log_every": 10}
    found, exact = pn.train(*setting, single_steps=20, **options), pn.train(*setting, **options)
    for name in ("u", "r"):
        assert np.allclose(found.history["losses"][name], exact.history["losses"][name], rtol=1e-3)
    resumed = pn.train(*setting[:5], 10, setting[6], single_steps=20, **options)
    assert same(pn.train(*setting, single_steps=20, resume=resumed, **options).state, found.state)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [optax.lbfgs(), pn.join_optimizers([ADAM, optax.lbfgs()], [2]), pn.join_optimizers([ADAM, DESCENT], [2])],
    ids=["L-BFGS", "then L-BFGS", "then descent"],
)
def test_single_steps_of_optimisers_that_search(poisson, optimizer):
    found = train(poisson, 6, optimizer, single_steps=3, log_every=1)
    exact = train(poisson, 6, optimizer, log_every=1)
    assert np.allclose(found.history["losses"]["r"], exact.history["losses"]["r"], rtol=0.05)
    assert all(leaf.dtype != jnp.float32 for leaf in jax.tree.leaves(found.state))


def test_single_steps_on_points_by_their_residuals(poisson):
    """The points are others than in double precision, because random numbers depend on it, but as many and as good."""
    model, params, problem, _ = poisson
    sampler, options = pn.ResidualPoints(problem, 40), {"key": jax.random.key(0), "log_every": 2}
    setting = model.apply, params, problem, sampler, ADAM, 6
    found, exact = pn.train(*setting, single_steps=4, **options), pn.train(*setting, **options)
    assert np.allclose(found.history["losses"]["r"], exact.history["losses"]["r"], rtol=0.5)
    assert all(leaf.dtype != jnp.float32 for leaf in jax.tree.leaves(found.state))


@pytest.mark.parametrize(("steps", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_bad_single_steps(poisson, steps, error):
    with pytest.raises(error, match="single_steps: expected a number of steps, got"):
        train(poisson, 5, ADAM, single_steps=steps)
