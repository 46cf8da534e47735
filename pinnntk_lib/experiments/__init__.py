"""The paper's experiments, named, with the paper's settings: ``python -m pinnntk_lib list``.

A run leaves a directory that says all about it: ``record.json`` (command, seed, versions, machine, time, results),
``history.npz``, ``params.npz`` (at the snapshots and at the end), ``kernels.npz`` (at the same steps) and, while it
may still be resumed, ``checkpoints``. :func:`load` reads it back.
"""

from pinnntk_lib.experiments._paper import (
    EXPERIMENTS,
    Experiment,
    Setting,
    notebook_start,
    relative_change,
    start_of,
)
from pinnntk_lib.experiments._records import flatten, load_record, machine, provenance, unflatten, versions
from pinnntk_lib.experiments._runs import Run, load, run

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Run",
    "Setting",
    "flatten",
    "load",
    "load_record",
    "machine",
    "notebook_start",
    "provenance",
    "relative_change",
    "run",
    "start_of",
    "unflatten",
    "versions",
]
