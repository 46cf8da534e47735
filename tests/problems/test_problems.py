import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pinnntk_lib as pn

PROBLEMS = [pn.problems.Poisson1D(a=1), pn.problems.Poisson1D(a=4), pn.problems.Wave1D()]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("key", [None, jax.random.key(3)])
def test_the_exact_solution_meets_every_condition(problem, key):
    for name, x in problem.points(50, key).items():
        residual = jax.vmap(lambda p, c=problem.conditions[name]: c.residual(problem.exact, p))(x)
        # second derivatives of sin(8 pi t) are of size 600
        assert np.abs(residual).max() < 1e-10, name


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("n", [1, 2, 7, 300])
def test_as_many_points_as_asked_for_inside_the_domain(problem, n):
    for key in (None, jax.random.key(0)):
        for x in problem.points(n, key).values():
            assert x.shape == (n, problem.dim)
            assert (x >= 0).all()
            assert (x <= 1).all()


def test_points_depend_on_the_key_only():
    problem = pn.problems.Wave1D()
    one, same, other = (problem.points(20, jax.random.key(k)) for k in (0, 0, 1))
    assert all((one[name] == same[name]).all() for name in one)
    assert not (one["r"] == other["r"]).all()


def test_a_number_for_each_condition():
    points = pn.problems.Poisson1D().points({"u": 2, "r": 30})
    assert points["u"].ravel().tolist() == [0, 1]
    assert np.allclose(points["r"].ravel(), np.linspace(0, 1, 30), atol=1e-15)


def test_the_wave_lattice_is_even():
    x = np.asarray(pn.problems.Wave1D().points(300)["r"])
    # every cell of a 5 x 5 grid holds close to its share of 12
    counts, _, _ = np.histogram2d(x[:, 0], x[:, 1], bins=5, range=[[0, 1], [0, 1]])
    assert counts.min() >= 11
    assert counts.max() <= 13


def test_exact_at_one_point_and_at_many():
    problem = pn.problems.Wave1D()
    x = problem.grid(4)
    assert x.shape == (16, 2)
    assert problem.exact(x).shape == (16,)
    assert problem.exact(x[5]) == problem.exact(x)[5]


