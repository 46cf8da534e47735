"""Records the paper's Poisson runs, which chapter 9 compares with the numbers of the paper and of its notebooks.

    python book/data/reproduction.py 10

writes ``reproduction.json`` beside this file: for each experiment and seed, the relative L2 errors of u and u_xx, the
first and last losses, and the relative changes of the parameters and of K.
"""

import sys
import tempfile
import time

import jax
import recording

import pinnntk_lib as pn
from pinnntk_lib import experiments

jax.config.update("jax_enable_x64", True)

NAMES = (
    "poisson1d-width10",
    "poisson1d-width100",
    "poisson1d-width500",
    "poisson1d-notebook",
)


def numbers(name, seed):
    """Return the numbers that the table needs from one run."""
    with tempfile.TemporaryDirectory() as out:
        result = experiments.run(name, seed, out=out, progress=False)
    setting = experiments.EXPERIMENTS[name].setting()
    problem, grid = setting.problem, setting.final_points

    def u(x):
        return setting.model.apply(result.params, x)

    residual = problem.conditions["r"]
    u_xx = jax.vmap(lambda x: residual.operator(u, x))(grid)
    history = result.history
    found = {
        "error": history["error"][-1],
        "error_u_xx": pn.relative_l2_error(u_xx, residual.target(grid)),
        "params_change": history["params_change"][-1],
        "K_change": history["K_change"][-1],
    }
    for condition, losses in history["losses"].items():
        found[f"first_loss_{condition}"] = losses[0]
        found[f"last_loss_{condition}"] = losses[-1]
    return {key: float(f"{value:.6g}") for key, value in found.items()}


def main(seeds):
    started, runs = time.perf_counter(), {}
    for name in NAMES:
        runs[name] = [numbers(name, seed) for seed in range(seeds)]
        print(name, f"{time.perf_counter() - started:.0f} s", flush=True)
    recording.write(
        __file__, seeds, started, {"runs": runs}, arguments=str(seeds)
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
