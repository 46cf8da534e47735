"""Diagnosis of a PINN from its kernel, its residuals and its optimiser's learning rate."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import (
    check_conditions,
    check_count,
    check_finite,
    check_operators,
    check_optimizer,
    check_points,
    check_weights,
    first_not_finite,
)
from pinnntk_lib._devices import as_mesh
from pinnntk_lib._types import Apply, Params
from pinnntk_lib.diagnosis._diagnosis import Diagnosis
from pinnntk_lib.diagnosis._evidence import all_residuals, kernels, measure, sample
from pinnntk_lib.diagnosis._preconditioned import preconditioned
from pinnntk_lib.kernel import ntk_diagonal, setting_of
from pinnntk_lib.problems import Conditions, Problem

if TYPE_CHECKING:
    import optax

FEWEST = 50  # points of each condition in a sample


def diagnose(
    apply: Apply,
    params: Params,
    conditions: Conditions,
    points: Mapping[str, jax.Array],
    *,
    optimizer: optax.GradientTransformation | float | None = None,
    opt_state: Any = None,
    weights: Mapping[str, float] | None = None,
    before: Diagnosis | None = None,
    max_points: int = 1000,
    memory: int = 2**30,
    mesh: jax.sharding.Mesh | None = None,
) -> Diagnosis:
    """Use the kernel to diagnose why a PINN does not train.

    Args:
        apply: the model, a pure function ``(params, x of shape (d,)) -> u(x)``.
        params: the model's parameters, a pytree of floating-point arrays, at initialisation or at any point of
            training.
        conditions: a :class:`~pinnntk_lib.Problem` or ``{name: operator}``. Losses and their predicted decay are
            reported only for a problem, because they depend on its targets.
        points: ``{name: (n, d) array}``. The rates are means over the points, so a few hundred per condition suffice.
        optimizer: the learning rate of gradient descent, or an optax optimiser. An optimiser is applied to an
            artificial gradient, to detect plain gradient descent and its learning rate.
        opt_state: the present state of Adam or an optimiser like it, ``result.state.opt_state``. The report then says
            at which rates its own kernel trains the conditions, with each parameter's gradient divided by the root of
            its second moment (for the usual b1 = 0.9, b2 = 0.999 and eps = 1e-8).
        weights: the present weights, ``{name: lambda_name}``, for instance the last ones in ``result.history``; all 1
            if None. A condition with weight 0 is left out.
        before: an earlier diagnosis at the same points, to measure how far the kernel has moved since.
        max_points: the spectrum is computed from at most about this many points, a random sample of those of each
            condition. Losses and rates are those of all points.
        memory: approximate memory budget in bytes for computing the kernel, as in :func:`pinnntk_lib.ntk`.
        mesh: devices that compute the kernel together, as in :func:`pinnntk_lib.ntk`. The diagnosis itself is made by
            each process for itself, from the whole kernel.

    Raises:
        ValueError, TypeError: if the shape, type, names or values of an argument are wrong, or a residual or its
            derivatives with respect to the parameters are not finite at a point; the message says which.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem = pn.problems.Poisson1D(a=4)
        >>> points = problem.points(100)
        >>> model = pn.MLP(width=100, **pn.normalization(points["r"]))
        >>> params = model.init(jax.random.key(0))
        >>> found = pn.diagnose(model.apply, params, problem, points, optimizer=optax.sgd(1e-5))
        >>> found.verdict
        'u'
    """
    check_count("max_points", max_points)
    mesh = as_mesh(mesh)
    setting_of(apply, params, conditions, points)
    points = check_points(points, check_operators(conditions))
    present = check_weights(weights, points)
    conditions, points, present = _without_zeros(conditions, points, present)
    operators = check_operators(conditions)
    for name, operator in operators.items():
        check_conditions(apply, params, {name: operator}, points[name][0])
    learning_rate, plain = _learning_rate(optimizer, params)
    rows = _rows(points, max_points)
    few = {name: x[rows[name]] for name, x in points.items()}
    K, *parts = kernels(apply, params, operators, few, memory, mesh)
    if before is not None and (not isinstance(before, Diagnosis) or before.K.sizes != K.sizes):
        raise ValueError(f"before: expected a Diagnosis of the same conditions and points, with sizes {K.sizes}")
    sampled = any(len(x) > len(few[name]) for name, x in points.items())
    if sampled:
        diagonal = ntk_diagonal(apply, params, conditions, points, memory=memory, mesh=mesh)
        traces = {name: float(values.sum()) for name, values in diagonal.items()}
    else:
        traces = {name: float(K.trace(name)) for name in K.names}
    if mesh is not None:  # what follows is each process's own
        params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), params)
    residuals, held_out = None, {}
    if isinstance(conditions, Problem):
        residuals, held_out = all_residuals(apply, params, conditions, points)
        _check_residuals(residuals, points)
    return Diagnosis(
        K,
        present,
        learning_rate,
        plain,
        residuals,
        sum(np.size(leaf) for leaf in jax.tree.leaves(params)),
        None if before is None else _drift(before.K, K),
        traces,
        {name: n * len(points[name]) // len(few[name]) for name, n in K.sizes},
        rows if sampled else None,
        measure(apply, params, conditions, points, few, parts, held_out),
        None if opt_state is None else preconditioned(apply, params, operators, points, present, opt_state),
    )


def _without_zeros(conditions, points, weights):
    """Return conditions, points and weights without the conditions that are switched off."""
    kept = {name: weight for name, weight in weights.items() if weight}
    if len(kept) == len(weights):
        return conditions, points, weights
    points = {name: points[name] for name in kept}
    if isinstance(conditions, Problem):
        return replace(conditions, conditions={name: conditions.conditions[name] for name in kept}), points, kept
    return {name: conditions[name] for name in kept}, points, kept


def _rows(points, most):
    """Return the indices of the points whose kernel is formed, ``{name: indices}``, in proportion to the numbers."""
    total = sum(map(len, points.values()))
    return {name: sample(x, max(-(-most * len(x) // total), FEWEST)) for name, x in points.items()}


def _check_residuals(residuals, points):
    """Check that residuals are finite, and name the condition and the point of the first that is not."""
    for name, found in residuals.items():
        wrong = first_not_finite(found, points[name])
        if wrong:
            raise ValueError(
                f"conditions[{name!r}]: expected a finite residual at every point, got {wrong[0]} at {wrong[1]}"
            )


def _learning_rate(optimizer, params):
    """Return ``(learning rate or None, whether the optimiser is plain gradient descent)``."""
    if optimizer is None:
        return None, None
    if isinstance(optimizer, numbers.Real):
        if check_finite("optimizer", optimizer) <= 0:
            raise ValueError(f"optimizer: expected a positive learning rate, got {optimizer}")
        return float(optimizer), True
    check_optimizer("optimizer", optimizer, "a learning rate or an optax gradient transformation")
    # Try the same gradient twice, then half of it: plain gradient descent multiplies each by the same number.
    sizes = iter(range(1, 10**6))
    gradient = jax.tree.map(lambda leaf: jnp.full(jnp.shape(leaf), 1.0 / next(sizes), jnp.result_type(leaf)), params)
    state = optimizer.init(params)
    multiples = []
    for factor in (1.0, 1.0, 0.5):
        given = jax.tree.map(lambda g, factor=factor: factor * g, gradient)
        try:
            updates, state = optimizer.update(given, state, params)
        except TypeError:  # it needs more than a gradient, as a line search does
            return None, False
        pairs = zip(jax.tree.leaves(updates), jax.tree.leaves(given))
        multiples += [float(-u.ravel()[0] / g.ravel()[0]) for u, g in pairs if g.size]
    plain = np.allclose(multiples, multiples[0], rtol=1e-3) and multiples[0] > 0
    return (multiples[0], True) if plain else (None, False)


def _drift(old, new):
    def change(name):
        a, b = (K.matrix if name == "K" else K.block(name, name) for K in (old, new))
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.linalg.norm(b - a) / np.linalg.norm(a))

    return {name: change(name) for name in (*new.names, "K")}
