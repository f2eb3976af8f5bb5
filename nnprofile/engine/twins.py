"""Twins of layers: the same layer, whose forward and backward call kernels, for networks that mix events or branch.

A twin names the parameters of its layer. What its kernels do not take (complex numbers, another dtype, a wrong shape) goes to
the layer's own method, and so errors are the same. Large products are NumPy's, thus BLAS's, as they are in the layer.

Of each layer there are two functions here. ``run`` returns y and what the way back needs; ``back`` returns dx and writes the
gradients, which are 0 before.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

import numpy as np

from ..contract import Array, Cache, Layer, Optimizer, Parameters
from ..layers import (
    GRU,
    LSTM,
    RNN,
    Conv1D,
    Dense,
    Dropout,
    Embedding,
    LastEvent,
    LayerNorm,
    MaxOverEvents,
    MeanOverEvents,
    PositionalEmbedding,
    SelfAttention,
    Sequential,
    Tanh,
    Tied,
)
from ..layers.compose import every
from ..losses import SoftmaxCrossEntropy
from ..optimizers import SGD, Adam, FirstOrder
from ..ragged import Ragged
from . import activations, attention, events, losses, norm, recurrent, updates
from .memory import Memory
from .program import EXP, LAYERS, LEAKY_RELU, NUMBERS, RELU, SOFTMAX, TWINNED, Rule, Unknown, update_of

Run = Callable[[Any, Array, Array, Memory], tuple[Array, Cache]]  # layer, rows of x, offsets, memory
Back = Callable[[Any, Array, "Kept", Parameters, Memory], Array | None]  # layer, dy, cache, gradients, memory
_NONE = np.zeros(1, np.int64)


class Kept(NamedTuple):
    """The cache of a twin; y, which its caller may write over, is not in it."""

    x: Any
    rows: Array
    offsets: Array
    shape: tuple[int, ...]  # of y
    inner: Cache


def twin_of(net: Layer, memory: Memory | None = None) -> Layer:
    """Return a network that computes what ``net`` does, on the same parameters, and in this memory.

    Raises
    ------
    Unknown
        If no layer has a kernel, or the parameters have another dtype, or do not lie side by side.
    """
    dtype, vector = net.params.dtype, net.params.vector
    if dtype not in (np.float32, np.float64) or not dtype.isnative:
        raise Unknown(f"the engine takes float32 and float64, got {dtype}")
    if not vector.flags.carray:
        raise Unknown("the engine takes parameters in one piece of memory that can be written to")
    twin, memory = net.with_params(net.params), memory or Memory(dtype)
    if not any(type(layer) in TWINNED for layer in every(twin)):
        raise Unknown(f"the engine has no kernels for the layers of {net!r}")
    for layer in every(twin):
        if type(layer) in TWINS:
            layer.__class__, layer._memory = TWINS[type(layer)], memory  # type: ignore[attr-defined]
    return twin


def _twin(cls: type[Layer], run: Run, back: Back) -> type[Layer]:
    """Return a subclass of the same name that calls the kernels."""

    def forward(self: Any, x: Any, rng: np.random.Generator | None = None) -> tuple[Any, Cache]:
        if not _takes(self, x):
            return cls.forward(self, x, rng)
        rows, offsets = (x.values, x.offsets) if isinstance(x, Ragged) else (x, _NONE)
        rows, offsets = _readable(rows), _readable(offsets)
        y, inner = run(self, rows, offsets, self._memory)
        kept = Kept(x, rows, offsets, y.shape, inner)
        return (Ragged.of(y, x.offsets) if isinstance(x, Ragged) and cls not in _POOLINGS else y), kept

    def backward(self: Any, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        if not isinstance(cache, Kept):
            return cls.backward(self, dy, cache)
        if not _fits(self, dy, cache.shape):
            return cls.backward(self, dy, cls.forward(self, cache.x)[1])
        grads = self.params.like() if len(self.params) else Parameters({})
        return back(self, _readable(dy), cache, grads, self._memory), grads

    return type(
        cls.__name__, (cls,), {"forward": forward, "backward": backward, "twin_of": cls, "__reduce_ex__": _plain}
    )


def _takes(layer: Any, x: Any) -> bool:
    """Tell whether the kernels of a layer take x; where they do not, the layer says what is wrong, or runs on NumPy."""
    if layer.mixes_events != isinstance(x, Ragged) or not layer.params.filled:
        return False
    rows = x.values if isinstance(x, Ragged) else x
    if type(rows) is not np.ndarray or not rows.size:
        return False
    if layer.takes == "ids":
        return rows.dtype == np.int64 and rows.ndim == 1 and rows.min() >= 0 and rows.max() < layer.n_ids
    fits = rows.dtype == layer._memory.dtype and rows.ndim == 2
    fits = fits and getattr(layer, "in_features", None) in (None, rows.shape[1])
    return bool(fits and (not isinstance(x, Ragged) or x.lengths.max() <= getattr(layer, "max_length", inf)))


def _fits(layer: Any, dy: Any, shape: tuple[int, ...]) -> bool:
    """Tell whether the kernels of a layer take this dy, of y's shape."""
    return type(dy) is np.ndarray and dy.dtype == layer._memory.dtype and dy.shape == shape


