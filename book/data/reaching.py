"""Shared by the scripts beside this file: training that is timed, without compilation and the measurement of errors."""

import time
from collections.abc import Sequence

import jax

import pinnntk_lib as pn

# one object, so that all seeds share compiled code
OPTIMIZER = pn.kernel_gradient_descent()


class Stopped(Exception):
    """Ends a training run from within its measurement."""


def reach(
    aim: float,
    stages: Sequence[tuple],
    stride: int,
    apply,
    params,
    problem,
    key=None,
) -> dict[str, list]:
    """Train by ``pn.kernel_gradient_descent`` until the relative error is below ``aim``, or all steps are taken.

    Args:
        aim: the relative L2 error to reach, on a grid of 100 points per side.
        stages: pairs ``(points, steps)``, taken one after the other.
        stride: number of steps between two measurements.
        apply, params, problem, key: as for ``pn.train``.

    Returns:
        ``{"step": [...], "seconds": [...], "error": [...]}``, with a row every ``stride`` steps. The time is that of
        training alone, without compilation and the measurement of errors.
    """
    error = error_of(apply, problem)
    rows: dict[str, list] = {"step": [], "seconds": [], "error": []}
    spent, started, last = 0.0, None, params

    def measure(params):
        nonlocal spent, started, last
        jax.block_until_ready(params)
        if (
            started is not None
        ):  # the first measurement of a stage comes before its first step
            spent += time.perf_counter() - started
            last = params
            step = stride * (len(rows["step"]) + 1)
            row = step, round(spent, 3), float(error(params))
            for name, value in zip(rows, row):
                rows[name].append(value)
            if row[2] < aim:
                raise Stopped
        started = time.perf_counter()
        return {}

    def run(points, steps, measure=None):
        setting = apply, last, problem, points, OPTIMIZER, steps
        pn.train(
            *setting,
            key=key,
            log_every=stride,
            measure=measure,
            # the error that train measures itself costs nothing at two points
            test_points=problem.grid(100)[:2],
            progress=False,
        )

    error(params)
    try:
        for points, steps in stages:
            started = None
            run(points, stride)  # compiles everything
            run(points, steps, measure)
    except Stopped:
        pass
    return rows


def error_of(apply, problem):
    """Return the compiled function ``params -> relative L2 error`` on a grid of 100 points per side."""
    x = problem.grid(100)
    exact = problem.exact(x)

    @jax.jit
    def error(params):
        u = jax.vmap(lambda y: apply(params, y))(x)
        return pn.relative_l2_error(u, exact)

    return error
