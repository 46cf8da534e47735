"""What helps a PINN that does not train: trials of its diagnosis' remedies, and choices by the kernel's evidence."""

from pinnntk_lib.comparison._compare import compare
from pinnntk_lib.comparison._evidence import fourier_bandwidth, log_evidence
from pinnntk_lib.comparison._result import Comparison, Trial

__all__ = ["Comparison", "Trial", "compare", "fourier_bandwidth", "log_evidence"]
