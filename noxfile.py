"""Builds and tests the book where there is no make, as on Windows.

pipx run nox -s book    build the book into _build/html
pipx run nox -s test    run all tests but the slow ones
"""

import shutil
from pathlib import Path

import nox

nox.options.sessions = ["book"]

NBVAL = "--nbval --nbval-current-env --nbval-cell-timeout 1800 --nbval-sanitize-with tests/book/sanitize.cfg"
APART = "-p no:cacheprovider --dist loadfile --no-loadscope-reorder"


@nox.session
def book(session):
    """Build the book, executing only what has changed since its outputs were stored."""
    install(session)
    build(session)


@nox.session
def test(session):
    """Run all tests but the slow ones."""
    install(session)
    session.run("pytest", "-n", "auto", "-m", "not browser and not slow")
    session.run("pytest", "-n", "auto", *NBVAL.split(), *APART.split(), *map(str, sorted(Path("book").glob("*.ipynb"))))
    build(session)
    session.run("pytest", "-n", "auto", "-m", "browser and not slow")


@nox.session
def lint(session):
    """Run the linters and the type checker."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("mypy", "--strict", "--follow-imports=silent", "tests/typed_program.py")


@nox.session
def slow(session):
    """Run the tests that take more than about five seconds each, of the pages too if the book is built."""
    install(session)
    session.run("pytest", "-n", "auto", "-m", "slow")


def install(session):
    session.install("--require-hashes", "-r", "requirements.lock")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")


def build(session):
    shutil.rmtree("_build/html", ignore_errors=True)
    session.run("jupyter-book", "build", ".", "--all", "-W", "--keep-going", "--path-output", ".")
    session.log("The book is ready: open _build/html/index.html.")
