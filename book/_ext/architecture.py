"""The directive ``architecture``: the library's rooms and the arrows between them, read from its imports."""

import ast
from pathlib import Path

PACKAGE = "pinnntk_lib"


def room_of(module: str) -> str:
    """The room of a module: the folder or the file right below the package; what begins with an underscore there
    is the foundation that every room stands on."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else "__init__"
    private = name.startswith("_") and not name.startswith("__")
    return "foundation" if private or name == "version" else name


def imports(root: Path) -> list[tuple[str, str]]:
    """Every import of the package's own modules by each other, wherever it stands in a file.

    Returns:
        ``[(importing module, imported module)]`` by their dotted names; a name that is imported from a package counts
        as a module where there is one of that name.
    """
    modules = {}
    for file in sorted((root / PACKAGE).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = file
    found = []
    for name, file in modules.items():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                base = node.module
                targets = [
                    f"{base}.{alias.name}"
                    if f"{base}.{alias.name}" in modules
                    else base
                    for alias in node.names
                ]
            elif isinstance(node, ast.ImportFrom):
                raise ValueError(f"{file}: expected absolute imports")
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                continue
            found += [
                (name, target)
                for target in targets
                if target.split(".")[0] == PACKAGE
            ]
    return found


def arrows(root: Path) -> set[tuple[str, str]]:
    """``{(importing room, imported room)}``."""
    pairs = {(room_of(a), room_of(b)) for a, b in imports(root)}
    return {(a, b) for a, b in pairs if a != b}


def private_imports(root: Path) -> list[tuple[str, str]]:
    """The imports that reach past a room's front, as :func:`imports` gives them."""
    return [
        (a, b)
        for a, b in imports(root)
        if b.count(".") > 1 and room_of(a) != room_of(b)
    ]
