"""Types that signatures share."""

from typing import Any, Protocol

import jax

Params = Any  # a pytree of floating-point arrays


class Function(Protocol):
    """A function of a point x of shape (d,), which returns a scalar or an array; a protocol."""

    def __call__(self, x: jax.Array, /) -> jax.Array: ...


class Operator(Protocol):
    """A differential operator at a point x of shape (d,), ``(u, x) -> L[u](x)``; a protocol."""

    def __call__(self, u: Function, x: jax.Array, /) -> jax.Array: ...


class Apply(Protocol):
    """A model, a pure function of parameters and a point x of shape (d,), ``(params, x) -> u(x)``; a protocol."""

    def __call__(self, params: Params, x: jax.Array, /) -> jax.Array: ...
