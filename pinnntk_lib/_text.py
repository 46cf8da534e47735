"""Reports as text and as HTML."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 100  # columns
NUMBER = re.compile(r"[-+\u2212]?\d|[-+]?(nan|inf)?$")  # how a cell with a number, or with none, begins


@dataclass(frozen=True, repr=False)
class Table:
    """A table that a notebook shows as HTML and a terminal as text; its first row has the names of the columns."""

    rows: tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        return "\n".join(aligned(self.rows))

    def _repr_html_(self) -> str:
        return html_table(self.rows)


def wrapped(text: str, indent: str = "", width: int = WIDTH) -> list[str]:
    """Return the lines of a text; all but the first are indented."""
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the first row has the names of the columns. Numbers end flush, texts begin flush."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    texts = _texts(rows)
    lines = (zip(row, widths, texts) for row in rows)
    return ["  ".join(f"{cell:{'<' if text else '>'}{width}}" for cell, width, text in line).rstrip() for line in lines]


def _texts(rows):
    """Return for each column whether most of its cells, below its name, are other texts than numbers."""
    return [2 * sum(bool(NUMBER.match(cell)) for cell in cells) < len(cells) for _, *cells in zip(*rows)]


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table as HTML; the first row and the first column are headers."""
    first, *others = rows
    sides = [" style='text-align:left'" if text else "" for text in _texts(rows)]
    head = "".join(f"<th scope='col'{side}>{escape(cell)}</th>" for cell, side in zip(first, sides))
    body = "".join(
        f"<tr><th scope='row'{sides[0]}>{escape(name)}</th>"
        f"{''.join(f'<td{side}>{escape(cell)}</td>' for cell, side in zip(cells, sides[1:]))}</tr>"
        for name, *cells in others
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_list(items: Sequence[str]) -> str:
    """Return texts as an HTML list."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
