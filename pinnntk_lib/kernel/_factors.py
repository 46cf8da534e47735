"""Parameter gradients of a residual as short sums of outer products: the fast path of the empirical NTK.

If a parameter matrix W enters a product z = W a, the gradient of a scalar residual r with respect to W is delta a^T,
where delta = dr/dz. If W enters several products (for the network's value and its derivatives), the gradient is the
sum of these terms, one per channel. The kernel of two residuals is then

    <dr_i/dW, dr_j/dW> = sum over channels k, l of (delta_ik . delta_jl) (a_ik . a_jl).

With C channels this costs C^2 (rows + columns) operations per pair of residuals instead of rows * columns, and it
needs no Jacobian.

The model can be any pure function. The residual is traced to a graph, and each parameter leaf is followed to the
products that use it. The deltas are the residual's derivatives with respect to zeros ("taps") that are added to the
results of these products. A leaf that is used in any other way keeps its Jacobian, computed by a tap on the leaf
itself; the plan says which leaves do, and why.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from pinnntk_lib.kernel._contraction import SMALL, Assembled, Features, Products, Rows, assembled
from pinnntk_lib.kernel._costs import costs
from pinnntk_lib.kernel._graph import Graph, nbytes
from pinnntk_lib.kernel._leaves import Part
from pinnntk_lib.kernel._trace import trace

ENOUGH = 64  # points whose matrix products with a layer's weights are fast


class Channel(NamedTuple):
    """``m`` outer products of a part's gradient, as values of the factor graph.

    Attributes:
        delta: the value (outputs, m, rows); if ``swapped``, (outputs, m, columns).
        other: the value (m, columns); if ``swapped``, (m, rows).
        swapped: whether ``delta`` spans the columns and ``other`` the rows.
        m: number of outer products.
    """

    delta: int
    other: int
    swapped: bool
    m: int


@dataclass(frozen=True, eq=False)
class Factors:
    """The gradient of one condition's residual, as factors of outer products.

    Parts that are treated alike form a group, and their gradients are stacked.

    Attributes:
        graph: maps the leaves and a point to deltas (outputs, m, rows), others (m, columns) and Jacobians
            (outputs, size).
        channels: ``{group: [channels of a part]}`` for the factored parts.
        assembled: the groups of factored parts whose Jacobian is assembled from the factors.
        jacobians: ``{group: [value of a part's Jacobian]}`` for the other parts.
        sides: ``{group: (rows, columns)}`` for the factored parts, ``{group: (sum of sizes,)}`` for the others.
        outputs: number of the condition's residuals at a point.
        bytes_per_point: peak memory in bytes while the factors of one point are computed.
        itemsize: bytes per number.
    """

    graph: Graph
    channels: Mapping[int, list[tuple[Channel, ...]]]
    assembled: frozenset[int]
    jacobians: Mapping[int, list[int]]
    sides: Mapping[int, tuple[int, ...]]
    outputs: int
    bytes_per_point: int
    itemsize: int

    @property
    def feature_bytes(self) -> int:
        """Bytes that the factors at one point take."""
        numbers = sum(self.sides[group][0] for group in self.jacobians)
        for group, parts in self.channels.items():
            if self._is_assembled_at_once(group):
                numbers += len(parts) * math.prod(self.sides[group])
            else:
                numbers += sum(c.m for part in parts for c in part) * sum(self.sides[group])
        return self.itemsize * self.outputs * numbers

    def _is_assembled_at_once(self, group):
        """Return whether a group's Jacobian is so small that it is kept instead of the factors."""
        return group in self.assembled and math.prod(self.sides[group]) <= SMALL

    def __call__(self, leaves: Sequence, x: jax.Array) -> Features:
        """Compute the gradients of the residuals at points x (n, d), in the form chosen for each part.

        Computes as many points at a time as the cache can hold.
        """
        return mapped(jax.vmap(self._at_point, in_axes=(None, 0)), leaves, x, self.points_at_once)

    @property
    def points_at_once(self) -> int:
        """Number of points whose factors are computed together: what the cache holds, but enough for fast products."""
        size, cache = max(1, self.bytes_per_point), costs().working_set
        return max(cache // size, ENOUGH if size * ENOUGH <= 4 * cache else 1)

    def _at_point(self, leaves, x):
        values = dict(zip(self.graph.outputs, self.graph.run([*leaves, x])[0]))

        def sides(channel):
            delta = values[channel.delta]  # (outputs, m, rows)
            other = jnp.broadcast_to(values[channel.other], (self.outputs, channel.m, values[channel.other].shape[-1]))
            return (other, delta) if channel.swapped else (delta, other)

        def stacked(parts):
            """Return rows (outputs, parts, C, rows) and columns (outputs, parts, C, columns) of a group."""
            every = zip(*(sides(channel) for channels in parts for channel in channels))
            together = (jnp.concatenate(side, axis=1) for side in every)
            return (side.reshape(self.outputs, len(parts), -1, side.shape[-1]) for side in together)

        found: dict = {
            group: Rows(jnp.concatenate([values[v] for v in of_group], axis=1))
            for group, of_group in self.jacobians.items()
        }
        for group, parts in self.channels.items():
            rows, columns = stacked(parts)
            if self._is_assembled_at_once(group):
                found[group] = Rows(assembled(rows, columns))
            else:
                found[group] = (Assembled if group in self.assembled else Products)(rows, columns)
        return found


def mapped(f, leaves, x, at_once):
    """Apply ``f(leaves, points)`` to the points x (n, d), at most ``at_once`` at a time.

    Returns f's arrays (points, outputs, ...) for all points, as (n * outputs, ...).
    """
    n = len(x)
    chunks = -(-n // at_once)
    if chunks > 1:
        size = -(-n // chunks)
        x = jnp.concatenate([x, jnp.broadcast_to(x[-1:], (size * chunks - n, *x.shape[1:]))])
        found = jax.lax.map(partial(f, leaves), x.reshape(chunks, size, *x.shape[1:]))
        found = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], found)
    else:
        found = f(leaves, x)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), found)


def _factor_function(graph: Graph, parts: Sequence[Part], in_factors: Sequence[bool]) -> Callable:
    """Return ``(leaves, x) -> [for each part: [(delta, other) for each use], or its Jacobian]``, ready to be traced."""
    taps = {use.product for part, yes in zip(parts, in_factors) if yes for use in part.uses}
    taps |= {part.value for part, yes in zip(parts, in_factors) if not yes}
    used = [use for part, yes in zip(parts, in_factors) if yes for use in part.uses]
    wanted = sorted({use.other for use in used} | {scale.value for use in used for scale in use.scales})

    def scaled(side, shape, axes, scales, values):
        """Scale one side of the outer products, (..., size along the leaf's ``axes``), by the ``scales`` along them."""
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
        if out.size == 1:  # without a batch axis the graph stays shorter
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


def factors_of(graph, parts, forms, rows, leaves, x):
    """Return the :class:`Factors` of one condition.

    Args:
        graph: the graph of the condition's residual.
        parts: the parts of the leaves that it uses.
        forms: ``{key of a part: (its group, Rows or Products or Assembled)}``, for all conditions.
        rows: ``{key of a part: its axes that are rows}``, in every condition.
        leaves, x: shapes and dtypes of the leaves and of a point.
    """
    in_factors = [forms[part.key][1] is not Rows for part in parts]
    factor_graph = trace(_factor_function(graph, parts, in_factors), leaves, x)
    values = iter(factor_graph.outputs)
    channels: dict = {}
    jacobians: dict = {}
    sides: dict = {}
    for part, yes in zip(parts, in_factors):
        group = forms[part.key][0]
        if not yes:
            jacobians.setdefault(group, []).append(next(values))
            sides[group] = (part.size + sides.get(group, (0,))[0],)
            continue
        found = []
        for use in part.uses:
            delta, other = next(values), next(values)
            found.append(Channel(delta, other, use.rows != rows[part.key], factor_graph.avals[other].shape[0]))
        channels.setdefault(group, []).append(tuple(found))
        height = math.prod(part.shape[axis] for axis in rows[part.key])
        sides[group] = (height, part.size // height)
    return Factors(
        factor_graph,
        channels,
        frozenset(group for group, form in forms.values() if form is Assembled),
        jacobians,
        sides,
        graph.avals[graph.outputs[0]].shape[0],
        factor_graph.peak_bytes(),
        max(leaf.dtype.itemsize for leaf in leaves),
    )


class Gradients:
    """Gradients by plain automatic differentiation, as features in the same form as those of :class:`Factors`."""

    def __init__(self, residual, params, x):
        # traced now, because the values that the residual reads may change before it is compiled for other shapes
        with jax.default_matmul_precision("highest"):
            closed, result = jax.make_jaxpr(residual, return_shape=True)(params, x)
        self.residual, self.derivative = jex.jaxpr_as_fun(closed), jax.grad if result.shape == () else jax.jacrev
        self.treedef, self.outputs = jax.tree.structure(params), math.prod(result.shape)
        self.itemsize = max(leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
        self.feature_bytes = self.outputs * sum(map(nbytes, jax.tree.leaves(params)))
        self.bytes_per_point = self.feature_bytes

    def __call__(self, leaves, x):
        params = jax.tree.unflatten(self.treedef, leaves)
        with jax.default_matmul_precision("highest"):
            gradients = jax.vmap(self.derivative(self._at), in_axes=(None, 0))(params, x)
        rows = len(x) * self.outputs
        return {i: Rows(leaf.reshape(rows, -1)) for i, leaf in enumerate(jax.tree.leaves(gradients))}

    def _at(self, params, x):
        return self.residual(*jax.tree.leaves(params), x)[0]
