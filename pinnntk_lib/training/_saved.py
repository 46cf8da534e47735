"""Parameters in a file, saved and loaded in one call each."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_params, check_path
from pinnntk_lib._types import Params

FORM = "form"  # the entry that describes the structure
KINDS = {"dict": dict, "list": list, "tuple": tuple}


def save_params(file: str | Path, params: Params) -> None:
    """Write parameters to a file, in NumPy's format .npz. An existing file is replaced at once, or not at all.

    For a run that is to be resumed, use ``checkpoints`` of :func:`~pinnntk_lib.train`, which also hold the optimiser.

    Args:
        file: the file's name; nothing is added to it.
        params: a pytree of floating-point arrays.

    Raises:
        ValueError, TypeError: if ``params`` is not such a pytree, or a number is not finite.
        OSError: if the file cannot be written.

    Example:
        >>> import jax, tempfile, pinnntk_lib as pn
        >>> model = pn.MLP(width=20)
        >>> params = model.init(jax.random.key(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pn.save_params(f"{folder}/model.npz", params)
        ...     loaded = pn.load_params(f"{folder}/model.npz")
        ...
        >>> bool(model.apply(loaded, jax.numpy.zeros(1)) == model.apply(params, jax.numpy.zeros(1)))
        True
    """
    check_params(params)
    path = check_path("file", file)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    described = {"dtypes": [leaf.dtype.name for leaf in leaves], "tree": _form(params, iter(range(len(leaves))))}
    with tempfile.NamedTemporaryFile(dir=path.absolute().parent, prefix=path.name, delete=False) as written:
        try:
            contents: Any = {str(i): leaf for i, leaf in enumerate(leaves)} | {FORM: np.array(json.dumps(described))}
            np.savez(written, **contents)
        except BaseException:
            os.unlink(written.name)
            raise
    os.replace(written.name, path)


def load_params(file: str | Path, like: Params | None = None) -> Params:
    """Read parameters that :func:`save_params` has written.

    Args:
        file: the file's name.
        like: parameters of the same structure and shapes, such as newly initialised ones. They are needed if the
            structure has nodes other than dicts with names, lists and tuples; and they make sure that the file fits
            the model.

    Returns:
        The parameters, with the precision of the saved ones (in single precision if JAX's double precision is off).

    Raises:
        ValueError: if the file holds no parameters, or others than ``like``, or ``like`` is needed.
        OSError: if the file cannot be read.

    Example:
        See :func:`save_params`. A model of another width is refused:

        >>> import jax, tempfile, pinnntk_lib as pn
        >>> small, large = (pn.MLP(width).init(jax.random.key(0)) for width in (10, 20))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pn.save_params(f"{folder}/model.npz", small)
        ...     try:
        ...         pn.load_params(f"{folder}/model.npz", like=large)
        ...     except ValueError as error:
        ...         print(error)
        ...
        file: expected params[0]['W'] of shape (20, 1), as in like, got (10, 1)
    """
    described, leaves = _read(check_path("file", file))
    if like is None:
        if described["tree"] is None:
            raise ValueError(
                "like: expected parameters of the saved structure, which has nodes other than dicts, lists and tuples"
            )
        return _filled(described["tree"], leaves)
    expected, treedef = jax.tree_util.tree_flatten_with_path(like)
    if len(expected) != len(leaves):
        raise ValueError(f"file: expected {len(expected)} arrays, as in like, got {len(leaves)}")
    for (path, leaf), found in zip(expected, leaves):
        if np.shape(leaf) != found.shape:
            where = f"params{jax.tree_util.keystr(path)}"
            raise ValueError(f"file: expected {where} of shape {np.shape(leaf)}, as in like, got {found.shape}")
    return jax.tree.unflatten(treedef, leaves)


def _read(path):
    """Return the description and the arrays in a file."""
    try:
        with np.load(path, allow_pickle=False) as contents:
            described = json.loads(str(contents[FORM]))
            arrays = [contents[str(i)] for i in range(len(described["dtypes"]))]
    except OSError:
        raise
    except Exception as error:  # NumPy and zipfile have many ways to say that a file is something else
        raise ValueError(f"file: expected one that save_params has written, got {path}: {error}") from error
    # NumPy stores types that it does not know, such as bfloat16, as bytes.
    return described, [jnp.asarray(a.view(jnp.dtype(name))) for a, name in zip(arrays, described["dtypes"])]


def _form(tree, numbers):
    """Return a tree of dicts, lists and tuples in JSON, with the leaves' numbers; None if there are other nodes."""
    if jax.tree_util.all_leaves([tree]):
        return next(numbers)
    kind = type(tree).__name__
    if type(tree) not in KINDS.values() or (kind == "dict" and not all(isinstance(key, str) for key in tree)):
        return None
    children = [(key, tree[key]) for key in sorted(tree)] if kind == "dict" else list(enumerate(tree))
    forms = [(key, _form(child, numbers)) for key, child in children]
    return None if any(form is None for _, form in forms) else {kind: forms}


def _filled(form, leaves):
    if isinstance(form, int):
        return leaves[form]
    ((kind, children),) = form.items()
    items = [(key, _filled(child, leaves)) for key, child in children]
    return dict(items) if kind == "dict" else KINDS[kind](value for _, value in items)
