"""Pictures of training and of kernels, in one style that is safe for the colour-blind.

``plt.style.use(plotting.STYLE)`` sets it. Every function draws into the axes it is given and returns them.
"""

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from pinnntk_lib._deprecated import renamed_keywords
from pinnntk_lib._types import Apply, Params
from pinnntk_lib.kernel import NTK
from pinnntk_lib.problems import Problem
from pinnntk_lib.training import DivergenceError

__all__ = ["STYLE", "field", "figures_html", "losses", "solution", "spectrum", "weights"]

STYLE = str(files("pinnntk_lib") / "pinnntk.mplstyle")

# A condition looks the same in every figure, told apart by line as well as by colour.
_LOOK = {
    "u": {"color": "#0072B2", "linestyle": "-"},
    "r": {"color": "#D55E00", "linestyle": "--"},
    "ut": {"color": "#009E73", "linestyle": "-."},
}
_OTHER = {"linestyle": ":"}


def losses(history: Mapping[str, Any], ax: Axes | None = None, divergence: DivergenceError | None = None) -> Axes:
    """The loss of every condition against the step, on logarithmic axes (the first row, step 0, at 1).

    Args:
        divergence: the :class:`~pinnntk_lib.training.DivergenceError` that ended the run, if one did: a dotted line
            leads to the losses at which it was stopped.
    """
    ax = ax or plt.gca()
    steps = np.maximum(history["step"], 1)
    for name, values in history["losses"].items():
        (line,) = ax.loglog(steps, values, label=rf"$\mathcal{{L}}_{{{name}}}$", **line_look(name))
        if divergence is not None:
            end = [steps[-1], divergence.step], [values[-1], divergence.losses[name]]
            ax.plot(*end, color=line.get_color(), linestyle=":", marker="x", markevery=[1])
    ax.set(xlabel="step", ylabel="loss")
    ax.legend()
    return ax


def weights(history: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """The weight of every condition against the step, on a logarithmic vertical axis."""
    ax = ax or plt.gca()
    for name, values in history["weights"].items():
        ax.semilogy(history["step"], values, label=rf"$\lambda_{{{name}}}$", **line_look(name))
    ax.set(xlabel="step", ylabel="weight")
    ax.legend()
    return ax


def solution(apply: Apply, params: Params, problem: Problem, ax: Axes | None = None, points: int = 400) -> Axes:
    """A one-dimensional network beside the exact solution.

    Raises:
        ValueError: if the problem has more than one dimension.
    """
    if problem.dim != 1:
        raise ValueError(f"problem: expected one dimension, got {problem.dim}")
    ax = ax or plt.gca()
    x = problem.grid(points)
    if problem.exact is not None:
        ax.plot(x[:, 0], problem.exact(x), color="black", linewidth=1.2, label="exact")
    ax.plot(x[:, 0], jax.vmap(lambda y: apply(params, y))(x), color="#D55E00", linestyle="--", label="network")
    ax.set(xlabel="$x$", ylabel="$u$")
    ax.legend()
    return ax


@renamed_keywords(limit="vmax", names="labels")
def field(
    values: ArrayLike,
    problem: Problem,
    ax: Axes | None = None,
    vmax: float | None = None,
    labels: tuple[str, str] = ("$t$", "$x$"),
) -> Axes:
    """A function of two variables as a map, blue below zero and red above; ``ax.collections[0]`` is for a colour bar.

    Args:
        values: (n, n) or (n * n,), at ``problem.grid(n)``.
        vmax: the absolute value at the ends of the colour scale; the largest if None.
        labels: of the first variable, drawn across, and of the second, upwards.

    Raises:
        ValueError: if the problem has not two dimensions, or the values are not those of a square grid.
    """
    if problem.dim != 2:
        raise ValueError(f"problem: expected two dimensions, got {problem.dim}")
    values = np.asarray(values)
    side = math.isqrt(values.size)
    if values.shape not in ((side, side), (side * side,)):
        raise ValueError(f"values: expected shape (n, n) or (n * n,), got {values.shape}")
    ax = ax or plt.gca()
    vmax = abs(values).max() if vmax is None else vmax
    across, up = (np.linspace(a, b, side) for a, b in zip(problem.lower, problem.upper))
    ax.pcolormesh(across, up, values.reshape(side, side).T, cmap="RdBu_r", vmin=-vmax, vmax=vmax, rasterized=True)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    ax.grid(False)
    return ax


def spectrum(K: NTK, ax: Axes | None = None, names: Iterable[str] | None = None, suffix: str = "", **look: Any) -> Axes:
    """Eigenvalues of the diagonal blocks against their rank, on logarithmic axes, down to rounding.

    Args:
        names: the conditions to show; all if None.
        suffix: added to each label.
        look: line properties that override the condition's own.
    """
    ax = ax or plt.gca()
    for name in K.names if names is None else names:
        eigenvalues = np.asarray(K.eigvalsh(name))
        # Below this an eigenvalue is rounding, and may be negative.
        kept = eigenvalues[eigenvalues > len(eigenvalues) * np.finfo(eigenvalues.dtype).eps * eigenvalues[0]]
        label = rf"$K_{{{name}{name}}}${suffix}"
        ax.loglog(np.arange(1, len(kept) + 1), kept, label=label, marker="o", ms=3, **{**line_look(name), **look})
    ax.set(xlabel="rank", ylabel="eigenvalue")
    ax.legend()
    return ax


def figures_html(figures: Mapping[str, Figure]) -> str:
    """Figures as HTML images, side by side where there is room and below one another on a phone; they are closed.

    Args:
        figures: ``{alternative text: figure}``, the text saying in a sentence what the picture shows.
    """
    images = "".join(_image(figure, alt) for alt, figure in figures.items())
    return f'<div style="display:flex;flex-wrap:wrap;gap:0.5em">{images}</div>'


def _image(figure, alt):
    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    # A line drawing needs few colours: a palette makes the picture a third of its size.
    Image.open(drawn).convert("RGB").quantize(64).save(buffer, format="png", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    style = "flex:1 1 12em;min-width:0;max-width:24em;height:auto"
    return f'<img alt="{html.escape(alt)}" style="{style}" src="data:image/png;base64,{data}">'


def line_look(name):
    """How a condition is drawn everywhere: keyword arguments of ``plot``."""
    return _LOOK.get(name, _OTHER)
