"""What the book's build needs and Jupyter Book does not do."""

from hashlib import sha256
from pathlib import Path


def digest(root: Path) -> str:
    """A digest of what a notebook's outputs depend on besides itself: the library, recorded runs, and versions."""
    files = [
        *sorted((root / "pinnntk_lib").glob("*.*")),
        *sorted((root / "book/data").glob("*.json")),
    ]
    content = sha256()
    for file in [*files, root / "requirements.lock"]:
        content.update(
            file.name.encode() + b"\0" + file.read_bytes() + b"\0"
        )
    return content.hexdigest()[:16]


def place_cache(app, config):
    """The cache of executed notebooks is reused while their code is unchanged, whatever it imports: so its place
    carries the digest."""
    config.nb_execution_cache_path = str(
        Path(app.outdir).parent / ".jupyter_cache" / digest(Path(app.srcdir))
    )


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
