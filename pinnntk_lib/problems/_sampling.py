"""Samplers: functions ``key -> points`` that supply training with fresh points at each step.

A sampler may choose its points by the residuals at the current parameters. It then has a method ``adapted(key,
residuals) -> points``, which training calls instead; ``residuals`` is a function of points (:class:`ResidualPoints`).

Compiled code is kept for each sampler, and samplers are compared by their code and the values that they read. Two
:class:`RandomPoints` with the same numbers and equal problems share compiled code, as do two :class:`ResidualPoints`.
:class:`Minibatches` hold JAX arrays, which are compared by identity: pass the same object to avoid recompilation.
"""

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_count, check_finite, check_points, check_sizes
from pinnntk_lib._points import Layout, coordinates
from pinnntk_lib.problems._problem import Problem

Sizes = tuple[tuple[str, int], ...]


def _sizes(n: int | Mapping[str, int], names: Collection[str]) -> Sizes:
    """Return the pairs ``(name, number)``, which are hashable, from one number or ``{name: number}``."""
    return tuple(check_sizes(n, names).items())


@dataclass(frozen=True)
class RandomPoints:
    """A sampler of new random points for each condition, ``problem.points(n, key)``.

    There is a warning if a sampler ignores its key and returns the same points again.

    Attributes:
        problem: the problem.
        n: number of points per condition, or ``{name: number}``.

    Raises:
        ValueError, TypeError: if ``problem`` is not a problem, a number is not a positive integer, or the names in
            ``n`` are not those of the conditions.

    Example:
        >>> import jax, pinnntk_lib as pn
        >>> sampler = RandomPoints(pn.problems.Wave1D(), {"u": 300, "ut": 100, "r": 300})
        >>> {name: points.shape for name, points in sampler(jax.random.key(0)).items()}
        {'u': (300, 2), 'ut': (100, 2), 'r': (300, 2)}
    """

    problem: Problem
    n: int | Mapping[str, int]

    def __post_init__(self) -> None:
        if not isinstance(self.problem, Problem):
            raise TypeError(f"problem: expected a pinnntk_lib.Problem, got {self.problem!r}")
        object.__setattr__(self, "n", _sizes(self.n, self.problem.conditions))
        self._warn_of_ignored_keys()

    def _warn_of_ignored_keys(self):
        """Warn of samplers that return the same points for two keys, unless these have a finite set of points only."""
        for name, n in cast(Sizes, self.n):
            try:
                sampler = self.problem.conditions[name].sampler
                first, second = (np.asarray(coordinates(sampler(n, jax.random.key(i)))) for i in (0, 1))
            except Exception:  # whatever is wrong with the sampler, drawing points will say it
                continue
            if n > 2 and np.array_equal(first, second) and len(np.unique(first, axis=0)) == len(first):
                warnings.warn(
                    f"problem.conditions[{name!r}].sampler: expected new points for each key, got the same {n} for two "
                    "keys",
                    stacklevel=4,
                )

    def __call__(self, key: jax.Array) -> dict[str, jax.Array]:
        return self.problem.points(dict(cast(Sizes, self.n)), key)


