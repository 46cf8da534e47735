"""Weightings to compare Algorithm 1 with, each from its paper's formulas; docstrings name every departure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pinnntk_lib._check import check_count, check_positive
from pinnntk_lib._deprecated import renamed_keywords
from pinnntk_lib.training._weighting import View, Weights, check_share, every_so_often, ones, ratio, smoothed


@dataclass(frozen=True)
class GradientNormWeights:
    """Learning-rate annealing of Wang, Teng and Perdikaris (2021): gradients of one magnitude for every condition.

    ``lambda_i = max |grad L_r| / mean |grad lambda_i L_i|``, over all parameters, with a moving average; 1 for the
    reference condition ``r``. The mean is of the loss as it is weighted, as in the paper's public code, so that a
    constant ratio of gradients leads to its square root. Several libraries call weights of this kind "NTK weights":
    they are not, they see the losses' gradients and not the kernel.

    Attributes:
        every: steps between updates.
        smoothing: the share of the old weights that an update keeps, in [0, 1).
        reference: the name of the condition whose weight stays 1.

    Raises:
        ValueError, TypeError: if an attribute is out of its range; in training, if the problem has no condition of
            the reference's name.

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
        check_share("smoothing", self.smoothing)

    def init(self, names: Sequence[str]) -> Any:
        if self.reference not in names:
            raise ValueError(f"reference: expected one of the conditions {list(names)}, got {self.reference!r}")
        return ones(names)

    def update(self, state: Any, view: View) -> tuple[Weights, Any]:
        def updated():
            def size(name):
                gradient = jax.grad(lambda params: view.losses(params)[name])(view.params)
                return jnp.abs(ravel_pytree(gradient)[0])

            sizes = {name: size(name) for name in state}
            largest = sizes[self.reference].max()
            new = {name: ratio(largest, state[name] * size.mean()) for name, size in sizes.items()}
            new[self.reference] = jnp.ones(())
            # The average starts at 1, as in the paper.
            return smoothed(state, new, self.smoothing)

        weights = every_so_often(self.every, view.step, updated, state)
        return weights, weights


@renamed_keywords(largest="max_weight")
@dataclass(frozen=True)
class UncertaintyWeights:
    """Weights learned with the parameters, as variances of the losses (Kendall, Gal and Cipolla 2018).

    ``L = sum_i exp(-s_i) L_i + s_i`` is minimised over the ``s_i`` too, here by gradient descent of its own:
    ``lambda_i = exp(-s_i)`` tends to ``1 / L_i``, so that small losses count as much as large ones.

    Attributes:
        learning_rate: of the ``s_i``, positive.
        max_weight: the limit of every weight. The formula has none, and a loss that goes to zero then drags its
            weight to infinity and training past its largest stable learning rate.

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
        return {name: jnp.zeros(()) for name in names}

    def update(self, state: Any, view: View) -> tuple[Weights, Any]:
        losses = view.losses(view.params)
        weights = {name: jnp.minimum(jnp.exp(-s), self.max_weight) for name, s in state.items()}

        def moved(s, name):
            # A large loss would throw s far out in one step of descent: no more than a factor e at a time.
            step = jnp.clip(self.learning_rate * (1 - jnp.exp(-s) * losses[name]), -1.0, 1.0)
            return jnp.maximum(s - step, -jnp.log(self.max_weight)).astype(s.dtype)

        return weights, {name: moved(s, name) for name, s in state.items()}


@dataclass(frozen=True)
class RelativeLossWeights:
    """Relative loss balancing (Bischof and Kraus 2021, ReLoBRaLo), its random lookback replaced by the mean.

    Losses that have fallen the least get the largest weights: with ``b(t, s) = m softmax_i(L_i(t) / (T L_i(s)))``
    for m conditions, ``lambda(t) = alpha (rho lambda(t-1) + (1 - rho) b(t, 0)) + (1 - alpha) b(t, t-1)``. The paper
    draws ``rho`` in {0, 1} at each step; here it is that coin's mean. The weights always sum to m, so that no loss
    can count m times what it does unweighted.

    Attributes:
        temperature: T, positive; the larger, the nearer the weights stay to 1.
        alpha: the share of the past, in [0, 1).
        rho: the share of the last weights in it, against the comparison with step 0, in [0, 1).

    Raises:
        ValueError, TypeError: if an attribute is out of its range.

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
        check_share("alpha", self.alpha)
        check_share("rho", self.rho)

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
