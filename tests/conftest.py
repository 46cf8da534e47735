"""The tests run in float64 (set here, never by the library); those of float32 say so."""

import hypothesis
import jax
import numpy as np
import pytest

import pinnntk_lib as pn

collect_ignore = ["killed_program.py", "sharded_program.py"]  # programs, not tests

# no deadline: the first example of a shape is compiled
hypothesis.settings.register_profile("default", deadline=None, derandomize=True)
hypothesis.settings.load_profile("default")
jax.config.update("jax_enable_x64", True)


def same(a, b):
    """The same structure, dtypes and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    leaves = [[np.asarray(leaf) for leaf in jax.tree.leaves(tree)] for tree in (a, b)]
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(*leaves))


@pytest.fixture
def poisson():
    """The paper's problem with its points, and a small network: (model, params, problem, points)."""
    problem = pn.problems.Poisson1D(a=4)
    points = problem.points(10)
    model = pn.MLP(width=12, **pn.normalization(points["r"]))
    return model, model.init(jax.random.key(0)), problem, points


@pytest.fixture
def wave():
    """The wave equation and a two-layer network: (model, params, problem, points)."""
    problem = pn.problems.Wave1D()
    points = problem.points(7, jax.random.key(1))
    model = pn.MLP(width=8, depth=2, dim=2, shift=0.5, scale=0.3)
    return model, model.init(jax.random.key(0)), problem, points
