"""The limiting kernels as matrices, for many points and any differential operators."""

import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_count, check_operators, check_other_points, check_points
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
    """The deterministic kernel that the empirical one tends to as the widths grow (paper, section 4).

    The paper's theorem is for one hidden layer; the recursion above is for any depth. Operators are of an order of at
    most 8 and look at ``u`` near x only.

    Args:
        model: its depth, activation and normalisation of inputs count, its width does not.
        conditions: a :class:`~pinnntk_lib.problems.Problem`, or ``{name: operator(u, x)}``. Constants in an operator
            (a forcing) are disregarded.
        points: ``{name: (n_name, d) array}``.
        other_points: as ``points``: the cross kernel between the two sets.
        at: the function u, of a point (d,) to a scalar, that nonlinear operators are linearised at: the kernel is
            then that of ``L'(u)``. Linear operators do not need it.
        weight_variance: sigma_w^2, of the weights as they are drawn.
        bias_variance: sigma_b^2.
        rtol: how much of an expectation may be cut off, relative to its size. Entries of derivatives can lose two
            digits more; what it comes to is measured, and reported as ``K.error``. All is computed in float64, and
            returned in the points' precision.
        memory: about how many bytes may be in use beyond the kernel itself.

    Returns:
        The kernel, in the conditions' order.

    Raises:
        ValueError, TypeError: if an argument's shape, type, names or values do not fit; if the model is not in NTK
            parameterisation, where there is no limit; if an operator is not linear and ``at`` is not given; if the
            inputs are too large for ``rtol``. The message says which.

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
    """The covariance of ``L_a u(x)`` and ``L_b u(y)`` over initialisations, at infinite width (paper, section 4).

    Arguments, errors and the form of the result as for :func:`ntk`.

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
    operators, memory = check_operators(conditions), check_count("memory", memory)
    points = check_points(points, operators)
    cross = other_points is not None
    others = check_other_points(other_points, points) if cross else points
    d = next(iter(points.values())).shape[1]
    if d != model.dim:
        raise ValueError(f"points: expected points of dimension {model.dim}, as the model's, got {d}")
    rows = {name: _condition(model, name, operators[name], x, at) for name, x in points.items()}
    columns = {name: _condition(model, name, operators[name], x, at) for name, x in others.items()} if cross else rows
    sizes = [float((c.x**2).mean(axis=1).max()) for c in (*rows.values(), *columns.values())]
    network = network_of(model, math.sqrt(max(sizes)), variances, rtol)
    blocks = {}
    for i, a in enumerate(rows):
        for j, b in enumerate(columns):
            again = not cross and j < i
            blocks[a, b] = blocks[b, a].T if again else _block(network, tangent, rows[a], columns[b], memory)
    matrix = np.block([[blocks[a, b] for b in columns] for a in rows])
    dtype, error = jnp.result_type(*points.values()), max(_error(network, tangent, c) for c in rows.values())
    return NTK(jnp.asarray(matrix, dtype), _sizes(rows), _sizes(columns) if cross else None, error=error)


def _sizes(conditions):
    return tuple((name, len(c.x) * c.c.shape[1]) for name, c in conditions.items())


class _Condition(NamedTuple):
    """An operator at points: the derivatives that it takes."""

    x: np.ndarray  # normalised (n, d)
    exponents: tuple[tuple[int, ...], ...]
    c: np.ndarray  # (n, outputs, exponents)

    @property
    def order(self):
        return max(map(sum, self.exponents))


def _condition(model, name, operator, x, at):
    with in_double_precision():
        x = jnp.asarray(np.asarray(x), float)
        found = symbol(operator, x, at or _wavy)
        again = found if at else symbol(operator, x, _wavier)
    if found is None:
        raise ValueError(
            f"conditions[{name!r}]: expected a differential operator of an order of at most 8 that looks at u near x "
            "only; for others, apply them to both arguments of pinnntk_lib.limit.ntk_function(model)"
        )
    scale = max((abs(c).max() for c in found.values()), default=0.0)
    if again is None or any(
        abs(found.get(alpha, 0.0) - again.get(alpha, 0.0)).max() > 1e-11 * scale for alpha in {*found, *again}
    ):
        raise ValueError(
            f"conditions[{name!r}]: expected a linear operator, got one whose derivative depends on u; give the "
            "function u that it is to be linearised at as at=u"
        )
    if not found:
        raise ValueError(f"conditions[{name!r}]: expected an operator that depends on u, got one that does not")
    exponents = tuple(sorted(closure(found)))
    nothing = np.zeros_like(next(iter(found.values())))
    # Taylor coefficients are derivatives over alpha!
    c = np.stack([found.get(alpha, nothing) * factorial(alpha) for alpha in exponents], axis=-1)
    return _Condition((np.asarray(x) - np.asarray(model.shift)) / np.asarray(model.scale), exponents, c)


# Two functions without symmetry, which tell linear operators from others.


def _wavy(x):
    ramp = jnp.arange(1.0, 1.0 + len(x), dtype=x.dtype)
    return jnp.sin(0.7 * ramp @ x + 0.3) + 0.5 * jnp.cos(1.3 * jnp.sqrt(ramp) @ x)


def _wavier(x):
    return 1.0 + _wavy(1.7 * x - 0.4)


def _error(network, tangent, condition):
    """By how much the diagonal changes, relatively, with half as many terms more, at the outermost point.

    There a series converges the most slowly: the variance is largest, and the correlation is one.
    """
    outermost = np.argmax((condition.x**2).sum(axis=1))
    point = _Condition(condition.x[[outermost]], condition.exponents, condition.c[[outermost]])
    usual, more = (np.diag(_block(network, tangent, point, point, 2**26, factor)) for factor in (1.0, 1.5))
    return float((abs(usual - more) / np.where(more > 0, more, 1.0)).max())


def _block(network, tangent, first, second, memory, factor=1.0):
    """``L_a L_b`` of a kernel for all pairs, some rows at a time: (n * outputs, m * outputs)."""
    keep = frozenset(alpha + beta for alpha in first.exponents for beta in second.exponents)
    needed = needed_orders(network.layers, first.order, second.order, factor)
    firsts = layers_of(network, first, needed, 0)
    seconds = firsts if first is second else layers_of(network, second, needed, 1)
    n, m = len(first.x), len(second.x)
    workers = min(os.cpu_count() or 1, 8)
    # a pair's powers, and their products with coefficients; its polynomials
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

    with ThreadPoolExecutor(workers) as pool:  # NumPy lets other threads go on
        block = np.concatenate(list(pool.map(some, range(0, n, rows))))
    return np.triu(block) + np.triu(block, 1).T if first is second else block
