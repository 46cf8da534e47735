"""The matrix products that use a parameter leaf, found by following the leaf through a residual's graph.

A leaf W reaches a product z = W a through transposes, reshapes, slices, casts, sums and scalings. Each product adds
the term delta a^T to the gradient with respect to W, where delta = dr/dz. Shared weights enter several products, and
their terms add up.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from pinnntk_lib.kernel._graph import Graph

DIFFERENT = "used as matrices of different shapes"


class Unrecognised(Exception):
    """Raised for a use of a leaf that is not a matrix product; the message names the use."""


class Scale(NamedTuple):
    """A value that multiplies a leaf, or divides it if ``inverse``, on the way to a product."""

    value: int
    inverse: bool
    axes: tuple[tuple[int, int], ...]  # (axis of the value, axis of the leaf) where the value varies


@dataclass(frozen=True)
class Use:
    """A matrix product that uses a leaf and adds the outer product of ``delta`` and ``other`` to its gradient.

    Attributes:
        product: the product's value; a tap on it yields delta.
        other: the value that the leaf is multiplied by.
        delta_axes, other_axes: permutations that put the product's further axes first, then the leaf's axes in order.
        rows, columns: the leaf's axes that delta has, and those that other has.
        sign: -1 if the leaf is negated on the way to the product, otherwise 1.
        scales: factors that scale the leaf on the way to the product.
    """

    product: int
    other: int
    delta_axes: tuple[int, ...]
    other_axes: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    sign: float
    scales: tuple[Scale, ...]


@dataclass(frozen=True)
class Part:
    """A parameter leaf, or a slice of one, as a residual uses it.

    Attributes:
        leaf: number of the leaf.
        steps: slices and reshapes that lead from the leaf to the part, as ``(kind, ...)``. Parts of a leaf with equal
            steps are the same part, in every condition.
        value: the part's value in the residual's graph.
        shape, dtype: shape and dtype of the part.
        uses: the matrix products that use the part; empty if any of its uses is not recognised.
        reason: why ``uses`` is empty, otherwise "".
    """

    leaf: int
    steps: tuple
    value: int
    shape: tuple[int, ...]
    dtype: Any
    uses: tuple[Use, ...]
    reason: str

    @property
    def key(self):
        return self.leaf, self.steps

    @property
    def size(self):
        return math.prod(self.shape)


def reconciled(graphs, leaves):
    """Find the parts of every leaf and choose one treatment of each part for all conditions.

    Returns:
        ``({condition: [part]}, {key: axes that are rows}, {key: why the part is not factored, or ""})``.
    """
    found = {name: [] for name in graphs}
    for leaf in range(leaves):
        parts = {name: parts_of(graph, leaf) for name, graph in graphs.items()}
        keys = {part.steps for of_one in parts.values() for part in of_one}
        if not all(_apart(a, b) for a in keys for b in keys if a != b):
            for name, graph in graphs.items():
                aval = graph.avals[graph.inputs[leaf]]
                whole = Part(leaf, (), graph.inputs[leaf], aval.shape, aval.dtype, (), "sliced in overlapping ways")
                parts[name] = [whole] if parts[name] else []
        for name in graphs:
            found[name] += parts[name]
    rows, reasons = {}, {}
    for part in sorted((part for parts in found.values() for part in parts), key=lambda part: part.leaf):
        reason = part.reason
        if part.uses:
            first = part.uses[0]
            if rows.setdefault(part.key, first.rows) not in (first.rows, first.columns):
                reason = DIFFERENT
        reasons[part.key] = reasons.get(part.key) or reason
    return found, rows, reasons


def _apart(a, b):
    """Return whether two parts of a leaf, given by their steps, have no element in common."""
    for step_a, step_b in zip(a, b):
        if step_a != step_b:
            return step_a[0] == step_b[0] == "slice" and _disjoint([step_a[1:], step_b[1:]])
    return False


def step_label(step):
    """Return a slice or reshape of a leaf as text, such as ``[0:3, 0:5]``."""
    if step[0] == "slice":
        return "[" + ", ".join(f"{start}:{end}" for start, end in zip(*step[1:])) + "]"
    return f".reshape{step[1]}"


def parts_of(graph: Graph, leaf: int) -> list[Part]:
    """Return the parts in which a leaf is used; none if it is unused."""
    uses, results = graph.uses(), set(graph.outputs)

    def split(value, steps):
        consumers = uses.get(value, [])
        if not consumers and value not in results:
            return []
        boxes = [_boxes(node, graph) for node, _ in consumers]
        if boxes and all(boxes) and value not in results:
            boxes = [pair for pairs in boxes for pair in pairs]
            if _disjoint([box for box, _ in boxes]):
                return [part for box, out in boxes for part in split(out, (*steps, ("slice", *box)))]
        if len(consumers) == 1 and consumers[0][0].name == "reshape" and not _only_unit_axes(graph, consumers[0][0]):
            (out,) = consumers[0][0].outputs
            return split(out, (*steps, ("reshape", graph.avals[out].shape)))
        return [_part(graph, uses, leaf, steps, value)]

    return split(graph.inputs[leaf], ())


def _boxes(node, graph):
    """Return the boxes that a slice or split cuts from its input, with their values; empty for other equations."""
    shape = graph.avals[node.inputs[0]].shape if node.inputs else ()
    if node.name == "slice" and set(node.params["strides"] or [1]) == {1}:
        return [((tuple(node.params["start_indices"]), tuple(node.params["limit_indices"])), node.outputs[0])]
    if node.name == "split":
        axis, ends = node.params["axis"], np.cumsum(node.params["sizes"])
        return [
            (
                (
                    tuple(int(end - size) if i == axis else 0 for i in range(len(shape))),
                    tuple(int(end) if i == axis else n for i, n in enumerate(shape)),
                ),
                out,
            )
            for end, size, out in zip(ends, node.params["sizes"], node.outputs)
        ]
    return []


def _disjoint(boxes):
    """Return whether no two boxes (starts, limits) overlap."""
    return all(
        any(a_end <= b_start or b_end <= a_start for a_start, a_end, b_start, b_end in zip(*a, *b))
        for i, a in enumerate(boxes)
        for b in boxes[:i]
    )


def _only_unit_axes(graph, node):
    """Return whether a reshape or broadcast only adds or drops axes of length 1."""
    before, after = graph.avals[node.inputs[0]].shape, graph.avals[node.outputs[0]].shape
    return [n for n in before if n != 1] == [n for n in after if n != 1]


def _part(graph, uses, leaf, steps, value):
    aval = graph.avals[value]
    part = Part(leaf, steps, value, aval.shape, aval.dtype, (), "")
    try:
        found = tuple(_products(graph, uses, value, tuple(range(len(aval.shape))), aval.shape, 1.0, ()))
        if len({frozenset([use.rows, use.columns]) for use in found}) > 1:
            raise Unrecognised(DIFFERENT)
        return replace(part, uses=found)
    except Unrecognised as why:
        return replace(part, reason=str(why))


def _products(graph, uses, value, axes, shape, sign, scales):
    """Yield the products that use a value; ``axes`` maps its axes to the leaf's (None for an added axis)."""
    if not axes:
        raise Unrecognised("a scalar")
    if value in graph.outputs:
        raise Unrecognised("it is the residual itself")
    for node, position in uses.get(value, []):
        (out, *more), name = node.outputs, node.name
        step = partial(_products, graph, uses, out, shape=shape)
        if more:
            raise Unrecognised(f"used by {name}")
        same_shape = graph.avals[out].shape == graph.avals[value].shape
        if name == "dot_general":
            yield _use(graph, node, position, axes, shape, sign, scales)
        elif name == "transpose":
            yield from step(axes=tuple(axes[i] for i in node.params["permutation"]), sign=sign, scales=scales)
        elif name in ("reshape", "squeeze", "broadcast_in_dim") and _only_unit_axes(graph, node):
            kept = iter([axis for axis, n in zip(axes, graph.avals[value].shape) if n != 1])
            new = tuple(next(kept) if n != 1 else None for n in graph.avals[out].shape)
            yield from step(axes=new, sign=sign, scales=scales)
        elif name in ("copy", "add", "add_any", "convert_element_type") and same_shape:
            if not jnp.issubdtype(graph.avals[out].dtype, jnp.floating):
                raise Unrecognised(f"used by {name} to {graph.avals[out].dtype}")
            yield from step(axes=axes, sign=sign, scales=scales)
        elif name == "neg" or (name == "sub" and same_shape):
            yield from step(axes=axes, sign=sign if name == "sub" and position == 0 else -sign, scales=scales)
        elif same_shape and (name == "mul" or (name == "div" and position == 0)):
            other = node.inputs[1 - position]
            varying = tuple((i, axes[i]) for i in _varying_axes(graph, other) if axes[i] is not None)
            yield from step(axes=axes, sign=sign, scales=(*scales, Scale(other, name == "div", varying)))
        else:
            raise Unrecognised(f"used by {name}")


