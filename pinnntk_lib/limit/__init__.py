"""The kernels of a network of infinite width, with differential operators applied (paper, section 4).

For a network in NTK parameterisation, with inputs of dimension d (normalised as the model does), weights drawn from
N(0, sigma_w^2) and biases from N(0, sigma_b^2), the pre-activations of every layer tend to a Gaussian process as the
widths grow, and its neural tangent kernel to a deterministic function. With ``Sigma`` the covariance and ``Theta``
the kernel of a layer's pre-activations,

    first layer:  Sigma(x, y) = sigma_w^2 x.y / d + sigma_b^2,            Theta(x, y) = x.y / d + 1
    every next:   Sigma'      = sigma_w^2 E[phi(z) phi(w)] + sigma_b^2,
                  Theta'      = E[phi(z) phi(w)] + 1 + sigma_w^2 E[phi'(z) phi'(w)] Theta,

(z, w) being Gaussian with the covariances ``Sigma(x, x)``, ``Sigma(y, y)``, ``Sigma(x, y)`` of the layer before. A
linear operator commutes with the limit: the kernel of conditions with operators L_a and L_b is

    K_ab(x, y) = L_a (applied to x) L_b (applied to y) Theta(x, y).

The kernels are smooth, on the diagonal x = y too. :func:`ntk_function` gives them as functions that JAX can
differentiate, so that this formula can be written down as it stands; :func:`ntk` computes the same for many points,
much faster, from truncated Taylor polynomials in x and y.
"""

from pinnntk_lib.limit._functions import nngp_function, ntk_function
from pinnntk_lib.limit._matrices import nngp, ntk

__all__ = ["nngp", "nngp_function", "ntk", "ntk_function"]
