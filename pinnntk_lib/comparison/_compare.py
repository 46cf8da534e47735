"""Trials of remedies, which take turns to train for equal time."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from tqdm.auto import tqdm

from pinnntk_lib._check import (
    check_flag,
    check_key,
    check_points,
    check_positive,
    check_positive_weights,
    drawn_points,
)
from pinnntk_lib._types import Apply, Params
from pinnntk_lib.comparison._remedies import Setting, remedies
from pinnntk_lib.comparison._result import Comparison, Trial
from pinnntk_lib.diagnosis import diagnose
from pinnntk_lib.problems import Problem, check_problem, other_points
from pinnntk_lib.training import DivergenceError, Weighting, train

if TYPE_CHECKING:
    import optax

FIRST = 0.25  # seconds until which the first turns last
LATER = 2**0.5  # factor from there to the end of the next turns: whenever Ctrl-C comes, all have had nearly equal time
FEWEST = 5  # steps in a turn, because train computes two more to measure where it begins and ends
GROWTH = 8  # of the number of steps from one turn to the next, while a step's time is still uncertain
PARTS = {"apply", "params", "points", "optimizer", "weights"}  # of a trial, which the caller may set


def compare(
    apply: Apply,
    params: Params,
    problem: Problem,
    points: Mapping[str, jax.Array] | Callable[[jax.Array], Mapping[str, jax.Array]],
    seconds: float = 60.0,
    *,
    optimizer: optax.GradientTransformation | None = None,
    weights: Mapping[str, float] | Weighting | None = None,
    trials: Mapping[str, Mapping[str, Any]] | None = None,
    held_out: Mapping[str, jax.Array] | None = None,
    key: jax.Array | None = None,
    progress: bool = True,
) -> Comparison:
    """Try what helps a PINN that does not train: diagnose it, and train it with each remedy for equal time.

    The trials are the model as it is; as it is, but with the wrappers that the findings suggest; with Algorithm 1's
    weights; with kernel descent; and, where the findings suggest them, with fresh points or a stable learning rate.
    They start from the same parameters, take turns, and are measured at points that none of them trains on.

    The measure is the relative L2 error if the problem has an exact solution. Otherwise it is the residual of the worst
    condition: the root mean square residual at the held-out points, as a fraction of the condition's natural size (of
    its target or of its values at random parameters, whichever is larger).

    Args:
        apply: the model, a pure function ``(params, x of shape (d,)) -> u(x)``.
        params: the parameters from which all trials start, a pytree of floating-point arrays.
        problem: the conditions.
        points: ``{name: (n, d) array}``, or a function ``key -> points``, as in :func:`~pinnntk_lib.train`.
        seconds: training time of each trial, in seconds of wall time. The first step, which compiles, does not count.
        optimizer: the optax optimiser of the trials, except for kernel descent; Adam with rate 1e-3 if None.
        weights: the weights as they are; all 1 if None. The diagnosis takes all weights as 1 unless they are positive
            numbers.
        trials: further trials, ``{name: changes}``, where the changes are among ``apply``, ``params``, ``points``,
            ``optimizer`` and ``weights``: for instance ``{"small steps": {"optimizer": optax.adam(1e-4)}}``.
        held_out: ``{name: (m, d) array}`` for each condition. By default, points that the samplers draw; a condition
            whose sampler draws none, or with measured values, is judged at its own points.
        key: random key for points that are drawn; that of seed 0 if None.
        progress: whether to show a progress bar.

    Returns:
        The trials' results. After Ctrl-C, those until then, with ``interrupted=True``. (Before each trial has begun
        there is nothing to compare, and KeyboardInterrupt is passed on.)

    Raises:
        ValueError, TypeError: if an argument's shape, type, names or values do not fit; the message says which.

    Example:
        >>> import jax, pinnntk_lib as pn
        >>> problem = pn.problems.Poisson1D(a=4)
        >>> points = problem.points(50)
        >>> model = pn.MLP(width=50, **pn.normalization(points["r"]))
        >>> params = model.init(jax.random.key(0))
        >>> found = pn.compare(model.apply, params, problem, points, seconds=2, progress=False)
        >>> found.best, found.trials[found.best].code
        ('kernel descent', ('optimizer=pn.kernel_gradient_descent()',))
    """
    import optax

    check_positive("seconds", seconds)
    check_flag("progress", progress)
    check_problem(problem)
    key = jax.random.key(0) if key is None else key
    check_key("key", key)
    drawn = drawn_points(points, key) if callable(points) else points
    present = _diagnosed(weights, problem.conditions)
    diagnosis = diagnose(apply, params, problem, drawn, optimizer=optimizer, weights=present)
    start = Setting(apply, params, points, optax.adam(1e-3) if optimizer is None else optimizer, weights)
    settings, by_hand = remedies(start, problem, drawn, diagnosis)
    settings |= _further(start, {} if trials is None else trials, settings)
    unseen = _held_out(problem, drawn, held_out)
    runs = {name: _Run(setting, problem, unseen, key) for name, setting in settings.items()}
    interrupted = _take_turns(runs, float(seconds), progress)
    for name, run in runs.items():
        for warned in run.warned:
            warnings.warn(f"{name}: {warned.message}", warned.category, stacklevel=2)
    sizes = diagnosis.natural_sizes
    found = {name: run.trial(sizes) for name, run in runs.items()}
    return Comparison(found, diagnosis, by_hand, float(seconds), interrupted)


def _diagnosed(weights, names):
    """Return weights if they are positive numbers; a condition with weight 0 is measured too, so it needs its size."""
    try:
        return check_positive_weights(weights, names)
    except (TypeError, ValueError):  # whatever is wrong with them, ``train`` says it
        return None


def _further(start, trials, settings):
    """Return the caller's own trials as settings."""
    if not isinstance(trials, Mapping) or not all(isinstance(changes, Mapping) for changes in trials.values()):
        raise TypeError(f"trials: expected {{name: {{argument: value}}}}, got {trials!r}")
    found = {}
    for name, changes in trials.items():
        if name in settings:
            raise ValueError(f"trials: expected names other than those of the remedies, got {name!r}")
        if unknown := [part for part in changes if part not in PARTS]:
            raise ValueError(f"trials[{name!r}]: expected some of {sorted(PARTS)}, got {unknown}")
        found[name] = start.but(f"trials[{name!r}]", **changes)
    return found


