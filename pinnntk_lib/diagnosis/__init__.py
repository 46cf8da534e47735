"""Diagnosis of a PINN that does not train.

:func:`diagnose` computes the kernel at the present parameters and predicts from it what gradient descent would do
next: which conditions train fast and which lag, what the largest stable learning rate is, which modes are too slow to
train, and what the paper's Algorithm 1 would change.
"""

from pinnntk_lib.diagnosis._diagnose import diagnose
from pinnntk_lib.diagnosis._diagnosis import LAG, Diagnosis

__all__ = ["LAG", "Diagnosis", "diagnose"]
