"""Records how far Algorithm 1 gets on the wave equation with three schedules of the learning rate.

    python book/data/schedules.py

writes ``schedules.json`` beside this file. The setting is that of the experiment ``wave1d-adaptive``, but for a network
of width 100, 40,000 steps, and the schedule of Adam's learning rate, which begins at 1e-3:

    the paper's   falls by a tenth every 1,000 steps
    faster        falls by a tenth every 500 steps
    kept          as the paper's, but stays what it is from step 10,000 on
"""

import time
from dataclasses import replace

import optax
import recording

from pinnntk_lib import experiments

SEEDS, STEPS, EVERY = 3, 40_000, 1_000


def falling(over, until=10**9):
    """Return a learning rate that falls by a tenth over some steps, until it is kept."""

    def schedule(step):
        return optax.exponential_decay(1e-3, over, 0.9)(step.clip(0, until))

    return schedule


SCHEDULES = {
    "the paper's": falling(1_000),
    "faster": falling(500),
    "kept": falling(1_000, 10_000),
}


def main():
    setting = experiments.EXPERIMENTS["wave1d-adaptive"].setting()
    model = replace(setting.model, width=100)
    started, errors = time.perf_counter(), {name: [] for name in SCHEDULES}
    for seed in range(SEEDS):
        for name, schedule in SCHEDULES.items():
            tried = replace(
                setting, model=model, optimizer=optax.adam(schedule)
            )
            params, key = experiments.start_of(tried, seed)
            result = tried.train(
                params, key, STEPS, log_every=EVERY, progress=False
            )
            found = [float(f"{e:.3g}") for e in result.history["error"]]
            errors[name].append(found)
            print(name, seed, found[::10], flush=True)
    steps = [*range(0, STEPS + 1, EVERY)]
    found = {"width": model.width, "steps": steps, "errors": errors}
    recording.write(__file__, SEEDS, started, found)


if __name__ == "__main__":
    main()
