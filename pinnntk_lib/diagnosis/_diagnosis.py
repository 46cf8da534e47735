"""What the kernel says about a PINN that does not train, in numbers."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import scipy.linalg

from pinnntk_lib._deprecated import warn_of
from pinnntk_lib.diagnosis._report import report
from pinnntk_lib.kernel import NTK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A condition lags if its rate is smaller than the largest by this factor: an order of magnitude, as in the paper's
# statement of the problem. Random starts move the ratio of rates by factors of two or three.
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
    """What :func:`diagnose` found. ``print`` gives a report of it, :meth:`plot` a figure, :attr:`data` the numbers.

    All rates are those of gradient descent on ``sum_i lambda_i mean_i(r^2)``, as :func:`pinnntk_lib.train` does it.

    Attributes:
        K: the kernel.
        weights: the present weights, ``{name: lambda_name}``.
        learning_rate: that of gradient descent; None if none was given, or the optimiser is another one.
        gradient_descent: whether the optimiser, if one was given, is plain gradient descent.
        residuals: ``{name: (n_name,)}``; None if the conditions came without targets.
        num_params: how many parameters there are.
        drift: ``{name: ||K_aa - K_aa(before)|| / ||K_aa(before)||}`` of each condition's block, and ``"K"`` of the
            whole; None without an earlier diagnosis.

    Example:
        A value and its slope, five times as large:

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
        """``{name: Tr(K_aa)}``."""
        return {name: float(self.K.trace(name)) for name in self.K.names}

    @cached_property
    def rates(self) -> dict[str, float]:
        """The weighted average convergence rates, ``{name: lambda_name Tr(K_aa) / n_name}`` (definition 5.1)."""
        return {name: self.weights[name] * self.traces[name] / n for name, n in self.K.sizes}

    @cached_property
    def spectra(self) -> dict[str, np.ndarray]:
        """The eigenvalues of each condition's block, descending: ``{name: (n_name,)}``."""
        blocks = {name: np.asarray(self.K.block(name, name), np.float64) for name in self.K.names}
        return {name: np.linalg.eigvalsh(block)[::-1] for name, block in blocks.items()}

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """The eigenvalues kappa of the weighted kernel, descending (n,): each mode's rate, per step and learning rate.

        Those below :attr:`rounding_level` are not known.
        """
        return self._decomposition[0][::-1]

    @cached_property
    def _decomposition(self):
        return np.linalg.eigh(self._weighted(self.weights))

    @property
    def rounding_level(self) -> float:
        """The size of an eigenvalue below which it is rounding."""
        return float(len(self.eigenvalues) * jnp.finfo(self.K.matrix.dtype).eps * self.eigenvalues[0])

    @property
    def resolved_eigenvalues(self) -> np.ndarray:
        """The eigenvalues that are not rounding."""
        return self.eigenvalues[self.eigenvalues > self.rounding_level]

    def modes_within(self, factor: float) -> int:
        """How many modes are as fast as the fastest, or slower by at most this factor."""
        return int((self.eigenvalues * factor >= self.eigenvalues[0]).sum())

    @property
    def _slowest(self):
        return max(self.eigenvalues[-1], self.rounding_level)

    @property
    def condition_number(self) -> float:
        """The largest eigenvalue of the weighted kernel over its smallest, or over :attr:`rounding_level`."""
        return float(self.eigenvalues[0] / self._slowest)

    @property
    def largest_stable_learning_rate(self) -> float:
        """2/kappa_max: gradient descent diverges above it."""
        return float(2.0 / self.eigenvalues[0])

    @property
    def time_constants(self) -> tuple[float, float] | None:
        """Steps in which the fastest and the slowest mode shrink by e; None without a learning rate.

        Where rounding hides the slowest mode, it takes more steps than said.
        """
        if self.learning_rate is None:
            return None
        return float(1 / (self.learning_rate * self.eigenvalues[0])), float(1 / (self.learning_rate * self._slowest))

    @property
    def algorithm_1(self) -> dict[str, float]:
        """The weights that the paper's Algorithm 1 would give now, as :class:`pinnntk_lib.NTKWeights` has it."""
        means = {name: self.traces[name] / n for name, n in self.K.sizes}
        return {name: sum(means.values()) / mean if mean > 0 else 1.0 for name, mean in means.items()}

    @cached_property
    def stable_rate_with_algorithm_1(self) -> float:
        """2/kappa_max with Algorithm 1's weights in place of the present ones."""
        last = len(self.K.matrix) - 1
        (largest,) = scipy.linalg.eigvalsh(self._weighted(self.algorithm_1), subset_by_index=[last, last])
        return float(2.0 / largest)

    @property
    def lagging(self) -> tuple[str, ...]:
        """The conditions that lag, the slowest first: their rate is a tenth of the largest, or less."""
        slow = [name for name, rate in self.rates.items() if rate * LAG <= max(self.rates.values())]
        return tuple(sorted(slow, key=self.rates.__getitem__))

    @property
    def verdict(self) -> str:
        """ "balanced", or the names of the conditions that lag, the slowest first."""
        return ", ".join(self.lagging) or "balanced"

    @cached_property
    def steps_to_a_hundredth(self) -> dict[str, float] | None:
        """Steps of gradient descent until each condition's loss is a hundredth of what it is, if the kernel stayed.

        ``{name: steps}``, infinite where that takes more than 1e12 of them; None without a learning rate or targets.
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
        """What the numbers do not tell, in sentences."""
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
        """All numbers, as a dictionary of numbers, dictionaries and arrays."""
        names = (
            "weights learning_rate gradient_descent num_params drift traces rates spectra eigenvalues rounding_level "
            "condition_number largest_stable_learning_rate time_constants algorithm_1 "
            "stable_rate_with_algorithm_1 lagging verdict steps_to_a_hundredth limits"
        )
        return {name: getattr(self, name) for name in names.split()}

    def __getattr__(self, name: str) -> Any:
        if name not in FORMER_NAMES:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        warn_of(f"Diagnosis: {name!r}", FORMER_NAMES[name], stacklevel=3)
        return getattr(self, FORMER_NAMES[name])

    def __str__(self) -> str:
        return report(self)

    def plot(self) -> "Figure":
        """One figure: each condition's weighted spectrum, and the rates now and with Algorithm 1's weights.

        Returns:
            The Matplotlib figure.
        """
        from pinnntk_lib.diagnosis._figure import figure  # Matplotlib, which only a figure needs

        return figure(self)

    def _root(self, weights):
        """The square roots of D's diagonal, D = 2 lambda_i / n_i."""
        return np.concatenate([np.full(n, np.sqrt(2 * weights[name] / n)) for name, n in self.K.sizes])

    def _weighted(self, weights):
        root = self._root(weights)
        return root[:, None] * np.asarray(self.K.matrix, np.float64) * root
