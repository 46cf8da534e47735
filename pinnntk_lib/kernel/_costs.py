"""What the steps of computing a kernel cost on each kind of device, which ``"auto"`` and the loops go by.

The costs are in units of a multiply-add in a large matrix product. ``tests/benchmarks/costs.py`` measures them.
"""

from typing import NamedTuple

import jax


class Costs(NamedTuple):
    """Costs on one kind of device.

    Attributes:
        accumulate: multiplying an element of two products and adding it to the sum over channels.
        assemble: a multiply-add of the small products that assemble a Jacobian from factors.
        write: writing an element of a Jacobian, and reading it again.
        working_set: bytes that a loop should use at a time: the cache of a CPU core; on a GPU, enough to keep it busy.
        tile: rows and columns of the blocks in which a large kernel is summed.
        direct: number of parameters up to which one product of the whole Jacobian is the fastest, although it computes
            both triangles of the kernel.
    """

    accumulate: float
    assemble: float
    write: float
    working_set: int
    tile: int
    direct: int


# Measured on two cores of an Intel Xeon (AVX-512), JAX 0.10, float64; and on an NVIDIA H200, JAX 0.11, float32
# (book/data/gpu.json), where each step of the loop over pairs of channels is a launch. The last three of the GPU's are
# guesses.
COSTS = {
    "cpu": Costs(accumulate=30.0, assemble=1.5, write=50.0, working_set=2**22, tile=512, direct=512),
    "gpu": Costs(accumulate=2500.0, assemble=1.0, write=180.0, working_set=2**28, tile=4096, direct=512),
}


def costs() -> Costs:
    """Return the costs on JAX's default device."""
    return COSTS.get(jax.default_backend(), COSTS["gpu"])
