"""The kernel as a result object, with its blocks, traces and eigenvalues."""

from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Path(NamedTuple):
    """How one parameter leaf, or a slice of one, enters the kernel.

    Attributes:
        leaf: where the leaf is in the parameters, such as ``params[0]['W']``.
        method: "structured" (factors of the gradients, contracted by pairs of channels), "assembled" (rows of the
            Jacobian, assembled from the factors), "jacobian" (the Jacobian by automatic differentiation), or "unused"
            (no condition depends on the leaf).
        reason: why this method applies.
    """

    leaf: str
    method: str
    reason: str


@partial(jax.tree_util.register_dataclass, data_fields=["matrix"], meta_fields=["sizes", "columns", "paths", "error"])
@dataclass(frozen=True)
class NTK:
    """A neural tangent kernel, with one block per pair of conditions. It is a pytree, so it passes through ``jit``.

    Attributes:
        matrix: array (n, n), symmetric up to rounding error, where n is the total number of residuals of all
            conditions; a cross kernel is an array (n, m).
        sizes: ``((name, n_name), ...)``, in the order of the blocks; n_name is the number of residuals of a condition,
            which is its number of points times its number of outputs.
        columns: the same for the columns of a cross kernel; None for the kernel of one set of points.
        paths: how each parameter leaf enters an empirical kernel, as :class:`Path`; empty for other kernels.
        error: for a kernel at infinite width, an estimate of the largest relative error of its diagonal; otherwise 0.

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
        """Names of the conditions."""
        return tuple(name for name, _ in self.sizes)

    def rows(self, name: str) -> slice:
        """Return the slice of ``matrix``'s rows that belong to a condition. Raises ValueError for an unknown name."""
        return _range(self.sizes, name)

    def block(self, a: str, b: str) -> jax.Array:
        """Return the block K_ab, of shape (n_a, n_b). Raises ValueError for an unknown name."""
        return self.matrix[self.rows(a), _range(self.columns or self.sizes, b)]

    def trace(self, name: str | None = None) -> jax.Array:
        """Return Tr(K_aa) of one condition, or Tr(K) if ``name`` is None. Raises ValueError for a cross kernel."""
        return jnp.trace(self._diagonal_block(name))

    def eigvalsh(self, name: str | None = None) -> jax.Array:
        """Return the eigenvalues of one condition's diagonal block, or of K if ``name`` is None, in descending order.

        K is positive semi-definite, but eigenvalues below about ``n * eps * eigenvalue[0]`` are rounding error and may
        be negative. Raises ValueError for a cross kernel.
        """
        return jnp.linalg.eigvalsh(self._diagonal_block(name))[::-1]

    def convergence_rate(self, name: str | None = None) -> jax.Array:
        """Return the average convergence rate, Tr(K_aa)/n_a (paper, definition 5.1), or that of K if ``name`` is None.

        Raises ValueError for a cross kernel.
        """
        block = self._diagonal_block(name)
        return jnp.trace(block) / len(block)

    def _diagonal_block(self, name):
        if self.columns is not None:
            raise ValueError("K: expected the kernel of one set of points, got a cross kernel, which only has blocks")
        return self.matrix if name is None else self.block(name, name)


def check_kernel(name: str, K: Any) -> None:
    """Check that a value is the kernel of one set of points, and finite."""
    if not isinstance(K, NTK):
        raise TypeError(f"{name}: expected a kernel, as pinnntk_lib.ntk returns, got {type(K).__name__}")
    if K.columns is not None:
        raise ValueError(f"{name}: expected the kernel of one set of points, got a cross kernel")
    if not isinstance(K.matrix, jax.core.Tracer) and not np.isfinite(K.matrix).all():
        raise ValueError(f"{name}: expected a kernel of finite numbers, got NaN or infinity")


def _range(sizes, name):
    names = [known for known, _ in sizes]
    if not isinstance(name, str) or name not in names:
        raise ValueError(f"name: expected one of {names}, got {name!r}")
    ends = dict(zip(names, accumulate(n for _, n in sizes)))
    return slice(ends[name] - dict(sizes)[name], ends[name])
