"""The methods that ``optimisers.py`` compares: functions ``(case, seed, clock) -> None``.

A clock is called with the parameters after each step, or after several steps if they are fast, and ends the run.
Without one, a method only compiles what it needs.
"""

import importlib.util
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from damping_problems import Case
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_factor, cho_solve

import pinnntk_lib as pn
from pinnntk_lib.kernel import gauss_newton_matrix

# ---------------------------------------------------------------- natural gradient methods of others


def gauss_newton_step(damping: float, momentum: float, length: Callable) -> optax.GradientTransformationExtraArgs:
    """Return an optimiser with the step ``eta phi_k``, where the damping is constant and

        phi_k = momentum phi_(k-1) - J^T (K + damping I)^{-1} (r + momentum J phi_(k-1)).

    Args:
        damping: added to the eigenvalues.
        momentum: 0 for ENGD-W.
        length: ``(loss after a step, phi, r^T J phi) -> eta``.
    """

    def update(gradient, phi, params, *, view, weights, **_):
        flat, unravel = ravel_pytree(params)
        sizes = {name: r.size for name, r in jax.eval_shape(view.residuals, params).items()}
        roots = {name: jnp.sqrt(weights[name] / n) for name, n in sizes.items()}

        def after(step):
            parts = view.residuals(optax.apply_updates(params, unravel(step)))
            return jnp.concatenate([roots[name] * r.ravel() for name, r in parts.items()])

        zero = jnp.zeros_like(flat)
        r, pullback = jax.vjp(after, zero)
        moved = r + momentum * jax.jvp(after, (zero,), (phi,))[1] if momentum else r
        setting = view.apply, params, view.operators, view.points
        if len(r) <= len(flat):
            K = pn.ntk(*setting)
            root = jnp.concatenate([jnp.full(n, roots[name]) for name, n in K.sizes])
            matrix = root[:, None] * K.matrix * root
            solved = pullback(cho_solve(cho_factor(matrix + damping * jnp.eye(len(r))), moved))[0]
        else:
            factors = cho_factor(gauss_newton_matrix(*setting, roots) + damping * jnp.eye(len(flat)))
            solved = cho_solve(factors, pullback(moved)[0])
        phi = momentum * phi - solved
        eta = length(lambda step: jnp.sum(after(step) ** 2), phi, pullback(r)[0] @ phi)
        return unravel(eta * phi), phi

    return optax.GradientTransformationExtraArgs(lambda params: jnp.zeros_like(ravel_pytree(params)[0]), update)


def best_length(loss, phi, slope):
    """Return the one of 31 lengths, 1, 1/2, 1/4 and so on, that gives the least loss (arXiv:2505.12149)."""
    etas = jnp.asarray(0.5 ** np.arange(31))
    losses = jax.lax.map(lambda eta: loss(eta * phi), etas)
    return etas[jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf))]


def backtracked(loss, phi, slope, shrink=0.8, tries=15, enough=1e-4):
    """Return the first length that reduces the loss enough, as optax's backtracking finds it by default."""
    start = loss(0 * phi)

    def too_long(eta):
        return ~(loss(eta * phi) <= start + enough * eta * 2 * slope) & (eta > shrink**tries)

    return jax.lax.while_loop(too_long, lambda eta: shrink * eta, jnp.ones_like(start))


# ---------------------------------------------------------------- SOAP


