"""What the kernel says about a PINN that does not train.

:func:`diagnose` computes the kernel at the present parameters, and from it what gradient descent would do next: which
condition is trained fast and which lags, what the largest stable learning rate is, which modes will not move in any
number of steps, and what the paper's Algorithm 1 would change about it.
"""

from pinnntk_lib.diagnosis._diagnose import diagnose
from pinnntk_lib.diagnosis._diagnosis import LAG, Diagnosis

__all__ = ["LAG", "Diagnosis", "diagnose"]
