"""Type aliases shared by signatures."""

from collections.abc import Callable
from typing import Any

import jax

Params = Any  # a pytree of floating-point arrays
Apply = Callable[[Params, jax.Array], jax.Array]  # a model: (params, x of shape (d,)) -> u(x)
Function = Callable[[jax.Array], jax.Array]  # a function of a point (d,)
Operator = Callable[[Function, jax.Array], jax.Array]  # (u, x) -> L[u](x)
