"""What the kernel predicts about training by gradient descent (paper, sections 3 and 5).

As far as the kernel K stays what it is, the residuals r of all conditions follow a linear equation. For the loss
``sum_i lambda_i mean_i(r^2)`` that :func:`pinnntk_lib.train` minimises,

    dr/dt = -K D r,   D = diag(2 lambda_i / n_i),

and in the eigenvectors of the weighted kernel ``A = D^(1/2) K D^(1/2)`` every mode decays by itself: as exp(-kappa t)
under gradient flow, as (1 - eta kappa)^k after k steps of gradient descent with learning rate eta, kappa being its
eigenvalue. Time is measured in steps times learning rate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from pinnntk_lib._check import check_names, check_positive
from pinnntk_lib.kernel import NTK

Times = Sequence[float] | np.ndarray | jax.Array


@dataclass(frozen=True, eq=False)
class Linearized:
    """Training with a constant kernel, in closed form.

    The methods take times, in units of steps times learning rate, and follow gradient flow; given a learning rate
    they take numbers of steps, and follow gradient descent. Both come as an array (T,).

    Attributes:
        K: the kernel at the start, empirical or at infinite width.
        residuals: the residuals at the start, ``{name: (n_name,)}``, as :meth:`Problem.residuals` gives them.
        weights: ``{name: lambda_name}``; all 1 if None.

    Raises:
        ValueError, TypeError: if names, shapes or values do not fit; the message says which.

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
        if self.K.columns is not None:
            raise ValueError("K: expected the kernel of one set of points, got a cross kernel")
        check_names("residuals", self.residuals, self.K.names)
        for name, n in self.K.sizes:
            shape = jnp.shape(self.residuals[name])
            if shape != (n,):
                raise ValueError(f"residuals[{name!r}]: expected shape ({n},), as in K, got {shape}")
        self._root  # noqa: B018 -- checks the weights

    @cached_property
    def _root(self):
        """The square roots of D's diagonal."""
        return _scales(self.K, self.weights)

    @cached_property
    def _modes(self):
        """Eigenvalues, descending, eigenvectors of the weighted kernel, and the residuals in them."""
        root = self._root
        kappa, Q = jnp.linalg.eigh(root[:, None] * self.K.matrix * root)
        start = root * jnp.concatenate([jnp.asarray(self.residuals[name]) for name in self.K.names])
        # a negative eigenvalue is rounding, and would grow
        return jnp.maximum(kappa[::-1], 0.0), Q[:, ::-1], Q[:, ::-1].T @ start

    @property
    def rates(self) -> jax.Array:
        """The eigenvalues kappa of the weighted kernel, descending (n,): per unit of time, each mode's decay."""
        return self._modes[0]

    @property
    def time_constants(self) -> jax.Array:
        """The time in which each mode shrinks by e, ``1/kappa`` (n,); divide by the learning rate for steps."""
        return 1.0 / self.rates

    @property
    def energies(self) -> jax.Array:
        """What each mode has of the weighted loss at the start, (n,); twice the loss is their sum."""
        return self._modes[2] ** 2

    @property
    def modes(self) -> dict[str, jax.Array]:
        """The modes as residuals: ``{name: (n_name, n)}``, a column for each rate."""
        return self._by_condition(self._modes[1] / self._root[:, None])

    @property
    def largest_stable_learning_rate(self) -> jax.Array:
        """2/kappa_max; see :func:`largest_stable_learning_rate`."""
        return 2.0 / self.rates[0]

    def residuals_at(self, t: Times, learning_rate: float | None = None) -> dict[str, jax.Array]:
        """The residuals of each condition: ``{name: (T, n_name)}``."""
        _, Q, start = self._modes
        r = Q @ (self._left(self._times(t, learning_rate), learning_rate) * start[:, None])
        return {name: x.T for name, x in self._by_condition(r / self._root[:, None]).items()}

    def losses(self, t: Times, learning_rate: float | None = None) -> dict[str, jax.Array]:
        """The mean squared residual of each condition, not weighted: ``{name: (T,)}``."""
        return {name: (r**2).mean(axis=1) for name, r in self.residuals_at(t, learning_rate).items()}

    def change(self, cross: NTK, t: Times, learning_rate: float | None = None) -> dict[str, jax.Array]:
        """By how much training moves other quantities, for instance the solution at test points.

        Args:
            cross: the cross kernel of the training points with those: ``pn.ntk(apply, params, problem, points,
                other_points={"u": x})``.

        Returns:
            ``{name: (T, m)}``, to be added to their values at the start.

        Raises:
            ValueError: if the rows of ``cross`` are not those of K.
        """
        if cross.columns is None or cross.sizes != self.K.sizes:
            raise ValueError(f"cross: expected a cross kernel with rows {self.K.sizes}, got {cross.sizes}")
        kappa, Q, start = self._modes
        steps = self._times(t, learning_rate)
        positive = kappa[:, None] > 0
        # a mode's residual integrated over time: what is gone of it over kappa, and for kappa = 0 the time
        integral = jnp.where(
            positive,
            self._gone(steps, learning_rate) / jnp.where(positive, kappa[:, None], 1.0),
            (learning_rate or 1.0) * steps,
        )
        moved = -(cross.matrix.T * self._root) @ (Q @ (integral * start[:, None]))
        ends = np.cumsum([m for _, m in cross.columns])[:-1]
        return {name: x.T for (name, _), x in zip(cross.columns, jnp.split(moved, ends))}

    def _times(self, t, learning_rate):
        """``t`` as an array, both arguments checked."""
        t = jnp.asarray(t, self.K.matrix.dtype)
        if t.ndim != 1 or (t < 0).any():
            raise ValueError(f"t: expected an array (T,) of numbers from 0 on, got {t}")
        if learning_rate is not None:
            check_positive("learning_rate", learning_rate)
        return t

    def _left(self, t, eta):
        """What is left of each mode: (n, T)."""
        kappa = self.rates[:, None]
        return jnp.exp(-kappa * t) if eta is None else (1.0 - eta * kappa) ** t

    def _gone(self, t, eta):
        """One minus that, without its rounding where it is small."""
        kappa = self.rates[:, None]
        if eta is None:
            return -jnp.expm1(-kappa * t)
        slow = jnp.minimum(eta * kappa, 0.5)
        return jnp.where(eta * kappa < 0.5, -jnp.expm1(t * jnp.log1p(-slow)), 1.0 - self._left(t, eta))

    def _by_condition(self, rows):
        return {name: rows[self.K.rows(name)] for name in self.K.names}


