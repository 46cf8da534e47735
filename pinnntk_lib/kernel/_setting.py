"""The empirical neural tangent kernel of a physics-informed network (paper, section 4, equations 4.7 to 4.9).

For conditions ``a`` and ``b`` (boundary values, a residual, ...) with operators L_a and L_b,

    K_ab(i, j) = sum over theta of  d(L_a u)(x_i)/d theta * d(L_b u)(x_j)/d theta,

and K is the symmetric matrix of these blocks. It depends on the points and the parameters, not on the targets.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate

import jax
import jax.numpy as jnp

from pinnntk_lib._check import (
    check_conditions,
    check_count,
    check_operators,
    check_other_points,
    check_params,
    check_points,
)
from pinnntk_lib.gram import diagonal, gram, sharded_gram
from pinnntk_lib.graph import nbytes
from pinnntk_lib.structured import Path, Plan, make_plan

__all__ = ["METHODS", "NTK", "Path", "ntk", "ntk_diagonal"]

METHODS = ("auto", "structured", "jacobian")


@partial(jax.tree_util.register_dataclass, data_fields=["matrix"], meta_fields=["sizes", "columns", "paths", "error"])
@dataclass(frozen=True)
class NTK:
    """A neural tangent kernel in blocks, one per pair of conditions. A pytree, so it passes through ``jit``.

    Attributes:
        matrix: (n, n), symmetric; n is the number of residuals of all conditions. A cross kernel is (n, m).
        sizes: ``((name, n_name), ...)`` in the order of the blocks.
        columns: the same of a cross kernel's columns; None for a kernel of points with themselves.
        paths: how each parameter leaf entered an empirical kernel, as :class:`Path`; empty for other kernels.
        error: of a kernel at infinite width, an estimate of its diagonal's largest relative error; else 0.

    Example:
        >>> K = NTK(jax.numpy.diag(jax.numpy.array([3.0, 1.0, 2.0])), (("u", 1), ("r", 2)))
        >>> float(K.trace("r")), K.eigvalsh("r").tolist(), K.block("u", "r").shape
        (3.0, [2.0, 1.0], (1, 2))
    """

    matrix: jax.Array
    sizes: tuple[tuple[str, int], ...]
    columns: tuple[tuple[str, int], ...] | None = None
    paths: tuple[Path, ...] = ()
    error: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """The conditions' names."""
        return tuple(name for name, _ in self.sizes)

    def rows(self, name: str) -> slice:
        """Where the condition's points are in ``matrix``. Raises ValueError for an unknown name."""
        return _range(self.sizes, name)

    def block(self, a: str, b: str) -> jax.Array:
        """K_ab, of shape (n_a, n_b)."""
        return self.matrix[self.rows(a), _range(self.columns or self.sizes, b)]

    def trace(self, name: str | None = None) -> jax.Array:
        """Tr(K_aa) of one condition, or Tr(K). Raises ValueError for a cross kernel."""
        return jnp.trace(self._diagonal_block(name))

    def eigvalsh(self, name: str | None = None) -> jax.Array:
        """The eigenvalues of one condition's diagonal block, or of K, in descending order.

        Those below about ``n * eps * eigenvalue[0]`` are rounding: K is positive semi-definite, yet they may be
        negative. Raises ValueError for a cross kernel.
        """
        return jnp.linalg.eigvalsh(self._diagonal_block(name))[::-1]

    def convergence_rate(self, name: str | None = None) -> jax.Array:
        """The average convergence rate, Tr(K_aa)/n_a (paper, definition 5.1). Raises ValueError for a cross kernel."""
        block = self._diagonal_block(name)
        return jnp.trace(block) / len(block)

    def _diagonal_block(self, name):
        if self.columns is not None:
            raise ValueError("K: expected the kernel of one set of points, got a cross kernel: it has blocks only")
        return self.matrix if name is None else self.block(name, name)


def _range(sizes, name):
    names = [known for known, _ in sizes]
    if name not in names:
        raise ValueError(f"name: expected one of {names}, got {name!r}")
    ends = dict(zip(names, accumulate(n for _, n in sizes)))
    return slice(ends[name] - dict(sizes)[name], ends[name])


