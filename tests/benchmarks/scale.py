"""Time and memory of the kernel, its diagonal, its leading eigenvalues and a report, with up to 10,000 residuals.

    python tests/benchmarks/scale.py --out book/data/scale.json

The condition is the wave equation's residual; the network has four hidden layers of 256 neurons, in single precision.
Each measurement runs in its own process. Memory is the peak resident memory of this process, including Python and JAX.
Time is that of one call, including compilation for this number of points; a "first report" compiles everything.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cases import Case

WHAT = ("diagonal", "20 eigenvalues", "kernel", "first report")
SIZES = (1_000, 3_000, 10_000)
MEMORY = 2**28  # budget for intermediate results, in bytes


def measure(what, n):
    import jax
    import with_library

    import pinnntk_lib as pn

    def call(n):
        params, operators, points = with_library.setting(Case("wave", 4, 256, n), "float32")
        setting = with_library.apply, params, {"r": operators["r"]}, {"r": points["r"]}
        if what == "kernel":
            found = pn.ntk(*setting, memory=MEMORY).matrix
        elif what == "diagonal":
            found = pn.ntk_diagonal(*setting, memory=MEMORY)
        elif what == "first report":
            found = str(pn.diagnose(*setting, memory=MEMORY))
        else:
            found = pn.ntk_eigenpairs(*setting, 20, jax.random.key(0), rtol=1e-3, memory=MEMORY)
        jax.block_until_ready(found)

    if what != "first report":
        call(100)
    start = time.perf_counter()
    call(n)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"what": what, "residuals": n, "seconds": seconds, "bytes": peak}, with_library.VERSIONS


def main(arguments):
    from run import machine

    rows, versions = [], {}
    for what in WHAT:
        for n in SIZES:
            command = [sys.executable, __file__, "--measure", what, str(n)]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                sys.exit(run.stderr)
            row, versions = json.loads(run.stdout.splitlines()[-1])
            rows.append(row)
            print(row, flush=True)
    record = {
        "command": "python tests/benchmarks/scale.py",
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions,
        "rows": rows,
    }
    Path(arguments.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--out", required=True, help="where to write the results, as JSON")
        main(parser.parse_args())
