"""Executes notebooks and stores their outputs in place, without needless differences from run to run.

The time, the machine, the versions and the duration go to data/executions.json, which a page of the book shows.

python book/execute.py book/*.ipynb
"""

import json
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from pinnntk_lib import experiments

BOOK = Path(__file__).resolve().parent
RECORD = BOOK / "data" / "executions.json"
WIDGETS = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
SVG = "image/svg+xml"
sys.path.insert(0, str(BOOK / "_ext"))

from book_setup import made_by  # noqa: E402 -- its folder is not a package
from figures import fitted  # noqa: E402


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
        # The kernel writes its Python version here.
        notebook.metadata.language_info = {"name": "python"}
        number_widgets(notebook)
        fit_figures(notebook)
        notebook.metadata.made_by = made_by(BOOK.parent, notebook)
        nbformat.write(notebook, path)
        record(path.stem, time.perf_counter() - started)
        print(path)


def number_widgets(notebook):
    """Rename the widgets to numbers, since their names change randomly from run to run.

    The order is that of a search from the displayed widgets; then come the links between them.
    """
    outputs = [
        output.get("data", {})
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    ]
    views = [data[VIEW] for data in outputs if VIEW in data]
    if not views:
        return
    widgets = notebook.metadata.widgets[WIDGETS]
    texts = {name: json.dumps(w) for name, w in widgets["state"].items()}
    numbers = {}

    def find(name):
        if name not in numbers:
            numbers[name] = f"{len(numbers):032x}"
            for part in re.findall(r"IPY_MODEL_(\w+)", texts[name]):
                find(part)

    def numbered(name):
        def number(match):
            return f"IPY_MODEL_{numbers.get(match[1])}"

        return re.sub(r"IPY_MODEL_(\w+)", number, texts[name])

    for view in views:
        find(view["model_id"])
        view["model_id"] = numbers[view["model_id"]]
    for link in sorted(set(texts) - set(numbers), key=numbered):
        find(link)
    widgets["state"] = {
        number: json.loads(numbered(name))
        for name, number in numbers.items()
    }


def fit_figures(notebook):
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if SVG in output.get("data", {}):
                output.data[SVG] = fitted(output.data[SVG])


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
