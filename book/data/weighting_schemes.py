"""Records the error that each weighting scheme reaches, at equal cost, on the paper's Poisson problem.

    python book/data/weighting_schemes.py 3

writes ``weighting-schemes.json`` beside this file: relative L2 errors after 40,000 steps of gradient descent (of Adam
for ``adam``) at several learning rates, or null where training diverged. The problem has a = 4, the network width 100.
"""

import sys
import time
from dataclasses import replace

import jax
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
}


def main(seeds):
    setting = experiments.EXPERIMENTS["poisson1d-a4"].setting()
    started, errors = time.perf_counter(), {}
    for scheme, weights in SCHEMES.items():
        errors[scheme] = {}
        for name, optimizer in OPTIMIZERS.items():
            found = []
            for seed in range(seeds):
                params, _ = experiments.start_of(setting, seed)
                tried = replace(
                    setting, optimizer=optimizer, weights=weights
                )
                try:
                    history = tried.train(params, progress=False).history
                    found.append(float(f"{history['error'][-1]:.4g}"))
                except pn.DivergenceError:
                    found.append(None)
            errors[scheme][name] = found
            print(scheme, name, found, flush=True)
    recording.write(
        __file__,
        seeds,
        started,
        {"steps": setting.steps, "relative_l2_error": errors},
        arguments=str(seeds),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
