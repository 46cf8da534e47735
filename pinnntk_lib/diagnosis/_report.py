"""The report of a diagnosis, as text and as HTML."""

from html import escape

import numpy as np

from pinnntk_lib._text import aligned, html_list, html_table, wrapped
from pinnntk_lib.diagnosis._finding import count


def report(diagnosis):
    """Return the report: a table of the conditions, the findings, what they rest on, and the limits."""
    lines = [_title(diagnosis), "", *aligned(_table(diagnosis)), ""]
    causes = [finding for finding in diagnosis.findings if finding.is_cause]
    for i, finding in enumerate(causes, 1):
        lines += wrapped(f"{i}. {finding.name.capitalize()}. {finding.text}", "   ")
        lines += [f"   Try: {finding.remedy}"] * bool(finding.remedy)
        lines += wrapped(f"   This does not show {finding.unknown}.", "   ") * bool(finding.unknown)
    if not causes:
        lines += wrapped(_all_well(diagnosis))
    remarks = [finding.text for finding in diagnosis.findings if not finding.is_cause]
    for remark in [*remarks, *_numbers(diagnosis)]:
        lines += wrapped(remark)
    lines += ["", "What this does not tell:"]
    for sentence in diagnosis.limits:
        lines += wrapped(f"- {sentence}", "  ")
    return "\n".join(lines)


def html(diagnosis):
    """Return the report as HTML without scripts or styles."""
    causes, remarks = [], []
    for finding in diagnosis.findings:
        text = escape(finding.text)
        if finding.is_cause:
            tried = f"<br>Try: <code>{escape(finding.remedy)}</code>" if finding.remedy else ""
            hidden = f"<br>This does not show {escape(finding.unknown)}." if finding.unknown else ""
            causes.append(f"<li><b>{escape(finding.name.capitalize())}.</b> {text}{tried}{hidden}</li>")
        else:
            remarks.append(finding.text)
    found = f"<ol>{''.join(causes)}</ol>" if causes else f"<p>{escape(_all_well(diagnosis))}</p>"
    return (
        f"<p>{escape(_title(diagnosis))}</p>{html_table(_table(diagnosis))}{found}"
        f"{html_list([*remarks, *_numbers(diagnosis)])}<p>What this does not tell:</p>{html_list(diagnosis.limits)}"
    )


def _title(diagnosis):
    total = sum(diagnosis.sizes.values())
    return f"{total:,d} residuals of {diagnosis.num_params:,d} parameters, {diagnosis.K.matrix.dtype}"


def _table(diagnosis):
    """Return the table of the conditions, a list of rows of strings; the first has the names of the columns."""
    columns = ["condition", "points", "weight", "rate", "Algorithm 1"]
    if diagnosis.residuals is not None:
        columns.append("loss")
    if diagnosis.steps_to_a_hundredth is not None:
        columns.append("steps to 1/100")
    if diagnosis.drift is not None:
        columns.append("drift of K")
    rows = [columns]
    for name, n in diagnosis.sizes.items():
        row = [name, f"{n:,d}", f"{diagnosis.weights[name]:.3g}", f"{diagnosis.rates[name]:.3g}"]
        row.append(f"{diagnosis.algorithm_1[name]:.3g}")
        if diagnosis.residuals is not None:
            row.append(f"{np.mean(diagnosis.residuals[name] ** 2):.2e}")
        if diagnosis.steps_to_a_hundredth is not None:
            row.append(count(diagnosis.steps_to_a_hundredth[name]))
        if diagnosis.drift is not None:
            row.append(f"{diagnosis.drift[name]:.2g}")
        rows.append(row)
    return rows


def _all_well(diagnosis):
    rates = [rate for name, rate in diagnosis.rates.items() if name not in diagnosis.evidence.still]
    if diagnosis.lagging or len(rates) < 2:
        return "No cause of failure was found."
    ratio = max(rates) / min(rates)
    return f"Balanced: the average convergence rates are within a factor of {ratio:.2g}."


def _numbers(diagnosis):
    """Return sentences with further numbers: the error, the learning rates, the modes."""
    if diagnosis.estimated_error is not None:
        yield f"The linearised network estimates the relative error of u at {diagnosis.estimated_error:.2g}."
    yield (
        f"Gradient descent is stable below a learning rate of {diagnosis.largest_stable_learning_rate:.2g} "
        f"({diagnosis.stable_rate_with_algorithm_1:.2g} with Algorithm 1's weights)."
    )
    hidden = diagnosis.eigenvalues[-1] < diagnosis.rounding_level
    if diagnosis.learning_rate is not None:
        fast, slow = (count(steps) for steps in diagnosis.time_constants)
        slow = f"more than {slow}" if hidden and not slow.startswith("more") else slow
        yield (
            f"At {diagnosis.learning_rate:.3g} the fastest mode decays by a factor of e every {fast} steps, the "
            f"slowest in {slow}."
        )
    condition = f"{diagnosis.condition_number:.0e}"
    if hidden:
        condition = f"more than {condition}, all that {diagnosis.K.matrix.dtype} can tell"
    within, total = diagnosis.modes_within(1e3), len(diagnosis.eigenvalues)
    yield (
        f"{within:,d} of the {total:,d} modes are at least a thousandth as fast as the fastest. "
        f"Condition number: {condition}."
    )
