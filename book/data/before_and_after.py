"""Draws the README's picture: the paper's Poisson problem (a = 4, width 100, seed 0), plain and with Algorithm 1.

python book/data/before_and_after.py
"""

from pathlib import Path

import jax
import matplotlib.pyplot as plt
import optax

import pinnntk_lib as pn
from pinnntk_lib import plotting

jax.config.update("jax_enable_x64", True)


def main():
    problem = pn.problems.Poisson1D(a=4)
    points = problem.points(100)
    model = pn.MLP(100, **pn.normalization(points["r"]))
    params = model.init(jax.random.key(0))
    plt.style.use(plotting.STYLE)
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for ax, title, weights in zip(
        axes,
        ("Equal weights", "Weights from the NTK"),
        (None, pn.NTKWeights(every=100)),
    ):
        run = pn.train(
            model.apply,
            params,
            problem,
            points,
            optax.sgd(1e-5),
            40_000,
            weights,
        )
        plotting.solution(model.apply, run.params, problem, ax)
        ax.set_title(
            f"{title}: relative error {run.history['error'][-1]:.2g}"
        )
    fig.savefig(
        Path(__file__).parents[1] / "_static" / "before-and-after.png"
    )


if __name__ == "__main__":
    main()
