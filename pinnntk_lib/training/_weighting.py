"""Weights of the loss components, fixed or adapted during training.

A weighting is a pair of pure functions, like an optax optimiser:

    init(names) -> state
    update(state, view) -> (weights, state)

``weights`` is ``{name: scalar or (n,) array}``, one number for a condition or one per point of it; the state is any
pytree of arrays. ``update`` is called at every step, inside the
compiled loop, with a :class:`View` of that step. Weightings whose code and attributes are equal share compiled code, so
a weighting is best written as a frozen dataclass. Data, such as the values of :class:`Fixed`, belongs in the state.
A state with a structure of its own, such as a dict with names of what it holds, cannot be resumed by another weighting.

:class:`NTKWeights` is the paper's Algorithm 1; the others are there for comparison. Each follows its paper's formulas,
and its docstring states any departure from them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp

from pinnntk_lib._check import (
    check_choice,
    check_count,
    check_fraction,
    check_names,
    check_no_class,
    check_point_weights,
    check_points,
    check_weights,
)
from pinnntk_lib._types import Apply, Operator, Params
from pinnntk_lib.kernel import ntk_diagonal

Weights = dict[str, jax.Array]


class View(NamedTuple):
    """A training step, as a weighting sees it.

    Attributes:
        step: number of the step, counted from 0.
        apply: the model.
        params: parameters before the step.
        operators: ``{name: operator}``.
        points: the step's points, ``{name: (n, d) array}``.
        losses: ``params -> {name: scalar}``, the step's unweighted losses as a function of the parameters.
        residuals: ``params -> {name: (n, ...) array}``, the residuals whose mean squares are the losses.
        mesh: the devices among which the points are divided, or None. Pass it on to the kernel's functions.
        fresh: whether the points are drawn anew at each step.
    """

    step: jax.Array
    apply: Apply
    params: Params
    operators: Mapping[str, Operator]
    points: Mapping[str, jax.Array]
    losses: Callable[[Any], dict[str, jax.Array]]
    residuals: Callable[[Any], dict[str, jax.Array]]
    mesh: jax.sharding.Mesh | None = None
    fresh: bool = False


class Weighting(Protocol):
    """The interface of a weighting in :func:`~pinnntk_lib.train`, a pair of pure functions.

    ``init`` is called once before training. ``update`` is compiled and runs at every step, so it must not change the
    weighting; what changes belongs in the state. Weightings are compared by their code and the values of their
    attributes. A frozen dataclass is the simplest form.
    """

    def init(self, names: Sequence[str]) -> Any:
        """Return the state before the first step, a pytree of arrays, for conditions with these names."""

    def update(self, state: Any, view: View) -> tuple[Weights, Any]:
        """Return the weights of this step, ``{name: scalar or (n,) array}``, and the next state."""


@dataclass(frozen=True)
class Fixed:
    """Constant weights.

    Attributes:
        values: ``{name: weight}``; all 1 if None. A weight is a number, or an array (n,) of one per point of fixed
            points. Weight 0 switches a condition off. The values are data: changing them does not trigger
            recompilation.

    Raises:
        ValueError, TypeError: if a weight is not a number or an array of numbers that are not negative, all are zero,
            or, in training, if the names are not those of the problem's conditions, or the lengths not those of the
            points.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(), pn.MLP(width=10)
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(10), optax.sgd(1e-5)
        >>> weights = pn.train(*setting, 10, Fixed({"u": 100.0, "r": 1.0})).history["weights"]
        >>> {name: float(values[-1]) for name, values in weights.items()}
        {'u': 100.0, 'r': 1.0}
    """

    values: Mapping[str, float] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping | None):
            raise TypeError(f"weights: expected {{name: number}} or a weighting, got {self.values!r}")
        self._checked(self.values or ())

    def init(self, names: Sequence[str]) -> Any:
        return {name: jnp.asarray(value, float) for name, value in self._checked(names).items()}

    def update(self, state: Any, view: View) -> tuple[Weights, Any]:
        return state, state

    def _checked(self, names):
        if self.values is None:
            return check_weights(None, names)
        check_names("weights", self.values, names)
        arrays = {
            name: check_point_weights(f"weights[{name!r}]", values)
            for name, values in self.values.items()
            if isinstance(values, list | tuple) or getattr(values, "ndim", 0)
        }
        numbers = {name: arrays[name].max() if name in arrays else value for name, value in self.values.items()}
        return check_weights(numbers, names) | arrays


@dataclass(frozen=True)
class NTKWeights:
    """The paper's Algorithm 1, ``lambda_i = Tr(K) / Tr(K_ii)``, recomputed at steps 0, ``every``, 2 ``every``, ....

    The algorithm as printed assumes that all conditions have the same number of points. The losses are means, so
    repeating every point of a condition changes no loss and should change no weight. It does, however, multiply that
    condition's trace. The default therefore replaces ``Tr(K_ii)`` by ``Tr(K_ii) / n_i`` throughout. With equal numbers
    of points this gives exactly the paper's weights; otherwise the weights do not depend on those numbers. A condition
    whose trace is zero gets weight 1.

    Attributes:
        every: number of steps between updates.
        normalize: "mean" (default: traces divided by the numbers of points) or "trace" (the formula as printed).
        smoothing: fraction of the old weights that each update keeps, in [0, 1); the first update keeps none.
        points: ``{name: (n, d) array}`` at which the traces are computed; the step's own points if None. Pass all
            points when training on minibatches, or a subset to save time. The points are data: changing them without
            changing their shapes does not trigger recompilation.

    Raises:
        ValueError, TypeError: if an attribute is out of range, or, in training, if the names of ``points`` are not
            those of the problem's conditions.

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

    def __post_init__(self) -> None:
        check_count("every", self.every)
        check_choice("normalize", self.normalize, ("mean", "trace"))
        check_fraction("smoothing", self.smoothing)

    def init(self, names: Sequence[str]) -> Any:
        points = {} if self.points is None else check_points(self.points, names)
        return {"weights": ones(names), "points": points}

    def update(self, state: Any, view: View) -> tuple[Weights, Any]:
        def updated():
            points = state["points"] or view.points
            diagonal = ntk_diagonal(view.apply, view.params, view.operators, points, mesh=view.mesh)
            reduce = jnp.mean if self.normalize == "mean" else jnp.sum
            traces = {name: reduce(values) for name, values in diagonal.items()}
            new = {name: ratio(sum(traces.values()), trace) for name, trace in traces.items()}
            # At step 0 there are no earlier weights to keep.
            return smoothed(state["weights"], new, jnp.where(view.step == 0, 0.0, self.smoothing))

        weights = every_so_often(self.every, view.step, updated, state["weights"])
        return weights, {**state, "weights": weights}


def as_weighting(weights: Mapping[str, float] | Weighting | None) -> Weighting:
    """Return a weighting unchanged, and wrap numbers in :class:`Fixed`."""
    check_no_class("weights", weights, "{name: number} or a weighting")
    if hasattr(weights, "init") and hasattr(weights, "update"):
        return cast(Weighting, weights)
    return Fixed(cast(Any, weights))


# Helpers that all weightings share.


def ones(names):
    return {name: jnp.ones(()) for name in names}


def every_so_often(every, step, updated, weights):
    return jax.lax.cond(step % every == 0, updated, lambda: weights)


def ratio(a, b):
    # A condition whose gradient vanishes is not trained, whatever its weight: keep the weight finite.
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 1.0)


def smoothed(old, new, kept):
    return {name: (kept * old[name] + (1 - kept) * new[name]).astype(old[name].dtype) for name in old}
