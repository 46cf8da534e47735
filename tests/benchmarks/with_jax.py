"""The kernel by this library, and by the code one would write without it."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

import pinnntk_lib as pn


def apply(params, x):
    for W, b in params[:-1]:
        x = jnp.tanh(W @ x + b)
    W, b = params[-1]
    return (W @ x + b)[0]


def operator(terms):
    def derivative(u, axes):
        for axis in axes:
            u = pn.d(u, axis)
        return u

    return lambda u, x: sum(c * derivative(u, axes)(x) for c, axes in terms)


def setting(case, dtype):
    """Return ``(params, {name: operator}, points)``."""
    layers, points = jax.tree.map(lambda a: jnp.asarray(a, dtype), case.data())
    return layers, {name: operator(terms) for name, terms in case.conditions.items()}, points


def gradient(op):
    return jax.grad(lambda params, x: op(lambda y: apply(params, y), x))


def ours(case, dtype, method):
    params, operators, points = setting(case, dtype)
    return lambda: pn.ntk(apply, params, operators, points, method).matrix


def contraction(case, dtype):
    """Form the whole Jacobian by vmap(grad), then J J^T."""
    params, operators, points = setting(case, dtype)

    @jax.jit
    def kernel(params, points):
        def rows(op, x):
            leaves = jax.tree.leaves(jax.vmap(gradient(op), (None, 0))(params, x))
            return jnp.concatenate([leaf.reshape(len(x), -1) for leaf in leaves], axis=1)

        J = jnp.concatenate([rows(op, points[name]) for name, op in operators.items()])
        return J @ J.T

    return lambda: kernel(params, points)


def contraction_by_leaf(case, dtype):
    """As ``contraction``, but one parameter leaf at a time, so that the compiler need not hold all of J."""
    params, operators, points = setting(case, dtype)

    @jax.jit
    def kernel(params, points):
        J = [
            [
                leaf.reshape(len(points[name]), -1)
                for leaf in jax.tree.leaves(jax.vmap(gradient(op), (None, 0))(params, points[name]))
            ]
            for name, op in operators.items()
        ]
        return sum(leaf @ leaf.T for leaf in map(jnp.concatenate, zip(*J)))

    return lambda: kernel(params, points)


def our_diagonal(case, dtype):
    params, operators, points = setting(case, dtype)
    return lambda: jnp.concatenate(list(pn.ntk_diagonal(apply, params, operators, points).values()))


def gradient_diagonal(case, dtype):
    """Square the gradients from vmap(grad) and sum them, one leaf at a time."""
    params, operators, points = setting(case, dtype)

    @jax.jit
    def diagonal(params, points):
        def squares(op, x):
            leaves = jax.tree.leaves(jax.vmap(gradient(op), (None, 0))(params, x))
            return sum(jnp.sum(leaf.reshape(len(x), -1) ** 2, axis=1) for leaf in leaves)

        return jnp.concatenate([squares(op, points[name]) for name, op in operators.items()])

    return lambda: diagonal(params, points)


def jaxpi_diagonal(case, dtype):
    """As in jaxpi: the flattened gradient's squared norm at one point, under vmap."""
    params, operators, points = setting(case, dtype)

    @jax.jit
    def diagonal(params, points):
        def at(op):
            def squared(x):
                flat, _ = ravel_pytree(gradient(op)(params, x))
                return jnp.dot(flat, flat)

            return jax.vmap(squared)

        return jnp.concatenate([at(op)(points[name]) for name, op in operators.items()])

    return lambda: diagonal(params, points)


METHODS = {
    "auto": lambda case, dtype: ours(case, dtype, "auto"),
    "structured": lambda case, dtype: ours(case, dtype, "structured"),
    "jacobian": lambda case, dtype: ours(case, dtype, "jacobian"),
    "vmap(grad)": contraction,
    "vmap(grad) by leaf": contraction_by_leaf,
    "ntk_diagonal": our_diagonal,
    "vmap(grad) diagonal": gradient_diagonal,
    "jaxpi diagonal": jaxpi_diagonal,
}
VERSIONS = {"jax": jax.__version__, "pinnntk_lib": pn.__version__}


def finished(result):
    return jax.block_until_ready(result)
