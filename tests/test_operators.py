import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import polynomial

import pinnntk_lib as pn

coefficients = st.lists(st.floats(-3, 3), min_size=2, max_size=6)
coordinate = st.floats(-1.5, 1.5)


@settings(max_examples=25)
@given(coefficients, coordinate)
def test_derivatives_of_polynomials(c, x):
    def u(y):
        return sum(ck * y[0] ** k for k, ck in enumerate(c))

    point = jnp.array([x])
    assert np.allclose(pn.d(u)(point), polynomial.polyval(x, polynomial.polyder(c)), atol=1e-12)
    assert np.allclose(pn.dd(u)(point), polynomial.polyval(x, polynomial.polyder(c, 2)), atol=1e-12)
    assert np.allclose(pn.dd(pn.dd(u))(point), polynomial.polyval(x, polynomial.polyder(c, 4)), atol=1e-12)


@settings(max_examples=25)
@given(coordinate, coordinate, coordinate)
def test_derivatives_in_three_dimensions(x, y, z):
    def u(p):
        return jnp.sin(p[0]) * jnp.exp(p[1]) * p[2] ** 3

    p = jnp.array([x, y, z])
    s, c, e = np.sin(x), np.cos(x), np.exp(y)
    assert np.allclose(pn.mixed(u, 0, 2)(p), c * e * 3 * z**2)
    assert np.allclose(pn.mixed(u, 0, 2)(p), pn.mixed(u, 2, 0)(p))
    # sin'' and exp'' cancel; only the term from z^3 remains
    assert np.allclose(pn.laplacian(u)(p), s * e * 6 * z, atol=1e-12)


@pytest.mark.parametrize(("axis", "expected"), [(-1, "0 or a positive integer"), (2, "a coordinate from 0 to 1")])
def test_an_axis_that_is_not_there(axis, expected):
    with pytest.raises(ValueError, match=f"axis: expected {expected}, got {axis}"):
        pn.d(jnp.sum, axis)(jnp.ones(2))


def test_many_points_where_one_is_expected():
    with pytest.raises(ValueError, match=r"x: expected a point of shape \(d,\), got shape \(5, 2\); use jax.vmap"):
        pn.d(jnp.sum, 0)(jnp.ones((5, 2)))


# ---------------------------------------------------------------- operators along all axes


def network(seed, d, shape=()):
    """Return a function of a point (d,) whose derivatives of all orders are smooth and not symmetric."""
    keys = jax.random.split(jax.random.key(seed), 3)
    first, shift = jax.random.normal(keys[0], (5, d)), jax.random.normal(keys[1], (5,))
    last = jax.random.normal(keys[2], (*shape, 5))
    return lambda x: last @ jnp.tanh(first @ x + shift)


@pytest.mark.slow
@settings(max_examples=5)
@given(seed=st.integers(0, 2**31 - 1), d=st.integers(1, 3), shape=st.sampled_from([(), (1,), (3,), (2, 3)]))
def test_against_jax(seed, d, shape):
    u, x = network(seed, d, shape), jax.random.normal(jax.random.key(seed + 1), (d,))
    gradient, hessian = jax.jacrev if shape else jax.grad, jax.hessian  # which put the axes of x last, too
    assert pn.gradient(u)(x).shape == (*shape, d)
    assert np.allclose(pn.gradient(u)(x), gradient(u)(x), rtol=1e-12, atol=1e-12)
    H = hessian(u)(x)
    assert pn.hessian(u)(x).shape == (*shape, d, d)
    assert np.allclose(pn.hessian(u)(x), H, rtol=1e-12, atol=1e-12)
    trace = jnp.trace(H, axis1=-2, axis2=-1)
    assert pn.laplacian(u)(x).shape == shape
    assert np.allclose(pn.laplacian(u)(x), trace, rtol=1e-12, atol=1e-12)
    fourth = jax.hessian(lambda y: jnp.trace(hessian(u)(y), axis1=-2, axis2=-1))(x)
    assert np.allclose(pn.biharmonic(u)(x), jnp.trace(fourth, axis1=-2, axis2=-1), rtol=1e-10, atol=1e-10)


@settings(max_examples=5)
@given(seed=st.integers(0, 2**31 - 1), d=st.integers(1, 3))
def test_divergence_against_jax(seed, d):
    field, x = network(seed, d, (d,)), jax.random.normal(jax.random.key(seed + 1), (d,))
    assert np.allclose(pn.divergence(field)(x), jnp.trace(jax.jacrev(field)(x)), rtol=1e-12, atol=1e-12)
    u = network(seed, d)
    assert np.allclose(pn.divergence(pn.gradient(u))(x), pn.laplacian(u)(x), rtol=1e-12, atol=1e-12)


