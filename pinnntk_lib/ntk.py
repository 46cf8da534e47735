"""The empirical neural tangent kernel of a physics-informed network (paper, section 4, equations 4.7 to 4.9).

For conditions ``a`` and ``b`` (boundary values, a residual, ...) with operators L_a and L_b,

    K_ab(i, j) = sum over theta of  d(L_a u)(x_i)/d theta * d(L_b u)(x_j)/d theta,

and K is the symmetric matrix of these blocks. It depends on the points and the parameters, not on the targets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import jax
import jax.numpy as jnp

from pinnntk_lib._check import check_count, check_operators, check_params, check_points, check_scalar_conditions

__all__ = ["METHODS", "NTK", "ntk", "ntk_diagonal"]

METHODS = ("auto", "jacobian")


@partial(jax.tree_util.register_dataclass, data_fields=["matrix"], meta_fields=["sizes"])
@dataclass(frozen=True)
class NTK:
    """A neural tangent kernel in blocks, one per pair of conditions. A pytree, so it passes through ``jit``.

    Attributes:
        matrix: (n, n), symmetric; n is the number of points of all conditions.
        sizes: ``((name, n_name), ...)`` in the order of the blocks.
    """

    matrix: jax.Array
    sizes: tuple[tuple[str, int], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The conditions' names."""
        return tuple(name for name, _ in self.sizes)

    def rows(self, name: str) -> slice:
        """Where the condition's points are in ``matrix``. Raises ValueError for an unknown name."""
        if name not in self.names:
            raise ValueError(f"name: expected one of {list(self.names)}, got {name!r}")
        ends = dict(zip(self.names, accumulate(n for _, n in self.sizes)))
        return slice(ends[name] - dict(self.sizes)[name], ends[name])

    def block(self, a: str, b: str) -> jax.Array:
        """K_ab, of shape (n_a, n_b)."""
        return self.matrix[self.rows(a), self.rows(b)]

    def trace(self, name: str | None = None) -> jax.Array:
        """Tr(K_aa) of one condition, or Tr(K)."""
        return jnp.trace(self._diagonal_block(name))

    def eigvalsh(self, name: str | None = None) -> jax.Array:
        """The eigenvalues of one condition's diagonal block, or of K, in descending order.

        Those below about ``n * eps * eigenvalue[0]`` are rounding: K is positive semi-definite, yet they may be
        negative.
        """
        return jnp.linalg.eigvalsh(self._diagonal_block(name))[::-1]

    def convergence_rate(self, name: str | None = None) -> jax.Array:
        """The average convergence rate, Tr(K_aa)/n_a (paper, definition 5.1)."""
        block = self._diagonal_block(name)
        return jnp.trace(block) / len(block)

    def _diagonal_block(self, name):
        return self.matrix if name is None else self.block(name, name)


