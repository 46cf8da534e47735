"""The points and targets of each training step, and what is measured at points apart from these."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import (
    check_array,
    check_conditions,
    check_key,
    check_no_class,
    check_numbers,
    check_points,
    drawn_points,
)
from pinnntk_lib._devices import replicated
from pinnntk_lib._points import Packing, coordinates, packing_of
from pinnntk_lib._static import compiled, static
from pinnntk_lib.problems import Problem, check_problem, target_values

# ``source`` returns ``problem, data, draw``. The problem is that of packed points if the points carry data, and
# ``draw(data, step, residuals=None) -> (points, targets)`` is static under ``jit``; ``residuals`` is a function of
# points and targets, for samplers that choose their points by it.


def _packed(problem, points, key):
    """Return a problem, and points or a sampler, with packed points if these carry data, and otherwise as they are."""
    try:
        found = jax.eval_shape(points, key) if callable(points) else points
        packing = packing_of({name: found[name] for name in problem.conditions})
    except Exception:  # whatever is wrong with the arguments, ``source`` says it
        return problem, points
    if packing is None:
        return problem, points
    operators = packing.operators(problem.operators)
    targets = {name: condition.target for name, condition in problem.conditions.items()}
    targets |= packing.operators({name: target for name, target in targets.items() if callable(target)})
    conditions = {
        name: replace(condition, operator=operators[name], target=targets[name])
        for name, condition in problem.conditions.items()
    }
    if not callable(points):
        points = packing.points(check_points(points, conditions))
    elif hasattr(points, "adapted"):
        points = _PackedAdaptive(points, packing)
    else:
        points = _Packed(points, packing)
    return replace(problem, conditions=conditions), points


@dataclass(frozen=True)
class _Packed:
    """A sampler whose points are packed."""

    sampler: Callable
    packing: Packing

    def __call__(self, key):
        return self._rows(self.sampler(key))

    def _rows(self, points):
        return self.packing.points(check_points(points, [name for name, _ in self.packing.layouts]))


class _PackedAdaptive(_Packed):
    """A packed sampler that sees the residuals."""

    def adapted(self, key, residuals):
        return self._rows(self.sampler.adapted(key, lambda points: residuals(self._rows(points))))


def source(problem, points, key, mesh=None):
    check_problem(problem)
    problem, points = _packed(problem, points, key)
    check_no_class("points", points, "{name: (n, d) array} or a function key -> points")
    targets = tuple((name, c.target, _outputs(c.operator)) for name, c in problem.conditions.items())
    if not callable(points):
        points = check_points(points, problem.operators)
        return problem, replicated((points, _values(targets, points)), mesh), _same_every_step
    if key is None:
        raise ValueError("key: expected a JAX random key, since points is a function, got None")
    check_key("key", key)
    for name, target, _ in targets:
        if hasattr(target, "shape"):
            raise ValueError(
                f"problem.conditions[{name!r}].target: expected a function or a number, since points is a function, "
                f"got values of shape {target.shape}, which belong to fixed points"
            )
    return problem, replicated(key, mesh), _Fresh(points, targets)


def is_fresh(data):
    """Return whether points are drawn anew at each step, by the ``data`` of ``source``."""
    return not isinstance(data, tuple)  # but a random key


def _outputs(operator):
    return (operator.outputs,) if hasattr(operator, "outputs") else ()


def _same_every_step(data, step, residuals=None):
    return data


@dataclass(frozen=True)
class _Fresh:
    """New points at each step, from the run's key and the step number alone: a resumed run draws the same points."""

    sampler: Callable
    targets: tuple

    def __call__(self, key, step, residuals=None):
        key = jax.random.fold_in(key, step)
        if residuals is None or not hasattr(self.sampler, "adapted"):
            points = drawn_points(self.sampler, key)
        else:
            points = drawn_points(self.sampler.adapted, key, lambda x: residuals(x, _values(self.targets, x)))
        points = check_points(points, [name for name, *_ in self.targets])
        return points, _values(self.targets, points)


def _values(targets, points):
    return {name: target_values(name, target, points[name], outputs) for name, target, outputs in targets}


def own_measures(apply, params, problem, test_points, held_out):
    """Return ``params -> columns of the history`` for the error and the held-out losses."""
    measures = _error_measure(apply, params, problem, test_points), _held_out_measure(apply, params, problem, held_out)
    return lambda params: {name: value for measure in measures for name, value in measure(params).items()}


