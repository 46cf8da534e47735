"""Adds the address of the published repository to the book.

No file contains the address: whoever publishes the book sets it in the environment variable REPOSITORY. Chapters then
have a button that opens them on Colab, and their first cell knows where to fetch the library.

REPOSITORY=https://github.com/me/my-fork python book/_ext/colab.py book/*.ipynb    (in a copy: it changes them in place)
"""

import os
import re
import sys
from pathlib import Path

# Deployment fills in the address on this branch. Its library, notebooks and recorded runs are of the same version.
BRANCH = "colab"
PLACEHOLDER = "https://github.com/OWNER/REPOSITORY"
FIRST_CELL = f"""\
# Where the library is missing, as on Colab, fetch it with the recorded runs.
import importlib.util
import os

if importlib.util.find_spec("pinnntk_lib") is None:
    address = "{PLACEHOLDER}"
    !git clone -q --depth 1 -b {BRANCH} {{address}} pinnntk
    %pip install -q ./pinnntk
if os.path.isdir("pinnntk/book"):
    os.chdir("pinnntk/book")"""


def repository() -> str | None:
    """Return the address, or None if none is set.

    Raises:
        ValueError: if it is not the address of a repository on GitHub, the only host whose notebooks Colab opens.
    """
    address = os.environ.get("REPOSITORY", "").rstrip("/")
    if not address:
        return None
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise ValueError(
            "REPOSITORY: expected an address like https://github.com/me/my-fork, "
            f"got {address!r}"
        )
    return address


def fill(path: Path, address: str):
    """Write the address into a file, and into the links of the README, which PyPI shows apart from the other files."""
    text = path.read_text("utf-8").replace(PLACEHOLDER, address)
    if path.suffix == ".md":
        text = re.sub(
            r"(!\[[^]]*\]\()(?!\w+:)", rf"\1{address}/raw/HEAD/", text
        )
        text = re.sub(r"(?<=\]\()(?!\w+:)", f"{address}/blob/HEAD/", text)
    path.write_text(text, "utf-8")


def add_button(app, config):
    if address := repository():
        config.html_theme_options |= {
            "repository_url": address,
            "repository_branch": BRANCH,
            "launch_buttons": {
                "colab_url": "https://colab.research.google.com"
            },
        }


def fill_downloads(app, exception):
    if not exception and (address := repository()):
        for path in Path(app.outdir).glob("_sources/**/*.ipynb"):
            fill(path, address)


def setup(app):
    app.connect("config-inited", add_button)
    app.connect("build-finished", fill_downloads)
    return {"parallel_read_safe": True}


if __name__ == "__main__":
    address = repository()
    if address is None:
        sys.exit("REPOSITORY: expected the repository's address, got none")
    for name in sys.argv[1:]:
        fill(Path(name), address)
