"""Structured derivatives agree with plain automatic differentiation for any model, operator and use of a parameter."""

import itertools
import math
from functools import partial, reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pinnntk_lib as pn
from pinnntk_lib.kernel import trace
from pinnntk_lib.kernel._plan import plan_of
from pinnntk_lib.kernel._regroup import regrouped
from pinnntk_lib.kernel._setting import setting_of
from pinnntk_lib.kernel._trace import Builder


def heat(u, x):
    return pn.d(u, 0)(x) - pn.dd(u, 1)(x)


def burgers(u, x):
    return pn.d(u, 0)(x) + u(x) * pn.d(u, 1)(x) - 0.01 * pn.dd(u, 1)(x)


def biharmonic(u, x):
    return pn.laplacian(pn.laplacian(u))(x)


def variable(u, x):
    return pn.d(lambda y: jnp.exp(y[1]) * pn.d(u, 1)(y), 1)(x)


def by_hessian(u, x):
    """Forward-over-reverse mode, with a batch of directions."""
    return jnp.trace(jax.hessian(u)(x)) + u(x) ** 3


def by_gradient(u, x):
    return jnp.sum(jax.grad(u)(x) ** 2) - 1.0


def minimal_surface(u, x):
    g = jax.grad(u)(x)
    return pn.laplacian(u)(x) / jnp.sqrt(1.0 + g @ g)


def value(u, x):
    return u(x)


def wave(u, x):
    return pn.dd(u, 0)(x) - 4.0 * pn.dd(u, 1)(x)


OPERATORS = {
    f.__name__: f for f in (value, wave, heat, burgers, biharmonic, variable, by_hessian, by_gradient, minimal_surface)
}
FEW = {name: OPERATORS[name] for name in ("value", "wave", "burgers")}
POINTS = jax.random.uniform(jax.random.key(0), (4, 2), minval=0.1, maxval=0.9)


def reference(apply, params, operators, points):
    """Compute ``J J^T`` with jax.grad alone."""

    def rows(operator, x):
        gradients = jax.jit(jax.vmap(jax.grad(lambda p, x: operator(lambda y: apply(p, y), x)), (None, 0)))(params, x)
        return jnp.concatenate([leaf.reshape(len(x), -1) for leaf in jax.tree.leaves(gradients)], axis=1)

    J = jnp.concatenate([rows(operator, points[name]) for name, operator in operators.items()])
    return J @ J.T


def relative(a, b):
    return float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())


def agrees(apply, params, operators=FEW, tolerance=1e-12, methods=("structured", "auto")):
    """Check the kernels and the diagonal against the reference; return the structured kernel's paths by leaf."""
    points = {name: POINTS + 0.01 * i for i, name in enumerate(operators)}
    expected, kernels = reference(apply, params, operators, points), {}
    for method in methods:
        K = pn.ntk(apply, params, operators, points, method)
        kernels[method] = K
        assert relative(K.matrix, expected) < tolerance
        for a in K.names:
            for b in K.names:
                scale = np.sqrt(
                    np.abs(expected[K.rows(a), K.rows(a)]).max() * np.abs(expected[K.rows(b), K.rows(b)]).max()
                )
                assert np.abs(K.block(a, b) - expected[K.rows(a), K.rows(b)]).max() < tolerance * scale
    diagonal = pn.ntk_diagonal(apply, params, operators, points)
    assert relative(jnp.concatenate(list(diagonal.values())), jnp.diag(expected)) < tolerance
    return {path.leaf: path for path in kernels["structured"].paths}


# ---------------------------------------------------------------- models: ours, other libraries', hand-written


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "biharmonic" else n for n in sorted(OPERATORS)]
)
def test_our_own(name):
    # with fourth derivatives, the plain Jacobian in float64 is no more accurate than this
    tolerance = 1e-11 if name == "biharmonic" else 1e-12
    model = pn.MLP(9, 2, 2, shift=0.5, scale=0.3)
    paths = agrees(model.apply, model.init(jax.random.key(1)), {"value": value, name: OPERATORS[name]}, tolerance)
    assert [paths[f"params[{i}]['W']"].method for i in range(3)] == ["structured"] * 3
    assert paths["params[0]['b']"].reason == "used by tanh"


