"""Draws the README's picture: the paper's Poisson problem (a = 4, width 100, seed 0) without and with Algorithm 1.

python book/data/before_and_after.py
"""

from pathlib import Path

import jax
import matplotlib.pyplot as plt

from pinnntk_lib import experiments, plotting

jax.config.update("jax_enable_x64", True)


def main():
    settings = {
        "Equal weights": experiments.EXPERIMENTS["poisson1d-a4"].setting(),
        "Weights from the NTK": experiments.EXPERIMENTS[
            "poisson1d-adaptive"
        ].setting(),
    }
    plt.style.use(plotting.STYLE)
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for ax, (title, setting) in zip(axes, settings.items()):
        params, _ = experiments.start_of(setting, seed=0)
        run = setting.train(params)
        plotting.solution(
            setting.model.apply, run.params, setting.problem, ax
        )
        ax.set_title(
            f"{title}: relative error {run.history['error'][-1]:.2g}"
        )
    fig.savefig(
        Path(__file__).parents[1] / "_static" / "before-and-after.png"
    )


if __name__ == "__main__":
    main()
