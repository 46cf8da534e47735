"""Domains that are no boxes."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

import pinnntk_lib as pn
from pinnntk_lib.problems import Ball, Polygon

L_SHAPE = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]
STAR = [(np.cos(a) * r, np.sin(a) * r) for a, r in zip(np.arange(10) * np.pi / 5, [1.0, 0.35] * 5)]
KEYS = [None, jax.random.key(3)]


@pytest.mark.parametrize("key", KEYS, ids=["even", "random"])
@pytest.mark.parametrize("center", [(1.0, -2.0), (0.5, 0.0, 3.0)], ids=["disc", "ball"])
def test_points_fill_a_ball_evenly(center, key):
    ball = Ball(center, radius=2.0)
    x = np.asarray(ball.inside(4000, key)) - center
    distance = np.linalg.norm(x, axis=1)
    assert distance.max() < 2.0
    d = len(center)
    # the fraction within each radius is the ratio of volumes; 0.03 is four standard deviations of a random sample
    for share in (0.3, 0.6, 0.9):
        assert np.mean(distance < 2.0 * share) == pytest.approx(share**d, abs=0.03)
    assert abs(x.mean(axis=0)).max() < 0.1
    # every direction is as likely in each half of the volume
    inner = distance < 2.0 * 0.5 ** (1 / d)
    for half in (inner, ~inner):
        moments = x[half].T @ x[half] / np.sum(distance[half] ** 2)
        assert np.allclose(moments, np.eye(d) / d, atol=0.05)


@pytest.mark.parametrize("key", KEYS, ids=["even", "random"])
@pytest.mark.parametrize("center", [(1.0, -2.0), (0.5, 0.0, 3.0)], ids=["disc", "ball"])
def test_normals_of_a_ball_obey_the_divergence_theorem(center, key):
    """The integral of x . n over the boundary is d times the volume: for a ball, |boundary| radius + 0."""
    edge = Ball(center, radius=2.0).boundary(1000, key)
    assert np.allclose(np.linalg.norm(edge.x - np.array(center), axis=1), 2.0)
    assert np.allclose(np.asarray(edge.x), np.array(center) + 2.0 * np.asarray(edge.normal))
    flux = np.mean(np.sum(np.asarray(edge.x) * np.asarray(edge.normal), axis=1))
    assert flux == pytest.approx(2.0, abs=1e-2 if key is None else 0.3)


@pytest.mark.parametrize("key", KEYS, ids=["even", "random"])
@pytest.mark.parametrize("vertices", [L_SHAPE, L_SHAPE[::-1], STAR], ids=["L", "clockwise", "star"])
def test_points_fill_a_polygon_evenly(vertices, key):
    shape = Polygon(vertices)
    x = np.asarray(shape.inside(6000, key))
    outline = Outline([*vertices, vertices[0]])
    assert outline.contains_points(x, radius=1e-9).all() or outline.contains_points(x, radius=-1e-9).all()
    low, high = np.min(vertices, axis=0), np.max(vertices, axis=0)
    box = low + (high - low) * np.random.default_rng(0).uniform(size=(20_000, 2))
    inside = outline.contains_points(box)
    assert shape.area == pytest.approx(np.prod(high - low) * inside.mean(), rel=0.03)
    for axis in (0, 1):  # the same quartiles as of points that are drawn by rejection
        expected = np.quantile(box[inside][:, axis], [0.25, 0.5, 0.75])
        assert np.allclose(np.quantile(x[:, axis], [0.25, 0.5, 0.75]), expected, atol=0.05)


@pytest.mark.parametrize("key", KEYS, ids=["even", "random"])
@pytest.mark.parametrize("vertices", [L_SHAPE, STAR], ids=["L", "star"])
def test_normals_of_a_polygon_point_outwards(vertices, key):
    shape = Polygon(vertices)
    edge = shape.boundary(2000, key)
    x, normal = np.asarray(edge.x), np.asarray(edge.normal)
    assert np.allclose(np.linalg.norm(normal, axis=1), 1)
    outline = Outline([*vertices, vertices[0]])
    assert not outline.contains_points(x + 1e-6 * normal).any()
    assert outline.contains_points(x - 1e-6 * normal).all()
    corners = np.array(shape.vertices)
    perimeter = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1).sum()
    flux = perimeter * np.mean(np.sum(x * normal, axis=1))
    assert flux == pytest.approx(2 * shape.area, rel=0.01 if key is None else 0.1)


@given(angles=st.lists(st.floats(0.2, 1.0), min_size=3, max_size=12), radii=st.lists(st.floats(0.1, 5.0), min_size=12))
def test_the_triangles_of_a_star_shaped_polygon_have_its_area(angles, radii):
    angles = 2 * np.pi * np.cumsum(angles) / np.sum(angles)
    if np.diff([*angles, angles[0] + 2 * np.pi]).max() > 3.0:
        return  # the centre would not be inside
    shape = Polygon([(r * np.cos(a), r * np.sin(a)) for a, r in zip(angles, radii)])
    x, y = np.array(shape._triangles).transpose(2, 0, 1)
    areas = 0.5 * ((x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0]))
    assert (areas > 0).all()
    assert areas.sum() == pytest.approx(shape.area)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Ball((0.0,)), ValueError, r"center: expected two or three numbers, got \(0.0,\)"),
        (lambda: Ball((0.0, np.nan)), ValueError, "center: expected finite numbers, got"),
        (lambda: Ball(radius=0), ValueError, "radius: expected a positive number, got 0"),
        (lambda: Polygon([(0, 0), (1, 1)]), ValueError, r"at least three corners \(m, 2\), got shape \(2, 2\)"),
        (lambda: Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), ValueError, "edges do not cross or touch, got"),
        (lambda: Polygon([(0, 0), (1, "a"), (1, 0)]), TypeError, "vertices: expected real numbers, got"),
    ],
)
def test_what_is_no_domain(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.slow
def test_a_neumann_problem_on_an_l_shape_is_solved():
    """u = x^2 - y^2 is harmonic; its normal derivatives, and one value, determine it."""
    shape = Polygon(L_SHAPE)
    problem = pn.Problem(
        {
            "flux": pn.Condition(
                lambda u, p: pn.gradient(u)(p.x) @ p.normal,
                lambda p: 2 * (p.x[0] * p.normal[0] - p.x[1] * p.normal[1]),
                shape.boundary,
            ),
            "u": pn.Condition(lambda u, x: u(x), 0.0, lambda n, key: np.zeros((n, 2))),
            "r": pn.Condition(lambda u, x: pn.laplacian(u)(x), 0.0, shape.inside),
        },
        (0.0, 0.0),
        (2.0, 2.0),
        lambda x: x[..., 0] ** 2 - x[..., 1] ** 2,
    )
    points = problem.points({"flux": 60, "u": 1, "r": 80})
    model = pn.MLP(40, dim=2, **pn.normalization(points["r"]))
    setting = model.apply, model.init(jax.random.key(0)), problem, points
    result = pn.train(*setting, pn.kernel_gradient_descent(), 60, test_points=shape.inside(500))
    assert result.history["error"][-1] < 1e-4
