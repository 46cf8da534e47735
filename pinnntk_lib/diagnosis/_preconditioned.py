"""The kernel with which Adam trains: each parameter's step is divided by the root of its second moment."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pinnntk_lib.diagnosis._evidence import sample
from pinnntk_lib.kernel import jacobian

NUMBERS = 2e7  # in the Jacobian of the sample from which the kernel is formed
DECAY, EPS = 0.999, 1e-8  # Adam's usual b2 and eps, which its state does not hold
THRESHOLD = 38.0  # (2 + 2 b1) / (1 - b1) for the usual b1 = 0.9


class Preconditioned(NamedTuple):
    """Adam's kernel, J P J^T with P = diag(1 / (sqrt(v) + eps)) for the second moments v.

    Attributes:
        rates: ``{name: lambda_name Tr(K_aa) / n_name}``, as :attr:`Diagnosis.rates` for this kernel.
        largest: the largest eigenvalue of the weighted kernel.
        largest_stable_learning_rate: 38 / largest, above which Adam with b1 = 0.9 oscillates (Cohen et al. 2022,
            arXiv:2207.14484).
    """

    rates: dict[str, float]
    largest: float
    largest_stable_learning_rate: float


def preconditioned(apply, params, operators, points, weights, opt_state):
    """Return Adam's kernel at a sample of the points, from an optimiser's state with second moments ``nu``."""
    scales = _scales(params, opt_state)
    count = int(max(8, NUMBERS / scales.size / len(points)))
    few = {name: x[sample(x, count)] for name, x in points.items()}
    J = np.asarray(jacobian(apply, params, operators, few, dict.fromkeys(few, 1.0)), np.float64) * np.sqrt(scales)
    sizes = {name: len(x) * getattr(operators[name], "outputs", 1) for name, x in few.items()}
    parts = dict(zip(sizes, np.split(J, np.cumsum(list(sizes.values()))[:-1])))
    rates = {name: float(weights[name] * np.mean(np.sum(part**2, axis=1))) for name, part in parts.items()}
    A = np.concatenate([np.sqrt(2 * weights[name] / len(part)) * part for name, part in parts.items()])
    largest = float(np.linalg.norm(A, 2) ** 2)
    return Preconditioned(rates, largest, THRESHOLD / largest)


def _scales(params, opt_state):
    """Return the diagonal of P, in the order of the flattened parameters."""
    states = jax.tree.leaves(opt_state, is_leaf=lambda state: hasattr(state, "nu"))
    states = [state for state in states if hasattr(state, "nu")]
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (params, *(s.nu for s in states))]
    if len(states) != 1 or shapes[0] != shapes[1]:
        raise ValueError(
            "opt_state: expected the state of an optimiser of Adam's kind, with second moments (nu) of the shapes of "
            f"the parameters, got {len(states)} such states" + ", of other shapes" * (len(states) == 1)
        )
    (state,) = states
    steps = int(getattr(state, "count", 0)) or 10**9  # without a count, the moments are taken as they are
    flat = np.asarray(ravel_pytree(state.nu)[0], np.float64) / (1 - DECAY**steps)
    return 1 / (np.sqrt(flat) + EPS)
