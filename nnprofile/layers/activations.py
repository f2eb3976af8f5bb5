"""Activations bend the line: without them, any stack of dense layers is one dense layer.

Each is an elementwise function with its derivative directly below it; branches look at the real part (see ``functions``).
"""

from __future__ import annotations

from math import pi, sqrt
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..contract import Array, Cache, Layer, Parameters, floating
from ..functions import erfc, sigmoid, tanh_slope
from ..validation import check_number

if TYPE_CHECKING:
    from ..contract import Rng


class Elementwise(Layer):
    """y_ij = f(x_ij), so dx_ij = dy_ij * f'(x_ij) (docs/backprop.md, eq. 3, 24); ``forward`` caches what f' needs."""

    symbol: ClassVar[str] = ""  # of f in formulas, unless it is the name of the class

    def output_width(self, width: Any) -> Any:
        """Return the width of x."""
        return width

    def backward(self, dy: Array, cache: Cache) -> tuple[Array, Parameters]:
        """Return dx = dy * f'(x), shape of dy, and no gradients."""
        dy, slope = floating(dy), self._slope(cache)
        if dy.shape != slope.shape:
            raise ValueError(f"dy must have the output's shape {slope.shape}, got {dy.shape}")
        return dy * slope, Parameters({})

    def _slope(self, cache: Cache) -> Array:
        raise NotImplementedError


class Identity(Elementwise):
    """y = x, dx = dy. The link of losses whose y_pred is the prediction itself.

    Examples
    --------
    >>> Identity().forward(np.array([[1.0, -2.0]]))[0].tolist()
    [[1.0, -2.0]]
    """

    symbol = "id"
    formula = {"y": "x", "slope": "1"}

    def forward(self, x: Array, rng: Rng = None) -> tuple[Array, Cache]:
        """Return a copy of x."""
        x = floating(x)
        return x.copy(), x

    def _slope(self, cache: Cache) -> Array:
        return np.ones_like(cache)


class Sigmoid(Elementwise):
    """y = s(x) = 1 / (1 + exp(-x)), dx = dy * s(x) * (1 - s(x)).

    1 - s(x) is computed as s(-x), which stays exact where s(x) is nearly 1 (docs/backprop.md, eq. 5, 25).

    Examples
    --------
    >>> layer = Sigmoid()
    >>> y, cache = layer.forward(np.array([[0.0, -1000.0, 1000.0]]))
    >>> y.tolist()
    [[0.5, 0.0, 1.0]]
    >>> layer.backward(np.ones((1, 3)), cache)[0].tolist()
    [[0.25, 0.0, 0.0]]
    """

    symbol = "σ"
    formula = {"y": "1 / (1 + exp(-x))", "slope": "y * (1 - y)"}

    def forward(self, x: Array, rng: Rng = None) -> tuple[Array, Cache]:
        """Return y = s(x)."""
        y, one_minus_y = sigmoid(floating(x))
        return y, y * one_minus_y

    def _slope(self, cache: Cache) -> Array:
        return cache  # type: ignore[no-any-return]


class Tanh(Elementwise):
    """y = tanh(x), dx = dy * (1 - tanh(x)^2).

    1 - tanh(x)^2 is computed as 4 s(2x) s(-2x), which stays exact where tanh(x) is nearly 1 or -1
    (docs/backprop.md, eq. 6, 25).

    Examples
    --------
    >>> layer = Tanh()
    >>> y, cache = layer.forward(np.array([[0.0]]))
    >>> y.tolist(), layer.backward(np.ones((1, 1)), cache)[0].tolist()
    ([[0.0]], [[1.0]])
    """

    formula = {"y": "tanh(x)", "slope": "1 - y**2"}

    def forward(self, x: Array, rng: Rng = None) -> tuple[Array, Cache]:
        """Return y = tanh(x)."""
        x = floating(x)
        return np.tanh(x), x

    def _slope(self, cache: Cache) -> Array:
        return tanh_slope(cache)


