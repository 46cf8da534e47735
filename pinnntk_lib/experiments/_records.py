"""Records of runs: their provenance, and how they are written and read."""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
from numpy.lib.npyio import NpzFile

from pinnntk_lib._text import wrapped
from pinnntk_lib.version import __version__

PHONE = 44  # characters in a line


def provenance(command: str) -> dict[str, Any]:
    """Return the provenance of a record: command, date, versions, machine and precision."""
    return {
        "command": command,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "versions": versions(),
        "machine": machine(),
        "precision": jnp.zeros(()).dtype.name,
    }


def origin(record: Mapping[str, Any]) -> str:
    """Return how a record was made, in lines that fit on a phone.

    Args:
        record: what :func:`provenance` returned, with ``"seed"`` and ``"minutes"`` if they are known.

    Example:
        >>> made = {"command": "python runs.py", "date": "2026-11-30", "minutes": 12, "precision": "float64"}
        >>> print(origin(made | {"versions": {"jax": "0.10.2"}, "machine": {"cpu": "Xeon", "cores": 2}}))
        python runs.py
        2026-11-30, 12 minutes, float64
        Xeon, 2 cores
        jax 0.10.2
    """
    seed = [f"seed {record['seed']}"] if "seed" in record else []
    minutes = [f"{record['minutes']:.3g} minutes"] if "minutes" in record else []
    precision = [record[name] for name in ("precision", "dtype") if name in record]
    machine = f"{record['machine']['cpu']}, {record['machine']['cores']} cores"
    packages = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    parts = record["command"], ", ".join([record["date"], *seed, *minutes, *precision]), machine, packages
    return "\n".join(line for part in parts for line in wrapped(part, "  ", PHONE))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    packages = (jax, jaxlib, optax, np)
    found = {package.__name__: package.__version__ for package in packages}
    return {"python": platform.python_version()} | found | {"pinnntk_lib": __version__}


def machine() -> dict[str, Any]:
    """Describe this machine: the processor's name, the number of cores, the system and JAX's device."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": jax.devices()[0].device_kind,
    }


def load_record(file: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a run condensed into one ``.npz`` file, as in the book's ``data`` folder.

    Returns:
        Two dictionaries. The first is the run's ``record.json``; the second holds the file's arrays, which are the
        history's columns and any that were added to them.
    """
    with np.load(file) as contents:
        arrays = unflatten(contents)
    return json.loads(str(arrays.pop("record"))), arrays


def replace_file(path, write):
    partial_file = path.with_name(f".{path.name}.partial")
    with open(partial_file, "wb") as file:
        write(file)
    partial_file.replace(path)


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a history's nested dicts into one, with keys joined by ``/``, so that an ``.npz`` file can hold it."""
    return {
        f"{name}/{inner}" if inner else name: values
        for name, column in tree.items()
        for inner, values in (column.items() if isinstance(column, dict) else [("", column)])
    }


def unflatten(arrays: NpzFile) -> dict[str, Any]:
    """Invert :func:`flatten`, reading from an open ``.npz`` file."""
    columns: dict[str, Any] = {}
    for name in arrays.files:
        outer, _, inner = name.partition("/")
        if inner:
            columns.setdefault(outer, {})[inner] = arrays[name]
        else:
            columns[outer] = arrays[name]
    return columns
