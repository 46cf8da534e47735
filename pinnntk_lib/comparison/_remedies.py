"""The remedies that a diagnosis suggests, as settings for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from pinnntk_lib._points import coordinates, spread
from pinnntk_lib._types import Apply
from pinnntk_lib.diagnosis import Diagnosis, Finding, diagnose, safe_rate
from pinnntk_lib.models import normalized_inputs, scaled_output
from pinnntk_lib.problems import Minibatches, Problem, RandomPoints
from pinnntk_lib.training import NTKWeights, kernel_gradient_descent

if TYPE_CHECKING:
    import optax

LARGEST = 3000  # rows of the matrices that kernel descent factorises; beyond it, it sees minibatches
BATCH = 1500  # residuals in such a minibatch
ROUNDS = 2  # diagnoses in search of wrappers: a scale of the outputs shows once that of the inputs is right
AS_IT_IS = "as it is"
CALLED = {"input scale": "normalised inputs", "output scale": "scaled output"}  # the findings that wrappers answer
BY_HAND = {"unreachable condition", "trivial solution", "dead network", "stuck parameter", "undetermined", "precision"}


@dataclass(frozen=True)
class Setting:
    """What one trial trains, and how; ``code`` has the lines that differ from the setting as it is."""

    apply: Apply
    params: Any
    points: Mapping[str, jax.Array] | Callable
    optimizer: optax.GradientTransformation
    weights: Any
    code: tuple[str, ...] = ()

    def but(self, code: str, **changes: Any) -> Setting:
        """Return a setting with changes, and the line of code that makes them."""
        return replace(self, **changes, code=(*self.code, code))


def remedies(
    start: Setting, problem: Problem, points: Mapping[str, jax.Array], diagnosis: Diagnosis
) -> tuple[dict[str, Setting], tuple[Finding, ...]]:
    """Return ``{name: setting}``, and the findings whose remedies only a person can apply.

    Where findings suggest wrappers around the model or fresh points, the further remedies build on these.
    """
    found = {AS_IT_IS: start}
    setting, last, wrappers = _wrapped(start, problem, points, diagnosis)
    if wrappers:
        found[" and ".join(wrappers)] = setting
    causes = {finding.name: finding for finding in diagnosis.findings if finding.is_cause}
    if "too few points" in causes and set(diagnosis.evidence.held_out) == set(problem.conditions):
        sizes = {name: len(x) for name, x in points.items()}
        setting = setting.but(f"points = pn.RandomPoints(problem, {sizes})", points=RandomPoints(problem, sizes))
        found["fresh points"] = setting
    if "learning rate" in causes:
        found["a stable learning rate"] = _descending(setting, last.largest_stable_learning_rate)
    if len(problem.conditions) > 1:
        bound, balanced = last.stable_rate_with_algorithm_1, setting
        if diagnosis.learning_rate is not None and ("learning rate" in causes or diagnosis.learning_rate > bound):
            balanced = _descending(setting, bound)
        found["NTK weights"] = balanced.but("weights=pn.NTKWeights()", weights=NTKWeights())
    found["kernel descent"] = _descent(setting, problem, points, diagnosis)
    return found, tuple(finding for finding in causes.values() if finding.name in BY_HAND)


def _descending(setting, bound):
    """Return the setting with gradient descent, at a safe learning rate below the largest stable one."""
    import optax

    rate = safe_rate(bound)
    return setting.but(f"optimizer=optax.sgd({rate:g})", optimizer=optax.sgd(rate))


def _wrapped(setting, problem, points, diagnosis):
    """Return the setting with the wrappers that findings suggest, its diagnosis, and the wrappers' names."""
    names = []
    for _ in range(ROUNDS):
        suggested = [finding for finding in diagnosis.findings if finding.name in CALLED]
        name = suggested[0].name if suggested else None
        if name is None or CALLED[name] in names:
            break
        of_name = [finding for finding in suggested if finding.name == name]
        setting = _normalized(setting, points) if name == "input scale" else _scaled(setting, points, of_name)
        names.append(CALLED[name])
        diagnosis = diagnose(setting.apply, setting.params, problem, points)
    return setting, diagnosis, names


def _normalized(setting, points):
    shift, scale = (tuple(float(f"{value:.3g}") for value in values) for values in spread(points))
    line = f"apply = pn.models.normalized_inputs(apply, {shift}, {scale})"
    return setting.but(line, apply=normalized_inputs(setting.apply, shift, scale))


def _scaled(setting, points, findings):
    """Return the setting with outputs of the sizes that the findings name, one finding per output."""
    sizes = {
        finding.evidence["output"]: float(f"{finding.evidence['size of the solution']:.2g}") for finding in findings
    }
    out = jax.eval_shape(setting.apply, setting.params, coordinates(next(iter(points.values())))[0])
    scale: Any = max(sizes.values())
    if out.ndim == 1 and not jnp.issubdtype(out.dtype, jnp.complexfloating):
        scale = tuple(sizes.get(i, 1.0) for i in range(out.size))
    line = f"apply = pn.models.scaled_output(apply, {scale})"
    return setting.but(line, apply=scaled_output(setting.apply, scale))


def _descent(setting, problem, points, diagnosis):
    """Return the setting with kernel descent, on minibatches if its matrices would be too large."""
    residuals = sum(diagnosis.sizes.values())
    line, points_of = "optimizer=pn.kernel_gradient_descent()", setting.points
    measured = any(hasattr(condition.target, "shape") for condition in problem.conditions.values())
    if min(residuals, diagnosis.num_params) > LARGEST and not callable(points_of) and not measured:
        sizes = {name: max(1, len(x) * BATCH // residuals) for name, x in points.items()}
        line, points_of = f"points=pn.Minibatches(points, {sizes}), {line}", Minibatches(points, sizes)
    return setting.but(line, optimizer=kernel_gradient_descent(), weights=None, points=points_of)
