"""The kernel in parameter space: the Gauss–Newton matrix, accumulated over chunks of points, and the Jacobian itself.

``K = J J^T`` has a row per residual, ``G = J^T J`` a row per parameter, and both have the same nonzero eigenvalues.
With more residuals than parameters, G is the smaller of the two, and its size does not grow with the number of points.
"""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from pinnntk_lib._types import Apply, Params
from pinnntk_lib.kernel._plan import residual_graphs
from pinnntk_lib.kernel._setting import residuals_of, setting_of
from pinnntk_lib.kernel._sharded import padded, shard_map
from pinnntk_lib.problems import Conditions

MOST_ROWS = 1024  # rows of J that are multiplied at a time: more are no faster and only take memory


def gauss_newton_matrix(
    apply: Apply,
    params: Params,
    conditions: Conditions,
    points: Mapping[str, jax.Array],
    scales: Mapping[str, ArrayLike],
    *,
    memory: int = 2**30,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Compute ``G = J^T J`` (P, P), where J (n, P) is the Jacobian of the residuals, scaled by point.

    The parameters are in the order of :func:`jax.flatten_util.ravel_pytree`. No more than a chunk of J's rows exists at
    a time, so the memory needed does not depend on the number of points. On a mesh, each device sums over its own
    points.

    Args:
        apply, params, conditions, points: as in :func:`ntk`.
        scales: ``{name: scalar or (n,) array}`` by which residuals are multiplied, one for each point.
        memory: memory budget in bytes for a chunk of rows of J; G itself is not counted.
        mesh: devices among which the points are divided.

    Raises:
        ValueError, TypeError: as :func:`ntk`.
    """
    graphs, leaves, points = _graphs(apply, params, conditions, points)
    dtype = jnp.result_type(*leaves)
    size = sum(leaf.size for leaf in leaves)

    def total(leaves, scales, points):
        G = jnp.zeros((size, size), dtype)
        for name, graph in graphs.items():
            outputs = graph.avals[graph.outputs[0]].shape[0]
            chunk = _chunk_size(len(points[name]), outputs * size * dtype.itemsize, memory)
            G = _accumulated(G, partial(_rows, graph, leaves), points[name], scales[name], chunk)
        return G

    by_point = _by_point(scales, points)
    if mesh is None:
        return total(leaves, by_point, points)
    axes = mesh.axis_names
    divisible = {name: padded(x, mesh.size) for name, x in points.items()}
    by_point = {name: _with_zeros(values, mesh.size) for name, values in by_point.items()}

    def on_device(leaves, scales, points):
        return jax.lax.psum(total(leaves, scales, points), axes)

    divided = {name: P(axes) for name in points}
    return shard_map(on_device, mesh=mesh, in_specs=(P(), divided, divided), out_specs=P())(leaves, by_point, divisible)


def jacobian(
    apply: Apply,
    params: Params,
    conditions: Conditions,
    points: Mapping[str, jax.Array],
    scales: Mapping[str, ArrayLike],
) -> jax.Array:
    """Compute the Jacobian J (n, P) of the residuals, scaled by point; arguments are those of the matrix above."""
    graphs, leaves, points = _graphs(apply, params, conditions, points)
    by_point = _by_point(scales, points)
    rows = {name: _rows(graph, leaves, points[name]) for name, graph in graphs.items()}
    return jnp.concatenate([_scaled(J, by_point[name]) for name, J in rows.items()])


def _by_point(scales, points):
    return {name: jnp.broadcast_to(jnp.asarray(scales[name]), len(x)) for name, x in points.items()}


def _scaled(J, scales):
    """Return J with its rows multiplied by scales (n,), one for all outputs of a point."""
    return J * jnp.repeat(scales, len(J) // len(scales))[:, None].astype(J.dtype)


def _graphs(apply, params, conditions, points):
    """Return the residuals' graphs by condition, the parameters' leaves, and the points."""
    setting, leaves, points = setting_of(apply, params, conditions, points)
    return residual_graphs(*residuals_of(setting)), leaves, points


def _rows(graph, leaves, x):
    """Return the gradients of the residuals at points x (n, d), an array (n * outputs, P)."""
    dtype = jnp.result_type(*leaves)

    def at(point):
        out, pullback = jax.vjp(lambda leaves: graph.at_point(leaves, point), leaves)
        (gradients,) = jax.vmap(pullback)(jnp.eye(out.size, dtype=out.dtype))
        return jnp.concatenate([g.reshape(out.size, -1).astype(dtype) for g in gradients], axis=1)

    J = jax.vmap(at)(x)
    return J.reshape(-1, J.shape[-1])


def _chunk_size(n, bytes_per_point, memory):
    """Return the number of points in a chunk, with chunks of nearly equal sizes."""
    most = min(memory // (2 * bytes_per_point), MOST_ROWS)  # J's rows, and the gradients that they are copied from
    if most < 1:
        raise ValueError(f"memory: expected at least {2 * bytes_per_point} bytes for this model, got {memory}")
    return -(-n // -(-n // most))


def _accumulated(G, rows, x, scales, chunk):
    """Return G plus ``J^T J`` of the points x, whose rows are multiplied by their scales."""
    chunks = -(-len(x) // chunk)
    x, scales = padded(x, chunks), _with_zeros(scales, chunks)

    def add(G, some):
        x, scales = some
        J = _scaled(rows(x), scales)
        return G + J.T @ J, None

    return jax.lax.scan(add, G, (x.reshape(-1, chunk, *x.shape[1:]), scales.reshape(-1, chunk)))[0]


def _with_zeros(scales, devices):
    """Return scales with zeros behind them for the points that pad the others."""
    return jnp.pad(scales, (0, -len(scales) % devices))