@settings(max_examples=8)
@given(coefficients, coefficients, coordinate, coordinate)
def test_polynomials_of_two_variables(a, b, x, y):
    """For a(x) b(y), every operator is a sum of products of derivatives of a and b."""

    def u(p):
        return sum(c * p[0] ** k for k, c in enumerate(a)) * sum(c * p[1] ** k for k, c in enumerate(b))

    A, B = ([polynomial.polyval(t, polynomial.polyder(c, k)) for k in range(5)] for c, t in ((a, x), (b, y)))
    p = jnp.array([x, y])
    near = {"rtol": 1e-10, "atol": 1e-10}
    assert np.allclose(pn.gradient(u)(p), [A[1] * B[0], A[0] * B[1]], **near)
    assert np.allclose(pn.hessian(u)(p), [[A[2] * B[0], A[1] * B[1]], [A[1] * B[1], A[0] * B[2]]], **near)
    assert np.allclose(pn.laplacian(u)(p), A[2] * B[0] + A[0] * B[2], **near)
    assert np.allclose(pn.biharmonic(u)(p), A[4] * B[0] + 2 * A[2] * B[2] + A[0] * B[4], **near)


def test_nested_with_other_operators():
    u, x = network(0, 3), jnp.array([0.3, -0.2, 0.9])
    third = jax.jacfwd(jax.hessian(u))(x)
    assert np.allclose(pn.d(pn.laplacian(u), 1)(x), jnp.trace(third[..., 1]), rtol=1e-11)
    assert np.allclose(pn.laplacian(pn.d(u, 1))(x), jnp.trace(third[..., 1]), rtol=1e-11)
    assert np.allclose(pn.gradient(pn.d(u, 2))(x), pn.hessian(u)(x)[2], rtol=1e-11)
    assert np.allclose(pn.gradient(pn.laplacian(u))(x), jnp.einsum("iij->j", third), rtol=1e-11)
    assert np.allclose(pn.laplacian(pn.gradient(u))(x), jnp.einsum("iij->j", third), rtol=1e-11)
    assert np.allclose(pn.dd(pn.biharmonic(u), 0)(x), pn.biharmonic(pn.dd(u, 0))(x), rtol=1e-9)


def test_a_laplacian_in_a_kernel_and_under_jit():
    """The kernel of an operator on all axes equals that of the same sum, written axis by axis."""
    model = pn.MLP(6, 2, 3)
    params, points = model.init(jax.random.key(0)), {"r": jax.random.normal(jax.random.key(1), (4, 3))}
    pairs = [
        (lambda u, x: pn.laplacian(u)(x), lambda u, x: sum(pn.dd(u, i)(x) for i in range(3))),
        (lambda u, x: jnp.sum(pn.gradient(u)(x) ** 2), lambda u, x: sum(pn.d(u, i)(x) ** 2 for i in range(3))),
    ]
    for together, one_by_one in pairs:
        for method in ("structured", "jacobian"):
            K, expected = (pn.ntk(model.apply, params, {"r": r}, points, method) for r in (together, one_by_one))
            assert np.allclose(K.matrix, expected.matrix, rtol=1e-9, atol=1e-12 * float(expected.trace()))
    u, x = network(0, 3), jnp.ones(3)
    assert np.allclose(jax.jit(pn.laplacian(u))(x), pn.laplacian(u)(x), rtol=1e-12)


# ---------------------------------------------------------------- given and random directions


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31 - 1), m=st.integers(1, 5), shape=st.sampled_from([(), (2,)]))
def test_given_directions(seed, m, shape):
    u, x = network(seed, 3, shape), jax.random.normal(jax.random.key(seed + 1), (3,))
    directions = jax.random.normal(jax.random.key(seed + 2), (m, 3))
    expected = jnp.einsum("mi,...ij,mj->...", directions, jax.hessian(u)(x), directions)
    for given_as in (directions, np.asarray(directions)):
        assert np.allclose(pn.laplacian(u, directions=given_as)(x), expected, rtol=1e-11, atol=1e-11)


def test_directions_take_the_dtype_of_the_point():
    value = pn.laplacian(lambda x: jnp.sum(x**2), directions=np.eye(2))(jnp.ones(2, jnp.float32))
    assert value.dtype == jnp.float32


@pytest.mark.parametrize("directions", [1, 3])
def test_the_estimate_has_the_laplacian_as_its_mean(directions):
    """Over 2,000 keys; the variance of v.Hv is twice the sum of the squares beside H's diagonal (Hutchinson 1989)."""
    u, x = network(3, 4), jnp.array([0.1, -0.4, 0.2, 0.7])
    keys = jax.random.split(jax.random.key(0), 2000)
    estimates = np.asarray(jax.vmap(lambda key: pn.laplacian(u, directions, key)(x))(keys))
    H = np.asarray(jax.hessian(u)(x))
    variance = 2 * (np.sum(H**2) - np.sum(np.diag(H) ** 2)) / directions
    assert abs(estimates.mean() - np.trace(H)) < 4 * np.sqrt(variance / 2000)
    assert 0.8 < estimates.var() / variance < 1.2  # 4 standard errors are 0.13 for a normal distribution


