"""Prints how far the two terms of the 1/N law explain the kernel's change in training (the table on the page of proofs).

    python book/data/kernel_law.py

One hidden layer in NTK parameterisation, the model problem's two ends and seven residual points, training time 0.1. The
numbers are norms relative to the infinite-width kernel's, times the width: the change of the kernel, its first- and
second-order term, and what these leave unexplained.
"""

import jax
import jax.numpy as jnp
import numpy as np

import pinnntk_lib as pn

jax.config.update("jax_enable_x64", True)

TIME, STEPS = 0.1, 400
ENDS, INSIDE = jnp.array([0.0, 1.0]), jnp.linspace(0.0, 1.0, 7)
INPUTS = pn.normalization(pn.problems.Poisson1D().points(100)["r"])
SHIFT, SCALE = INPUTS["shift"][0], INPUTS["scale"][0]
OF_BIAS = jnp.repeat(
    jnp.array([1.0, 0.0]), np.array([2, 7])
)  # derivatives of the residuals by the output bias
D = jnp.repeat(jnp.array([2 / 2, 2 / 7]), np.array([2, 7]))


def share(unit):
    """Return a unit's share in each residual, without the factor 1/sqrt(N): u at the ends, u'' inside."""
    w, v, b = unit
    t = jnp.tanh(v * (jnp.concatenate([ENDS, INSIDE]) - SHIFT) / SCALE + b)
    bend = (v / SCALE) ** 2 * -2 * t * (1 - t**2)
    return w * jnp.concatenate([t[:2], bend[2:]])


def along(function):
    """Return the derivative of a function of a unit along the gradients of all shares, as a new last axis."""
    return lambda unit: jnp.einsum(
        "...p,lp->...l", jax.jacfwd(function)(unit), jax.jacfwd(share)(unit)
    )


second = along(share)  # a unit's share in the kernel
third, fourth = along(second), along(along(second))


def mean(function, units, weights=None):
    """Return the weighted mean of a function over units (units, 3)."""
    weights = (
        jnp.full(len(units), 1 / len(units)) if weights is None else weights
    )
    add = -len(units) % 64
    units, weights = (
        jnp.pad(units, ((0, add), (0, 0))),
        jnp.pad(weights, (0, add)),
    )

    def part(total, some):
        values = jax.vmap(function)(some[0])
        return total + jnp.tensordot(some[1], values, 1), None

    parts = units.reshape(-1, 64, 3), weights.reshape(-1, 64)
    shape = jax.eval_shape(function, units[0])
    return jax.jit(
        lambda p: jax.lax.scan(part, jnp.zeros(shape.shape), p)[0]
    )(parts)


def expectation(function):
    """Return the expectation over N(0, 1) parameters, by quadrature; the function is a polynomial in w."""
    axes = [np.polynomial.hermite_e.hermegauss(n) for n in (5, 96, 96)]
    units = np.stack(
        np.meshgrid(*(nodes for nodes, _ in axes), indexing="ij"), -1
    ).reshape(-1, 3)
    weights = np.einsum(
        "i,j,k->ijk", *(w / w.sum() for _, w in axes)
    ).ravel()
    kept = weights > 1e-18
    return mean(function, jnp.array(units[kept]), jnp.array(weights[kept]))


def train(units, bias, targets):
    """Return the units after training, and D r at each step."""
    step = TIME / STEPS

    def one(state, _):
        units, bias = state
        sums, pull = jax.vjp(
            lambda u: jax.vmap(share)(u).sum(axis=0) / jnp.sqrt(len(u)),
            units,
        )
        pulled = D * (sums + OF_BIAS * bias - targets)
        return (
            units - step * pull(pulled)[0],
            bias - step * pulled @ OF_BIAS,
        ), pulled

    return jax.lax.scan(one, (units, bias), None, length=STEPS)


def terms(a, width, seed, curvature):
    """Return the kernel's change, and the first- and second-order term of it."""
    targets = jnp.concatenate(
        [
            jnp.sin(a * jnp.pi * ENDS),
            -((a * jnp.pi) ** 2) * jnp.sin(a * jnp.pi * INSIDE),
        ]
    )
    units = jax.random.normal(jax.random.key(seed), (width, 3))
    bias = jax.random.normal(jax.random.key(100 + seed))
    (after, _), pulled = jax.jit(train)(units, bias, targets)
    step = TIME / STEPS
    integrals = step * jnp.cumsum(pulled, axis=0)
    first = -mean(third, units) @ integrals[-1] / jnp.sqrt(width)
    path = step * pulled.T @ integrals
    return (
        mean(second, after) - mean(second, units),
        first,
        jnp.tensordot(curvature, path, 2) / width,
    )


if __name__ == "__main__":
    limit = expectation(second) + jnp.outer(OF_BIAS, OF_BIAS)
    curvature = expectation(fourth)
    print(
        "  a   width   change   first   second   unexplained   trace of the change"
    )
    for a in (0.3, 4.0):
        for width in (4096, 65536):
            rows = []
            for seed in range(2):
                change, first, of_order_two = terms(
                    a, width, seed, curvature
                )
                sizes = [
                    jnp.linalg.norm(m)
                    for m in (
                        change,
                        first,
                        of_order_two,
                        change - first - of_order_two,
                    )
                ]
                relative = [size / jnp.linalg.norm(limit) for size in sizes]
                rows.append(
                    [*relative, jnp.trace(change) / jnp.trace(limit)]
                )
            print(
                f"{a:3g} {width:7,d}"
                + "".join(
                    f"{width * v:10.0f}" for v in np.mean(rows, axis=0)
                ),
                flush=True,
            )