def _plain(self: Any, protocol: Any) -> Any:
    """Pickle and copy a twin as what it is a twin of."""
    layer = object.__new__(self.twin_of)
    layer.__dict__.update(self.__dict__)
    del layer._memory
    return operator.getitem, ((layer,), 0)


def _readable(a: Array) -> Array:
    """Return ``a`` as the kernels are compiled for it: in C order and writable; a copy, where it is not."""
    return np.require(a, requirements=["C", "A", "W"])


def _embed(layer: Any, ids: Array, offsets: Array, memory: Memory) -> tuple[Array, Cache]:
    y = memory.empty(len(ids), layer.features)
    events.take_rows(layer.params["E"], ids, y)
    return y, None


def _embed_back(layer: Any, dy: Array, kept: Kept, grads: Parameters, memory: Memory) -> None:
    occurs = np.zeros(layer.n_ids, np.bool_)
    events.add_rows(dy, kept.rows, grads["E"], occurs)
    grads.rows["E"] = np.flatnonzero(occurs)


def _place(layer: Any, x: Array, offsets: Array, memory: Memory) -> tuple[Array, Cache]:
    y = memory.empty(*x.shape)
    events.add_positions(x, offsets, layer.params["E"], y)
    return y, None


def _place_back(layer: Any, dy: Array, kept: Kept, grads: Parameters, memory: Memory) -> Array:
    events.sum_positions(dy, kept.offsets, grads["E"])
    return dy.copy()


def _recur(layer: Any, x: Array, offsets: Array, memory: Memory) -> tuple[Array, Cache]:
    W, U, b = layer.params["W"], layer.params["U"], layer.params["b"]
    k, n = layer.out_features, len(x)
    order, ends = np.empty(n, np.int64), np.empty(np.diff(offsets).max(), np.int64)
    recurrent.in_time(offsets, order, ends)
    a, u, h, y = memory.empty(n, W.shape[1]), memory.empty(n, W.shape[1]), memory.empty(n, k), memory.empty(n, k)
    np.matmul(x, W, out=a)
    if isinstance(layer, GRU):
        c = layer.params["c"] + b
        c[2 * k :] = layer.params["c"][2 * k :]
        recurrent.gru(a, U, b, c, order, ends, u, h, y)
    else:
        (recurrent.lstm if isinstance(layer, LSTM) else recurrent.rnn)(a, U, b, order, ends, u, h, y)
    return y, (order, ends, a, u, h)


def _recur_back(layer: Any, dy: Array, kept: Kept, grads: Parameters, memory: Memory) -> Array:
    W, U, k, (order, ends, a, u, h) = layer.params["W"], layer.params["U"], layer.out_features, kept.inner
    da, before, dx = memory.empty(*a.shape), memory.empty(*dy.shape), memory.empty(*kept.rows.shape)
    du_n = memory.empty(*dy.shape) if isinstance(layer, GRU) else before
    kernel = {RNN: recurrent.rnn_back, GRU: recurrent.gru_back, LSTM: recurrent.lstm_back}
    kernel[layer.twin_of](dy, U, order, ends, a, u, da, du_n)
    recurrent.before_each(h, order, ends, before)
    np.matmul(kept.rows.T, da, out=grads["W"])
    np.sum(da, axis=0, out=grads["b"])
    if isinstance(layer, GRU):
        np.matmul(before.T, da[:, : 2 * k], out=grads["U"][:, : 2 * k])
        np.matmul(before.T, du_n, out=grads["U"][:, 2 * k :])
        grads["c"], grads["c"][2 * k :] = grads["b"], du_n.sum(axis=0)
    else:
        np.matmul(before.T, da, out=grads["U"])
    return np.matmul(da, W.T, out=dx)


