"""Self-attention: each event looks at the events of its sequence, and takes a mean of what they offer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..contract import Array, Cache, Layer, Parameters, Shape, as_sequences, check_filled, floating
from ..initializers import glorot_uniform
from ..ragged import Ragged
from ..validation import check_size

if TYPE_CHECKING:
    from ..contract import Rng


class SelfAttention(Layer):
    """y = concat_h(A_h v_h) V + c, with A_h = softmax(q_h k_h^T / sqrt(d)) row by row, and [q, k, v] = x W + b.

    For one head, d = features / n_heads wide, with S = q k^T / sqrt(d) and o = A v (docs/sequences.md, eq. 64-68)::

        dA = do v^T            dS = A * (dA - sum_s dA_ts A_ts)
        dv = A^T do            dq = dS k / sqrt(d),     dk = dS^T q / sqrt(d)

    Attention knows nothing of order, but for the mask: PositionalEmbedding before it does. Sequences of equal length are
    computed together.

    Parameters
    ----------
    features, n_heads : int
        n_heads divides features. W has shape (features, 3 * features) and b (3 * features,), for q, k and v side by side, each
        of its heads side by side; V (features, features) and c (features,).
    causal : bool, default True
        Whether event t looks at events up to t alone: A is 0 after it.

    References
    ----------
    Vaswani et al. (2017), "Attention is all you need", section 3.2.

    Examples
    --------
    >>> layer = SelfAttention(1, 1)
    >>> layer.params["W"], layer.params["b"], layer.params["V"], layer.params["c"] = [[0, 0, 1]], [0, 0, 0], [[1]], [0]
    >>> layer.forward(Ragged(np.array([[1.0], [3.0], [5.0]]), [0, 2, 3]))[0].values.tolist()
    [[1.0], [2.0], [5.0]]
    """

    config_names = ("features", "n_heads", "causal")
    mixes_events = True
    gates = ("q", "k", "v")  # that lie side by side in W and b

    def __init__(self, features: int, n_heads: int, *, causal: bool = True) -> None:
        self.params = Parameters(self.shapes(features, n_heads, causal=causal))
        self.features, self.n_heads, self.causal = int(features), int(n_heads), causal
        self.in_features = self.out_features = self.features

    @classmethod
    def shapes(cls, features: int, n_heads: int, *, causal: bool = True) -> dict[str, Shape]:
        """Return {"W": (features, 3 * features), "b": (3 * features,), "V": (features, features), "c": (features,)}."""
        n, heads = check_size(features, "features"), check_size(n_heads, "n_heads")
        if n % heads:
            raise ValueError(f"n_heads must divide features, got {heads} and {n}")
        if not isinstance(causal, bool):
            raise ValueError(f"causal must be True or False, got {causal!r}")
        return {"W": (n, 3 * n), "b": (3 * n,), "V": (n, n), "c": (n,)}

    def forward(self, x: Ragged, rng: Rng = None) -> tuple[Ragged, Cache]:
        """Return y, an event for each of x."""
        x = as_sequences(self, x)
        check_filled(self)
        W, b, V, c = (self.params[name] for name in self.params)
        qkv = x.values @ W + b
        o, kept = np.empty((x.n_events, self.features), qkv.dtype), []
        for events in _of_equal_length(x):
            q, k, v = self._heads(qkv[events])
            A = self._weights(q @ np.swapaxes(k, -1, -2) * self._scale(q))
            o[events] = _side_by_side(A @ v)
            kept.append((events, q, k, v, A))
        return Ragged.of(o @ V + c, x.offsets), (x.values, o, kept)

    def backward(self, dy: Array, cache: Cache) -> tuple[Array, Parameters]:
        """Return dx and grads {"W", "b", "V", "c"}; dy has the shape of y's values."""
        dy, (x, o, kept), (W, V) = floating(dy), cache, (self.params["W"], self.params["V"])
        if dy.shape != o.shape:
            raise ValueError(f"dy must have the output's shape {o.shape}, got {dy.shape}")
        do = dy @ V.T
        dqkv = np.empty((len(x), 3 * self.features), np.result_type(do, o))
        for events, q, k, v, A in kept:
            dout = self._heads(do[events])[0]
            dA = dout @ np.swapaxes(v, -1, -2)
            dS = A * (dA - (dA * A).sum(axis=-1, keepdims=True)) * self._scale(q)
            parts = (dS @ k, np.swapaxes(dS, -1, -2) @ q, np.swapaxes(A, -1, -2) @ dout)
            dqkv[events] = np.concatenate([_side_by_side(part) for part in parts], axis=-1)
        grads = self.params.like(np.result_type(dqkv, x, W))
        grads["W"], grads["b"] = x.T @ dqkv, dqkv.sum(axis=0)
        grads["V"], grads["c"] = o.T @ dy, dy.sum(axis=0)
        return dqkv @ W.T, grads

    def _heads(self, a: Array) -> list[Array]:
        """Return what lies side by side in (n, T, k * features), each of shape (n, n_heads, T, d)."""
        n, T, width = a.shape
        d = self.features // self.n_heads
        return list(np.moveaxis(a.reshape(n, T, width // self.features, self.n_heads, d), (2, 3), (0, 2)))

    def _scale(self, q: Array) -> Array:
        return q.real.dtype.type((self.features // self.n_heads) ** -0.5)  # type: ignore[no-any-return]

    def _weights(self, S: Array) -> Array:
        """Return the softmax of each row of S; causal: of the events up to its own."""
        sees = np.tri(S.shape[-1], dtype=bool) if self.causal else np.ones(S.shape[-1], bool)
        top = np.where(sees, S.real, -np.inf).argmax(axis=-1)[..., None]
        e = np.exp(np.where(sees, S - np.take_along_axis(S, top, axis=-1), -np.inf))
        return e / e.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw W for q, k and v apart, and V, and set the biases to zero, where they have no values yet."""
        n = self.features
        for name in self.params.unfilled():
            shape = self.params.layout[name]
            draws = [glorot_uniform(n, n, rng) for _ in range(shape[-1] // n)] if len(shape) == 2 else []
            self.params[name] = np.concatenate(draws, axis=1) if draws else np.zeros(shape)

    def __repr__(self) -> str:
        return f"SelfAttention({self.features}, {self.n_heads}{'' if self.causal else ', causal=False'})"


def _of_equal_length(x: Ragged) -> Iterator[Array]:
    """Yield the events of the sequences of each length, shape (n, T)."""
    for length in np.unique(x.lengths):
        if length:
            yield x.offsets[:-1][x.lengths == length][:, None] + np.arange(length)


def _side_by_side(heads: Array) -> Array:
    """Return (n, T, features) of (n, n_heads, T, d)."""
    return np.moveaxis(heads, 1, 2).reshape(heads.shape[0], heads.shape[2], -1)
