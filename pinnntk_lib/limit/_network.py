"""What the limit depends on: the network's layers, with the largest variance that each of them sees."""

import math
from typing import NamedTuple

import numpy as np

from pinnntk_lib._check import check_finite
from pinnntk_lib.limit._hermite import Coefficients, Series
from pinnntk_lib.models import ACTIVATIONS, MLP


class Network(NamedTuple):
    """What the limit depends on; hashable."""

    layers: tuple[Series, ...]
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    weight_variance: float
    bias_variance: float


def check_model(model):
    if not isinstance(model, MLP):
        raise TypeError(f"model: expected a pinnntk_lib.MLP, whose limit is known, got {type(model).__name__}")
    if model.parameterization != "ntk":
        raise ValueError("model: expected parameterization='ntk', got 'standard', whose kernel has no limit")


def network_of(model, radius, variances, rtol):
    """Checked, with the largest variance of each layer."""
    weight_variance, bias_variance = (
        check_finite(name, value) for name, value in zip(("weight_variance", "bias_variance"), variances)
    )
    if weight_variance <= 0 or bias_variance < 0:
        raise ValueError(f"weight_variance, bias_variance: expected positive numbers, got {variances}")
    rtol = check_finite("rtol", rtol)
    if rtol <= 0:
        raise ValueError(f"rtol: expected a positive number, got {rtol}")
    activation, layers = ACTIVATIONS.get(model.activation, model.activation), []
    largest = weight_variance * check_finite("radius", radius) ** 2 + bias_variance
    for _ in range(model.depth):
        # rounded up, so that other points like these find what has been computed
        layers.append(Series(activation, math.ceil(8 * largest) / 8, rtol))
        on_the_way = Coefficients(layers[-1], np.linspace(0.0, layers[-1].variance, 33), (0,), 1, 0).slopes[0]
        largest = weight_variance * on_the_way.max() + bias_variance
    return Network(tuple(layers), model.shift, model.scale, weight_variance, bias_variance)
