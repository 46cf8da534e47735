"""Compare optimisers for PINNs by the errors that they reach in time: same networks, points, precision and core.

    taskset -c 0 python tests/benchmarks/optimisers.py [PROBLEM ...] [--methods METHOD ...] [--settings] [--scale S]
        [--seeds N] [--out FILE]

| method | what it is |
| --- | --- |
| kernel descent | ``pn.kernel_gradient_descent()`` |
| ENGD-W | energy natural gradient, constant damping, the best of 31 lengths (arXiv:2505.12149) |
| SPRING | the same, with a momentum of 0.85 (arXiv:2505.12149) |
| NGD | the same step with optax's backtracking, as in jinns: ``vanilla_ngd``; damping 1e-5 there |
| randngd | natural gradient by preconditioned conjugate gradients, from PyPI (arXiv:2505.11638) |
| SSBroyden | a self-scaled quasi-Newton method, ``ssbroyden-optimistix`` from PyPI (arXiv:2603.10599) |
| L-BFGS, Adam | those of optax; the rates of Adam and SOAP fall from 1e-3 by a tenth every 2,000 steps |
| SOAP | Adam in the eigenbasis of Shampoo's factors (arXiv:2409.11321) |
| Adam, Algorithm 1 | with the paper's weights, updated every 100 steps |

With ``--settings``, kernel descent runs with other weights, points and first steps instead (``SETTINGS`` in
``optimiser_methods.py``).

The methods take turns: each seed runs all of them before the next seed begins. Where a method has several variants, a
trial on a further seed, of a third of the time, decides which of them runs (smallest error at the end). Where points
are drawn anew in each step, the quasi-Newton methods and randngd keep one draw, or so many that the residuals
outnumber the parameters. ENGD-W, SPRING and NGD use this library's kernel, or its ``J^T J`` if that is smaller. Times
are CPU seconds without compilation and without the measurement of errors; pin the program to one core. ``make others``
makes an environment with all packages, ``.venv-optimisers``; methods whose package is not installed are left out.
"""

import argparse
import importlib.util
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from damping_problems import PROBLEMS, Case, error_of
from optimiser_methods import METHODS, SETTINGS, installed

from pinnntk_lib.experiments import provenance

SECONDS = {  # of each run
    "poisson-1d": 3,
    "poisson-2d": 5,
    "poisson-5d": 15,
    "poisson-10d": 30,
    "wave": 30,
    "burgers": 40,
    "burgers-0.01": 20,
    "allen-cahn": 50,
    "helmholtz": 25,
    "klein-gordon": 10,
    "advection": 20,
    "oscillator": 5,
}
PACKAGES = ("optimistix", "randngd", "ssbroyden-optimistix")
MOMENTS = 100  # at which errors are measured, evenly spaced on a logarithmic scale
ERRORS = tuple(10.0**-k for k in range(1, 9))  # the time to each of them is reported


class Stopped(Exception):
    """Ends a run from within."""


class Clock:
    """Adds up the time between its calls, and measures the error at certain moments.

    Attributes:
        rows: ``[steps, seconds, error]`` at these moments. A method counts its calls, not its steps.
    """

    def __init__(self, error: Callable, seconds: float):
        self.rows: list[list[float]] = []
        self._error, self._seconds, self._spent, self._since, self._calls = error, seconds, 0.0, None, 0
        self._moments = np.geomspace(seconds / 1000, seconds, MOMENTS)

    def __call__(self, params: Any) -> None:
        jax.block_until_ready(params)
        if self._since is not None:
            self._calls += 1
            self._spent += time.process_time() - self._since
            due, self._moments = self._moments[self._moments <= self._spent], self._moments[self._moments > self._spent]
            if len(due):
                self.rows.append([self._calls, float(f"{self._spent:.4g}"), float(f"{self._error(params):.3g}")])
            if self._spent >= self._seconds:
                raise Stopped
        self._since = time.process_time()


def run(case: Case, error: Callable, method: Callable, seed: int, seconds: float) -> dict[str, Any]:
    """Run a method; return its rows, and the reason if it ended early."""
    method(case, seed, None)
    clock, ended = Clock(error, seconds), "it stopped by itself"
    try:
        method(case, seed, clock)
    except Stopped:
        ended = ""
    except (ArithmeticError, ValueError) as problem:  # divergence
        ended = f"{type(problem).__name__}: {problem}"[:200]
    return {"rows": clock.rows} | ({"ended": ended} if ended else {})


def final_error(record: dict[str, Any]) -> float:
    """Return the last error, infinity if there is none."""
    return next((row[2] for row in reversed(record["rows"]) if np.isfinite(row[2])), np.inf)


