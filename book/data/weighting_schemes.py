"""Records the error that each weighting scheme reaches, at equal cost, on the paper's Poisson problem.

    python book/data/weighting_schemes.py 3

writes ``weighting-schemes.json`` beside this file: relative L2 errors after 40,000 steps of gradient descent (of Adam
for ``adam``) at several learning rates, and their medians over the last 5,000 steps, or null where training diverged.
The problem has a = 4, the network width 100. With ``adam falling`` the learning rate falls by a tenth every 2,000 steps.
"""

import sys
import time
from dataclasses import replace

import jax
import numpy as np
import optax
import recording

import pinnntk_lib as pn
from pinnntk_lib import experiments

jax.config.update("jax_enable_x64", True)

SCHEMES = {
    "equal": None,
    "fixed 10": {"u": 10.0, "r": 1.0},
    "fixed 100": {"u": 100.0, "r": 1.0},
    "fixed 1000": {"u": 1000.0, "r": 1.0},
    "NTK": pn.NTKWeights(),
    "NTK, first only": pn.NTKWeights(every=10**9),
    "gradient norms": pn.GradientNormWeights(),
    "uncertainty": pn.UncertaintyWeights(),
    "relative losses": pn.RelativeLossWeights(),
}
OPTIMIZERS = {
    **{f"sgd {rate:g}": optax.sgd(rate) for rate in (1e-5, 1e-4, 1e-3)},
    "adam 0.001": optax.adam(1e-3),
    "adam falling": optax.adam(optax.exponential_decay(1e-3, 2000, 0.9)),
}
LATE = 5_000


def errors_of(setting, seed):
    """Return a run's last error and the median of its last ones, or None twice if it diverged."""
    params, _ = experiments.start_of(setting, seed)
    try:
        history = setting.train(params, progress=False).history
    except pn.DivergenceError:
        return None, None
    late = history["error"][history["step"] > setting.steps - LATE]
    return tuple(
        float(f"{e:.4g}") for e in (history["error"][-1], np.median(late))
    )


def main(seeds):
    setting = experiments.EXPERIMENTS["poisson1d-a4"].setting()
    started, last, late = time.perf_counter(), {}, {}
    for scheme, weights in SCHEMES.items():
        last[scheme], late[scheme] = {}, {}
        for name, optimizer in OPTIMIZERS.items():
            tried = replace(setting, optimizer=optimizer, weights=weights)
            found = [errors_of(tried, seed) for seed in range(seeds)]
            last[scheme][name], late[scheme][name] = map(list, zip(*found))
            print(scheme, name, found, flush=True)
    results = {"relative_l2_error": last, "median_of_the_last_5000": late}
    recording.write(
        __file__,
        seeds,
        started,
        {"steps": setting.steps} | results,
        arguments=str(seeds),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
