"""A traced computation as a graph that can be read, shortened and evaluated.

Nested derivatives compute many things twice: ``dd(u, 0)`` and ``dd(u, 1)`` both evaluate u, and each first derivative
occurs two times in a second one. XLA removes such duplicates from what it compiles, but only after reverse mode has
doubled them. Here they are merged before, in the jaxpr.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

__all__ = ["Graph", "Node", "trace"]

# Calls that only group equations; their bodies are put in their place. Custom derivative rules are not among them.
INLINED = ("pjit", "jit", "closed_call", "core_call", "call", "remat", "remat2", "checkpoint")
COMMUTATIVE = ("add", "add_any", "mul", "max", "min")
# Linear in their only argument.
LINEAR = ("transpose", "reshape", "squeeze", "broadcast_in_dim", "reduce_sum", "slice", "copy", "rev")
SMALL = 4096  # elements up to which constants are compared by value
FEW = 16  # elements of what is computed from the network's derivatives, rather than on the way to them


@dataclass(frozen=True)
class Node:
    """One equation: ``outputs = primitive(*inputs, **params)``; inputs and outputs are the numbers of values."""

    primitive: Any
    params: dict
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    opaque: Callable | None  # evaluates an equation that contains functions (a custom rule, a loop)

    @property
    def name(self) -> str:
        return self.primitive.name

    def __call__(self, *values) -> Sequence:
        if self.opaque is not None:
            return self.opaque(*values)
        results = self.primitive.bind(*values, **self.params)
        return results if self.primitive.multiple_results else [results]


@dataclass(eq=False)
class Graph:
    """Equations in order of evaluation.

    Attributes:
        nodes: the equations that the outputs need.
        inputs: the values that are the arguments, flattened.
        outputs: the values that are the results, flattened.
        constants: ``{value: array}``.
        avals: the abstract array (shape and dtype) of each value, by number.
    """

    nodes: list[Node] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    avals: list[Any] = field(default_factory=list)

    def run(self, inputs: Sequence, wanted: Sequence[int] = (), taps: dict[int, jax.Array] | None = None):
        """The outputs, and the wanted values, with ``taps[value]`` added to a value wherever it is used.

        Returns:
            ``(outputs, [value for each wanted])``.
        """
        taps = taps or {}
        environment = {}

        def write(values, arrays):
            for value, array in zip(values, arrays):
                environment[value] = array + taps[value] if value in taps else array

        write(self.constants, self.constants.values())
        write(self.inputs, inputs)
        for node in self.nodes:
            write(node.outputs, node(*[environment[value] for value in node.inputs]))
        return [environment[value] for value in self.outputs], [environment[value] for value in wanted]

    def uses(self) -> dict[int, list[tuple[Node, int]]]:
        """``{value: [(node, position among its inputs), ...]}``."""
        found: dict[int, list[tuple[Node, int]]] = {}
        for node in self.nodes:
            for position, value in enumerate(node.inputs):
                found.setdefault(value, []).append((node, position))
        return found

    def peak_bytes(self) -> int:
        """The most bytes alive at once if the equations ran one by one, inputs and constants not counted."""
        last = {value: i for i, node in enumerate(self.nodes) for value in node.inputs}
        last.update((value, len(self.nodes)) for value in self.outputs)
        ends: dict[int, list[int]] = {}
        alive = peak = 0
        for i, node in enumerate(self.nodes):
            for value in node.outputs:
                size = nbytes(self.avals[value])
                alive += size
                ends.setdefault(last.get(value, i), []).append(size)
            peak = max(peak, alive)
            alive -= sum(ends.pop(i, []))
        return peak

    def total_bytes(self) -> int:
        """The bytes of all results, as reverse mode keeps them."""
        return sum(nbytes(self.avals[value]) for node in self.nodes for value in node.outputs)

    def pruned(self) -> "Graph":
        """Without the equations that no output needs."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(node.inputs)
        constants = {value: array for value, array in self.constants.items() if value in needed}
        return Graph(kept[::-1], self.inputs, self.outputs, constants, self.avals)


def nbytes(aval) -> int:
    """The size of a value."""
    return math.prod(aval.shape) * aval.dtype.itemsize


