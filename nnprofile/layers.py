"""Layers that hold parameters or draw random numbers: Dense, the matrix product, and Dropout.

``x`` is (n_samples, in_features): one row a sample, so the code line ``x @ W + b`` is the equation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .contract import Array, Cache, Layer, Parameters, check_filled, floating, is_sparse
from .initializers import glorot_uniform
from .validation import check_number, check_rng, check_size

if TYPE_CHECKING:
    Rng = np.random.Generator | None
    Initializer = Callable[[int, int, np.random.Generator], Array]


class Dense(Layer):
    """y = x @ W + b.

    Scalar rule, then matrix rule (docs/backprop.md, eq. 1-2, 21-23)::

        y_nj = sum_i x_ni W_ij + b_j   =>   dW_ij = sum_n x_ni dy_nj,   db_j = sum_n dy_nj,   dx_ni = sum_j dy_nj W_ij
        y = x @ W + b                  =>   dW = x.T @ dy,              db = dy.sum(axis=0),  dx = dy @ W.T

    Parameters
    ----------
    in_features, out_features : int
        W has shape (in_features, out_features), b has shape (out_features,).
    initializer : function (fan_in, fan_out, rng) -> Array, default glorot_uniform
        Draws W; b starts at zero.
    rng : numpy.random.Generator, optional
        Draws the values now. Without it the layer has shapes but no values until a Sequential with ``rng`` gives them,
        or ``params["W"] = ...`` does.

    Examples
    --------
    >>> layer = Dense(2, 1)
    >>> layer.params["W"], layer.params["b"] = [[1], [2]], [3]
    >>> y, cache = layer.forward(np.array([[10.0, 20.0]]))
    >>> y.tolist()
    [[53.0]]
    >>> dx, grads = layer.backward(np.array([[1.0]]), cache)
    >>> dx.tolist(), grads["W"].tolist(), grads["b"].tolist()
    ([[1.0, 2.0]], [[10.0], [20.0]], [1.0])
    """

    config_names = ("in_features", "out_features")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        initializer: Initializer = glorot_uniform,
        rng: Rng = None,
    ) -> None:
        self.in_features = check_size(in_features, "in_features")
        self.out_features = check_size(out_features, "out_features")
        if not callable(initializer):
            raise ValueError(f"initializer must be a function (fan_in, fan_out, rng) -> Array, got {initializer!r}")
        self.initializer = initializer
        self.params = Parameters({"W": (self.in_features, self.out_features), "b": (self.out_features,)})
        if rng is not None:
            check_rng(rng)
            self.initialize(rng)

    def forward(self, x: Array, rng: Rng = None) -> tuple[Array, Cache]:
        """Return y = x @ W + b, shape (n_samples, out_features), for an array or a CSR matrix.

        Raises
        ------
        ValueError
            If x is not (n_samples, in_features), or the layer has no values yet.
        """
        x = x if is_sparse(x) else floating(x)
        if x.ndim != 2 or x.shape[1] != self.in_features:
            raise ValueError(f"{self!r} takes x of shape (n_samples, {self.in_features}), got {x.shape}")
        W, b = self.params["W"], self.params["b"]
        check_filled(self)
        return x @ W + b, x

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        """Return dx = dy @ W.T and grads {"W": x.T @ dy, "b": dy.sum(axis=0)}.

        dx is None for a CSR x, whose gradient nobody asks for. W is read now: take the optimizer's step afterwards.

        Raises
        ------
        ValueError
            If dy does not have the output's shape.
        """
        dy, x, W = floating(dy), cache, self.params["W"]
        if dy.shape != (x.shape[0], self.out_features):
            raise ValueError(f"dy must have the output's shape {(x.shape[0], self.out_features)}, got {dy.shape}")
        grads = self.params.like(np.result_type(x.dtype, dy, W))
        grads["W"] = x.T @ dy
        grads["b"] = dy.sum(axis=0)
        return None if is_sparse(x) else dy @ W.T, grads

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw W by the initializer and set b to zero, where they have no values yet."""
        missing = self.params.unfilled()
        if "W" in missing:
            self.params["W"] = self.initializer(self.in_features, self.out_features, rng)
        if "b" in missing:
            self.params["b"] = np.zeros(self.out_features)

    def __repr__(self) -> str:
        return f"Dense({self.in_features}, {self.out_features})"


class Dropout(Layer):
    """In training y = x * mask / (1 - rate), with mask 0 for a random share ``rate`` of the elements; else y = x.

    dx = dy * mask / (1 - rate), with the mask of the forward pass. The mean of y is x, so inference needs no
    scaling (docs/backprop.md, eq. 8).

    Parameters
    ----------
    rate : float
        The share that is dropped, in [0, 1).

    References
    ----------
    Srivastava et al. (2014), "Dropout: a simple way to prevent neural networks from overfitting", section 10 (inverted).

    Examples
    --------
    >>> layer = Dropout(0.5)
    >>> layer.forward(np.ones((1, 4)))[0].tolist()
    [[1.0, 1.0, 1.0, 1.0]]
    >>> layer.forward(np.ones((1, 4)), np.random.default_rng(0))[0].tolist()
    [[2.0, 2.0, 2.0, 0.0]]
    """

    config_names = ("rate",)

    def __init__(self, rate: float) -> None:
        self.rate = check_number(rate, "rate", below=1.0)

    def output_width(self, width: Any) -> Any:
        """Return the width of x."""
        return width

    def forward(self, x: Array, rng: Rng = None) -> tuple[Array, Cache]:
        """Return x * scale; scale is 1 / (1 - rate) where a float32 uniform is at least ``rate``, else 0."""
        x = floating(x)
        if rng is None:
            scale = np.ones(x.shape, x.real.dtype)
        else:
            scale = (rng.random(x.shape, dtype=np.float32) >= self.rate) * x.real.dtype.type(1 / (1 - self.rate))
        return x * scale, scale

    def backward(self, dy: Array, cache: Cache) -> tuple[Array, Parameters]:
        """Return dx = dy * scale and no gradients."""
        dy = floating(dy)
        if dy.shape != cache.shape:
            raise ValueError(f"dy must have the output's shape {cache.shape}, got {dy.shape}")
        return dy * cache, Parameters({})
