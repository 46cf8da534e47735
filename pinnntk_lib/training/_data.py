"""Training: gradient descent on the weighted sum of mean squared residuals, compiled, watched and resumable."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm.auto import tqdm

from pinnntk_lib._check import check_conditions, check_count, check_names, check_params, check_points
from pinnntk_lib.checkpoints import CheckpointError, Checkpoints
from pinnntk_lib.dynamics import largest_stable_learning_rate
from pinnntk_lib.ntk import ntk
from pinnntk_lib.problems import Problem
from pinnntk_lib.structured import residual_graphs
from pinnntk_lib.weighting import Fixed, View

__all__ = ["DivergenceError", "Result", "TrainState", "relative_l2_error", "train"]

# A loss that has grown by this factor will not come back; waiting for infinity would only lose time.
GROWTH_LIMIT = 1e6


class TrainState(NamedTuple):
    """All that the next step depends on: a pytree, to be saved as it is."""

    step: jax.Array
    params: Any
    opt_state: Any
    weighting_state: Any


@dataclass(frozen=True)
class Result:
    """What training gives.

    Attributes:
        history: NumPy arrays, a row every ``log_every`` steps, the first at step 0 and the last at the end:
            ``"step"`` (rows,); ``"losses"`` and ``"weights"``, ``{name: (rows,)}``, the unweighted mean squares and
            the weights in force at that step; ``"error"`` (rows,), the relative L2 error against the exact
            solution, if there is one; and what ``measure`` returned, (rows, ...).
        state: where training stopped; ``train(..., resume=result)`` goes on from it.
        snapshots: ``{step: parameters}`` at the steps asked for.
        interrupted: whether it was stopped by Ctrl-C.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(), pn.MLP(width=10)
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(10), optax.sgd(1e-5)
        >>> result = pn.train(*setting, 100, log_every=50)
        >>> result.history["step"].tolist(), sorted(result.history)
        ([0, 50, 100], ['error', 'losses', 'step', 'weights'])
        >>> further = pn.train(*setting, 200, log_every=50, resume=result)
        >>> further.history["step"].tolist()
        [0, 50, 100, 150, 200]
    """

    history: dict[str, Any]
    state: TrainState
    snapshots: dict[int, Any] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def params(self):
        """The parameters reached."""
        return self.state.params


class DivergenceError(ArithmeticError):
    """Training diverged.

    Attributes:
        step: the first step whose loss was not finite, or had grown by 1e6.
        losses: ``{name: loss}`` at that step.
        condition: the name of the condition with the largest loss.
        bound: the largest stable learning rate of gradient descent, from the kernel at the last recorded step
            before.
        result: everything up to that recorded step.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(), pn.MLP(width=10)
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(10)
        >>> try:
        ...     pn.train(*setting, optax.sgd(10.0), 100)
        ... except pn.DivergenceError as error:
        ...     print(error.condition, error.bound < 10, error.result.history["step"].tolist())
        ...
        u True [0]
    """

    def __init__(self, step: int, losses: dict[str, float], condition: str, bound: float, result: Result):
        self.step, self.losses, self.condition, self.bound, self.result = step, losses, condition, bound, result
        shown = ", ".join(f"{name}: {loss:.3g}" for name, loss in losses.items())
        super().__init__(
            f"training diverged at step {step}, in condition {condition!r} (losses {shown}); plain gradient descent is "
            f"stable here only below a learning rate of 2/lambda_max = {bound:.3g}. What came before is in .result"
        )


def train(
    apply: Callable,
    params,
    problem: Problem,
    points: Mapping[str, jax.Array] | Callable[[jax.Array], Mapping[str, jax.Array]],
    optimizer: optax.GradientTransformation,
    steps: int,
    weights=None,
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
    snapshots = _snapshot_steps(snapshots, steps)
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"optimizer: expected an optax gradient transformation, got {optimizer!r}")
    weighting = weights if hasattr(weights, "update") and hasattr(weights, "init") else Fixed(weights)
    data, draw = _source(problem, points, key)
    error = _error_measure(apply, problem, test_points)
    names = list(problem.conditions)
    before = _before(apply, params, problem, optimizer, weighting, draw, data, resume)
    store = _store(checkpoints, resume)
    state, kept = before.state, dict(before.snapshots)
    rows = [row for row in _rows(before.history) if row["step"] < state.step]

    def so_far(state, **marks):
        return Result(_history(rows), state, dict(kept), **marks)

    def save(state):
        if store is not None and rows:
            try:
                store.save(int(state.step), _packed(so_far(state)))
            except CheckpointError as failed:
                failed.result = so_far(state)
                raise

    run = partial(_run, apply, tuple(problem.operators.items()), optimizer, weighting, draw, data)
    losses_at_0 = list(rows[0]["losses"].values()) if rows else np.asarray(run(state, 1, np.inf)[1][0])
    _check_start(names, losses_at_0)
    limit = GROWTH_LIMIT * float(sum(losses_at_0)) or np.inf
    recorded = state  # the last one whose losses are known to be sound
    saved = int(state.step)
    bar = tqdm(total=steps, initial=saved, disable=not progress, delay=2, unit="step")
    with bar:
        try:
            while True:
                step = int(state.step)
                # The last row costs one step whose result is dropped, so that one compiled function serves all.
                stops = [step - step % log_every + log_every, max(steps, step + 1), *(s for s in snapshots if s > step)]
                reached, first, last = run(state, min(stops) - step, limit)
                first, last = np.asarray(first), np.asarray(last)
                if not _diverged(first, limit):
                    losses, weights = (dict(zip(names, values)) for values in first)
                    row = {"step": step, "losses": losses, "weights": weights, **error(state.params)}
                    row |= {} if measure is None else dict(measure(state.params))
                    if rows and set(row) != set(rows[0]):
                        raise ValueError(f"measure: expected the columns so far, {[*rows[0]]}, got {[*row]}")
                    rows.append(row)
                    recorded = state
                    if step in snapshots:
                        kept[step] = state.params
                    if step - saved >= checkpoint_every:
                        save(state)
                        saved = step
                if _diverged(last, limit):
                    x = draw(data, recorded.step)[0]
                    raise _divergence(apply, problem, x, int(reached.step) - 1, last, so_far(recorded))
                if step >= steps:
                    break
                state = reached
                bar.update(min(stops) - step)
                bar.set_postfix_str(_shown(row), refresh=False)
            save(state)
        except KeyboardInterrupt:
            save(state)
            return so_far(state, interrupted=True)
    return so_far(state)


def relative_l2_error(u: jax.Array, exact: jax.Array) -> jax.Array:
    """``||u - exact|| / ||exact||`` over the same points, both of shape (m,).

    Example:
        >>> import jax.numpy as jnp
        >>> float(relative_l2_error(jnp.array([3.0, 5.0]), jnp.array([3.0, 4.0])))
        0.2
    """
    return jnp.linalg.norm(u - exact) / jnp.linalg.norm(exact)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _run(apply, operators, optimizer, weighting, draw, data, state, length, loss_limit):
    """``length`` steps, or as many as there are before divergence.

    Returns the state reached, and what the first and the last step saw before their update: (2, conditions) arrays
    of losses and weights. Arrays, since every further value carried through the loop costs a microsecond a step.
    """

    def residual(operator):
        return lambda params, x: operator(lambda y: apply(params, y), x)

    # Reverse mode would double what nested derivatives compute twice: it is merged before.
    x = jax.eval_shape(draw, data, state.step)[0][operators[0][0]]
    point = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    graphs = residual_graphs({name: residual(operator) for name, operator in operators}, state.params, point)

    def residuals(params, points, targets):
        leaves = jax.tree.leaves(params)

        def at(graph, x, target):
            values = jax.vmap(lambda point: graph.run([*leaves, point])[0][0])(x)
            return values.reshape(target.shape) - target

        return {name: at(graph, points[name], targets[name]) for name, graph in graphs.items()}

    def step(state):
        points, targets = draw(data, state.step)

        def residuals_of(params):
            return residuals(params, points, targets)

        def unweighted(params):
            return {name: jnp.mean(r**2) for name, r in residuals_of(params).items()}

        view = View(state.step, apply, state.params, dict(operators), points, unweighted, residuals_of)
        weights, weighting_state = weighting.update(state.weighting_state, view)

        def loss(params):
            components = unweighted(params)
            return sum(weights[name] * components[name] for name in components), components

        (value, components), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)

        def value_fn(params, view=None, weights=None):
            """The loss; optax's line searches insist that it names all that they are given."""
            return loss(params)[0]

        # for the optimisers that ask for more than a gradient; what is not used is not computed
        more = {"value": value, "grad": gradient, "value_fn": value_fn, "view": view, "weights": weights}
        update = optax.with_extra_args_support(optimizer).update
        updates, opt_state = update(gradient, state.opt_state, state.params, **more)
        params = optax.apply_updates(state.params, updates)
        seen = jnp.array([[values[name] for name, _ in operators] for values in (components, weights)])
        return TrainState(state.step + 1, params, opt_state, weighting_state), seen

    def go_on(carry):
        state, _, last = carry
        return (state.step < stop) & ~_diverged(last, loss_limit)

    def advance(carry):
        state, first, _ = carry
        new_state, last = step(state)
        return new_state, jnp.where(state.step == start, last, first), last

    start, stop = state.step, state.step + length
    unseen = jnp.zeros_like(jax.eval_shape(step, state)[1])
    return jax.lax.while_loop(go_on, advance, (state, unseen, unseen))


