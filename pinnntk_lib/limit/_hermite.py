"""Gaussian expectations of an activation and its derivatives, with a bound on the truncation error.

The infinite-width kernels are built from ``E[phi^(a)(z) phi^(b)(w)]``, where z and w are jointly Gaussian with mean
zero, variances q and p, and covariance c. Mehler's formula expands this expectation in the Hermite polynomials he_k,
orthonormal under N(0, 1):

    sum over k of  rho^k H_k(a, q) H_k(b, p),   rho = c / sqrt(q p),   H_k(a, q) = E[phi^(a)(sqrt(q) g) he_k(g)].

Each H_k is a one-dimensional integral that depends on one point; only the powers of rho depend on the pair. The
trapezoidal rule computes the integrals, because it converges geometrically for analytic functions. (The error of
Gauss–Hermite quadrature decreases only like exp(-sqrt(nodes)) when the function has poles, as tanh does.) Parseval's
identity, ``sum H_k(a, q)^2 = E[phi^(a)(sqrt(q) g)^2]``, decides where to truncate the sum: its remainder bounds the
truncation error.

Because of the square root, the formula cannot be differentiated where the points coincide (rho = 1), although the
expectation is smooth there. Its derivatives with respect to q, p and c are therefore computed by Price's theorem, as
expectations of higher derivatives of the activation.
"""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.experimental.jet import jet

MOST_TERMS = 2048

# Beyond this the normal density is below 1e-37, too small for any activation to matter.
_REACH = 13.0

# Activations are evaluated in chunks of this size: a single shape, compiled once.
_CHUNK = 2**15


def in_double_precision():
    """Return a context in which JAX computes in float64, whatever its configuration."""
    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64()


@lru_cache(maxsize=1024)
def derivative(f: Callable, order: int) -> Callable:
    """Return the ``order``-th derivative of an elementwise function, cached so that JAX traces it only once."""
    if order == 0:
        return f
    lower = derivative(f, order - 1)
    return jax.jit(lambda z: jax.jvp(lower, (z,), (jnp.ones_like(z),))[1])


@lru_cache(maxsize=64)
def _tower(f, highest):
    """Return a function of z that computes all derivatives of ``f`` at once, of shape (highest + 1, *z.shape)."""

    def by_taylor_mode(z):
        inner = [jnp.ones_like(z)] + [jnp.zeros_like(z)] * (highest - 1)
        value, outer = jet(f, (z,), (inner,))
        return jnp.stack([value, *outer])

    def by_nesting(z):
        return jnp.stack([derivative(f, order)(z) for order in range(highest + 1)])

    if highest == 0:
        return jax.jit(by_nesting)
    try:
        jax.eval_shape(by_taylor_mode, jnp.zeros(_CHUNK))
    except Exception:  # jet has no rule for a primitive or a custom derivative; nesting costs 2^order
        return jax.jit(by_nesting)
    return jax.jit(by_taylor_mode)


def derivatives(f: Callable, highest: int, z: np.ndarray) -> np.ndarray:
    """Return the derivatives of ``f`` at z, orders 0 to at least ``highest``: (orders, *z.shape), float64."""
    highest = 8 * math.ceil((highest + 1) / 8) - 1  # few distinct values, so that few are compiled
    flat = np.ravel(z)
    padded = np.pad(flat, (0, -flat.size % _CHUNK)).reshape(-1, _CHUNK)
    with in_double_precision(), jax.ensure_compile_time_eval():
        values = [np.asarray(_tower(f, highest)(jnp.asarray(chunk))) for chunk in padded]
    return np.concatenate(values, axis=1)[:, : flat.size].reshape(highest + 1, *np.shape(z))


