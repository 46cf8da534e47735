"""The kernel, computed from the features of its points in chunks that fit into memory.

Features are what :class:`~pinnntk_lib.kernel._factors.Factors` and :class:`~pinnntk_lib.kernel._factors.Gradients`
return at points: factors of the gradients, or the gradients themselves.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pinnntk_lib._static import compiled
from pinnntk_lib.kernel import _contraction
from pinnntk_lib.kernel._factors import mapped

Pairs = tuple  # of (features, points), one pair per condition


def gram(leaves: Sequence, rows: Pairs, columns: Pairs | None, memory: int) -> jax.Array:
    """Return the kernel between rows and columns; if columns is None, the kernel of the rows."""
    at_once, keep = _points_at_once(rows + (columns or ()), memory)
    features, xs = zip(*rows)
    other_features, ys = zip(*columns) if columns else (None, None)
    # a single compiled call if there is nothing to loop over
    one_chunk_each = keep and max(len(x) for x in xs + (ys or ())) <= at_once
    run = _compiled_in_chunks if one_chunk_each else _in_chunks
    return run(features, other_features, at_once, keep, leaves, xs, ys)


def _points_at_once(pairs, memory):
    """Return ``(points per chunk, whether the features of all points are kept)``, within the memory budget."""
    features = [f for f, _ in pairs]
    feature, work = (max(f.feature_bytes for f in features), max(f.bytes_per_point for f in features))
    total, pair = sum(len(x) * f.feature_bytes for f, x in pairs), max(map(bytes_per_pair, features))
    keep = total <= memory / 2
    line, available = (work, memory - total) if keep else (work + 2 * feature, memory)
    at_once = int((math.sqrt(line**2 + 4 * pair * available) - line) / (2 * pair))
    if at_once < 1:
        raise ValueError(f"memory: expected at least {line + pair} bytes for this model, got {memory}")
    return at_once, keep


def bytes_per_pair(features):
    """Return the bytes per pair of points: two matrix products of a pair of channels, their product, and sums."""
    return 5 * features.outputs**2 * features.itemsize


class _Chunk(NamedTuple):
    """Some points of one condition.

    Attributes:
        features: features of the condition.
        x: the points.
        start: first row of the chunk in the kernel.
        rows: number of rows.
    """

    features: Any
    x: jax.Array
    start: int
    rows: int


def _chunks_of(features, xs, at_once):
    """Return ``([_Chunk], number of rows)``; the chunks of a condition have nearly equal sizes."""
    chunks, row = [], 0
    for f, x in zip(features, xs):
        size = math.ceil(len(x) / math.ceil(len(x) / at_once))
        for start in range(0, len(x), size):
            part = x[start : start + size]
            chunks.append(_Chunk(f, part, row + start * f.outputs, len(part) * f.outputs))
        row += len(x) * f.outputs
    return chunks, row


def _in_chunks(features, other_features, at_once, keep, leaves, xs, ys):
    """Return the kernel between points xs and ys; if ys is None, the kernel of xs, from one triangle of its blocks.

    If ``keep``, the features of each chunk are computed once and kept. Otherwise only those of two chunks exist at a
    time.
    """
    rows, n = _chunks_of(features, xs, at_once)
    columns, m = (rows, n) if ys is None else _chunks_of(other_features, ys, at_once)
    kept = {}

    def features_of(chunk):
        if id(chunk) not in kept:
            found = features_at(chunk.features, leaves, chunk.x)
            if not keep:
                return found
            kept[id(chunk)] = found
        return kept[id(chunk)]

    dtype = jnp.result_type(*leaves)
    if ys is None and keep and len(rows) > 1:  # one product writes the kernel once; blocks would be copied into it
        J = _contraction.short_jacobian([features_of(chunk) for chunk in rows], [chunk.rows for chunk in rows])
        if J is not None:
            return _contraction.product_of_rows(J, J).astype(dtype)

    matrix = jnp.zeros((n, m), dtype)
    for i, row in enumerate(rows):
        a = features_of(row)
        for column in columns[i if ys is None else 0 :]:
            same = row is column
            block = _block(a, a if same else features_of(column), same, (row.rows, column.rows))
            matrix = _placed(matrix, block, row.start, column.start)
            if ys is None and not same:
                matrix = _placed(matrix, block.T, column.start, row.start)
    return matrix


_compiled_in_chunks = compiled(4)(_in_chunks)


@compiled(1)
def features_at(feature, leaves, x):
    return feature(leaves, x)


@partial(jax.jit, static_argnums=(2, 3))
def _block(a, b, same, shape):
    return _contraction.block(a, b, same, shape)


@partial(jax.jit, donate_argnums=0)
def _placed(matrix, block, row, column):
    return jax.lax.dynamic_update_slice(matrix, block.astype(matrix.dtype), (row, column))


def diagonal(features: Any, leaves: Sequence, x: jax.Array, memory: int) -> jax.Array:
    """Return the kernel's diagonal at the points x of one condition."""
    return _diagonal(features, batch_size(features.bytes_per_point, memory), leaves, x)


@compiled(2)
def _diagonal(features, batch, leaves, x):
    return diagonal_at(features, batch, leaves, x)


def diagonal_at(features: Any, batch: int, leaves: Sequence, x: jax.Array) -> jax.Array:
    """Compute the diagonal of one condition, for at most ``batch`` points at a time."""

    def at(leaves, x):
        return _contraction.diagonal(features(leaves, x), len(x) * features.outputs).reshape(len(x), -1)

    return mapped(at, leaves, x, min(batch, features.points_at_once))


def batch_size(bytes_per_point: int, memory: int) -> int:
    """Return the number of points that fit into the memory budget at once."""
    if bytes_per_point > memory:
        raise ValueError(f"memory: expected at least {bytes_per_point} bytes for this model, got {memory}")
    return memory // max(bytes_per_point, 1)  # bytes_per_point is 0 if the condition depends on no parameter
