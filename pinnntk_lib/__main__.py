"""Command line: the paper's experiments, and a comparison of remedies for a PINN of one's own.

python -m pinnntk_lib list
python -m pinnntk_lib run NAME
python -m pinnntk_lib compare FILE.py
"""

import argparse
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from pinnntk_lib.comparison import compare
from pinnntk_lib.experiments import EXPERIMENTS, run
from pinnntk_lib.training import CheckpointError, DivergenceError

NEEDED = ["apply", "params", "problem", "points"]
MORE = ["optimizer", "weights", "trials", "held_out"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pinnntk_lib", description="Run the paper's experiments, or compare remedies."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the experiments, one per line")
    running = commands.add_parser("run", help="run an experiment and write its output directory")
    running.add_argument("name", help="name of the experiment, as printed by 'list'")
    running.add_argument("--seed", type=int, default=0, help="seed of the initial parameters and batches (default: 0)")
    running.add_argument("--steps", type=int, help="number of the last step (default: the paper's)")
    running.add_argument("--resume", action="store_true", help="resume from the last checkpoint, if there is one")
    running.add_argument("--out", help="output directory (default: runs/NAME-seedSEED)")
    comparing = commands.add_parser("compare", help="diagnose the PINN that a file defines, and try what helps it")
    comparing.add_argument(
        "file", help=f"a Python file that defines {', '.join(NEEDED)}, and perhaps {' or '.join(MORE)}"
    )
    comparing.add_argument("--seconds", type=float, default=60.0, help="training time of each trial (default: 60)")
    comparing.add_argument("--figure", help="file for a picture of the trials, such as trials.svg")
    options = parser.parse_args(arguments)
    commands_by_name = {"list": list_experiments, "run": run_experiment, "compare": compare_remedies}
    return commands_by_name[options.command](options)


def list_experiments(options: argparse.Namespace) -> int:
    width = max(map(len, EXPERIMENTS))
    for name, experiment in EXPERIMENTS.items():
        print(f"{name:{width}s}  {experiment.summary}")
    return 0


def run_experiment(options: argparse.Namespace) -> int:
    # Let a scheduler's SIGTERM stop a run as Ctrl-C does: with a checkpoint.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.name in EXPERIMENTS:
        jax.config.update("jax_enable_x64", EXPERIMENTS[options.name].float64)
    out = options.out or f"runs/{options.name}-seed{options.seed}"
    try:
        result = run(options.name, options.seed, options.steps, out, options.resume)
    except (ValueError, TypeError, CheckpointError, DivergenceError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped before the first step", file=sys.stderr)
        return 130
    state = "stopped" if result.interrupted else "done"
    print(f"{state} at step {int(result.state.step)}, error {result.history['error'][-1]:.3g}: {out}")
    if result.interrupted:
        print("run again with --resume to continue")
        return 130
    return 0


def compare_remedies(options: argparse.Namespace) -> int:
    sys.path.insert(0, str(Path(options.file).parent))  # as Python does for a program, so that it finds its own modules
    try:
        defined = runpy.run_path(options.file)
    except OSError as error:
        print(f"FILE: {error}", file=sys.stderr)
        return 1
    if missing := [name for name in NEEDED if name not in defined]:
        print(
            f"{options.file}: expected it to define {', '.join(NEEDED)}; {', '.join(missing)} missing", file=sys.stderr
        )
        return 1
    more = {name: defined[name] for name in MORE if name in defined}
    try:
        apply, params, problem, points = (defined[name] for name in NEEDED)
        found = compare(apply, params, problem, points, options.seconds, **more)
    except (ValueError, TypeError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped before each trial had begun", file=sys.stderr)
        return 130
    print(f"{found.diagnosis}\n\n{found}")
    if options.figure:
        found.plot().savefig(options.figure)
        print(f"\n{Path(options.figure)}")
    return 130 if found.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