def largest_stable_learning_rate(K: NTK, weights: Mapping[str, float] | None = None) -> jax.Array:
    """The learning rate above which gradient descent diverges, as far as the kernel stays what it is.

    For the loss ``sum_i lambda_i mean_i(residual^2)`` one step maps the residuals r to ``(I - eta K D) r`` with D the
    diagonal of ``2 lambda_i / n_i``, so it contracts only for ``eta < 2 / lambda_max(D^(1/2) K D^(1/2))``.
    It is a bound for full-batch gradient descent, not for Adam or momentum.

    Args:
        K: the kernel.
        weights: ``{name: lambda_name}``; all 1 if None.

    Raises:
        ValueError: if ``weights`` does not name K's conditions.

    Example:
        >>> import jax.numpy as jnp
        >>> K = NTK(4.0 * jnp.eye(2), (("u", 1), ("r", 1)))
        >>> print(f"{largest_stable_learning_rate(K):.3f}")
        0.250
    """
    root = _scales(K, weights)
    return 2.0 / jnp.linalg.eigvalsh(root[:, None] * K.matrix * root)[-1]


def _scales(K, weights):
    """The square roots of D's diagonal."""
    weights = dict.fromkeys(K.names, 1.0) if weights is None else weights
    check_names("weights", weights, K.names)
    return jnp.concatenate([jnp.full(n, jnp.sqrt(2.0 * weights[name] / n)) for name, n in K.sizes])