def trace(f: Callable, *args) -> Graph:
    """The graph of ``f`` at arguments of these shapes.

    Equal equations are merged, sums are regrouped where that saves matrix products, and what no output needs is left
    out. The results differ by rounding only.

    Args:
        f: any function that JAX can trace.
        args: arrays, or ``jax.ShapeDtypeStruct``, in pytrees.
    """
    closed = jax.make_jaxpr(f)(*args)
    builder = _Builder()
    builder.graph.inputs = [builder.new(var.aval) for var in closed.jaxpr.invars]
    builder.graph.outputs = builder.add_jaxpr(closed.jaxpr, closed.consts, builder.graph.inputs)
    graph = builder.graph.pruned()
    try:
        regrouped = _regrouped(builder).pruned()
    except RecursionError:  # a hundred layers: the graph is right as it is, only longer
        return graph
    return regrouped if _multiplications(regrouped) < _multiplications(graph) else graph


class _Builder:
    """Builds a graph from jaxprs, an equation at a time; an equation that was there before is not added again."""

    def __init__(self):
        self.graph = Graph()
        self.known = {}  # what there is: key -> values

    def new(self, aval):
        self.graph.avals.append(aval)
        return len(self.graph.avals) - 1

    def add_jaxpr(self, jaxpr, constants, values):
        """The values of the jaxpr's outputs, for those of its inputs."""
        environment = dict(zip(jaxpr.invars, values))
        environment.update((var, self.constant(c, var.aval)) for var, c in zip(jaxpr.constvars, constants))

        def read(atom):
            return self.constant(atom.val, atom.aval) if isinstance(atom, jex.Literal) else environment[atom]

        for eqn in jaxpr.eqns:
            environment.update(zip(eqn.outvars, self.add_equation(eqn, [read(atom) for atom in eqn.invars])))
        return [read(atom) for atom in jaxpr.outvars]

    def constant(self, array, aval):
        if isinstance(array, jax.core.Tracer) or np.size(array) > SMALL:
            key = ("constant", id(array))
        else:
            concrete = np.asarray(array)
            key = ("constant", str(aval.dtype), getattr(aval, "weak_type", False), concrete.shape, concrete.tobytes())
        if key not in self.known:
            value = self.new(aval)
            self.graph.constants[value] = array
            self.known[key] = [value]
        return self.known[key][0]

    def call(self, f, *values):
        """The value of ``f`` at values."""
        avals = [self.graph.avals[value] for value in values]
        closed = jax.make_jaxpr(f)(*[jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals])
        return self.add_jaxpr(closed.jaxpr, closed.consts, values)[0]

    def add_equation(self, eqn, values):
        if eqn.primitive.name in INLINED:
            body = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
            closed = isinstance(body, jex.ClosedJaxpr)
            return self.add_jaxpr(body.jaxpr if closed else body, body.consts if closed else (), values)
        opaque = _evaluator(eqn) if any(map(_holds_functions, eqn.params.values())) else None
        return self.add(eqn.primitive, eqn.params, values, [var.aval for var in eqn.outvars], opaque, eqn.effects)

    def add(self, primitive, params, inputs, avals, opaque=None, effects=()):
        """The values of an equation's outputs."""
        if primitive.name in COMMUTATIVE:
            inputs = sorted(inputs)
        key = (primitive, _hashable(params), tuple(inputs), tuple(map(_hashable, avals)))
        if effects or key not in self.known:
            outputs = tuple(map(self.new, avals))
            self.graph.nodes.append(Node(primitive, params, tuple(inputs), outputs, opaque))
            self.known[key] = outputs
        return self.known[key]


# ---------------------------------------------------------------- regrouping


