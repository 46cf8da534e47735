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
from reaching import relative_error

import pinnntk_lib as pn
from pinnntk_lib import experiments

jax.config.update("jax_enable_x64", True)

SECONDS = {"Poisson, a = 4": 20, "wave equation": 300}
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
            2 if poisson else 1,
        ),
    }


def trained(name, method, seed):
    """Return the steps, seconds and errors of one run, with as many calls as the time allows."""
    problem, points, model = setting(name)
    optimizer, weights, stride = methods(name)[method]
    params = model.init(jax.random.key(seed))
    side = round(2500 ** (1 / problem.dim))
    error = relative_error(model.apply, problem, side)
    options = {"test_points": problem.grid(side)[:2], "progress": False}

    def further(result, steps):
        options.update(log_every=stride, resume=result)
        return pn.train(
            model.apply,
            params,
            problem,
            points,
            optimizer,
            steps,
            weights,
            **options,
        )

    # two calls before the timing starts, which compile everything
    further(further(None, stride), 2 * stride)
    moments = np.geomspace(SECONDS[name] / 100, SECONDS[name], MOMENTS)
    rows, spent, result = [], 0.0, None
    while spent < SECONDS[name]:
        started = time.perf_counter()
        try:
            done = 0 if result is None else int(result.state.step)
            result = further(result, done + stride)
        except pn.DivergenceError:
            rows.append((0, spent, float("inf")))
            break
        spent += time.perf_counter() - started
        if spent >= moments[min(len(rows), MOMENTS - 1)] or not rows:
            rows.append(
                (int(result.state.step), spent, float(error(result.params)))
            )
    return dict(zip(("step", "seconds", "error"), map(list, zip(*rows))))


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
