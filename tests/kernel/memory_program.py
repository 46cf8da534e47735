"""Print by how many MB this process grows while it computes with more and more new operators.

test_memory.py runs it in a process of its own, because other tests' memory would hide the growth.

python memory_program.py NAME N    N operators in pinnntk_lib.NAME
"""

import gc
import os
import sys

import jax
import jax.numpy as jnp

import pinnntk_lib as pn


def resident():
    """Return the resident memory in MB."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def operator(i):
    return lambda u, x: i * u(x)


compute, count = getattr(pn, sys.argv[1]), int(sys.argv[2])
model = pn.MLP(8, dim=2)
params, points = model.init(jax.random.key(0)), {"r": jnp.full((3, 2), 0.3)}
for i in range(-200, 0):  # until all caches are full, JAX's too
    compute(model.apply, params, {"r": operator(i)}, points)
before = resident()
for i in range(count):
    compute(model.apply, params, {"r": operator(i)}, points)
print("grown by", resident() - before, "MB")
