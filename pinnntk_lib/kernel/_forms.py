"""Values written as sums of products: what :mod:`~pinnntk_lib.kernel._scaling` computes with."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.core import ShapedArray

from pinnntk_lib.kernel._graph import hashable


class View(NamedTuple):
    """A value with its axes in another order: axis i of the view is the value's axis ``order[i]``."""

    value: int
    order: tuple[int, ...]


class Coefficient(NamedTuple):
    """``number * small``, where ``small`` is a value of length 1 along the axes along which it is constant, or None."""

    number: float
    small: int | None


# ``{views that are multiplied: their coefficient}``, a sum over terms; the empty form is zero.
Form = Mapping[tuple[View, ...], Coefficient]
ONE = Coefficient(1.0, None)


class Arithmetic:
    """Adds equations to a builder's graph. Arguments and results are numbers of values.

    Elementwise operations take values of one rank, in which axes of length 1 are repeated, and scalars.
    """

    def __init__(self, builder: Any):
        self.builder, self.avals = builder, builder.graph.avals
        self.traced: dict = {}  # {operation, parameters and arguments: its equation}

    def shape(self, value: int) -> tuple[int, ...]:
        return self.avals[value].shape

    def view(self, value: int) -> View:
        """Return the view of a value with its axes in their own order."""
        return View(value, tuple(range(len(self.shape(value)))))

    def length(self, view: View, axis: int) -> int:
        return self.shape(view.value)[view.order[axis]] if view.order else 1

    def number(self, number: float, dtype: Any) -> int:
        return self.builder.constant(np.asarray(number, dtype), ShapedArray((), dtype))

    def constant(self, value: int) -> float | None:
        """Return the number that a value holds everywhere, if it is known and finite, otherwise None."""
        array = self.builder.graph.constants.get(value)
        if array is None or isinstance(array, jax.core.Tracer) or np.size(array) != 1:
            return None
        number = float(np.reshape(array, ()))
        return number if math.isfinite(number) else None

    def coefficient(self, value: int) -> Coefficient:
        number = self.constant(value)
        return Coefficient(1.0, value) if number is None else Coefficient(number, None)

    def together(self, *values: int) -> tuple[int, ...]:
        """Return the shape of an elementwise operation's result."""
        return np.broadcast_shapes(*map(self.shape, values))

    def elementwise(self, f: Callable, *values: int) -> int:
        dtype = self.avals[values[0]].dtype
        # JAX's functions do not repeat axes of length 1, but their primitives do
        primitive, params, _ = self.equation(f, [jax.ShapeDtypeStruct((), dtype)] * len(values))
        return self.builder.add(primitive, params, values, [ShapedArray(self.together(*values), dtype)])[0]

    def product(self, values: Iterable[int]) -> int | None:
        """Return the product of some values, smaller ones first, or None of none."""
        total = None
        for value in sorted(values, key=lambda value: (math.prod(self.shape(value)), value)):
            total = value if total is None else self.elementwise(lax.mul, total, value)
        return total

    def resized(self, value: int, shape: Sequence[int]) -> int:
        return self.applied(lax.reshape, value, new_sizes=tuple(shape))

    def ordered(self, view: View) -> int:
        """Return a view as a value of its own."""
        return self.applied(lax.transpose, view.value, permutation=view.order)

    def repeated(self, value: int, shape: Sequence[int]) -> int:
        axes = tuple(range(len(self.shape(value))))
        return self.applied(lax.broadcast_in_dim, value, shape=tuple(shape), broadcast_dimensions=axes)

    def applied(self, f: Callable, value: int, **params: Any) -> int:
        aval = self.avals[value]
        primitive, params, result = self.equation(f, [jax.ShapeDtypeStruct(aval.shape, aval.dtype)], **params)
        return value if primitive is None else self.builder.add(primitive, params, [value], [result])[0]

    def equation(self, f: Callable, args: Sequence[jax.ShapeDtypeStruct], **params: Any) -> tuple:
        """Return primitive, parameters and result of an operation; the primitive is None if it does nothing.

        Tracing takes a hundred times as long as adding an equation, so every operation is traced once.
        """
        key = f, hashable(params), tuple((arg.shape, arg.dtype) for arg in args)
        if key not in self.traced:
            eqns = jax.make_jaxpr(lambda *args: f(*args, **params))(*args).eqns
            self.traced[key] = (
                (eqns[0].primitive, eqns[0].params, eqns[0].outvars[0].aval) if eqns else (None, params, None)
            )
        return self.traced[key]
