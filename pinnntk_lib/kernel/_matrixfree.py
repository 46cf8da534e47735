"""Products of the kernel with vectors, and its leading eigenpairs, without forming the kernel."""

from collections.abc import Mapping
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_array, check_count, check_key
from pinnntk_lib._deprecated import renamed_keywords
from pinnntk_lib._static import KEPT, compiled
from pinnntk_lib._types import Apply, Params
from pinnntk_lib.kernel._gram import batch_size
from pinnntk_lib.kernel._ntk import ntk_diagonal
from pinnntk_lib.kernel._plan import residual_graphs
from pinnntk_lib.kernel._setting import residuals_of, setting_of
from pinnntk_lib.kernel._trace import at_points
from pinnntk_lib.problems import Conditions


def ntk_vector_product(
    apply: Apply,
    params: Params,
    conditions: Conditions,
    points: Mapping[str, jax.Array],
    vector: jax.Array,
    *,
    memory: int = 2**30,
) -> jax.Array:
    """Compute ``K @ vector`` without forming K.

    Each vector takes one backward and one forward pass over the points, in chunks that fit into ``memory``. Arguments
    not listed here are as in :func:`ntk`.

    Args:
        vector: array of shape (n,), in the order of the kernel's rows, or (n, k) for k vectors.

    Returns:
        An array of the same shape as ``vector``.

    Raises:
        ValueError, TypeError: as :func:`ntk`, or if the vector does not fit the kernel.

    Example:
        >>> import jax, jax.numpy as jnp, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(a=4), pn.MLP(width=100)
        >>> params, points = model.init(jax.random.key(0)), problem.points(10)
        >>> product = pn.ntk_vector_product(model.apply, params, problem, points, jnp.ones(20))
        >>> K = pn.ntk(model.apply, params, problem, points)
        >>> bool(jnp.allclose(product, K.matrix.sum(1), rtol=1e-4))
        True
    """
    vector = check_array("vector", vector)
    product, n, _ = _product(apply, params, conditions, points, check_count("memory", memory))
    if vector.ndim not in (1, 2) or len(vector) != n:
        raise ValueError(
            f"vector: expected shape ({n},) or ({n}, k), one row per row of the kernel, got {vector.shape}"
        )
    if not jnp.issubdtype(vector.dtype, jnp.floating):
        raise TypeError(f"vector: expected floating-point numbers, got {vector.dtype}")
    return product(vector) if vector.ndim == 1 else jnp.stack([product(v) for v in vector.T], axis=1)


@renamed_keywords(tolerance="rtol")
def ntk_eigenpairs(
    apply: Apply,
    params: Params,
    conditions: Conditions,
    points: Mapping[str, jax.Array],
    count: int,
    key: jax.Array,
    *,
    rtol: float = 0.0,
    memory: int = 2**30,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the largest eigenvalues of :func:`ntk` and their eigenvectors, for kernels too large to form.

    This runs SciPy's implicitly restarted Lanczos method (ARPACK) on :func:`ntk_vector_product`. It takes a few times
    ``count`` products, more if eigenvalues are close together. Arguments not listed here are as in :func:`ntk`.

    Args:
        count: number of eigenpairs, less than the kernel's number of rows.
        key: random key for the starting vector of the iteration.
        rtol: relative error of the eigenvalues at which the iteration stops; 0 means the machine precision of the
            parameters' dtype.

    Returns:
        ``(eigenvalues (count,), in descending order; eigenvectors (n, count), one per column)``.

    Raises:
        ValueError, TypeError: as :func:`ntk`, or if ``count`` is not less than the number of rows.
        scipy.sparse.linalg.ArpackNoConvergence: if the iteration does not converge.

    Example:
        >>> import jax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(a=4), pn.MLP(width=100)
        >>> params = model.init(jax.random.key(0))
        >>> values, vectors = pn.ntk_eigenpairs(model.apply, params, problem, problem.points(100), 3, jax.random.key(1))
        >>> values.shape, vectors.shape
        ((3,), (200, 3))
    """
    check_key("key", key)
    product, n, dtype = _product(apply, params, conditions, points, check_count("memory", memory))
    if dtype.itemsize < 4:
        raise TypeError(f"params: expected float32 or float64 for the Lanczos method, got {dtype}")
    if check_count("count", count) >= n:
        raise ValueError(
            f"count: expected fewer than the kernel's {n} rows, got {count}; for all eigenpairs, use "
            "jnp.linalg.eigh(ntk(...).matrix)"
        )
    import scipy.sparse.linalg  # here, because importing it takes as long as all else

    operator = scipy.sparse.linalg.LinearOperator(
        (n, n), matvec=lambda v: np.asarray(product(jnp.asarray(v, dtype))), dtype=dtype
    )
    start = np.asarray(jax.random.normal(key, (n,), dtype))
    values, vectors = scipy.sparse.linalg.eigsh(operator, count, which="LA", v0=start, tol=rtol)
    return values[::-1], vectors[:, ::-1]


def _product(apply, params, conditions, points, memory):
    """Return ``(v -> K v, number of rows of K, dtype)``."""
    setting, leaves, points = setting_of(apply, params, conditions, points)
    chunks, sizes = [], []
    for name, graph in cached_graphs(setting).items():
        x, outputs = points[name], graph.avals[graph.outputs[0]].shape[0]
        size = batch_size(graph.total_bytes(), memory)
        chunks += [(graph, x[start : start + size]) for start in range(0, len(x), size)]
        sizes += [len(part) * outputs for _, part in chunks[len(sizes) :]]
    ends = np.cumsum(sizes)

    def product(v):
        parts = [v[end - size : end] for end, size in zip(ends, sizes)]
        # J^T v, summed over the chunks, then J (J^T v)
        gradient = jax.tree.map(jnp.zeros_like, leaves)
        for (graph, x), part in zip(chunks, parts):
            gradient = jax.tree.map(jnp.add, gradient, _pulled_back(graph, leaves, x, part))
        result = jnp.concatenate([_pushed_forward(graph, leaves, x, gradient) for graph, x in chunks])
        if not (isinstance(result, jax.core.Tracer) or jnp.isfinite(result).all()):
            # raises an error that names the condition and the point
            ntk_diagonal(apply, params, dict(setting[1]), points)
        return result

    return product, int(ends[-1]), jnp.result_type(*leaves)


@lru_cache(maxsize=KEPT)
def cached_graphs(setting):
    """Return the graph ``(leaves, x) -> (outputs,)`` of each condition's residual, with duplicates merged."""
    with jax.default_matmul_precision("highest"):
        return residual_graphs(*residuals_of(setting))


def _at_points(graph, x):
    return lambda leaves: at_points(graph.at_point, leaves, x).reshape(-1)


@compiled(1)
def _pulled_back(graph, leaves, x, v):
    out, pullback = jax.vjp(_at_points(graph, x), leaves)
    return pullback(v.astype(out.dtype))[0]


@compiled(1)
def _pushed_forward(graph, leaves, x, tangent):
    f = _at_points(graph, x)
    if "custom_vjp_call" not in str(jax.make_jaxpr(f)(leaves)):
        return jax.jvp(f, (leaves,), (tangent,))[1]
    # A custom_vjp has no forward mode, but v -> J^T v can be transposed.
    out, pullback = jax.vjp(f, leaves)
    return jax.linear_transpose(pullback, out)((tangent,))[0]
