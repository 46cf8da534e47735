"""Training with weighted losses, and what the kernel predicts about it (paper, sections 3, 5 and 6).

:func:`train` is the training loop. Weightings (the paper's Algorithm 1 and others) and
:func:`kernel_gradient_descent` plug into it. :class:`Linearized` describes training in closed form, as long as the
kernel stays constant.
"""

from pinnntk_lib.training._checkpoints import CheckpointError, Checkpoints
from pinnntk_lib.training._data import relative_l2_error
from pinnntk_lib.training._descent import KernelDescentState, kernel_gradient_descent
from pinnntk_lib.training._joined import join_optimizers
from pinnntk_lib.training._linearized import Linearized, largest_stable_learning_rate
from pinnntk_lib.training._loop import train
from pinnntk_lib.training._other_weightings import GradientNormWeights, RelativeLossWeights, UncertaintyWeights
from pinnntk_lib.training._point_weightings import CausalWeights, ResidualAttention
from pinnntk_lib.training._result import DivergenceError, Result, TrainState
from pinnntk_lib.training._saved import load_params, save_params
from pinnntk_lib.training._weighting import Fixed, NTKWeights, View, Weighting

__all__ = [
    "CausalWeights",
    "CheckpointError",
    "Checkpoints",
    "DivergenceError",
    "Fixed",
    "GradientNormWeights",
    "KernelDescentState",
    "Linearized",
    "NTKWeights",
    "RelativeLossWeights",
    "ResidualAttention",
    "Result",
    "TrainState",
    "UncertaintyWeights",
    "View",
    "Weighting",
    "join_optimizers",
    "kernel_gradient_descent",
    "largest_stable_learning_rate",
    "load_params",
    "relative_l2_error",
    "save_params",
    "train",
]