def _diverged(seen, loss_limit):
    # Written so that NaN counts as diverged.
    return ~(seen[0].sum() <= loss_limit)


def _divergence(apply, problem, points, step, last, so_far):
    """The error for a run that diverged at ``step``; the bound is from the kernel at the last recorded step."""
    losses, weights = (dict(zip(problem.conditions, values.tolist())) for values in last)
    if so_far.history:
        weights = {name: values[-1] for name, values in so_far.history["weights"].items()}
    bound = float(largest_stable_learning_rate(ntk(apply, so_far.params, problem, points), weights))
    # NaN is larger than any number here: it is where the trouble is.
    condition = max(losses, key=lambda name: (np.isnan(losses[name]), losses[name]))
    return DivergenceError(step, losses, condition, bound, so_far)


# Where a step's points come from: ``draw(data, step) -> (points, targets)``, ``draw`` being static under jit.


def _source(problem, points, key):
    if not isinstance(problem, Problem):
        raise TypeError(f"problem: expected a pinnntk_lib.Problem, got {type(problem).__name__}")
    targets = tuple((name, condition.target) for name, condition in problem.conditions.items())
    if not callable(points):
        points = check_points(points, problem.operators)
        return (points, _values(targets, points)), _same_every_step
    if key is None:
        raise ValueError("key: expected a JAX random key, since points is a function of one, got None")
    return key, _Fresh(points, targets)


