"""Tracing a function to a graph without duplicates.

Nested derivatives compute many things twice: ``dd(u, 0)`` and ``dd(u, 1)`` both evaluate u, and each first derivative
occurs two times in a second one. XLA removes such duplicates from what it compiles, but only after reverse mode has
doubled them. Here they are merged before, in the jaxpr.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as jex
import numpy as np

from pinnntk_lib.kernel._graph import Graph, Node, hashable
from pinnntk_lib.kernel._regroup import regrouped

# Calls that only group equations; their bodies are put in their place. Custom derivative rules are not among them.
INLINED = ("pjit", "jit", "closed_call", "core_call", "call", "remat", "remat2", "checkpoint")
COMMUTATIVE = ("add", "add_any", "mul", "max", "min")
SMALL = 4096  # elements up to which constants are compared by value


def trace(f: Callable[..., Any], *args: Any) -> Graph:
    """The graph of ``f`` at arguments of these shapes.

    Equal equations are merged, sums are regrouped where that saves matrix products, and what no output needs is left
    out. The results differ by rounding only.

    Args:
        f: any function that JAX can trace.
        args: arrays, or ``jax.ShapeDtypeStruct``, in pytrees.
    """
    closed = jax.make_jaxpr(f)(*args)
    builder = Builder()
    builder.graph.inputs = [builder.new(var.aval) for var in closed.jaxpr.invars]
    builder.graph.outputs = builder.add_jaxpr(closed.jaxpr, closed.consts, builder.graph.inputs)
    graph = builder.graph.pruned()
    try:
        shorter = regrouped(builder).pruned()
    except RecursionError:  # a hundred layers: the graph is right as it is, only longer
        return graph
    return shorter if _multiplications(shorter) < _multiplications(graph) else graph


class Builder:
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
        key = (primitive, hashable(params), tuple(inputs), tuple(map(hashable, avals)))
        if effects or key not in self.known:
            outputs = tuple(map(self.new, avals))
            self.graph.nodes.append(Node(primitive, params, tuple(inputs), outputs, opaque))
            self.known[key] = outputs
        return self.known[key]


def _multiplications(graph):
    """Those of its matrix products."""
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
