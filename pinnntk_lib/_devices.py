"""Arrays on several devices: whole on each, or divided among them by rows."""

from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Tree = TypeVar("Tree")


def as_mesh(mesh: Any) -> Mesh | None:
    """Check that ``mesh`` is None or a mesh of devices; return it with axes along which JAX divides arrays by itself.

    ``jax.make_mesh`` makes axes that would ask for every operation's sharding, in the reader's own model too.
    """
    if not isinstance(mesh, Mesh | None):
        raise TypeError(f"mesh: expected a jax.sharding.Mesh or None, got {mesh!r}")
    return None if mesh is None else Mesh(mesh.devices, mesh.axis_names)


def replicated(tree: Tree, mesh: Mesh | None) -> Tree:
    """Return a pytree whose arrays are whole on every device of the mesh; without a mesh, as they are.

    Traced arrays are constrained to be so. On several hosts, every process must pass the same values.
    """
    return tree if mesh is None else jax.tree.map(lambda leaf: _replicated(leaf, NamedSharding(mesh, P())), tree)


def _replicated(leaf, everywhere):
    if isinstance(leaf, jax.core.Tracer):
        return jax.lax.with_sharding_constraint(leaf, everywhere)
    if not isinstance(leaf, jax.Array) or leaf.sharding == everywhere:
        return leaf
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _replicated(jax.random.key_data(leaf), everywhere)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    if leaf.is_fully_addressable:
        return jax.device_put(np.asarray(leaf), everywhere)
    return jax.jit(lambda x: x, out_shardings=everywhere)(leaf)


def divided(tree: Tree, mesh: Mesh | None) -> Tree:
    """Return a traced pytree whose arrays are divided among the devices by rows, as evenly as possible."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, P(mesh.axis_names)))
