"""Records how long kernel descent takes to reach a stated error on further problems, and on the paper's wave equation.

    python book/data/problems.py            (all problems; writes the record)
    python book/data/problems.py NAME ...   (only these, to try them; writes nothing)
    python book/data/problems.py --again NAME ...   (only these; puts them into the record)

The record is ``problems.json`` beside this file. Everything is in double precision. The networks are the library's
fully connected ones, normalised. The points are a fixed lattice; where the network would overfit it, the first steps
draw theirs anew.

For comparison, the record also has the time of a step of the experiment ``wave1d-adaptive`` on this machine, measured
before and after the wave equation, in a process of its own. That network has three layers of 500, in single precision.
"""

import functools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import recording
from reaching import reach

import pinnntk_lib as pn
from pinnntk_lib import experiments

SEEDS = 3
STRIDE = 5


class Setting(NamedTuple):
    """How to train on a problem, and to which error.

    Attributes:
        aims: pairs of a relative L2 error and the seconds in which we set out to reach it. Training ends at the last.
        width, depth: width and depth of the network.
        sizes: number of points of each condition.
        problem: the function in ``pn.problems`` that sets it up.
        arguments: its arguments.
        fresh: for how many steps each draws new random points. After these, a lattice is kept.
        lattice: number of points of this lattice, where it has others than ``sizes``.
        crowding: the power p of x -> sign(x) |x|^p. If p > 1, it moves the points inside towards x = 0, for solutions
            that are steep there.
        most: maximum number of steps.
    """

    aims: tuple
    width: int
    depth: int
    sizes: dict
    problem: str
    arguments: tuple = ()
    fresh: int = 0
    lattice: dict | None = None
    crowding: float = 1.0
    most: int = 400


BURGERS = {"u": 150, "r": 1000}, "Burgers1D"
SETTINGS = {
    "heat": Setting(((1e-6, 60),), 50, 2, {"u": 60, "r": 200}, "Heat1D"),
    "heat, inverse": Setting(
        ((1e-5, 60),), 30, 2, {"data": 60, "r": 150}, "InverseHeat1D"
    ),
    "advection": Setting(
        ((1e-5, 180),), 50, 2, {"u": 100, "b": 100, "r": 700}, "Advection1D"
    ),
    "Helmholtz": Setting(
        ((1e-5, 180),), 50, 3, {"u": 200, "r": 1000}, "Helmholtz2D"
    ),
    "Klein-Gordon": Setting(
        ((1e-6, 180),),
        50,
        2,
        {"u": 120, "ut": 60, "r": 800},
        "KleinGordon1D",
    ),
    "Schrodinger": Setting(
        ((1e-4, 180),),
        40,
        2,
        {"u": 120, "r": 800},
        "Schrodinger1D",
        crowding=1.5,
    ),
    "Allen-Cahn": Setting(
        ((1e-4, 300),),
        40,
        3,
        {"u": 200, "b": 1, "bx": 1, "r": 1500},
        "AllenCahn1D",
        fresh=400,
    ),
    "Burgers": Setting(
        ((1e-4, 60), (1e-6, 600)),
        50,
        3,
        *BURGERS,
        fresh=250,
        lattice={"u": 300, "r": 2500},
        crowding=3,
    ),
    "Burgers, 0.01": Setting(
        ((1e-6, 120), (1e-8, 600)),
        40,
        4,
        *BURGERS,
        (0.01,),
        fresh=150,
        lattice={"u": 400, "r": 3000},
        crowding=2,
        most=200,
    ),
    "wave": Setting(
        ((1e-3, 90), (1e-5, 600)),
        100,
        3,
        {"u": 466, "ut": 233, "r": 1400},
        "Wave1D",
    ),
}


