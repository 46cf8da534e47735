"""The infinite-width kernels agree with closed forms, independent integration and finite networks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pinnntk_lib as pn
from pinnntk_lib.limit import nngp, nngp_function, ntk, ntk_function
from pinnntk_lib.limit._hermite import in_double_precision


def relative(a, b):
    return float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())


def value(u, x):
    return u(x)


def second(u, x):
    return pn.dd(u, 0)(x)


def fourth(u, x):
    return pn.dd(pn.dd(u, 0), 0)(x)


def wave(u, x):
    return pn.dd(u, 0)(x) - 4.0 * pn.dd(u, 1)(x)


# Closed forms of E[phi phi] and E[phi' phi'] (erf: Williams 1997; sin: from cos(z - w) and cos(z + w))
CLOSED = {
    "erf": (
        lambda q, p, c: 2 / jnp.pi * jnp.arctan2(2 * c, jnp.sqrt((1 + 2 * q) * (1 + 2 * p) - 4 * c**2)),
        lambda q, p, c: 4 / jnp.pi / jnp.sqrt((1 + 2 * q) * (1 + 2 * p) - 4 * c**2),
    ),
    "sin": (
        lambda q, p, c: jnp.exp(-(q + p) / 2) * jnp.sinh(c),
        lambda q, p, c: jnp.exp(-(q + p) / 2) * jnp.cosh(c),
    ),
}


def closed(model, tangent=True, w=1.0, b=1.0):
    """Return the kernel by recursion over the layers, with the expectations in closed form."""
    both, slopes = CLOSED[model.activation]
    shift, scale = jnp.array(model.shift), jnp.array(model.scale)

    def kernel(x, y):
        x, y = (x - shift) / scale, (y - shift) / scale
        q, p, c = (w * s @ t / len(x) + b for s, t in ((x, x), (y, y), (x, y)))
        theta = x @ y / len(x) + 1
        for _ in range(model.depth):
            theta = both(q, p, c) + 1 + w * slopes(q, p, c) * theta
            q, p, c = (w * both(*v) + b for v in ((q, q, q), (p, p, p), (q, p, c)))
        return theta if tangent else c

    return kernel


def applied(kernel, operators, points, others=None):
    """Compute the matrix by definition: apply every operator to both arguments by nested differentiation."""

    def block(a, b, xs, ys):
        def entry(x, y):
            return a(lambda s: b(lambda t: kernel(s, t), y), x)

        return jax.jit(jax.vmap(jax.vmap(entry, (None, 0)), (0, None)))(xs, ys)

    others = points if others is None else others
    return np.block([[block(operators[a], operators[b], points[a], others[b]) for b in others] for a in points])


X = {"u": jnp.array([[0.0], [1.0]]), "r": jnp.array([[0.0], [0.31], [0.7]])}
SECOND = {"u": value, "r": second}


# ---------------------------------------------------------------- against closed forms


@pytest.mark.parametrize(("activation", "depth"), [("erf", 1), ("erf", 2), ("sin", 1), ("sin", 3)])
def test_closed_forms(activation, depth):
    model = pn.MLP(1, depth, 1, activation)
    for tangent, kernel in ((True, ntk), (False, nngp)):
        K = kernel(model, SECOND, X, rtol=1e-14)
        expected = applied(closed(model, tangent), SECOND, X)
        assert relative(K.matrix, expected) < 1e-12
        for a in K.names:
            for b in K.names:
                assert relative(K.block(a, b), expected[K.rows(a), K.rows(b)]) < 1e-12


@pytest.mark.parametrize("activation", ["erf", "sin"])
def test_closed_forms_with_normalised_inputs(activation):
    """The larger variance of normalised inputs makes K_rr a difference of numbers a hundred times as large.

    With the locked packages the two differ by 6e-13. With the oldest the limit changes, to a difference of 3.2e-12.
    """
    model = pn.MLP(1, 1, 1, activation, shift=0.5, scale=0.29)
    assert relative(ntk(model, SECOND, X, rtol=1e-14).matrix, applied(closed(model), SECOND, X)) < 5e-12


@pytest.mark.parametrize("activation", ["tanh", "erf"])
@pytest.mark.parametrize("rtol", [1e-6, 1e-9])
def test_the_error_is_what_it_says(activation, rtol):
    model = pn.MLP(1, 2, 1, activation, shift=0.5, scale=0.29)
    K, accurate = ntk(model, SECOND, X, rtol=rtol), ntk(model, SECOND, X, rtol=1e-14)
    diagonal = jnp.diag(accurate.matrix)
    error = float(abs((K.matrix - accurate.matrix) / jnp.sqrt(jnp.outer(diagonal, diagonal))).max())
    assert 0.5 * K.error < error < 2 * K.error


def test_the_error_of_a_cross_kernel_is_that_of_the_outermost_points_of_either_side():
    model = pn.MLP(1, 2, 1, shift=0.5, scale=0.29)
    inner = {name: 0.5 + 0.1 * (x - 0.5) for name, x in X.items()}
    alone, rows, columns = (
        ntk(model, SECOND, points, other_points=others, rtol=1e-6).error
        for points, others in ((X, None), (X, inner), (inner, X))
    )
    assert alone == rows == columns > 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "depth"), [("erf", 1), ("sin", 2)])
def test_closed_forms_in_two_dimensions(activation, depth):
    model = pn.MLP(1, depth, 2, activation, shift=(0.5, 0.4), scale=(0.3, 0.5))
    operators = {"u": value, "ut": lambda u, x: pn.d(u, 0)(x), "r": wave}
    points = pn.problems.Wave1D().points(4, jax.random.key(0))
    K = ntk(model, operators, points, rtol=1e-14)
    assert relative(K.matrix, applied(closed(model), operators, points)) < 1e-12


def test_given_variances():
    model = pn.MLP(1, 2, 1, "erf", shift=0.5, scale=0.29)
    K = ntk(model, SECOND, X, weight_variance=0.7, bias_variance=0.2, rtol=1e-14)
    assert relative(K.matrix, applied(closed(model, w=0.7, b=0.2), SECOND, X)) < 1e-12


@pytest.mark.slow
def test_without_biases_at_the_origin():
    """Without biases, the pre-activation at the origin has zero variance; nothing may divide by it."""
    model, points = pn.MLP(1, 1, 1, "sin"), {"u": X["u"], "r": jnp.array([[0.0], [1e-3], [0.5]])}
    K = ntk(model, SECOND, points, bias_variance=0.0, rtol=1e-14)
    assert relative(K.matrix, applied(closed(model, b=0.0), SECOND, points)) < 1e-12
    theta = ntk_function(model, bias_variance=0.0, rtol=1e-14)
    assert relative(applied(theta, SECOND, points), K.matrix) < 1e-12


def test_fourth_derivatives():
    """With variances 1 + x^2 and 1 + y^2, E[sin sin] is a difference of two Gaussians, in x - y and in x + y."""
    x = X["r"][:, 0]

    def eighth(s):
        return np.polynomial.hermite_e.hermeval(s, [0] * 8 + [1]) * np.exp(-(s**2) / 2)

    expected = 0.5 * (eighth(x[:, None] - x) - np.exp(-2) * eighth(x[:, None] + x))
    K = nngp(pn.MLP(1, 1, 1, "sin"), {"r": fourth}, {"r": X["r"]}, rtol=1e-14)
    assert relative(K.matrix, expected) < 1e-12


# ---------------------------------------------------------------- tanh, by integration over w and b


def by_integration(x, y):
    """Compute the paper's integrals K_uu, K_ur, K_rr of one hidden tanh layer, all N(0, 1), by the trapezoidal rule."""
    g = np.linspace(-9, 9, 601)
    density = np.exp(-(g**2) / 2) / math.sqrt(2 * math.pi) * (g[1] - g[0])
    w, b = np.meshgrid(g, g, indexing="ij")
    weight = np.outer(density, density)

    def derivatives(x):
        t = np.tanh(w * x + b)
        t1 = 1 - t**2
        t2 = -2 * t * t1
        t3 = -2 * t1**2 - 2 * t * t2
        # derivatives of u = v t by v, w, b (these two divided by v) and the last bias; then of u_xx = v w^2 t''
        return (t, x * t1, t1, 1.0), (w**2 * t2, 2 * w * t2 + w**2 * x * t3, w**2 * t3, 0.0)

    def inner(f, g):
        return sum((weight * p * q).sum() for p, q in zip(f[:3], g[:3])) + f[3] * g[3]

    (u, r), (v, s) = derivatives(x), derivatives(y)
    return [inner(u, v), inner(u, s), inner(r, s)]


