"""The problems of ``damping.py`` and ``optimisers.py``, with networks, points and least-squares problems."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_factor, cho_solve

import pinnntk_lib as pn
from pinnntk_lib.kernel import gauss_newton_matrix, residual_graphs, residual_of


@dataclass(frozen=True)
class Case:
    """A problem, ready to be trained.

    Attributes:
        problem: the conditions and the exact or reference solution.
        apply: ``(params, x) -> scalar``, the network.
        init: ``key -> params``.
        points: ``key -> {condition: (n, d) array}``, called at each step; fixed points ignore the key.
        test: points (m, d) at which the error is measured.
    """

    problem: pn.Problem
    apply: Callable
    init: Callable
    points: Callable[[jax.Array], dict[str, jax.Array]]
    test: jax.Array

    @property
    def fresh(self) -> bool:
        """Whether each step has points of its own."""
        return isinstance(self.points, pn.RandomPoints)


def fixed(points: dict[str, jax.Array]) -> Callable:
    """Return a sampler that always returns these points."""
    return lambda key: points


# ---------------------------------------------------------------- problems that the library does not have


def poisson_on_cube(d: int) -> pn.Problem:
    """Set up ``-Laplacian(u) = f`` on the unit cube of dimension d, with random points only.

    The solution is the product of ``sin(pi x_i)`` for d <= 3. In more dimensions this product would be tiny almost
    everywhere, and the solution is the sum of ``cos(pi x_i)`` instead.
    """

    def exact(x):
        return jnp.prod(jnp.sin(math.pi * x), axis=-1) if d <= 3 else jnp.sum(jnp.cos(math.pi * x), axis=-1)

    def source(x):
        return (d if d <= 3 else 1) * math.pi**2 * exact(x)

    def inside(n, key):
        return jax.random.uniform(key, (n, d))

    def border(n, key):
        of_point, of_face = jax.random.split(key)
        face = jax.random.randint(of_face, (n,), 0, 2 * d)
        x = jax.random.uniform(of_point, (n, d))
        return x.at[jnp.arange(n), face // 2].set((face % 2).astype(x.dtype))

    laplacian = pn.Condition(lambda u, x: -pn.laplacian(u)(x), source, inside)
    return pn.Problem({"u": pn.Condition(value, exact, border), "r": laplacian}, (0.0,) * d, (1.0,) * d, exact)


def damped_oscillator(friction: float = 4.0, stiffness: float = 400.0) -> pn.Problem:
    """Set up ``u'' + friction u' + stiffness u = 0`` on [0, 1] with u(0) = 1 and u'(0) = 0."""
    decay = friction / 2
    frequency = math.sqrt(stiffness - decay**2)
    phase = math.atan(-decay / frequency)

    def exact(x):
        t = x[..., 0]
        return jnp.exp(-decay * t) * jnp.cos(frequency * t + phase) / math.cos(phase)

    def residual(u, x):
        return pn.dd(u, 0)(x) + friction * pn.d(u, 0)(x) + stiffness * u(x)

    def start(n, key):
        return jnp.zeros((n, 1))

    conditions = {
        "u": pn.Condition(value, one, start),
        "ut": pn.Condition(lambda u, x: pn.d(u, 0)(x), zero, start),
        "r": pn.Condition(residual, zero, lambda n, key: jnp.linspace(0, 1, n)[:, None]),
    }
    return pn.Problem(conditions, (0.0,), (1.0,), exact)


def value(u, x):
    return u(x)


def zero(x):
    return jnp.zeros(x.shape[:-1], x.dtype)


def one(x):
    return jnp.ones(x.shape[:-1], x.dtype)


# ---------------------------------------------------------------- problems with networks and points


def on_fixed_points(problem: pn.Problem, width: int, depth: int, sizes: dict[str, int] | int, test: int) -> Case:
    """Return a case on the problem's own grids of points, by whose statistics the inputs are normalised."""
    points = problem.points(sizes)
    model = pn.MLP(width, depth, problem.dim, **pn.normalization(points["r"]))
    return Case(problem, model.apply, model.init, fixed(points), problem.grid(test))


