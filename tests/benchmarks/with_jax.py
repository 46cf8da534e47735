"""The kernel, its diagonal and the training step as one would write them in JAX, without this library."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from cases import STEPS
from jax.experimental.jet import jet
from jax.flatten_util import ravel_pytree


def apply(params, x):
    for W, b in params[:-1]:
        x = jnp.tanh(W @ x + b)
    W, b = params[-1]
    return (W @ x + b)[0]


# ---------------------------------------------------------------- operators


def nested(terms):
    """Return the sum of partial derivatives by nested ``jvp``; equal second derivatives are batched over the axes."""
    return by_second_derivatives(terms, _sum_of_nested_jvp)


def by_second_derivatives(terms, second):
    """Return ``(u, x) -> sum of terms``, where ``second(u, x, axes)`` sums second derivatives along several axes."""
    axes_of = {}
    for c, axes in terms:
        if len(axes) == 2:
            axes_of.setdefault(c, []).append(axes[0])
    lower = [(c, axes) for c, axes in terms if len(axes) < 2]

    def operator(u, x):
        total = sum(c * second(u, x, axes) for c, axes in axes_of.items())
        for c, axes in lower:
            total += c * (jax.jvp(u, (x,), (_unit(x, axes[0]),))[1] if axes else u(x))
        return total

    return operator


def _sum_of_nested_jvp(u, x, axes):
    def along(v):
        return jax.jvp(lambda x: jax.jvp(u, (x,), (v,))[1], (x,), (v,))[1]

    if len(axes) == 1:
        return along(_unit(x, axes[0]))
    return jax.vmap(along)(jnp.eye(len(x), dtype=x.dtype)[jnp.array(axes)]).sum()


def _sum_by_jet(u, x, axes):
    def along(v):
        return jet(u, (x,), ((v, jnp.zeros_like(v)),))[1][1]

    return jax.vmap(along)(jnp.eye(len(x), dtype=x.dtype)[jnp.array(axes)]).sum()


def _unit(x, axis):
    return jnp.zeros_like(x).at[axis].set(1)


# ---------------------------------------------------------------- the kernel and its diagonal


def setting(case, dtype, operator=nested):
    """Return ``(params, {name: operator}, points)``."""
    layers, points = jax.tree.map(lambda a: jnp.asarray(a, dtype), case.data())
    return layers, {name: operator(terms) for name, terms in case.conditions.items()}, points


def gradient(op):
    return jax.grad(lambda params, x: op(lambda y: apply(params, y), x))


def kernel(case, dtype):
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


def kernel_by_leaf(case, dtype, operator=nested):
    """As ``kernel``, but one parameter leaf at a time, so that the compiler need not hold all of J."""
    params, operators, points = setting(case, dtype, operator)

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


def diagonal(case, dtype, operator=nested):
    """Square the gradients from vmap(grad) and sum them, one leaf at a time."""
    params, operators, points = setting(case, dtype, operator)

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


# ---------------------------------------------------------------- training


def training(case, dtype, steps=STEPS, *, operator=nested):
    """Train with an operator under ``vmap`` and ``grad``, as one would write it first."""
    return descent(case, dtype, _outputs(case, operator), steps)


def _outputs(case, operator):
    conditions = {name: operator(terms) for name, terms in case.conditions.items()}

    def outputs(params, points):
        u = partial(apply, params)
        return {name: jax.vmap(partial(op, u))(points[name]) for name, op in conditions.items()}

    return outputs


def training_by_channels(case, dtype, steps=STEPS):
    """Train with hand-written propagation: the value, first derivatives, and one weighted sum of second derivatives."""

    def outputs(params, points):
        return {name: _propagate(params, points[name], terms) for name, terms in case.conditions.items()}

    return descent(case, dtype, outputs, steps)


def _propagate(params, x, terms):
    """Return the sum of ``terms`` at points (n, d), with one matrix product a layer for all channels."""
    weights = {axes[0]: c for c, axes in terms if len(axes) == 2}  # of the second derivatives
    along = sorted({axis for _, axes in terms for axis in axes})
    units = [jnp.broadcast_to(jnp.eye(x.shape[1], dtype=x.dtype)[axis], x.shape) for axis in along]
    channels = [x, *units, *[jnp.zeros_like(x)] * bool(weights)]  # u, first derivatives, sum of second derivatives
    *hidden, last = params

    def dense(W, b, channels):
        value, *others = jnp.split(jnp.concatenate(channels) @ W.T, len(channels))
        return [value + b, *others]

    for W, b in hidden:
        value, *others = dense(W, b, channels)
        a = jnp.tanh(value)
        slope = 1 - a * a
        channels = [a, *(slope * z for z in others)]
        if weights:
            channels[-1] -= 2 * a * slope * sum(c * others[along.index(axis)] ** 2 for axis, c in weights.items())
    channels = [z[:, 0] for z in dense(*last, channels)]
    total = channels[-1] if weights else 0.0
    for c, axes in terms:
        if len(axes) < 2:
            total += c * channels[1 + along.index(axes[0]) if axes else 0]
    return total


def descent(case, dtype, outputs, steps):
    """Return a call of ``steps`` compiled Adam steps on ``outputs(params, points)``, from the same start each time."""
    start, points = jax.tree.map(lambda a: jnp.asarray(a, dtype), case.data())
    targets = jax.tree.map(lambda a: jnp.asarray(a, dtype), case.targets(case.data()[1]))
    optimizer = optax.adam(1e-3)

    @jax.jit
    def descend(params, points, targets):
        def loss(params):
            found = outputs(params, points)
            return sum(jnp.mean((found[name] - targets[name]) ** 2) for name in targets)

        def step(_, carry):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, steps, step, (params, optimizer.init(params)))[0]

    return lambda: descend(start, points, targets)


def plain_descent(case, dtype, steps=STEPS, damping=1e-3):
    """Take damped Gauss-Newton steps with the whole Jacobian, one attempt each at a constant damping.

    This is less than an optimiser has to do, which adapts its damping and rejects steps.
    """
    start, points = jax.tree.map(lambda a: jnp.asarray(a, dtype), case.data())
    targets = jax.tree.map(lambda a: jnp.asarray(a, dtype), case.targets(case.data()[1]))
    conditions = {name: nested(terms) for name, terms in case.conditions.items()}
    flat, unravel = ravel_pytree(start)

    def rows(flat, name):
        """Return the residuals of a condition, scaled so that their squares sum to the loss, and their Jacobian."""

        def residual(flat, x, target):
            return conditions[name](partial(apply, unravel(flat)), x) - target

        both = jax.vmap(jax.value_and_grad(residual), (None, 0, 0))(flat, points[name], targets[name])
        return jax.tree.map(lambda a: a / jnp.sqrt(len(a)), both)

    def step(_, flat):
        r, J = map(jnp.concatenate, zip(*(rows(flat, name) for name in targets)))
        K = J @ J.T
        mu = damping * jnp.trace(K) / len(K)
        return flat - J.T @ jax.scipy.linalg.solve(K + mu * jnp.eye(len(K), dtype=dtype), r, assume_a="pos")

    descend = jax.jit(lambda flat: jax.lax.fori_loop(0, steps, step, flat))
    return lambda: descend(flat)


def loss(case, flat):
    """Return the loss at parameters that were flattened layer by layer, weights before biases."""
    layers, points = case.data()
    _, unravel = ravel_pytree(jax.tree.map(jnp.asarray, layers))
    outputs, targets = _outputs(case, nested), case.targets(points)
    found = outputs(unravel(jnp.asarray(flat)), jax.tree.map(jnp.asarray, points))
    return float(sum(jnp.mean((found[name] - targets[name]) ** 2) for name in targets))


METHODS = {
    "vmap(grad)": kernel,
    "vmap(grad) by leaf": kernel_by_leaf,
    "vmap(grad) diagonal": diagonal,
    "jaxpi diagonal": jaxpi_diagonal,
    "plain": training,
    "channels": training_by_channels,
    "plain descent": plain_descent,
    "jet": partial(training, operator=partial(by_second_derivatives, second=_sum_by_jet)),
}
VERSIONS = {"jax": jax.__version__, "optax": optax.__version__}


def finished(result):
    return jax.block_until_ready(result)
