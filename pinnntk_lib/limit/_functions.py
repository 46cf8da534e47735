"""The kernels of a network of infinite width, with differential operators applied (paper, section 4).

For a network in NTK parameterisation, with inputs of dimension d (normalised as the model does), weights drawn from
N(0, sigma_w^2) and biases from N(0, sigma_b^2), the pre-activations of every layer tend to a Gaussian process as the
widths grow, and its neural tangent kernel to a deterministic function. With ``Sigma`` the covariance and ``Theta``
the kernel of a layer's pre-activations,

    first layer:  Sigma(x, y) = sigma_w^2 x.y / d + sigma_b^2,            Theta(x, y) = x.y / d + 1
    every next:   Sigma'      = sigma_w^2 E[phi(z) phi(w)] + sigma_b^2,
                  Theta'      = E[phi(z) phi(w)] + 1 + sigma_w^2 E[phi'(z) phi'(w)] Theta,

(z, w) being Gaussian with the covariances ``Sigma(x, x)``, ``Sigma(y, y)``, ``Sigma(x, y)`` of the layer before. A
linear operator commutes with the limit: the kernel of conditions with operators L_a and L_b is

    K_ab(x, y) = L_a (applied to x) L_b (applied to y) Theta(x, y).

The kernels are smooth, on the diagonal x = y too. :func:`ntk_function` gives them as functions that JAX can
differentiate, so that this formula can be written down as it stands; :func:`ntk` computes the same for many points,
much faster, from truncated Taylor polynomials in x and y.
"""

import itertools
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_count, check_finite, check_operators, check_other_points, check_points
from pinnntk_lib.hermite import (
    MOST_TERMS,
    Coefficients,
    Series,
    correlation,
    expectation,
    expectations,
    in_double_precision,
)
from pinnntk_lib.models import ACTIVATIONS, MLP
from pinnntk_lib.ntk import NTK
from pinnntk_lib.taylor import closure, factorial, multiply, powers, symbol

__all__ = ["nngp", "nngp_function", "ntk", "ntk_function"]


class _Network(NamedTuple):
    """What the limit depends on; hashable."""

    layers: tuple[Series, ...]
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    weight_variance: float
    bias_variance: float


# ---------------------------------------------------------------- matrices


