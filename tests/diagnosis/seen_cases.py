"""PINNs that fail for a known cause, and innocents: the cases that the rules of ``Diagnosis.findings`` were made with.

Each is a function that returns ``(apply, params, problem, points, optimizer)``. Those in mended_cases.py and
blind_cases.py were written by someone who had not seen the rules.
"""

import jax
import jax.numpy as jnp
import optax

import pinnntk_lib as pn

KEY, ADAM = jax.random.key(0), optax.adam(1e-3)
CASES = {}


def case(cause):
    """Register a case under its function's name, with its cause; None for an innocent."""

    def registered(make):
        CASES[make.__name__] = cause, make
        return make

    return registered


def value(u, x):
    return u(x)


def line(lower=0.0, upper=1.0):
    def sampler(n, key):
        t = jnp.linspace(0, 1, n)[:, None] if key is None else jax.random.uniform(key, (n, 1))
        return lower + (upper - lower) * t

    return sampler


def at(*places):
    return lambda n, key: jnp.array([[place] for place in places])


def network(width=30, depth=2, dim=1, shift=0.5, scale=0.3, **options):
    return pn.MLP(width, depth, dim, shift=shift, scale=scale, **options)


def decay(model, size=1.0, start=0.0, length=1.0):
    """Return a case with ``length u_x + u = 0``, u = size at the start."""
    problem = pn.Problem(
        {
            "u": pn.Condition(value, size, at(start)),
            "r": pn.Condition(lambda u, x: length * pn.d(u, 0)(x) + u(x), 0.0, line(start, start + length)),
        },
        (start,),
        (start + length,),
        lambda x: size * jnp.exp((start - x[..., 0]) / length),
    )
    return model.apply, model.init(KEY), problem, problem.points({"u": 1, "r": 50}), ADAM


def single(tree):
    return jax.tree.map(lambda leaf: leaf.astype("float32"), tree)


@case(None)
def a_decay():
    return decay(network())


@case(None)
def heat_in_single_precision():
    problem = pn.problems.Heat1D()
    points = problem.points({"u": 100, "r": 200})
    model = pn.MLP(30, 2, 2, parameterization="standard", **pn.normalization(points["r"]))
    return model.apply, single(model.init(KEY)), problem, single(points), ADAM


@case(None)
def a_hard_constraint():
    model = network()
    r = pn.Condition(lambda u, x: pn.dd(u, 0)(x), lambda x: -(jnp.pi**2) * jnp.sin(jnp.pi * x[0]), line())
    problem = pn.Problem({"r": r}, (0.0,), (1.0,), lambda x: jnp.sin(jnp.pi * x[..., 0]))

    def apply(params, x):
        return x[0] * (1 - x[0]) * model.apply(params, x)

    return apply, model.init(KEY), problem, problem.points(50), ADAM


@case("unreachable condition")
def a_hard_constraint_of_the_wrong_value():
    apply, params, problem, points, optimizer = a_hard_constraint()
    ends = pn.Condition(value, 1.0, at(0.0, 1.0))
    problem = pn.Problem({"ends": ends, **problem.conditions}, problem.lower, problem.upper)
    return apply, params, problem, problem.points({"ends": 2, "r": 50}), optimizer


@case("unreachable condition")
def a_second_derivative_of_a_relu_network():
    conditions = {
        "u": pn.Condition(value, 0.0, line()),
        "r": pn.Condition(lambda u, x: pn.dd(u, 0)(x), 1.0, line()),
    }
    problem, model = pn.Problem(conditions, (0.0,), (1.0,)), pn.MLP(10, activation=jax.nn.relu)
    return model.apply, model.init(KEY), problem, problem.points(5), 1e-3


def inverse_heat(start):
    problem = pn.problems.InverseHeat1D(0.1)
    points = problem.points({"data": 60, "r": 150})
    model = pn.MLP(30, 2, 2, **pn.normalization(points["r"]))

    def apply(params, x):
        return jnp.stack([model.apply(params["network"], x), params["log_diffusivity"]])

    return apply, {"network": model.init(KEY), "log_diffusivity": jnp.asarray(start)}, problem, points, ADAM


@case("stuck parameter")
def a_coefficient_that_starts_at_minus_12():
    return inverse_heat(-12.0)


@case("stuck parameter")
def a_coefficient_that_starts_at_minus_8():
    return inverse_heat(-8.0)


@case("output scale")
def values_of_300():
    return decay(network(parameterization="standard"), size=300.0)


@case("output scale")
def values_of_a_thousandth():
    return decay(network(parameterization="standard"), size=1e-3)


@case("input scale")
def a_length_of_1000():
    return decay(pn.MLP(30, 2), length=1000.0)


@case("input scale")
def a_length_of_1e_4():
    return decay(pn.MLP(30, 2), length=1e-4)


@case("input scale")
def years_since_the_year_zero():
    return decay(pn.MLP(30, 2), start=1000.0)


@case("dead network")
def relu_units_that_are_dead():
    model = network(activation=jax.nn.relu)
    apply, params, *rest = decay(model)
    params[0]["b"] = params[0]["b"] - 50
    return apply, params, *rest


@case("undetermined")
def slopes_alone():
    conditions = {
        "ends": pn.Condition(lambda u, x: pn.d(u, 0)(x), 0.0, at(0.0, 1.0)),
        "r": pn.Condition(lambda u, x: pn.dd(u, 0)(x), lambda x: jnp.cos(jnp.pi * x[0]), line()),
    }
    problem, model = pn.Problem(conditions, (0.0,), (1.0,)), network()
    return model.apply, model.init(KEY), problem, problem.points({"ends": 2, "r": 50}), ADAM