@dataclass(frozen=True)
class Series:
    """Hermite series of an activation's derivatives, for all variances up to a maximum.

    Attributes:
        activation: a smooth elementwise function.
        variance: the maximum variance.
        rtol: largest truncation error at that variance, relative to ``E[phi^(a)^2]^(1/2) E[phi^(b)^2]^(1/2)``.
    """

    activation: Callable
    variance: float
    rtol: float

    @cached_property
    def rule(self) -> tuple[np.ndarray, np.ndarray]:
        """Quadrature nodes g (m,) and weights (MOST_TERMS, m), which include he_k and the normal density."""
        # The wave number of he_k is at most sqrt(k). The second term resolves tanh, whose poles approach the real
        # axis as the variance grows: the error is of order exp(-2 pi (pi / 2) / (step sqrt(q))) = exp(-37).
        return _rule(2 * math.pi / (math.sqrt(MOST_TERMS) + 24 * math.sqrt(max(self.variance, 1.0))))

    @cached_property
    def parity(self) -> int | None:
        """1 for an odd activation, 0 for an even one, otherwise None. With a parity, every other term vanishes."""
        values = derivatives(self.activation, 0, self.rule[0])[0]
        for parity, mirrored in ((1, -values[::-1]), (0, values[::-1])):
            if np.array_equal(values, mirrored):
                return parity
        return None

    def terms(self, a: int, b: int) -> int:
        """Return the number of terms, starting at k = 0, that the expectation of ``phi^(a) phi^(b)`` needs.

        Raises:
            ValueError: if ``MOST_TERMS`` terms do not reach ``rtol``.
        """
        left = np.sqrt(_tail(self, a) * _tail(self, b))
        enough = np.flatnonzero(left <= self.rtol)
        if not len(enough):
            raise ValueError(
                f"activation: expected Gaussian integrals of its derivatives accurate to rtol={self.rtol:.1e}, got an "
                f"error of {left[-1]:.1e} for orders {a} and {b} at variance {self.variance:.3g} with {MOST_TERMS} "
                "terms; normalise the inputs (pinnntk_lib.normalization), use a smooth activation or increase rtol"
            )
        return min(8 * math.ceil((enough[0] + 1) / 8), MOST_TERMS)

    def kept(self, a: int, terms: int) -> slice:
        """Return the k below ``terms`` for which ``H_k(a, q)`` does not vanish by parity."""
        return slice(0, terms) if self.parity is None else slice((self.parity + a) % 2, terms, 2)


def _nodes(step):
    count = math.ceil(_REACH / step)
    return step * np.arange(-count, count + 1)


@lru_cache(maxsize=16)
def _rule(step):
    g = _nodes(step)
    psi = np.zeros((MOST_TERMS, len(g)))  # he_k times the square root of the density, to stay bounded
    psi[0] = np.exp(-(g**2) / 4) / (2 * math.pi) ** 0.25
    psi[1] = g * psi[0]
    for k in range(1, MOST_TERMS - 1):
        psi[k + 1] = (g * psi[k] - math.sqrt(k) * psi[k - 1]) / math.sqrt(k + 1)
    return g, psi * (step * psi[0])


@lru_cache(maxsize=1024)
def _tail(series, a):
    """Return the remainder of Parseval's sum after k terms, as a fraction of the sum, for k = 0 .. MOST_TERMS."""

    def values(g):
        return derivatives(series.activation, a, math.sqrt(series.variance) * g)[a]

    g, weights = series.rule
    finer = _nodes((g[1] - g[0]) / math.sqrt(3))
    # Different nodes, so that an activation that is not smooth enough for the rule shows up as a remainder.
    total = np.exp(-(finer**2) / 2) @ values(finer) ** 2 * (finer[1] - finer[0]) / math.sqrt(2 * math.pi)
    if total == 0:
        return np.zeros(MOST_TERMS + 1)
    squares = np.append((weights @ values(g)) ** 2, 0.0)
    tail = np.cumsum(squares[::-1])[::-1]
    # The terms beyond the last one, unless the difference is only rounding error.
    beyond = abs(total - tail[0])
    return (tail + (beyond if beyond > 1e-13 * total else 0.0)) / total


# ---------------------------------------------------------------- many pairs at once, in NumPy


