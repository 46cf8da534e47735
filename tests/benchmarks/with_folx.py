"""The same as in plain JAX, but second derivatives by folx's forward Laplacian."""

from functools import partial
from importlib.metadata import version

import folx
import jax.numpy as jnp
import with_jax
from with_jax import finished

__all__ = ["METHODS", "VERSIONS", "finished", "operator"]


def second(u, x, axes):
    if len(axes) == len(x):
        along, start = u, x
    else:  # the Laplacian in some of the coordinates
        axes = jnp.array(axes)

        def along(y):
            return u(x.at[axes].set(y))

        start = x[axes]
    # of a dense network, folx is fastest without its propagation of sparsity, which is the default
    return folx.forward_laplacian(along)(start).laplacian


operator = partial(with_jax.by_second_derivatives, second=second)
METHODS = {
    "folx": partial(with_jax.kernel_by_leaf, operator=operator),
    "folx diagonal": partial(with_jax.diagonal, operator=operator),
    "folx training": partial(with_jax.training, operator=operator),
}
VERSIONS = {"folx": version("folx"), "jax of folx": with_jax.VERSIONS["jax"]}
