"""Run a chapter as Colab would: with Colab's package versions, without this library installed, and with nothing but the
notebook from the published branch.

python tests/colab_program.py pip-freeze.txt    (from github.com/googlecolab/backend-info)
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHAPTER = "09-reproduction.ipynb"  # it reads recorded runs
# Colab's packages that this library, its notebooks or their execution use
WANTED = (
    r"jax|jaxlib|numpy|scipy|matplotlib|ipywidgets|optax|orbax-checkpoint|tqdm|ipykernel|ipython|nbconvert|nbclient"
)


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, text=True, **options)


def versions(python):
    listed = run(python, "-m", "pip", "list", "--format", "json", capture_output=True).stdout
    return {package["name"]: package["version"] for package in json.loads(listed)}


def publish(folder):
    """Turn a folder into a Git repository with what deployment publishes on the branch for Colab."""
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    import colab

    files = run("git", "ls-files", "-z", cwd=ROOT, capture_output=True).stdout.split("\0")
    for name in filter(None, files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for notebook in folder.glob("book/*.ipynb"):
        colab.fill(notebook, folder.as_uri())
    run("git", "init", "-q", "-b", colab.BRANCH, cwd=folder)
    run("git", "add", "-A", cwd=folder)
    author = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    run("git", *author, "commit", "-q", "-m", "published", cwd=folder)


def main(freeze):
    pinned = re.findall(rf"^(?:{WANTED})==\S+", Path(freeze).read_text(), re.MULTILINE)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        run(python, "-m", "pip", "install", "-q", *pinned, "nbconvert", "ipykernel", "setuptools")
        before = versions(python)
        print("Colab's:", *pinned)
        published, content = folder / "published", folder / "content"
        published.mkdir()
        publish(published)
        content.mkdir()
        shutil.copy(published / "book" / CHAPTER, content)
        options = ("--to", "notebook", "--inplace", "--ExecutePreprocessor.kernel_name=python3")
        run(python, "-m", "nbconvert", *options, "--execute", content / CHAPTER, cwd=content)
        after = versions(python)
    changed = {name: (version, after.get(name)) for name, version in before.items() if after.get(name) != version}
    print("Installed besides:", {name: version for name, version in after.items() if name not in before})
    if changed:
        sys.exit(f"installing the library changed Colab's packages: {changed}")
    print(f"{CHAPTER} ran")


if __name__ == "__main__":
    main(*sys.argv[1:])
