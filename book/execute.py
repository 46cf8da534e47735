"""Executes notebooks and stores their outputs in place, without what differs from run to run for no reason; when, on
what and how long goes to data/executions.json, for the page that says so.

python book/execute.py book/*.ipynb
"""

import json
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from pinnntk_lib import experiments

BOOK = Path(__file__).parent
RECORD = BOOK / "data" / "executions.json"
sys.path.insert(0, str(BOOK / "_ext"))

from book_setup import made_by  # noqa: E402 -- its folder is no package


def main(paths):
    for path in map(Path, paths):
        notebook = nbformat.read(path, as_version=4)
        started = time.perf_counter()
        NotebookClient(
            notebook,
            timeout=900,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": path.parent}},
        ).execute()
        # The kernel writes its own version here.
        notebook.metadata.language_info = {"name": "python"}
        notebook.metadata.made_by = made_by(BOOK.parent, notebook)
        nbformat.write(notebook, path)
        record(path.stem, time.perf_counter() - started)
        print(path)


def record(name, seconds):
    executions = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    made = experiments.provenance(
        f"python book/execute.py book/{name}.ipynb"
    )
    del made["precision"]  # each notebook chooses its own
    executions[name] = made | {"seconds": round(seconds)}
    text = json.dumps(dict(sorted(executions.items())), indent=1)
    RECORD.write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
