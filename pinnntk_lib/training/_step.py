"""The compiled training step, and a compiled loop of such steps that stops at divergence."""

from functools import partial

import jax
import jax.numpy as jnp

from pinnntk_lib._devices import divided, replicated
from pinnntk_lib._static import compiled
from pinnntk_lib.kernel import at_points, residual_graphs, residual_of
from pinnntk_lib.training._data import is_fresh
from pinnntk_lib.training._result import TrainState
from pinnntk_lib.training._weighting import View


@compiled(7)
def run_steps(apply, operators, optimizer, weighting, draw, mesh, single, data, state, length, loss_limit):
    """Run ``length`` steps, stopping early at divergence.

    The model, the operators, the optimiser, the weighting and ``draw`` are :class:`~pinnntk_lib._static.Static`. On a
    mesh, the points of each step are divided among the devices, and all else is whole on each. If ``single``, the steps
    are computed in single precision, and the final state has the precision of the one given.
    Returns the final state and two (2, conditions) arrays: the losses and weights before the update of the first step,
    and before that of the last. They are packed into arrays because each further value carried through the loop costs
    a microsecond per step.
    """
    given = state
    if single:
        draw, state = partial(_in_single, draw), in_single(state)
    step = _step(apply, operators, optimizer, weighting, draw, mesh, data, state)

    def go_on(carry):
        state, _, last = carry
        return (state.step < stop) & ~diverged(last, loss_limit)

    def advance(carry):
        state, first, _ = carry
        new_state, last = step(state)
        if single:  # some optimisers compute in double precision with schedules and counts
            new_state = in_precision_of(state, new_state)
        return new_state, jnp.where(state.step == start, last, first), last

    start, stop = state.step, state.step + length
    unseen = jnp.zeros_like(jax.eval_shape(step, state)[1])
    state, *seen = jax.lax.while_loop(go_on, advance, (state, unseen, unseen))
    return replicated((in_precision_of(given, state), *seen), mesh)


def in_single(tree):
    """Return a pytree with its arrays of double precision in single precision."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, tree)


def in_precision_of(expected, tree):
    return jax.tree.map(lambda like, leaf: leaf.astype(like.dtype), expected, tree)


def _in_single(draw, data, step, residuals=None):
    """Draw points and targets, and round them to single precision before they are used."""
    if residuals is None:
        return in_single(draw(data, step))
    return in_single(draw(data, step, lambda points, targets: residuals(in_single(points), in_single(targets))))


def diverged(seen, loss_limit):
    # Negated so that NaN counts as diverged.
    return ~(seen[0].sum() <= loss_limit)


def _step(apply, operators, optimizer, weighting, draw, mesh, data, state):
    """Return ``state -> (next state, (2, conditions) array of the losses and weights before the update)``."""
    import optax

    names, residuals = [name for name, _ in operators], _residuals(apply, operators, draw, data, state)

    def step(state):
        points, targets = divided(draw(data, state.step, partial(residuals, state.params)), mesh)

        def residuals_of(params):
            return residuals(params, points, targets)

        def unweighted(params):
            return {name: jnp.mean(r**2) for name, r in residuals_of(params).items()}

        view = View(
            step=state.step,
            apply=apply,
            params=state.params,
            operators=dict(operators),
            points=points,
            losses=unweighted,
            residuals=residuals_of,
            mesh=mesh,
            fresh=is_fresh(data),
        )
        weights, weighting_state = weighting.wrapped.update(state.weighting_state, view)
        _check_lengths(weights, points)

        def loss(params):
            found = residuals_of(params)
            components = {name: jnp.mean(r**2) for name, r in found.items()}
            return sum(_weighted(weights[name], r, components[name]) for name, r in found.items()), components

        (value, components), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)

        def value_fn(params, view=None, weights=None):
            """Return the loss. optax's line searches reject extra arguments that this signature does not name."""
            return loss(params)[0]

        # For optimisers that need more than the gradient. What they do not use costs nothing.
        more = {"value": value, "grad": gradient, "value_fn": value_fn, "view": view, "weights": weights}
        update = optax.with_extra_args_support(optimizer.wrapped).update
        updates, opt_state = update(gradient, state.opt_state, state.params, **more)
        params = optax.apply_updates(state.params, updates)
        means = {name: jnp.mean(jnp.asarray(weights[name])) for name in names}
        seen = jnp.array([[values[name] for name in names] for values in (components, means)])
        return TrainState(state.step + 1, params, opt_state, weighting_state), seen

    return step


def _weighted(weight, r, component):
    """Return a condition's share of the loss: its mean square times the weight, or the mean with weights per point."""
    if jnp.ndim(weight) == 0:
        return weight * component
    return jnp.mean(weight.reshape(-1, *[1] * (r.ndim - 1)) * r**2)


def _check_lengths(weights, points):
    """Check that weights per point fit the points of the step."""
    for name, weight in weights.items():
        if jnp.shape(weight) not in ((), (len(points[name]),)):
            raise ValueError(
                f"weights[{name!r}]: expected a number, or one per point in an array of shape ({len(points[name])},), "
                f"got shape {jnp.shape(weight)}"
            )


def _residuals(apply, operators, draw, data, state):
    """Return ``(params, points, targets) -> {name: (n, ...) array}``, which runs traced graphs of the residuals."""
    # Nested derivatives compute many values twice, and reverse mode would double the duplicates. Tracing merges them.
    x = jax.eval_shape(draw, data, state.step)[0][operators[0][0]]
    point = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    residuals_at_a_point = {name: residual_of(apply, operator) for name, operator in operators}
    graphs = residual_graphs(residuals_at_a_point, state.params, point)

    def residuals(params, points, targets):
        # line searches may pass other types, where they compute in double precision
        leaves = jax.tree.leaves(in_precision_of(state.params, params))

        def at(graph, x, target):
            return at_points(graph.at_point, leaves, x).reshape(target.shape) - target

        return {name: at(graph, points[name], targets[name]) for name, graph in graphs.items()}

    return residuals
