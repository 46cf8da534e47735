"""The numbers of a diagnosis."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from pinnntk_lib._deprecated import warn_of
from pinnntk_lib.diagnosis._report import report
from pinnntk_lib.kernel import NTK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A condition lags if its rate is smaller than the largest by at least this factor: an order of magnitude, as in the
# paper's statement of the problem. Random initialisation alone changes the ratio of rates by a factor of two or three.
LAG = 10.0


FORMER_NAMES = {
    "modes": "eigenvalues",
    "known_modes": "resolved_eigenvalues",
    "rounding": "rounding_level",
    "steps_per_e_fold": "time_constants",
    "parameters": "num_params",
}


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The result of :func:`diagnose`.

    ``print`` shows a report, :meth:`plot` draws a figure, and :attr:`data` holds the numbers. Time constants and
    stability bounds are those of gradient descent on ``sum_i lambda_i mean_i(r^2)``, the loss of
    :func:`pinnntk_lib.train`.

    Attributes:
        K: the kernel.
        weights: the present weights, ``{name: lambda_name}``.
        learning_rate: learning rate of gradient descent; None if no optimiser was given or it is not plain gradient
            descent.
        gradient_descent: whether the optimiser is plain gradient descent; None if no optimiser was given.
        residuals: ``{name: (n_name,)}``; None if the conditions have no targets.
        num_params: number of parameters.
        drift: ``{name: ||K_aa - K_aa(before)|| / ||K_aa(before)||}``, the relative change of each condition's block,
            and that of the whole kernel under the name ``"K"``; None without an earlier diagnosis.

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

    @cached_property
    def traces(self) -> dict[str, float]:
        """Traces of the diagonal blocks, ``{name: Tr(K_aa)}``."""
        return {name: float(self.K.trace(name)) for name in self.K.names}

    @cached_property
    def rates(self) -> dict[str, float]:
        """Weighted average convergence rates, ``{name: lambda_name Tr(K_aa) / n_name}`` (paper, definition 5.1).

        The :attr:`eigenvalues` of the weighted kernel carry a further factor of 2, because the losses are means of
        squares and not halves of them. (``Linearized.rates`` are eigenvalues, not averages.)
        """
        return {name: self.weights[name] * self.traces[name] / n for name, n in self.K.sizes}

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
        return self._decomposition[0][::-1]

    @cached_property
    def _decomposition(self):
        return np.linalg.eigh(self._weighted(self.weights))

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
        means = {name: self.traces[name] / n for name, n in self.K.sizes}
        return {name: sum(means.values()) / mean if mean > 0 else 1.0 for name, mean in means.items()}

    @cached_property
    def stable_rate_with_algorithm_1(self) -> float:
        """Largest stable learning rate, 2/kappa_max, with Algorithm 1's weights instead of the present ones."""
        import scipy.linalg  # here, because importing it takes long

        last = len(self.K.matrix) - 1
        (largest,) = scipy.linalg.eigvalsh(self._weighted(self.algorithm_1), subset_by_index=[last, last])
        return float(2.0 / largest)

    @property
    def lagging(self) -> tuple[str, ...]:
        """Conditions whose rate is at most a tenth of the largest, slowest first."""
        slow = [name for name, rate in self.rates.items() if rate * LAG <= max(self.rates.values())]
        return tuple(sorted(slow, key=self.rates.__getitem__))

    @property
    def verdict(self) -> str:
        """Either "balanced" or the names of the lagging conditions, slowest first."""
        return ", ".join(self.lagging) or "balanced"

    @cached_property
    def steps_to_a_hundredth(self) -> dict[str, float] | None:
        """Predicted steps until each condition's loss falls to a hundredth of its present value, ``{name: steps}``.

        The prediction is for gradient flow with a constant kernel, to within 12 %. A condition that needs more than
        1e12 steps has the value inf. The property is None without a learning rate or targets.
        """
        if self.learning_rate is None or self.residuals is None:
            return None
        root = self._root(self.weights)
        kappa, Q = self._decomposition
        start = Q.T @ (root * np.concatenate([self.residuals[name] for name in self.K.names]))
        steps = np.logspace(0, 12, 241)
        decay = np.exp(-self.learning_rate * np.maximum(kappa, 0)[:, None] * steps)
        r = Q @ (decay * start[:, None]) / root[:, None]
        found = {}
        for name, now in self.residuals.items():
            below = (r[self.K.rows(name)] ** 2).mean(axis=0) <= 0.01 * np.mean(now**2)
            found[name] = float(steps[below.argmax()]) if below.any() else np.inf
        return found

    @property
    def limits(self) -> list[str]:
        """Limits of what the numbers show, one sentence each."""
        said = ["The network is of finite width: the kernel is that of these parameters, and training moves it."]
        if self.gradient_descent is False:
            said.append(
                "The optimiser is not plain gradient descent: it trains with another kernel. The rates say what the "
                "losses ask of the parameters, not what the optimiser makes of it, and the bound on the learning rate "
                "is not its own."
            )
        said.append("With fresh points at each step, the rates are those of a typical batch, and noise is left out.")
        if not all(trace > 0 for trace in self.traces.values()):
            still = [name for name, trace in self.traces.items() if not trace > 0]
            said.append(f"No parameter moves {', '.join(still)}: no weight will change that.")
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
            "stable_rate_with_algorithm_1 lagging verdict steps_to_a_hundredth limits"
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

    def plot(self) -> "Figure":
        """Plot each condition's weighted spectrum, and the rates with the present and with Algorithm 1's weights.

        Returns:
            The Matplotlib figure.
        """
        from pinnntk_lib.diagnosis._figure import figure  # only a figure needs Matplotlib

        return figure(self)

    def _root(self, weights):
        """Return the square roots of the diagonal of D, whose entries are 2 lambda_i / n_i."""
        return np.concatenate([np.full(n, np.sqrt(2 * weights[name] / n)) for name, n in self.K.sizes])

    def _weighted(self, weights):
        root = self._root(weights)
        return root[:, None] * np.asarray(self.K.matrix, np.float64) * root
