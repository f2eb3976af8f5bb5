"""How layers on sequences are written as nodes of an ONNX graph, whose x is one sequence: its events are the rows.

ONNX Runtime has GRU, LSTM and RNN for float32 alone, and ends the process where there is no event; so what is float64 is a Scan
of plain nodes, and what may be empty is given an event of zeros, which is taken off again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ..contract import Array, Layer
from ..layers import (
    GRU,
    LSTM,
    RNN,
    Conv1D,
    Embedding,
    LastEvent,
    MaxOverEvents,
    MeanOverEvents,
    PositionalEmbedding,
    SelfAttention,
)

_END = np.iinfo(np.int64).max


class Graph(Protocol):
    """As in ``layers``, with loops."""

    dtype: np.dtype[Any]

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Add an array."""

    def scan(self, x: str, states: Sequence[str], body: Callable[[Any, str, list[str]], list[str]]) -> str:
        """Add a loop over the rows of x: body(graph, row, states) -> new states; return the first of them, row by row."""


def _rows(g: Graph, x: str, start: int, end: int = _END, axis: int = 0) -> str:
    """Add x[start:end]."""
    return g.add("Slice", x, *(g.constant([n], np.int64) for n in (start, end, axis)))


def _columns(g: Graph, x: str, k: int, width: int) -> str:
    return _rows(g, x, k * width, (k + 1) * width, axis=1)


def _n_events(g: Graph, x: str) -> str:
    return _rows(g, g.add("Shape", x), 0, 1)


def _at_least_one(g: Graph, x: str) -> str:
    """Add an event of zeros in front, if there is none."""
    is_none = g.add("Cast", g.add("Equal", _n_events(g, x), g.constant([0], np.int64)), to=7)
    zero = g.constant([0], np.int64)
    return g.add("Pad", x, g.add("Concat", is_none, zero, zero, zero, axis=0))


def _in_front(g: Graph, x: str, n: int, behind: int = 0) -> str:
    """Add events of zeros in front and behind."""
    return g.add("Pad", x, g.constant([n, 0, behind, 0], np.int64)) if n or behind else x


def _product(g: Graph, layer: Layer, x: str, W: str, b: str) -> str:
    return g.add("Add", g.add("MatMul", x, g.constant(layer.params[W])), g.constant(layer.params[b]))


def _embedding(g: Graph, layer: Embedding, x: str) -> str:
    below = g.add("Less", x, g.constant(0, np.int64))  # which ONNX would count from the end
    ids = g.add("Where", below, g.constant(layer.n_ids, np.int64), x)
    return g.add("Gather", g.constant(layer.params["E"]), ids)


def _positions(g: Graph, layer: PositionalEmbedding, x: str) -> str:
    E, zero = g.constant(layer.params["E"]), g.constant([0], np.int64)
    rows = g.add("Slice", E, zero, _n_events(g, x), zero)
    return g.add("Add", x, g.add("Reshape", rows, g.add("Shape", x)))  # which refuses a sequence that is too long


def _convolution(g: Graph, layer: Conv1D, x: str) -> str:
    reach = (layer.width - 1) * layer.dilation
    front = reach if layer.causal else reach // 2
    padded, y = _in_front(g, x, front, reach - front), g.constant(layer.params["b"])
    for k, W in enumerate(layer.params["W"]):
        end = k * layer.dilation - reach
        y = g.add("Add", y, g.add("MatMul", _rows(g, padded, k * layer.dilation, end or _END), g.constant(W)))
    return y


def _recurrent(g: Graph, layer: Any, x: str) -> str:
    padded, zero = _at_least_one(g, x), g.constant([0], np.int64)
    y = _operator(g, layer, padded) if g.dtype == np.float32 else _loop(g, layer, padded)
    return g.add("Slice", y, zero, _n_events(g, x), zero)


_ORDER: dict[type[Layer], tuple[int, ...]] = {GRU: (1, 0, 2), LSTM: (0, 3, 1, 2), RNN: (0,)}  # ONNX's: zrn, iofg


