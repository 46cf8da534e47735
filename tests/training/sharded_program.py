"""Checks of training with the points divided among devices.

test_sharded_training.py runs them in separate processes, because JAX fixes the number of devices when it starts.

python sharded_program.py DIRECTORY              8 simulated devices in this process
python sharded_program.py DIRECTORY ADDRESS N I  4 simulated devices in this process, the I-th of N
"""

import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import pinnntk_lib as pn

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulated_devices import simulated_devices

DISTRIBUTED = len(sys.argv) > 2
DEVICES = simulated_devices(*sys.argv[2:])
MESH = jax.make_mesh((2, 4), ("hosts", "devices"))
PROBLEM, MODEL = pn.problems.Poisson1D(a=2), pn.MLP(12, shift=0.5, scale=0.3)
SIZES = {"u": 6, "r": 23}  # neither can be divided by the number of devices
PARAMS, POINTS = MODEL.init(jax.random.key(0)), PROBLEM.points(SIZES, jax.random.key(1))
OF_DATA = pn.Problem(
    {
        "u": PROBLEM.conditions["u"],
        "r": pn.Condition(lambda u, p: pn.dd(u, 0)(p.x), lambda p: p.f, PROBLEM.conditions["r"].sampler),
    },
    *((0.0,), (1.0,)),
)
FRESH, ADAM = pn.RandomPoints(PROBLEM, SIZES), optax.adam(1e-3)


def run(points, optimizer, weights=None, steps=20, problem=PROBLEM, **options):
    key = jax.random.key(2)
    setting = MODEL.apply, PARAMS, problem, points, optimizer, steps, weights
    return pn.train(*setting, key=key, log_every=10, progress=False, **options)


def difference(a, b):
    """Return the largest relative difference between the histories of two results."""
    pairs = zip(jax.tree.leaves(a.history), jax.tree.leaves(b.history), strict=True)
    return max(np.abs(x / np.where(y == 0, 1, y) - (y != 0)).max() for x, y in pairs)


def check(points, optimizer, weights=None, tolerance=1e-12, steps=20, problem=PROBLEM):
    result = run(points, optimizer, weights, steps, problem, mesh=MESH)
    found = difference(result, run(points, optimizer, weights, steps, problem))
    assert found < tolerance, found
    for leaf in jax.tree.leaves(result.state):
        assert leaf.sharding.is_fully_replicated
        assert len(leaf.sharding.device_set) == 8


def check_checkpoints(directory):
    """Stop and go on, on the same devices and on others; the whole run is known from one device."""
    whole = run(FRESH, ADAM, pn.NTKWeights(every=7))
    half = run(FRESH, ADAM, pn.NTKWeights(every=7), steps=10, mesh=MESH, checkpoints=directory)
    some = MESH if DISTRIBUTED else jax.sharding.Mesh(DEVICES[:2], "points")
    for mesh, resume in ((MESH, half), (some, directory), (None, half), (None, directory)):
        if not (DISTRIBUTED and mesh is None):
            found = difference(run(FRESH, ADAM, pn.NTKWeights(every=7), mesh=mesh, resume=resume), whole)
            assert found < 1e-12, found


def check_diagnosis():
    alone = pn.diagnose(MODEL.apply, PARAMS, PROBLEM, POINTS)
    shared = pn.diagnose(MODEL.apply, PARAMS, PROBLEM, POINTS, mesh=MESH)
    assert np.abs(alone.K.matrix - np.asarray(shared.K.matrix)).max() < 1e-13 * np.abs(alone.K.matrix).max()
    assert shared.verdict == alone.verdict


def check_divergence():
    with pytest.raises(pn.DivergenceError) as alone:
        run(POINTS, optax.sgd(10.0))
    with pytest.raises(pn.DivergenceError) as shared:
        run(POINTS, optax.sgd(10.0), mesh=MESH)
    assert shared.value.step == alone.value.step
    assert shared.value.bound == pytest.approx(alone.value.bound)


check(POINTS, ADAM)
# The second step takes a damping of 1e-13 of the mean eigenvalue, which amplifies rounding errors up to 1e13 times.
check(POINTS, pn.kernel_gradient_descent(), steps=1)
# more residuals than the 37 parameters: each device adds up its own part of the normal equations
check(PROBLEM.points({"u": 22, "r": 131}), pn.kernel_gradient_descent(), steps=4, tolerance=1e-8)
check_diagnosis()
check_checkpoints(Path(sys.argv[1]) / "checkpoints")
check_divergence()
if not DISTRIBUTED:  # each takes ten seconds to compile
    check(FRESH, ADAM, pn.NTKWeights(every=7))
    check(pn.Minibatches(POINTS, 5), ADAM, pn.GradientNormWeights(every=7))
    check(POINTS, optax.lbfgs(), tolerance=1e-8)  # its line search divides differences of losses
    each = {"u": 1.0, "r": np.linspace(0, 2, 23)}  # weights per point
    check(POINTS, ADAM, each)
    many = PROBLEM.points({"u": 22, "r": 131})
    check(many, pn.kernel_gradient_descent(), {"u": 1.0, "r": np.linspace(0, 2, 131)}, steps=1)
    with_data = {"u": POINTS["u"], "r": pn.Points(POINTS["r"], f=np.ones(23))}
    check(with_data, ADAM, problem=OF_DATA)
print("sharded training agrees")
