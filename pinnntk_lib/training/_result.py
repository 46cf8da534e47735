"""The result of training, the error raised when training diverges, and the form in which checkpoints store results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_names
from pinnntk_lib._types import Params


class TrainState(NamedTuple):
    """The state carried from one step to the next: a pytree that can be saved as it is."""

    step: jax.Array
    params: Any
    opt_state: Any
    weighting_state: Any


@dataclass(frozen=True)
class Result:
    """The result of training.

    Attributes:
        history: NumPy arrays with a row every ``log_every`` steps and at each snapshot, the first at step 0 and the
            last at the end. ``"step"``, (rows,), holds the step numbers. ``"losses"`` and ``"weights"``, both
            ``{name: (rows,)}``, hold the unweighted mean squares and the weights used at that step. ``"error"``,
            (rows,), is the relative L2 error against the exact solution; it is absent if there is none. For a model
            with m outputs, ``"errors"``, (rows, m), holds that of each output, or its root mean square if the exact
            values are all zero. ``"held_out"``, ``{name: (rows,)}``, holds the losses at the held-out points, if there
            are any. The values that ``measure`` returned are stored under their names, (rows, ...). After Ctrl-C the
            last row may be earlier than ``state``.
        state: the state in which training stopped; ``train(..., resume=result)`` continues from it.
        snapshots: ``{step: parameters}`` at the requested steps.
        interrupted: whether Ctrl-C stopped the run.
        best: the step of the row with the least held-out loss, and the parameters there; None without held-out points.

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
    best: tuple[int, Any] | None = None

    @property
    def params(self) -> Params:
        """The final parameters."""
        return self.state.params


class DivergenceError(ArithmeticError):
    """Error raised when training diverges.

    Attributes:
        step: the first step at which the sum of the unweighted losses was not finite, or more than 1e6 times the
            largest of three numbers: that sum at the first step, the targets' mean square, and 1.
        losses: ``{name: loss}`` at that step.
        condition: name of the condition with the largest loss.
        bound: largest stable learning rate of plain gradient descent, from the kernel of all points and the weights
            at the last recorded step; NaN if that kernel or those weights are not finite.
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
        stable = (
            f"plain gradient descent is stable here only for learning rates below 2/lambda_max = {bound:.3g}; "
            if np.isfinite(bound)
            else ""
        )
        super().__init__(
            f"training diverged at step {step}, in condition {condition!r} (losses {shown}); {stable}"
            "earlier steps are in .result"
        )


SECOND_STAGE = (
    "to begin a second stage with other ones, pass the earlier run's result.params as params, without resume: this "
    "keeps the parameters and begins the step count, the history and the states of optimizer and weights anew"
)

# Training appends rows. Users plot columns, and checkpoints store them.


def columns_of(rows):
    """Convert rows to columns, keeping the order of the conditions."""
    if not rows:
        return {}
    if isinstance(rows[0], Mapping):
        return {name: columns_of([row[name] for row in rows]) for name in rows[0]}
    return np.stack([np.asarray(row) for row in rows])


def rows_of(history):
    """Convert columns to rows."""
    if isinstance(history, Mapping):
        columns = {name: rows_of(column) for name, column in history.items()}
        return [dict(zip(columns, values)) for values in zip(*columns.values())]
    return list(history)


def packed(result):
    """Convert a result to nested dicts of NumPy arrays, which orbax restores without being told their structure."""
    structure = {part: np.frombuffer("\n".join(lines).encode(), np.uint8) for part, lines in _parts(result.state)}
    snapshots = {str(step): _leaves(params) for step, params in result.snapshots.items()}
    return {
        "state": _leaves(result.state),
        "structure": structure,
        "history": result.history,
        "snapshots": snapshots,
    } | ({"best": {"step": np.array(result.best[0]), "params": _leaves(result.best[1])}} if result.best else {})


def unpacked(contents, like, names):
    """Convert the contents of a checkpoint back to a result; ``like`` is a state with the same structure."""
    history = contents["history"]
    check_names("resume", history["losses"], names)
    if "structure" in contents:  # checkpoints of version 0.1.0 have none
        texts = {part: bytes(np.asarray(text)).decode() for part, text in contents["structure"].items()}
        _check_same({part: text.split("\n") for part, text in texts.items()}, like)
    state = _unflattened(contents["state"], like)
    # Restored dicts are sorted by key: put the conditions back in the problem's order.
    for column in {"losses", "weights", "held_out"} & set(history):
        history[column] = {name: history[column][name] for name in names if name in history[column]}
    snapshots = {int(step): _unflattened(leaves, like.params) for step, leaves in contents.get("snapshots", {}).items()}
    best = contents.get("best")
    if best:
        best = int(best["step"]), _unflattened(best["params"], like.params)
    return Result(history, state, dict(sorted(snapshots.items())), best=best)


def checked(result, like, names):
    """Return a result to continue from; raise if its conditions or the structure of its state are not as expected."""
    if result.history:
        check_names("resume", result.history["losses"], names)
    _check_same(dict(_parts(result.state)), like)
    return result


def _check_same(found, like):
    """Check that each part of a state, described by ``found``, has the structure of ``like``."""
    for part, expected in _parts(like):
        if found.get(part) != expected:
            pairs = zip_longest(expected, found.get(part, []), fillvalue="nothing more")
            here, there = next(pair for pair in pairs if pair[0] != pair[1])
            advice = f"; {SECOND_STAGE}" if part in ("optimizer", "weights") else ""
            raise ValueError(f"resume: expected a run with the same {part} ({here}), got another ({there}){advice}")


def _parts(state):
    """Yield, for each argument of ``train`` that shapes the state, its name and a description of its part."""
    for part, tree in (
        ("precision (jax_enable_x64)", state.step),
        ("params", state.params),
        ("optimizer", state.opt_state),
        ("weights", state.weighting_state),
    ):
        yield part, list(_described(tree))


def _described(tree, path=""):
    """Yield a line for each node and leaf of a pytree.

    A treedef's own text will not do: it changes with JAX's version, and may hold the addresses of functions.
    """
    where = f" at {path}" if path else ""
    if jax.tree_util.all_leaves([tree]):
        dtype = tree.dtype if hasattr(tree, "dtype") else jnp.result_type(tree)
        yield f"{dtype.name}{list(jnp.shape(tree))}{where}"
        return
    yield f"{type(tree).__name__}{where}"
    for key, child in jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is not tree)[0]:
        yield from _described(child, path + jax.tree_util.keystr(key))


def _is_key(leaf):
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _leaves(tree):
    leaves = (jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree))
    return {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)}


def _unflattened(leaves, like):
    expected, treedef = jax.tree.flatten(like)
    shapes = [
        [f"{tree[key].dtype.name}{list(tree[key].shape)}" for key in sorted(tree, key=int)]
        for tree in (_leaves(like), leaves)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "resume: expected the checkpoint of a run with these parameters, optimizer and weights, whose arrays are "
            f"{', '.join(shapes[0])}, got {', '.join(shapes[1])}; {SECOND_STAGE}"
        )
    found = [jnp.asarray(leaves[str(i)]) for i in range(len(expected))]
    wrapped = [
        jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else data
        for data, leaf in zip(found, expected)
    ]
    return jax.tree.unflatten(treedef, wrapped)
