"""The points and targets of each training step, and the measurement of the error."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from pinnntk_lib._check import check_points
from pinnntk_lib.problems import Problem

# ``source`` returns ``data, draw``, where ``draw(data, step) -> (points, targets)`` is static under ``jit``.


def source(problem, points, key):
    if not isinstance(problem, Problem):
        raise TypeError(f"problem: expected a pinnntk_lib.Problem, got {type(problem).__name__}")
    targets = tuple((name, condition.target) for name, condition in problem.conditions.items())
    if not callable(points):
        points = check_points(points, problem.operators)
        return (points, _values(targets, points)), _same_every_step
    if key is None:
        raise ValueError("key: expected a JAX random key, since points is a function, got None")
    return key, _Fresh(points, targets)


def _same_every_step(data, step):
    return data


@dataclass(frozen=True)
class _Fresh:
    """New points at each step, from the run's key and the step number alone: a resumed run draws the same points."""

    sampler: Callable
    targets: tuple

    def __call__(self, key, step):
        points = check_points(self.sampler(jax.random.fold_in(key, step)), [name for name, _ in self.targets])
        return points, _values(self.targets, points)


def _values(targets, points):
    return {name: jax.vmap(target)(points[name]) for name, target in targets}


def check_targets(problem, points, targets):
    """Check that targets and operator outputs have the same shapes: broadcasting would silently change the loss."""
    for name, operator in problem.operators.items():
        outputs = (operator.outputs,) if hasattr(operator, "outputs") else ()
        if targets[name].shape != (len(points[name]), *outputs):
            shape = targets[name].shape[1:]
            raise ValueError(f"problem.conditions[{name!r}].target: expected shape {outputs} at a point, got {shape}")


def error_measure(apply, problem, test_points):
    """Return ``params -> {"error": relative L2 error}``, or ``params -> {}`` if no exact solution is known."""
    if problem.exact is None:
        return lambda params: {}
    x = problem.grid(round(1000 ** (1 / problem.dim))) if test_points is None else jnp.asarray(test_points)
    if x.ndim != 2 or x.shape[1] != problem.dim:
        raise ValueError(f"test_points: expected shape (m, {problem.dim}), got {x.shape}")
    exact = problem.exact(x)
    return lambda params: {"error": _error(apply, params, x, exact)}


def relative_l2_error(u: jax.Array, exact: jax.Array) -> jax.Array:
    """Compute ``||u - exact|| / ||exact||`` from values at the same points, both of shape (m,).

    Example:
        >>> import jax.numpy as jnp
        >>> float(relative_l2_error(jnp.array([3.0, 5.0]), jnp.array([3.0, 4.0])))
        0.2
    """
    return jnp.linalg.norm(u - exact) / jnp.linalg.norm(exact)


@partial(jax.jit, static_argnums=0)
def _error(apply, params, x, exact):
    return relative_l2_error(jax.vmap(partial(apply, params))(x), exact)
