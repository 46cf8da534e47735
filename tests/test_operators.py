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


@pytest.mark.parametrize("axis", [-1, 2])
def test_an_axis_that_is_not_there(axis):
    with pytest.raises(ValueError, match=f"axis: expected 0 to 1 for a point of shape \\(2,\\), got {axis}"):
        pn.d(jnp.sum, axis)(jnp.ones(2))


def test_many_points_where_one_is_expected():
    with pytest.raises(ValueError, match=r"x: expected a point of shape \(d,\), got shape \(5, 2\); use jax.vmap"):
        pn.d(jnp.sum, 0)(jnp.ones((5, 2)))
