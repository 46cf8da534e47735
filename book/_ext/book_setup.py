"""What the book's build needs and Jupyter Book does not do."""

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn


def versions(root: Path) -> list[str]:
    """The locked versions of what the library runs on; those of tools change no output."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    names = [
        re.match(r"[\w-]+", requirement)[0]
        for requirement in project["project"]["dependencies"]
    ]
    locked = (root / "requirements.lock").read_text("utf-8")
    return re.findall(rf"^(?:{'|'.join(names)})==\S+", locked, re.MULTILINE)


@cache
def code_of(text: str) -> str:
    """Python without docstrings, comments and empty lines, which change no output."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    with_docstring = ast.Module | ast.ClassDef | ast.FunctionDef
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, with_docstring) and ast.get_docstring(node):
            docstring = node.body[0]
            span = range(docstring.lineno - 1, docstring.end_lineno)
            lines = [
                "" if i in span else line for i, line in enumerate(lines)
            ]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def digest(root: Path, records: Iterable[str]) -> str:
    """A digest of what outputs depend on besides a notebook: the library, what it runs on, and the recorded runs that
    match one of the patterns."""
    content = sha256("\0".join(versions(root)).encode())
    for file in sorted(root.glob("pinnntk_lib/**/*.*")):
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
    """A digest of all that a notebook's outputs depend on: its code, and the above, of the recorded runs those that
    the code names, as "data/..." with or without wildcards. `execute.py` stores it."""
    code = "\0".join(
        cell.source for cell in notebook.cells if cell.cell_type == "code"
    )
    others = digest(root, re.findall(r"\bdata/[\w.*-]+", code))
    return sha256(f"{others}\0{code}".encode()).hexdigest()[:16]


def place_cache(app, config):
    """The cache of executed notebooks is reused while their code is unchanged, whatever it imports: so its place
    carries the digest. Notebooks whose stored outputs are those of their present code, library and data are put
    into it as they are, and need no execution."""
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
    """Live code by Thebe is not used, and its script is put on each page twice, which is an error in the console."""
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
