"""Widgets that work with a kernel, and without one in the rendered book.

Every picture on the grid is drawn beforehand and stored in the page; the sliders choose among them in the browser.
With a kernel, a form below computes pictures for values off the grid too.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import ipywidgets as w
import numpy as np

__all__ = ["explorer"]

# As wide as there is room, and no wider: on a phone the pictures come one below the other.
_WIDE = {"width": "100%"}


def explorer(panel: Callable[..., str], values: Mapping[str, Sequence[float]], start: Sequence[int] = (0, 0)) -> w.VBox:
    """Two sliders over pictures, and a form for values between.

    Args:
        panel: ``(first, second) -> HTML``; called once for each pair of values, and again for each the reader enters.
            Images in it need alternative text, which :func:`pinnntk_lib.plotting.figures_html` asks for.
        values: two entries, ``{label: values}``. A label's values are all int, or all float.
        start: the positions of the two sliders at first.

    Returns:
        The widget. Its form has the CSS class ``pn-needs-kernel``, which the book hides.

    Raises:
        ValueError: if there are not two sliders with at least two values each.
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
    """What shows the page that the sliders point to."""
    if not hasattr(w, "Stack"):  # ipywidgets 7, as on Colab: a kernel is there, and turns the pages
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
    """Number fields, a button, and the page they lead to."""
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
