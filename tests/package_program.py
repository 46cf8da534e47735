"""Builds the source distribution into dist and the wheel from it, and tries the wheel where nothing else is installed.

python tests/package_program.py [PYTHON]

PYTHON is the interpreter of the new environment; default: this one. It needs a network, so it is no part of the tests.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import build_meta

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"


def run(*command, cwd):
    print("+", *command, flush=True)
    subprocess.run([*map(str, command)], cwd=cwd, check=True)


def main(python):
    for old in DIST.glob("pinnntk_lib-*"):
        old.unlink()
    source = DIST / build_meta.build_sdist(str(DIST))
    with tempfile.TemporaryDirectory() as folder:
        run(python, "-m", "venv", "venv", cwd=folder)
        new = Path(folder, "venv", "Scripts" if sys.platform == "win32" else "bin", "python")
        run(new, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", DIST, source, cwd=folder)
        (wheel,) = DIST.glob("*.whl")
        run(new, "-m", "pip", "install", "--quiet", wheel, cwd=folder)
        run(new, "-m", "pip", "check", cwd=folder)
        run(new, "-m", "pinnntk_lib", "list", cwd=folder)
        snippets = re.findall(
            r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
        )
        Path(folder, "readme.py").write_text("\n".join(snippets[:2]).replace("40_000", "400"), "utf-8")
        run(new, "readme.py", cwd=folder)
    print(f"{source.name} and {wheel.name} are in {DIST}.")


if __name__ == "__main__":
    main(*sys.argv[1:] or [sys.executable])
