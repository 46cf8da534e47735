"""Records the relative L2 errors of the paper's Poisson problem (a = 4, width 100) over many seeds.

    python book/data/poisson_seeds.py 100

writes ``poisson-seeds.json`` beside this file, with the command, the versions, the machine and the time it took.
"""

import json
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import jax
import numpy as np
import optax

import pinnntk_lib as pn

jax.config.update("jax_enable_x64", True)


def main(seeds: int):
    problem = pn.problems.Poisson1D(a=4)
    points = problem.points(100)
    model = pn.MLP(100, **pn.normalization(points["r"]))
    optimizer = optax.sgd(1e-5)
    start, errors = time.perf_counter(), {"plain": [], "adaptive": []}
    for seed in range(seeds):
        params = model.init(jax.random.key(seed))
        for name, weights in (
            ("plain", None),
            ("adaptive", pn.NTKWeights(every=100)),
        ):
            result = pn.train(
                model.apply,
                params,
                problem,
                points,
                optimizer,
                40_000,
                weights,
                progress=False,
            )
            errors[name].append(float(result.history["error"][-1]))
    record = {
        "command": f"python book/data/poisson_seeds.py {seeds}",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "versions": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
        },
        "machine": f"{platform.machine()}, {jax.devices()[0].device_kind}, float64",
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "seeds": f"0 to {seeds - 1}",
        "relative_l2_error": {
            name: [float(f"{e:.6g}") for e in values]
            for name, values in errors.items()
        },
    }
    Path(__file__).with_name("poisson-seeds.json").write_text(
        json.dumps(record, indent=1) + "\n"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
