"""Shared by the scripts beside this file: training that is timed, without compilation and the measurement of errors."""

import time
from collections.abc import Callable

import jax

import pinnntk_lib as pn

# one object, so that all seeds share compiled code
OPTIMIZER = pn.kernel_gradient_descent()


def relative_error(apply, problem, side):
    """Return the compiled function ``params -> relative L2 error`` on a grid of ``side`` points per side."""
    x = problem.grid(side)
    exact = problem.exact(x)

    @jax.jit
    def error(params):
        u = jax.vmap(lambda y: apply(params, y))(x)
        return pn.relative_l2_error(u, exact)

    return error


class Stopped(Exception):
    """Ends a training run from within its measurement."""


def timed(
    apply,
    params,
    problem,
    points,
    optimizer,
    weights=None,
    *,
    stride: int,
    stop: Callable,
    side: int = 100,
    key=None,
):
    """Train in one call, and measure time and error every ``stride`` steps until ``stop(step, seconds, error)``.

    The time is that of training alone, without compilation and the measurement of errors.

    Returns:
        ``{"step": [...], "seconds": [...], "error": [...]}``, with a row every ``stride`` steps.

    Raises:
        pinnntk_lib.DivergenceError: if training diverges; its ``rows`` are those before.
    """
    error = relative_error(apply, problem, side)
    rows = {"step": [], "seconds": [], "error": []}
    # the first measurement comes before the first step
    spent, started = 0.0, None

    def measure(params):
        nonlocal spent, started
        jax.block_until_ready(params)
        if started is not None:
            spent += time.perf_counter() - started
            step = stride * (len(rows["step"]) + 1)
            row = step, round(spent, 3), float(error(params))
            for name, value in zip(rows, row):
                rows[name].append(value)
            if stop(*row):
                raise Stopped
        started = time.perf_counter()
        return {}

    def run(steps, measure=None):
        setting = apply, params, problem, points, optimizer, steps, weights
        pn.train(
            *setting,
            key=key,
            log_every=stride,
            measure=measure,
            # the error that train measures itself costs nothing at two points
            test_points=problem.grid(100)[:2],
            progress=False,
        )

    run(stride)  # compiles everything
    error(params)
    try:
        run(10**9, measure)
    except Stopped:
        return rows
    except pn.DivergenceError as divergence:
        divergence.rows = rows
        raise


def reach(aim, most, stride, apply, params, problem, points, key=None):
    """Train by ``pn.kernel_gradient_descent`` until the relative error is below ``aim``, or for ``most`` steps.

    Args:
        aim: the relative L2 error to reach, on a grid of 100 points per side.
        most: maximum number of steps.
        stride: number of steps between two measurements.
        apply, params, problem, points, key: as for ``pn.train``.

    Returns:
        the rows of :func:`timed`.
    """
    return timed(
        apply,
        params,
        problem,
        points,
        OPTIMIZER,
        stride=stride,
        key=key,
        stop=lambda step, _, error: error < aim or step >= most,
    )
