"""Whatever the arguments, a public function returns, or raises an error of the library's that names one of them."""

import inspect
import re
import tempfile
import warnings

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pinnntk_lib as pn
from pinnntk_lib import experiments, plotting

PROBLEM = pn.problems.Poisson1D(a=2)
SQUARE = pn.problems.Helmholtz2D()
POINTS = PROBLEM.points(3)
MODEL = pn.MLP(width=3)
PARAMS = MODEL.init(jax.random.key(0))
WIDER = pn.MLP(width=3, dim=2)
K = pn.ntk(MODEL.apply, PARAMS, PROBLEM, POINTS)
CROSS = pn.ntk(MODEL.apply, PARAMS, PROBLEM, POINTS, other_points=POINTS)
RESIDUALS = PROBLEM.residuals(lambda x: MODEL.apply(PARAMS, x), POINTS)
FORECAST = pn.Linearized(K, RESIDUALS)
HISTORY = {"step": np.arange(3), "losses": {"u": np.ones(3)}, "weights": {"u": np.ones(3)}}
OPERATORS = PROBLEM.operators
X = POINTS["r"]


def parabola(x):
    return x @ x


def identity(x):
    return x


def at_a_point(of):
    """Return the function of an operator's arguments that also applies the result, which is what people do."""

    def applied(x, **arguments):
        return of(**arguments)(x)

    return applied


def saved(params):
    """Save parameters. (Any text is the name of a file, so that the file is not one of the arguments.)"""
    with tempfile.TemporaryDirectory() as folder:
        pn.save_params(f"{folder}/saved.npz", params)


def drawn(plot, right):
    """Return a plot that is closed again, with the axes among its arguments."""

    def plotted(**arguments):
        plot(**arguments)
        plt.close("all")

    plotted.__qualname__ = f"drawn {plot.__name__}"
    return plotted, right | {"ax": None}


