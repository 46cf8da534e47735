"""The training loop: compiled steps between history rows, checkpoints, resuming and divergence errors."""

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

# A loss that has grown by this factor will not recover. Waiting for it to reach infinity would only waste time.
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

    The losses are means of squares, as in the paper's code. The paper's text uses half the sum of squares, so its
    learning rates are not comparable. Compiled code is cached by ``apply``, ``optimizer``, the operators, the weighting
    and the shapes (and the sampler and targets, if ``points`` is a function). Functions and optimisers compare by
    identity: pass the same objects, for instance one optimiser for many seeds, to avoid recompilation.

    Args:
        apply: the model, a pure function ``(params, x of shape (d,)) -> u(x)``.
        params: initial parameters, a pytree of floating-point arrays.
        problem: the conditions.
        points: ``{name: (n, d) array}``, used at every step; or a function ``key -> points`` that draws new points at
            each step, such as :class:`~pinnntk_lib.RandomPoints` or :class:`~pinnntk_lib.Minibatches`. The function is
            traced by JAX, so it must use JAX's functions and return arrays of fixed shapes.
        optimizer: an optax optimiser.
        steps: total number of steps; when resuming, the earlier steps count too.
        weights: ``{name: lambda}``, or a weighting such as :class:`~pinnntk_lib.NTKWeights`; all 1 if None.
        key: random key for ``points``; required if ``points`` is a function.
        log_every: number of steps between rows of the history.
        test_points: points (m, d) at which the error is measured; by default a regular grid of about a thousand points.
        measure: ``params -> {name: array}``, further quantities to record in each row of the history, for instance
            ``lambda params: {"K": pn.ntk(apply, params, problem, points).matrix}``.
        snapshots: steps at which to keep the parameters. The history has a row at each of them too.
        checkpoints: directory for checkpoints; none are written if None. Each holds the state, the history and the
            snapshots. The newest two are kept.
        checkpoint_every: minimum number of steps between checkpoints. They are written only at rows of the history,
            and also at the end and on Ctrl-C.
        resume: an earlier result, or a directory of checkpoints, from which to continue. With all other arguments
            unchanged, the final state is bit for bit that of an uninterrupted run; the history has an extra row where
            the earlier run ended between two rows. A directory must be that of a run with the same parameters,
            optimiser and weights, of which only the structure is then used; a result is taken as it is. To go on
            writing checkpoints, pass the directory as ``checkpoints`` too.
        progress: whether to show a progress bar; it appears once the run has taken two seconds.

    Returns:
        The parameters, the history and the snapshots. After Ctrl-C, everything up to that point, with
        ``interrupted=True``.

    Raises:
        ValueError, TypeError: if an argument's shape, type, names or values do not fit, or an initial loss is not
            finite; the message says which.
        DivergenceError: if training diverges. It holds the step, the losses, the stability bound and everything up to
            the last row.
        CheckpointError: if a checkpoint cannot be read or written. If saving one fails, the error's ``result`` holds
            everything so far.

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
                # An extra step, whose result is dropped, computes the last row: one compiled function serves every row.
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
    """The record of a run so far: the rows of the history, the snapshots, and the checkpoints that hold both.

    Attributes:
        rows: the history, one dict per row.
        recorded: the last state whose losses are known not to have diverged.
    """

    def __init__(self, before: Result, store: Checkpoints | None, checkpoint_every: int, snapshots: list[int]):
        self.rows = [row for row in rows_of(before.history) if row["step"] < before.state.step]
        self.recorded = before.state
        self._store, self._every, self._snapshots = store, checkpoint_every, snapshots
        self._kept, self._saved = dict(before.snapshots), int(before.state.step)

    def record(self, state: TrainState, row: dict[str, Any]) -> None:
        """Add a row, and a snapshot or a checkpoint if one is due."""
        if self.rows and set(row) != set(self.rows[0]):
            raise ValueError(f"measure: expected the columns of earlier rows, {[*self.rows[0]]}, got {[*row]}")
        self.rows.append(row)
        self.recorded, step = state, row["step"]
        if step in self._snapshots:
            self._kept[step] = state.params
        if step - self._saved >= self._every:
            self.save(state)
            self._saved = step

    def result(self, state: TrainState, interrupted: bool = False) -> Result:
        """Return everything recorded so far, as a result that ends in ``state``."""
        return Result(columns_of(self.rows), state, dict(self._kept), interrupted)

    def save(self, state: TrainState) -> None:
        """Write a checkpoint, if there is a directory for checkpoints and at least one row."""
        if self._store is not None and self.rows:
            try:
                self._store.save(int(state.step), packed(self.result(state)))
            except CheckpointError as failed:
                failed.result = self.result(state)
                raise


def _divergence(apply, problem, points, step, last, so_far):
    """Return the error for a run that diverged at ``step``; its bound uses the kernel at the last recorded step."""
    losses, weights = (dict(zip(problem.conditions, values.tolist())) for values in last)
    if so_far.history:
        weights = {name: values[-1] for name, values in so_far.history["weights"].items()}
    bound = float(largest_stable_learning_rate(ntk(apply, so_far.params, problem, points), weights))
    # NaN ranks above every number: it marks the condition that failed.
    condition = max(losses, key=lambda name: (np.isnan(losses[name]), losses[name]))
    return DivergenceError(step, losses, condition, bound, so_far)


def _row_maker(names, error, measure):
    """Return ``(state, losses and weights at that state) -> row of the history``."""

    def row(state, seen):
        losses, weights = (dict(zip(names, values)) for values in seen)
        found = {"step": int(state.step), "losses": losses, "weights": weights, **error(state.params)}
        return found | ({} if measure is None else dict(measure(state.params)))

    return row


def _loss_limit(problem, losses):
    """Return the sum of losses above which training has diverged, given the initial losses, which must be finite."""
    losses = np.asarray(list(losses))
    for name, loss in zip(problem.conditions, losses):
        if not np.isfinite(loss):
            raise ValueError(
                f"problem.conditions[{name!r}]: expected a finite initial loss, got {loss}; the operator or the "
                "target is not finite at one of the points"
            )
    return GROWTH_LIMIT * float(sum(losses)) or np.inf


def _shown(row):
    """Format a row for the progress bar."""
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
    """Return the result to start from: an earlier one, one from a checkpoint, or an empty one at step 0."""
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
    """Open the directory for this run's checkpoints; it must not hold those of another run."""
    if directory is None:
        return None
    store = Checkpoints(directory)
    goes_on = isinstance(resume, str | Path) and Path(resume).absolute() == store.directory
    if store.steps and not goes_on:
        raise ValueError(
            f"checkpoints: {store.directory} already holds a run up to step {store.steps[-1]}; pass it as resume "
            "to continue that run, or choose another directory"
        )
    return store
