"""The paper's experiments, named, with the paper's settings: ``python -m pinnntk_lib list``.

A run leaves a directory that says all about it: ``record.json`` (command, seed, versions, machine, time, results),
``history.npz``, ``params.npz`` (at the snapshots and at the end), ``kernels.npz`` (at the same steps) and, while it
may still be resumed, ``checkpoints``. :func:`load` reads it back.
"""

import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from pinnntk_lib._check import check_count
from pinnntk_lib.checkpoints import Checkpoints
from pinnntk_lib.models import MLP, normalization
from pinnntk_lib.ntk import ntk
from pinnntk_lib.problems import Poisson1D, Problem, Wave1D
from pinnntk_lib.sampling import RandomPoints
from pinnntk_lib.training import DivergenceError, Result, relative_l2_error, train
from pinnntk_lib.version import __version__
from pinnntk_lib.weighting import NTKWeights

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Run",
    "Setting",
    "flat",
    "load",
    "load_record",
    "machine",
    "nested",
    "notebook_start",
    "provenance",
    "relative_change",
    "run",
    "start_of",
    "versions",
]


@dataclass(frozen=True)
class Setting:
    """All that a training run depends on, apart from its seed.

    Attributes:
        problem: the equation and its conditions.
        model: the network.
        points: ``{name: (n, d) array}`` or a sampler ``key -> points``.
        optimizer: from optax.
        steps: the number of the last step.
        weights: as for :func:`~pinnntk_lib.training.train`.
        start: ``(model, key) -> params``.
        kernel_points: where the kernel is taken, ``{name: (n, d) array}``.
        snapshots: the steps whose parameters and kernels are kept.
        checkpoint_every: steps between checkpoints.
        test_points: (m, d), where the history's error is measured.
        final_points: (m, d), where the record's error is measured.
        watch: whether the history has the relative changes of the parameters and of the kernel since step 0.
    """

    problem: Problem
    model: MLP
    points: Mapping[str, jax.Array] | Callable
    optimizer: optax.GradientTransformation
    steps: int
    weights: Any
    start: Callable
    kernel_points: Mapping[str, jax.Array]
    snapshots: tuple[int, ...]
    checkpoint_every: int
    test_points: jax.Array
    final_points: jax.Array
    watch: bool

    def train(self, params: Any, key: jax.Array | None = None, steps: int | None = None, **options) -> Result:
        """:func:`~pinnntk_lib.training.train` with all of this.

        Args:
            params: the initial parameters.
            key: of the batches, where the points are drawn.
            steps: the number of the last step; the setting's if None.
            options: more arguments of that function, but for the ones that are settled here.
        """
        return train(
            self.model.apply,
            params,
            self.problem,
            self.points,
            self.optimizer,
            self.steps if steps is None else steps,
            self.weights,
            key=key,
            test_points=self.test_points,
            **options,
        )


@dataclass(frozen=True)
class Experiment:
    """A named experiment.

    Attributes:
        summary: what it is, in a line.
        float64: whether ``python -m pinnntk_lib run`` uses double precision.
        setting: makes the :class:`Setting`, in the precision that is set by then.
    """

    summary: str
    float64: bool
    setting: Callable[[], Setting]


def notebook_start(model: MLP, key: jax.Array) -> list[dict[str, jax.Array]]:
    """The public notebooks' initial values: weights from N(0, 1/fan-in), biases from N(0, 1).

    Args:
        model: a network in standard parameterisation; its sizes are used.
        key: the random key.
    """
    drawn = MLP(model.width, model.depth, model.dim).init(key)  # all N(0, 1)
    return [{"W": layer["W"] / math.sqrt(layer["W"].shape[1]), "b": layer["b"]} for layer in drawn]


def relative_change(now, start) -> jax.Array:
    """``||now - start|| / ||start||`` of two pytrees, all leaves together."""
    now, start = ravel_pytree(now)[0], ravel_pytree(start)[0]
    return jnp.linalg.norm(now - start) / jnp.linalg.norm(start)


def _poisson(a=4.0, width=100, steps=40_000, weights=None, notebook=False):
    """The paper's section 7.1: full-batch gradient descent at 1e-5 on 100 points a condition."""
    problem = Poisson1D(a)
    points = problem.points(100)
    model = MLP(width, parameterization="standard" if notebook else "ntk", **normalization(points["r"]))
    return Setting(
        problem=problem,
        model=model,
        points=points,
        optimizer=optax.sgd(1e-5),
        steps=steps,
        weights=weights,
        start=notebook_start if notebook else MLP.init,
        kernel_points=points,
        snapshots=(0, 100, 1_000, 10_000, 40_000),
        checkpoint_every=5_000,
        test_points=problem.grid(1000),
        final_points=problem.grid(1000),
        watch=True,
    )


