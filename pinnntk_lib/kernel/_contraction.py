"""Contraction of the residuals' gradients into blocks and diagonals of the kernel.

The gradient of n residuals with respect to some parameters has one of three forms: :class:`Rows`, a Jacobian;
:class:`Products`, outer products that are contracted pair by pair; or :class:`Assembled`, outer products whose sums,
the rows of the Jacobian, are formed a few rows of the parameter matrix at a time. Parameter matrices of equal size,
such as the hidden layers', are stacked: a loop over them is compiled once.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib.kernel._costs import costs

SMALL = 4096  # row length up to which a Jacobian is worth copying


class Rows(NamedTuple):
    """A Jacobian (n, size)."""

    jacobian: jax.Array


class Products(NamedTuple):
    """Gradients of L matrices as sums over C channels of outer products, contracted by pairs of channels.

    Attributes:
        rows: (n, L, C, rows).
        columns: (n, L, C, columns).
    """

    rows: jax.Array
    columns: jax.Array


class Assembled(NamedTuple):
    """As :class:`Products`, contracted by assembling the Jacobian."""

    rows: jax.Array
    columns: jax.Array


Features = Mapping[int, Rows | Products | Assembled]  # {group of parameters: gradients}


def block(a: Features, b: Features, same: bool, shape: tuple[int, int]) -> jax.Array:
    """Return the kernel (n_a, n_b) of the residuals with gradients a and b; ``same`` if both are the same residuals."""
    n, m = shape
    short, other = (short_jacobian([side], [length]) for side, length in zip((a, b), shape))
    if a.keys() == b.keys() and short is not None and other is not None:
        return product_of_rows(short, other)
    high, wide = (math.ceil(length / math.ceil(length / costs().tile)) for length in shape)
    if (high, wide) == shape:
        return _tile(a, b, same, shape)
    # Tiles stay in the cache while they are summed. Those at the end overlap, so that all have the same size.
    tops, lefts = (
        [min(start, length - side) for start in range(0, length, side)] for length, side in ((n, high), (m, wide))
    )
    corners = [(i, j) for i in tops for j in lefts if not same or j < i]

    def cut(features, start, length):
        return jax.tree.map(lambda f: jax.lax.dynamic_slice_in_dim(f, start, length), features)

    def place(matrix, corner):
        i, j = corner
        tile = _tile(cut(a, i, high), cut(b, j, wide), False, (high, wide))
        matrix = jax.lax.dynamic_update_slice(matrix, tile, (i, j))
        return jax.lax.dynamic_update_slice(matrix, tile.T, (j, i)) if same else matrix, None

    def place_on_diagonal(matrix, i):
        part = cut(a, i, high)
        return jax.lax.dynamic_update_slice(matrix, _tile(part, part, True, (high, high)), (i, i)), None

    matrix = jnp.zeros(shape, jax.eval_shape(partial(_tile, same=False, shape=shape), a, b).dtype)
    if corners:
        matrix = jax.lax.scan(place, matrix, np.array(corners))[0]
    return jax.lax.scan(place_on_diagonal, matrix, np.array(tops))[0] if same else matrix


def short_jacobian(features: Sequence[Features], lengths: Sequence[int]) -> jax.Array | None:
    """Return one Jacobian of several sets of residuals if it is so short that one product is faster than its tiles."""
    parts = [{key: part.jacobian for key, part in found.items() if isinstance(part, Rows)} for found in features]
    widths = {key: J.shape[1] for found in parts for key, J in found.items()}
    is_all = all(len(found) == len(of_rows) for found, of_rows in zip(features, parts))
    if not (widths and is_all) or sum(widths.values()) > costs().direct:
        return None
    dtype = jnp.result_type(*(J for found in parts for J in found.values()))

    def rows(found, n):
        return jnp.concatenate([found.get(key, jnp.zeros((n, widths[key]), dtype)) for key in sorted(widths)], axis=1)

    return jnp.concatenate([rows(found, n) for found, n in zip(parts, lengths)])


def _tile(a, b, same, shape):
    shared = sorted(a.keys() & b.keys())
    total: jax.Array | float = 0.0
    jacobians = [(a[part].jacobian, b[part].jacobian) for part in shared if isinstance(a[part], Rows)]
    # concatenate the small Jacobians: writing an n x n product costs memory traffic, however short the rows
    small = [pair for pair in jacobians if pair[0].shape[1] <= SMALL]
    if small:
        total += product_of_rows(*(jnp.concatenate(side, axis=1) for side in zip(*small)))
    total += sum(product_of_rows(*pair) for pair in jacobians if pair[0].shape[1] > SMALL)
    for part in shared:
        if isinstance(a[part], Products):
            total += _by_pairs(a[part], b[part], same)
        elif isinstance(a[part], Assembled):
            total += _by_rows(a[part], b[part], same)
    total = jnp.broadcast_to(total, shape)
    # K is symmetric, but a computed J J^T is symmetric only up to rounding error
    return (total + total.T) / 2 if same else total


def product_of_rows(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return ``a b^T``; of an array with itself, it is symmetric up to rounding error."""
    # by default, accelerators keep three digits of a float32 matrix product
    return jnp.matmul(a, b.T, precision="highest")


