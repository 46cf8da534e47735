"""What training returns, what it raises when it diverges, and how a checkpoint holds either."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_names
from pinnntk_lib._types import Params


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
    def params(self) -> Params:
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

    def __init__(self, step: int, losses: dict[str, float], condition: str, bound: float, result: Result) -> None:
        self.step, self.losses, self.condition, self.bound, self.result = step, losses, condition, bound, result
        shown = ", ".join(f"{name}: {loss:.3g}" for name, loss in losses.items())
        super().__init__(
            f"training diverged at step {step}, in condition {condition!r} (losses {shown}); plain gradient descent is "
            f"stable here only below a learning rate of 2/lambda_max = {bound:.3g}. What came before is in .result"
        )


# Rows are what training appends to; columns are what a reader plots, and what a checkpoint holds.


def columns_of(rows):
    """Rows as columns, the conditions in the problem's order."""
    if not rows:
        return {}
    if isinstance(rows[0], Mapping):
        return {name: columns_of([row[name] for row in rows]) for name in rows[0]}
    return np.stack([np.asarray(row) for row in rows])


def rows_of(history):
    """Columns as rows."""
    if isinstance(history, Mapping):
        columns = {name: rows_of(column) for name, column in history.items()}
        return [dict(zip(columns, values)) for values in zip(*columns.values())]
    return list(history)


def packed(result):
    """A result as nested dicts of NumPy arrays, which a checkpoint can hold and give back with nothing else known."""
    snapshots = {str(step): _leaves(params) for step, params in result.snapshots.items()}
    return {"state": _leaves(result.state), "history": result.history, "snapshots": snapshots}


def unpacked(contents, like, names):
    """The result again; ``like`` is a state of its structure."""
    state, history = _unflattened(contents["state"], like), contents["history"]
    check_names("resume", history["losses"], names)
    # Dicts come back sorted: the conditions belong in the problem's order.
    history |= {column: {name: history[column][name] for name in names} for column in ("losses", "weights")}
    snapshots = {int(step): _unflattened(leaves, like.params) for step, leaves in contents.get("snapshots", {}).items()}
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
