"""What the scripts beside this file share: a record of runs over seeds, as JSON beside them."""

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
    """Writes ``SCRIPT-NAME.json`` with hyphens for underscores: how the results were made, and the results.

    Args:
        script: the script's ``__file__``.
        seeds: how many, from 0.
        started: ``time.perf_counter()`` at the start.
        results: what is recorded.
        arguments: what the command has behind the script's name.
    """
    script = Path(script)
    command = f"python book/data/{script.name} {arguments}".rstrip()
    record = experiments.provenance(command) | {
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "seeds": f"0 to {seeds - 1}",
    }
    file = script.with_name(f"{script.stem.replace('_', '-')}.json")
    file.write_text(json.dumps(record | results, indent=1) + "\n")
