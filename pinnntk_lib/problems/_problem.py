"""Problems and the conditions they consist of."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import (
    check_count,
    check_function,
    check_key,
    check_no_class,
    check_numbers,
    check_points,
    check_sizes,
)
from pinnntk_lib._points import coordinates
from pinnntk_lib._types import Function, Operator
from pinnntk_lib.operators import d


@dataclass(frozen=True)
class Condition:
    """A condition ``operator(u, x) = target(x)`` with a sampler of its collocation points.

    Attributes:
        operator: ``(u, x) -> scalar``, the differential operator applied to the function ``u`` at the point ``x``
            of shape (d,); or a :class:`~pinnntk_lib.System` with several outputs. Where points carry data, x is a
            single one of :class:`~pinnntk_lib.Points`.
        target: ``x -> scalar``, the right-hand side; for a system, ``x -> (outputs,) array``. A number stands for a
            constant. Measured values, one per point of fixed points, are an array (n,), or (n, outputs) for a system;
            or data of the points, ``lambda p: p.value``.
        sampler: ``(n, key) -> (n, d) array`` or :class:`~pinnntk_lib.Points`, which returns n collocation points:
            deterministic if ``key`` is None, random otherwise.

    Raises:
        ValueError, TypeError: if the target is neither a function nor a number nor an array of finite numbers.

    Example:
        The condition ``u_x = 1`` on [0, 1]:

        >>> slope = Condition(lambda u, x: d(u, 0)(x), lambda x: 1.0, lambda n, key: jnp.linspace(0, 1, n)[:, None])
        >>> float(slope.residual(lambda x: 3.0 * x[0], slope.sampler(5, None)[2]))
        2.0
    """

    operator: Operator
    target: Function | float | np.ndarray | jax.Array
    sampler: Callable[[int, jax.Array | None], jax.Array]

    def __post_init__(self) -> None:
        check_no_class("target", self.target, "a function, a number or an array")
        if not callable(self.target):
            object.__setattr__(self, "target", _numbers(self.target))

    def residual(self, u: Function, x: jax.Array) -> jax.Array:
        """Compute the residual ``operator(u, x) - target(x)``, which is zero where the condition holds.

        Raises:
            ValueError: if the target is an array of measured values; :meth:`Problem.residuals` computes their
                residuals.
        """
        if callable(self.target):
            return self.operator(u, x) - self.target(x)
        if not isinstance(self.target, float):
            raise ValueError(
                "target: expected a function or a number for the residual at a single point, got values of shape "
                f"{self.target.shape}, which belong to fixed points"
            )
        return self.operator(u, x) - self.target


def _numbers(target):
    """Return a target that is no function as a float or as an array of floats."""
    if isinstance(target, jax.core.Tracer):
        return target
    try:
        values = np.array(target)
    except (TypeError, ValueError):  # for instance, rows of different lengths
        values = np.array(None)
    if not (jnp.issubdtype(values.dtype, jnp.floating) or jnp.issubdtype(values.dtype, jnp.integer)):
        raise TypeError(f"target: expected a function, a number or an array of real numbers, got {target!r}")
    if not np.isfinite(values).all():
        raise ValueError("target: expected finite numbers, got NaN or infinity")
    return values if values.ndim else float(values)


def check_problem(problem: Any) -> None:
    """Check that an argument is a problem."""
    if not isinstance(problem, Problem):
        raise TypeError(f"problem: expected a pinnntk_lib.Problem, got {type(problem).__name__}")


def target_values(name: str, target: Any, x: jax.Array, outputs: tuple[int, ...]) -> jax.Array:
    """Return a condition's target at its points x (n, d), an array of shape ``(n, *outputs)``.

    Other shapes are refused, because broadcasting would silently change the loss.
    """
    where, shape = f"problem.conditions[{name!r}].target", (len(x), *outputs)
    if isinstance(target, float):
        return jnp.full(shape, target, x.dtype)
    if not callable(target):
        if target.shape != shape:
            raise ValueError(
                f"{where}: expected a function, a number, or one value per point in an array of shape {shape}, "
                f"got shape {target.shape}; values belong to fixed points"
            )
        return jnp.asarray(target, x.dtype)
    values = jax.vmap(target)(x)
    if not hasattr(values, "shape"):
        raise TypeError(f"{where}: expected a function x -> array, got one that returns {type(values).__name__}")
    if values.shape != shape:
        raise ValueError(f"{where}: expected shape {outputs} at a point, got {values.shape[1:]}")
    return values


@dataclass(frozen=True, eq=False)
class Problem:
    """Named conditions on a box-shaped domain.

    Attributes:
        conditions: ``{name: Condition}``, in the order of the kernel's blocks.
        lower: lower corner of the domain, one number per dimension.
        upper: upper corner of the domain.
        exact: the exact solution, a function that maps a point (d,) to a scalar and points (n, d) to an array (n,), or
            for a model with m outputs to (m,) and (n, m); None if there is none.

    Example:
        The equation ``u_x = u`` on [0, 1] with u(0) = 1:

        >>> start = Condition(lambda u, x: u(x), lambda x: 1.0, lambda n, key: jnp.zeros((n, 1)))
        >>> growth = Condition(
        ...     lambda u, x: d(u, 0)(x) - u(x), lambda x: 0.0, lambda n, key: jnp.linspace(0, 1, n)[:, None]
        ... )
        >>> problem = Problem({"u": start, "r": growth}, (0.0,), (1.0,), lambda x: jnp.exp(x[..., 0]))
        >>> residuals = problem.residuals(problem.exact, problem.points({"u": 1, "r": 9}))
        >>> {name: float(abs(values).max()) for name, values in residuals.items()}
        {'u': 0.0, 'r': 0.0}
    """

    conditions: Mapping[str, Condition]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    exact: Function | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.conditions, Mapping):
            raise TypeError(f"conditions: expected {{name: Condition}}, got {self.conditions!r}")
        if not self.conditions:
            raise ValueError("conditions: expected at least one condition, got none")
        for name, condition in self.conditions.items():
            if not isinstance(condition, Condition):
                raise TypeError(f"conditions[{name!r}]: expected a Condition, got {condition!r}")
        lower, upper = check_numbers("lower", self.lower), check_numbers("upper", self.upper)
        if lower.ndim != 1 or lower.shape != upper.shape or not (lower < upper).all():
            raise ValueError(f"lower, upper: expected corners of a box, got {self.lower} and {self.upper}")

    @property
    def dim(self) -> int:
        """Number of inputs, d."""
        return len(self.lower)

    @property
    def operators(self) -> dict[str, Operator]:
        """The conditions' operators, ``{name: operator}``. The kernel depends on nothing else in the problem."""
        return {name: condition.operator for name, condition in self.conditions.items()}

    def points(self, n: int | Mapping[str, int], key: jax.Array | None = None) -> dict[str, jax.Array]:
        """Return collocation points for every condition.

        Args:
            n: number of points per condition, or ``{name: number}``.
            key: JAX random key. If None, the points form a deterministic grid.

        Returns:
            ``{name: (n, d) array or Points}``. If a sampler returns another number of points than it was asked for,
            there is a warning, except for measured values, which have their own number.

        Raises:
            ValueError, TypeError: if a number is not a positive integer, or the names in ``n`` are not those of the
                conditions, or a condition's sampler is not a function.
        """
        sizes = check_sizes(n, self.conditions)
        for name, condition in self.conditions.items():
            check_function(f"conditions[{name!r}].sampler", condition.sampler, "a function (n, key) -> (n, d) array")
        if key is not None:
            check_key("key", key)
        keys = [None] * len(sizes) if key is None else jax.random.split(key, len(sizes))
        points = {}
        for (name, condition), k in zip(self.conditions.items(), keys):
            points[name] = condition.sampler(sizes[name], k)
            if not hasattr(condition.target, "shape") and np.shape(coordinates(points[name]))[:1] != (sizes[name],):
                warnings.warn(
                    f"conditions[{name!r}].sampler: expected {sizes[name]} points, got shape "
                    f"{np.shape(coordinates(points[name]))}",
                    stacklevel=2,
                )
        return points

    def residuals(self, u: Function, points: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Compute the residuals of a function ``u`` at each condition's points, ``{name: (n_name,)}``.

        A condition with m outputs has m consecutive residuals per point.

        Raises:
            ValueError, TypeError: if the names, shapes, types or values of the points are wrong, or a target has
                another shape than its operator at these points.

        Example:
            >>> from pinnntk_lib.problems import Poisson1D
            >>> problem = Poisson1D(a=1)
            >>> residuals = problem.residuals(lambda x: 0.0 * x[0], problem.points(3))
            >>> round(float(residuals["r"][1]), 2)  # -f(1/2), that is pi^2
            9.87
        """
        check_function("u", u)
        points, found = check_points(points, self.conditions), {}
        for name, condition in self.conditions.items():
            values = jax.vmap(lambda x, L=condition.operator: L(u, x))(points[name])
            found[name] = (values - target_values(name, condition.target, points[name], values.shape[1:])).ravel()
        return found

    def grid(self, n: int) -> jax.Array:
        """Return a regular grid with ``n`` points per side, corners included: (n**d, d), last coordinate fastest."""
        check_count("n", n)
        sides = [jnp.linspace(a, b, n) for a, b in zip(self.lower, self.upper)]
        return jnp.stack(jnp.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, self.dim)


# What a kernel can be computed from: a problem, or operators alone.
Conditions = Problem | Mapping[str, Operator]


# Operators and a target that several problems use. Each is a single object, so that the problems share compiled code.


def value(u, x):
    return u(x)


def velocity(u, x):
    """Compute ``u_t``, where time is the first coordinate."""
    return d(u, 0)(x)


def zero(x):
    return jnp.zeros(x.shape[:-1], x.dtype)
