"""The neural tangent kernel of physics-informed neural networks, and training that uses it.

Data flows one way: problems -> residuals -> (training | ntk -> spectra -> weighting).
"""

from pinnntk_lib import limit, models, operators, problems
from pinnntk_lib.checkpoints import CheckpointError
from pinnntk_lib.descent import kernel_gradient_descent
from pinnntk_lib.diagnosis import Diagnosis, diagnose
from pinnntk_lib.dynamics import Linearized, largest_stable_learning_rate
from pinnntk_lib.matrixfree import ntk_eigenpairs, ntk_vector_product
from pinnntk_lib.models import MLP, normalization
from pinnntk_lib.ntk import NTK, ntk, ntk_diagonal
from pinnntk_lib.operators import System, d, dd, laplacian, mixed
from pinnntk_lib.problems import Condition, Problem
from pinnntk_lib.sampling import Minibatches, RandomPoints
from pinnntk_lib.training import DivergenceError, Result, relative_l2_error, train
from pinnntk_lib.version import __version__
from pinnntk_lib.weighting import Fixed, GradientNormWeights, NTKWeights, RelativeLossWeights, UncertaintyWeights

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
    "Result",
    "System",
    "UncertaintyWeights",
    "__version__",
    "d",
    "dd",
    "diagnose",
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
