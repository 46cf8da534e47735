"""Fetches the browser libraries that the book's widgets, formulas and lab need, so that pages load from no other site.

    make vendor

needs npm. Each package is pinned and checked against the digest below; its files are copied unchanged.
"""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent / "vendor"

# folder: (package, version, SHA-512 digest of the package, {file in the package: file here})
PACKAGES = {
    "requirejs": (
        "requirejs",
        "2.3.8",
        "7/cTSLOdYkNBNJcDMWf+luFvMriVm7eYxp4BcFCsAX0wF421Vyce5SXP17c+Jd5otXKGNehIonFlyQXSowL6Mw==",
        {"package/require.js": "require.js"},
    ),
    # the path at which require.js, and the style sheet inside, look for it
    "@jupyter-widgets/html-manager": (
        "@jupyter-widgets/html-manager",
        "1.0.15",
        "5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
        {
            "package/dist/embed-amd.js": "dist/embed-amd.js",
            "package/dist/embed.js.LICENSE.txt": "THIRD-PARTY-LICENSES.txt",
            # Font Awesome's solid, regular and brand fonts, under the names that embed-amd.js requests
            "package/dist/1551f4f60c37af51121f.woff2": "dist/1551f4f60c37af51121f.woff2",
            "package/dist/7a3337626410ca2f4071.woff2": "dist/7a3337626410ca2f4071.woff2",
            "package/dist/d878b0a6a1144760244f.woff2": "dist/d878b0a6a1144760244f.woff2",
        },
    ),
    "mathjax": (
        "mathjax",
        "3.2.2",
        "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        {
            "package/LICENSE": "LICENSE",
            "package/es5/tex-mml-chtml.js": "tex-mml-chtml.js",
            "package/es5/output/chtml/fonts/woff-v2/": "output/chtml/fonts/woff-v2/",
        },
    ),
    # for the lab: eigenvalues
    "ml-matrix": (
        "ml-matrix",
        "6.15.1",
        "DUVxsB+hsXhha9FTp6kQiy6UopxW9F7IXsbWhYVTHRfKdb0UimLYUDYqLQ1WwGPERnp8T5Usbwb47xxkAzSfOg==",
        {
            "package/LICENSE": "LICENSE",
            "package/matrix.umd.js": "matrix.umd.js",
        },
    ),
}


def main():
    for folder, (package, version, digest, files) in PACKAGES.items():
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run(
                ["npm", "pack", "--silent", f"{package}@{version}"],
                cwd=scratch,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            (archive,) = Path(scratch).iterdir()
            found = base64.b64encode(
                hashlib.sha512(archive.read_bytes()).digest()
            ).decode()
            if found != digest:
                raise SystemExit(
                    f"{package} {version}: expected SHA-512 {digest}, got {found}"
                )
            with tarfile.open(archive) as tar:
                for source, target in files.items():
                    copy(tar, source, HERE / folder / target)
        print(folder, version)


def copy(tar, source, target):
    """Copy one file, or every file of a folder (a source that ends in a slash)."""
    for member in tar.getmembers():
        if member.isfile() and (
            member.name == source
            or (source.endswith("/") and member.name.startswith(source))
        ):
            path = (
                target
                if member.name == source
                else target / member.name.removeprefix(source)
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            with tar.extractfile(member) as data, path.open("wb") as out:
                shutil.copyfileobj(data, out)


if __name__ == "__main__":
    main()