class Coefficients:
    """The one-dimensional integrals of one layer at n points.

    Attributes:
        orders: ``{a: H_k(a, q)}``, each of shape (n, terms); terms that vanish by parity are left out.
        slopes: the derivatives of ``E[phi(sqrt(q) g)^2]`` with respect to q, each of shape (n,), starting with the
            expectation itself.
    """

    def __init__(self, series: Series, q: np.ndarray, orders: Iterable[int], terms: int, slopes: int):
        g, weights = series.rule
        values = derivatives(series.activation, max(*orders, 2 * slopes), np.sqrt(q)[:, None] * g)
        self.orders = {a: values[a] @ weights[series.kept(a, terms)].T for a in orders}
        self.slopes = [
            0.5**i * sum(math.comb(2 * i, r) * (values[r] * values[2 * i - r]) for r in range(2 * i + 1)) @ weights[0]
            for i in range(slopes + 1)
        ]


def expectations(
    series: Series, pairs: Collection[tuple[int, int]], first: dict, second: dict, rho: np.ndarray
) -> dict:
    """Return ``{(a, b): E[phi^(a) phi^(b)]}`` for all (a, b) in ``pairs``, each of shape (n, m).

    Args:
        series: the layer's series.
        pairs: orders (a, b) of the derivatives.
        first: ``{a: (n, terms)}``, the ``orders`` of :class:`Coefficients` at the first points.
        second: ``{b: (m, terms)}``, the same at the second points.
        rho: correlations, (n, m).
    """
    found: dict = {}
    for parity in (0,) if series.parity is None else (0, 1):
        step = rho if series.parity is None else rho**2
        powers = None
        for b in sorted({b for _, b in pairs}):
            if series.parity is not None and (series.parity + b) % 2 != parity:
                continue
            if powers is None:
                powers = _powers(rho if parity else np.ones_like(rho), step, second[b].shape[1])
            these = [a for a, other in pairs if other == b]
            products = powers * second[b]
            values = products @ np.stack([first[a] for a in these], axis=2)
            found |= {(a, b): values[..., i] for i, a in enumerate(these)}
    return found


def _powers(start, step, count):
    """Return ``start * step**k`` for k below ``count``, along a new last axis."""
    powers = np.empty((*start.shape, count))
    powers[..., 0] = start
    known, factor = 1, step[..., None]
    while known < count:
        new = min(known, count - known)
        np.multiply(powers[..., :new], factor, out=powers[..., known : known + new])
        known, factor = known + new, factor * factor
    return powers


def correlation(q, p, c):
    """Return ``c / sqrt(q p)``, or 0 where a variance is 0."""
    return c / np.sqrt(np.maximum(q * p, np.finfo(float).tiny))


# ---------------------------------------------------------------- one pair, as a function that JAX can differentiate


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def expectation(series: Series, a: int, b: int, q: jax.Array, p: jax.Array, c: jax.Array) -> jax.Array:
    """Return ``E[phi^(a)(z) phi^(b)(w)]`` for one pair, smooth in the variances q, p and the covariance c (scalars)."""
    if series.parity is not None and (a - b) % 2:
        return jnp.zeros_like(c)
    terms = series.terms(a, b)
    kept = series.kept(a, terms)
    g, weights = (jnp.asarray(values, c.dtype) for values in (series.rule[0], series.rule[1][kept].T))
    H_a, H_b = (
        jnp.matmul(derivative(series.activation, order)(jnp.sqrt(variance) * g), weights, precision="highest")
        for order, variance in ((a, q), (b, p))
    )
    rho = c / jnp.sqrt(jnp.maximum(q * p, jnp.finfo(c.dtype).tiny))
    k = jnp.arange(terms)[kept]
    sign = jnp.where((rho < 0) & (k % 2 == 1), -1.0, 1.0)
    return jnp.dot(sign * abs(rho) ** k * H_b, H_a, precision="highest")


@partial(expectation.defjvp, symbolic_zeros=True)
def _price(series, a, b, primals, tangents):
    tangent = jnp.zeros_like(primals[2])
    for factor, i, j, step in zip((0.5, 0.5, 1.0), (2, 0, 1), (0, 2, 1), tangents):
        if not isinstance(step, SymbolicZero):
            tangent += factor * expectation(series, a + i, b + j, *primals) * step
    return expectation(series, a, b, *primals), tangent
