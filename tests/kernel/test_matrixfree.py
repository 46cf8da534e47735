import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pinnntk_lib as pn


def relative(a, b):
    return np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max()


PROBLEM, MODEL = pn.problems.Wave1D(), pn.MLP(width=8, depth=2, dim=2)  # shared, to compile only once


@given(seed=st.integers(0, 2**31 - 1))
def test_products(seed):
    problem, model = PROBLEM, MODEL
    params, points = model.init(jax.random.key(seed)), problem.points(7, jax.random.key(seed))
    K = pn.ntk(model.apply, params, problem, points).matrix
    vectors = jax.random.normal(jax.random.key(seed), (21, 3))
    assert relative(pn.ntk_vector_product(model.apply, params, problem, points, vectors), K @ vectors) < 1e-12
    assert (
        relative(pn.ntk_vector_product(model.apply, params, problem, points, vectors[:, 0]), K @ vectors[:, 0]) < 1e-12
    )


@pytest.mark.parametrize("memory", [2**30, 60_000, 20_000])
def test_chunks_change_nothing(wave, memory):
    model, params, problem, points = wave
    v = jnp.arange(21.0)
    expected = pn.ntk(model.apply, params, problem, points).matrix @ v
    assert relative(pn.ntk_vector_product(model.apply, params, problem, points, v, memory=memory), expected) < 1e-12


def test_eigenpairs(wave):
    model, params, problem, points = wave
    K = pn.ntk(model.apply, params, problem, points)
    values, vectors = pn.ntk_eigenpairs(model.apply, params, problem, points, 5, jax.random.key(0))
    assert relative(values, K.eigvalsh()[:5]) < 1e-12
    assert relative(K.matrix @ vectors, vectors * values) < 1e-12
    assert relative(vectors.T @ vectors, np.eye(5)) < 1e-12


def test_where_the_kernel_would_not_fit():
    """With 20,000 points per condition, K would take 12.8 GB in float64. Its eigenvalues decay quickly."""
    problem = pn.problems.Poisson1D(a=4)
    points = problem.points(20_000)
    model = pn.MLP(20, **pn.normalization(points["r"]))
    params = model.init(jax.random.key(0))
    values, vectors = pn.ntk_eigenpairs(model.apply, params, problem, points, 3, jax.random.key(0))
    residuals = pn.ntk_vector_product(model.apply, params, problem, points, jnp.asarray(vectors)) - vectors * values
    assert np.linalg.norm(residuals, axis=0).max() < 1e-10 * values[0]
    # the eigenvalues of K/n converge to those of an integral operator, so far fewer points have nearly the same ones
    coarse = pn.ntk(model.apply, params, problem, problem.points(500)).eigvalsh()[:3]
    assert relative(values / 20_000, coarse / 500) < 1e-2


def test_single_precision(wave):
    model, params, problem, points = wave
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, points))
    values, vectors = pn.ntk_eigenpairs(model.apply, single[0], problem, single[1], 3, jax.random.key(0))
    assert vectors.dtype == np.float32
    assert relative(values, pn.ntk(model.apply, params, problem, points).eigvalsh()[:3]) < 1e-5


@pytest.mark.parametrize(
    ("vector", "error", "message"),
    [
        (jnp.ones(20), ValueError, r"vector: expected shape \(21,\) or \(21, k\)"),
        (jnp.ones((21, 1, 1)), ValueError, r"vector: expected shape \(21,\) or \(21, k\)"),
        (jnp.ones(21, int), TypeError, "vector: expected floating-point numbers, got int"),
    ],
)
def test_bad_vectors(wave, vector, error, message):
    model, params, problem, points = wave
    with pytest.raises(error, match=message):
        pn.ntk_vector_product(model.apply, params, problem, points, vector)


@pytest.mark.parametrize(
    ("count", "message"), [(21, "fewer than the kernel's 21 rows, got 21"), (0, "positive integer")]
)
def test_bad_counts(wave, count, message):
    model, params, problem, points = wave
    with pytest.raises(ValueError, match=f"count: expected (a )?{message}"):
        pn.ntk_eigenpairs(model.apply, params, problem, points, count, jax.random.key(0))


def test_too_little_memory(wave):
    model, params, problem, points = wave
    with pytest.raises(ValueError, match=r"memory: expected at least \d+ bytes for this model, got 100"):
        pn.ntk_vector_product(model.apply, params, problem, points, jnp.ones(21), memory=100)
