"""Steps of the book's build that Jupyter Book lacks."""

import ast
import re
import tomllib
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

# the library's files; beside them lie Python's caches and the files of editors
KINDS = (".py", ".mplstyle", ".typed")


def versions(root: Path) -> list[str]:
    """Return the locked versions of the library's dependencies; the versions of tools change no output."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    names = [
        re.match(r"[\w-]+", requirement)[0]
        for requirement in project["project"]["dependencies"]
    ]
    locked = (root / "requirements.lock").read_text("utf-8")
    return re.findall(rf"^(?:{'|'.join(names)})==\S+", locked, re.MULTILINE)


@cache
def code_of(text: str) -> str:
    """Return Python code without what changes no output: docstrings, comments, empty lines and line breaks."""
    tree = ast.parse(text)
    with_docstring = ast.Module | ast.ClassDef | ast.FunctionDef
    for node in ast.walk(tree):
        if isinstance(node, with_docstring) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def digest(root: Path, records: Iterable[str]) -> str:
    """Return a digest of what outputs depend on besides the notebook.

    This is the library, the versions of its dependencies, and the recorded runs that match one of the patterns.
    """
    content = sha256("\0".join(versions(root)).encode())
    files = (p for p in root.glob("pinnntk_lib/**/*.*") if p.suffix in KINDS)
    for file in sorted(files):
        text = file.read_text("utf-8")
        code = code_of(text) if file.suffix == ".py" else text
        place = file.relative_to(root).as_posix()
        content.update(f"{place}\0{code}\0".encode())
    recorded = {
        file for pattern in records for file in root.glob(f"book/{pattern}")
    }
    for file in sorted(recorded):
        content.update(file.name.encode() + b"\0" + file.read_bytes())
    return content.hexdigest()[:16]


def made_by(root: Path, notebook) -> str:
    """Return a digest of all that a notebook's outputs depend on, which `execute.py` stores in the notebook.

    This is the notebook's code, and `digest` with the recorded runs that the code names as "data/...", with or
    without wildcards.
    """
    code = "\0".join(
        cell.source for cell in notebook.cells if cell.cell_type == "code"
    )
    others = digest(root, re.findall(r"\bdata/[\w.*-]+", code))
    return sha256(f"{others}\0{code}".encode()).hexdigest()[:16]


def place_cache(app, config):
    """Set the folder for the cache of executed notebooks, and add the notebooks with up-to-date outputs to it.

    Jupyter Book reuses a cached notebook while its code is unchanged, whatever the code imports; therefore the
    folder's name contains the digest. A notebook whose stored outputs were made by its present code, library and data
    is added as it is and not executed.
    """
    root = Path(app.srcdir)
    everything = digest(root, ["data/*.json", "data/*.npz"])
    place = str(Path(app.outdir).parent / ".jupyter_cache" / everything)
    config.nb_execution_cache_path = place
    cache = get_cache(place)
    for path in sorted(root.glob("book/*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if notebook.metadata.get("made_by") == made_by(root, notebook):
            bundle = CacheBundleIn(notebook, str(path))
            cache.cache_notebook_bundle(bundle, overwrite=True)


def drop_thebe(app, page, template, context, doctree):
    """Drop Thebe's script: the book has no live code, and loading it twice, as each page would, is a console error."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "THEBE_JS_URL" not in script.attributes.get("body", "")
        and "sphinx-thebe" not in str(script.filename)
    ]


def setup(app):
    app.connect("config-inited", place_cache)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True}
