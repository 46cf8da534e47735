"""The empirical neural tangent kernel of a physics-informed network (paper, section 4, equations 4.7 to 4.9).

For conditions ``a`` and ``b`` (boundary values, a residual, ...) with operators L_a and L_b,

    K_ab(i, j) = sum over theta of  d(L_a u)(x_i)/d theta * d(L_b u)(x_j)/d theta,

and K is the symmetric matrix of these blocks. It depends on the points and the parameters, not on the targets.
"""

from collections.abc import Mapping
from functools import partial

import jax

from pinnntk_lib._check import check_count, check_other_points
from pinnntk_lib._types import Apply, Params
from pinnntk_lib.kernel._gram import diagonal, gram
from pinnntk_lib.kernel._plan import plan_of
from pinnntk_lib.kernel._result import NTK
from pinnntk_lib.kernel._setting import setting_of
from pinnntk_lib.kernel._sharded import sharded_gram
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
    """The empirical neural tangent kernel at ``params``.

    Equivalent to ``J @ J.T`` for the Jacobian J (n, P) of all conditions at all points by all P parameters. Three
    methods give it, equal to rounding:

    - "jacobian" computes J by plain automatic differentiation, in chunks of rows that fit into ``memory``;
    - "structured" writes the gradient by each parameter matrix as a short sum of outer products, which needs no
      Jacobian; a parameter that is used in another way than in matrix products keeps its own (``NTK.paths`` says
      which, and why). Much the faster for networks with wide hidden layers;
    - "auto" decides between the two for each parameter by counting operations and memory.

    Compiled code is kept between calls with the same ``apply``, operators and shapes, so pass the same objects.

    Args:
        apply: the model, a pure function ``(params, x of shape (d,)) -> u(x)``.
        params: its parameters, a pytree of floating-point arrays.
        conditions: a :class:`~pinnntk_lib.problems.Problem`, or ``{name: operator(u, x) -> scalar}``; an operator of
            several outputs is declared as :class:`~pinnntk_lib.operators.System`.
        points: ``{name: (n_name, d) array}``.
        method: "auto", "structured" or "jacobian".
        other_points: as ``points``: the cross kernel between the two sets, for instance of test and training points.
        memory: about how many bytes may be in use beyond the kernel itself, on each device.
        mesh: devices over whose first axis the rows are sharded. The kernel comes back with its rows sharded if their
            number is a multiple of that of the devices. Every process of a multi-host run makes the same call.

    Returns:
        The kernel, in the conditions' order; a condition with m outputs has m rows a point, one after the other.

    Raises:
        ValueError, TypeError: if an argument's shape, type, names or values do not fit; the message says which.

    Example:
        >>> import jax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(a=4), pn.MLP(width=100)
        >>> K = pn.ntk(model.apply, model.init(jax.random.key(0)), problem, problem.points(10))
        >>> K.matrix.shape, K.block("u", "r").shape
        ((20, 20), (10, 10))
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {list(METHODS)}, got {method!r}")
    memory = check_count("memory", memory)
    setting, leaves, points = setting_of(apply, params, conditions, points)
    others = None if other_points is None else check_other_points(other_points, points)
    plan = plan_of(setting, tuple(len(x) for x in points.values()), method, True, memory)
    rows = tuple((plan.features[name], x) for name, x in points.items())
    columns = tuple((plan.features[name], x) for name, x in others.items()) if others else None
    kernel = gram if mesh is None else partial(sharded_gram, mesh=mesh)
    sizes = tuple((name, len(x) * plan.features[name].outputs) for name, x in points.items())
    other_sizes = tuple((name, len(x) * plan.features[name].outputs) for name, x in others.items()) if others else None
    return NTK(kernel(leaves, rows, columns, memory), sizes, other_sizes, plan.paths)


def ntk_diagonal(
    apply: Apply, params: Params, conditions: Conditions, points: Mapping[str, jax.Array], *, memory: int = 2**28
) -> dict[str, jax.Array]:
    """The diagonal of :func:`ntk`, exactly: the squared gradient norm of each condition at each point.

    It comes from the factors of the structured method, or from gradients that are reduced as they are computed: no
    Jacobian is formed. Its sums are the kernel's traces: ``ntk_diagonal(...)[name].sum()`` is
    ``ntk(...).trace(name)``. Arguments and errors as for :func:`ntk`.

    Returns:
        ``{name: (n_name,)}``, or (n_name * m,) for a condition with m outputs.

    Example:
        >>> import jax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(a=4), pn.MLP(width=100)
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(10)
        >>> bool(jax.numpy.allclose(ntk_diagonal(*setting)["r"].sum(), pn.ntk(*setting).trace("r")))
        True
    """
    memory = check_count("memory", memory)
    setting, leaves, points = setting_of(apply, params, conditions, points)
    plan = plan_of(setting, tuple(len(x) for x in points.values()), "auto", False, memory)
    return {name: diagonal(plan.features[name], leaves, x, memory) for name, x in points.items()}
