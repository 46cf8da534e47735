"""The directives `executions` and `recorded-runs`, which tabulate the notebooks' executions and the longer runs.

The tables show when, where, for how long and with which versions; they come from the records themselves.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from sphinx.util.docutils import SphinxDirective

from pinnntk_lib import experiments

LIBRARIES = ("python", "jax", "optax", "numpy")


def load(path: Path) -> dict:
    if path.suffix == ".npz":
        return experiments.load_record(path)[0]
    return json.loads(path.read_text("utf-8"))


def on(record: dict) -> str:
    """Return the machine and the versions."""
    machine, known = record["machine"], record["versions"]
    if not isinstance(machine, str):
        machine = f"{machine['cpu']}, {machine['cores']} cores"
    versions = [
        f"{name} {known[name]}" for name in LIBRARIES if name in known
    ]
    return "; ".join([machine, *versions])


def lasted(record: dict) -> str:
    """Return how long it took, or "not noted" if the record does not say."""
    if "sessions" in record:
        seconds = sum(session["seconds"] for session in record["sessions"])
    elif "minutes" in record:
        seconds = 60 * record["minutes"]
    else:
        seconds = record.get("seconds")
    if seconds is None:
        return "not noted"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def executions(book: Path) -> Iterator[tuple[str, ...]]:
    yield "Page", "Executed", "Took", "On"
    for name, record in load(book / "data/executions.json").items():
        notebook = nbformat.read(book / f"{name}.ipynb", as_version=4)
        title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
        link = f"[{title}]({name}.ipynb)"
        yield link, record["date"], lasted(record), on(record)


def recorded_runs(book: Path) -> Iterator[tuple[str, ...]]:
    sys.path.insert(0, str(book / "data"))
    from records import state  # its folder is not a package

    yield "Made by", "When", "Took", "On", "Now"
    files = [*book.glob("data/*.json"), *book.glob("data/*.npz")]
    for path in sorted(files):
        record = load(path)
        if "command" in record:
            command = f"`{record['command']}`"
            made = record["date"], lasted(record), on(record)
            yield command, *made, state(path.name)


class Table(SphinxDirective):
    rows = None

    def run(self):
        header, *rows = self.rows(Path(self.env.srcdir) / "book")
        rule = ["---"] * len(header)
        lines = [
            "| " + " | ".join(row) + " |" for row in (header, rule, *rows)
        ]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app):
    for name, rows in (
        ("executions", executions),
        ("recorded-runs", recorded_runs),
    ):
        directive = type(name, (Table,), {"rows": staticmethod(rows)})
        app.add_directive(name, directive)
    return {"parallel_read_safe": True}
