"""The kernel by all implementations of neural-tangents, in an environment with a version of JAX that it supports."""

from functools import partial

import jax
import jax.numpy as jnp
import neural_tangents as nt

IMPLEMENTATIONS = {
    "Jacobian contraction": nt.NtkImplementation.JACOBIAN_CONTRACTION,
    "NTK-vector products": nt.NtkImplementation.NTK_VECTOR_PRODUCTS,
    "structured derivatives": nt.NtkImplementation.STRUCTURED_DERIVATIVES,
    "auto": nt.NtkImplementation.AUTO,
}


def apply(params, x):
    for W, b in params[:-1]:
        x = jnp.tanh(W @ x + b)
    W, b = params[-1]
    return (W @ x + b)[0]


def derivative(u, axes):
    for axis in axes:
        u = _along(u, axis)
    return u


def _along(u, axis):
    return lambda x: jax.jvp(u, (x,), (jnp.zeros_like(x).at[axis].set(1),))[1]


def kernel(case, dtype, implementation):
    params, points = jax.tree_util.tree_map(lambda a: jnp.asarray(a, dtype), case.data())
    x = jnp.stack([points[name] for name in case.conditions], axis=1)  # (n, conditions, d)

    def f(params, x):
        def at(x):
            def u(y):
                return apply(params, y)

            residuals = enumerate(case.conditions.values())
            return jnp.stack([sum(c * derivative(u, axes)(x[i]) for c, axes in terms) for i, terms in residuals])

        return jax.vmap(at)(x)

    of = jax.jit(nt.empirical_ntk_fn(f, trace_axes=(), vmap_axes=0, implementation=implementation))
    n = x.shape[0] * x.shape[1]
    # from (n, n, conditions, conditions) to the other methods' order
    return lambda: of(x, None, params).transpose(2, 0, 3, 1).reshape(n, n)


METHODS = {f"neural-tangents, {name}": partial(kernel, implementation=value) for name, value in IMPLEMENTATIONS.items()}
VERSIONS = {"neural-tangents": nt.__version__, "jax of neural-tangents": jax.__version__}


def finished(result):
    return jax.block_until_ready(result)
