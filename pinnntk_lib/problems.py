"""Problems: differential equations with the points they are imposed at.

A :class:`Problem` is a set of named :class:`Condition` s, the paper's loss components: boundary values, initial
values, the equation's residual. Nothing here knows of networks, and nothing of the network is baked into a
condition, so the same one serves training, the empirical kernel and the infinite-width kernel.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_count, check_finite, check_names, check_points
from pinnntk_lib.operators import d, dd

__all__ = ["Condition", "Poisson1D", "Problem", "Wave1D"]

Operator = Callable[[Callable, jax.Array], jax.Array]


@dataclass(frozen=True)
class Condition:
    """One condition ``operator(u, x) = target(x)`` and the points it is imposed at.

    Attributes:
        operator: ``(u, x) -> scalar``, the differential operator applied to the function ``u`` at the point ``x``
            of shape (d,).
        target: ``x -> scalar``, the right-hand side.
        sampler: ``(n, key) -> (n, d) array``, n points of the condition: deterministic where ``key`` is None,
            random otherwise.

    Example:
        ``u_x = 1`` on [0, 1]:

        >>> slope = Condition(lambda u, x: d(u, 0)(x), lambda x: 1.0, lambda n, key: jnp.linspace(0, 1, n)[:, None])
        >>> float(slope.residual(lambda x: 3.0 * x[0], slope.sampler(5, None)[2]))
        2.0
    """

    operator: Operator
    target: Callable[[jax.Array], jax.Array]
    sampler: Callable[[int, jax.Array | None], jax.Array]

    def residual(self, u: Callable, x: jax.Array) -> jax.Array:
        """``operator(u, x) - target(x)``, a scalar that is zero where the condition holds."""
        return self.operator(u, x) - self.target(x)


@dataclass(frozen=True, eq=False)
class Problem:
    """Named conditions on a box-shaped domain.

    Attributes:
        conditions: ``{name: Condition}``, in the order of the kernel's blocks.
        lower: the domain's lower corner, one number per dimension.
        upper: its upper corner.
        exact: the exact solution, of a point (d,) to a scalar and of points (n, d) to (n,); None if there is none.

    Example:
        ``u_x = u`` on [0, 1] with u(0) = 1:

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
    exact: Callable[[jax.Array], jax.Array] | None = field(default=None, repr=False)

    def __post_init__(self):
        if not self.conditions:
            raise ValueError("conditions: expected at least one condition, got none")
        if len(self.lower) != len(self.upper) or any(a >= b for a, b in zip(self.lower, self.upper)):
            raise ValueError(f"lower, upper: expected corners of a box, got {self.lower} and {self.upper}")

    @property
    def dim(self) -> int:
        """The number of inputs, d."""
        return len(self.lower)

    @property
    def operators(self) -> dict[str, Operator]:
        """``{name: operator}``: all that the kernel depends on."""
        return {name: condition.operator for name, condition in self.conditions.items()}

    def points(self, n: int | Mapping[str, int], key: jax.Array | None = None) -> dict[str, jax.Array]:
        """Points of every condition.

        Args:
            n: the number of points of each condition, or ``{name: number}``.
            key: a JAX random key for random points; without it they form a deterministic grid.

        Returns:
            ``{name: (n, d) array}``.

        Raises:
            ValueError: if a number is not positive, or ``n`` does not name each condition once.
        """
        sizes = dict(n) if isinstance(n, Mapping) else dict.fromkeys(self.conditions, n)
        check_names("n", sizes, self.conditions)
        keys = [None] * len(sizes) if key is None else jax.random.split(key, len(sizes))
        return {
            name: condition.sampler(check_count(f"n for condition {name!r}", sizes[name]), k)
            for (name, condition), k in zip(self.conditions.items(), keys)
        }

    def residuals(self, u: Callable, points: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The residuals of a function ``u`` at points of every condition: ``{name: (n_name,)}``.

        Raises:
            ValueError, TypeError: if the points do not fit.

        Example:
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
        """A regular grid of ``n`` points a side, corners included: (n**d, d), the last coordinate fastest."""
        check_count("n", n)
        sides = [jnp.linspace(a, b, n) for a, b in zip(self.lower, self.upper)]
        return jnp.stack(jnp.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, self.dim)


def Poisson1D(a: float = 4) -> Problem:
    """The paper's model problem (section 7.1): ``u'' = f`` on [0, 1] with exact solution ``sin(a pi x)``.

    Conditions: ``"u"``, the boundary values (two points, each repeated n/2 times, as in the paper); ``"r"``, the
    residual ``u_xx - f``, on a uniform grid or at uniform random points.

    Args:
        a: the number of half-waves in the solution; any finite number.

    Raises:
        ValueError: if ``a`` is not a finite number.

    Example:
        >>> points = Poisson1D(a=4).points(4)
        >>> points["u"].ravel().tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    omega = check_finite("a", a) * np.pi

    def exact(x):
        return jnp.sin(omega * x[..., 0])

    def forcing(x):
        return -(omega**2) * exact(x)

    conditions = {
        "u": Condition(_value, exact, _interval_ends),
        "r": Condition(_second_derivative, forcing, _interval),
    }
    return Problem(conditions, (0.0,), (1.0,), exact)


def Wave1D() -> Problem:
    """The paper's wave equation (section 7.2): ``u_tt - 4 u_xx = 0`` for (t, x) in [0, 1]^2.

    The exact solution is ``sin(pi x) cos(2 pi t) + 0.5 sin(4 pi x) cos(8 pi t)``. Conditions: ``"u"``, initial and
    boundary values, a third of the points each on t = 0, x = 0 and x = 1; ``"ut"``, the initial velocity (zero);
    ``"r"``, the residual. Without a key, interior points form a rank-1 lattice, which is even for every n.

    Example:
        >>> {name: points.shape for name, points in Wave1D().points(300).items()}
        {'u': (300, 2), 'ut': (300, 2), 'r': (300, 2)}
    """

    def exact(x):
        t, s = x[..., 0], x[..., 1]
        slow = jnp.sin(jnp.pi * s) * jnp.cos(2 * jnp.pi * t)
        return slow + 0.5 * jnp.sin(4 * jnp.pi * s) * jnp.cos(8 * jnp.pi * t)

    conditions = {
        "u": Condition(_value, exact, _space_time_border),
        "ut": Condition(_velocity, _zero, _initial_line),
        "r": Condition(_wave, _zero, _unit_square),
    }
    return Problem(conditions, (0.0, 0.0), (1.0, 1.0), exact)


# The operators are module-level functions, one object each: compiled code is then shared between problems that
# differ only in their targets (the kernel does not depend on those).


def _value(u, x):
    return u(x)


def _second_derivative(u, x):
    """``u_xx`` in one dimension."""
    return dd(u, 0)(x)


def _velocity(u, x):
    return d(u, 0)(x)


def _wave(u, x):
    return dd(u, 0)(x) - 4.0 * dd(u, 1)(x)


def _zero(x):
    return jnp.zeros(x.shape[:-1], x.dtype)


def _interval(n, key):
    return (jnp.linspace(0.0, 1.0, n) if key is None else jax.random.uniform(key, (n,)))[:, None]


def _interval_ends(n, key):
    # The boundary of an interval is its two ends, so there is nothing to draw at random.
    return jnp.where(jnp.arange(n) < (n + 1) // 2, 0.0, 1.0)[:, None]


def _initial_line(n, key):
    x = _interval(n, key)
    return jnp.concatenate([jnp.zeros_like(x), x], axis=1)


def _space_time_border(n, key):
    counts = [n - 2 * (n // 3), n // 3, n // 3]
    keys = [None] * 3 if key is None else jax.random.split(key, 3)
    initial = _initial_line(counts[0], keys[0])
    left, right = (_interval(count, k) for count, k in zip(counts[1:], keys[1:]))
    return jnp.concatenate(
        [
            initial,
            jnp.concatenate([left, jnp.zeros_like(left)], axis=1),
            jnp.concatenate([right, jnp.ones_like(right)], axis=1),
        ]
    )


def _unit_square(n, key):
    if key is not None:
        return jax.random.uniform(key, (n, 2))
    i = np.arange(n)
    golden = (np.sqrt(5) - 1) / 2
    return jnp.stack([(i + 0.5) / n, (0.5 + i * golden) % 1.0], axis=1).astype(float)
