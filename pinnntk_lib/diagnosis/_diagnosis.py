"""The numbers of a diagnosis."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from pinnntk_lib._deprecated import warn_of
from pinnntk_lib.diagnosis._evidence import Evidence, rms
from pinnntk_lib.diagnosis._finding import Finding
from pinnntk_lib.diagnosis._findings import found_in
from pinnntk_lib.diagnosis._preconditioned import Preconditioned
from pinnntk_lib.diagnosis._report import html, report
from pinnntk_lib.kernel import NTK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A condition lags if its rate is smaller than the largest by at least this factor: an order of magnitude, as in the
# paper's statement of the problem. Random initialisation alone changes the ratio of rates by a factor of two or three.
LAG = 10.0
HIDDEN = 1e-8, 1e-5  # modes slower than the fastest by more than this are left out, in double and in single precision


class Modes(NamedTuple):
    """The weighted kernel ``D^{1/2} K D^{1/2}``.

    Attributes:
        kappa: its eigenvalues, ascending.
        Q: its eigenvectors, one per column.
        root: the diagonal of D^{1/2}, with D's entries 2 lambda_i / n_i.
    """

    kappa: np.ndarray
    Q: np.ndarray
    root: np.ndarray


FORMER_NAMES = {
    "modes": "eigenvalues",
    "known_modes": "resolved_eigenvalues",
    "rounding": "rounding_level",
    "steps_per_e_fold": "time_constants",
    "parameters": "num_params",
}


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """The result of :func:`diagnose`.

    ``print`` shows a report, :meth:`plot` draws a figure, and :attr:`data` holds the numbers. Time constants and
    stability bounds are those of gradient descent on ``sum_i lambda_i mean_i(r^2)``, the loss of
    :func:`pinnntk_lib.train`.

    Attributes:
        K: the kernel; of a sample of the points if there are more than ``max_points``.
        weights: the present weights, ``{name: lambda_name}``.
        learning_rate: learning rate of gradient descent; None if no optimiser was given or it is not plain gradient
            descent.
        gradient_descent: whether the optimiser is plain gradient descent; None if no optimiser was given.
        residuals: ``{name: (n_name,)}`` at all points; None if the conditions have no targets.
        num_params: number of parameters.
        drift: ``{name: ||K_aa - K_aa(before)|| / ||K_aa(before)||}``, the relative change of each condition's block,
            and that of the whole kernel under the name ``"K"``; None without an earlier diagnosis.
        traces: traces of the diagonal blocks of the kernel of all points, ``{name: Tr(K_aa)}``.
        sizes: numbers of residuals at all points, ``{name: n_name}``.
        sample: indices of the points whose kernel is K, ``{name: (points,)}``; None if these are all points.
        evidence: measurements from which :attr:`findings` are drawn.
        adam: the rates and the stability of Adam's own kernel (see :class:`Preconditioned`); None if the optimiser's
            state was not given.

    Example:
        Two conditions, on the value and on five times the slope:

        >>> import jax, jax.numpy as jnp, pinnntk_lib as pn
        >>> model = pn.MLP(width=20)
        >>> operators = {"u": lambda u, x: u(x), "ux": lambda u, x: 5 * pn.d(u, 0)(x)}
        >>> points = dict.fromkeys(operators, jnp.linspace(0, 1, 8)[:, None])
        >>> found = pn.diagnose(model.apply, model.init(jax.random.key(0)), operators, points)
        >>> found.condition_number > 1e3, found.eigenvalues.shape, sorted(found.algorithm_1)
        (True, (16,), ['u', 'ux'])
    """

    K: NTK
    weights: dict[str, float]
    learning_rate: float | None
    gradient_descent: bool | None
    residuals: dict[str, np.ndarray] | None
    num_params: int
    drift: dict[str, float] | None
    traces: dict[str, float]
    sizes: dict[str, int]
    sample: dict[str, np.ndarray] | None
    evidence: Evidence
    adam: Preconditioned | None = None

    @cached_property
    def rates(self) -> dict[str, float]:
        """Weighted average convergence rates, ``{name: lambda_name Tr(K_aa) / n_name}`` (paper, definition 5.1).

        The :attr:`eigenvalues` of the weighted kernel carry a further factor of 2, because the losses are means of
        squares and not halves of them. (``Linearized.rates`` are eigenvalues, not averages.)
        """
        return {name: self.weights[name] * self.traces[name] / n for name, n in self.sizes.items()}

    @cached_property
    def spectra(self) -> dict[str, np.ndarray]:
        """Eigenvalues of each condition's block, ``{name: (n_name,)}``, in descending order."""
        blocks = {name: np.asarray(self.K.block(name, name), np.float64) for name in self.K.names}
        return {name: np.linalg.eigvalsh(block)[::-1] for name, block in blocks.items()}

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """Eigenvalues kappa of the weighted kernel, shape (n,), in descending order.

        Each is the decay rate of a mode, per step and unit of learning rate. Those below :attr:`rounding_level` are
        dominated by rounding error.
        """
        return self.present_modes.kappa[::-1]

    @cached_property
    def present_modes(self) -> Modes:
        """Modes of the weighted kernel."""
        return self._modes(self.weights)

    @cached_property
    def balanced_modes(self) -> Modes:
        """Modes of the kernel with Algorithm 1's weights."""
        return self._modes(self.algorithm_1)

    @property
    def rounding_level(self) -> float:
        """Level below which rounding error dominates an eigenvalue, ``n * eps * eigenvalues[0]``."""
        return float(len(self.eigenvalues) * jnp.finfo(self.K.matrix.dtype).eps * self.eigenvalues[0])

    @property
    def resolved_eigenvalues(self) -> np.ndarray:
        """Eigenvalues above :attr:`rounding_level`."""
        return self.eigenvalues[self.eigenvalues > self.rounding_level]

    def modes_within(self, factor: float) -> int:
        """Count the modes that are slower than the fastest by at most this factor, the fastest included."""
        return int((self.eigenvalues * factor >= self.eigenvalues[0]).sum())

    @property
    def _slowest(self):
        return max(self.eigenvalues[-1], self.rounding_level)

    @property
    def condition_number(self) -> float:
        """Largest eigenvalue of the weighted kernel divided by the smallest, or by :attr:`rounding_level` if larger."""
        return float(self.eigenvalues[0] / self._slowest)

    @property
    def largest_stable_learning_rate(self) -> float:
        """2/kappa_max, above which gradient descent diverges."""
        return float(2.0 / self.eigenvalues[0])

    @property
    def time_constants(self) -> tuple[float, float] | None:
        """Steps in which the fastest and the slowest mode decay by a factor of e; None without a learning rate.

        If rounding error hides the slowest mode, its time constant is a lower bound. (``Linearized.time_constants``
        has one for every mode, in units of steps times learning rate.)
        """
        if self.learning_rate is None:
            return None
        return float(1 / (self.learning_rate * self.eigenvalues[0])), float(1 / (self.learning_rate * self._slowest))

    @property
    def algorithm_1(self) -> dict[str, float]:
        """Weights that the paper's Algorithm 1 would set now, as :class:`pinnntk_lib.NTKWeights` does by default."""
        means = {name: self.traces[name] / n for name, n in self.sizes.items() if name not in self.evidence.still}
        return {name: sum(means.values()) / means[name] if name in means else 1.0 for name in self.sizes}

    @property
    def stable_rate_with_algorithm_1(self) -> float:
        """Largest stable learning rate, 2/kappa_max, with Algorithm 1's weights instead of the present ones."""
        return float(2.0 / self.balanced_modes.kappa[-1])

    @property
    def lagging(self) -> tuple[str, ...]:
        """Conditions whose rate is at most a tenth of the largest, slowest first.

        A condition that no parameter moves does not count, because no weight can help it.
        """
        rates = {name: rate for name, rate in self.rates.items() if name not in self.evidence.still}
        slow = [name for name, rate in rates.items() if rate * LAG <= max(rates.values())]
        return tuple(sorted(slow, key=rates.__getitem__))

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What the numbers show to be wrong, the likely cause first, then remarks (see :class:`Finding`)."""
        return found_in(self)

    @property
    def verdict(self) -> str:
        """The first cause among the :attr:`findings`; for an imbalance, the lagging conditions, slowest first.

        If there is no cause, it is "balanced", or "trained" if a condition lags that has been met.
        """
        causes = [finding.name for finding in self.findings if finding.is_cause]
        if not causes:
            return "trained" if self.lagging else "balanced"
        return ", ".join(self.lagging) if causes[0] == "imbalance" else causes[0]

    @cached_property
    def estimated_error(self) -> float | None:
        """An estimate of the solution's relative error, from the conditions alone; None without targets.

        The linearised network is solved for the change of u that meets the conditions; its size is divided by that of
        u after the change. Modes too slow for double precision to resolve are left out, and so is what happens between
        the points.
        """
        if self.residuals is None:
            return None
        change = self.correction(balanced=True)
        return rms(change) / max(rms(self.evidence.outputs + change), np.finfo(float).tiny)

    def correction(self, balanced: bool, steps: float | None = None) -> np.ndarray:
        """Compute how gradient flow with a constant kernel would change the outputs, (p, m) as ``evidence.outputs``.

        Args:
            balanced: whether with Algorithm 1's weights instead of the present ones.
            steps: number of steps at half the largest stable learning rate; None for the change at the end, without
                the modes that rounding errors hide.

        Raises:
            ValueError: if the conditions have no targets.
        """
        kappa, towards = self._towards[balanced]
        hidden = HIDDEN[self.K.matrix.dtype == jnp.float32]
        gain = 1 / (kappa + hidden) if steps is None else _gain(kappa, steps)
        return (towards @ gain).reshape(self.evidence.outputs.shape)

    def steps_to_half(self, balanced: bool) -> float:
        """Return the steps of :meth:`correction` after which half of it is made, up to a factor of 1.3; inf above 1e12.

        The whole correction is that with Algorithm 1's weights.
        """
        whole = self.correction(balanced=True).ravel()
        kappa, towards = self._towards[balanced]
        for steps in np.logspace(0, 12, 97):
            if rms(whole - towards @ _gain(kappa, steps)) <= 0.5 * rms(whole):
                return float(steps)
        return np.inf

    @cached_property
    def _towards(self):
        """Eigenvalues relative to the largest, and how each mode moves the outputs per gain, (p m, n), by balanced."""
        if self.residuals is None:
            raise ValueError("conditions: expected a Problem, whose targets say how far its residuals are from zero")
        found = {}
        for balanced, (kappa, Q, root) in ((False, self.present_modes), (True, self.balanced_modes)):
            coefficients = Q.T @ (root * self.sampled_residuals) / kappa[-1]
            found[balanced] = np.maximum(kappa, 0) / kappa[-1], -((self.evidence.cross * root) @ Q) * coefficients
        return found

    @property
    def natural_sizes(self) -> dict[str, float]:
        """Natural size of each condition's residual, ``{name: size}``: how large it may well be before training.

        It is the root mean square of the condition's target, or of its values if the parameters' contributions had
        random signs, whichever is larger. Without targets it is that of the values.
        """
        of_zero = self.evidence.of_zero or {}
        return {name: max(self.evidence.natural[name], of_zero.get(name, 0.0)) for name in self.sizes}

    @cached_property
    def sampled_residuals(self) -> np.ndarray:
        """The residuals whose kernel is K, in the order of its rows."""
        assert self.residuals is not None
        if self.sample is None:
            return np.concatenate([self.residuals[name] for name in self.K.names])
        rows = {name: len(self.sample[name]) for name in self.K.names}
        parts = [
            self.residuals[name].reshape(-1, n // rows[name])[self.sample[name]].ravel() for name, n in self.K.sizes
        ]
        return np.concatenate(parts)

    @cached_property
    def steps_to_a_hundredth(self) -> dict[str, float] | None:
        """Predicted steps until each condition's loss falls to a hundredth of its present value, ``{name: steps}``.

        The prediction is for gradient flow with a constant kernel, to within 12 %. A condition that needs more than
        1e12 steps has the value inf. The property is None without a learning rate or targets.
        """
        if self.learning_rate is None or self.residuals is None:
            return None
        kappa, Q, root = self.present_modes
        start = Q.T @ (root * self.sampled_residuals)
        steps = np.logspace(0, 12, 241)
        decay = np.exp(-self.learning_rate * np.maximum(kappa, 0)[:, None] * steps)
        r = Q @ (decay * start[:, None]) / root[:, None]
        found = {}
        for name in self.K.names:
            of_name = self.K.rows(name)
            below = (r[of_name] ** 2).mean(axis=0) <= 0.01 * np.mean(self.sampled_residuals[of_name] ** 2)
            found[name] = float(steps[below.argmax()]) if below.any() else np.inf
        return found

    @property
    def limits(self) -> list[str]:
        """Limits of what the numbers show, one sentence each."""
        said = ["The network is of finite width: the kernel is that of these parameters, and training moves it."]
        if self.gradient_descent is False:
            hint = "; opt_state= shows Adam's own" if self.adam is None else ""
            said.append(
                "The optimiser is not plain gradient descent: it trains with another kernel. The rates say what the "
                "losses ask of the parameters, not what the optimiser makes of it, and the bound on the learning rate "
                f"is not its own{hint}."
            )
        said.append("With fresh points at each step, the rates are those of a typical batch, and noise is left out.")
        if self.sample is not None:
            formed = sum(n for _, n in self.K.sizes)
            said.append(
                f"The spectrum is that of a sample of {formed:,d} residuals, whose largest eigenvalues are close "
                "to those of all; losses and rates are of all."
            )
        own = [name for name in self.sizes if self.residuals is not None and name not in self.evidence.held_out]
        if own:
            said.append(
                f"Of {', '.join(own)}, only the residuals at these points are known: there are no others to test."
            )
        said.append("A small residual is not a small error: how the one bounds the other is up to the equation.")
        return said

    @property
    def data(self) -> dict[str, Any]:
        """The results by attribute name, in one dictionary of numbers, strings, dictionaries and arrays.

        For one more release it also has the results under their former names.
        """
        names = (
            "weights learning_rate gradient_descent num_params drift traces rates spectra eigenvalues rounding_level "
            "condition_number largest_stable_learning_rate time_constants algorithm_1 "
            "stable_rate_with_algorithm_1 lagging verdict findings estimated_error steps_to_a_hundredth limits"
        )
        found = {name: getattr(self, name) for name in names.split()}
        return found | {former: found[new] for former, new in FORMER_NAMES.items() if new in found}

    def __getattr__(self, name: str) -> Any:
        if name not in FORMER_NAMES:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        warn_of(f"Diagnosis: {name!r}", FORMER_NAMES[name], stacklevel=3)
        return getattr(self, FORMER_NAMES[name])

    def __str__(self) -> str:
        return report(self)

    def __repr__(self) -> str:
        return f"<Diagnosis {self.verdict!r} of {sum(self.sizes.values()):,d} residuals; print it to read its report>"

    def _repr_html_(self) -> str:
        return html(self)

    def plot(self) -> "Figure":
        """Plot each condition's weighted spectrum, and the rates with the present and with Algorithm 1's weights.

        Returns:
            The Matplotlib figure.
        """
        from pinnntk_lib.diagnosis._figure import figure  # only a figure needs Matplotlib

        return figure(self)

    def _modes(self, weights):
        root = np.concatenate([np.full(n, np.sqrt(2 * weights[name] / n)) for name, n in self.K.sizes])
        kappa, Q = np.linalg.eigh(root[:, None] * np.asarray(self.K.matrix, np.float64) * root)
        return Modes(kappa, Q, root)


def _gain(kappa, steps):
    """Return how much of each mode's correction is made after these steps, divided by kappa, its relative rate."""
    return -np.expm1(-steps * kappa) / np.maximum(kappa, 1e-300)
