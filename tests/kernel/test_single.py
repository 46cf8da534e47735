"""The kernel in single precision, for losses of any scale, and the memory that new operators take."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pinnntk_lib as pn

EPS = float(jnp.finfo("float32").eps)
MODEL = pn.MLP(30, depth=2, dim=2, shift=0.5, scale=0.3)


def scaled(wave, size):
    """Return the wave equation's operators, times the size."""
    return {name: lambda u, x, op=op: size * op(u, x) for name, op in wave.operators.items()}


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_kernel_and_eigenvalues_are_as_exact_as_the_precision_allows(size):
    """For residuals of size up to 1e3, whose squares are of size 1e6.

    An entry of K is a sum of a thousand products of gradients, which are themselves results of a few hundred operations
    each; an eigenvalue is then off by at most the norm of the errors.
    """
    wave = pn.problems.Wave1D()
    operators = scaled(wave, size)
    for seed in range(4):
        points, params = wave.points(15, jax.random.key(seed)), MODEL.init(jax.random.key(seed))
        double = pn.ntk(MODEL.apply, params, operators, points)
        params, points = jax.tree.map(lambda leaf: leaf.astype("float32"), (params, points))
        single = pn.ntk(MODEL.apply, params, operators, points)
        assert single.matrix.dtype == "float32"
        lengths = np.sqrt(np.diagonal(double.matrix))
        errors = np.abs(single.matrix - double.matrix) / np.outer(lengths, lengths)
        assert errors.max() < 1e-5
        values, exact = np.asarray(single.eigvalsh(), np.float64), np.asarray(double.eigvalsh())
        assert np.abs(values - exact).max() < len(exact) * 20 * EPS * exact[0]


def test_what_single_precision_cannot_tell_is_said(poisson):
    model, params, problem, _ = poisson
    points = problem.points(40)
    params, points = jax.tree.map(lambda leaf: leaf.astype("float32"), (params, points))
    found = pn.diagnose(model.apply, params, problem, points)
    assert "all that float32 can tell" in " ".join(str(found).split())
    assert len(found.resolved_eigenvalues) < len(found.eigenvalues)


NEW_OPERATORS = """
import jax, jax.numpy as jnp
import pinnntk_lib as pn

model = pn.MLP(8, 1, 2)
params, x = model.init(jax.random.key(0)), jnp.full((3, 2), 0.3)
megabytes = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
seen = {}
for i in range(COUNT + 1):
    pn.ntk_diagonal(model.apply, params, {"r": lambda u, x, i=i: i * u(x)}, {"r": x})
    seen[i] = megabytes()
print(seen[COUNT] - seen[COUNT - 100])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_new_operators_leave_no_memory_behind():
    """A thousand may take 50 MB; these are a hundred when all caches are full."""
    program = NEW_OPERATORS.replace("COUNT", "500")
    grown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(grown.stdout) < 5