def _operator(g: Graph, layer: Any, x: str) -> str:
    def ordered(a: Array) -> Array:
        return np.concatenate([np.split(a, len(layer.gates), axis=-1)[k] for k in _ORDER[type(layer)]], axis=-1)

    W, U, b = (ordered(layer.params[name]) for name in ("W", "U", "b"))
    c = ordered(layer.params["c"]) if "c" in layer.params else np.zeros_like(b)
    arrays = (W.T[None], U.T[None], np.concatenate([b, c])[None])
    more = {"linear_before_reset": 1} if isinstance(layer, GRU) else {}
    x = g.add("Unsqueeze", x, g.constant([1], np.int64))
    y = g.add(type(layer).__name__, x, *map(g.constant, arrays), hidden_size=layer.out_features, **more)
    return g.add("Reshape", y, g.constant([-1, layer.out_features], np.int64))


def _loop(g: Graph, layer: Any, x: str) -> str:
    k, a = layer.out_features, _product(g, layer, x, "W", "b")

    def step(g: Any, a: str, states: list[str]) -> list[str]:
        u = g.add("MatMul", states[0], g.constant(layer.params["U"]))
        if isinstance(layer, RNN):
            return [g.add("Tanh", g.add("Add", a, u))]
        if isinstance(layer, GRU):
            u = g.add("Add", u, g.constant(layer.params["c"]))
            r, z = (g.add("Sigmoid", g.add("Add", _columns(g, a, i, k), _columns(g, u, i, k))) for i in (0, 1))
            n = g.add("Tanh", g.add("Add", _columns(g, a, 2, k), g.add("Mul", r, _columns(g, u, 2, k))))
            return [g.add("Add", n, g.add("Mul", z, g.add("Sub", states[0], n)))]
        a = g.add("Add", a, u)
        i, f, o = (g.add("Sigmoid", _columns(g, a, j, k)) for j in (0, 1, 3))
        new = g.add("Mul", i, g.add("Tanh", _columns(g, a, 2, k)))
        c = g.add("Add", g.add("Mul", f, states[1]), new)
        return [g.add("Mul", o, g.add("Tanh", c)), c]

    states = [g.constant(np.zeros((1, k))) for _ in range(1 + isinstance(layer, LSTM))]
    return g.scan(a, states, step)


def _attention(g: Graph, layer: SelfAttention, x: str) -> str:
    n, d = layer.n_heads, layer.features // layer.n_heads
    qkv = _product(g, layer, x, "W", "b")

    def heads(k: int, order: list[int]) -> str:
        part = g.add("Reshape", _columns(g, qkv, k, layer.features), g.constant([-1, n, d], np.int64))
        return g.add("Transpose", part, perm=order)

    q, k, v = heads(0, [1, 0, 2]), heads(1, [1, 2, 0]), heads(2, [1, 0, 2])
    S = g.add("Mul", g.add("MatMul", q, k), g.constant(d**-0.5))
    if layer.causal:
        shape = g.add("Concat", _n_events(g, x), _n_events(g, x), axis=0)
        never = g.add("Expand", g.constant(-np.inf), shape)
        S = g.add("Add", S, g.add("Trilu", never, g.constant(1, np.int64), upper=1))
    o = g.add("Transpose", g.add("MatMul", g.add("Softmax", S, axis=-1), v), perm=[1, 0, 2])
    return _product(g, layer, g.add("Reshape", o, g.constant([-1, layer.features], np.int64)), "V", "c")


def _mean(g: Graph, layer: MeanOverEvents, x: str) -> str:
    n = g.add("Max", g.add("CastLike", _n_events(g, x), g.constant(0.0)), g.constant([1.0]))
    return g.add("Div", g.add("ReduceSum", x, g.constant([0], np.int64)), n)


NODES: dict[type[Layer], Callable[[Any, Any, str], str]] = {
    Embedding: _embedding,
    PositionalEmbedding: _positions,
    Conv1D: _convolution,
    RNN: _recurrent,
    GRU: _recurrent,
    LSTM: _recurrent,
    SelfAttention: _attention,
    LastEvent: lambda g, layer, x: _rows(g, _at_least_one(g, x), -1),
    MeanOverEvents: _mean,
    MaxOverEvents: lambda g, layer, x: g.add("ReduceMax", _at_least_one(g, x), axes=[0]),
}
