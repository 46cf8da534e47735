"""Check the library on a GPU, and time it there against plain JAX and folx.

    python tests/benchmarks/gpu.py --out book/data/gpu.json [--seconds 480] [--parts PART ...]

The parts, in this order:

    correctness    the largest errors of kernels and diagonals, relative to the largest entry of the Jacobian product
                   in float64 by plain JAX; the relative differences of training's losses from those on the CPU
    costs          the numbers of ``pinnntk_lib/kernel/_costs.py``
    kernel         the kernel, against plain JAX and folx
    diagonal       the same of its diagonal
    training       a training step, against plain JAX, jet and folx
    descent        a step of kernel gradient descent, against plain JAX with the whole Jacobian. That makes one attempt
                   per step at a constant damping: a lower bound, since the optimiser adapts its damping

JAX multiplies float32 matrices on recent GPUs in TF32 by default, with errors of 1e-3. The library computes kernels
exactly to float32. All methods are therefore timed at equal precision ("highest"), and in float32 again at JAX's
default, which the record marks.

The methods of a task take turns in this one process. ``seconds`` is the median turn, per step in training. A call of
the library's ``train`` first checks its arguments, which can take longer than a hundred steps; ``further`` is the time
of a step without that. ``difference`` is that of the result from the library's. Compiling is what takes most of the
time, so programs are compiled beside one another, and times of first calls would mean nothing.

Each part has a share of the time, and passes on what it does not use. What does not fit is listed in the record as left
out. The record is written after each task. With ``--parts``, the other parts of a record that was made on the same
device with the same versions are kept. Without a GPU the script says so and ends; ``--anywhere --quick`` runs it on
other devices, with tiny sizes, to see that it works.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).parent))

import costs
import with_jax
import with_library
from cases import CASES, LAPLACIANS, STEPS, TRAINED, Case

import pinnntk_lib as pn
from pinnntk_lib.kernel import _costs
from pinnntk_lib.kernel._plan import plan_of

METHODS = with_jax.METHODS | with_library.METHODS
VERSIONS = dict(with_library.VERSIONS)
ABSENT = {}
try:
    import with_folx
except ImportError as error:
    ABSENT["folx"] = str(error)
else:
    METHODS |= with_folx.METHODS
    VERSIONS |= with_folx.VERSIONS

# The parts' shares of the time. "other precision" adds rows to the kernel and the diagonal.
SHARES = {"correctness": 2, "costs": 3, "kernel and diagonal": 4, "training": 2, "descent": 2, "other precision": 2}
PARTS = ("correctness", "costs", "kernel", "diagonal", "training", "descent")
BOTH = "float32", "float64"
DEFAULT = ", JAX's default"  # marks a method at JAX's default precision
BOUNDS = {"float32": 1e-5, "float64": 1e-12, "losses": 1e-8}  # on the library's errors
ROUNDS, TURN = 5, 0.1  # turns of each method, and their least seconds
BATCH = 12  # programs that are compiled beside one another
ONE = ", one step"  # marks a call of one training step


class Sizes(NamedTuple):
    checked: list[Case]
    fitted: list[tuple[int, int, int]]
    swept: list[tuple[str, list[int], Case]]
    timed: list[Case]
    laplacians: list[Case]
    trained: list[Case]
    steps: dict[str, int]


FULL = Sizes(
    checked=[
        *(Case("poisson", 1, 500, 100), Case("wave", 4, 500, 300), Case("helmholtz", 3, 100, 300)),
        *(Case(f"Laplacian, d = {d}", 3, 256, 100) for d in (10, 50)),
    ],
    fitted=list(itertools.product((200, 1000), (64, 256, 512), (1, 4, 12, 52))),
    swept=[
        ("working_set", [2**k for k in (22, 24, 26, 28, 30)], Case("wave", 4, 500, 1000)),
        ("tile", [2**k for k in (9, 10, 11, 12, 13)], Case("wave residual", 3, 256, 8000)),
        ("working_set", [2**k for k in (22, 24, 26, 28, 30)], Case("Laplacian, d = 50", 3, 256, 500)),
    ],
    timed=CASES,
    laplacians=LAPLACIANS,
    trained=TRAINED,
    steps={"100 steps of Adam": 100, "training": STEPS, "descent": 10},
)
QUICK = Sizes(
    checked=[Case("Laplacian, d = 2", 2, 8, 10)],
    fitted=costs.QUICK,
    swept=[("tile", [8, 512], Case("value", 1, 8, 20))],
    timed=[Case("poisson", 1, 8, 10)],
    laplacians=[Case("Laplacian, d = 2", 1, 8, 10)],
    trained=[Case("wave problem", 1, 8, 14)],
    steps={"100 steps of Adam": 100, "training": 5, "descent": 2},
)


class Task(NamedTuple):
    """A measurement of a part.

    ``rows`` makes rows of the record from the jobs' results. A job that fails has its error as its result.
    """

    part: str
    what: str
    jobs: dict[Any, Callable[[], Any]]
    rows: Callable[[dict[Any, Any]], list[dict]]


class Failed(str):
    """The first line of an error."""


def attempt(call):
    """Return the call's result, or its error: one failure must not cost the others."""
    try:
        return call()
    except Exception as error:
        return Failed(f"{type(error).__name__}: {error}".partition("\n")[0][:200])


