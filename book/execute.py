"""Executes notebooks and stores their outputs in place, without what differs from run to run for no reason.

python book/execute.py book/*.ipynb
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

BOOK = Path(__file__).parent
sys.path.insert(0, str(BOOK / "_ext"))

from book_setup import made_by  # noqa: E402 -- its folder is no package


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
        notebook.metadata.made_by = made_by(BOOK.parent, notebook)
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
