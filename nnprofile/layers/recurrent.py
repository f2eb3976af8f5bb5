"""Recurrent layers: what is remembered of the events so far is carried from one to the next.

``Recurrent`` walks through time, forward and back; each cell below it is one step, its backward beside its forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..contract import Array, Cache, Layer, Parameters, Shape, as_sequences, check_filled, floating
from ..functions import sigmoid, tanh_slope
from ..initializers import glorot_uniform
from ..ragged import Ragged
from ..validation import check_size

if TYPE_CHECKING:
    from ..contract import Rng

State = tuple[Array, ...]  # h, and what else a cell carries on, each of shape (n_sequences, out_features)


class Recurrent(Layer):
    """h_t = cell(x_t W + b, h_(t-1) U + c, h_(t-1)) for t = 1, 2, ... of each sequence, from h_0 = 0; y_t = h_t.

    Backpropagation through time (docs/sequences.md, eq. 53-56), from the last event of a sequence to the first: h_t is used as
    y_t and in the next step, so dh_t is dy_t and what comes back from there. With da_t and du_t for x_t W + b and h_(t-1) U + c::

        dh_(t-1) = du_t U^T + what the cell hands back directly
        dW = sum_t x_t^T da_t,   db = sum_t da_t,   dU = sum_t h_(t-1)^T du_t,   dc = sum_t du_t,   dx_t = da_t W^T

    Sequences are taken in the order of falling length, so that those still running at step t are the first ones.

    Parameters
    ----------
    in_features, out_features : int
        Of an event, and of h. W has shape (in_features, gates * out_features), U (out_features, gates * out_features), a bias
        (gates * out_features,): the gates lie side by side. W and U are drawn gate by gate, as a Dense layer's W.
    """

    config_names = ("in_features", "out_features")
    mixes_events = True
    causal = True
    gates: ClassVar[tuple[str, ...]]
    biases: ClassVar[tuple[str, ...]] = ("b",)

    def __init__(self, in_features: int, out_features: int) -> None:
        self.params = Parameters(self.shapes(in_features, out_features))
        self.in_features, self.out_features = int(in_features), int(out_features)

    @classmethod
    def shapes(cls, in_features: int, out_features: int) -> dict[str, Shape]:
        """Return the shapes of W, U and the biases."""
        n_in, n_out = check_size(in_features, "in_features"), check_size(out_features, "out_features")
        width = len(cls.gates) * n_out
        return {"W": (n_in, width), "U": (n_out, width)} | dict.fromkeys(cls.biases, (width,))

    def forward(self, x: Ragged, rng: Rng = None) -> tuple[Ragged, Cache]:
        """Return y, the h after each event."""
        x = as_sequences(self, x)
        check_filled(self)
        W, U, b = self.params["W"], self.params["U"], self.params["b"]
        c = self.params.get("c", 0)
        events, ends = _in_time(x)
        xs = x.values[events]
        a = xs @ W + b
        state = self._start(ends[0] if len(ends) else 0, a.dtype)
        before, after = np.empty((len(xs), self.out_features), a.dtype), np.empty((len(xs), self.out_features), a.dtype)
        kept = []
        for now in _steps(ends):
            state = tuple(s[: now.stop - now.start] for s in state)
            before[now] = state[0]
            state, own = self._forward_step(a[now], state[0] @ U + c, state)
            after[now] = state[0]
            kept.append(own)
        y = np.empty_like(after)
        y[events] = after
        return Ragged.of(y, x.offsets), (xs, before, events, ends, kept)

    def backward(self, dy: Array, cache: Cache) -> tuple[Array, Parameters]:
        """Return dx and the gradients of W, U and the biases; dy has the shape of y's values."""
        dy, (xs, before, events, ends, kept) = floating(dy), cache
        if dy.shape != before.shape:
            raise ValueError(f"dy must have the output's shape {before.shape}, got {dy.shape}")
        W, U = self.params["W"], self.params["U"]
        dys, dtype = dy[events], np.result_type(dy, before, U)
        da, du = np.empty((len(xs), W.shape[1]), dtype), np.empty((len(xs), W.shape[1]), dtype)
        dstate = self._start(0, dtype)
        for now, own in zip(reversed(list(_steps(ends))), reversed(kept), strict=True):
            dstate = tuple(_grown(d, now.stop - now.start) for d in dstate)  # sequences that end here come back in
            dstate[0][...] += dys[now]
            da[now], du[now], dstate = self._backward_step(dstate, own)
            dstate[0][...] += du[now] @ U.T
        grads = self.params.like(dtype)
        grads["W"], grads["U"] = xs.T @ da, before.T @ du
        for name, d in zip(self.biases, (da, du), strict=False):
            grads[name] = d.sum(axis=0)
        dx = np.empty_like(xs, dtype=dtype)
        dx[events] = da @ W.T
        return dx, grads

    def _start(self, n: int, dtype: np.dtype) -> State:
        """Return h_0, and what else the cell carries, for n sequences."""
        return (np.zeros((n, self.out_features), dtype),)

    def _forward_step(self, a: Array, u: Array, state: State) -> tuple[State, Cache]:
        raise NotImplementedError

    def _backward_step(self, dstate: State, cache: Cache) -> tuple[Array, Array, State]:
        """Return da, du, and what goes to the state before directly, in memory of its own."""
        raise NotImplementedError

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw W and U, and set the biases to zero, where they have no values yet."""
        for name in self.params.unfilled():
            shape = self.params.layout[name]
            if len(shape) == 1:
                self.params[name] = np.zeros(shape)
            else:
                draws = [glorot_uniform(shape[0], self.out_features, rng) for _ in self.gates]
                self.params[name] = np.concatenate(draws, axis=1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_features}, {self.out_features})"


def _in_time(x: Ragged) -> tuple[Array, Array]:
    """Return the events, step by step, those of longer sequences first; and how many sequences have a step."""
    order = np.argsort(-x.lengths, kind="stable")
    starts, lengths = x.offsets[:-1][order], x.lengths[order]
    steps = np.arange(x.n_events) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return (np.repeat(starts, lengths) + steps)[np.argsort(steps, kind="stable")], np.bincount(steps)


def _steps(ends: Array) -> Iterator[slice]:
    start = 0
    for n in ends.tolist():
        yield slice(start, start + n)
        start += n


def _grown(d: Array, n: int) -> Array:
    out = np.zeros((n, d.shape[1]), d.dtype)
    out[: len(d)] = d
    return out


class RNN(Recurrent):
    """h_t = tanh(x_t W + b + h_(t-1) U), after Elman.

    With da_t = dh_t (1 - h_t^2), the same for both products (docs/sequences.md, eq. 57).

    References
    ----------
    Elman (1990), "Finding structure in time".

    Examples
    --------
    >>> layer = RNN(1, 1)
    >>> layer.params["W"], layer.params["U"], layer.params["b"] = [[1]], [[1]], [0]
    >>> layer.forward(Ragged(np.array([[1.0], [0.0]]), [0, 2]))[0].values.round(3).tolist()
    [[0.762], [0.642]]
    """

    gates = ("h",)

    def _forward_step(self, a: Array, u: Array, state: State) -> tuple[State, Cache]:
        return (np.tanh(a + u),), a + u

    def _backward_step(self, dstate: State, cache: Cache) -> tuple[Array, Array, State]:
        da = dstate[0] * tanh_slope(cache)
        return da, da, (np.zeros_like(da),)


class GRU(Recurrent):
    """Gated recurrent unit: h_t = (1 - z_t) n_t + z_t h_(t-1), with a gate r for what is read, and z for what is kept.

    With a = x_t W + b and u = h_(t-1) U + c, each three gates wide (docs/sequences.md, eq. 58-60)::

        r = s(a_r + u_r)            dn = dh (1 - z),        da_n = dn (1 - n^2),       du_n = da_n r
        z = s(a_z + u_z)            dz = dh (h_(t-1) - n),  da_z = du_z = dz z (1 - z)
        n = tanh(a_n + r u_n)       dr = da_n u_n,          da_r = du_r = dr r (1 - r)

    dh z goes to h_(t-1) directly. The reset is applied after the product with U, as in PyTorch and cuDNN.

    References
    ----------
    Cho et al. (2014), "Learning phrase representations using RNN encoder-decoder for statistical machine translation".

    Examples
    --------
    >>> layer = GRU(1, 1)
    >>> layer.params.vector = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    >>> layer.forward(Ragged(np.array([[1.0], [0.0]]), [0, 2]))[0].values.round(3).tolist()
    [[0.381], [0.284]]
    """

    gates = ("r", "z", "n")
    biases = ("b", "c")

    def _forward_step(self, a: Array, u: Array, state: State) -> tuple[State, Cache]:
        (h,), k = state, self.out_features
        gates, closed = sigmoid(a[:, : 2 * k] + u[:, : 2 * k])
        r, z = gates[:, :k], gates[:, k:]
        u_n = u[:, 2 * k :]
        new = a[:, 2 * k :] + r * u_n
        n = np.tanh(new)
        kept = np.where(z.real > 0.5, h - closed[:, k:] * (h - n), n + z * (h - n))  # the form that loses no digits
        return (kept,), (h, r, z, closed, n, new, u_n)

    def _backward_step(self, dstate: State, cache: Cache) -> tuple[Array, Array, State]:
        (dh,), (h, r, z, closed, n, new, u_n) = dstate, cache
        k = self.out_features
        da_n = dh * closed[:, k:] * tanh_slope(new)
        da_z = dh * (h - n) * z * closed[:, k:]
        da_r = da_n * u_n * r * closed[:, :k]
        return np.hstack([da_r, da_z, da_n]), np.hstack([da_r, da_z, da_n * r]), (dh * z,)


class LSTM(Recurrent):
    """Long short-term memory: a cell c_t = f c_(t-1) + i g that is added to, and h_t = o tanh(c_t), what is shown of it.

    With a = x_t W + b + h_(t-1) U, four gates wide (docs/sequences.md, eq. 61-63)::

        i, f, o = s(a_i), s(a_f), s(a_o)       do = dh tanh(c_t),        dc += dh o (1 - tanh(c_t)^2)
        g       = tanh(a_g)                    di = dc g,  dg = dc i,    df = dc c_(t-1),   da = those times each gate's slope

    dc f goes to c_(t-1) directly. b of the gate f starts at 1, so that at first the cell is kept; the other biases at 0.

    References
    ----------
    Hochreiter and Schmidhuber (1997), "Long short-term memory"; Gers, Schmidhuber and Cummins (2000), "Learning to forget".

    Examples
    --------
    >>> layer = LSTM(1, 1)
    >>> layer.params.vector = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    >>> layer.forward(Ragged(np.array([[1.0], [0.0]]), [0, 2]))[0].values.round(3).tolist()
    [[0.182], [0.094]]
    """

    gates = ("i", "f", "g", "o")

    def _start(self, n: int, dtype: np.dtype) -> State:
        return (np.zeros((n, self.out_features), dtype), np.zeros((n, self.out_features), dtype))

    def _forward_step(self, a: Array, u: Array, state: State) -> tuple[State, Cache]:
        (_, c), a = state, a + u
        (i, f, _, o), (not_i, not_f, _, not_o) = (np.split(s, 4, axis=1) for s in sigmoid(a))
        a_g = a[:, 2 * self.out_features : 3 * self.out_features]
        new = f * c + i * np.tanh(a_g)
        return (o * np.tanh(new), new), (c, new, a_g, i, f, o, not_i, not_f, not_o)

    def _backward_step(self, dstate: State, cache: Cache) -> tuple[Array, Array, State]:
        (dh, dc), (c, new, a_g, i, f, o, not_i, not_f, not_o) = dstate, cache
        dc = dc + dh * o * tanh_slope(new)
        da_i, da_f = dc * np.tanh(a_g) * i * not_i, dc * c * f * not_f
        da_g, da_o = dc * i * tanh_slope(a_g), dh * np.tanh(new) * o * not_o
        da = np.hstack([da_i, da_f, da_g, da_o])
        return da, da, (np.zeros_like(dh), dc * f)

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw W and U, and set b to 0, and to 1 for the gate f, where they have no values yet."""
        new = "b" in self.params.unfilled()
        super().initialize(rng)
        if new:
            self.params["b"][self.out_features : 2 * self.out_features] = 1
