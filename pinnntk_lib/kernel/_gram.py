"""The kernel from the features of its points, in chunks that fit into memory, on one device or several.

Features are what :class:`~pinnntk_lib.structured.Factors` gives at points: factors of the gradients, or gradients.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pinnntk_lib import structured

__all__ = ["batch_size", "diagonal", "gram", "sharded_gram"]

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
    total, pair = sum(len(x) * f.feature_bytes for f, x in pairs), max(map(_bytes_per_pair, features))
    keep = total <= memory / 2
    line, available = (work, memory - total) if keep else (work + 2 * feature, memory)
    at_once = int((math.sqrt(line**2 + 4 * pair * available) - line) / (2 * pair))
    if at_once < 1:
        raise ValueError(f"memory: expected at least {line + pair} bytes for this model, got {memory}")
    return at_once, keep


def _bytes_per_pair(features):
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


def _chunks(features, xs, at_once):
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
    rows, n = _chunks(features, xs, at_once)
    columns, m = (rows, n) if ys is None else _chunks(other_features, ys, at_once)
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
    block = structured.block(a, b, same, shape)
    # a product J J^T is symmetric only to rounding; K is symmetric
    return (block + block.T) / 2 if same else block


@partial(jax.jit, donate_argnums=0)
def _placed(matrix, block, row, column):
    return jax.lax.dynamic_update_slice(matrix, block.astype(matrix.dtype), (row, column))


def diagonal(features, leaves: Sequence, x: jax.Array, memory: int) -> jax.Array:
    """The kernel's diagonal at the points x of one condition."""
    return _diagonal(features, leaves, x, batch_size(features.bytes_per_point, memory))


@partial(jax.jit, static_argnums=(0, 3))
def _diagonal(features, leaves, x, batch):
    def at(x):
        return structured.diagonal(features(leaves, x), len(x) * features.outputs)

    return at(x) if len(x) <= batch else jax.lax.map(lambda point: at(point[None]), x, batch_size=batch).reshape(-1)


def batch_size(bytes_per_point: int, memory: int) -> int:
    """How many points' worth of work fits into the memory."""
    if bytes_per_point > memory:
        raise ValueError(f"memory: expected at least {bytes_per_point} bytes for this model, got {memory}")
    return memory // max(bytes_per_point, 1)  # a condition that no parameter moves takes none


# ---------------------------------------------------------------- the kernel on several devices


def sharded_gram(leaves: Sequence, rows: Pairs, columns: Pairs | None, memory: int, mesh: Mesh) -> jax.Array:
    """The same with its rows over all devices of the mesh; each device has all columns of its rows."""
    by_rows, whole = NamedSharding(mesh, P(mesh.axis_names)), NamedSharding(mesh, P())
    leaves = jax.device_put([np.asarray(leaf) for leaf in leaves], whole)
    counts = tuple(len(x) * f.outputs for f, x in rows)
    here = [_features_by(f, leaves, jax.device_put(_padded(x, mesh.size), by_rows), by_rows) for f, x in rows]
    features, ys = zip(*(rows if columns is None else columns))
    chunks, m = _chunks(features, ys, _columns_at_once(rows, features, memory, mesh.size))
    shape, dtype = (-(-sum(counts) // mesh.size) * mesh.size, m), jnp.result_type(*leaves)
    matrix = jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=by_rows)()
    for chunk in chunks:
        if columns is None:  # gathered, since to compute them again on every device would not scale
            everywhere = _gathered(here[chunk.condition], chunk.offset, chunk.rows, whole)
        else:
            everywhere = _features_by(chunk.features, leaves, jax.device_put(np.asarray(chunk.x), whole), whole)
        matrix = _panel_placed(matrix, here, everywhere, chunk.start, counts, chunk.rows, by_rows)
    finish = jax.jit(_finished, static_argnums=(1, 2), out_shardings=by_rows if sum(counts) == shape[0] else whole)
    return finish(matrix, sum(counts), columns is None)


def _padded(x, multiple):
    """Points with the last one repeated, up to a multiple of the devices; what it adds is cut off again."""
    x = np.asarray(x)
    return np.concatenate([x, np.repeat(x[-1:], -len(x) % multiple, axis=0)])


def _columns_at_once(rows, features, memory, devices):
    here = [(f, -(-len(x) // devices)) for f, x in rows]
    kept = sum(n * f.feature_bytes for f, n in here)
    column = max(f.bytes_per_point + f.feature_bytes for f in features) + max(n * _bytes_per_pair(f) for f, n in here)
    if kept + column > memory:
        raise ValueError(f"memory: expected at least {kept + column} bytes a device for these points, got {memory}")
    return (memory - kept) // column


@partial(jax.jit, static_argnums=(0, 3))
def _features_by(features, leaves, x, sharding):
    """Features whose rows are sharded as the points are."""
    by_row = NamedSharding(sharding.mesh, P(None, *sharding.spec))
    return jax.lax.with_sharding_constraint(features(leaves, x), by_row)


@partial(jax.jit, static_argnums=(2, 3))
def _gathered(features, start, rows, whole):
    some = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, rows, axis=1), features)
    return jax.lax.with_sharding_constraint(some, whole)


@partial(jax.jit, static_argnums=(4, 5, 6), donate_argnums=0)
def _panel_placed(matrix, rows, column, start, counts, width, by_rows):
    """All rows of one chunk of columns, put in its place."""

    def block(row, n):
        padded = next(iter(row.values()))[0].shape[1] if row else n
        return structured.block(row, column, False, (padded, width))[:n]

    panel = jnp.concatenate([block(row, n) for row, n in zip(rows, counts)]).astype(matrix.dtype)
    panel = jnp.pad(panel, ((0, len(matrix) - len(panel)), (0, 0)))
    panel = jax.lax.with_sharding_constraint(panel, by_rows)
    return jax.lax.dynamic_update_slice(matrix, panel, (0, start))


def _finished(matrix, n, symmetric):
    matrix = matrix[:n]
    return (matrix + matrix.T) / 2 if symmetric else matrix
