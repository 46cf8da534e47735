"""The figure of a comparison: what each trial has reached, against time."""

import matplotlib.pyplot as plt

from pinnntk_lib import plotting

LINES = ["-", "--", "-.", ":"]


def figure(comparison):
    """Draw the measures of all trials against seconds."""
    with plt.style.context(plotting.STYLE):
        drawn, ax = plt.subplots(figsize=(6.4, 3.6))
        for i, name in enumerate(comparison.ranking):
            trial = comparison.trials[name]
            later = trial.seconds > 0
            look = {"linestyle": LINES[i % len(LINES)], "marker": "o", "markersize": 3}
            ax.loglog(trial.seconds[later], trial.measures[later], label=name, **look)
            if trial.diverged is not None:
                ax.plot(trial.seconds[-1:], trial.measures[-1:], "kx", markersize=8)
        known = comparison.trials[comparison.best].errors is not None
        ax.set(xlabel="seconds", ylabel="relative error" if known else "residual of the worst condition")
        ax.legend()
    return drawn
