"""The kernel with its rows sharded over several devices."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pinnntk_lib._static import compiled
from pinnntk_lib.kernel import _contraction
from pinnntk_lib.kernel._gram import Pairs, bytes_per_pair, chunks_of


def sharded_gram(leaves: Sequence, rows: Pairs, columns: Pairs | None, memory: int, mesh: Mesh) -> jax.Array:
    """Return the kernel with its rows sharded over all devices of the mesh; each device holds whole rows."""
    by_rows, whole = NamedSharding(mesh, P(mesh.axis_names)), NamedSharding(mesh, P())
    leaves = jax.device_put([np.asarray(leaf) for leaf in leaves], whole)
    counts = tuple(len(x) * f.outputs for f, x in rows)
    here = [_features_by(f, by_rows, leaves, jax.device_put(_padded(x, mesh.size), by_rows)) for f, x in rows]
    features, ys = zip(*(rows if columns is None else columns))
    chunks, m = chunks_of(features, ys, _columns_at_once(rows, features, memory, mesh.size))
    shape, dtype = (-(-sum(counts) // mesh.size) * mesh.size, m), jnp.result_type(*leaves)
    matrix = jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=by_rows)()
    for chunk in chunks:
        if columns is None:  # gathered, because recomputing them on every device would not scale
            everywhere = _gathered(here[chunk.condition], chunk.offset, chunk.rows, whole)
        else:
            everywhere = _features_by(chunk.features, whole, leaves, jax.device_put(np.asarray(chunk.x), whole))
        matrix = _panel_placed(matrix, here, everywhere, chunk.start, counts, chunk.rows, by_rows)
    finish = jax.jit(_finished, static_argnums=(1, 2), out_shardings=by_rows if sum(counts) == shape[0] else whole)
    return finish(matrix, sum(counts), columns is None)


def _padded(x, multiple):
    """Repeat the last point until ``multiple`` divides the number of points; the extra rows are cut off later."""
    x = np.asarray(x)
    return np.concatenate([x, np.repeat(x[-1:], -len(x) % multiple, axis=0)])


def _columns_at_once(rows, features, memory, devices):
    here = [(f, -(-len(x) // devices)) for f, x in rows]
    kept = sum(n * f.feature_bytes for f, n in here)
    column = max(f.bytes_per_point + f.feature_bytes for f in features) + max(n * bytes_per_pair(f) for f, n in here)
    if kept + column > memory:
        raise ValueError(f"memory: expected at least {kept + column} bytes per device for these points, got {memory}")
    return (memory - kept) // column


@compiled(2)
def _features_by(features, sharding, leaves, x):
    """Compute features whose rows are sharded like the points."""
    return jax.lax.with_sharding_constraint(features(leaves, x, together=True), sharding)


@partial(jax.jit, static_argnums=(2, 3))
def _gathered(features, start, rows, whole):
    some = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, rows), features)
    return jax.lax.with_sharding_constraint(some, whole)


@partial(jax.jit, static_argnums=(4, 5, 6), donate_argnums=0)
def _panel_placed(matrix, rows, column, start, counts, width, by_rows):
    """Compute all rows of one chunk of columns and write them into the matrix."""

    def block(row, n):
        padded = len(next(iter(row.values()))[0]) if row else n
        return _contraction.block(row, column, False, (padded, width))[:n]

    panel = jnp.concatenate([block(row, n) for row, n in zip(rows, counts)]).astype(matrix.dtype)
    panel = jnp.pad(panel, ((0, len(matrix) - len(panel)), (0, 0)))
    panel = jax.lax.with_sharding_constraint(panel, by_rows)
    return jax.lax.dynamic_update_slice(matrix, panel, (0, start))


def _finished(matrix, n, symmetric):
    matrix = matrix[:n]
    return (matrix + matrix.T) / 2 if symmetric else matrix