def on_cube(d: int, width: int, sizes: dict[str, int], fresh: bool) -> Case:
    """Return Poisson's equation on the unit cube, with two hidden layers."""
    problem, model = poisson_on_cube(d), pn.MLP(width, 2, d, shift=0.5, scale=0.3)
    points = pn.RandomPoints(problem, sizes) if fresh else fixed(problem.points(sizes, jax.random.key(123)))
    return Case(problem, model.apply, model.init, points, jax.random.uniform(jax.random.key(9), (4000, d)))


def on_fresh_points(problem: pn.Problem, width: int, depth: int, sizes: dict[str, int], crowding: float) -> Case:
    """Return a case on (t, x) with fresh points that crowd around x = 0, where the solution is steep.

    Inside, x is moved to ``sign(x) |x|^crowding``.
    """

    def crowded(n, key):
        points = inside.sampler(n, key)
        x = points[:, 1]
        return points.at[:, 1].set(jnp.sign(x) * jnp.abs(x) ** crowding)

    inside = problem.conditions["r"]
    model = pn.MLP(width, depth, 2, **pn.normalization(problem.points(sizes)["r"]))
    problem = replace(problem, conditions=problem.conditions | {"r": replace(inside, sampler=crowded)})
    return Case(problem, model.apply, model.init, pn.RandomPoints(problem, sizes), problem.grid(60))


def on_circle(problem: pn.Problem, width: int, depth: int, sizes: dict[str, int]) -> Case:
    """Return a case on (t, x) with fresh points, whose network has period 2 in x.

    The network's inputs are t, cos pi x and sin pi x. Only the conditions in ``sizes`` are kept.
    """
    problem = replace(problem, conditions={name: problem.conditions[name] for name in sizes})
    model = pn.MLP(width, depth, 3, shift=(0.5, 0, 0), scale=(0.3, 0.7, 0.7))
    apply = pn.models.periodic_inputs(model.apply, (None, 2.0))
    return Case(problem, apply, model.init, pn.RandomPoints(problem, sizes), problem.grid(60))


def oscillator() -> Case:
    problem, model = damped_oscillator(), pn.MLP(32, 3, 1, shift=0.5, scale=0.3)
    points = fixed(problem.points({"u": 1, "ut": 1, "r": 80}))
    return Case(problem, model.apply, model.init, points, problem.grid(500))


# functions, because some reference solutions take time to compute
PROBLEMS: dict[str, Callable[[], Case]] = {
    "poisson-1d": lambda: on_fixed_points(pn.problems.Poisson1D(a=4), 100, 1, 100, 1000),
    "poisson-2d": lambda: on_cube(2, 32, {"u": 120, "r": 400}, fresh=False),
    "poisson-5d": lambda: on_cube(5, 64, {"u": 200, "r": 800}, fresh=True),
    "poisson-10d": lambda: on_cube(10, 64, {"u": 200, "r": 800}, fresh=True),
    "wave": lambda: on_fixed_points(pn.problems.Wave1D(), 50, 3, {"u": 200, "ut": 100, "r": 600}, 60),
    "burgers": lambda: on_fresh_points(pn.problems.Burgers1D(), 30, 3, {"u": 150, "r": 1000}, 3),
    "burgers-0.01": lambda: on_fresh_points(pn.problems.Burgers1D(0.01), 30, 3, {"u": 150, "r": 1000}, 2),
    "allen-cahn": lambda: on_circle(pn.problems.AllenCahn1D(), 40, 3, {"u": 200, "r": 1500}),
    "helmholtz": lambda: on_fixed_points(pn.problems.Helmholtz2D(), 50, 3, {"u": 200, "r": 1000}, 60),
    "klein-gordon": lambda: on_fixed_points(pn.problems.KleinGordon1D(), 50, 2, {"u": 90, "ut": 60, "r": 500}, 60),
    "advection": lambda: on_fixed_points(pn.problems.Advection1D(), 50, 2, {"u": 100, "b": 100, "r": 700}, 60),
    "oscillator": oscillator,
}


