"""Bundles the lab's modules and the library they use into one script; loads it, and the front page's, where needed.

A page opened from a file can load neither modules nor workers from other files.
"""

import json
import re
from pathlib import Path

VENDOR = Path("book/vendor")
LAB = Path("book/_static/lab")
TRAINING = (
    "activations",
    "network",
    "line",
    "problems",
    "random",
    "kernel",
    "descent",
    "session",
)
PAGE = (
    "problems",
    "settings",
    "python",
    "figures",
    "stage",
    "form",
    "lab",
    "live",
)
FAILED = Path("book/_static/landing/failed.json")
LICENCE = (
    "// With ml-matrix, under the MIT licence: see ../ml-matrix/LICENSE."
)


def plain(module: Path) -> str:
    """Return a module's text as part of a longer script, without imports and exports."""
    text = module.read_text("utf-8")
    text = re.sub(r"^import [^;]*;.*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE)


def modules(root: Path, *names: str) -> str:
    """Return several modules as part of a longer script."""
    return "\n".join(plain(root / LAB / f"{name}.mjs") for name in names)


def training(root: Path) -> str:
    """Return the modules that train, and the library they use. They need no browser."""
    library = (root / VENDOR / "ml-matrix/matrix.umd.js").read_text("utf-8")
    library = re.sub(r"^//# sourceMappingURL.*$", "", library, flags=re.M)
    names = "const { EigenvalueDecomposition } = globalThis.mlMatrix;"
    return "\n".join([library, names, modules(root, *TRAINING)])


def script(root: Path) -> str:
    """Return the script of the whole lab."""
    worker = training(root) + modules(root, "theatre", "worker")
    page = modules(root, *PAGE)
    failed = f"const FAILED = {(root / FAILED).read_text('utf-8')};"
    body = f"const WORKER = {json.dumps(worker)};\n{failed}\n{page}"
    return f'{LICENCE}\n(() => {{\n"use strict";\n{body}}})();\n'


def write(app, config):
    """Write the script to a folder that Sphinx copies, and exclude the modules."""
    made = Path(app.outdir).parent / "lab"
    (made / "lab").mkdir(parents=True, exist_ok=True)
    (made / "lab/lab.js").write_text(script(Path(app.srcdir)), "utf-8")
    config.html_static_path.append(str(made))
    config.exclude_patterns += [
        "lab/*.mjs",
        "ml-matrix/*.js",
        "landing/*.json",
    ]


def load(app, page, template, context, doctree):
    if "pn-lab" in context.get("body", ""):
        app.add_js_file("lab/lab.js", loading_method="defer")
        app.add_css_file("lab/lab.css")
    if "pn-story" in context.get("body", ""):
        app.add_js_file("landing/story.js", loading_method="defer")
        app.add_css_file("landing/story.css")


def setup(app):
    app.connect("config-inited", write)
    app.connect("html-page-context", load)
    return {"parallel_read_safe": True}
