"""Prints the built book as one PDF, a bookmark per page: ``make pdf``, after ``make book``.

python book/pdf.py FILE

needs Chromium or Chrome, and the package pypdf.
"""

import html
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from pypdf import PdfWriter

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60  # of the page's own time, for its formulas


def pages(toc: dict) -> list[str]:
    """Return the pages of a table of contents, in its order."""
    chapters = [c["file"] for part in toc["parts"] for c in part["chapters"]]
    return [toc["root"], *chapters]


def title(page: Path) -> str:
    found = re.search(
        "<title>(.*?)</title>", page.read_text("utf-8"), re.DOTALL
    )
    return html.unescape(found[1]).partition(" — ")[0].strip()


def printed(browser: str, page: Path, file: Path):
    """Print a page, with as much time as its scripts need."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu"]
    flags += [
        f"--virtual-time-budget={1000 * SECONDS}",
        "--no-pdf-header-footer",
    ]
    command = [browser, *flags, f"--print-to-pdf={file}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def drop_local_links(writer: PdfWriter):
    """Remove the links between pages, which lead to files of the computer that printed them."""
    for page in writer.pages:
        for note in page.get("/Annots", []):
            action = note.get_object().get("/A", {})
            if str(action.get("/URI", "")).startswith("file:"):
                del note.get_object()["/A"]


def main(target: str):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"expected one of {', '.join(BROWSERS)}, found none")
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    writer = PdfWriter()
    with tempfile.TemporaryDirectory() as folder:
        for name in pages(toc):
            page, file = HTML / f"{name}.html", Path(folder, "page.pdf")
            if not page.exists():
                sys.exit(f"{page}: not found; build the book first")
            printed(browser, page, file)
            writer.append(file, outline_item=title(page))
            print(name, flush=True)
    drop_local_links(writer)
    writer.add_metadata({"/Title": "When and why PINNs fail to train"})
    writer.write(target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("FILE: expected the name of a file to write")
    main(sys.argv[1])
