"""Neural tangent kernels of physics-informed neural networks, and training methods that use them.

Data flows one way: problems -> residuals -> (training | kernel -> spectra -> (weights | diagnosis -> comparison)).
"""

from pinnntk_lib import limit, models, operators, problems
from pinnntk_lib._points import Points
from pinnntk_lib.comparison import Comparison, compare, fourier_bandwidth, log_evidence
from pinnntk_lib.diagnosis import Diagnosis, diagnose
from pinnntk_lib.kernel import NTK, ntk, ntk_diagonal, ntk_eigenpairs, ntk_vector_product
from pinnntk_lib.models import MLP, normalization
from pinnntk_lib.operators import System, biharmonic, d, dd, divergence, gradient, hessian, laplacian, mixed
from pinnntk_lib.problems import Condition, Minibatches, Problem, RandomPoints, ResidualPoints
from pinnntk_lib.training import (
    CausalWeights,
    CheckpointError,
    DivergenceError,
    Fixed,
    GradientNormWeights,
    Linearized,
    NTKWeights,
    RelativeLossWeights,
    ResidualAttention,
    Result,
    UncertaintyWeights,
    join_optimizers,
    kernel_gradient_descent,
    largest_stable_learning_rate,
    load_params,
    relative_l2_error,
    save_params,
    train,
)
from pinnntk_lib.version import __version__

__all__ = [
    "MLP",
    "NTK",
    "CausalWeights",
    "CheckpointError",
    "Comparison",
    "Condition",
    "Diagnosis",
    "DivergenceError",
    "Fixed",
    "GradientNormWeights",
    "Linearized",
    "Minibatches",
    "NTKWeights",
    "Points",
    "Problem",
    "RandomPoints",
    "RelativeLossWeights",
    "ResidualAttention",
    "ResidualPoints",
    "Result",
    "System",
    "UncertaintyWeights",
    "__version__",
    "biharmonic",
    "compare",
    "d",
    "dd",
    "diagnose",
    "divergence",
    "fourier_bandwidth",
    "gradient",
    "hessian",
    "join_optimizers",
    "kernel_gradient_descent",
    "laplacian",
    "largest_stable_learning_rate",
    "limit",
    "load_params",
    "log_evidence",
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
    "save_params",
    "train",
]
