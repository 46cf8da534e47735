"""The kernel and its diagonal with the points divided among several devices.

Each device computes the features of its own points. For the kernel, these then travel from device to device in a ring,
and each device contracts what passes with its own: no device ever holds the features of all points, and no features
are computed twice.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pinnntk_lib._devices import replicated
from pinnntk_lib._static import compiled
from pinnntk_lib.kernel._contraction import block
from pinnntk_lib.kernel._gram import Pairs, batch_size, bytes_per_pair, diagonal_at

if hasattr(jax, "shard_map"):
    shard_map: Any = partial(jax.shard_map, check_vma=False)
else:  # before JAX 0.6
    from jax.experimental.shard_map import shard_map as former

    shard_map = partial(former, check_rep=False)


def sharded_gram(leaves: Sequence, rows: Pairs, columns: Pairs | None, memory: int, mesh: Mesh) -> jax.Array:
    """Return the kernel with its rows divided among the devices; whole on each if their number cannot be divided."""
    _check_memory(rows + (columns or rows), memory, mesh.size)
    features, xs = zip(*rows)
    others, ys = zip(*columns) if columns else (None, ())
    return _kernel(features, others, mesh, *replicated((leaves, xs, ys), mesh))


def _check_memory(pairs, memory, devices):
    """Check that the budget holds a device's features, those that pass, and the work on them."""
    kept = sum(-(-len(x) // devices) * f.feature_bytes for f, x in pairs)
    needed = kept + max(f.bytes_per_point + bytes_per_pair(f) for f, _ in pairs)
    if needed > memory:
        raise ValueError(f"memory: expected at least {needed} bytes per device for these points, got {memory}")


@compiled(3)
def _kernel(features, other_features, mesh, leaves, xs, ys):
    """Return the kernel between points xs and ys; if there are no ``other_features``, the kernel of xs."""
    axes, devices = mesh.axis_names, np.arange(mesh.size)
    rows = [(len(x), f.outputs) for f, x in zip(features, xs)]
    columns = [(len(y), f.outputs) for f, y in zip(other_features, ys)] if other_features else rows
    of_rows, of_columns = (_rows_of_each(sizes, mesh.size) for sizes in (rows, columns))

    def passed_on(what, places):
        return jax.lax.ppermute(what, axes, [(i, (i + places) % mesh.size) for i in devices])

    def turns(here, passing, steps):
        """Return a panel for each step: the kernel of a device's own points and of those that pass."""

        def turn(passing, _):
            return passed_on(passing, 1), _panel(here, of_rows, passing, of_columns)

        return jax.lax.scan(turn, passing, length=steps)[1]

    def on_device(leaves, xs, ys):
        here = [f(leaves, x) for f, x in zip(features, xs)]
        if other_features:
            panels = turns(here, [f(leaves, y) for f, y in zip(other_features, ys)], mesh.size)
        else:  # of two devices, one computes what the other transposes
            half = mesh.size // 2
            panels = jnp.concatenate([_own_panel(here, of_rows)[None], turns(here, passed_on(here, 1), half)])
            rest = [passed_on(panels[mesh.size - s].T, s)[None] for s in range(half + 1, mesh.size)]
            panels = jnp.concatenate([panels, *rest])
        # the s-th panel has the columns of the device s places before this one
        panels = panels[(jax.lax.axis_index(axes) - devices) % mesh.size]
        return _joined(panels.swapaxes(1, 2), columns).T

    points = ([_padded(x, mesh) for x in some] for some in (xs, ys))
    matrix = _on_each(on_device, mesh)(leaves, *points)
    matrix = _joined(matrix.reshape(mesh.size, -1, matrix.shape[1]), rows)
    matrix = matrix if other_features else (matrix + matrix.T) / 2
    is_even = len(matrix) % mesh.size == 0
    return jax.lax.with_sharding_constraint(matrix, NamedSharding(mesh, P(axes) if is_even else P()))


def _panel(a, rows, b, columns):
    return jnp.block([[block(f, g, False, (n, m)) for g, m in zip(b, columns)] for f, n in zip(a, rows)])


def _own_panel(features, rows):
    """Return the kernel of a device's own points, from one triangle of its blocks."""
    count = range(len(rows))
    blocks = {(i, j): block(features[i], features[j], i == j, (rows[i], rows[j])) for i in count for j in count[i:]}
    return jnp.block([[blocks[i, j] if i <= j else blocks[j, i].T for j in count] for i in count])


def sharded_diagonal(features: Any, leaves: Sequence, x: jax.Array, memory: int, mesh: Mesh) -> jax.Array:
    """Return the kernel's diagonal at the points x of one condition, whole on every device."""
    return _diagonal(features, batch_size(features.bytes_per_point, memory), mesh, *replicated((leaves, x), mesh))


@compiled(3)
def _diagonal(features, batch, mesh, leaves, x):
    found = _on_each(partial(diagonal_at, features, batch), mesh)(leaves, _padded(x, mesh))
    return replicated(found[: len(x) * features.outputs], mesh)


def _on_each(function, mesh):
    """Return ``(leaves, *points) -> rows``, which runs ``function`` on each device with that device's own points."""
    by_rows = P(mesh.axis_names)

    def run(leaves, *points):
        specs = P(), *(by_rows for _ in points)
        return shard_map(function, mesh=mesh, in_specs=specs, out_specs=by_rows)(leaves, *points)

    return run


def _padded(x, mesh):
    return padded(replicated(x, mesh), mesh.size)


def padded(x, parts):
    """Repeat the last point until the number of points can be divided by ``parts``."""
    n = len(x)
    return x[np.minimum(np.arange(n + -n % parts), n - 1)]


def _rows_of_each(sizes, devices):
    """Return the number of rows that each device has of each condition, from its numbers of points and of outputs."""
    return [-(-n // devices) * outputs for n, outputs in sizes]


def _joined(stack, sizes):
    """Join the rows of all devices (devices, rows on each, ...), by conditions, without those of padded points.

    ``sizes`` has the number of points and of outputs of each condition.
    """
    parts, start = [], 0
    for (n, outputs), count in zip(sizes, _rows_of_each(sizes, len(stack))):
        parts.append(stack[:, start : start + count].reshape(-1, *stack.shape[2:])[: n * outputs])
        start += count
    return jnp.concatenate(parts)
