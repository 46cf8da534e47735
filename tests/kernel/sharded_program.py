"""Checks of the sharded kernels.

test_sharded.py runs them in separate processes, because JAX fixes the number of devices when it starts.

python sharded_program.py              8 simulated devices in this process
python sharded_program.py ADDRESS N I  4 simulated devices in this process, the I-th of N
"""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import pinnntk_lib as pn

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulated_devices import simulated_devices

distributed = len(sys.argv) > 1
devices = simulated_devices(*sys.argv[1:])


def check(problem, model, sizes, method, mesh, memory, other=None):
    params, points = model.init(jax.random.key(0)), problem.points(sizes, jax.random.key(1))
    others = other and problem.points(other, jax.random.key(2))
    setting = model.apply, params, problem, points, method
    expected = pn.ntk(*setting, other_points=others).matrix
    K = pn.ntk(*setting, other_points=others, mesh=mesh, memory=memory).matrix
    n = len(expected)
    shards = {shard.index[0].indices(n)[:2] for shard in K.addressable_shards}
    if n % 8 == 0:
        assert len(shards) == jax.local_device_count(), shards
    else:
        assert shards == {(0, n)}, shards
    scale = np.abs(expected).max()
    for shard in K.addressable_shards:
        assert np.abs(shard.data - expected[shard.index]).max() < 1e-13 * scale
    if other is None and K.is_fully_addressable:
        assert (K == K.T).all()


line, grid = jax.sharding.Mesh(devices, "p"), jax.sharding.Mesh(devices.reshape(2, 4), ("hosts", "devices"))
wave, poisson = pn.problems.Wave1D(), pn.problems.Poisson1D()
deep, wide = pn.MLP(12, 2, 2, shift=0.5, scale=0.3), pn.MLP(30)
check(wave, deep, {"u": 8, "ut": 8, "r": 16}, "structured", grid, 200_000)
check(poisson, wide, {"u": 4, "r": 5}, "jacobian", line, 20_000)  # 9 rows, not a multiple of 8 devices
if not distributed:  # each takes ten seconds to compile
    check(wave, deep, {"u": 10, "ut": 7, "r": 23}, "auto", line, 2**30)
    check(wave, deep, {"u": 8, "ut": 8, "r": 16}, "structured", line, 2**30, {"u": 3, "ut": 2, "r": 5})
    with pytest.raises(ValueError, match=r"memory: expected at least \d+ bytes per device"):
        check(wave, deep, 8, "auto", line, 1000)
print("sharded kernels agree")
