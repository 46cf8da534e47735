"""Infinite-width kernels as functions of two points that JAX can differentiate."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pinnntk_lib._deprecated import renamed_keywords
from pinnntk_lib.limit._hermite import expectation
from pinnntk_lib.limit._network import check_model, network_of
from pinnntk_lib.models import MLP


@renamed_keywords(reach="radius")
def ntk_function(
    model: MLP,
    *,
    radius: float = 2.0,
    weight_variance: float = 1.0,
    bias_variance: float = 1.0,
    rtol: float = 1e-11,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the infinite-width kernel as a smooth function ``theta(x, y)`` of two points (d,).

    JAX can differentiate ``theta``: for an operator ``op``, an entry of its kernel is
    ``op(lambda x: op(lambda y: theta(x, y), y0), x0)``. Compiling second derivatives in both arguments takes seconds;
    use :func:`ntk` for matrices.

    Args:
        model: as in :func:`ntk`, like the arguments not listed here.
        radius: largest root mean square of the normalised coordinates, ``|(x - shift) / scale| / sqrt(d)``, for which
            ``rtol`` holds. Accuracy degrades gradually beyond it.

    Example:
        >>> import jax.numpy as jnp, pinnntk_lib as pn
        >>> theta = pn.limit.ntk_function(pn.MLP(width=1, activation="sin"))
        >>> x = jnp.array([0.0])  # E[sin^2] + 1 + E[cos^2] * 1, with z from N(0, 1)
        >>> print(f"{theta(x, x):.4f}")
        2.0000
    """
    return _function(True, model, radius, (weight_variance, bias_variance), rtol)


@renamed_keywords(reach="radius")
def nngp_function(
    model: MLP,
    *,
    radius: float = 2.0,
    weight_variance: float = 1.0,
    bias_variance: float = 1.0,
    rtol: float = 1e-11,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return the covariance of ``u(x)`` and ``u(y)`` at infinite width as a smooth function.

    The arguments are those of :func:`ntk_function`.

    Example:
        >>> import jax.numpy as jnp, pinnntk_lib as pn
        >>> sigma = pn.limit.nngp_function(pn.MLP(width=1, activation="sin"))
        >>> x = jnp.array([0.0])
        >>> print(f"{sigma(x, x):.4f}")  # E[sin(z)^2] + 1, with z from N(0, 1)
        1.4323
    """
    return _function(False, model, radius, (weight_variance, bias_variance), rtol)


def _function(tangent, model, radius, variances, rtol):
    check_model(model)
    network = network_of(model, radius, variances, rtol)

    def kernel(x, y):
        shift, scale = (jnp.asarray(values, x.dtype) for values in (network.shift, network.scale))
        x, y = (x - shift) / scale, (y - shift) / scale
        q, p, c = (
            a @ b / len(x) * network.weight_variance + network.bias_variance for a, b in ((x, x), (y, y), (x, y))
        )
        theta = x @ y / len(x) + 1.0
        for layer in network.layers:
            value = expectation(layer, 0, 0, q, p, c)
            theta = value + 1.0 + network.weight_variance * expectation(layer, 1, 1, q, p, c) * theta
            c = network.weight_variance * value + network.bias_variance
            q, p = (network.weight_variance * expectation(layer, 0, 0, v, v, v) + network.bias_variance for v in (q, p))
        return theta if tangent else c

    return kernel
