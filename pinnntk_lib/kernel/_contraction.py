"""Contraction of the residuals' factors into blocks and diagonals of the kernel."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

SMALL = 4096  # row length up to which a Jacobian is worth copying


def block(a: Mapping, b: Mapping, same: bool, shape: tuple[int, int]) -> jax.Array:
    """Return the kernel (n_a, n_b) of the residuals with factors a and b; ``same`` if both are the same residuals."""
    shared = sorted(a.keys() & b.keys())
    in_factors = [part for part in shared if len(a[part]) == 2]
    total = sum(_of_factors(a[part], b[part], same) for part in in_factors)
    jacobians = [(a[part][0][0], b[part][0][0]) for part in shared if len(a[part]) == 1]
    # concatenate the small Jacobians: writing an n x n product costs memory traffic, however short the rows
    small = [pair for pair in jacobians if pair[0].shape[1] <= SMALL]
    if small:
        total += _matmul(*(jnp.concatenate(side, axis=1) for side in zip(*small)))
    total += sum(_matmul(*pair) for pair in jacobians if pair[0].shape[1] > SMALL)
    return jnp.broadcast_to(total, shape)


def _matmul(a, b):
    # by default, accelerators keep three digits of a float32 matrix product
    return jnp.matmul(a, b.T, precision="highest")


def _of_factors(a, b, same):
    """Return the sum over channels k, l of (rows_a[k] rows_b[l]^T) * (columns_a[k] columns_b[l]^T)."""
    (rows_a, columns_a), (rows_b, columns_b) = a, b

    def add(total, pair):
        k, m, weight = pair
        kernel = _matmul(rows_a[k], rows_b[m]) * _matmul(columns_a[k], columns_b[m])
        return total + weight * kernel, None

    # a loop, because the compiler would otherwise compute all products first and keep them in memory
    start = jnp.zeros((rows_a.shape[1], rows_b.shape[1]), rows_a.dtype)
    total = jax.lax.scan(add, start, _pairs(len(rows_a), len(rows_b), same, rows_a.dtype))[0]
    return total + total.T if same else total


def _pairs(a, b, same, dtype):
    """Return all pairs of channels and their weights; if ``same``, a triangle, whose sum is added to its transpose."""
    k, m = np.triu_indices(a) if same else np.indices((a, b)).reshape(2, -1)
    return k, m, np.where(same & (k == m), 0.5, 1.0).astype(dtype)


def diagonal(factors: Mapping, n: int) -> jax.Array:
    """Return the kernel's diagonal (n,) from the residuals' factors."""
    total: jax.Array | float = 0.0
    for rows, *columns in factors.values():
        if columns:
            total += _diagonal_of_factors(rows, columns[0])
        else:
            total += jnp.sum(rows[0] ** 2, -1)
    return jnp.broadcast_to(total, (n,))


def _diagonal_of_factors(rows, columns):
    def add(total, pair):
        k, m, weight = pair
        return total + 2 * weight * jnp.sum(rows[k] * rows[m], -1) * jnp.sum(columns[k] * columns[m], -1), None

    start = jnp.zeros(rows.shape[1], rows.dtype)
    return jax.lax.scan(add, start, _pairs(len(rows), len(rows), True, rows.dtype))[0]
