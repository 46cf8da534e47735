"""With several test processes (``-n``), each process and the notebooks it starts get one core, where the system allows
it, and the longest notebooks run first. Fast tests are compiled without XLA's optimisations."""

import gc
import json
import os
import sys
from pathlib import Path

EXECUTIONS = Path(__file__).parent / "book" / "data" / "executions.json"


def pytest_configure(config):
    gc.set_threshold(100_000, 20, 100)  # tracing makes so many objects that Python would look for garbage all the time
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        # Otherwise every process has as many threads as there are cores, and they wait for each other.
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


def pytest_collection_modifyitems(items):
    """Start the longest notebooks first: each runs in a single process, and one started late would finish alone."""
    seconds = {name: made["seconds"] for name, made in json.loads(EXECUTIONS.read_text()).items()}
    items.sort(key=lambda item: -seconds.get(item.path.stem, 0))


def pytest_runtest_setup(item):
    """Leave out XLA's optimisations in fast tests, which spend more time compiling than computing."""
    if jax := sys.modules.get("jax"):  # which tests of notebooks and pages do without
        jax.config.update("jax_disable_most_optimizations", item.get_closest_marker("slow") is None)
