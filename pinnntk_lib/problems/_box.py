"""Where conditions are imposed: samplers ``(n, key) -> (n, d) array`` on a box and its faces.

Without a key the points are a deterministic grid; with one they are uniform.
"""

import jax
import jax.numpy as jnp
import numpy as np


def interval(lower=0.0, upper=1.0):
    """An interval, its ends included in the grid."""

    def sample(n, key):
        unit = jnp.linspace(0.0, 1.0, n) if key is None else jax.random.uniform(key, (n,))
        return (lower + (upper - lower) * unit)[:, None]

    return sample


def interval_ends(n, key):
    """The two ends of [0, 1], each n/2 times: the boundary of an interval leaves nothing to draw at random."""
    return jnp.where(jnp.arange(n) < (n + 1) // 2, 0.0, 1.0)[:, None]


def inside(lower, upper):
    """A rectangle: without a key a rank-1 lattice, which is even for every n."""
    lower, upper = np.array(lower), np.array(upper)

    def sample(n, key):
        if key is not None:
            return lower + (upper - lower) * jax.random.uniform(key, (n, 2))
        i = np.arange(n)
        golden = (np.sqrt(5) - 1) / 2
        unit = np.stack([(i + 0.5) / n, (0.5 + i * golden) % 1.0], axis=1)
        return jnp.asarray(lower + (upper - lower) * unit, float)

    return sample


def side(lower, upper, axis, at):
    """A rectangle's side ``x[axis] = at``, or a line within it."""
    other = interval(lower[1 - axis], upper[1 - axis])

    def sample(n, key):
        x = other(n, key)
        return jnp.concatenate([jnp.full_like(x, at), x] if axis == 0 else [x, jnp.full_like(x, at)], axis=1)

    return sample


def together(*samplers):
    """A like share of the points from each, the first having what is left over."""

    def sample(n, key):
        share = n // len(samplers)
        counts = [n - share * (len(samplers) - 1), *[share] * (len(samplers) - 1)]
        keys = [None] * len(samplers) if key is None else jax.random.split(key, len(samplers))
        return jnp.concatenate([draw(count, k) for draw, count, k in zip(samplers, counts, keys)])

    return sample
