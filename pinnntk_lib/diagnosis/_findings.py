"""What the numbers of a diagnosis show: causes of failure, each with its evidence and its remedy, and remarks.

Each rule is a function of a diagnosis that yields findings. The causes that come first would make those that follow
misleading: weights cannot help a network whose outputs are a thousand times too small, for instance. The thresholds are
conventions: they tell apart the PINNs of known causes in tests/diagnosis, on which they were set.
"""

import jax.numpy as jnp
import numpy as np

from pinnntk_lib.diagnosis._evidence import OUTPUTS, rms
from pinnntk_lib.diagnosis._finding import Finding, count, safe_rate
from pinnntk_lib.diagnosis._quantities import (
    MET,
    is_homogeneous,
    is_met,
    is_trained,
    is_undetermined,
    is_zero,
    open_share,
    output_rank,
    unexplained,
    unused_leaves,
    varying,
)
from pinnntk_lib.diagnosis._remarks import adams_kernel, met_by_construction, moved, trained

SCALE = 20.0  # factor between the solution's size and the outputs' from which the scale is a cause
RESOLVED = 0.25  # largest fraction of the residuals' squares that a prediction of u may leave unexplained
STUCK = 1e-6  # a leaf of the parameters is stuck if its share of every rate is below this fraction of a fair share
HELD_OUT = 10.0  # factor between the mean square residuals elsewhere and at the points
FLAT = 0.03  # smallest change of u over a standard deviation of the inputs, as a fraction of its natural size
REDUCED = 0.3  # a condition has been trained if its residual is at most this fraction of its natural size
STEPS = 1e4  # at half the largest stable learning rate, after which little error should be left:
ERROR = 0.4  # ... this relative error is too much,
WRONG = 0.15  # ... or half of a relative error above this,
LEFT = 0.65  # ... or, of such an error, this fraction of the squared residuals
LARGE = 100.0  # ratio of the rates from which an imbalance comes before slow modes
SLOW = 1e4  # factor below the largest stable learning rate from which a learning rate is too small


def found_in(diagnosis):
    """Return the findings, causes first."""
    done = is_trained(diagnosis)
    rules = [rule for rule, even_if_trained in RULES if even_if_trained or not done]
    found = [finding for rule in rules for finding in rule(diagnosis)]
    return tuple(sorted(found, key=lambda finding: not finding.is_cause))


def unstable(d):
    bound = d.largest_stable_learning_rate
    if d.learning_rate is not None and d.learning_rate > bound:
        yield Finding(
            "learning rate",
            True,
            f"The learning rate of {d.learning_rate:.3g} is above {bound:.2g}, the largest at which gradient descent "
            "is stable: it diverges, or the kernel shrinks until it does not.",
            {"learning rate": d.learning_rate, "largest stable": bound},
            f"optimizer=optax.sgd({safe_rate(bound):g})",
        )


def unreachable(d):
    for name in d.evidence.still:
        if d.residuals is not None and not is_met(d, name):
            size = rms(d.residuals[name])
            yield Finding(
                "unreachable condition",
                True,
                f"No parameter moves {name}, and its residual is {size:.2g} (root mean square): no training and no "
                "weight will ever meet it. Its operator vanishes on this model, as a second derivative does on a ReLU "
                "network, or the model fixes its value.",
                {"condition": name, "residual": size, "rate": d.rates[name]},
                'activation="tanh"  # or another smooth function; or drop the condition',
                "why the operator vanishes",
            )


def trivial(d):
    met = is_trained(d)
    if is_homogeneous(d) and (met or is_undetermined(d)):
        size = rms(d.evidence.outputs)
        shrunk = f" All residuals are small, and the size of u is {size:.2g}: the network is trained." if met else ""
        yield Finding(
            "trivial solution",
            True,
            f"u = 0 meets every condition.{shrunk} If this is not the solution that is wanted, the conditions do not "
            "determine u.",
            {"size of u": size, "residuals of u = 0": d.evidence.of_zero},
            '"norm": pn.Condition(mean_square, 1.0, sampler)  # a condition that u = 0 breaks',
            "whether zero is the solution that is wanted",
        )


