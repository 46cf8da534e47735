"""The kernel as the optimiser: damped Gauss-Newton steps in the space of residuals.

Gradient descent trains the kernel's modes at rates that differ by orders of magnitude; weights move all of a
condition's rates together. To divide each mode by its own eigenvalue instead, residuals r with Jacobian J and kernel
``K = J J^T`` are met by the step

    -J^T (K + mu I)^{-1} r,

which solves a system of as many unknowns as there are residuals, however many parameters there are. It is the
Levenberg-Marquardt step ``-(J^T J + mu I)^{-1} J^T r`` written the other way round, and natural gradient descent in the
sense of function space: as mu goes to 0 the linearised residuals vanish at once, all modes alike.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pinnntk_lib._check import check_count, check_positive
from pinnntk_lib._deprecated import renamed_keywords
from pinnntk_lib.kernel import ntk


class KernelDescentState(NamedTuple):
    """The state of :func:`kernel_gradient_descent`.

    Attributes:
        damping: mu, as a share of the weighted kernel's average eigenvalue.
        growth: the factor by which the next step that fails raises it.
    """

    damping: jax.Array
    growth: jax.Array


class _Trial(NamedTuple):
    damping: jax.Array
    growth: jax.Array
    update: Any
    gain: jax.Array
    tried: jax.Array


@renamed_keywords(tries="max_tries")
def kernel_gradient_descent(
    damping: float = 1e-3, max_tries: int = 10, memory: int = 2**30
) -> optax.GradientTransformationExtraArgs:
    """An optimiser for :func:`pinnntk_lib.train` that divides every mode by its eigenvalue.

    A step solves a symmetric system of n unknowns, n being the number of residuals in a batch: worth it up to some
    thousand of them. The damping follows Nielsen's rule, as is usual for Levenberg-Marquardt: the better a step's
    decrease of the loss agrees with the linearised one, the less the next is damped; a step that does not decrease
    the loss of its batch is not taken, but tried again with more damping.

    Args:
        damping: mu at the start, as a share of the weighted kernel's average eigenvalue.
        max_tries: how often a step is tried before it is given up, and the parameters stay as they are.
        memory: bytes for the kernel's computation, as in :func:`pinnntk_lib.ntk`.

    Raises:
        ValueError, TypeError: if an argument is not a positive number.

    Example:
        The paper's model problem at a = 4, where plain gradient descent ends with an error above 1:

        >>> import jax, pinnntk_lib as pn
        >>> problem = pn.problems.Poisson1D(a=4)
        >>> points = problem.points(50)
        >>> model = pn.MLP(width=50, **pn.normalization(points["r"]))
        >>> params = model.init(jax.random.key(0))
        >>> result = pn.train(model.apply, params, problem, points, pn.kernel_gradient_descent(), steps=100)
        >>> bool(result.history["error"][-1] < 1e-2)
        True
    """
    check_positive("damping", damping)
    max_tries, memory = check_count("max_tries", max_tries), check_count("memory", memory)

    def init(params):
        dtype = jnp.result_type(*jax.tree.leaves(params))
        return KernelDescentState(jnp.asarray(damping, dtype), jnp.asarray(2.0, dtype))

    def update(gradient, state, params, *, view, weights, **_):
        def scaled(params):
            """The residuals whose squares sum to the weighted loss, one below the other."""
            parts = view.residuals(params)
            return jnp.concatenate([jnp.sqrt(weights[name] / r.size) * r.ravel() for name, r in parts.items()])

        residuals, pullback = jax.vjp(scaled, params)
        K = ntk(view.apply, params, view.operators, view.points, memory=memory)
        root = jnp.concatenate([jnp.full(n, jnp.sqrt(weights[name] / n)) for name, n in K.sizes]).astype(K.matrix.dtype)
        A = root[:, None] * K.matrix * root
        mean = jnp.trace(A) / len(A)
        loss = residuals @ residuals
        # below this the factorisation would fail
        least = 10 * jnp.finfo(A.dtype).eps * len(A)

        def attempt(trial):
            mu = trial.damping * mean
            factors = jax.scipy.linalg.cho_factor(A + mu * jnp.eye(len(A), dtype=A.dtype))
            y = jax.scipy.linalg.cho_solve(factors, residuals)
            (step,) = pullback(-y)
            new = scaled(optax.apply_updates(params, step))
            left = mu * y  # what the linearised residuals become
            gain = (loss - new @ new) / (loss - left @ left)
            better = gain > 0  # not so for NaN
            factor = jnp.where(better, jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3), trial.growth)
            return _Trial(
                jnp.clip(trial.damping * factor, least, 1e12).astype(trial.damping.dtype),
                jnp.where(better, 2.0, 2 * trial.growth).astype(trial.growth.dtype),
                jax.tree.map(lambda s: jnp.where(better, s, 0.0).astype(s.dtype), step),
                jnp.where(better, gain, 0.0),
                trial.tried + 1,
            )

        start = _Trial(
            jnp.maximum(state.damping, least).astype(state.damping.dtype),
            state.growth,
            jax.tree.map(jnp.zeros_like, params),
            gain=jnp.zeros((), loss.dtype),
            tried=0,
        )
        end = jax.lax.while_loop(lambda t: (t.gain <= 0) & (t.tried < max_tries), attempt, start)
        return end.update, KernelDescentState(end.damping, end.growth)

    return optax.GradientTransformationExtraArgs(init, update)
