"""Lets the cache of executed notebooks see a change of the library.

The cache is reused while a notebook's code is unchanged, whatever it imports. So its place carries a digest of
``pinnntk_lib``, of the recorded runs, and of the versions it all runs on.
"""

from hashlib import sha256
from pathlib import Path


def digest(root: Path) -> str:
    """A digest of what a notebook's outputs depend on besides itself."""
    files = [*sorted((root / "pinnntk_lib").glob("*.*")), *sorted((root / "book/data").glob("*.json"))]
    content = sha256()
    for file in [*files, root / "requirements.lock"]:
        content.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return content.hexdigest()[:16]


def place_cache(app, config):
    config.nb_execution_cache_path = str(Path(app.outdir).parent / ".jupyter_cache" / digest(Path(app.srcdir)))


def setup(app):
    app.connect("config-inited", place_cache)
    return {"parallel_read_safe": True}
