"""How well a model suits a problem before it is trained: the evidence of its kernel, and a choice by it."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pinnntk_lib._check import check_frequencies, check_numbers, check_positive
from pinnntk_lib._types import Apply, Params
from pinnntk_lib.kernel import ntk
from pinnntk_lib.models import fourier_features
from pinnntk_lib.problems import Problem, check_problem

NOISE = 1e-8, 1e-5  # relative to the kernel's largest eigenvalue, in double and in single precision


def log_evidence(apply: Apply, params: Params, problem: Problem, points: Mapping[str, jax.Array]) -> float:
    """Compute how probable the conditions' data are for this model, before it is trained: the evidence of its kernel.

    Training with a constant kernel is kernel regression, and this is the probability that a Gaussian process with that
    kernel gives to the present residuals r,

        log p(r) = -(r^T C^-1 r + log det C + n log 2 pi) / 2,    C = s (K + noise).

    The amplitude s is the one that makes it largest, and the noise is 1e-8 of the weighted kernel's largest eigenvalue
    (1e-5 in single precision), with Algorithm 1's weights. A model has little evidence if the residuals lie in its slow
    modes, and also if it could as well have produced anything else. Compare models for the same problem and points:
    e^difference is the ratio of the two probabilities, not of the chances to train well. A model whose evidence is
    hundreds below that of the others will probably train badly. Smaller differences decide nothing, because the kernel
    changes in training.

    Args:
        apply: the model, a pure function ``(params, x of shape (d,)) -> u(x)``.
        params: initial parameters, a pytree of floating-point arrays.
        problem: the conditions.
        points: ``{name: (n, d) array}``; a few hundred points suffice, the work grows with the cube of their number.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, section 5.4.

    Raises:
        ValueError, TypeError: if the shape, type, names or values of an argument are wrong.

    Example:
        A sine of two periods suits a network of normalised inputs better than one of inputs that are far too small:

        >>> import jax, pinnntk_lib as pn
        >>> problem = pn.problems.Poisson1D(a=4)
        >>> points, model = problem.points(40), pn.MLP(width=100)
        >>> params = model.init(jax.random.key(0))
        >>> wide, narrow = (pn.models.normalized_inputs(model.apply, 0.5, scale) for scale in (0.3, 30.0))
        >>> pn.log_evidence(wide, params, problem, points) > pn.log_evidence(narrow, params, problem, points)
        True
    """
    check_problem(problem)
    K = ntk(apply, params, problem, points)
    found = problem.residuals(lambda x: apply(params, x), points)
    r = np.concatenate([np.asarray(found[name], np.float64) for name in K.names])
    rates = {name: float(K.trace(name)) / n for name, n in K.sizes}
    root = np.concatenate([np.full(n, 1 / np.sqrt(rates[name] or 1.0)) for name, n in K.sizes])
    kappa, Q = np.linalg.eigh(root[:, None] * np.asarray(K.matrix, np.float64) * root)
    variances = np.maximum(kappa, 0) + NOISE[K.matrix.dtype == jnp.float32] * kappa[-1]
    amplitude = max(np.mean((Q.T @ (root * r)) ** 2 / variances), np.finfo(float).tiny)
    log_det = np.sum(np.log(2 * np.pi * amplitude * variances)) - 2 * np.sum(np.log(root))
    return float(-(len(r) + log_det) / 2)


def fourier_bandwidth(
    apply: Apply,
    params: Params,
    problem: Problem,
    points: Mapping[str, jax.Array],
    directions: ArrayLike,
    bandwidths: Sequence[float] | None = None,
) -> float:
    """Choose the bandwidth of Fourier features: the one for which the kernel has the most evidence.

    Too small a bandwidth leaves what varies fast to slow modes; with too large a one, the network meets the conditions
    at the points and varies wildly between them. The evidence (:func:`log_evidence`) weighs both, without training.

    Args:
        apply: the inner model, a function ``(params, z of shape (2 m,)) -> u``.
        params: its initial parameters.
        problem: the conditions.
        points: ``{name: (n, d) array}``; a few hundred points suffice.
        directions: frequencies at bandwidth 1, an array (m, d): ``jax.random.normal(key, (m, d))``.
        bandwidths: the candidates; if None, 1/4, 1/2, 1, ..., 64, divided by the largest side of the domain.

    Raises:
        ValueError, TypeError: as for :func:`~pinnntk_lib.models.fourier_features` and :func:`log_evidence`; or if a
            bandwidth is not a positive number, or there is none.

    Example:
        >>> import jax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(a=4), pn.MLP(width=50, dim=2 * 30)
        >>> params, directions = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (30, 1))
        >>> bandwidth = pn.fourier_bandwidth(model.apply, params, problem, problem.points(50), directions)
        >>> apply = pn.models.fourier_features(model.apply, bandwidth * directions)
        >>> 2 <= bandwidth <= 16  # the solution sin(4 pi x) has frequency 12.6
        True
    """
    check_problem(problem)
    if bandwidths is None:
        side = max(b - a for a, b in zip(problem.lower, problem.upper))
        bandwidths = [2.0**k / side for k in range(-2, 7)]
    candidates = check_numbers("bandwidths", bandwidths)
    if candidates.ndim != 1:
        raise TypeError(f"bandwidths: expected a list of positive numbers, got {bandwidths!r}")
    if not len(candidates):
        raise ValueError("bandwidths: expected at least one positive number, got none")
    for i, bandwidth in enumerate(candidates):
        check_positive(f"bandwidths[{i}]", bandwidth)
    directions = check_frequencies("directions", directions)

    def evidence(bandwidth):
        return log_evidence(fourier_features(apply, bandwidth * directions), params, problem, points)

    return float(max(candidates, key=evidence))
