import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pinnntk_lib as pn


def reference(model, params, xb, xr):
    """Compute the Poisson problem's K for one hidden tanh layer in NumPy, with hand-written parameter derivatives.

    With z = (x - shift)/scale, h = w z + b, u = v.tanh(h)/sqrt(N) + c and s = sqrt(N):
    u_xx = (1/s) sum_k v_k t''(h_k) (w_k/scale)^2.
    """
    (w,), b = np.asarray(params[0]["W"]).T, np.asarray(params[0]["b"])
    (v,) = np.asarray(params[1]["W"])
    s = np.sqrt(model.width)
    scale = model.scale[0]

    def hidden(x):
        z = (np.asarray(x) - model.shift) / scale
        t = np.tanh(z * w + b)
        t1 = 1 - t**2
        t2 = -2 * t * t1
        return z, t, t1, t2, -2 * t1**2 - 2 * t * t2

    z, t, t1, _, _ = hidden(xb)
    J_u = np.hstack([v * t1 * z, v * t1, t, np.full((len(z), 1), s)]) / s
    z, t, t1, t2, t3 = hidden(xr)
    q = (w / scale) ** 2
    J_r = np.hstack([v * (t3 * z * q + t2 * 2 * w / scale**2), v * t3 * q, t2 * q, np.zeros((len(z), 1))]) / s
    J = np.vstack([J_u, J_r])
    return J @ J.T


def relative(a, b):
    return np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max()


@pytest.mark.parametrize("width", [1, 10, 500])
@pytest.mark.parametrize("seed", range(3))
def test_against_the_closed_form(width, seed):
    problem = pn.problems.Poisson1D(a=4)
    points = problem.points(100)
    model = pn.MLP(width, **pn.normalization(points["r"]))
    params = model.init(jax.random.key(seed))
    K, expected = pn.ntk(model.apply, params, problem, points), reference(model, params, points["u"], points["r"])
    assert relative(K.matrix, expected) < 1e-12
    # block by block, because the entries for u are a ten-thousandth of those for r
    for a in K.names:
        for b in K.names:
            assert relative(K.block(a, b), expected[K.rows(a), K.rows(b)]) < 1e-12


@pytest.mark.slow
@settings(max_examples=5)  # every example compiles anew, which takes seconds
@given(
    width=st.integers(1, 12),
    depth=st.integers(1, 3),
    activation=st.sampled_from(["tanh", "sin", "erf"]),
    parameterization=st.sampled_from(["ntk", "standard"]),
    seed=st.integers(0, 2**31 - 1),
    n=st.integers(1, 6),
)
def test_invariants(width, depth, activation, parameterization, seed, n):
    problem = pn.problems.Wave1D()
    points = problem.points({"u": n, "ut": 3, "r": 5}, jax.random.key(seed))
    model = pn.MLP(width, depth, 2, activation, parameterization)
    params = model.init(jax.random.key(seed))
    K = pn.ntk(model.apply, params, problem, points)
    assert (K.matrix == K.matrix.T).all()
    eigenvalues = np.asarray(K.eigvalsh())
    assert (np.diff(eigenvalues) <= 0).all()
    assert eigenvalues[-1] > -1e-12 * eigenvalues[0]
    assert np.isclose(eigenvalues.sum(), K.trace(), rtol=1e-12)
    assert np.isclose(sum(K.trace(name) for name in K.names), K.trace(), rtol=1e-12)
    assert np.isclose(K.convergence_rate("u"), K.trace("u") / n, rtol=1e-12)
    diagonal = pn.ntk_diagonal(model.apply, params, problem, points)
    assert relative(np.concatenate(list(diagonal.values())), np.diag(K.matrix)) < 1e-12


def test_it_is_what_a_gradient_step_does(poisson):
    """Under gradient flow, d residual / d t = -K D residual; a small gradient step measures the left-hand side."""
    model, params, problem, points = poisson

    def residuals(params):
        return jnp.concatenate(list(problem.residuals(lambda x: model.apply(params, x), points).values()))

    def loss(params):
        r = residuals(params)
        return jnp.mean(r[:10] ** 2) + jnp.mean(r[10:] ** 2)

    eta = 1e-9
    moved = jax.tree.map(lambda p, g: p - eta * g, params, jax.grad(loss)(params))
    back = jax.tree.map(lambda p, g: p + eta * g, params, jax.grad(loss)(params))
    measured = (residuals(moved) - residuals(back)) / (2 * eta)
    predicted = -pn.ntk(model.apply, params, problem, points).matrix @ residuals(params) * 2 / 10
    # a central difference with a step of 1e-9: a rounding error of 1e-16 * |r| / eta against a rate of about 1e5
    assert relative(measured, predicted) < 1e-6