def ntk(
    apply: Callable,
    params,
    conditions,
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
    plan = _plan(setting, tuple(len(x) for x in points.values()), method, True, memory)
    rows = tuple((plan.features[name], x) for name, x in points.items())
    columns = tuple((plan.features[name], x) for name, x in others.items()) if others else None
    kernel = gram if mesh is None else partial(sharded_gram, mesh=mesh)
    sizes = tuple((name, len(x) * plan.features[name].outputs) for name, x in points.items())
    other_sizes = tuple((name, len(x) * plan.features[name].outputs) for name, x in others.items()) if others else None
    return NTK(kernel(leaves, rows, columns, memory), sizes, other_sizes, plan.paths)


def ntk_diagonal(
    apply: Callable, params, conditions, points: Mapping[str, jax.Array], *, memory: int = 2**28
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
    plan = _plan(setting, tuple(len(x) for x in points.values()), "auto", False, memory)
    return {name: diagonal(plan.features[name], leaves, x, memory) for name, x in points.items()}


# ---------------------------------------------------------------- what is computed, and how, found once for each shape


def setting_of(apply, params, conditions, points):
    """The checked arguments: ``(setting, leaves, points)``.

    The setting is hashable, what a plan depends on: ``(apply, ((name, operator), ...), parameters' tree, their shapes
    and dtypes, a point's)``.
    """
    if not callable(apply):
        raise TypeError(f"apply: expected a function apply(params, x), got {apply!r}")
    operators = check_operators(conditions)
    check_params(params)
    points = check_points(points, operators)
    leaves, treedef = jax.tree.flatten(jax.tree.map(jnp.asarray, params))
    x = next(iter(points.values()))
    setting = (
        apply,
        tuple(operators.items()),
        treedef,
        tuple((leaf.shape, leaf.dtype) for leaf in leaves),
        (x.shape[1:], jnp.result_type(*points.values())),
    )
    return setting, leaves, points


def residuals_of(setting):
    """``({name: (params, x) -> residual}, parameters' and a point's shapes)``; checks what the operators return."""
    apply, operators, treedef, leaves, x = setting
    params = jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
    x = jax.ShapeDtypeStruct(*x)
    check_conditions(apply, params, dict(operators), x)

    def residual(operator):
        return lambda params, x: operator(lambda y: apply(params, y), x)

    return {name: residual(operator) for name, operator in operators}, params, x


@lru_cache(maxsize=128)
def _plan(setting, sizes, method, whole, memory):
    """How the features of each condition are computed."""
    residuals, params, x = residuals_of(setting)
    if method == "jacobian":
        features = {name: Gradients(residual, params, x) for name, residual in residuals.items()}
        paths = [
            Path(f"params{jax.tree_util.keystr(where)}", "jacobian", "asked for")
            for where, _ in jax.tree_util.tree_leaves_with_path(params)
        ]
        return Plan(features, tuple(paths))
    return make_plan(residuals, params, x, dict(zip(residuals, sizes)), method, whole, memory)


class Gradients:
    """Gradients by plain automatic differentiation, as features of the same form as :class:`structured.Factors`."""

    def __init__(self, residual, params, x):
        shape = jax.eval_shape(residual, params, x).shape
        self.residual, self.derivative = residual, jax.grad if shape == () else jax.jacrev
        self.treedef, self.outputs = jax.tree.structure(params), math.prod(shape)
        self.itemsize = max(leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
        self.feature_bytes = self.outputs * sum(map(nbytes, jax.tree.leaves(params)))
        self.bytes_per_point = self.feature_bytes

    def __call__(self, leaves, x):
        params = jax.tree.unflatten(self.treedef, leaves)
        with jax.default_matmul_precision("highest"):
            gradients = jax.vmap(self.derivative(self.residual), in_axes=(None, 0))(params, x)
        rows = len(x) * self.outputs
        return {i: (leaf.reshape(1, rows, -1),) for i, leaf in enumerate(jax.tree.leaves(gradients))}
