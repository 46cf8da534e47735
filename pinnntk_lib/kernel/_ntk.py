"""The empirical neural tangent kernel of a physics-informed network (paper, section 4, equations 4.7 to 4.9).

For conditions ``a`` and ``b`` (boundary values, a residual, ...) with operators L_a and L_b,

    K_ab(i, j) = sum over theta of  d(L_a u)(x_i)/d theta * d(L_b u)(x_j)/d theta.

K is the symmetric matrix of these blocks. It depends on the points and the parameters, but not on the targets.
"""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp

from pinnntk_lib._check import (
    check_choice,
    check_count,
    check_operators,
    check_other_points,
    check_points,
    first_not_finite,
)
from pinnntk_lib._devices import as_mesh
from pinnntk_lib._points import packing_of
from pinnntk_lib._types import Apply, Params
from pinnntk_lib.kernel._gram import diagonal, gram
from pinnntk_lib.kernel._plan import plan_of
from pinnntk_lib.kernel._result import NTK
from pinnntk_lib.kernel._setting import setting_of
from pinnntk_lib.kernel._sharded import sharded_diagonal, sharded_gram
from pinnntk_lib.problems import Conditions

METHODS = ("auto", "structured", "jacobian")


def ntk(
    apply: Apply,
    params: Params,
    conditions: Conditions,
    points: Mapping[str, jax.Array],
    method: str = "auto",
    *,
    other_points: Mapping[str, jax.Array] | None = None,
    memory: int = 2**30,
    mesh: jax.sharding.Mesh | None = None,
) -> NTK:
    """Compute the empirical neural tangent kernel at ``params``.

    The kernel equals ``J @ J.T``, where J (n, P) is the Jacobian of all conditions at all points with respect to all P
    parameters. Three methods compute it, and they agree up to rounding error:

    - "jacobian" computes J by plain automatic differentiation, in chunks of rows that fit into ``memory``.
    - "structured" writes the gradient with respect to each parameter matrix as a short sum of outer products, which
      needs no Jacobian. This method is much faster for networks with wide hidden layers. Parameters that are used
      outside matrix products enter by their Jacobian; ``NTK.paths`` lists them, with the reason.
    - "auto" chooses for each parameter matrix between this and assembling the rows of J from the outer products, which
      is faster if they are many, as for a Laplacian in dozens of dimensions. It counts operations and memory traffic.

    Compiled code is kept for the newest models, operators and shapes. Functions are compared by their code and the
    values that they read (defaults, closures, global variables, attributes): a changed coefficient counts, and a
    function that is defined again unchanged does not. What Python code cannot see, such as a file or the inside of an
    object of an installed package, must not change between calls.

    Args:
        apply: the model, a pure function ``(params, x of shape (d,)) -> u(x)``.
        params: the model's parameters, a pytree of floating-point arrays.
        conditions: a :class:`~pinnntk_lib.problems.Problem`, or ``{name: operator(u, x) -> scalar}``. Declare an
            operator with several outputs as a :class:`~pinnntk_lib.operators.System`.
        points: collocation points of each condition, ``{name: (n, d) array}``; n may differ between conditions.
        method: "auto", "structured" or "jacobian".
        other_points: a second set of points, for all or some of the conditions. If given, the result is the cross
            kernel between ``points`` (rows) and ``other_points`` (columns), for instance between training points and
            test points.
        memory: approximate memory budget in bytes, per device, not counting the kernel itself.
        mesh: devices over which the rows are sharded, along all axes of the mesh. The returned kernel is sharded by
            rows if their number is a multiple of the number of devices, otherwise replicated. In a multi-host run,
            every process must make the same call.

    Returns:
        The kernel, in the order of the conditions. A condition with m outputs has m consecutive rows per point.

    Raises:
        ValueError, TypeError: if the shape, type, names or values of an argument are wrong, a residual is not a real
            floating-point number, or the gradient of a condition is not finite at a point; the message says which.
            Finiteness is not checked inside ``jit``.

    Example:
        >>> import jax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(a=4), pn.MLP(width=100)
        >>> K = pn.ntk(model.apply, model.init(jax.random.key(0)), problem, problem.points(10))
        >>> K.matrix.shape, K.block("u", "r").shape
        ((20, 20), (10, 10))
    """
    check_choice("method", method, METHODS)
    memory, mesh = check_count("memory", memory), as_mesh(mesh)
    others = None
    if other_points is not None:
        conditions, points, others = _both(conditions, points, other_points)
    setting, leaves, points = setting_of(apply, params, conditions, points)
    plan = plan_of(setting, tuple(len(x) for x in points.values()), method, True)
    rows = tuple((plan.features[name], x) for name, x in points.items())
    columns = tuple((plan.features[name], x) for name, x in others.items()) if others else None
    kernel = gram if mesh is None else partial(sharded_gram, mesh=mesh)
    sizes = tuple((name, len(x) * plan.features[name].outputs) for name, x in points.items())
    other_sizes = tuple((name, len(x) * plan.features[name].outputs) for name, x in others.items()) if others else None
    K = NTK(kernel(leaves, rows, columns, memory), sizes, other_sizes, plan.paths)
    if others is None:
        _check_finite({name: jnp.diagonal(K.matrix)[K.rows(name)] for name in points}, points)
    elif not (isinstance(K.matrix, jax.core.Tracer) or _all_finite(K.matrix)):
        operators = dict(setting[1])
        for x in (points, others):  # one of these raises an error that names the condition and the point
            ntk_diagonal(apply, params, {name: operators[name] for name in x}, x)
    return K


