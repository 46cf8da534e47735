"""The notebooks are regression tests; these checks make sure that they test what they should."""

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

BOOK = Path(__file__).parents[2] / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))

sys.path[:0] = [str(BOOK), str(BOOK / "_ext")]
import colab  # noqa: E402 -- its folder is not a package
import execute  # noqa: E402
import status  # noqa: E402
from book_setup import made_by  # noqa: E402


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_was_executed_in_order(path):
    # nbval skips a cell without an execution count
    assert [cell.execution_count for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))


@pytest.mark.parametrize("rows", [status.executions, status.recorded_runs])
def test_every_record_says_what_the_page_of_runs_tabulates(rows):
    header, *found = rows(BOOK)
    assert len(found) > 9
    assert all(len(row) == len(header) and all(row) for row in found)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_is_stored_that_changes_from_run_to_run(path):
    notebook = read(path)
    assert notebook.metadata.language_info == {"name": "python"}
    assert not any("execution" in cell.metadata for cell in notebook.cells)


@pytest.mark.parametrize("name", ["01-when-pinns-fail", "05-infinite-width-during-training"])
def test_widgets_are_numbered(name):
    """Widgets are renamed to numbers: their random names change in every run and would swamp a review."""
    text = nbformat.writes(read(BOOK / f"{name}.ipynb"))
    names = sorted(set(re.findall(r'"(\w{32})": {', text)))
    assert len(names) > 50
    drawn = dict(zip(names, random.Random(0).sample([f"{n:032x}" for n in range(1000, 10_000)], len(names))))
    notebook = nbformat.reads(re.sub("|".join(names), lambda match: drawn[match[0]], text), as_version=4)
    assert nbformat.writes(notebook) != text
    execute.number_widgets(notebook)
    assert nbformat.writes(notebook) == text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_only_pictures_timings_and_widgets_are_ignored(path):
    """A cell whose output is not compared says why in its marker, and prints no number."""
    for cell in code_cells(path):
        if "NBVAL" in cell.source:
            assert re.match(
                r"# NBVAL_IGNORE_OUTPUT \((pictures|timings|a widget|pictures and a widget)\)\n", cell.source
            )
            assert "print(" not in cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_picture_has_alternative_text_and_a_caption(path):
    text = path.read_text("utf-8")
    for cell in code_cells(path):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        assert "image/png" not in kinds  # which would be light on a dark page
        if "image/svg+xml" in kinds:
            said = cell.metadata["mystnb"]
            assert len(said["image"]["alt"]) > 40
            assert len(said["figure"]["caption"]) > 40
            assert f"{{numref}}`{said['figure']['name']}`" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_installs_what_is_missing(path):
    assert code_cells(path)[0].source == colab.FIRST_CELL


def test_publishing_fills_the_address_in(tmp_path, monkeypatch):
    monkeypatch.setenv("REPOSITORY", "https://github.com/me/my-fork/")
    config = SimpleNamespace(html_theme_options={"show_navbar_depth": 2})
    colab.add_button(None, config)
    assert config.html_theme_options["repository_url"] == "https://github.com/me/my-fork"
    assert config.html_theme_options["show_navbar_depth"] == 2
    copy = tmp_path / "_sources/book/copy.ipynb"
    copy.parent.mkdir(parents=True)
    shutil.copy(NOTEBOOKS[0], copy)
    colab.fill_downloads(SimpleNamespace(outdir=tmp_path), None)
    assert '"https://github.com/me/my-fork"\n' in code_cells(copy)[0].source
    assert colab.PLACEHOLDER not in copy.read_text()


def test_the_links_of_the_readme_lead_to_the_repository_from_pypi(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text(f"![a](book/a.png) [b](book/b.md) [c](https://c.org) {colab.PLACEHOLDER}/d")
    colab.fill(copy, "https://github.com/me/it")
    places = ("raw/HEAD/book/a.png", "blob/HEAD/book/b.md")
    a, b = (f"https://github.com/me/it/{place}" for place in places)
    assert copy.read_text() == f"![a]({a}) [b]({b}) [c](https://c.org) https://github.com/me/it/d"


def test_without_an_address_there_is_no_button(monkeypatch):
    monkeypatch.delenv("REPOSITORY", raising=False)
    config = SimpleNamespace(html_theme_options={})
    colab.add_button(None, config)
    assert config.html_theme_options == {}


def test_an_address_that_colab_cannot_open(monkeypatch):
    monkeypatch.setenv("REPOSITORY", "https://gitlab.com/me/my-fork")
    with pytest.raises(ValueError, match=r"REPOSITORY: expected an address like .*, got 'https://gitlab"):
        colab.repository()


def test_stored_outputs_are_reused_only_for_the_code_that_made_them(tmp_path):
    """The digest depends on the notebook's and the library's code, JAX's version and the recorded runs it reads.

    It does not depend on prose, docstrings, other recorded runs or the versions of tools.
    """
    for name in ("pinnntk_lib", "book/data"):
        shutil.copytree(BOOK.parent / name, tmp_path / name)
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(BOOK.parent / name, tmp_path)
    notebook = read(BOOK / "01-when-pinns-fail.ipynb")
    first = made_by(tmp_path, notebook)
    for other in ("__pycache__/a.cpython-311.pyc", "kernel/.DS_Store"):  # neither is text
        file = tmp_path / "pinnntk_lib" / other
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"\xa7\r\r\n")
    assert made_by(tmp_path, notebook) == first
    prose, code = (next(cell for cell in notebook.cells if cell.cell_type == kind) for kind in ("markdown", "code"))
    prose.source += " more"
    assert made_by(tmp_path, notebook) == first
    code.source += " "
    assert made_by(tmp_path, notebook) != first
    code.source = code.source[:-1]

    def changes(path, old=r"\Z", new=" "):
        before, file = made_by(tmp_path, notebook), tmp_path / path
        file.write_text(re.sub(old, new, file.read_text(), flags=re.MULTILINE))
        return made_by(tmp_path, notebook) != before

    assert changes("pinnntk_lib/kernel/_ntk.py", "^import", "import re, ")
    assert changes("pinnntk_lib/pinnntk.mplstyle")
    assert not changes("pinnntk_lib/kernel/_ntk.py", r"\Z", "\n# a comment\n")
    assert not changes("pinnntk_lib/kernel/_ntk.py", r'\A"""', '"""In other words: ')
    assert changes("book/data/poisson-seeds.json")
    assert changes("requirements.lock", "^jax==", "jax==9")
    assert not changes("requirements.lock", "^ruff==", "ruff==9")
    assert not changes("book/data/weighting-schemes.json")
    code.source += '\nglob("data/weighting-*.json")'
    assert changes("book/data/weighting-schemes.json")


@pytest.mark.slow
def test_a_change_of_2_percent_in_a_loss_weight_is_noticed(tmp_path):
    """With lambda_u = 1.02, the first numbers of the first chapter fail, and nothing before them does."""
    notebook = read(BOOK / "01-when-pinns-fail.ipynb")
    given, changed = 'weights = {"u": 1.0, "r": 1.0}', 'weights = {"u": 1.02, "r": 1.0}'
    (position,) = (i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and given in cell.source)
    notebook.cells = notebook.cells[: position + 1]
    notebook.cells[position].source = notebook.cells[position].source.replace(given, changed)
    nbformat.write(notebook, tmp_path / "changed.ipynb")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "changed.ipynb"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "1 failed, 3 passed" in run.stdout, run.stdout + run.stderr
    assert "mismatch 'text/html'" in run.stdout
