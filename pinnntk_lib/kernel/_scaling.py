"""Scaling in small arrays, and matrix products in the order in which their results are used.

Derivatives along many directions travel through a network as one array with an axis of directions. Most factors that
multiply it are constant along this axis: an activation's slope, one over the square root of the fan-in, a constant.
Automatic differentiation multiplies by them one after the other, and each time passes over the whole array. Here every
large value is written as a *form*,

    sum over terms of  coefficient * view * view * ...,

whose coefficients are small. They are multiplied and added in their small shape, and each is applied once, where an
operation needs the value itself. A sum over directions does not: the coefficients that are constant along the axis
come out of it, and equal products are summed once.

A *view* is a value with its axes in some order, so that a transposition costs nothing until an operation needs it.
Matrix products never do. They are written with the parameters last: for a batch of points, the result then has the
points first and the layer's outputs last, and needs no transposition.
"""

import math
from typing import Any

from jax import lax
from jax.core import ShapedArray

from pinnntk_lib.kernel._forms import ONE, Arithmetic, Coefficient, View
from pinnntk_lib.kernel._graph import Graph, is_float

MOST = 4  # terms of a form; longer sums are computed and enter further forms as one value
ELEMENTWISE = ("mul", "div", "add", "add_any", "sub")
RESHAPES = ("broadcast_in_dim", "reshape", "squeeze", "expand_dims")


def rescaled(graph: Graph, builder: Any, points: int) -> Graph:
    """Return the graph with its large values scaled in small arrays, or the graph itself if that saves nothing.

    Args:
        graph: the graph.
        builder: an empty :class:`~pinnntk_lib.kernel._trace.Builder`.
        points: number of the graph's last inputs that differ from point to point; the others are parameters.
    """
    varying = _varying(graph, points)
    if not any(is_large(graph.avals[value]) for value in varying):
        return graph
    new = _Scaling(graph, builder, varying).rewritten()
    return new if elements(new, points) < elements(graph, points) else graph


def is_large(aval: Any) -> bool:
    """Return whether a value is floating-point and has at least two axes longer than 1."""
    return is_float(aval) and sum(n > 1 for n in aval.shape) >= 2


def elements(graph: Graph, points: int) -> int:
    """Return how many elements of large arrays are computed at every point, not counting matrix products."""
    varying = _varying(graph, points)
    computed = (node for node in graph.nodes if node.name not in (*RESHAPES, "dot_general"))
    avals = [graph.avals[value] for node in computed for value in node.outputs if value in varying]
    return sum(math.prod(aval.shape) for aval in avals if is_large(aval))


def _varying(graph, points):
    """Return the values that differ from point to point."""
    found = set(graph.inputs[len(graph.inputs) - points :])
    for node in graph.nodes:
        if not found.isdisjoint(node.inputs):
            found.update(node.outputs)
    return found


