"""Time every method of computing the kernel on the same cases, side by side in one run.

    python tests/benchmarks/run.py --out book/data/benchmarks.json
        [--torch PYTHON] [--neural-tangents PYTHON] [--quick]

Each measurement runs in its own process. Memory is the peak of the process's resident set minus its size before the
call; compiled code comes from a cache, so the compiler's own memory is not counted. PYTHON is the interpreter of an
environment that has the other library; if it is not given, that library is left out.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from cases import CASES, SWEEPS, Case  # noqa: E402

KERNELS = ["auto", "structured", "jacobian", "vmap(grad)", "vmap(grad) by leaf"]
DIAGONALS = ["ntk_diagonal", "vmap(grad) diagonal", "jaxpi diagonal"]
SWEPT = ["auto", "structured", "jacobian", "vmap(grad)"]
IMPLEMENTATIONS = ["Jacobian contraction", "NTK-vector products", "structured derivatives", "auto"]
ROUNDS, SECONDS = 2, 1.5  # processes per measurement (one in sweeps); minimum seconds of repeated calls in each
TIMEOUT = 240


# ---------------------------------------------------------------- one measurement, in its own process


def measure(module, method, case, dtype, memory):
    library = __import__(module)
    if module != "with_torch":
        import jax

        settings = {
            "jax_compilation_cache_dir": os.environ["BENCHMARK_CACHE"],
            "jax_persistent_cache_min_compile_time_secs": 0.0,
            "jax_persistent_cache_min_entry_size_bytes": -1,
        }
        for name, value in settings.items():
            if hasattr(jax.config, name):  # older versions of JAX lack the last one
                jax.config.update(name, value)
    call = library.METHODS[method](case, dtype)
    if memory:
        before = resident("VmRSS")
        library.finished(call())
        return {"bytes": resident("VmHWM") - before}
    start = time.perf_counter()
    result = library.finished(call())
    first, seconds, begin = time.perf_counter() - start, [], time.perf_counter()
    while len(seconds) < 3 or (time.perf_counter() - begin < SECONDS and len(seconds) < 200):
        start = time.perf_counter()
        library.finished(call())
        seconds.append(time.perf_counter() - start)
    # all methods of one kind must agree on the sum
    return {"first": first, "seconds": seconds, "sum": float(abs(result).sum()), "versions": library.VERSIONS}


def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


# ---------------------------------------------------------------- the run


def measured(python, module, method, case, rounds, cache):
    """Return ``{"seconds", "first", "bytes", "sum", "versions"}``, seconds as a median, or ``{"failed": why}``."""

    def process(memory):
        command = [python, __file__, "--measure", module, method, json.dumps(asdict(case)), str(int(memory))]
        environment = os.environ | {"BENCHMARK_CACHE": cache, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
        try:
            run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return None, f"took more than {TIMEOUT} s"
        lines = [line for line in run.stdout.splitlines() if line.startswith("RESULT ")]
        if run.returncode or not lines:
            return None, (run.stderr.strip().splitlines() or [f"ended with status {run.returncode}"])[-1][:300]
        return json.loads(lines[-1][7:]), None

    results = []
    for _ in range(rounds):
        result, why = process(memory=False)
        if why:
            return {"failed": why}
        results.append(result)
    memory, why = process(memory=True)
    return {
        "seconds": statistics.median(second for result in results for second in result["seconds"]),
        "first": results[0]["first"],
        "bytes": None if why else memory["bytes"],
        "sum": results[0]["sum"],
        "versions": results[0]["versions"],
    }


def machine():
    # imported here because --measure also runs in environments without this library
    from pinnntk_lib import experiments

    return experiments.machine() | {"python": platform.python_version()}


def main(arguments):
    plan = [(case, method) for case in CASES for method in KERNELS + DIAGONALS]
    plan += [(case, method) for sweep in SWEEPS.values() for case in sweep for method in SWEPT]
    others = []
    if arguments.torch:
        others += [(arguments.torch, "with_torch", "torch.func")]
    if arguments.neural_tangents:
        others += [
            (arguments.neural_tangents, "with_neural_tangents", f"neural-tangents, {name}") for name in IMPLEMENTATIONS
        ]
    jobs = [(sys.executable, "with_jax", method, case) for case, method in plan]
    jobs += [(python, module, method, case) for case in CASES for python, module, method in others]
    rounds = ROUNDS
    if arguments.quick:
        jobs = [(*job[:3], Case(job[3].equation, job[3].depth, 8, 6)) for job in jobs]
        rounds = 1
    jobs = sorted(dict.fromkeys(jobs), key=lambda job: job[3].name)  # all methods of a case in succession
    rows, versions = [], {}
    with tempfile.TemporaryDirectory() as cache:
        for python, module, method, case in jobs:
            row = measured(python, module, method, case, rounds if case in CASES else 1, cache)
            versions |= row.pop("versions", {})
            rows.append({"case": asdict(case), "method": method, **row})
            print(case.name, "|", method, "|", {k: v for k, v in row.items()}, flush=True)
    record = {
        "command": "python tests/benchmarks/run.py" + " --quick" * arguments.quick,
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions,
        "dtype": "float32",
        "sweeps": {name: [asdict(case) for case in sweep] for name, sweep in SWEEPS.items()},
        "cases": [asdict(case) for case in CASES],
        "rows": rows,
    }
    Path(arguments.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        module, method, case, memory = sys.argv[2:6]
        print("RESULT", json.dumps(measure(module, method, Case(**json.loads(case)), "float32", memory == "1")))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--out", required=True, help="where to write the results, as JSON")
        parser.add_argument("--torch", metavar="PYTHON", help="an interpreter with torch and numpy")
        parser.add_argument("--neural-tangents", metavar="PYTHON", help="an interpreter with neural-tangents")
        parser.add_argument("--quick", action="store_true", help="tiny networks, to see that everything runs")
        main(parser.parse_args())
