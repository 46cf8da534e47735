import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pinnntk_lib as pn


def reference(model, params, xb, xr):
    """K of the Poisson problem for one hidden tanh layer, in NumPy, derivatives by theta written out by hand.

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
    # block by block: those of u are a ten-thousandth of those of r
    for a in K.names:
        for b in K.names:
            assert relative(K.block(a, b), expected[K.rows(a), K.rows(b)]) < 1e-12


@settings(max_examples=8)  # each is compiled anew, which takes seconds
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
    """d residual / d t = -K D residual under gradient flow: a small step of gradient descent shows K without theory."""
    model, params, problem, points = poisson

    def residuals(params):
        return jnp.concatenate(
            [
                jax.vmap(lambda x, c=c: c.residual(lambda y: model.apply(params, y), x))(points[name])
                for name, c in problem.conditions.items()
            ]
        )

    def loss(params):
        r = residuals(params)
        return jnp.mean(r[:10] ** 2) + jnp.mean(r[10:] ** 2)

    eta = 1e-9
    moved = jax.tree.map(lambda p, g: p - eta * g, params, jax.grad(loss)(params))
    back = jax.tree.map(lambda p, g: p + eta * g, params, jax.grad(loss)(params))
    measured = (residuals(moved) - residuals(back)) / (2 * eta)
    predicted = -pn.ntk(model.apply, params, problem, points).matrix @ residuals(params) * 2 / 10
    # a central difference over a step of 1e-9: rounding of 1e-16 * |r| / eta against a rate of about 1e5
    assert relative(measured, predicted) < 1e-6


@pytest.mark.parametrize("rows", [1, 3, 7, 20])
def test_chunks_change_nothing(poisson, rows):
    model, params, problem, points = poisson
    bytes_per_row = 8 * sum(leaf.size for leaf in jax.tree.leaves(params))
    whole = pn.ntk(model.apply, params, problem, points)
    chunked = pn.ntk(model.apply, params, problem, points, memory=2 * rows * bytes_per_row)
    assert relative(chunked.matrix, whole.matrix) < 1e-14
    diagonals = [pn.ntk_diagonal(model.apply, params, problem, points, memory=m) for m in (2**28, rows * bytes_per_row)]
    assert relative(diagonals[1]["r"], diagonals[0]["r"]) < 1e-14


def test_chunks_bound_the_memory():
    """The compiled Jacobian of one chunk is all there is: its size, as XLA reports it, follows the budget."""
    from pinnntk_lib.ntk import _jacobian, _rows_in

    model = pn.MLP(width=300, depth=2)
    params = model.init(jax.random.key(0))
    memory = 2**22
    rows = _rows_in(memory, params, halves=2)
    x = jnp.zeros((rows, 1))
    operator = pn.problems.Poisson1D().operators["r"]
    analysis = _jacobian.lower(model.apply, operator, params, x).compile().memory_analysis()
    assert analysis.output_size_in_bytes < memory / 2


def test_single_precision_within_its_rounding(wave):
    model, params, problem, points = wave
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, points))
    K32, K64 = pn.ntk(model.apply, single[0], problem, single[1]), pn.ntk(model.apply, params, problem, points)
    assert K32.matrix.dtype == jnp.float32
    assert relative(K32.matrix, K64.matrix) < 1e-5


def test_any_pure_function_is_a_model():
    """Parameters in a dictionary of odd shapes, shared between layers; operators as plain functions."""

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
        (bad(method=lambda *_: "fast"), ValueError, r"method: expected one of \['auto', 'jacobian'\], got 'fast'"),
        (bad(apply=lambda *_: 3), TypeError, r"apply: expected a function apply\(params, x\) -> scalar, got 3"),
        (
            bad(apply=lambda *_: lambda p, x: x),
            ValueError,
            r"apply: expected a scalar from apply\(params, x\), got shape \(1,\)",
        ),
        (bad(params=lambda *_: {}), ValueError, "params: expected a pytree with at least one array, got none"),
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
            r"conditions\['u'\] at x of shape \(1,\): could not be evaluated: axis: expected 0 to 0",
        ),
        (bad(points=lambda m, p, q, x: x["r"]), TypeError, r"points: expected \{name: \(n, d\) array\}, got ArrayImpl"),
        (
            bad(points=lambda m, p, q, x: {"u": x["u"]}),
            ValueError,
            r"points: expected the conditions \['u', 'r'\], got missing \['r'\]",
        ),
        (
            bad(points=lambda m, p, q, x: {**x, "w": x["u"]}),
            ValueError,
            r"points: expected the conditions \['u', 'r'\], got unknown \['w'\]",
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
            "points: expected one dimension d for all",
        ),
        (
            bad(points=lambda m, p, q, x: {k: jnp.ones((3, 2)) for k in x}),
            ValueError,
            r"apply\(params, x\) at x of shape \(2,\): could not be evaluated: x: expected a point of shape \(1,\)",
        ),
        (
            bad(memory=lambda *_: 100),
            ValueError,
            "memory: expected at least 592 bytes for this model's gradients, got 100",
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