def _convolve(layer: Any, x: Array, offsets: Array, memory: Memory) -> tuple[Array, Cache]:
    now = layer.width - 1 if layer.causal else layer.width // 2
    steps = (np.arange(layer.width) - now) * layer.dilation
    seen, y = memory.empty(len(x), layer.width * layer.in_features), memory.empty(len(x), layer.out_features)
    events.windows(x, offsets, steps, seen)
    np.matmul(seen, layer.params["W"].reshape(-1, layer.out_features), out=y)
    y += layer.params["b"]
    return y, (seen, steps)


def _convolve_back(layer: Any, dy: Array, kept: Kept, grads: Parameters, memory: Memory) -> Array:
    (seen, steps), W = kept.inner, layer.params["W"].reshape(-1, layer.out_features)
    np.matmul(seen.T, dy, out=grads["W"].reshape(W.shape))
    np.sum(dy, axis=0, out=grads["b"])
    dseen, dx = memory.empty(*seen.shape), memory.empty(*kept.rows.shape)
    np.matmul(dy, W.T, out=dseen)
    events.sum_windows(dseen, kept.offsets, steps, dx)
    return dx


def _attend(layer: Any, x: Array, offsets: Array, memory: Memory) -> tuple[Array, Cache]:
    n, f = x.shape
    qkv, o, y = memory.empty(n, 3 * f), memory.empty(n, f), memory.empty(n, f)
    A = memory.empty(int((np.diff(offsets) ** 2).sum()) * layer.n_heads)
    np.matmul(x, layer.params["W"], out=qkv)
    qkv += layer.params["b"]
    attention.attend(qkv, offsets, layer.n_heads, layer.causal, o, A)
    np.matmul(o, layer.params["V"], out=y)
    y += layer.params["c"]
    return y, (qkv, o, A)


def _attend_back(layer: Any, dy: Array, kept: Kept, grads: Parameters, memory: Memory) -> Array:
    qkv, o, A = kept.inner
    do, dqkv, dx = memory.empty(*o.shape), memory.empty(*qkv.shape), memory.empty(*kept.rows.shape)
    np.matmul(dy, layer.params["V"].T, out=do)
    attention.attend_back(do, qkv, kept.offsets, layer.n_heads, layer.causal, A, dqkv)
    np.matmul(o.T, dy, out=grads["V"])
    np.sum(dy, axis=0, out=grads["c"])
    np.matmul(kept.rows.T, dqkv, out=grads["W"])
    np.sum(dqkv, axis=0, out=grads["b"])
    return np.matmul(dqkv, layer.params["W"].T, out=dx)


def _last(layer: Any, x: Array, offsets: Array, memory: Memory) -> tuple[Array, Cache]:
    y = memory.empty(len(offsets) - 1, x.shape[1])
    events.last(x, offsets, y)
    return y, None


def _last_back(layer: Any, dy: Array, kept: Kept, grads: Parameters, memory: Memory) -> Array:
    dx = memory.empty(*kept.rows.shape)
    events.last_back(dy, kept.offsets, dx)
    return dx


def _mean(layer: Any, x: Array, offsets: Array, memory: Memory) -> tuple[Array, Cache]:
    y = memory.empty(len(offsets) - 1, x.shape[1])
    events.mean(x, offsets, y)
    return y, None


def _mean_back(layer: Any, dy: Array, kept: Kept, grads: Parameters, memory: Memory) -> Array:
    dx = memory.empty(*kept.rows.shape)
    events.mean_back(dy, kept.offsets, dx)
    return dx


