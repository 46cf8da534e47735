"""Fits Matplotlib's SVG figures to the page: dark on a dark page, and stacked panel by panel on a phone.

Where the panels are stacked, captions say top and bottom in place of left and right.
"""

import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

# The theme's ground and text in dark mode, between which the greys of a figure are mixed.
GROUND, INK = (0x14, 0x18, 0x1E), (0xCE, 0xD6, 0xDD)
GREY = re.compile(r"#(?:([0-9a-f]{2})\1\1|([0-9a-f])\2\2)\b")
NUMBER = r"(-?[\d.]+)"
PLACE = re.compile(
    rf"translate\({NUMBER} {NUMBER}\)( rotate\(-90\))? scale\({NUMBER}"
)
GLYPH_SIZE = 76  # of the last glyph of a text, in the units of its places
VIEW = re.compile(rf'viewBox="0 0 {NUMBER} {NUMBER}"')
CUTS = re.compile(r'data-cuts="([^"]*)"')
SIDE = re.compile(
    r"\b(?:[Oo]n the (?:left|right)\b|(?:Left|Right)(?=[:,])|(?:left|right)(?=\)| panel\b))"
)
STACKED = {
    "left": "top",
    "right": "bottom",
    "on the left": "at the top",
    "on the right": "at the bottom",
}
# Narrower than this fraction of the figure is a colour bar, which stays with its panel.
THIN = 0.06


def fitted(svg: str) -> str:
    """Return a figure with colours for dark pages and the places to cut, and without what differs from run to run."""
    svg = re.sub(
        r"\s*<(metadata|!--).*?(</metadata|--)>", "", svg, flags=re.DOTALL
    )
    svg = re.sub(r"\n +", "\n", svg)
    svg = re.sub(r' (?:d|x|y)="[^"]*"', _shortened, svg)
    places = ",".join(f"{x:.4f}" for x in cuts(svg))
    rules = "@media (prefers-color-scheme: dark) {" + dark(svg) + "}"
    head = (
        rf'\1 class="pn-figure" data-cuts="{places}"><style>{rules}</style>'
    )
    return re.sub("(<svg [^>]*)>", head, svg, count=1)


def _shortened(places):
    """Return coordinates to a tenth of a point, and without line breaks and needless spaces: half of the file."""
    short = re.sub(r"(\d\.\d)\d+", r"\1", re.sub(r"\s+", " ", places[0]))
    return " " + re.sub(r" ?([MLHVCQZz]) ?", r"\1", short.strip())


def dark(svg: str) -> str:
    """Return the rules that exchange black and white, and the greys between them; text is black without saying so."""
    rules = [f".pn-figure {{fill: {_mixed(0)}}}"]
    for color, found in sorted(
        {m[0]: m for m in GREY.finditer(svg)}.items()
    ):
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
    """Return where to cut a figure between its columns of axes, as fractions of its width, with 0 and 1.

    The texts of axes stay with them, and no cut goes through a text. A figure with a legend of its own, outside the
    axes, stays whole.
    """
    root = ElementTree.fromstring(svg)
    width = float(VIEW.search(svg)[1])
    if any(_is(group, "legend") for group in root.find("*[@id='figure_1']")):
        return [0.0, 1.0]
    groups = list(root.iter("{http://www.w3.org/2000/svg}g"))
    columns = []
    for axes in sorted(
        _column(group) for group in groups if _is(group, "axes")
    ):
        is_bar = axes.right - axes.left < THIN * width
        if columns and (axes.left <= columns[-1].right or is_bar):
            columns[-1] = columns[-1].joined(axes)
        else:
            columns.append(axes)
    texts = _texts(root)
    middles = [
        (a.end + b.begin) / 2
        for a, b in pairwise(columns)
        if a.end < b.begin
    ]
    free = [
        x
        for x in middles
        if not any(start < x < end for start, end in texts)
    ]
    return [0.0, *(x / width for x in free), 1.0]


class Column(NamedTuple):
    """A column of axes: their own ends, and where they begin and end with their texts."""

    left: float
    right: float
    begin: float
    end: float

    def joined(self, other):
        return Column(
            self.left,
            max(self.right, other.right),
            min(self.begin, other.begin),
            max(self.end, other.end),
        )


