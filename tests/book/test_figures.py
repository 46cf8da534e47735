"""Figures fit the page: dark on dark pages, and cut between their panels for phones."""

import io
import itertools
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from pinnntk_lib import plotting

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))
import figures


def drawn(rows=1, columns=1, bars=False, **look):
    """Return the SVG of a figure with this many axes."""
    with plt.style.context(plotting.STYLE):
        figure, axes = plt.subplots(rows, columns, squeeze=False)
        for ax in axes.flat:
            (line,) = ax.plot([0, 1], [0, 1], **look)
            ax.set(xlabel="x", ylabel="y")
            if bars:
                figure.colorbar(plt.cm.ScalarMappable(), ax=ax, label="error")
        written = io.StringIO()
        figure.savefig(written, format="svg")
        plt.close(figure)
    return written.getvalue()


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("bars", [False, True])
def test_a_figure_is_cut_between_its_columns(rows, columns, bars):
    svg = drawn(rows, columns, bars)
    places = figures.cuts(svg)
    assert len(places) == columns + 1
    width = float(figures.VIEW.search(svg)[1])
    labels = [0] * columns  # turned by a right angle, in each panel
    for text in re.findall(r'<g id="text_\d+">.*?</g>', svg, re.DOTALL):
        x = float(re.search(r"translate\(([\d.]+)", text)[1]) / width
        glyphs = len(re.findall("<use", text))
        is_turned = "rotate(-90)" in text
        end = x + (0 if is_turned else glyphs * 5.5 / width)  # in points: a digit is 6.4 wide, and a dot half of that
        assert not any(x < place < end for place in places[1:-1])
        labels[sum(place < x for place in places[1:-1])] += is_turned
    assert labels == columns * [rows * (1 + bars)]
    widths = [b - a for a, b in itertools.pairwise(places)]
    assert max(widths) < 1.2 * min(widths)


def test_greys_are_exchanged_in_dark_mode_and_colours_are_not():
    svg = figures.fitted(drawn(color="0.4"))
    rules = re.search("<style>@media .prefers-color-scheme: dark. (.*)</style>", svg)[1]
    levels = dict(re.findall(r'\[style\*="stroke: (#\w+)"\] \{stroke: (#\w+) !important\}', rules))
    assert levels["#000000"] == "#ced6dd"
    assert levels["#ffffff"] == "#14181e"
    assert int(levels["#666666"][1:3], 16) == pytest.approx(0xCE + 0.4 * (0x14 - 0xCE), abs=1)
    coloured = figures.fitted(drawn(color="#0072B2"))
    assert "stroke: #0072b2" in coloured
    assert '="stroke: #0072b2"' not in coloured


def test_a_fitted_figure_is_the_same_in_each_run():
    assert figures.fitted(drawn()) == figures.fitted(drawn())


def test_a_figure_with_its_own_legend_stays_whole():
    with plt.style.context(plotting.STYLE):
        figure, axes = plt.subplots(1, 2)
        axes[0].plot([0, 1], label="a line")
        figure.legend(loc="outside lower center")
        written = io.StringIO()
        figure.savefig(written, format="svg")
        plt.close(figure)
    assert figures.cuts(written.getvalue()) == [0.0, 1.0]


def test_only_figures_of_several_panels_are_cut():
    image = '<img alt="Two panels." src="a.svg" />'
    assert figures.in_panels(image, figures.fitted(drawn())) == image
    html = figures.in_panels(image, figures.fitted(drawn(columns=2)))
    assert html.count("<img") == 3
    assert html.count('alt="Two panels."') == 2  # the whole one, and the first panel, of which one is shown


@pytest.mark.parametrize(
    ("caption", "narrow"),
    [
        ("The loss (left) and the error (right).", "The loss (top) and the error (bottom)."),
        ("Left: the loss. Right, the error.", "Top: the loss. Bottom, the error."),
        (
            "On the left, see the loss; in the right panel, the error.",
            "At the top, see the loss; in the bottom panel, the error.",
        ),
        ("What is left of it is right. If it is right, nothing is left, right where it should be.", None),
    ],
)
def test_captions_say_where_stacked_panels_are(caption, narrow):
    parts = [
        (node.astext(), getattr(node, "attributes", {}).get("classes")) for node in figures.for_both_widths(caption)
    ]
    assert "".join(text for text, of in parts if of != ["pn-narrow"]) == caption
    assert "".join(text for text, of in parts if of != ["pn-wide"]) == (narrow or caption)
