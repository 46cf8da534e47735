"""Truncated Taylor polynomials in several variables, and differential operators as what they do to them.

A polynomial is a dict ``{(alpha_1, ..., alpha_d): coefficient}`` with coefficients that are scalars or arrays; what
is not in it is zero. A set of exponents to keep is closed downwards: with an exponent it has all smaller ones.
"""

import itertools
import math
from collections.abc import Callable, Collection, Container, Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

Index = tuple[int, ...]

HIGHEST_ORDER = 8


def indices(d: int, order: int) -> list[Index]:
    """The exponents of ``d`` variables whose sum is ``order``."""
    variables = itertools.combinations_with_replacement(range(d), order)
    return [tuple(chosen.count(i) for i in range(d)) for chosen in variables]


def closure(exponents: Iterable[Index]) -> frozenset[Index]:
    """The exponents and all smaller ones."""
    return frozenset(
        beta for alpha in exponents for beta in itertools.product(*(range(component + 1) for component in alpha))
    )


def factorial(alpha: Index) -> int:
    """``alpha! = alpha_1! ... alpha_d!``."""
    return math.prod(map(math.factorial, alpha))


def multiply(f: dict, g: dict, keep: Container[Index]) -> dict:
    """The product, as far as its exponents are to be kept."""
    product: dict = {}
    for alpha, a in f.items():
        for beta, b in g.items():
            gamma = tuple(map(sum, zip(alpha, beta)))
            if gamma in keep:
                product[gamma] = product[gamma] + a * b if gamma in product else a * b
    return product


def powers(f: dict, keep: Collection[Index]) -> list[dict]:
    """``[1, f, f^2, ...]`` up to the last that is not zero; f must have no constant term."""
    d = len(next(iter(keep)))
    found = [{(0,) * d: 1.0}]
    while found[-1]:
        found.append(multiply(found[-1], f, keep))
    return found[:-1]


def symbol(operator: Callable, points: jax.Array, u: Callable) -> dict[Index, np.ndarray] | None:
    """The coefficients ``c_alpha(x)`` of an operator's linear part at u, ``sum over alpha of c_alpha d^alpha``.

    Found by applying the operator to monomials, one order after the other, until what was found gives what the
    operator does to an exponential.

    Args:
        operator: ``(u, x) -> scalar or (outputs,)``.
        points: (n, d).
        u: the function that a nonlinear operator is linearised at.

    Returns:
        ``{alpha: (n, outputs)}``; None if the operator is of an order above ``HIGHEST_ORDER``, or looks at ``u``
        elsewhere than at x.
    """
    d = points.shape[1]
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


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _applied(operator, u, v, parameters, points):
    """The linear part of an operator at u, applied to ``y -> v(y - x, parameter)``: (parameters, n, outputs)."""

    def at(x, parameter):
        return jax.jvp(
            lambda s: operator(lambda y: u(y) + s * v(y - x, parameter), x),
            (jnp.zeros_like(x[0]),),
            (jnp.ones_like(x[0]),),
        )[1]

    values = jnp.stack([jax.vmap(partial(at, parameter=parameter))(points) for parameter in parameters])
    return values.reshape(*values.shape[:2], -1)


def _exponential(y, k):
    return jnp.exp(jnp.asarray(k, y.dtype) @ y)


def _monomial(y, alpha):
    """``y^alpha / alpha!``."""
    return math.prod((y[i] ** power for i, power in enumerate(alpha) if power), start=1.0) / factorial(alpha)


def _wave_numbers(d):
    """A few vectors without symmetry, of lengths from 1 to 10."""
    draw = np.random.default_rng(0)
    return [length * draw.uniform(0.5, 1.0, d) * draw.choice([-1.0, 1.0], d) for length in (1.0, 3.0, 10.0)]