def _wave(weights=None):
    """The paper's section 7.2: Adam on fresh batches of 300 values, 100 velocities and 300 residuals."""
    problem = Wave1D()
    # The mean and the standard deviation of uniform points, which the paper estimates from a sample.
    model = MLP(500, depth=3, dim=2, parameterization="standard", shift=0.5, scale=1 / math.sqrt(12))
    return Setting(
        problem=problem,
        model=model,
        points=RandomPoints(problem, {"u": 300, "ut": 100, "r": 300}),
        optimizer=optax.adam(optax.exponential_decay(1e-3, transition_steps=1_000, decay_rate=0.9)),
        steps=80_000,
        weights=weights,
        start=MLP.init,
        kernel_points=problem.points(300),
        # 100 and 400 as well: the public notebook's spectra of 10,000 and 40,000 are in fact of these
        snapshots=(0, 100, 400, 1_000, 10_000, 40_000, 80_000),
        checkpoint_every=1_000,
        test_points=problem.grid(50),
        final_points=problem.grid(200),
        watch=False,
    )


EXPERIMENTS: dict[str, Experiment] = {
    **{
        f"poisson1d-a{a}": Experiment(
            f"Poisson, a = {a}, width 100, equal weights, 40,000 steps; the spectra of K, K_uu and K_rr",
            True,
            partial(_poisson, a=a),
        )
        for a in (1, 2, 4)
    },
    "poisson1d-adaptive": Experiment(
        "Poisson, a = 4, width 100, Algorithm 1 every 100 steps, 40,000 steps",
        True,
        partial(_poisson, weights=NTKWeights(every=100)),
    ),
    **{
        f"poisson1d-width{width}": Experiment(
            f"Poisson, a = 4, width {width}, 10,000 steps: how far parameters and K move",
            True,
            partial(_poisson, width=width, steps=10_000),
        )
        for width in (10, 100, 500)
    },
    "poisson1d-notebook": Experiment(
        "Poisson, a = 4, width 512, as the public notebook: weights N(0, 1/fan-in), no 1/sqrt(N)",
        True,
        partial(_poisson, width=512, notebook=True),
    ),
    "wave1d-plain": Experiment(
        "Wave equation, 3 x 500, Adam, equal weights, 80,000 steps (half an hour)", False, _wave
    ),
    "wave1d-adaptive": Experiment(
        "Wave equation, 3 x 500, Adam, Algorithm 1 every 100 steps, 80,000 steps (half an hour)",
        False,
        partial(_wave, weights=NTKWeights(every=100)),
    ),
}


# ---------------------------------------------------------------- running


@dataclass(frozen=True)
class Run:
    """A run read back from its directory.

    Attributes:
        record: what ``record.json`` says.
        history: as :class:`~pinnntk_lib.training.Result` has it.
        params: ``{step: parameters}``, the last ones among them.
        kernels: ``{step: K}``, arrays (n, n) in the order of the conditions.
    """

    record: dict[str, Any]
    history: dict[str, Any]
    params: dict[int, Any]
    kernels: dict[int, np.ndarray]


def start_of(setting: Setting, seed: int) -> tuple[Any, jax.Array]:
    """A seed's initial parameters, and the key of its batches."""
    key = jax.random.key(seed)
    return setting.start(setting.model, key), jax.random.fold_in(key, 1)


