"""Infinite-width kernel matrices for many points and differential operators."""

import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import (
    check_conditions,
    check_count,
    check_function,
    check_operators,
    check_other_points,
    check_points,
)
from pinnntk_lib._points import coordinates
from pinnntk_lib._types import Function
from pinnntk_lib.kernel import NTK
from pinnntk_lib.limit._hermite import in_double_precision
from pinnntk_lib.limit._network import check_model, network_of
from pinnntk_lib.limit._pairs import layers_of, needed_orders, pairs_of, rows_of
from pinnntk_lib.limit._taylor import closure, factorial, symbol
from pinnntk_lib.models import MLP
from pinnntk_lib.problems import Conditions


def ntk(
    model: MLP,
    conditions: Conditions,
    points: Mapping[str, jax.Array],
    *,
    other_points: Mapping[str, jax.Array] | None = None,
    at: Function | None = None,
    weight_variance: float = 1.0,
    bias_variance: float = 1.0,
    rtol: float = 1e-11,
    memory: int = 2**27,
) -> NTK:
    """Compute the deterministic limit of the empirical kernel at infinite width (paper, section 4).

    The paper's theorem covers one hidden layer; the recursion implemented here holds for any depth. Operators must be
    local: they may use u and its derivatives at x only, up to order 8. A periodicity condition is not local; apply it
    to both arguments of :func:`ntk_function`.

    Args:
        model: the network. The limit depends on its depth, activation and input normalisation, not on its width.
        conditions: a :class:`~pinnntk_lib.problems.Problem`, or ``{name: operator(u, x)}``. Terms of an operator that
            do not depend on ``u`` (a forcing) are ignored.
        points: ``{name: (n_name, d) array}``, or :class:`~pinnntk_lib.Points` where an operator needs more than
            coordinates.
        other_points: as ``points``; if given, return the cross kernel between the two sets.
        at: a function u from a point (d,) to a scalar, at which to linearise nonlinear operators. The kernel is then
            that of ``L'(u)``. Linear operators do not need it.
        weight_variance: sigma_w^2, the variance of the initial weights; :class:`~pinnntk_lib.MLP` draws with 1.
        bias_variance: sigma_b^2, the variance of the initial biases; likewise 1.
        rtol: largest truncation error of an expectation, relative to its size. Entries that involve derivatives can
            lose two more digits; ``K.error`` is an estimate of the resulting error. Everything is computed in float64
            and returned in the precision of the points.
        memory: approximate memory budget in bytes, not counting the kernel itself.

    Returns:
        The kernel, with blocks in the order of the conditions.

    Raises:
        ValueError, TypeError: if an argument has the wrong shape, type, names or values; if the model is not in NTK
            parameterisation, without which there is no limit; if an operator is not local, does not depend on u, or is
            nonlinear and ``at`` is not given; or if the inputs are too large for ``rtol``. The message names the
            argument.

    Example:
        >>> import pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(a=4), pn.MLP(width=1)
        >>> K = pn.limit.ntk(model, problem, problem.points(4))
        >>> print(f"{K.block('u', 'u')[0, 0]:.6f}")
        1.858697
    """
    variances = weight_variance, bias_variance
    return _kernel(True, model, conditions, points, other_points, at, variances, rtol, memory)


def nngp(
    model: MLP,
    conditions: Conditions,
    points: Mapping[str, jax.Array],
    *,
    other_points: Mapping[str, jax.Array] | None = None,
    at: Function | None = None,
    weight_variance: float = 1.0,
    bias_variance: float = 1.0,
    rtol: float = 1e-11,
    memory: int = 2**27,
) -> NTK:
    """Compute the covariance of ``L_a u(x)`` and ``L_b u(y)`` at infinite width (paper, section 4).

    The covariance is taken over initialisations. The arguments, the form of the result and the errors raised are
    those of :func:`ntk`.

    Example:
        >>> import jax.numpy as jnp, pinnntk_lib as pn
        >>> Sigma = pn.limit.nngp(pn.MLP(width=1, activation="sin"), {"u": lambda u, x: u(x)}, {"u": jnp.zeros((1, 1))})
        >>> print(f"{Sigma.matrix[0, 0]:.4f}")  # E[sin(z)^2] + 1, with z from N(0, 1)
        1.4323
    """
    variances = weight_variance, bias_variance
    return _kernel(False, model, conditions, points, other_points, at, variances, rtol, memory)


def _kernel(tangent, model, conditions, points, other_points, at, variances, rtol, memory):
    check_model(model)
    if at is not None:
        check_function("at", at)
    operators, memory = check_operators(conditions), check_count("memory", memory)
    points = check_points(points, operators)
    for name, operator in operators.items():
        check_conditions(lambda _, y: (at or _wavy)(y), (), {name: operator}, points[name][0])
    cross = other_points is not None
    others = check_other_points(other_points, points) if cross else points
    d = coordinates(next(iter(points.values()))).shape[1]
    if d != model.dim:
        raise ValueError(f"points: expected points of dimension {model.dim} (model.dim), got {d}")
    rows = {name: _condition(model, name, operators[name], x, at) for name, x in points.items()}
    columns = {name: _condition(model, name, operators[name], x, at) for name, x in others.items()} if cross else rows
    every = [*rows.values(), *(columns.values() if cross else ())]
    largest = max(float((c.x**2).mean(axis=1).max()) for c in every)
    network = network_of(model, math.sqrt(largest), variances, rtol)
    blocks = {}
    for i, a in enumerate(rows):
        for j, b in enumerate(columns):
            again = not cross and j < i
            blocks[a, b] = blocks[b, a].T if again else _block(network, tangent, rows[a], columns[b], memory)
    matrix = np.block([[blocks[a, b] for b in columns] for a in rows])
    dtype, error = jnp.result_type(*map(coordinates, points.values())), max(_error(network, tangent, c) for c in every)
    return NTK(jnp.asarray(matrix, dtype), _sizes(rows), _sizes(columns) if cross else None, error=error)


