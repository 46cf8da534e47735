"""``python -m pinnntk_lib list`` and ``python -m pinnntk_lib run NAME``: the paper's experiments."""

import argparse
import signal
import sys
from collections.abc import Sequence

import jax

from pinnntk_lib.experiments import EXPERIMENTS, run
from pinnntk_lib.training import CheckpointError, DivergenceError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pinnntk_lib", description="The paper's experiments.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the experiments, a line each")
    running = commands.add_parser("run", help="run one and write its directory")
    running.add_argument("name", help="as the list has it")
    running.add_argument("--seed", type=int, default=0, help="of the initial parameters and the batches (0)")
    running.add_argument("--steps", type=int, help="the last step (the paper's)")
    running.add_argument("--resume", action="store_true", help="go on from the last checkpoint, if there is one")
    running.add_argument("--out", help="the directory (runs/NAME-seedSEED)")
    options = parser.parse_args(arguments)
    return list_experiments() if options.command == "list" else run_experiment(options)


def list_experiments() -> int:
    width = max(map(len, EXPERIMENTS))
    for name, experiment in EXPERIMENTS.items():
        print(f"{name:{width}s}  {experiment.summary}")
    return 0


def run_experiment(options: argparse.Namespace) -> int:
    # A scheduler's SIGTERM ends a run as Ctrl-C does: with a checkpoint.
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
        print("go on with --resume")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