@case("undetermined")
def a_wave_without_its_velocity():
    whole = pn.problems.Wave1D()
    conditions = {name: condition for name, condition in whole.conditions.items() if name != "ut"}
    problem = pn.Problem(conditions, whole.lower, whole.upper, whole.exact)
    points = problem.points({"u": 100, "r": 200})
    model = pn.MLP(30, 2, 2, **pn.normalization(points["r"]))
    return model.apply, model.init(KEY), problem, points, ADAM


@case("undetermined")
def heat_without_its_start():
    def sides(n, key):
        t = jnp.linspace(0, 1, n // 2)
        return jnp.concatenate([jnp.stack([t, jnp.full(n // 2, place)], 1) for place in (0.0, 1.0)])

    heat = pn.problems.Heat1D()
    conditions = {"b": pn.Condition(value, 1.0, sides), "r": heat.conditions["r"]}
    problem = pn.Problem(conditions, heat.lower, heat.upper)
    points = problem.points({"b": 60, "r": 200})
    model = pn.MLP(30, 2, 2, **pn.normalization(points["r"]))
    return model.apply, model.init(KEY), problem, points, ADAM


def vibration(exact=None):
    """Return the eigenvalue problem ``u_xx + pi^2 u = 0``, u = 0 at both ends."""
    conditions = {
        "ends": pn.Condition(value, 0.0, at(0.0, 1.0)),
        "r": pn.Condition(lambda u, x: pn.dd(u, 0)(x) + jnp.pi**2 * u(x), 0.0, line()),
    }
    problem, model = pn.Problem(conditions, (0.0,), (1.0,), exact), network()
    return model.apply, model.init(KEY), problem, problem.points({"ends": 2, "r": 40}), ADAM


@case("trivial solution")
def an_eigenvalue_problem():
    return vibration()


@case("trivial solution")
def an_eigenvalue_problem_after_training():
    apply, params, problem, points, optimizer = vibration(lambda x: jnp.sin(jnp.pi * x[..., 0]))
    result = pn.train(apply, params, problem, points, pn.kernel_gradient_descent(), 20, log_every=20, progress=False)
    return apply, result.params, problem, points, optimizer


@case("learning rate")
def a_learning_rate_three_times_too_large():
    return *a_decay()[:4], 0.9  # the largest stable one is 0.3


@case("learning rate")
def a_learning_rate_a_million_times_too_small():
    return *a_decay()[:4], 3e-7


@case("precision")
def all_that_single_precision_can_do():
    apply, params, problem, points, optimizer = a_decay()
    params, points = single(params), single(points)
    result = pn.train(apply, params, problem, points, pn.kernel_gradient_descent(), 30, log_every=30, progress=False)
    return apply, result.params, problem, points, optimizer


@case("too few points")
def sixty_points_at_random():
    """Poisson's equation is met at 60 points that leave gaps: the error is 0.04; on 400 points of a lattice, 5e-8."""

    def exact(x):
        return jnp.sin(2 * jnp.pi * x[..., 0]) * jnp.sin(2 * jnp.pi * x[..., 1])

    def inside(n, key):
        return jax.random.uniform(KEY if key is None else key, (n, 2))

    model = pn.MLP(50, 2, 2, shift=0.5, scale=0.3)
    r = pn.Condition(lambda u, x: pn.laplacian(u)(x), lambda x: -8 * jnp.pi**2 * exact(x), inside)
    problem = pn.Problem({"r": r}, (0.0, 0.0), (1.0, 1.0), exact)

    def apply(params, x):
        return 16 * jnp.prod(x * (1 - x)) * model.apply(params, x)

    start, points = model.init(KEY), problem.points(60)
    result = pn.train(apply, start, problem, points, pn.kernel_gradient_descent(), 40, log_every=40, progress=False)
    return apply, result.params, problem, points, ADAM


@case("imbalance")
def boundary_values_beside_a_large_factor():
    conditions = {
        "b": pn.Condition(value, lambda x: x[0], at(0.0, 1.0)),
        "r": pn.Condition(lambda u, x: 50 * pn.dd(u, 0)(x), lambda x: -50 * jnp.pi**2 * jnp.sin(jnp.pi * x[0]), line()),
    }
    problem, model = pn.Problem(conditions, (0.0,), (1.0,)), network()
    return model.apply, model.init(KEY), problem, problem.points({"b": 2, "r": 50}), ADAM


@case("imbalance")
def the_paper_s_model_problem():
    problem = pn.problems.Poisson1D(a=4)
    points = problem.points(50)
    model = pn.MLP(100, **pn.normalization(points["r"]))
    return model.apply, model.init(KEY), problem, points, 1e-5


@case("slow modes")
def ten_waves():
    k = 20 * jnp.pi
    problem = pn.Problem({"u": pn.Condition(value, lambda x: jnp.sin(k * x[0]), line())}, (0.0,), (1.0,))
    model = network()
    return model.apply, model.init(KEY), problem, problem.points(100), ADAM


@case("slow modes")
def a_fast_flow_after_training():
    problem = pn.problems.Advection1D(c=30.0)
    points = problem.points({"u": 60, "b": 60, "r": 300})
    model = pn.MLP(30, 2, 2, **pn.normalization(points["r"]))
    setting = model.apply, model.init(KEY), problem, points
    result = pn.train(*setting, ADAM, 2000, pn.NTKWeights(), log_every=2000, progress=False)
    return model.apply, result.params, problem, points, ADAM
