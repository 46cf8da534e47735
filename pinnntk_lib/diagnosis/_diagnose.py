"""Diagnosing a PINN: its kernel, its residuals, and the optimiser's learning rate."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pinnntk_lib._check import check_finite, check_weights
from pinnntk_lib._types import Apply, Params
from pinnntk_lib.diagnosis._diagnosis import Diagnosis
from pinnntk_lib.kernel import ntk
from pinnntk_lib.problems import Conditions, Problem


def diagnose(
    apply: Apply,
    params: Params,
    conditions: Conditions,
    points: Mapping[str, jax.Array],
    *,
    optimizer: optax.GradientTransformation | float | None = None,
    weights: Mapping[str, float] | None = None,
    before: Diagnosis | None = None,
    memory: int = 2**30,
) -> Diagnosis:
    """Why a PINN does not train, as far as its kernel says.

    Args:
        apply: the model, a pure function ``(params, x of shape (d,)) -> u(x)``.
        params: its parameters, a pytree of floating-point arrays: those at the start, or reached in training.
        conditions: a :class:`~pinnntk_lib.Problem`, or ``{name: operator}``; losses, and how long they will take,
            are reported for a problem only, which has targets.
        points: ``{name: (n, d) array}``. The rates are means over them: a few hundred of each condition will do.
        optimizer: the learning rate of gradient descent, or an optax optimiser, which is tried on a made-up gradient
            to see whether it is gradient descent and at which rate.
        weights: ``{name: lambda_name}``, those in force; all 1 if None.
        before: an earlier diagnosis at the same points, to see how far the kernel has moved since.
        memory: bytes for the kernel's computation, as in :func:`pinnntk_lib.ntk`.

    Raises:
        ValueError, TypeError: if an argument's shape, type, names or values do not fit; the message says which.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem = pn.problems.Poisson1D(a=4)
        >>> points = problem.points(100)
        >>> model = pn.MLP(width=100, **pn.normalization(points["r"]))
        >>> params = model.init(jax.random.key(0))
        >>> found = pn.diagnose(model.apply, params, problem, points, optimizer=optax.sgd(1e-5))
        >>> found.verdict
        'u'
    """
    K = ntk(apply, params, conditions, points, memory=memory)
    if before is not None and (not isinstance(before, Diagnosis) or before.K.sizes != K.sizes):
        raise ValueError(f"before: expected a diagnosis of the same conditions and points, {K.sizes}")
    learning_rate, plain = _learning_rate(optimizer, params)
    residuals = None
    if isinstance(conditions, Problem):
        found = conditions.residuals(lambda x: apply(params, x), points)
        residuals = {name: np.asarray(r, np.float64) for name, r in found.items()}
    return Diagnosis(
        K,
        check_weights(weights, K.names),
        learning_rate,
        plain,
        residuals,
        sum(np.size(leaf) for leaf in jax.tree.leaves(params)),
        None if before is None else _drift(before.K, K),
    )


def _learning_rate(optimizer, params):
    """``(learning rate or None, whether it is plain gradient descent)``."""
    if optimizer is None:
        return None, None
    if not hasattr(optimizer, "update"):
        if check_finite("optimizer", optimizer) <= 0:
            raise ValueError(f"optimizer: expected a positive learning rate, got {optimizer}")
        return float(optimizer), True
    # The same gradient twice, then half of it: gradient descent answers with the same multiple each time.
    sizes = iter(range(1, 10**6))
    gradient = jax.tree.map(lambda leaf: jnp.full(jnp.shape(leaf), 1.0 / next(sizes), jnp.result_type(leaf)), params)
    state = optimizer.init(params)
    multiples = []
    for factor in (1.0, 1.0, 0.5):
        given = jax.tree.map(lambda g, factor=factor: factor * g, gradient)
        try:
            updates, state = optimizer.update(given, state, params)
        except TypeError:  # it asks for more than a gradient, as line searches do
            return None, False
        pairs = zip(jax.tree.leaves(updates), jax.tree.leaves(given))
        multiples += [float(-u.ravel()[0] / g.ravel()[0]) for u, g in pairs if g.size]
    plain = np.allclose(multiples, multiples[0], rtol=1e-3) and multiples[0] > 0
    return (multiples[0], True) if plain else (None, False)


def _drift(old, new):
    def change(name):
        a, b = (K.matrix if name == "K" else K.block(name, name) for K in (old, new))
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.linalg.norm(b - a) / np.linalg.norm(a))

    return {name: change(name) for name in (*new.names, "K")}
