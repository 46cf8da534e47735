"""The record of a run: the rows of its history, its snapshots, and the checkpoints that hold both."""

from contextlib import suppress
from typing import Any

import numpy as np

from pinnntk_lib.training._checkpoints import CheckpointError, Checkpoints
from pinnntk_lib.training._result import SECOND_STAGE, Result, TrainState, columns_of, packed, rows_of
from pinnntk_lib.training._stops import Stops


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
        stops: Stops,
        patience: int | None = None,
    ):
        self.rows = [row for row in rows_of(before.history) if row["step"] < before.state.step]
        self.recorded = before.state
        self._store, self._every, self._stops = store, checkpoint_every, stops
        self._kept, self._saved = dict(before.snapshots), int(before.state.step)
        self._patience, self._best = patience, before.best
        self._best_at = next((i for i, row in enumerate(self.rows) if self._best and row["step"] == self._best[0]), -1)

    def record(self, state: TrainState, row: dict[str, Any]) -> None:
        """Add a row, and a snapshot or a checkpoint if one is due; the row must have the form of earlier ones."""
        self._check_form(row)
        if "held_out" in row and self._is_best(row):
            self._best, self._best_at = (row["step"], state.params), len(self.rows)
        self.rows.append(row)
        self.recorded, step = state, row["step"]
        if step in self._stops.snapshots:
            self._kept[step] = state.params
        if step - self._saved >= self._every:
            self.save(state)
            self._saved = step

    def has(self, step: int) -> bool:
        """Return whether there is a row of this step or a later one."""
        return bool(self.rows) and self.rows[-1]["step"] >= step

    def _check_form(self, row):
        """Check that a row has the columns of earlier ones, which may be those of a resumed run."""
        earlier = self.rows[0] if self.rows else row
        held_out = [list(of.get("held_out", {})) for of in (earlier, row)]
        if held_out[0] != held_out[1]:
            before, now = (names or "none" for names in held_out)
            raise ValueError(f"held_out: expected those of the resumed run, {before}, got {now}; {SECOND_STAGE}")
        if set(row) != set(earlier):
            raise ValueError(f"measure: expected the columns of earlier rows, {[*earlier]}, got {[*row]}")
        for name in set(row) - {"losses", "weights", "held_out"}:
            if np.shape(row[name]) != np.shape(earlier[name]):
                raise ValueError(
                    f"measure: expected {name!r} of shape {np.shape(earlier[name])}, as in earlier rows, "
                    f"got {np.shape(row[name])}"
                )

    def _is_best(self, row):
        """Return whether the held-out loss is less than in the best row before, by this row's weights."""
        best = self.rows[self._best_at] if self._best_at >= 0 else None
        now, before = (_held_out_loss(of, row["weights"]) for of in (row, best))
        return bool(np.isfinite(now) and not before <= now)  # NaN is never less

    @property
    def stale(self) -> bool:
        """Whether the held-out loss has not been at its least for as many rows as patience allows."""
        if self._patience is None or self._best_at < 0:
            return False
        since = [row["step"] for row in self.rows[self._best_at + 1 :]]
        return sum(map(self._stops.regular, since)) >= self._patience

    def result(self, state: TrainState, interrupted: bool = False) -> Result:
        """Return everything recorded so far, as a result that ends in ``state``."""
        return Result(columns_of(self.rows), state, dict(self._kept), interrupted, self._best)

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


def _held_out_loss(row, weights):
    """Return the weighted held-out loss of a row, infinity if there is no row."""
    return np.inf if row is None else sum(weights[name] * loss for name, loss in row["held_out"].items())
