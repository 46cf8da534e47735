"""Samplers: functions ``key -> points`` that supply training with fresh points at each step.

Compiled code is kept for each sampler, and samplers are compared by their code and the values that they read. Two
:class:`RandomPoints` with the same numbers and equal problems share compiled code. :class:`Minibatches` hold JAX
arrays, which are compared by identity: pass the same object to avoid recompilation.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

import jax

from pinnntk_lib._check import check_points, check_sizes
from pinnntk_lib.problems._problem import Problem

Sizes = tuple[tuple[str, int], ...]


def _sizes(n: int | Mapping[str, int], names: Collection[str]) -> Sizes:
    """Return the pairs ``(name, number)``, which are hashable, from one number or ``{name: number}``."""
    return tuple(check_sizes(n, names).items())


@dataclass(frozen=True)
class RandomPoints:
    """A sampler of new random points for each condition, ``problem.points(n, key)``.

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

    def __call__(self, key: jax.Array) -> dict[str, jax.Array]:
        return self.problem.points(dict(cast(Sizes, self.n)), key)


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
        return {name: jax.random.choice(k, self.points[name], (n,), replace=False) for (name, n), k in zip(sizes, keys)}
