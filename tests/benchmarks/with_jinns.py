"""The training step by jinns: the residual as its dynamic loss, values as observations, u_t as a boundary condition."""

import itertools
import warnings
from importlib.metadata import version

import equinox as eqx
import jax
import jax.numpy as jnp
import jinns
import optax
from cases import STEPS, laplacian
from jinns.data._AbstractDataGenerator import AbstractDataGenerator
from jinns.data._Batchs import PDEStatioBatch
from jinns.loss._BoundaryConditionAbstract import BoundaryConditionAbstract
from with_jax import finished, nested

__all__ = ["METHODS", "VERSIONS", "finished"]


class SamePoints(AbstractDataGenerator):
    """The same points in every step, as for all contestants."""

    residuals: jax.Array
    border: jax.Array | None
    rar_parameters: None = None

    def get_batch(self):
        return self, PDEStatioBatch(domain_batch=self.residuals, border_batch=self.border)


def training(case, dtype, steps=STEPS):
    layers, points = jax.tree.map(lambda a: jnp.asarray(a, dtype), case.data())
    targets = case.targets(case.data()[1])
    residual, border = (nested(case.conditions[name]) if name in points else None for name in ("r", "ut"))

    def of(u, params):
        return lambda x: u(x, params)[0]

    class Residual(jinns.loss.PDEStatio):
        def equation(self, x, u, params):
            # the last coordinate is the right-hand side, so that it need not be computed in every step
            x, target = x[:-1], x[-1]
            if case.conditions["r"] == laplacian(case.dim):  # the fastest of jinns' own
                value = jinns.loss.laplacian_rev(x, u, params, method="loop")
            else:
                value = residual(of(u, params), x)
            return jnp.reshape(value - target, (1,))

    class Velocity(BoundaryConditionAbstract):
        def equation_u(self, x, u, params):
            return (border(of(u, params), x[:-1, 0])[None],)

        def equation_f(self, x, params, gridify=False):
            return (jnp.zeros(1, x.dtype),)

    def beside(name):
        return jnp.concatenate([points[name], jnp.asarray(targets[name], dtype)[:, None]], axis=1)

    sizes = [len(W) for W, _ in layers]
    shapes = [(eqx.nn.Linear, case.dim, sizes[0])]
    for before, after in itertools.pairwise(sizes):
        shapes += [(jnp.tanh,), (eqx.nn.Linear, before, after)]
    u, drawn = jinns.nn.PINN_MLP.create(key=jax.random.PRNGKey(0), eqx_list=tuple(shapes), eq_type="PDEStatio")
    leaves = [leaf for layer in layers for leaf in layer]
    start = jinns.parameters.Params(nn_params=jax.tree.unflatten(jax.tree.structure(drawn), leaves), eq_params={})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Missing boundary condition."
        loss = jinns.loss.LossPDEStatio(
            u=u,
            dynamic_loss=Residual(),
            boundary_condition=Velocity() if border else None,
            loss_weights=jinns.loss.LossWeightsPDEStatio(
                dyn_loss=1.0, observations=1.0, boundary_loss=1.0 if border else None
            ),
            params=start,
        )
    data = SamePoints(beside("r"), beside("ut")[..., None] if border else None)
    observed = jinns.data.DataGeneratorObservations(
        key=jax.random.PRNGKey(0),
        observed_pinn_in=points["u"],
        observed_values=jnp.asarray(targets["u"], dtype)[:, None],
    )
    optimizer = optax.adam(1e-3)

    @jax.jit  # jinns' own compilation is once a call of solve
    def solve(start, data, observed):
        options = {"verbose": False, "ahead_of_time": False, "print_loss_every": steps}
        return jinns.solve(
            n_iter=steps, init_params=start, data=data, obs_data=observed, loss=loss, optimizer=optimizer, **options
        )[0].nn_params

    return lambda: solve(start, data, observed)


METHODS = {"jinns": training}
VERSIONS = {"jinns": version("jinns"), "jax of jinns": jax.__version__}