def network(setting, problem):
    """Return ``(apply, init)`` of the network, with what the problem needs around it."""
    width, depth = setting.width, setting.depth
    if setting.problem == "AllenCahn1D":
        # the interval becomes a circle, so the network is periodic for all parameters
        model = pn.MLP(
            width, depth, 3, shift=(0.5, 0, 0), scale=(0.3, 0.7, 0.7)
        )
        return pn.models.periodic_inputs(
            model.apply, (None, 2.0)
        ), model.init
    inside = problem.points(setting.sizes)["r"]
    model = pn.MLP(width, depth, 2, **pn.normalization(inside))
    if setting.problem == "InverseHeat1D":

        def and_coefficient(params, x):
            u = model.apply(params["network"], x)
            return jnp.stack([u, params["log_diffusivity"]])

        return and_coefficient, lambda key: {
            "network": model.init(key),
            "log_diffusivity": jnp.zeros(()),
        }
    if setting.problem == "Schrodinger1D":

        def both(params, x):
            return jnp.stack([model.apply(p, x) for p in params])

        return both, lambda key: [
            model.init(k) for k in jax.random.split(key)
        ]
    return model.apply, model.init


def stages_of(setting, problem):
    """Return pairs ``(points, steps)``; all points crowd towards x = 0 as the setting says."""
    end, power = problem.upper[1], setting.crowding

    def crowded(points):
        x = points["r"][:, 1] / end
        x = end * jnp.sign(x) * jnp.abs(x) ** power
        return points | {"r": points["r"].at[:, 1].set(x)}

    def fresh(key):
        return crowded(problem.points(setting.sizes, key))

    lattice = crowded(problem.points(setting.lattice or setting.sizes))
    stages = (fresh, setting.fresh), (lattice, setting.most - setting.fresh)
    return [(points, steps) for points, steps in stages if steps > 0]


@functools.cache  # the same objects for all seeds, so that they share compiled code
def case(name):
    """Return ``(problem, apply, init, stages)``."""
    setting = SETTINGS[name]
    problem = getattr(pn.problems, setting.problem)(*setting.arguments)
    stages = stages_of(setting, problem)
    return problem, *network(setting, problem), stages


def run(name, seed):
    setting = SETTINGS[name]
    problem, apply, init, stages = case(name)
    first, key = jax.random.split(jax.random.key(seed))
    start = init(first)
    aim, _ = setting.aims[-1]
    return reach(aim, stages, STRIDE, apply, start, problem, key)


def algorithm_1(name):
    """Return the seconds per step of an experiment, including the update of its weights every 100 steps."""
    setting = experiments.EXPERIMENTS[name].setting()
    params, key = experiments.start_of(setting, 0)

    def train(steps, **options):
        options |= {"log_every": 100, "progress": False}
        return setting.train(params, key, steps, **options)

    compiled = train(200, resume=train(100))
    started = time.perf_counter()
    train(400, resume=compiled)
    return (time.perf_counter() - started) / 200


def elsewhere(name):
    """Return what :func:`algorithm_1` measures in a process of its own."""
    command = [sys.executable, __file__, "--step", name]
    options = {"check": True, "capture_output": True, "text": True}
    return float(subprocess.run(command, **options).stdout)


def rounded(rows):
    return {
        part: [float(f"{value:.3g}") for value in values]
        if part == "error"
        else values
        for part, values in rows.items()
    }


def record_again(found):
    """Put problems into the record, each with how it was made."""
    file = Path(__file__).with_suffix(".json")
    record = json.loads(file.read_text())
    command = f"python book/data/problems.py {' '.join(sys.argv[1:])}"
    made = experiments.provenance(command)
    record["problems"] |= {
        name: of | {"made": made} for name, of in found.items()
    }
    file.write_text(json.dumps(record, indent=1) + "\n")


def main(names, again=False):
    started, found, price = time.perf_counter(), {}, []
    for name in names or SETTINGS:
        if name == "wave":
            price.append(elsewhere("wave1d-adaptive"))
        rows = [rounded(run(name, seed)) for seed in range(SEEDS)]
        if name == "wave":
            price.append(elsewhere("wave1d-adaptive"))
        found[name] = SETTINGS[name]._asdict() | {"runs": rows}
        for row in rows:
            print(name, *(values[-1] for values in row.values()), flush=True)
    if again:
        record_again(found)
    elif not names:
        results = {
            "problems": found,
            "seconds_a_step_of_wave1d_adaptive": price,
        }
        recording.write(__file__, SEEDS, started, results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        print(algorithm_1(sys.argv[2]))
    else:
        jax.config.update("jax_enable_x64", True)
        names = [name for name in sys.argv[1:] if name != "--again"]
        main(names, again="--again" in sys.argv[1:])
