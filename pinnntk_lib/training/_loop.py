"""The training loop: compiled steps between the rows of a history, checkpoints, resumption, reports of divergence."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm.auto import tqdm

from pinnntk_lib._check import check_conditions, check_count, check_params
from pinnntk_lib._types import Apply, Params
from pinnntk_lib.kernel import ntk
from pinnntk_lib.problems import Problem
from pinnntk_lib.training._checkpoints import CheckpointError, Checkpoints
from pinnntk_lib.training._data import check_targets, error_measure, source
from pinnntk_lib.training._linearized import largest_stable_learning_rate
from pinnntk_lib.training._result import DivergenceError, Result, TrainState, columns_of, packed, rows_of, unpacked
from pinnntk_lib.training._step import diverged, run_steps
from pinnntk_lib.training._weighting import Weighting, as_weighting

# A loss that has grown by this factor will not come back; waiting for infinity would only lose time.
GROWTH_LIMIT = 1e6


def train(
    apply: Apply,
    params: Params,
    problem: Problem,
    points: Mapping[str, jax.Array] | Callable[[jax.Array], Mapping[str, jax.Array]],
    optimizer: optax.GradientTransformation,
    steps: int,
    weights: Mapping[str, float] | Weighting | None = None,
    *,
    key: jax.Array | None = None,
    log_every: int = 100,
    test_points: jax.Array | None = None,
    measure: Callable[[Any], Mapping[str, Any]] | None = None,
    snapshots: Iterable[int] = (),
    checkpoints: str | Path | None = None,
    checkpoint_every: int = 1000,
    resume: Result | str | Path | None = None,
    progress: bool = True,
) -> Result:
    """Minimise ``sum_i lambda_i mean_i((L_i u - f_i)^2)`` over the model's parameters.

    The losses are means of squares, as in the paper's code; its text has halves of sums, for which a learning rate
    means something else. Compiled code is kept between calls with the same ``apply``, ``optimizer`` (the object) and
    operators: make the optimiser once for many seeds.

    Args:
        apply: the model, ``(params, x of shape (d,)) -> scalar``.
        params: initial parameters, a pytree of floating-point arrays.
        problem: the conditions.
        points: ``{name: (n, d) array}`` for all steps, or a function ``key -> points`` for fresh ones at each, such
            as :class:`~pinnntk_lib.sampling.RandomPoints` or :class:`~pinnntk_lib.sampling.Minibatches`.
        optimizer: from optax.
        steps: the number of the last step, counted from 0 even when resuming.
        weights: ``{name: lambda}``, or a weighting such as :class:`~pinnntk_lib.weighting.NTKWeights`; all 1 if None.
        key: the random key of ``points``, if that is a function.
        log_every: steps between rows of the history.
        test_points: (m, d), where the error is measured; by default a regular grid of about a thousand.
        measure: ``params -> {name: array}``, whatever else each row shall have, for instance
            ``lambda params: {"K": pn.ntk(apply, params, problem, points).matrix}``.
        snapshots: steps at which the parameters are kept; the history has a row there too.
        checkpoints: a directory to write checkpoints to, none if None. Each holds the state, the history and the
            snapshots; the newest two are kept.
        checkpoint_every: steps between them; one is written at the first row of the history so many steps after
            the last, at the end and on Ctrl-C.
        resume: an earlier result, or a directory of checkpoints, to go on from: with the other arguments as they
            were, the result is bit for bit that of a run that was never stopped. Of ``params`` only the structure
            is then used.
        progress: show a bar, once the run has taken two seconds.

    Returns:
        The parameters and the history; after Ctrl-C, those so far, marked as interrupted.

    Raises:
        ValueError, TypeError: if an argument's shape, type, names or values do not fit; the message says which.
        DivergenceError: with the step, the losses and the stability bound, and everything up to the last row.
        CheckpointError: if a checkpoint cannot be read, or not be written; then with everything so far.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(a=1), pn.MLP(width=20)
        >>> params = model.init(jax.random.key(0))
        >>> result = pn.train(model.apply, params, problem, problem.points(20), optax.sgd(1e-3), steps=200)
        >>> result.history["step"].tolist(), sorted(result.history["losses"])
        ([0, 100, 200], ['r', 'u'])
    """
    steps, log_every = check_count("steps", steps), check_count("log_every", log_every)
    checkpoint_every = check_count("checkpoint_every", checkpoint_every)
    snapshot_steps = _snapshot_steps(snapshots, steps)
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"optimizer: expected an optax gradient transformation, got {optimizer!r}")
    weighting = as_weighting(weights)
    data, draw = source(problem, points, key)
    row = _row_maker(list(problem.conditions), error_measure(apply, problem, test_points), measure)
    before = _before(apply, params, problem, optimizer, weighting, draw, data, resume)
    log = _Log(before, _store(checkpoints, resume), checkpoint_every, snapshot_steps)
    state = before.state

    run = partial(run_steps, apply, tuple(problem.operators.items()), optimizer, weighting, draw, data)
    limit = _loss_limit(problem, log.rows[0]["losses"].values() if log.rows else run(state, 1, np.inf)[1][0])
    with tqdm(total=steps, initial=int(state.step), disable=not progress, delay=2, unit="step") as bar:
        try:
            while True:
                step = int(state.step)
                # The last row costs one step whose result is dropped, so that one compiled function serves all.
                later = [s for s in snapshot_steps if s > step]
                stop = min(step - step % log_every + log_every, max(steps, step + 1), *later)
                reached, first, last = run(state, stop - step, limit)
                first, last = np.asarray(first), np.asarray(last)
                if not diverged(first, limit):
                    log.record(state, row(state, first))
                if diverged(last, limit):
                    x = draw(data, log.recorded.step)[0]
                    raise _divergence(apply, problem, x, int(reached.step) - 1, last, log.result(log.recorded))
                if step >= steps:
                    break
                state = reached
                bar.update(stop - step)
                bar.set_postfix_str(_shown(log.rows[-1]), refresh=False)
            log.save(state)
        except KeyboardInterrupt:
            log.save(state)
            return log.result(state, interrupted=True)
    return log.result(state)


class _Log:
    """What a run has recorded so far: the history's rows, the snapshots, and the checkpoints of both.

    Attributes:
        rows: the history, a dict per row.
        recorded: the last state whose losses are known to be sound.
    """

    def __init__(self, before: Result, store: Checkpoints | None, checkpoint_every: int, snapshots: list[int]):
        self.rows = [row for row in rows_of(before.history) if row["step"] < before.state.step]
        self.recorded = before.state
        self._store, self._every, self._snapshots = store, checkpoint_every, snapshots
        self._kept, self._saved = dict(before.snapshots), int(before.state.step)

    def record(self, state: TrainState, row: dict[str, Any]) -> None:
        """Adds a row, and with it a snapshot and a checkpoint where they are due."""
        if self.rows and set(row) != set(self.rows[0]):
            raise ValueError(f"measure: expected the columns so far, {[*self.rows[0]]}, got {[*row]}")
        self.rows.append(row)
        self.recorded, step = state, row["step"]
        if step in self._snapshots:
            self._kept[step] = state.params
        if step - self._saved >= self._every:
            self.save(state)
            self._saved = step

    def result(self, state: TrainState, interrupted: bool = False) -> Result:
        """Everything so far, as of a state."""
        return Result(columns_of(self.rows), state, dict(self._kept), interrupted)

    def save(self, state: TrainState) -> None:
        """Writes a checkpoint, if there is a directory for them and anything to keep."""
        if self._store is not None and self.rows:
            try:
                self._store.save(int(state.step), packed(self.result(state)))
            except CheckpointError as failed:
                failed.result = self.result(state)
                raise


def _divergence(apply, problem, points, step, last, so_far):
    """The error for a run that diverged at ``step``; the bound is from the kernel at the last recorded step."""
    losses, weights = (dict(zip(problem.conditions, values.tolist())) for values in last)
    if so_far.history:
        weights = {name: values[-1] for name, values in so_far.history["weights"].items()}
    bound = float(largest_stable_learning_rate(ntk(apply, so_far.params, problem, points), weights))
    # NaN is larger than any number here: it is where the trouble is.
    condition = max(losses, key=lambda name: (np.isnan(losses[name]), losses[name]))
    return DivergenceError(step, losses, condition, bound, so_far)


def _row_maker(names, error, measure):
    """``(state, the losses and weights seen there) -> a row of the history``."""

    def row(state, seen):
        losses, weights = (dict(zip(names, values)) for values in seen)
        found = {"step": int(state.step), "losses": losses, "weights": weights, **error(state.params)}
        return found | ({} if measure is None else dict(measure(state.params)))

    return row


def _loss_limit(problem, losses):
    """The sum of losses beyond which training has diverged, from those at the start, which must be finite."""
    losses = np.asarray(list(losses))
    for name, loss in zip(problem.conditions, losses):
        if not np.isfinite(loss):
            raise ValueError(
                f"problem.conditions[{name!r}]: expected a finite loss to start from, got {loss}: the operator or its "
                "target is not finite at one of the points"
            )
    return GROWTH_LIMIT * float(sum(losses)) or np.inf


def _shown(row):
    """A row in the progress bar."""
    parts = [f"{name} {row['losses'][name]:.1e} x {row['weights'][name]:.2g}" for name in row["losses"]]
    return ", ".join(parts + ([f"error {row['error']:.1e}"] if "error" in row else []))


def _snapshot_steps(snapshots, steps):
    if isinstance(snapshots, str) or not isinstance(snapshots, Iterable):
        raise TypeError(f"snapshots: expected step numbers, got {snapshots!r}")
    snapshots = list(snapshots)
    for step in snapshots:
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or not 0 <= step <= steps:
            raise ValueError(f"snapshots: expected steps from 0 to {steps}, got {step!r}")
    return sorted({int(step) for step in snapshots})


def _before(apply, params, problem, optimizer, weighting, draw, data, resume):
    """The result to go on from: an earlier one, one from a directory, or that of no steps."""
    if isinstance(resume, Result):
        return resume
    params, names = jax.tree.map(jnp.asarray, params), list(problem.conditions)
    check_params(params)
    points, targets = draw(data, 0)
    check_conditions(apply, params, problem.operators, next(iter(points.values()))[0])
    check_targets(problem, points, targets)
    state = TrainState(jnp.zeros((), int), params, optimizer.init(params), weighting.init(names))
    if resume is None:
        return Result({}, state)
    return unpacked(Checkpoints(resume, create=False).restore(), state, names)


def _store(directory, resume):
    """The checkpoints to write, in a directory that holds no other run's."""
    if directory is None:
        return None
    store = Checkpoints(directory)
    goes_on = isinstance(resume, str | Path) and Path(resume).absolute() == store.directory
    if store.steps and not goes_on:
        raise ValueError(
            f"checkpoints: {store.directory} holds a run, up to step {store.steps[-1]}; pass it as resume to go on "
            "with that run, or name another directory"
        )
    return store
