"""The paper's network, and the normalisation of its inputs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_choice, check_count, check_key, check_numbers
from pinnntk_lib._types import Params

ACTIVATIONS: dict[str, Callable] = {"tanh": jnp.tanh, "sin": jnp.sin, "erf": jax.lax.erf}


@dataclass(frozen=True)
class MLP:
    """A fully connected network with a scalar output.

    In NTK parameterisation (paper, equation 2.1 and section 4), every weight and bias is drawn from N(0, 1), and each
    layer divides its matrix product by sqrt(fan-in), so that the kernel has a limit as the width grows. Standard
    parameterisation omits the division, draws the weights from the Glorot normal distribution and sets the biases to
    zero (section 7.2).

    Attributes:
        width: number of units in each hidden layer.
        depth: number of hidden layers.
        dim: number of inputs, d.
        activation: "tanh", "sin", "erf", or a smooth elementwise function.
        parameterization: "ntk" or "standard".
        shift: a number, or one number per input. Inputs enter the first layer as (x - shift) / scale.
        scale: as ``shift``; must not be zero.

    Raises:
        ValueError, TypeError: if ``width``, ``depth`` or ``dim`` is not a positive integer, the activation or
            parameterisation is unknown, ``shift`` or ``scale`` does not fit ``dim``, or a ``scale`` is zero.

    Example:
        >>> import jax
        >>> model = MLP(width=100)
        >>> params = model.init(jax.random.key(0))
        >>> model.apply(params, jax.numpy.array([0.5])).shape
        ()
    """

    width: int
    depth: int = 1
    dim: int = 1
    activation: str | Callable = "tanh"
    parameterization: str = "ntk"
    shift: float | Sequence[float] = 0.0
    scale: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        for name in ("width", "depth", "dim"):
            object.__setattr__(self, name, check_count(name, getattr(self, name)))
        is_known = isinstance(self.activation, str) and self.activation in ACTIVATIONS
        if not callable(self.activation) and not is_known:
            raise ValueError(f"activation: expected a function or one of {list(ACTIVATIONS)}, got {self.activation!r}")
        check_choice("parameterization", self.parameterization, ("ntk", "standard"))
        for name in ("shift", "scale"):
            object.__setattr__(self, name, self._per_input(name, getattr(self, name)))
        if not np.all(self.scale):
            raise ValueError(f"scale: expected non-zero numbers, got {self.scale}")

    def _per_input(self, name, value):
        """Return ``value`` as a tuple of ``dim`` floats: hashable, so that the model can be a static jit argument."""
        array = check_numbers(name, value)
        if array.shape not in ((), (1,), (self.dim,)) or not np.isfinite(array).all():
            raise ValueError(f"{name}: expected a finite number or {self.dim} of them (dim={self.dim}), got {value!r}")
        return tuple(np.broadcast_to(array, (self.dim,)).tolist())

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of units in every layer, including the inputs and the output."""
        return (self.dim, *[self.width] * self.depth, 1)

    def init(self, key: jax.Array) -> list[dict[str, jax.Array]]:
        """Draw random parameters, one ``{"W": (fan_out, fan_in), "b": (fan_out,)}`` per layer.

        The parameters have JAX's default float type. The same key draws different numbers in float32 and float64.
        """
        check_key("key", key)
        layers = []
        keys = iter(jax.random.split(key, 2 * (self.depth + 1)))
        for fan_in, fan_out in zip(self.sizes[:-1], self.sizes[1:]):
            W, b = jax.random.normal(next(keys), (fan_out, fan_in)), jax.random.normal(next(keys), (fan_out,))
            if self.parameterization == "standard":
                W, b = W * math.sqrt(2.0 / (fan_in + fan_out)), jnp.zeros_like(b)
            layers.append({"W": W, "b": b})
        return layers

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        """Return the network's scalar output at a point ``x`` of shape (dim,).

        Raises:
            ValueError: if ``x`` does not have shape (dim,).
        """
        if jnp.shape(x) != (self.dim,):
            raise ValueError(f"x: expected a point of shape ({self.dim},), got shape {jnp.shape(x)}")
        activation = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        a = (x - jnp.asarray(self.shift, x.dtype)) / jnp.asarray(self.scale, x.dtype)
        for i, (layer, fan_in) in enumerate(zip(params, self.sizes)):
            z = layer["W"] @ a
            if self.parameterization == "ntk":
                z = z / math.sqrt(fan_in)
            z = z + layer["b"]
            a = activation(z) if i < self.depth else z
        return a[0]


class Normalization(TypedDict):
    """The ``shift`` and ``scale`` arguments of :class:`MLP`."""

    shift: tuple[float, ...]
    scale: tuple[float, ...]


def normalization(points: jax.Array) -> Normalization:
    """Return the mean and standard deviation of points (n, d) as ``shift`` and ``scale`` for :class:`MLP`.

    The paper normalises inputs with the statistics of its residual points. Normalisation is part of the model: it
    multiplies the kernel of an operator of order k by about ``scale**(-2 k)``.

    Raises:
        ValueError, TypeError: if ``points`` does not have shape (n, d) with n > 0, does not consist of real numbers, or
            is constant along an axis.

    Example:
        >>> import jax.numpy as jnp
        >>> normalization(jnp.array([[0.0], [1.0]]))
        {'shift': (0.5,), 'scale': (0.5,)}
    """
    values = check_numbers("points", points, dtype=None)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"points: expected shape (n, d), got {values.shape}")
    if not any(jnp.issubdtype(values.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise TypeError(f"points: expected real numbers, got {values.dtype}")
    scale = values.std(axis=0)
    if not (scale > 0).all():
        raise ValueError(f"points: expected variation along every axis, got standard deviations {scale.tolist()}")
    return {"shift": tuple(values.mean(axis=0).tolist()), "scale": tuple(scale.tolist())}
