"""Gradients of a residual by the parameters, as short sums of outer products: the fast path of the empirical NTK.

Wherever a parameter matrix W enters a product z = W a, the gradient of a scalar residual r by W is delta a^T with
delta = dr/dz; if W enters several products (the network's value, its derivatives), it is the sum of those, one a
channel. The kernel of two residuals is then

    <dr_i/dW, dr_j/dW> = sum over channels k, l of (delta_ik . delta_jl) (a_ik . a_jl),

which costs C^2 (rows + columns) operations a pair instead of rows * columns, and needs no Jacobian.

The model is any pure function: the residual is traced to a graph, each parameter leaf is followed to the products that
use it, and the deltas are its derivatives by zeros ("taps") added to the products' results. A leaf that is used in
another way keeps its own Jacobian, found by a tap on the leaf itself; the plan says which, and why.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib.graph import Graph, trace
from pinnntk_lib.leaves import Part, reconciled, step_label

__all__ = ["Factors", "Path", "Plan", "block", "diagonal", "make_plan", "residual_graphs"]


class Path(NamedTuple):
    """How one parameter leaf, or a slice of one, enters the kernel.

    Attributes:
        leaf: where it is in the parameters.
        method: "structured", "jacobian", or "unused" (no condition depends on it).
        reason: why.
    """

    leaf: str
    method: str
    reason: str


# ---------------------------------------------------------------- the factors of one residual


class Channel(NamedTuple):
    """An outer product of a part's gradient, m of them at once, as values of the factor graph.

    Attributes:
        delta: (outputs, m, rows); if ``swapped``, (outputs, m, columns).
        other: (m, columns); if ``swapped``, (m, rows).
    """

    delta: int
    other: int
    swapped: bool
    m: int


@dataclass(frozen=True, eq=False)
class Factors:
    """The gradient of one condition's residual, in factors.

    Attributes:
        graph: from the leaves and a point to deltas (outputs, m, rows), others (m, columns) and Jacobians
            (outputs, size).
        channels: ``{part: its channels}``.
        jacobians: ``{part: value}`` of those that are not in factors.
        sides: ``{part: (rows, columns)}`` of those in factors, ``{part: (size,)}`` of the others.
        outputs: numbers that the condition has at a point.
        bytes_per_point: what a point takes while its factors are computed.
        itemsize: of one number.
    """

    graph: Graph
    channels: Mapping[int, tuple[Channel, ...]]
    jacobians: Mapping[int, int]
    sides: Mapping[int, tuple[int, ...]]
    outputs: int
    bytes_per_point: int
    itemsize: int

    def count(self, part: int) -> int:
        """The number of channels."""
        return sum(channel.m for channel in self.channels[part])

    @property
    def feature_bytes(self) -> int:
        """What the factors of one point take."""
        factors = sum(self.count(part) * sum(self.sides[part]) for part in self.channels)
        return self.itemsize * self.outputs * (factors + sum(self.sides[part][0] for part in self.jacobians))

    def __call__(self, leaves: Sequence, x: jax.Array) -> dict[int, tuple[jax.Array, ...]]:
        """The factors at points x (n, d).

        Returns:
            ``{part: (rows (C, n * outputs, rows), columns (C, n * outputs, columns))}``, and for parts that are not
            in factors ``{part: (Jacobian (1, n * outputs, size),)}``.
        """
        stacked = jax.vmap(self._at_point, in_axes=(None, 0), out_axes=1)(leaves, x)
        return jax.tree.map(lambda a: a.reshape(len(a), -1, a.shape[-1]), stacked)

    def _at_point(self, leaves, x):
        values = dict(zip(self.graph.outputs, self.graph.run([*leaves, x])[0]))

        def sides(channel):
            delta = jnp.moveaxis(values[channel.delta], 0, 1)  # (m, outputs, rows)
            other = values[channel.other][:, None]
            other = jnp.broadcast_to(other, (channel.m, self.outputs, other.shape[-1]))
            return (other, delta) if channel.swapped else (delta, other)

        found = {part: (values[value][None],) for part, value in self.jacobians.items()}
        for part, channels in self.channels.items():
            found[part] = tuple(jnp.concatenate(side) for side in zip(*map(sides, channels)))
        return found


def _factor_function(graph: Graph, parts: Sequence[Part], in_factors: Sequence[bool]) -> Callable:
    """``(leaves, x) -> [per part: [(delta, other) per use], or its Jacobian]``, to be traced."""
    taps = {use.product for part, yes in zip(parts, in_factors) if yes for use in part.uses}
    taps |= {part.value for part, yes in zip(parts, in_factors) if not yes}
    used = [use for part, yes in zip(parts, in_factors) if yes for use in part.uses]
    wanted = sorted({use.other for use in used} | {scale.value for use in used for scale in use.scales})

    def scaled(side, shape, axes, scales, values):
        """One side of the outer products, (..., product of its axes of the leaf), times scales that vary along them."""
        lengths = [shape[axis] for axis in axes]
        for scale in scales:
            kept = dict(scale.axes)
            array = values[scale.value]
            array = array[tuple(slice(None) if i in kept else 0 for i in range(array.ndim))]
            array = array.transpose(sorted(range(len(kept)), key=list(kept.values()).__getitem__))
            array = array.reshape([n if axis in kept.values() else 1 for axis, n in zip(axes, lengths)])
            array = jnp.broadcast_to(array, lengths).reshape(-1)
            side = side / array if scale.inverse else side * array
        return side

    def function(leaves, x):
        def residual(taps):
            (out,), values = graph.run([*leaves, x], wanted, taps)
            return out, dict(zip(wanted, values))

        zeros = {value: jnp.zeros(graph.avals[value].shape, graph.avals[value].dtype) for value in taps}
        out, pullback, values = jax.vjp(residual, zeros, has_aux=True)
        if out.size == 1:  # no batch axis, so that the graph stays as short as it can be
            gradients = jax.tree.map(lambda g: g[None], pullback(jnp.ones_like(out))[0])
        else:
            (gradients,) = jax.vmap(pullback)(jnp.eye(out.size, dtype=out.dtype))

        def pair(part, use):
            rows, columns = (math.prod(part.shape[i] for i in side) for side in (use.rows, use.columns))
            delta = gradients[use.product]
            delta = delta.transpose(0, *(i + 1 for i in use.delta_axes)).reshape(out.size, -1, rows)
            other = values[use.other].transpose(use.other_axes).reshape(-1, columns)
            delta, other = delta.astype(part.dtype), other.astype(part.dtype)
            on_other = [scale for scale in use.scales if scale.axes and scale.axes[0][1] in use.columns]
            on_delta = [scale for scale in use.scales if scale not in on_other]
            delta = scaled(delta if use.sign > 0 else -delta, part.shape, use.rows, on_delta, values)
            return delta, scaled(other, part.shape, use.columns, on_other, values)

        return [
            [pair(part, use) for use in part.uses] if yes else gradients[part.value].reshape(out.size, -1)
            for part, yes in zip(parts, in_factors)
        ]

    return function


def _factors(graph, parts, numbers, in_factors, rows, leaves, x, outputs):
    """:class:`Factors` of one condition.

    ``numbers`` are the parts' own, over all conditions; ``rows`` are the axes of each that all conditions take as rows.
    """
    factor_graph = trace(_factor_function(graph, parts, in_factors), leaves, x)
    values = iter(factor_graph.outputs)
    channels, jacobians, sides = {}, {}, {}
    for part, number, yes in zip(parts, numbers, in_factors):
        if not yes:
            jacobians[number], sides[number] = next(values), (part.size,)
            continue
        found = []
        for use in part.uses:
            delta, other = next(values), next(values)
            found.append(Channel(delta, other, use.rows != rows[part.key], factor_graph.avals[other].shape[0]))
        channels[number] = tuple(found)
        height = math.prod(part.shape[axis] for axis in rows[part.key])
        sides[number] = (height, part.size // height)
    return Factors(
        factor_graph,
        channels,
        jacobians,
        sides,
        outputs,
        factor_graph.peak_bytes(),
        max(leaf.dtype.itemsize for leaf in leaves),
    )


# ---------------------------------------------------------------- the plan


@dataclass(frozen=True, eq=False)
class Plan:
    """How the kernel of some conditions is computed.

    Attributes:
        features: ``{condition: Factors}``.
        paths: what became of each leaf.
    """

    features: Mapping[str, Factors]
    paths: tuple[Path, ...]


def residual_graphs(residuals, params, x) -> dict[str, Graph]:
    """Each condition's residual as the graph of ``(leaves, x) -> (outputs,)``; arguments as for :func:`make_plan`."""
    leaves, treedef = jax.tree.flatten(params)

    def flat(residual):
        return lambda leaves, x: jnp.reshape(residual(jax.tree.unflatten(treedef, leaves), x), -1)

    return {name: trace(flat(residual), leaves, x) for name, residual in residuals.items()}