@dataclass(frozen=True)
class ResidualPoints(RandomPoints):
    """A sampler of more points where the residuals are large: residual-based adaptive distribution (RAD).

    At each step of :func:`~pinnntk_lib.train`, it draws a pool of random points for each condition and evaluates the
    residuals there. It keeps a point of the pool with probability proportional to ``|r|^k / mean(|r|^k) + c``, without
    replacement. Unlike in the paper, the points change at every step, so that a run needs no state to be resumed. The
    pool costs evaluations of the residuals without their gradients.

    Called as a function, without residuals, it returns points that are distributed evenly.

    Attributes:
        problem: the problem.
        n: number of points per condition, or ``{name: number}``.
        pool: number of random points to choose from, as a multiple of n.
        power: k. The larger it is, the more the points concentrate; 0 distributes them evenly.
        floor: c. The larger it is, the less they concentrate.

    Source: Wu, Zhu, Tan, Kartha and Lu 2023 (arXiv:2207.10289), whose RAD has k = 1 and c = 1 by default.

    Raises:
        ValueError, TypeError: as for :class:`RandomPoints`; or if ``pool`` is not an integer of at least 2, or
            ``power`` or ``floor`` is negative or not finite.

    Example:
        >>> import jax, jax.numpy as jnp, pinnntk_lib as pn
        >>> sampler = ResidualPoints(pn.problems.Poisson1D(), 300, pool=40, floor=0.0)
        >>> points = sampler.adapted(jax.random.key(0), lambda points: {name: x[:, 0] for name, x in points.items()})
        >>> round(float(jnp.mean(points["r"])), 1)  # 1/2 for even points, 2/3 for the density 2 x
        0.7
    """

    pool: int = 4
    power: float = 1.0
    floor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if check_count("pool", self.pool) < 2:
            raise ValueError(f"pool: expected at least 2, got {self.pool}")
        for name in ("power", "floor"):
            if check_finite(name, getattr(self, name)) < 0:
                raise ValueError(f"{name}: expected a number that is not negative, got {getattr(self, name)}")

    def adapted(
        self, key: jax.Array, residuals: Callable[[Mapping[str, jax.Array]], Mapping[str, jax.Array]]
    ) -> dict[str, jax.Array]:
        """Return points for residuals given as a function, ``{name: (m, d)} -> {name: (m,) or (m, outputs)}``."""
        sizes = dict(cast(Sizes, self.n))
        of_pool, *keys = jax.random.split(key, 1 + len(sizes))
        pool = self.problem.points({name: self.pool * n for name, n in sizes.items()}, of_pool)
        found = residuals(pool)

        def chosen(key, name):
            x, n = pool[name], sizes[name]
            if len(x) <= n:  # a sampler of certain points, whatever their number
                return x
            density = self._density(found[name].reshape(len(x), -1))
            return x[jax.random.choice(key, len(x), (n,), replace=False, p=density)]

        return {name: chosen(key, name) for name, key in zip(sizes, keys)}

    def _density(self, residuals):
        """Return the probabilities (m,) of points with residuals (m, outputs); even ones where these tell nothing."""
        size = jnp.linalg.norm(residuals / _positive(jnp.max(jnp.abs(residuals))), axis=1) ** self.power
        density = size / _positive(jnp.mean(size)) + self.floor
        density = jnp.where(jnp.isfinite(density).all(), density, jnp.ones_like(density))
        density = jnp.maximum(density, 1e-6)  # where points with residuals have run out, the others are as likely
        return density / jnp.sum(density)


def _positive(number):
    return jnp.where(number > 0, number, 1.0)


@dataclass(frozen=True, eq=False)
class Minibatches:
    """A sampler of minibatches from given points, drawn without replacement within a batch.

    Attributes:
        points: ``{name: (N, d) array}``, the points to draw from.
        n: number of points per condition in a batch, or ``{name: number}``.

    Raises:
        ValueError, TypeError: if the points or the numbers are invalid, or a batch would need more points than there
            are.

    Example:
        >>> import jax, pinnntk_lib as pn
        >>> batch = Minibatches(pn.problems.Poisson1D().points(1000), {"u": 2, "r": 50})(jax.random.key(0))
        >>> batch["r"].shape
        (50, 1)
    """

    points: Mapping[str, jax.Array]
    n: int | Mapping[str, int]

    def __post_init__(self) -> None:
        names = list(self.points) if isinstance(self.points, Mapping) else []
        object.__setattr__(self, "points", check_points(self.points, names))
        sizes = _sizes(self.n, names)
        object.__setattr__(self, "n", sizes)
        for name, n in sizes:
            if n > len(self.points[name]):
                raise ValueError(f"n for condition {name!r}: expected at most {len(self.points[name])}, got {n}")

    def __call__(self, key: jax.Array) -> dict[str, jax.Array]:
        sizes = cast(Sizes, self.n)
        keys = jax.random.split(key, len(sizes))
        chosen = {
            name: jax.random.choice(k, len(self.points[name]), (n,), replace=False) for (name, n), k in zip(sizes, keys)
        }
        return {name: self.points[name][rows] for name, rows in chosen.items()}


def other_points(problem: Problem, points: Mapping[str, jax.Array], count: int = 256) -> dict[str, jax.Array]:
    """Return points beside the given ones, from the conditions' samplers: the same ones at each call.

    A condition has none if its targets are measured values, or if its sampler fails with a key or repeats the points.
    """
    others = {}
    for i, (name, condition) in enumerate(problem.conditions.items()):
        if callable(condition.target) or isinstance(condition.target, float):
            drawn = _drawn(condition.sampler, points[name], count, jax.random.key(i))
            if drawn is not None:
                others[name] = drawn
    return others


def _drawn(sampler, points, count, key):
    try:
        (drawn,) = check_points({"": sampler(count, key)}, [""]).values()
    except Exception:  # other people's samplers may never have been called with a key
        return None
    if Layout.of(drawn) != Layout.of(points):
        return None
    drawn = drawn.astype(points.dtype)
    known = {row.tobytes() for row in np.asarray(coordinates(points))}
    fresh = np.array([row.tobytes() not in known for row in np.asarray(coordinates(drawn))])
    return drawn[fresh] if fresh.mean() >= 0.5 else None
