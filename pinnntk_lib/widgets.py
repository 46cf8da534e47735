"""Widgets that work both with a Jupyter kernel and, without one, in the rendered book.

The pictures for all slider positions are drawn in advance and stored in the page, and the sliders switch between them
in the browser. With a Jupyter kernel, a form below also computes pictures for other values.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import ipywidgets as w
import numpy as np

__all__ = ["explorer"]

# As wide as the page and no wider, so that the pictures stack on a phone.
_WIDE = {"width": "100%"}


def explorer(panel: Callable[..., str], values: Mapping[str, Sequence[float]], start: Sequence[int] = (0, 0)) -> w.VBox:
    """Create two sliders that select a picture, and a form that computes it for other values.

    Args:
        panel: ``(first, second) -> HTML``, called once for each pair of values, and again for each pair that the
            reader enters. Its images need alternative text, as in :func:`pinnntk_lib.plotting.figures_html`.
        values: two entries ``{label: values}``. The values of one label are either all int or all float.
        start: initial positions of the two sliders, as indices into their values.

    Returns:
        The widget. Its form has the CSS class ``pn-needs-kernel``, which the book hides.

    Raises:
        ValueError: if there are not exactly two labels with at least two values each.
    """
    if len(values) != 2 or any(len(choices) < 2 for choices in values.values()):
        raise ValueError(f"values: expected two labels with at least two values each, got {dict(values)}")
    sliders = [
        w.SelectionSlider(
            options=[(_shown(value), value) for value in choices],
            index=index,
            description=label,
            continuous_update=True,
            style={"description_width": "8em"},
            layout=w.Layout(width="100%", max_width="32em"),
        )
        for (label, choices), index in zip(values.items(), start)
    ]
    pages = {pair: panel(*pair) for pair in product(*values.values())}
    form = _form(panel, {label: choices[index] for (label, choices), index in zip(values.items(), start)})
    return w.VBox([*sliders, _pages(sliders, pages), form])


def _pages(sliders, pages):
    """Return a widget that shows the page which the sliders select."""
    if not hasattr(w, "Stack"):  # ipywidgets 7, as on Colab, where a kernel is present and turns the pages
        page = w.HTML(layout=_WIDE)

        def turn(_=None):
            page.value = pages[tuple(slider.value for slider in sliders)]

        turn()
        for slider in sliders:
            slider.observe(turn, "value")
        return page

    outer, inner = sliders
    rows = []
    for _, first in outer.options:
        row = w.Stack(
            [w.HTML(pages[first, second], layout=_WIDE) for _, second in inner.options],
            selected_index=inner.index,
            layout=_WIDE,
        )
        w.jslink((inner, "index"), (row, "selected_index"))
        rows.append(row)
    stack = w.Stack(rows, selected_index=outer.index, layout=_WIDE)
    w.jslink((outer, "index"), (stack, "selected_index"))
    return stack


def _form(panel, values):
    """Return number fields, a button, and the page that the button computes."""
    fields = [_field(label, value) for label, value in values.items()]
    button, page = w.Button(description="Train", tooltip="Train at these values"), w.HTML(layout=_WIDE)

    def compute(_):
        button.disabled, page.value = True, "<p role='status'>Training …</p>"
        try:
            page.value = panel(*(field.value for field in fields))
        except (ValueError, TypeError) as error:
            page.value = f"<p role='alert'>{html.escape(str(error))}</p>"
        finally:
            button.disabled = False

    button.on_click(compute)
    box = w.VBox([w.HTML("<b>Or any other values</b>"), *fields, button, page])
    box.add_class("pn-needs-kernel")
    return box


def _field(label, value):
    look = {"description": label, "style": {"description_width": "8em"}}
    if isinstance(value, int):
        return w.BoundedIntText(value=value, min=1, max=100_000, **look)
    return w.FloatText(value=value, **look)


def _shown(value):
    return str(value) if isinstance(value, int) else np.format_float_scientific(value, trim="-", exp_digits=1)
