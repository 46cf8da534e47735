"""Measure what the steps of computing a kernel cost on this machine, for ``pinnntk_lib/kernel/_costs.py``.

    python tests/benchmarks/costs.py [--quick]

Both ways of contracting a parameter matrix's outer products are timed for many sizes, and the costs are fitted to
these times, in units of a multiply-add of a matrix product. The last number compares the times of the ways that the
fitted costs choose with those of the faster ways. On a GPU, ``gpu.py`` does the same.
"""

import argparse
import itertools
import time

import jax
import numpy as np
from scipy.optimize import nnls

from pinnntk_lib.kernel._contraction import Assembled, Products, block

FORMS = (Products, Assembled)
# (points, sides, channels)
SIZES = list(itertools.product((100, 400), (64, 256, 512), (1, 2, 4, 8, 16, 32, 64)))
QUICK = [(20, 16, 1), (20, 16, 4), (40, 8, 2)]  # tiny sizes, to see that it runs


def program(form, n, side, channels, dtype):
    """Return a compiled call that computes a kernel block of n residuals."""
    keys = jax.random.split(jax.random.key(0))
    gradients = form(*(jax.random.normal(key, (n, 1, channels, side), dtype) for key in keys))
    run = jax.jit(lambda gradients: block({0: gradients}, {0: gradients}, True, (n, n)))
    jax.block_until_ready(run(gradients))
    return lambda: run(gradients)


def seconds(call):
    """Return the least time of a call."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return min(times)


def terms(n, side, channels):
    """Return the numbers of (multiply-adds, accumulated, assembled, written elements) of both ways."""
    pairs = n**2 * channels * (channels + 1) / 2
    return [(2 * side * pairs, pairs, 0, 0), (n**2 * side**2, 0, n * side**2 * channels, n * side**2)]


def fit(sizes, times):
    """Return the costs that fit the times (sizes, forms), or None if the sizes are too small to tell them."""
    counts = np.array([terms(*size) for size in sizes], float)
    fitted, _ = nnls((counts / times[..., None]).reshape(-1, 4), np.ones(times.size))  # relative errors
    if fitted[0] == 0:  # no time grows with the multiply-adds, which are the unit
        return None
    return {name: float(c / fitted[0]) for name, c in zip(("accumulate", "assemble", "write"), fitted[1:])}


def chosen_to_faster(sizes, times, accumulate, assemble, write):
    """Return the time of the ways that these costs choose, divided by that of the faster ways."""
    counts = np.array([terms(*size) for size in sizes])
    chosen = np.argmin(counts @ [1, accumulate, assemble, write], axis=1)
    return float(times[np.arange(len(times)), chosen].sum() / times.min(axis=1).sum())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    sizes = QUICK if parser.parse_args().quick else SIZES
    jax.config.update("jax_enable_x64", True)
    for dtype in ("float32", "float64"):
        times = np.array([[seconds(program(form, *size, dtype)) for form in FORMS] for size in sizes])
        shown = "these sizes are too small to tell the costs"
        if found := fit(sizes, times):
            costs = ", ".join(f"{name} {cost:.1f}" for name, cost in found.items())
            shown = f"{costs}; chosen / faster: {chosen_to_faster(sizes, times, **found):.3f}"
        print(jax.default_backend(), dtype, shown)
