"""What a rule of the diagnosis yields."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Finding:
    """One thing that a diagnosis has found.

    Attributes:
        name: a short name: "learning rate", "unreachable condition", "trivial solution", "dead network", "stuck
            parameter", "input scale", "output scale", "undetermined", "too few points", "slow modes", "imbalance" or
            "precision" for causes of failure; "condition met by construction", "unused parameter", "trained", "zero
            solution", "Adam's kernel" or "kernel drift" for remarks.
        is_cause: whether it explains why training fails; otherwise it is a remark.
        text: what was found, with its numbers, in one or two sentences.
        evidence: the numbers, by name.
        remedy: what to try, a line of code; empty for remarks.
        unknown: what the numbers cannot tell.
    """

    name: str
    is_cause: bool
    text: str
    evidence: dict[str, Any]
    remedy: str = ""
    unknown: str = ""


def count(steps):
    """Return a number of steps as text."""
    if not np.isfinite(steps):
        return "more than 1e12"
    return f"{steps:,.0f}" if steps < 1e6 else f"{steps:.1e}"


def safe_rate(bound):
    """Return a learning rate a tenth of the largest stable one, because narrow networks' kernels grow in training."""
    return float(f"{0.1 * bound:.1g}")
