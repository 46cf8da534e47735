"""Checks of user input. Every error message names the argument, what was expected and what was given."""

import inspect
import math
import numbers
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._points import Points, coordinates
from pinnntk_lib._types import Apply, Operator, Params


def check_count(name: str, value: Any) -> int:
    """Return ``value`` as a positive int, or raise an error."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected a positive integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value}")
    return int(value)


def check_finite(name: str, value: Any) -> float:
    """Return ``value`` as a finite float, or raise an error."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a finite number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """Return ``value`` as a positive, finite float, or raise an error."""
    if check_finite(name, value) <= 0:
        raise ValueError(f"{name}: expected a positive number, got {value}")
    return float(value)


def check_coordinate(name: str, value: Any, dim: int | None = None) -> int:
    """Return ``value`` as the index of one of the coordinates 0, ..., dim - 1, or raise an error."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected the index of a coordinate, an integer, got {value!r}")
    axis = int(value)
    if axis < 0 or (dim is not None and axis >= dim):
        expected = "0 or a positive integer" if dim is None else f"a coordinate from 0 to {dim - 1}"
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return axis


def check_flag(name: str, value: Any) -> None:
    """Check that a value is true or false."""
    try:
        bool(value)
    except Exception as error:  # arrays raise several kinds
        raise TypeError(f"{name}: expected True or False, got {value!r}") from error


def check_fraction(name: str, value: Any) -> float:
    """Return ``value`` as a float in [0, 1), or raise an error."""
    if not 0 <= check_finite(name, value) < 1:
        raise ValueError(f"{name}: expected a number in [0, 1), got {value}")
    return float(value)


def check_array(name: str, value: Any) -> jax.Array:
    """Return ``value`` as an array of JAX, or raise an error."""
    try:
        return jnp.asarray(value)
    except Exception as error:  # JAX and NumPy raise several kinds
        raise TypeError(f"{name}: expected an array of numbers, got {type(value).__name__}") from error


def check_numbers(name: str, value: Any, dtype: Any = float) -> np.ndarray:
    """Return real numbers as an array of NumPy, in double precision or, if ``dtype`` is None, as they are."""
    try:
        return np.asarray(value, dtype=dtype)
    except Exception as error:  # NumPy raises several kinds
        raise TypeError(f"{name}: expected real numbers, got {value!r}") from error


def check_frequencies(name: str, value: Any) -> np.ndarray:
    """Return finite numbers as an array (m, d)."""
    array = check_numbers(name, value)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers of shape (m, d), got {value!r}")
    return array


def check_path(name: str, value: Any, expected: str = "the name of a file") -> Path:
    """Return the name of a file or a directory as a path."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}: expected {expected}, got {value!r}")
    return Path(value)


def check_key(name: str, value: Any) -> None:
    """Check that a value is a random key of JAX, and one only."""
    try:
        drawn = jax.eval_shape(jax.random.bits, value)
    except Exception as error:
        raise TypeError(f"{name}: expected a JAX random key, got {value!r}") from error
    if drawn.shape:
        raise TypeError(f"{name}: expected one JAX random key, got an array of shape {jnp.shape(value)}")


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Check that a value is one of several words."""
    if not isinstance(value, str) or value not in choices:
        said = list(choices) if len(choices) > 2 else " or ".join(map(repr, choices))
        raise ValueError(f"{name}: expected {'one of ' if len(choices) > 2 else ''}{said}, got {value!r}")


def check_function(name: str, value: Any, expected: str = "a function of a point") -> None:
    """Check that a value can be called."""
    check_no_class(name, value, expected)
    if not callable(value):
        raise TypeError(f"{name}: expected {expected}, got {value!r}")


def check_no_class(name: str, value: Any, expected: str) -> None:
    """Check that a value is not a class, which is easily passed where an instance is meant."""
    if isinstance(value, type):
        raise TypeError(f"{name}: expected {expected}, got the class {value.__name__} instead of an instance")


def check_optimizer(name: str, value: Any, expected: str = "an optax gradient transformation") -> None:
    """Check that a value is an optax gradient transformation, and not a weighting, which has the same methods."""
    check_no_class(name, value, expected)
    if not (callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))):
        raise TypeError(f"{name}: expected {expected}, got {value!r}")
    try:
        inspect.signature(value.update).bind_partial("updates", "state", "params")
    except TypeError as error:
        raise TypeError(f"{name}: expected {expected}, with update(updates, state, params), got {value!r}") from error


def leaves_of(params: Params, name: str = "params") -> list[tuple[Any, Any]]:
    """Return ``(path, leaf)`` for each leaf of a pytree."""
    try:
        return jax.tree_util.tree_leaves_with_path(params)
    except ValueError as error:  # keys that cannot be sorted
        raise ValueError(f"{name}: expected a pytree, got one that JAX does not accept: {error}") from error


