"""Tracing a function to a graph without duplicates.

Nested derivatives compute many things twice: ``dd(u, 0)`` and ``dd(u, 1)`` both evaluate u, and each first derivative
occurs twice in a second derivative. XLA removes such duplicates when it compiles, but only after reverse mode has
doubled them. This module merges them earlier, in the jaxpr.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import numpy as np

from pinnntk_lib.kernel._collapse import collapse
from pinnntk_lib.kernel._graph import Graph, Node, hashable
from pinnntk_lib.kernel._regroup import regrouped
from pinnntk_lib.kernel._scaling import rescaled

# Calls that only group equations and are replaced by their bodies. Custom derivative rules are not among them.
INLINED = ("pjit", "jit", "closed_call", "core_call", "call", "remat", "remat2", "checkpoint")
COMMUTATIVE = ("add", "add_any", "mul", "max", "min")
SMALL = 4096  # constants of up to this many elements are compared by value


def trace(f: Callable[..., Any], *args: Any) -> Graph:
    """Return the graph of ``f`` for arguments of these shapes.

    Equal equations are merged, sums are taken earlier or regrouped if that saves matrix products, large arrays are
    scaled once, and equations that no output needs are dropped. The graph's results differ from those of ``f`` only
    by rounding error.

    Args:
        f: any function that JAX can trace.
        args: pytrees of arrays or ``jax.ShapeDtypeStruct``. The last is a point, one of many; the others are the same
            for all points.
    """
    closed = jax.make_jaxpr(f)(*args)
    builder = Builder()
    graph = _graph_of(closed, builder).pruned()
    collapse(builder)
    shorter = regrouped(builder).pruned()
    graph = shorter if _multiplications(shorter) < _multiplications(graph) else graph
    return rescaled(graph, Builder(), len(jax.tree.leaves(args[-1])))


def at_points(f: Callable[..., Any], leaves: Sequence[jax.Array], x: jax.Array) -> Any:
    """Apply ``f(leaves, point)``, a pytree, at points x (n, d), with products of matrices in place of larger arrays."""
    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), (list(leaves), x))
    closed, result = jax.make_jaxpr(jax.vmap(f, in_axes=(None, 0)), return_shape=True)(*shapes)
    outputs, _ = _graph_of(closed, Builder()).run([*leaves, x])
    return jax.tree.unflatten(jax.tree.structure(result), outputs)


def _graph_of(closed, builder):
    """Return the builder's graph, with the equations of a jaxpr."""
    builder.graph.inputs = [builder.new(var.aval) for var in closed.jaxpr.invars]
    builder.graph.outputs = builder.add_jaxpr(closed.jaxpr, closed.consts, builder.graph.inputs)
    return builder.graph


class Builder:
    """Builds a graph from jaxprs, one equation at a time; an equation already in the graph is not added again."""

    def __init__(self):
        self.graph = Graph()
        self.known = {}  # {key of an equation or constant: its values}

    def new(self, aval):
        self.graph.avals.append(aval)
        return len(self.graph.avals) - 1

    def add_jaxpr(self, jaxpr, constants, values):
        """Add a jaxpr's equations at the values of its inputs; return the values of its outputs."""
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
        """Add the equations of ``f`` at the values; return the value of its result."""
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
        """Add an equation, unless the graph has it; return the values of its outputs."""
        if primitive.name == "slice" and avals[0].shape == self.graph.avals[inputs[0]].shape:
            return (inputs[0],)  # all of the array, which older JAX slices where it indexes an axis of length 1
        if primitive.name in COMMUTATIVE:
            inputs = sorted(inputs)
        key = (primitive, hashable(params), tuple(inputs), tuple(map(hashable, avals)))
        if effects or key not in self.known:
            outputs = tuple(map(self.new, avals))
            self.graph.nodes.append(Node(primitive, params, tuple(inputs), outputs, opaque))
            self.known[key] = outputs
        return self.known[key]


def _multiplications(graph):
    """Return the number of multiplications in the graph's matrix products."""
    total = 0
    for node in graph.nodes:
        if node.name == "dot_general":
            (contracted, _), _ = node.params["dimension_numbers"]
            shape = graph.avals[node.inputs[0]].shape
            total += math.prod(graph.avals[node.outputs[0]].shape) * math.prod(shape[i] for i in contracted)
    return total


def _holds_functions(param):
    if isinstance(param, tuple | list):
        return any(map(_holds_functions, param))
    return isinstance(param, jex.Jaxpr | jex.ClosedJaxpr) or (
        callable(param) and not isinstance(param, type | np.dtype)
    )


def _evaluator(eqn):
    """Return a function that evaluates one equation, whatever its parameters, through a jaxpr of its own."""
    variables = list(dict.fromkeys(atom for atom in eqn.invars if not isinstance(atom, jex.Literal)))
    # older JAX has no debugging information; newer JAX warns if it is missing
    debug_info = (jex.DebugInfo("pinnntk_lib", eqn.primitive.name, None, None),) if hasattr(jex, "DebugInfo") else ()
    jaxpr = jex.Jaxpr((), variables, eqn.outvars, [eqn], eqn.effects, *debug_info)
    run = jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, ()))

    def evaluate(*values):
        given = {atom: value for atom, value in zip(eqn.invars, values) if not isinstance(atom, jex.Literal)}
        return run(*[given[variable] for variable in variables])

    return evaluate