class LeakyReLU(Elementwise):
    """y = x where x > 0, negative_slope * x elsewhere; dx = dy, or dy * negative_slope.

    At x = 0 backward returns the left derivative, an element of the subgradient (docs/backprop.md, eq. 6, 25).

    Parameters
    ----------
    negative_slope : float, default 0.01
        In [0, 1).

    Examples
    --------
    >>> LeakyReLU(0.1).forward(np.array([[2.0, -2.0]]))[0].tolist()
    [[2.0, -0.2]]
    """

    config_names = ("negative_slope",)
    symbol = "lrelu"
    formula = {"y": "max(x, negative_slope * x)", "slope": "(x > 0) + negative_slope * (x <= 0)"}

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = check_number(negative_slope, "negative_slope", below=1.0)

    def forward(self, x: Array, rng: Rng = None) -> tuple[Array, Cache]:
        """Return y = x where x > 0, negative_slope * x elsewhere."""
        x = floating(x)
        return np.where(x.real > 0, x, self.negative_slope * x), x

    def _slope(self, cache: Cache) -> Array:
        return np.where(cache.real > 0, 1, self.negative_slope).astype(cache.dtype, copy=False)


class ReLU(Elementwise):
    """y = max(x, 0); dx = dy where x > 0, else 0.

    At x = 0 backward returns 0, an element of the subgradient [0, dy] (docs/backprop.md, eq. 6, 25).

    Examples
    --------
    >>> layer = ReLU()
    >>> y, cache = layer.forward(np.array([[2.0, -2.0]]))
    >>> y.tolist(), layer.backward(np.array([[5.0, 7.0]]), cache)[0].tolist()
    ([[2.0, 0.0]], [[5.0, 0.0]])
    """

    formula = {"y": "max(x, 0)", "slope": "x > 0"}

    def forward(self, x: Array, rng: Rng = None) -> tuple[Array, Cache]:
        """Return y = max(x, 0)."""
        x = floating(x)
        y = np.where(x.real <= 0, 0, x) if np.iscomplexobj(x) else np.maximum(x, 0)
        return y, x  # NaN stays NaN, so that divergence is seen

    def _slope(self, cache: Cache) -> Array:
        slope: Array = (cache.real > 0).astype(cache.dtype)
        return slope


class Exp(Elementwise):
    """y = exp(x), dx = dy * y: a rate from its logarithm, the link of PoissonLoss (docs/backprop.md, eq. 40).

    Examples
    --------
    >>> layer = Exp()
    >>> y, cache = layer.forward(np.array([[0.0, 1.0]]))
    >>> y.round(3).tolist(), layer.backward(np.ones((1, 2)), cache)[0].round(3).tolist()
    ([[1.0, 2.718]], [[1.0, 2.718]])
    """

    formula = {"y": "exp(x)", "slope": "y"}

    def forward(self, x: Array, rng: Rng = None) -> tuple[Array, Cache]:
        """Return y = exp(x); inf, where that is too large for a float."""
        with np.errstate(over="ignore"):
            y = np.exp(floating(x))
        return y, y.copy()

    def _slope(self, cache: Cache) -> Array:
        return cache  # type: ignore[no-any-return]


class GELU(Elementwise):
    """y = x Phi(x), with the share Phi(x) of a normal distribution that is below x; dx = dy * (Phi(x) + x phi(x)).

    Phi(x) is computed as erfc(-x / sqrt(2)) / 2, which keeps its digits where it is small, and its density is
    phi(x) = exp(-x^2 / 2) / sqrt(2 pi) (docs/backprop.md, eq. 42). This is the exact form, not the one with tanh.

    References
    ----------
    Hendrycks and Gimpel (2016), "Gaussian error linear units (GELUs)", section 2.

    Examples
    --------
    >>> layer = GELU()
    >>> y, cache = layer.forward(np.array([[0.0, 1.0, -1.0]]))
    >>> y.round(3).tolist(), layer.backward(np.ones((1, 3)), cache)[0].round(3).tolist()
    ([[0.0, 0.841, -0.159]], [[0.5, 1.083, -0.083]])
    """

    formula = {
        "y": "x * (erfc(-x / sqrt(2)) / 2)",
        "slope": "erfc(-x / sqrt(2)) / 2 + x * exp(-x**2 / 2) / sqrt(2 * pi)",
    }

    def forward(self, x: Array, rng: Rng = None) -> tuple[Array, Cache]:
        """Return y = x Phi(x)."""
        x = floating(x)
        below = erfc(x / -sqrt(2)) / 2
        return x * below, (x, below)

    def _slope(self, cache: Cache) -> Array:
        x, below = cache
        with np.errstate(over="ignore"):  # of x^2, where the density is 0
            out: Array = below + x * (np.exp(x * x / -2) / sqrt(2 * pi))
        return out
