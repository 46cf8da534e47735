"""Adam's own kernel, from its state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pinnntk_lib as pn


@pytest.fixture
def trained(poisson):
    """The arguments of a diagnosis after some steps of Adam, and its state."""
    model, params, problem, points = poisson
    result = pn.train(model.apply, params, problem, points, optax.adam(1e-2), 300)
    return (model.apply, result.params, problem, points), result.state.opt_state


def by_hand(setting, weights, opt_state):
    """Return Adam's weighted kernel from a dense Jacobian."""
    apply, params, problem, points = setting

    def residuals(params):
        found = problem.residuals(lambda x: apply(params, x), points)
        return jnp.concatenate([jnp.sqrt(2 * weights[name] / len(r)) * r for name, r in found.items()])

    flat, unravel = jax.flatten_util.ravel_pytree(params)
    J = jax.jacrev(lambda flat: residuals(unravel(flat)))(flat)
    v = jax.flatten_util.ravel_pytree(opt_state[0].nu)[0] / (1 - 0.999 ** int(opt_state[0].count))
    return np.asarray((J / (jnp.sqrt(v) + 1e-8)) @ J.T)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [{"u": 1.0, "r": 1.0}, {"u": 50.0, "r": 0.5}])
def test_it_is_that_of_a_dense_jacobian(trained, weights):
    setting, opt_state = trained
    found = pn.diagnose(*setting, optimizer=optax.adam(1e-2), opt_state=opt_state, weights=weights).adam
    K = by_hand(setting, weights, opt_state)
    assert found.largest == pytest.approx(np.linalg.eigvalsh(K)[-1], rel=1e-8)
    assert found.largest_stable_learning_rate == pytest.approx(38 / found.largest)
    traces = {"u": np.trace(K[:10, :10]) / 2, "r": np.trace(K[10:, 10:]) / 2}  # D has 2 lambda / n
    assert found.rates == pytest.approx(traces, rel=1e-8)


def test_equal_second_moments_change_nothing_but_the_scale(poisson):
    model, params, problem, points = poisson
    moments = jax.tree.map(lambda leaf: jnp.full_like(leaf, 4.0), params)
    state = optax.ScaleByAdamState(count=jnp.asarray(10**6), mu=params, nu=moments)
    found = pn.diagnose(model.apply, params, problem, points, opt_state=(state, optax.EmptyState()))
    assert found.adam.rates == pytest.approx({name: rate / 2 for name, rate in found.rates.items()}, rel=1e-6)


def test_the_report_says_it(trained):
    setting, opt_state = trained
    found = pn.diagnose(*setting, optimizer=optax.adam(1e-2), opt_state=opt_state)
    (remark,) = (finding for finding in found.findings if finding.name == "Adam's kernel")
    assert not remark.is_cause
    assert remark.text in " ".join(str(found).split())
    assert "opt_state=" not in str(found)
    without = pn.diagnose(*setting, optimizer=optax.adam(1e-2))
    assert "opt_state= shows Adam's own" in " ".join(str(without).split())


@pytest.mark.slow
@pytest.mark.parametrize(("a", "eta", "steps"), [(1, 3e-2, 6_000), (4, 3e-3, 12_000)])
def test_adam_settles_at_the_edge_of_its_stability(a, eta, steps):
    """Adam drives its kernel's largest eigenvalue to 38 / eta, as Cohen et al. 2022 observe in image classifiers."""
    problem = pn.problems.Poisson1D(a=a)
    points = problem.points(60)
    model = pn.MLP(100, **pn.normalization(points["r"]))
    setting = model.apply, model.init(jax.random.key(0)), problem, points
    result = pn.train(*setting, optax.adam(eta), steps)
    found = pn.diagnose(model.apply, result.params, problem, points, opt_state=result.state.opt_state)
    assert 30 < eta * found.adam.largest < 46


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (optax.sgd(1.0).init({}), "got 0 such states"),
        (optax.adam(1.0).init({"w": np.ones(3)}), "got 1 such states, of other shapes"),
    ],
)
def test_other_states_are_refused(poisson, state, message):
    model, params, problem, points = poisson
    with pytest.raises(ValueError, match=f"opt_state: expected the state of an optimiser of Adam's kind.*{message}"):
        pn.diagnose(model.apply, params, problem, points, opt_state=state)
