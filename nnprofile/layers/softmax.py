"""Softmax: a function of a row, with its full Jacobian."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Array, Cache, Layer, Parameters, floating

if TYPE_CHECKING:
    from ..contract import Rng


class Softmax(Layer):
    """y_j = exp(x_j) / sum_k exp(x_k), row by row, with the full Jacobian behind it.

    Scalar rule, then matrix rule (docs/backprop.md, eq. 7, 26)::

        dy_j / dx_k = y_j * (1[j = k] - y_k)
        dx = y * (dy - sum(dy * y, axis=1, keepdims=True))

    Each row's largest x is subtracted first, which changes nothing and never overflows; so is, in backward, the dy of the
    largest y, which keeps the digits where that y is nearly 1.
    For training use SoftmaxCrossEntropy on the logits, not Softmax and a logarithm.

    Examples
    --------
    >>> layer = Softmax()
    >>> y, cache = layer.forward(np.array([[0.0, 0.0]]))
    >>> y.tolist(), layer.backward(np.array([[1.0, 0.0]]), cache)[0].tolist()
    ([[0.5, 0.5]], [[0.25, -0.25]])
    """

    formula = {
        "y": "exp(x) / sum(k, exp(x[n, k]))",
        "dx": "y * (dy - sum(k, dy[n, k] * y[n, k]))",
    }

    def output_width(self, width: Any) -> Any:
        """Return the width of x."""
        return width

    def forward(self, x: Array, rng: Rng = None) -> tuple[Array, Cache]:
        """Return y = exp(x) / sum(exp(x), axis=1, keepdims=True), shape (n_samples, n_features)."""
        x = floating(x)
        if x.ndim != 2:
            raise ValueError(f"Softmax() takes x of shape (n_samples, n_features), got {x.shape}")
        top = x.real.argmax(axis=1)[:, None]
        e = np.exp(x - np.take_along_axis(x, top, axis=1))
        y = e / e.sum(axis=1, keepdims=True)
        return y, (y.copy(), top)

    def backward(self, dy: Array, cache: Cache) -> tuple[Array, Parameters]:
        """Return dx = y * (dy - sum(dy * y, axis=1, keepdims=True)) and no gradients."""
        dy, (y, top) = floating(dy), cache
        if dy.shape != y.shape:
            raise ValueError(f"dy must have the output's shape {y.shape}, got {dy.shape}")
        dy = dy - np.take_along_axis(dy, top, axis=1)
        return y * (dy - (dy * y).sum(axis=1, keepdims=True)), Parameters({})