def seconds_to(record: dict[str, Any], bound: float) -> float:
    """Return the time after which the error is first at most ``bound``, infinity if it never is."""
    return next((seconds for _, seconds, error in record["rows"] if error <= bound), np.inf)


def compare(case: Case, methods: list[str], seconds: float, seeds: int):
    """Yield the record of each run."""
    error, chosen = error_of(case), {}
    for name in methods:
        variants = METHODS[name]
        if len(variants) > 1:
            trials = {v: final_error(run(case, error, m, seeds, seconds / 3)) for v, m in variants.items()}
            chosen[name] = min(trials, key=trials.__getitem__)
    for seed in range(seeds):
        for name in methods:
            variant = chosen.get(name, "")
            yield {"method": name, "variant": variant, "seed": seed} | run(
                case, error, METHODS[name][variant], seed, seconds
            )


def table(records: list[dict[str, Any]]) -> str:
    """Return the medians over the seeds: the error at the end, and the time to each error."""
    lines = [f"{'method':22} {'end':>8}" + "".join(f"{bound:>9.0e}" for bound in ERRORS)]
    for method in dict.fromkeys(record["method"] for record in records):
        mine = [record for record in records if record["method"] == method]
        times = [statistics.median(seconds_to(record, bound) for record in mine) for bound in ERRORS]
        cells = "".join(f"{t:9.2f}" if np.isfinite(t) else f"{'-':>9}" for t in times)
        end = statistics.median(map(final_error, mine))
        lines.append(f"{method + ' ' + mine[0]['variant']:22} {end:8.1e}{cells}")
    return "\n".join(lines)


def check_alike(problem: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """End the program if runs could not be compared with those that a record has already."""
    for of, (old, new) in {
        "time": (before["seconds"], now["seconds"]),
        "processor": (before["machine"]["cpu"], now["machine"]["cpu"]),
    }.items():
        if old != new:
            raise SystemExit(f"{problem}: expected the {of} of the runs in the record, {old}, got {new}")


def joined(before: dict[str, Any], kept: list, origin: dict[str, Any], runs: list) -> dict[str, Any]:
    """Return the record of a problem in which some methods ran again; ``again`` says when, and by which command."""
    again = before.get("again", {}) | {one["method"]: origin for one in runs}
    return before | {"runs": runs + kept, "again": again}


def main(arguments):
    jax.config.update("jax_enable_x64", True)
    file = Path(arguments.out) if arguments.out else None
    record = json.loads(file.read_text()) if file and file.exists() else {}
    for problem in arguments.problems:
        seconds = SECONDS[problem] * arguments.scale
        origin = provenance(f"python tests/benchmarks/optimisers.py {shlex.join(sys.argv[1:])}".strip())
        before = record.get(problem, {"seconds": seconds, "runs": []})
        kept = [one for one in before["runs"] if one["method"] not in arguments.methods]
        if kept:
            check_alike(problem, before, origin | {"seconds": seconds})
        runs, packages = [], [package for package in PACKAGES if importlib.util.find_spec(package.replace("-", "_"))]
        origin["versions"] |= {package: version(package) for package in packages}
        for one in compare(PROBLEMS[problem](), arguments.methods, seconds, arguments.seeds):
            runs.append(one)
            print(f"{problem} {one['method']} {one['seed']}: {final_error(one):.1e} {one.get('ended', '')}", flush=True)
        record[problem] = joined(before, kept, origin, runs) if kept else origin | {"seconds": seconds, "runs": runs}
        if file:
            file.write_text(json.dumps(record) + "\n")
        print(f"{problem}, {seconds:g} s\n{table(runs)}\n", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", metavar="PROBLEM", nargs="*", help=f"{', '.join(SECONDS)}; default: all")
    parser.add_argument("--methods", metavar="METHOD", nargs="+", choices=METHODS, help="default: all optimisers")
    parser.add_argument("--settings", action="store_true", help="kernel descent in other settings")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the time of each run (1)")
    parser.add_argument("--seeds", type=int, default=3, help="number of random seeds (3)")
    parser.add_argument("--out", metavar="FILE", help="a JSON record; other problems and methods in it stay")
    arguments = parser.parse_args()
    arguments.problems = arguments.problems or list(SECONDS)
    arguments.methods = arguments.methods or (list(SETTINGS) if arguments.settings else installed())
    if unknown := set(arguments.problems) - set(PROBLEMS):
        parser.error(f"unknown problems: {', '.join(sorted(unknown))}")
    main(arguments)
