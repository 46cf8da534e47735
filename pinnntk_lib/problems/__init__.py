"""Problems: differential equations with the points they are imposed at.

A :class:`Problem` is a set of named :class:`Condition` s, the paper's loss components: boundary values, initial
values, the equation's residual. Nothing here knows of networks, and nothing of the network is baked into a
condition, so the same one serves training, the empirical kernel and the infinite-width kernel.

The paper's two problems are in ``paper``, those that others know PINNs by in ``further``.
"""

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
from pinnntk_lib.problems._sampling import Minibatches, RandomPoints

__all__ = [
    "Advection1D",
    "AllenCahn1D",
    "Burgers1D",
    "Condition",
    "Conditions",
    "Heat1D",
    "Helmholtz2D",
    "InverseHeat1D",
    "KleinGordon1D",
    "Minibatches",
    "Poisson1D",
    "Problem",
    "RandomPoints",
    "Schrodinger1D",
    "Wave1D",
]
