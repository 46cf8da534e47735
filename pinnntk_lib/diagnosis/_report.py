"""What the kernel says about a PINN that does not train.

:func:`diagnose` computes the kernel at the present parameters, and from it what gradient descent would do next: which
condition is trained fast and which lags, what the largest stable learning rate is, which modes will not move in any
number of steps, and what the paper's Algorithm 1 would change about it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg

from pinnntk_lib import plotting
from pinnntk_lib._check import check_finite, check_weights
from pinnntk_lib.ntk import NTK, ntk
from pinnntk_lib.problems import Problem

__all__ = ["LAG", "Diagnosis", "diagnose"]

# A condition lags if its rate is smaller than the largest by this factor: an order of magnitude, as in the paper's
# statement of the problem. Random starts move the ratio of rates by factors of two or three.
LAG = 10.0


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
        parameters: how many there are.
        drift: ``{name: ||K_aa - K_aa(before)|| / ||K_aa(before)||}`` of each condition's block, and ``"K"`` of the
            whole; None without an earlier diagnosis.

    Example:
        A value and its slope, five times as large:

        >>> import jax, jax.numpy as jnp, pinnntk_lib as pn
        >>> model = pn.MLP(width=20)
        >>> operators = {"u": lambda u, x: u(x), "ux": lambda u, x: 5 * pn.d(u, 0)(x)}
        >>> points = dict.fromkeys(operators, jnp.linspace(0, 1, 8)[:, None])
        >>> found = pn.diagnose(model.apply, model.init(jax.random.key(0)), operators, points)
        >>> found.condition_number > 1e3, found.modes.shape, sorted(found.algorithm_1)
        (True, (16,), ['u', 'ux'])
    """

    K: NTK
    weights: dict[str, float]
    learning_rate: float | None
    gradient_descent: bool | None
    residuals: dict[str, np.ndarray] | None
    parameters: int
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
    def modes(self) -> np.ndarray:
        """The eigenvalues kappa of the weighted kernel, descending (n,): each mode's rate, per step and learning rate.

        Those below :attr:`rounding` are not known.
        """
        return self._decomposition[0][::-1]

    @cached_property
    def _decomposition(self):
        return np.linalg.eigh(self._weighted(self.weights))

    @property
    def rounding(self) -> float:
        """The size of an eigenvalue below which it is rounding."""
        return float(len(self.modes) * jnp.finfo(self.K.matrix.dtype).eps * self.modes[0])

    @property
    def known_modes(self) -> np.ndarray:
        """The eigenvalues that are not rounding."""
        return self.modes[self.modes > self.rounding]

    def modes_within(self, factor: float) -> int:
        """How many modes are as fast as the fastest, or slower by at most this factor."""
        return int((self.modes * factor >= self.modes[0]).sum())

    @property
    def _slowest(self):
        return max(self.modes[-1], self.rounding)

    @property
    def condition_number(self) -> float:
        """The largest eigenvalue of the weighted kernel by the smallest, or by :attr:`rounding` if that hides it."""
        return float(self.modes[0] / self._slowest)

    @property
    def largest_stable_learning_rate(self) -> float:
        """2/kappa_max: gradient descent diverges above it."""
        return float(2.0 / self.modes[0])

    @property
    def steps_per_e_fold(self) -> tuple[float, float] | None:
        """Steps in which the fastest and the slowest mode shrink by e; None without a learning rate.

        Where rounding hides the slowest mode, it takes more steps than said.
        """
        if self.learning_rate is None:
            return None
        return float(1 / (self.learning_rate * self.modes[0])), float(1 / (self.learning_rate * self._slowest))

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
            "weights learning_rate gradient_descent parameters drift traces rates spectra modes rounding "
            "condition_number largest_stable_learning_rate steps_per_e_fold algorithm_1 "
            "stable_rate_with_algorithm_1 lagging verdict steps_to_a_hundredth limits"
        )
        return {name: getattr(self, name) for name in names.split()}

    def __str__(self):
        return "\n".join([*self._table(), "", *self._findings(), "", "What this does not tell:", *self._limits()])

    def plot(self):
        """One figure: each condition's weighted spectrum, and the rates now and with Algorithm 1's weights.

        Returns:
            The Matplotlib figure.
        """
        import matplotlib.pyplot as plt

        with plt.style.context(plotting.STYLE):
            figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
            floor = float(jnp.finfo(self.K.matrix.dtype).eps)
            for name, n in self.K.sizes:
                values = self.weights[name] / n * self.spectra[name]
                values = values[values > floor * n * max(values[0], 0.0)]
                left.loglog(np.arange(1, len(values) + 1), values, label=name, **plotting.line_look(name))
            left.set(title="eigenvalues, weighted", xlabel="rank", ylabel="rate of a mode")
            left.legend()
            means = {name: self.traces[name] / n for name, n in self.K.sizes}
            for row, weights in enumerate((self.weights, self.algorithm_1)):
                for i, name in enumerate(self.K.names):
                    look, place = plotting.line_look(name), (weights[name] * means[name], -row)
                    right.plot(*place, "o", color=look.get("color"), label=None)
                    # one above the other, for the points may coincide
                    right.annotate(name, place, (0, 7 + 11 * i), textcoords="offset points", ha="center")
            right.set(title="average convergence rates", xscale="log", ylim=(-1.5, 0.8))
            right.set_yticks([0, -1], ["now", "Algorithm 1"])
        return figure

    def _root(self, weights):
        """The square roots of D's diagonal, D = 2 lambda_i / n_i."""
        return np.concatenate([np.full(n, np.sqrt(2 * weights[name] / n)) for name, n in self.K.sizes])

    def _weighted(self, weights):
        root = self._root(weights)
        return root[:, None] * np.asarray(self.K.matrix, np.float64) * root

    def _table(self):
        columns = ["condition", "points", "weight", "rate", "Algorithm 1"]
        if self.residuals is not None:
            columns.append("loss")
        if self.steps_to_a_hundredth is not None:
            columns.append("steps to 1/100")
        if self.drift is not None:
            columns.append("drift of K")
        rows = [columns]
        for name, n in self.K.sizes:
            row = [name, f"{n:,d}", f"{self.weights[name]:.3g}", f"{self.rates[name]:.3g}"]
            row.append(f"{self.algorithm_1[name]:.3g}")
            if self.residuals is not None:
                row.append(f"{np.mean(self.residuals[name] ** 2):.2e}")
            if self.steps_to_a_hundredth is not None:
                row.append(_count(self.steps_to_a_hundredth[name]))
            if self.drift is not None:
                row.append(f"{self.drift[name]:.2g}")
            rows.append(row)
        widths = [max(map(len, column)) for column in zip(*rows)]
        total = sum(n for _, n in self.K.sizes)
        title = f"{total:,d} residuals of {self.parameters:,d} parameters, {self.K.matrix.dtype}"
        return [title, "", *("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)]

    def _findings(self):
        rates = self.rates
        fastest = max(rates, key=rates.__getitem__)
        if self.lagging:
            for name in self.lagging:
                times = f"{rates[fastest] / rates[name]:,.0f} times smaller than" if rates[name] > 0 else "zero, unlike"
                yield f"{name} lags: its average convergence rate is {times} that of {fastest}."
            weights = ", ".join(f"{name} {value:.3g}" for name, value in self.algorithm_1.items())
            yield f"Algorithm 1's weights, {weights}, would make the rates equal."
        else:
            ratio = max(rates.values()) / min(rates.values())
            yield f"Balanced: the average convergence rates are within a factor of {ratio:.2g}."
        yield (
            f"Gradient descent is stable below a learning rate of {self.largest_stable_learning_rate:.2g} "
            f"({self.stable_rate_with_algorithm_1:.2g} with Algorithm 1's weights)."
        )
        hidden = self.modes[-1] < self.rounding
        if self.learning_rate is not None:
            if self.learning_rate > self.largest_stable_learning_rate:
                yield f"At {self.learning_rate:.3g} it diverges, or the kernel shrinks until it does not."
            fast, slow = (_count(steps) for steps in self.steps_per_e_fold)
            slow = f"more than {slow}" if hidden and not slow.startswith("more") else slow
            yield f"At {self.learning_rate:.3g} the fastest mode shrinks by e in {fast} steps, the slowest in {slow}."
        condition = f"{self.condition_number:.0e}"
        if hidden:
            condition = f"more than {condition}, all that {self.K.matrix.dtype} can tell"
        yield (
            f"{self.modes_within(1e3):,d} of the {len(self.modes):,d} modes are at least a thousandth as fast as the "
            f"fastest. Condition number: {condition}."
        )
        if self.drift is not None:
            moved = self.drift["K"]
            close = "rates change" if moved < 1 else "an earlier kernel tells nothing"
            holds = "the theory holds" if moved < 0.1 else close
            yield f"The kernel has moved by {moved:.2g} of its norm since the earlier diagnosis: {holds}."

    def _limits(self):
        return [f"- {sentence}" for sentence in self.limits]


def _count(steps):
    if not np.isfinite(steps):
        return "more than 1e12"
    return f"{steps:,.0f}" if steps < 1e6 else f"{steps:.1e}"


def diagnose(
    apply: Callable,
    params,
    conditions: Problem | Mapping[str, Callable],
    points: Mapping[str, jax.Array],
    *,
    optimizer: optax.GradientTransformation | float | None = None,
    weights: Mapping[str, float] | None = None,
    before: Diagnosis | None = None,
    memory: int = 2**30,
) -> Diagnosis:
    """Why a PINN does not train, as far as its kernel says.

    Args:
        apply: the model, a pure function ``(params, x of shape (d,)) -> u(x)``.
        params: its parameters, a pytree of floating-point arrays: those at the start, or reached in training.
        conditions: a :class:`~pinnntk_lib.Problem`, or ``{name: operator}``; losses, and how long they will take,
            are reported for a problem only, which has targets.
        points: ``{name: (n, d) array}``. The rates are means over them: a few hundred of each condition will do.
        optimizer: the learning rate of gradient descent, or an optax optimiser, which is tried on a made-up gradient
            to see whether it is gradient descent and at which rate.
        weights: ``{name: lambda_name}``, those in force; all 1 if None.
        before: an earlier diagnosis at the same points, to see how far the kernel has moved since.
        memory: bytes for the kernel's computation, as in :func:`pinnntk_lib.ntk`.

    Raises:
        ValueError, TypeError: if an argument's shape, type, names or values do not fit; the message says which.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem = pn.problems.Poisson1D(a=4)
        >>> points = problem.points(100)
        >>> model = pn.MLP(width=100, **pn.normalization(points["r"]))
        >>> params = model.init(jax.random.key(0))
        >>> found = pn.diagnose(model.apply, params, problem, points, optimizer=optax.sgd(1e-5))
        >>> found.verdict
        'u'
    """
    K = ntk(apply, params, conditions, points, memory=memory)
    if before is not None and (not isinstance(before, Diagnosis) or before.K.sizes != K.sizes):
        raise ValueError(f"before: expected a diagnosis of the same conditions and points, {K.sizes}")
    learning_rate, plain = _learning_rate(optimizer, params)
    residuals = None
    if isinstance(conditions, Problem):
        found = conditions.residuals(lambda x: apply(params, x), points)
        residuals = {name: np.asarray(r, np.float64) for name, r in found.items()}
    return Diagnosis(
        K,
        check_weights(weights, K.names),
        learning_rate,
        plain,
        residuals,
        sum(np.size(leaf) for leaf in jax.tree.leaves(params)),
        None if before is None else _drift(before.K, K),
    )


def _learning_rate(optimizer, params):
    """``(learning rate or None, whether it is plain gradient descent)``."""
    if optimizer is None:
        return None, None
    if not hasattr(optimizer, "update"):
        if check_finite("optimizer", optimizer) <= 0:
            raise ValueError(f"optimizer: expected a positive learning rate, got {optimizer}")
        return float(optimizer), True
    # The same gradient twice, then half of it: gradient descent answers with the same multiple each time.
    sizes = iter(range(1, 10**6))
    gradient = jax.tree.map(lambda leaf: jnp.full(jnp.shape(leaf), 1.0 / next(sizes), jnp.result_type(leaf)), params)
    state = optimizer.init(params)
    multiples = []
    for factor in (1.0, 1.0, 0.5):
        given = jax.tree.map(lambda g, factor=factor: factor * g, gradient)
        try:
            updates, state = optimizer.update(given, state, params)
        except TypeError:  # it asks for more than a gradient, as line searches do
            return None, False
        pairs = zip(jax.tree.leaves(updates), jax.tree.leaves(given))
        multiples += [float(-u.ravel()[0] / g.ravel()[0]) for u, g in pairs if g.size]
    plain = np.allclose(multiples, multiples[0], rtol=1e-3) and multiples[0] > 0
    return (multiples[0], True) if plain else (None, False)


def _drift(old, new):
    def change(name):
        a, b = (K.matrix if name == "K" else K.block(name, name) for K in (old, new))
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.linalg.norm(b - a) / np.linalg.norm(a))

    return {name: change(name) for name in (*new.names, "K")}