def _same_every_step(data, step):
    return data


@dataclass(frozen=True)
class _Fresh:
    """New points at each step, from the run's key and the step's number alone: resuming draws the same ones."""

    sampler: Callable
    targets: tuple

    def __call__(self, key, step):
        points = check_points(self.sampler(jax.random.fold_in(key, step)), [name for name, _ in self.targets])
        return points, _values(self.targets, points)


def _values(targets, points):
    return {name: jax.vmap(target)(points[name]) for name, target in targets}


def _check_targets(problem, points, targets):
    """As many numbers as the operators return: others would be broadcast, and the loss be of something else."""
    for name, operator in problem.operators.items():
        outputs = (operator.outputs,) if hasattr(operator, "outputs") else ()
        if targets[name].shape != (len(points[name]), *outputs):
            shape = targets[name].shape[1:]
            raise ValueError(f"problem.conditions[{name!r}].target: expected shape {outputs} at a point, got {shape}")


def _check_start(names, losses):
    for name, loss in zip(names, losses):
        if not np.isfinite(loss):
            raise ValueError(
                f"problem.conditions[{name!r}]: expected a finite loss to start from, got {loss}: the operator or its "
                "target is not finite at one of the points"
            )


def _error_measure(apply, problem, test_points):
    """``params -> {"error": relative L2 error}``, or ``{}`` where no exact solution is known."""
    if problem.exact is None:
        return lambda params: {}
    x = problem.grid(round(1000 ** (1 / problem.dim))) if test_points is None else jnp.asarray(test_points)
    if x.ndim != 2 or x.shape[1] != problem.dim:
        raise ValueError(f"test_points: expected shape (m, {problem.dim}), got {x.shape}")
    exact = problem.exact(x)
    return lambda params: {"error": _error(apply, params, x, exact)}


@partial(jax.jit, static_argnums=0)
def _error(apply, params, x, exact):
    return relative_l2_error(jax.vmap(partial(apply, params))(x), exact)


# Rows are what training appends to; columns are what a reader plots, and what a checkpoint holds.


def _history(rows):
    """Rows as columns, the conditions in the problem's order."""
    if not rows:
        return {}
    if isinstance(rows[0], Mapping):
        return {name: _history([row[name] for row in rows]) for name in rows[0]}
    return np.stack([np.asarray(row) for row in rows])


def _rows(history):
    """Columns as rows."""
    if isinstance(history, Mapping):
        columns = {name: _rows(column) for name, column in history.items()}
        return [dict(zip(columns, values)) for values in zip(*columns.values())]
    return list(history)


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
    _check_targets(problem, points, targets)
    state = TrainState(jnp.zeros((), int), params, optimizer.init(params), weighting.init(names))
    if resume is None:
        return Result({}, state)
    return _unpacked(Checkpoints(resume, create=False).restore(), state, names)


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


def _packed(result):
    """A result as nested dicts of NumPy arrays, which a checkpoint can hold and give back with nothing else known."""
    snapshots = {str(step): _leaves(params) for step, params in result.snapshots.items()}
    return {"state": _leaves(result.state), "history": result.history, "snapshots": snapshots}


def _unpacked(packed, like, names):
    """The result again; ``like`` is a state of its structure."""
    state, history = _unflattened(packed["state"], like), packed["history"]
    check_names("resume", history["losses"], names)
    # Dicts come back sorted: the conditions belong in the problem's order.
    history |= {column: {name: history[column][name] for name in names} for column in ("losses", "weights")}
    snapshots = {int(step): _unflattened(leaves, like.params) for step, leaves in packed.get("snapshots", {}).items()}
    return Result(history, state, dict(sorted(snapshots.items())))


def _leaves(tree):
    return {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}


def _unflattened(leaves, like):
    expected, treedef = jax.tree.flatten(like)
    found = [leaves[key] for key in sorted(leaves, key=int)]
    shapes = [[f"{leaf.dtype.name}{list(leaf.shape)}" for leaf in tree] for tree in (expected, found)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "resume: expected the checkpoint of a run with these parameters, optimizer and weights, whose arrays are "
            f"{', '.join(shapes[0])}; it has {', '.join(shapes[1])}"
        )
    return jax.tree.unflatten(treedef, [jnp.asarray(leaf) for leaf in found])