def split(results):
    """Return the results of jobs, and a row's entry for those that failed, if any."""
    failed = {str(key): result for key, result in results.items() if isinstance(result, Failed)}
    found = {key: result for key, result in results.items() if not isinstance(result, Failed)}
    return found, {"failed": failed} if failed else {}


def both_failed(*entries):
    failed = {name: error for entry in entries for name, error in entry.get("failed", {}).items()}
    return {"failed": failed} if failed else {}


def at(precision):
    """Return a context. Code is compiled anew for each precision, so calls need the same one as their first."""
    return jax.default_matmul_precision(precision) if precision else nullcontext()


# ---------------------------------------------------------------- correctness


def correctness(sizes):
    for what, optimizer, steps in (
        ("100 steps of Adam", optax.adam(1e-3), sizes.steps["100 steps of Adam"]),
        ("10 steps of kernel descent", pn.kernel_gradient_descent(), 10),
    ):
        platforms = {"here": None, "on the CPU": "cpu"}
        jobs = {name: partial(losses, platform, optimizer, steps) for name, platform in platforms.items()}
        yield Task("correctness", f"{what}, float64, against the CPU", jobs, partial(training_errors, what))
    for case in sizes.checked:
        yield kernel_errors(case)


def kernel_errors(case):
    """Return a task with a row for each dtype. The library's methods run at JAX's default precision."""

    def found(method, dtype, precision):
        with at(precision):
            return np.asarray(METHODS[method](case, dtype)(), float)

    plain, exact = "vmap(grad) by leaf", ("exact", "float64")
    jobs = {exact: partial(found, plain, "float64", "highest")}
    for dtype in BOTH:
        for method in ("auto", "structured", "jacobian"):
            jobs[method, dtype] = partial(found, method, dtype, None)
        jobs["diagonal", dtype] = partial(found, "ntk_diagonal", dtype, None)
    jobs["vmap(grad), highest", "float32"] = partial(found, plain, "float32", "highest")
    jobs[f"vmap(grad){DEFAULT}", "float32"] = partial(found, plain, "float32", None)

    def row(results, dtype):
        own, failed = split({name: result for (name, of), result in results.items() if of == dtype})
        K = results[exact]
        errors = {name: abs(A - (K if A.ndim == 2 else K.diagonal())).max() for name, A in own.items()}
        errors.pop("exact", None)
        relative = {name: float(error / abs(K).max()) for name, error in errors.items()}
        return {"what": f"{case.name}, {dtype}", **relative, "bound": BOUNDS[dtype], **failed}

    return Task("correctness", case.name, jobs, lambda results: [row(results, dtype) for dtype in BOTH])


