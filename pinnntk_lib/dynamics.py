"""What the kernel predicts about training by gradient descent."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from pinnntk_lib._check import check_names
from pinnntk_lib.ntk import NTK

__all__ = ["largest_stable_learning_rate"]


def largest_stable_learning_rate(K: NTK, weights: Mapping[str, float] | None = None) -> jax.Array:
    """The learning rate above which gradient descent diverges, as far as the kernel stays what it is.

    For the loss ``sum_i lambda_i mean_i(residual^2)`` one step maps the residuals r to ``(I - eta K D) r`` with D the
    diagonal of ``2 lambda_i / n_i``, so it contracts only for ``eta < 2 / lambda_max(D^(1/2) K D^(1/2))``.
    It is a bound for full-batch gradient descent, not for Adam or momentum.

    Args:
        K: the kernel.
        weights: ``{name: lambda_name}``; all 1 if None.

    Raises:
        ValueError: if ``weights`` does not name K's conditions.

    Example:
        >>> import jax.numpy as jnp
        >>> K = NTK(4.0 * jnp.eye(2), (("u", 1), ("r", 1)))
        >>> print(f"{largest_stable_learning_rate(K):.3f}")
        0.250
    """
    weights = dict.fromkeys(K.names, 1.0) if weights is None else weights
    check_names("weights", weights, K.names)
    scale = jnp.concatenate([jnp.full(n, jnp.sqrt(2.0 * weights[name] / n)) for name, n in K.sizes])
    return 2.0 / jnp.linalg.eigvalsh(scale[:, None] * K.matrix * scale)[-1]