def _both(conditions, points, other_points):
    """Return conditions and two checked sets of points, packed alike if a set has data."""
    operators = check_operators(conditions)
    points = check_points(points, operators)
    others = check_other_points(other_points, points)
    packing = packing_of(points)
    if packing is None:
        return operators, points, others
    return packing.operators(operators), packing.points(points), packing.points(others)


def ntk_diagonal(
    apply: Apply,
    params: Params,
    conditions: Conditions,
    points: Mapping[str, jax.Array],
    *,
    memory: int = 2**28,
    mesh: jax.sharding.Mesh | None = None,
) -> dict[str, jax.Array]:
    """Compute the diagonal of :func:`ntk` exactly: the squared gradient norm of each condition at each point.

    The diagonal comes from the factors of the gradients, or from gradients that are reduced as they are computed, so
    that the whole Jacobian is never stored. It sums to the kernel's traces:
    ``ntk_diagonal(...)[name].sum()`` equals ``ntk(...).trace(name)``. The arguments and their errors are as in
    :func:`ntk`.

    Returns:
        ``{name: array (n,)}`` for n points of a condition; with m outputs per point, the shape is (n * m,).

    Example:
        >>> import jax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(a=4), pn.MLP(width=100)
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(10)
        >>> bool(jax.numpy.allclose(ntk_diagonal(*setting)["r"].sum(), pn.ntk(*setting).trace("r")))
        True
    """
    memory, mesh = check_count("memory", memory), as_mesh(mesh)
    setting, leaves, points = setting_of(apply, params, conditions, points)
    plan = plan_of(setting, tuple(len(x) for x in points.values()), "auto", False)
    compute = diagonal if mesh is None else partial(sharded_diagonal, mesh=mesh)
    found = {name: compute(plan.features[name], leaves, x, memory) for name, x in points.items()}
    _check_finite(found, points)
    return found


def _check_finite(diagonals, points):
    """Check the diagonal, outside ``jit``: an entry (i, j) is finite if the diagonal is finite at i and at j."""
    if any(isinstance(values, jax.core.Tracer) for values in diagonals.values()) or _all_finite(diagonals):
        return
    for name, values in diagonals.items():
        wrong = first_not_finite(values, points[name])
        if wrong:
            advice = "; numbers above 3e38 overflow float32: try float64" if values.dtype == jnp.float32 else ""
            raise ValueError(
                f"conditions[{name!r}]: expected finite gradients with respect to the parameters, got the squared norm "
                f"{wrong[0]} at the point {wrong[1]}{advice}"
            )


@jax.jit
def _all_finite(values):
    return jnp.array([jnp.isfinite(value).all() for value in jax.tree.leaves(values)]).all()
