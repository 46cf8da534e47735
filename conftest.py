"""Tests in several processes (``-n``) and the notebooks they start: a core for each of them, where the system can, and
what takes longest first."""

import json
import os
from pathlib import Path

EXECUTIONS = Path(__file__).parent / "book" / "data" / "executions.json"


def pytest_configure(config):
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        # Else every process has as many threads as there are cores, and they wait for each other.
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


def pytest_collection_modifyitems(items):
    """Notebooks, each of which stays in one process: else one is left alone with the last of them."""
    seconds = {name: made["seconds"] for name, made in json.loads(EXECUTIONS.read_text()).items()}
    items.sort(key=lambda item: -seconds.get(item.path.stem, 0))
