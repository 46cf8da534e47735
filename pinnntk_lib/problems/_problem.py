"""Problems and the conditions they consist of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from pinnntk_lib._check import check_count, check_points, check_sizes
from pinnntk_lib._types import Function, Operator
from pinnntk_lib.operators import d


@dataclass(frozen=True)
class Condition:
    """A condition ``operator(u, x) = target(x)`` with a sampler of its collocation points.

    Attributes:
        operator: ``(u, x) -> scalar``, the differential operator applied to the function ``u`` at the point ``x``
            of shape (d,); or a :class:`~pinnntk_lib.System` with several outputs.
        target: ``x -> scalar``, the right-hand side; for a system, ``x -> (outputs,) array``.
        sampler: ``(n, key) -> (n, d) array``, which returns n collocation points: deterministic if ``key`` is None,
            random otherwise.

    Example:
        The condition ``u_x = 1`` on [0, 1]:

        >>> slope = Condition(lambda u, x: d(u, 0)(x), lambda x: 1.0, lambda n, key: jnp.linspace(0, 1, n)[:, None])
        >>> float(slope.residual(lambda x: 3.0 * x[0], slope.sampler(5, None)[2]))
        2.0
    """

    operator: Operator
    target: Function
    sampler: Callable[[int, jax.Array | None], jax.Array]

    def residual(self, u: Function, x: jax.Array) -> jax.Array:
        """Compute the residual ``operator(u, x) - target(x)``, which is zero where the condition holds."""
        return self.operator(u, x) - self.target(x)


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
        if not self.conditions:
            raise ValueError("conditions: expected at least one condition, got none")
        if len(self.lower) != len(self.upper) or any(a >= b for a, b in zip(self.lower, self.upper)):
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
            ``{name: (n, d) array}``.

        Raises:
            ValueError, TypeError: if a number is not a positive integer, or the names in ``n`` are not those of the
                conditions.
        """
        sizes = check_sizes(n, self.conditions)
        keys = [None] * len(sizes) if key is None else jax.random.split(key, len(sizes))
        return {name: condition.sampler(sizes[name], k) for (name, condition), k in zip(self.conditions.items(), keys)}

    def residuals(self, u: Function, points: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Compute the residuals of a function ``u`` at each condition's points, ``{name: (n_name,)}``.

        A condition with m outputs has m consecutive residuals per point.

        Raises:
            ValueError, TypeError: if the names, shapes, types or values of the points are wrong.

        Example:
            >>> from pinnntk_lib.problems import Poisson1D
            >>> problem = Poisson1D(a=1)
            >>> residuals = problem.residuals(lambda x: 0.0 * x[0], problem.points(3))
            >>> round(float(residuals["r"][1]), 2)  # -f(1/2), that is pi^2
            9.87
        """
        points = check_points(points, self.conditions)
        return {
            name: jax.vmap(lambda x, c=condition: c.residual(u, x))(points[name]).ravel()
            for name, condition in self.conditions.items()
        }

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
