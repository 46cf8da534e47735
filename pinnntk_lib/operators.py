"""Differential operators on functions of a point.

Every operator takes a function ``u`` of a point ``x`` of shape (d,) and returns another such function, so
operators nest: ``d(d(u, 0), 1)``. You can write a differential equation as a plain function of ``u`` and ``x``. This
is the wave operator of the paper's section 7.2::

    def residual(u, x):
        return dd(u, 0)(x) - 4.0 * dd(u, 1)(x)

All derivatives use forward mode, because points have few coordinates; reverse mode is left for the parameters.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pinnntk_lib._check import check_count
from pinnntk_lib._types import Function, Operator

__all__ = ["Function", "Operator", "System", "d", "dd", "laplacian", "mixed"]


def d(u: Function, axis: int = 0) -> Function:
    """Return the partial derivative of ``u`` along one axis.

    Args:
        u: a function of a point of shape (d,), scalar- or array-valued.
        axis: coordinate with respect to which to differentiate, from 0 to d - 1.

    Returns:
        The function ``x -> du/dx_axis (x)`` of a point of shape (d,), with values of the shape of ``u``'s.

    Raises:
        ValueError: when the derivative is evaluated, if ``x`` is not a vector or has no coordinate ``axis``.

    Example:
        >>> import jax.numpy as jnp
        >>> float(d(lambda x: x[0] ** 2 * x[1], axis=0)(jnp.array([3.0, 5.0])))
        30.0
    """

    def du(x):
        return jax.jvp(u, (x,), (_direction(x, axis),))[1]

    return du


def dd(u: Function, axis: int = 0) -> Function:
    """Return the second partial derivative of ``u`` along one axis, ``d(d(u, axis), axis)``.

    Example:
        >>> import jax.numpy as jnp
        >>> float(dd(lambda x: x[0] ** 3)(jnp.array([2.0])))
        12.0
    """
    return d(d(u, axis), axis)


def mixed(u: Function, first: int, second: int) -> Function:
    """Return the mixed derivative of ``u`` along two axes, ``d(d(u, first), second)``.

    Example:
        >>> import jax.numpy as jnp
        >>> float(mixed(lambda x: x[0] * x[1] ** 2, 0, 1)(jnp.array([2.0, 3.0])))
        6.0
    """
    return d(d(u, first), second)


def laplacian(u: Function) -> Function:
    """Return the Laplacian of ``u``, the sum of its second derivatives along all axes.

    Example:
        >>> import jax.numpy as jnp
        >>> float(laplacian(lambda x: jnp.sum(x**2))(jnp.array([1.0, 2.0, 3.0])))
        6.0
    """

    def delta_u(x):
        return sum(dd(u, axis)(x) for axis in range(jnp.shape(x)[0]))

    return delta_u


@dataclass(frozen=True)
class System:
    """A system of equations as one condition: an operator whose outputs can share computation.

    An operator that returns an array must be declared as a System, otherwise it raises an error: usually, the model
    returned its single output in an array by mistake.

    Attributes:
        operator: ``(u, x) -> (outputs,) array``.
        outputs: number of outputs.

    Example:
        >>> import jax.numpy as jnp
        >>> def cauchy_riemann(u, x):
        ...     return jnp.stack([d(u, 0)(x)[0] - d(u, 1)(x)[1], d(u, 1)(x)[0] + d(u, 0)(x)[1]])
        >>> system = System(cauchy_riemann, outputs=2)
        >>> square = lambda x: jnp.array([x[0] ** 2 - x[1] ** 2, 2 * x[0] * x[1]])
        >>> system(square, jnp.array([1.0, 2.0])).tolist()
        [0.0, 0.0]
    """

    operator: Operator
    outputs: int

    def __post_init__(self) -> None:
        check_count("outputs", self.outputs)

    def __call__(self, u: Function, x: jax.Array) -> jax.Array:
        return self.operator(u, x)


def _direction(x, axis):
    """Return the unit vector along ``axis``, with the shape and dtype of ``x``."""
    if jnp.ndim(x) != 1:
        raise ValueError(f"x: expected a point of shape (d,), got shape {jnp.shape(x)}; use jax.vmap for many points")
    # Without this check, JAX drops an index out of range and the derivative is silently zero.
    if not 0 <= axis < x.shape[0]:
        raise ValueError(f"axis: expected 0 to {x.shape[0] - 1} for a point of shape {x.shape}, got {axis}")
    return jnp.zeros_like(x).at[axis].set(1)
