"""Command line for the paper's experiments: ``python -m pinnntk_lib list`` and ``python -m pinnntk_lib run NAME``."""

import argparse
import signal
import sys
from collections.abc import Sequence

import jax

from pinnntk_lib.experiments import EXPERIMENTS, run
from pinnntk_lib.training import CheckpointError, DivergenceError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pinnntk_lib", description="Run the paper's experiments.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the experiments, one per line")
    running = commands.add_parser("run", help="run an experiment and write its output directory")
    running.add_argument("name", help="name of the experiment, as printed by 'list'")
    running.add_argument("--seed", type=int, default=0, help="seed of the initial parameters and batches (default: 0)")
    running.add_argument("--steps", type=int, help="number of the last step (default: the paper's)")
    running.add_argument("--resume", action="store_true", help="resume from the last checkpoint, if there is one")
    running.add_argument("--out", help="output directory (default: runs/NAME-seedSEED)")
    options = parser.parse_args(arguments)
    return list_experiments() if options.command == "list" else run_experiment(options)


def list_experiments() -> int:
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


if __name__ == "__main__":
    sys.exit(main())
