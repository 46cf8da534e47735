"""Models wrapped around other models: values, derivatives, both precisions, and the errors for bad arguments."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pinnntk_lib as pn
from pinnntk_lib.models import fourier_features, hard_boundary, normalized_inputs, periodic_inputs, scaled_output

number = st.floats(-2.0, 2.0)


def polynomial(params, x):
    """A model whose values are easily computed by hand."""
    return params * sum(z ** (i + 1) for i, z in enumerate(x))


@given(number, number, st.floats(0.1, 10.0))
def test_the_slope_in_the_original_coordinates_is_divided_by_the_scale(x, shift, scale):
    apply = normalized_inputs(polynomial, shift, scale)
    z = (x - shift) / scale
    assert np.isclose(apply(3.0, jnp.array([x])), 3 * z)
    assert np.isclose(pn.d(lambda y: apply(3.0, y))(jnp.array([x])), 3 / scale)


@given(number, number)
def test_scaled_outputs_have_scaled_kernels(shift, scale):
    scale = scale or 1.0
    values = {"u": lambda u, x: u(x)}
    x = {"u": jnp.array([[0.3], [-1.0]])}
    params = jnp.array(2.0)
    plain, scaled = (pn.ntk(f, params, values, x).matrix for f in (polynomial, scaled_output(polynomial, scale, shift)))
    assert np.allclose(scaled, scale**2 * plain)


@pytest.mark.parametrize("periods", [(None, 2.0), [None, 2.0]])
@given(t=number, x=number)
def test_all_derivatives_of_a_periodic_model_are_periodic(periods, t, x):
    apply = periodic_inputs(polynomial, periods)
    here, there = jnp.array([t, x]), jnp.array([t, x + 2.0])
    for f in (lambda y: apply(1.0, y), pn.d(lambda y: apply(1.0, y), 1), pn.dd(lambda y: apply(1.0, y), 1)):
        assert np.isclose(f(here), f(there), atol=1e-10)
    assert np.isclose(apply(1.0, here), t + np.cos(np.pi * x) ** 2 + np.sin(np.pi * x) ** 3)


@pytest.mark.parametrize("array", [np.array, jnp.array])
def test_periods_may_be_an_array(array):
    x = jnp.array([0.3, 0.7])
    of_array, of_tuple = (periodic_inputs(polynomial, p)(1.0, x) for p in (array([1.0, 2.0]), (1.0, 2.0)))
    assert of_array == of_tuple


@given(st.floats(0.0, 1.0), number)
def test_a_hard_boundary_holds_whatever_the_parameters(x, parameter):
    apply = hard_boundary(polynomial, lambda x: x[0] * (1 - x[0]), lambda x: 2 + 3 * x[0])
    assert [float(apply(parameter, jnp.array([end]))) for end in (0.0, 1.0)] == [2.0, 5.0]
    assert np.isclose(apply(parameter, jnp.array([x])), 2 + 3 * x + x * (1 - x) * parameter * x)
    bare = hard_boundary(polynomial, lambda x: x[0] * (1 - x[0]))
    assert np.isclose(bare(parameter, jnp.array([x])), x * (1 - x) * parameter * x)


@given(number)
def test_fourier_features_are_cosines_then_sines(x):
    apply = fourier_features(lambda params, z: params @ z, [[1.0], [5.0]])
    expected = 1 * np.cos(x) + 2 * np.cos(5 * x) + 3 * np.sin(x) + 4 * np.sin(5 * x)
    assert np.isclose(apply(jnp.arange(1.0, 5.0), jnp.array([x])), expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_wrappers_keep_the_precision_of_their_inputs(dtype):
    x, params = jnp.ones(2, dtype), jnp.ones((), dtype)
    for apply in (
        normalized_inputs(polynomial, 1.0, 2.0),
        scaled_output(polynomial, 2.0, 1.0),
        periodic_inputs(polynomial, (None, 1.0)),
        hard_boundary(polynomial, lambda x: x[0], lambda x: x[1]),
        fourier_features(polynomial, np.ones((3, 2))),
    ):
        assert apply(params, x).dtype == dtype


@pytest.mark.parametrize(
    ("wrapper", "arguments", "error", "message"),
    [
        (normalized_inputs, (0.0, 0.0), ValueError, "scale: expected non-zero numbers, got 0.0"),
        (normalized_inputs, (np.nan, 1.0), ValueError, "shift: expected a finite number"),
        (scaled_output, ("two",), TypeError, "scale: expected real numbers, got 'two'"),
        (periodic_inputs, (2.0,), TypeError, "periods: expected a positive number or None for each input, got 2.0"),
        (periodic_inputs, (np.array(2.0),), TypeError, "periods: expected a positive number or None"),
        (periodic_inputs, ([None],), ValueError, "periods: expected at least one positive number"),
        (periodic_inputs, ([1.0, -1.0],), ValueError, r"periods\[1\]: expected a positive number, got -1.0"),
        (hard_boundary, (1.0,), TypeError, "distance: expected a function of a point, got 1.0"),
        (hard_boundary, (jnp.sum, 1.0), TypeError, "values: expected a function of a point, got 1.0"),
        (fourier_features, ([1.0],), ValueError, r"frequencies: expected finite numbers of shape \(m, d\)"),
    ],
)
def test_bad_arguments(wrapper, arguments, error, message):
    with pytest.raises(error, match=message):
        wrapper(polynomial, *arguments)


@pytest.mark.parametrize(
    "apply", [periodic_inputs(polynomial, (1.0, 2.0)), fourier_features(polynomial, np.ones((3, 2)))]
)
def test_a_point_with_another_number_of_inputs(apply):
    with pytest.raises(ValueError, match=r"x: expected shape \(2,\).*got \(3,\)"):
        apply(1.0, jnp.ones(3))