def ntk(
    apply: Callable,
    params,
    conditions,
    points: Mapping[str, jax.Array],
    method: str = "auto",
    *,
    memory: int = 2**30,
) -> NTK:
    """The empirical neural tangent kernel at ``params``.

    Equivalent to ``J @ J.T`` for the Jacobian J (n, P) of all conditions at all points by all P parameters, without
    storing more of it than ``memory`` allows: in chunks of rows, the Jacobian's rows being computed anew for each
    pair of chunks. Compiled code is kept between calls with the same ``apply`` and operators.

    Args:
        apply: the model, ``(params, x of shape (d,)) -> scalar``.
        params: its parameters, a pytree of floating-point arrays.
        conditions: a :class:`~pinnntk_lib.problems.Problem`, or ``{name: operator(u, x) -> scalar}``.
        points: ``{name: (n_name, d) array}``.
        method: "jacobian", or "auto" for the best there is.
        memory: about how many bytes of Jacobian may exist at once.

    Returns:
        The kernel, in the conditions' order.

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
    operators, points = _checked(apply, params, conditions, points)
    rows_at_once = _rows_in(check_count("memory", memory), params, halves=2)
    chunks = [
        (operators[name], x[start : start + rows_at_once])
        for name, x in points.items()
        for start in range(0, len(x), rows_at_once)
    ]
    return NTK(
        _gram(apply, params, chunks, keep=sum(len(x) for x in points.values()) <= 2 * rows_at_once),
        tuple((name, len(x)) for name, x in points.items()),
    )


def ntk_diagonal(
    apply: Callable, params, conditions, points: Mapping[str, jax.Array], *, memory: int = 2**28
) -> dict[str, jax.Array]:
    """The diagonal of :func:`ntk`, exactly: the squared gradient norm of each condition at each point.

    The gradients are reduced as they are computed, a batch at a time, so no Jacobian is formed. Its sums are the
    kernel's traces: ``ntk_diagonal(...)[name].sum()`` is ``ntk(...).trace(name)``. Arguments and errors as for
    :func:`ntk`.

    Returns:
        ``{name: (n_name,)}``.
    """
    operators, points = _checked(apply, params, conditions, points)
    batch = _rows_in(check_count("memory", memory), params, halves=1)
    return {name: _squared_gradients(apply, operators[name], params, x, batch) for name, x in points.items()}


def _checked(apply, params, conditions, points):
    if not callable(apply):
        raise TypeError(f"apply: expected a function apply(params, x) -> scalar, got {apply!r}")
    operators = check_operators(conditions)
    check_params(params)
    points = check_points(points, operators)
    check_scalar_conditions(apply, params, operators, points)
    return operators, points


def _rows_in(memory, params, halves):
    """How many of the Jacobian's rows fit in a share of the memory; one, at least, must."""
    row = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    if row * halves > memory:
        raise ValueError(f"memory: expected at least {row * halves} bytes for this model's gradients, got {memory}")
    return memory // (row * halves)


def _gram(apply, params, chunks, keep):
    """K from the Jacobian's chunks of rows: its upper triangle of blocks, mirrored.

    Where ``keep`` says that they fit, each chunk is computed once; otherwise only two exist at any time.
    """
    kept = [_jacobian(apply, operator, params, x) for operator, x in chunks] if keep else None
    blocks = [[None] * len(chunks) for _ in chunks]
    for i, (operator_i, x_i) in enumerate(chunks):
        J_i = kept[i] if keep else _jacobian(apply, operator_i, params, x_i)
        for j in range(i, len(chunks)):
            J_j = kept[j] if keep else J_i if j == i else _jacobian(apply, chunks[j][0], params, chunks[j][1])
            block = _product(J_i, J_j)
            # A product J J^T is symmetric only to rounding; K is symmetric.
            blocks[i][j] = (block + block.T) / 2 if i == j else block
            blocks[j][i] = blocks[i][j].T
    return jnp.block(blocks)


def _residual_gradient(apply, operator):
    """``(params, x) -> gradient by params`` of the operator applied to the model."""
    return jax.grad(lambda params, x: operator(lambda y: apply(params, y), x))


# The highest precision throughout: an accelerator's default for float32 keeps three digits of a matrix product.


@partial(jax.jit, static_argnums=(0, 1))
def _jacobian(apply, operator, params, x):
    """A list of (n, size) matrices, a parameter leaf each."""
    with jax.default_matmul_precision("highest"):
        gradients = jax.vmap(_residual_gradient(apply, operator), in_axes=(None, 0))(params, x)
    return [leaf.reshape(len(x), -1) for leaf in jax.tree.leaves(gradients)]


@jax.jit
def _product(J_i, J_j):
    return sum(jnp.matmul(a, b.T, precision="highest") for a, b in zip(J_i, J_j))


@partial(jax.jit, static_argnums=(0, 1, 4))
def _squared_gradients(apply, operator, params, x, batch):
    gradient = _residual_gradient(apply, operator)

    def squared_norm(point):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient(params, point)))

    with jax.default_matmul_precision("highest"):
        return jax.lax.map(squared_norm, x, batch_size=min(batch, len(x)))
