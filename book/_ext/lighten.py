"""Removes from the built site what no page uses: half of its size, and half of what the first page loads."""

import re
from pathlib import Path

import nbformat

# Source maps, translations of the theme's labels, fonts in a format that only old browsers need, and fonts of which no
# page shows a letter.
UNUSED = (
    "_static/**/*.map",
    "_static/locales/**/*",
    "_static/vendor/fontawesome/webfonts/*.ttf",
    "_static/vendor/fontawesome/webfonts/fa-brands*",
    "_static/vendor/fontawesome/webfonts/fa-regular*",
)
ICON_SCRIPT = "_static/scripts/fontawesome.js"
# `house: [width, height, [other names], "code point", "path"],`; two-coloured icons have two paths
ICON = re.compile(
    r'"?([\w-]+)"?:\[\d+,\d+,\[([^\]]*)\],"\w*",(?:"[^"]*"|\[[^\]]*\])\],?'
)


def used_icons(site: Path) -> set[str]:
    """Return the icons that the pages and the theme's other scripts name."""
    files = [*site.rglob("*.html"), *site.glob("_static/*.js")]
    files += [
        script
        for script in site.glob("_static/scripts/*.js")
        if script != site / ICON_SCRIPT
    ]
    found = (
        re.findall(r"\bfa-([a-z0-9-]+)", f.read_text("utf-8")) for f in files
    )
    return set().union(*found)


def only(icons: set[str], script: str) -> str:
    """Return the icons' script reduced to these icons, under any of their names."""

    def keep(match):
        others = re.findall(r'"([\w-]+)"', match[2])
        return match[0] if icons & {match[1], *others} else ""

    return ICON.sub(keep, script)


def clear(path: Path):
    """Remove the outputs from a notebook for download; the page has them."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, path)


def lighten(app, exception):
    if exception or app.builder.format != "html":
        return
    site = Path(app.outdir)
    for pattern in UNUSED:
        for path in site.glob(pattern):
            if path.is_file():
                path.unlink()
    script = site / ICON_SCRIPT
    script.write_text(
        only(used_icons(site), script.read_text("utf-8")), "utf-8"
    )
    for path in site.glob("_sources/**/*.ipynb"):
        clear(path)


def setup(app):
    app.connect("build-finished", lighten)
    return {"parallel_read_safe": True}
