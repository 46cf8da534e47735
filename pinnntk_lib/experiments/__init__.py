"""The paper's experiments, by name, with the paper's settings; ``python -m pinnntk_lib list`` lists them.

A run writes a directory that documents it: ``record.json`` (command, seed, versions, machine, time, results),
``history.npz``, ``params.npz`` (at the snapshots and at the end), ``kernels.npz`` (at the same steps) and
``checkpoints``, from which the run can be resumed. :func:`load` reads the directory back.
"""

from pinnntk_lib.experiments._paper import (
    EXPERIMENTS,
    Experiment,
    Setting,
    notebook_start,
    relative_change,
    start_of,
)
from pinnntk_lib.experiments._records import flatten, load_record, machine, origin, provenance, unflatten, versions
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
    "origin",
    "provenance",
    "relative_change",
    "run",
    "start_of",
    "unflatten",
    "versions",
]
