"""Weights per point: causal weights, and weights that follow each point's residual."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from pinnntk_lib._check import check_coordinate, check_count, check_fraction, check_names, check_positive
from pinnntk_lib.training._weighting import View, Weighting, Weights, as_weighting


@dataclass(frozen=True)
class CausalWeights:
    """Weights that train a condition's later times once the earlier ones are solved.

    The times of the step's points are divided into equal intervals. With L_k the mean square residual in the k-th,
    points in the i-th get the weight ``exp(-epsilon sum_{k<i} L_k)``. It is near 1 where everything before is solved.
    The history shows the weights' mean, which tends to the weight of the condition itself.

    Attributes:
        epsilon: how small the earlier residuals must become, in units of 1 / mean square residual.
        bins: number of intervals.
        condition: name of the condition, usually the equation's residual.
        axis: the coordinate that is time.
        weights: weights or a weighting of the conditions, by which these are multiplied; all 1 if None.

    Source: Wang, Sankaran and Perdikaris 2022 (arXiv:2203.07404).

    Raises:
        ValueError, TypeError: if an attribute is out of range, or, in training, if there is no such condition or
            coordinate.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Advection1D(), pn.MLP(width=20, dim=2)
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(100), optax.adam(1e-3)
        >>> weights = pn.train(*setting, 200, pn.CausalWeights(epsilon=10.0)).history["weights"]
        >>> bool(weights["r"][0] < weights["r"][-1] < 1), float(weights["u"][-1])
        (True, 1.0)
    """

    epsilon: float = 1.0
    bins: int = 32
    condition: str = "r"
    axis: int = 0
    weights: Mapping[str, float] | Weighting | None = None

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon)
        check_count("bins", self.bins)
        check_coordinate("axis", self.axis)
        object.__setattr__(self, "weights", as_weighting(self.weights))

    def init(self, names: Sequence[str]) -> Any:
        if self.condition not in names:
            raise ValueError(f"condition: expected one of {list(names)}, got {self.condition!r}")
        return {"inner": _inner(self).init(names)}

    def update(self, state: Any, view: View) -> tuple[Weights, Any]:
        weights, inner = _inner(self).update(state["inner"], view)
        x = view.points[self.condition]
        check_coordinate("axis", self.axis, x.shape[1])
        squares = _squares(view, self.condition)
        t = x[:, self.axis]
        length = jnp.maximum(t.max() - t.min(), jnp.finfo(t.dtype).tiny)
        interval = jnp.clip((self.bins * (t - t.min()) / length).astype(int), 0, self.bins - 1)
        sums, counts = (jnp.zeros(self.bins, squares.dtype).at[interval].add(v) for v in (squares, 1.0))
        means = sums / jnp.maximum(counts, 1.0)
        causal = jnp.exp(-self.epsilon * (jnp.cumsum(means) - means))[interval]
        return {**weights, self.condition: weights[self.condition] * causal}, {"inner": inner}


@dataclass(frozen=True)
class ResidualAttention:
    """Weights that grow where the residual stays large: residual-based attention.

    At each step, every point's multiplier becomes ``decay * multiplier + rate * |r| / max |r|``, starting from 0. It
    tends to at most rate / (1 - decay). The point's weight is the multiplier's square, because the paper multiplies
    the residual. The points must be the same at each step.

    Attributes:
        n: ``{name: number of points}`` of the conditions that get such weights.
        rate: the learning rate of the multipliers.
        decay: the fraction of a multiplier that each step keeps, in [0, 1).
        weights: weights or a weighting of the conditions, by which these are multiplied; all 1 if None.

    Source: Anagnostopoulos, Toscano, Stergiopulos and Karniadakis 2024 (arXiv:2307.00379).

    Raises:
        ValueError, TypeError: if an attribute is out of range, or, in training, if a name is not that of a condition, a
            number not that of its points, or the points are drawn anew at each step.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(), pn.MLP(width=20)
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(50), optax.adam(1e-3)
        >>> weights = pn.train(*setting, 500, pn.ResidualAttention({"r": 50})).history["weights"]
        >>> bool(weights["r"][0] < 1e-4 < weights["r"][-1]), float(weights["u"][-1])
        (True, 1.0)
    """

    n: Mapping[str, int]
    rate: float = 0.01
    decay: float = 0.999
    weights: Mapping[str, float] | Weighting | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.n, Mapping) or not self.n:
            raise TypeError(f"n: expected {{name: number of points}}, got {self.n!r}")
        sizes = {name: check_count(f"n for condition {name!r}", number) for name, number in self.n.items()}
        object.__setattr__(self, "n", sizes)
        check_positive("rate", self.rate)
        check_fraction("decay", self.decay)
        object.__setattr__(self, "weights", as_weighting(self.weights))

    def init(self, names: Sequence[str]) -> Any:
        check_names("n", self.n, [name for name in names if name in self.n])
        zeros = {name: jnp.zeros(n) for name, n in self.n.items()}
        return {"inner": _inner(self).init(names), "multipliers": zeros}

    def update(self, state: Any, view: View) -> tuple[Weights, Any]:
        if view.fresh:
            raise ValueError(
                "points: expected fixed points, since ResidualAttention has a weight for each, got a sampler"
            )
        weights, inner = _inner(self).update(state["inner"], view)
        multipliers = {}
        for name, old in state["multipliers"].items():
            size = jnp.sqrt(_squares(view, name))
            if size.shape != old.shape:
                raise ValueError(f"n for condition {name!r}: expected its {len(size)} points, got {len(old)}")
            share = size / jnp.maximum(size.max(), jnp.finfo(size.dtype).tiny)
            multipliers[name] = (self.decay * old + self.rate * share).astype(old.dtype)
        new = {name: weights[name] * multipliers[name] ** 2 for name in multipliers}
        return {**weights, **new}, {"inner": inner, "multipliers": multipliers}


def _inner(weighting):
    return as_weighting(weighting.weights)


def _squares(view, name):
    """Return the mean square residual of each point, (n,)."""
    r = view.residuals(view.params)[name]
    return jnp.mean(r.reshape(len(r), -1) ** 2, axis=1)