def error_of(case: Case) -> Callable:
    """Return the compiled function ``params -> relative L2 error`` at the case's test points."""
    exact = jax.vmap(case.problem.exact)(case.test)

    @jax.jit
    def error(params):
        return pn.relative_l2_error(jax.vmap(partial(case.apply, params))(case.test), exact)

    return error


# ---------------------------------------------------------------- the least-squares problem of a step


class System(NamedTuple):
    """The linearised least-squares problem of a step with P parameters and n residuals.

    Attributes:
        after: ``step (P,) -> residuals (n,)`` after this step, scaled so that their squared norm is the weighted loss.
        residuals: r, those after no step.
        loss: ``|r|^2``.
        gradient: ``J^T r``, half the gradient of the loss.
        solver: ``mu -> (v -> J^T (K + mu I)^{-1} v)``; the matrix is factorised once for each mu.
        mean: the mean eigenvalue of K. The rules' dampings are fractions of it.
        least: the least damping, below which rounding errors would make the factorisation fail.
    """

    after: Callable
    residuals: jax.Array
    loss: jax.Array
    gradient: jax.Array
    solver: Callable
    mean: jax.Array
    least: float

    def decrease(self, direction, mu, t):
        """Return the decrease in the loss that the linearised residuals predict for a step ``t * direction``."""
        slope = self.gradient @ direction
        return -(2 * t * slope - t**2 * (slope + mu * direction @ direction))  # |J d|^2 = -d^T J^T r - mu |d|^2


def least_squares(case: Case, in_residual_space: bool | None = None) -> Callable:
    """Return ``(params, points) -> System`` for a case.

    Args:
        case: the problem and its network; the conditions have equal weights.
        in_residual_space: whether to solve with the kernel or with ``J^T J``; None chooses the smaller matrix.
    """
    conditions, operators = case.problem.conditions, case.problem.operators
    key = jax.random.key(0)
    params, points = jax.eval_shape(case.init, key), jax.eval_shape(case.points, key)
    roots = {name: 1 / math.sqrt(len(points[name])) for name in conditions}
    x = points["r"]
    point = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    graphs = residual_graphs({name: residual_of(case.apply, L) for name, L in operators.items()}, params, point)
    if in_residual_space is None:
        in_residual_space = sum(map(len, points.values())) <= sum(leaf.size for leaf in jax.tree.leaves(params))

    def scaled(name, params, x):
        """Return a condition's operator at one point, scaled."""
        (value,), _ = graphs[name].run([*jax.tree.leaves(params), x])
        return roots[name] * value[0]

    def residuals(params, points):
        def at(name, condition):
            found = jax.vmap(partial(scaled, name), (None, 0))(params, points[name])
            return found - roots[name] * jax.vmap(condition.target)(points[name])

        return jnp.concatenate([at(*pair) for pair in conditions.items()])

    def kernel(params, points):
        K = pn.ntk(case.apply, params, operators, points)
        root = jnp.concatenate([jnp.full(n, roots[name]) for name, n in K.sizes])
        return root[:, None] * K.matrix * root

    def linearise(params, points):
        flat, unravel = ravel_pytree(params)

        def after(step):
            return residuals(unravel(flat + step), points)

        r, pullback = jax.vjp(after, jnp.zeros_like(flat))
        if in_residual_space:
            matrix = kernel(params, points)
        else:
            matrix = gauss_newton_matrix(case.apply, params, operators, points, roots)

        def solver(mu):
            factors = cho_factor(matrix + mu * jnp.eye(len(matrix), dtype=matrix.dtype))
            if in_residual_space:
                return lambda v: pullback(cho_solve(factors, v))[0]
            return lambda v: cho_solve(factors, pullback(v)[0])

        least = 0.1 * float(jnp.finfo(matrix.dtype).eps) * len(matrix)
        mean = jnp.trace(matrix) / len(r)  # both matrices have the same trace
        return System(after, r, squared(r), pullback(r)[0], solver, mean, least)

    return linearise


def squared(v):
    return v @ v
