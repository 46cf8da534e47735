"""The record of a run: the rows of its history, its snapshots, and the checkpoints that hold both."""

from contextlib import suppress
from typing import Any

import numpy as np

from pinnntk_lib.training._checkpoints import CheckpointError, Checkpoints
from pinnntk_lib.training._result import Result, TrainState, columns_of, packed, rows_of


class Log:
    """The record of a run so far: the rows of the history, the snapshots, and the checkpoints that hold both.

    Attributes:
        rows: the history, one dict per row.
        recorded: the last state whose losses are known not to have diverged.
    """

    def __init__(
        self,
        before: Result,
        store: Checkpoints | None,
        checkpoint_every: int,
        snapshots: list[int],
        patience: int | None = None,
    ):
        self.rows = [row for row in rows_of(before.history) if row["step"] < before.state.step]
        self.recorded = before.state
        self._store, self._every, self._snapshots = store, checkpoint_every, snapshots
        self._kept, self._saved = dict(before.snapshots), int(before.state.step)
        self._patience = patience
        self._best = next((row for row in self.rows if row["step"] == before.best_step), None)

    def record(self, state: TrainState, row: dict[str, Any]) -> None:
        """Add a row, and a snapshot or a checkpoint if one is due; the row must have the form of earlier ones."""
        earlier = self.rows[0] if self.rows else row
        if set(row) != set(earlier):
            raise ValueError(f"measure: expected the columns of earlier rows, {[*earlier]}, got {[*row]}")
        for name in set(row) - {"losses", "weights", "held_out"}:
            if np.shape(row[name]) != np.shape(earlier[name]):
                raise ValueError(
                    f"measure: expected {name!r} of shape {np.shape(earlier[name])}, as in earlier rows, "
                    f"got {np.shape(row[name])}"
                )
        self.rows.append(row)
        self.recorded, step = state, row["step"]
        if step in self._snapshots:
            self._kept[step] = state.params
        if "held_out" in row and self._is_best(row):
            if self._best is not None and self._best["step"] not in self._snapshots:
                self._kept.pop(int(self._best["step"]), None)
            self._best, self._kept[step] = row, state.params
        if step - self._saved >= self._every:
            self.save(state)
            self._saved = step

    def has(self, step: int) -> bool:
        """Return whether there is a row of this step or a later one."""
        return bool(self.rows) and self.rows[-1]["step"] >= step

    def _is_best(self, row):
        """Return whether the held-out loss is less than in any row before, by this row's weights."""

        def loss(of):
            return sum(row["weights"][name] * value for name, value in of["held_out"].items())

        return self._best is None or loss(row) < loss(self._best)

    @property
    def stale(self) -> bool:
        """Whether the held-out loss has not been at its least for as many rows as patience allows."""
        if self._patience is None or self._best is None:
            return False
        return sum(row["step"] > self._best["step"] for row in self.rows) >= self._patience

    def result(self, state: TrainState, interrupted: bool = False) -> Result:
        """Return everything recorded so far, as a result that ends in ``state``."""
        best = None if self._best is None else int(self._best["step"])
        return Result(columns_of(self.rows), state, dict(sorted(self._kept.items())), interrupted, best)

    def save(self, state: TrainState) -> None:
        """Write a checkpoint, if there is a directory for checkpoints and at least one row."""
        if self._store is not None and self.rows:
            try:
                self._store.save(int(state.step), packed(self.result(state)))
            except CheckpointError as failed:
                failed.result = self.result(state)
                raise

    def interrupted(self, state: TrainState) -> Result:
        """Save and return everything so far after Ctrl-C, or pass it on if there is nothing yet."""
        if not self.rows:
            raise
        self.save(state)
        return self.result(state, interrupted=True)

    def rescue(self, error: Exception, state: TrainState) -> None:
        """Add everything so far to an error that ends the run, as its ``result``, and to the checkpoints."""
        if not self.rows or hasattr(error, "result"):  # nothing is lost, or the error has it already
            return
        with suppress(AttributeError):  # a class with __slots__
            error.result = self.result(state)  # type: ignore[attr-defined]
            error.add_note(f"Training stopped at step {state.step}; everything so far is in this error's .result.")
        try:
            self.save(state)
        except CheckpointError as failed:
            error.add_note(str(failed))
