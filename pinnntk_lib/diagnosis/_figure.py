"""The figure of a diagnosis: spectra and rates."""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from pinnntk_lib import plotting
from pinnntk_lib._text import wrapped


def figure(diagnosis):
    """Draw each condition's weighted spectrum, and the rates with the present and with Algorithm 1's weights."""
    with plt.style.context(plotting.STYLE):
        drawn, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
        floor = float(jnp.finfo(diagnosis.K.matrix.dtype).eps)
        for name, n in diagnosis.K.sizes:
            values = diagnosis.weights[name] / n * diagnosis.spectra[name]
            values = values[values > floor * n * max(values[0], 0.0)]
            left.loglog(np.arange(1, len(values) + 1), values, label=name, **plotting.line_look(name))
        left.set(title="eigenvalues, weighted", xlabel="rank", ylabel="rate of a mode")
        left.legend()
        means = {name: diagnosis.traces[name] / n for name, n in diagnosis.sizes.items()}
        for row, weights in enumerate((diagnosis.weights, diagnosis.algorithm_1)):
            for i, name in enumerate(diagnosis.K.names):
                look, place = plotting.line_look(name), (weights[name] * means[name], -row)
                right.plot(*place, "o", color=look.get("color"), label=None)
                # stacked, because the points may coincide
                right.annotate(name, place, (0, 7 + 11 * i), textcoords="offset points", ha="center")
        right.set(title="average convergence rates", xscale="log", ylim=(-1.5, 0.8))
        right.set_yticks([0, -1], ["now", "Algorithm 1"])
        causes = [finding for finding in diagnosis.findings if finding.is_cause]
        caption = causes[0].text if causes else "No cause of failure was found."
        caption = (
            "Left: the rates of each condition's modes; a long tail is slow. Right: their averages, now and with "
            f"Algorithm 1's weights; what is far to the left lags. {caption}"
        )
        drawn.text(0.5, -0.02, "\n".join(wrapped(caption)), ha="center", va="top", fontsize="small")
    return drawn
