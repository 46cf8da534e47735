"""Optimisers one after the other, in one run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from pinnntk_lib._check import check_count, check_optimizer

if TYPE_CHECKING:
    import optax


class JoinedState(NamedTuple):
    """The state of :func:`join_optimizers`.

    Attributes:
        step: number of steps taken.
        states: the optimisers' states.
    """

    step: jax.Array
    states: tuple[Any, ...]


def join_optimizers(
    optimizers: Sequence[optax.GradientTransformation], boundaries: Sequence[int]
) -> optax.GradientTransformationExtraArgs:
    """Return an optimiser that hands over from one optimiser to the next, as ``optax.join_schedules`` does.

    PINNs are often trained in two stages: Adam, and then an optimiser that uses the kernel or the curvature. Joined,
    both make one run of :func:`pinnntk_lib.train`, with one history, which can be interrupted and resumed at any step.
    Each optimiser begins with a new state, at the parameters that the one before it has reached.

    Args:
        optimizers: optax optimisers.
        boundaries: the steps at which the second, the third and so on take over.

    Raises:
        ValueError, TypeError: if an item of ``optimizers`` is not an optimiser, or the boundaries are not increasing
            positive integers, one fewer than the optimisers; in an update, if there are no parameters.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(a=1), pn.MLP(width=20)
        >>> optimizer = pn.join_optimizers([optax.adam(1e-3), pn.kernel_gradient_descent()], [200])
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(20)
        >>> result = pn.train(*setting, optimizer, steps=220, log_every=20)
        >>> bool(result.history["error"][-1] < 1e-2 < result.history["error"][-2])
        True
    """
    import optax

    _check(optimizers, boundaries)
    optimizers, starts = [optax.with_extra_args_support(o) for o in optimizers], (0, *map(int, boundaries))

    def init(params):
        return JoinedState(jnp.zeros((), int), tuple(optimizer.init(params) for optimizer in optimizers))

    def update(gradient, state, params=None, **more):
        if params is None:
            raise ValueError("params: expected the parameters, from which a later optimiser begins, got None")

        def run(i):
            begins, earlier = state.step == starts[i], state.states[i]
            new = jax.lax.cond(begins, lambda: _like(earlier, optimizers[i].init(params)), lambda: earlier)
            updates, new = optimizers[i].update(gradient, new, params, **more)
            states = (*state.states[:i], new, *state.states[i + 1 :])
            return _like((gradient, state.states), (updates, states))

        active = jnp.sum(state.step >= jnp.asarray(starts)) - 1
        updates, states = jax.lax.switch(active, [partial(run, i) for i in range(len(starts))])
        return updates, JoinedState(state.step + 1, states)

    return optax.GradientTransformationExtraArgs(init, update)


def _like(expected, found):
    """Return a pytree of arrays with the expected types, which all branches must share."""
    return jax.tree.map(lambda like, leaf: jnp.asarray(leaf, jnp.result_type(like)), expected, found)


def _check(optimizers, boundaries):
    if not isinstance(optimizers, Sequence) or hasattr(optimizers, "init") or not optimizers:
        raise TypeError(f"optimizers: expected a list of optax optimisers, got {optimizers!r}")
    for i, optimizer in enumerate(optimizers):
        check_optimizer(f"optimizers[{i}]", optimizer)
    if not isinstance(boundaries, Sequence) or len(boundaries) != len(optimizers) - 1:
        raise ValueError(f"boundaries: expected {len(optimizers) - 1} steps, one per handover, got {boundaries!r}")
    for i, step in enumerate(boundaries):
        check_count(f"boundaries[{i}]", step)
        if i and step <= boundaries[i - 1]:
            raise ValueError(f"boundaries: expected increasing steps, got {list(boundaries)}")
