"""Quantities of a diagnosis that the rules of :mod:`_findings` compare with their thresholds."""

import numpy as np

from pinnntk_lib.diagnosis._evidence import OUTPUTS, rms

RANK = 1e6  # modes of the outputs that are slower than the fastest by more than this do not count
MET = 1e-2  # a condition is met if its residual is at most this fraction of its natural size


def is_trained(d):
    """Return whether every condition is met, and the rest of the error is small or undetermined."""
    if d.residuals is None or not all_met(d):
        return False
    return d.estimated_error <= MET or is_zero(d) or is_undetermined(d)


def is_met(d, name):
    """Return whether a condition's residual is small, or zero up to rounding if no parameter moves the condition."""
    size = rms(d.residuals[name])
    if name in d.evidence.still:
        return size <= 1e-4 * MET * max(d.evidence.of_zero[name], 1.0)
    return size <= MET * d.natural_sizes[name]


def all_met(d):
    return all(is_met(d, name) for name in d.residuals)


def is_homogeneous(d):
    """Return whether u = 0 meets every condition."""
    if d.residuals is None:
        return False
    return all(size <= 1e-10 * max(d.evidence.natural[name], 1e-300) for name, size in d.evidence.of_zero.items())


def is_zero(d):
    """Return whether the conditions are met by u = 0, and u is small against the sum of what the parameters add."""
    return is_homogeneous(d) and rms(d.evidence.outputs) <= MET * rms(d.evidence.natural[OUTPUTS])


def unexplained(d, steps):
    """Return the fraction of the balanced residuals' squares that remains after this many steps."""
    modes = d.balanced_modes
    energy = (modes.Q.T @ (modes.root * d.sampled_residuals)) ** 2
    left = np.exp(-2 * steps * np.maximum(modes.kappa, 0) / modes.kappa[-1])
    return float(left @ energy / max(energy.sum(), np.finfo(float).tiny))


def is_undetermined(d):
    """Return whether an output can change along a direction while the conditions stay the same.

    What the conditions determine becomes as certain as they are precise, and what they do not determine stays open.
    """
    is_single = d.K.matrix.dtype == np.float32
    least, finer, fall = (5e-2, 1.0, 5.0) if is_single else (2e-3, 0.01, 30.0)
    for i in varying(d):
        share = open_share(d, i)
        if share > least and open_share(d, i, finer) * fall > open_share(d, i, 100.0 * finer):
            return True
    return False


def open_share(d, output, rougher=1.0):
    """Return the largest share of an output's variance, over all directions, that the conditions leave open.

    The outputs are taken as a Gaussian process with the kernel as covariance, and the conditions, with Algorithm 1's
    weights, as measurements of it. Directions with less than 1e-3 of the variance of the largest are left out.

    Args:
        rougher: factor on the variance of the measurements' noise.
    """
    noise = rougher * (1e-5 if d.K.matrix.dtype == np.float32 else 1e-7)
    kappa, Q, root = d.balanced_modes
    m = d.evidence.outputs.shape[1]
    B = (d.evidence.cross[output::m] * root) @ Q
    before = d.evidence.kernel[output::m, output::m]
    after = before - (B / (np.maximum(kappa, 0) + noise * kappa[-1])) @ B.T
    variances, U = np.linalg.eigh(before)
    kept = variances > 1e-3 * max(variances[-1], np.finfo(float).tiny)
    W = U[:, kept] / np.sqrt(variances[kept])
    return float(np.linalg.eigvalsh(W.T @ after @ W)[-1]) if kept.any() else 0.0


def varying(d):
    """Return the outputs that vary from point to point; the others are coefficients, unless the network is dead."""
    outputs = d.evidence.outputs
    return [i for i in range(outputs.shape[1]) if np.ptp(outputs[:, i]) > 1e-6 * np.abs(outputs[:, i]).max()]


def output_rank(d):
    """Return the number of modes of an output that are slower than its fastest by at most RANK, over all outputs."""
    m = d.evidence.outputs.shape[1]
    spectra = (np.linalg.eigvalsh(d.evidence.kernel[i::m, i::m]) for i in range(m))
    return max(int((values * RANK >= max(values[-1], np.finfo(float).tiny)).sum()) for values in spectra)


def unused_leaves(d):
    """Return the leaves of the parameters on which no condition depends."""
    return [leaf for leaf, shares in d.evidence.shares.items() if not any(shares.values())]
