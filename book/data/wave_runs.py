"""Condenses full runs of the wave experiment into the small files that the book shows.

    python -m pinnntk_lib run wave1d-adaptive --seed 0 --out runs/wave1d-adaptive-seed0     (half an hour each)
    python book/data/wave_runs.py runs/wave1d-*

writes ``wave1d-NAME-seedN.npz`` beside this file for each directory: the history, the eigenvalues of K and of its
blocks at the snapshots, the final field on a grid, and the run's own record as JSON in ``record``.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

import pinnntk_lib as pn
from pinnntk_lib import experiments

jax.config.update("jax_enable_x64", True)

GRID = 101  # points per side, for the field


def main(directories):
    for directory in directories:
        run = experiments.load(directory)
        record = run.record
        setting = experiments.EXPERIMENTS[record["experiment"]].setting()
        if record["step"] != setting.steps:
            sys.exit(
                f"{directory}: the run has reached step {record['step']} of {setting.steps}"
            )
        sizes = tuple(
            (name, len(x)) for name, x in setting.kernel_points.items()
        )
        spectra = {}
        for step, matrix in run.kernels.items():
            K = pn.NTK(np.float64(matrix), sizes)
            at = f"spectrum/{step}"
            spectra[f"{at}/K"] = K.eigvalsh()
            for name in K.names:
                spectra[f"{at}/K_{name}"] = K.eigvalsh(name)
        u = jax.vmap(setting.model.apply, (None, 0))(
            run.params[record["step"]], setting.problem.grid(GRID)
        )
        contents = (
            experiments.flatten(run.history)
            | spectra
            | {"field": np.asarray(u).reshape(GRID, GRID)}
        )
        contents = {
            name: np.float32(values) for name, values in contents.items()
        }
        file = Path(__file__).with_name(
            f"{record['experiment']}-seed{record['seed']}.npz"
        )
        np.savez_compressed(file, record=json.dumps(record), **contents)
        print(
            f"{file.name}: {file.stat().st_size / 1e3:.0f} kB, error {record['error']:.3g}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
