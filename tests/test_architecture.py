"""The library's rooms: which room may import which, and how long modules and functions may be."""

import ast
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import architecture  # noqa: E402 -- its folder is not a package

# Every room may import the foundation; any other import between rooms must be listed here.
PERMITTED = {
    "__init__": {"operators", "models", "problems", "kernel", "limit", "training", "diagnosis", "comparison"},
    "__main__": {"experiments", "training", "comparison", "diagnosis"},
    "operators": set(),
    "models": set(),
    "problems": {"operators"},
    "kernel": {"problems", "operators"},
    "limit": {"kernel", "models", "problems", "operators"},
    "training": {"kernel", "problems", "operators"},
    "diagnosis": {"kernel", "models", "problems", "operators", "plotting"},
    "comparison": {"diagnosis", "training", "kernel", "models", "problems", "plotting"},
    "experiments": {"training", "kernel", "problems", "models"},
    "plotting": {"training", "kernel", "problems"},
    "widgets": set(),
    "foundation": set(),
}
LONGEST_MODULE, LONGEST_FUNCTION = 400, 60


def forbidden(root):
    return sorted(
        (a, b) for a, b in architecture.arrows(root) if b != "foundation" and b not in PERMITTED.get(a, set())
    )


def too_long(root):
    """Return the modules and functions that are longer than allowed, not counting functions' docstrings."""
    found = []
    for name, file in architecture.modules(root).items():
        text = file.read_text("utf-8")
        if len(text.splitlines()) > LONGEST_MODULE:
            found.append(name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = node.body[0] if ast.get_docstring(node) else None
                lines = node.end_lineno - node.lineno + 1
                if docstring:
                    lines -= docstring.end_lineno - docstring.lineno + 1
                if lines > LONGEST_FUNCTION:
                    found.append(f"{name}.{node.name}")
    return found


@pytest.fixture
def plant(tmp_path):
    """``plant(file, text)`` returns the root of a copy of the library with text appended to one of its files."""
    shutil.copytree(ROOT / "pinnntk_lib", tmp_path / "pinnntk_lib")

    def planted(file, text):
        path = tmp_path / "pinnntk_lib" / file
        path.write_text(f"{path.read_text('utf-8')}\n{text}\n", "utf-8")
        return tmp_path

    return planted


def test_imports_follow_the_arrows():
    assert forbidden(ROOT) == []
    assert {architecture.room_of(name) for name in architecture.modules(ROOT)} == set(PERMITTED)


@pytest.mark.parametrize(
    ("file", "line", "arrow"),
    [
        ("kernel/_gram.py", "from pinnntk_lib.training import train", ("kernel", "training")),
        ("kernel/_gram.py", "import pinnntk_lib.training", ("kernel", "training")),
        ("limit/_pairs.py", "from pinnntk_lib import training", ("limit", "training")),
        ("training/_loop.py", "def f():\n    from pinnntk_lib.diagnosis import diagnose", ("training", "diagnosis")),
        ("_check.py", "from pinnntk_lib.kernel import NTK", ("foundation", "kernel")),
        ("problems/_box.py", "import pinnntk_lib", ("problems", "__init__")),
    ],
)
def test_a_planted_arrow_is_found(plant, file, line, arrow):
    assert forbidden(plant(file, line)) == [arrow]


def test_no_room_imports_another_rooms_private_modules():
    assert architecture.private_imports(ROOT) == []


@pytest.mark.parametrize(
    "line",
    [
        "from pinnntk_lib.kernel._plan import Plan",
        "from pinnntk_lib.kernel import _plan",
        "import pinnntk_lib.kernel._plan as plan",
    ],
)
def test_a_planted_private_import_is_found(plant, line):
    planted = ("pinnntk_lib.training._step", "pinnntk_lib.kernel._plan")
    assert architecture.private_imports(plant("training/_step.py", line)) == [planted]


def test_a_relative_import_is_refused(plant):
    with pytest.raises(ValueError, match="expected absolute imports"):
        architecture.arrows(plant("training/_step.py", "from ..kernel import ntk"))


def test_modules_inside_rooms_are_private_by_name():
    inside = [name for name in architecture.modules(ROOT) if name.count(".") > 1]
    assert [name for name in inside if not name.rpartition(".")[2].startswith("_")] == []


def test_modules_and_functions_are_short():
    assert too_long(ROOT) == []


def test_a_long_function_is_found(plant):
    root = plant("version.py", "def long():\n" + '    """Not counted.\n' + "\n" * 70 + '    """\n' + "    pass\n" * 60)
    assert too_long(root) == ["pinnntk_lib.version.long"]


def test_the_picture_shows_every_room_and_arrow():
    picture, table = architecture.svg(ROOT), architecture.table(ROOT)
    plan = architecture.Plan(ROOT)
    assert picture.count("<polyline") == len(plan.direct)
    assert picture.count("<rect") == len(plan.floor) + 2
    for room, others in plan.imports.items():
        (row,) = (line for line in table.splitlines() if line.startswith(f"| `{room}` |"))
        assert row.endswith(f"| {', '.join(f'`{other}`' for other in others) or 'none'} |")
    for a, b in plan.direct:  # every arrow leads down
        assert plan.floor[a] > plan.floor[b]
    assert len({(plan.floor[room], plan.column[room]) for room in plan.floor}) == len(plan.floor)
