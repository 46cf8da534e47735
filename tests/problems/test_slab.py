import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pinnntk_lib as pn
from pinnntk_lib.problems import time_slab

SIZES = {"u": 30, "ut": 11, "r": 40}


@pytest.mark.parametrize("key", [None, jax.random.key(0)])
def test_points_are_moved_into_the_slab(key):
    problem = pn.problems.Wave1D()
    slab = time_slab(problem, 0.25, 0.5, ["u", "ut"], problem.exact)
    whole, found = problem.points(SIZES, key), slab.points(SIZES, key)
    assert (slab.lower, slab.upper) == ((0.25, 0.0), (0.5, 1.0))
    for name, x in found.items():
        assert np.allclose(x[:, 0], 0.25 + whole[name][:, 0] / 4, atol=1e-15)
        assert (x[:, 1] == whole[name][:, 1]).all()
    assert (found["ut"][:, 0] == 0.25).all()
    assert (found["u"][:, 0] == 0.25).sum() >= 10  # the initial values, exactly at the start
    assert (slab.grid(5)[:, 0] >= 0.25).all()


@pytest.mark.parametrize("problem", [pn.problems.Wave1D(), pn.problems.KleinGordon1D(), pn.problems.Advection1D()])
def test_the_exact_solution_has_no_residuals(problem):
    """Values, velocities and boundary values: each condition's target is that of the solution."""
    initial = [name for name in ("u", "ut") if name in problem.conditions]
    slab = time_slab(problem, 0.3, 0.7, initial, problem.exact)
    residuals = slab.residuals(problem.exact, slab.points(20))
    assert max(float(abs(values).max()) for values in residuals.values()) < 1e-8


def test_initial_values_are_those_of_the_solution_before():
    problem = pn.problems.Wave1D()

    def before(x):
        return x[0] ** 2 * x[1]

    slab = time_slab(problem, 0.5, 1.0, ["u", "ut"], before)
    points = slab.points(SIZES)
    residuals = slab.residuals(lambda x: 0.0 * x[0], points)
    assert np.allclose(residuals["ut"], -points["ut"][:, 1])  # u_t = 2 t x at t = 1/2
    start = points["u"][:, 0] == 0.5
    assert np.allclose(residuals["u"][start], -points["u"][start, 1] / 4)
    assert np.allclose(residuals["u"][~start], 0.0)  # boundary values stay


def test_a_system_and_a_number_as_target():
    problem = pn.problems.Schrodinger1D()
    name = next(iter(problem.conditions))
    slab = time_slab(problem, 0.5, 1.0, [name], lambda x: jnp.stack([x[1], 2.0 + 0 * x[1]]))
    points = slab.points(9)
    found = slab.residuals(lambda x: jnp.zeros(2) * x[0], points)[name].reshape(-1, 2)
    start = points[name][:, 0] == 0.5
    assert np.allclose(found[start, 1], -2.0)
    one = pn.Condition(lambda u, x: u(x), 1.0, lambda n, key: jnp.linspace(0, 1, n)[:, None] ** 9)
    of_number = time_slab(pn.Problem({"u": one}, (0.0,), (1.0,)), 0.5, 1.0, ["u"], lambda x: 3.0 + 0 * x[0])
    at_start, *_, at_end = of_number.residuals(lambda x: 0 * x[0], of_number.points(3))["u"].tolist()
    assert (at_start, at_end) == (-3.0, -1.0)


def test_time_may_be_another_coordinate():
    problem = pn.problems.Helmholtz2D()
    slab = time_slab(problem, 0.0, 0.5, axis=1) if problem.lower[1] == 0 else time_slab(problem, -1.0, 0.5, axis=1)
    assert slab.upper[1] == 0.5
    assert slab.upper[0] == problem.upper[0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.5, 0.5), ValueError, "start, stop: expected increasing times from 0.0 to 1.0, got 0.5 and 0.5"),
        ((0.5, 2.0), ValueError, "start, stop: expected increasing times from 0.0 to 1.0, got 0.5 and 2.0"),
        ((float("nan"), 1.0), ValueError, "start: expected a finite number, got nan"),
        ((0.5, 1.0), ValueError, "before: expected the solution before the time 0.5, a function of x, got None"),
        ((0.0, 1.0, ["v"]), ValueError, r"initial: expected names of conditions, from \['u', 'ut', 'r'\], got"),
        ((0.0, 1.0, "u"), TypeError, "initial: expected a list of names of conditions, got 'u'"),
        ((0.0, 1.0, None), TypeError, "initial: expected a list of names of conditions, got None"),
        ((0.0, 1.0, (n for n in "u")), TypeError, "initial: expected a list of names of conditions, got <gen"),
        ((0.0, 1.0, [["u"]]), ValueError, r"initial: expected names of conditions, from \['u', 'ut', 'r'\], got"),
        ((0.5, 1.0, [], jnp.sum), ValueError, "initial: expected the names of the conditions that take the values"),
        ((0.5, 1.0, ["u"], 3.0), TypeError, "before: expected a function of a point, got 3.0"),
        ((0.0, 1.0, [], None, 2), ValueError, "axis: expected a coordinate from 0 to 1, got 2"),
        ((0.0, 1.0, [], None, -1), ValueError, "axis: expected a coordinate from 0 to 1, got -1"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        time_slab(pn.problems.Wave1D(), *arguments)


def test_measured_values_belong_to_their_points():
    fit = pn.Condition(lambda u, x: u(x), np.zeros(3), lambda n, key: jnp.zeros((n, 1)))
    with pytest.raises(ValueError, match=r"problem.conditions\['u'\].target: expected a function or a number, got val"):
        time_slab(pn.Problem({"u": fit}, (0.0,), (1.0,)), 0.0, 0.5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_start_is_found_in_any_precision(dtype):
    """As a number of NumPy, 0.6 is not that of a point in single precision."""
    problem, times = pn.problems.Advection1D(), np.linspace(0, 1, 11)
    for start in times[1:-1]:
        slab = time_slab(problem, start, 1.0, ["u"], lambda x: 5.0 + 0 * x[1])
        x = slab.points(6)["u"].astype(dtype)
        assert (jax.vmap(slab.conditions["u"].target)(x) == 5.0).all()


def test_samplers_may_return_arrays_of_numpy_or_integers():
    ends = pn.Condition(lambda u, x: u(x), 0.0, lambda n, key: np.arange(n)[:, None])
    slab = time_slab(pn.Problem({"u": ends}, (0.0,), (4.0,)), 1.0, 2.0, ["u"], lambda x: x[0])
    assert slab.points(5)["u"][:, 0].tolist() == [1.0, 1.25, 1.5, 1.75, 2.0]
