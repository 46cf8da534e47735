"""What the kernel predicts about training by gradient descent (paper, sections 3 and 5).

As long as the kernel K stays constant, the residuals r of all conditions obey a linear equation. For the loss
``sum_i lambda_i mean_i(r^2)`` that :func:`pinnntk_lib.train` minimises, it reads

    dr/dt = -K D r,   D = diag(2 lambda_i / n_i).

In the eigenbasis of the weighted kernel ``A = D^(1/2) K D^(1/2)`` the modes decay independently. A mode with
eigenvalue kappa decays as exp(-kappa t) under gradient flow, and by a factor of (1 - eta kappa)^k in k steps of
gradient descent with learning rate eta. Time is measured in steps times learning rate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_array, check_names, check_numbers, check_positive, check_positive_weights
from pinnntk_lib.kernel import NTK, check_kernel

Times = Sequence[float] | np.ndarray | jax.Array


@dataclass(frozen=True, eq=False)
class Linearized:
    """Training with a constant kernel, in closed form.

    Without ``learning_rate`` the methods follow gradient flow, and ``t`` holds times in units of steps times learning
    rate. With ``learning_rate`` they follow gradient descent, and ``t`` holds numbers of steps. In both cases ``t`` has
    shape (T,).

    Attributes:
        K: the initial kernel, empirical or at infinite width.
        residuals: the initial residuals, ``{name: (n_name,)}``, as returned by :meth:`Problem.residuals`.
        weights: ``{name: lambda_name}``, all positive; all 1 if None.

    Raises:
        ValueError, TypeError: if a name, shape or value does not fit, or a time is negative; the message says which.

    Example:
        >>> import jax.numpy as jnp
        >>> K = NTK(jnp.diag(jnp.array([3.0, 1.0])), (("u", 1), ("r", 1)))
        >>> model = Linearized(K, {"u": jnp.ones(1), "r": jnp.ones(1)})
        >>> [round(float(kappa), 3) for kappa in model.rates]  # of the loss r_u^2 + r_r^2
        [6.0, 2.0]
        >>> round(float(model.losses([1.0])["r"][0]), 5)  # exp(-2)^2
        0.01832
    """

    K: NTK
    residuals: Mapping[str, jax.Array]
    weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        check_kernel("K", self.K)
        if not isinstance(self.residuals, Mapping):
            raise TypeError(f"residuals: expected {{name: (n_name,) array}}, got {type(self.residuals).__name__}")
        check_names("residuals", self.residuals, self.K.names)
        for name, n in self.K.sizes:
            where = f"residuals[{name!r}]"
            r = check_array(where, self.residuals[name])
            if jnp.shape(r) != (n,):
                raise ValueError(f"{where}: expected shape ({n},), as in K, got {jnp.shape(r)}")
            if not jnp.issubdtype(jnp.result_type(r), jnp.floating):
                raise TypeError(f"{where}: expected real floating-point numbers, got {jnp.result_type(r)}")
            if not isinstance(r, jax.core.Tracer) and not np.isfinite(r).all():
                raise ValueError(f"{where}: expected finite numbers, got NaN or infinity")
        self._root  # noqa: B018 -- checks the weights

    @cached_property
    def _root(self):
        """The diagonal of D^(1/2), (n,)."""
        return _scales(self.K, check_positive_weights(self.weights, self.K.names))

    @cached_property
    def _modes(self):
        """Eigenvalues (descending) and eigenvectors of the weighted kernel, and the initial residuals in that basis."""
        root = self._root
        kappa, Q = jnp.linalg.eigh(root[:, None] * self.K.matrix * root)
        start = root * jnp.concatenate([jnp.asarray(self.residuals[name]) for name in self.K.names])
        # A negative eigenvalue is rounding error, and its mode would grow.
        return jnp.maximum(kappa[::-1], 0.0), Q[:, ::-1], Q[:, ::-1].T @ start

    @property
    def rates(self) -> jax.Array:
        """Decay rates of the modes, (n,), in descending order, which are the weighted kernel's eigenvalues kappa."""
        return self._modes[0]

    @property
    def time_constants(self) -> jax.Array:
        """Time constant of each mode, ``1/kappa``, (n,); infinite for a mode that does not decay.

        In this time the mode decays by a factor of e. Divide by the learning rate to obtain a number of steps.
        """
        return 1.0 / self.rates

    @property
    def energies(self) -> jax.Array:
        """Twice each mode's share of the initial weighted loss, (n,); they sum to twice the loss."""
        return self._modes[2] ** 2

    @property
    def modes(self) -> dict[str, jax.Array]:
        """The modes as patterns of residuals, ``{name: (n_name, n)}``, with one column per rate.

        Scaled by D^(1/2), the columns are the orthonormal eigenvectors of the weighted kernel.
        """
        return self._by_condition(self._modes[1] / self._root[:, None])

    @property
    def largest_stable_learning_rate(self) -> jax.Array:
        """The bound 2/kappa_max; see :func:`largest_stable_learning_rate`."""
        return 2.0 / self.rates[0]

    def residuals_at(self, t: Times, learning_rate: float | None = None) -> dict[str, jax.Array]:
        """Return the residuals of each condition at the times ``t``: ``{name: (T, n_name)}``."""
        _, Q, start = self._modes
        r = Q @ (self._left(self._times(t, learning_rate), learning_rate) * start[:, None])
        return {name: x.T for name, x in self._by_condition(r / self._root[:, None]).items()}

    def losses(self, t: Times, learning_rate: float | None = None) -> dict[str, jax.Array]:
        """Return the unweighted mean squared residual of each condition: ``{name: (T,)}``."""
        return {name: (r**2).mean(axis=1) for name, r in self.residuals_at(t, learning_rate).items()}

    def change(self, cross: NTK, t: Times, learning_rate: float | None = None) -> dict[str, jax.Array]:
        """Return how much training changes other quantities, for instance the solution at test points.

        Args:
            cross: the cross kernel between the training points and the other points: ``pn.ntk(apply, params, problem,
                points, other_points={"u": x})``.
            t: times or numbers of steps, (T,).
            learning_rate: the learning rate of gradient descent; gradient flow if None.

        Returns:
            ``{name: (T, m)}``, the change from the initial values.

        Raises:
            ValueError, TypeError: if ``cross`` is not a cross kernel with the rows of K, or a time is negative.
        """
        if not isinstance(cross, NTK):
            raise TypeError(f"cross: expected a cross kernel, got {type(cross).__name__}")
        if cross.columns is None:
            raise ValueError("cross: expected a cross kernel, got the kernel of one set of points; pass other_points")
        if cross.sizes != self.K.sizes:
            raise ValueError(f"cross: expected a cross kernel with rows {self.K.sizes}, got rows {cross.sizes}")
        kappa, Q, start = self._modes
        steps = self._times(t, learning_rate)
        positive = kappa[:, None] > 0
        # Each mode's integral over time, per unit of its initial residual. For kappa = 0 it is the time itself.
        integral = jnp.where(
            positive,
            self._gone(steps, learning_rate) / jnp.where(positive, kappa[:, None], 1.0),
            (learning_rate or 1.0) * steps,
        )
        moved = -(cross.matrix.T * self._root) @ (Q @ (integral * start[:, None]))
        ends = np.cumsum([m for _, m in cross.columns])[:-1]
        return {name: x.T for (name, _), x in zip(cross.columns, jnp.split(moved, ends))}

    def _times(self, t, learning_rate):
        """Check both arguments and return ``t`` as an array."""
        t = jnp.asarray(check_numbers("t", t), self.K.matrix.dtype)
        if t.ndim != 1 or not (t >= 0).all():
            raise ValueError(f"t: expected an array (T,) of non-negative numbers, got {t}")
        if learning_rate is not None:
            check_positive("learning_rate", learning_rate)
        return t

    def _left(self, t, eta):
        """Return the fraction of each mode that is left at each time, (n, T)."""
        kappa = self.rates[:, None]
        return jnp.exp(-kappa * t) if eta is None else (1.0 - eta * kappa) ** t

    def _gone(self, t, eta):
        """Return ``1 - _left``, (n, T), without cancellation where it is small."""
        kappa = self.rates[:, None]
        if eta is None:
            return -jnp.expm1(-kappa * t)
        slow = jnp.minimum(eta * kappa, 0.5)
        return jnp.where(eta * kappa < 0.5, -jnp.expm1(t * jnp.log1p(-slow)), 1.0 - self._left(t, eta))

    def _by_condition(self, rows):
        return {name: rows[self.K.rows(name)] for name in self.K.names}


