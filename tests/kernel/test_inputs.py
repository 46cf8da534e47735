"""Inputs that every entry point must refuse with a clear error, or treat rightly."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pinnntk_lib as pn

MODEL = pn.MLP(4, dim=2)
PARAMS = MODEL.init(jax.random.key(0))
X = jax.random.uniform(jax.random.key(1), (4, 2), minval=0.2)
KEY = jax.random.key(2)


def value(u, x):
    return u(x)


def problem_of(operators):
    conditions = {name: pn.Condition(op, lambda x: 0.0, lambda n, key: X) for name, op in operators.items()}
    return pn.Problem(conditions, (0.0, 0.0), (1.0, 1.0))


def train(apply, params, operators, points):
    return pn.train(apply, params, problem_of(operators), points, optax.sgd(1e-9), 1, progress=False)


def diagnose(apply, params, operators, points):
    return pn.diagnose(apply, params, problem_of(operators), points)


EMPIRICAL = {
    "ntk": pn.ntk,
    "structured": lambda *setting: pn.ntk(*setting, "structured"),
    "jacobian": lambda *setting: pn.ntk(*setting, "jacobian"),
    "diagonal": pn.ntk_diagonal,
    "product": lambda *setting: pn.ntk_vector_product(*setting, jnp.ones(8)),
    "eigenpairs": lambda *setting: pn.ntk_eigenpairs(*setting, 1, KEY),
    "diagnose": diagnose,
    "train": train,
}
LIMITS = {
    "limit.ntk": lambda _, __, operators, points: pn.limit.ntk(MODEL, operators, points),
    "limit.nngp": lambda _, __, operators, points: pn.limit.nngp(MODEL, operators, points),
}


@pytest.mark.parametrize("entry", [*EMPIRICAL, *LIMITS])
@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (lambda u, x: (1 + 2j) * u(x), "got complex128; declare the real and the imaginary part as two outputs"),
        (lambda u, x: jnp.round(u(x)).astype(int), "got int64, which has no gradient"),
        (lambda u, x: u(x) > 0, "got bool, which has no gradient"),
    ],
)
def test_residuals_that_are_not_real(entry, operator, message):
    """The real part alone, or a gradient of zero, would be a wrong answer without any sign of it."""
    expected = rf"conditions\['r'\]: expected real floating-point numbers, {message}"
    with pytest.raises(TypeError, match=expected):
        (EMPIRICAL | LIMITS)[entry](MODEL.apply, PARAMS, {"u": value, "r": operator}, {"u": X, "r": X})


def test_a_complex_residual_as_the_message_suggests():
    """J J^H of ``(1 + 2i) u`` is 5 times the kernel of u: the sum of those of the real and the imaginary part."""
    both = pn.System(lambda u, x: jnp.stack([jnp.real((1 + 2j) * u(x)), jnp.imag((1 + 2j) * u(x))]), outputs=2)
    K = pn.ntk(MODEL.apply, PARAMS, {"r": both}, {"r": X})
    assert np.isclose(K.trace(), 5 * pn.ntk(MODEL.apply, PARAMS, {"r": value}, {"r": X}).trace(), rtol=1e-12)


def slope(u, x):
    return pn.dd(u, 0)(x)


CONDITIONS = {"u": value, "r": slope}
SINGLE = X.astype(jnp.float32)


@pytest.mark.parametrize("entry", ["ntk", "structured", "jacobian", "diagonal", "product", "eigenpairs", "diagnose"])
def test_points_of_mixed_precision(entry):
    """Points of float32 beside float64 are computed with in float64."""

    def answer(points):
        found = EMPIRICAL[entry](MODEL.apply, PARAMS, CONDITIONS, points)
        found = found[0] if entry == "eigenpairs" else found
        return np.concatenate(
            [np.ravel(leaf) for leaf in jax.tree.leaves(getattr(getattr(found, "K", found), "matrix", found))]
        )

    mixed, double = answer({"u": SINGLE, "r": X}), answer({"u": SINGLE.astype(jnp.float64), "r": X})
    assert mixed.dtype == double.dtype == np.float64
    assert np.allclose(mixed, double, rtol=1e-13)


def test_other_points_of_another_precision():
    setting = MODEL.apply, PARAMS, CONDITIONS, {"u": X, "r": X}
    for others in ({"u": SINGLE}, {"u": SINGLE, "r": X}):
        double = {name: x.astype(jnp.float64) for name, x in others.items()}
        mixed, expected = (pn.ntk(*setting, other_points=o).matrix for o in (others, double))
        assert mixed.dtype == jnp.float64
        assert np.allclose(mixed, expected, rtol=1e-13)


def polar(u, x):
    """Return ``u_r / r``, which is not finite at r = 0."""
    return pn.d(u, 0)(x) / x[0]


AT_ZERO = {"u": X, "r": X.at[2, 0].set(0.0)}


@pytest.mark.parametrize("entry", ["ntk", "structured", "jacobian", "diagonal", "product", "eigenpairs", "diagnose"])
def test_gradients_that_are_not_finite(entry):
    point = r"\[0.0, " + f"{float(X[2, 1]):.6f}"[:-1]
    with pytest.raises(ValueError, match=rf"conditions\['r'\]: expected finite gradients .* at the point {point}"):
        EMPIRICAL[entry](MODEL.apply, PARAMS, {"u": value, "r": polar}, AT_ZERO)


def test_gradients_that_are_not_finite_under_jit():
    """Values cannot be checked while they are traced, so the result holds NaN or infinity."""
    conditions = {"u": value, "r": polar}
    for f in (
        lambda p: pn.ntk(MODEL.apply, p, conditions, AT_ZERO).matrix,
        lambda p: pn.ntk_diagonal(MODEL.apply, p, conditions, AT_ZERO)["r"],
        lambda p: pn.ntk_vector_product(MODEL.apply, p, conditions, AT_ZERO, jnp.ones(8)),
    ):
        assert not jnp.isfinite(jax.jit(f)(PARAMS)).all()


def test_squares_that_overflow():
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (PARAMS, X))
    with pytest.raises(ValueError, match=r"conditions\['r'\]: .* numbers above 3e38 overflow float32"):
        pn.ntk(MODEL.apply, params, {"r": lambda u, x: 1e25 * u(x)}, {"r": x})


def swapped(x, params):
    return MODEL.apply(params, x)


@pytest.mark.parametrize("entry", EMPIRICAL)
def test_swapped_arguments_of_apply(entry):
    with pytest.raises(ValueError, match=r"apply\(params, x\) at x of shape \(2,\): could not be evaluated"):
        EMPIRICAL[entry](swapped, PARAMS, CONDITIONS, {"u": X, "r": X})


def test_eigenpairs_in_half_precision():
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (PARAMS, X))
    with pytest.raises(TypeError, match="params: expected float32 or float64 for the Lanczos method, got bfloat16"):
        pn.ntk_eigenpairs(MODEL.apply, params, {"u": value}, {"u": x}, 1, KEY)


@jax.custom_vjp
def activation(z):
    return jnp.tanh(z)


activation.defvjp(lambda z: (jnp.tanh(z), z), lambda z, g: ((1 - jnp.tanh(z) ** 2) * g,))


def test_products_with_an_activation_without_forward_mode():
    """A ``custom_vjp`` has a reverse mode only, which products of the kernel do not need to go beyond."""

    def model(act):
        return lambda params, x: params["out"] @ act(params["W"] @ x)

    params = {"out": jnp.arange(1.0, 5.0), "W": jax.random.normal(jax.random.key(3), (4, 2))}
    setting = params, {"u": value}, {"u": X}
    K = pn.ntk(model(jnp.tanh), *setting).matrix
    assert np.allclose(pn.ntk(model(activation), *setting).matrix, K, rtol=1e-12)
    v = jnp.arange(1.0, 5.0)
    assert np.allclose(pn.ntk_vector_product(model(activation), *setting, v), K @ v, rtol=1e-12)
    values, _ = pn.ntk_eigenpairs(model(activation), *setting, 1, KEY)
    assert np.allclose(values, jnp.linalg.eigvalsh(K)[-1:], rtol=1e-10)
