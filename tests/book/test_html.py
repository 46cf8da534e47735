"""Repairs of the built pages' HTML."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))
import accessible

FORMULA = r'<span class="math notranslate nohighlight">\(K\)</span>'


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("of K, and", ["K,"]),
        ("(K).", ["(K)."]),
        ("the \u201cchange of K\u201d and", ["K\u201d"]),
        ("the Kth", ["Kth"]),
        ("the K is, (in K)", ["K)"]),
        ("K", []),
    ],
)
def test_no_line_breaks_between_a_formula_and_its_punctuation(text, joined):
    html = accessible.mend(text.replace("K", FORMULA))
    pieces = re.findall(r'<span class="pn-joined">(.*?</span>.*?)</span>', html)
    assert [piece.replace(FORMULA, "K") for piece in pieces] == joined
    assert re.sub('<span class="pn-joined">(.*?</span>.*?)</span>', r"\1", html) == text.replace("K", FORMULA)