def _largest(layer: Any, x: Array, offsets: Array, memory: Memory) -> tuple[Array, Cache]:
    y, where = memory.empty(len(offsets) - 1, x.shape[1]), np.empty((len(offsets) - 1, x.shape[1]), np.int64)
    events.largest(x, offsets, y, where)
    return y, where


def _largest_back(layer: Any, dy: Array, kept: Kept, grads: Parameters, memory: Memory) -> Array:
    dx = memory.empty(*kept.rows.shape)
    events.largest_back(dy, kept.offsets, kept.inner, dx)
    return dx


def _normalize(layer: Any, x: Array, offsets: Array, memory: Memory) -> tuple[Array, Cache]:
    y, inner = memory.empty(*x.shape), memory.empty(x.size + len(x))
    y[...] = x
    norm.forward_rows(y, layer.params.vector, layer.epsilon_in(memory.dtype), inner)
    return y, inner


def _normalize_back(layer: Any, dy: Array, kept: Kept, grads: Parameters, memory: Memory) -> Array:
    dx = memory.empty(*dy.shape)
    dx[...] = dy
    norm.backward_rows(dx, layer.params.vector, kept.inner, grads.vector)
    return dx


def _bend(layer: Any, x: Array, offsets: Array, memory: Memory) -> tuple[Array, Cache]:
    kind = LAYERS[layer.twin_of]
    number = float(getattr(layer, NUMBERS[kind])) if kind in NUMBERS else 0.0
    y, slope = memory.empty(*x.shape), memory.empty(*x.shape)
    y[...] = x
    activations.forward_rows(kind, number, y, slope)
    # ReLU and LeakyReLU ask for the sign of y, which is that of x; the others for y, or for neither.
    own = x if kind in (RELU, LEAKY_RELU) else y.copy() if kind in (EXP, SOFTMAX) else slope
    return y, (kind, number, own, slope)


def _bend_back(layer: Any, dy: Array, kept: Kept, grads: Parameters, memory: Memory) -> Array:
    dx = memory.empty(*dy.shape)
    dx[...] = dy
    kind, number, own, slope = kept.inner
    activations.backward_rows(kind, number, dx, own, slope)
    return dx


class _Dense(Dense):
    """The twin of this layer, with the same cache: its products are NumPy's, in memory that is used again."""

    twin_of = Dense
    __reduce_ex__ = _plain
    _memory: Memory

    def forward(self, x: Any, rng: np.random.Generator | None = None) -> tuple[Array, Cache]:
        if not _takes(self, x):
            return super().forward(x, rng)
        y = np.matmul(x, self.params["W"], out=self._memory.empty(len(x), self.out_features))
        y += self.params["b"]
        return y, x

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        if not _takes(self, cache) or not _fits(self, dy, (len(cache), self.out_features)):
            return super().backward(dy, cache)
        dx = np.matmul(dy, self.params["W"].T, out=self._memory.empty(*cache.shape))
        return dx, self._gradients(dy, cache)


class _Tied(Tied):
    """The twin of this layer."""

    twin_of = Tied
    __reduce_ex__ = _plain
    _memory: Memory

    @property
    def head(self) -> Dense:
        head = super().head
        head.__class__, head._memory = _Dense, self._memory  # type: ignore[attr-defined]
        return head


_POOLINGS: dict[type[Layer], tuple[Run, Back]] = {
    LastEvent: (_last, _last_back),
    MeanOverEvents: (_mean, _mean_back),
    MaxOverEvents: (_largest, _largest_back),
}
_KERNELS: dict[type[Layer], tuple[Run, Back]] = {
    Embedding: (_embed, _embed_back),
    PositionalEmbedding: (_place, _place_back),
    RNN: (_recur, _recur_back),
    GRU: (_recur, _recur_back),
    LSTM: (_recur, _recur_back),
    Conv1D: (_convolve, _convolve_back),
    SelfAttention: (_attend, _attend_back),
    LayerNorm: (_normalize, _normalize_back),
    **_POOLINGS,
    **{cls: (_bend, _bend_back) for cls in LAYERS if cls not in (Dense, Dropout, LayerNorm)},
}
TWINS = {cls: _twin(cls, *_KERNELS[cls]) for cls in TWINNED} | {Dense: _Dense, Tied: _Tied}


