"""Reports as text and as HTML."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 100  # columns


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
    """Return the lines of a table; the first row has the names of the columns, and all columns end flush."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table as HTML; the first row and the first column are headers."""
    first, *others = rows
    head = "".join(f"<th scope='col'>{escape(cell)}</th>" for cell in first)
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, *cells in others
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_list(items: Sequence[str]) -> str:
    """Return texts as an HTML list."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
