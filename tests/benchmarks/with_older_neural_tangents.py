"""The implementations of neural-tangents that need an older version of JAX than the others do."""

from with_neural_tangents import METHODS, VERSIONS, finished

__all__ = ["METHODS", "VERSIONS", "finished"]

VERSIONS["jax of its structured derivatives and auto"] = VERSIONS.pop("jax of neural-tangents")
