"""The Gauss–Newton matrix agrees with the Jacobian, and has the kernel's eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import pinnntk_lib as pn
from pinnntk_lib.kernel import gauss_newton_matrix
from pinnntk_lib.kernel._normal import _chunk_size

SCALES = {"u": 0.5, "r": 2.0}


def jacobian(model, params, problem, points, scales=SCALES):
    """Return the Jacobian (n, P) of the scaled residuals, by jax.jacrev."""
    flat, unravel = ravel_pytree(params)

    def scaled(flat):
        r = problem.residuals(lambda x: model.apply(unravel(flat), x), points)
        return jnp.concatenate([scales[name] * v.ravel() for name, v in r.items()])

    return jax.jacrev(scaled)(flat)


@pytest.mark.parametrize("memory", [2**30, 2**14])
def test_is_the_jacobian_s_product(poisson, memory):
    """Also in chunks whose last one is padded."""
    J = jacobian(*poisson)
    model, params, problem, points = poisson
    G = gauss_newton_matrix(model.apply, params, problem, points, SCALES, memory=memory)
    assert np.allclose(G, J.T @ J, rtol=1e-12, atol=1e-12 * np.abs(G).max())


def test_the_jacobian_has_the_order_of_ravel_pytree(poisson):
    model, params, problem, points = poisson
    J = pn.kernel.jacobian(model.apply, params, problem, points, SCALES)
    assert np.allclose(J, jacobian(*poisson), rtol=1e-12, atol=1e-12 * np.abs(J).max())


def test_has_the_kernel_s_eigenvalues(poisson):
    model, params, problem, points = poisson
    ones = {"u": 1.0, "r": 1.0}
    G = gauss_newton_matrix(model.apply, params, problem, points, ones)
    K = pn.ntk(model.apply, params, problem, points)
    few = 10
    assert np.allclose(jnp.linalg.eigvalsh(G)[::-1][:few], K.eigvalsh()[:few], rtol=1e-9, atol=1e-9 * K.trace())


def test_systems_count_every_output():
    def rotation(u, x):
        return jnp.stack([pn.d(u, 0)(x)[0] - u(x)[1], pn.d(u, 0)(x)[1] + u(x)[0]])

    model = pn.MLP(4, 1, 1)
    params = [model.init(key) for key in jax.random.split(jax.random.key(0))]

    def apply(params, x):
        return jnp.stack([model.apply(p, x) for p in params])

    points = {"r": jnp.linspace(0, 1, 7)[:, None]}
    G = gauss_newton_matrix(apply, params, {"r": pn.System(rotation, 2)}, points, {"r": 3.0})
    flat, unravel = ravel_pytree(params)
    J = jax.jacrev(
        lambda f: 3.0 * jax.vmap(lambda x: rotation(lambda y: apply(unravel(f), y), x))(points["r"]).ravel()
    )(flat)
    assert np.allclose(G, J.T @ J, rtol=1e-12, atol=1e-12 * np.abs(G).max())


def test_chunks_have_nearly_equal_sizes():
    assert [_chunk_size(n, 100, 2 * 100 * 10) for n in (1, 10, 11, 25)] == [1, 10, 6, 9]


def test_a_budget_below_one_row_is_refused(poisson):
    model, params, problem, points = poisson
    with pytest.raises(ValueError, match="memory: expected at least"):
        gauss_newton_matrix(model.apply, params, problem, points, SCALES, memory=10)
