"""An optimiser built on the kernel: damped Gauss–Newton steps along a curve, with as little damping as they bear.

Gradient descent trains the kernel's modes at rates that differ by orders of magnitude, and weights can only change all
of a condition's rates together. This optimiser divides each mode by its own eigenvalue. For residuals r with Jacobian J
and kernel ``K = J J^T``, its direction is

    d = -J^T (K + mu I)^{-1} r = -(J^T J + mu I)^{-1} J^T r.

The first form has one unknown per residual, the second one per parameter; the smaller system is solved. As mu goes to
0, the linearised residuals shrink along d in all modes alike: it is natural gradient descent in function space.

Two things limit a step, and both are searched for. Along d the residuals bend: ``r(theta + t d) = r + t J d + t^2 r''/2
+ ...``. The same factorised system yields the second-order correction ``a = -J^T (K + mu I)^{-1} r'' / 2`` ("geodesic
acceleration", Transtrum and Sethna 2012), so that the step can follow the curve ``theta + t d + t^2 a``. And the less
damping, the longer the step and the worse its prediction. The step taken has the least damping for which some length t
is predicted well, ``gain >= 1 - 0.9 t``, where the gain is the decrease in a level, divided by the decrease that the
linearised residuals predict: a full step must keep a tenth of its promise, a quarter of a step three quarters and more.

The level says how far away the solution is. The loss does not: the fast modes, which a step can always correct later,
decide it, and a slow mode that is all wrong hardly counts. Where the residuals can all become zero, because the points
stay the same and there are no more residuals than parameters, the level is therefore the squared length of the step
that would correct them,

    |J^T (K + mu I)^{-1} r|^2,

with J and K of the current parameters. To first order and up to the damping, it is the squared distance to the nearest
solution, and does not depend on the weights of the conditions. (It is Deuflhard's natural level function for Newton's
method; Newton Methods for Nonlinear Problems, 2011, section 3.3.) The loss may rise meanwhile, except where mu is
hardly above the rounding errors of K. There, the slow modes' part of the level is rounding error too, and steps leading
away would pass. With more residuals than parameters, with points that are drawn anew, or with measurements that
contradict each other, part of the residuals stays at any parameters, and this part in the slow modes would outweigh all
else. The level is then the loss.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pinnntk_lib._check import check_count, check_positive
from pinnntk_lib._deprecated import renamed_keywords
from pinnntk_lib.kernel import gauss_newton_matrix, jacobian, ntk

if TYPE_CHECKING:
    import optax

LENGTHS = np.array([1.0, 0.5, 0.25])  # of the steps that are tried
SHORTFALL = 0.9  # the decrease in the level may fall short of the predicted one by this much, times the length
BEND = 0.75  # the correction is left out if it is longer than this fraction of the direction
FACTOR = 3.0  # between one damping that is tried and the next
MOST = 1e12  # the largest damping
BLURRED = 10.0  # multiple of the least damping below which the loss has to decrease, whatever the level
STALLED = 5  # steps in a row that fail
SAME = 1 - 1e-13  # cosine from which two residuals have the same gradient, far closer than those of neighbouring points
GAP = 1e-3  # smallest difference of two such residuals that is a contradiction, as a fraction of the largest


class KernelDescentState(NamedTuple):
    """The state of :func:`kernel_gradient_descent`.

    Attributes:
        damping: mu of the last step, as a fraction of the weighted kernel's mean eigenvalue.
        failures: number of steps since the last one that reduced the level.
    """

    damping: jax.Array
    failures: jax.Array


@renamed_keywords(tries="max_tries")
def kernel_gradient_descent(
    damping: float = 1e-3, max_tries: int = 10, memory: int = 2**30
) -> optax.GradientTransformationExtraArgs:
    """Return a damped Gauss–Newton optimiser for :func:`pinnntk_lib.train`, which solves for its steps with the kernel.

    For weighted residuals r with Jacobian J and kernel ``K = J J^T``, the direction is ``-J^T (K + mu I)^{-1} r``. It
    divides each mode of the kernel by its own eigenvalue, up to the damping mu, so that slow modes decay as fast as
    fast ones. The step follows this direction with a second-order correction, over a length of 1, 1/2 or 1/4. The
    optimiser needs the residuals, which :func:`pinnntk_lib.train` passes to it; a loop of plain optax does not.

    Each step factorises symmetric matrices with one row per residual in the batch or, if there are more residuals than
    parameters, one row per parameter. This is practical for up to a few thousand rows; the other number may be much
    larger. The damping is searched for, upwards or downwards from that of the last step, by growing factors. It is the
    least tried for which a step's progress agrees with the linearised residuals' prediction: to a tenth for a full
    step, more closely for a shorter one.

    How progress is measured depends on the points. If they are fixed, and there are no more residuals than parameters,
    all residuals can become zero. Progress is then a shorter way to go: a decrease in the squared length of the step
    that corrects the residuals, ``|J^T (K + mu I)^{-1} r|^2`` with J and K of the current parameters, which without
    damping would not depend on the weights (Deuflhard's natural level function). The loss can rise meanwhile, sometimes
    for dozens of steps. With points that are drawn anew at each step, more residuals than parameters, or repeated
    measurements that differ, progress is a decrease in the loss of the batch.

    A step fits the points of its batch, all the better the less it is damped. A network with more parameters than
    residuals can therefore solve the equation at these points and nowhere else. If the error stays large while the loss
    becomes tiny, take more points, or draw fresh ones at each step (:class:`~pinnntk_lib.RandomPoints`). A step still
    undoes some of what earlier batches taught; this stops once there are more fresh residuals than parameters.

    In single precision, steps are computed from the Jacobian's singular values, which the kernel's rounding errors
    would hide; only if the Jacobian does not fit into ``memory`` does the kernel take its place. Even so, the rounding
    errors of the residuals themselves limit the loss. For small errors, train in double precision
    (``jax.config.update("jax_enable_x64", True)``).

    Args:
        damping: mu that the first step tries first, as a fraction of the mean eigenvalue of K.
        max_tries: maximum number of dampings that a step tries. If none succeeds, the parameters stay unchanged.
        memory: memory budget in bytes for computing the kernel, as in :func:`pinnntk_lib.ntk`.

    Raises:
        ValueError, TypeError: if ``damping`` is not a positive number, or ``max_tries`` or ``memory`` not a positive
            integer.

    Example:
        On the paper's model problem with a = 4, plain gradient descent ends with an error above 1. Kernel gradient
        descent gets below 1e-5 in 100 steps:

        >>> import jax, pinnntk_lib as pn
        >>> problem = pn.problems.Poisson1D(a=4)
        >>> points = problem.points(50)
        >>> model = pn.MLP(width=50, **pn.normalization(points["r"]))
        >>> params = model.init(jax.random.key(0))
        >>> result = pn.train(model.apply, params, problem, points, pn.kernel_gradient_descent(), steps=100)
        >>> bool(result.history["error"][-1] < 1e-5)
        True
    """
    import optax  # imported late, since it takes longer than the rest of the library

    check_positive("damping", damping)
    max_tries, memory = check_count("max_tries", max_tries), check_count("memory", memory)

    def init(params):
        return KernelDescentState(jnp.asarray(damping, jnp.result_type(*jax.tree.leaves(params))), jnp.zeros((), int))

    def update(gradient, state, params, *, view, weights, **_):
        flat, unravel = ravel_pytree(params)
        roots = {  # one per point
            name: jnp.broadcast_to(jnp.sqrt(weights[name] / r.size).astype(flat.dtype), len(r))
            for name, r in jax.eval_shape(view.residuals, params).items()
        }

        def scaled(step):
            """Return the residuals after a step as one vector, scaled so that its squared norm is the weighted loss."""
            parts = view.residuals(optax.apply_updates(params, unravel(step)))
            return jnp.concatenate(
                [(roots[name] * r.astype(flat.dtype).reshape(len(r), -1).T).T.ravel() for name, r in parts.items()]
            )

        # GPUs' reduced precision would end the search for small steps early
        with jax.default_matmul_precision("highest"):
            system = _linearised(scaled, jnp.zeros_like(flat), view, roots, memory)
            end = _searched(scaled, jnp.zeros_like(flat), system, state.damping, max_tries)
        failures = jnp.where(end.passed, 0, state.failures + 1).astype(state.failures.dtype)
        return unravel(end.step), KernelDescentState(jnp.where(end.passed, end.damping, end.next), failures)

    return optax.GradientTransformationExtraArgs(init, update)


def warn_if_stalled(opt_state: Any) -> bool:
    """Warn if steps in single precision no longer make progress; return whether there was a warning."""
    states = jax.tree.leaves(opt_state, is_leaf=lambda leaf: isinstance(leaf, KernelDescentState))
    for state in states:
        if isinstance(state, KernelDescentState) and state.failures >= STALLED and _is_single(state.damping.dtype):
            warnings.warn(
                f"kernel_gradient_descent: none of the last {state.failures} steps made progress; either this is a "
                "minimum, or the rounding errors of single precision hide the way down, in which case go on in double "
                'precision: jax.config.update("jax_enable_x64", True), and parameters and points in float64',
                stacklevel=3,
            )
            return True
    return False


def _is_single(dtype):
    return float(jnp.finfo(dtype).eps) > 1e-10


class _Linearised(NamedTuple):
    """The linearised least-squares problem of a step.

    Attributes:
        residuals: r, an array (n,).
        solver: ``mu -> (v -> J^T (K + mu I)^{-1} v)``.
        mean: the mean eigenvalue of K.
        least: mu, as a fraction of the mean, below which rounding errors are larger than mu.
        solvable: whether all residuals can become zero, possibly traced.
    """

    residuals: jax.Array
    solver: Callable
    mean: jax.Array
    least: float
    solvable: bool | jax.Array


def _linearised(scaled, zero, view, roots, memory):
    """Linearise the residuals at the current parameters, in the smaller of residual space and parameter space."""
    residuals, pullback = jax.vjp(scaled, zero)
    setting = view.apply, view.params, view.operators, view.points
    in_residual_space = residuals.size <= zero.size
    solvable = in_residual_space and not view.fresh
    if _is_single(zero.dtype):
        needed = 4 * residuals.size * zero.size * zero.dtype.itemsize  # J, its factors and a copy
        if view.mesh is None and needed <= memory:
            return _by_singular_values(residuals, jacobian(*setting, roots), solvable)
        reason = "on a mesh" if view.mesh is not None else f"with less than memory={needed}"
        warnings.warn(
            f"kernel_gradient_descent: in single precision {reason}, rounding errors hide the kernel's eigenvalues "
            "below 1e-7 of the largest, so that training may stall early; double precision resolves them",
            stacklevel=2,
        )
    if in_residual_space:
        K = ntk(*setting, memory=memory, mesh=view.mesh)
        root = jnp.concatenate([jnp.repeat(roots[name], n // len(roots[name])) for name, n in K.sizes])
        root = root.astype(K.matrix.dtype)
        matrix = root[:, None] * K.matrix * root
        solvable = ~_contradictory(matrix, residuals) if solvable else False
    else:
        matrix = gauss_newton_matrix(*setting, roots, memory=memory, mesh=view.mesh)

    def solver(mu):
        factors = jax.scipy.linalg.cho_factor(matrix + mu * jnp.eye(len(matrix), dtype=matrix.dtype))
        if in_residual_space:
            return lambda v: pullback(jax.scipy.linalg.cho_solve(factors, v))[0]
        return lambda v: jax.scipy.linalg.cho_solve(factors, pullback(v)[0])

    # The matrix's rounding errors are usually far below their bound; where they are not, the factorisation fails.
    least = 0.1 * float(jnp.finfo(matrix.dtype).eps) * len(matrix)
    return _Linearised(residuals, solver, jnp.trace(matrix) / residuals.size, least, solvable)


def _contradictory(K, r):
    """Return whether two residuals have the same gradient, up to a factor, but not the same value: a repeated point."""
    sizes = jnp.sqrt(jnp.diagonal(K))
    sizes = jnp.where(sizes > 0, sizes, 1.0)
    cosine, r = K / sizes[:, None] / sizes, r / sizes
    gap = jnp.abs(r[:, None] - jnp.sign(cosine) * r)
    return jnp.any((jnp.abs(cosine) > SAME) & (gap > GAP * jnp.max(jnp.abs(r))))


def _by_singular_values(residuals, J, solvable):
    """Return the problem for a Jacobian J (n, P) in single precision.

    Rounding errors in K hide its eigenvalues below 1e-7 of the largest. These are squares of J's singular values, so
    that J itself resolves them down to 1e-14.
    """
    tall = J.shape[0] >= J.shape[1]  # of a tall matrix, the decomposition takes half the time
    U, s, V = jnp.linalg.svd(J if tall else J.T, full_matrices=False)
    U, V = (U, V.T) if tall else (V.T, U)

    def solver(mu):
        return lambda v: V @ (s / (s**2 + mu) * (U.T @ v))

    eps = float(jnp.finfo(J.dtype).eps)
    return _Linearised(residuals, solver, s @ s / len(J), eps**2 * len(J), solvable)


class _Search(NamedTuple):
    """The dampings that were tried.

    Attributes:
        next: the damping to be tried next.
        damping: the least that passed.
        step: the step that it allows, zero if no damping has passed.
        passed, failed: whether any damping did.
        tried: how many were tried.
    """

    next: jax.Array
    damping: jax.Array
    step: jax.Array
    passed: jax.Array
    failed: jax.Array
    tried: jax.Array


def _searched(scaled, zero, system, damping, max_tries):
    """Search for the least damping at which some length is predicted well."""

    def attempt(search):
        step, passed = _best(scaled, system, search.next)
        factor = jnp.asarray(FACTOR, search.next.dtype) ** (search.tried + 1)
        return _Search(
            jnp.clip(jnp.where(passed, search.next / factor, search.next * factor), system.least, MOST),
            jnp.where(passed, search.next, search.damping),
            jnp.where(passed, step, search.step),
            search.passed | passed,
            search.failed | ~passed | (search.next <= system.least),  # at the least, nothing is left to try
            search.tried + 1,
        )

    def goes_on(search):
        return ~(search.passed & search.failed) & (search.tried < max_tries)

    damping = jnp.clip(damping, system.least, MOST)
    return jax.lax.while_loop(goes_on, attempt, _Search(damping, damping, zero, False, False, 0))


def _best(scaled, system, damping):
    """Return the step with the lowest level among those at this damping predicted well, and whether there is one."""
    solve = system.solver(damping * system.mean)
    direction = -solve(system.residuals)
    first, second = _derivatives(lambda t: scaled(t * direction), jnp.zeros((), direction.dtype))
    bend = -solve(second) / 2
    # far from straight, the series cannot be trusted
    bend = jnp.where(_squared(bend) <= BEND**2 * _squared(direction), bend, jnp.zeros_like(bend))
    t = jnp.asarray(LENGTHS, direction.dtype)
    steps = t[:, None] * direction + t[:, None] ** 2 * bend

    def along(a, b):
        return _squared(a), jax.vmap(lambda t: _squared(a + t * b))(t)

    now, predicted = _either(
        system.solvable, lambda: along(-direction, solve(first)), lambda: along(system.residuals, first)
    )

    def after(step):
        residuals = scaled(step)
        loss = _squared(residuals)
        return _either(system.solvable, lambda: _squared(solve(residuals)), lambda: loss), loss

    levels, losses = jax.lax.map(after, steps)
    unchanged = (1 - 10 * float(jnp.finfo(direction.dtype).eps)) * now  # up to rounding errors
    passes = (now - levels >= (1 - SHORTFALL * t) * (now - predicted)) & (levels < unchanged)
    passes &= (damping >= BLURRED * system.least) | (losses < _squared(system.residuals))
    best = jnp.argmin(jnp.where(passes, levels, jnp.inf))
    return steps[best], passes[best]


def _either(condition, yes, no):
    """Return ``yes()`` or ``no()``; both are traced only if the condition is traced too."""
    if isinstance(condition, bool):
        return yes() if condition else no()
    return jax.lax.cond(condition, yes, no)


def _derivatives(f, t):
    """Return the first and the second derivative of a function of a scalar."""
    one = jnp.ones_like(t)
    return jax.jvp(lambda t: jax.jvp(f, (t,), (one,))[1], (t,), (one,))


def _squared(v):
    return v @ v
