"""Truncated Taylor polynomials in several variables, and the coefficients of differential operators.

A polynomial is a dict ``{(alpha_1, ..., alpha_d): coefficient}``. Its coefficients are scalars or arrays, and missing
exponents have coefficient zero. A set of exponents to keep is closed downwards: if it contains an exponent, it
contains every smaller one.
"""

import itertools
import math
from collections.abc import Callable, Collection, Container, Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._points import coordinates
from pinnntk_lib._static import compiled, static

Index = tuple[int, ...]

HIGHEST_ORDER = 8


def indices(d: int, order: int) -> list[Index]:
    """Return all exponents in ``d`` variables whose components sum to ``order``."""
    variables = itertools.combinations_with_replacement(range(d), order)
    return [tuple(chosen.count(i) for i in range(d)) for chosen in variables]


def closure(exponents: Iterable[Index]) -> frozenset[Index]:
    """Return the exponents together with all smaller ones."""
    return frozenset(
        beta for alpha in exponents for beta in itertools.product(*(range(component + 1) for component in alpha))
    )


def factorial(alpha: Index) -> int:
    """Return ``alpha! = alpha_1! ... alpha_d!``."""
    return math.prod(map(math.factorial, alpha))


def multiply(f: dict, g: dict, keep: Container[Index]) -> dict:
    """Return the product of f and g, restricted to the exponents in ``keep``."""
    product: dict = {}
    for alpha, a in f.items():
        for beta, b in g.items():
            gamma = tuple(map(sum, zip(alpha, beta)))
            if gamma in keep:
                product[gamma] = product[gamma] + a * b if gamma in product else a * b
    return product


def powers(f: dict, keep: Collection[Index]) -> list[dict]:
    """Return ``[1, f, f^2, ...]`` up to the last non-zero power; f must have no constant term."""
    d = len(next(iter(keep)))
    found = [{(0,) * d: 1.0}]
    while found[-1]:
        found.append(multiply(found[-1], f, keep))
    return found[:-1]


def symbol(operator: Callable, points: jax.Array, u: Callable) -> dict[Index, np.ndarray] | None:
    """Return the coefficients ``c_alpha(x)`` of an operator linearised at u, ``sum over alpha of c_alpha d^alpha``.

    The linearised operator is applied to monomials of increasing order, until the coefficients found reproduce its
    action on three exponentials.

    Args:
        operator: ``(u, x) -> scalar or (outputs,)``.
        points: (n, d), or Points.
        u: function at which a nonlinear operator is linearised.

    Returns:
        ``{alpha: (n, outputs)}``, or None if the operator has an order above ``HIGHEST_ORDER`` or depends on values
        of ``u`` away from x.
    """
    operator, u, d = static(operator), static(u), coordinates(points).shape[1]
    wave_numbers = _wave_numbers(d)
    found: dict = {}
    rest = np.asarray(_applied(operator, u, _exponential, tuple(map(tuple, wave_numbers)), points))
    eps = np.finfo(rest.dtype).eps
    for order in range(HIGHEST_ORDER + 1):
        new = indices(d, order)
        values = np.asarray(_applied(operator, u, _monomial, tuple(new), points))
        found |= dict(zip(new, values))
        explained = np.array([[_monomial(k, alpha) * factorial(alpha) for alpha in new] for k in wave_numbers])
        rest = rest - np.einsum("ka,ano->kno", explained, values)
        scale = sum(abs(value).max() for value in found.values()) * abs(wave_numbers[-1]).max() ** order
        if abs(rest).max() <= 1e3 * eps * scale:
            return {alpha: value for alpha, value in found.items() if value.any()}
    return None


@compiled(4)
def _applied(operator, u, v, parameters, points):
    """Apply the operator, linearised at u, to ``y -> v(y - x, parameter)``: (parameters, n, outputs)."""

    def at(point, parameter):
        x = coordinates(point)
        return jax.jvp(
            lambda s: operator(lambda y: u(y) + s * v(y - x, parameter), point),
            (jnp.zeros_like(x[0]),),
            (jnp.ones_like(x[0]),),
        )[1]

    values = jnp.stack([jax.vmap(partial(at, parameter=parameter))(points) for parameter in parameters])
    return values.reshape(*values.shape[:2], -1)


def _exponential(y, k):
    return jnp.exp(jnp.asarray(k, y.dtype) @ y)


def _monomial(y, alpha):
    """Return ``y^alpha / alpha!``."""
    return math.prod((y[i] ** power for i, power in enumerate(alpha) if power), start=1.0) / factorial(alpha)


def _wave_numbers(d):
    """Return three vectors without symmetry, with components of magnitude up to 1, 3 and 10."""
    draw = np.random.default_rng(0)
    return [length * draw.uniform(0.5, 1.0, d) * draw.choice([-1.0, 1.0], d) for length in (1.0, 3.0, 10.0)]