def losses(platform, optimizer, steps):
    problem, model = pn.problems.Poisson1D(a=2), pn.MLP(50)
    with jax.default_device(jax.devices(platform)[0]):
        params, points = model.init(jax.random.key(0)), problem.points(50)
        run = model.apply, params, problem, points, optimizer, steps
        return pn.train(*run, log_every=steps // 10, progress=False).history["losses"]


def training_errors(what, results):
    found, failed = split(results)
    row = {"what": f"{what}, float64, against the CPU", "bound": BOUNDS["losses"]} | failed
    if not failed:
        here, there = found.values()
        row |= {name: float(abs(here[name] / there[name] - 1).max()) for name in here}
    return [row]


# ---------------------------------------------------------------- costs


def device_costs(sizes):
    for dtype in BOTH:
        jobs = {
            (form, size): partial(costs.program, form, *size, dtype) for size in sizes.fitted for form in costs.FORMS
        }
        yield Task("costs", dtype, jobs, partial(fitted, sizes.fitted, dtype))
    for name, values, case in sizes.swept:
        measure = partial(swept, name, values, case)
        yield Task("costs", f"{name}, {case.name}, float32", {}, lambda _, measure=measure: [measure()])


def fitted(sizes, dtype, results):
    """Return a row with the fitted costs, and with how well they and the present ones choose."""
    programs, failed = split(results)
    sizes = [size for size in sizes if all((form, size) in programs for form in costs.FORMS)]
    times = np.array([[costs.seconds(programs[form, size]) for form in costs.FORMS] for size in sizes])
    row = {"what": dtype, **failed}
    present = {name: getattr(_costs.costs(), name) for name in ("accumulate", "assemble", "write")}
    for key, found in (("", costs.fit(sizes, times)), (" of the present", present)):
        if found:
            row |= {} if key else found
            row["chosen / faster" + key] = costs.chosen_to_faster(sizes, times, **found)
    names = "points", "side", "channels", "by pairs", "assembled"
    return [row | {"seconds": [dict(zip(names, (*size, *pair))) for size, pair in zip(sizes, times.tolist())]}]


def swept(name, values, case):
    """Return a row with the seconds of a kernel for several values of one of the library's costs, and the fastest."""
    usual, platform = _costs.costs(), jax.default_backend()
    present, lowered = _costs.COSTS.get(platform), {}
    params, operators, points = with_library.setting(case, "float32")

    def lower(value):
        _costs.COSTS[platform] = usual._replace(**{name: value})
        forget()
        kernel = jax.jit(lambda params, points: pn.ntk(with_library.apply, params, operators, points).matrix)
        return kernel.lower(params, points)

    def forget():  # what was traced with other costs
        plan_of.cache_clear()
        jax.clear_caches()

    try:
        for value in values:
            lowered[str(value)] = attempt(partial(lower, value))
    finally:
        if present:
            _costs.COSTS[platform] = present
        else:
            del _costs.COSTS[platform]
        forget()
    with ThreadPoolExecutor(BATCH) as pool:
        compiled = pool.map(lambda found: attempt(lambda: found.compile()), lowered.values())
        programs, failed = split(dict(zip(lowered, compiled)))
    seconds, more = turns({value: (partial(call, params, points), None) for value, call in programs.items()})
    fastest = min(seconds, key=seconds.get, default="none")
    row = {"what": f"{name}, {case.name}, float32", "present": str(getattr(usual, name)), "fastest": fastest}
    return row | {"seconds": seconds} | both_failed(failed, more)


# ---------------------------------------------------------------- time


def turns(calls):
    """Return ``{name: median seconds}`` of calls that take turns, and an entry for those that failed, if any.

    ``calls`` is ``{name: (call, precision)}``.
    """
    times, failed = {name: [] for name in calls}, {}

    def turn(call, precision):
        count, start = 0, time.perf_counter()
        with at(precision):
            while count == 0 or time.perf_counter() - start < TURN:
                jax.block_until_ready(call())
                count += 1
        return (time.perf_counter() - start) / count

    for name in list(calls) * ROUNDS:
        if name not in failed:
            found = attempt(partial(turn, *calls[name]))
            if isinstance(found, Failed):
                failed[name] = found
            else:
                times[name].append(found)
    medians = {name: statistics.median(found) for name, found in times.items() if name not in failed}
    return medians, {"failed": failed} if failed else {}


def race(part, case, dtype, methods, defaults, steps=1):
    """Return a task with the seconds of methods, the library's first, at equal precision, and of some by default."""
    contestants = {name: (name, "highest", steps) for name in methods if name in METHODS}
    if dtype == "float32":
        contestants |= {name + DEFAULT: (name, None, steps) for name in defaults if name in METHODS}
    if steps > 1:
        ours = [name for name, (method, *_) in contestants.items() if method == methods[0]]
        contestants |= {name + ONE: (*contestants[name][:2], 1) for name in ours}

    def first(method, precision, steps):
        make = METHODS[method] if part in ("kernel", "diagonal") else partial(METHODS[method], steps=steps)
        with at(precision):
            call = make(case, dtype)
            return (call, precision), jax.block_until_ready(call())

    def rows(results):
        found, failed = split(results)
        seconds, more = turns({name: call for name, (call, _) in found.items()})
        row = {"what": case.name, "case": asdict(case), "dtype": dtype}
        row["seconds"] = {name: value / steps for name, value in seconds.items() if not name.endswith(ONE)}
        if steps > 1:
            both = [name for name in seconds if name + ONE in seconds]
            row["further"] = {name: (seconds[name] - seconds[name + ONE]) / (steps - 1) for name in both}
        if steps == 1 and methods[0] in found:
            ours = np.asarray(found[methods[0]][1])
            row["difference"] = {
                name: float(abs(np.asarray(result) - ours).max() / abs(ours).max())
                for name, (_, result) in found.items()
                if name != methods[0]
            }
        return [row | both_failed(failed, more)]

    return Task(part, f"{case.name}, {dtype}", {k: partial(first, *v) for k, v in contestants.items()}, rows)


def kernel(case, dtype):
    plain = ["vmap(grad) by leaf", *["folx"] * case.equation.startswith("Laplacian")]
    return race("kernel", case, dtype, ["auto", *plain], plain)


def diagonal(case, dtype):
    plain = ["vmap(grad) diagonal", *["folx diagonal"] * case.equation.startswith("Laplacian")]
    return race("diagonal", case, dtype, ["ntk_diagonal", *plain], plain)


def kernels(sizes):
    """Yield the cases in the precisions of the CPU's records."""
    for case in sorted(sizes.timed, key=lambda case: -case.depth * case.width**2 * case.n):
        yield from (kernel(case, "float32"), diagonal(case, "float32"))
    for case in sizes.laplacians:
        yield from (kernel(case, "float64"), diagonal(case, "float64"))


def other_kernels(sizes):
    yield from (kernel(case, "float64") for case in sizes.timed)
    yield from (kernel(case, "float32") for case in sizes.laplacians)
    yield from (diagonal(case, "float64") for case in sizes.timed)
    yield from (diagonal(case, "float32") for case in sizes.laplacians)


def training(sizes):
    methods = ["library", "plain", "channels", "jet", "folx training"]
    for case, dtype in [(case, "float32") for case in sizes.trained] + [(sizes.trained[0], "float64")]:
        yield race("training", case, dtype, methods, methods, sizes.steps["training"])


def descent(sizes):
    methods = ["kernel descent", "plain descent"]
    for dtype, case in itertools.product(reversed(BOTH), sizes.trained):
        yield race("descent", case, dtype, methods, methods, steps=sizes.steps["descent"])


# ---------------------------------------------------------------- the record

TASKS = {
    "correctness": correctness,
    "costs": device_costs,
    "kernel and diagonal": kernels,
    "training": training,
    "descent": descent,
    "other precision": other_kernels,
}


class Record:
    """The record of a run, a JSON file that is written anew after each task."""

    def __init__(self, file, seconds, parts, quick=False):
        self.file, self.start, self.total = Path(file), time.perf_counter(), seconds
        options = [f"--seconds {seconds:g}", *["--quick"] * quick]
        if set(parts) < set(PARTS):
            options += ["--parts", *parts]
        self.contents = {
            "command": " ".join(["python tests/benchmarks/gpu.py", *options]),
            "date": datetime.now(UTC).date().isoformat(),
            "device": jax.devices()[0].device_kind,
            "platform": jax.default_backend(),
            "driver": driver(),
            "machine": f"{jax.devices()[0].device_kind}, {os.cpu_count()} CPU cores",
            "versions": VERSIONS,
            "absent": ABSENT,
            "earlier": [],
            "parts": {},
            "left_out": [],
            "seconds": 0,
        }
        if set(parts) < set(PARTS):
            self.keep(parts)

    def keep(self, parts):
        """Keep the other parts of a record that was made on the same device with the same versions."""
        old = json.loads(self.file.read_text()) if self.file.exists() else {}
        others = {part: rows for part, rows in old.get("parts", {}).items() if part not in parts}
        if others and all(old[name] == self.contents[name] for name in ("device", "versions")):
            self.contents["parts"] = others
            self.contents["left_out"] = [what for what in old["left_out"] if what.partition(":")[0] in others]
            made = {name: old[name] for name in ("command", "date", "seconds")} | {"parts": list(old["parts"])}
            self.contents["earlier"] = [*old.get("earlier", []), made]
        elif others:
            print("the earlier record is of another device or of other versions: its parts are not kept", flush=True)

    @property
    def seconds(self):
        return time.perf_counter() - self.start

    def add(self, part, rows):
        self.contents["parts"].setdefault(part, []).extend(rows)
        for row in rows:
            shown = {name: value for name, value in row.items() if name != "case" and not isinstance(value, list)}
            print(f"{self.seconds:4.0f} s  {part}: {shown}", flush=True)
        self.write()

    def leave_out(self, tasks):
        self.contents["left_out"] += [f"{task.part}: {task.what}" for task in tasks]
        self.write()

    def write(self):
        self.contents["seconds"] = round(self.seconds)
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(self.contents, indent=1) + "\n")
        new.replace(self.file)


