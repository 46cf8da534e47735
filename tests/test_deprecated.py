"""Former names still work, with a warning that states the new name."""

import jax
import numpy as np
import pytest

import pinnntk_lib as pn
from pinnntk_lib import plotting

SQUARE = pn.problems.Wave1D()


def eigenvalues(setting, **options):
    model, params, problem, points = setting
    return pn.ntk_eigenpairs(model.apply, params, problem, points, 2, jax.random.key(0), **options)[0]


CALLS = {
    "kernel_gradient_descent: 'tries' is now 'max_tries'": lambda _: pn.kernel_gradient_descent(tries=3),
    "UncertaintyWeights: 'largest' is now 'max_weight'": lambda _: pn.UncertaintyWeights(largest=7.0).max_weight,
    "ntk_eigenpairs: 'tolerance' is now 'rtol'": lambda setting: eigenvalues(setting, tolerance=1e-3),
    "ntk_function: 'reach' is now 'radius'": lambda _: pn.limit.ntk_function(pn.MLP(width=1), reach=1.5),
    "nngp_function: 'reach' is now 'radius'": lambda _: pn.limit.nngp_function(pn.MLP(width=1), reach=1.5),
    "field: 'limit' is now 'vmax'": lambda _: plotting.field(np.ones(4), SQUARE, limit=2.0).collections[-1].norm.vmax,
    "field: 'names' is now 'labels'": lambda _: plotting.field(np.ones(4), SQUARE, names=("a", "b")).get_xlabel(),
}
RETURNED = {"max_weight": 7.0, "vmax": 2.0, "labels": "a"}


@pytest.mark.parametrize("message", CALLS)
def test_a_former_keyword_works_and_warns(message, poisson):
    with pytest.warns(DeprecationWarning, match=message) as caught:
        returned = CALLS[message](poisson)
    assert [warning.filename for warning in caught] == [__file__]  # the warning points at the caller's code
    new = message.split("'")[3]
    assert new not in RETURNED or returned == RETURNED[new]


def test_both_names_at_once_are_refused():
    with pytest.raises(TypeError, match=r"expected 'max_tries' alone, got .*'tries'"):
        pn.kernel_gradient_descent(tries=3, max_tries=4)


@pytest.mark.parametrize(
    ("former", "new"),
    [
        ("modes", "eigenvalues"),
        ("known_modes", "resolved_eigenvalues"),
        ("rounding", "rounding_level"),
        ("steps_per_e_fold", "time_constants"),
        ("parameters", "num_params"),
    ],
)
def test_a_former_attribute_of_a_diagnosis_works_and_warns(poisson, former, new):
    model, params, problem, points = poisson
    found = pn.diagnose(model.apply, params, problem, points, optimizer=1e-5)
    with pytest.warns(DeprecationWarning, match=f"Diagnosis: '{former}' is now '{new}'") as caught:
        returned = getattr(found, former)
    assert [warning.filename for warning in caught] == [__file__]
    np.testing.assert_array_equal(returned, getattr(found, new))


def test_the_data_of_a_diagnosis_have_former_names_too(poisson):
    model, params, problem, points = poisson
    data = pn.diagnose(model.apply, params, problem, points, optimizer=1e-5).data
    for former, new in {"modes": "eigenvalues", "rounding": "rounding_level", "parameters": "num_params"}.items():
        np.testing.assert_array_equal(data[former], data[new])


def test_an_attribute_that_never_was_is_an_error(poisson):
    model, params, problem, points = poisson
    with pytest.raises(AttributeError, match="'Diagnosis' object has no attribute 'mood'"):
        pn.diagnose(model.apply, params, problem, points).mood  # noqa: B018
