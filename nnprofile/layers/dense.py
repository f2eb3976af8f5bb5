"""Dense, the matrix product: ``x`` has one row a sample, so the code line ``x @ W + b`` is the equation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..contract import Array, Cache, Layer, Parameters, Shape, check_filled, floating, is_sparse
from ..initializers import glorot_uniform
from ..validation import check_rng, check_size

if TYPE_CHECKING:
    from ..contract import Rng

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
    formula = {
        "y": "sum(i, x[n, i] * W[i, j]) + b[j]",
        "dx": "sum(j, dy[n, j] * W[i, j])",
        "dW": "sum(n, x[n, i] * dy[n, j])",
        "db": "sum(n, dy[n, j])",
    }

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
        self.params = Parameters(self.shapes(**self.config()))
        if rng is not None:
            check_rng(rng)
            self.initialize(rng)

    @classmethod
    def shapes(cls, in_features: int, out_features: int) -> dict[str, Shape]:
        """Return {"W": (in_features, out_features), "b": (out_features,)}."""
        n_in, n_out = check_size(in_features, "in_features"), check_size(out_features, "out_features")
        return {"W": (n_in, n_out), "b": (n_out,)}

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
        y = x @ W
        y += b
        return y, x

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        """Return dx = dy @ W.T and grads {"W": x.T @ dy, "b": dy.sum(axis=0)}.

        dx is None for a CSR x. W is read now: take the optimizer's step afterwards.

        Raises
        ------
        ValueError
            If dy does not have the output's shape.
        """
        dy, x, W = floating(dy), cache, self.params["W"]
        if dy.shape != (x.shape[0], self.out_features):
            raise ValueError(f"dy must have the output's shape {(x.shape[0], self.out_features)}, got {dy.shape}")
        return None if is_sparse(x) else dy @ W.T, self._gradients(dy, x)

    def gradients(self, dy: Array, cache: Cache) -> Parameters:
        """Return grads without dx, which is a third of the work."""
        own = type(self).backward is Dense.backward and np.shape(dy) == (cache.shape[0], self.out_features)
        return self._gradients(floating(dy), cache) if own else super().gradients(dy, cache)

    def _gradients(self, dy: Array, x: Array) -> Parameters:
        dtype = np.result_type(x.dtype, dy, self.params["W"])
        grads = self.params.of(np.empty(self.params.vector.shape, dtype))
        if is_sparse(x):
            grads["W"] = x.T @ dy
        else:
            np.matmul(x.T, dy, out=grads["W"])
        np.sum(dy, axis=0, out=grads["b"])
        return grads

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw W by the initializer and set b to zero, where they have no values yet."""
        missing = self.params.unfilled()
        if "W" in missing:
            self.params["W"] = self.initializer(self.in_features, self.out_features, rng)
        if "b" in missing:
            self.params["b"] = np.zeros(self.out_features)

    def __repr__(self) -> str:
        return f"Dense({self.in_features}, {self.out_features})"
