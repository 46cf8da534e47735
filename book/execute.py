"""Executes notebooks and stores their outputs in place, without what differs from run to run for no reason.

python book/execute.py book/*.ipynb
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main(paths):
    for path in map(Path, paths):
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(
            notebook,
            timeout=900,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": path.parent}},
        ).execute()
        # The kernel writes its own version here.
        notebook.metadata.language_info = {"name": "python"}
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