def check_params(params: Params, name: str = "params") -> None:
    """Check that every leaf is a floating-point array, one of them not empty, and outside ``jit`` also finite."""
    leaves = leaves_of(params, name)
    if not leaves:
        raise ValueError(f"{name}: expected a pytree with at least one array, got none")
    for path, leaf in leaves:
        where = f"{name}{jax.tree_util.keystr(path)}"
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            kind = getattr(leaf, "dtype", type(leaf).__name__)
            raise TypeError(f"{where}: expected a floating-point array, got {kind}")
        if not isinstance(leaf, jax.core.Tracer) and not np.isfinite(leaf).all():
            raise ValueError(f"{where}: expected finite numbers, got NaN or infinity")
    if not any(leaf.size for _, leaf in leaves):
        raise ValueError(f"{name}: expected at least one number, got only empty arrays")


def check_operators(conditions: Any) -> dict[str, Operator]:
    """Return ``{name: operator}`` from a Problem or a mapping."""
    operators = getattr(conditions, "operators", conditions)
    if not isinstance(operators, Mapping) or not all(callable(op) for op in operators.values()):
        raise TypeError(f"conditions: expected a Problem or {{name: operator(u, x)}}, got {conditions!r}")
    if not operators:
        raise ValueError("conditions: expected at least one condition, got none")
    return dict(operators)


def check_names(name: str, given: Iterable[str], expected: Iterable[str]) -> None:
    """Check that the given condition names are the expected ones, in any order."""
    unknown, missing = [n for n in given if n not in expected], [n for n in expected if n not in given]
    if unknown or missing:
        said = ", ".join(f"{words} {names}" for words, names in (("unknown", unknown), ("missing", missing)) if names)
        raise ValueError(f"{name}: expected the conditions {list(expected)}, got {list(given)} ({said})")


def check_name_list(name: str, value: Any) -> list[str]:
    """Return names of conditions as a list, or raise an error."""
    if isinstance(value, str | np.ndarray | jax.Array) or not isinstance(value, Collection):
        raise TypeError(f"{name}: expected a list of names of conditions, got {value!r}")
    return list(value)


def check_sizes(n: Any, names: Collection[str]) -> dict[str, int]:
    """Return the number of points of each condition, ``{name: number}``, from one number or such a mapping."""
    sizes = dict(n) if isinstance(n, Mapping) else dict.fromkeys(names, n)
    check_names("n", sizes, names)
    return {name: check_count(f"n for condition {name!r}", sizes[name]) for name in names}


def check_weights(weights: Any, names: Iterable[str]) -> dict[str, float]:
    """Return ``{name: number >= 0}`` in the order of the conditions, not all zero; all 1 if ``weights`` is None."""
    if weights is None:
        return dict.fromkeys(names, 1.0)
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights: expected {{name: number}}, got {weights!r}")
    check_names("weights", weights, names)
    found = {name: _not_negative(f"weights[{name!r}]", weights[name]) for name in names}
    if found and all(not isinstance(value, jax.core.Tracer) and value == 0 for value in found.values()):
        raise ValueError(f"weights: expected at least one that is not zero, got {dict(weights)}")
    return found


def check_point_weights(name: str, values: Any) -> np.ndarray:
    """Return weights per point, an array (n,) of numbers that are not negative."""
    array = check_numbers(name, values, dtype=None)
    if array.ndim != 1 or not len(array) or not jnp.issubdtype(array.dtype, jnp.number):
        raise TypeError(f"{name}: expected a number, or an array (n,) of one per point, got {values!r}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"{name}: expected finite numbers that are not negative, got {values!r}")
    return array


def check_positive_weights(weights: Any, names: Iterable[str]) -> dict[str, float]:
    """Return what :func:`check_weights` does, but refuse zero."""
    found = check_weights(weights, names)
    for name, value in found.items():
        if not isinstance(value, jax.core.Tracer) and value == 0:
            raise ValueError(f"weights[{name!r}]: expected a positive number, got {weights[name]}")
    return found


def _not_negative(name, value):
    """Check a number that may also be a JAX or NumPy scalar; the value of a traced one cannot be checked."""
    if isinstance(value, jax.core.Tracer):
        return value
    is_array = isinstance(value, jax.Array | np.ndarray)
    is_scalar = is_array and value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.number)
    number = check_finite(name, value.item() if is_scalar else value)
    if number < 0:
        raise ValueError(f"{name}: expected a number that is not negative, got {number}")
    return number


def check_points(points: Any, names: Iterable[str], name: str = "points") -> dict[str, jax.Array]:
    """Return ``{name: (n, d) array or Points}`` in the order of the conditions, with a common dtype.

    The dimension d must be the same for all, and the values finite.
    """
    if not isinstance(points, Mapping):
        raise TypeError(f"{name}: expected {{name: (n, d) array}}, got {type(points).__name__}")
    check_names(name, points, names)
    if not points:
        raise ValueError(f"{name}: expected the points of at least one condition, got none")
    points = {of: x if isinstance(x := points[of], Points) else check_array(f"{name}[{of!r}]", x) for of in names}
    for condition, x in ((of, coordinates(x)) for of, x in points.items()):
        where = f"{name}[{condition!r}]"
        if x.ndim != 2 or 0 in x.shape:
            raise ValueError(f"{where}: expected a non-empty array of shape (n, d), got shape {x.shape}")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{where}: expected floating-point coordinates, got {x.dtype}")
        if not isinstance(x, jax.core.Tracer) and not np.isfinite(x).all():
            raise ValueError(f"{where}: expected finite coordinates, got NaN or infinity")
    shapes = {condition: coordinates(x).shape for condition, x in points.items()}
    if len({d for _, d in shapes.values()}) > 1:
        raise ValueError(f"{name}: expected the same dimension d for all conditions, got {shapes}")
    dtype = jnp.result_type(*(x.dtype for x in points.values()))
    return {condition: x.astype(dtype) for condition, x in points.items()}


