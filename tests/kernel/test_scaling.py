"""Scaling in small arrays changes no result, saves passes over large arrays, and leaves no transposition."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pinnntk_lib as pn
from pinnntk_lib.kernel import trace
from pinnntk_lib.kernel._plan import plan_of
from pinnntk_lib.kernel._scaling import _Scaling, _varying, is_large
from pinnntk_lib.kernel._setting import setting_of
from pinnntk_lib.kernel._trace import Builder

WIDTH = 6


def rescaled(f, *args):
    """Return f's values computed by its rescaled graph, whether or not that saves anything."""
    closed, builder = jax.make_jaxpr(f)(*args), Builder()
    builder.graph.inputs = [builder.new(var.aval) for var in closed.jaxpr.invars]
    builder.graph.outputs = builder.add_jaxpr(closed.jaxpr, closed.consts, builder.graph.inputs)
    graph = builder.graph.pruned()
    points = len(jax.tree.leaves(args[-1]))
    return _Scaling(graph, Builder(), _varying(graph, points)).rewritten().run(jax.tree.leaves(args))[0]


def is_unchanged(f, *args, tolerance=0.0):
    expected = jax.tree.leaves(f(*args))
    found = rescaled(f, *args)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.asarray(a, complex), np.asarray(b, complex), tolerance, tolerance)


# ---------------------------------------------------------------- arithmetic

STEPS = {
    "mul": lambda a, b, v: a * b,
    "add": lambda a, b, v: a + b,
    "sub": lambda a, b, v: a - b,
    "square": lambda a, b, v: a + (b + v) * (b + v),
    "neg": lambda a, b, v: -a,
    "half": lambda a, b, v: a / 2.0,
    "by rows": lambda a, b, v: a * v,
    "by columns": lambda a, b, v: v[:, None] * a,
    "by quotient": lambda a, b, v: a / (v * v + 1.0) * (v * v + 1.0),
    "by number": lambda a, b, v: a * v[0] + 3.0,
    "plus rows": lambda a, b, v: a + v,
    "transpose": lambda a, b, v: a.T,
    "twice": lambda a, b, v: jnp.concatenate([a, b]).reshape(2, 3, 3).transpose(0, 2, 1).sum(0),
    "outer": lambda a, b, v: (a[:, None, :] * b[None] * v).sum(1),
    "outer sum": lambda a, b, v: (v[:, None, None] * (a[:, :, None] - b)).sum((0, 2))[:, None] * b,
    "matrix": lambda a, b, v: a @ b,
    "matrix of transpose": lambda a, b, v: b @ a.T,
}
VECTORS = {
    "sum": lambda a, v: a.sum(0),
    "sum of rows": lambda a, v: (a * v).sum(1),
    "sum of products": lambda a, v: ((a + v) * (a - 2.0 * a.T)).sum(0),
    "keep": lambda a, v: v,
}
matrices = st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=3, max_size=3)
steps = st.tuples(st.sampled_from(sorted(STEPS)), st.sampled_from(sorted(VECTORS)), st.integers(0, 9), st.booleans())


@settings(max_examples=150)
@given(st.lists(steps, min_size=1, max_size=4), matrices, matrices)
def test_rescaled_arithmetic_is_the_same_arithmetic(program, weights, points):
    """Random programs keep their values, exactly so in whole numbers and small multiples of them."""

    def f(W, point):
        vector, values = point[0], [point, point + 1.0]
        for name, reduced, which, with_weights in program:
            a = values[which % len(values)]
            values.append(STEPS[name](a, W if with_weights else point, vector))
            # small, so that all numbers stay exact
            vector = jnp.clip(VECTORS[reduced](values[-1], vector), -2.0, 2.0)
        return values[-1], vector, values[-1].sum()

    # quotients by 1, 2 and 5 are not exact
    exact = all(name != "by quotient" for name, *_ in program)
    is_unchanged(f, jnp.array(weights, float), jnp.array(points, float), tolerance=0.0 if exact else 1e-9)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_all_precisions(dtype):
    def f(W, z):
        slope = 1 - z[0] ** 2
        return W @ (z * slope / 3.0).T, jnp.sum(2.0 * slope * z * z, 0)

    args = jnp.linspace(0, 1, 12, dtype=dtype).reshape(3, 4), jnp.linspace(-1, 1, 8, dtype=dtype).reshape(2, 4)
    is_unchanged(f, *args, tolerance=10 * float(jnp.finfo(dtype).eps))


