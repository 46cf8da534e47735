"""What a diagnosis measures beside the kernel of the conditions: the model's outputs, its parameters, other points."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_points
from pinnntk_lib._devices import replicated
from pinnntk_lib._points import Points, coordinates, joined, spread
from pinnntk_lib._static import compiled, static
from pinnntk_lib.kernel import ntk, ntk_diagonal, squared_gradients
from pinnntk_lib.models import normalized_inputs
from pinnntk_lib.operators import System
from pinnntk_lib.problems import Problem, other_points

OUTPUTS = "the model's outputs"  # the name under which their kernel is computed
MOST_OUTPUTS = 64  # values whose kernel is computed beside that of the conditions
MOST_GRADIENTS = 32  # points of each condition whose gradients are divided among the leaves
HELD_OUT = 256  # points of each condition that are drawn beside its own
FAR = 10.0  # inputs are far from normalised if their mean or their deviation is off by this factor
STILL = 1e3  # a condition is still if its gradients are smaller than the same operator's elsewhere by eps times this


@dataclass(frozen=True, eq=False)
class Evidence:
    """Measurements of the model and its problem at the present parameters.

    Attributes:
        outputs: u at a sample of the points, an array (p, m) for a model with m outputs.
        kernel: the kernel of these values, (p m, p m).
        cross: their kernel with the conditions', (p m, n).
        natural: natural sizes of the conditions, ``{name: root mean square}``: how large their values would be if the
            parameters' contributions had random signs; and of the outputs, under OUTPUTS, an array (m,).
        shares: ``{leaf: {name: share of the condition's rate that is due to this leaf of the parameters}}``.
        portions: ``{leaf: its portion of all parameters}``.
        leaves: ``{leaf: root mean square of its values}``.
        of_output: the leaf that moves each output most.
        still: conditions that no parameter moves.
        of_zero: ``{name: root mean square of the residuals of u = 0}``; None without targets.
        held_out: ``{name: mean square residual at other points}``, of the conditions that have others.
        inputs: None if the inputs are roughly of mean 0 and standard deviation 1. Otherwise, how many modes would be at
            least a thousandth as fast as the fastest if they were; and how much u changes at a typical point over a
            standard deviation of the inputs, as a fraction of its natural size.
    """

    outputs: np.ndarray
    kernel: np.ndarray
    cross: np.ndarray
    natural: dict
    shares: dict[str, dict[str, float]]
    portions: dict[str, float]
    leaves: dict[str, float]
    of_output: tuple[str, ...]
    still: tuple[str, ...]
    of_zero: dict[str, float] | None
    held_out: dict[str, float]
    inputs: tuple[int, float] | None


def sample(x, count):
    """Return at most this many indices of points, at random but always the same: a stride could miss a direction."""
    return np.arange(len(x)) if len(x) <= count else np.sort(np.random.default_rng(0).permutation(len(x))[:count])


def kernels(apply, params, operators, points, memory, mesh):
    """Return the conditions' kernel, the outputs' kernel, the cross kernel of the two, and the outputs' points."""
    if OUTPUTS in operators:
        raise ValueError(f"conditions: expected names other than {OUTPUTS!r}, which a diagnosis uses itself")
    x = jnp.asarray(np.unique(np.concatenate([np.asarray(coordinates(y)) for y in points.values()]), axis=0))
    value = _value(apply, params, x[0])
    x = x[sample(x, max(8, MOST_OUTPUTS // value.outputs))]
    K = ntk(apply, params, {**operators, OUTPUTS: value}, {**points, OUTPUTS: x}, memory=memory, mesh=mesh)
    K = replace(K, matrix=replicated(K.matrix, mesh))
    n = len(K.matrix) - dict(K.sizes)[OUTPUTS]
    of_outputs = np.asarray(K.matrix[n:], np.float64)
    return replace(K, matrix=K.matrix[:n, :n], sizes=K.sizes[:-1]), of_outputs[:, n:], of_outputs[:, :n], x


def all_residuals(apply, params, problem, points):
    """Return the residuals at the points and at held-out points, two mappings ``{name: (n,)}``.

    Held-out points come from the condition's sampler; not every condition has any.
    """
    others = other_points(problem, points, HELD_OUT)
    every = {name: joined([x, others[name]]) if name in others else x for name, x in points.items()}
    every = check_points(every, problem.conditions)

    residuals = _residuals(static(apply), static(problem), params, every)
    found = {name: np.asarray(r, np.float64) for name, r in residuals.items()}
    ends = {name: len(points[name]) * len(r) // len(every[name]) for name, r in found.items()}
    here = {name: r[: ends[name]] for name, r in found.items()}
    return here, {name: found[name][ends[name] :] for name in others}


@compiled(2)
def _residuals(apply, problem, params, points):
    return problem.residuals(lambda x: apply(params, x), points)


def measure(apply, params, conditions, points, few, parts, held_out):
    """Return the :class:`Evidence`.

    Args:
        few: the points of the conditions' kernel.
        parts: the outputs' kernel, cross kernel and points.
        held_out: residuals at held-out points.
    """
    kernel, cross, x = parts
    problem = conditions if isinstance(conditions, Problem) else None
    operators = dict(problem.operators if problem else conditions)
    value = _value(apply, params, x[0])
    fewer = {name: y[sample(y, MOST_GRADIENTS)] for name, y in {**points, OUTPUTS: x}.items()}
    squares, natural = squared_gradients(apply, params, {**operators, OUTPUTS: value}, fewer)
    outputs = np.asarray(jax.vmap(lambda y: value(lambda z: apply(params, z), y))(x), np.float64)
    leaves = {f"params{jax.tree_util.keystr(k)}": leaf for k, leaf in jax.tree_util.tree_leaves_with_path(params)}
    totals = {name: max(squares[name].sum(), np.finfo(float).tiny) for name in operators}
    return Evidence(
        outputs,
        kernel,
        cross,
        {name: rms(natural[name]) for name in operators}
        | {OUTPUTS: np.sqrt((natural[OUTPUTS].reshape(-1, value.outputs) ** 2).mean(axis=0))},
        {leaf: {name: squares[name][:, i].sum() / totals[name] for name in operators} for i, leaf in enumerate(leaves)},
        {name: leaf.size / sum(map(jnp.size, leaves.values())) for name, leaf in leaves.items()},
        {name: rms(leaf) for name, leaf in leaves.items()},
        tuple(list(leaves)[i] for i in squares[OUTPUTS].reshape(-1, value.outputs, len(leaves)).sum(0).argmax(1)),
        _still(apply, params, operators, squares, points, x),
        _of_zero(apply, params, problem, points) if problem else None,
        {name: float(np.mean(r**2)) for name, r in held_out.items()},
        _inputs(apply, params, operators, few, value, rms(natural[OUTPUTS])),
    )


def _inputs(apply, params, operators, points, value, natural):
    shift, scale = spread(points)
    if (abs(shift) < FAR).all() and (scale > 1 / FAR).all() and (scale < FAR).all():
        return None
    K = ntk(normalized_inputs(apply, shift, scale), params, operators, points)
    rows = np.concatenate([np.full(n, 1 / np.sqrt(float(K.trace(name)) or 1.0)) for name, n in K.sizes])
    kappa = np.linalg.eigvalsh(rows[:, None] * np.asarray(K.matrix, np.float64) * rows)
    slopes = jax.vmap(jax.jacrev(lambda y: value(lambda z: apply(params, z), y)))(
        jnp.concatenate([coordinates(y) for y in points.values()])
    )
    typical = float(np.median(np.linalg.norm(slopes * scale, axis=(1, 2))))
    return int((kappa * 1e3 >= kappa[-1]).sum()), typical / max(natural, np.finfo(float).tiny)


def rms(values):
    """Return the root mean square of an array as a float."""
    values = np.asarray(values, np.float64)
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0


def _value(apply, params, x):
    """Return the model's outputs, real numbers in one row, as an operator."""
    out = jax.eval_shape(apply, params, x)
    is_complex = jnp.issubdtype(out.dtype, jnp.complexfloating)
    return System(_parts if is_complex else _row, out.size * (2 if is_complex else 1))


def _row(u, x):
    return jnp.ravel(u(x))


def _parts(u, x):
    value = jnp.ravel(u(x))
    return jnp.concatenate([value.real, value.imag])


def _constant(params, x):
    return params


def _of_zero(apply, params, problem, points):
    out = jax.eval_shape(apply, params, coordinates(next(iter(points.values())))[0])
    zero = jnp.zeros(out.shape, out.dtype)
    return {name: rms(r) for name, r in _residuals(static(_constant), static(problem), zero, points).items()}


def _still(apply, params, operators, squares, points, x):
    """Return the conditions whose gradients vanish, or are rounding errors of what they are at other points."""
    rates = {name: found.sum(axis=1).mean() for name, found in squares.items()}
    eps = float(jnp.finfo(x.dtype).eps)
    still = [name for name in operators if rates[name] == 0]
    for name in operators:
        if 0 < rates[name] <= eps * max(rates[other] for other in operators):
            anywhere = points[name] if isinstance(points[name], Points) else x  # data belong to their own points
            elsewhere = ntk_diagonal(apply, params, {name: operators[name]}, {name: anywhere})[name]
            if rates[name] <= (STILL * eps) ** 2 * float(elsewhere.max()):
                still.append(name)
    return tuple(still)
