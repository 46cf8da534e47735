"""Types of attributes in the API reference, without the modules that they are defined in.

Napoleon writes an attribute's type as Python prints it, `collections.abc.Mapping[str, jax.jaxlib._jax.Array]`;
autodoc writes a parameter's as `Mapping[str, Array]`.
"""

import re


def shorten(line: str) -> str:
    """Return a docstring line, without module names if it declares an attribute's type."""
    if not line.lstrip().startswith(":vartype "):
        return line
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)", "", line)


def setup(app):
    def mend(app, what, name, thing, options, lines):
        lines[:] = map(shorten, lines)

    # After Napoleon, which writes these lines.
    app.connect("autodoc-process-docstring", mend, priority=900)
    return {"parallel_read_safe": True}