@pytest.mark.parametrize(("x", "y"), [(0.3, 0.3), (0.0, 1.0), (0.9, 0.2)])
def test_tanh_against_integration(x, y):
    points = {"u": jnp.array([[x], [y]]), "r": jnp.array([[x], [y]])}
    K = ntk(pn.MLP(1), SECOND, points)
    found = [K.block(a, b)[0, 1] for a, b in ("uu", "ur", "rr")]
    np.testing.assert_allclose(found, by_integration(x, y), rtol=1e-8)
    assert K.error < 1e-10


@pytest.mark.parametrize("activation", ["tanh", jax.nn.gelu, jax.nn.softplus, lambda z: jnp.exp(-(z**2))])
def test_activations_against_integration(activation):
    """Odd, even and other activations. E[phi(z) phi(w)] by a product rule: z = s, w = rho s + sqrt(1 - rho^2) t."""
    model = pn.MLP(1, 1, 1, activation)
    x, y = jnp.array([0.4]), jnp.array([-0.8])
    g = np.linspace(-10, 10, 801)
    weights = np.exp(-(g**2) / 2) / math.sqrt(2 * math.pi) * (g[1] - g[0])
    q, p, c = (float(a @ b) + 1 for a, b in ((x, x), (y, y), (x, y)))
    rho = c / math.sqrt(q * p)
    f = jnp.tanh if activation == "tanh" else activation
    z, w = f(math.sqrt(q) * g)[:, None], f(math.sqrt(p) * (rho * g[:, None] + math.sqrt(1 - rho**2) * g))
    expected = weights @ (np.asarray(z) * np.asarray(w)) @ weights + 1
    assert np.isclose(nngp_function(model)(x, y), expected, rtol=1e-9)
    assert np.isclose(nngp(model, {"u": value}, {"u": jnp.stack([x, y])}).matrix[0, 1], expected, rtol=1e-9)


