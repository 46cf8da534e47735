"""Checks of the inputs that determine a kernel: model, operators, and shapes of the parameters and points."""

import jax
import jax.numpy as jnp

from pinnntk_lib._check import check_conditions, check_function, check_operators, check_params, check_points
from pinnntk_lib._points import packing_of
from pinnntk_lib._static import static


def setting_of(apply, params, conditions, points):
    """Check the arguments and return ``(setting, leaves, points)``; points with data are packed into arrays.

    The setting is hashable and holds what a plan depends on: ``(apply, ((name, operator), ...), tree structure of the
    parameters, their shapes and dtypes, shape and dtype of a point)``, with the functions as
    :class:`~pinnntk_lib._static.Static`.
    """
    check_function("apply", apply, "a function apply(params, x)")
    operators = check_operators(conditions)
    check_params(params)
    points = check_points(points, operators)
    packing = packing_of(points)
    if packing is not None:
        operators, points = packing.operators(operators), packing.points(points)
    leaves, treedef = jax.tree.flatten(jax.tree.map(jnp.asarray, params))
    x = next(iter(points.values()))
    setting = (
        static(apply),
        tuple((name, static(operator)) for name, operator in operators.items()),
        treedef,
        tuple((leaf.shape, leaf.dtype) for leaf in leaves),
        (x.shape[1:], x.dtype),
    )
    return setting, leaves, points


def residuals_of(setting):
    """Return ``({name: (params, x) -> residual}, params, x)``, where params and x hold only shapes and dtypes.

    Checks the shapes and dtypes that the operators return.
    """
    apply, operators, treedef, leaves, x = setting
    params = jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
    x = jax.ShapeDtypeStruct(*x)
    check_conditions(apply, params, dict(operators), x)

    return {name: residual_of(apply, operator) for name, operator in operators}, params, x


def residual_of(apply, operator):
    """Return the operator applied to the model, ``(params, x) -> L[u](x)``."""
    return lambda params, x: operator(lambda y: apply(params, y), x)