def _held_out(problem, points, held_out):
    if held_out is not None:
        return check_points(held_out, problem.conditions, "held_out")
    return {**points, **other_points(problem, points)}


def _take_turns(runs, seconds, progress):
    """Train all runs for this time each; return whether Ctrl-C ended it."""
    ends = FIRST * LATER ** np.arange(int(np.log(max(seconds / FIRST, 1.0)) / np.log(LATER)) + 1)
    turns = [0.0, *ends[ends < 0.9 * seconds], seconds]  # the first is a single step, which compiles
    with tqdm(total=round(seconds * len(runs), 1), disable=not progress, unit="s") as bar:
        try:
            for until in turns:
                for name, run in runs.items():
                    bar.set_postfix_str(name, refresh=True)
                    run.go_on(until, is_last=until == seconds)
                    bar.n = round(sum(min(run.spent, seconds) for run in runs.values()), 1)
                    if run.interrupted:
                        raise KeyboardInterrupt
        except KeyboardInterrupt:
            if not all(run.result for run in runs.values()):
                raise
            return True
    return False


class _Run:
    """A trial in the making.

    Attributes:
        spent: seconds of training so far, without the first step.
        result: the run so far.
        interrupted: whether Ctrl-C has stopped it.
        warned: the warnings of the last turn; earlier ones either come again there or no longer hold.
    """

    def __init__(self, setting, problem, held_out, key):
        self._setting, self._problem, self._held_out, self._key = setting, problem, held_out, key
        self.spent, self.result, self.interrupted, self.warned = 0.0, None, False, []
        self._per_step, self._most, self._diverged = None, 1, None
        self._times = {0: 0.0}  # {step: seconds}

    def go_on(self, until, is_last):
        """Train until this much time is spent, but not for a few steps unless this is the last turn."""
        if self.result is None:
            self._train(1)
        while self._diverged is None and not self.interrupted and self.spent < until:
            left = (until - self.spent) / self._per_step if self._per_step else 1
            if self._per_step and left < FEWEST and not is_last:
                break
            self._train(int(np.clip(left, 1, self._most)))

    def _train(self, count):
        done = 0 if self.result is None else int(self.result.state.step)
        begun = time.perf_counter()
        try:
            self.result = self._trained(done + count)
        except DivergenceError as error:
            self.result, self._diverged = error.result, error.step
        seconds, reached = time.perf_counter() - begun, int(self.result.state.step)
        self.interrupted = self.result.interrupted
        if done:
            self._per_step = seconds / (count + 2)
            self.spent += count * self._per_step
            self._most = GROWTH * count
        self._times[reached] = self.spent

    def _trained(self, steps):
        setting = self._setting
        with warnings.catch_warnings(record=True) as self.warned:
            return train(
                setting.apply,
                setting.params,
                self._problem,
                setting.points,
                setting.optimizer,
                steps,
                setting.weights,
                key=self._key if callable(setting.points) else None,
                log_every=steps,
                held_out=self._held_out,
                resume=self.result,
                progress=False,
            )

    def trial(self, sizes):
        """Return the trial, with residuals as fractions of the conditions' natural sizes."""
        history = self.result.history
        rows = [i for i, step in enumerate(history["step"]) if int(step) in self._times]
        steps = np.asarray(history["step"])[rows]
        losses = {name: np.asarray(values, np.float64)[rows] for name, values in history["held_out"].items()}
        return Trial(
            self._setting.code,
            steps,
            np.array([self._times[int(step)] for step in steps]),
            {name: np.sqrt(values) / (sizes[name] or 1.0) for name, values in losses.items()},
            np.asarray(history["error"], np.float64)[rows] if "error" in history else None,
            self.result,
            self._diverged,
        )