def test_problems_of_one_kind_share_their_operators():
    # the kernel does not depend on a, so compiled code for it should not either
    assert pn.problems.Poisson1D(a=1).operators == pn.problems.Poisson1D(a=4).operators


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: p.points(0), ValueError, "n for condition 'u': expected a positive integer, got 0"),
        (lambda p: p.points(2.5), TypeError, "n for condition 'u': expected a positive integer, got 2.5"),
        (
            lambda p: p.points({"u": 3}),
            ValueError,
            r"n: expected the conditions \['u', 'r'\], got .* \(missing \['r'\]",
        ),
        (lambda p: p.grid(-1), ValueError, "n: expected a positive integer, got -1"),
        (lambda p: pn.problems.Poisson1D(a=float("nan")), ValueError, "a: expected a finite number, got nan"),
        (lambda p: pn.problems.Poisson1D(a="4"), TypeError, "a: expected a finite number, got '4'"),
        (lambda p: pn.Problem({}, (0,), (1,)), ValueError, "conditions: expected at least one condition, got none"),
        (lambda p: pn.Problem(p.conditions, (1,), (0,)), ValueError, "lower, upper: expected corners of a box"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(pn.problems.Poisson1D())


def test_operators_take_any_function():
    assert jnp.isclose(pn.problems.Poisson1D().operators["r"](lambda x: x[0] ** 2, jnp.array([0.3])), 2.0)


def line(n, key):
    return jnp.linspace(0, 1, n)[:, None]


def one_condition(target, operator=lambda u, x: u(x)):
    return pn.Problem({"u": pn.Condition(operator, target, line)}, (0.0,), (1.0,))


@pytest.mark.parametrize(
    "target", [2, 2.0, np.float32(2), jnp.asarray(2.0), np.full(5, 2), jnp.full(5, 2.0), [2.0] * 5]
)
def test_a_target_may_be_a_number_or_one_value_per_point(target):
    points, u = line(5, None), lambda x: x[0] ** 2
    expected = one_condition(lambda x: 2.0).residuals(u, {"u": points})["u"]
    np.testing.assert_array_equal(one_condition(target).residuals(u, {"u": points})["u"], expected)
    single = one_condition(target).residuals(u, {"u": points.astype(jnp.float32)})["u"]
    assert single.dtype == jnp.float32


def test_a_target_of_a_system_may_be_a_number_or_one_row_per_point():
    operator = pn.System(lambda u, x: jnp.stack([u(x), 3 * u(x)]), 2)
    points, u = {"u": line(3, None)}, lambda x: x[0]
    expected = one_condition(lambda x: jnp.full(2, 0.5), operator).residuals(u, points)["u"]
    for target in (0.5, np.full((3, 2), 0.5)):
        np.testing.assert_array_equal(one_condition(target, operator).residuals(u, points)["u"], expected)
    with pytest.raises(ValueError, match=r"target: expected .* in an array of shape \(3, 2\), got shape \(3,\)"):
        one_condition(np.zeros(3), operator).residuals(u, points)


def test_values_change_only_with_the_condition():
    """The condition keeps a copy: changing an array in place afterwards changes no target."""
    values = np.zeros(3)
    problem = one_condition(values)
    values[:] = 1.0
    assert not problem.residuals(lambda x: 0.0 * x[0], {"u": line(3, None)})["u"].any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: one_condition("0"), TypeError, "target: expected a function, a number or an array of real numbers"),
        (lambda: one_condition(None), TypeError, "target: expected a function, a number or an array of real numbers"),
        (lambda: one_condition(1j), TypeError, "target: expected a function, a number or an array of real numbers"),
        (lambda: one_condition([[0.0], [1.0, 2.0]]), TypeError, "target: expected a function, a number or an array"),
        (lambda: one_condition(float("nan")), ValueError, "target: expected finite numbers, got NaN or infinity"),
        (lambda: one_condition(pn.MLP), TypeError, "target: expected a function, .*, got the class MLP"),
        (
            lambda: one_condition(np.zeros((5, 1))).residuals(lambda x: x[0], {"u": line(5, None)}),
            ValueError,
            r"conditions\['u'\].target: expected .* in an array of shape \(5,\), got shape \(5, 1\)",
        ),
        (
            lambda: one_condition(np.zeros(5)).residuals(lambda x: x[0], {"u": line(6, None)}),
            ValueError,
            r"shape \(6,\), got shape \(5,\); values belong to fixed points",
        ),
        (
            lambda: one_condition(lambda x: x).residuals(lambda x: x[0], {"u": line(5, None)}),
            ValueError,
            r"conditions\['u'\].target: expected shape \(\) at a point, got \(1,\)",
        ),
        (
            lambda: one_condition(lambda x: None).residuals(lambda x: x[0], {"u": line(5, None)}),
            TypeError,
            r"conditions\['u'\].target: expected a function x -> array, got one that returns NoneType",
        ),
        (
            lambda: one_condition(np.zeros(5)).conditions["u"].residual(lambda x: x[0], jnp.zeros(1)),
            ValueError,
            r"target: expected a function or a number .* got values of shape \(5,\)",
        ),
        (
            lambda: pn.Problem({"u": lambda u, x: u(x)}, (0.0,), (1.0,)),
            TypeError,
            r"conditions\['u'\]: expected a Condition, got <function",
        ),
        (
            lambda: pn.Problem({"u": pn.Condition(lambda u, x: u(x), 0.0, None)}, (0.0,), (1.0,)).points(3),
            TypeError,
            r"conditions\['u'\].sampler: expected a function \(n, key\) -> \(n, d\) array, got None",
        ),
        (
            lambda: pn.Problem({"u": pn.Condition(lambda u, x: u(x), 0.0, pn.MLP)}, (0.0,), (1.0,)).points(3),
            TypeError,
            r"conditions\['u'\].sampler: expected a function .*, got the class MLP",
        ),
        (
            lambda: pn.RandomPoints(pn.problems.Poisson1D, 3),
            TypeError,
            "problem: expected a pinnntk_lib.Problem, got <",
        ),
    ],
)
def test_bad_conditions(call, error, message):
    with pytest.raises(error, match=message):
        call()
