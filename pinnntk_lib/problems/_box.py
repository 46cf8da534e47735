"""Samplers of collocation points, ``(n, key) -> (n, d) array``, on a box and its faces.

If the key is None, the points form a deterministic grid; otherwise they are drawn uniformly at random.
"""

import jax
import jax.numpy as jnp
import numpy as np


def interval(lower=0.0, upper=1.0):
    """Return a sampler for an interval; its grid includes both ends."""

    def sample(n, key):
        unit = jnp.linspace(0.0, 1.0, n) if key is None else jax.random.uniform(key, (n,))
        return (lower + (upper - lower) * unit)[:, None]

    return sample


def interval_ends(n, key):
    """Return the two ends of [0, 1], each repeated n/2 times; nothing is left to draw at random."""
    return jnp.where(jnp.arange(n) < (n + 1) // 2, 0.0, 1.0)[:, None]


def inside(lower, upper):
    """Return a sampler for a rectangle; its grid is a golden-ratio lattice, even for every n."""
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
    """Return a sampler for the line ``x[axis] = at``, a side of the rectangle or inside it."""
    other = interval(lower[1 - axis], upper[1 - axis])

    def sample(n, key):
        x = other(n, key)
        return jnp.concatenate([jnp.full_like(x, at), x] if axis == 0 else [x, jnp.full_like(x, at)], axis=1)

    return sample


def together(*samplers):
    """Return a sampler that takes an equal share from each sampler, and the remainder from the first."""

    def sample(n, key):
        share = n // len(samplers)
        counts = [n - share * (len(samplers) - 1), *[share] * (len(samplers) - 1)]
        keys = [None] * len(samplers) if key is None else jax.random.split(key, len(samplers))
        return jnp.concatenate([draw(count, k) for draw, count, k in zip(samplers, counts, keys)])

    return sample