def test_what_has_no_form_stays_as_it_is():
    """Complex numbers, whole numbers, custom derivative rules, empty arrays and infinite factors."""

    @jax.custom_vjp
    def opaque(z):
        return z * z

    opaque.defvjp(lambda z: (z * z, z), lambda z, g: (2 * z * g,))

    def f(z):
        wave = jnp.exp(1j * z) * z[0]
        count = (z > 0).astype(int) * 2
        empty = (z[:0] * z[0] + 1.0).sum(0), jnp.zeros((2, 0, 4)) * z[:, None] / 2.0
        return wave, wave.sum(0), count.T, opaque(z * z[1] / 2.0).sum(0), (z * jnp.inf).sum(0), *empty

    is_unchanged(f, jnp.linspace(0.1, 1, 8).reshape(2, 4), tolerance=1e-15)


# ---------------------------------------------------------------- networks


def laplacian(u, x):
    return pn.laplacian(u)(x)


def model_of(depth, dim):
    model = pn.MLP(WIDTH, depth, dim, shift=0.2, scale=0.5)
    return model, model.init(jax.random.key(0)), jnp.linspace(0.1, 0.7, dim)


def residual_graph(depth, dim):
    model, params, x = model_of(depth, dim)
    return trace(lambda params, x: laplacian(partial(model.apply, params), x), params, x)


def factor_graph(depth, dim):
    model, params, x = model_of(depth, dim)
    setting, _, points = setting_of(model.apply, params, {"r": laplacian}, {"r": x[None]})
    return plan_of(setting, (len(points["r"]),), "auto", True).features["r"].graph


def passes(graph):
    """Return the operations on large arrays that differ from point to point, other than matrix products."""
    varying, free = _varying(graph, 1), ("dot_general", "broadcast_in_dim", "reshape", "reduce_sum")
    nodes = [node for node in graph.nodes if varying.issuperset(node.outputs) and node.name not in free]
    return [node.name for node in nodes if is_large(graph.avals[node.outputs[0]])]


def test_a_slice_of_a_whole_array_is_no_operation():
    """JAX 0.5 to 0.7 slice where an axis of length 1 is indexed; such a slice would hide the sum over directions."""

    def whole(params, x):
        return jax.lax.slice_p.bind(params * x, start_indices=(0,), limit_indices=(3,), strides=None)

    assert [node.name for node in trace(whole, jnp.ones(3), jnp.ones(3)).nodes] == ["mul"]


@pytest.mark.parametrize("dim", [2, 5])
@pytest.mark.parametrize("depth", [2, 3])
def test_the_fewest_passes_over_the_derivatives(depth, dim):
    """Per layer: first derivatives times the slope, and squared; the first layer's are the same for all points."""
    assert passes(residual_graph(depth, dim)) == ["mul"] * (2 * depth - 2)
    # Backwards, per layer: a derivative in place of the square, and one of the product, with two factors and a sum.
    # The last layer's derivatives only have one factor.
    found = passes(factor_graph(depth, dim))
    assert set(found) == {"mul", "add"}
    assert len(found) == 2 * depth - 2 + 4 * (depth - 1) + 1


@pytest.mark.parametrize("make_graph", [residual_graph, factor_graph])
def test_no_large_transposition(make_graph):
    """With an axis of points in front, no array with an axis of directions is transposed."""
    graph = make_graph(3, 5)
    leaves = [jax.ShapeDtypeStruct(graph.avals[v].shape, graph.avals[v].dtype) for v in graph.inputs]
    x = jax.ShapeDtypeStruct((7, *leaves[-1].shape), leaves[-1].dtype)
    batched = jax.vmap(lambda leaves, x: graph.run([*leaves, x])[0], in_axes=(None, 0))
    eqns = jax.make_jaxpr(batched)(leaves[:-1], x).eqns
    transposed = [eqn.outvars[0].aval.shape for eqn in eqns if eqn.primitive.name == "transpose"]
    assert not [shape for shape in transposed if np.prod(shape) >= 7 * 5 * WIDTH]


@pytest.mark.slow
def test_systems_and_nonlinear_operators():
    def both(u, x):
        g = pn.gradient(u)(x)
        return jnp.stack([laplacian(u, x) + u(x) * g[0], g @ g, jnp.trace(pn.hessian(u)(x) @ pn.hessian(u)(x))])

    model, params, x = model_of(2, 3)

    def f(params, x):
        return both(partial(model.apply, params), x)

    is_unchanged(f, params, x, tolerance=1e-12)
    graph = trace(f, params, x)
    np.testing.assert_allclose(graph.run([*jax.tree.leaves(params), x])[0][0], f(params, x), rtol=1e-12)
    K = pn.ntk(model.apply, params, {"s": pn.System(both, 3)}, {"s": x[None]}).matrix
    J = jax.jacrev(f)(params, x)
    J = jnp.concatenate([leaf.reshape(3, -1) for leaf in jax.tree.leaves(J)], axis=1)
    np.testing.assert_allclose(K, J @ J.T, rtol=1e-11)