@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.gelu, jax.nn.softplus, jax.nn.silu])
def test_equinox(activation):
    """Equinox weights are structured. softplus has a custom derivative rule, which the graph keeps unchanged."""
    eqx = pytest.importorskip("equinox")
    network = eqx.nn.MLP(2, "scalar", 7, 2, activation=activation, key=jax.random.key(0))
    params, static = eqx.partition(network, eqx.is_array)
    operators = {name: OPERATORS[name] for name in ("value", "by_hessian")}
    paths = agrees(lambda params, x: eqx.combine(params, static)(x), params, operators)
    assert [path.method for leaf, path in paths.items() if leaf.endswith("weight")] == ["structured"] * 3


def test_flax_nnx():
    nnx = pytest.importorskip("flax.nnx")

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(2, 6, rngs=rngs, param_dtype=float)
            self.second = nnx.Linear(6, 6, rngs=rngs, param_dtype=float)
            self.norm = nnx.LayerNorm(6, rngs=rngs, param_dtype=float)
            self.last = nnx.Linear(6, 1, rngs=rngs, param_dtype=float)

        def __call__(self, x):
            h = jnp.tanh(self.first(x))
            return self.last(jnp.tanh(self.norm(self.second(h))))[0]

    definition, params = nnx.split(Network(nnx.Rngs(0)))
    operators = {name: OPERATORS[name] for name in ("value", "burgers")}
    paths = agrees(lambda params, x: nnx.merge(definition, params)(x), params, operators)
    kernels = {leaf: path.method for leaf, path in paths.items() if "kernel" in leaf}
    assert len(kernels) == 3
    assert set(kernels.values()) == {"structured"}


def everything(params, x):
    """Shared weights (also transposed), skip connection, random weight factorisation, Fourier features, embedding."""
    frequencies = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))
    phases = 2 * jnp.pi * frequencies @ x
    features = jnp.concatenate([jnp.sin(phases), jnp.cos(phases), params["embedding"][jnp.floor(3 * x[0]).astype(int)]])
    h = jnp.tanh(params["in"] @ features)
    shared = params["shared"] / jnp.sqrt(8.0)
    h = h + jnp.tanh(shared @ h)
    h = h + jnp.tanh(-shared.T @ h + params["b"])
    factorised = jnp.exp(params["s"])[:, None] * params["V"]
    g = jnp.tanh(factorised @ h) * jax.nn.sigmoid(h @ (params["V"] * params["columns"]))
    return jnp.dot(params["out"], g) + params["c"] * x[1]


def everything_params():
    keys = iter(jax.random.split(jax.random.key(2), 9))
    shapes = {"embedding": (3, 2), "in": (8, 8), "shared": (8, 8), "b": (8,), "s": (8,), "V": (8, 8), "columns": (8,)}
    params = {name: jax.random.normal(next(keys), shape) for name, shape in shapes.items()}
    return params | {"out": jax.random.normal(next(keys), (8,)), "c": jnp.array(0.3)}


@pytest.mark.slow
def test_hand_written_with_everything():
    paths = agrees(everything, everything_params())
    methods = {leaf[8:-2]: path.method for leaf, path in paths.items()}
    for name in ("in", "shared", "V", "out"):
        assert methods[name] == "structured"
    for name in ("embedding", "b", "s", "columns", "c"):
        assert methods[name] == "jacobian"
    assert paths["params['c']"].reason == "a scalar"


def test_flat_parameters():
    """Slices of a single parameter vector, the form SciPy's optimisers need, are treated like leaves."""
    model = pn.MLP(8, 2, 2)
    flat, unravel = jax.flatten_util.ravel_pytree(model.init(jax.random.key(0)))
    operators = {name: OPERATORS[name] for name in ("value", "wave")}
    paths = agrees(lambda flat, x: model.apply(unravel(flat), x), flat, operators)
    assert sum(path.method == "structured" for path in paths.values()) == 3
    assert "params[0:16].reshape(8, 2)" in paths