def soap(rate: Callable, b1=0.95, b2=0.95, eps=1e-8, every=10) -> optax.GradientTransformation:
    """Return SOAP (arXiv:2409.11321, algorithm 3): Adam in the eigenbasis of Shampoo's factors.

    Its defaults are those of the paper. Vectors are trained by Adam.
    """

    def init_leaf(p):
        leaf = {"m": jnp.zeros_like(p), "v": jnp.zeros_like(p)}
        if p.ndim != 2:
            return leaf
        n, m = p.shape
        factors = {"L": jnp.zeros((n, n), p.dtype), "R": jnp.zeros((m, m), p.dtype)}
        return leaf | factors | {"QL": jnp.eye(n, dtype=p.dtype), "QR": jnp.eye(m, dtype=p.dtype)}

    def update_leaf(g, s, count):
        if g.ndim != 2:
            m, v = b1 * s["m"] + (1 - b1) * g, b2 * s["v"] + (1 - b2) * g**2
            return m / (1 - b1**count) / (jnp.sqrt(v / (1 - b2**count)) + eps), {"m": m, "v": v}
        QL, QR = s["QL"], s["QR"]
        m, v = b1 * s["m"] + (1 - b1) * g, b2 * s["v"] + (1 - b2) * (QL.T @ g @ QR) ** 2
        step = QL @ (QL.T @ m @ QR / (1 - b1**count) / (jnp.sqrt(v / (1 - b2**count)) + eps)) @ QR.T
        L, R = b2 * s["L"] + (1 - b2) * g @ g.T, b2 * s["R"] + (1 - b2) * g.T @ g
        due = count % every == 1
        QL, QR = jax.lax.cond(due, lambda: (jnp.linalg.qr(L @ QL)[0], jnp.linalg.qr(R @ QR)[0]), lambda: (QL, QR))
        return step, {"m": m, "v": v, "L": L, "R": R, "QL": QL, "QR": QR}

    def init(params):
        return jnp.zeros((), int), [init_leaf(p) for p in jax.tree.leaves(params)]

    def update(gradient, state, params=None):
        count = state[0] + 1
        gradients, tree = jax.tree.flatten(gradient)
        steps, leaves = zip(*(update_leaf(g, s, count) for g, s in zip(gradients, state[1])))
        return jax.tree.unflatten(tree, [-rate(count) * step for step in steps]), (count, list(leaves))

    return optax.GradientTransformation(init, update)


# ---------------------------------------------------------------- methods


def by_train(
    optimizer, stride: int = 1, fresh: bool = True, weights: Any = None, adaptive: bool = False, **options: Any
) -> Callable:
    """Return a method that runs ``pn.train`` with an optax optimiser.

    Args:
        optimizer: the optimiser.
        stride: number of steps between two calls of the clock.
        fresh: whether to draw points anew in each step where the problem does; otherwise they are kept.
        weights: as for ``pn.train``; a mapping may leave conditions out, whose weights are then 1.
        adaptive: whether to draw more points where the residuals are large.
        options: further arguments of ``pn.train``.
    """

    def method(case: Case, seed: int, clock: Callable | None):
        def measure(params):
            if clock:
                clock(params)
            return {}

        points = case.points if fresh and case.fresh else kept_points(case, seed)
        if adaptive and case.fresh:
            points = pn.ResidualPoints(case.points.problem, dict(case.points.n))
        chosen = weights
        if isinstance(weights, dict):
            chosen = dict.fromkeys(case.problem.conditions, 1.0) | weights
        setting = case.apply, case.init(jax.random.key(seed)), case.problem, points, optimizer
        common = {"log_every": stride, "measure": measure, "test_points": case.test[:2], "progress": False}
        steps = 10**9 if clock else stride
        pn.train(*setting, steps, chosen, key=jax.random.key(seed + 100), **common, **options)

    return method


def by_optimistix(minimiser: Callable, stride: int) -> Callable:
    """Return a method that runs a minimiser of optimistix, ``(residuals, points, params) -> minimiser``.

    Its first step is not counted. (Each trial of the line search is a step.)
    """

    def method(case: Case, seed: int, clock: Callable | None):
        if not clock:
            return  # it compiles in each run anew, before the clock is first called
        import equinox

        points, start = kept_points(case, seed), case.init(jax.random.key(seed))
        residuals = residuals_at_a_point(case)

        def loss(params, _):
            parts = [jnp.mean(jax.vmap(partial(at, params))(points[name]) ** 2) for name, at in residuals.items()]
            return sum(parts) / 2, None

        solver = minimiser(residuals, points, start)
        step = partial(solver.step, loss, args=None, options={}, tags=frozenset())
        initial = solver.init(loss, start, None, {}, jax.eval_shape(loss, start, None)[0], None, frozenset())
        params, state, _ = equinox.filter_jit(step)(start, state=initial)
        arrays, rest = equinox.partition(state, equinox.is_array)

        def one(_, carry):
            params, state, _ = step(carry[0], state=equinox.combine(carry[1], rest))
            return params, equinox.filter(state, equinox.is_array)

        steps = jax.jit(lambda carry: jax.lax.fori_loop(0, stride, one, carry))
        carry = params, arrays
        steps(carry)  # compile
        while True:
            clock(carry[0])
            carry = steps(carry)

    return method


