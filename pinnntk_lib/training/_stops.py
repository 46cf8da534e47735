"""The steps at which the history of a run has rows."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pinnntk_lib._check import check_count


@dataclass(frozen=True)
class Stops:
    """The steps at which the history has rows.

    Attributes:
        steps: the last one.
        every: the number of steps between the others.
        snapshots: those at which the parameters are kept.
        single: the number of steps in single precision, at whose end there is a row too.
    """

    steps: int
    every: int
    snapshots: list[int]
    single: int

    @classmethod
    def checked(cls, steps: Any, log_every: Any, snapshots: Any, single_steps: Any) -> "Stops":
        """Return the steps for the arguments of :func:`~pinnntk_lib.train`, or raise an error that names one."""
        steps, every = check_count("steps", steps), check_count("log_every", log_every)
        if isinstance(single_steps, bool) or not isinstance(single_steps, int | np.integer):
            raise TypeError(f"single_steps: expected a number of steps, got {single_steps!r}")
        if single_steps < 0:
            raise ValueError(f"single_steps: expected a number of steps, got {single_steps}")
        return cls(steps, every, _snapshot_steps(snapshots, steps), int(single_steps))

    def after(self, step: int) -> int:
        """Return the step of the next row."""
        # An extra step, whose result is dropped, computes the last row: one compiled function serves every row.
        later = [s for s in (*self.snapshots, self.single) if s > step]
        return min(step - step % self.every + self.every, max(self.steps, step + 1), *later)

    def regular(self, step: int) -> bool:
        """Return whether the history has a row of a step also if the run is not interrupted there."""
        return step % self.every == 0 or step in (*self.snapshots, self.single, self.steps)


def _snapshot_steps(snapshots, steps):
    if isinstance(snapshots, str) or not isinstance(snapshots, Iterable) or getattr(snapshots, "ndim", 1) != 1:
        raise TypeError(f"snapshots: expected step numbers, got {snapshots!r}")
    snapshots = list(snapshots)
    for step in snapshots:
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or not 0 <= step <= steps:
            raise ValueError(f"snapshots: expected steps from 0 to {steps}, got {step!r}")
    return sorted({int(step) for step in snapshots})