SETTING = {"apply": MODEL.apply, "params": PARAMS, "conditions": PROBLEM, "points": POINTS}
TRAINED = {"apply": MODEL.apply, "params": PARAMS, "problem": PROBLEM, "points": POINTS}
# Functions, with arguments that are right; one of these at a time is replaced.
CALLS = {
    pn.ntk: SETTING | {"method": "auto", "other_points": POINTS, "memory": 2**20, "mesh": None},
    pn.ntk_diagonal: SETTING | {"memory": 2**20, "mesh": None},
    pn.ntk_vector_product: SETTING | {"vector": jnp.ones(6)},
    pn.ntk_eigenpairs: SETTING | {"count": 2, "key": jax.random.key(0)},
    pn.diagnose: SETTING | {"optimizer": 1e-3, "weights": {"u": 1.0, "r": 2.0}, "before": None, "max_points": 5},
    pn.train: TRAINED
    | {"optimizer": optax.sgd(1e-6), "steps": 2, "weights": {"u": 1.0, "r": 2.0}, "key": None, "log_every": 1}
    | {"test_points": X, "measure": None, "held_out": POINTS, "patience": 3, "single_steps": 0, "snapshots": (1,)}
    | {"checkpoint_every": 10, "resume": None, "progress": False, "mesh": None},
    saved: {"params": PARAMS},
    pn.load_params: {"file": "none.npz", "like": PARAMS},
    pn.log_evidence: TRAINED,
    pn.fourier_bandwidth: TRAINED
    | {"apply": WIDER.apply, "params": WIDER.init(jax.random.key(0)), "directions": np.ones((1, 1))}
    | {"bandwidths": (1.0,)},
    pn.Linearized: {"K": K, "residuals": RESIDUALS, "weights": {"u": 1.0, "r": 2.0}},
    FORECAST.losses: {"t": [0.0, 1.0], "learning_rate": 1e-3},
    FORECAST.residuals_at: {"t": [0.0, 1.0], "learning_rate": 1e-3},
    FORECAST.change: {"cross": CROSS, "t": [0.0, 1.0], "learning_rate": 1e-3},
    pn.largest_stable_learning_rate: {"K": K, "weights": {"u": 1.0, "r": 2.0}},
    pn.NTKWeights: {"every": 5, "normalize": "mean", "smoothing": 0.1, "points": POINTS},
    pn.GradientNormWeights: {"every": 5, "smoothing": 0.9, "reference": "r"},
    pn.RelativeLossWeights: {"temperature": 0.1, "alpha": 0.9, "rho": 0.9},
    pn.UncertaintyWeights: {"learning_rate": 1e-3, "max_weight": 10.0},
    pn.CausalWeights: {"epsilon": 1.0, "bins": 4, "condition": "r", "axis": 0, "weights": {"u": 1.0, "r": 2.0}},
    pn.ResidualAttention: {"n": {"r": 3}, "rate": 0.01, "decay": 0.9, "weights": {"u": 1.0, "r": 2.0}},
    pn.Fixed: {"values": {"u": 1.0, "r": 2.0}},
    pn.kernel_gradient_descent: {"damping": 1e-3, "max_tries": 3, "memory": 2**20},
    pn.join_optimizers: {"optimizers": [optax.sgd(1e-3), optax.adam(1e-3)], "boundaries": [3]},
    pn.relative_l2_error: {"u": np.ones(3), "exact": np.ones(3)},
    pn.Points: {"x": X, "normal": X},
    pn.MLP: {"width": 3, "depth": 1, "dim": 1, "activation": "tanh", "parameterization": "ntk"}
    | {"shift": 0.0, "scale": 1.0},
    pn.normalization: {"points": X},
    pn.models.normalized_inputs: {"apply": MODEL.apply, "shift": 0.0, "scale": 1.0},
    pn.models.scaled_output: {"apply": MODEL.apply, "scale": 1.0, "shift": 0.0},
    pn.models.periodic_inputs: {"apply": MODEL.apply, "periods": (1.0,)},
    pn.models.hard_boundary: {"apply": MODEL.apply, "distance": parabola, "values": parabola},
    pn.models.fourier_features: {"apply": MODEL.apply, "frequencies": np.ones((2, 1))},
    pn.System: {"operator": OPERATORS["r"], "outputs": 2},
    at_a_point(pn.d): {"u": parabola, "axis": 0},
    at_a_point(pn.dd): {"u": parabola, "axis": 0},
    at_a_point(pn.mixed): {"u": parabola, "first": 0, "second": 1},
    at_a_point(pn.gradient): {"u": parabola},
    at_a_point(pn.hessian): {"u": parabola},
    at_a_point(pn.divergence): {"u": identity},
    at_a_point(pn.biharmonic): {"u": parabola},
    at_a_point(pn.laplacian): {"u": parabola, "directions": 2, "key": jax.random.key(0)},
    pn.Condition: {"operator": OPERATORS["r"], "target": 0.0, "sampler": PROBLEM.conditions["r"].sampler},
    pn.Problem: {"conditions": PROBLEM.conditions, "lower": (0.0,), "upper": (1.0,), "exact": PROBLEM.exact},
    PROBLEM.points: {"n": 3, "key": jax.random.key(0)},
    PROBLEM.grid: {"n": 3},
    PROBLEM.residuals: {"u": parabola, "points": POINTS},
    pn.RandomPoints: {"problem": PROBLEM, "n": {"u": 2, "r": 3}},
    pn.ResidualPoints: {"problem": PROBLEM, "n": 3, "pool": 2, "power": 1.0, "floor": 1.0},
    pn.Minibatches: {"points": POINTS, "n": {"u": 2, "r": 2}},
    pn.problems.Ball: {"center": (0.0, 0.0), "radius": 1.0},
    pn.problems.Polygon: {"vertices": [(0, 0), (1, 0), (0, 1)]},
    pn.problems.Advection1D: {"c": 30.0},
    pn.problems.Burgers1D: {"viscosity": 0.1},
    pn.problems.Heat1D: {"diffusivity": 0.1, "k": 1},
    pn.problems.Helmholtz2D: {"a1": 1, "a2": 4, "k": 1.0},
    pn.problems.InverseHeat1D: {"diffusivity": 0.1},
    pn.problems.Poisson1D: {"a": 4},
    pn.problems.time_slab: {"problem": pn.problems.Wave1D(), "start": 0.0, "stop": 0.5}
    | {"initial": ("u",), "before": parabola, "axis": 0},
    pn.limit.ntk: {"model": MODEL, "conditions": PROBLEM, "points": POINTS, "other_points": POINTS, "at": None}
    | {"weight_variance": 1.0, "bias_variance": 1.0, "rtol": 1e-6, "memory": 2**20},
    pn.limit.nngp_function: {"model": MODEL, "radius": 2.0, "weight_variance": 1.0, "bias_variance": 1.0, "rtol": 1e-6},
    pn.limit.nngp: {"model": MODEL, "conditions": PROBLEM, "points": POINTS, "rtol": 1e-6},
    pn.limit.ntk_function: {"model": MODEL, "radius": 2.0, "rtol": 1e-6},
    MODEL.init: {"key": jax.random.key(0)},
    experiments.relative_change: {"now": np.ones(3), "start": np.ones(3)},
    plotting.table: {"columns": ["a", "b"], "rows": [["x", 1]]},
    pn.compare: TRAINED
    | {"seconds": 0.01, "optimizer": optax.adam(1e-3), "weights": {"u": 1.0, "r": 2.0}, "held_out": POINTS}
    | {"trials": {"mine": {"weights": {"u": 1.0, "r": 2.0}}}, "key": jax.random.key(0), "progress": False},
    K.block: {"a": "u", "b": "r"},
    K.rows: {"name": "u"},
    K.trace: {"name": "u"},
    K.eigvalsh: {"name": "u"},
    K.convergence_rate: {"name": "u"},
}
CALLS |= dict(
    [
        drawn(plotting.losses, {"history": HISTORY, "divergence": None}),
        drawn(plotting.weights, {"history": HISTORY}),
        drawn(plotting.solution, {"apply": MODEL.apply, "params": PARAMS, "problem": PROBLEM, "points": 4}),
        drawn(plotting.field, {"values": np.ones((3, 3)), "problem": SQUARE, "vmax": 1.0, "labels": ("x", "y")}),
        drawn(plotting.spectrum, {"K": K, "names": ["u"], "suffix": ""}),
    ]
)
TYPES = (bool, np.int32, np.float16, np.float32, np.float64, np.complex64, np.dtype("U2"), np.dtype("S2"))
ARRAYS = st.sampled_from(TYPES).flatmap(lambda of: hnp.arrays(of, hnp.array_shapes(min_dims=0, max_side=3, min_side=0)))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.sampled_from(["u", "r", object(), int, pn.MLP, np, jax.random.key(0), np.float32(2), jnp.ones(()), ...]),
)
FUNCTIONS = st.sampled_from(
    [lambda: 1, identity, parabola, lambda *_: None, lambda *_: "text", lambda *x: {}, lambda *_: 1 / 0, print, max]
)
VALUES = st.one_of(
    SCALARS,
    ARRAYS,
    ARRAYS.filter(lambda array: array.dtype.kind in "bifc").map(jnp.asarray),
    st.lists(SCALARS, max_size=3),
    st.lists(SCALARS, max_size=3).map(tuple),
    st.dictionaries(st.sampled_from(["u", "r", "x", 1, None]), st.one_of(SCALARS, ARRAYS), max_size=3),
    st.sets(st.integers(0, 3), max_size=2),
    FUNCTIONS,
    st.sampled_from([MODEL, PARAMS, PROBLEM, SQUARE, POINTS, OPERATORS, K, CROSS, optax.adam(1e-3), pn.NTKWeights()]),
)