def kept_points(case: Case, seed: int) -> dict[str, jax.Array]:
    """Return the points of a method that keeps them: so many draws that the residuals outnumber the parameters."""
    n = sum(map(len, jax.eval_shape(case.points, jax.random.key(0)).values()))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(case.init, jax.random.key(0))))
    draws = math.ceil(parameters / n) if case.fresh else 1
    parts = [case.points(jax.random.fold_in(jax.random.key(seed + 100), i)) for i in range(draws)]
    return {name: jnp.concatenate([part[name] for part in parts]) for name in parts[0]}


def residuals_at_a_point(case: Case) -> dict[str, Callable]:
    """Return ``{name: (params, x) -> residual}``."""

    def at(condition, params, x):
        return condition.residual(partial(case.apply, params), x)

    return {name: partial(at, condition) for name, condition in case.problem.conditions.items()}


def ssbroyden(residuals, points, params):
    import ssbroyden_optimistix

    return ssbroyden_optimistix.SSBroyden(rtol=0.0, atol=0.0)


def nystrom(residuals, points, params, marquardt: bool = False):
    import randngd

    metric = randngd.metrics.gauss_newton([(at, points[name]) for name, at in residuals.items()], params)
    damping = randngd.LevenbergMarquardt() if marquardt else None
    most = min(500, ravel_pytree(params)[0].size)  # columns of the sketch
    levels = (*(n for n in (20, 60, 120, 250) if n < most), most)  # by default 25, which take a minute to compile
    preconditioner = randngd.NystromNGD(
        metric, kind="gaussian", ell_max=most, ell_levels=levels, damping=damping, key=0
    )
    return randngd.ngd_solver(preconditioner)


RATE = optax.exponential_decay(1e-3, 2000, 0.9)
DAMPINGS = (1e-6, 1e-8, 1e-10)

# A method with several variants runs with that which does best on each problem in a trial.
OPTIMISERS: dict[str, dict[str, Callable]] = {
    "kernel descent": {"": by_train(pn.kernel_gradient_descent())},
    "ENGD-W": {f"{mu:.0e}": by_train(gauss_newton_step(mu, 0.0, best_length)) for mu in DAMPINGS},
    "SPRING": {f"{mu:.0e}": by_train(gauss_newton_step(mu, 0.85, best_length)) for mu in DAMPINGS},
    "NGD": {f"{mu:.0e}": by_train(gauss_newton_step(mu, 0.0, backtracked)) for mu in (1e-5, 1e-7)},
    "randngd": {"": by_optimistix(nystrom, 1), "LM": by_optimistix(partial(nystrom, marquardt=True), 1)},
    "SSBroyden": {"": by_optimistix(ssbroyden, 10)},
    "L-BFGS": {"": by_train(optax.lbfgs(), 10, fresh=False)},
    "SOAP": {"": by_train(soap(RATE), 20)},
    "Adam": {"": by_train(optax.adam(RATE), 50)},
    "Adam, Algorithm 1": {"": by_train(optax.adam(RATE), 50, weights=pn.NTKWeights(100))},
}

# Kernel descent in other settings.
ADAM_FIRST = pn.join_optimizers([optax.adam(1e-3), pn.kernel_gradient_descent()], [1000])
SETTINGS: dict[str, dict[str, Callable]] = {
    "as it is": {"": by_train(pn.kernel_gradient_descent())},
    "r's weight 1e-2": {"": by_train(pn.kernel_gradient_descent(), weights={"r": 1e-2})},
    "Algorithm 1": {"": by_train(pn.kernel_gradient_descent(), weights=pn.NTKWeights(10))},
    "residual-based points": {"": by_train(pn.kernel_gradient_descent(), adaptive=True)},
    "Adam first": {"": by_train(ADAM_FIRST, 10)},
    "Adam first, in single precision": {"": by_train(ADAM_FIRST, 10, single_steps=1000)},
}
METHODS = OPTIMISERS | SETTINGS
NEEDS = {"randngd": "randngd", "SSBroyden": "ssbroyden_optimistix"}  # packages


def installed() -> list[str]:
    """Return the optimisers whose packages are installed."""
    return [name for name in OPTIMISERS if name not in NEEDS or importlib.util.find_spec(NEEDS[name])]
