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

from pinnntk_lib._check import check_array, check_coordinate, check_count, check_function, check_key
from pinnntk_lib._types import Function, Operator

__all__ = [
    "Function",
    "Operator",
    "System",
    "biharmonic",
    "d",
    "dd",
    "divergence",
    "gradient",
    "hessian",
    "laplacian",
    "mixed",
]


def d(u: Function, axis: int = 0) -> Function:
    """Return the partial derivative of ``u`` along one axis.

    Args:
        u: a function of a point of shape (d,), scalar- or array-valued.
        axis: coordinate with respect to which to differentiate, from 0 to d - 1.

    Returns:
        The function ``x -> du/dx_axis (x)`` of a point of shape (d,), with values of the shape of ``u``'s.

    Raises:
        TypeError: if ``u`` is not a function, or ``axis`` not an integer.
        ValueError: if ``axis`` is negative; when the derivative is evaluated, if ``x`` is not a vector or has no
            coordinate ``axis``.

    Example:
        >>> import jax.numpy as jnp
        >>> float(d(lambda x: x[0] ** 2 * x[1], axis=0)(jnp.array([3.0, 5.0])))
        30.0
    """
    check_function("u", u)
    check_coordinate("axis", axis)

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


def gradient(u: Function) -> Function:
    """Return the gradient of ``u``: all first derivatives, in one pass for all axes together.

    Returns:
        The function ``x -> (d,)``; for array-valued ``u``, its Jacobian ``x -> (..., d)``, derivatives last.

    Example:
        >>> import jax.numpy as jnp
        >>> gradient(lambda x: x[0] ** 2 * x[1])(jnp.array([3.0, 5.0])).tolist()
        [30.0, 9.0]
    """
    check_function("u", u)

    def grad_u(x):
        along = jax.vmap(lambda v: jax.jvp(u, (x,), (v,))[1], out_axes=-1)
        return along(_axes(x))

    return grad_u


def divergence(u: Function) -> Function:
    """Return the divergence of a vector field ``u``, ``x -> (d,)``.

    Raises:
        ValueError: when it is evaluated, if ``u`` does not return one component per coordinate.

    Example:
        >>> import jax.numpy as jnp
        >>> float(divergence(lambda x: x**2)(jnp.array([1.0, 2.0])))
        6.0
    """
    check_function("u", u)

    def div_u(x):
        shape = jax.eval_shape(u, x).shape
        if shape != jnp.shape(x):
            raise ValueError(f"u: expected a vector field with values of shape {jnp.shape(x)}, got shape {shape}")
        return jnp.trace(gradient(u)(x))

    return div_u


def hessian(u: Function) -> Function:
    """Return the matrix of second derivatives of ``u``, ``x -> (d, d)``; for array-valued ``u``, ``x -> (..., d, d)``.

    For the trace alone, :func:`laplacian` is much faster.

    Example:
        >>> import jax.numpy as jnp
        >>> hessian(lambda x: x[0] ** 2 * x[1])(jnp.array([3.0, 5.0])).tolist()
        [[10.0, 6.0], [6.0, 0.0]]
    """
    return gradient(gradient(u))