def make_plan(residuals, params, x, sizes, method: str, whole: bool, memory: int) -> Plan:
    """Follows every leaf through every condition and decides how it enters the kernel.

    Args:
        residuals: ``{condition: function (params, x) -> number or (outputs,) array}``.
        params, x: the shapes and dtypes of the parameters and of a point.
        sizes: ``{condition: number of points}``.
        method: "structured" (whatever can be), or "auto" (what costs less so).
        whole: whether all of the kernel is wanted, or its diagonal only.
        memory: bytes that a Jacobian may take before "auto" prefers its factors for their size.
    """
    leaves = jax.tree.leaves(params)
    with jax.default_matmul_precision("highest"):
        graphs = residual_graphs(residuals, params, x)
        outputs = {name: graph.avals[graph.outputs[0]].shape[0] for name, graph in graphs.items()}
        found, rows, reasons = reconciled(graphs, len(leaves))
        keys = list(reasons)

        def build():
            return {
                name: _factors(
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


# Costs in multiply-adds of a matrix product, measured on two CPU cores: the sum over channels for an element of a
# channel's kernel, and writing an element of a Jacobian.
SUM, WRITE = 30, 40


def _pays(part, factors, counts, whole, memory):
    """Whether a part's factors cost less than its Jacobian."""
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
    """What became of each leaf, in their order."""
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


# ---------------------------------------------------------------- the kernel from its factors

SMALL = 4096  # numbers in a row of a Jacobian that is worth a copy


def block(a: Mapping, b: Mapping, same: bool, shape: tuple[int, int]) -> jax.Array:
    """The kernel (n_a, n_b) of residuals whose factors are a and b; ``same`` if they are the same ones."""
    shared = sorted(a.keys() & b.keys())
    in_factors = [part for part in shared if len(a[part]) == 2]
    total = sum(_of_factors(a[part], b[part], same) for part in in_factors)
    jacobians = [(a[part][0][0], b[part][0][0]) for part in shared if len(a[part]) == 1]
    # the small ones side by side: a product of n x n numbers costs memory traffic, however short its rows are
    small = [pair for pair in jacobians if pair[0].shape[1] <= SMALL]
    if small:
        total += _matmul(*(jnp.concatenate(side, axis=1) for side in zip(*small)))
    total += sum(_matmul(*pair) for pair in jacobians if pair[0].shape[1] > SMALL)
    return jnp.broadcast_to(total, shape)


def _matmul(a, b):
    # an accelerator's default for float32 keeps three digits of a matrix product
    return jnp.matmul(a, b.T, precision="highest")


def _of_factors(a, b, same):
    """Sum over channels k, l of (rows_a[k] rows_b[l]^T) * (columns_a[k] columns_b[l]^T)."""
    (rows_a, columns_a), (rows_b, columns_b) = a, b

    def add(total, pair):
        k, m, weight = pair
        kernel = _matmul(rows_a[k], rows_b[m]) * _matmul(columns_a[k], columns_b[m])
        return total + weight * kernel, None

    # a loop, since the compiler would compute all products first and keep them
    start = jnp.zeros((rows_a.shape[1], rows_b.shape[1]), rows_a.dtype)
    total = jax.lax.scan(add, start, _pairs(len(rows_a), len(rows_b), same, rows_a.dtype))[0]
    return total + total.T if same else total


def _pairs(a, b, same, dtype):
    """Pairs of channels with their weights: all of them, or, to be added to its transpose, a triangle."""
    k, m = np.triu_indices(a) if same else np.indices((a, b)).reshape(2, -1)
    return k, m, np.where(same & (k == m), 0.5, 1.0).astype(dtype)


def diagonal(factors: Mapping, n: int) -> jax.Array:
    """The kernel's diagonal (n,) from the residuals' factors."""
    total: jax.Array | float = 0.0
    for rows, *columns in factors.values():
        if columns:
            total += _diagonal_of_factors(rows, columns[0])
        else:
            total += jnp.sum(rows[0] ** 2, -1)
    return jnp.broadcast_to(total, (n,))


def _diagonal_of_factors(rows, columns):
    def add(total, pair):
        k, m, weight = pair
        return total + 2 * weight * jnp.sum(rows[k] * rows[m], -1) * jnp.sum(columns[k] * columns[m], -1), None

    start = jnp.zeros(rows.shape[1], rows.dtype)
    return jax.lax.scan(add, start, _pairs(len(rows), len(rows), True, rows.dtype))[0]