def test_the_estimate_depends_on_key_and_point_alone():
    """Directions are seen through u = x_i x_j, whose estimate is 2 v_i v_j: its sign shows whether they agree."""
    pairs = [(i, j) for i in range(8) for j in range(i)]

    def products(key, x):
        u = lambda y: jnp.stack([y[i] * y[j] for i, j in pairs])  # noqa: E731
        return pn.laplacian(u, directions=1, key=key)(x)

    key, x = jax.random.key(0), jnp.linspace(0.1, 0.9, 8)
    here = products(key, x)
    assert (abs(here) == 2).all()
    assert (products(key, x) == here).all()
    assert (jax.jit(products)(key, x) == here).all()
    assert (jax.vmap(products, (None, 0))(key, jnp.stack([x, x])) == here).all()
    others = [
        products(jax.random.key(1), x),
        products(key, x.at[3].add(1e-15)),
        products(key, x[::-1]),  # the same coordinates in another order
        products(key, jnp.roll(x, 1)),
        products(key, -x),
        products(key, 2 * x),
    ]
    assert all((other != here).any() for other in others)
    many = jax.vmap(products, (None, 0))(key, jax.random.uniform(jax.random.key(2), (200, 8)))
    assert abs(many.mean(axis=0)).max() < 2 * 4.5 / np.sqrt(200)  # as many of each sign
    assert len(np.unique(np.asarray(many), axis=0)) > 80  # of 128 sets of signs, about 101 are expected


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_the_estimate_in_every_precision(dtype):
    """It is exact where the Hessian is diagonal."""
    value = pn.laplacian(lambda x: jnp.sum(x**2), directions=2, key=jax.random.key(0))(jnp.ones(3, dtype))
    assert value.dtype == dtype
    assert value == 6.0


def test_the_estimate_can_be_nested_and_differentiated():
    """The key does not depend on the point smoothly, so the directions count as constants."""
    key, x = jax.random.key(0), jnp.array([0.2, 0.5])
    u = lambda y: y[0] ** 4 + y[1] ** 3  # noqa: E731  # a diagonal Hessian: exact
    assert np.allclose(pn.laplacian(u, 2, key)(x), 12 * 0.04 + 6 * 0.5)
    assert np.allclose(pn.gradient(pn.laplacian(u, 2, key))(x), [24 * 0.2, 6.0])
    assert np.allclose(pn.d(pn.laplacian(u, 2, key), 0)(x), 24 * 0.2)
    assert np.allclose(pn.laplacian(pn.d(u, 0), 2, key)(x), 24 * 0.2)


KEY, POINT = jax.random.key(0), jnp.ones(2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pn.laplacian(jnp.sum, 3), ValueError, "key: expected a JAX random key with a number of directions"),
        (lambda: pn.laplacian(jnp.sum, key=KEY), ValueError, "key: expected .*, and none without, got directions=None"),
        (lambda: pn.laplacian(jnp.sum, jnp.eye(2), KEY), ValueError, "key: expected .*, and none without"),
        (lambda: pn.laplacian(jnp.sum, 0, KEY), ValueError, "directions: expected a positive integer, got 0"),
        (lambda: pn.laplacian(jnp.sum, -2, KEY), ValueError, "directions: expected a positive integer, got -2"),
        (lambda: pn.laplacian(jnp.sum, 1.5, KEY), TypeError, "directions: expected a positive integer, got 1.5"),
        (lambda: pn.laplacian(jnp.sum, True, KEY), TypeError, "directions: expected a positive integer, got True"),
        (
            lambda: pn.laplacian(jnp.sum, jnp.ones(2))(POINT),
            ValueError,
            r"directions: expected a number or an array \(m, 2\), got shape \(2,\)",
        ),
        (
            lambda: pn.laplacian(jnp.sum, jnp.ones((4, 3)))(POINT),
            ValueError,
            r"directions: expected a number or an array \(m, 2\), got shape \(4, 3\)",
        ),
        (
            lambda: pn.laplacian(jnp.sum, jnp.eye(2, dtype=int))(POINT),
            TypeError,
            "directions: expected floating-point numbers, got int64",
        ),
        (
            lambda: pn.divergence(jnp.sum)(POINT),
            ValueError,
            r"u: expected a vector field with values of shape \(2,\), got shape \(\)",
        ),
        (
            lambda: pn.divergence(lambda x: jnp.ones(3) * x[0])(POINT),
            ValueError,
            r"u: expected a vector field with values of shape \(2,\), got shape \(3,\)",
        ),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "operator",
    [
        pn.d,
        pn.dd,
        pn.gradient,
        pn.hessian,
        pn.laplacian,
        pn.biharmonic,
        lambda u: pn.laplacian(u, jnp.eye(2)),
        lambda u: pn.laplacian(u, 2, KEY),
        lambda u: pn.divergence(lambda x: x),
        lambda u: pn.mixed(u, 0, 1),
    ],
)
@pytest.mark.parametrize("x", [jnp.ones((5, 2)), jnp.ones(())])
def test_what_is_no_point(operator, x):
    with pytest.raises(ValueError, match=r"x: expected a point of shape \(d,\), got shape .*; use jax.vmap"):
        operator(jnp.sum)(x)
