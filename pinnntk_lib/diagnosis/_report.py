"""The report of a diagnosis, as text."""

import numpy as np


def report(diagnosis):
    """Return the report: a table of the conditions, the findings, and the limits of the diagnosis."""
    limits = [f"- {sentence}" for sentence in diagnosis.limits]
    return "\n".join([*_table(diagnosis), "", *_findings(diagnosis), "", "What this does not tell:", *limits])


def _table(diagnosis):
    columns = ["condition", "points", "weight", "rate", "Algorithm 1"]
    if diagnosis.residuals is not None:
        columns.append("loss")
    if diagnosis.steps_to_a_hundredth is not None:
        columns.append("steps to 1/100")
    if diagnosis.drift is not None:
        columns.append("drift of K")
    rows = [columns]
    for name, n in diagnosis.K.sizes:
        row = [name, f"{n:,d}", f"{diagnosis.weights[name]:.3g}", f"{diagnosis.rates[name]:.3g}"]
        row.append(f"{diagnosis.algorithm_1[name]:.3g}")
        if diagnosis.residuals is not None:
            row.append(f"{np.mean(diagnosis.residuals[name] ** 2):.2e}")
        if diagnosis.steps_to_a_hundredth is not None:
            row.append(_count(diagnosis.steps_to_a_hundredth[name]))
        if diagnosis.drift is not None:
            row.append(f"{diagnosis.drift[name]:.2g}")
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows)]
    total = sum(n for _, n in diagnosis.K.sizes)
    title = f"{total:,d} residuals of {diagnosis.num_params:,d} parameters, {diagnosis.K.matrix.dtype}"
    return [title, "", *("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)]


def _findings(diagnosis):
    rates = diagnosis.rates
    fastest = max(rates, key=rates.__getitem__)
    if diagnosis.lagging:
        for name in diagnosis.lagging:
            times = f"{rates[fastest] / rates[name]:,.0f} times smaller than" if rates[name] > 0 else "zero, unlike"
            yield f"{name} lags: its average convergence rate is {times} that of {fastest}."
        weights = ", ".join(f"{name} {value:.3g}" for name, value in diagnosis.algorithm_1.items())
        yield f"Algorithm 1's weights, {weights}, would make the rates equal."
    else:
        ratio = max(rates.values()) / min(rates.values())
        yield f"Balanced: the average convergence rates are within a factor of {ratio:.2g}."
    yield (
        f"Gradient descent is stable below a learning rate of {diagnosis.largest_stable_learning_rate:.2g} "
        f"({diagnosis.stable_rate_with_algorithm_1:.2g} with Algorithm 1's weights)."
    )
    hidden = diagnosis.eigenvalues[-1] < diagnosis.rounding_level
    if diagnosis.learning_rate is not None:
        if diagnosis.learning_rate > diagnosis.largest_stable_learning_rate:
            yield f"At {diagnosis.learning_rate:.3g} it diverges, or the kernel shrinks until it does not."
        fast, slow = (_count(steps) for steps in diagnosis.time_constants)
        slow = f"more than {slow}" if hidden and not slow.startswith("more") else slow
        yield f"At {diagnosis.learning_rate:.3g} the fastest mode shrinks by e in {fast} steps, the slowest in {slow}."
    condition = f"{diagnosis.condition_number:.0e}"
    if hidden:
        condition = f"more than {condition}, all that {diagnosis.K.matrix.dtype} can tell"
    within, total = diagnosis.modes_within(1e3), len(diagnosis.eigenvalues)
    yield (
        f"{within:,d} of the {total:,d} modes are at least a thousandth as fast as the fastest. "
        f"Condition number: {condition}."
    )
    if diagnosis.drift is not None:
        moved = diagnosis.drift["K"]
        close = "rates change" if moved < 1 else "an earlier kernel tells nothing"
        holds = "the theory holds" if moved < 0.1 else close
        yield f"The kernel has moved by {moved:.2g} of its norm since the earlier diagnosis: {holds}."


def _count(steps):
    if not np.isfinite(steps):
        return "more than 1e12"
    return f"{steps:,.0f}" if steps < 1e6 else f"{steps:.1e}"
