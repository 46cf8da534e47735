"""Rules that yield remarks: what the numbers show, but what explains no failure."""

import numpy as np

from pinnntk_lib.diagnosis._finding import Finding
from pinnntk_lib.diagnosis._quantities import MET, is_homogeneous, is_met, is_trained


def met_by_construction(d):
    for name in d.evidence.still:
        if d.residuals is None:
            text = f"No parameter moves {name}: no weight will change that."
        elif is_met(d, name):
            text = f"No parameter moves {name}, and its residual is zero: the model meets it by construction."
        else:
            continue
        yield Finding("condition met by construction", False, text, {"condition": name})


def trained(d):
    if is_trained(d) and not is_homogeneous(d):
        yield Finding(
            "trained",
            False,
            f"Trained: every residual is at most {MET:.0%} of its natural size, and the estimated error is "
            f"{d.estimated_error:.1e}. If the solution is wrong, the conditions do not determine it, or the points "
            "miss what matters.",
            {"estimated error": d.estimated_error},
        )


def moved(d):
    if d.drift is not None:
        moved = d.drift["K"]
        close = "rates change" if moved < 1 else "an earlier kernel tells nothing"
        holds = "the theory holds" if moved < 0.1 else close
        text = f"The kernel has moved by {moved:.2g} of its norm since the earlier diagnosis: {holds}."
        yield Finding("kernel drift", False, text, dict(d.drift))


def adams_kernel(d):
    if d.adam is not None:
        rates = ", ".join(f"{name} {rate:.2g}" for name, rate in d.adam.rates.items())
        ratio = max(d.adam.rates.values()) / max(min(d.adam.rates.values()), np.finfo(float).tiny)
        plain = max(d.rates.values()) / max(min(d.rates.values()), np.finfo(float).tiny)
        yield Finding(
            "Adam's kernel",
            False,
            f"With Adam's second moments, the average rates are {rates}: a factor of {ratio:.2g} apart, where those of "
            f"gradient descent are {plain:.2g} apart. Adam oscillates above a learning rate of "
            f"{d.adam.largest_stable_learning_rate:.2g} (for b1 = 0.9).",
            d.adam._asdict(),
        )