def _sizes(conditions):
    return tuple((name, len(c.x) * c.c.shape[1]) for name, c in conditions.items())


class _Condition(NamedTuple):
    """A linearised operator at n points, as the factors by which it multiplies Taylor coefficients."""

    x: np.ndarray  # normalised (n, d)
    exponents: tuple[tuple[int, ...], ...]
    c: np.ndarray  # (n, outputs, exponents)

    @property
    def order(self):
        return max(map(sum, self.exponents))


def _condition(model, name, operator, points, at):
    with in_double_precision():
        points = jax.tree.map(lambda array: jnp.asarray(np.asarray(array), float), points)
        found = symbol(operator, points, at or _wavy)
        again = found if at else symbol(operator, points, _wavier)
    if found is None:
        raise ValueError(
            f"conditions[{name!r}]: expected a differential operator of order at most 8 that depends on u only near x, "
            "got another operator; apply it to both arguments of pinnntk_lib.limit.ntk_function(model) instead"
        )
    scale = max((abs(c).max() for c in found.values()), default=0.0)
    if again is None or any(
        abs(found.get(alpha, 0.0) - again.get(alpha, 0.0)).max() > 1e-11 * scale for alpha in {*found, *again}
    ):
        raise ValueError(
            f"conditions[{name!r}]: expected a linear operator, got one whose derivative depends on u; pass at=u "
            "to linearise it at a function u"
        )
    if not found:
        raise ValueError(f"conditions[{name!r}]: expected an operator that depends on u, got one that does not")
    exponents = tuple(sorted(closure(found)))
    nothing = np.zeros_like(next(iter(found.values())))
    # A Taylor coefficient is a derivative divided by alpha!.
    c = np.stack([found.get(alpha, nothing) * factorial(alpha) for alpha in exponents], axis=-1)
    x = np.asarray(coordinates(points))
    return _Condition((x - np.asarray(model.shift)) / np.asarray(model.scale), exponents, c)


# An operator counts as linear if its linearisations at these two functions, which have no symmetry, agree.


def _wavy(x):
    ramp = jnp.arange(1.0, 1.0 + len(x), dtype=x.dtype)
    return jnp.sin(0.7 * ramp @ x + 0.3) + 0.5 * jnp.cos(1.3 * jnp.sqrt(ramp) @ x)


def _wavier(x):
    return 1.0 + _wavy(1.7 * x - 0.4)


def _error(network, tangent, condition):
    """Return the relative change of the diagonal at the outermost point when 1.5 times as many terms are summed.

    The series converge most slowly there: the variance is largest, and the correlation is one.
    """
    outermost = np.argmax((condition.x**2).sum(axis=1))
    point = _Condition(condition.x[[outermost]], condition.exponents, condition.c[[outermost]])
    usual, more = (np.diag(_block(network, tangent, point, point, 2**26, factor)) for factor in (1.0, 1.5))
    return float((abs(usual - more) / np.where(more > 0, more, 1.0)).max())


def _block(network, tangent, first, second, memory, factor=1.0):
    """Return ``L_a L_b`` of the kernel at all pairs, (n * outputs, m * outputs), computed in chunks of rows."""
    keep = frozenset(alpha + beta for alpha in first.exponents for beta in second.exponents)
    needed = needed_orders(network.layers, first.order, second.order, factor)
    firsts = layers_of(network, first, needed, 0)
    seconds = firsts if first is second else layers_of(network, second, needed, 1)
    n, m = len(first.x), len(second.x)
    workers = min(os.cpu_count() or 1, 8)
    # Numbers per pair of points: powers of rho and their products with coefficients, and polynomials.
    numbers = 3 * max(terms for _, terms in needed) + 8 * len(keep)
    rows = int(np.clip(memory // (workers * 8 * m * numbers), 1, n))

    def some(start):
        here, there = slice(start, start + rows), slice(start if first is second else 0, None)
        parts = [
            [(rows_of(q, s), rows_of(orders, s)) for q, orders in side]
            for side, s in ((firsts, here), (seconds, there))
        ]
        kernel = pairs_of(network, tangent, keep, needed, (first.x[here], parts[0]), (second.x[there], parts[1]))
        a, b = first.c[here], second.c[there]
        block = np.zeros((len(a), a.shape[1], m, b.shape[1]))
        for i, alpha in enumerate(first.exponents):
            for j, beta in enumerate(second.exponents):
                if alpha + beta in kernel:
                    derivative = np.broadcast_to(kernel[alpha + beta], (len(a), len(b)))
                    block[:, :, there] += a[:, :, None, None, i] * b[..., j] * derivative[:, None, :, None]
        return block.reshape(-1, m * b.shape[1])

    with ThreadPoolExecutor(workers) as pool:  # NumPy releases the GIL
        block = np.concatenate(list(pool.map(some, range(0, n, rows))))
    return np.triu(block) + np.triu(block, 1).T if first is second else block
