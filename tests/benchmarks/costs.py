"""Measure what the steps of computing a kernel cost on this machine, for ``pinnntk_lib/kernel/_costs.py``.

    python tests/benchmarks/costs.py [--quick]

Both ways of contracting a parameter matrix's outer products are timed for many sizes, and the costs are fitted to
these times, in units of a multiply-add of a matrix product. The last line compares the times of the ways that the
fitted costs choose with those of the faster ways.
"""

import argparse
import itertools
import time

import jax
import numpy as np
from scipy.optimize import nnls

from pinnntk_lib.kernel._contraction import Assembled, Products, block

# (points, sides, channels)
SIZES = list(itertools.product((100, 400), (64, 256, 512), (1, 2, 4, 8, 16, 32, 64)))
QUICK = [(20, 16, 1), (20, 16, 4), (40, 8, 2)]  # tiny sizes, to see that it runs


def seconds(form, n, side, channels):
    """Return the least time of a kernel block of n residuals."""
    gradients = form(*(jax.random.normal(key, (n, 1, channels, side)) for key in jax.random.split(jax.random.key(0))))
    run = jax.jit(lambda gradients: block({0: gradients}, {0: gradients}, True, (n, n)))
    times = []
    for _ in range(6):
        start = time.perf_counter()
        jax.block_until_ready(run(gradients))
        times.append(time.perf_counter() - start)
    return min(times[1:])


def terms(n, side, channels):
    """Return the numbers of (multiply-adds, accumulated, assembled, written elements) of both ways."""
    pairs = n**2 * channels * (channels + 1) / 2
    return [(2 * side * pairs, pairs, 0, 0), (n**2 * side**2, 0, n * side**2 * channels, n * side**2)]


def costs(sizes):
    times = np.array([[seconds(form, *size) for form in (Products, Assembled)] for size in sizes])
    counts = np.array([terms(*size) for size in sizes], float)
    fitted, _ = nnls((counts / times[..., None]).reshape(-1, 4), np.ones(times.size))  # relative errors
    chosen = np.argmin(counts @ fitted, axis=1)
    loss = times[np.arange(len(times)), chosen].sum() / times.min(axis=1).sum()
    names = ("accumulate", "assemble", "write")
    # at tiny sizes, the time of a multiply-add can be too short to be found
    return {name: round(float(c / max(fitted[0], 1e-15)), 1) for name, c in zip(names, fitted[1:])}, loss


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    sizes = QUICK if parser.parse_args().quick else SIZES
    for x64 in (False, True):
        jax.config.update("jax_enable_x64", x64)
        found, loss = costs(sizes)
        print(jax.default_backend(), "float64" if x64 else "float32", found, f"chosen / faster: {loss:.3f}")
