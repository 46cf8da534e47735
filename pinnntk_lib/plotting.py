"""Plots of training and of kernels, in one colour-blind-safe style, and tables.

``plt.style.use(plotting.STYLE)`` selects the style. A function that takes ``ax`` draws into these axes, or into the
current ones if None, and returns them.
"""

import base64
import html
import io
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from pinnntk_lib._check import (
    check_count,
    check_function,
    check_model,
    check_name_list,
    check_numbers,
    check_params,
    check_positive,
)
from pinnntk_lib._deprecated import renamed_keywords
from pinnntk_lib._text import Table
from pinnntk_lib._types import Apply, Params
from pinnntk_lib.kernel import NTK, check_kernel
from pinnntk_lib.problems import Problem, check_problem
from pinnntk_lib.training import DivergenceError

__all__ = ["STYLE", "field", "figures_html", "losses", "solution", "spectrum", "table", "weights"]

STYLE = str(files("pinnntk_lib") / "pinnntk.mplstyle")

# A condition looks the same in every figure, and differs from the others in line style as well as in colour.
_LOOK = {
    "u": {"color": "#0072B2", "linestyle": "-"},
    "r": {"color": "#D55E00", "linestyle": "--"},
    "ut": {"color": "#009E73", "linestyle": "-."},
}
_OTHER = {"linestyle": ":"}


def losses(history: Mapping[str, Any], ax: Axes | None = None, divergence: DivergenceError | None = None) -> Axes:
    """Plot the loss of every condition against the step, on logarithmic axes; step 0 is drawn at 1.

    Args:
        history: the history of a :class:`~pinnntk_lib.Result`.
        ax: axes to draw into; the current ones if None.
        divergence: the :class:`~pinnntk_lib.training.DivergenceError` that ended the run, if any. A dotted line leads
            to the losses at which the run was stopped.
    """
    ax, (steps, columns) = _axes(ax), _columns(history, "losses")
    if not isinstance(divergence, DivergenceError | None):
        raise TypeError(f"divergence: expected a DivergenceError or None, got {divergence!r}")
    steps = np.maximum(steps, 1)
    for name, values in columns.items():
        (line,) = ax.loglog(steps, values, label=rf"$\mathcal{{L}}_{{{name}}}$", **line_look(name))
        if divergence is not None:
            end = [steps[-1], divergence.step], [values[-1], divergence.losses[name]]
            ax.plot(*end, color=line.get_color(), linestyle=":", marker="x", markevery=[1])
    ax.set(xlabel="step", ylabel="loss")
    ax.legend()
    return ax


