"""The quantities that determine the infinite-width limit, with the largest variance that each layer sees."""

import math
from typing import NamedTuple

import numpy as np

from pinnntk_lib._check import check_finite, check_positive
from pinnntk_lib.limit._hermite import Coefficients, Series
from pinnntk_lib.models import ACTIVATIONS, MLP

MOST_VARIANCE = 1e3  # of a layer's inputs; the quadrature's memory grows with the variance's root, and is 200 MB here


class Network(NamedTuple):
    """The quantities that determine the limit, hashable."""

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
    """Check the arguments and return the :class:`Network`, with the largest variance of each layer."""
    weight_variance, bias_variance = (
        check_finite(name, value) for name, value in zip(("weight_variance", "bias_variance"), variances)
    )
    if weight_variance <= 0 or bias_variance < 0:
        raise ValueError(
            f"weight_variance, bias_variance: expected a positive and a non-negative number, got {variances}"
        )
    rtol = check_positive("rtol", rtol)
    activation, layers = ACTIVATIONS.get(model.activation, model.activation), []
    radius = check_finite("radius", radius)
    largest = weight_variance * radius * radius + bias_variance
    for _ in range(model.depth):
        if largest > MOST_VARIANCE:
            raise ValueError(
                f"weight_variance, bias_variance, points, radius: expected a variance of at most {MOST_VARIANCE:.0f} "
                f"in every layer, got {largest:.3g}; normalise the inputs (pinnntk_lib.normalization)"
            )
        # Rounded up, so that similar points find the same cached quadrature rules and tails.
        layers.append(Series(activation, math.ceil(8 * largest) / 8, rtol))
        on_the_way = Coefficients(layers[-1], np.linspace(0.0, layers[-1].variance, 33), (0,), 1, 0).slopes[0]
        largest = weight_variance * on_the_way.max() + bias_variance
    return Network(tuple(layers), model.shift, model.scale, weight_variance, bias_variance)
