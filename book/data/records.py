"""Lists the recorded runs and makes them again: ``make records``, ``make records NAMES="scale.json ..."``.

    python book/data/records.py              lists the records: whether each is still what its program made, and the cost
    python book/data/records.py NAME ...     makes these again, and notes their checksums
    python book/data/records.py all          makes all of them again
    python book/data/records.py --note NAME  notes the checksum of a record that was made in another way

A record is *as made* if its file and the program that made it are unchanged since. The program is its script, with the
modules beside it that it imports, without comments, docstrings and line breaks. Whether the library has changed what
a run computes is for the tests to say: they make the first steps of the runs again.
"""

import ast
import json
import shlex
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "book" / "data"
CHECKSUMS = DATA / "checksums.json"
BENCHMARKS = "python tests/benchmarks"
WORKERS = tuple(
    f"tests/benchmarks/{name}.py"
    for name in ("worker", "with_library", "with_jax")
)
PEERS = (
    "taskset -c 0 .venv-optimisers/bin/python tests/benchmarks/optimisers.py"
)
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from book_setup import code_of  # noqa: E402 -- its folder is not a package


class Record(NamedTuple):
    """How a record is made: the command, about how many minutes it takes on two cores, and what it needs.

    ``also`` names further programs that it runs.
    """

    command: str
    minutes: float
    needs: str = ""
    also: tuple[str, ...] = ()


RECORDS = {
    "benchmarks.json": Record(
        f"{BENCHMARKS}/run.py benchmarks --out book/data",
        90,
        "make others",
        WORKERS,
    ),
    "blind-test.json": Record("python book/data/blind_test.py", 10),
    "compile-time.json": Record(
        f"{BENCHMARKS}/run.py compile-time --out book/data", 10, "", WORKERS
    ),
    "damping.json": Record(
        f"taskset -c 0 {BENCHMARKS}/damping.py klein-gordon advection wave --rules nielsen line curve loss-bold "
        "level level-bold --seeds 3 --seconds 12 --out book/data/damping.json",
        20,
    ),
    "deepxde-weights.json": Record(
        ".venv-others/bin/python book/data/deepxde_weights.py",
        7,
        "make others",
    ),
    "descent-peers.json": Record(
        f"{PEERS} --out book/data/descent-peers.json", 120, "make others"
    ),
    "descent-settings.json": Record(
        f"{PEERS} klein-gordon poisson-5d burgers-0.01 --settings --out book/data/descent-settings.json",
        25,
        "make others",
    ),
    "devices.json": Record(
        f"{BENCHMARKS}/devices.py --devices 1 2 --out book/data/devices.json",
        5,
    ),
    "gpu.json": Record(
        f"{BENCHMARKS}/gpu.py --out book/data/gpu.json", 8, "a GPU"
    ),
    "laplacian.json": Record(
        f"{BENCHMARKS}/run.py laplacian --out book/data",
        10,
        "make others",
        WORKERS,
    ),
    "many-points.json": Record(
        f"{BENCHMARKS}/run.py many-points --out book/data", 2, "", WORKERS
    ),
    "other-libraries.json": Record(
        ".venv-others/bin/python book/data/other_libraries.py",
        2,
        "make others",
    ),
    "poisson-seeds.json": Record(
        "python book/data/poisson_seeds.py 100", 18
    ),
    "problems.json": Record("python book/data/problems.py", 24),
    "reproduction.json": Record("python book/data/reproduction.py 10", 25),
    "scale.json": Record(
        f"{BENCHMARKS}/scale.py --out book/data/scale.json", 3
    ),
    "schedules.json": Record("python book/data/schedules.py", 30),
    "training-speed.json": Record(
        f"{BENCHMARKS}/run.py training-speed --out book/data",
        10,
        "make others",
        WORKERS,
    ),
    "weighting-schemes.json": Record(
        "python book/data/weighting_schemes.py 3", 10
    ),
    **{
        f"wave1d-{name}-seed{seed}.npz": Record(
            f"python -m pinnntk_lib run wave1d-{name} --seed {seed} --out runs/wave1d-{name}-seed{seed} && "
            f"python book/data/wave_runs.py runs/wave1d-{name}-seed{seed}",
            50,
        )
        for name in ("adaptive", "plain")
        for seed in range(3)
    },
}


def program(record: Record) -> str:
    """Return a digest of the script that a record's command runs last, and of the modules beside it."""
    script = next(
        part
        for part in reversed(shlex.split(record.command))
        if part.endswith(".py")
    )
    files, found = [ROOT / path for path in (script, *record.also)], []
    while files:
        file = files.pop()
        found.append(file)
        tree = ast.parse(file.read_text("utf-8"))
        imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import)]
        froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        names = {alias.name for node in imports for alias in node.names}
        names |= {node.module for node in froms if node.module}
        near = (file.with_name(f"{name}.py") for name in sorted(names))
        files += [
            path
            for path in near
            if path.exists() and path not in found + files
        ]
    code = "\0".join(code_of(f.read_text("utf-8")) for f in sorted(found))
    return sha256(code.encode()).hexdigest()[:16]


def checksum(name: str) -> str:
    return sha256((DATA / name).read_bytes()).hexdigest()[:16]


def noted() -> dict[str, dict[str, str]]:
    return json.loads(CHECKSUMS.read_text("utf-8"))


def note(name: str):
    """Write down what a record and its program are now."""
    entry = {"record": checksum(name), "program": program(RECORDS[name])}
    entries = dict(sorted({**noted(), name: entry}.items()))
    CHECKSUMS.write_text(json.dumps(entries, indent=1) + "\n", "utf-8")


def state(name: str) -> str:
    """Return in words whether a record is still what its program made."""
    entry = noted().get(name)
    if entry is None:
        return "not noted"
    if entry["record"] != checksum(name):
        return "changed by hand"
    if entry["program"] != program(RECORDS[name]):
        return "its program has changed"
    return "as made"


def make(name: str):
    """Run the command of a record from the project's folder, and note its checksum."""
    command = RECORDS[name].command
    words = shlex.split(command, posix=False)
    command = " ".join(
        shlex.quote(sys.executable) if word == "python" else word
        for word in words
    )
    print(command, flush=True)
    started = time.time()
    subprocess.run(command, shell=True, check=True, cwd=ROOT)
    if (DATA / name).stat().st_mtime < started - 1:
        sys.exit(f"{name}: the command did not write it")
    note(name)


def main(arguments: list[str]):
    names = [name for name in arguments if name != "--note"]
    names = list(RECORDS) if names == ["all"] else names
    if "--note" in arguments and not names:
        sys.exit(
            "NAME: expected the name of a record after --note, got none"
        )
    for name in names:
        if name not in RECORDS:
            sys.exit(f"NAME: expected one of {[*RECORDS]}, got {name!r}")
        (note if "--note" in arguments else make)(name)
    if not arguments:
        for name, record in sorted(RECORDS.items()):
            needs = f", needs {record.needs}" if record.needs else ""
            cost = f"about {record.minutes} minutes{needs}"
            print(f"{name:28} {state(name):26} {cost}")


if __name__ == "__main__":
    main(sys.argv[1:])
