"""The paper's experiments, by name, with the paper's settings."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from pinnntk_lib._check import check_params
from pinnntk_lib._types import Params
from pinnntk_lib.models import MLP, normalization
from pinnntk_lib.problems import Poisson1D, Problem, RandomPoints, Wave1D
from pinnntk_lib.training import NTKWeights, Result, train


@dataclass(frozen=True)
class Setting:
    """Everything that a training run depends on, except its seed.

    Attributes:
        problem: the equation and its conditions.
        model: the network.
        points: training points, ``{name: (n, d) array}``, or a sampler ``key -> points``.
        optimizer: an optax optimiser.
        steps: number of the last step.
        weights: weights of the loss components, as in :func:`~pinnntk_lib.training.train`.
        start: initialisation, ``(model, key) -> params``.
        kernel_points: points at which the kernel is computed, ``{name: (n, d) array}``.
        snapshots: steps at which the parameters and the kernel are kept.
        checkpoint_every: steps between checkpoints.
        test_points: points (m, d) for the error in the history.
        final_points: points (m, d) for the error in the record.
        track_changes: whether the history records the relative changes of the parameters and the kernel since step 0.
    """

    problem: Problem
    model: MLP
    points: Mapping[str, jax.Array] | Callable
    optimizer: optax.GradientTransformation
    steps: int
    weights: Any
    start: Callable
    kernel_points: Mapping[str, jax.Array]
    snapshots: tuple[int, ...]
    checkpoint_every: int
    test_points: jax.Array
    final_points: jax.Array
    track_changes: bool

    def train(self, params: Params, key: jax.Array | None = None, steps: int | None = None, **options: Any) -> Result:
        """Call :func:`~pinnntk_lib.training.train` with this setting.

        Args:
            params: initial parameters.
            key: random key of the batches; needed if ``points`` is a sampler.
            steps: number of the last step; the setting's if None.
            options: further keyword arguments of :func:`~pinnntk_lib.training.train`, except those that the setting
                fixes.
        """
        return train(
            self.model.apply,
            params,
            self.problem,
            self.points,
            self.optimizer,
            self.steps if steps is None else steps,
            self.weights,
            key=key,
            test_points=self.test_points,
            **options,
        )


@dataclass(frozen=True)
class Experiment:
    """A named experiment.

    Attributes:
        summary: one-line description.
        float64: whether ``python -m pinnntk_lib run`` uses double precision.
        setting: function that creates the :class:`Setting`, in JAX's precision at the time of the call.
    """

    summary: str
    float64: bool
    setting: Callable[[], Setting]


def notebook_start(model: MLP, key: jax.Array) -> list[dict[str, jax.Array]]:
    """Initialise a network as in the public notebooks: weights from N(0, 1/fan-in), biases from N(0, 1).

    Args:
        model: a network in standard parameterisation, of which only the sizes are used.
        key: random key.
    """
    drawn = MLP(model.width, model.depth, model.dim).init(key)  # all N(0, 1)
    return [{"W": layer["W"] / math.sqrt(layer["W"].shape[1]), "b": layer["b"]} for layer in drawn]


def relative_change(now: Params, start: Params) -> jax.Array:
    """Compute ``||now - start|| / ||start||`` for two pytrees of parameters, in the norm over all leaves.

    Raises:
        ValueError, TypeError: if one is not a pytree of floating-point arrays, or their structures or shapes differ.
    """
    check_params(now, "now")
    check_params(start, "start")
    shapes = [(jax.tree.structure(tree), [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (now, start)]
    if shapes[0] != shapes[1]:
        raise ValueError("now, start: expected pytrees of the same structure, with leaves of the same shapes")
    now, start = ravel_pytree(now)[0], ravel_pytree(start)[0]
    return jnp.linalg.norm(now - start) / jnp.linalg.norm(start)


def start_of(setting: Setting, seed: int) -> tuple[Params, jax.Array]:
    """Return the initial parameters and the random key of the batches for a seed."""
    key = jax.random.key(seed)
    return setting.start(setting.model, key), jax.random.fold_in(key, 1)


def _poisson(a=4.0, width=100, steps=40_000, weights=None, notebook=False):
    """Return the setting of section 7.1: gradient descent at 1e-5 on all points, 100 per condition."""
    problem = Poisson1D(a)
    points = problem.points(100)
    model = MLP(width, parameterization="standard" if notebook else "ntk", **normalization(points["r"]))
    return Setting(
        problem=problem,
        model=model,
        points=points,
        optimizer=optax.sgd(1e-5),
        steps=steps,
        weights=weights,
        start=notebook_start if notebook else MLP.init,
        kernel_points=points,
        snapshots=(0, 100, 1_000, 10_000, 40_000),
        checkpoint_every=5_000,
        test_points=problem.grid(1000),
        final_points=problem.grid(1000),
        track_changes=True,
    )


def _wave(weights=None):
    """Return the setting of section 7.2: Adam on fresh batches of 300 values, 100 velocities and 300 residuals."""
    problem = Wave1D()
    # The exact mean and standard deviation of uniform points; the paper estimates them from a sample.
    model = MLP(500, depth=3, dim=2, parameterization="standard", shift=0.5, scale=1 / math.sqrt(12))
    return Setting(
        problem=problem,
        model=model,
        points=RandomPoints(problem, {"u": 300, "ut": 100, "r": 300}),
        optimizer=optax.adam(optax.exponential_decay(1e-3, transition_steps=1_000, decay_rate=0.9)),
        steps=80_000,
        weights=weights,
        start=MLP.init,
        kernel_points=problem.points(300),
        # 100 and 400 as well: the public notebook's spectra for 10,000 and 40,000 are in fact from these steps
        snapshots=(0, 100, 400, 1_000, 10_000, 40_000, 80_000),
        checkpoint_every=1_000,
        test_points=problem.grid(50),
        final_points=problem.grid(200),
        track_changes=False,
    )


EXPERIMENTS: dict[str, Experiment] = {
    **{
        f"poisson1d-a{a}": Experiment(
            f"Poisson, a = {a}, width 100, equal weights, 40,000 steps; the spectra of K, K_uu and K_rr",
            True,
            partial(_poisson, a=a),
        )
        for a in (1, 2, 4)
    },
    "poisson1d-adaptive": Experiment(
        "Poisson, a = 4, width 100, Algorithm 1 every 100 steps, 40,000 steps",
        True,
        partial(_poisson, weights=NTKWeights(every=100)),
    ),
    **{
        f"poisson1d-width{width}": Experiment(
            f"Poisson, a = 4, width {width}, 10,000 steps: how far parameters and K move",
            True,
            partial(_poisson, width=width, steps=10_000),
        )
        for width in (10, 100, 500)
    },
    "poisson1d-notebook": Experiment(
        "Poisson, a = 4, width 512, as the public notebook: weights N(0, 1/fan-in), no 1/sqrt(N)",
        True,
        partial(_poisson, width=512, notebook=True),
    ),
    "wave1d-plain": Experiment(
        "Wave equation, 3 x 500, Adam, equal weights, 80,000 steps (an hour or two)", False, _wave
    ),
    "wave1d-adaptive": Experiment(
        "Wave equation, 3 x 500, Adam, Algorithm 1 every 100 steps, 80,000 steps (an hour or two)",
        False,
        partial(_wave, weights=NTKWeights(every=100)),
    ),
}