@pytest.mark.parametrize("method", ["auto", "structured", "jacobian"])
@pytest.mark.parametrize("memory", [3_000, 5_000, 20_000])
def test_chunks_change_nothing(poisson, method, memory):
    model, params, problem, points = poisson
    whole = pn.ntk(model.apply, params, problem, points, method)
    chunked = pn.ntk(model.apply, params, problem, points, method, memory=memory)
    assert relative(chunked.matrix, whole.matrix) < 1e-14
    assert relative(chunked.matrix, chunked.matrix.T) < 1e-15  # the compiler may sum the two in different orders
    diagonal = pn.ntk_diagonal(model.apply, params, problem, points, memory=memory)
    assert relative(diagonal["r"], jnp.diag(whole.block("r", "r"))) < 1e-14


@pytest.mark.parametrize("method", ["auto", "structured", pytest.param("jacobian", marks=pytest.mark.slow)])
def test_chunks_keep_to_the_memory(method):
    """The memory that XLA reports for two chunks' features, their computation and their block is within the budget."""
    from pinnntk_lib.kernel import _gram as gram

    problem, model = pn.problems.Wave1D(), pn.MLP(width=100, depth=3, dim=2)
    params, points, memory = model.init(jax.random.key(0)), problem.points(300), 2**23
    seen = []

    def recorded(function, *static):
        def run(*args):
            compiled_code, rest = function, args
            if hasattr(function, "specialised"):
                compiled_code, rest = function.specialised(args[0]), args[1:]
            analysis = compiled_code.lower(*rest).compile().memory_analysis()
            seen.append((function, analysis.temp_size_in_bytes, analysis.output_size_in_bytes))
            return function(*args)

        return run

    with pytest.MonkeyPatch.context() as patch:
        for name in ("features_at", "_block"):
            patch.setattr(gram, name, recorded(getattr(gram, name)))
        K = pn.ntk(model.apply, params, problem, points, method, memory=memory)
    whole = pn.ntk(model.apply, params, problem, points, method, memory=2**30)
    assert relative(K.matrix, whole.matrix) < 1e-12
    assert len(seen) > 20
    features = [(temporary, output) for function, temporary, output in seen if function is gram.features_at]
    blocks = [temporary + output for function, temporary, output in seen if function is gram._block]
    largest = max(output for _, output in features)
    assert max(temporary + output + largest for temporary, output in features) <= memory
    assert max(blocks) + 2 * largest <= memory


def test_single_precision_within_its_rounding(wave):
    model, params, problem, points = wave
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, points))
    K32, K64 = pn.ntk(model.apply, single[0], problem, single[1]), pn.ntk(model.apply, params, problem, points)
    assert K32.matrix.dtype == jnp.float32
    assert relative(K32.matrix, K64.matrix) < 1e-5


def test_any_pure_function_is_a_model():
    """Parameters may be nested dictionaries and shared between layers; operators may be plain functions."""

    def apply(params, x):
        h = jnp.tanh(params["w"] * x[0] + params["b"]["inner"])
        return h @ params["w"] + params["c"]

    params = {"w": jnp.arange(1.0, 4.0), "b": {"inner": jnp.ones(3)}, "c": jnp.array(2.0)}
    operators = {"value": lambda u, x: u(x), "cubed": lambda u, x: u(x) ** 3 + pn.d(u)(x)}
    x = {"value": jnp.array([[0.1]]), "cubed": jnp.array([[0.1], [0.2]])}
    K = pn.ntk(apply, params, operators, x)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    J = jnp.stack(
        [
            jax.jacrev(lambda f, op=operators[name], p=p: op(lambda y: apply(unravel(f), y), p))(flat)
            for name in operators
            for p in x[name]
        ]
    )
    assert relative(K.matrix, J @ J.T) < 1e-14