def largest_stable_learning_rate(K: NTK, weights: Mapping[str, float] | None = None) -> jax.Array:
    """Compute the learning rate above which gradient descent diverges, as long as the kernel stays constant.

    For the loss ``sum_i lambda_i mean_i(residual^2)``, one step maps the residuals r to ``(I - eta K D) r`` with
    ``D = diag(2 lambda_i / n_i)``, so it contracts only for ``eta < 2 / lambda_max(D^(1/2) K D^(1/2))``.
    The bound holds for full-batch gradient descent, not for Adam or momentum.

    Args:
        K: the kernel.
        weights: ``{name: lambda_name}``, all positive; all 1 if None.

    Raises:
        ValueError, TypeError: if K is a cross kernel, ``weights`` does not name K's conditions, or a weight is not a
            positive number.

    Example:
        >>> import jax.numpy as jnp
        >>> K = NTK(4.0 * jnp.eye(2), (("u", 1), ("r", 1)))
        >>> print(f"{largest_stable_learning_rate(K):.3f}")
        0.250
    """
    check_kernel("K", K)
    return stable_rate(K, check_positive_weights(weights, K.names))


def stable_rate(K, weights):
    """Compute :func:`largest_stable_learning_rate` for any weights; it is NaN if one of them is."""
    root = _scales(K, weights)
    return 2.0 / jnp.linalg.eigvalsh(root[:, None] * K.matrix * root)[-1]


def _scales(K, weights):
    """Return the diagonal of D^(1/2), (n,)."""
    return jnp.concatenate([jnp.full(n, jnp.sqrt(2.0 * weights[name] / n)) for name, n in K.sizes])
