"""Fits Matplotlib's SVG figures to the page: dark on a dark page, and stacked panel by panel on a phone."""

import re
from pathlib import Path

from docutils import nodes

# The theme's ground and text in dark mode, between which the greys of a figure are mixed.
GROUND, INK = (0x14, 0x18, 0x1E), (0xCE, 0xD6, 0xDD)
GREY = re.compile(r"#(?:([0-9a-f]{2})\1\1|([0-9a-f])\2\2)\b")
AXES = re.compile(
    r'<g id="axes_\d+">\s*<g id="patch_\d+">\s*<path d="([^"]*)"'
)
VIEW = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
CUTS = re.compile(r'data-cuts="([^"]*)"')
MARGIN = 12  # points that the last tick label of an axis may stick out
THIN = 0.06  # of the figure's width: a colour bar, which stays with its panel


def fitted(svg: str) -> str:
    """Return a figure with colours for dark pages and the places to cut, and without what differs from run to run."""
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:d|x|y)="[^"]*"', _rounded, svg)
    places = ",".join(f"{x:.4f}" for x in cuts(svg))
    style = f"<style>@media (prefers-color-scheme: dark) {{{dark(svg)}}}</style>"
    return re.sub(
        "(<svg [^>]*)>",
        rf'\1 data-cuts="{places}">{style}',
        svg,
        count=1,
    )


def _rounded(places):
    """Return coordinates to a hundredth of a point, which halves the file."""
    return re.sub(r"(\d\.\d\d)\d+", r"\1", places[0])


def dark(svg: str) -> str:
    """Return the rules that exchange black and white, and the greys between them; text is black without saying so."""
    rules = [f"svg {{fill: {_mixed(0)}}}"]
    for match in sorted({m[0]: m for m in GREY.finditer(svg)}.items()):
        color, found = match
        level = int(found[1] or 2 * found[2], 16) / 255
        rules += [
            f'[style*="{of}: {color}"] {{{of}: {_mixed(level)} !important}}'
            for of in ("fill", "stroke")
        ]
    return " ".join(rules)


def _mixed(level):
    channels = (
        round(ink + level * (ground - ink))
        for ink, ground in zip(INK, GROUND, strict=True)
    )
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def cuts(svg: str) -> list[float]:
    """Return where to cut a figure between its columns of axes, as fractions of its width, with 0 and 1."""
    width = float(VIEW.search(svg)[1])
    columns = []
    for path in AXES.findall(svg):
        xs = [float(x) for x in re.findall(r"[ML] (-?[\d.]+)", path)]
        columns.append((min(xs), max(xs)))
    ends = []  # of the columns so far
    for left, right in sorted(columns):
        is_bar = ends and right - left < THIN * width
        if ends and (left <= ends[-1][1] or is_bar):
            ends[-1] = ends[-1][0], max(right, ends[-1][1])
        else:
            ends.append((left, right))
    between = [
        right + min(MARGIN, (left - right) / 2)
        for (_, right), (left, _) in zip(ends, ends[1:])
    ]
    return [0.0, *(x / width for x in between), 1.0]


def in_panels(image: str, svg: str) -> str:
    """Return the HTML of a figure that is whole on a wide screen, and cut into panels on a narrow one."""
    marked, view = CUTS.search(svg), VIEW.search(svg)
    places = [float(x) for x in marked[1].split(",")] if marked else []
    if len(places) < 3:
        return image
    ratio = float(view[1]) / float(view[2])
    alone = re.sub(r' alt="[^"]*"', ' alt=""', image)
    panels = "".join(
        f'<span class="pn-panel" style="--left: {left:.4f}; --width: {right - left:.4f}; '
        f'--ratio: {(right - left) * ratio:.4f}">{alone if left else image}</span>'
        for left, right in zip(places, places[1:])
    )
    return (
        f'<span class="pn-whole">{image}</span>'
        f'<span class="pn-panels">{panels}</span>'
    )


def visit_image(self, node):
    path = Path(self.builder.srcdir, node["uri"])
    type(self).visit_image(self, node)
    if path.suffix == ".svg" and path.is_file():
        self.body[-1] = in_panels(self.body[-1], path.read_text("utf-8"))


def depart_image(self, node):
    type(self).depart_image(self, node)


def setup(app):
    app.add_node(
        nodes.image, override=True, html=(visit_image, depart_image)
    )
    return {"parallel_read_safe": True}
