"""Benchmark problems beyond the paper, each with an exact or reference solution.

Time, if present, is the first coordinate. The conditions are named ``"u"`` (initial and boundary values),
``"ut"`` (initial velocity), ``"b"`` and ``"bx"`` (periodicity: equal values and equal slopes at both ends),
``"data"`` (measurements) and ``"r"`` (the residual).
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_finite, check_positive
from pinnntk_lib.operators import System, d, dd
from pinnntk_lib.problems._box import inside, side, together
from pinnntk_lib.problems._problem import Condition, Problem, value, velocity, zero


def Heat1D(diffusivity: float = 0.1, k: int = 1) -> Problem:
    """Set up the heat equation ``u_t = diffusivity u_xx`` for (t, x) in [0, 1]^2, with u = 0 at both ends.

    The exact solution is ``exp(-diffusivity (k pi)^2 t) sin(k pi x)``. The conditions are ``"u"``, the initial and
    boundary values, and ``"r"``, the residual.

    Raises:
        ValueError, TypeError: if ``diffusivity`` is not a positive number, or ``k`` is not finite.

    Example:
        >>> sorted(Heat1D().points(10))
        ['r', 'u']
    """
    diffusivity, omega = check_positive("diffusivity", diffusivity), np.pi * check_finite("k", k)

    def exact(x):
        return jnp.exp(-diffusivity * omega**2 * x[..., 0]) * jnp.sin(omega * x[..., 1])

    box = (0.0, 0.0), (1.0, 1.0)
    conditions = {
        "u": Condition(value, exact, _start_and_ends(*box)),
        "r": Condition(_heat(diffusivity), zero, inside(*box)),
    }
    return Problem(conditions, *box, exact)


def Advection1D(c: float = 30.0) -> Problem:
    """Set up the advection equation ``u_t + c u_x = 0`` for t in [0, 1] and x in [0, 2 pi], periodic in x.

    The initial value is ``sin x`` and the exact solution ``sin(x - c t)``. Plain PINNs fail at c = 30 (Krishnapriyan
    et al. 2021). The conditions are ``"u"``, the initial values; ``"b"``, the periodicity, ``u(t, 0) = u(t, 2 pi)``;
    and ``"r"``, the residual.

    Raises:
        ValueError, TypeError: if ``c`` is not a finite number.

    Example:
        >>> list(Advection1D().conditions)
        ['u', 'b', 'r']
    """
    c = check_finite("c", c)

    def exact(x):
        return jnp.sin(x[..., 1] - c * x[..., 0])

    box = (0.0, 0.0), (1.0, 2 * np.pi)
    conditions = {
        "u": Condition(value, exact, side(*box, 0, 0.0)),
        "b": Condition(_jump(2 * np.pi), zero, side(*box, 1, 0.0)),
        "r": Condition(_advection(c), zero, inside(*box)),
    }
    return Problem(conditions, *box, exact)


def Burgers1D(viscosity: float = 0.01 / np.pi) -> Problem:
    """Set up Burgers' equation ``u_t + u u_x = viscosity u_xx`` for t in [0, 1] and x in [-1, 1].

    The initial value is ``-sin(pi x)``, and the solution steepens at x = 0. The exact solution is the Cole–Hopf
    formula, with its integrals computed by Gauss–Hermite quadrature (Basdevant et al. 1986). The setting is that of
    Raissi, Perdikaris and Karniadakis (2019). The conditions are ``"u"``, the initial values and u = 0 at both ends,
    and ``"r"``, the residual.

    Raises:
        ValueError, TypeError: if ``viscosity`` is not a positive number, or is below 0.002, where the quadrature would
            not resolve the layer.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(Burgers1D().exact(jnp.array([0.0, 0.5]))), 6)
        -1.0
    """
    viscosity = check_positive("viscosity", viscosity)
    if viscosity < 0.002:
        raise ValueError(
            f"viscosity: expected at least 0.002, got {viscosity}; the exact solution's quadrature does not resolve a "
            "thinner layer"
        )
    nodes, quadrature = np.polynomial.hermite.hermgauss(160)
    kept = quadrature > 0
    nodes, log_weights = nodes[kept], np.log(quadrature[kept])

    def exact(x):
        t, s = x[..., 0, None], x[..., 1, None]
        # The lower bound keeps the derivative finite at t = 0, where that of the square root is infinite.
        spread = jnp.sqrt(jnp.maximum(4 * viscosity * t, jnp.finfo(x.dtype).tiny))
        y = jnp.pi * (s - spread * nodes.astype(x.dtype))
        share = jax.nn.softmax(log_weights.astype(x.dtype) - jnp.cos(y) / (2 * jnp.pi * viscosity), axis=-1)
        return -jnp.sum(share * jnp.sin(y), axis=-1)

    box = (0.0, -1.0), (1.0, 1.0)
    conditions = {
        "u": Condition(value, exact, _start_and_ends(*box)),
        "r": Condition(_burgers(viscosity), zero, inside(*box)),
    }
    return Problem(conditions, *box, exact)


def AllenCahn1D() -> Problem:
    """Set up the Allen–Cahn equation ``u_t = 1e-4 u_xx + 5 u - 5 u^3`` for t in [0, 1], x in [-1, 1], periodic in x.

    The initial value is ``x^2 cos(pi x)`` (Raissi, Perdikaris and Karniadakis 2019). The solution has no closed form.
    The reference comes from a spectral method, integrated in time by SciPy's DOP853 at relative tolerance 1e-10. It
    is a series of cosines in x and Chebyshev polynomials in t, computed once per process. The conditions are ``"u"``,
    the initial values; ``"b"`` and ``"bx"``, the periodicity of u and of u_x; and ``"r"``, the residual.

    Example:
        >>> list(AllenCahn1D().conditions)
        ['u', 'b', 'bx', 'r']
    """
    box = (0.0, -1.0), (1.0, 1.0)

    def start(x):
        return x[..., 1] ** 2 * jnp.cos(jnp.pi * x[..., 1])

    left = side(*box, 1, -1.0)
    conditions = {
        "u": Condition(value, start, side(*box, 0, 0.0)),
        "b": Condition(_jump(2.0), zero, left),
        "bx": Condition(_jump_of_slope(2.0), zero, left),
        "r": Condition(_allen_cahn, zero, inside(*box)),
    }
    return Problem(conditions, *box, _series(_allen_cahn_coefficients()))


def Helmholtz2D(a1: float = 1, a2: float = 4, k: float = 1.0) -> Problem:
    """Set up the Helmholtz equation ``u_xx + u_yy + k^2 u = q`` on [-1, 1]^2.

    The exact solution is ``sin(a1 pi x) sin(a2 pi y)``. The setting is that of Wang, Teng and Perdikaris (2021). The
    conditions are ``"u"``, the boundary values on all four sides (zero for integer ``a1`` and ``a2``), and ``"r"``, the
    residual.

    Raises:
        ValueError, TypeError: if an argument is not a finite number.

    Example:
        >>> list(Helmholtz2D().conditions)
        ['u', 'r']
    """
    a1, a2, k = (check_finite(name, number) for name, number in (("a1", a1), ("a2", a2), ("k", k)))

    def exact(x):
        return jnp.sin(a1 * jnp.pi * x[..., 0]) * jnp.sin(a2 * jnp.pi * x[..., 1])

    box = (-1.0, -1.0), (1.0, 1.0)
    border = together(*(side(*box, axis, at) for axis in (0, 1) for at in (-1.0, 1.0)))
    conditions = {
        "u": Condition(value, exact, border),
        "r": Condition(_helmholtz(k), lambda x: (k**2 - np.pi**2 * (a1**2 + a2**2)) * exact(x), inside(*box)),
    }
    return Problem(conditions, *box, exact)


def KleinGordon1D() -> Problem:
    """Set up the Klein–Gordon equation ``u_tt - u_xx + u^3 = f`` for (t, x) in [0, 1]^2.

    The exact solution is ``x cos(5 pi t) + (x t)^3``. The setting is that of Wang, Teng and Perdikaris (2021). The
    conditions are ``"u"``, the initial and boundary values; ``"ut"``, the initial velocity (zero); and ``"r"``, the
    residual.

    Example:
        >>> list(KleinGordon1D().conditions)
        ['u', 'ut', 'r']
    """

    def exact(x):
        t, s = x[..., 0], x[..., 1]
        return s * jnp.cos(5 * jnp.pi * t) + (s * t) ** 3

    def forcing(x):
        t, s = x[..., 0], x[..., 1]
        u_tt = -((5 * jnp.pi) ** 2) * s * jnp.cos(5 * jnp.pi * t) + 6 * s**3 * t
        return u_tt - 6 * s * t**3 + exact(x) ** 3

    box = (0.0, 0.0), (1.0, 1.0)
    conditions = {
        "u": Condition(value, exact, _start_and_ends(*box)),
        "ut": Condition(velocity, zero, side(*box, 0, 0.0)),
        "r": Condition(_klein_gordon, forcing, inside(*box)),
    }
    return Problem(conditions, *box, exact)


def InverseHeat1D(diffusivity: float = 0.1) -> Problem:
    """Set up an inverse problem: find the diffusivity in the heat equation from measurements in [0, 1]^2.

    The coordinates are (t, x). The model returns an array of two numbers: the temperature, and the logarithm of the
    unknown diffusivity, which does not depend on t and x. The latter is a trainable parameter like any other, and
    contributes to the kernel like any other. The exact solution is ``exp(-diffusivity pi^2 t) sin(pi x)`` for the
    temperature and ``log(diffusivity)`` for the second output. The conditions are ``"data"``, noise-free measurements
    of the temperature at interior points, and ``"r"``, the residual.

    Raises:
        ValueError, TypeError: if ``diffusivity`` is not a positive number.

    Example:
        >>> import jax, jax.numpy as jnp, pinnntk_lib as pn
        >>> model = pn.MLP(width=20, dim=2)
        >>> params = {"network": model.init(jax.random.key(0)), "log_diffusivity": jnp.zeros(())}
        >>> apply = lambda p, x: jnp.stack([model.apply(p["network"], x), p["log_diffusivity"]])
        >>> problem = InverseHeat1D()
        >>> pn.ntk(apply, params, problem, problem.points(5)).matrix.shape
        (10, 10)
    """
    diffusivity = check_positive("diffusivity", diffusivity)

    def temperature(x):
        return jnp.exp(-diffusivity * jnp.pi**2 * x[..., 0]) * jnp.sin(jnp.pi * x[..., 1])

    def exact(x):
        u = temperature(x)
        return jnp.stack([u, jnp.full_like(u, np.log(diffusivity))], axis=-1)

    box = (0.0, 0.0), (1.0, 1.0)
    conditions = {
        "data": Condition(_first, temperature, inside(*box)),
        "r": Condition(_heat_of_unknown, zero, inside(*box)),
    }
    return Problem(conditions, *box, exact)


def Schrodinger1D() -> Problem:
    """Set up the nonlinear Schrödinger equation ``i h_t + h_xx / 2 + |h|^2 h = 0`` for t in [0, pi/2], x in [-5, 5].

    It is written as two real equations for h = u + i v, so the model returns an array of two numbers. The initial value
    is ``h = 2 / cosh x``, and the exact solution on the whole line is the breather of Satsuma and Yajima (1974). The
    conditions are ``"u"``, the initial values and the exact solution's values at both ends, and ``"r"``, the residual.
    The setting is that of Raissi, Perdikaris and Karniadakis (2019), who impose periodicity at the ends instead. That
    would not be exact: the values at both ends agree, but the slopes differ by up to 0.054.

    Example:
        >>> list(Schrodinger1D().conditions)
        ['u', 'r']
    """

    def exact(x):
        t, s = x[..., 0], x[..., 1]
        # 4 exp(i t/2) (cosh 3s + 3 exp(4 i t) cosh s) / (cosh 4s + 4 cosh 2s + 3 cos 4t)
        scale = 4 / (jnp.cosh(4 * s) + 4 * jnp.cosh(2 * s) + 3 * jnp.cos(4 * t))
        slow, fast = jnp.cosh(3 * s), 3 * jnp.cosh(s)
        u = slow * jnp.cos(t / 2) + fast * jnp.cos(4.5 * t)
        v = slow * jnp.sin(t / 2) + fast * jnp.sin(4.5 * t)
        return jnp.stack([scale * u, scale * v], axis=-1)

    box = (0.0, -5.0), (np.pi / 2, 5.0)
    conditions = {
        "u": Condition(System(value, 2), exact, _start_and_ends(*box)),
        "r": Condition(System(_schrodinger, 2), lambda x: jnp.zeros((*x.shape[:-1], 2), x.dtype), inside(*box)),
    }
    return Problem(conditions, *box, exact)


# Operators. Those that depend on a number are cached by it, so that problems with the same number share compiled code.


@cache
def _heat(diffusivity):
    return lambda u, x: d(u, 0)(x) - diffusivity * dd(u, 1)(x)


@cache
def _advection(c):
    return lambda u, x: d(u, 0)(x) + c * d(u, 1)(x)


@cache
def _burgers(viscosity):
    return lambda u, x: d(u, 0)(x) + u(x) * d(u, 1)(x) - viscosity * dd(u, 1)(x)


@cache
def _helmholtz(k):
    return lambda u, x: dd(u, 0)(x) + dd(u, 1)(x) + k**2 * u(x)


@cache
def _jump(period):
    """Return the operator that subtracts ``u`` at the upper end from ``u`` at the lower end."""
    return lambda u, x: u(x) - u(x.at[1].add(period))


@cache
def _jump_of_slope(period):
    return lambda u, x: d(u, 1)(x) - d(u, 1)(x.at[1].add(period))


def _allen_cahn(u, x):
    return d(u, 0)(x) - 1e-4 * dd(u, 1)(x) + 5 * u(x) ** 3 - 5 * u(x)


def _klein_gordon(u, x):
    return dd(u, 0)(x) - dd(u, 1)(x) + u(x) ** 3


def _first(u, x):
    return u(x)[0]


def _heat_of_unknown(u, x):
    _, log_diffusivity = u(x)
    return d(u, 0)(x)[0] - jnp.exp(log_diffusivity) * dd(u, 1)(x)[0]


def _schrodinger(u, x):
    re, im = u(x)
    re_t, im_t = d(u, 0)(x)
    re_xx, im_xx = dd(u, 1)(x)
    square = re**2 + im**2
    return jnp.stack([re_t + im_xx / 2 + square * im, im_t - re_xx / 2 - square * re])


def _start_and_ends(lower, upper):
    """Return a sampler that puts a third of the points on each of the initial time and the two ends."""
    return together(side(lower, upper, 0, lower[0]), side(lower, upper, 1, lower[1]), side(lower, upper, 1, upper[1]))


# The reference solution of AllenCahn1D.


@cache
def _allen_cahn_coefficients(modes=384, times=64):
    """Compute the coefficients C of ``sum_jk C[j, k] T_j(2t - 1) cos(k pi x)``, shape (times, modes)."""
    from scipy.fft import dct, idct
    from scipy.integrate import solve_ivp

    x = (np.arange(modes) + 0.5) / modes  # only [0, 1], because the solution is even
    stiffness = 1e-4 * (np.pi * np.arange(modes)) ** 2

    def slope(_, u):
        return idct(-stiffness * dct(u)) + 5 * u - 5 * u**3

    at = (1 - np.cos(np.pi * (np.arange(times) + 0.5) / times)) / 2
    start = x**2 * np.cos(np.pi * x)
    found = solve_ivp(slope, (0, 1), start, method="DOP853", t_eval=at, rtol=1e-10, atol=1e-12)
    cosines = dct(found.y, axis=0).T / modes  # (times, modes)
    cosines[:, 0] /= 2
    return np.polynomial.chebyshev.chebfit(2 * at - 1, cosines, times - 1)


def _series(coefficients):
    times, modes = coefficients.shape

    def exact(x):
        t = 2 * x[..., 0] - 1
        chebyshev = [jnp.ones_like(t), t]
        while len(chebyshev) < times:
            chebyshev.append(2 * t * chebyshev[-1] - chebyshev[-2])
        cosines = jnp.cos(jnp.pi * x[..., 1, None] * np.arange(modes, dtype=x.dtype))
        return jnp.sum((jnp.stack(chebyshev, axis=-1) @ coefficients.astype(x.dtype)) * cosines, axis=-1)

    return exact