def test_a_kernel_passes_through_jit(poisson):
    model, params, problem, points = poisson
    K = jax.jit(lambda p: pn.ntk(model.apply, p, problem, points))(params)
    assert relative(K.matrix, pn.ntk(model.apply, params, problem, points).matrix) < 1e-14
    assert K.names == ("u", "r")


def test_the_kernel_does_not_depend_on_a():
    model = pn.MLP(10)
    params, points = model.init(jax.random.key(0)), pn.problems.Poisson1D().points(5)
    one, four = (pn.ntk(model.apply, params, pn.problems.Poisson1D(a), points).matrix for a in (1, 4))
    assert (one == four).all()


def test_two_boundary_points_have_rank_two(poisson):
    model, params, problem, points = poisson
    eigenvalues = pn.ntk(model.apply, params, problem, points).eigvalsh("u")
    assert eigenvalues[1] > 1e-3 * eigenvalues[0]
    assert abs(eigenvalues[2]) < 1e-14 * eigenvalues[0]


@pytest.mark.parametrize("method", [pytest.param("structured", marks=pytest.mark.slow), "jacobian"])
def test_cross_kernel(wave, method):
    """A cross kernel is an off-diagonal block of the kernel on both sets of points; its columns may omit conditions."""
    model, params, problem, points = wave
    others = problem.points({"u": 3, "ut": 2, "r": 4}, jax.random.key(5))
    both = {name: jnp.concatenate([points[name], others[name]]) for name in points}
    whole = pn.ntk(model.apply, params, problem, both, method)
    for memory in (2**30, 30_000):
        K = pn.ntk(model.apply, params, problem, points, method, other_points=others, memory=memory)
        assert K.matrix.shape == (21, 9)
        for a in K.names:
            for b in K.names:
                assert relative(K.block(a, b), whole.block(a, b)[: len(points[a]), len(points[b]) :]) < 1e-12
    only_r = pn.ntk(model.apply, params, problem, points, method, other_points={"r": others["r"]})
    assert relative(only_r.matrix, K.matrix[:, K.matrix.shape[1] - 4 :]) < 1e-14
    with pytest.raises(ValueError, match="K: expected the kernel of one set of points, got a cross kernel"):
        K.eigvalsh()
    with pytest.raises(ValueError, match=r"name: expected one of \['r'\], got 'u'"):
        only_r.block("u", "u")


def stokes(u, x):
    """Momentum and incompressibility for a single model of the velocity u(x)[0], u(x)[1] and the pressure u(x)[2]."""
    velocity, gradient = lambda i: lambda y: u(y)[i], lambda i: pn.d(lambda y: u(y)[2], i)(x)
    momentum = [-pn.laplacian(velocity(i))(x) + gradient(i) for i in range(2)]
    return jnp.stack([*momentum, pn.d(velocity(0), 0)(x) + pn.d(velocity(1), 1)(x)])


def three_outputs():
    keys = jax.random.split(jax.random.key(0), 3)
    params = [jax.random.normal(key, shape) for key, shape in zip(keys, [(8, 2), (8, 8), (3, 8)])]
    return params, lambda params, x: params[2] @ jnp.tanh(params[1] @ jnp.tanh(params[0] @ x))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["structured", "jacobian"])
def test_systems(method):
    """A condition with several outputs has the rows of as many scalar conditions, in another order."""
    params, apply = three_outputs()
    x = jax.random.uniform(jax.random.key(1), (5, 2))
    conditions = {"flow": pn.System(stokes, 3), "wall": pn.System(lambda u, x: u(x)[:2], 2), "p": lambda u, x: u(x)[2]}
    points = {"flow": x, "wall": x[:4] + 0.1, "p": x[:1]}
    K = pn.ntk(apply, params, conditions, points, method)
    assert K.sizes == (("flow", 15), ("wall", 8), ("p", 1))
    one_by_one = {f"flow{i}": lambda u, x, i=i: stokes(u, x)[i] for i in range(3)}
    one_by_one |= {f"wall{i}": lambda u, x, i=i: u(x)[i] for i in range(2)} | {"p": conditions["p"]}
    single = pn.ntk(apply, params, one_by_one, {name: points[name.rstrip("012")] for name in one_by_one}, "jacobian")
    order = [
        *(i + 5 * j for i in range(5) for j in range(3)),
        *(15 + i + 4 * j for i in range(4) for j in range(2)),
        23,
    ]
    assert relative(K.matrix, single.matrix[jnp.array(order)][:, jnp.array(order)]) < 1e-12
    for memory in (2**28, 100_000):
        diagonal = pn.ntk_diagonal(apply, params, conditions, points, memory=memory)
        assert relative(jnp.concatenate(list(diagonal.values())), jnp.diag(K.matrix)) < 1e-12
    chunked = pn.ntk(apply, params, conditions, points, method, memory=150_000)
    assert relative(chunked.matrix, K.matrix) < 1e-12
    v = jnp.arange(24.0)
    assert relative(pn.ntk_vector_product(apply, params, conditions, points, v), K.matrix @ v) < 1e-12


