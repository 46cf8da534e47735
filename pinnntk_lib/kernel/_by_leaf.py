"""The kernel's diagonal, divided among the leaves of the parameters."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._static import compiled
from pinnntk_lib._types import Apply, Params
from pinnntk_lib.kernel._matrixfree import cached_graphs
from pinnntk_lib.kernel._setting import setting_of
from pinnntk_lib.kernel._sharded import padded
from pinnntk_lib.problems import Conditions

CHUNK = 16  # points whose gradients exist at the same time


def squared_gradients(
    apply: Apply, params: Params, conditions: Conditions, points: Mapping[str, jax.Array]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Compute each residual's squared gradient norm by parameter leaf, and its natural size.

    The natural size of a residual r is ``sqrt(sum_j (theta_j dr/d theta_j)^2)``: how large r would be if the
    parameters' contributions had random signs. A residual that is much smaller is small because they cancel.

    Returns:
        ``({name: squared norms (n, leaves)}, {name: natural sizes (n,)})``; with m outputs a point, n counts residuals.
        The leaves are in the order of ``jax.tree.leaves(params)``.

    Raises:
        ValueError, TypeError: as :func:`ntk`.
    """
    setting, leaves, points = setting_of(apply, params, conditions, points)
    squares, sizes = {}, {}
    for name, graph in cached_graphs(setting).items():
        x = points[name]
        chunks = -(-len(x) // CHUNK)
        size = -(-len(x) // chunks)  # of each, so that the code is compiled once
        parts = [_squares(graph, leaves, padded(x, chunks)[i * size : (i + 1) * size]) for i in range(chunks)]
        found, natural = (np.concatenate([np.asarray(part, np.float64) for part in of]) for of in zip(*parts))
        squares[name], sizes[name] = found[: len(x)].reshape(-1, len(leaves)), np.sqrt(natural[: len(x)]).ravel()
    return squares, sizes


@compiled(1)
def _squares(graph, leaves, x):
    """Return the squared norms by leaf (n, outputs, leaves), and the natural sizes' squares (n, outputs)."""

    def at(point):
        out, pullback = jax.vjp(lambda leaves: graph.at_point(leaves, point), leaves)
        (gradients,) = jax.vmap(pullback)(jnp.eye(out.size, dtype=out.dtype))
        by_leaf = [_summed(g**2) for g in gradients]
        natural = sum(_summed((g * leaf) ** 2) for g, leaf in zip(gradients, leaves))
        return jnp.stack(by_leaf, axis=1), natural

    return jax.vmap(at)(x)


def _summed(values):
    return values.reshape(len(values), -1).sum(axis=1)
