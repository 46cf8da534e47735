"""Problems: differential equations with the points they are imposed at.

A :class:`Problem` is a set of named :class:`Condition` s, the paper's loss components: boundary values, initial
values, the equation's residual. Nothing here knows of networks, and nothing of the network is baked into a
condition, so the same one serves training, the empirical kernel and the infinite-width kernel.

The paper's two problems are in ``paper``, those that others know PINNs by in ``further``.
"""

from pinnntk_lib.problems.further import (
    Advection1D,
    AllenCahn1D,
    Burgers1D,
    Heat1D,
    Helmholtz2D,
    InverseHeat1D,
    KleinGordon1D,
    Schrodinger1D,
)
from pinnntk_lib.problems.paper import Poisson1D, Wave1D
from pinnntk_lib.problems.problem import Condition, Problem

__all__ = [
    "Advection1D",
    "AllenCahn1D",
    "Burgers1D",
    "Condition",
    "Heat1D",
    "Helmholtz2D",
    "InverseHeat1D",
    "KleinGordon1D",
    "Poisson1D",
    "Problem",
    "Schrodinger1D",
    "Wave1D",
]