# ---------------------------------------------------------------- the kernel as a function and as a matrix


@pytest.mark.slow
@pytest.mark.parametrize("bias_variance", [1.0, 0.3])
def test_function_and_matrix_agree(bias_variance):
    model = pn.MLP(1, 2, 1, shift=0.5, scale=0.29)
    theta = ntk_function(model, bias_variance=bias_variance)
    operators = {"u": value, "ux": lambda u, x: pn.d(u, 0)(x)}
    points = {name: X["r"] for name in operators}
    K = ntk(model, operators, points, bias_variance=bias_variance)
    assert relative(applied(theta, operators, points), K.matrix) < 1e-9


def test_the_function_is_smooth_on_the_diagonal():
    """At x = y, where naive formulas evaluate 0/0, its derivatives match those at a nearby point."""
    theta, x = ntk_function(pn.MLP(1)), jnp.array([0.3])
    for order in (1, 2):

        def f(y, order=order):
            g = lambda z: theta(x, z)  # noqa: E731
            for _ in range(order):
                g = pn.d(g, 0)
            return g(y)

        at, near = f(x), f(x + 1e-5)
        assert np.isfinite(at)
        assert abs(at - near) < 1e-4
    assert np.isfinite(jax.grad(jax.grad(lambda s: theta(jnp.array([s]), x)))(0.3))  # reverse mode too


@pytest.mark.slow
@settings(max_examples=10)
@given(
    depth=st.integers(1, 3),
    activation=st.sampled_from(["tanh", "sin", "erf"]),
    seed=st.integers(0, 2**31 - 1),
    memory=st.sampled_from([1, 2**20, 2**26]),
)
def test_invariants(depth, activation, seed, memory):
    problem = pn.problems.Wave1D()
    points = problem.points({"u": 3, "ut": 2, "r": 4}, jax.random.key(seed))
    model = pn.MLP(1, depth, 2, activation, shift=0.5, scale=0.3)
    K = ntk(model, problem, points, memory=memory)
    assert (K.matrix == K.matrix.T).all()
    eigenvalues = K.eigvalsh()
    assert eigenvalues[-1] > -1e-9 * eigenvalues[0]  # the truncation error may be negative
    # the NTK is the NNGP kernel, last bias included, plus a positive semi-definite part from the earlier layers
    added = K.matrix - nngp(model, problem, points).matrix
    assert np.linalg.eigvalsh(added)[0] > -1e-9 * eigenvalues[0]
    cross = ntk(model, problem, points, other_points={"u": points["u"], "r": points["r"][:2]})
    assert relative(cross.block("ut", "r"), K.block("ut", "r")[:, :2]) < 1e-9
    assert cross.matrix.shape == (9, 5)


# ---------------------------------------------------------------- against finite networks


