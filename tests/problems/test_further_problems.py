"""Problems beyond the paper: their exact solutions, and training on them with kernel gradient descent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import pinnntk_lib as pn
from pinnntk_lib import problems
from pinnntk_lib.problems import _further as further

FORMULAS = {
    "Heat1D": problems.Heat1D(diffusivity=0.3, k=2),
    "Advection1D": problems.Advection1D(),
    "Burgers1D": problems.Burgers1D(),
    "Helmholtz2D": problems.Helmholtz2D(a1=2, a2=3, k=1.5),
    "KleinGordon1D": problems.KleinGordon1D(),
    "InverseHeat1D": problems.InverseHeat1D(),
    "Schrodinger1D": problems.Schrodinger1D(),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("key", [None, jax.random.key(3)])
def test_formulas_meet_every_condition(name, key):
    problem = FORMULAS[name]
    for condition, residuals in problem.residuals(problem.exact, problem.points(50, key)).items():
        # second derivatives are of size 100 to 1000
        assert np.abs(residuals).max() < 1e-10, condition


@pytest.mark.parametrize("problem", [*FORMULAS.values(), problems.AllenCahn1D()], ids=[*FORMULAS, "AllenCahn1D"])
def test_points_are_on_the_domain_and_solutions_of_any_number(problem):
    for key in (None, jax.random.key(0)):
        for n in (1, 2, 50):
            for x in problem.points(n, key).values():
                assert x.shape == (n, 2)
                assert (np.array(problem.lower) <= x).all()
                assert (x <= np.array(problem.upper)).all()
    x = problem.grid(4)
    assert np.allclose(jax.vmap(problem.exact)(x), problem.exact(x), rtol=1e-12)
    assert np.isfinite(problem.exact(x.astype(np.float32))).all()


def test_burgers_is_what_a_spectral_method_finds():
    """The exact solution agrees with a Fourier spectral method and SciPy's ODE solver."""
    n, viscosity = 1024, 0.01 / np.pi
    x = -1 + 2 * np.arange(n) / n
    k = np.pi * np.fft.rfftfreq(n, 1 / n)

    def slope(_, u):
        # u u_x as (u^2)_x / 2, without the highest third of the modes, which would alias
        flux = np.fft.irfft(np.where(k < 2 / 3 * k[-1], 0.5j * k * np.fft.rfft(u**2), 0))
        return -flux - viscosity * np.fft.irfft(k**2 * np.fft.rfft(u))

    found = solve_ivp(slope, (0, 1), -np.sin(np.pi * x), method="LSODA", t_eval=[0.25, 1.0], rtol=1e-8, atol=1e-10)
    for t, u in zip(found.t, found.y.T):
        exact = problems.Burgers1D().exact(jnp.stack([jnp.full(n, t), jnp.asarray(x)], axis=1))
        assert np.linalg.norm(u - exact) < 1e-5 * np.linalg.norm(u)


def test_allen_cahn_s_reference():
    """The reference solves the equation, and doubling the resolution hardly changes it.

    It is less accurate only near t = 0, where a cosine series cannot resolve the kink of the initial condition at the
    ends.
    """
    problem = problems.AllenCahn1D()
    points = problem.points(300)
    residuals = problem.residuals(problem.exact, points)
    assert np.abs(residuals["b"]).max() < 1e-12
    assert np.abs(residuals["bx"]).max() < 1e-11
    inside = residuals["r"][np.asarray(points["r"][:, 0]) > 0.05]
    assert np.abs(inside).max() < 1e-3  # the terms are of size 5
    assert np.abs(residuals["u"]).max() < 2e-3
    x = problem.grid(60)[60:]  # without t = 0
    finer = further._series(further._allen_cahn_coefficients(768, 96))
    assert pn.relative_l2_error(problem.exact(x), finer(x)) < 1e-5


def test_operators_are_shared_between_problems_of_one_kind():
    assert problems.Heat1D(0.2, k=1).operators == problems.Heat1D(0.2, k=5).operators
    assert problems.Burgers1D().operators == problems.Burgers1D().operators


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: problems.Heat1D(diffusivity=0), "diffusivity: expected a positive number, got 0"),
        (lambda: problems.Burgers1D(viscosity=1e-4), "viscosity: expected at least 0.002"),
        (lambda: problems.Advection1D(c=np.inf), "c: expected a finite number"),
        (lambda: problems.Helmholtz2D(k=np.nan), "k: expected a finite number"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---------------------------------------------------------------- trained


def network(problem, width, depth, points):
    model = pn.MLP(width, depth, 2, **pn.normalization(points["r"]))
    return model.apply, model.init(jax.random.key(0))


def trained(problem, apply, params, points, steps):
    return pn.train(apply, params, problem, points, pn.kernel_gradient_descent(), steps, log_every=steps)


@pytest.mark.slow
def test_an_unknown_coefficient_is_found():
    """Measurements at 60 points identify the diffusivity, starting from ten times its value."""
    problem = problems.InverseHeat1D(diffusivity=0.1)
    points = problem.points({"data": 60, "r": 150})
    network_apply, start = network(problem, 30, 2, points)

    def apply(params, x):
        return jnp.stack([network_apply(params["network"], x), params["log_diffusivity"]])

    params = {"network": start, "log_diffusivity": jnp.zeros(())}
    found = trained(problem, apply, params, points, 30).params["log_diffusivity"]
    assert abs(jnp.exp(found) - 0.1) < 1e-4


@pytest.mark.slow
def test_the_kernel_as_the_optimiser_solves_a_nonlinear_equation():
    """Kernel gradient descent solves Klein–Gordon. (The recorded runs cover heat, and chapter 13 advection.)"""
    problem = problems.KleinGordon1D()
    points = problem.points({"u": 90, "ut": 60, "r": 500})
    result = trained(problem, *network(problem, 50, 2, points), points, 150)
    assert result.history["error"][-1] < 1e-2
