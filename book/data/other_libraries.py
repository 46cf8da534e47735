"""Takes a model of each of several libraries through the kernel, a diagnosis and training, and records the outcome.

    pip install flax equinox dm-haiku jinns deepxde
    python book/data/other_libraries.py

writes ``other-libraries.json`` beside this file. Each function below turns a library's model into what this library
asks for, a pure function ``apply(params, x)`` of the parameters and one point, and its parameters. The kernel is
compared with that of a Jacobian by plain automatic differentiation.
"""

import importlib.util
import itertools
import os
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp
import optax
from recording import write

import pinnntk_lib as pn

SIZES = [2, 20, 20, 1]


def flax_nnx():
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs):
            pairs = itertools.pairwise(SIZES)
            self.layers = nnx.List(
                [nnx.Linear(*pair, rngs=rngs) for pair in pairs]
            )

        def __call__(self, x):
            for layer in self.layers[:-1]:
                x = jnp.tanh(layer(x))
            return self.layers[-1](x)

    graph, params = nnx.split(Network(nnx.Rngs(0)))
    return lambda params, x: nnx.merge(graph, params)(x)[0], params


def flax_linen():
    import flax.linen as nn

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            for size in SIZES[1:-1]:
                x = nn.tanh(nn.Dense(size)(x))
            return nn.Dense(1)(x)

    network = Network()
    params = network.init(jax.random.key(0), jnp.zeros(2))
    return lambda params, x: network.apply(params, x)[0], params


def equinox():
    import equinox as eqx

    network = eqx.nn.MLP(2, "scalar", 20, 2, jnp.tanh, key=jax.random.key(0))
    params, functions = eqx.partition(network, eqx.is_inexact_array)
    return lambda params, x: eqx.combine(params, functions)(x), params


def haiku():
    import haiku as hk

    def network(x):
        return hk.nets.MLP(SIZES[1:], activation=jnp.tanh)(x)

    init, apply = hk.without_apply_rng(hk.transform(network))
    params = init(jax.random.key(0), jnp.zeros(2))
    return lambda params, x: apply(params, x)[0], params


def jinns():
    import equinox as eqx
    import jinns

    layers = [
        (eqx.nn.Linear, 2, 20),
        (jnp.tanh,),
        (eqx.nn.Linear, 20, 20),
        (jnp.tanh,),
        (eqx.nn.Linear, 20, 1),
    ]
    u, params = jinns.nn.PINN_MLP.create(
        key=jax.random.PRNGKey(0),
        eqx_list=tuple(layers),
        eq_type="PDEStatio",
    )

    def apply(params, x):
        return u(x, jinns.parameters.Params(nn_params=params, eq_params={}))[
            0
        ]

    return apply, params


def jaxpi():
    """In the style of jaxpi, which is on GitHub only: a class with a network of Flax Linen and ``u_net``."""
    network, params = flax_linen()

    class Heat:
        def u_net(self, params, t, x):
            return network(params, jnp.stack([t, x]))

    model = Heat()
    return lambda params, x: model.u_net(params, *x), params


def deepxde():
    os.environ["DDE_BACKEND"] = "jax"
    import deepxde as dde

    network = dde.nn.FNN(SIZES, "tanh", "Glorot normal")
    params = network.init(jax.random.PRNGKey(0), jnp.zeros((1, 2)))
    return lambda params, x: network.apply(params, x[None])[0, 0], params


# the package that must be installed, by library
LIBRARIES = {
    flax_nnx: "flax",
    flax_linen: "flax",
    equinox: "equinox",
    haiku: "dm-haiku",
    jaxpi: "flax",
    jinns: "jinns",
    deepxde: "deepxde",
}
MODULES = {"dm-haiku": "haiku"}


def outcome(make):
    """Return how exact the kernel of a library's model is, what the diagnosis says, and what training makes of it."""
    apply, params = make()
    problem = pn.problems.Heat1D()
    points = problem.points({"u": 12, "r": 20}, jax.random.key(1))
    leaves, treedef = jax.tree.flatten(params)

    def rows(name, x):
        def residual(leaves):
            return problem.operators[name](
                lambda y: apply(jax.tree.unflatten(treedef, leaves), y), x
            )

        return jnp.concatenate(
            [leaf.ravel() for leaf in jax.grad(residual)(leaves)]
        )

    J = jnp.concatenate(
        [
            jax.vmap(lambda x, name=name: rows(name, x))(x)
            for name, x in points.items()
        ]
    )
    K = pn.ntk(apply, params, problem, points)
    setting = apply, params, problem, points
    run = pn.train(
        *setting,
        optax.adam(1e-2),
        500,
        pn.NTKWeights(),
        log_every=500,
        progress=False,
    )
    losses = [
        sum(values[i] for values in run.history["losses"].values())
        for i in (0, -1)
    ]
    return {
        "parameters": sum(leaf.size for leaf in leaves),
        "difference": float(
            abs(K.matrix - J @ J.T).max() / abs(K.matrix).max()
        ),
        "in_products": sum(path.method != "jacobian" for path in K.paths),
        "verdict": pn.diagnose(*setting).verdict,
        "losses": [float(loss) for loss in losses],
    }


def installed(package):
    return (
        importlib.util.find_spec(MODULES.get(package, package)) is not None
    )


if __name__ == "__main__":
    started, results = time.perf_counter(), {}
    for make, package in LIBRARIES.items():
        if not installed(package):
            print(f"{make.__name__}: {package} is not installed")
            continue
        results[make.__name__] = {
            "package": f"{package} {version(package)}",
            **outcome(make),
        }
        print(make.__name__, results[make.__name__], flush=True)
    write(__file__, 1, started, {"libraries": results})
