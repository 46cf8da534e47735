"""The plan of how each parameter leaf enters the kernel, made by counting operations and memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from pinnntk_lib._types import Params
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


@lru_cache(maxsize=128)
def plan_of(setting, sizes, method, whole, memory):
    """Plan how to compute the features of each condition."""
    residuals, params, x = residuals_of(setting)
    if method == "jacobian":
        features = {name: Gradients(residual, params, x) for name, residual in residuals.items()}
        paths = [
            Path(f"params{jax.tree_util.keystr(where)}", "jacobian", "asked for")
            for where, _ in jax.tree_util.tree_leaves_with_path(params)
        ]
        return Plan(features, tuple(paths))
    return _make_plan(residuals, params, x, dict(zip(residuals, sizes)), method, whole, memory)


def residual_graphs(residuals: Mapping[str, Callable[..., Any]], params: Params, x: Any) -> dict[str, Graph]:
    """Trace each condition's residual to a graph ``(leaves, x) -> (outputs,)``; arguments as for :func:`_make_plan`."""
    leaves, treedef = jax.tree.flatten(params)

    def flat(residual):
        return lambda leaves, x: jnp.reshape(residual(jax.tree.unflatten(treedef, leaves), x), -1)

    return {name: trace(flat(residual), leaves, x) for name, residual in residuals.items()}


def _make_plan(residuals, params, x, sizes, method, whole, memory):
    """Follow every leaf through every condition and decide how it enters the kernel.

    Args:
        residuals: ``{condition: function (params, x) -> number or (outputs,) array}``.
        params, x: shapes and dtypes of the parameters and of a point.
        sizes: ``{condition: number of points}``.
        method: "structured" factors every part that can be factored, "auto" only the parts for which this costs less.
        whole: whether the whole kernel is needed, or only its diagonal.
        memory: memory budget in bytes. If a Jacobian would take more than half of it (in float32), "auto" prefers
            factors that are smaller.
    """
    leaves = jax.tree.leaves(params)
    with jax.default_matmul_precision("highest"):
        graphs = residual_graphs(residuals, params, x)
        outputs = {name: graph.avals[graph.outputs[0]].shape[0] for name, graph in graphs.items()}
        found, rows, reasons = reconciled(graphs, len(leaves))
        keys = list(reasons)

        def build():
            return {
                name: factors_of(
                    graphs[name],
                    parts,
                    [keys.index(part.key) for part in parts],
                    [not reasons[part.key] for part in parts],
                    rows,
                    leaves,
                    x,
                    outputs[name],
                )
                for name, parts in found.items()
            }

        factors = build()
        if method == "auto":
            counts = {name: sizes[name] * outputs[name] for name in sizes}
            dear = [
                key
                for number, key in enumerate(keys)
                if not reasons[key] and not _pays(number, factors, counts, whole, memory)
            ]
            if dear:
                reasons |= dict.fromkeys(dear, "its Jacobian costs less")
                factors = build()
    return Plan(factors, _paths(params, reasons))


# Costs in multiply-adds of a matrix product, measured on two CPU cores: adding an element of a channel pair's kernel to
# the sum over channels, and writing an element of a Jacobian.
SUM, WRITE = 30, 40


def _pays(part, factors, counts, whole, memory):
    """Return whether a part's factors cost less than its Jacobian."""
    used = [(counts[name], f.count(part), *f.sides[part]) for name, f in factors.items() if part in f.channels]
    rows, columns = used[0][2:]
    size = rows * columns
    if min(rows, columns) == 1:
        return False
    numbers = sum(n * c * (rows + columns) for n, c, *_ in used)
    points = sum(n for n, *_ in used)
    if 4 * points * size > memory / 2 and numbers < points * size:
        return True
    if not whole:
        return sum(n * c**2 * (rows + columns) for n, c, *_ in used) < sum(n * c * size for n, c, *_ in used)
    forming = sum(n * (c + WRITE) * size for n, c, *_ in used)
    pairs = [(a, b) for i, a in enumerate(used) for b in used[i:]]
    in_factors = sum(n * c * m * d * (rows + columns + SUM) for (n, c, *_), (m, d, *_) in pairs)
    return in_factors < sum(n * m * size for (n, *_), (m, *_) in pairs) + forming


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
            paths.append(Path(label, "jacobian" if reason else "structured", reason or "used in matrix products"))
    return tuple(paths)
