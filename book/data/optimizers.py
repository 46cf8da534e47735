"""Records the error that each optimiser reaches in equal time, on the paper's Poisson problem and wave equation.

    python book/data/optimizers.py

writes ``optimizers.json`` beside this file. Everything is in double precision. The time is that of training alone,
without compilation and the measurement of errors. The Poisson problem is the paper's (a = 4, width 100, 100 points per
condition). For the wave equation, the network has three layers of 100 and the points inside are a fixed lattice of 600,
the same for all optimisers.
"""

import functools
import json
import time
from pathlib import Path

import jax
import numpy as np
import optax
from reaching import timed

import pinnntk_lib as pn
from pinnntk_lib import experiments

jax.config.update("jax_enable_x64", True)

SECONDS = {"Poisson, a = 4": 20, "wave equation": 180}
SEEDS = {"Poisson, a = 4": 3, "wave equation": 1}
MOMENTS = 25  # number of error measurements, from a hundredth of the time to all of it


@functools.cache  # the same objects for all seeds, so that they share compiled code
def setting(name):
    if name == "wave equation":
        problem = pn.problems.Wave1D()
        points = problem.points({"u": 200, "ut": 100, "r": 600})
        return (
            problem,
            points,
            pn.MLP(100, 3, 2, **pn.normalization(points["r"])),
        )
    problem = pn.problems.Poisson1D(a=4)
    points = problem.points(100)
    return problem, points, pn.MLP(100, **pn.normalization(points["r"]))


@functools.cache
def methods(name):
    """Return ``{name: (optimiser, weights, steps per call)}``; a call takes a few hundredths of a second or more."""
    poisson = name.startswith("Poisson")
    adam = optax.adam(optax.exponential_decay(1e-3, 2000, 0.9))
    few = 2000 if poisson else 100
    return {
        "gradient descent, Alg. 1": (
            optax.sgd(8e-5 if poisson else 1e-4),
            pn.NTKWeights(100),
            few,
        ),
        "Adam": (adam, None, few),
        "Adam, Algorithm 1": (adam, pn.NTKWeights(100), few),
        "L-BFGS": (optax.lbfgs(), None, 50 if poisson else 10),
        "kernel descent": (
            pn.kernel_gradient_descent(),
            None,
            5 if poisson else 1,
        ),
    }


def trained(name, method, seed):
    """Return the steps, seconds and errors of one run, at moments from a hundredth of the time to all of it."""
    problem, points, model = setting(name)
    optimizer, weights, stride = methods(name)[method]
    params = model.init(jax.random.key(seed))
    try:
        rows = timed(
            model.apply,
            params,
            problem,
            points,
            optimizer,
            weights,
            stride=stride,
            side=round(2500 ** (1 / problem.dim)),
            stop=lambda _, seconds, __: seconds >= SECONDS[name],
        )
    except pn.DivergenceError as divergence:
        rows = divergence.rows
        for row, last in (("step", 0), ("seconds", 0.0), ("error", np.inf)):
            rows[row].append(last)
        return rows
    moments = np.geomspace(SECONDS[name] / 100, SECONDS[name], MOMENTS)
    kept = np.searchsorted(rows["seconds"], moments)
    kept = np.unique(np.minimum(kept, len(rows["step"]) - 1))
    return {row: [values[i] for i in kept] for row, values in rows.items()}


def main():
    started, found = time.perf_counter(), {}
    for name, seeds in SEEDS.items():
        found[name] = {}
        for method in methods(name):
            runs = [trained(name, method, seed) for seed in range(seeds)]
            ends = [run["error"][-1] for run in runs]
            median = runs[int(np.argsort(ends)[len(ends) // 2])]
            found[name][method] = median | {"ends": ends}
            print(name, method, [f"{end:.1e}" for end in ends], flush=True)
    record = experiments.provenance("python book/data/optimizers.py") | {
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "seeds": SEEDS,
        "seconds": SECONDS,
        "problems": found,
    }
    Path(__file__).with_suffix(".json").write_text(
        json.dumps(record, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
