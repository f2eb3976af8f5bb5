"""Layers on sequences with one mistake each, such as people make; and right ones that look odd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nnprofile as nn
from nnprofile.contract import Array, as_sequences
from nnprofile.functions import tanh_slope
from nnprofile.layers.attention import _side_by_side
from nnprofile.layers.recurrent import Recurrent

from .case import Case, Rng, Trial
from .specimens import Plain

LENGTHS = ((3, 0, 1, 4, 2), (5, 1, 0, 3), (2, 6, 1, 0, 4, 3))  # by size


class Steps(Recurrent):
    """``Recurrent`` once more, sequence by sequence and event by event, as a textbook has it; with places for mistakes."""

    bug = ""

    def forward(self, x: Any, rng: Any = None) -> Any:
        x = as_sequences(self, x)
        W, U, b, c = (self.params.get(name, 0) for name in "WUbc")
        y, kept = [], []
        state = self._start(1, (x.values[:1] @ W).dtype)
        for i in range(len(x)):
            if self.bug != "state carried over in forward":
                state = self._start(1, state[0].dtype)
            for row in x[i]:
                before = state
                state, own = self._forward_step(row[None] @ W + b, state[0] @ U + c, state)
                kept.append((i, before[0], own))
                y.append(state[0])
        values = np.concatenate(y) if y else np.zeros((0, self.out_features))
        return nn.Ragged(values, x.offsets), (x, values, kept)

    def backward(self, dy: Array, cache: Any) -> Any:
        (x, y, kept), bug = cache, self.bug
        W, U = self.params["W"], self.params["U"]
        dx, grads = np.zeros(x.values.shape), self.params.like()
        dstate = self._start(1, dy.dtype)
        for t in reversed(range(x.n_events)):
            i, before, own = kept[t]
            first, last = t == x.offsets[i], t == x.offsets[i + 1] - 1
            if last and bug != "dh carried over":
                dstate = self._start(1, dy.dtype)
            if bug in ("no handover", "dh lost") or (bug == "truncated" and (x.offsets[i + 1] - 1 - t) % 2 == 0):
                dstate = (np.zeros_like(dstate[0]), *dstate[1:])
            if not (bug == "last event dropped" and last) and not (bug == "first event dropped" and first):
                dstate[0][...] += dy[t]
            da, du, dstate = self._backward_step(dstate, own)
            dstate[0][...] += du @ (U if bug == "U not transposed" else U.T)
            if bug == "h[-1] at the first step" and first:
                before = y[x.offsets[i + 1] - 1][None]
            if bug == "h of the same step":
                before = y[t][None]
            dx[t] = (da @ W.T)[0]
            grads["W"] += x.values[t][:, None] * da
            grads["U"] += before.T @ du
            for name, d in zip(self.biases, (da, du), strict=False):
                grads[name] += d[0]
        if bug == "db the mean":
            grads["b"] /= max(x.n_events, 1)
        return dx, grads


def _steps(cell: type[Recurrent], bug: str = "", **methods: Any) -> Callable[[], nn.Layer]:
    name = cell.__name__
    methods |= {"_start": cell._start, "gates": cell.gates, "biases": cell.biases, "bug": bug}
    methods = {"_forward_step": cell._forward_step, "_backward_step": cell._backward_step} | methods
    made = type(name, (Steps,), methods)
    return lambda: made(3, 4)


def _blocks(order: list[int]) -> Callable[[Array], Array]:
    return lambda a: np.concatenate([np.split(a, len(order), axis=1)[k] for k in order], axis=1)


def _after(cell: type[Recurrent], change: Callable[..., Any]) -> Any:
    """Return a backward step whose result is changed."""
    return lambda self, dstate, cache: change(*cell._backward_step(self, dstate, cache))


def _gru(bug: str) -> Any:
    def step(self: Any, dstate: Any, cache: Any) -> Any:
        (dh,), (h, r, z, closed, n, new, u_n) = dstate, cache
        k = self.out_features
        da_n = dh * closed[:, k:] * tanh_slope(new)
        da_z = dh * (h - n) * z * closed[:, k:]
        da_r = da_n * u_n * r * closed[:, :k]
        du_n = da_n * r
        if bug == "sign of z":
            da_z = -da_z
        if bug == "slope of z":
            da_z = dh * (h - n)
        if bug == "reset forgotten":
            du_n = da_n
        if bug == "direct path":
            return np.hstack([da_r, da_z, da_n]), np.hstack([da_r, da_z, du_n]), (0 * dh,)
        if bug == "tanh slope":
            da_n = dh * closed[:, k:]
            du_n = da_n * r
        if bug == "gates":
            da_r, da_z = da_z, da_r
        return np.hstack([da_r, da_z, da_n]), np.hstack([da_r, da_z, du_n]), (dh * z,)

    return step


def _lstm(bug: str) -> Any:
    def step(self: Any, dstate: Any, cache: Any) -> Any:
        (dh, dc), (c, new, a_g, i, f, o, not_i, not_f, not_o) = dstate, cache
        dc = dc + dh * o * (1 if bug == "tanh of c" else tanh_slope(new))
        da_f = dc * (new if bug == "c of this step" else c) * f * not_f
        da_i, da_g = dc * np.tanh(a_g) * i * not_i, dc * i * tanh_slope(a_g)
        da_o = dh * np.tanh(new) * o * (1 if bug == "slope of o" else not_o)
        order = [da_f, da_i, da_g, da_o] if bug == "gates" else [da_i, da_f, da_g, da_o]
        da = np.hstack(order)
        return da, da, (np.zeros_like(dh), 0 * dc if bug == "dc lost" else dc if bug == "forget gate" else dc * f)

    return step


class Conv(nn.Conv1D):
    bug = ""

    def _seen(self, x: Any) -> Any:
        if self.bug == "windows across the boundary":
            x = nn.Ragged(x.values, [0, x.n_events])
        return super()._seen(x)

    def backward(self, dy: Array, cache: Any) -> Any:
        (_, seen), bug, W = cache, self.bug, self.params["W"]
        dx, grads = super().backward(dy, cache)
        if bug == "kernel flipped":
            grads["W"] = grads["W"][::-1].copy()
        if bug == "b the mean":
            grads["b"] /= len(dy)
        if bug == "only the last place":
            dx = np.zeros_like(dx)
            at, source = seen[-1]
            dx[source] = dy[at] @ W[-1].T
        if bug in ("= where += belongs", "shifted"):
            dx = np.zeros_like(dx)
            for k, (at, source) in enumerate(seen):
                if bug == "shifted":
                    dx[np.maximum(source - 1, 0)] += dy[at] @ W[k].T
                else:
                    dx[source] = dy[at] @ W[k].T
        if bug == "the last event dropped":
            dx, grads = super().backward(dy * (np.arange(len(dy)) < len(dy) - 1)[:, None], cache)
        if bug == "W transposed":
            grads["W"] = grads["W"].swapaxes(1, 2).copy()
        return dx, grads


class Attention(nn.SelfAttention):
    bug = ""

    def _weights(self, S: Array) -> Array:
        if self.bug == "no mask in forward":
            S = np.exp(S - S.real.max(axis=-1, keepdims=True))
            return S / S.sum(axis=-1, keepdims=True)
        return super()._weights(S)

    def backward(self, dy: Array, cache: Any) -> Any:
        (x, o, kept), (W, V), bug = cache, (self.params["W"], self.params["V"]), self.bug
        do = dy @ (V if bug == "V not transposed" else V.T)
        dqkv = np.empty((len(x), 3 * self.features))
        for events, q, k, v, A in kept:
            dout = self._heads(do[events])[0]
            if bug == "no mask in backward":
                e = np.exp(q @ k.swapaxes(-1, -2) * self._scale(q))
                A = e / e.sum(axis=-1, keepdims=True)
            dA = dout @ v.swapaxes(-1, -2)
            axis = -2 if bug == "softmax over the other axis" else -1
            dS = A * (dA - (dA * A).sum(axis=axis, keepdims=True))
            if bug == "diagonal":
                dS = A * (1 - A) * dA
            if bug != "no scale":
                dS = dS * self._scale(q)
            parts = [dS @ k, dS.swapaxes(-1, -2) @ q, A.swapaxes(-1, -2) @ dout]
            if bug == "A not transposed":
                parts[2] = A @ dout
            if bug == "q and k swapped":
                parts = [parts[1], parts[0], parts[2]]
            join = (lambda h: h.reshape(len(h), h.shape[2], -1)) if bug == "heads not moved" else _side_by_side
            dqkv[events] = np.concatenate([join(part) for part in parts], axis=-1)
        grads = self.params.like()
        grads["W"], grads["b"] = x.T @ dqkv, dqkv.sum(axis=0)
        grads["V"], grads["c"] = o.T @ dy, dy.sum(axis=0)
        return dqkv @ W.T, grads


class Table(nn.Embedding):
    bug = ""

    def backward(self, dy: Array, cache: Any) -> Any:
        _, grads = super().backward(dy, cache)
        E, counts = grads["E"], np.maximum(np.bincount(cache, minlength=self.n_ids), 1)
        if self.bug == "E[x] += dy":
            E[:] = 0
            E[cache] += dy
        if self.bug == "the mean over uses":
            E /= counts[:, None]
        if self.bug == "off by one":
            E[:] = np.roll(E, 1, axis=0)
        if self.bug == "id 0 is padding":
            E[0] = 0
        if self.bug == "the last event dropped":
            E[cache[-1:]] -= dy[-1:]
        if self.bug == "never written":
            E[:] = 0
        if self.bug == "scaled by sqrt(d)":
            E *= self.features**0.5
        return None, grads


class Positions(nn.PositionalEmbedding):
    bug = ""

    def forward(self, x: Any, rng: Any = None) -> Any:
        if self.bug != "positions go on":
            return super().forward(x, rng)
        y, position = super().forward(nn.Ragged(x.values, [0, x.n_events]))
        return nn.Ragged(y.values, x.offsets), position

    def backward(self, dy: Array, cache: Any) -> Any:
        dx, grads = super().backward(dy, cache)
        E = grads["E"]
        if self.bug == "E[t] += dy":
            E[:] = 0
            E[cache] += dy
        if self.bug == "off by one":
            E[:] = np.roll(E, 1, axis=0)
        if self.bug == "from the end":
            n = cache.max(initial=-1) + 1
            E[:n] = E[:n][::-1].copy()
        if self.bug == "the mean":
            E /= np.maximum(np.bincount(cache, minlength=len(E)), 1)[:, None]
        if self.bug == "dx of E":
            dx = dx + self.params["E"][cache]
        if self.bug == "no dx":
            dx = np.zeros_like(dx)
        return dx, grads


def _pool(base: type[nn.Layer], bug: str) -> Callable[[], nn.Layer]:
    """Return a pooling with a mistake, of ``_unpool``, or of forward and backward alike."""

    def unpool(self: Any, dy: Array, kept: Any, dx: Array) -> None:
        base._unpool(self, dy, kept, dx)  # type: ignore[attr-defined]
        if bug == "shifted":
            dx[:] = np.roll(dx, -1, axis=0)
        if bug == "doubled":
            dx *= 2
        if bug == "the first row forgotten":
            base._unpool(self, dy * (np.arange(len(dy)) > 0)[:, None], kept, dx)  # type: ignore[attr-defined]
        if bug == "the first event":
            dx[:] = 0
            dx[np.cumsum(kept[1]) - kept[1]] = dy
        if bug == "not divided":
            dx[:] = np.repeat(dy, kept[1], axis=0)
        if bug == "by the longest":
            dx[:] = np.repeat(dy / kept[1].max(), kept[1], axis=0)
        if bug == "by T - 1":
            dx[:] = np.repeat(dy / np.maximum(kept[1] - 1, 1)[:, None], kept[1], axis=0)
        if bug == "row by row":  # of the first feature's largest
            dx[:] = 0
            dx[kept[0][:, 0]] = dy
        if bug == "the event before":
            dx[:] = 0
            dx[np.maximum(kept - 1, 0)] = dy
        if bug == "in reverse":
            base._unpool(self, dy[::-1], kept, dx)  # type: ignore[attr-defined]
        if bug == "every event":
            dx[:] = np.repeat(dy, np.diff(np.concatenate([[-1], kept])), axis=0)
        if bug == "one sequence for all":
            dx[:] = 0
            dx[kept] = dy.mean(axis=0)
        if bug == "in float32":
            dx[:] = dx.astype(np.float32)

    def pool(self: Any, x: Array, starts: Array, lengths: Array) -> Any:
        if bug == "divided by the longest in both":
            y, _ = base._pool(self, x, starts, lengths)  # type: ignore[attr-defined]
            longest = lengths.max(initial=1)
            return y * (lengths / longest)[:, None], (np.full((len(lengths), 1), 1 / longest), lengths)
        if bug == "offsets[i + 1] - 1 of all" and len(x):  # an empty sequence would take its neighbour's
            last = np.minimum(starts + lengths, len(x) - 1)
            return x[last], last
        return base._pool(self, x, starts, lengths)  # type: ignore[attr-defined]

    return type(base.__name__, (base,), {"_unpool": unpool, "_pool": pool})


class Both(nn.Tied):
    bug = ""

    def __init__(self) -> None:
        super().__init__(nn.Embedding(5, 3), [nn.GRU(3, 3)])

    def backward(self, dy: Array, cache: Any) -> Any:
        ids, kept, h = cache
        (embedding, f), head = self.children, self.head
        dh, last = head.backward(dy, h)
        assert dh is not None
        if self.bug == "dh twice":
            dh = 2 * dh
        de, inner = f.backward(dh, kept)
        assert de is not None
        _, first = embedding.backward(de, ids)
        grads = self.params.like()
        grads.vector[self.places[1]] = inner.vector
        grads["0.E"], grads["b"] = first["E"] + last["W"].T, last["b"]
        if self.bug == "the first use only":
            grads["0.E"] = first["E"]
        if self.bug == "the second use only":
            grads["0.E"] = last["W"].T
        if self.bug == "b the mean":
            grads["b"] /= len(dy)
        if self.bug == "b forgotten":
            grads["b"] = 0 * last["b"]
        if self.bug == "the second use negated":
            grads["0.E"] = first["E"] - last["W"].T
        if self.bug == "f forgotten":
            grads.vector[self.places[1]] = 0
        return None, grads


def _with(cls: type[nn.Layer], bug: str, *args: Any, **more: Any) -> Callable[[], nn.Layer]:
    made = type(cls.__mro__[1].__name__, (cls,), {"bug": bug})
    return lambda: made(*args, **more)


def _on(make: Callable[[], nn.Layer], width: int = 3, n_ids: int = 0) -> Callable[[Rng, int], Trial]:
    def trial(rng: Rng, size: int) -> Trial:
        layer, lengths = make(), np.array(LENGTHS[size])
        layer.initialize(rng)
        layer.params.vector = layer.params.vector + 0.3 * rng.normal(size=layer.params.vector.size)
        n = int(lengths.sum())
        values = rng.integers(0, n_ids, n) if n_ids else rng.normal(size=(n, width))
        return Trial("layer", (layer, nn.Ragged(values, np.concatenate([[0], np.cumsum(lengths)]))))

    return trial


def _bugs() -> list[Case]:
    out = []

    def add(layer: str, bug: str, make: Any, *kinds: str, width: int = 3, n_ids: int = 0) -> None:
        out.append(Case(f"{layer} on sequences: {bug}", _on(make, width, n_ids), frozenset(kinds)))

    through_time = {
        "state carried over in forward": ("alone",),
        "dh carried over": ("alone",),
        "last event dropped": ("samples",),
        "first event dropped": ("samples",),
        "no handover": ("handover",),
        "truncated": ("handover",),
        "h[-1] at the first step": ("first-step",),
        "h of the same step": ("first-step", "value", "shift"),
        "U not transposed": ("handover", "transpose", "shape"),
        "db the mean": ("scale",),
    }
    for cell in (nn.RNN, nn.GRU, nn.LSTM):
        for bug, kinds in through_time.items():
            if cell is nn.RNN or bug not in ("truncated", "db the mean", "no handover"):
                add(cell.__name__, bug, _steps(cell, bug), *kinds)
    no_slope = _after(nn.RNN, lambda da, du, d: (np.tanh(da), np.tanh(da), d))
    add("RNN", "tanh of da", _steps(nn.RNN, _backward_step=no_slope), "nonlinear")
    for bug, kinds in {
        "sign of z": ("gate", "slice-scale", "sign", "scale"),
        "slope of z": ("gate", "slope"),
        "reset forgotten": ("gate", "slice-scale", "order"),
        "direct path": ("handover",),
        "tanh slope": ("gate", "slope"),
        "gates": ("order", "gate"),
    }.items():
        add("GRU", bug, _steps(nn.GRU, _backward_step=_gru(bug)), *kinds)
    for bug, kinds in {
        "gates": ("order", "gate"),
        "dc lost": ("handover",),
        "forget gate": ("handover",),
        "tanh of c": ("gate", "slope"),
        "slope of o": ("gate", "slope"),
        "c of this step": ("gate", "first-step"),
    }.items():
        add("LSTM", bug, _steps(nn.LSTM, _backward_step=_lstm(bug)), *kinds)
    for bug, kinds in {
        "windows across the boundary": ("alone", "empty"),
        "kernel flipped": ("order",),
        "b the mean": ("scale",),
        "only the last place": ("handover", "samples"),
        "= where += belongs": ("samples", "handover", "term"),
        "shifted": ("shift", "order", "causal", "alone", "handover"),
        "the last event dropped": ("samples",),
        "W transposed": ("transpose",),
    }.items():
        add("Conv1D", bug, _with(Conv, bug, 3, 3 if "trans" in bug else 4, 3), *kinds)
    for bug, kinds in {
        "no mask in forward": ("causal",),
        "no mask in backward": ("causal",),
        "no scale": ("slice-scale",),
        "softmax over the other axis": ("axis", "gate", "causal"),
        "diagonal": ("diagonal", "gate"),
        "A not transposed": ("transpose", "causal", "gate"),
        "V not transposed": ("transpose",),
        "q and k swapped": ("order",),
        "heads not moved": ("order", "gate"),
    }.items():
        add("SelfAttention", bug, _with(Attention, bug, 4, 2), *kinds, width=4)
    for bug, kinds in {
        "E[x] += dy": ("repeats",),
        "the mean over uses": ("repeats", "slice-scale"),
        "off by one": ("shift", "order"),
        "id 0 is padding": ("samples", "elements", "zero", "slice-scale"),
        "the last event dropped": ("samples", "repeats"),
        "never written": ("zero",),
        "scaled by sqrt(d)": ("scale",),
    }.items():
        add("Embedding", bug, _with(Table, bug, 5, 3), *kinds, n_ids=5)
    for bug, kinds in {
        "positions go on": ("alone",),
        "E[t] += dy": ("samples", "repeats", "alone"),
        "off by one": ("shift", "order"),
        "from the end": ("order",),
        "the mean": ("slice-scale",),
        "dx of E": ("nonlinear", "value"),
        "no dx": ("zero",),
    }.items():
        add("PositionalEmbedding", bug, _with(Positions, bug, 20, 3), *kinds)
    for base, bugs in {
        nn.LastEvent: {
            "shifted": ("order", "shift", "alone"),
            "doubled": ("scale",),
            "the first row forgotten": ("samples", "alone", "elements"),
            "in reverse": ("order", "alone"),
            "the event before": ("order", "shift"),
            "every event": ("samples", "repeats", "elements", "mask"),
            "one sequence for all": ("alone",),
            "offsets[i + 1] - 1 of all": ("alone", "empty"),
        },
        nn.MeanOverEvents: {
            "doubled": ("scale",),
            "the first row forgotten": ("samples", "alone", "elements"),
            "the first event": ("samples", "slice-scale"),
            "not divided": ("slice-scale",),
            "by the longest": ("slice-scale", "alone"),
            "by T - 1": ("slice-scale",),
            "divided by the longest in both": ("alone",),
            "in float32": ("float32",),
        },
        nn.MaxOverEvents: {
            "doubled": ("scale",),
            "the first row forgotten": ("samples", "alone", "elements"),
            "row by row": ("order", "elements"),
            "in reverse": ("order", "alone"),
            "shifted": ("order", "shift", "alone"),
            "in float32": ("float32",),
        },
    }.items():
        for bug, kinds in bugs.items():
            add(base.__name__, bug, _pool(base, bug), *kinds)
    for bug, kinds in {
        "the first use only": ("term", "elements"),
        "the second use only": ("term", "elements"),
        "the second use negated": ("term",),
        "b the mean": ("scale",),
        "b forgotten": ("zero",),
        "dh twice": ("scale", "term"),
        "f forgotten": ("zero",),
    }.items():
        add("Tied", bug, _with(Both, bug), *kinds, n_ids=5)
    return out


class TimeMajor(Plain):
    """An RNN on padded sequences, x (t, n, i), whose state stops behind the end of each: by a mask."""

    def __init__(self, lengths: Array, rng: Rng) -> None:
        super().__init__("", W=rng.normal(size=(3, 4)) / 2, U=rng.normal(size=(4, 4)) / 2, b=rng.normal(size=4) / 2)
        self.mask = (np.arange(lengths.max())[:, None] < lengths)[:, :, None] * 1.0

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        h, states = 0 * (x[0] @ self.params["W"]), []
        for x_t, m in zip(x, self.mask, strict=True):
            new = np.tanh(x_t @ self.params["W"] + h @ self.params["U"] + self.params["b"])
            states.append((h, new))
            h = m * new + (1 - m) * h
        return h, (x, states)

    def backward(self, dy: Array, cache: Any) -> Any:
        x, states = cache
        dx, grads, dh = np.zeros(x.shape), {name: np.zeros(a.shape) for name, a in self.params.items()}, dy
        for t in reversed(range(len(x))):
            h, new = states[t]
            da = dh * self.mask[t] * (1 - new * new)
            dx[t] = da @ self.params["W"].T
            grads = {
                "W": grads["W"] + x[t].T @ da,
                "U": grads["U"] + h.T @ da,
                "b": grads["b"] + da.sum(axis=0),
            }
            dh = da @ self.params["U"].T + dh * (1 - self.mask[t])
        return dx, grads


class Masked(Plain):
    """Attention without parameters on padded sequences, x (n, t, d), that adds -1e9 where there is no event; then their mean."""

    def __init__(self, lengths: Array) -> None:
        super().__init__("")
        self.mask = np.arange(lengths.max()) < lengths[:, None]
        self.share = self.mask / lengths[:, None]

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        s = x @ x.swapaxes(1, 2) + np.where(self.mask, 0, -1e9)[:, None, :]
        e = np.exp(s - s.real.max(axis=2, keepdims=True))
        a = e / e.sum(axis=2, keepdims=True)
        return (self.share[:, :, None] * (a @ x)).sum(axis=1), (x, a)

    def backward(self, dy: Array, cache: Any) -> Any:
        x, a = cache
        do = self.share[:, :, None] * dy[:, None, :]
        da = do @ x.swapaxes(1, 2)
        ds = a * (da - (da * a).sum(axis=2, keepdims=True))
        return ds @ x + ds.swapaxes(1, 2) @ x + a.swapaxes(1, 2) @ do, {}


def _padded(make: Callable[[Array, Rng], Any], *, time_first: bool) -> Callable[[Rng, int], Trial]:
    def trial(rng: Rng, size: int) -> Trial:
        lengths = np.array([n for n in LENGTHS[size] if n])
        x = rng.normal(size=(len(lengths), lengths.max(), 3))
        return Trial("layer", (make(lengths, rng), x.swapaxes(0, 1).copy() if time_first else x))

    return trial


BUGS = tuple(_bugs())
TRAPS = (
    *(Case(f"{cell.__name__} event by event", _on(_steps(cell))) for cell in (nn.RNN, nn.GRU, nn.LSTM)),
    Case("RNN, padded, time first, with a mask", _padded(TimeMajor, time_first=True)),
    Case("attention, padded, with a mask that is added", _padded(lambda n, rng: Masked(n), time_first=False)),
)
