"""Points that carry data, through every function that takes points."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pinnntk_lib as pn
from conftest import same


def ring(n, key):
    angle = 2 * jnp.pi * (jnp.arange(n) / n if key is None else jax.random.uniform(key, (n,)))
    x = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return pn.Points(x, normal=x, value=2.0 * jnp.ones(n))


def inside(n, key):
    x = pn.problems.Ball().inside(n, key)
    k = 1 + x[:, 0] ** 2
    slope = jnp.stack([2 * x[:, 0], 0 * x[:, 0]], axis=1)
    return pn.Points(x, k=k, slope=slope, f=2 * x[:, 0] * slope[:, 0] + 4 * k)


def flux(u, p):
    return pn.gradient(u)(p.x) @ p.normal


def diffusion(u, p):
    return p.k * pn.laplacian(u)(p.x) + p.slope @ pn.gradient(u)(p.x)


def at_center(u, x):
    return u(x)


@pytest.fixture
def problem():
    """div(k grad u) = f in a disc, with a coefficient and normals at the points; u = x^2 + y^2."""
    return pn.Problem(
        {
            "flux": pn.Condition(flux, lambda p: p.value, ring),
            "u": pn.Condition(at_center, 0.0, lambda n, key: jnp.zeros((n, 2))),
            "r": pn.Condition(diffusion, lambda p: p.f, inside),
        },
        (-1.0, -1.0),
        (1.0, 1.0),
        lambda x: jnp.sum(x**2, axis=-1),
    )


@pytest.fixture
def setting(problem):
    model = pn.MLP(12, dim=2)
    return model.apply, model.init(jax.random.key(0)), problem, problem.points({"flux": 9, "u": 1, "r": 14})


def by_hand(apply, params, operators, points):
    """Return the Jacobian, one gradient at a time."""

    def gradient(name, p):
        g = jax.grad(lambda params: operators[name](lambda x: apply(params, x), p))(params)
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(g)])

    return jnp.stack([gradient(name, points[name][i]) for name in points for i in range(len(points[name]))])


def test_the_exact_solution_has_no_residuals(problem):
    residuals = problem.residuals(problem.exact, problem.points(20))
    assert all(abs(r).max() < 1e-12 for r in residuals.values())


def test_kernels_are_those_by_hand(setting):
    apply, params, problem, points = setting
    J = by_hand(apply, params, problem.operators, points)
    K = pn.ntk(*setting)
    assert K.sizes == (("flux", 9), ("u", 1), ("r", 14))
    assert np.allclose(K.matrix, J @ J.T, rtol=1e-12, atol=1e-12 * abs(K.matrix).max())
    diagonal = jnp.concatenate(list(pn.ntk_diagonal(*setting).values()))
    assert np.allclose(diagonal, jnp.diagonal(K.matrix), rtol=1e-12)
    v = jnp.arange(24.0)
    assert np.allclose(pn.ntk_vector_product(*setting, v), K.matrix @ v, rtol=1e-10)
    values, _ = pn.ntk_eigenpairs(*setting, 3, jax.random.key(1))
    assert np.allclose(values, K.eigvalsh()[:3], rtol=1e-10)


def test_cross_kernels(setting, problem):
    apply, params, _, points = setting
    others = {"flux": ring(3, jax.random.key(1)), "u": jnp.ones((2, 2))}
    cross = pn.ntk(*setting, other_points=others)
    J, J_other = (by_hand(apply, params, problem.operators, x) for x in (points, others))
    assert np.allclose(cross.matrix, J @ J_other.T, rtol=1e-12, atol=1e-12 * abs(cross.matrix).max())
    with pytest.raises(ValueError, match=r"points\['flux'\]: expected data .*normal.*, got None"):
        pn.ntk(*setting, other_points={"flux": jnp.ones((2, 2))})


@pytest.mark.slow
def test_training_follows_the_gradient(setting):
    apply, params, problem, points = setting
    found = pn.train(*setting, optax.sgd(1e-3), 1).params

    def loss(params):
        return sum(jnp.mean(r**2) for r in problem.residuals(lambda x: apply(params, x), points).values())

    expected = jax.tree.map(lambda leaf, g: leaf - 1e-3 * g, params, jax.grad(loss)(params))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        assert np.allclose(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [{"flux": 9, "u": 1, "r": 14}, {"flux": 30, "u": 1, "r": 60}])
def test_kernel_descent_solves_it(setting, sizes):
    apply, params, problem, _ = setting
    result = pn.train(apply, params, problem, problem.points(sizes), pn.kernel_gradient_descent(), 60)
    losses = {name: values[-1] for name, values in result.history["losses"].items()}
    assert sum(losses.values()) < 1e-4


@pytest.mark.parametrize("sampler", [pn.RandomPoints, pn.ResidualPoints])
def test_fresh_points_bring_their_data(setting, sampler, tmp_path):
    apply, params, problem, points = setting
    fresh = sampler(problem, {"flux": 9, "u": 1, "r": 14})
    held_out = {"r": inside(20, jax.random.key(8))}
    weights = pn.NTKWeights(every=10, points=points)

    def train(steps, **more):
        more |= {"key": jax.random.key(0), "held_out": held_out, "log_every": 20}
        return pn.train(apply, params, problem, fresh, optax.adam(1e-2), steps, weights, **more)

    whole = train(40)
    train(20, checkpoints=tmp_path / "run")
    resumed = train(40, resume=tmp_path / "run")
    assert same(whole.params, resumed.params)
    r = problem.residuals(lambda x: apply(whole.params, x), {**points, **held_out})["r"]
    assert whole.history["held_out"]["r"][-1] == pytest.approx(float(jnp.mean(r**2)), rel=1e-10)


def test_minibatches_keep_data_with_their_points(problem):
    points = problem.points({"flux": 20, "u": 1, "r": 30})
    batch = pn.Minibatches(points, {"flux": 5, "u": 1, "r": 7})(jax.random.key(0))
    assert len(batch["flux"]) == 5
    assert np.allclose(batch["flux"].x, batch["flux"].normal)
    assert np.allclose(batch["r"].k, 1 + batch["r"].x[:, 0] ** 2)
    assert len(np.unique(batch["r"].x, axis=0)) == 7


@pytest.mark.slow
def test_diagnosis_and_comparison(setting):
    found = pn.diagnose(*setting, optimizer=optax.adam(1e-3))
    assert found.sizes == {"flux": 9, "u": 1, "r": 14}
    assert set(found.evidence.held_out) == {"flux", "r"}
    assert "24 residuals" in str(found)
    sampled = pn.diagnose(*setting[:3], setting[2].points({"flux": 100, "u": 1, "r": 200}), max_points=100)
    assert sampled.sizes["r"] == 200
    compared = pn.compare(*setting, seconds=0.3, progress=False)
    descent = compared.trials["kernel descent"].worst
    assert descent[-1] < 0.3 * descent[0]


def test_measured_data_with_repeats_and_noise_levels():
    """Two values at each point, the second less certain: the fit is the weighted mean."""
    x = jnp.repeat(jnp.linspace(0, 1, 6), 2)[:, None]
    sigma = jnp.tile(jnp.array([1.0, 2.0]), 6)
    value = jnp.tile(jnp.array([0.0, 1.0]), 6)
    data = pn.Points(x, value=value, sigma=sigma)
    condition = pn.Condition(lambda u, p: u(p.x) / p.sigma, lambda p: p.value / p.sigma, lambda n, key: data)
    problem = pn.Problem({"data": condition}, (0.0,), (1.0,))
    model = pn.MLP(20)
    setting = model.apply, model.init(jax.random.key(0)), problem, {"data": data}
    result = pn.train(*setting, pn.kernel_gradient_descent(), 30)
    u = jax.vmap(lambda x: model.apply(result.params, x))(x)
    assert np.allclose(u, 0.2, atol=1e-4)  # (0/1 + 1/4) / (1/1 + 1/4)


def test_systems_have_data_too():
    points = {"r": pn.Points(jnp.ones((3, 1)), a=jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))}
    K = pn.ntk(lambda w, x: w * x[0], jnp.ones(()), {"r": pn.System(lambda u, p: p.a * u(p.x), 2)}, points)
    row = np.arange(1.0, 7)
    assert np.allclose(K.matrix, np.outer(row, row))


def test_a_slab_of_time_moves_points_with_their_data():
    def start(n, key):
        x = jnp.stack([jnp.zeros(n), jnp.linspace(0, 1, n)], axis=1)
        return pn.Points(x, value=x[:, 1])

    value = pn.Condition(lambda u, p: u(p.x), lambda p: p.value, start)
    problem = pn.Problem({"u": value}, (0.0, 0.0), (1.0, 1.0))
    slab = pn.problems.time_slab(problem, 0.5, 1.0, ["u"], lambda x: 3.0 * x[1])
    points = slab.points(4)["u"]
    assert np.allclose(points.x[:, 0], 0.5)
    assert np.allclose(points.value, points.x[:, 1])
    assert np.allclose(jax.vmap(slab.conditions["u"].target)(points), 3 * points.value)


def test_single_precision_stays(setting):
    apply, params, problem, points = setting
    params, points = jax.tree.map(lambda leaf: leaf.astype("float32"), (params, points))
    assert pn.ntk(apply, params, problem, points).matrix.dtype == "float32"
    assert jax.tree.leaves(pn.train(apply, params, problem, points, optax.sgd(1e-3), 2).params)[0].dtype == "float32"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: pn.Points(np.ones(3)),
            ValueError,
            r"x: expected a non-empty array of shape \(n, d\), got",
        ),
        (
            lambda: pn.Points(np.ones((3, 1)), a=np.ones(2)),
            ValueError,
            r"a: expected shape \(3, ...\), one row per",
        ),
        (lambda: pn.Points(np.ones((1, 1)), a=[np.nan]), ValueError, "a: expected finite numbers, got NaN or infinity"),
        (lambda: pn.Points(np.ones((1, 1)), a=[1j]), TypeError, "a: expected an array of real numbers, got complex128"),
        (
            lambda: pn.Points(np.ones((1, 1)), data=[1]),
            ValueError,
            r"data: expected names other than",
        ),
        (
            lambda: pn.Points(np.ones((1, 1)), a=[1]).b,
            AttributeError,
            r"expected x or one of the data \['a'\]",
        ),
    ],
)
def test_what_points_refuse(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_an_operator_that_misreads_its_point_is_named(setting):
    apply, params, problem, points = setting
    wrong = {**problem.operators, "flux": lambda u, p: pn.gradient(u)(p.x) @ p.norm}
    with pytest.raises(ValueError, match=r"conditions\['flux'\] at x of shape \(2,\): could not be.*'norm'"):
        pn.ntk(apply, params, wrong, points)
    nan = pn.Points(points["r"].x.at[3].set(jnp.nan), **points["r"].data)
    with pytest.raises(ValueError, match=r"points\['r'\]: expected finite coordinates"):
        pn.ntk(apply, params, problem, {**points, "r": nan})


# ---------------------------------------------------------------- samplers that do not do as they are told


def test_a_sampler_that_ignores_its_key_is_noticed():
    def same_points(n, key):
        return jnp.linspace(0, 1, n)[:, None]

    problem = pn.Problem({"r": pn.Condition(at_center, 0.0, same_points)}, (0.0,), (1.0,))
    with pytest.warns(UserWarning, match=r"\['r'\].sampler: expected new points for each key, got the same 8"):
        pn.RandomPoints(problem, 8)


def test_nothing_is_said_of_good_samplers(recwarn):
    for problem in (pn.problems.Poisson1D(), pn.problems.Wave1D(), pn.problems.Schrodinger1D()):
        pn.RandomPoints(problem, 10)
        pn.ResidualPoints(problem, 10)
        problem.points(11)
    assert [str(warning.message) for warning in recwarn if warning.category is UserWarning] == []


def test_a_wrong_number_of_points_is_noticed():
    def four_sides(n, key):
        return jnp.zeros((4 * (n // 4), 2))

    problem = pn.Problem({"u": pn.Condition(at_center, 0.0, four_sides)}, (0.0, 0.0), (1.0, 1.0))
    with pytest.warns(UserWarning, match=r"conditions\['u'\].sampler: expected 10 points, got shape \(8, 2\)"):
        problem.points(10)
