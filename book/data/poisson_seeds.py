"""Records the relative L2 errors of the paper's Poisson problem (a = 4, width 100) over many seeds.

    python book/data/poisson_seeds.py 100

writes ``poisson-seeds.json`` beside this file, with the command, the versions, the machine and the time taken.
"""

import json
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import jax
import numpy as np

from pinnntk_lib import experiments

jax.config.update("jax_enable_x64", True)


def main(seeds: int):
    settings = {
        name: experiments.EXPERIMENTS[f"poisson1d-{experiment}"].setting()
        for name, experiment in (("plain", "a4"), ("adaptive", "adaptive"))
    }
    start, errors = time.perf_counter(), {name: [] for name in settings}
    for seed in range(seeds):
        for name, setting in settings.items():
            params, _ = experiments.start_of(setting, seed)
            result = setting.train(params, progress=False)
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
