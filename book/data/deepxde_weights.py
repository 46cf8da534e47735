"""Trains a DeepXDE model, on its JAX backend, with equal weights and with those of Algorithm 1, and records both runs.

    pip install deepxde
    python book/data/deepxde_weights.py

writes ``deepxde-weights.json`` beside this file. The problem is that of chapter 13, the Helmholtz equation with one
wave by four. DeepXDE compiles the weights into its training step, so each change of weights needs a ``compile``, which
also resets Adam's moments. Both runs do this.
"""

import json
import os
import time
from pathlib import Path

os.environ["DDE_BACKEND"] = "jax"

import deepxde as dde
import jax.numpy as jnp
import numpy as np

import pinnntk_lib as pn
from pinnntk_lib import experiments

ROUNDS, STEPS = 12, 500
SEED = 0


def exact(x):
    return np.sin(np.pi * x[:, :1]) * np.sin(4 * np.pi * x[:, 1:])


def new_model():
    def residual(x, u):
        u_xx, _ = dde.grad.hessian(u, x, i=0, j=0)
        u_yy, _ = dde.grad.hessian(u, x, i=1, j=1)
        q = (
            (1 - 17 * jnp.pi**2)
            * jnp.sin(jnp.pi * x[:, :1])
            * jnp.sin(4 * jnp.pi * x[:, 1:])
        )
        return u_xx + u_yy + u[0] - q

    square = dde.geometry.Rectangle([-1, -1], [1, 1])
    border = dde.icbc.DirichletBC(
        square, lambda x: 0.0, lambda x, on_boundary: on_boundary
    )
    data = dde.data.PDE(
        square, residual, border, 600, 200, solution=exact, num_test=2500
    )
    return dde.Model(
        data, dde.nn.FNN([2, 50, 50, 50, 1], "tanh", "Glorot normal")
    )


# in the order of DeepXDE's losses
OPERATORS = {
    "r": lambda u, x: pn.laplacian(u)(x) + u(x),
    "u": lambda u, x: u(x),
}


def algorithm_1(model):
    """Return the weights for DeepXDE's ``loss_weights``, at the model's present parameters."""

    def apply(params, x):
        return model.net.apply(params, x[None])[0, 0]

    points = {
        "r": jnp.asarray(model.data.train_x_all),
        "u": jnp.asarray(model.data.train_x_bc),
    }
    diagonal = pn.ntk_diagonal(apply, model.net.params, OPERATORS, points)
    rates = [float(diagonal[name].mean()) for name in OPERATORS]
    return [sum(rates) / rate for rate in rates]


def trained(adaptive):
    dde.config.set_random_seed(SEED)
    model, rows, weights = new_model(), [], [1.0, 1.0]
    for i in range(ROUNDS):
        model.compile(
            "adam",
            lr=1e-3,
            loss_weights=weights,
            metrics=["l2 relative error"],
            verbose=0,
        )
        _, state = model.train(
            iterations=STEPS, display_every=STEPS, verbose=0
        )
        rows.append(
            {
                "step": (i + 1) * STEPS,
                "error": float(state.metrics_test[0]),
                "weights": weights,
            }
        )
        print(rows[-1], flush=True)
        if adaptive:
            weights = algorithm_1(model)
    return rows


def main():
    started = time.perf_counter()
    runs = {"equal weights": trained(False), "Algorithm 1": trained(True)}
    record = experiments.provenance("python book/data/deepxde_weights.py")
    record["versions"]["deepxde"] = dde.__version__
    record |= {
        "seed": SEED,
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "runs": runs,
    }
    Path(__file__).with_name("deepxde-weights.json").write_text(
        json.dumps(record, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
