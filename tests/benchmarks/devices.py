"""Scaling of the sharded kernel: the same kernel on 1, 2, ... devices of one core each.

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
from dataclasses import asdict
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cases import Case

CASE = Case("wave", 4, 500, 600)


def measure(devices):
    import jax
    import numpy as np
    import with_library

    import pinnntk_lib as pn

    # one device needs no mesh, and is faster without one because it uses the kernel's symmetry
    mesh = jax.sharding.Mesh(np.array(jax.devices()), "points") if devices > 1 else None
    setting = with_library.apply, *with_library.setting(CASE, "float32")

    def call():
        return jax.block_until_ready(pn.ntk(*setting, mesh=mesh).matrix)

    call()
    seconds = []
    for _ in range(9):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), with_library.VERSIONS


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
        seconds, versions = json.loads(run.stdout.splitlines()[-1])
        rows.append({"devices": devices, "seconds": seconds})
        print(rows[-1], flush=True)
    record = {
        "command": f"python tests/benchmarks/devices.py --devices {' '.join(map(str, arguments.devices))}",
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions,
        "case": asdict(CASE),
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
