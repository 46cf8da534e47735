"""The kernel from the features of its points, in chunks that fit into memory, on one device or several.

Features are what :class:`~pinnntk_lib.structured.Factors` gives at points: factors of the gradients, or gradients.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pinnntk_lib.kernel import _contraction

Pairs = tuple  # of (features, points), one pair a condition


def gram(leaves: Sequence, rows: Pairs, columns: Pairs | None, memory: int) -> jax.Array:
    """The kernel of rows with columns, or with themselves if columns is None."""
    at_once, keep = _points_at_once(rows + (columns or ()), memory)
    features, xs = zip(*rows)
    other_features, ys = zip(*columns) if columns else (None, None)
    # one compiled call where there is nothing to loop over
    one_chunk_each = keep and max(len(x) for x in xs + (ys or ())) <= at_once
    run = _compiled_in_chunks if one_chunk_each else _in_chunks
    return run(features, other_features, at_once, keep, leaves, xs, ys)


def _points_at_once(pairs, memory):
    """``(points a chunk, whether the features of all points may be kept)``, within the memory."""
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
    """Two products of one pair of channels, their own, and sums."""
    return 5 * features.outputs**2 * features.itemsize


class _Chunk(NamedTuple):
    """Some points of one condition.

    Attributes:
        condition: its number.
        features: its features.
        x: the points.
        start: the first one's row in the kernel.
        offset: the first one's row in the condition's features.
        rows: how many rows they have.
    """

    condition: int
    features: Any
    x: jax.Array
    start: int
    offset: int
    rows: int


def chunks_of(features, xs, at_once):
    """``([_Chunk], number of rows)``, the chunks of a condition of nearly equal size."""
    chunks, row = [], 0
    for i, (f, x) in enumerate(zip(features, xs)):
        size = math.ceil(len(x) / math.ceil(len(x) / at_once))
        for start in range(0, len(x), size):
            part = x[start : start + size]
            offset = start * f.outputs
            chunks.append(_Chunk(i, f, part, row + offset, offset, len(part) * f.outputs))
        row += len(x) * f.outputs
    return chunks, row


def _in_chunks(features, other_features, at_once, keep, leaves, xs, ys):
    """The kernel of points xs with ys; of xs with themselves if ys is None: a triangle of blocks, mirrored.

    Where ``keep`` says that they fit, the features of each chunk are computed once; otherwise only two chunks' exist.
    """
    rows, n = chunks_of(features, xs, at_once)
    columns, m = (rows, n) if ys is None else chunks_of(other_features, ys, at_once)
    kept = {}

    def features_of(chunk):
        if id(chunk) not in kept:
            found = features_at(chunk.features, leaves, chunk.x)
            if not keep:
                return found
            kept[id(chunk)] = found
        return kept[id(chunk)]

    matrix = jnp.zeros((n, m), jnp.result_type(*leaves))
    for i, row in enumerate(rows):
        a = features_of(row)
        for column in columns[i if ys is None else 0 :]:
            same = row is column
            block = _block(a, a if same else features_of(column), same, (row.rows, column.rows))
            matrix = _placed(matrix, block, row.start, column.start)
            if ys is None and not same:
                matrix = _placed(matrix, block.T, column.start, row.start)
    return matrix


_compiled_in_chunks = partial(jax.jit, static_argnums=(0, 1, 2, 3))(_in_chunks)


@partial(jax.jit, static_argnums=0)
def features_at(feature, leaves, x):
    return feature(leaves, x)


@partial(jax.jit, static_argnums=(2, 3))
def _block(a, b, same, shape):
    block = _contraction.block(a, b, same, shape)
    # a product J J^T is symmetric only to rounding; K is symmetric
    return (block + block.T) / 2 if same else block


@partial(jax.jit, donate_argnums=0)
def _placed(matrix, block, row, column):
    return jax.lax.dynamic_update_slice(matrix, block.astype(matrix.dtype), (row, column))


def diagonal(features: Any, leaves: Sequence, x: jax.Array, memory: int) -> jax.Array:
    """The kernel's diagonal at the points x of one condition."""
    return _diagonal(features, leaves, x, batch_size(features.bytes_per_point, memory))


@partial(jax.jit, static_argnums=(0, 3))
def _diagonal(features, leaves, x, batch):
    def at(x):
        return _contraction.diagonal(features(leaves, x), len(x) * features.outputs)

    return at(x) if len(x) <= batch else jax.lax.map(lambda point: at(point[None]), x, batch_size=batch).reshape(-1)


def batch_size(bytes_per_point: int, memory: int) -> int:
    """How many points' worth of work fits into the memory."""
    if bytes_per_point > memory:
        raise ValueError(f"memory: expected at least {bytes_per_point} bytes for this model, got {memory}")
    return memory // max(bytes_per_point, 1)  # a condition that no parameter moves takes none