def stuck(d):
    largest = {
        leaf: max((share for name, share in shares.items() if name not in d.evidence.still), default=0.0)
        for leaf, shares in d.evidence.shares.items()
    }
    leaves = [leaf for leaf, share in largest.items() if 0 < share < STUCK * d.evidence.portions[leaf]]
    variable = varying(d)
    for i, leaf in enumerate(d.evidence.of_output):
        if variable and i not in variable:
            still = d.evidence.kernel[i :: len(d.evidence.of_output)][0, i] == 0
            found = unused_leaves(d) if still else [leaf] * (open_share(d, i, 100.0) > 0.5)
            leaves += [leaf for leaf in found if leaf not in leaves]
    for leaf in leaves:
        yield Finding(
            "stuck parameter",
            True,
            f"{leaf} has {largest[leaf]:.1e} of a condition's rate at most: gradients hardly move it. Either it starts "
            "where the conditions do not depend on it, or its layer is saturated.",
            {"leaf": leaf, "largest share": largest[leaf], "size": d.evidence.leaves[leaf]},
            f"{leaf} = ...  # start where the residuals depend on it; or kernel descent",
            "where a better start is",
        )


def dead(d):
    rank, points = output_rank(d), len(d.evidence.outputs)
    if rank <= 2 and min(points, d.num_params) >= 10:
        yield Finding(
            "dead network",
            True,
            f"At {points} points, u can change in {rank} independent way{'s' * (rank > 1)} only: the hidden units are "
            "saturated or dead, or the inputs hardly differ.",
            {"independent modes of u": rank, "points": points},
            "params = model.init(key)  # smaller weights, a smooth activation, normalised inputs",
        )


def input_scale(d):
    if d.evidence.inputs is None:
        return
    modes, slope = d.evidence.inputs
    now = int((d.balanced_modes.kappa * 1e3 >= d.balanced_modes.kappa[-1]).sum())
    if slope < FLAT or modes >= max(2 * now, now + 3):
        yield Finding(
            "input scale",
            True,
            "The inputs are far from mean 0 and standard deviation 1. At a typical point u changes by "
            f"{slope:.1g} of its natural size over a standard deviation of them; {now:,d} modes are at least a "
            f"thousandth as fast as the fastest, and with normalised inputs {modes:,d} would be.",
            {"slope": slope, "modes": now, "modes with normalised inputs": modes},
            'apply = pn.models.normalized_inputs(apply, **pn.normalization(points["..."]))',
        )


def output_scale(d):
    if d.residuals is None or is_homogeneous(d) or unexplained(d, STEPS) > RESOLVED:
        return
    outputs = d.evidence.outputs
    wanted = outputs + d.correction(balanced=True, steps=STEPS)
    for i in varying(d):
        natural = d.evidence.natural[OUTPUTS][i]
        target, now = rms(wanted[:, i]), rms(outputs[:, i])
        size = max(now, natural) if target > now else now
        if not 1 / SCALE < target / size < SCALE:
            which = "" if outputs.shape[1] == 1 else f"[..., {i}]"
            yield Finding(
                "output scale",
                True,
                f"The conditions ask for a solution u{which} of size {target:.2g}; the network's outputs are of size "
                f"{size:.2g}.",
                {"size of the solution": target, "size of the outputs": size, "output": i},
                f"apply = pn.models.scaled_output(apply, {target:.1g})",
                "the solution's size, beyond what the linearised network predicts",
            )


def undetermined(d):
    if is_undetermined(d) and not is_homogeneous(d):
        share = max(open_share(d, i) for i in varying(d))
        yield Finding(
            "undetermined",
            True,
            "The conditions leave u open: it can change while they hardly do. In one direction they leave "
            f"{100 * share:.2g} % of its variance. A condition is missing, or there are too few points for this "
            "network.",
            {"share of the variance": share},
            'conditions["..."] = pn.Condition(...)  # initial or boundary values; or more points',
            "which condition is missing",
        )


def few_points(d):
    for name, elsewhere in d.evidence.held_out.items():
        here, size = np.mean(d.residuals[name] ** 2), d.natural_sizes[name]
        if here < (REDUCED * size) ** 2 and elsewhere > max(HELD_OUT * here, (MET * size) ** 2):
            yield Finding(
                "too few points",
                True,
                f"The mean square residual of {name} is {here:.1e} at its points and {elsewhere:.1e} at others: the "
                "network meets the condition at these points only.",
                {"condition": name, "at the points": here, "elsewhere": elsewhere},
                "points = pn.RandomPoints(problem, n)  # fresh points at each step; or more of them",
            )


def rates(d):
    """Slow modes and imbalance; a large imbalance comes first, because it hides the modes."""
    found = [*slow_modes(d), *imbalance(d)]
    large = bool(d.lagging) and max(d.rates.values()) >= LARGE * d.rates[d.lagging[0]]
    yield from reversed(found) if large else found


