"""A training run in its own process, for ``test_checkpoints.py`` to kill."""

import jax
import optax

import pinnntk_lib as pn
from pinnntk_lib.training import Checkpoints

STEPS, LOG_EVERY, CHECKPOINT_EVERY = 20_000, 10, 40


def train(directory=None, note=lambda params: {}, **options):
    problem = pn.problems.Poisson1D(a=4)
    model = pn.MLP(width=10)
    sampler = pn.RandomPoints(problem, 8)
    if directory is not None:
        checkpoints = directory / "checkpoints"
        options = {"checkpoints": checkpoints, "checkpoint_every": CHECKPOINT_EVERY}
        options |= {"resume": checkpoints} if Checkpoints(checkpoints).steps else {}
    return pn.train(
        model.apply,
        model.init(jax.random.key(0)),
        problem,
        sampler,
        optax.adam(1e-3),
        STEPS,
        pn.NTKWeights(every=30),
        key=jax.random.key(1),
        log_every=LOG_EVERY,
        snapshots=(20, 1000),
        measure=note,
        progress=False,
        **options,
    )


def run(directory):
    """Train, resuming from any checkpoints in ``directory``.

    Each new history row adds a line to ``directory/rows``.
    """
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", str(directory / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    with (directory / "rows").open("a") as rows:

        def note(params):
            rows.write(".\n")
            rows.flush()
            return {}

        train(directory, note)
