import base64
import io

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from PIL import Image

import pinnntk_lib as pn
from pinnntk_lib import plotting

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def style():
    with plt.style.context(plotting.STYLE):
        yield
    plt.close("all")


def test_losses_and_weights_show_the_history(poisson):
    model, params, problem, points = poisson
    history = pn.train(model.apply, params, problem, points, optax.sgd(1e-6), 30, pn.NTKWeights(), log_every=10).history
    for plot, values in ((plotting.losses, history["losses"]), (plotting.weights, history["weights"])):
        ax = plot(history, plt.figure().gca())
        for line, name in zip(ax.get_lines(), ("u", "r")):
            assert (line.get_ydata() == values[name]).all()
        # the lines differ in style, not only in colour
        assert len({line.get_linestyle() for line in ax.get_lines()}) == 2
        assert len(ax.get_legend().get_texts()) == 2


def test_a_divergence_is_drawn_to_where_it_was_stopped(poisson):
    model, params, problem, points = poisson
    with pytest.raises(pn.DivergenceError) as caught:
        pn.train(model.apply, params, problem, points, optax.sgd(1.0), 1000)
    ax = plotting.losses(caught.value.result.history, divergence=caught.value)
    ends = ax.get_lines()[1::2]
    assert [line.get_xdata()[-1] for line in ends] == [caught.value.step] * 2
    assert [line.get_ydata()[-1] for line in ends] == list(caught.value.losses.values())
    assert len(ax.get_legend().get_texts()) == 2


def test_the_solution_is_drawn_beside_the_exact_one(poisson):
    model, params, problem, _ = poisson
    exact, network = plotting.solution(model.apply, params, problem, points=50).get_lines()
    assert np.allclose(exact.get_ydata(), np.sin(4 * np.pi * exact.get_xdata()), atol=1e-12)
    assert np.isclose(network.get_ydata()[7], model.apply(params, problem.grid(50)[7]))


def test_a_field_has_its_first_variable_across():
    problem = pn.problems.Wave1D()
    values = problem.exact(problem.grid(20))
    mesh = plotting.field(values, problem).collections[0]
    corners, colors = mesh.get_coordinates(), mesh.get_array()
    assert colors.shape == (20, 20)
    assert np.allclose(colors[7], values.reshape(20, 20)[:, 7])  # a row of the map is one x
    assert corners[0, :, 0].min() < 0.0 < 1.0 < corners[0, :, 0].max()
    assert mesh.get_clim() == (-abs(values).max(), abs(values).max())
    again = plotting.field(values.reshape(20, 20), problem, vmax=3.0).collections[-1]
    assert np.allclose(again.get_array(), colors)
    assert again.get_clim() == (-3.0, 3.0)


def test_a_field_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"values: expected shape .* got \(30,\)"):
        plotting.field(np.zeros(30), pn.problems.Wave1D())
    with pytest.raises(ValueError, match="problem: expected two dimensions, got 1"):
        plotting.field(np.zeros(25), pn.problems.Poisson1D())


def test_rounding_is_not_drawn_as_a_spectrum(poisson):
    model, params, problem, points = poisson
    K = pn.ntk(model.apply, params, problem, points)
    boundary, residual = plotting.spectrum(K).get_lines()
    assert len(boundary.get_ydata()) == 2
    assert len(residual.get_ydata()) == 10
    assert (np.diff(residual.get_ydata()) < 0).all()


def test_a_picture_has_its_alternative_text():
    figure = plt.figure(figsize=(3, 2))
    figure.gca().plot([0, 1])
    image = plotting.figures_html({'a "line" <up>': figure})
    assert 'alt="a &quot;line&quot; &lt;up&gt;"' in image
    data = base64.b64decode(image.partition("base64,")[2].partition('"')[0])
    assert Image.open(io.BytesIO(data)).size == (480, 320)
    assert not plt.fignum_exists(figure.number)


def test_a_solution_in_two_dimensions_is_refused(wave):
    model, params, problem, _ = wave
    with pytest.raises(ValueError, match="problem: expected one dimension, got 2"):
        plotting.solution(model.apply, params, problem)


def test_a_model_without_a_value_at_a_point_is_refused(poisson):
    _, params, problem, _ = poisson
    with pytest.raises(
        ValueError, match=r"apply\(params, x\) at x of shape \(1,\): could not be evaluated: .* takes 0 pos"
    ):
        plotting.solution(lambda: 1, params, problem)


def test_names_that_are_no_list_are_refused(poisson):
    model, params, problem, points = poisson
    K = pn.ntk(model.apply, params, problem, points)
    for names in ("u", np.array("u")):
        with pytest.raises(TypeError, match="names: expected a list of names of conditions, got"):
            plotting.spectrum(K, names=names)


def test_a_table_has_its_numbers_on_the_right_and_its_texts_on_the_left():
    table = plotting.table(["n", "what", "error"], [[5, "diverged at step 7", "-"], [50, "u", "-1e-05"]])
    assert str(table).split("\n") == [
        " n  what                 error",
        " 5  diverged at step 7       -",
        "50  u                   -1e-05",
    ]
    assert str(plotting.table(["width"], [[1], [1000], ["limit"]])) == "width\n    1\n 1000\nlimit"
    html = table._repr_html_()
    assert "<td style='text-align:left'>u</td><td>-1e-05</td>" in html
    assert "<th scope='row'>50</th>" in html
