"""Problems on slabs of time, for long horizons: each slab starts from the solution on the one before it."""

from collections.abc import Callable, Collection
from dataclasses import replace

import jax
import jax.numpy as jnp

from pinnntk_lib._check import check_coordinate, check_finite, check_function, check_name_list
from pinnntk_lib._points import Points, coordinates
from pinnntk_lib._types import Function
from pinnntk_lib.problems._problem import Condition, Problem, check_problem


def time_slab(
    problem: Problem,
    start: float,
    stop: float,
    initial: Collection[str] = (),
    before: Function | None = None,
    axis: int = 0,
) -> Problem:
    """Return a problem restricted to the times from ``start`` to ``stop``.

    A network that must fit a long time at once often finds a solution that forgets its initial values, since the
    residual alone does not determine it. Slab by slab, each training has a short way to go.

    The conditions' points are moved into the slab: their times are scaled and shifted. Where a condition named in
    ``initial`` is imposed at ``start``, its target is what its operator makes of the solution ``before``.

    Args:
        problem: the problem. Its targets must be functions or numbers.
        start: the first time of the slab.
        stop: the last.
        initial: names of the conditions that hold initial values. At other times their targets stay as they are, so
            that they may hold boundary values too.
        before: the solution on the slab before, ``x -> u(x)``; None for the first slab, which has the problem's own
            initial values.
        axis: the coordinate that is time.

    Raises:
        ValueError, TypeError: if the times are not increasing or not within the problem's domain, ``initial`` has
            unknown names, ``before`` is missing, or a target is an array of values.

    Example:
        >>> from functools import partial
        >>> import jax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Advection1D(c=6.0), pn.MLP(20, depth=2, dim=2, shift=(0.5, 3.0))
        >>> params, before = model.init(jax.random.key(0)), None
        >>> for start in (0.0, 0.5):
        ...     slab = pn.problems.time_slab(problem, start, start + 0.5, ["u"], before)
        ...     points = slab.points({"u": 30, "b": 30, "r": 200})
        ...     params = pn.train(model.apply, params, slab, points, pn.kernel_gradient_descent(), 40).params
        ...     before = partial(model.apply, params)
        >>> u = jax.vmap(before)(slab.grid(30))
        >>> bool(pn.relative_l2_error(u, problem.exact(slab.grid(30))) < 1e-2)
        True
    """
    initial = check_name_list("initial", initial)
    _check(problem, start, stop, initial, before, axis)
    start, stop = float(start), float(stop)  # NumPy's numbers would not adapt to the points' precision
    begin, end = problem.lower[axis], problem.upper[axis]

    def moved(sampler):
        def sample(n, key):
            points = sampler(n, key)
            x = jnp.asarray(coordinates(points))
            x = x.astype(jnp.result_type(x, float) if jnp.issubdtype(x.dtype, jnp.integer) else x.dtype)
            x = x.at[:, axis].set(start + (x[:, axis] - begin) * ((stop - start) / (end - begin)))
            return Points(x, **points.data) if isinstance(points, Points) else x

        return sample

    conditions = {}
    for name, condition in problem.conditions.items():
        target = condition.target
        if name in initial and before is not None:
            target = _started(condition, before, start, axis)
        conditions[name] = Condition(condition.operator, target, moved(condition.sampler))
    lower, upper = list(problem.lower), list(problem.upper)
    lower[axis], upper[axis] = start, stop
    return replace(problem, conditions=conditions, lower=tuple(lower), upper=tuple(upper))


def _started(condition: Condition, before: Function, start: float, axis: int) -> Callable[[jax.Array], jax.Array]:
    """Return a condition's target, with the values of ``before`` at the time ``start``."""

    def target(x):
        later = condition.target(x) if callable(condition.target) else condition.target
        return jnp.where(coordinates(x)[axis] <= start, condition.operator(before, x), later)

    return target


def _check(problem, start, stop, initial, before, axis):
    check_problem(problem)
    check_coordinate("axis", axis, problem.dim)
    begin, end = problem.lower[axis], problem.upper[axis]
    if not begin <= check_finite("start", start) < check_finite("stop", stop) <= end:
        raise ValueError(f"start, stop: expected increasing times from {begin} to {end}, got {start} and {stop}")
    if any(name not in list(problem.conditions) for name in initial):
        raise ValueError(f"initial: expected names of conditions, from {list(problem.conditions)}, got {initial!r}")
    if before is None:
        if start > begin:
            raise ValueError(f"before: expected the solution before the time {start}, a function of x, got None")
    else:
        check_function("before", before)
        if not initial:
            raise ValueError("initial: expected the names of the conditions that take the values of before, got none")
    for name, condition in problem.conditions.items():
        if hasattr(condition.target, "shape"):
            raise ValueError(f"problem.conditions[{name!r}].target: expected a function or a number, got values")