class _Scaling:
    """Writes the values of a graph as forms in a new graph, and computes those that its operations need."""

    def __init__(self, graph, builder, varying):
        self.old, self.varying, self.builder, self.new = graph, varying, builder, Arithmetic(builder)
        self.forms = {}  # {value of the old graph: its form}
        self.views = {}  # {value of the old graph: view of its value in the new graph}
        uses = graph.uses()
        self.only_summed = {
            value for value, found in uses.items() if all(node.name == "reduce_sum" for node, _ in found)
        }.difference(graph.outputs)

    def rewritten(self):
        graph, avals = self.builder.graph, self.old.avals
        graph.inputs = [self.builder.new(avals[value]) for value in self.old.inputs]
        constants = [self.builder.constant(array, avals[value]) for value, array in self.old.constants.items()]
        known = zip((*self.old.inputs, *self.old.constants), (*graph.inputs, *constants))
        self.forms = {value: {(self.new.view(new),): ONE} for value, new in known}
        for node in self.old.nodes:
            form = self.form_of(node) if self.may_have_form(node) else None
            if form is None:
                self.add(node)
            else:
                self.forms[node.outputs[0]] = form
        graph.outputs = [self.value(value) for value in self.old.outputs]
        return graph.pruned()

    def may_have_form(self, node):
        value = node.outputs[0] if node.outputs else None
        if node.opaque is not None or not (value in self.varying or node.name == "broadcast_in_dim"):
            return False
        if node.name == "dot_general":
            return all(is_float(self.old.avals[i]) for i in (*node.inputs, value))
        return is_large(self.old.avals[node.inputs[0] if node.name == "reduce_sum" else value])

    def add(self, node):
        """Add an equation as it is, to the values of its arguments."""
        inputs, avals = [self.value(i) for i in node.inputs], [self.old.avals[value] for value in node.outputs]
        # opaque equations may have effects, so that equal ones are not merged
        opaque = node.opaque is not None
        outputs = self.builder.add(node.primitive, node.params, inputs, avals, node.opaque, opaque)
        self.forms.update((old, {(self.new.view(new),): ONE}) for old, new in zip(node.outputs, outputs))

    # ------------------------------------------------------------ from forms to values

    def value(self, value):
        """Return the new graph's value for a value of the old graph."""
        return self.new.ordered(self.view(value))

    def view(self, value):
        """Return a view of the new graph's value for a value of the old graph."""
        if value not in self.views:
            self.views[value] = self.computed(self.forms[value], self.old.avals[value])
            if len(self.forms[value]) > 1:  # later operations need not repeat the sum
                self.forms[value] = {(self.views[value],): ONE}
        return self.views[value]

    def computed(self, form, aval):
        """Return a view of a form's value, in the order of axes that most views need not be transposed for."""
        order = self.order_of([view for views in form for view in views], aval.shape)
        inverse = _inverse(order)
        total, shape = None, tuple(aval.shape[i] for i in inverse)
        for views, c in sorted(self.transposed(form, inverse).items(), key=lambda term: term[1].number < 0):
            subtracted = total is not None and c.number < 0
            term = self.term_value(views, c._replace(number=-c.number) if subtracted else c, shape, aval.dtype)
            f = lax.sub if subtracted else lax.add
            total = term if total is None else self.new.elementwise(f, total, term)
        if total is None:
            total = self.new.number(0.0, aval.dtype)
        return View(total if self.new.shape(total) == shape else self.new.repeated(total, shape), order)

    def order_of(self, views, shape):
        """Return the order of axes of the first view of this shape."""
        orders = [view.order for view in views if all(self.new.length(view, i) == n for i, n in enumerate(shape))]
        return orders[0] if orders else tuple(range(len(shape)))

    def term_value(self, views, c, shape, dtype):
        values = [self.new.ordered(view) for view in views]
        whole = self.new.product(value for value in values if self.new.shape(value) == shape)
        parts = [value for value in values if self.new.shape(value) != shape]
        if c != ONE or not values:
            parts.append(self.small_value(c, dtype))
        return self.new.product(value for value in (whole, self.new.product(parts)) if value is not None)

    def small_value(self, c, dtype):
        """Return the value of a coefficient."""
        if c.small is None:
            return self.new.number(c.number, dtype)
        if abs(c.number) == 1:
            return c.small if c.number > 0 else self.new.elementwise(lax.neg, c.small)
        return self.new.elementwise(lax.mul, c.small, self.new.number(c.number, dtype))

    # ------------------------------------------------------------ forms of results

    def form_of(self, node):
        """Return the form of an equation's result, or None if the equation stays as it is."""
        name, first = node.name, node.inputs[0]
        shape = self.old.avals[node.outputs[0]].shape
        if name in ELEMENTWISE:
            a, b = (self.operand(value, shape) for value in node.inputs)
            if name == "mul":
                return self.multiplied(node, a, b, shape)
            if name == "div":
                return self.divided(a, b, shape)
            return self.collected([*a.items(), *(self.scaled(b, -1.0) if name == "sub" else b).items()], shape)
        if name in ("neg", "copy"):
            return self.scaled(self.forms[first], -1.0 if name == "neg" else 1.0)
        if name == "transpose":
            return self.transposed(self.forms[first], node.params["permutation"])
        if name == "reduce_sum":
            return self.summed(node)
        if name == "dot_general":
            return self.matrix_product(node)
        return self.reshaped(node, shape) if name in RESHAPES else None

    def operand(self, value, shape):
        """Return the form of an argument of an elementwise operation whose result has this shape."""
        whole = self.old.avals[value].shape == shape
        return self.forms[value] if whole else {(): self.new.coefficient(self.value(value))}

    def scaled(self, form, number):
        return {views: Coefficient(number * c.number, c.small) for views, c in form.items()}

    def multiplied(self, node, a, b, shape):
        """Multiply two forms. Sums are multiplied out only under a sum, where equal products are summed once."""
        if not a or not b:
            return None
        if node.outputs[0] not in self.only_summed or len(a) * len(b) > MOST:
            if len(a) > 1 and any(b):
                a = {(self.view(node.inputs[0]),): ONE}
            if len(b) > 1 and any(a):
                b = {(self.view(node.inputs[1]),): ONE}
        products = (self.term((*views, *more), c, k, shape) for views, c in a.items() for more, k in b.items())
        return self.collected(products, shape)

    def divided(self, a, b, shape):
        """Divide a form by a coefficient."""
        if set(b) != {()} or b[()].number == 0:
            return None
        number, small = b[()]
        if small is not None:
            small = self.new.elementwise(lax.div, self.new.number(1.0, self.new.avals[small].dtype), small)
        inverse = Coefficient(1 / number, small)
        return self.collected([self.term(views, c, inverse, shape) for views, c in a.items()], shape)

    def term(self, views, c, k, shape):
        """Return views and coefficient of a product. A factor of a coefficient of this shape joins the views."""
        smalls = sorted((small for small in (c.small, k.small) if small is not None), key=self.size)
        if len(smalls) == 2 and self.new.together(*smalls) == shape:
            views = (*views, self.new.view(smalls.pop()))
        return tuple(sorted(views)), Coefficient(c.number * k.number, self.new.product(smalls))

    def size(self, value):
        return math.prod(self.new.shape(value))

    def collected(self, terms, shape):
        """Return the form with these terms, or None if they are too many or a coefficient would have this shape."""
        found = {}
        for views, c in terms:
            c = self.plus(found[views], c, shape) if views in found else c
            if c is None:
                return None
            found[views] = c
        return found if len(found) <= MOST else None

    def plus(self, c, k, shape):
        """Return the sum of two coefficients, or None if it would have this shape."""
        if c.small == k.small:
            return Coefficient(c.number + k.number, c.small)
        if None not in (c.small, k.small) and self.new.together(c.small, k.small) == shape:
            return None
        dtype = self.new.avals[k.small if c.small is None else c.small].dtype
        return Coefficient(1.0, self.new.elementwise(lax.add, *(self.small_value(each, dtype) for each in (c, k))))

    def transposed(self, form, order):
        """Return the form whose axis i was axis ``order[i]``."""
        found = {}
        for views, (number, small) in form.items():
            if small is not None and self.new.shape(small):
                small = self.new.ordered(View(small, tuple(order)))
            views = (View(view.value, tuple(view.order[i] for i in order)) for view in views)
            found[tuple(sorted(views))] = Coefficient(number, small)
        return found

    def reshaped(self, node, shape):
        """Return the form of a value with axes of length 1 added or dropped, or repeated along new axes."""
        (value,), before = node.inputs, self.old.avals[node.inputs[0]].shape
        if node.name == "reshape" and node.params["dimensions"] is not None:
            return None
        if [n for n in before if n != 1] == [n for n in shape if n != 1]:
            view = self.view(value)
            order = [i for i in view.order if self.new.shape(view.value)[i] != 1]
            kept, units = sorted(order), shape.count(1)
            flat = self.new.resized(view.value, [1] * units + [self.new.shape(view.value)[i] for i in kept])
            ones, others = iter(range(units)), iter([units + kept.index(i) for i in order])
            return {(View(flat, tuple(next(ones if n == 1 else others) for n in shape)),): ONE}
        if node.name != "broadcast_in_dim":
            return None
        c = self.new.coefficient(self.value(value))
        if c == Coefficient(0.0, None):
            return {}
        if c.small is not None and before:
            lengths = dict(zip(node.params["broadcast_dimensions"], before))
            c = Coefficient(1.0, self.new.resized(c.small, [lengths.get(i, 1) for i in range(len(shape))]))
        return {(): c}

    def summed(self, node):
        """Return the form of a sum over axes: factors that are constant along them come out of the sum."""
        new, axes, terms = self.new, node.params["axes"], []
        left = [i for i in range(len(self.old.avals[node.inputs[0]].shape)) if i not in axes]
        for views, (number, small) in self.forms[node.inputs[0]].items():
            scalars = [] if small is None or new.shape(small) else [small]
            factors = [*views, *([] if small is None or scalars else [new.view(small)])]
            outer = [view for view in factors if all(new.length(view, axis) == 1 for axis in axes)]
            sums, repeated = self.sum_of_product(node, [view for view in factors if view not in outer])
            ordered = [new.ordered(view) for view in outer]
            smaller = [new.resized(value, [new.shape(value)[i] for i in left]) for value in ordered]
            terms.append((sums, Coefficient(number * repeated, new.product(scalars + smaller))))
        return self.collected(terms, None)

    def sum_of_product(self, node, factors):
        """Return ``((view of a sum,), number)``: the sum over the node's axes of a product is the product of both."""
        new, axes, shape = self.new, node.params["axes"], self.old.avals[node.inputs[0]].shape
        if not factors:
            return (), math.prod(shape[axis] for axis in axes)
        order = self.order_of(factors, shape)
        inverse = _inverse(order)
        product = new.product(new.ordered(View(view.value, tuple(view.order[i] for i in inverse))) for view in factors)
        repeated = math.prod(shape[axis] for axis in axes if new.shape(product)[order[axis]] == 1)
        over = tuple(sorted(order[axis] for axis in axes))
        left = [i for i in range(len(order)) if i not in over]
        aval = ShapedArray([new.shape(product)[i] for i in left], new.avals[product].dtype)
        (total,) = self.builder.add(node.primitive, node.params | {"axes": over}, [product], [aval])
        return (View(total, tuple(left.index(i) for axis, i in enumerate(order) if axis not in axes)),), repeated

    def matrix_product(self, node):
        """Return the form of a matrix product, with the parameters last and no operand transposed."""
        dimensions, params = node.params["dimension_numbers"], dict(node.params)
        views = [self.view(value) for value in node.inputs]
        mapped = [[tuple(v.order[i] for i in axes) for v, axes in zip(views, pair)] for pair in dimensions]
        # the axes of the result, as (operand, axis of its view), in the order of the equation and of the new one
        used = [{*contracted, *batch} for contracted, batch in zip(*dimensions)]
        free = [[(k, i) for i in range(len(views[k].order)) if i not in used[k]] for k in (0, 1)]
        natural = [sorted(axes, key=lambda axis: views[axis[0]].order[axis[1]]) for axes in free]
        if node.inputs[0] not in self.varying:
            views, natural, mapped = views[::-1], natural[::-1], [pair[::-1] for pair in mapped]
            if isinstance(params["precision"], tuple):
                params["precision"] = params["precision"][::-1]
        batch = [(2, i) for i in range(len(dimensions[1][0]))]
        after = [*batch, *natural[0], *natural[1]]
        order = tuple(after.index(axis) for axis in (*batch, *free[0], *free[1]))
        aval = self.old.avals[node.outputs[0]]
        shaped = ShapedArray([aval.shape[i] for i in _inverse(order)], aval.dtype)
        params["dimension_numbers"] = tuple(map(tuple, mapped))
        (product,) = self.builder.add(node.primitive, params, [view.value for view in views], [shaped])
        return {(View(product, order),): ONE}


def _inverse(order):
    return sorted(range(len(order)), key=order.__getitem__)