def assembled(rows, columns):
    """Return the Jacobian (n, L * rows * columns) of outer products (n, L, C, rows) and (n, L, C, columns)."""
    return _assembled(jnp.swapaxes(rows, 2, 3), columns)


def _assembled(rows, columns):
    products = jnp.einsum("nlrk,nlkc->nlrc", rows, columns, precision="highest")  # the fastest order on CPUs
    return products.reshape(len(products), -1)


def _by_pairs(a, b, same):
    """Return the sum over matrices and channels k, m of (rows_a[k] rows_b[m]^T) * (columns_a[k] columns_b[m]^T)."""

    def add(total, pair):
        i, k, m, weight = pair
        of_rows = product_of_rows(a.rows[:, i, k], b.rows[:, i, m])
        of_columns = product_of_rows(a.columns[:, i, k], b.columns[:, i, m])
        return total + weight * (of_rows * of_columns), None

    # a loop, because the compiler would otherwise compute all products first and keep them in memory
    start = jnp.zeros((len(a.rows), len(b.rows)), a.rows.dtype)
    total = jax.lax.scan(add, start, _pairs(*a.rows.shape[1:3], b.rows.shape[2], same, a.rows.dtype))[0]
    return total + total.T if same else total


def _by_rows(a, b, same):
    """Return J_a J_b^T, with the Jacobians assembled for a few rows of a parameter matrix at a time."""
    n, matrices, _, height = a.rows.shape
    row_bytes = a.columns.shape[-1] * a.columns.dtype.itemsize
    count = min(height, math.ceil(n * height * row_bytes / (2 * costs().working_set)))
    by_block = [_in_blocks(a.rows, count)] if same else [_in_blocks(a.rows, count), _in_blocks(b.rows, count)]

    def add(total, block):
        i, *rows = block
        J = _assembled(rows[0], a.columns[:, i][:, None])
        return total + product_of_rows(J, J if same else _assembled(rows[1], b.columns[:, i][:, None])), None

    start = jnp.zeros((len(a.rows), len(b.rows)), a.rows.dtype)
    return jax.lax.scan(add, start, [np.repeat(np.arange(matrices), count), *by_block])[0]


def _in_blocks(rows, count):
    """Divide (n, L, C, rows) into (L * count, n, 1, size, C), ``count`` blocks per matrix, filled up with zeros."""
    n, matrices, channels, length = rows.shape
    size = -(-length // count)
    filled = jnp.pad(rows, ((0, 0), (0, 0), (0, 0), (0, size * count - length)))
    blocks = filled.reshape(n, matrices, channels, count, size).transpose(1, 3, 0, 4, 2)
    return blocks.reshape(matrices * count, n, 1, size, channels)


def _pairs(matrices, a, b, same, dtype):
    """Return matrix, two channels and weight of all pairs; if ``same``, a triangle, to be added to its transpose."""
    k, m = np.triu_indices(a) if same else np.indices((a, b)).reshape(2, -1)
    weight = np.where(same & (k == m), 0.5, 1.0).astype(dtype)
    return np.repeat(np.arange(matrices), len(k)), *(np.tile(values, matrices) for values in (k, m, weight))


def diagonal(features: Features, n: int) -> jax.Array:
    """Return the kernel's diagonal (n,) from the residuals' gradients."""
    total: jax.Array | float = 0.0
    for gradients in features.values():
        if isinstance(gradients, Products):
            total += _diagonal_by_pairs(gradients)
        else:
            jacobian = gradients.jacobian if isinstance(gradients, Rows) else assembled(*gradients)
            total += jnp.sum(jacobian**2, -1)
    return jnp.broadcast_to(total, (n,))


def _diagonal_by_pairs(gradients):
    gram = partial(jnp.einsum, "nlkr,nlmr->nlkm", precision="highest")
    return jnp.sum(gram(gradients.rows, gradients.rows) * gram(gradients.columns, gradients.columns), (1, 2, 3))