def laplacian(u: Function, directions: int | jax.Array | None = None, key: jax.Array | None = None) -> Function:
    """Return the Laplacian of ``u``, the sum of its second derivatives along all axes, or an estimate of it.

    All axes are differentiated in one pass. In kernels and in training, the second derivatives are summed before they
    pass through the network, so that d + 2 quantities pass through it instead of 2 d + 1 (the "forward Laplacian", Li
    et al. 2024; "collapsed Taylor mode", Dangel et al. 2025).

    In thousands of dimensions, the sum can be estimated from a few random directions v with entries of +1 and -1: the
    mean of ``v . H v`` has the Laplacian, the trace of the Hessian H, as its expectation (Hutchinson 1989). The
    directions at a point depend on the key and on the point alone. Training should therefore draw fresh points, which
    bring fresh directions; at fixed points it would fit the directions that it has. A kernel of estimates is the
    kernel of an operator with noise: its diagonal exceeds that of the Laplacian by the variance of the gradients, on
    average. The block between two estimates with independent keys has no such bias.

    Args:
        u: a function of a point of shape (d,), scalar- or array-valued.
        directions: None for all axes; the number of random directions of an estimate; or an array (m, d), whose rows
            are directions along which second derivatives are summed, for instance the spatial axes alone.
        key: JAX random key for an estimate.

    Raises:
        ValueError, TypeError: if ``directions`` is neither None nor a positive integer nor an array (m, d) of
            floating-point numbers, or a key is missing or not needed.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> u, x = lambda x: jnp.sum(x**2), jnp.array([1.0, 2.0, 3.0])
        >>> float(laplacian(u)(x)), float(laplacian(u, directions=jnp.eye(3)[1:])(x))
        (6.0, 4.0)
        >>> float(laplacian(u, directions=2, key=jax.random.key(0))(x))  # exact here: H has no other entries
        6.0
    """
    check_function("u", u)
    given = directions if directions is None else check_array("directions", directions)
    random = given is not None and given.ndim == 0
    if random:
        count = check_count("directions", directions)
    if key is not None:
        check_key("key", key)
    if random != (key is not None):
        raise ValueError(
            "key: expected a JAX random key with a number of directions, and none without, got "
            f"directions={directions!r}, key={key!r}"
        )

    def second(x, v):
        return jax.jvp(lambda y: jax.jvp(u, (y,), (v,))[1], (x,), (v,))[1]

    def delta_u(x):
        if directions is None:
            vectors = _axes(x)
        elif random:
            vectors = jax.random.rademacher(_key_at(key, x), (count, x.shape[0]), x.dtype)
        else:
            vectors = _directions(given, x)
        total = jnp.sum(jax.vmap(second, in_axes=(None, 0))(x, vectors), axis=0)
        return total / count if random else total

    return delta_u


def biharmonic(u: Function) -> Function:
    """Return the biharmonic operator of ``u``, the Laplacian of its Laplacian.

    Example:
        >>> import jax.numpy as jnp
        >>> float(biharmonic(lambda x: x[0] ** 4 + x[0] ** 2 * x[1] ** 2)(jnp.array([1.0, 2.0])))
        32.0
    """
    return laplacian(laplacian(u))


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


def _check_point(x):
    if jnp.ndim(x) != 1:
        raise ValueError(f"x: expected a point of shape (d,), got shape {jnp.shape(x)}; use jax.vmap for many points")


def _direction(x, axis):
    """Return the unit vector along ``axis``, with the shape and dtype of ``x``."""
    _check_point(x)
    # Without this check, JAX drops an index out of range and the derivative is silently zero.
    check_coordinate("axis", axis, x.shape[0])
    return jnp.zeros_like(x).at[axis].set(1)


def _axes(x):
    """Return the unit vectors along all axes, (d, d), with the dtype of ``x``."""
    _check_point(x)
    return jnp.eye(x.shape[0], dtype=x.dtype)


def _directions(directions, x):
    _check_point(x)
    if directions.ndim != 2 or directions.shape[1] != x.shape[0]:
        raise ValueError(f"directions: expected a number or an array (m, {x.shape[0]}), got shape {directions.shape}")
    if not jnp.issubdtype(directions.dtype, jnp.floating):
        raise TypeError(f"directions: expected floating-point numbers, got {directions.dtype}")
    return directions.astype(x.dtype)


def _key_at(key, x):
    """Return a random key that depends on the key and the bits of the point."""
    _check_point(x)
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), jnp.uint32 if x.dtype.itemsize >= 4 else jnp.uint16)
    bits = bits.astype(jnp.uint32).ravel()
    # Odd multipliers that differ from coordinate to coordinate: permuted coordinates get another key.
    multipliers = jnp.arange(len(bits), dtype=jnp.uint32) * jnp.uint32(0x9E3779B2) + jnp.uint32(1)
    return jax.random.fold_in(key, jnp.sum((bits ^ (bits >> 16)) * multipliers))
