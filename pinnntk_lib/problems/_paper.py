"""The two problems of the paper."""

import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_finite
from pinnntk_lib.operators import dd
from pinnntk_lib.problems._box import inside, interval, interval_ends, side, together
from pinnntk_lib.problems._problem import Condition, Problem, value, velocity, zero


def Poisson1D(a: float = 4) -> Problem:
    """Set up the paper's model problem (section 7.1), ``u'' = f`` on [0, 1] with exact solution ``sin(a pi x)``.

    The conditions are ``"u"``, the boundary values (two points, each repeated n/2 times, as in the paper), and
    ``"r"``, the residual ``u_xx - f``, on a uniform grid or at uniformly random points.

    Args:
        a: number of half-waves in the solution; any finite number.

    Raises:
        ValueError, TypeError: if ``a`` is not a finite number.

    Example:
        >>> points = Poisson1D(a=4).points(4)
        >>> points["u"].ravel().tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    omega = check_finite("a", a) * np.pi

    def exact(x):
        return jnp.sin(omega * x[..., 0])

    def forcing(x):
        return -(omega**2) * exact(x)

    conditions = {
        "u": Condition(value, exact, interval_ends),
        "r": Condition(_second_derivative, forcing, interval()),
    }
    return Problem(conditions, (0.0,), (1.0,), exact)


def Wave1D() -> Problem:
    """Set up the paper's wave equation (section 7.2), ``u_tt - 4 u_xx = 0`` for (t, x) in [0, 1]^2.

    The exact solution is ``sin(pi x) cos(2 pi t) + 0.5 sin(4 pi x) cos(8 pi t)``. The conditions are ``"u"``, the
    initial and boundary values, with a third of the points on each of t = 0, x = 0 and x = 1 (and any remainder on
    t = 0); ``"ut"``, the initial velocity (zero); and ``"r"``, the residual. Without a key, the interior points form a
    golden-ratio lattice, which covers the square evenly for every n.

    Example:
        >>> {name: points.shape for name, points in Wave1D().points(300).items()}
        {'u': (300, 2), 'ut': (300, 2), 'r': (300, 2)}
    """

    def exact(x):
        t, s = x[..., 0], x[..., 1]
        slow = jnp.sin(jnp.pi * s) * jnp.cos(2 * jnp.pi * t)
        return slow + 0.5 * jnp.sin(4 * jnp.pi * s) * jnp.cos(8 * jnp.pi * t)

    box = (0.0, 0.0), (1.0, 1.0)
    start, left, right = side(*box, 0, 0.0), side(*box, 1, 0.0), side(*box, 1, 1.0)
    conditions = {
        "u": Condition(value, exact, together(start, left, right)),
        "ut": Condition(velocity, zero, start),
        "r": Condition(_wave, zero, inside(*box)),
    }
    return Problem(conditions, *box, exact)


# Operators are module-level functions, so that problems that differ only in their targets share compiled code: the
# kernel does not depend on the targets.


def _second_derivative(u, x):
    """Compute ``u_xx`` in one dimension."""
    return dd(u, 0)(x)


def _wave(u, x):
    return dd(u, 0)(x) - 4.0 * dd(u, 1)(x)
