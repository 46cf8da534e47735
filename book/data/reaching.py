"""Shared by the scripts beside this file: timed kernel descent until an error is reached."""

import time

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


def reach(aim, most, stride, apply, params, problem, points, key=None):
    """Train by ``pn.kernel_gradient_descent`` until the relative error is below ``aim``, or for ``most`` steps.

    The time is that of training alone, without compilation and the measurement of errors.

    Args:
        aim: the relative L2 error to reach, on a grid of 100 points per side.
        most: maximum number of steps.
        stride: number of steps between two measurements.
        apply, params, problem, points, key: as for ``pn.train``.

    Returns:
        ``{"step": [...], "seconds": [...], "error": [...]}``, with a row every ``stride`` steps.
    """
    error = relative_error(apply, problem, 100)

    def further(result, steps):
        return pn.train(
            apply,
            params,
            problem,
            points,
            OPTIMIZER,
            steps,
            key=key,
            log_every=stride,
            test_points=problem.grid(100)[:2],
            progress=False,
            resume=result,
        )

    # two calls before the timing starts, which compile everything
    further(further(None, stride), 2 * stride)
    result, spent, rows = None, 0.0, {"step": [], "seconds": [], "error": []}
    for steps in range(stride, most + 1, stride):
        started = time.perf_counter()
        result = further(result, steps)
        spent += time.perf_counter() - started
        row = steps, round(spent, 2), float(error(result.params))
        for name, value in zip(rows, row):
            rows[name].append(value)
        if rows["error"][-1] < aim:
            break
    return rows
