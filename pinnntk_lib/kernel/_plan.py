"""The plan of how each parameter leaf enters the kernel, made by counting operations and memory."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pinnntk_lib._static import KEPT
from pinnntk_lib._types import Params
from pinnntk_lib.kernel._contraction import SMALL, Assembled, Products, Rows
from pinnntk_lib.kernel._costs import costs
from pinnntk_lib.kernel._factors import Factors, Gradients, factors_of
from pinnntk_lib.kernel._graph import Graph
from pinnntk_lib.kernel._leaves import reconciled, step_label
from pinnntk_lib.kernel._result import Path
from pinnntk_lib.kernel._setting import residuals_of
from pinnntk_lib.kernel._trace import trace


@dataclass(frozen=True, eq=False)
class Plan:
    """How the kernel of some conditions is computed.

    Attributes:
        features: ``{condition: Factors}``, or ``{condition: Gradients}`` for the method "jacobian".
        paths: how each leaf enters the kernel.
    """

    features: Mapping[str, Factors]
    paths: tuple[Path, ...]


@lru_cache(maxsize=KEPT)
def plan_of(setting, sizes, method, whole):
    """Plan how to compute the features of each condition."""
    residuals, params, x = residuals_of(setting)
    if method == "jacobian":
        features = {name: Gradients(residual, params, x) for name, residual in residuals.items()}
        paths = [
            Path(f"params{jax.tree_util.keystr(where)}", "jacobian", "asked for")
            for where, _ in jax.tree_util.tree_leaves_with_path(params)
        ]
        return Plan(features, tuple(paths))
    return _make_plan(residuals, params, x, dict(zip(residuals, sizes)), method, whole)


def residual_graphs(residuals: Mapping[str, Callable[..., Any]], params: Params, x: Any) -> dict[str, Graph]:
    """Trace each condition's residual to a graph ``(leaves, x) -> (outputs,)``; arguments as for :func:`_make_plan`."""
    leaves, treedef = jax.tree.flatten(params)

    def flat(residual):
        return lambda leaves, x: jnp.reshape(residual(jax.tree.unflatten(treedef, leaves), x), -1)

    return {name: trace(flat(residual), leaves, x) for name, residual in residuals.items()}


def _make_plan(residuals, params, x, sizes, method, whole):
    """Follow every leaf through every condition and decide how it enters the kernel.

    Args:
        residuals: ``{condition: function (params, x) -> number or (outputs,) array}``.
        params, x: shapes and dtypes of the parameters and of a point.
        sizes: ``{condition: number of points}``.
        method: "structured" contracts every part that can be factored by pairs of channels; "auto" does so, or
            assembles its Jacobian, whichever costs less.
        whole: whether the whole kernel is needed, or only its diagonal.
    """
    leaves = jax.tree.leaves(params)
    with jax.default_matmul_precision("highest"):
        graphs = residual_graphs(residuals, params, x)
        found, rows, reasons = reconciled(graphs, len(leaves))
        by_key: dict = {key: {} for key in reasons}
        for name, parts in found.items():
            for part in parts:
                by_key[part.key][name] = part
        forms: dict = {}
        groups: dict = {}
        direct = method == "auto" and whole and sum(math.prod(leaf.shape) for leaf in leaves) <= costs().direct
        for key, reason in reasons.items():
            uses = _uses(by_key[key], graphs, sizes)
            form = Rows if reason else Products
            if method == "auto" and not reason and (direct or not _pairs_pay(uses.values(), whole)):
                form, reasons[key] = Assembled, ASSEMBLED
            alike = form, tuple(uses.items()) if form is not Rows else _small_or_alone(key, by_key[key])
            forms[key] = groups.setdefault(alike, len(groups)), form
        # in the same order in every condition, since the parts of a group are stacked
        found = {name: [parts[name] for parts in by_key.values() if name in parts] for name in graphs}
        factors = {name: factors_of(graphs[name], parts, forms, rows, leaves, x) for name, parts in found.items()}
    return Plan(factors, _paths(params, reasons))


ASSEMBLED = "assembling its Jacobian costs less"


class _PartUse(NamedTuple):
    """How a condition uses a part: its residuals, the channels of each, and the sides of the parameter matrix.

    The sides are those of the first product that uses the part in any condition.
    """

    residuals: int
    channels: int
    rows: int
    columns: int
    dtype: Any


def _uses(parts, graphs, sizes):
    """Return ``{condition: _PartUse}`` of the conditions that use a part, ``{condition: part}``, in products."""
    uses: dict = {}
    for name, part in parts.items():
        channels = 0
        for use in part.uses:
            rows, columns = (math.prod(part.shape[i] for i in side) for side in (use.rows, use.columns))
            channels += math.prod(graphs[name].avals[use.other].shape) // columns
        if part.uses:
            first = next(iter(uses.values()), None)
            rows, columns = (first.rows, first.columns) if first else (rows, columns)
            residuals = sizes[name] * graphs[name].avals[graphs[name].outputs[0]].shape[0]
            uses[name] = _PartUse(residuals, channels, rows, columns, part.dtype)
    return uses


def _small_or_alone(key, parts):
    """Return what parts have in common whose Jacobians are joined: the conditions, if they are small."""
    some = next(iter(parts.values()))
    return key if some.size > SMALL else (tuple(parts), some.dtype)


def _pairs_pay(uses, whole):
    """Return whether contracting a part's outer products by pairs of channels costs less than its Jacobian."""
    uses = list(uses)
    cost, rows, columns = costs(), uses[0].rows, uses[0].columns
    size, sides = rows * columns, rows + columns
    if min(rows, columns) == 1:
        return False
    assembling = [n * size * (c * cost.assemble + cost.write) for n, c, *_ in uses]
    if not whole:
        return sum(n * c**2 * (sides + cost.accumulate) for n, c, *_ in uses) < sum(assembling)
    by_pairs = by_rows = 0.0
    for i, ((n, c, *_), one) in enumerate(zip(uses, assembling)):
        # K is symmetric: within a condition, one half of the pairs of channels is enough
        by_pairs += n**2 * c * (c + 1) / 2 * (sides + cost.accumulate)
        by_rows += n**2 * size + one
        for (m, k, *_), other in zip(uses[i + 1 :], assembling[i + 1 :]):
            by_pairs += n * m * c * k * (sides + cost.accumulate)
            by_rows += n * m * size + one + other
    return by_pairs < by_rows


def _paths(params, reasons):
    """Return how each leaf enters the kernel, in the order of the leaves."""
    paths = []
    for leaf, (where, _) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        name = f"params{jax.tree_util.keystr(where)}"
        own = [(steps, reason) for (number, steps), reason in reasons.items() if number == leaf]
        if not own:
            paths.append(Path(name, "unused", "no condition depends on it"))
        for steps, reason in own:
            label = name + "".join(map(step_label, steps))
            method = {"": "structured", ASSEMBLED: "assembled"}.get(reason, "jacobian")
            paths.append(Path(label, method, reason or "used in matrix products"))
    return tuple(paths)
