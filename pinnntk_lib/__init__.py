"""Neural tangent kernels of physics-informed neural networks, and training methods that use them.

Data flows one way: problems -> residuals -> (training | kernel -> spectra -> (weights | diagnosis)).
"""

from pinnntk_lib import limit, models, operators, problems
from pinnntk_lib.diagnosis import Diagnosis, diagnose
from pinnntk_lib.kernel import NTK, ntk, ntk_diagonal, ntk_eigenpairs, ntk_vector_product
from pinnntk_lib.models import MLP, normalization
from pinnntk_lib.operators import System, biharmonic, d, dd, divergence, gradient, hessian, laplacian, mixed
from pinnntk_lib.problems import Condition, Minibatches, Problem, RandomPoints, ResidualPoints
from pinnntk_lib.training import (
    CheckpointError,
    DivergenceError,
    Fixed,
    GradientNormWeights,
    Linearized,
    NTKWeights,
    RelativeLossWeights,
    Result,
    UncertaintyWeights,
    join_optimizers,
    kernel_gradient_descent,
    largest_stable_learning_rate,
    relative_l2_error,
    train,
)
from pinnntk_lib.version import __version__

__all__ = [
    "MLP",
    "NTK",
    "CheckpointError",
    "Condition",
    "Diagnosis",
    "DivergenceError",
    "Fixed",
    "GradientNormWeights",
    "Linearized",
    "Minibatches",
    "NTKWeights",
    "Problem",
    "RandomPoints",
    "RelativeLossWeights",
    "ResidualPoints",
    "Result",
    "System",
    "UncertaintyWeights",
    "__version__",
    "biharmonic",
    "d",
    "dd",
    "diagnose",
    "divergence",
    "gradient",
    "hessian",
    "join_optimizers",
    "kernel_gradient_descent",
    "laplacian",
    "largest_stable_learning_rate",
    "limit",
    "mixed",
    "models",
    "normalization",
    "ntk",
    "ntk_diagonal",
    "ntk_eigenpairs",
    "ntk_vector_product",
    "operators",
    "problems",
    "relative_l2_error",
    "train",
]