def _error_measure(apply, params, problem, test_points):
    """Return ``params -> {"error": relative L2 error}``, or ``params -> {}`` if no exact solution is known.

    With several outputs there are also the ``"errors"`` of each. Checks that the exact solution has the shape of the
    model's values.
    """
    if problem.exact is None:
        return lambda params: {}
    if test_points is None:
        x = problem.grid(round(1000 ** (1 / problem.dim)))
    else:
        x = jnp.asarray(check_numbers("test_points", test_points), float)
    if x.ndim != 2 or x.shape[1] != problem.dim or not len(x):
        raise ValueError(f"test_points: expected shape (m, {problem.dim}), got {x.shape}")
    exact = jnp.asarray(problem.exact(x))
    shape = jax.eval_shape(jax.vmap(partial(apply, params)), x).shape
    if exact.shape != shape:
        raise ValueError(
            f"problem.exact: expected shape {shape} at points of shape {x.shape}, as the model's values, "
            f"got {exact.shape}"
        )
    apply = static(apply)

    def measured(params):
        error, errors = _errors(apply, params, x, exact)
        return {"error": error} | ({"errors": errors} if exact.ndim > 1 else {})

    return measured


def _held_out_measure(apply, params, problem, held_out):
    """Return ``params -> {"held_out": {name: mean square of the residuals}}``, or ``params -> {}`` without points.

    ``held_out`` is ``{name: points}``, for some or all conditions, or a pair of a problem and such points.
    """
    if held_out is None:
        return lambda params: {}
    own, points = held_out if isinstance(held_out, tuple) and len(held_out) == 2 else (problem, held_out)
    if not isinstance(own, Problem) or not isinstance(points, Mapping) or not points:
        raise TypeError(
            "held_out: expected {name: (n, d) array}, or a pair of a Problem and such points, "
            f"got {type(held_out).__name__}"
        )
    unknown = [name for name in points if name not in problem.conditions or name not in own.conditions]
    if unknown:
        raise ValueError(f"held_out: expected names of conditions, {list(problem.conditions)}, got {unknown}")
    conditions = {name: own.conditions[name] for name in problem.conditions if name in points}
    points = check_points(points, conditions, name="held_out")
    d = coordinates(next(iter(points.values()))).shape[1]
    if d != problem.dim:
        raise ValueError(f"held_out: expected points of dimension {problem.dim}, as in the problem, got {d}")
    for name, condition in conditions.items():
        check_conditions(apply, params, {name: condition.operator}, points[name][0])
    targets = _values(tuple((name, c.target, _outputs(c.operator)) for name, c in conditions.items()), points)
    functions = static(apply), tuple((name, static(c.operator)) for name, c in conditions.items())

    def measured(params):
        losses = _mean_squares(*functions, params, points, targets)
        return {"held_out": {name: np.asarray(losses[name]) for name in conditions}}

    for name, loss in measured(params)["held_out"].items():
        if not np.isfinite(loss):
            raise ValueError(f"held_out[{name!r}]: expected a finite initial loss, got {loss}")
    return measured


@compiled(2)
def _mean_squares(apply, operators, params, points, targets):
    def of(name, operator):
        values = jax.vmap(lambda x: operator(partial(apply, params), x))(points[name])
        return jnp.mean((values.reshape(targets[name].shape) - targets[name]) ** 2)

    return {name: of(name, operator) for name, operator in operators}


def relative_l2_error(u: jax.Array, exact: jax.Array) -> jax.Array:
    """Compute ``||u - exact|| / ||exact||`` from values at the same points, both of shape (m,) or both (m, outputs).

    Raises:
        ValueError: if the shapes differ; broadcasting would give the norm of something else.

    Example:
        >>> import jax.numpy as jnp
        >>> float(relative_l2_error(jnp.array([3.0, 5.0]), jnp.array([3.0, 4.0])))
        0.2
    """
    u, exact = check_array("u", u), check_array("exact", exact)
    if u.shape != exact.shape:
        raise ValueError(f"u, exact: expected the same shape, got {u.shape} and {exact.shape}")
    return jnp.linalg.norm(u - exact) / jnp.linalg.norm(exact)


@compiled(1)
def _errors(apply, params, x, exact):
    """Return the relative L2 error, and that of each output; of an output that should be zero, its root mean square."""
    u = jax.vmap(partial(apply, params))(x)
    sizes = jnp.linalg.norm(exact.reshape(len(x), -1), axis=0)
    distances = jnp.linalg.norm((u - exact).reshape(len(x), -1), axis=0)
    each = distances / jnp.where(sizes > 0, sizes, jnp.sqrt(float(len(x))))
    return relative_l2_error(u, exact), each