def _regrouped(builder):
    """The graph with ``c1 L(v1) + c2 L(v2)`` written as ``L(c1 v1 + c2 v2)`` for linear L, and so on inside.

    A residual is mostly a sum of derivatives, and the highest ones pass linearly through every layer. Written so, a
    Laplacian carries one second derivative through the network, whatever the dimension ("forward Laplacian", Li et
    al. 2024), and ``u_t - u_xx`` carries one channel for both.
    """
    graph = builder.graph
    producers = {value: node for node in graph.nodes for value in node.outputs}
    done = {}

    def number(value):
        """The number that a value is, if it is a constant scalar: finite, and not zero."""
        array = graph.constants.get(value)
        if array is None or isinstance(array, jax.core.Tracer) or np.shape(array) != ():
            return None
        return float(array) if _is_float(graph.avals[value]) and np.isfinite(array) and array != 0 else None

    def expanded(terms):
        """``{value: coefficient}`` with sums, differences and multiples by numbers written out."""
        found, todo = {}, list(terms.items())
        while todo:
            value, c = todo.pop()
            node = producers.get(value)
            name, inputs = (node.name, node.inputs) if node else ("", ())
            whole = all(graph.avals[i].shape == graph.avals[value].shape for i in inputs)
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

    def operators(value):
        """The linear operators that a value is the result of, each as ``(key, node, position of its argument)``."""
        node = producers.get(value)
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
        return [(_operator_key(graph, node, position), node, position) for position in positions]

    def applied(node, inputs):
        return builder.add(node.primitive, node.params, inputs, [graph.avals[v] for v in node.outputs], node.opaque)[0]

    def total(terms):
        """A value equal to the sum of ``coefficient * value``."""
        terms = expanded(terms)
        key = frozenset(terms.items())
        if key not in done:
            done[key] = summed(pooled(terms))
        return done[key]

    def pooled(terms):
        """The terms with those of one linear operator put together."""
        left, result = dict(terms), {}
        while True:
            groups = {}
            for value in left:
                for operator, node, position in operators(value):
                    groups.setdefault(operator, {})[value] = (node, position)
            largest = max(groups.values(), key=len, default={})
            if len(largest) < 2:
                break
            inner = {}
            for value, (node, position) in largest.items():
                inner[node.inputs[position]] = inner.get(node.inputs[position], 0.0) + left.pop(value)
            inputs = list(node.inputs)
            inputs[position] = total(inner)
            result[applied(node, inputs)] = 1.0
        for value, c in left.items():
            result[below(value)] = result.get(below(value), 0.0) + c
        return result

    def below(value):
        """An equal value, with what a few numbers are computed from regrouped in its turn."""
        node = producers.get(value)
        if node is None or node.opaque or len(node.outputs) > 1 or node.name == "dot_general":
            return value
        if math.prod(graph.avals[value].shape) > FEW:
            return value
        return applied(node, [total({v: 1.0}) if _is_float(graph.avals[v]) else v for v in node.inputs])

    def summed(terms):
        result = None
        for value, c in sorted(terms.items()):
            if abs(c) != 1.0 or (result is None and c < 0):
                value, c = builder.call(lambda v, c=c: v * c, value), 1.0
            plus_or_minus = jnp.add if c > 0 else jnp.subtract
            result = value if result is None else builder.call(plus_or_minus, result, value)
        return result

    outputs = [total({value: 1.0}) if _is_float(graph.avals[value]) else value for value in graph.outputs]
    return replace(graph, outputs=outputs)


def _operator_key(graph, node, position):
    """The same for two nodes that apply one linear operator to arguments of one shape."""
    others = tuple(value for i, value in enumerate(node.inputs) if i != position)
    avals = graph.avals[node.inputs[position]], graph.avals[node.outputs[0]]
    # a product's factors are in no order, but those of a matrix product are
    place = position if node.name == "dot_general" else 0
    return node.primitive, _hashable(node.params), place, others, tuple((a.shape, a.dtype) for a in avals)


def _multiplications(graph):
    """Those of its matrix products."""
    total = 0
    for node in graph.nodes:
        if node.name == "dot_general":
            (contracted, _), _ = node.params["dimension_numbers"]
            shape = graph.avals[node.inputs[0]].shape
            total += math.prod(graph.avals[node.outputs[0]].shape) * math.prod(shape[i] for i in contracted)
    return total


def _is_float(aval):
    return jnp.issubdtype(aval.dtype, jnp.floating)


def _holds_functions(param):
    if isinstance(param, tuple | list):
        return any(map(_holds_functions, param))
    return isinstance(param, jex.Jaxpr | jex.ClosedJaxpr) or (
        callable(param) and not isinstance(param, type | np.dtype)
    )


def _evaluator(eqn):
    """A function that evaluates one equation, whatever its parameters: a jaxpr of its own."""
    variables = list(dict.fromkeys(atom for atom in eqn.invars if not isinstance(atom, jex.Literal)))
    # older JAX does not know of debugging information, newer warns if there is none
    debug_info = (jex.DebugInfo("pinnntk_lib", eqn.primitive.name, None, None),) if hasattr(jex, "DebugInfo") else ()
    jaxpr = jex.Jaxpr((), variables, eqn.outvars, [eqn], eqn.effects, *debug_info)
    run = jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, ()))

    def evaluate(*values):
        given = {atom: value for atom, value in zip(eqn.invars, values) if not isinstance(atom, jex.Literal)}
        return run(*[given[variable] for variable in variables])

    return evaluate


def _hashable(thing):
    """``thing`` as a key that is equal only for things that mean the same; objects it cannot look into by identity."""
    if isinstance(thing, dict):
        return tuple(sorted((name, _hashable(value)) for name, value in thing.items()))
    if isinstance(thing, tuple | list):
        return (type(thing).__name__, *map(_hashable, thing))
    if isinstance(thing, np.ndarray):
        return (str(thing.dtype), thing.shape, thing.tobytes())
    try:
        hash(thing)
    except TypeError:
        return ("object", id(thing))
    return (type(thing).__name__, thing)
