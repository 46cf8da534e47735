"""The result of a comparison: a table and a picture."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from pinnntk_lib._text import aligned, html_list, html_table, wrapped
from pinnntk_lib._types import Params
from pinnntk_lib.comparison._remedies import AS_IT_IS
from pinnntk_lib.diagnosis import Diagnosis, Finding
from pinnntk_lib.training import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HELPS = 0.5  # a trial helps if it ends with at most this fraction of what the model as it is ends with


@dataclass(frozen=True, eq=False)
class Trial:
    """One trial of :func:`compare`, measured at T moments.

    Attributes:
        code: the lines of code that differ from the model as it is.
        steps: numbers of steps, (T,).
        seconds: training times, (T,), without the first step, which compiles.
        residuals: ``{name: (T,)}``, root mean square residuals at held-out points, as fractions of the conditions'
            natural sizes.
        errors: relative L2 errors, (T,); None if the exact solution is not known.
        result: the run, to go on from: ``pn.train(..., resume=trial.result)``.
        diverged: the step at which the trial diverged, or None.
    """

    code: tuple[str, ...]
    steps: np.ndarray
    seconds: np.ndarray
    residuals: dict[str, np.ndarray]
    errors: np.ndarray | None
    result: Result
    diverged: int | None

    @property
    def params(self) -> Params:
        """The final parameters."""
        return self.result.params

    @property
    def worst(self) -> np.ndarray:
        """The largest of the conditions' residuals, (T,)."""
        return np.max(list(self.residuals.values()), axis=0)

    @property
    def measures(self) -> np.ndarray:
        """The errors, or, if these are not known, the residuals of the worst condition, (T,)."""
        return self.worst if self.errors is None else self.errors

    @property
    def final(self) -> float:
        """The last of the measures; infinite after divergence."""
        last = float(self.measures[-1])
        return last if self.diverged is None and np.isfinite(last) else np.inf


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """The result of :func:`compare`. ``print`` shows a table, :meth:`plot` draws a figure.

    Attributes:
        trials: ``{name: Trial}``; the first is the model as it is.
        diagnosis: the diagnosis at the start.
        by_hand: findings whose remedies were not tried, because only a person can apply them.
        seconds: training time of each trial.
        interrupted: whether Ctrl-C ended the comparison.

    Example:
        >>> import jax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(a=1), pn.MLP(width=20)
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(20)
        >>> found = pn.compare(*setting, seconds=0.5, progress=False)
        >>> list(found.trials)
        ['as it is', 'NTK weights', 'kernel descent']
    """

    trials: dict[str, Trial]
    diagnosis: Diagnosis
    by_hand: tuple[Finding, ...]
    seconds: float
    interrupted: bool = False

    @property
    def ranking(self) -> list[str]:
        """The names of the trials, the best first."""
        return sorted(self.trials, key=lambda name: self.trials[name].final)

    @property
    def best(self) -> str:
        """The name of the best trial."""
        return self.ranking[0]

    @property
    def _helps(self):
        return self.best != AS_IT_IS and self.trials[self.best].final <= HELPS * self.trials[AS_IT_IS].final

    @property
    def _code(self):
        """The lines of code to change, if that helps."""
        return self.trials[self.best].code if self._helps else ()

    @property
    def verdict(self) -> str:
        """What helps, in a sentence."""
        measure = "residual of the worst condition" if self.trials[self.best].errors is None else "relative error"
        before, after = self.trials[AS_IT_IS].final, self.trials[self.best].final
        if not np.isfinite(after):
            return "Every trial diverged."
        if not self._helps:
            return f"Nothing that was tried halves the {measure} in {self.seconds:g} s: it is {before:.2g} as it is."
        times = f", {before / after:,.0f} times smaller than as it is" if np.isfinite(before) else ""
        return f"Best: {self.best}. After {self.seconds:g} s the {measure} is {after:.2g}{times}."

    @property
    def limits(self) -> list[str]:
        """Limits of what the trials show, one sentence each."""
        said = ["One start, and a short time: what is ahead now may not be in the end."]
        if self.trials[self.best].errors is None:
            said.append("The solution is not known: a small residual is not a small error.")
        for finding in self.by_hand:
            said.append(f"Not tried, because it needs you ({finding.name}): {finding.remedy}")
        return said

    def __str__(self) -> str:
        lines = aligned(self._rows())
        lines += ["", *wrapped(self.verdict)]
        lines += [f"   {line}" for line in self._code]
        if self.interrupted:
            lines += wrapped("Ctrl-C ended the comparison early.")
        lines += ["", "What this does not tell:"]
        for sentence in self.limits:
            lines += wrapped(f"- {sentence}", "  ")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.trials)} trials: {self.verdict}>"

    def _repr_html_(self) -> str:
        code = "<br>".join(escape(line) for line in self._code)
        return (
            f"{html_table(self._rows())}<p>{escape(self.verdict)}{f'<br><code>{code}</code>' if code else ''}</p>"
            f"<p>What this does not tell:</p>{html_list(self.limits)}"
        )

    def _rows(self) -> list[list[str]]:
        """Return the table, a list of rows of strings; the first has the names of the columns."""
        known = self.trials[self.best].errors is not None
        rows = [["trial", "steps", "ms per step", *["error"] * known, "worst residual", "condition"]]
        for name in self.ranking:
            trial = self.trials[name]
            steps, seconds = int(trial.steps[-1]), float(trial.seconds[-1])
            per_step = f"{1e3 * seconds / (steps - 1):.3g}" if steps > 1 and seconds else "-"
            condition = max(trial.residuals, key=lambda of: trial.residuals[of][-1])
            ended = [f"diverged at step {trial.diverged:,d}"] if trial.diverged is not None else [condition]
            error = [f"{trial.errors[-1]:.1e}"] if trial.errors is not None else []
            rows.append([name, f"{steps:,d}", per_step, *error, f"{trial.worst[-1]:.1e}", *ended])
        return rows

    def plot(self) -> "Figure":
        """Plot the error, or the residual of the worst condition, of each trial against its training time.

        Returns:
            The Matplotlib figure.
        """
        from pinnntk_lib.comparison._figure import figure  # only a figure needs Matplotlib

        return figure(self)
