"""Training: gradient descent on the weighted sum of mean squared residuals, compiled, watched and resumable."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm.auto import tqdm

from pinnntk_lib._check import check_conditions, check_count, check_params, check_points
from pinnntk_lib.dynamics import largest_stable_learning_rate
from pinnntk_lib.ntk import ntk
from pinnntk_lib.problems import Problem
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
            solution, if there is one.
        state: where training stopped; ``train(..., resume=result)`` goes on from it.
        interrupted: whether it was stopped by Ctrl-C.
    """

    history: dict[str, Any]
    state: TrainState
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
    resume: Result | None = None,
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
        points: ``{name: (n, d) array}`` for all steps, or a function ``key -> points`` for fresh ones at each.
        optimizer: from optax.
        steps: the number of the last step, counted from 0 even when resuming.
        weights: ``{name: lambda}``, or a weighting such as :class:`~pinnntk_lib.weighting.NTKWeights`; all 1 if None.
        key: the random key of ``points``, if that is a function.
        log_every: steps between rows of the history.
        test_points: (m, d), where the error is measured; by default a regular grid of about a thousand.
        resume: an earlier result, to go on from; ``params`` is then not used.
        progress: show a bar, once the run has taken two seconds.

    Returns:
        The parameters and the history; after Ctrl-C, those so far, marked as interrupted.

    Raises:
        ValueError, TypeError: if an argument's shape, type, names or values do not fit; the message says which.
        DivergenceError: with the step, the losses and the stability bound, and everything up to the last row.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(a=1), pn.MLP(width=20)
        >>> params = model.init(jax.random.key(0))
        >>> result = pn.train(model.apply, params, problem, problem.points(20), optax.sgd(1e-3), steps=200)
        >>> result.history["step"].tolist(), sorted(result.history["losses"])
        ([0, 100, 200], ['r', 'u'])
    """
    steps, log_every = check_count("steps", steps), check_count("log_every", log_every)
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"optimizer: expected an optax gradient transformation, got {optimizer!r}")
    weighting = weights if hasattr(weights, "update") and hasattr(weights, "init") else Fixed(weights)
    data, draw = _source(problem, points, key)
    error = _error_measure(apply, problem, test_points)
    names = list(problem.conditions)
    if resume is None:
        params = jax.tree.map(jnp.asarray, params)
        check_params(params)
        first_points, first_targets = draw(data, 0)
        check_conditions(apply, params, problem.operators, next(iter(first_points.values()))[0])
        _check_targets(problem, first_points, first_targets)
        state = TrainState(jnp.zeros((), int), params, optimizer.init(params), weighting.init(names))
        rows = []
    else:
        state = resume.state
        rows = [row for row in _rows(resume.history) if row["step"] < state.step]

    run = partial(_run, apply, tuple(problem.operators.items()), optimizer, weighting, draw, data)
    losses_at_0 = rows[0]["losses"].values() if rows else np.asarray(run(state, 1, np.inf)[1][0])
    limit = GROWTH_LIMIT * float(sum(losses_at_0)) or np.inf
    recorded = state  # the last one whose losses are known to be sound
    bar = tqdm(total=steps, initial=int(state.step), disable=not progress, delay=2, unit="step")
    with bar:
        try:
            while True:
                step = int(state.step)
                # The last row costs one step whose result is dropped, so that one compiled function serves all.
                length = min(log_every - step % log_every, max(steps - step, 1))
                reached, first, last = run(state, length, limit)
                first, last = np.asarray(first), np.asarray(last)
                if not _diverged(first, limit):
                    losses, weights = (dict(zip(names, values)) for values in first)
                    rows.append({"step": step, "losses": losses, "weights": weights, **error(state.params)})
                    recorded = state
                if _diverged(last, limit):
                    so_far = Result(_history(rows), recorded)
                    raise _divergence(apply, problem, draw(data, recorded.step)[0], int(reached.step) - 1, last, so_far)
                if step >= steps:
                    break
                state = reached
                bar.update(length)
                bar.set_postfix({name: f"{loss:.2e}" for name, loss in losses.items()}, refresh=False)
        except KeyboardInterrupt:
            return Result(_history(rows), state, interrupted=True)
    return Result(_history(rows), state)


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

    def losses(params, points, targets):
        def u(y):
            return apply(params, y)

        return {
            name: jnp.mean((jax.vmap(partial(operator, u))(points[name]) - targets[name]) ** 2)
            for name, operator in operators
        }

    def step(state):
        points, targets = draw(data, state.step)
        view = View(state.step, apply, state.params, dict(operators), points)
        weights, weighting_state = weighting.update(state.weighting_state, view)

        def loss(params):
            components = losses(params, points, targets)
            return sum(weights[name] * components[name] for name in components), components

        gradient, components = jax.grad(loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
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


def _history(rows):
    """Rows as columns, the conditions in the problem's order."""
    if not rows:
        return {}
    return {
        name: {key: np.array([row[name][key] for row in rows]) for key in first}
        if isinstance(first, dict)
        else np.array([row[name] for row in rows])
        for name, first in rows[0].items()
    }


def _rows(history):
    """Columns as rows."""
    return [jax.tree.map(lambda column: column[i], history) for i in range(len(history.get("step", ())))]  # noqa: B023