def test_stacked_layers():
    def apply(params, x):
        h = jnp.tanh(params["in"] @ x)
        for i in range(3):
            h = jnp.tanh(params["layers"][i] @ h)
        return params["out"] @ h

    keys = jax.random.split(jax.random.key(0), 3)
    shapes = {"in": (6, 2), "layers": (3, 6, 6), "out": (6,)}
    params = {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items())}
    paths = agrees(apply, params)
    assert sum(path.method == "structured" for path in paths.values()) == 5


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (lambda W, h: jax.lax.scan(lambda h, _: (jnp.tanh(W @ h), None), h, length=2)[0], "used by scan"),
        (lambda W, h: jnp.linalg.solve(jnp.eye(5) + 0.1 * W, h), "used by "),
        (lambda W, h: (W * jnp.arange(1.0, 26.0).reshape(5, 5)) @ h, "scaled element by element"),
        (lambda W, h: (W * W) @ h, "scaled element by element"),
        (lambda W, h: (W / jnp.linalg.norm(W)) @ h, "used by "),
        (lambda W, h: W.reshape(25)[:5] + W @ h, "used by reshape"),
        (lambda W, h: jnp.einsum("ij,ij->i", W, jnp.outer(h, h)), "used by a batched dot_general"),
        (lambda W, h: W[:, :3] @ h[:3] + W[:, 2:] @ h[2:], "used by slice"),
        (lambda W, h: jnp.exp(W) @ h, "used by exp"),
        (lambda W, h: W[0] * h, "used by "),
    ],
)
def test_what_is_not_recognised_keeps_its_jacobian(use, reason):
    def apply(params, x):
        return params["out"] @ jnp.tanh(use(params["W"], jnp.tanh(params["in"] @ x)))

    keys = jax.random.split(jax.random.key(0), 3)
    shapes = {"in": (5, 2), "W": (5, 5), "out": (5,)}
    params = {name: jax.random.normal(key, shape) / 2 for key, (name, shape) in zip(keys, shapes.items())}
    paths = agrees(apply, params, {"wave": wave}, methods=["structured"])
    (path,) = [path for leaf, path in paths.items() if leaf.startswith("params['W']")]
    assert path.method == "jacobian"
    assert path.reason.startswith(reason)
    assert paths["params['in']"].method == paths["params['out']"].method == "structured"


@pytest.mark.parametrize(
    "use",
    [
        lambda W, h: W.T.T @ h,
        lambda W, h: jnp.einsum("ij,i->j", W, h),
        lambda W, h: (h[None] @ W)[0],
        lambda W, h: (W @ jnp.stack([h, h**2], 1)).sum(1),
        lambda W, h: 0.5 * (W + W.T) @ h,
        lambda W, h: (2.0 - W / 3.0) @ h,
        lambda W, h: W @ (W @ h),
        lambda W, h: (W.T @ W) @ h,
        lambda W, h: (W + jnp.outer(h, h)) @ h,
        lambda W, h: (W * jnp.sum(h)) @ h,
        lambda W, h: jnp.vdot(W, jnp.outer(h, jnp.cos(h))) * h,
        lambda W, h: jax.jit(jnp.matmul)(W, jax.checkpoint(jnp.sin)(h)),
        lambda W, h: jax.vmap(lambda w: w @ h)(W),
        lambda W, h: jnp.split(W, [2], axis=0)[0].sum() * h + W @ h,
    ],
)
def test_ways_of_using_a_matrix(use):
    def apply(params, x):
        return params["out"] @ jnp.tanh(use(params["W"], jnp.tanh(params["in"] @ x)))

    keys = jax.random.split(jax.random.key(0), 3)
    shapes = {"in": (5, 2), "W": (5, 5), "out": (5,)}
    params = {name: jax.random.normal(key, shape) / 2 for key, (name, shape) in zip(keys, shapes.items())}
    agrees(apply, params, {"wave": wave}, methods=["structured"])


def test_conditions_that_use_a_leaf_differently():
    """One condition uses a slice of a vector, the other uses no parameter; the vector still gets a single path."""
    params = {"theta": jax.random.normal(jax.random.key(0), (12,)), "unused": jnp.ones(3)}

    def apply(params, x):
        return params["theta"][:6].reshape(3, 2) @ x

    operators = {
        "sliced": lambda u, x: jnp.sum(jnp.tanh(u(x))),
        "nothing": lambda u, x: x[0],
    }
    points = {name: POINTS for name in operators}
    K = pn.ntk(apply, params, operators, points, "structured")
    assert relative(K.matrix, reference(apply, params, operators, points)) < 1e-13
    assert {path.leaf: path.method for path in K.paths} == {
        "params['theta'][0:6].reshape(3, 2)": "structured",
        "params['unused']": "unused",
    }


def test_overlapping_slices_across_conditions():
    params = jax.random.normal(jax.random.key(0), (12,))
    operators = {
        "some": lambda u, x: jnp.sum(jnp.tanh(u(x)[:4].reshape(2, 2) @ x)),
        "others": lambda u, x: jnp.sum(jnp.tanh(u(x)[2:6].reshape(2, 2) @ x)),
    }
    points = {name: POINTS for name in operators}
    K = pn.ntk(lambda params, x: params, params, operators, points, "structured")
    assert relative(K.matrix, reference(lambda params, x: params, params, operators, points)) < 1e-13
    assert [path.reason for path in K.paths] == ["sliced in overlapping ways"]