def slow_modes(d):
    if d.residuals is None:
        return
    steps, left = d.steps_to_half(balanced=True), unexplained(d, STEPS)
    whole = d.correction(balanced=True)
    # a solution near zero has no relative error
    size = max(rms(d.evidence.outputs + whole), 0.1 * rms(d.evidence.natural[OUTPUTS]))
    error = rms(whole - d.correction(balanced=True, steps=STEPS)) / max(size, np.finfo(float).tiny)
    if error > ERROR or (d.estimated_error > WRONG and (steps > STEPS or left > LEFT)):
        within, total = d.modes_within(1e3), len(d.eigenvalues)
        yield Finding(
            "slow modes",
            True,
            f"Even with Algorithm 1's weights, {count(STEPS)} steps of gradient descent at half its largest stable "
            f"learning rate would leave a relative error of {error:.2g} and {left:.0%} of the squared residuals. They "
            f"lie in slow modes, which no weight reaches: {within:,d} of {total:,d} modes are at least a thousandth as "
            "fast as the fastest.",
            {
                "error left": error,
                "squared residuals left": left,
                "steps to half of the error": steps,
                "modes within 1e3": within,
                "modes": total,
            },
            "optimizer=pn.kernel_gradient_descent()  # or Fourier features",
            "how the kernel changes in training",
        )


def imbalance(d):
    if not d.lagging:
        return
    fastest = max(d.rates, key=d.rates.__getitem__)
    said = [
        f"{name} lags: its average convergence rate is {d.rates[fastest] / d.rates[name]:,.0f} times smaller than "
        f"that of {fastest}."
        for name in d.lagging
    ]
    weights = {name: value for name, value in d.algorithm_1.items() if name not in d.evidence.still}
    shown = ", ".join(f"{name} {value:.3g}" for name, value in weights.items())
    evidence = {"rates": d.rates, "Algorithm 1": weights}
    said.append(f"Algorithm 1's weights, {shown}, would make the rates equal.")
    if d.residuals is not None:
        now, balanced = d.steps_to_half(balanced=False), d.steps_to_half(balanced=True)
        evidence |= {"steps to half of the error": now, "steps to half of the error, Algorithm 1": balanced}
        said.append(
            "Gradient descent at half its largest stable learning rate would correct half of the error in "
            f"{count(now)} steps with the present weights, in {count(balanced)} with those."
        )
    remedy, unknown = "weights=pn.NTKWeights()", "how the kernel changes in training"
    yield Finding("imbalance", True, " ".join(said), evidence, remedy, unknown)


def hesitant(d):
    bound = d.largest_stable_learning_rate
    if d.learning_rate is not None and d.learning_rate < bound / SLOW:
        yield Finding(
            "learning rate",
            True,
            f"The learning rate of {d.learning_rate:.3g} is {bound / d.learning_rate:,.0f} times smaller than the "
            "largest stable one: even the fastest mode hardly moves.",
            {"learning rate": d.learning_rate, "largest stable": bound},
            f"optimizer=optax.sgd({safe_rate(bound):g})",
        )


def precision(d):
    eps = float(jnp.finfo(d.K.matrix.dtype).eps)
    if d.residuals is None or eps < 1e-10:
        return
    moving = [name for name in d.residuals if name not in d.evidence.still]
    ratios = {name: rms(d.residuals[name]) / max(d.natural_sizes[name], eps) for name in moving}
    if ratios and max(ratios.values()) < 30 * eps and not is_zero(d):
        yield Finding(
            "precision",
            True,
            f"The residuals are at most {max(ratios.values()):.1e} of their natural size, which is the rounding error "
            "of single precision.",
            {"residuals, relative": ratios},
            'jax.config.update("jax_enable_x64", True)',
        )


def unused(d):
    reported = [finding.evidence["leaf"] for finding in stuck(d)]
    leaves = [leaf for leaf in unused_leaves(d) if leaf not in reported]
    if leaves:
        verb = "does" if len(leaves) == 1 else "do"
        text = f"No condition depends on {', '.join(leaves)}, which therefore {verb} not train."
        yield Finding("unused parameter", False, text, {"leaves": leaves})


def zero_solution(d):
    if is_homogeneous(d) and not any(trivial(d)):
        text = "u = 0 meets every condition. If another solution is wanted, add a condition that u = 0 breaks."
        yield Finding("zero solution", False, text, {"residuals of u = 0": d.evidence.of_zero})


# in the order of the findings; and whether a rule also holds for a network that is trained
RULES = [
    (unstable, True),
    (input_scale, False),
    (dead, False),
    (unreachable, True),
    (trivial, True),
    (stuck, True),
    (output_scale, False),
    (few_points, True),
    (undetermined, True),
    (rates, False),
    (hesitant, False),
    (precision, True),
    (trained, True),
    (met_by_construction, True),
    (unused, True),
    (zero_solution, True),
    (adams_kernel, True),
    (moved, True),
]
