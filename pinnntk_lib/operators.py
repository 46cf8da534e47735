"""Differential operators on functions of a point.

Every operator here takes a scalar function ``u`` of a point ``x`` of shape (d,) and returns another such
function, so they nest: ``d(d(u, 0), 1)``. A differential equation is then a plain function of a function and a
point, for instance the wave operator of the paper's section 7.2::

    def residual(u, x):
        return dd(u, 0)(x) - 4.0 * dd(u, 1)(x)

All derivatives are taken in forward mode: the inputs are few, and reverse mode is left for the parameters.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pinnntk_lib._check import check_count
from pinnntk_lib._types import Function, Operator

__all__ = ["System", "d", "dd", "laplacian", "mixed"]


def d(u: Function, axis: int = 0) -> Function:
    """The partial derivative of ``u`` along one axis.

    Args:
        u: scalar function of a point of shape (d,).
        axis: the coordinate to differentiate by, from 0 to d - 1.

    Returns:
        The function ``x -> du/dx_axis (x)``, of a point of shape (d,) to a scalar.

    Raises:
        ValueError: on evaluation, if ``x`` is not a vector or has no coordinate ``axis``.

    Example:
        >>> import jax.numpy as jnp
        >>> float(d(lambda x: x[0] ** 2 * x[1], axis=0)(jnp.array([3.0, 5.0])))
        30.0
    """

    def du(x):
        return jax.jvp(u, (x,), (_direction(x, axis),))[1]

    return du


def dd(u: Function, axis: int = 0) -> Function:
    """The second partial derivative of ``u`` along one axis, ``d(d(u, axis), axis)``.

    Example:
        >>> import jax.numpy as jnp
        >>> float(dd(lambda x: x[0] ** 3)(jnp.array([2.0])))
        12.0
    """
    return d(d(u, axis), axis)


def mixed(u: Function, first: int, second: int) -> Function:
    """The mixed derivative of ``u`` along two axes, ``d(d(u, first), second)``.

    Example:
        >>> import jax.numpy as jnp
        >>> float(mixed(lambda x: x[0] * x[1] ** 2, 0, 1)(jnp.array([2.0, 3.0])))
        6.0
    """
    return d(d(u, first), second)


def laplacian(u: Function) -> Function:
    """The Laplacian of ``u``, the sum of its second derivatives along every axis.

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
    """An operator of several outputs, as one condition: the equations of a system, which share what they compute.

    Without this declaration an operator that returns an array is an error, since it mostly is one: ``u(x)`` of a
    model with one output in an array, say.

    Attributes:
        operator: ``(u, x) -> (outputs,) array``.
        outputs: how many.

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
    """The unit vector along ``axis`` at ``x``."""
    if jnp.ndim(x) != 1:
        raise ValueError(f"x: expected a point of shape (d,), got shape {jnp.shape(x)}; use jax.vmap for many points")
    # Without this check an index out of range is dropped, and the derivative is silently zero.
    if not 0 <= axis < x.shape[0]:
        raise ValueError(f"axis: expected 0 to {x.shape[0] - 1} for a point of shape {x.shape}, got {axis}")
    return jnp.zeros_like(x).at[axis].set(1)
