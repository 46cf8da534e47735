"""Time this library against other ways and other packages; all contestants of a task take turns.

    python tests/benchmarks/run.py [PART ...] --out book/data [--others PYTHON ...] [--quick]

Each part writes OUT/PART.json:

    benchmarks      the kernel and its diagonal, against plain JAX, torch.func and neural-tangents; time and memory
    laplacian       the same for a Laplacian in 2 to 100 dimensions, against plain JAX, folx and netket, in float64
    many-points     the kernel at 3,000 points of a small network
    training-speed  a training step, against plain JAX, folx, jet, jinns and DeepXDE
    compile-time    the kernel's first call for networks of up to 100 hidden layers, each in a new process

Every contestant is a process of its own that waits for the driver. In each round every contestant has one turn, so a
machine that slows down slows all of them. ``seconds`` and ``cpu`` are medians over the turns of the wall time and of
the CPU time (of all threads) of one call, or of one step in training. ``ratio`` and ``cpu_ratio`` divide them by those
of the task's first method, this library's. ``first`` is the time of the whole first call, which compiles. A method
whose calls take more than five seconds has three turns, which come before the further turns of the others; ``rounds``
counts them.

The other packages have environments of their own: ``make others`` makes them and they are then found. Others can be
given by ``--others``, the interpreters of environments. A package found in none of them is recorded as absent.
"""

import argparse
import contextlib
import json
import os
import platform
import select
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from cases import CASES, DEEP, LAPLACIANS, MANY_POINTS, STEPS, SWEEPS, TRAINED, Case  # noqa: E402

# The contestants: the package that a module needs beside this library's own environment, and its methods. Not all of
# neural-tangents works with one version of JAX, and each method should have the version with which it is fastest.
CONTESTANTS = {
    "with_library": (None, ["auto", "structured", "jacobian", "ntk_diagonal", "library", "adaptive"]),
    "with_jax": (
        None,
        ["vmap(grad)", "vmap(grad) by leaf", "vmap(grad) diagonal", "jaxpi diagonal", "plain", "channels", "jet"],
    ),
    "with_folx": ("folx", ["folx", "folx diagonal", "folx training"]),
    "with_netket": ("netket", ["netket"]),
    "with_jinns": ("jinns", ["jinns"]),
    "with_deepxde": ("deepxde", ["DeepXDE"]),
    "with_torch": ("torch", ["torch.func"]),
    "with_neural_tangents": (
        "neural_tangents with jax 0.4.30",
        ["neural-tangents, Jacobian contraction", "neural-tangents, NTK-vector products"],
    ),
    "with_older_neural_tangents": (
        "neural_tangents with jax 0.4.23",
        ["neural-tangents, structured derivatives", "neural-tangents, auto"],
    ),
}
MODULE = {method: module for module, (_, methods) in CONTESTANTS.items() for method in methods}
KERNELS = ["auto", "structured", "jacobian", "vmap(grad)", "vmap(grad) by leaf"]
DIAGONALS = ["ntk_diagonal", "vmap(grad) diagonal", "jaxpi diagonal"]
SWEPT = ["auto", "structured", "jacobian", "vmap(grad)"]
TRAINING = ["library", "adaptive", "plain", "channels", "jet", "folx training", "jinns", "DeepXDE"]
SECONDS = 0.3  # minimum length of a turn
TIMEOUT = 240  # seconds for an answer of a worker
SLOW = 5.0  # seconds of a call from which a method has only FEWER turns: its spread is small against its ratio
FEWER = 3


@dataclass(frozen=True)
class Task:
    """What is measured in turns. The first method is this library's, to which the others are compared."""

    case: Case
    methods: tuple[str, ...]
    dtype: str = "float32"
    rounds: int = 7
    memory: bool = False  # measure the memory too
    fresh: bool = False  # each turn is the first call in a new process
    steps: int = 1  # steps in one call


