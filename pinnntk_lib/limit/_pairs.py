"""Infinite-width kernels at pairs of points, as truncated Taylor polynomials in both points."""

import itertools
import math
from functools import lru_cache

import numpy as np

from pinnntk_lib.limit._hermite import MOST_TERMS, Coefficients, correlation, expectations
from pinnntk_lib.limit._taylor import multiply, powers


@lru_cache(maxsize=256)
def needed_orders(layers, order, other_order, factor):
    """Return ``((a, b), ...), terms`` for each layer: the expectations that two conditions need, and how many terms.

    ``factor`` multiplies the number of terms, up to ``MOST_TERMS``.
    """
    # Price's theorem for E[phi phi] and E[phi' phi'], with i, j and k derivatives with respect to Sigma(x, x),
    # Sigma(y, y) and Sigma(x, y).
    pairs = {
        (2 * i + k, 2 * j + k)
        for i in range(order + 1)
        for j in range(other_order + 1)
        for k in range(order - i + other_order - j + 2)
    }
    terms = [math.ceil(factor * max(layer.terms(a, b) for a, b in pairs)) for layer in layers]
    return tuple((tuple(sorted(pairs)), min(count, MOST_TERMS)) for count in terms)


def layers_of(network, condition, needed, side):
    """Return ``Sigma(x, x)`` as a polynomial in x, and the Hermite coefficients, for each layer.

    These depend on single points; :func:`pairs_of` combines them.
    """
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


def rows_of(arrays, rows):
    return {key: value[rows] for key, value in arrays.items()}


def pairs_of(network, tangent, keep, needed, first, second):
    """Return the Taylor polynomial of ``Theta`` (``Sigma`` if not ``tangent``), with coefficients of shape (n, m)."""
    (x, first_layers), (y, second_layers) = first, second
    d, zero = x.shape[1], (0,) * x.shape[1]
    origin, w = zero + zero, network.weight_variance / d
    c = {origin: w * x @ y.T + network.bias_variance}
    for i, s in enumerate(network.scale):
        e = _unit(i, d)
        c |= {e + zero: w * y[None, :, i] / s, zero + e: w * x[:, None, i] / s, e + e: np.full((1, 1), w / s**2)}
    c = {alpha: value for alpha, value in c.items() if alpha in keep}
    # In the first layer Theta = x.y / d + 1: a gradient with respect to a weight does not contain its variance.
    theta = _plus({origin: 1.0 - network.bias_variance / network.weight_variance}, c, 1 / network.weight_variance)
    for layer, (pairs, _), (q, firsts), (p, seconds) in zip(network.layers, needed, first_layers, second_layers):
        q = {alpha + zero: value[:, None] for alpha, value in q.items()}
        p = {zero + beta: value[None, :] for beta, value in p.items()}
        values = expectations(layer, pairs, firsts, seconds, correlation(q[origin], p[origin], c[origin]))
        by_q, by_p, by_c = (
            powers({alpha: value for alpha, value in f.items() if alpha != origin}, keep) for f in (q, p, c)
        )
        value, slope = {}, {}  # polynomials of E[phi phi] and E[phi' phi']
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
    """Return the polynomial ``f + factor * g``."""
    return f | {alpha: f[alpha] + factor * value if alpha in f else factor * value for alpha, value in g.items()}


def _unit(i, d, power=1):
    return tuple(power * (j == i) for j in range(d))
