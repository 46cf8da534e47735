"""The paper's network, and wrappers around any model.

Any pure function ``apply(params, x) -> scalar`` can serve as a model.
"""

from pinnntk_lib._types import Apply
from pinnntk_lib.models._mlp import ACTIVATIONS, MLP, Normalization, normalization
from pinnntk_lib.models._wrappers import (
    fourier_features,
    hard_boundary,
    normalized_inputs,
    periodic_inputs,
    scaled_output,
)

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "Apply",
    "Normalization",
    "fourier_features",
    "hard_boundary",
    "normalization",
    "normalized_inputs",
    "periodic_inputs",
    "scaled_output",
]
