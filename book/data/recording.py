"""Shared by the scripts beside this file: writes a record of runs over seeds as JSON."""

import json
import time
from pathlib import Path

from pinnntk_lib import experiments


def write(
    script: str,
    seeds: int,
    started: float,
    results: dict,
    arguments: str = "",
):
    """Write ``SCRIPT-NAME.json``, with hyphens for underscores: how the results were made, and the results.

    Args:
        script: the script's ``__file__``.
        seeds: number of seeds, from 0.
        started: ``time.perf_counter()`` at the start.
        results: the results to record.
        arguments: arguments after the script's name in the command.
    """
    script = Path(script)
    command = f"python book/data/{script.name} {arguments}".rstrip()
    record = experiments.provenance(command) | {
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "seeds": f"0 to {seeds - 1}",
    }
    file = script.with_name(f"{script.stem.replace('_', '-')}.json")
    file.write_text(json.dumps(record | results, indent=1) + "\n")