def first_not_finite(values: Any, x: Any) -> tuple[float, list[float]] | None:
    """Return the first value that is not finite, with its point, or None; there may be several values per point."""
    wrong = np.flatnonzero(~np.isfinite(values))
    if not len(wrong):
        return None
    return float(values[wrong[0]]), np.asarray(coordinates(x))[wrong[0] * len(x) // len(values)].tolist()


def check_other_points(other_points: Any, points: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Return a second set of points, for some or all of the conditions, checked and with the first set's dtype."""
    names = list(points)
    if isinstance(other_points, Mapping):  # a subset of the conditions is enough
        names = [name for name in points if name in other_points] or names
    others = check_points(other_points, names, name="other_points")
    d, other = (coordinates(next(iter(p.values()))).shape[1] for p in (points, others))
    if d != other:
        raise ValueError(f"other_points: expected points of dimension {d}, as in points, got {other}")
    dtype = jnp.result_type(*(x.dtype for x in points.values()))
    return {condition: x.astype(dtype) for condition, x in others.items()}


def check_conditions(apply: Apply, params: Params, operators: Mapping[str, Operator], point: Any) -> None:
    """Check by abstract evaluation that every operator returns a real scalar, or its declared outputs, at a point.

    The point is an array (d,), a single one of Points, or a row of packed points. This is the one place that decides
    what a valid residual is.
    """
    x = _coordinates(operators, point)
    model = check_model(apply, params, x).shape
    for name, operator in operators.items():
        what = f"conditions[{name!r}] at x of shape {x.shape}"
        value = _traced(lambda p, x: operator(lambda y: apply(p, y), x), params, point, what)  # noqa: B023
        outputs = getattr(operator, "outputs", None)
        if outputs is None and value.shape != ():
            raise ValueError(
                f"conditions[{name!r}]: expected an operator that returns a scalar, got shape {value.shape}"
                f" (the model returns shape {model}); declare several outputs with pinnntk_lib.System"
            )
        if outputs is not None and value.shape != (outputs,):
            raise ValueError(
                f"conditions[{name!r}]: expected shape ({outputs},), as declared by System, got {value.shape}"
            )
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(f"conditions[{name!r}]: expected real floating-point numbers, {_unreal(value.dtype)}")


def check_model(apply: Apply, params: Params, x: Any) -> jax.ShapeDtypeStruct:
    """Check that the model can be evaluated at a point (d,), and return the shape and the dtype of its value."""
    return _traced(apply, params, x, f"apply(params, x) at x of shape {x.shape}")


def drawn_points(sampler: Callable[..., Any], key: jax.Array, *residuals: Callable[..., Any]) -> Any:
    """Return the points that a function of the user's draws, or say that it could not be called with a random key."""
    try:
        return sampler(key, *residuals)
    except Exception as error:  # whatever other people's code raises
        called, given = ("points.adapted", "a random key and residuals") if residuals else ("points", "a random key")
        raise ValueError(f"{called}: could not be called with {given}: {_said(error)}") from error


def _coordinates(operators, point):
    """Return the shape and precision of the coordinates of a point, which may be a row of packed points."""
    layouts = [operator.layout for operator in operators.values() if hasattr(operator, "layout")]
    x = coordinates(point)
    return jax.ShapeDtypeStruct((layouts[0].d,) if layouts else x.shape, x.dtype)


def _unreal(dtype):
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return (
            f"got {dtype}; declare the real and the imaginary part as two outputs: "
            "pinnntk_lib.System(lambda u, x: jnp.stack([jnp.real(f(u, x)), jnp.imag(f(u, x))]), outputs=2)"
        )
    return f"got {dtype}, which has no gradient"


def _traced(f, params, point, what):
    """Return the shape and dtype of ``f(params, point)``, which must be one array."""
    try:
        value = jax.eval_shape(f, params, point)
    except Exception as error:  # whatever other people's code raises
        raise ValueError(f"{what}: could not be evaluated: {_said(error)}") from error
    if not hasattr(value, "shape"):
        raise TypeError(f"{what}: expected an array, got {jax.tree.structure(value)}")
    return value


def _said(error):
    """Return the text of an error, after its kind if that says more."""
    return str(error) if isinstance(error, TypeError | ValueError | IndexError) else f"{type(error).__name__}: {error}"
