"""The empirical neural tangent kernel of differential operators (paper, section 4).

:func:`ntk` computes the kernel and :func:`ntk_diagonal` its diagonal. :func:`ntk_vector_product` and
:func:`ntk_eigenpairs` work without forming the kernel. The other names serve the packages that build on this one.
"""

from pinnntk_lib.kernel._by_leaf import squared_gradients
from pinnntk_lib.kernel._matrixfree import ntk_eigenpairs, ntk_vector_product
from pinnntk_lib.kernel._normal import gauss_newton_matrix, jacobian
from pinnntk_lib.kernel._ntk import METHODS, ntk, ntk_diagonal
from pinnntk_lib.kernel._plan import residual_graphs
from pinnntk_lib.kernel._result import NTK, Path, check_kernel
from pinnntk_lib.kernel._setting import residual_of, setting_of
from pinnntk_lib.kernel._trace import at_points, trace

__all__ = [
    "METHODS",
    "NTK",
    "Path",
    "at_points",
    "check_kernel",
    "gauss_newton_matrix",
    "jacobian",
    "ntk",
    "ntk_diagonal",
    "ntk_eigenpairs",
    "ntk_vector_product",
    "residual_graphs",
    "residual_of",
    "setting_of",
    "squared_gradients",
    "trace",
]