def test_tiny_matrices_and_scales_of_one_number():
    def apply(params, x):
        return (params["W"] * jnp.exp(x[0]) @ jnp.tanh(params["V"] @ x[:1]))[0]

    params = {"W": jnp.full((1, 1), 0.7), "V": jnp.full((1, 1), -0.4)}
    agrees(apply, params, {name: OPERATORS[name] for name in ("value", "heat")})


# ---------------------------------------------------------------- properties


@pytest.mark.slow
@settings(max_examples=6)  # every example compiles anew, which takes seconds
@given(
    widths=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    activation=st.sampled_from([jnp.tanh, jnp.sin, jax.lax.erf, jax.nn.gelu]),
    parameterization=st.sampled_from(["right", "left", "scaled", "skip"]),
    names=st.lists(st.sampled_from(sorted(OPERATORS)), min_size=1, max_size=2, unique=True),
    seed=st.integers(0, 2**31 - 1),
)
def test_random_networks_and_operators(widths, activation, parameterization, names, seed):
    sizes = [2, *widths, 1]
    keys = jax.random.split(jax.random.key(seed), 2 * len(sizes))
    params = [
        {
            "W": jax.random.normal(keys[2 * i], (n, m) if parameterization == "left" else (m, n)) / math.sqrt(m),
            "b": jax.random.normal(keys[2 * i + 1], (n,)),
        }
        for i, (m, n) in enumerate(itertools.pairwise(sizes))
    ]

    def apply(params, x):
        h = x
        for i, layer in enumerate(params):
            W = layer["W"] * jnp.exp(layer["b"]) if parameterization == "scaled" else layer["W"]
            z = (W @ h if parameterization == "left" else h @ W) + layer["b"]
            z = z if i == len(params) - 1 else activation(z)
            h = h + z if parameterization == "skip" and z.shape == h.shape else z
        return h[0]

    agrees(
        apply, params, {name: OPERATORS[name] for name in names}, tolerance=1e-11 if "biharmonic" in names else 1e-12
    )


@pytest.mark.parametrize("names", [["value", "wave"], ["burgers", "by_hessian"]])
def test_single_precision(names):
    model = pn.MLP(50, 3, 2, shift=0.5, scale=0.3)
    params, operators = model.init(jax.random.key(0)), {name: OPERATORS[name] for name in names}
    points = dict.fromkeys(names, POINTS)
    expected = reference(model.apply, params, operators, points)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, points))
    for method in ("structured", "auto"):
        K = pn.ntk(model.apply, single[0], operators, single[1], method)
        assert K.matrix.dtype == jnp.float32
        assert relative(K.matrix, expected) < 1e-5


def test_half_precision_parameters_beside_single():
    """With leaves of several dtypes, the kernel has the widest of them."""
    model = pn.MLP(5, 1, 2)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), model.init(jax.random.key(0)))
    params[0]["W"] = params[0]["W"].astype(jnp.float64)
    K = pn.ntk(model.apply, params, {"wave": wave}, {"wave": POINTS}, "structured")
    assert K.matrix.dtype == jnp.float64
    assert relative(K.matrix, reference(model.apply, params, {"wave": wave}, {"wave": POINTS})) < 1e-5


# ---------------------------------------------------------------- the graph


