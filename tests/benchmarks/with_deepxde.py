"""The training step by DeepXDE on JAX. It has no condition on derivatives there, so the wave equation lacks u_t."""

import os

os.environ["DDE_BACKEND"] = "jax"

import deepxde as dde
import jax
import jax.numpy as jnp
import numpy as np
from cases import STEPS
from with_jax import finished

__all__ = ["METHODS", "VERSIONS", "finished"]


def training(case, dtype, steps=STEPS):
    dde.config.set_default_float(dtype)
    dde.config.set_default_autodiff("forward")
    layers, points = case.data()
    targets = case.targets(points)
    values, residuals = points["u"], points["r"]
    right = jnp.asarray(np.concatenate([targets["u"], targets["r"]]), dtype)[:, None]  # in DeepXDE's order of points

    def equation(x, u):
        terms = case.conditions["r"]
        return sum(c * dde.grad.hessian(u, x, i=i, j=j)[0] for c, (i, j) in terms) - right

    box = dde.geometry.Hypercube([0] * case.dim, [1] * case.dim)
    data = dde.data.PDE(
        box, equation, [dde.icbc.PointSetBC(values, targets["u"][:, None])], num_domain=0, anchors=residuals
    )
    net = dde.nn.FNN([case.dim, *[case.width] * case.depth, 1], "tanh", "Glorot normal")
    model = dde.Model(data, net)
    model.compile("adam", lr=1e-3, verbose=0)
    denses = {
        f"denses_{i}": {"kernel": jnp.asarray(W.T, dtype), "bias": jnp.asarray(b, dtype)}
        for i, (W, b) in enumerate(layers)
    }

    def call():
        model.params = [{"params": denses}, []]
        model.opt_state = model.opt.init(model.params)
        model.train(iterations=steps, display_every=steps, verbose=0)
        found = model.params[0]["params"]
        return [(found[name]["kernel"].T, found[name]["bias"]) for name in denses]

    return call


METHODS = {"DeepXDE": training}
VERSIONS = {"deepxde": dde.__version__, "jax of deepxde": jax.__version__}
