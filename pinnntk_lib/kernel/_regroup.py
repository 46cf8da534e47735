"""Regrouping of a graph's sums to save matrix products.

A residual is mostly a sum of derivatives, and its highest derivatives pass linearly through every layer. For every
linear L, from the output inwards, ``c1 L(v1) + c2 L(v2)`` is rewritten as ``L(c1 v1 + c2 v2)``. A Laplacian then
carries a single second derivative through the network, whatever the dimension ("forward Laplacian", Li et al. 2024),
and the two terms of ``u_t - u_xx`` share one channel.
"""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib.kernel._graph import hashable, is_float
from pinnntk_lib.kernel._recursion import run

# Primitives that are linear in their only argument
LINEAR = ("transpose", "reshape", "squeeze", "broadcast_in_dim", "reduce_sum", "slice", "copy", "rev")
# Values with at most this many elements are assumed to come after the network's derivatives, not to lead up to them
FEW = 16


def regrouped(builder):
    """Return the builder's graph with its sums regrouped; equations that are no longer needed remain in it.

    Args:
        builder: the :class:`~pinnntk_lib.kernel._trace.Builder` of the graph. Equations are added to it.
    """
    return _Regrouping(builder).graph_with_outputs()


class _Regrouping:
    """Rewrites the graph's values as sums ``{value: coefficient}`` and computes these sums with few products.

    Its recursive methods are generators, for :func:`~pinnntk_lib.kernel._recursion.run`.
    """

    def __init__(self, builder):
        self.builder, self.graph = builder, builder.graph
        self.producers = {value: node for node in self.graph.nodes for value in node.outputs}
        self.totals = {}  # {frozenset of a sum's terms: value of the sum}

    def graph_with_outputs(self):
        outputs = [run(self.total({v: 1.0})) if is_float(self.graph.avals[v]) else v for v in self.graph.outputs]
        return replace(self.graph, outputs=outputs)

    def total(self, terms):
        """Return a value that equals the sum of ``coefficient * value`` over the terms."""
        terms = self.expanded(terms)
        key = frozenset(terms.items())
        if key not in self.totals:
            self.totals[key] = self.summed((yield self.pooled(terms)))
        return self.totals[key]

    def expanded(self, terms):
        """Return the terms after expanding sums, differences and multiples by numbers."""
        avals, number = self.graph.avals, self.number
        found, todo = {}, list(terms.items())
        while todo:
            value, c = todo.pop()
            node = self.producers.get(value)
            name, inputs = (node.name, node.inputs) if node else ("", ())
            whole = all(avals[i].shape == avals[value].shape for i in inputs)
            if name in ("add", "add_any", "sub") and whole:
                todo += [(inputs[0], c), (inputs[1], -c if name == "sub" else c)]
            elif name == "neg":
                todo.append((inputs[0], -c))
            elif name in ("mul", "div") and number(inputs[1]) is not None:
                k = number(inputs[1])
                todo.append((inputs[0], c * k if name == "mul" else c / k))
            elif name == "mul" and number(inputs[0]) is not None:
                todo.append((inputs[1], c * number(inputs[0])))
            else:
                found[value] = found.get(value, 0.0) + c
        return found

    def number(self, value):
        """Return the constant scalar that a value holds if it is floating-point, finite and nonzero, otherwise None."""
        array = self.graph.constants.get(value)
        if array is None or isinstance(array, jax.core.Tracer) or np.shape(array) != ():
            return None
        return float(array) if is_float(self.graph.avals[value]) and np.isfinite(array) and array != 0 else None

    def pooled(self, terms):
        """Merge terms that share a linear operator, which is then applied once, to the sum of their arguments."""
        left, result = dict(terms), {}
        while True:
            groups = {}
            for value in left:
                for operator, node, position in self.operators(value):
                    groups.setdefault(operator, {})[value] = (node, position)
            largest = max(groups.values(), key=len, default={})
            if len(largest) < 2:
                break
            inner = {}
            for value, (node, position) in largest.items():
                inner[node.inputs[position]] = inner.get(node.inputs[position], 0.0) + left.pop(value)
            inputs = list(node.inputs)
            inputs[position] = yield self.total(inner)
            value = self.applied(node, inputs)
            # Equal equations are merged, so two groups can produce the same value.
            result[value] = result.get(value, 0.0) + 1.0
        for value, c in left.items():
            below = yield self.below(value)
            result[below] = result.get(below, 0.0) + c
        return result

    def operators(self, value):
        """Return the linear operators that produce a value, each as ``(key, node, position of its argument)``."""
        node = self.producers.get(value)
        if node is None or node.opaque or len(node.outputs) > 1:
            return []
        if node.name in LINEAR and len(node.inputs) == 1:
            positions = [0]
        elif node.name in ("mul", "dot_general") and node.inputs[0] != node.inputs[1]:
            positions = [0, 1]
        elif node.name == "div":
            positions = [0]
        else:
            return []
        return [(self.operator_key(node, position), node, position) for position in positions]

    def operator_key(self, node, position):
        """Return a key that is the same for nodes that apply one linear operator to arguments of one shape."""
        others = tuple(value for i, value in enumerate(node.inputs) if i != position)
        avals = self.graph.avals[node.inputs[position]], self.graph.avals[node.outputs[0]]
        # the operands of an elementwise product commute, those of a matrix product do not
        place = position if node.name == "dot_general" else 0
        return node.primitive, hashable(node.params), place, others, tuple((a.shape, a.dtype) for a in avals)

    def below(self, value):
        """Return an equal value; if it has few elements, its inputs are regrouped too."""
        node = self.producers.get(value)
        if node is None or node.opaque or len(node.outputs) > 1 or node.name == "dot_general":
            return value
        if math.prod(self.graph.avals[value].shape) > FEW:
            return value
        inputs = []
        for v in node.inputs:
            inputs.append((yield self.total({v: 1.0})) if is_float(self.graph.avals[v]) else v)
        return self.applied(node, inputs)

    def applied(self, node, inputs):
        avals = [self.graph.avals[value] for value in node.outputs]
        return self.builder.add(node.primitive, node.params, inputs, avals, node.opaque)[0]

    def summed(self, terms):
        result = None
        for value, c in sorted(terms.items()):
            if abs(c) != 1.0 or (result is None and c < 0):
                value, c = self.builder.call(lambda v, c=c: v * c, value), 1.0
            plus_or_minus = jnp.add if c > 0 else jnp.subtract
            result = value if result is None else self.builder.call(plus_or_minus, result, value)
        return result
