import ipywidgets
import pytest

from pinnntk_lib import widgets

VALUES = {"Width": [10, 50], "Learning rate": [1e-5, 1e-3, 1e-1]}


def panel(width, rate):
    if rate < 0:
        raise ValueError("rate: expected <positive>")
    return f"<img alt='{width}, {rate}'>"


def children(widget, kind):
    """Return every widget of a kind inside a widget, in order."""
    inside = getattr(widget, "children", ())
    return ([widget] if isinstance(widget, kind) else []) + [w for child in inside for w in children(child, kind)]


def shown(explorer):
    """Return the visible page by following the stacks."""
    view = explorer.children[2]
    while isinstance(view, getattr(ipywidgets, "Stack", ())):
        view = view.children[view.selected_index]
    return view.value


@pytest.mark.skipif(not hasattr(ipywidgets, "Stack"), reason="ipywidgets 7 has no stacks")
def test_every_pair_has_its_page():
    explorer = widgets.explorer(panel, VALUES, start=(1, 2))
    width, rate = children(explorer, ipywidgets.SelectionSlider)
    assert (width.value, rate.value) == (50, 1e-1)
    assert [label for label, _ in rate.options] == ["1e-5", "1e-3", "1e-1"]
    assert shown(explorer) == "<img alt='50, 0.1'>"
    pages = {page.value for page in children(explorer, ipywidgets.HTML)}
    assert pages >= {panel(width, rate) for width in VALUES["Width"] for rate in VALUES["Learning rate"]}


def test_without_stacks_the_kernel_turns_the_pages(monkeypatch):
    """Without stacks, as in ipywidgets 7 on Colab, the kernel updates the page."""
    monkeypatch.delattr(ipywidgets, "Stack", raising=False)
    explorer = widgets.explorer(panel, VALUES)
    width, rate = children(explorer, ipywidgets.SelectionSlider)
    assert shown(explorer) == "<img alt='10, 1e-05'>"
    width.value, rate.value = 50, 1e-3
    assert shown(explorer) == "<img alt='50, 0.001'>"


def test_values_off_the_grid():
    explorer = widgets.explorer(panel, VALUES)
    form = explorer.children[3]
    assert "pn-needs-kernel" in form._dom_classes
    width, rate = children(form, (ipywidgets.BoundedIntText, ipywidgets.FloatText))
    (button,) = children(form, ipywidgets.Button)
    page = form.children[-1]
    width.value, rate.value = 33, 2e-4
    button.click()
    assert page.value == "<img alt='33, 0.0002'>"
    rate.value = -1.0
    button.click()
    assert "rate: expected &lt;positive&gt;" in page.value
    assert not button.disabled


@pytest.mark.parametrize("values", [{"Width": [1, 2]}, {"Width": [1, 2], "Learning rate": [1.0]}])
def test_bad_input(values):
    with pytest.raises(ValueError, match="values: expected two labels with at least two values each"):
        widgets.explorer(panel, values)
