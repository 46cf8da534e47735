"""The directive `architecture`, which draws the library's rooms and the imports between them as arrows."""

import ast
import re
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

PACKAGE = "pinnntk_lib"
FRONT, FOUNDATION = "__init__", "foundation"


def room_of(module: str) -> str:
    """Return a module's room: the folder or file directly below the package that contains it.

    Private files there, and the version, form the foundation below all rooms.
    """
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else FRONT
    private = name.startswith("_") and not name.startswith("__")
    return FOUNDATION if private or name == "version" else name


def modules(root: Path) -> dict[str, Path]:
    """Return `{dotted name: file}` for the package's modules."""
    found = {}
    for file in sorted((root / PACKAGE).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(p for p in parts if p != "__init__")] = file
    return found


def imports(root: Path) -> list[tuple[str, str]]:
    """Return every import of one of the package's modules by another, wherever it is in the file.

    Returns:
        `[(importing module, imported module)]`. A name imported from a package counts as a module if it is one.

    Raises:
        ValueError: if an import is relative, which hides what it imports.
    """
    files, found = modules(root), []
    for name, file in files.items():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                if node.level:
                    raise ValueError(f"{file}: expected absolute imports")
                names = [f"{node.module}.{n.name}" for n in node.names]
                targets = [n if n in files else node.module for n in names]
            elif isinstance(node, ast.Import):
                targets = [n.name for n in node.names]
            else:
                continue
            found += [
                (name, target) for target in targets if target in files
            ]
    return found


def arrows(root: Path) -> set[tuple[str, str]]:
    """Return `{(importing room, imported room)}`."""
    pairs = {(room_of(a), room_of(b)) for a, b in imports(root)}
    return {(a, b) for a, b in pairs if a != b}


def private_imports(root: Path) -> list[tuple[str, str]]:
    """Return the imports that bypass another room's front, in the form of `imports`."""
    return [
        (a, b)
        for a, b in imports(root)
        if b.count(".") > 1 and room_of(a) != room_of(b)
    ]


def summary(root: Path, room: str) -> str:
    """Return the first sentence of a room's docstring, as Markdown."""
    file = root / PACKAGE / room
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text("utf-8")))
    sentence = re.split(r"(?<=[.:])\s", text, maxsplit=1)[0].rstrip(":.")
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", sentence).replace(
        "``", "`"
    )


class Plan:
    """The position of each room in the picture, except the front and the foundation.

    Attributes:
        imports: `{room: the rooms it imports}`.
        direct: the arrows that are not implied by others.
        floor: `{room: number of floors below it}`.
        column: `{room: its column}`. The rooms of a chain of arrows share a column; the longest chain comes first.
    """

    def __init__(self, root: Path):
        rooms = {room_of(m) for m in modules(root)} - {FRONT, FOUNDATION}
        self.imports = {room: [] for room in sorted(rooms)}
        for a, b in sorted(arrows(root)):
            if {a, b} <= rooms:
                self.imports[a].append(b)
        self.floor, self._reaches = {}, {}
        for room in self.imports:
            self._visit(room)
        self.direct = [
            (a, b)
            for a, others in self.imports.items()
            for b in others
            if not any(b in self._reaches[c] for c in others)
        ]
        self.column, taken = {}, []
        while len(self.column) < len(rooms):
            chain = self._longest_chain()
            floors = {self.floor[room] for room in chain}
            free = (
                i for i, of_one in enumerate(taken) if not of_one & floors
            )
            column = next(free, len(taken))
            if column == len(taken):
                taken.append(set())
            taken[column] |= floors
            self.column |= dict.fromkeys(chain, column)

    def _visit(self, room):
        if room not in self.floor:
            others = self.imports[room]
            for other in others:
                self._visit(other)
            self.floor[room] = max(
                (self.floor[b] + 1 for b in others), default=0
            )
            self._reaches[room] = {*others}.union(
                *(self._reaches[b] for b in others)
            )

    def _longest_chain(self):
        """Return the longest chain of direct arrows through rooms without a column."""
        longest = {}
        for room in sorted(self.floor, key=self.floor.__getitem__):
            if room not in self.column:
                tails = [
                    longest.get(b, []) for a, b in self.direct if a == room
                ]
                longest[room] = [room, *max(tails, key=len, default=[])]
        return max(longest.values(), key=len)


WIDE, HIGH, COLUMN, FLOOR, EDGE = 104, 34, 136, 66, 8


def svg(root: Path) -> str:
    """Return the picture as SVG: the front at the top, the rooms, the foundation, and arrows for the imports.

    Arrows implied by others are left out; the table has them all.
    """
    plan = Plan(root)
    top = max(plan.floor.values())
    width = 2 * EDGE + COLUMN * max(plan.column.values()) + WIDE
    height = 2 * EDGE + FLOOR * (top + 2) + HIGH

    def corner(room):
        x = EDGE + COLUMN * plan.column[room]
        return x, EDGE + FLOOR * (top - plan.floor[room] + 1)

    def box(x, y, w, label):
        return (
            f'<rect x="{x}" y="{y}" width="{w}" height="{HIGH}" rx="6"/>'
            f'<text x="{x + w / 2}" y="{y + HIGH / 2 + 4}">{escape(label)}</text>'
        )

    def arrow(a, b):
        (ax, ay), (bx, by) = corner(a), corner(b)
        points = [(ax + WIDE / 2, ay + HIGH)]
        if plan.floor[a] - plan.floor[b] > 1:  # around the boxes between
            gap = min(ax, bx) + WIDE + (COLUMN - WIDE) / 2
            points += [(gap, ay + FLOOR), (gap, by - FLOOR + HIGH)]
        points.append((bx + WIDE / 2, by - 2))
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        return f'<polyline points="{path}" marker-end="url(#pn-arrow)"/>'

    bar = width - 2 * EDGE
    boxes = [box(EDGE, EDGE, bar, f"import {PACKAGE} as pn")]
    boxes += [box(*corner(room), WIDE, room) for room in plan.floor]
    boxes.append(box(EDGE, height - EDGE - HIGH, bar, FOUNDATION))
    said = "; ".join(f"{a} imports {b}" for a, b in plan.direct)
    return f"""<svg class="pn-architecture" viewBox="0 0 {width} {height}" role="img" aria-labelledby="pn-rooms">
<title id="pn-rooms">The subpackages of the library, and the arrows between them: {escape(said)}.</title>
<defs><marker id="pn-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 8 4 0 8z"/></marker></defs>
<g>{"".join(arrow(a, b) for a, b in plan.direct)}</g><g>{"".join(boxes)}</g></svg>"""


def table(root: Path) -> str:
    """Return a Markdown table of the rooms, what they are and what they import."""
    plan = Plan(root)
    rows = ["| Room | What it is | Imports |", "| --- | --- | --- |"]
    for room in sorted(plan.floor, key=lambda r: (-plan.floor[r], r)):
        others = ", ".join(f"`{other}`" for other in plan.imports[room])
        rows.append(
            f"| `{room}` | {summary(root, room)} | {others or 'none'} |"
        )
    return "\n".join(rows)


class Architecture(SphinxDirective):
    def run(self):
        root = Path(self.env.srcdir)
        picture = nodes.raw("", svg(root), format="html")
        return [picture, *self.parse_text_to_nodes(table(root))]


def setup(app):
    app.add_directive("architecture", Architecture)
    return {"parallel_read_safe": True}
