"""Points that carry data, such as measured values or normals, beside their coordinates.

Inside the library, points are plain arrays: a :class:`Packing` puts the data into further columns of them, and wraps
each operator in one that takes such a row apart. The model, and derivatives, only ever see the coordinates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

RESERVED = {"x", "data", "dtype", "shape"}


@jax.tree_util.register_pytree_with_keys_class
class Points:
    """Points with data: measured values, normals of a boundary, coefficients of an equation.

    A condition at such points has an operator ``(u, p) -> scalar`` that is called with a single one, p: ``p.x`` has its
    coordinates (d,), and ``p.normal``, say, the datum of this name. A target is likewise a function of p. Only ``p.x``
    is an input of the model; there is no derivative with respect to the data.

    Args:
        x: the points' coordinates, an array (n, d).
        data: named arrays (n, ...), one value of any shape per point.

    Raises:
        ValueError, TypeError: if an array does not have one row per point, or is not one of finite real numbers.

    Example:
        The slope of u along the normals of a circle is 1, a Neumann condition:

        >>> import jax.numpy as jnp, pinnntk_lib as pn
        >>> angles = jnp.linspace(0, 2 * jnp.pi, 8, endpoint=False)
        >>> circle = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
        >>> points = pn.Points(circle, normal=circle)
        >>> slope = lambda u, p: pn.gradient(u)(p.x) @ p.normal
        >>> float(slope(lambda x: x @ x / 2, points[3]))
        1.0
        >>> K = pn.ntk(lambda params, x: params @ x, jnp.ones(2), {"slope": slope}, {"slope": points})
        >>> K.matrix.shape
        (8, 8)
    """

    def __init__(self, x: Any, **data: Any) -> None:
        from pinnntk_lib._check import check_array  # which imports this module

        if taken := RESERVED & set(data):
            raise ValueError(f"data: expected names other than {sorted(RESERVED)}, got {sorted(taken)}")
        self.x = check_array("x", x)
        if jnp.issubdtype(self.x.dtype, jnp.integer):
            self.x = self.x.astype(float)
        if self.x.ndim != 2 or not self.x.size:
            raise ValueError(f"x: expected a non-empty array of shape (n, d), got shape {self.x.shape}")
        self.data = {name: self._checked(name, check_array(name, value)) for name, value in data.items()}

    def _checked(self, name, array):
        if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
            raise TypeError(f"{name}: expected an array of real numbers, got {array.dtype}")
        if array.ndim == 0 or len(array) != len(self.x):
            raise ValueError(f"{name}: expected shape ({len(self.x)}, ...), one row per point, got {array.shape}")
        if not isinstance(array, jax.core.Tracer) and not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
        return array.astype(self.x.dtype)

    def __getattr__(self, name: str) -> jax.Array:
        data = self.__dict__.get("data", {})
        if name not in data:
            raise AttributeError(f"expected x or one of the data {list(data)}, got {name!r}")
        return data[name]

    def __getitem__(self, index: Any) -> "Points":
        """Return the points of an index, a slice or an array of indices; of one index, a single point."""
        return jax.tree.map(lambda array: array[index], self)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in {"x": self.x, **self.data}.items())
        return f"Points({shapes})"

    @property
    def dtype(self) -> Any:
        """The precision of the coordinates and the data."""
        return self.x.dtype

    def astype(self, dtype: Any) -> "Points":
        """Return the points in another precision."""
        return jax.tree.map(lambda array: array.astype(dtype), self)

    def tree_flatten_with_keys(self) -> tuple:
        names = tuple(sorted(self.data))
        children = [("x", self.x), *((name, self.data[name]) for name in names)]
        return [(jax.tree_util.GetAttrKey(name), array) for name, array in children], names

    @classmethod
    def tree_unflatten(cls, names: tuple, children: Any) -> "Points":
        points = object.__new__(cls)  # without checks: JAX also puts things other than arrays into pytrees
        x, *data = children
        points.__dict__.update(x=x, data=dict(zip(names, data)))
        return points


def coordinates(points: Any) -> Any:
    """Return the coordinates of points, with or without data."""
    return points.x if isinstance(points, Points) else points


def spread(points: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and standard deviation (d,) of all conditions' coordinates; a deviation of 0 counts as 1."""
    x = np.concatenate([np.asarray(coordinates(of_one), np.float64) for of_one in points.values()])
    scale = x.std(axis=0)
    return x.mean(axis=0), np.where(scale == 0, 1.0, scale)


