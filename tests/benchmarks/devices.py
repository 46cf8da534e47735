"""Scaling over devices: a kernel, training steps and descent steps on 1, 2, ... devices of one core each.

    python tests/benchmarks/devices.py --out book/data/devices.json [--devices 1 2]

Each number of devices runs in its own process, because JAX fixes the number when it starts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cases import TRAINED, Case

KERNEL, EQUATION = Case("wave", 4, 500, 600), TRAINED[0]
STEPS = {"training step": 20, "descent step": 5}


def calls(devices):
    """Return ``{what: call}``, each call on all devices, and the versions of the packages."""
    import jax
    import numpy as np
    import with_library

    import pinnntk_lib as pn

    # one device needs no mesh, and is faster without one because it uses the kernel's symmetry
    mesh = jax.sharding.Mesh(np.array(jax.devices()), "points") if devices > 1 else None
    setting = with_library.apply, *with_library.setting(KERNEL, "float32")
    trained = {"training step": "library", "descent step": "kernel descent"}
    return {
        "kernel": lambda: pn.ntk(*setting, mesh=mesh).matrix,
        **{
            what: with_library.METHODS[method](EQUATION, "float32", STEPS[what], mesh=mesh)
            for what, method in trained.items()
        },
    }, with_library.VERSIONS


def measure(devices):
    """Return the median seconds of each call, and the versions of the packages."""
    import jax

    found = {}
    methods, versions = calls(devices)
    for what, call in methods.items():
        jax.block_until_ready(call())
        seconds = []
        for _ in range(9):
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds.append(time.perf_counter() - start)
        found[what] = statistics.median(seconds) / STEPS.get(what, 1)
    return found, versions


def main(arguments):
    from run import machine

    rows, versions = [], {}
    for devices in arguments.devices:
        flags = f"--xla_force_host_platform_device_count={devices} --xla_cpu_multi_thread_eigen=false"
        cores = ",".join(map(str, range(devices)))  # one core per device
        command = ["taskset", "-c", cores, sys.executable, __file__, "--measure", str(devices)]
        run = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"XLA_FLAGS": flags})
        if run.returncode:
            sys.exit(run.stderr)
        found, versions = json.loads(run.stdout.splitlines()[-1])
        rows += [{"what": what, "devices": devices, "seconds": seconds} for what, seconds in found.items()]
        print(devices, found, flush=True)
    record = {
        "command": f"python tests/benchmarks/devices.py --devices {' '.join(map(str, arguments.devices))}",
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions,
        "kernel": KERNEL.name,
        "equation": EQUATION.name,
        "rows": rows,
    }
    Path(arguments.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--out", required=True, help="where to write the results, as JSON")
        parser.add_argument("--devices", type=int, nargs="+", default=[1, 2])
        main(parser.parse_args())
