"""Weights of the loss components, fixed or adapted during training.

A weighting is a pair of pure functions, as an optimiser is in optax:

    init(names) -> state
    update(state, view) -> (weights, state)

``weights`` is ``{name: scalar}``; the state is any pytree of arrays. ``update`` is called at every step, inside the
compiled loop, with a :class:`View` of that step. Compiled code is kept for equal weightings, so one is best a frozen
dataclass, which compares by its fields; what is data, like the numbers of ``Fixed``, belongs in the state.

:class:`NTKWeights` is the paper's Algorithm 1. The others are what it is compared with. Each is written from its
paper's formulas; where it departs from them its docstring says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pinnntk_lib._check import check_count, check_finite, check_points, check_positive, check_weights
from pinnntk_lib.ntk import ntk_diagonal

__all__ = ["Fixed", "GradientNormWeights", "NTKWeights", "RelativeLossWeights", "UncertaintyWeights", "View"]


class View(NamedTuple):
    """What a weighting may look at: one training step.

    Attributes:
        step: the step's number, from 0.
        apply: the model.
        params: its parameters before the step.
        operators: ``{name: operator}``.
        points: the step's points, ``{name: (n, d) array}``.
        losses: ``params -> {name: scalar}``, the step's unweighted losses as a function of the parameters.
        residuals: ``params -> {name: (n, ...) array}``, what the losses are the mean squares of.
    """

    step: jax.Array
    apply: Callable
    params: Any
    operators: Mapping[str, Callable]
    points: Mapping[str, jax.Array]
    losses: Callable[[Any], dict[str, jax.Array]]
    residuals: Callable[[Any], dict[str, jax.Array]]


@dataclass(frozen=True)
class Fixed:
    """Constant weights.

    Attributes:
        values: ``{name: weight}``, positive; all 1 if None. They are data: two sets of them share compiled code.

    Raises:
        ValueError, TypeError: if a weight is not a positive number; in training, if the names are not the problem's.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(), pn.MLP(width=10)
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(10), optax.sgd(1e-5)
        >>> weights = pn.train(*setting, 10, Fixed({"u": 100.0, "r": 1.0})).history["weights"]
        >>> {name: float(values[-1]) for name, values in weights.items()}
        {'u': 100.0, 'r': 1.0}
    """

    values: Mapping[str, float] | None = field(default=None, compare=False)

    def __post_init__(self):
        if not isinstance(self.values, Mapping | None):
            raise TypeError(f"weights: expected {{name: positive number}} or a weighting, got {self.values!r}")
        check_weights(self.values, self.values or ())

    def init(self, names):
        return {name: jnp.asarray(value, float) for name, value in check_weights(self.values, names).items()}

    def update(self, state, view):
        return state, state


@dataclass(frozen=True)
class NTKWeights:
    """The paper's Algorithm 1: ``lambda_i = Tr(K) / Tr(K_ii)``, recomputed every ``every`` steps from step 0 on.

    As printed, the algorithm takes it that every condition has as many points as the next. The losses are means, so
    repeating each point of a condition changes no loss and should change no weight, but it multiplies that
    condition's trace. The default therefore takes ``Tr(K_ii) / n_i`` in place of ``Tr(K_ii)`` throughout: with equal
    numbers of points exactly the paper's weights, and otherwise weights that do not depend on those numbers.

    Attributes:
        every: steps between updates.
        normalize: "mean" (the default: traces over numbers of points) or "trace" (the formula as printed).
        smoothing: the share of the old weights that an update keeps, in [0, 1).
        points: ``{name: (n, d) array}``, where the traces are taken; the step's own points if None. Give all points
            when training on minibatches, or a few of many to save time. They are data: two sets of one shape share
            compiled code.

    Raises:
        ValueError, TypeError: if an attribute is out of its range; in training, if the points' names are not the
            problem's.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem = pn.problems.Poisson1D()
        >>> points = problem.points(100)
        >>> model = pn.MLP(width=100, **pn.normalization(points["r"]))
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, points, optax.sgd(1e-5)
        >>> weights = pn.train(*setting, 10, NTKWeights(every=5)).history["weights"]
        >>> print(*[f"{weights[name][0]:.4g}" for name in ("u", "r")])
        147.6 1.007
    """

    every: int = 100
    normalize: str = "mean"
    smoothing: float = 0.0
    points: Mapping[str, jax.Array] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self):
        check_count("every", self.every)
        if self.normalize not in ("mean", "trace"):
            raise ValueError(f"normalize: expected 'mean' or 'trace', got {self.normalize!r}")
        _check_share("smoothing", self.smoothing)

    def init(self, names):
        points = {} if self.points is None else check_points(self.points, names)
        return {"weights": _ones(names), "points": points}

    def update(self, state, view):
        def updated():
            diagonal = ntk_diagonal(view.apply, view.params, view.operators, state["points"] or view.points)
            reduce = jnp.mean if self.normalize == "mean" else jnp.sum
            traces = {name: reduce(values) for name, values in diagonal.items()}
            new = {name: _ratio(sum(traces.values()), trace) for name, trace in traces.items()}
            # At step 0 there are no old weights to keep.
            return _smoothed(state["weights"], new, jnp.where(view.step == 0, 0.0, self.smoothing))

        weights = _every(self.every, view.step, updated, state["weights"])
        return weights, {**state, "weights": weights}


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

    def __post_init__(self):
        check_count("every", self.every)
        _check_share("smoothing", self.smoothing)

    def init(self, names):
        if self.reference not in names:
            raise ValueError(f"reference: expected one of the conditions {list(names)}, got {self.reference!r}")
        return _ones(names)

    def update(self, state, view):
        def updated():
            def size(name):
                gradient = jax.grad(lambda params: view.losses(params)[name])(view.params)
                return jnp.abs(ravel_pytree(gradient)[0])

            sizes = {name: size(name) for name in state}
            largest = sizes[self.reference].max()
            new = {name: _ratio(largest, state[name] * size.mean()) for name, size in sizes.items()}
            new[self.reference] = jnp.ones(())
            # The average starts at 1, as in the paper.
            return _smoothed(state, new, self.smoothing)

        weights = _every(self.every, view.step, updated, state)
        return weights, weights


@dataclass(frozen=True)
class UncertaintyWeights:
    """Weights learned with the parameters, as variances of the losses (Kendall, Gal and Cipolla 2018).

    ``L = sum_i exp(-s_i) L_i + s_i`` is minimised over the ``s_i`` too, here by gradient descent of its own:
    ``lambda_i = exp(-s_i)`` tends to ``1 / L_i``, so that small losses count as much as large ones.

    Attributes:
        learning_rate: of the ``s_i``, positive.
        largest: the limit of every weight. The formula has none, and a loss that goes to zero then drags its
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
    largest: float = 1e4

    def __post_init__(self):
        for name in ("learning_rate", "largest"):
            check_positive(name, getattr(self, name))

    def init(self, names):
        return {name: jnp.zeros(()) for name in names}

    def update(self, state, view):
        losses = view.losses(view.params)
        weights = {name: jnp.minimum(jnp.exp(-s), self.largest) for name, s in state.items()}

        def moved(s, name):
            # A large loss would throw s far out in one step of descent: no more than a factor e at a time.
            step = jnp.clip(self.learning_rate * (1 - jnp.exp(-s) * losses[name]), -1.0, 1.0)
            return jnp.maximum(s - step, -jnp.log(self.largest)).astype(s.dtype)

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

    def __post_init__(self):
        check_positive("temperature", self.temperature)
        _check_share("alpha", self.alpha)
        _check_share("rho", self.rho)

    def init(self, names):
        return {"weights": _ones(names), "first": _ones(names), "last": _ones(names)}

    def update(self, state, view):
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


def _ones(names):
    return {name: jnp.ones(()) for name in names}


def _check_share(name, value):
    if not 0 <= check_finite(name, value) < 1:
        raise ValueError(f"{name}: expected a number in [0, 1), got {value}")


def _every(every, step, updated, weights):
    return jax.lax.cond(step % every == 0, updated, lambda: weights)


def _ratio(a, b):
    # A condition whose gradient vanishes is not trained whatever its weight: leave it finite.
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 1.0)


def _smoothed(old, new, kept):
    return {name: (kept * old[name] + (1 - kept) * new[name]).astype(old[name].dtype) for name in old}


def _tiny(x):
    return jnp.finfo(x.dtype).tiny