def run(
    name: str,
    seed: int = 0,
    steps: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Result:
    """Runs an experiment in the precision that is set, and writes its directory.

    Args:
        name: one of :data:`EXPERIMENTS`.
        seed: of the initial parameters and of the batches.
        steps: the number of the last step; the paper's if None.
        out: the directory; ``runs/NAME-seedSEED`` if None.
        resume: go on with the run in that directory, from its last checkpoint.
        progress: show a bar.

    Returns:
        The result, marked as interrupted after Ctrl-C; the directory then has all there is so far.

    Raises:
        ValueError, TypeError: if there is no such experiment, or the directory has another run.
        DivergenceError, CheckpointError: as :func:`~pinnntk_lib.training.train`; the directory has what came before.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"name: expected one of {', '.join(EXPERIMENTS)}, got {name!r}")
    setting = EXPERIMENTS[name].setting()
    steps = setting.steps if steps is None else check_count("steps", steps)
    out = Path(f"runs/{name}-seed{seed}" if out is None else out)
    record = _opened(out, name, seed, resume)
    checkpoints = out / "checkpoints"
    params, key = start_of(setting, seed)

    def finish(result, **marks):
        spent = {"to_step": int(result.state.step), "seconds": round(time.perf_counter() - began, 1)}
        record["sessions"].append(spent)
        _write(out, setting, record | _outcome(setting, result) | marks, result)

    _write_record(out, record)
    began = time.perf_counter()
    try:
        result = setting.train(
            params,
            key,
            steps,
            measure=_changes(setting, params) if setting.watch else None,
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
    """Reads a run's directory.

    Raises:
        FileNotFoundError: if it has no finished or interrupted run.
    """
    directory = Path(directory)
    record = json.loads((directory / "record.json").read_text())
    setting = EXPERIMENTS[record["experiment"]].setting()
    like = jax.eval_shape(lambda key: setting.start(setting.model, key), jax.random.key(0))
    history, params, kernels = (nested(np.load(directory / f"{name}.npz")) for name in ("history", "params", "kernels"))
    treedef = jax.tree.structure(like)
    return Run(
        record,
        history,
        {int(step): jax.tree.unflatten(treedef, list(leaves.values())) for step, leaves in params.items()},
        {int(step): K for step, K in kernels.items()},
    )


def load_record(file: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a run condensed into one ``.npz`` file, as the book's ``data`` folder has them.

    Returns:
        What the run's ``record.json`` said, and the file's arrays: the history's columns and what was added to them.
    """
    with np.load(file) as contents:
        arrays = nested(contents)
    return json.loads(str(arrays.pop("record"))), arrays


def _changes(setting, params):
    def K(params):
        return ntk(setting.model.apply, params, setting.problem, setting.kernel_points).matrix

    first = K(params)
    return lambda now: {"params_change": relative_change(now, params), "K_change": relative_change(K(now), first)}


def _opened(out, name, seed, resume):
    """The record so far of a directory that is this run's to write to."""
    file, sessions = out / "record.json", []
    if file.exists():
        record = json.loads(file.read_text())
        there = record["experiment"], record["seed"]
        if not resume or there != (name, seed):
            raise ValueError(
                f"out: {out} has a run of {there[0]}, seed {there[1]}; go on with that by resume (--resume), or name "
                "another directory"
            )
        sessions = record["sessions"]
    made_by = provenance(f"python -m pinnntk_lib run {name} --seed {seed}")
    return {"experiment": name, "seed": seed} | made_by | {"sessions": sessions}


def provenance(command: str) -> dict[str, Any]:
    """What a record says of its own making: command, date, versions, machine and precision."""
    return {
        "command": command,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "versions": versions(),
        "machine": machine(),
        "precision": jnp.zeros(()).dtype.name,
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that a result depends on."""
    packages = (jax, jaxlib, optax, np)
    found = {package.__name__: package.__version__ for package in packages}
    return {"python": platform.python_version()} | found | {"pinnntk_lib": __version__}


def machine() -> dict[str, Any]:
    """The processor's name, the number of cores, the system and JAX's device: what a record says of a machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": jax.devices()[0].device_kind,
    }


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
    """The directory's files, each replaced at once; the record comes last, since it vouches for the others."""
    params = result.snapshots | {int(result.state.step): result.params}
    kernels = {
        str(step): ntk(setting.model.apply, at, setting.problem, setting.kernel_points).matrix
        for step, at in params.items()
    }
    leaves = {f"{step}/{i:03d}": leaf for step, at in params.items() for i, leaf in enumerate(jax.tree.leaves(at))}
    for name, arrays in (("history", flat(result.history)), ("params", leaves), ("kernels", kernels)):
        _replace(out / f"{name}.npz", lambda file, arrays=arrays: np.savez_compressed(file, **arrays))
    _write_record(out, record)


def _write_record(out, record):
    out.mkdir(parents=True, exist_ok=True)
    _replace(out / "record.json", lambda file: file.write((json.dumps(record, indent=1) + "\n").encode()))


def _replace(path, write):
    partial_file = path.with_name(f".{path.name}.partial")
    with open(partial_file, "wb") as file:
        write(file)
    partial_file.replace(path)


def flat(tree) -> dict[str, Any]:
    """A history's nested dicts as one, its keys joined by ``/``: what a file of NumPy arrays can hold."""
    return {
        f"{name}/{inner}" if inner else name: values
        for name, column in tree.items()
        for inner, values in (column.items() if isinstance(column, dict) else [("", column)])
    }


def nested(arrays) -> dict[str, Any]:
    """The inverse of :func:`flat`, from an open ``.npz`` file."""
    columns: dict[str, Any] = {}
    for name in arrays.files:
        outer, _, inner = name.partition("/")
        if inner:
            columns.setdefault(outer, {})[inner] = arrays[name]
        else:
            columns[outer] = arrays[name]
    return columns
