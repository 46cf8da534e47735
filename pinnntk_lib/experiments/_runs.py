"""Runs of experiments, written to a directory and read back."""

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pinnntk_lib._check import check_count, check_path
from pinnntk_lib.experiments._paper import EXPERIMENTS, relative_change, start_of
from pinnntk_lib.experiments._records import flatten, provenance, replace_file, unflatten
from pinnntk_lib.kernel import ntk
from pinnntk_lib.training import Checkpoints, DivergenceError, Result, relative_l2_error


@dataclass(frozen=True)
class Run:
    """A run read back from its directory.

    Attributes:
        record: contents of ``record.json``.
        history: the history, as in :class:`~pinnntk_lib.training.Result`.
        params: ``{step: parameters}`` at the snapshots and at the end.
        kernels: ``{step: K}`` at the same steps, arrays (n, n) in the order of the conditions.
    """

    record: dict[str, Any]
    history: dict[str, Any]
    params: dict[int, Any]
    kernels: dict[int, np.ndarray]


def run(
    name: str,
    seed: int = 0,
    steps: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Result:
    """Run an experiment and save it to a directory, whose contents the module's docstring lists.

    The run has JAX's current precision. (The command line chooses the experiment's own: float64 for the Poisson
    problem, float32 for the wave equation.)

    Args:
        name: one of :data:`EXPERIMENTS`.
        seed: random seed of the initial parameters and of the batches.
        steps: number of the last step; the experiment's own if None.
        out: the directory; ``runs/NAME-seedSEED`` if None.
        resume: whether to continue the run in that directory from its last checkpoint.
        progress: whether to show a progress bar.

    Returns:
        The result. After Ctrl-C it is marked as interrupted, and the directory holds the run up to that step.

    Raises:
        ValueError, TypeError: if there is no such experiment, or the directory already holds a run and ``resume`` is
            False.
        DivergenceError, CheckpointError: as in :func:`~pinnntk_lib.training.train`. After a divergence the directory
            holds the run up to the last recorded step; after a checkpoint error, the earlier checkpoints.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"name: expected one of {', '.join(EXPERIMENTS)}, got {name!r}")
    setting = EXPERIMENTS[name].setting()
    steps = setting.steps if steps is None else check_count("steps", steps)
    out = check_path("out", f"runs/{name}-seed{seed}" if out is None else out, "a directory")
    record = _opened(out, name, seed, resume)
    checkpoints = out / "checkpoints"
    params, key = start_of(setting, seed)

    def finish(result, **marks):
        spent = {"to_step": int(result.state.step), "seconds": round(time.perf_counter() - began, 1)}
        record["sessions"].append(spent)
        _write(out, setting, record | _outcome(setting, result) | marks, result)

    # This claims the directory. A resumed run's record stays until there is a new one.
    if not (out / "record.json").exists():
        _write_record(out, record)
    began = time.perf_counter()
    try:
        result = setting.train(
            params,
            key,
            steps,
            measure=_changes(setting, params) if setting.track_changes else None,
            snapshots=[step for step in setting.snapshots if step <= steps],
            checkpoints=checkpoints,
            checkpoint_every=setting.checkpoint_every,
            resume=checkpoints if resume and Checkpoints(checkpoints).steps else None,
            progress=progress,
        )
    except DivergenceError as diverged:
        finish(diverged.result, diverged=str(diverged))
        raise
    finish(result)
    return result


def load(directory: str | Path) -> Run:
    """Read a run back from its directory.

    Raises:
        FileNotFoundError: if the directory holds no finished, interrupted or diverged run.
    """
    directory = check_path("directory", directory, "a directory")
    record = json.loads((directory / "record.json").read_text())
    setting = EXPERIMENTS[record["experiment"]].setting()
    like = jax.eval_shape(lambda key: setting.start(setting.model, key), jax.random.key(0))
    history, params, kernels = (
        unflatten(np.load(directory / f"{name}.npz")) for name in ("history", "params", "kernels")
    )
    treedef = jax.tree.structure(like)
    return Run(
        record,
        history,
        {int(step): jax.tree.unflatten(treedef, list(leaves.values())) for step, leaves in params.items()},
        {int(step): K for step, K in kernels.items()},
    )


def _changes(setting, params):
    def K(params):
        return ntk(setting.model.apply, params, setting.problem, setting.kernel_points).matrix

    first = K(params)
    return lambda now: {"params_change": relative_change(now, params), "K_change": relative_change(K(now), first)}


def _opened(out, name, seed, resume):
    """Return the record to continue, or a new one; raise if the directory holds a run that this one does not resume."""
    file, sessions = out / "record.json", []
    if file.exists():
        record = json.loads(file.read_text())
        there = record["experiment"], record["seed"]
        if not resume or there != (name, seed):
            raise ValueError(
                f"out: {out} holds a run of {there[0]}, seed {there[1]}; continue that run with resume=True "
                "(--resume), or name another directory"
            )
        sessions = record["sessions"]
    made_by = provenance(f"python -m pinnntk_lib run {name} --seed {seed}")
    return {"experiment": name, "seed": seed} | made_by | {"sessions": sessions}


def _outcome(setting, result):
    u = jax.lax.map(partial(setting.model.apply, result.params), setting.final_points, batch_size=5_000)
    last = {name: column[-1] for name, column in result.history.items() if not isinstance(column, dict)}
    return {
        "step": int(result.state.step),
        "interrupted": result.interrupted,
        "error": float(relative_l2_error(u, setting.problem.exact(setting.final_points))),
        "error_points": len(setting.final_points),
        "last": {name: float(value) for name, value in last.items()}
        | {
            kind: {name: float(column[-1]) for name, column in result.history[kind].items()}
            for kind in ("losses", "weights")
        },
    }


def _write(out, setting, record, result):
    """Write the directory's files, replacing each atomically; the record is last because it vouches for the others."""
    params = result.snapshots | {int(result.state.step): result.params}
    kernels = {
        str(step): ntk(setting.model.apply, at, setting.problem, setting.kernel_points).matrix
        for step, at in params.items()
    }
    leaves = {f"{step}/{i:03d}": leaf for step, at in params.items() for i, leaf in enumerate(jax.tree.leaves(at))}
    for name, arrays in (("history", flatten(result.history)), ("params", leaves), ("kernels", kernels)):
        replace_file(out / f"{name}.npz", lambda file, arrays=arrays: np.savez_compressed(file, **arrays))
    _write_record(out, record)


def _write_record(out, record):
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / "record.json", lambda file: file.write((json.dumps(record, indent=1) + "\n").encode()))