def _parts():
    packages = ("with_torch", "with_neural_tangents", "with_older_neural_tangents")
    others = [method for module in packages for method in CONTESTANTS[module][1]]
    swept = [case for sweep in SWEEPS.values() for case in sweep if case not in CASES]
    return {
        "benchmarks": [
            *(Task(case, (*KERNELS, *others), memory=True) for case in CASES),
            *(Task(case, tuple(DIAGONALS), memory=True) for case in CASES),
            *(Task(case, tuple(SWEPT), memory=True, rounds=3) for case in dict.fromkeys(swept)),
        ],
        "laplacian": [
            task
            for case in LAPLACIANS
            for task in (
                Task(case, ("auto", "vmap(grad) by leaf", "folx", "netket"), "float64"),
                Task(case, ("ntk_diagonal", "vmap(grad) diagonal", "folx diagonal"), "float64"),
            )
        ],
        "many-points": [Task(MANY_POINTS, ("auto", "jacobian", "vmap(grad)"))],
        "training-speed": [Task(case, tuple(TRAINING), rounds=5, steps=STEPS) for case in TRAINED],
        "compile-time": [Task(case, ("auto", "vmap(grad)"), rounds=3, fresh=True) for case in DEEP],
    }


PARTS = _parts()

# ---------------------------------------------------------------- workers


class Failure(Exception):
    """A worker did not answer."""


class Process:
    """A worker for one method of a task."""

    def __init__(self, python, method, task, cache=None):
        arguments = [MODULE[method], method, json.dumps(asdict(task.case)), task.dtype]
        environment = os.environ | {
            "JAX_ENABLE_X64": str(int(task.dtype == "float64")),
            "JAX_PLATFORMS": "cpu",
            "JAX_TRACEBACK_FILTERING": "off",  # the last line of an error is then its message
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        if cache:
            environment |= {
                "JAX_COMPILATION_CACHE_DIR": cache,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed below)
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
        )

    def close(self):
        self.process.kill()
        self.process.communicate()
        self.errors.close()

    def ask(self, *request):
        with contextlib.suppress(BrokenPipeError):  # of a worker that has ended there is nothing to read either
            print(json.dumps(request), file=self.process.stdin, flush=True)
        if not select.select([self.process.stdout], [], [], TIMEOUT)[0]:
            raise Failure(f"took more than {TIMEOUT} s")
        answer = self.process.stdout.readline()
        if not answer:
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines()
            raise Failure((lines or [f"ended with status {self.process.wait()}"])[-1][:300])
        return json.loads(answer)


def interpreters(others):
    """Return ``{module: interpreter that has its package, or None}``."""

    def has(python, needed):
        package, _, version = needed.partition(" with jax ")
        look = f"import sys, importlib.util as u; sys.exit(u.find_spec({package!r}) is None)"
        if version:
            look = f"from importlib.metadata import version as v; assert v('jax') == {version!r}; {look}"
        return subprocess.run([python, "-c", look], stderr=subprocess.DEVNULL).returncode == 0

    return {
        module: next((p for p in (sys.executable, *others) if package is None or has(p, package)), None)
        for module, (package, _) in CONTESTANTS.items()
    }


# ---------------------------------------------------------------- one task


def measured(task, pythons, seconds=SECONDS):
    """Return the task's rows, one per method whose package is there, and the versions of the packages."""
    methods = [method for method in task.methods if pythons[MODULE[method]]]
    rows, turns, versions = {method: {} for method in methods}, {method: [] for method in methods}, {}
    results, workers = {}, {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())

        def start(method):
            workers[method] = Process(pythons[MODULE[method]], method, task, folder if task.memory else None)
            stack.callback(workers[method].close)
            return workers[method]

        def first(method):
            worker = start(method)
            rows[method]["first"], rows[method]["first_cpu"] = worker.ask("first")
            versions.update(worker.ask("save", f"{folder}/result.npy"))
            results[method] = np.load(f"{folder}/result.npy")

        def turn(method):
            if len(turns[method]) == FEWER and min(wall for wall, _ in turns[method]) > SLOW:
                return
            if task.fresh:
                workers[method].close()
                turns[method].append(start(method).ask("first"))
            else:
                turns[method].append(workers[method].ask("again", seconds))

        def memory(method):
            workers[method].close()
            rows[method]["bytes"] = start(method).ask("memory")

        for step in (first, *[turn] * task.rounds, *[memory] * task.memory):
            for method in methods:
                if "failed" not in rows[method]:
                    try:
                        step(method)
                    except Failure as why:
                        rows[method] = {"failed": str(why)}
                        workers[method].close()

    ours = task.methods[0]
    for method in methods:
        if "failed" not in rows[method]:
            rows[method] |= (
                {"rounds": len(turns[method])}
                | times(turns[method], task.steps)
                | compared(task, results[method], results.get(ours))
            )
    for row in rows.values():
        if "failed" not in row and "failed" not in rows[ours]:
            row |= {"ratio": row["seconds"] / rows[ours]["seconds"], "cpu_ratio": row["cpu"] / rows[ours]["cpu"]}
    return [{"case": asdict(task.case), "method": method, **row} for method, row in rows.items()], versions


