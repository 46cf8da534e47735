from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pinnntk_lib as pn
from pinnntk_lib.training._step import run_steps


def test_random_points_are_the_problems_own():
    problem, key = pn.problems.Wave1D(), jax.random.key(3)
    sizes = {"u": 6, "ut": 2, "r": 5}
    drawn, expected = pn.RandomPoints(problem, sizes)(key), problem.points(sizes, key)
    assert list(drawn) == list(expected)
    assert all((drawn[name] == expected[name]).all() for name in expected)
    assert {name: len(x) for name, x in pn.RandomPoints(problem, 4)(key).items()} == {"u": 4, "ut": 4, "r": 4}


def test_a_minibatch_has_each_point_at_most_once_and_all_are_as_likely():
    points = {"u": jnp.array([[0.0], [1.0]]), "r": jnp.linspace(0, 1, 20)[:, None]}
    sampler = pn.Minibatches(points, {"u": 1, "r": 8})
    batches = jax.vmap(sampler)(jax.random.split(jax.random.key(0), 2000))
    r = np.asarray(batches["r"])[..., 0]
    assert all(len(set(batch)) == 8 for batch in r.tolist())
    counts = np.array([(r == x).sum() for x in np.asarray(points["r"])[:, 0]])
    # 2000 draws of 8 out of 20: each point 800 times, with a standard deviation of 22
    assert counts.sum() == 16_000
    assert (abs(counts - 800) < 110).all()


def test_samplers_train_and_share_compiled_code(poisson):
    model, params, problem, points = poisson
    optimizer = optax.sgd(1e-6)
    size = None
    for seed in range(2):
        pn.train(model.apply, params, problem, pn.RandomPoints(problem, 5), optimizer, 5, key=jax.random.key(seed))
        assert size in (None, run_steps.specialised.cache_info().misses)
        size = run_steps.specialised.cache_info().misses
    minibatches = pn.Minibatches(points, 3)
    result = pn.train(model.apply, params, problem, minibatches, optimizer, 20, log_every=1, key=jax.random.key(0))
    assert len(set(result.history["losses"]["r"].tolist())) == 21


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (0, ValueError, "n for condition 'u': expected a positive integer, got 0"),
        (2.0, TypeError, "n for condition 'u': expected a positive integer, got 2.0"),
        ({"u": 1}, ValueError, r"n: expected the conditions \['u', 'r'\], got .* \(missing \['r'\]"),
        (11, ValueError, "n for condition 'u': expected at most 10, got 11"),
    ],
)
def test_bad_input(poisson, n, error, message):
    _, _, problem, points = poisson
    with pytest.raises(error, match=message):
        pn.Minibatches(points, n)
    if n != 11:
        with pytest.raises(error, match=message):
            pn.RandomPoints(problem, n)


def test_points_that_are_none():
    with pytest.raises(TypeError, match=r"points: expected {name: \(n, d\) array}, got int"):
        pn.Minibatches(3, 1)


# ---------------------------------------------------------------- points by their residuals


def test_points_follow_the_residuals():
    """For the residual 2 x on [0, 1], the density is (2 x)^k / mean + c, normalised."""
    problem = pn.problems.Poisson1D()
    for power, floor, mean in ((1.0, 0.0, 2 / 3), (2.0, 0.0, 3 / 4), (1.0, 1.0, 7 / 12), (0.0, 1.0, 1 / 2)):
        sampler = pn.ResidualPoints(problem, 400, pool=25, power=power, floor=floor)
        draw = jax.vmap(partial(sampler.adapted, residuals=partial(jax.tree.map, lambda x: 2 * x)))
        found = draw(jax.random.split(jax.random.key(0), 50))["r"]
        # 20,000 points have a standard error of 0.002. The largest residuals of a finite pool run out: at most 0.005.
        assert abs(found.mean() - mean) < 0.01


def test_residuals_of_zero_or_of_several_outputs():
    problem = pn.problems.Poisson1D()
    sampler = pn.ResidualPoints(problem, 100, floor=0.5)
    even = sampler.adapted(jax.random.key(0), lambda points: {n: 0 * x[:, 0] for n, x in points.items()})
    assert np.isfinite(even["r"]).all()
    assert abs(even["r"].mean() - 0.5) < 0.1
    pairs = sampler.adapted(jax.random.key(0), lambda points: {n: jnp.tile(x, (1, 2)) for n, x in points.items()})
    single = sampler.adapted(jax.random.key(0), lambda points: points)
    assert np.allclose(pairs["r"], single["r"])  # the norm of (x, x) is proportional to x


@pytest.mark.parametrize("factor", [0.0, jnp.nan, jnp.inf, 1e300, 1e-300])
def test_residuals_that_tell_nothing_give_even_points(factor):
    """All zero, not finite, or so large or small that their powers are: no side of the domain is preferred."""
    sampler = pn.ResidualPoints(pn.problems.Poisson1D(), 50, power=2.0, floor=0.0)
    points = sampler.adapted(jax.random.key(0), lambda points: {n: factor + 0 * x for n, x in points.items()})
    assert abs(points["r"].mean() - 0.5) < 0.15
    assert 10 < (points["u"] == 0).sum() < 40


def test_a_sampler_of_certain_points_may_ignore_their_number():
    ends = pn.Condition(lambda u, x: u(x), 0.0, lambda n, key: jnp.array([[0.0], [1.0]]))
    sampler = pn.ResidualPoints(pn.Problem({"u": ends}, (0.0,), (1.0,)), 8)
    assert sampler.adapted(jax.random.key(0), lambda points: points)["u"].ravel().tolist() == [0.0, 1.0]


def test_training_passes_the_residuals_at_the_current_parameters(poisson):
    """Each step's points are those that the sampler chooses by the residuals of that step's parameters."""
    model, params, problem, _ = poisson
    sampler, key, seen = pn.ResidualPoints(problem, 6), jax.random.key(3), []
    for step in range(3):

        def residuals(points, at=params):
            return problem.residuals(lambda x: model.apply(at, x), points)

        points = sampler.adapted(jax.random.fold_in(key, step), residuals)
        params = pn.train(model.apply, params, problem, points, optax.sgd(1e-6), 1).params
        seen.append(points["r"])
    found = pn.train(model.apply, poisson[1], problem, sampler, optax.sgd(1e-6), 3, key=key).params
    assert all(np.allclose(a, b, rtol=1e-12) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(params)))
    assert not np.allclose(seen[0], seen[1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pool": 1}, ValueError, "pool: expected at least 2, got 1"),
        ({"pool": 2.5}, TypeError, "pool: expected a positive integer, got 2.5"),
        ({"power": -1.0}, ValueError, "power: expected a number that is not negative, got -1"),
        ({"floor": float("nan")}, ValueError, "floor: expected a finite number, got nan"),
    ],
)
def test_bad_residual_points(options, error, message):
    with pytest.raises(error, match=message):
        pn.ResidualPoints(pn.problems.Poisson1D(), 5, **options)