def test_undeclared_and_misdeclared_systems():
    params, apply = three_outputs()
    points = {"flow": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match=r"scalar, got shape \(3,\).*declare several outputs with pinnntk_lib.System"):
        pn.ntk(apply, params, {"flow": stokes}, points)
    with pytest.raises(
        ValueError, match=r"conditions\['flow'\]: expected shape \(2,\), as declared by System, got \(3,\)"
    ):
        pn.ntk(apply, params, {"flow": pn.System(stokes, 2)}, points)
    with pytest.raises(ValueError, match="outputs: expected a positive integer, got 0"):
        pn.System(stokes, 0)


def test_a_condition_that_no_parameter_moves(poisson):
    model, params, problem, points = poisson
    conditions = {"nothing": lambda u, x: x[0], **problem.operators}
    points = {"nothing": points["r"][:3], **points}
    for method in ("auto", "structured", "jacobian"):
        K = pn.ntk(model.apply, params, conditions, points, method)
        assert (K.matrix[:3] == 0).all()
        assert K.trace() > 0
    assert (pn.ntk_diagonal(model.apply, params, conditions, points)["nothing"] == 0).all()


def test_paths_say_what_became_of_each_leaf(wave):
    model, params, problem, points = wave
    paths = pn.ntk(model.apply, params, problem, points, "structured").paths
    assert [path.leaf for path in paths] == [f"params[{i}]['{name}']" for i in range(3) for name in "Wb"]
    assert [path.method for path in paths] == ["structured", "jacobian"] * 3
    assert {path.method for path in pn.ntk(model.apply, params, problem, points, "jacobian").paths} == {"jacobian"}


def test_auto_counts_operations():
    """``auto`` assembles Jacobians for one hidden layer or narrow ones, and contracts pairs for several wide ones."""
    problem = pn.problems.Wave1D()
    points = problem.points(50)
    for width, depth, expected in ((100, 1, "assembled"), (5, 2, "assembled"), (100, 2, "structured")):
        model = pn.MLP(width, depth, 2)
        K = pn.ntk(model.apply, model.init(jax.random.key(0)), problem, points)
        assert {path.leaf: path.method for path in K.paths}["params[1]['W']"] == expected


