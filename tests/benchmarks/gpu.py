"""Check the library on a GPU, and time it there against plain JAX and folx.

    python tests/benchmarks/gpu.py --out book/data/gpu.json [--seconds 480]

JAX multiplies float32 matrices on recent GPUs in TF32 by default, with errors of 1e-3. The library computes kernels
exactly to float32. The other methods are therefore timed at equal precision ("highest"), and in float32 again at JAX's
default, which the record marks. The methods of a task take turns in this one process; ``seconds`` is the median turn.

The record is written after each row. What does not fit into the time is listed in it as left out. Without a GPU the
script says so and ends; ``--anywhere --quick`` runs it on other devices, with tiny sizes, to see that it works.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parent))

import costs
import numpy as np
import optax
import with_jax
import with_library
from cases import CASES, LAPLACIANS, TRAINED, Case

import pinnntk_lib as pn
from pinnntk_lib.kernel import _costs

METHODS = with_jax.METHODS | with_library.METHODS
VERSIONS = dict(with_library.VERSIONS)
if find_spec("folx"):
    import with_folx

    METHODS |= with_folx.METHODS
    VERSIONS |= with_folx.VERSIONS
HIGHEST = partial(jax.default_matmul_precision, "highest")
CHECKED = [
    Case("poisson", 1, 500, 100),
    Case("wave", 4, 500, 300),
    Case("helmholtz", 3, 100, 300),
    *(Case(f"Laplacian, d = {d}", 3, 256, 100) for d in (10, 50)),
]
TIMED = [*((case, "float32") for case in CASES), (CASES[1], "float64"), (CASES[4], "float64")]


class Record:
    """The record of a run, a JSON file that is written anew after each row."""

    def __init__(self, file, seconds):
        self.file, self.start, self.end = Path(file), time.perf_counter(), time.perf_counter() + seconds
        self.contents = {
            "command": f"python tests/benchmarks/gpu.py --seconds {seconds:g}",
            "date": datetime.now(UTC).date().isoformat(),
            "device": jax.devices()[0].device_kind,
            "platform": jax.default_backend(),
            "driver": driver(),
            "cpu_cores": os.cpu_count(),
            "versions": VERSIONS,
            "parts": {},
            "left_out": [],
        }

    def add(self, part, what, measure):
        """Add the row that ``measure()`` returns, or the error that it raises; late ones are left out."""
        if time.perf_counter() > self.end:
            self.contents["left_out"].append(f"{part}: {what}")
        else:
            try:
                row = measure()
            except Exception as error:  # one failure must not cost the others
                row = {"failed": f"{type(error).__name__}: {error}".partition("\n")[0][:200]}
            self.contents["parts"].setdefault(part, []).append({"what": what, **row})
            print(f"{time.perf_counter() - self.start:4.0f} s  {part}: {what}  {row}", flush=True)
        self.contents["seconds"] = round(time.perf_counter() - self.start)
        self.file.write_text(json.dumps(self.contents, indent=1) + "\n")


def driver():
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return None


# ---------------------------------------------------------------- correctness


def kernel_errors(case, dtype):
    """Return the largest errors of kernels and diagonals, relative to the largest entry of K."""
    with HIGHEST():
        exact = np.asarray(with_jax.kernel_by_leaf(case, "float64")())
        found = {method: METHODS[method](case, dtype)() for method in ("auto", "structured", "jacobian")}
        found["vmap(grad), highest"] = METHODS["vmap(grad) by leaf"](case, dtype)()
    found["vmap(grad), JAX's default"] = METHODS["vmap(grad) by leaf"](case, dtype)()
    errors = {name: float(np.abs(K - exact).max()) for name, K in found.items()}
    errors["diagonal"] = float(np.abs(METHODS["ntk_diagonal"](case, dtype)() - exact.diagonal()).max())
    return {name: error / float(np.abs(exact).max()) for name, error in errors.items()}


def training_errors(optimizer, steps):
    """Return the largest relative difference of the losses from those of the CPU."""
    problem, model = pn.problems.Poisson1D(a=2), pn.MLP(50)

    def losses(device):
        with jax.default_device(device):
            params, points = model.init(jax.random.key(0)), problem.points(50)
            run = model.apply, params, problem, points, optimizer, steps
            return pn.train(*run, log_every=steps // 10, progress=False).history["losses"]

    here, there = losses(jax.devices()[0]), losses(jax.devices("cpu")[0])
    return {name: float(np.abs(here[name] / there[name] - 1).max()) for name in here}


# ---------------------------------------------------------------- time


def turns(tasks, rounds=5, least=0.1):
    """Time calls that take turns; return their median seconds, the seconds of the first calls, and errors, by name.

    ``tasks`` is ``{name: (make, context)}``, where ``make()`` returns the call. A call that fails has an error only.
    """
    calls, first, failed = {}, {}, {}
    for name, (make, context) in tasks.items():
        try:
            with context():
                call, start = make(), time.perf_counter()
                jax.block_until_ready(call())
            calls[name], first[name] = (call, context), time.perf_counter() - start
        except Exception as error:  # for instance, out of memory
            failed[name] = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
    times = {name: [] for name in calls}
    for name in list(calls) * rounds:
        (call, context), count, start = calls[name], 0, time.perf_counter()
        with context():
            while count == 0 or time.perf_counter() - start < least:
                jax.block_until_ready(call())
                count += 1
        times[name].append((time.perf_counter() - start) / count)
    return {name: statistics.median(found) for name, found in times.items()}, first, failed


def timed(case, dtype, methods, per=1, **options):
    """Return a row with the seconds per step of methods at equal precision, and of some at JAX's default."""
    make = {name: partial(METHODS[name], case, dtype, **options) for name in methods if name in METHODS}
    tasks = {name: (call, HIGHEST) for name, call in make.items()}
    if dtype == "float32":
        tasks |= {f"{name}, JAX's default": (call, nullcontext) for name, call in list(make.items())[1:]}
    seconds, first, failed = turns(tasks)
    row = {"dtype": dtype, "seconds": {name: value / per for name, value in seconds.items()}, "first": first}
    return row | ({"failed": failed} if failed else {})


