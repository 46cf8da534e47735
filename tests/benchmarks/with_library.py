"""The kernel, its diagonal and the training step by this library."""

from functools import partial

import jax.numpy as jnp
import optax
import with_jax
from cases import STEPS, TARGETS, laplacian
from with_jax import apply, finished

import pinnntk_lib as pn

__all__ = ["METHODS", "VERSIONS", "apply", "finished", "setting"]


def operator(terms):
    if len(terms) > 1 and terms == laplacian(len(terms)):
        return lambda u, x: pn.laplacian(u)(x)

    def derivative(u, axes):
        for axis in axes:
            u = pn.d(u, axis)
        return u

    return lambda u, x: sum(c * derivative(u, axes)(x) for c, axes in terms)


setting = partial(with_jax.setting, operator=operator)


def kernel(case, dtype, method):
    params, operators, points = setting(case, dtype)
    return lambda: pn.ntk(apply, params, operators, points, method).matrix


def diagonal(case, dtype):
    params, operators, points = setting(case, dtype)
    return lambda: jnp.concatenate(list(pn.ntk_diagonal(apply, params, operators, points).values()))


def training(case, dtype, steps=STEPS, *, weights=None, optimizer=None, mesh=None):
    params, operators, points = setting(case, dtype)
    targets = TARGETS[case.equation]
    conditions = {
        name: pn.Condition(operators[name], partial(target, np=jnp), lambda n, key, name=name: points[name])
        for name, target in targets.items()
    }
    problem = pn.Problem(conditions, (0.0,) * case.dim, (1.0,) * case.dim)
    run = apply, params, problem, points, optimizer or optax.adam(1e-3), steps, weights
    return lambda: pn.train(*run, log_every=steps, progress=False, mesh=mesh).params


METHODS = {
    "auto": partial(kernel, method="auto"),
    "structured": partial(kernel, method="structured"),
    "jacobian": partial(kernel, method="jacobian"),
    "ntk_diagonal": diagonal,
    "library": training,
    "adaptive": partial(training, weights=pn.NTKWeights(every=100)),
    "kernel descent": partial(training, optimizer=pn.kernel_gradient_descent()),
}
VERSIONS = with_jax.VERSIONS | {"pinnntk_lib": pn.__version__}