def bad(**changes):
    return lambda model, params, problem, points: {
        "apply": model.apply,
        "params": params,
        "conditions": problem,
        "points": points,
        **{name: change(model, params, problem, points) for name, change in changes.items()},
    }


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (bad(method=lambda *_: "fast"), ValueError, r"method: expected one of \['auto', 'structured', 'jacobian'\]"),
        (bad(apply=lambda *_: 3), TypeError, r"apply: expected a function apply\(params, x\), got 3"),
        (
            bad(apply=lambda *_: lambda p, x: x),
            ValueError,
            r"conditions\['u'\]: expected an operator that returns a scalar, got shape \(1,\) \(the model returns",
        ),
        (bad(params=lambda *_: {}), ValueError, "params: expected a pytree with at least one array, got none"),
        (bad(params=lambda *_: np.zeros(0)), ValueError, "params: expected at least one number, got only empty arrays"),
        (
            bad(params=lambda m, p, *_: jax.tree.map(lambda a: a * jnp.nan, p)),
            ValueError,
            r"params\[0\]\['W'\]: expected finite numbers, got NaN",
        ),
        (
            bad(params=lambda m, p, *_: [p[0], {"W": p[1]["W"], "b": jnp.array([1])}]),
            TypeError,
            r"params\[1\]\['b'\]: expected a floating-point array, got int",
        ),
        (
            bad(params=lambda m, p, *_: [p[0], {"W": p[1]["W"], "b": 1.0}]),
            TypeError,
            r"params\[1\]\['b'\]: expected a floating-point array, got float",
        ),
        (bad(conditions=lambda *_: {}), ValueError, "conditions: expected at least one condition, got none"),
        (
            bad(conditions=lambda *_: [1]),
            TypeError,
            r"conditions: expected a Problem or \{name: operator\(u, x\)\}, got \[1\]",
        ),
        (
            bad(conditions=lambda *_: {"u": lambda u, x: x, "r": lambda u, x: u(x) * jnp.ones(2)}),
            ValueError,
            r"conditions\['u'\]: expected an operator that returns a scalar, got shape \(1,\)",
        ),
        (
            bad(conditions=lambda *_: {"u": lambda u, x: pn.d(u, 1)(x), "r": lambda u, x: u(x)}),
            ValueError,
            r"conditions\['u'\] at x of shape \(1,\): could not be evaluated: axis: expected a coordinate from 0 to 0",
        ),
        (bad(points=lambda m, p, q, x: x["r"]), TypeError, r"points: expected \{name: \(n, d\) array\}, got ArrayImpl"),
        (
            bad(points=lambda m, p, q, x: {"u": x["u"]}),
            ValueError,
            r"points: expected the conditions \['u', 'r'\], got .* \(missing \['r'\]",
        ),
        (
            bad(points=lambda m, p, q, x: {**x, "w": x["u"]}),
            ValueError,
            r"points: expected the conditions \['u', 'r'\], got .* \(unknown \['w'\]",
        ),
        (
            bad(points=lambda m, p, q, x: {**x, "r": x["r"][:, 0]}),
            ValueError,
            r"points\['r'\]: expected a non-empty array of shape \(n, d\), got shape \(10,\)",
        ),
        (
            bad(points=lambda m, p, q, x: {**x, "r": x["r"][:0]}),
            ValueError,
            r"points\['r'\]: expected a non-empty array of shape \(n, d\), got shape \(0, 1\)",
        ),
        (
            bad(points=lambda m, p, q, x: {**x, "r": x["r"].astype(int)}),
            TypeError,
            r"points\['r'\]: expected floating-point coordinates, got int",
        ),
        (
            bad(points=lambda m, p, q, x: {**x, "r": x["r"] * jnp.inf}),
            ValueError,
            r"points\['r'\]: expected finite coordinates, got NaN or infinity",
        ),
        (
            bad(points=lambda m, p, q, x: {**x, "r": jnp.ones((3, 2))}),
            ValueError,
            "points: expected the same dimension d for all conditions",
        ),
        (
            bad(points=lambda m, p, q, x: {k: jnp.ones((3, 2)) for k in x}),
            ValueError,
            r"apply\(params, x\) at x of shape \(2,\): could not be evaluated: x: expected a point of shape \(1,\)",
        ),
        (
            bad(memory=lambda *_: 100),
            ValueError,
            r"memory: expected at least \d+ bytes for this model, got 100",
        ),
        (
            bad(other_points=lambda *_: {}),
            ValueError,
            r"other_points: expected the conditions \['u', 'r'\], got \[\] \(missing",
        ),
        (
            bad(other_points=lambda *_: {"w": jnp.ones((3, 1))}),
            ValueError,
            r"other_points: expected the conditions \['u', 'r'\], got .* \(unknown \['w'\], missing",
        ),
        (
            bad(other_points=lambda *_: {"u": jnp.ones((3, 2))}),
            ValueError,
            "other_points: expected points of dimension 1, as in points, got 2",
        ),
    ],
)
def test_bad_input(poisson, arguments, error, message):
    with pytest.raises(error, match=message):
        pn.ntk(**arguments(*poisson))


def test_an_unknown_block(poisson):
    model, params, problem, points = poisson
    with pytest.raises(ValueError, match=r"name: expected one of \['u', 'r'\], got 'b'"):
        pn.ntk(model.apply, params, problem, points).block("u", "b")