class _SoftmaxCrossEntropy(SoftmaxCrossEntropy):
    """The twin of this loss, on labels."""

    twin_of = SoftmaxCrossEntropy
    _memory: Memory

    def _of_targets(self, rows: Array, y_true: Array, w: Array | None) -> tuple[Any, Array]:
        if y_true.dtype != np.int64 or y_true.shape != rows.shape[:1] or rows.dtype != self._memory.dtype:
            return super()._of_targets(rows, y_true, w)
        shares = np.full(len(rows), 1 / len(rows)) if w is None else (w / (w.max() or 1.0)).astype(np.float64)
        if w is not None:  # around the largest, so that no sum overflows
            shares /= shares.sum() or 1.0
        dz = self._memory.empty(*rows.shape)
        return rows.dtype.type(losses.softmax_of_labels(_readable(rows), _readable(y_true), shares, dz)), dz

    def backward(self, cache: Cache) -> Array:
        return cache  # type: ignore[no-any-return]


def _optimizer_twin(cls: type[FirstOrder]) -> type[FirstOrder]:
    """Return a subclass of the same name whose step is one loop over the parameters."""

    def _rows(self: Any, grads: Parameters) -> Any:
        return grads

    def _move(self: Any, w: Array, dw: Array, learning_rate: float, grads: Any) -> None:
        none, dtype = np.empty(0, w.dtype), w.dtype
        arrays = (w, dw, self.state.get("m", none), self.state.get("v", none))
        if not all(a.dtype == dtype and a.flags.carray for a in arrays) or dtype not in (np.float32, np.float64):
            cls._move(self, w, dw, learning_rate, cls._rows(self, grads))
            return
        rule = Rule(0, 0.0, *update_of(self), 0.0)
        if not rule.lazy:
            updates.move(rule, *arrays, 0, w.size, learning_rate, self.n_steps)
            return
        for name, shape in grads.layout.items():
            place = grads.place(name)
            if len(shape) == 1:
                updates.move(rule, *arrays, place.start, place.stop, learning_rate, self.n_steps)
            else:
                rows, width = grads.rows.get(name, np.arange(shape[0])), (place.stop - place.start) // shape[0]
                updates.move_rows(rule, *arrays, place.start, width, _readable(rows), learning_rate, self.n_steps)

    return type(cls.__name__, (cls,), {"_rows": _rows, "_move": _move, "twin_of": cls})


OTHER_TWINS: dict[type, type] = {
    SoftmaxCrossEntropy: _SoftmaxCrossEntropy,
    SGD: _optimizer_twin(SGD),
    Adam: _optimizer_twin(Adam),
}


def twin_of_other(thing: Any, memory: Memory) -> Any:
    """Return a loss or an optimizer that does what this one does; itself, where there is no kernel."""
    if type(thing) not in OTHER_TWINS:
        return thing
    twin: Any = object.__new__(OTHER_TWINS[type(thing)])
    if isinstance(thing, Optimizer):
        twin.__dict__ = thing.__dict__  # it counts the same steps, and moves the same moments
    else:
        twin.__dict__.update(thing.__dict__, _memory=memory)
    return twin


def use_all(dtype: Any) -> None:
    """Run all kernels of twins once, on the smallest data: for ``warmup``."""
    rng, x = np.random.default_rng(0), Ragged(np.zeros(3, np.int64), [0, 1, 3])
    between = [RNN(2, 2), GRU(2, 2), LSTM(2, 2), Conv1D(2, 2, 1), SelfAttention(2, 1), LayerNorm(2), Tanh()]
    for pooling in _POOLINGS:
        layers = [Embedding(1, 2), PositionalEmbedding(2, 2), *copy.deepcopy(between), pooling()]
        twin = twin_of(Sequential(layers, rng=rng, dtype=dtype))
        y, cache = twin.forward(x)
        twin.backward(np.zeros_like(y), cache)
    loss = twin_of_other(SoftmaxCrossEntropy(), Memory(dtype))
    loss.of_targets(np.zeros((1, 2), dtype), np.zeros(1, np.int64))
    for optimizer in (SGD(0.0), Adam(0.0, lazy=True)):
        twin_of_other(optimizer, Memory(dtype)).step(twin.params, twin.params.like())
