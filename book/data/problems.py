"""Records how long kernel descent takes to reach a stated error on each problem beyond the paper.

    python book/data/problems.py            (all problems; writes the record)
    python book/data/problems.py NAME ...   (only these, to try them; writes nothing)

The record is ``problems.json`` beside this file. Everything is in double precision. The networks are the library's
fully connected ones, normalised. The points are a fixed lattice or, where the network would overfit it, drawn anew at
each step.
"""

import functools
import math
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import recording
from reaching import reach

import pinnntk_lib as pn

jax.config.update("jax_enable_x64", True)

SEEDS = 3
STRIDE = 5


class Setting(NamedTuple):
    """How to train on a problem, and to which error.

    Attributes:
        aim: the relative L2 error to reach.
        width, depth: width and depth of the network.
        sizes: number of points of each condition.
        fresh: whether each step draws new random points, instead of one lattice for all steps.
        crowding: the power p of x -> sign(x) |x|^p. If p > 1, it moves the points inside towards x = 0, for solutions
            that are steep there.
        most: maximum number of steps.
    """

    aim: float
    width: int
    depth: int
    sizes: dict
    fresh: bool = False
    crowding: float = 1.0
    most: int = 400


SETTINGS = {
    "Heat1D": Setting(1e-6, 50, 2, {"u": 60, "r": 200}),
    "Advection1D": Setting(1e-5, 50, 2, {"u": 100, "b": 100, "r": 700}),
    "Burgers1D": Setting(1e-3, 30, 3, {"u": 150, "r": 1000}, True, 3, 600),
    "AllenCahn1D": Setting(
        1e-2, 40, 3, {"u": 200, "b": 1, "bx": 1, "r": 1500}, True
    ),
    "Helmholtz2D": Setting(1e-5, 50, 3, {"u": 200, "r": 1000}),
    "KleinGordon1D": Setting(1e-6, 50, 2, {"u": 120, "ut": 60, "r": 800}),
    "InverseHeat1D": Setting(1e-5, 30, 2, {"data": 60, "r": 150}),
    "Schrodinger1D": Setting(
        1e-4, 40, 2, {"u": 120, "r": 800}, crowding=1.5
    ),
}


def network(name, setting, problem):
    """Return ``(apply, init)`` of the network, with what the problem needs around it."""
    width, depth = setting.width, setting.depth
    if name == "AllenCahn1D":
        # the interval becomes a circle, so the network is periodic for all parameters
        model = pn.MLP(
            width, depth, 3, shift=(0.5, 0, 0), scale=(0.3, 0.7, 0.7)
        )

        def on_circle(params, x):
            angle = math.pi * x[1]
            z = jnp.stack([x[0], jnp.cos(angle), jnp.sin(angle)])
            return model.apply(params, z)

        return on_circle, model.init
    inside = problem.points(setting.sizes)["r"]
    model = pn.MLP(width, depth, 2, **pn.normalization(inside))
    if name == "InverseHeat1D":

        def and_coefficient(params, x):
            u = model.apply(params["network"], x)
            return jnp.stack([u, params["log_diffusivity"]])

        return and_coefficient, lambda key: {
            "network": model.init(key),
            "log_diffusivity": jnp.zeros(()),
        }
    if name == "Schrodinger1D":

        def both(params, x):
            return jnp.stack([model.apply(p, x) for p in params])

        return both, lambda key: [
            model.init(k) for k in jax.random.split(key)
        ]
    return model.apply, model.init


def points_of(setting, problem):
    """Return a lattice, or a function that draws points; both crowd towards x = 0 as the setting says."""
    end, power = problem.upper[1], setting.crowding

    def crowded(points):
        x = points["r"][:, 1] / end
        x = end * jnp.sign(x) * jnp.abs(x) ** power
        return points | {"r": points["r"].at[:, 1].set(x)}

    if setting.fresh:
        return lambda key: crowded(problem.points(setting.sizes, key))
    return crowded(problem.points(setting.sizes))


@functools.cache  # the same objects for all seeds, so that they share compiled code
def case(name):
    """Return ``(problem, apply, init, points)``."""
    setting, problem = SETTINGS[name], getattr(pn.problems, name)()
    points = points_of(setting, problem)
    return problem, *network(name, setting, problem), points


def run(name, seed):
    setting = SETTINGS[name]
    problem, apply, init, points = case(name)
    first, key = jax.random.split(jax.random.key(seed))
    return reach(
        setting.aim,
        setting.most,
        STRIDE,
        apply,
        init(first),
        problem,
        points,
        key,
    )


def main(names):
    started, found = time.perf_counter(), {}
    for name in names or SETTINGS:
        rows = [run(name, seed) for seed in range(SEEDS)]
        ends = {part: [row[part][-1] for row in rows] for part in rows[0]}
        found[name] = SETTINGS[name]._asdict() | {
            "ends": ends,
            "seed 0": rows[0],
        }
        print(name, ends, flush=True)
    if not names:
        recording.write(__file__, SEEDS, started, {"problems": found})


if __name__ == "__main__":
    main(sys.argv[1:])
