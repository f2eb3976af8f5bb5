"""Dropout, the only layer that draws random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Array, Cache, Layer, Parameters, floating
from ..validation import check_number

if TYPE_CHECKING:
    from ..contract import Rng


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
    formula = {"y": "x * m", "dx": "dy * m"}  # m is drawn

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
