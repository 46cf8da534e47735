"""Time of a training step of the wave experiment: this library, plain JAX, and hand-written derivative propagation.

    python tests/benchmarks/training.py --out book/data/training-speed.json

All methods take the same steps (3 x 500, 700 fresh points, Adam, float32), taking turns in one process. ``plain`` is
what one would write first: nested derivatives under ``vmap`` and ``grad``. ``channels`` propagates the value and its
first and second derivatives through the layers together. ``adaptive`` is the library with Algorithm 1 every 100 steps.
"""

import argparse
import json
import statistics
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import pinnntk_lib as pn
from pinnntk_lib import experiments

STEPS, ROUNDS = 200, 9


def plain_losses(setting, params, points):
    def u(y):
        return setting.model.apply(params, y)

    return {
        name: jnp.mean(jax.vmap(lambda x, c=condition: c.residual(u, x))(points[name]) ** 2)
        for name, condition in setting.problem.conditions.items()
    }


def channels_losses(setting, params, points):
    """Return the losses from u; from u and u_t; and from u, u_t, u_x, u_tt and u_xx, propagated together."""
    shift, scale = (jnp.asarray(values, points["u"].dtype) for values in (setting.model.shift, setting.model.scale))

    def dense(layer, channels):
        """Apply a layer to all channels with one matrix product; the bias is added to the value alone."""
        W, b = layer["W"], layer["b"]
        stacked = jnp.concatenate(channels) @ W.T
        value, *others = jnp.split(stacked, len(channels))
        return [value + b, *others]

    def tanh(channels, second):
        value, *others = channels
        a = jnp.tanh(value)
        slope = 1 - a * a
        if not second:
            return [a, *(slope * z for z in others)]
        z_t, z_x, z_tt, z_xx = others
        bend = -2 * a * slope
        return [a, slope * z_t, slope * z_x, slope * z_tt + bend * z_t * z_t, slope * z_xx + bend * z_x * z_x]

    def network(x, axes, second=False):
        value = (x - shift) / scale
        unit = [jnp.broadcast_to(jnp.eye(2, dtype=x.dtype)[axis] / scale, x.shape) for axis in axes]
        channels = [value, *unit, *([jnp.zeros_like(x)] * len(axes) if second else [])]
        *hidden, last = params
        for layer in hidden:
            channels = tanh(dense(layer, channels), second)
        return [z[:, 0] for z in dense(last, channels)]

    (u,) = network(points["u"], ())
    u_t = network(points["ut"], (0,))[1]
    *_, u_tt, u_xx = network(points["r"], (0, 1), second=True)
    exact = setting.problem.exact(points["u"])
    return {"u": jnp.mean((u - exact) ** 2), "ut": jnp.mean(u_t**2), "r": jnp.mean((u_tt - 4 * u_xx) ** 2)}


@partial(jax.jit, static_argnums=(0, 1, 4))
def descend(setting, losses, params, key, steps):
    """Train in a compiled loop, as one would write it with optax."""

    def step(i, carry):
        params, state = carry
        points = setting.points(jax.random.fold_in(key, i))
        gradient = jax.grad(lambda p: sum(losses(setting, p, points).values()))(params)
        updates, state = setting.optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(0, steps, step, (params, setting.optimizer.init(params)))[0]


class Hashable(experiments.Setting):
    """A setting that can be a static argument of jit; compared by identity."""

    __hash__, __eq__ = object.__hash__, object.__eq__


def methods(steps=STEPS):
    """Return ``{method: function () -> params}``."""
    setting = Hashable(**vars(experiments.EXPERIMENTS["wave1d-adaptive"].setting()))
    params, key = experiments.start_of(setting, 0)

    def library(weights):
        problem = setting.problem
        start = setting.model.apply, params, problem, setting.points, setting.optimizer, steps, weights
        return pn.train(*start, key=key, log_every=steps, progress=False).params

    return {
        "plain": lambda: descend(setting, plain_losses, params, key, steps),
        "channels": lambda: descend(setting, channels_losses, params, key, steps),
        "library": lambda: library(None),
        "adaptive": lambda: library(setting.weights),
    }


def main(arguments):
    runs = methods()
    seconds = {name: [] for name in runs}
    for method in runs.values():  # compile
        jax.block_until_ready(method())
    for _ in range(ROUNDS):
        for name, method in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(method())
            seconds[name].append((time.perf_counter() - start) / STEPS)
    pairs = {"library": "channels", "plain": "channels", "adaptive": "library"}
    record = {
        "command": "python tests/benchmarks/training.py",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": experiments.machine(),
        "versions": {"jax": jax.__version__, "optax": optax.__version__, "pinnntk_lib": pn.__version__},
        "milliseconds_per_step": {name: round(1e3 * statistics.median(s), 2) for name, s in seconds.items()},
        # the median over rounds of the ratio, because other load on the machine affects both methods alike
        "ratios": {
            f"{a}/{b}": round(statistics.median(x / y for x, y in zip(seconds[a], seconds[b])), 3)
            for a, b in pairs.items()
        },
    }
    Path(arguments.out).write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="where to write the results, as JSON")
    main(parser.parse_args())