def ntk(
    model: MLP,
    conditions,
    points: Mapping[str, jax.Array],
    *,
    other_points: Mapping[str, jax.Array] | None = None,
    at: Callable | None = None,
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
    conditions,
    points: Mapping[str, jax.Array],
    *,
    other_points: Mapping[str, jax.Array] | None = None,
    at: Callable | None = None,
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
    _check_model(model)
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
    network = _network(model, math.sqrt(max(sizes)), variances, rtol)
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
    needed = _needed(network.layers, first.order, second.order, factor)
    firsts = _layers(network, first, needed, 0)
    seconds = firsts if first is second else _layers(network, second, needed, 1)
    n, m = len(first.x), len(second.x)
    workers = min(os.cpu_count() or 1, 8)
    # a pair's powers, and their products with coefficients; its polynomials
    numbers = 3 * max(terms for _, terms in needed) + 8 * len(keep)
    rows = int(np.clip(memory // (workers * 8 * m * numbers), 1, n))

    def some(start):
        here, there = slice(start, start + rows), slice(start if first is second else 0, None)
        parts = [[(_of(q, s), _of(orders, s)) for q, orders in side] for side, s in ((firsts, here), (seconds, there))]
        kernel = _pairs(network, tangent, keep, needed, (first.x[here], parts[0]), (second.x[there], parts[1]))
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


# ---------------------------------------------------------------- pairs of points, in Taylor polynomials


@lru_cache(maxsize=256)
def _needed(layers, order, other_order, factor):
    """For each layer what the pairs of points of two conditions need: ``((a, b), ...), terms``, so many times more."""
    # Price's theorem: i derivatives by Sigma(x, x), j by Sigma(y, y), k by Sigma(x, y), of E[phi phi], E[phi' phi']
    pairs = {
        (2 * i + k, 2 * j + k)
        for i in range(order + 1)
        for j in range(other_order + 1)
        for k in range(order - i + other_order - j + 2)
    }
    terms = [math.ceil(factor * max(layer.terms(a, b) for a, b in pairs)) for layer in layers]
    return tuple((tuple(sorted(pairs)), min(count, MOST_TERMS)) for count in terms)


def _layers(network, condition, needed, side):
    """For each layer ``Sigma(x, x)`` as polynomials in x, and the coefficients: what belongs to a point alone."""
    x, exponents = condition.x, condition.exponents
    d, zero = x.shape[1], (0,) * x.shape[1]
    w = network.weight_variance / d
    q = {zero: w * (x**2).sum(axis=1) + network.bias_variance}
    for i, s in enumerate(network.scale):
        q |= {_unit(i, d): 2 * w * x[:, i] / s, _unit(i, d, 2): np.full(len(x), w / s**2)}
    q = {alpha: value for alpha, value in q.items() if alpha in exponents}
    layers = []
    for layer, (pairs, terms) in zip(network.layers, needed):
        coefficients = Coefficients(layer, q[zero], {pair[side] for pair in pairs}, terms, condition.order)
        layers.append((q, coefficients.orders))
        change = {alpha: value for alpha, value in q.items() if alpha != zero}
        q = {zero: np.full(len(x), network.bias_variance)}
        for i, power in enumerate(powers(change, frozenset(exponents))):
            q = _plus(q, power, network.weight_variance * coefficients.slopes[i] / math.factorial(i))
    return layers


def _of(arrays, rows):
    return {key: value[rows] for key, value in arrays.items()}


def _pairs(network, tangent, keep, needed, first, second):
    """The Taylor polynomials of ``Theta`` (or of ``Sigma``, if not ``tangent``) at pairs of points, (n, m) each."""
    (x, first_layers), (y, second_layers) = first, second
    d, zero = x.shape[1], (0,) * x.shape[1]
    origin, w = zero + zero, network.weight_variance / d
    c = {origin: w * x @ y.T + network.bias_variance}
    for i, s in enumerate(network.scale):
        e = _unit(i, d)
        c |= {e + zero: w * y[None, :, i] / s, zero + e: w * x[:, None, i] / s, e + e: np.full((1, 1), w / s**2)}
    c = {alpha: value for alpha, value in c.items() if alpha in keep}
    # the gradient by the weights themselves: without their variance
    theta = _plus({origin: 1.0 - network.bias_variance / network.weight_variance}, c, 1 / network.weight_variance)
    for layer, (pairs, _), (q, firsts), (p, seconds) in zip(network.layers, needed, first_layers, second_layers):
        q = {alpha + zero: value[:, None] for alpha, value in q.items()}
        p = {zero + beta: value[None, :] for beta, value in p.items()}
        values = expectations(layer, pairs, firsts, seconds, correlation(q[origin], p[origin], c[origin]))
        by_q, by_p, by_c = (
            powers({alpha: value for alpha, value in f.items() if alpha != origin}, keep) for f in (q, p, c)
        )
        value, slope = {}, {}  # of E[phi phi] and E[phi' phi']
        for (i, f), (j, g) in itertools.product(enumerate(by_q), enumerate(by_p)):
            f_g = multiply(f, g, keep)
            for k, h in enumerate(by_c):
                monomial = multiply(f_g, h, keep)
                factor = 0.5 ** (i + j) / (math.factorial(i) * math.factorial(j) * math.factorial(k))
                if monomial:
                    value = _plus(value, monomial, factor * values[2 * i + k, 2 * j + k])
                if monomial and tangent:
                    slope = _plus(slope, monomial, factor * values[2 * i + k + 1, 2 * j + k + 1])
        if tangent:
            theta = _plus(_plus(value, multiply(theta, slope, keep), network.weight_variance), {origin: 1.0}, 1.0)
        c = _plus({origin: network.bias_variance}, value, network.weight_variance)
    return theta if tangent else c


def _plus(f, g, factor):
    """``f + factor * g`` of two polynomials."""
    return f | {alpha: f[alpha] + factor * value if alpha in f else factor * value for alpha, value in g.items()}


def _unit(i, d, power=1):
    return tuple(power * (j == i) for j in range(d))


# ---------------------------------------------------------------- functions of two points


def ntk_function(
    model: MLP,
    *,
    reach: float = 2.0,
    weight_variance: float = 1.0,
    bias_variance: float = 1.0,
    rtol: float = 1e-11,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The limiting kernel as a smooth function ``theta(x, y)`` of two points (d,), to be differentiated at will.

    ``op(lambda x: op(lambda y: theta(x, y), y0), x0)`` is an entry of the kernel of ``op``. To compile it takes
    seconds for second derivatives in both arguments: for matrices there is :func:`ntk`.

    Args:
        model: as in :func:`ntk`, and the other arguments too.
        reach: the root mean square of the normalised coordinates, ``|(x - shift) / scale| / sqrt(d)``, up to which
            ``rtol`` holds. Beyond it accuracy is lost little by little.

    Example:
        >>> import jax.numpy as jnp, pinnntk_lib as pn
        >>> theta = pn.limit.ntk_function(pn.MLP(width=1, activation="sin"))
        >>> x = jnp.array([0.0])  # E[sin^2] + 1 + E[cos^2] * 1, with z from N(0, 1)
        >>> print(f"{theta(x, x):.4f}")
        2.0000
    """
    return _function(True, model, reach, (weight_variance, bias_variance), rtol)


def nngp_function(
    model: MLP,
    *,
    reach: float = 2.0,
    weight_variance: float = 1.0,
    bias_variance: float = 1.0,
    rtol: float = 1e-11,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The covariance of ``u(x)`` and ``u(y)`` at infinite width as a smooth function; see :func:`ntk_function`.

    Example:
        >>> import jax.numpy as jnp, pinnntk_lib as pn
        >>> sigma = pn.limit.nngp_function(pn.MLP(width=1, activation="sin"))
        >>> x = jnp.array([0.0])
        >>> print(f"{sigma(x, x):.4f}")  # E[sin(z)^2] + 1, with z from N(0, 1)
        1.4323
    """
    return _function(False, model, reach, (weight_variance, bias_variance), rtol)


def _function(tangent, model, reach, variances, rtol):
    _check_model(model)
    network = _network(model, reach, variances, rtol)

    def kernel(x, y):
        shift, scale = (jnp.asarray(values, x.dtype) for values in (network.shift, network.scale))
        x, y = (x - shift) / scale, (y - shift) / scale
        q, p, c = (
            a @ b / len(x) * network.weight_variance + network.bias_variance for a, b in ((x, x), (y, y), (x, y))
        )
        theta = x @ y / len(x) + 1.0
        for layer in network.layers:
            value = expectation(layer, 0, 0, q, p, c)
            theta = value + 1.0 + network.weight_variance * expectation(layer, 1, 1, q, p, c) * theta
            c = network.weight_variance * value + network.bias_variance
            q, p = (network.weight_variance * expectation(layer, 0, 0, v, v, v) + network.bias_variance for v in (q, p))
        return theta if tangent else c

    return kernel


def _check_model(model):
    if not isinstance(model, MLP):
        raise TypeError(f"model: expected a pinnntk_lib.MLP, whose limit is known, got {type(model).__name__}")
    if model.parameterization != "ntk":
        raise ValueError("model: expected parameterization='ntk', got 'standard', whose kernel has no limit")


def _network(model, reach, variances, rtol):
    """Checked, with the largest variance of each layer."""
    weight_variance, bias_variance = (
        check_finite(name, value) for name, value in zip(("weight_variance", "bias_variance"), variances)
    )
    if weight_variance <= 0 or bias_variance < 0:
        raise ValueError(f"weight_variance, bias_variance: expected positive numbers, got {variances}")
    rtol = check_finite("rtol", rtol)
    if rtol <= 0:
        raise ValueError(f"rtol: expected a positive number, got {rtol}")
    activation, layers = ACTIVATIONS.get(model.activation, model.activation), []
    largest = weight_variance * check_finite("reach", reach) ** 2 + bias_variance
    for _ in range(model.depth):
        # rounded up, so that other points like these find what has been computed
        layers.append(Series(activation, math.ceil(8 * largest) / 8, rtol))
        on_the_way = Coefficients(layers[-1], np.linspace(0.0, layers[-1].variance, 33), (0,), 1, 0).slopes[0]
        largest = weight_variance * on_the_way.max() + bias_variance
    return _Network(tuple(layers), model.shift, model.scale, weight_variance, bias_variance)
