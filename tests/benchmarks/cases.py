"""The benchmark cases: networks, operators and points, defined with NumPy alone."""

import itertools
from dataclasses import dataclass

import numpy as np

# A condition is a weighted sum of partial derivatives of u, given as (coefficient, axes) pairs.
VALUE = ((1.0, ()),)
CONDITIONS = {
    "poisson": {"u": VALUE, "r": ((1.0, (0, 0)),)},
    "wave": {"u": VALUE, "ut": ((1.0, (0,)),), "r": ((1.0, (0, 0)), (-4.0, (1, 1)))},
    "helmholtz": {"u": VALUE, "r": ((1.0, (0, 0)), (1.0, (1, 1)), (16.0, ()))},
    "laplace3d": {"u": VALUE, "r": tuple((1.0, (i, i)) for i in range(3))},
}
DIM = {"poisson": 1, "wave": 2, "helmholtz": 2, "laplace3d": 3}


@dataclass(frozen=True)
class Case:
    """An equation with ``n`` points per condition; a network of ``depth`` hidden tanh layers of ``width`` neurons."""

    equation: str
    depth: int
    width: int
    n: int

    @property
    def name(self) -> str:
        return f"{self.equation} {self.depth} x {self.width}, n = {self.n}"

    @property
    def conditions(self):
        return CONDITIONS[self.equation]

    def data(self):
        """Return ``([(W, b) per layer], {condition: points (n, d)})`` in float64, from a fixed seed."""
        rng, d = np.random.default_rng(0), DIM[self.equation]
        sizes = [d, *[self.width] * self.depth, 1]
        layers = [
            (rng.normal(size=(n, m)) * np.sqrt(2 / (m + n)), 0.1 * rng.normal(size=n))
            for m, n in itertools.pairwise(sizes)
        ]
        return layers, {name: rng.uniform(-1.7, 1.7, size=(self.n, d)) for name in self.conditions}


CASES = [
    Case("poisson", 1, 100, 100),
    Case("poisson", 1, 500, 100),
    Case("wave", 4, 100, 300),
    Case("wave", 3, 500, 300),
    Case("wave", 4, 500, 300),
    Case("helmholtz", 3, 100, 300),
    Case("laplace3d", 3, 200, 300),
]
SWEEPS = {
    "n": [Case("wave", 3, 200, n) for n in (50, 100, 200, 400, 800)],
    "width": [Case("wave", 3, width, 100) for width in (10, 30, 100, 300, 800)],
    "depth": [Case("wave", depth, 200, 100) for depth in (1, 2, 4, 8)],
    "width, one hidden layer": [Case("poisson", 1, width, 100) for width in (10, 30, 100, 300, 1000)],
    "n, one hidden layer": [Case("poisson", 1, 100, n) for n in (20, 100, 500, 2000)],
}