@st.composite
def calls(draw):
    """Draw a function, and arguments of which one is any value, or holds one."""
    function = draw(st.sampled_from(list(CALLS)))
    right = CALLS[function]
    name = draw(st.sampled_from(list(right)))
    # what these functions of the user's raise is passed on, so they are replaced by other things only
    value = draw(VALUES.filter(lambda value: not callable(value)) if name in ("u", "measure") else VALUES)
    if isinstance(right[name], dict) and draw(st.booleans()):
        value = {**right[name], draw(st.sampled_from([*right[name], "z"])): value}
    return function, {**right, name: value}


def raised(function, arguments):
    """Return the error that a call raises, or None. Errors of other kinds than the library's are passed on."""
    if function.__name__ == "applied":
        arguments = {**arguments, "x": jnp.ones(2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(**arguments)
        except (ValueError, TypeError, pn.CheckpointError) as error:
            return error
        except (pn.DivergenceError, ZeroDivisionError, OSError):  # large weights, a user's function, no file
            return None


@pytest.mark.slow
@settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(calls())
def test_any_argument_is_right_or_refused_in_the_librarys_words(call):
    function, arguments = call
    error = raised(function, arguments)
    if error is not None:
        named = re.match(r"([A-Za-z_]\w*)[^:]*: ", str(error))
        # what people call the values of Fixed, a condition of a block, an axis of mixed, parts of the model
        general = {"conditions", "weights", "name", "axis", "activation", "apply"}
        known = {*inspect.signature(function).parameters, *CALLS[function], *general}
        assert named, error
        assert named[1] in known, error


@pytest.mark.parametrize("function", CALLS, ids=lambda function: getattr(function, "__qualname__", str(function)))
def test_the_right_arguments_are_right(function):
    assert raised(function, CALLS[function]) is None
