"""Weightings to compare with Algorithm 1. Each follows its paper's formulas; its docstring states any departure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pinnntk_lib._check import check_count, check_fraction, check_positive
from pinnntk_lib._deprecated import renamed_keywords
from pinnntk_lib.training._weighting import View, Weights, every_so_often, ones, ratio, smoothed


@dataclass(frozen=True)
class GradientNormWeights:
    """Learning-rate annealing (Wang, Teng and Perdikaris 2021), which equalises the gradients' magnitudes.

    Each update moves ``lambda_i`` towards ``max |grad L_r| / mean |grad lambda_i L_i|`` by a moving average, where the
    maximum and the mean are over all parameters. The reference condition ``r`` keeps weight 1. As in the paper's public
    code, the denominator contains the current weight ``lambda_i``. If the ratio ``max |grad L_r| / mean |grad L_i|`` is
    constant, the fixed point of ``lambda_i`` is therefore the square root of that ratio. Several libraries call weights
    of this kind "NTK weights". They are not: they use the gradients of the losses, not the kernel.

    Attributes:
        every: number of steps between updates.
        smoothing: fraction of the old weights that each update keeps, in [0, 1).
        reference: name of the condition whose weight stays 1.

    Raises:
        ValueError, TypeError: if an attribute is out of range, or, in training, if the problem has no condition named
            ``reference``.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(), pn.MLP(width=10)
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(10), optax.sgd(1e-5)
        >>> weights = pn.train(*setting, 10, GradientNormWeights(every=5)).history["weights"]
        >>> print(*[f"{weights[name][-1]:.2f}" for name in ("u", "r")])
        21.30 1.00
    """

    every: int = 10
    smoothing: float = 0.9
    reference: str = "r"

    def __post_init__(self) -> None:
        check_count("every", self.every)
        check_fraction("smoothing", self.smoothing)

    def init(self, names: Sequence[str]) -> Any:
        if self.reference not in names:
            raise ValueError(f"reference: expected one of the conditions {list(names)}, got {self.reference!r}")
        return {"weights": ones(names)}

    def update(self, state: Any, view: View) -> tuple[Weights, Any]:
        old = state["weights"]

        def updated():
            def size(name):
                gradient = jax.grad(lambda params: view.losses(params)[name])(view.params)
                return jnp.abs(ravel_pytree(gradient)[0])

            sizes = {name: size(name) for name in old}
            largest = sizes[self.reference].max()
            new = {name: ratio(largest, old[name] * size.mean()) for name, size in sizes.items()}
            new[self.reference] = jnp.ones(())
            # The moving average starts at 1, as in the paper.
            return smoothed(old, new, self.smoothing)

        weights = every_so_often(self.every, view.step, updated, old)
        return weights, {"weights": weights}


@renamed_keywords(largest="max_weight")
@dataclass(frozen=True)
class UncertaintyWeights:
    """Weights learned with the parameters, each the inverse of a noise variance (Kendall, Gal and Cipolla 2018).

    ``L = sum_i (exp(-s_i) L_i + s_i)`` is minimised over the ``s_i`` as well, here by gradient descent with its own
    learning rate, whose steps are clipped to [-1, 1]. The weights ``lambda_i = exp(-s_i)`` tend to ``1 / L_i``, so
    small losses count as much as large ones.

    Attributes:
        learning_rate: learning rate of the ``s_i``, positive.
        max_weight: upper limit of every weight. The formula has none: a loss that goes to zero would drive its weight
            to infinity, and the learning rate of training would then exceed the largest stable one.

    Raises:
        ValueError, TypeError: if an attribute is not a positive number.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(), pn.MLP(width=10)
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(10), optax.sgd(1e-5)
        >>> weights = pn.train(*setting, 10, UncertaintyWeights()).history["weights"]
        >>> print(*[f"{weights[name][-1]:.2f}" for name in ("u", "r")])
        1.01 0.01
    """

    learning_rate: float = 1e-3
    max_weight: float = 1e4

    def __post_init__(self) -> None:
        for name in ("learning_rate", "max_weight"):
            check_positive(name, getattr(self, name))

    def init(self, names: Sequence[str]) -> Any:
        return {"s": {name: jnp.zeros(()) for name in names}}

    def update(self, state: Any, view: View) -> tuple[Weights, Any]:
        losses = view.losses(view.params)
        weights = {name: jnp.minimum(jnp.exp(-s), self.max_weight) for name, s in state["s"].items()}

        def moved(s, name):
            # One descent step on a large loss would throw s far off, so no weight changes by more than a factor of e.
            step = jnp.clip(self.learning_rate * (1 - jnp.exp(-s) * losses[name]), -1.0, 1.0)
            return jnp.maximum(s - step, -jnp.log(self.max_weight)).astype(s.dtype)

        return weights, {"s": {name: moved(s, name) for name, s in state["s"].items()}}


@dataclass(frozen=True)
class RelativeLossWeights:
    """Relative loss balancing (Bischof and Kraus 2021, ReLoBRaLo), with the random lookback replaced by its mean.

    The losses that have fallen least get the largest weights. For m conditions, let
    ``b(t, s) = m softmax_i(L_i(t) / (T L_i(s)))``. Then
    ``lambda(t) = alpha (rho lambda(t-1) + (1 - rho) b(t, 0)) + (1 - alpha) b(t, t-1)``. The paper draws ``rho`` from
    {0, 1} at each step; here ``rho`` is the mean of that draw. The weights always sum to m, so none can exceed m.

    Attributes:
        temperature: T, positive. The larger it is, the closer the weights stay to 1.
        alpha: share of the history (previous weights and comparison with step 0), in [0, 1). The remaining share
            belongs to the comparison with the previous step.
        rho: share of the previous weights in the history, in [0, 1).

    Raises:
        ValueError, TypeError: if an attribute is out of range.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(), pn.MLP(width=10)
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(10), optax.sgd(1e-5)
        >>> weights = pn.train(*setting, 10, RelativeLossWeights()).history["weights"]
        >>> print(f"{weights['u'][-1] + weights['r'][-1]:.4f}")
        2.0000
    """

    temperature: float = 0.1
    alpha: float = 0.999
    rho: float = 0.999

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)
        check_fraction("alpha", self.alpha)
        check_fraction("rho", self.rho)

    def init(self, names: Sequence[str]) -> Any:
        return {"weights": ones(names), "first": ones(names), "last": ones(names)}

    def update(self, state: Any, view: View) -> tuple[Weights, Any]:
        losses = view.losses(view.params)
        start = view.step == 0
        first, last = ({n: jnp.where(start, losses[n], state[k][n]) for n in losses} for k in ("first", "last"))

        def balanced(before):
            ratios = jnp.stack([losses[name] / jnp.maximum(before[name], _tiny(before[name])) for name in losses])
            return dict(zip(losses, len(losses) * jax.nn.softmax(ratios / self.temperature)))

        since_first, since_last = balanced(first), balanced(last)
        weights = {
            name: self.alpha * (self.rho * old + (1 - self.rho) * since_first[name])
            + (1 - self.alpha) * since_last[name]
            for name, old in state["weights"].items()
        }
        new = {"weights": weights, "first": first, "last": losses}
        return weights, jax.tree.map(lambda new, old: new.astype(old.dtype), new, state)


def _tiny(x):
    return jnp.finfo(x.dtype).tiny
