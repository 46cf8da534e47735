"""Diagnosis of a PINN that does not train.

:func:`diagnose` computes the kernel at the present parameters, and from it what is wrong: a list of findings, each with
its evidence and its remedy (:class:`Finding`). It also predicts what gradient descent would do next: which conditions
train fast and which lag, what the largest stable learning rate is, and how much of the error lies in modes too slow to
train.
"""

from pinnntk_lib.diagnosis._diagnose import diagnose
from pinnntk_lib.diagnosis._diagnosis import LAG, Diagnosis
from pinnntk_lib.diagnosis._evidence import Evidence
from pinnntk_lib.diagnosis._finding import Finding, safe_rate
from pinnntk_lib.diagnosis._preconditioned import Preconditioned

__all__ = ["LAG", "Diagnosis", "Evidence", "Finding", "Preconditioned", "diagnose", "safe_rate"]
