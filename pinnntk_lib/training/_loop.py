"""The training loop: compiled steps between history rows, checkpoints, resuming and divergence errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr
from tqdm.auto import tqdm

from pinnntk_lib._check import (
    check_array,
    check_conditions,
    check_count,
    check_flag,
    check_function,
    check_optimizer,
    check_params,
    first_not_finite,
    leaves_of,
)
from pinnntk_lib._devices import as_mesh, replicated
from pinnntk_lib._static import static
from pinnntk_lib._types import Apply, Params
from pinnntk_lib.kernel import ntk
from pinnntk_lib.problems import Problem
from pinnntk_lib.training._checkpoints import Checkpoints
from pinnntk_lib.training._data import own_measures, source
from pinnntk_lib.training._descent import warn_if_stalled
from pinnntk_lib.training._linearized import stable_rate
from pinnntk_lib.training._log import Log
from pinnntk_lib.training._result import DivergenceError, Result, TrainState, checked, unpacked
from pinnntk_lib.training._step import diverged, run_steps
from pinnntk_lib.training._stops import Stops
from pinnntk_lib.training._weighting import Weighting, as_weighting

if TYPE_CHECKING:
    import optax

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
    held_out: Mapping[str, jax.Array] | tuple[Problem, Mapping[str, jax.Array]] | None = None,
    patience: int | None = None,
    single_steps: int = 0,
    snapshots: Iterable[int] = (),
    checkpoints: str | Path | None = None,
    checkpoint_every: int = 1000,
    resume: Result | str | Path | None = None,
    progress: bool = True,
    mesh: jax.sharding.Mesh | None = None,
) -> Result:
    """Minimise ``sum_i lambda_i mean_i((L_i u - f_i)^2)`` over the model's parameters.

    The losses are means of squares, as in the paper's code. The paper's text uses half the sum of squares, so its
    learning rates are not comparable.

    Compiled code is kept for the newest combinations of ``apply``, ``optimizer``, the operators, the weighting and the
    shapes (and the sampler and targets, if ``points`` is a function). Functions and optimisers are compared by their
    code and the values that they read, as in :func:`~pinnntk_lib.ntk`: a changed coefficient counts, and a second
    optimiser with the same settings compiles nothing anew.

    Args:
        apply: the model, a pure function ``(params, x of shape (d,)) -> u(x)``.
        params: initial parameters, a pytree of floating-point arrays.
        problem: the conditions.
        points: ``{name: (n, d) array or Points}``, used at every step; or a function ``key -> points`` that draws new
            points at each step, such as :class:`~pinnntk_lib.RandomPoints` or :class:`~pinnntk_lib.Minibatches`. The
            function is traced by JAX, so it must use JAX's functions and return arrays of fixed shapes.
        optimizer: an optax optimiser.
        steps: total number of steps; when resuming, the earlier steps count too.
        weights: ``{name: lambda}``, or a weighting such as :class:`~pinnntk_lib.NTKWeights`; all 1 if None. Weight 0
            switches a condition off. With an array (n,) of weights w, one per point of fixed points, a condition's
            share of the loss is ``mean(w r^2)``, and the history shows their mean.
        key: random key for ``points``; required if ``points`` is a function.
        log_every: number of steps between rows of the history.
        test_points: points (m, d) at which the error is measured; by default a regular grid of about a thousand points.
        measure: ``params -> {name: array}``, further quantities to record in each row of the history, for instance
            ``lambda params: {"K": pn.ntk(apply, params, problem, points).matrix}``. Names and shapes must be the same
            in every row, and the names must not be those of train's own columns.
        held_out: points ``{name: (n, d) array}`` for some or all conditions, at which the losses are measured in each
            row of the history, and which are not trained on; or a pair of a problem and such points, if their targets
            are data of their own. The parameters with the least held-out loss (the weighted sum, by the weights of the
            newest row) are kept in ``result.best``.
        patience: number of rows after which the run stops if the held-out loss has not been at its least since; None
            never stops early. Rows where an earlier run ended between two others do not count.
        single_steps: number of steps, from the start, that are computed in single precision, on parameters in double
            precision. First-order steps then take about half the time, and are no less exact than their learning rate.
        snapshots: steps at which to keep the parameters. The history has a row at each of them too.
        checkpoints: directory for checkpoints; none are written if None. Each holds the state, the history and the
            snapshots. The newest two are kept. Only one run at a time can write to a directory.
        checkpoint_every: minimum number of steps between checkpoints. They are written only at rows of the history,
            and also at the end and on Ctrl-C.
        resume: an earlier result, or a directory of checkpoints, from which to continue. With all other arguments
            unchanged, the final state is bit for bit that of an uninterrupted run; the history has an extra row where
            the earlier run ended between two rows. The run must have the same conditions, and parameters, optimiser
            and weights of the same structure; only the structure of those passed here is used, not their values. To go
            on writing checkpoints, pass the directory as ``checkpoints`` too. For a second stage with another
            optimiser or other weights, pass ``params=result.params`` instead of ``resume``: this keeps the parameters,
            and begins the step count, the history and the states of optimiser and weighting anew. If it is known in
            advance, :func:`join_optimizers` makes one run of both.
        progress: whether to show a progress bar; it appears once the run has taken two seconds.
        mesh: devices among which each step's points are divided, along all axes of the mesh; the parameters are whole
            on each device. Results agree with those of one device up to rounding error, and checkpoints can be resumed
            on another number of devices. On several hosts, every process must make the same call, and the first one
            writes the checkpoints, to a directory that all of them can read.

    Returns:
        The parameters, the history and the snapshots. After Ctrl-C, everything up to that point, with
        ``interrupted=True``. (Before the first row of the history there is nothing to return, and KeyboardInterrupt is
        passed on.)

    Raises:
        ValueError, TypeError: if an argument's shape, type, names or values do not fit, or an initial loss is not
            finite, or ``resume`` is another kind of run; the message says which.
        DivergenceError: if training diverges. It holds the step, the losses, the stability bound and everything up to
            the last row.
        CheckpointError: if a checkpoint cannot be read or written, or another run is writing to the same directory. If
            saving one fails, the error's ``result`` holds everything so far.
        Exception: any other error during training, such as one raised by ``measure``, is passed on with everything so
            far as its ``result``, which is also saved if there are checkpoints.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(a=1), pn.MLP(width=20)
        >>> params = model.init(jax.random.key(0))
        >>> result = pn.train(model.apply, params, problem, problem.points(20), optax.sgd(1e-3), steps=200)
        >>> result.history["step"].tolist(), sorted(result.history["losses"])
        ([0, 100, 200], ['r', 'u'])
    """
    stops, mesh = Stops.checked(steps, log_every, snapshots, single_steps), as_mesh(mesh)
    _check_kinds(optimizer, measure, checkpoint_every, held_out, patience, progress)
    weighting, (at_rows, data, draw) = as_weighting(weights), source(problem, points, key, mesh)
    start = _start(apply, params, at_rows, optimizer, weighting, draw(data, 0)[0])
    row = _row_maker(problem, own_measures(apply, start.params, problem, test_points, held_out), measure)
    run = _compiled_run(apply, at_rows, optimizer, weighting, draw, mesh, data, stops.single)
    with _store(checkpoints, resume) as store:
        before = _before(resume, start, list(problem.conditions), stops.steps, mesh)
        log, state, warned = Log(before, store, checkpoint_every, stops, patience), before.state, False
        with tqdm(total=stops.steps, initial=int(state.step), disable=not progress, delay=2, unit="step") as bar:
            try:
                first = run(state, 1, np.inf)[1]
                if not log.rows:
                    _check_losses(apply, state.params, at_rows, draw(data, 0)[0], first[0])
                limit = _loss_limit(log.rows, first[0], draw(data, state.step)[1])
                if not diverged(first, limit):
                    log.record(state, row(state, first))  # before training, since it may show that measure is wrong
                while True:
                    step, stop = int(state.step), stops.after(int(state.step))
                    reached, first, last = run(state, stop - step, limit)
                    if not (log.has(step) or diverged(first, limit)):
                        log.record(state, row(state, first))
                    if diverged(last, limit):
                        x = draw(data, log.recorded.step)[0]
                        raise _divergence(apply, at_rows, x, mesh, reached, last, log.result(log.recorded))
                    warned = warned or warn_if_stalled(state.opt_state)
                    if step >= stops.steps or log.stale:
                        break
                    state = reached
                    _show(bar, stop - step, log.rows[-1])
                log.save(state)
            except KeyboardInterrupt:
                return log.interrupted(state)
            except Exception as error:
                log.rescue(error, state)
                raise
    return log.result(state)


def _divergence(apply, problem, points, mesh, reached, last, so_far):
    """Return the error for a run that diverged; its bound uses the kernel at the last recorded step."""
    losses, weights = (dict(zip(problem.conditions, values.tolist())) for values in last)
    if so_far.history:
        weights = {name: values[-1] for name, values in so_far.history["weights"].items()}
    try:
        bound = float(stable_rate(ntk(apply, so_far.params, problem, points, mesh=mesh), weights))
    except ValueError:  # the kernel is not finite
        bound = np.nan
    # NaN ranks above every number: it marks the condition that failed.
    condition = max(losses, key=lambda name: (np.isnan(losses[name]), losses[name]))
    return DivergenceError(int(reached.step) - 1, losses, condition, bound, so_far)


def _row_maker(problem, own, measure):
    """Return ``(state, losses and weights at that state) -> row of the history``."""

    def row(state, seen):
        losses, weights = (dict(zip(problem.conditions, values)) for values in seen)
        found = {"step": int(state.step), "losses": losses, "weights": weights, **own(state.params)}
        return found | ({} if measure is None else _measured(measure(state.params)))

    return row


def _measured(found):
    """Return what ``measure`` returned as NumPy arrays, which later changes in place cannot reach."""
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise TypeError(f"measure: expected a function params -> {{name: array}}, got one that returns {found!r}")
    reserved = [name for name in found if name in ("step", "losses", "weights", "error", "errors", "held_out")]
    if reserved:
        raise ValueError(f"measure: expected names other than those of train's own columns, got {reserved}")
    arrays = {}
    for name, value in found.items():
        try:
            array = np.array(value)
        except (TypeError, ValueError):  # for instance, rows of different lengths
            array = np.array(None)
        if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
            raise TypeError(f"measure: expected an array of numbers under {name!r}, got {value!r}")
        arrays[name] = array.astype(array.dtype.newbyteorder("="))
    return arrays


def _check_losses(apply, params, problem, points, losses):
    """Check that the losses at the start of a run are finite."""
    for name, loss in zip(problem.conditions, losses):
        if not np.isfinite(loss):
            residuals = problem.residuals(partial(apply, params), points)[name]
            wrong = first_not_finite(residuals, points[name])
            why = f"the residual is {wrong[0]} at the point {wrong[1]}" if wrong else "the residuals' squares overflow"
            raise ValueError(f"problem.conditions[{name!r}]: expected a finite initial loss, got {loss}; {why}")


def _loss_limit(rows, losses, targets):
    """Return the sum of losses above which training has diverged, from the first losses (of earlier rows) and targets.

    The first losses of a trained network may be near zero, and grow by any factor and still be small. The growth
    therefore counts at least from the loss of u = 0, which is the targets' mean square, and from 1, the square of
    outputs of order one.
    """
    losses = list(rows[0]["losses"].values()) if rows else losses
    squares = sum(jnp.mean(values**2) for values in targets.values())
    limit = GROWTH_LIMIT * max(float(sum(losses)), float(squares), 1.0)
    return min(limit, float(jnp.finfo(jnp.result_type(*losses)).max))


def _show(bar, steps, row):
    """Move the progress bar on, and show a row on it."""
    parts = [f"{name} {row['losses'][name]:.1e} x {row['weights'][name]:.2g}" for name in row["losses"]]
    bar.update(steps)
    bar.set_postfix_str(", ".join(parts + ([f"error {row['error']:.1e}"] if "error" in row else [])), refresh=False)


def _check_kinds(optimizer, measure, checkpoint_every, held_out, patience, progress):
    check_optimizer("optimizer", optimizer)
    if measure is not None:
        check_function("measure", measure, "a function params -> {name: array}")
    check_count("checkpoint_every", checkpoint_every)
    check_flag("progress", progress)
    if patience is not None:
        check_count("patience", patience)
        if held_out is None:
            raise ValueError(f"held_out: expected points, since patience is {patience}, got None")


def _start(apply, params, problem, optimizer, weighting, points):
    """Check model, parameters and conditions, and return the state at step 0."""
    check_function("apply", apply, "a function apply(params, x)")
    arrays = [check_array(f"params{keystr(path)}", leaf) for path, leaf in leaves_of(params)]
    params = jax.tree.unflatten(jax.tree.structure(params), arrays)
    check_params(params)
    check_conditions(apply, params, problem.operators, next(iter(points.values()))[0])
    state = TrainState(jnp.zeros((), int), params, optimizer.init(params), weighting.init(list(problem.conditions)))
    return jax.tree.map(_of_fixed_type, state)


def _of_fixed_type(leaf):
    """Return a number as an array whose type does not adapt to others: a checkpoint restores it as such."""
    if isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jnp.number):
        return leaf
    return jax.lax.convert_element_type(leaf, jnp.result_type(leaf))


def _before(resume, start, names, steps, mesh):
    """Return the result to start from: an earlier one, one from a checkpoint, or an empty one at step 0."""
    if resume is None:
        before = Result({}, start)
    elif isinstance(resume, Result):
        before = checked(resume, start, names)
    elif isinstance(resume, str | os.PathLike):
        before = unpacked(Checkpoints(resume, create=False).restore(), start, names)
    else:
        raise TypeError(f"resume: expected a Result or a directory with checkpoints, got {resume!r}")
    if steps < before.state.step:
        raise ValueError(
            f"steps: expected at least {before.state.step}, the steps that the resumed run has made, got {steps}"
        )
    return replace(before, state=replicated(before.state, mesh))


def _compiled_run(apply, problem, optimizer, weighting, draw, mesh, data, single_steps):
    """Return ``(state, number of steps, loss limit) -> (state, first, last)``, as :func:`run_steps` returns them."""
    operators = tuple((name, static(operator)) for name, operator in problem.operators.items())
    functions = static(apply), operators, *map(static, (optimizer, weighting, draw))

    def run(state, length, loss_limit):
        single = int(state.step) < single_steps
        state, *seen = run_steps(*functions, mesh, single, data, state, length, loss_limit)
        return state, *map(np.asarray, seen)

    return run


@contextmanager
def _store(directory, resume):
    """Open and lock the directory for this run's checkpoints; it must not hold those of another run."""
    if directory is None:
        yield None
        return
    store = Checkpoints(directory)
    with store.locked():
        goes_on = isinstance(resume, str | os.PathLike) and Path(resume).absolute() == store.directory
        if store.steps and not goes_on:
            raise ValueError(
                f"checkpoints: {store.directory} already holds a run up to step {store.steps[-1]}; pass it as resume "
                "to continue that run, or choose another directory"
            )
        yield store
