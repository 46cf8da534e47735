"""The kernel by netket's NTK, which multiplies Jacobians leaf by leaf, of folx's forward Laplacian."""

import jax
import netket
import with_folx
from netket.jax._ntk import empirical_ntk_by_jacobian
from with_jax import apply, finished, setting

__all__ = ["METHODS", "VERSIONS", "finished"]


def kernel(case, dtype):
    params, operators, points = setting(case, dtype, with_folx.operator)
    ((name, op),) = operators.items()

    def outputs(params, x):
        return jax.vmap(lambda x: op(lambda y: apply(params, y), x))(x)

    of = jax.jit(empirical_ntk_by_jacobian(outputs, trace_axes=(), vmap_axes=0))
    return lambda: of(points[name], None, params)


METHODS = {"netket": kernel}
VERSIONS = {"netket": netket.__version__, "jax of netket": jax.__version__}
