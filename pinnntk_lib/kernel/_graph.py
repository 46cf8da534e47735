"""A traced computation as a graph that can be inspected, shortened and evaluated."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Node:
    """One equation, ``outputs = primitive(*inputs, **params)``; inputs and outputs refer to values by number."""

    primitive: Any
    params: dict
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    opaque: Callable | None  # evaluates an equation that contains functions (a custom derivative rule, a loop)

    @property
    def name(self) -> str:
        return self.primitive.name

    def __call__(self, *values: Any) -> Sequence[Any]:
        if self.opaque is not None:
            return self.opaque(*values)
        if self.name == "dot_general" and max(value.ndim for value in values) > 2:
            return [_product_of_matrices(self, *values)]
        results = self.primitive.bind(*values, **self.params)
        return results if self.primitive.multiple_results else [results]


@dataclass(eq=False)
class Graph:
    """Equations in evaluation order. Values are referred to by number.

    Attributes:
        nodes: the equations.
        inputs: values of the arguments, flattened.
        outputs: values of the results, flattened.
        constants: ``{value: array}``.
        avals: abstract array (shape and dtype) of each value.
    """

    nodes: list[Node] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    avals: list[Any] = field(default_factory=list)

    def run(
        self, inputs: Sequence, wanted: Sequence[int] = (), taps: dict[int, jax.Array] | None = None
    ) -> tuple[list[Any], list[Any]]:
        """Evaluate the outputs and the ``wanted`` values, with ``taps[value]`` added to each tapped value.

        Returns:
            ``(arrays of the outputs, arrays of the wanted values)``.
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

    def at_point(self, leaves: Sequence, point: Any) -> Any:
        """Evaluate the first output of a graph ``(leaves, point) -> outputs``."""
        return self.run([*leaves, point])[0][0]

    def uses(self) -> dict[int, list[tuple[Node, int]]]:
        """Return the uses of each value, ``{value: [(node, position among the node's inputs), ...]}``."""
        found: dict[int, list[tuple[Node, int]]] = {}
        for node in self.nodes:
            for position, value in enumerate(node.inputs):
                found.setdefault(value, []).append((node, position))
        return found

    def peak_bytes(self) -> int:
        """Return the peak memory in bytes if the equations run one by one, not counting inputs and constants."""
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
        """Return the bytes of the results of all equations, which reverse mode keeps."""
        return sum(nbytes(self.avals[value]) for node in self.nodes for value in node.outputs)

    def pruned(self) -> "Graph":
        """Return the graph without the equations that no output needs."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(node.inputs)
        constants = {value: array for value, array in self.constants.items() if value in needed}
        return Graph(kept[::-1], self.inputs, self.outputs, constants, self.avals)


def _product_of_matrices(node, a, b):
    """Evaluate a product of arrays as one of two matrices: for others, XLA's CPU backend copies transposed operands."""
    contracted, batch = node.params["dimension_numbers"]
    if any(batch) or node.params.get("out_sharding") is not None:
        return node.primitive.bind(a, b, **node.params)
    free = [[i for i in range(x.ndim) if i not in axes] for x, axes in zip((a, b), contracted)]
    count = math.prod(a.shape[i] for i in contracted[0])
    rows = jnp.transpose(a, (*free[0], *contracted[0])).reshape(-1, count)
    columns = jnp.transpose(b, (*contracted[1], *free[1])).reshape(count, -1)
    params = node.params | {"dimension_numbers": (((1,), (0,)), ((), ()))}
    shape = [x.shape[i] for x, axes in zip((a, b), free) for i in axes]
    return node.primitive.bind(rows, columns, **params).reshape(shape)


def nbytes(aval: Any) -> int:
    """Return the size of a value in bytes."""
    return math.prod(aval.shape) * aval.dtype.itemsize


def is_float(aval: Any) -> bool:
    """Return whether a value holds floating-point numbers."""
    return jnp.issubdtype(aval.dtype, jnp.floating)


def hashable(thing):
    """Return a key that is equal only for equivalent things; unhashable objects are compared by identity."""
    if isinstance(thing, dict):
        return tuple(sorted((name, hashable(value)) for name, value in thing.items()))
    if isinstance(thing, tuple | list):
        return (type(thing).__name__, *map(hashable, thing))
    if isinstance(thing, np.ndarray):
        return (str(thing.dtype), thing.shape, thing.tobytes())
    try:
        hash(thing)
    except TypeError:
        return ("object", id(thing))
    return (type(thing).__name__, thing)