@pytest.mark.slow
def test_slope_of_the_distance_to_the_limit():
    """The distance to the limit falls like width^(-1/2) at depths 1 and 2."""
    problem = pn.problems.Poisson1D()
    points = problem.points(6)
    widths = [32, 128, 512, 2048]
    for depth in (1, 2):
        models = [pn.MLP(width, depth, **pn.normalization(points["r"])) for width in widths]
        limit = ntk(models[0], problem, points)
        distances = []
        for model in models:
            many = jax.vmap(model.init)(jax.random.split(jax.random.key(1), 16))
            K = jax.lax.map(lambda p, m=model: pn.ntk(m.apply, p, problem, points).block("r", "r"), many)
            distances.append(np.linalg.norm(K - limit.block("r", "r"), axis=(1, 2)).mean())
        slope = np.polyfit(np.log(widths), np.log(distances), 1)[0]
        assert abs(slope + 0.5) < 0.1  # 16 networks per width: a standard error of about 0.03
        assert distances[-1] / np.linalg.norm(limit.block("r", "r")) < 0.2


@pytest.mark.slow
def test_variances_as_drawn():
    """The limit with given variances matches a wide network whose parameters are scaled after initialisation."""
    problem, model = pn.problems.Poisson1D(), pn.MLP(2000, 2)
    points = problem.points(4)
    limit = ntk(model, problem, points, weight_variance=1.5, bias_variance=0.4)

    def drawn(key):
        scales = {"W": math.sqrt(1.5), "b": math.sqrt(0.4)}
        return [{name: leaf * scales[name] for name, leaf in layer.items()} for layer in model.init(key)]

    matrices = [
        pn.ntk(model.apply, drawn(key), problem, points).matrix for key in jax.random.split(jax.random.key(0), 24)
    ]
    mean, error = np.mean(matrices, axis=0), np.std(matrices, axis=0) / math.sqrt(24)
    # allow a bias of order 1/width on top of the standard error of the mean
    assert (abs(mean - limit.matrix) < 4 * error + 5e-3 * abs(limit.matrix)).all()


def test_covariance_of_u_and_its_second_derivative():
    model = pn.MLP(300, shift=0.5, scale=0.29)
    many = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 20_000))

    def both(params):
        u = lambda x: model.apply(params, x)  # noqa: E731
        return jnp.concatenate([jax.vmap(u)(X["u"]), jax.vmap(lambda x: second(u, x))(X["r"])])

    sample = jax.lax.map(both, many, batch_size=500)
    expected = nngp(model, SECOND, X).matrix
    # the standard error of a Gaussian sample covariance, with a margin for the heavier tails at width 300
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert (abs(np.cov(sample.T) - expected) < 6 / math.sqrt(20_000) * scale).all()


# ---------------------------------------------------------------- operators


def burgers(u, x):
    return pn.d(u, 0)(x) + u(x) * pn.d(u, 1)(x) - 0.01 * pn.dd(u, 1)(x)


def test_a_nonlinear_operator_is_linearised_where_one_says():
    model, points = pn.MLP(1, 1, 2), {"r": jnp.array([[0.1, 0.2], [0.7, 0.5], [0.4, 0.9]])}

    def u(x):
        return jnp.sin(3 * x[0]) * x[1]

    def by_hand(v, x):
        return pn.d(v, 0)(x) + u(x) * pn.d(v, 1)(x) + v(x) * pn.d(u, 1)(x) - 0.01 * pn.dd(v, 1)(x)

    K = ntk(model, {"r": burgers}, points, at=u)
    assert relative(K.matrix, ntk(model, {"r": by_hand}, points).matrix) < 1e-13
    with pytest.raises(ValueError, match=r"conditions\['r'\]: expected a linear operator.*at=u"):
        ntk(model, {"r": burgers}, points)


def test_a_forcing_changes_nothing():
    forced = {"u": value, "r": lambda u, x: second(u, x) - jnp.exp(x[0])}
    assert relative(ntk(pn.MLP(1), forced, X).matrix, ntk(pn.MLP(1), SECOND, X).matrix) < 1e-13


def test_variable_coefficients_mixed_derivatives_and_reverse_mode():
    model, points = pn.MLP(1, 1, 2, "sin"), {"r": jnp.array([[0.1, 0.2], [0.7, 0.5]])}
    divergence = {"r": lambda u, x: pn.d(lambda y: jnp.exp(y[1]) * pn.d(u, 1)(y), 1)(x) + pn.mixed(u, 0, 1)(x)}
    by_hand = {"r": lambda u, x: jnp.exp(x[1]) * (pn.dd(u, 1)(x) + pn.d(u, 1)(x)) + pn.mixed(u, 0, 1)(x)}
    hessian = {
        "r": lambda u, x: jnp.exp(x[1]) * (jax.hessian(u)(x)[1, 1] + jax.grad(u)(x)[1]) + jax.hessian(u)(x)[0, 1]
    }
    expected = applied(closed(model), by_hand, points)
    for operators in (divergence, by_hand, hessian):
        assert relative(ntk(model, operators, points, rtol=1e-14).matrix, expected) < 1e-12


