"""Wrappers around any model: functions of a model ``apply`` that return another, with the same parameters."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pinnntk_lib._check import check_frequencies, check_function, check_numbers, check_positive
from pinnntk_lib._types import Apply, Function


def normalized_inputs(apply: Apply, shift: ArrayLike, scale: ArrayLike) -> Apply:
    """Return the model ``(params, x) -> apply(params, (x - shift) / scale)``.

    Networks train well on inputs of mean 0 and standard deviation 1. :func:`normalization` computes shift and scale
    from points; operators and points stay in the original coordinates.

    Args:
        apply: the model, a function ``(params, x of shape (d,)) -> u(x)``.
        shift, scale: a number, or one number per input.

    Raises:
        ValueError: if a number is not finite, or a scale is zero.

    Example:
        >>> import jax.numpy as jnp
        >>> apply = normalized_inputs(lambda params, x: params * x[0], shift=300.0, scale=10.0)
        >>> float(apply(2.0, jnp.array([305.0])))
        1.0
    """
    a, b = _numbers("shift", shift), _numbers("scale", scale, zero=False)
    return lambda params, x: apply(params, (x - jnp.asarray(a, x.dtype)) / jnp.asarray(b, x.dtype))


def scaled_output(apply: Apply, scale: ArrayLike, shift: ArrayLike = 0.0) -> Apply:
    """Return the model ``(params, x) -> shift + scale * apply(params, x)``.

    A network's outputs are of size 1 at first. If the solution is of another size, let ``scale`` be that size.

    Args:
        apply: the model, a function ``(params, x of shape (d,)) -> u(x)``.
        scale, shift: a number, or one number per output.

    Raises:
        ValueError: if a number is not finite, or a scale is zero.

    Example:
        >>> import jax.numpy as jnp
        >>> apply = scaled_output(lambda params, x: params * x[0], scale=1000.0)
        >>> float(apply(0.5, jnp.array([2.0])))
        1000.0
    """
    a, b = _numbers("shift", shift), _numbers("scale", scale, zero=False)

    def scaled(params, x):
        value = apply(params, x)
        return jnp.asarray(a, value.dtype) + jnp.asarray(b, value.dtype) * value

    return scaled


def periodic_inputs(apply: Apply, periods: Sequence[float | None] | ArrayLike) -> Apply:
    """Return a model of x in which some inputs enter through their cosine and sine only, so that u is periodic in them.

    Input x_i of period p becomes the two inputs cos(2 pi x_i / p) and sin(2 pi x_i / p). An input without a period
    stays as it is. The inner model has one input more for each period, in the order of the inputs. All derivatives of u
    are periodic too, so no condition on periodic boundaries is needed.

    Args:
        apply: the inner model, a function ``(params, z of shape (d + periodic inputs,)) -> u``.
        periods: the period of each of the d inputs; None for an input that is not periodic.

    Source: Dong and Ni 2021 (arXiv:2007.07442), which has further modes per input.

    Raises:
        ValueError, TypeError: if a period is neither None nor a positive number, or there is none; in a call, if x has
            another number of inputs.

    Example:
        >>> import jax, jax.numpy as jnp, pinnntk_lib as pn
        >>> model = pn.MLP(width=20, dim=3)  # of t, cos(pi x) and sin(pi x)
        >>> apply, params = periodic_inputs(model.apply, (None, 2.0)), model.init(jax.random.key(0))
        >>> left, right = (apply(params, jnp.array([0.3, x])) for x in (-1.0, 1.0))
        >>> bool(abs(left - right) < 1e-12)
        True
    """
    if isinstance(periods, np.ndarray | jax.Array):
        periods = check_numbers("periods", periods, dtype=None).tolist()
    if not isinstance(periods, Sequence) or isinstance(periods, str | bytes):
        raise TypeError(f"periods: expected a positive number or None for each input, got {periods!r}")
    if not any(period is not None for period in periods):
        raise ValueError(f"periods: expected at least one positive number, got {periods!r}")
    for i, period in enumerate(periods):
        if period is not None:
            check_positive(f"periods[{i}]", period)

    def periodic(params, x):
        if x.shape != (len(periods),):
            raise ValueError(f"x: expected shape ({len(periods)},), one input for each of periods, got {x.shape}")
        parts = []
        for z, period in zip(x, periods):
            angle = z if period is None else 2 * math.pi / period * z
            parts += [z] if period is None else [jnp.cos(angle), jnp.sin(angle)]
        return apply(params, jnp.stack(parts))

    return periodic


def hard_boundary(apply: Apply, distance: Function, values: Function | None = None) -> Apply:
    """Return the model ``(params, x) -> values(x) + distance(x) * apply(params, x)``, which has given boundary values.

    Where the distance is zero, u has the values whatever the parameters are. The condition on u is then met by
    construction, and has no place in the loss.

    Args:
        apply: the model, a function ``(params, x of shape (d,)) -> u(x)``.
        distance: a smooth function of x that is zero on the boundary, with a slope there, and nowhere else; for [0, 1]
            for instance x (1 - x). A slope that vanishes would fix the derivative of u too.
        values: a smooth function of x with the boundary values, defined on the whole domain; zero if None.

    Source: Lagaris, Likas and Fotiadis 1998 (arXiv:physics/9705023).

    Raises:
        TypeError: if ``distance`` or ``values`` is not a function.

    Example:
        >>> import jax, jax.numpy as jnp, pinnntk_lib as pn
        >>> model = pn.MLP(width=20)
        >>> apply = hard_boundary(model.apply, lambda x: x[0] * (1 - x[0]), lambda x: 3.0 * x[0])
        >>> params = model.init(jax.random.key(0))
        >>> [float(apply(params, jnp.array([x]))) for x in (0.0, 1.0)]
        [0.0, 3.0]
    """
    check_function("distance", distance)
    if values is not None:
        check_function("values", values)

    def fixed(params, x):
        inside = distance(x) * apply(params, x)
        return inside if values is None else values(x) + inside

    return fixed


def fourier_features(apply: Apply, frequencies: ArrayLike) -> Apply:
    """Return the model ``(params, x) -> apply(params, [cos(B x), sin(B x)])``, with B the frequencies.

    Random frequencies let a network learn fast what varies fast: they make the kernel's modes of those frequencies its
    fast ones. Draw them as ``bandwidth * jax.random.normal(key, (m, d))``; :func:`~pinnntk_lib.fourier_bandwidth`
    chooses the bandwidth.

    Args:
        apply: the inner model, a function ``(params, z of shape (2 m,)) -> u``.
        frequencies: B, the angular frequencies, an array (m, d).

    Source: Tancik et al. 2020 (arXiv:2006.10739); for PINNs, Wang, Wang and Perdikaris 2021 (arXiv:2012.10047).

    Raises:
        ValueError: if the frequencies are not finite numbers of shape (m, d); in a call, if x does not have d inputs.

    Example:
        >>> import jax, jax.numpy as jnp, pinnntk_lib as pn
        >>> model = pn.MLP(width=20, dim=2 * 30)
        >>> apply = fourier_features(model.apply, 5.0 * jax.random.normal(jax.random.key(1), (30, 1)))
        >>> apply(model.init(jax.random.key(0)), jnp.array([0.5])).shape
        ()
    """
    B = check_frequencies("frequencies", frequencies)

    def featured(params, x):
        if x.shape != B.shape[1:]:
            raise ValueError(f"x: expected shape {B.shape[1:]}, as the rows of frequencies, got {x.shape}")
        angles = jnp.asarray(B, x.dtype) @ x
        return apply(params, jnp.concatenate([jnp.cos(angles), jnp.sin(angles)]))

    return featured


def _numbers(name, values, zero=True):
    """Return one or more finite numbers as an array; ``zero`` says whether they may be zero."""
    array = check_numbers(name, values)
    if array.ndim > 1 or not np.isfinite(array).all():
        raise ValueError(f"{name}: expected a finite number, or one per input or output, got {values!r}")
    if not zero and not array.all():
        raise ValueError(f"{name}: expected non-zero numbers, got {values!r}")
    return array
