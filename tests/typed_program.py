"""A strictly typed user program, which ``make lint`` checks with ``mypy --strict``. It is not executed."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

import pinnntk_lib as pn
from pinnntk_lib import experiments, plotting
from pinnntk_lib.training import View


class InverseLossWeights:
    """A user-defined weighting."""

    def init(self, names: Sequence[str]) -> Any:
        return {}

    def update(self, state: Any, view: View) -> tuple[dict[str, jax.Array], Any]:
        return {name: 1 / loss for name, loss in view.losses(view.params).items()}, state


def residual(u: pn.operators.Function, x: jax.Array) -> jax.Array:
    return pn.dd(u, 0)(x) - 4.0 * pn.laplacian(pn.d(u, 1))(x)


def sample(n: int, key: jax.Array | None) -> jax.Array:
    return jnp.linspace(0.0, 1.0, n)[:, None]


def own_problem() -> pn.Problem:
    conditions: Mapping[str, pn.Condition] = {
        "u": pn.Condition(lambda u, x: u(x), jnp.sum, sample),
        "r": pn.Condition(pn.System(residual, outputs=1), jnp.ones_like, sample),
    }
    return pn.Problem(conditions, (0.0,), (1.0,))


def kernel(problem: pn.Problem, model: pn.MLP, params: Any) -> dict[str, float]:
    points: dict[str, jax.Array] = problem.points({"u": 2, "r": 50}, jax.random.key(1))
    K: pn.NTK = pn.ntk(model.apply, params, problem, points, method="auto", memory=2**28)
    alone: pn.NTK = pn.ntk(model.apply, params, {"r": residual}, {"r": points["r"]})
    limit: pn.NTK = pn.limit.ntk(model, problem, points)
    diagonal: dict[str, jax.Array] = pn.ntk_diagonal(model.apply, params, problem, points)
    product: jax.Array = pn.ntk_vector_product(model.apply, params, problem, points, jnp.ones(52))
    values, _ = pn.ntk_eigenpairs(model.apply, params, problem, points, 3, jax.random.key(2), rtol=1e-6)
    theta: jax.Array = pn.limit.ntk_function(model, radius=1.0)(points["r"][0], points["r"][1])
    numbers = [K.trace("u"), limit.block("u", "r")[0, 0], alone.eigvalsh()[0], diagonal["r"].sum(), product[0], theta]
    return {"largest": float(values[0]), "sum": float(sum(map(float, numbers)))}


def train(problem: pn.Problem, model: pn.MLP, params: Any) -> pn.Result:
    sampler = pn.RandomPoints(problem, 100)
    optimizer: optax.GradientTransformation = pn.kernel_gradient_descent(max_tries=5)
    try:
        result: pn.Result = pn.train(
            model.apply, params, problem, sampler, optimizer, 100, pn.NTKWeights(every=10), key=jax.random.key(3)
        )
    except pn.DivergenceError as error:
        result = error.result
    result = pn.train(model.apply, result.params, problem, sampler, optimizer, 10, InverseLossWeights())
    return pn.train(model.apply, result.params, problem, sampler, optimizer, 10, {"u": 100.0, "r": 1.0})


def diagnose(problem: pn.Problem, model: pn.MLP, params: Any) -> str:
    points = problem.points(20)
    found: pn.Diagnosis = pn.diagnose(model.apply, params, problem, points, optimizer=optax.sgd(1e-3))
    found.plot().savefig("diagnosis.svg")
    bound: jax.Array = pn.largest_stable_learning_rate(found.K, {"u": 2.0, "r": 1.0})
    linear = pn.Linearized(found.K, problem.residuals(lambda x: model.apply(params, x), points))
    losses: dict[str, jax.Array] = linear.losses([0.0, 1.0], learning_rate=float(bound) / 2)
    return f"{found.verdict} {found.time_constants} {losses['r'][-1]}"


def main() -> None:
    problem = pn.problems.Poisson1D(a=4)
    model = pn.MLP(width=100, **pn.normalization(problem.points(100)["r"]))
    params = model.init(jax.random.key(0))
    print(kernel(problem, model, params), diagnose(problem, model, params))
    result = train(problem, model, params)
    plotting.losses(result.history).set_title("losses")
    plotting.solution(model.apply, result.params, problem)
    error: jax.Array = pn.relative_l2_error(jnp.ones(3), jnp.ones(3))
    print(error, experiments.run("poisson1d-a4", seed=0, steps=10).params)
