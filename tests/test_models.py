import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pinnntk_lib as pn


def by_hand(model, params, x, activation):
    """Evaluate the network in NumPy; in NTK parameterisation this is the formula of the paper's section 2."""
    a = (np.asarray(x) - model.shift) / model.scale
    for i, layer in enumerate(params):
        factor = 1 / np.sqrt(len(a)) if model.parameterization == "ntk" else 1.0
        a = factor * np.asarray(layer["W"]) @ a + np.asarray(layer["b"])
        if i < model.depth:
            a = activation(a)
    return a.item()


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
@pytest.mark.parametrize(("activation", "numpy_activation"), [("tanh", np.tanh), ("sin", np.sin), (jnp.cos, np.cos)])
@pytest.mark.parametrize(("depth", "dim"), [(1, 1), (3, 2)])
def test_the_network_is_its_formula(parameterization, activation, numpy_activation, depth, dim):
    model = pn.MLP(9, depth, dim, activation, parameterization, shift=0.4, scale=[0.3] * dim)
    params = model.init(jax.random.key(2))
    x = np.linspace(0.1, 0.9, dim)
    assert np.isclose(model.apply(params, jnp.array(x)), by_hand(model, params, x, numpy_activation), rtol=1e-13)


def test_ntk_parameters_are_standard_normal():
    params = pn.MLP(width=1000, depth=2).init(jax.random.key(0))
    values = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
    # with a million draws, both bounds are five standard deviations, exceeded about once in a million times
    assert abs(values.mean()) < 0.005
    assert abs(values.var() - 1) < 0.007


def test_standard_parameters_are_glorot():
    first, second, last = pn.MLP(width=500, depth=2, dim=2, parameterization="standard").init(jax.random.key(0))
    assert not any(layer["b"].any() for layer in (first, second, last))
    assert np.isclose(second["W"].var(), 2 / 1000, rtol=0.02)
    assert np.isclose(first["W"].var(), 2 / 502, rtol=0.2)


def test_an_initial_output_does_not_grow_with_width():
    outputs = [
        np.std(
            [
                pn.MLP(width).apply(pn.MLP(width).init(key), jnp.array([0.5]))
                for key in jax.random.split(jax.random.key(0), 100)
            ]
        )
        for width in (10, 1000)
    ]
    assert 0.6 < outputs[1] / outputs[0] < 1.6


def test_single_precision_stays_single():
    model = pn.MLP(5)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), model.init(jax.random.key(0)))
    assert model.apply(params, jnp.array([0.5], jnp.float32)).dtype == jnp.float32


def test_equal_models_are_one_static_argument():
    assert pn.MLP(5, shift=0.5) == pn.MLP(5, shift=(0.5,))
    assert hash(pn.MLP(5, dim=2, shift=np.array([1, 2.0]))) == hash(pn.MLP(5, dim=2, shift=[1.0, 2.0]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"width": 0}, ValueError, "width: expected a positive integer, got 0"),
        ({"width": 2.5}, TypeError, "width: expected a positive integer, got 2.5"),
        ({"width": True}, TypeError, "width: expected a positive integer, got True"),
        ({"width": 5, "depth": -1}, ValueError, "depth: expected a positive integer, got -1"),
        (
            {"width": 5, "activation": "relu6"},
            ValueError,
            r"activation: expected a function or one of \['tanh'.*'relu6'",
        ),
        (
            {"width": 5, "parameterization": "mup"},
            ValueError,
            "parameterization: expected 'ntk' or 'standard', got 'mup'",
        ),
        (
            {"width": 5, "shift": [1, 2, 3]},
            ValueError,
            r"shift: expected a finite number or 1 of them .* got \[1, 2, 3\]",
        ),
        ({"width": 5, "scale": 0}, ValueError, r"scale: expected non-zero numbers, got \(0.0,\)"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        pn.MLP(**arguments)


def test_a_point_of_the_wrong_dimension():
    model = pn.MLP(5, dim=2)
    with pytest.raises(ValueError, match=r"x: expected a point of shape \(2,\), got shape \(3,\)"):
        model.apply(model.init(jax.random.key(0)), jnp.ones(3))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.ones(3), r"points: expected shape \(n, d\), got \(3,\)"),
        (np.ones((3, 1)), "expected variation along every axis"),
    ],
)
def test_normalization_of_what_cannot_be(points, message):
    with pytest.raises(ValueError, match=message):
        pn.normalization(points)


def test_wrappers_scale_inputs_and_outputs():
    """They are the chain rule: derivatives of the wrapped model are those of the model, times their factors."""
    model = pn.MLP(7, 2, 2)
    params = model.init(jax.random.key(0))
    x, shift, scale = jnp.array([310.0, 2e-4]), (300.0, 1e-4), (20.0, 5e-5)
    z = (x - jnp.array(shift)) / jnp.array(scale)
    wrapped = pn.models.scaled_output(pn.models.normalized_inputs(model.apply, shift, scale), 50.0, shift=3.0)
    assert float(wrapped(params, x)) == pytest.approx(3 + 50 * float(model.apply(params, z)))
    own, inner = jax.grad(wrapped, argnums=1)(params, x), jax.grad(model.apply, argnums=1)(params, z)
    assert np.allclose(own, 50 * inner / jnp.array(scale), rtol=1e-12)
    single = jax.tree.map(lambda leaf: leaf.astype("float32"), params)
    assert wrapped(single, x.astype("float32")).dtype == jnp.float32
    same = pn.MLP(7, 2, 2, shift=shift, scale=scale)
    assert float(pn.models.normalized_inputs(model.apply, shift, scale)(params, x)) == float(same.apply(params, x))
    both = pn.models.scaled_output(lambda params, x: jnp.stack([x[0], x[1]]), (2.0, 1e4), (0.0, -1.0))
    assert both(params, x).tolist() == [620.0, 1.0]


@pytest.mark.parametrize("wrap", [pn.models.scaled_output, pn.models.normalized_inputs])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0.0, "shift": 0.0}, r"scale: expected non-zero numbers, got 0.0"),
        ({"scale": (1.0, 0.0), "shift": 0.0}, r"scale: expected non-zero numbers, got \(1.0, 0.0\)"),
        (
            {"scale": 1.0, "shift": float("nan")},
            r"shift: expected a finite number, or one per input or output, got nan",
        ),
        ({"scale": [[1.0]], "shift": 0.0}, r"scale: expected a finite number, or one per input or output, got"),
    ],
)
def test_wrappers_refuse_what_cannot_be(wrap, arguments, message):
    with pytest.raises(ValueError, match=message):
        wrap(lambda params, x: x[0], **arguments)
