"""The benchmark cases: networks, operators, points and targets, defined with NumPy alone."""

import itertools
from dataclasses import dataclass

import numpy as np

STEPS = 200  # training steps per call

# A condition is a weighted sum of partial derivatives of u, given as (coefficient, axes) pairs.
VALUE = ((1.0, ()),)
WAVE = ((1.0, (0, 0)), (-4.0, (1, 1)))


def laplacian(d):
    return tuple((1.0, (i, i)) for i in range(d))


CONDITIONS = {
    "poisson": {"u": VALUE, "r": laplacian(1)},
    "wave": {"u": VALUE, "ut": ((1.0, (0,)),), "r": WAVE},
    "helmholtz": {"u": VALUE, "r": ((1.0, (0, 0)), (1.0, (1, 1)), (16.0, ()))},
    "laplace3d": {"u": VALUE, "r": laplacian(3)},
    "value": {"u": VALUE},
    "wave residual": {"r": WAVE},
    **{f"Laplacian, d = {d}": {"r": laplacian(d)} for d in (2, 10, 50, 100)},
    "wave problem": {"u": VALUE, "ut": ((1.0, (0,)),), "r": WAVE},
    "Poisson problem, d = 10": {"u": VALUE, "r": laplacian(10)},
}
# The equations that are trained: the fraction of the points in each condition, and the exact solution's right-hand
# sides, functions of points (..., d) and a module with NumPy's functions.
SHARES = {
    "wave problem": {"u": 3 / 7, "ut": 1 / 7, "r": 3 / 7},
    "Poisson problem, d = 10": {"u": 1 / 6, "r": 5 / 6},
}


def _standing_waves(x, np):
    t, x = np.pi * x[..., 0], np.pi * x[..., 1]
    return np.sin(x) * np.cos(2 * t) + 0.5 * np.sin(4 * x) * np.cos(8 * t)


def _mean_of_sines(x, np):
    return np.sin(np.pi * x).mean(axis=-1)


def _its_laplacian(x, np):
    return -(np.pi**2) * _mean_of_sines(x, np)


def _zero(x, np):
    return np.zeros(x.shape[:-1], x.dtype)


TARGETS = {
    "wave problem": {"u": _standing_waves, "ut": _zero, "r": _zero},
    "Poisson problem, d = 10": {"u": _mean_of_sines, "r": _its_laplacian},
}


@dataclass(frozen=True)
class Case:
    """An equation and a network of ``depth`` hidden tanh layers of ``width`` neurons.

    There are ``n`` points per condition, or, for an equation that is trained, ``n`` points in all.
    """

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

    @property
    def dim(self) -> int:
        axes = [axis for terms in self.conditions.values() for _, axes in terms for axis in axes]
        return max(axes, default=1) + 1

    def data(self):
        """Return ``([(W, b) per layer], {condition: points (n, d)})`` in float64, from a fixed seed."""
        rng = np.random.default_rng(0)
        sizes = [self.dim, *[self.width] * self.depth, 1]
        layers = [
            (rng.normal(size=(n, m)) * np.sqrt(2 / (m + n)), 0.1 * rng.normal(size=n))
            for m, n in itertools.pairwise(sizes)
        ]
        if self.equation not in SHARES:
            return layers, {name: rng.uniform(-1.7, 1.7, size=(self.n, self.dim)) for name in self.conditions}
        shares = SHARES[self.equation]
        points = {name: rng.uniform(size=(round(share * self.n), self.dim)) for name, share in shares.items()}
        for name in points.keys() - {"r"}:  # on the two faces that belong to the first coordinate
            points[name][:, 0] = np.round(points[name][:, 0])
        return layers, points

    def targets(self, points):
        """Return ``{condition: right-hand sides (n,)}`` of an equation that is trained."""
        return {name: target(points[name], np) for name, target in TARGETS[self.equation].items()}


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
LAPLACIANS = [Case(f"Laplacian, d = {d}", 3, 256, n) for d, n in ((2, 200), (10, 200), (50, 100), (100, 100))]
MANY_POINTS = Case("value", 1, 64, 3000)
TRAINED = [Case("wave problem", 3, 500, 700), Case("Poisson problem, d = 10", 3, 256, 600)]
DEEP = [Case("wave residual", depth, 32, 100) for depth in (8, 30, 100)]