def joined(parts: list) -> Any:
    """Return sets of points as one."""
    if not any(isinstance(part, Points) for part in parts):
        return jnp.concatenate(parts)
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)


@dataclass(frozen=True)
class Layout:
    """The columns of a condition's packed points: d coordinates, then data of these names and shapes.

    Attributes:
        d: number of coordinates.
        data: ``(name, shape)`` pairs; None for points without data.
    """

    d: int
    data: tuple[tuple[str, tuple[int, ...]], ...] | None

    @classmethod
    def of(cls, points: Any) -> "Layout":
        if not isinstance(points, Points):
            return cls(points.shape[1], None)
        return cls(points.x.shape[1], tuple((name, points.data[name].shape[1:]) for name in sorted(points.data)))

    @property
    def width(self) -> int:
        return self.d + sum(int(np.prod(shape)) for _, shape in self.data or ())

    def packed(self, points: Any, width: int) -> jax.Array:
        """Return points as an array (n, width), with zeros behind the data."""
        parts = [points] if self.data is None else [points.x, *(points.data[name] for name, _ in self.data)]
        rows = jnp.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
        return jnp.pad(rows, ((0, 0), (0, width - rows.shape[1])))

    def point(self, row: Any) -> Any:
        """Return the point of a row: an array (d,), or a single one of Points. A point is returned as it is."""
        if isinstance(row, Points):
            return row
        if self.data is None:
            return row[: self.d]
        found, start = {}, self.d
        for name, shape in self.data:
            size = int(np.prod(shape))
            found[name], start = row[start : start + size].reshape(shape), start + size
        return Points.tree_unflatten(tuple(found), (row[: self.d], *found.values()))


@dataclass(frozen=True)
class AtRow:
    """An operator, or a target, as a function of a row of packed points."""

    function: Callable
    layout: Layout

    def __call__(self, *arguments: Any) -> Any:
        *before, row = arguments
        return self.function(*before, self.layout.point(row))


@dataclass(frozen=True)
class OutputsAtRow(AtRow):
    """A :class:`~pinnntk_lib.System` as a function of a row."""

    @property
    def outputs(self) -> int:
        return cast(Any, self.function).outputs


@dataclass(frozen=True)
class Packing:
    """How the points of all conditions are packed: their layouts by name, and the common width."""

    layouts: tuple[tuple[str, Layout], ...]
    width: int

    def operators(self, operators: Mapping[str, Callable]) -> dict[str, Callable]:
        """Return operators of rows."""
        layouts = dict(self.layouts)
        return {
            name: (OutputsAtRow if hasattr(operator, "outputs") else AtRow)(operator, layouts[name])
            for name, operator in operators.items()
        }

    def points(self, points: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Return packed points, for some or all of the conditions."""
        layouts = dict(self.layouts)
        for name, x in points.items():
            if Layout.of(x) != layouts[name]:
                raise ValueError(f"points[{name!r}]: expected data {layouts[name].data}, got {Layout.of(x).data}")
        return {name: layouts[name].packed(x, self.width) for name, x in points.items()}


def packing_of(points: Mapping[str, Any]) -> Packing | None:
    """Return how to pack the points of all conditions; None if none of them has data."""
    if not any(isinstance(x, Points) for x in points.values()):
        return None
    layouts = tuple((name, Layout.of(x)) for name, x in points.items())
    return Packing(layouts, max(layout.width for _, layout in layouts))