def loop_sizes(case, dtype):
    """Return the seconds of a kernel for several working sets and tiles."""
    usual, platform = _costs.costs(), jax.default_backend()
    choices = [("working_set", 2**k) for k in (22, 24, 26, 28, 30)] + [("tile", 2**k) for k in (9, 10, 11, 12, 13)]
    found = {}
    try:
        for name, value in choices:
            _costs.COSTS[platform] = usual._replace(**{name: value})
            jax.clear_caches()
            found[f"{name} {value}"] = turns({"auto": (partial(METHODS["auto"], case, dtype), HIGHEST)}, 3)[0]["auto"]
    finally:
        _costs.COSTS[platform] = usual
        jax.clear_caches()
    return {"dtype": dtype, "seconds": found}


def fitted(sizes, x64):
    jax.config.update("jax_enable_x64", x64)
    try:
        found, loss = costs.costs(sizes)
    finally:
        jax.config.update("jax_enable_x64", True)
    return found | {"chosen / faster": float(loss)}


def run(record, quick):
    checked, trained = (CASES[:1], [Case(TRAINED[0].equation, 2, 8, 70)]) if quick else (CHECKED, TRAINED)
    timed_cases = [(CASES[0], "float64")] if quick else TIMED
    laplacians = [Case("Laplacian, d = 2", 2, 8, 10)] if quick else LAPLACIANS
    sizes = costs.QUICK if quick else costs.SIZES
    steps = 10 if quick else 200
    both = "float32", "float64"
    for case, dtype in product(checked, both):
        record.add("correctness", f"{case.name}, {dtype}", partial(kernel_errors, case, dtype))
    for name, optimizer, count in (
        ("100 steps of Adam", optax.adam(1e-3), 100),
        ("10 steps of kernel descent", pn.kernel_gradient_descent(), 10),
    ):
        record.add("correctness", f"{name}, float64, against the CPU", partial(training_errors, optimizer, count))
    for x64 in (False, True):
        record.add("costs", both[x64], partial(fitted, sizes, x64))
    for case, dtype in timed_cases:
        record.add("kernel", case.name, partial(timed, case, dtype, ["auto", "vmap(grad) by leaf"]))
        record.add("diagonal", case.name, partial(timed, case, dtype, ["ntk_diagonal", "vmap(grad) diagonal"]))
    for case in trained:
        methods = ["library", "plain", "channels", "jet", "folx training"]
        record.add("training step", case.name, partial(timed, case, "float32", methods, steps, steps=steps))
    for case, dtype in product(trained, both):
        methods = ["kernel descent", "plain descent"]
        record.add("descent step", case.name, partial(timed, case, dtype, methods, 10, steps=10))
    for case in laplacians:
        record.add("kernel", case.name, partial(timed, case, "float64", ["auto", "vmap(grad) by leaf", "folx"]))
        diagonals = ["ntk_diagonal", "vmap(grad) diagonal", "folx diagonal"]
        record.add("diagonal", case.name, partial(timed, case, "float64", diagonals))
    for case in (CASES[0], laplacians[0]) if quick else (CASES[4], LAPLACIANS[2]):
        record.add("loop sizes", case.name, partial(loop_sizes, case, "float32"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="file for the record, JSON")
    parser.add_argument("--seconds", type=float, default=480, help="time after which nothing new is begun")
    parser.add_argument("--anywhere", action="store_true", help="run without a GPU too")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    arguments = parser.parse_args()
    if jax.default_backend() != "gpu" and not arguments.anywhere:
        print(f"gpu.py: JAX finds no GPU here, only {jax.devices()}; --anywhere runs it all the same", file=sys.stderr)
        sys.exit(2)
    jax.config.update("jax_enable_x64", True)
    run(Record(arguments.out, arguments.seconds), arguments.quick)