def driver():
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return None


def batches(tasks):
    """Yield lists of tasks whose jobs run beside one another."""
    batch = []
    for task in tasks:
        batch.append(task)
        if sum(len(task.jobs) for task in batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def measure(batch, record):
    with ThreadPoolExecutor(BATCH) as pool:
        running = [{key: pool.submit(attempt, job) for key, job in task.jobs.items()} for task in batch]
    for task, jobs in zip(batch, running):
        rows = attempt(partial(task.rows, {key: job.result() for key, job in jobs.items()}))
        record.add(task.part, [{"what": task.what, "failed": rows}] if isinstance(rows, Failed) else rows)


def run(record, sizes, parts):
    tasks = {name: [task for task in make(sizes) if task.part in parts] for name, make in TASKS.items()}
    shares = {name: SHARES[name] for name, found in tasks.items() if found}
    end = 0.92 * record.total  # the last batch needs time too
    while shares:
        name, share = next(iter(shares.items()))
        until = record.seconds + (end - record.seconds) * share / sum(shares.values())
        del shares[name]
        for batch in batches(tasks[name]):
            if record.seconds < until:
                measure(batch, record)
            else:
                record.leave_out(batch)
    print(f"{record.seconds:.0f} s; left out: {record.contents['left_out'] or 'nothing'}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="file for the record, JSON")
    parser.add_argument("--seconds", type=float, default=480, help="how long it may take")
    parser.add_argument("--parts", metavar="PART", nargs="+", choices=PARTS, default=PARTS, help=", ".join(PARTS))
    parser.add_argument("--anywhere", action="store_true", help="run without a GPU too")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    arguments = parser.parse_args()
    if jax.default_backend() != "gpu" and not arguments.anywhere:
        found = jax.default_backend()
        print(f"gpu.py: no GPU here; JAX finds only {found}. With --anywhere it runs all the same.", file=sys.stderr)
        sys.exit(2)
    jax.config.update("jax_enable_x64", True)
    if arguments.quick:
        ROUNDS, TURN = 2, 0.001
    record = Record(arguments.out, arguments.seconds, arguments.parts, arguments.quick)
    run(record, QUICK if arguments.quick else FULL, arguments.parts)