def products(operator, depth=3, dim=2):
    model = pn.MLP(5, depth, dim)
    params, x = model.init(jax.random.key(0)), jnp.full(dim, 0.3)
    graph = trace(lambda params, x: operator(partial(model.apply, params), x), params, x)
    assert np.isclose(
        graph.run([*jax.tree.leaves(params), x])[0][0], operator(partial(model.apply, params), x), rtol=1e-12
    )
    # the vectors that are multiplied by a layer's weights, one by one or together
    multiplied = [node for node in graph.nodes if node.name == "dot_general"]
    leaves = graph.inputs[:-1]
    rows = [next(graph.avals[v].shape[0] for v in node.inputs if v in leaves) for node in multiplied]
    sizes = [np.prod(graph.avals[node.outputs[0]].shape) // n for node, n in zip(multiplied, rows)]
    return [sum(sizes), graph]


@pytest.mark.slow
def test_the_fewest_channels():
    """In a network with 3 hidden layers, every layer computes only the products that the operator needs.

    The first layer needs one product for the value and one per first derivative, the last layer a single product. In
    between, a Laplacian in d dimensions needs the value, d first derivatives and one sum of second derivatives.
    """
    assert products(value)[0] == 4
    for dim in (1, 2, 3, 5):
        assert products(lambda u, x: pn.laplacian(u)(x), dim=dim)[0] == (dim + 1) + 2 * (dim + 2) + 1
    assert products(wave)[0] == 3 + 2 * 4 + 1
    assert products(heat)[0] == 3 + 2 * 3 + 1  # u_t is added to u_xx


def sums_of_products(u, x):
    """The product ``X Y`` twice, expanded once over the terms of Y and once over the terms of X."""
    a, b, c, e = jnp.sin(u(x)), jnp.cos(u(x)), jnp.exp(x[0]), jnp.tanh(x[0])
    X, Y = c + e, a + b
    return pn.laplacian(u)(x) + pn.d(u, 0)(x) + (a * X + b * X) + (c * Y + e * Y)


def test_terms_that_regroup_to_the_same_product_are_all_counted():
    keys = jax.random.split(jax.random.key(0), 3)
    params = [jax.random.normal(key, shape) for key, shape in zip(keys, [(20, 2), (20, 20), (20,)])]
    agrees(lambda p, x: p[2] @ jnp.tanh(p[1] @ jnp.tanh(p[0] @ x) / 4), params, {"r": sums_of_products})


subsets = st.sampled_from([(0, 1), (0,), (1,)])


@example([(False, (0, 1), (0, 1), 1.0), (True, (0, 1), (0, 1), 1.0)])
@settings(max_examples=200)
@given(st.lists(st.tuples(st.booleans(), subsets, subsets, st.sampled_from([1.0, -1.0, 2.0])), min_size=1, max_size=5))
def test_regrouped_arithmetic_is_the_same_arithmetic(groups):
    """Regrouping products of sums with one factor expanded keeps their value, exactly so in whole numbers."""

    def f(x):
        terms = []
        for swapped, some, others, c in groups:
            a, b = (x[2:], x[:2]) if swapped else (x[:2], x[2:])  # slices of a list add no operations
            factor = reduce(add, [b[i] for i in others])
            terms += [c * (a[i] * factor) for i in some]
        return reduce(add, terms)

    x = list(jnp.array([1.0, -2.0, 3.0, 5.0]))
    closed, builder = jax.make_jaxpr(f)(x), Builder()
    builder.graph.inputs = [builder.new(var.aval) for var in closed.jaxpr.invars]
    builder.graph.outputs = builder.add_jaxpr(closed.jaxpr, closed.consts, builder.graph.inputs)
    assert regrouped(builder).pruned().run(x)[0][0] == f(x)


def test_a_deep_network():
    """Regrouping does not recurse: Python's limit would be reached at about a hundred layers."""
    depth = 150
    model = pn.MLP(2, depth, 2)
    params, x = model.init(jax.random.key(0)), POINTS[0]

    def residual(params, x):
        return wave(partial(model.apply, params), x)

    graph = trace(residual, params, x)
    assert np.isclose(graph.run([*jax.tree.leaves(params), x])[0][0], residual(params, x), rtol=1e-10)
    assert sum(node.name == "dot_general" for node in graph.nodes) == 3 + 4 * (depth - 1) + 1


def test_constants_that_are_no_factors():
    """Zero, infinity and NaN are not extracted as constant factors."""
    for factor in (0.0, jnp.inf, jnp.nan):
        graph = trace(lambda x, k=factor: jnp.sum(x * k) + jnp.sum(x), jnp.ones(3))
        np.testing.assert_array_equal(graph.run([jnp.ones(3)])[0][0], 3 * factor + 3)


@pytest.mark.parametrize("width", [12, 60])  # the hidden layer's Jacobian is assembled, or its factors are kept
def test_bytes_of_the_features(width):
    """The memory that the chunks are planned with is what the features of a point take."""
    model = pn.MLP(width, 2, 2)
    setting, leaves, points = setting_of(model.apply, model.init(jax.random.key(0)), {"r": wave}, {"r": POINTS})
    features = plan_of(setting, (300,), "auto", True).features["r"]
    taken = sum(array.nbytes for array in jax.tree.leaves(features(leaves, points["r"])))
    assert taken == features.feature_bytes * len(POINTS)
