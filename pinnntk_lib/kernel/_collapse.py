"""Moving sums over an axis in front of the linear operations that follow the derivatives.

An operator that differentiates along all axes at once carries its derivatives as one array with an axis of directions.
A Laplacian sums the second derivatives over this axis, at the end. Every operation is linear in the highest
derivatives, so the sum can be taken first: ``sum_k W v_k = W sum_k v_k``. One second derivative then passes through
the network in place of d ("collapsed Taylor mode", Dangel et al. 2025).
"""

from functools import partial

import jax
import jax.numpy as jnp

from pinnntk_lib.kernel._graph import is_float
from pinnntk_lib.kernel._recursion import run

SAME = ("neg", "copy", "convert_element_type")  # linear, with one argument of the same shape


def collapse(builder):
    """Replace the sums in the builder's graph that can be moved in front of matrix products."""
    _Collapse(builder).rewrite()


class _Collapse:
    def __init__(self, builder):
        self.builder, self.graph = builder, builder.graph
        self.producers = {value: node for node in self.graph.nodes for value in node.outputs}
        self.moved = {}  # {(value, axis): value of its sum over the axis, or None if that saves no product}

    def rewrite(self):
        new = {}  # {value: the value that replaces it}
        for node in list(self.graph.nodes):
            inputs = tuple(new.get(value, value) for value in node.inputs)
            replaced = self.sum_moved(node) if node.name == "reduce_sum" else None
            if replaced is not None:
                new[node.outputs[0]] = replaced
            elif inputs != node.inputs:
                avals = [self.graph.avals[value] for value in node.outputs]
                outputs = self.builder.add(node.primitive, node.params, inputs, avals, node.opaque)
                new.update(zip(node.outputs, outputs))
        self.graph.outputs = [new.get(value, value) for value in self.graph.outputs]

    def sum_moved(self, node):
        """Return the value of a sum over one axis, moved in front of products, or None."""
        (value,), axes = node.inputs, node.params["axes"]
        if len(axes) != 1 or not is_float(self.graph.avals[value]):
            return None
        return run(self.summed(value, axes[0]))

    def summed(self, value, axis):
        """Return a value's sum over an axis if it can be moved in front of a matrix product, otherwise None."""
        if (value, axis) not in self.moved:
            self.moved[value, axis] = yield self.pushed(value, axis)
        return self.moved[value, axis]

    def pushed(self, value, axis):
        node, call, shape = self.producers.get(value), self.builder.call, self.graph.avals[value].shape
        if node is None or node.opaque or len(node.outputs) > 1:
            return None
        shapes = [self.graph.avals[i].shape for i in node.inputs]
        name = node.name
        if name in ("add", "add_any", "sub") and shapes[0] == shapes[1] == shape:
            sums = []
            for i in node.inputs:
                sums.append((yield self.summed(i, axis)))
            if sums == [None, None]:
                return None
            sums = [self.plain_sum(i, axis) if s is None else s for i, s in zip(node.inputs, sums)]
            return call(jnp.subtract if name == "sub" else jnp.add, *sums)
        if name in SAME:
            inner = yield self.summed(node.inputs[0], axis)
            return None if inner is None else call(partial(node.primitive.bind, **node.params), inner)
        if name in ("mul", "div"):
            return (yield self.through_scaling(node, axis, shape))
        if name == "dot_general":
            return (yield self.through_product(node, axis))
        if name in ("transpose", "squeeze"):
            before = _axis_before(node, axis, len(shapes[0]))
            inner = yield self.summed(node.inputs[0], before)
            if inner is None:
                return None
            order = [_axis_before(node, i, len(shapes[0])) for i in range(len(shape)) if i != axis]
            order = [i - (i > before) for i in order]
            left = sorted(set(range(len(shapes[0]) - 1)) - set(order))  # axes of length 1
            return call(lambda v: jnp.transpose(v, (*order, *left)).reshape([v.shape[i] for i in order]), inner)
        return None

    def through_scaling(self, node, axis, shape):
        """Sum a product or quotient of which one operand is constant along the axis."""
        for position, value in enumerate(node.inputs):
            factor = node.inputs[1 - position]
            if self.graph.avals[value].shape != shape or (node.name == "div" and position == 1):
                continue
            constant = self.without_axis(factor, axis)
            if constant is None:
                continue
            inner = yield self.summed(value, axis)
            if inner is not None:
                return self.builder.call(jnp.multiply if node.name == "mul" else jnp.divide, inner, constant)
        return None

    def through_product(self, node, axis):
        """Sum a matrix product over an axis that one of its operands has and that is not contracted."""
        contracted, batch = node.params["dimension_numbers"]
        place = axis
        if batch[0]:
            return None
        for position, value in enumerate(node.inputs):
            ndim = len(self.graph.avals[value].shape)
            free = [i for i in range(ndim) if i not in contracted[position]]
            if place >= len(free):
                place -= len(free)
                continue
            if self.is_parameter(value):
                return None
            removed = free[place]
            inner = (yield self.summed(value, removed)) or self.plain_sum(value, removed)
            inputs, dimensions = list(node.inputs), list(contracted)
            inputs[position] = inner
            dimensions[position] = tuple(i - (i > removed) for i in contracted[position])
            params = node.params | {"dimension_numbers": (tuple(dimensions), batch)}
            return self.builder.call(partial(node.primitive.bind, **params), *inputs)
        return None

    def plain_sum(self, value, axis):
        return self.builder.call(lambda v: jnp.sum(v, axis), value)

    def without_axis(self, value, axis):
        """Return a value without an axis along which it is constant; None if it varies along it."""
        shape, node = self.graph.avals[value].shape, self.producers.get(value)
        if not shape:
            return value
        if node is not None and node.name == "broadcast_in_dim":
            before, kept = self.graph.avals[node.inputs[0]].shape, node.params["broadcast_dimensions"]
            if any(i == axis and n != 1 for i, n in zip(kept, before)):
                return None
            smaller = shape[:axis] + shape[axis + 1 :]
            drop = tuple(i for i, to in enumerate(kept) if to == axis)
            new = tuple(to - (to > axis) for to in kept if to != axis)
            return self.builder.call(
                lambda v: jax.lax.broadcast_in_dim(jnp.squeeze(v, drop), smaller, new), node.inputs[0]
            )
        return self.builder.call(lambda v: jnp.squeeze(v, axis), value) if shape[axis] == 1 else None

    def is_parameter(self, value):
        """Return whether a value is an argument of the graph, perhaps scaled or with its axes in another order.

        A sum over an argument's own axis saves nothing, and would hide a matrix product with a parameter.
        """
        while (node := self.producers.get(value)) is not None:
            if node.name not in (*SAME, "transpose", "reshape", "squeeze", "broadcast_in_dim", "mul", "div"):
                return False
            shapes = [len(self.graph.avals[i].shape) for i in node.inputs]
            value = node.inputs[shapes.index(max(shapes))]
        return value in self.graph.inputs


def _axis_before(node, axis, ndim):
    """Return which axis of its argument becomes an axis of a transposed or squeezed value."""
    if node.name == "transpose":
        return node.params["permutation"][axis]
    return [i for i in range(ndim) if i not in node.params["dimensions"]][axis]