def _column(group):
    left, right = _extent(group)
    starts, ends = zip((left, right), *_texts(group))
    return Column(left, right, min(starts), max(ends))


def _texts(group):
    """Return the left and the right end of every text in a group that is not empty."""
    groups = group.iter("{http://www.w3.org/2000/svg}g")
    ends = [_length(of) for of in groups if _is(of, "text")]
    return [(start, end) for start, end in ends if start < end]


def _is(group, kind):
    return group.get("id", "").startswith(f"{kind}_")


def _extent(axes):
    """Return the left and the right end of axes, from the path of their background."""
    path = axes.find(".//*[@d]").get("d")
    xs = [float(x) for x in re.findall(rf"[ML] ?{NUMBER}", path)]
    return min(xs), max(xs)


def _length(text):
    """Return the left and the right end of a text, roughly; it is a row of glyphs, each with its place."""
    for row in text.iter():
        if place := PLACE.match(row.get("transform", "")):
            x, size = float(place[1]), float(place[4])
            if place[3]:  # turned by a right angle
                return x - size * GLYPH_SIZE, x
            moves = (glyph.get("transform", "") for glyph in row)
            found = (re.match(rf"translate\({NUMBER}", m) for m in moves)
            last = max([0.0, *(float(m[1]) for m in found if m)])
            return x, x + size * (last + GLYPH_SIZE)
    return 0.0, 0.0


def _stored_cuts(svg):
    marked = CUTS.search(svg)
    return [float(x) for x in marked[1].split(",")] if marked else []


def in_panels(image: str, svg: str) -> str:
    """Return the HTML of a figure that is whole on a wide screen, and cut into panels on a narrow one."""
    places, view = _stored_cuts(svg), VIEW.search(svg)
    if len(places) < 3:
        return image
    ratio = float(view[1]) / float(view[2])
    alone = re.sub(r' alt="[^"]*"', ' alt=""', image)
    panels = "".join(
        f'<span class="pn-panel" style="--left: {left:.4f}; --width: {right - left:.4f}; '
        f'--ratio: {(right - left) * ratio:.4f}">{alone if left else image}</span>'
        for left, right in pairwise(places)
    )
    return (
        f'<span class="pn-whole">{image}</span>'
        f'<span class="pn-panels">{panels}</span>'
    )


def for_both_widths(text: str) -> list[nodes.Node]:
    """Return a caption's text as nodes, of which those of the classes pn-wide and pn-narrow name a panel's place."""
    found, end = [], 0
    for match in SIDE.finditer(text):
        place = STACKED[match[0].lower()]
        if match[0][0].isupper():
            place = place.capitalize()
        found += [
            nodes.Text(text[end : match.start()]),
            nodes.inline("", match[0], classes=["pn-wide"]),
            nodes.inline("", place, classes=["pn-narrow"]),
        ]
        end = match.end()
    return [*found, nodes.Text(text[end:])]


class PanelsInCaptions(SphinxPostTransform):
    """Names the panels in the captions of figures that are cut by where they are on a wide and on a narrow screen."""

    default_priority = 900  # after images have their files
    formats = ("html",)

    def run(self) -> None:
        for figure in self.document.findall(nodes.figure):
            svgs = (
                _svg(self.app, image)
                for image in figure.findall(nodes.image)
            )
            if any(len(_stored_cuts(svg)) > 2 for svg in svgs):
                for caption in figure.findall(nodes.caption):
                    for text in list(caption.findall(nodes.Text)):
                        text.parent.replace(text, for_both_widths(text))


def _svg(app, image):
    path = Path(app.srcdir, image["uri"])
    is_svg = path.suffix == ".svg" and path.is_file()
    return path.read_text("utf-8") if is_svg else ""


def visit_image(self, node):
    # Afterwards, the node has the address in the built site.
    svg = _svg(self.builder.app, node)
    type(self).visit_image(self, node)
    if svg:
        self.body[-1] = in_panels(self.body[-1], svg)


def depart_image(self, node):
    type(self).depart_image(self, node)


def setup(app):
    app.add_post_transform(PanelsInCaptions)
    app.add_node(
        nodes.image, override=True, html=(visit_image, depart_image)
    )
    return {"parallel_read_safe": True}