def _varying_axes(graph, value):
    """Return the axes along which a value is not known to be constant."""
    shape = graph.avals[value].shape
    varying = [i for i, n in enumerate(shape) if n != 1]
    for node in graph.nodes:
        if value in node.outputs and node.name == "broadcast_in_dim":
            before = graph.avals[node.inputs[0]].shape
            kept = {axis for axis, n in zip(node.params["broadcast_dimensions"], before) if n != 1}
            varying = [i for i in varying if i in kept]
    return varying


def _use(graph, node, position, axes, shape, sign, scales):
    (contracted, batch) = node.params["dimension_numbers"]
    if batch[0]:
        raise Unrecognised("used by a batched dot_general")
    own, others = contracted[position], contracted[1 - position]
    free = [i for i in range(len(axes)) if i not in own]
    other = node.inputs[1 - position]
    other_free = [i for i in range(len(graph.avals[other].shape)) if i not in others]

    def ordered(pairs):
        """Sort (leaf axis, axis) pairs by the leaf axis; axes of length 1 come first, where they do no harm."""
        real = sorted((axis, i) for axis, i in pairs if axis is not None and shape[axis] != 1)
        unit = [i for axis, i in pairs if axis is None or shape[axis] == 1]
        return tuple(axis for axis, _ in real), (*unit, *(i for _, i in real))

    # the product has the axes of its first operand that are not summed over, then those of its second
    start = 0 if position == 0 else len(other_free)
    rows, delta_axes = ordered([(axes[i], start + k) for k, i in enumerate(free)])
    columns, other_axes = ordered([(axes[i], j) for i, j in zip(own, others)])
    further = range(len(free), len(free) + len(other_free)) if position == 0 else range(len(other_free))
    for scale in scales:
        varying = {axis for _, axis in scale.axes}
        if not (varying <= set(rows) or varying <= set(columns)):
            raise Unrecognised("scaled element by element")
    return Use(node.outputs[0], other, (*further, *delta_axes), (*other_free, *other_axes), rows, columns, sign, scales)
