"""Domains that are no boxes: samplers of points inside them, and of points with normals on their boundaries.

The samplers are methods ``(n, key) -> points``. If the key is None, the points are spread evenly, always in the same
way; otherwise they are drawn uniformly at random.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_numbers, check_positive
from pinnntk_lib._points import Points

GOLDEN = np.pi * (3 - 5**0.5)  # the angle between neighbours in a sunflower


@dataclass(frozen=True)
class Ball:
    """A disc in the plane, or a ball in space.

    Attributes:
        center: its centre, two or three numbers.
        radius: its radius.

    Raises:
        ValueError, TypeError: if ``center`` does not have two or three finite numbers, or the radius is not positive.

    Example:
        >>> import jax, pinnntk_lib as pn
        >>> disc = pn.problems.Ball((1.0, 0.0), radius=2.0)
        >>> disc.inside(100, jax.random.key(0)).shape
        (100, 2)
        >>> edge = disc.boundary(4, None)
        >>> edge.x[0].tolist(), edge.normal[0].tolist()
        ([3.0, 0.0], [1.0, 0.0])
    """

    center: Sequence[float] = (0.0, 0.0)
    radius: float = 1.0

    def __post_init__(self) -> None:
        center = _finite("center", self.center)
        if center.shape not in ((2,), (3,)):
            raise ValueError(f"center: expected two or three numbers, got {self.center!r}")
        object.__setattr__(self, "center", tuple(center.tolist()))
        check_positive("radius", self.radius)

    def inside(self, n: int, key: jax.Array | None = None) -> jax.Array:
        """Return points (n, d) inside."""
        d = len(self.center)
        of_radius, of_direction = (None, None) if key is None else jax.random.split(key)
        share = (jnp.arange(n) + 0.5) / n if of_radius is None else jax.random.uniform(of_radius, (n,))
        if of_direction is None and d == 3:  # a spiral on a sphere would meet one of the radii in order
            share = jnp.asarray(_lattice(n, 2)[:, 1])
        return jnp.asarray(self.center) + self.radius * share[:, None] ** (1 / d) * self._directions(n, of_direction)

    def boundary(self, n: int, key: jax.Array | None = None) -> Points:
        """Return points on the boundary, with their outward ``normal`` (n, d)."""
        directions = self._directions(n, key, sunflower=False)
        return Points(jnp.asarray(self.center) + self.radius * directions, normal=directions)

    def _directions(self, n, key, sunflower=True):
        """Return unit vectors (n, d)."""
        if key is not None:
            vectors = jax.random.normal(key, (n, len(self.center)))
            return vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
        i = np.arange(n)
        if len(self.center) == 2:
            angle = GOLDEN * i if sunflower else 2 * np.pi * i / n
            return jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], axis=1), float)
        z, angle = 1 - (2 * i + 1) / n, GOLDEN * i
        across = np.sqrt(1 - z**2)
        return jnp.asarray(np.stack([across * np.cos(angle), across * np.sin(angle), z], axis=1), float)


@dataclass(frozen=True)
class Polygon:
    """A polygon in the plane, convex or not, without holes.

    Attributes:
        vertices: its corners in order, (m, 2), in either sense of rotation.

    Raises:
        ValueError, TypeError: if there are fewer than three corners, a number is not finite, or edges cross or touch.

    Example:
        An L-shaped domain:

        >>> import jax, pinnntk_lib as pn
        >>> shape = pn.problems.Polygon([(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)])
        >>> shape.area, shape.inside(500, jax.random.key(0)).shape
        (3.0, (500, 2))
        >>> edge = shape.boundary(8, None)
        >>> edge.x[0].tolist(), edge.normal[0].tolist()
        ([0.5, 0.0], [0.0, -1.0])
    """

    vertices: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        vertices = _finite("vertices", self.vertices)
        if vertices.ndim != 2 or vertices.shape[1] != 2 or len(vertices) < 3:
            raise ValueError(f"vertices: expected at least three corners (m, 2), got shape {vertices.shape}")
        if _signed_area(vertices) < 0:
            vertices = vertices[::-1]
        object.__setattr__(self, "vertices", tuple(map(tuple, vertices.tolist())))
        object.__setattr__(self, "_triangles", _triangulated(vertices))

    @property
    def area(self) -> float:
        """The area."""
        return float(_signed_area(np.array(self.vertices)))

    def inside(self, n: int, key: jax.Array | None = None) -> jax.Array:
        """Return points (n, 2) inside."""
        triangles = np.array(self._triangles)  # type: ignore[attr-defined]
        areas = np.array([_signed_area(corners) for corners in triangles])
        unit = jnp.asarray(_lattice(n, 3)) if key is None else jax.random.uniform(key, (n, 3))
        which = jnp.searchsorted(jnp.asarray(np.cumsum(areas)[:-1] / areas.sum()), unit[:, 0])
        a, b, c = jnp.moveaxis(jnp.asarray(triangles, float)[which], 1, 0)
        root = jnp.sqrt(unit[:, 1:2])
        return (1 - root) * a + root * (1 - unit[:, 2:]) * b + root * unit[:, 2:] * c

    def boundary(self, n: int, key: jax.Array | None = None) -> Points:
        """Return points on the boundary, with their outward ``normal`` (n, 2)."""
        corners = np.array(self.vertices)
        edges = np.roll(corners, -1, axis=0) - corners
        lengths = np.linalg.norm(edges, axis=1)
        ends = np.cumsum(lengths)
        unit = (jnp.arange(n) + 0.5) / n if key is None else jax.random.uniform(key, (n,))
        place = unit * ends[-1]
        which = jnp.searchsorted(jnp.asarray(ends[:-1]), place, side="right")
        along = ((place - jnp.asarray(ends - lengths)[which]) / jnp.asarray(lengths)[which])[:, None]
        normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1) / lengths[:, None]
        x = jnp.asarray(corners, float)[which] + along * jnp.asarray(edges, float)[which]
        return Points(x, normal=jnp.asarray(normals, float)[which])


def _finite(name, numbers):
    array = check_numbers(name, numbers)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got {numbers!r}")
    return array


def _lattice(n, k):
    """Return n points of a sequence that fills the unit cube (n, k) evenly: Roberts' generalised golden ratio."""
    ratio = 2.0
    for _ in range(40):
        ratio = (1 + ratio) ** (1 / (k + 1))
    return (0.5 + np.arange(n)[:, None] * ratio ** -np.arange(1.0, k + 1)) % 1.0


def _signed_area(corners):
    x, y = corners.T
    return 0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))


def _triangulated(corners):
    """Cut a polygon, whose corners run anticlockwise, into triangles, one ear at a time."""
    left, found = list(range(len(corners))), []
    while len(left) > 2:
        for i in range(len(left)):
            ear = corners[[left[i - 1], left[i], left[(i + 1) % len(left)]]]
            others = corners[[j for j in left if j not in (left[i - 1], left[i], left[(i + 1) % len(left)])]]
            if _signed_area(ear) > 0 and not _any_inside(ear, others):
                found.append(tuple(map(tuple, ear.tolist())))
                del left[i]
                break
        else:
            raise ValueError(f"vertices: expected a polygon whose edges do not cross or touch, got {corners.tolist()}")
    return tuple(found)


def _any_inside(triangle, points):
    """Return whether any of the points lies in a triangle or on its edge."""
    edges = np.roll(triangle, -1, axis=0) - triangle
    away = points[:, None] - triangle
    return bool(((edges[:, 0] * away[..., 1] - edges[:, 1] * away[..., 0]) >= 0).all(axis=1).any())