def test_a_system_has_a_row_for_each_output():
    def gradient(u, x):
        return jnp.stack([pn.d(u, 0)(x), pn.d(u, 1)(x)])

    model, points = pn.MLP(1, 1, 2), {"r": jnp.array([[0.1, 0.2], [0.7, 0.5]])}
    K = ntk(model, {"r": pn.System(gradient, 2)}, points)
    parts = {"x": lambda u, x: pn.d(u, 0)(x), "y": lambda u, x: pn.d(u, 1)(x)}
    apart = ntk(model, parts, dict.fromkeys(parts, points["r"])).matrix
    order = [0, 2, 1, 3]  # the outputs of each point are adjacent
    assert relative(K.matrix, apart[np.ix_(order, order)]) < 1e-13


def test_data_of_points_are_coefficients():
    """The kernel of slopes along directions that the points carry is n K n', with K that of the gradient."""
    model, angles = pn.MLP(1, 1, 2), jnp.array([0.1, 1.0, 4.0])
    normals = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    circle = {"flux": pn.Points(0.5 * normals, normal=normals), "u": jnp.array([[0.1, 0.2]])}
    others = {"flux": circle["flux"][1:]}
    flux = {"flux": lambda u, p: pn.gradient(u)(p.x) @ p.normal, "u": value}
    gradient = ntk(model, {"flux": pn.System(lambda u, x: pn.gradient(u)(x), 2)}, {"flux": circle["flux"].x}).matrix
    expected = np.einsum("ia,iajb,jb->ij", normals, gradient.reshape(3, 2, 3, 2), normals)
    K = ntk(model, flux, circle)
    assert relative(K.block("flux", "flux"), expected) < 1e-13
    assert relative(K.block("u", "u"), ntk(model, {"u": value}, {"u": circle["u"]}).matrix) < 1e-13
    assert relative(ntk(model, flux, circle, other_points=others).block("flux", "flux"), expected[:, 1:]) < 1e-13


# ---------------------------------------------------------------- precision and errors


def test_single_precision():
    model, expected = pn.MLP(1, 2), ntk(pn.MLP(1, 2), SECOND, X)
    K = ntk(model, SECOND, {name: x.astype(jnp.float32) for name, x in X.items()})
    assert K.matrix.dtype == jnp.float32
    assert relative(K.matrix, expected.matrix) < 1e-6
    x, y = X["r"][:2].astype(jnp.float32)
    value = ntk_function(model)(x, y)
    assert value.dtype == jnp.float32
    assert np.isclose(value, ntk_function(model)(*X["r"][:2]), rtol=1e-5)


def test_double_precision_inside_whatever_is_configured():
    assert jax.config.jax_enable_x64
    with in_double_precision():
        assert jnp.zeros(()).dtype == jnp.float64


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": pn.MLP(1, parameterization="standard")}, ValueError, "model: expected parameterization='ntk'"),
        ({"model": lambda p, x: x[0]}, TypeError, "model: expected a pinnntk_lib.MLP"),
        ({"model": pn.MLP(1, dim=2)}, ValueError, r"points: expected points of dimension 2 \(model\.dim\), got 1"),
        ({"model": pn.MLP(1, activation=jax.nn.relu)}, ValueError, "activation: .* use a smooth activation"),
        (
            {"points": {"u": 100 * X["u"], "r": X["r"]}},
            ValueError,
            r"at most 1000 .*, got 1e\+04; normalise the inputs",
        ),
        ({"points": {"u": X["u"]}}, ValueError, r"points: expected the conditions .*missing \['r'\]"),
        ({"other_points": {"q": X["u"]}}, ValueError, r"other_points: expected .*unknown \['q'\]"),
        ({"bias_variance": -1.0}, ValueError, "bias_variance: expected a positive and a non-negative number"),
        ({"rtol": 0.0}, ValueError, "rtol: expected a positive number, got 0.0"),
        ({"rtol": "small"}, TypeError, "rtol: expected a finite number"),
        ({"memory": 0}, ValueError, "memory: expected a positive integer"),
        (
            {"conditions": {"u": lambda u, x: u(x) - u(x + 1.0), "r": second}},
            ValueError,
            r"conditions\['u'\]: expected a differential operator .*ntk_function",
        ),
        (
            {"conditions": {"u": lambda u, x: x[0], "r": second}},
            ValueError,
            r"conditions\['u'\]: expected an operator that depends on u",
        ),
    ],
)
def test_errors(change, error, message):
    arguments = {"model": pn.MLP(1), "conditions": SECOND, "points": X} | change
    with pytest.raises(error, match=message):
        ntk(**arguments)
