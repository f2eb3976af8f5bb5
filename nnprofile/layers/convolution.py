"""Conv1D: a Dense layer on a window that slides along each sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Array, Cache, Layer, Parameters, Shape, as_sequences, check_filled, floating
from ..initializers import glorot_uniform
from ..ragged import Ragged
from ..validation import check_size

if TYPE_CHECKING:
    from ..contract import Rng


class Conv1D(Layer):
    """y_t = sum_k x_(t + s_k) W_k + b, with s_k = (k - (width - 1)) * dilation, and x = 0 before and after the sequence.

    Scalar rule (docs/sequences.md, eq. 50-52)::

        y_tj = sum_k,i x_(t + s_k)i W_kij + b_j
        dW_kij = sum_t x_(t + s_k)i dy_tj,   db_j = sum_t dy_tj,   dx_ti = sum_k,j dy_(t - s_k)j W_kij

    So an event sees itself and what was before it, at distances of 0, dilation, 2 dilation, ...: it is causal. With
    ``causal=False`` the window is centred, s_k = (k - (width - 1) / 2) * dilation, and an event sees later ones too.

    Parameters
    ----------
    in_features, out_features : int
    width : int
        How many events a window has; W has shape (width, in_features, out_features), b (out_features,).
    dilation : int, default 1
        The distance between them.
    causal : bool, default True
        False takes an odd width.

    Examples
    --------
    >>> layer = Conv1D(1, 1, 2)
    >>> layer.params["W"], layer.params["b"] = [[[10]], [[1]]], [0]
    >>> layer.forward(Ragged(np.array([[1.0], [2.0], [3.0]]), [0, 2, 3]))[0].values.tolist()
    [[1.0], [12.0], [3.0]]
    """

    config_names = ("in_features", "out_features", "width", "dilation", "causal")
    mixes_events = True

    def __init__(
        self, in_features: int, out_features: int, width: int, *, dilation: int = 1, causal: bool = True
    ) -> None:
        self.params = Parameters(self.shapes(in_features, out_features, width, dilation=dilation, causal=causal))
        self.width, self.in_features, self.out_features = self.params.layout["W"]
        self.dilation, self.causal = int(dilation), causal

    @classmethod
    def shapes(
        cls, in_features: int, out_features: int, width: int, *, dilation: int = 1, causal: bool = True
    ) -> dict[str, Shape]:
        """Return {"W": (width, in_features, out_features), "b": (out_features,)}."""
        n_in, n_out = check_size(in_features, "in_features"), check_size(out_features, "out_features")
        if check_size(dilation, "dilation") * check_size(width, "width") >= 2**31:
            raise ValueError(f"a window must be shorter than 2**31 events, got {width} at a distance of {dilation}")
        if not isinstance(causal, bool):
            raise ValueError(f"causal must be True or False, got {causal!r}")
        if check_size(width, "width") % 2 == 0 and not causal:
            raise ValueError(f"a centred window has an odd width, got {width}")
        return {"W": (int(width), n_in, n_out), "b": (n_out,)}

    def forward(self, x: Ragged, rng: Rng = None) -> tuple[Ragged, Cache]:
        """Return y, an event for each of x."""
        x = as_sequences(self, x)
        W, b = self.params["W"], self.params["b"]
        check_filled(self)
        seen = self._seen(x)
        windows = np.zeros((x.n_events, self.width, self.in_features), x.dtype)
        for k, (at, source) in enumerate(seen):
            windows[at, k] = x.values[source]
        windows = windows.reshape(x.n_events, self.width * self.in_features)
        return Ragged.of(windows @ W.reshape(-1, self.out_features) + b, x.offsets), (windows, seen)

    def backward(self, dy: Array, cache: Cache) -> tuple[Array, Parameters]:
        """Return dx and grads {"W", "b"}; dy has the shape of y's values."""
        dy, (windows, seen), W = floating(dy), cache, self.params["W"]
        if dy.shape != (len(windows), self.out_features):
            raise ValueError(f"dy must have the output's shape {(len(windows), self.out_features)}, got {dy.shape}")
        grads = self.params.like(np.result_type(windows, dy, W))
        grads["W"], grads["b"] = (windows.T @ dy).reshape(W.shape), dy.sum(axis=0)
        dwindows = (dy @ W.reshape(-1, self.out_features).T).reshape(len(dy), self.width, self.in_features)
        dx = np.zeros((len(dy), self.in_features), dwindows.dtype)
        for k, (at, source) in enumerate(seen):
            dx[source] += dwindows[at, k]
        return dx, grads

    def _seen(self, x: Ragged) -> list[tuple[Array, Array]]:
        """Return for each place of the window which events have one there, and which event that is."""
        first, end = np.repeat(x.offsets[:-1], x.lengths), np.repeat(x.offsets[1:], x.lengths)
        here = np.arange(x.n_events)
        now = self.width - 1 if self.causal else self.width // 2
        found = []
        for k in range(self.width):
            source = here + (k - now) * self.dilation
            at = np.flatnonzero((source >= first) & (source < end))
            found.append((at, source[at]))
        return found

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw W, as of a Dense layer on the window, and set b to zero, where they have no values yet."""
        missing = self.params.unfilled()
        if "W" in missing:
            n = self.width * self.in_features
            self.params["W"] = glorot_uniform(n, self.out_features, rng).reshape(self.params.layout["W"])
        if "b" in missing:
            self.params["b"] = np.zeros(self.out_features)

    def __repr__(self) -> str:
        more: Any = f", dilation={self.dilation}" if self.dilation > 1 else ""
        more += "" if self.causal else ", causal=False"
        return f"Conv1D({self.in_features}, {self.out_features}, {self.width}{more})"
