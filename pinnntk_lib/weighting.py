"""Weights of the loss components, fixed or adapted during training.

A weighting is a pair of pure functions, as an optimiser is in optax:

    init(names) -> state
    update(state, view) -> (weights, state)

``weights`` is ``{name: scalar}``; the state is any pytree. ``update`` is called at every step, inside the compiled
loop, with a :class:`View` of that step. Compiled code is kept for equal weightings, so one is best a frozen
dataclass, which compares by its fields.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pinnntk_lib._check import check_count, check_finite, check_names
from pinnntk_lib.ntk import ntk_diagonal

__all__ = ["Fixed", "NTKWeights", "View"]


class View(NamedTuple):
    """What a weighting may look at: one training step.

    Attributes:
        step: the step's number, from 0.
        apply: the model.
        params: its parameters before the step.
        operators: ``{name: operator}``.
        points: the step's points, ``{name: (n, d) array}``.
    """

    step: jax.Array
    apply: Callable
    params: Any
    operators: Mapping[str, Callable]
    points: Mapping[str, jax.Array]


@dataclass(frozen=True)
class Fixed:
    """Constant weights.

    Attributes:
        values: ``{name: weight}``, positive; all 1 if None. They are data: two sets of them share compiled code.

    Raises:
        ValueError, TypeError: if a weight is not a positive number; in training, if the names are not the problem's.
    """

    values: Mapping[str, float] | None = field(default=None, compare=False)

    def __post_init__(self):
        if not isinstance(self.values, Mapping | None):
            raise TypeError(f"weights: expected {{name: positive number}} or a weighting, got {self.values!r}")
        for name, value in (self.values or {}).items():
            if check_finite(f"weights[{name!r}]", value) <= 0:
                raise ValueError(f"weights[{name!r}]: expected a positive number, got {value}")

    def init(self, names):
        values = dict.fromkeys(names, 1.0) if self.values is None else self.values
        check_names("weights", values, names)
        return {name: jnp.asarray(values[name], float) for name in names}

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

    Raises:
        ValueError, TypeError: if an attribute is out of its range.
    """

    every: int = 100
    normalize: str = "mean"
    smoothing: float = 0.0

    def __post_init__(self):
        check_count("every", self.every)
        if self.normalize not in ("mean", "trace"):
            raise ValueError(f"normalize: expected 'mean' or 'trace', got {self.normalize!r}")
        if not 0 <= check_finite("smoothing", self.smoothing) < 1:
            raise ValueError(f"smoothing: expected a number in [0, 1), got {self.smoothing}")

    def init(self, names):
        return {name: jnp.ones(()) for name in names}

    def update(self, state, view):
        due = view.step % self.every == 0
        weights = jax.lax.cond(due, lambda: self._updated(state, view), lambda: state)
        return weights, weights

    def _updated(self, state, view):
        diagonal = ntk_diagonal(view.apply, view.params, view.operators, view.points)
        reduce = jnp.mean if self.normalize == "mean" else jnp.sum
        traces = {name: reduce(values) for name, values in diagonal.items()}
        total = sum(traces.values())
        # The first update has no old weights to keep.
        kept = jnp.where(view.step == 0, 0.0, self.smoothing)

        def updated(old, trace):
            # A condition whose gradient vanishes is not trained whatever its weight: leave it finite.
            new = jnp.where(trace > 0, total / jnp.where(trace > 0, trace, 1.0), 1.0)
            return (kept * old + (1 - kept) * new).astype(old.dtype)

        return jax.tree.map(updated, state, traces)