def times(turns, steps):
    """Return medians and quartiles of the wall and CPU seconds."""
    wall, cpu = (np.percentile(seconds, [25, 50, 75]) / steps for seconds in zip(*turns))
    quartiles = {"quartiles": [wall[0], wall[2]], "cpu_quartiles": [cpu[0], cpu[2]]}
    return {"seconds": wall[1], "cpu": cpu[1], **quartiles}


def compared(task, found, ours):
    """Return the loss after training; or the entries' sum and largest difference from ours, relative to the largest."""
    if task.steps > 1:
        import with_jax

        return {"loss": with_jax.loss(task.case, found)}
    row = {"sum": float(abs(found).sum())}
    if ours is not None:
        row["difference"] = float(abs(found - ours).max() / abs(ours).max())
    return row


# ---------------------------------------------------------------- the run


def machine():
    from pinnntk_lib import experiments

    return experiments.machine() | {"python": platform.python_version()}


def record_of(part, tasks, pythons, quick=False):
    """Measure a part's tasks; return its record."""
    absent = {m: MODULE[m] for task in tasks for m in task.methods if not pythons[MODULE[m]]}
    record = {
        "command": f"python tests/benchmarks/run.py {part} --out book/data" + " --quick" * quick,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "versions": {},
        "dtype": tasks[0].dtype,
        "note": "",
        "settings": {"seconds_per_turn": SECONDS, "steps_per_call": tasks[0].steps},
        "absent": {method: f"{CONTESTANTS[module][0]} is not installed" for method, module in absent.items()},
    }
    for method, why in record["absent"].items():
        print(f"{part} | {method} | absent: {why}", flush=True)
    if part == "benchmarks":  # what the book's page on the kernel shows
        record["sweeps"] = {name: [asdict(case) for case in sweep] for name, sweep in SWEEPS.items()}
        record["cases"] = [asdict(case) for case in CASES]
    record["rows"] = []
    for task in tasks:
        rows, versions = measured(task, pythons, SECONDS / 100 if quick else SECONDS)
        record["rows"] += rows
        record["versions"] |= versions
        for row in rows:
            print(line(task.case, row), flush=True)
    if part == "training-speed":  # what the chapter on the wave equation shows
        wave = [row for row in record["rows"] if row["case"] == record["rows"][0]["case"] and "failed" not in row]
        record["milliseconds_per_step"] = {row["method"]: round(1e3 * row["seconds"], 2) for row in wave}
    return record


def line(case, row):
    if "failed" in row:
        return f"{case.name} | {row['method']} | failed: {row['failed']}"
    numbers = {name: row[name] for name in ("ratio", "cpu_ratio", "first", "difference", "loss") if name in row}
    low, high = (1e3 * value for value in row["quartiles"])
    return " | ".join(
        [
            case.name,
            row["method"],
            f"{1e3 * row['seconds']:.2f} ms ({low:.2f} to {high:.2f}), CPU {1e3 * row['cpu']:.2f} ms",
            *(f"{name} {value:.3g}" for name, value in numbers.items()),
        ]
    )


def smaller(task):
    case = replace(task.case, depth=min(task.case.depth, 3), width=8, n=14)
    return replace(task, case=case, rounds=2)


def main(arguments):
    pythons = interpreters(arguments.others)
    for part in arguments.parts or PARTS:
        tasks = PARTS[part]
        if arguments.quick:
            tasks = list(dict.fromkeys(map(smaller, tasks)))
        record = record_of(part, tasks, pythons, arguments.quick)
        (Path(arguments.out) / f"{part}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", metavar="PART", nargs="*", help=f"one of {', '.join(PARTS)}; all if none is given")
    parser.add_argument("--out", required=True, help="the folder for the records")
    made = [str(python) for python in sorted(HERE.parents[1].glob(".venv-*/bin/python"))]
    parser.add_argument("--others", metavar="PYTHON", nargs="+", default=made, help="interpreters with other packages")
    parser.add_argument("--quick", action="store_true", help="tiny networks, to see that everything runs")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"PART: expected one of {', '.join(PARTS)}, got {', '.join(unknown)}")
    main(arguments)