def weights(history: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Plot the weight of every condition against the step, on a logarithmic vertical axis.

    Args:
        history: the history of a :class:`~pinnntk_lib.Result`.
        ax: axes to draw into; the current ones if None.
    """
    ax, (steps, columns) = _axes(ax), _columns(history, "weights")
    for name, values in columns.items():
        ax.semilogy(steps, values, label=rf"$\lambda_{{{name}}}$", **line_look(name))
    ax.set(xlabel="step", ylabel="weight")
    ax.legend()
    return ax


def solution(apply: Apply, params: Params, problem: Problem, ax: Axes | None = None, points: int = 400) -> Axes:
    """Plot a network of one input together with the exact solution, if there is one.

    Raises:
        ValueError: if the problem has more than one dimension.
    """
    check_function("apply", apply, "a function apply(params, x)")
    check_params(params)
    check_problem(problem)
    if problem.dim != 1:
        raise ValueError(f"problem: expected one dimension, got {problem.dim}")
    x = problem.grid(check_count("points", points))
    check_model(apply, params, x[0])
    ax = _axes(ax)
    if problem.exact is not None:
        ax.plot(x[:, 0], problem.exact(x), color="black", linewidth=1.2, label="exact")
    ax.plot(x[:, 0], jax.vmap(lambda y: apply(params, y))(x), color="#D55E00", linestyle="--", label="network")
    ax.set(xlabel="$x$", ylabel="$u$")
    ax.legend()
    return ax


@renamed_keywords(limit="vmax", names="labels")
def field(
    values: np.ndarray | jax.Array,
    problem: Problem,
    ax: Axes | None = None,
    vmax: float | None = None,
    labels: tuple[str, str] = ("$t$", "$x$"),
) -> Axes:
    """Plot a function of two variables as a colour map, blue below zero and red above.

    For a colour bar, pass ``ax.collections[0]`` to Matplotlib.

    Args:
        values: values at ``problem.grid(n)``, of shape (n, n) or (n * n,).
        vmax: absolute value at the ends of the colour scale; the largest absolute value if None.
        labels: axis labels of the first variable (horizontal) and the second (vertical).

    Raises:
        ValueError: if the problem is not two-dimensional, or the shape of the values is not that of a square grid.
    """
    check_problem(problem)
    if problem.dim != 2:
        raise ValueError(f"problem: expected two dimensions, got {problem.dim}")
    values = check_numbers("values", values)
    side = math.isqrt(values.size)
    if not side or values.shape not in ((side, side), (side * side,)):
        raise ValueError(f"values: expected shape (n, n) or (n * n,), got {values.shape}")
    ax = _axes(ax)
    vmax = np.abs(values).max(initial=0.0) if vmax is None else check_positive("vmax", vmax)
    if not (isinstance(labels, Sequence) and len(labels) == 2 and all(isinstance(label, str) for label in labels)):
        raise ValueError(f"labels: expected two axis labels, got {labels!r}")
    across, up = (np.linspace(a, b, side) for a, b in zip(problem.lower, problem.upper))
    ax.pcolormesh(across, up, values.reshape(side, side).T, cmap="RdBu_r", vmin=-vmax, vmax=vmax, rasterized=True)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    ax.grid(False)
    return ax


def spectrum(
    K: NTK, ax: Axes | None = None, names: Collection[str] | None = None, suffix: str = "", **look: Any
) -> Axes:
    """Plot the eigenvalues of the diagonal blocks against their rank, on logarithmic axes, down to rounding error.

    Args:
        names: conditions to show; all if None.
        suffix: text added to each label.
        look: line properties that override the condition's own.
    """
    check_kernel("K", K)
    shown = K.names if names is None else check_name_list("names", names)
    ax = _axes(ax)
    for name in shown:
        eigenvalues = np.asarray(K.eigvalsh(name))
        # Eigenvalues below this level are rounding error and may be negative.
        kept = eigenvalues[eigenvalues > len(eigenvalues) * np.finfo(eigenvalues.dtype).eps * eigenvalues[0]]
        label = rf"$K_{{{name}{name}}}${suffix}"
        ax.loglog(np.arange(1, len(kept) + 1), kept, label=label, marker="o", ms=3, **{**line_look(name), **look})
    ax.set(xlabel="rank", ylabel="eigenvalue")
    ax.legend()
    return ax


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Return a table, which a notebook shows as HTML and a terminal as text.

    Args:
        columns: the names of the columns.
        rows: the cells of each row, texts or numbers; the first of them names the row.

    Raises:
        ValueError: if a row has not one cell per column.

    Example:
        >>> table(["points", "error"], [[6, f"{0.92:.0e}"], [50, f"{8e-7:.0e}"]])
        points  error
             6  9e-01
            50  8e-07
    """
    if not isinstance(columns, Sequence) or isinstance(columns, str):
        raise TypeError(f"columns: expected a list of names, got {columns!r}")
    try:
        cells = [tuple(map(str, row)) for row in rows]
    except TypeError as error:
        raise TypeError(f"rows: expected a list of rows of cells, got {rows!r}") from error
    for row in cells:
        if len(row) != len(columns):
            raise ValueError(f"rows: expected {len(columns)} cells, one for each of {[*columns]}, got {row}")
    return Table((tuple(columns), *cells))


def figures_html(figures: Mapping[str, Figure]) -> str:
    """Convert figures to HTML images and close them.

    The images stand side by side where there is room, and are stacked on a phone.

    Args:
        figures: ``{alternative text: figure}``. The text says in a sentence what the figure shows.
    """
    if not isinstance(figures, Mapping) or not all(isinstance(figure, Figure) for figure in figures.values()):
        raise TypeError(f"figures: expected {{alternative text: figure}}, got {figures!r}")
    images = "".join(_image(figure, alt) for alt, figure in figures.items())
    return f'<div style="display:flex;flex-wrap:wrap;gap:0.5em">{images}</div>'


def _image(figure, alt):
    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    # A line drawing needs few colours, and a palette reduces the file to a third of its size.
    Image.open(drawn).convert("RGB").quantize(64).save(buffer, format="png", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    style = "flex:1 1 12em;min-width:0;max-width:24em;height:auto"
    return f'<img alt="{html.escape(alt)}" style="{style}" src="data:image/png;base64,{data}">'


def _axes(ax):
    if ax is None:
        return plt.gca()
    if not isinstance(ax, Axes):
        raise TypeError(f"ax: expected Matplotlib's axes or None, got {ax!r}")
    return ax


def _columns(history, kind):
    """Return the steps of a history, and one kind of its columns, ``{name: values}``."""
    if not (isinstance(history, Mapping) and "step" in history and isinstance(history.get(kind), Mapping)):
        raise TypeError(f"history: expected that of a pinnntk_lib.Result, got {history!r}")
    steps = check_numbers("history['step']", history["step"])
    columns = {name: check_numbers(f"history[{kind!r}][{name!r}]", of) for name, of in history[kind].items()}
    for name, values in columns.items():
        if steps.ndim != 1 or values.shape != steps.shape:
            shapes = f"{values.shape} for steps of shape {steps.shape}"
            raise ValueError(f"history[{kind!r}][{name!r}]: expected one number per step, got shape {shapes}")
    return steps, columns


def line_look(name):
    """Return the keyword arguments of ``plot`` with which a condition is drawn in every figure."""
    return _LOOK.get(name, _OTHER)
