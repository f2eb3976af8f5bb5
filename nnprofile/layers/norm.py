"""LayerNorm: each row brought to mean 0 and variance 1, then scaled and shifted by what is learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Array, Cache, Layer, Parameters, Shape, check_filled, floating
from ..validation import check_number, check_size

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from ..contract import Rng


class LayerNorm(Layer):
    """y = g * h + b, with h = (x - m) / sqrt(v + epsilon), and m and v the mean and the variance of x's row.

    Scalar rule (docs/backprop.md, eq. 43-44), with r = 1 / sqrt(v + epsilon) and means over the K numbers of a row::

        h_nj = (x_nj - m_n) r_n          =>   dg_j = sum_n dy_nj h_nj,   db_j = sum_n dy_nj
        y_nj = g_j h_nj + b_j                 dx_nj = r_n (dh_nj - mean(dh_n) - h_nj mean(dh_n h_n)),   dh_nj = dy_nj g_j

    A row's y depends on that row alone: batch size, training and inference make no difference.

    Parameters
    ----------
    features : int
        g and b have shape (features,): g starts at 1, b at 0.
    epsilon : float, default 1e-5
        Greater than 0: what a row without variance is divided by the root of.

    References
    ----------
    Ba, Kiros and Hinton (2016), "Layer normalization", section 3.

    Examples
    --------
    >>> layer = LayerNorm(2)
    >>> layer.initialize(np.random.default_rng(0))
    >>> y, cache = layer.forward(np.array([[1.0, 3.0]]))
    >>> y.round(3).tolist(), layer.backward(np.array([[1.0, 0.0]]), cache)[0].round(3).tolist()
    ([[-1.0, 1.0]], [[0.0, -0.0]])
    """

    config_names = ("features", "epsilon")
    formula = {
        "m": "sum(k, x[n, k]) / K",
        "r": "1 / sqrt(sum(k, (x[n, k] - m[n])**2) / K + epsilon)",
        "h": "(x - m[n]) * r[n]",
        "y": "g[j] * h + b[j]",
        "dx": "r[n] * (dy * g[j] - sum(k, dy[n, k] * g[k]) / K - h * (sum(k, dy[n, k] * g[k] * h[n, k]) / K))",
        "dg": "sum(n, dy * h)",
        "db": "sum(n, dy)",
    }

    def __init__(self, features: int, epsilon: float = 1e-5) -> None:
        self.features = self.in_features = self.out_features = check_size(features, "features")
        self.epsilon = check_number(epsilon, "epsilon", positive=True)
        self.params = Parameters(self.shapes(features))

    @classmethod
    def shapes(cls, features: int, epsilon: float = 1e-5) -> dict[str, Shape]:
        """Return {"g": (features,), "b": (features,)}."""
        n = check_size(features, "features")
        return {"g": (n,), "b": (n,)}

    def forward(self, x: Array, rng: Rng = None) -> tuple[Array, Cache]:
        """Return y, shape (n_samples, features).

        Raises
        ------
        ValueError
            If x is not (n_samples, features), or the layer has no values yet.
        """
        x = floating(x)
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ValueError(f"{self!r} takes x of shape (n_samples, {self.features}), got {x.shape}")
        check_filled(self)
        epsilon = self.epsilon_in(x.real.dtype)
        with np.errstate(over="ignore"):  # of a row too large to have a variance, h is 0
            m = x.mean(axis=1, keepdims=True)
            r = 1 / np.sqrt(((x - m) * (x - m)).mean(axis=1, keepdims=True) + epsilon)
        h = (x - m) * r
        return self.params["g"] * h + self.params["b"], (m, r, h)

    def backward(self, dy: Array, cache: Cache) -> tuple[Array, Parameters]:
        """Return dx and grads {"g": sum(dy * h), "b": sum(dy)}, sums over rows; dy has the shape of y."""
        dy, (_, r, h), g = floating(dy), cache, self.params["g"]
        if dy.shape != h.shape:
            raise ValueError(f"dy must have the output's shape {h.shape}, got {dy.shape}")
        grads = self.params.like(np.result_type(dy, h, g))
        grads["g"], grads["b"] = (dy * h).sum(axis=0), dy.sum(axis=0)
        dh = dy * g
        return r * (dh - dh.mean(axis=1, keepdims=True) - h * (dh * h).mean(axis=1, keepdims=True)), grads

    def initialize(self, rng: np.random.Generator) -> None:
        """Set g to 1 and b to 0, where they have no values yet."""
        for name in self.params.unfilled():
            self.params[name] = np.full(self.features, float(name == "g"))

    def epsilon_in(self, dtype: DTypeLike) -> float:
        """Return epsilon, or the least normal number of dtype where that is more: a divisor must not round to 0."""
        return max(self.epsilon, float(np.finfo(dtype).tiny))

    def inner(self, cache: Cache) -> dict[str, Any]:
        """Return m, r and h."""
        m, r, h = cache
        return {"m": m[:, 0], "r": r[:, 0], "h": h}
