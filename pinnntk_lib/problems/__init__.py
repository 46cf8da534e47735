"""Differential equations, their conditions and their collocation points.

A :class:`Problem` is a set of named :class:`Condition` s, the paper's loss components: boundary values, initial
values, the equation's residual. Conditions do not depend on the network, so the same condition serves training, the
empirical kernel and the infinite-width kernel.

The paper's two problems are in ``_paper``, further PINN benchmarks in ``_further``.
"""

from pinnntk_lib.problems._domains import Ball, Polygon
from pinnntk_lib.problems._further import (
    Advection1D,
    AllenCahn1D,
    Burgers1D,
    Heat1D,
    Helmholtz2D,
    InverseHeat1D,
    KleinGordon1D,
    Schrodinger1D,
)
from pinnntk_lib.problems._paper import Poisson1D, Wave1D
from pinnntk_lib.problems._problem import Condition, Conditions, Problem
from pinnntk_lib.problems._problem import check_problem as check_problem  # for other modules, not for users
from pinnntk_lib.problems._problem import target_values as target_values  # for training, not for users
from pinnntk_lib.problems._sampling import Minibatches, RandomPoints, ResidualPoints
from pinnntk_lib.problems._sampling import other_points as other_points  # for diagnosis and comparison, not for users
from pinnntk_lib.problems._slab import time_slab

__all__ = [
    "Advection1D",
    "AllenCahn1D",
    "Ball",
    "Burgers1D",
    "Condition",
    "Conditions",
    "Heat1D",
    "Helmholtz2D",
    "InverseHeat1D",
    "KleinGordon1D",
    "Minibatches",
    "Poisson1D",
    "Polygon",
    "Problem",
    "RandomPoints",
    "ResidualPoints",
    "Schrodinger1D",
    "Wave1D",
    "time_slab",
]
