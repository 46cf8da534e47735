"""Infinite-width kernels of a network under differential operators (paper, section 4).

Take a network in NTK parameterisation with inputs of dimension d (normalised by the model), weights drawn from
N(0, sigma_w^2) and biases from N(0, sigma_b^2). As the widths grow, the pre-activations of every layer converge to a
Gaussian process, and the neural tangent kernel converges to a deterministic function. Write ``Sigma`` for the
covariance of a layer's pre-activations and ``Theta`` for their tangent kernel. Then

    first layer:  Sigma(x, y) = sigma_w^2 x.y / d + sigma_b^2,            Theta(x, y) = x.y / d + 1
    next layers:  Sigma'      = sigma_w^2 E[phi(z) phi(w)] + sigma_b^2,
                  Theta'      = E[phi(z) phi(w)] + 1 + sigma_w^2 E[phi'(z) phi'(w)] Theta,

where z and w are jointly Gaussian with mean zero, variances ``Sigma(x, x)`` and ``Sigma(y, y)``, and covariance
``Sigma(x, y)``, all from the previous layer. A linear operator commutes with the limit. The kernel of two conditions
with operators L_a and L_b is therefore

    K_ab(x, y) = L_a (applied to x) L_b (applied to y) Theta(x, y).

The kernels are smooth, even on the diagonal x = y. :func:`ntk_function` returns Theta as a function that JAX can
differentiate, so that you can apply this formula as it stands. :func:`ntk` computes the same values for many points,
much faster, with truncated Taylor polynomials in x and y. :func:`nngp_function` and :func:`nngp` do the same for
Sigma.
"""

from pinnntk_lib.limit._functions import nngp_function, ntk_function
from pinnntk_lib.limit._matrices import nngp, ntk

__all__ = ["nngp", "nngp_function", "ntk", "ntk_function"]
