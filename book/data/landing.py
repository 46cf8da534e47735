"""Draws the eight pictures of the front page: the paper's Poisson problem (a = 4, width 100), trained four times.

Also saves the parameters of the run that fails, W0, b0, W1, b1, which the page cures while the reader watches.

python book/data/landing.py

takes about half a minute.
"""

import json
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import pinnntk_lib as pn
from pinnntk_lib import plotting

jax.config.update("jax_enable_x64", True)

FOLDER = Path(__file__).parents[1] / "_static" / "landing"
STEPS = 40_000
RATE = 1e-5
BLUE, ORANGE = "#0060a8", "#b34700"

problem = pn.problems.Poisson1D(a=4)
points = problem.points({"u": 2, "r": 100})
model = pn.MLP(width=100, **pn.normalization(points["r"]))
x = problem.grid(201)
exact = np.asarray(problem.exact(x))


def train(seed, optimizer, steps, weights=None, log_every=100):
    params = model.init(jax.random.key(seed))
    return pn.train(
        model.apply,
        params,
        problem,
        points,
        optimizer,
        steps,
        weights,
        test_points=x,
        log_every=log_every,
        progress=False,
    )


def network(run):
    return np.asarray(jax.vmap(lambda at: model.apply(run.params, at))(x))


def solution(ax, run):
    ax.plot(x[:, 0], exact, color="#333333", label="exact")
    ax.plot(x[:, 0], network(run), "--", color=ORANGE, label="network")
    ax.set(xlabel="x", ylabel="u")
    ax.legend(loc="upper right")


def losses(ax, run):
    steps = np.maximum(run.history["step"], 1)
    total = sum(run.history["losses"].values())
    ax.loglog(steps, total, color="#333333")
    ax.set(xlabel="step", ylabel="loss")


def mistake(ax, run):
    error = network(run) - exact
    line = np.polyval(np.polyfit(x[:, 0], error, 1), x[:, 0])
    ax.plot(x[:, 0], error, color=ORANGE, label="network minus exact")
    ax.plot(x[:, 0], line, ":", color="#333333", label="a straight line")
    ax.set(xlabel="x", ylabel="error of u")
    ax.legend(loc="upper right")


def mistakes(ax, runs):
    for run, style, seed in zip(runs, ("-", "--"), (0, 3)):
        color = BLUE if style == "-" else ORANGE
        error = network(run) - exact
        ax.plot(x[:, 0], error, style, color=color, label=f"seed {seed}")
    ax.set(xlabel="x", ylabel="error of u")
    ax.legend(loc="lower right")


def kernels(ax, run):
    K = pn.ntk(model.apply, model.init(jax.random.key(0)), problem, points)
    for name, color, marker in (("r", ORANGE, "o"), ("u", BLUE, "s")):
        n = K.block(name, name).shape[0]
        rates = 2 * RATE * K.eigvalsh(name) / n
        rates = rates[rates > 1e-7]
        rank = 1 + np.arange(len(rates))
        label = {"r": "equation", "u": "boundary"}[name]
        ax.loglog(rank, 1 / rates, marker, color=color, label=label)
    ax.axhline(STEPS, color="#333333", linestyle=":")
    ax.text(1.05, STEPS * 1.3, "40,000 steps: training ends")
    ax.set(xlabel="mode of the loss alone", ylabel="time constant, steps")
    ax.legend(loc="lower right")


def weights(ax, run):
    steps = np.maximum(run.history["step"], 1)
    columns = run.history["weights"]
    ax.loglog(steps, columns["u"], color=BLUE, label="boundary")
    ax.loglog(steps, columns["r"], "--", color=ORANGE, label="equation")
    ax.set(xlabel="step", ylabel="weight of the loss")
    ax.legend(loc="center right")


def descent(ax, runs):
    for run, style, label in zip(
        runs, ("-", "--"), ("weights, gradient descent", "kernel descent")
    ):
        steps = np.maximum(run.history["step"], 1)
        color = BLUE if style == "-" else ORANGE
        ax.loglog(
            steps, run.history["error"], style, color=color, label=label
        )
    ax.set(xlabel="step", ylabel="relative error")
    ax.legend(loc="center right")


def main():
    plain = train(0, optax.sgd(RATE), STEPS)
    adaptive = train(0, optax.sgd(RATE), STEPS, pn.NTKWeights())
    slow = train(3, optax.sgd(RATE), STEPS, pn.NTKWeights())
    by_kernel = train(3, pn.kernel_gradient_descent(), 100, log_every=1)
    pictures = {
        "1-loss": (losses, plain),
        "2-answer": (solution, plain),
        "3-line": (mistake, plain),
        "4-kernels": (kernels, plain),
        "5-weights": (weights, adaptive),
        "6-cured": (solution, adaptive),
        "7-slow": (mistakes, (adaptive, slow)),
        "8-descent": (descent, (slow, by_kernel)),
    }
    FOLDER.mkdir(exist_ok=True)
    plt.style.use(plotting.STYLE)
    plt.rcParams.update({"svg.hashsalt": "landing", "font.size": 11})
    for name, (draw, run) in pictures.items():
        fig, ax = plt.subplots(figsize=(5.6, 3.6))
        draw(ax, run)
        fig.savefig(
            FOLDER / f"{name}.png",
            dpi=150,
            bbox_inches=None,
            metadata={"Software": None},
        )
        plt.close(fig)
    at = [np.ravel(layer[of]) for layer in plain.params for of in ("W", "b")]
    failed = {"step": STEPS, "params": np.concatenate(at).tolist()}
    (FOLDER / "failed.json").write_text(json.dumps(failed) + "\n")
    for name, run in (
        ("plain", plain),
        ("adaptive", adaptive),
        ("slow", slow),
        ("descent", by_kernel),
    ):
        history = run.history
        first, last = (
            float(sum(column[row] for column in history["losses"].values()))
            for row in (0, -1)
        )
        print(f"{name}: loss {first:.3g} to {last:.3g},", end=" ")
        print(f"error {float(history['error'][-1]):.3g}")


if __name__ == "__main__":
    main()
