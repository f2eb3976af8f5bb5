"""Layers, losses and training steps with one known bug each, and right ones that are often accused: the checker's exam.

Each bug is real code: the right backward with one line spoiled. The labels, the kinds of finding that count as the right
diagnosis, were written before the diagnosis was. ``exam.selftest`` and ``benchmarks.gradcheck`` run all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import erf, pi, sqrt
from typing import Any

import numpy as np

from ..activations import ReLU, Sigmoid, Tanh
from ..contract import Array, Layer, Loss, Parameters
from ..layers import Dense
from ..losses import HalfSquaredError, SoftmaxCrossEntropy
from ..network import Sequential
from ..optimizers import SGD, Adam

Rng = np.random.Generator
NONE: dict[str, Array] = {}


@dataclass
class Trial:
    """One check to make: ``check`` names the entry point ("layer", "loss", "function", "network", "step")."""

    check: str
    args: tuple[Any, ...]
    layer: str = ""  # the first wrong one


@dataclass
class Case:
    """A bug, or a trap.

    Attributes
    ----------
    name : str
    make : function (rng, size) -> Trial
        ``size`` is 0, 1 or 2; with bug 6 of size 1, for example.
    kinds : set of str
        The findings that diagnose it rightly; empty for a trap, which is right code.
    contract : bool
        Whether the numbers are right at one point, and only a contract is broken.
    """

    name: str
    make: Callable[[Rng, int], Trial]
    kinds: frozenset[str] = frozenset()
    contract: bool = False


def sigmoid(z: Array) -> Array:
    """Return 1 / (1 + exp(-z)), without overflow for real and complex z."""
    e = np.exp(np.where(z.real >= 0, -z, z))
    return np.where(z.real >= 0, 1, e) / (1 + e)


class Plain:
    """A layer that knows nothing of nnprofile: params is a dict."""

    def __init__(self, bug: str = "", **params: Array) -> None:
        self.bug, self.params = bug, dict(params)


class Affine(Plain):
    """y = x @ W + b."""

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        self.last = x
        if self.bug == "buffer":
            if not hasattr(self, "memory") or self.memory.shape != x.shape or self.memory.dtype != x.dtype:
                self.memory = np.empty_like(x)
            self.memory[...] = x
            return x @ self.params["W"] + self.params["b"], self.memory
        return x @ self.params["W"] + self.params["b"], x

    def backward(self, dy: Array, cache: Any) -> Any:
        bug, x, W = self.bug, cache, self.params["W"]
        if bug == "stale":
            x = self.last
        dx, dW, db = dy @ W.T, x.T @ dy, dy.sum(axis=0)
        if bug == "dW transposed":
            dW = dy.T @ x
        elif bug == "dx transposed":
            dx = dy @ W
        elif bug == "db other axis":
            db = dy.sum(axis=1)
        elif bug == "db mean":
            db = dy.mean(axis=0)
        elif bug == "db last":
            db = dy[-1].copy()
        elif bug == "dW without last":
            dW = x[:-1].T @ dy[:-1]
        elif bug == "float32":
            dW = (x.astype(np.float32).T @ dy.astype(np.float32)).astype(dy.dtype)
        elif bug == "updated W":
            dx = dy @ (W - 0.1 * dW).T
        elif bug == "slightly updated W":
            dx = dy @ (W - 1e-3 * dW).T
        elif bug == "steps in backward":
            W -= 1e-3 * dW
            dx = dy @ W.T
        elif bug == "one element":
            dW[0, 0] *= 1.001
        elif bug == "0.05 % more":
            dW = dW * 1.0005
        elif bug == "zero":
            dW = np.zeros_like(dW)
        elif bug == "decay":
            dW = dW + 1e-3 * W
        elif bug == "accumulates":
            self.sum = getattr(self, "sum", 0) + dW
            dW = self.sum.copy()
        elif bug == "halves":
            x *= 0.5
        elif bug == "halves dy":
            dy *= 0.5
        elif bug == "n counted":
            dW = dW / len(x)
        elif bug == "no grad for b":
            return dx, {"W": dW}
        elif bug == "b two-dimensional":
            db = dy.sum(axis=0, keepdims=True)
        return dx, {"W": dW, "b": db}


class TwoUses(Plain):
    """y = tanh(x @ W) @ W: the weights are used twice."""

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        a = np.tanh(x @ self.params["W"])
        return a @ self.params["W"], (x, a)

    def backward(self, dy: Array, cache: Any) -> Any:
        x, a = cache
        W = self.params["W"]
        dz = dy @ W.T * (1 - a * a)
        dW = x.T @ dz if self.bug else a.T @ dy + x.T @ dz
        return dz @ W.T, {"W": dW}


class Block(Plain):
    """y = sigmoid(x @ V) @ W, in one layer."""

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        z = x @ self.params["V"]
        a = sigmoid(z)
        return a @ self.params["W"], (x, z, a)

    def backward(self, dy: Array, cache: Any) -> Any:
        x, z, a = cache
        dz = dy @ self.params["W"].T * a * (1 - a)
        dW = {"z not a": z, "x not a": x}.get(self.bug, a).T @ dy
        return dz @ self.params["V"].T, {"V": x.T @ dz, "W": dW}


class Act(Plain):
    """Elementwise functions, each with its bugs."""

    def __init__(self, kind: str, bug: str = "", at_zero: float = 0.0) -> None:
        super().__init__(bug)
        self.kind, self.at_zero = kind, at_zero

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        right = x.real > 0
        if self.kind == "sigmoid":
            y = sigmoid(x)
        elif self.kind == "tanh":
            y = np.tanh(x)
        elif self.kind == "relu":
            if self.bug == "in place":
                np.multiply(x, right, out=x)
                return x, x
            y = x * right
        elif self.kind == "leaky":
            y = np.where(right, x, 0.01 * x)
        elif self.kind == "elu":
            y = np.where(right, x, 1.5 * (np.exp(np.where(right, 0, x)) - 1))
        elif self.kind == "gelu":
            y = 0.5 * x * (1 + np.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))
        elif self.kind == "swish":
            y = x * sigmoid(x)
        elif self.kind == "hard sigmoid":
            y = np.clip(0.2 * x + 0.5, 0, 1)
        else:
            y = np.log(1 + np.exp(x))  # softplus
        return y, (x, y)

    def backward(self, dy: Array, cache: Any) -> Any:
        if self.bug == "in place":
            return dy * (cache > 0), NONE
        (x, y), bug = cache, self.bug
        right = x > 0
        if bug == "missing":
            return dy.copy(), NONE
        if self.kind == "sigmoid":
            a = sigmoid(y) if bug == "at a" else y
            slope = a * (1 - a)
            if bug == "twice":
                slope = slope * slope
        elif self.kind == "tanh":
            slope = 1 - y if bug == "square forgotten" else 1 - y * y
        elif self.kind == "relu":
            slope = np.where(dy > 0, 1.0, 0.0) if bug == "mask of dy" else np.where(right, 1.0, 0.0)
            slope[x == 0] = self.at_zero
        elif self.kind == "leaky":
            slope = np.where(right, 1, 0.011 if bug == "slope" else 0.01)
        elif self.kind == "elu":
            slope = np.where(right, 1, y if bug == "no alpha" else y + 1.5)
        elif self.kind == "gelu":
            if bug:
                cdf = 0.5 * (1 + np.vectorize(erf)(x / sqrt(2)))
                slope = cdf + x * np.exp(-x * x / 2) / sqrt(2 * pi)
            else:
                t = np.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))
                slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x)
        elif self.kind == "swish":
            s = sigmoid(x)
            slope = s if bug == "one term" else s + x * s * (1 - s)
        elif self.kind == "hard sigmoid":
            slope = np.where((x > -2.5) & (x < 2.5), 0.2, 0.0)
        else:
            slope = sigmoid(x)
        if bug == "mean":
            slope = slope / len(x)
        return dy * slope, NONE


class SoftmaxRows(Plain):
    """y = exp(x) / sum exp(x)."""

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        e = np.exp(x - x.real.max(axis=-1, keepdims=True))
        y = e / (e.sum(axis=-1, keepdims=True) + (1e-6 if self.bug == "epsilon" else 0))
        return y, y

    def backward(self, dy: Array, cache: Any) -> Any:
        y = cache
        if self.bug == "diagonal":
            return dy * y * (1 - y), NONE
        if self.bug == "other axis":
            return y * (dy - (dy * y).sum(axis=0, keepdims=True)), NONE
        return y * (dy - (dy * y).sum(axis=-1, keepdims=True)), NONE


class CrossEntropy:
    """Softmax and cross-entropy on logits, mean over the samples; classes may weigh differently."""

    def __init__(self, bug: str = "", class_weight: Array | None = None) -> None:
        self.bug, self.class_weight = bug, class_weight

    def forward(self, y_pred: Array, y_true: Array) -> Any:
        n = len(y_pred)
        z = y_pred - y_pred.real.max(axis=1, keepdims=True)
        e = np.exp(z)
        total = e.sum(axis=1, keepdims=True)
        p = e / (total + (1e-4 if self.bug == "denominator" else 0))
        w = np.ones(n) if self.class_weight is None else self.class_weight[y_true]
        if self.bug in ("log epsilon", "denominator"):
            l = -np.log(p[np.arange(n), y_true] + (1e-7 if self.bug == "log epsilon" else 0))
        else:
            l = np.log(total[:, 0]) - z[np.arange(n), y_true]
        return (w * l).sum() / w.sum(), (p, y_true, w, y_pred)

    def backward(self, cache: Any) -> Array:
        p, y_true, w, z = cache
        bug, n = self.bug, len(p)
        if bug == "overflow":
            e = np.exp(z)
            p = e / e.sum(axis=1, keepdims=True)
        if bug == "denominator":
            p = p / p.sum(axis=1, keepdims=True)
        d = p.copy()
        d[np.arange(n), y_true] -= 1
        d *= w[:, None]
        if bug == "no mean":
            return d
        if bug == "over classes":
            return d / p.shape[1]
        if bug == "weights not normalised":
            return d / n
        if bug == "sign":
            return -d / w.sum()
        if bug == "softmax jacobian too":
            d = p * (d - (d * p).sum(axis=1, keepdims=True))
        if bug == "one sample":
            d[1:] = 0
        return d / w.sum()


class SquaredError:
    """The mean over all elements of (y - t)^2."""

    def __init__(self, bug: str = "") -> None:
        self.bug = bug

    def forward(self, y_pred: Array, y_true: Array) -> Any:
        d = y_pred - y_true
        return (d * d).mean(), d

    def backward(self, cache: Any) -> Array:
        d, bug = cache, self.bug
        if bug == "over samples":
            return 2 * d / len(d)
        if bug == "no 2":
            return d / d.size
        if bug == "sign":
            return -2 * d / d.size
        return 2 * d / d.size


class BinaryEntropy:
    """Sigmoid and cross-entropy on logits, mean over samples."""

    def __init__(self, bug: str = "") -> None:
        self.bug = bug

    def forward(self, y_pred: Array, y_true: Array) -> Any:
        p = sigmoid(y_pred)
        if self.bug == "epsilon":
            return -(y_true * np.log(p) + (1 - y_true) * np.log(1 - p)).mean(), (p, y_true)
        right = y_pred.real > 0
        soft = np.where(right, y_pred, 0) + np.log(1 + np.exp(np.where(right, -y_pred, y_pred)))
        return (soft - y_true * y_pred).mean(), (p, y_true)

    def backward(self, cache: Any) -> Array:
        p, t = cache
        if self.bug == "sigmoid twice":
            return (p - t) * p * (1 - p) / p.size
        if self.bug == "epsilon":
            return (p - t) / (p * (1 - p) + 1e-7) * p * (1 - p) / p.size
        return (p - t) / p.size


class Hinge:
    """The multiclass hinge, sum_j max(0, s_j - s_t + 1) over j != t, mean over samples."""

    def __init__(self, bug: str = "") -> None:
        self.bug = bug

    def forward(self, y_pred: Array, y_true: Array) -> Any:
        n = len(y_pred)
        margin = y_pred - y_pred[np.arange(n), y_true][:, None] + 1
        margin[np.arange(n), y_true] = 0
        return np.where(margin.real > 0, margin, 0).sum() / n, (margin, y_true)

    def backward(self, cache: Any) -> Array:
        margin, y_true = cache
        n = len(margin)
        others = (margin.real > 0).astype(float)
        d = (margin.real >= 0).astype(float) if self.bug else others.copy()
        d[np.arange(n), y_true] -= others.sum(axis=1)
        return d / n


class Drop(Plain):
    """Dropout; the mask comes from rng."""

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        self.rng, self.training = rng, rng is not None
        mask = np.ones(x.shape) if rng is None else (rng.random(x.shape) >= 0.3) / 0.7
        return x * mask, mask

    def backward(self, dy: Array, cache: Any) -> Any:
        mask = cache
        if self.bug == "mask again" and self.rng is not None:
            mask = (self.rng.random(mask.shape) >= 0.3) / 0.7
        if self.bug == "scale" and self.rng is not None:
            mask = (mask > 0).astype(float)
        if self.bug == "stale mode" and not self.training:
            mask = np.ones_like(mask)
        return dy * mask, NONE


class Norm(Plain):
    """Batch normalisation (axis 0) or layer normalisation (axis 1), with gamma and beta."""

    def __init__(self, axis: int, width: int, rng: Rng, bug: str = "", *, var: bool = False) -> None:
        super().__init__(bug, gamma=rng.uniform(0.5, 1.5, width), beta=rng.normal(size=width))
        self.axis, self.var = axis, var
        self.running = np.zeros(width), np.ones(width)

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        mu = x.mean(axis=self.axis, keepdims=True)
        centred = x - mu
        variance = (
            x.var(axis=self.axis, keepdims=True) if self.var else (centred**2).mean(axis=self.axis, keepdims=True)
        )
        sd = np.sqrt(variance + 1e-5)
        if self.bug == "running statistics":
            self.running = (0.9 * self.running[0] + 0.1 * mu[0].real, 0.9 * self.running[1] + 0.1 * variance[0].real)
        x_hat = centred / sd
        return x_hat * self.params["gamma"] + self.params["beta"], (x, x_hat, sd)

    def backward(self, dy: Array, cache: Any) -> Any:
        (x, x_hat, sd), bug = cache, self.bug
        axis = 1 - self.axis if bug == "other axis" else self.axis
        d = dy * self.params["gamma"]
        grads = {"gamma": (dy * x_hat).sum(axis=0), "beta": dy.sum(axis=0)}
        mean = d.mean(axis=axis, keepdims=True)
        along = (d * x_hat).mean(axis=axis, keepdims=True)
        if bug == "no mean term":
            mean = 0
        elif bug == "no variance term":
            along = 0
        elif bug == "constant statistics":
            mean, along = 0, 0
        elif bug == "epsilon outside":
            sd = np.sqrt(sd**2 - 1e-5) + 1e-5
        elif bug == "unbiased":
            n = x.shape[axis]
            along = along * n / (n - 1)
        elif bug == "running statistics":
            x_hat = (x - self.running[0]) / np.sqrt(self.running[1] + 1e-5)
            return d / np.sqrt(self.running[1] + 1e-5), grads
        elif bug == "gamma forgotten":
            d = dy
            mean, along = d.mean(axis=axis, keepdims=True), (d * x_hat).mean(axis=axis, keepdims=True)
        elif bug == "gamma by x":
            grads["gamma"] = (dy * x).sum(axis=0)
        return (d - mean - x_hat * along) / sd, grads


class Conv(Plain):
    """y = x * W, a padded, strided convolution (correlation): x (n, h, w, c), W (3, 3, c, k)."""

    def __init__(self, c: int, k: int, rng: Rng, bug: str = "", stride: int = 1) -> None:
        super().__init__(bug, W=rng.normal(size=(3, 3, c, k)), b=rng.normal(size=k))
        self.stride = stride

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        s, W = self.stride, self.params["W"]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        h, w = (x.shape[1] - 1) // s + 1, (x.shape[2] - 1) // s + 1
        y = self.params["b"]
        for i in range(3):
            for j in range(3):
                y = y + padded[:, i : i + s * h : s, j : j + s * w : s][:, :h, :w] @ W[i, j]
        return y, (padded, x.shape)

    def backward(self, dy: Array, cache: Any) -> Any:
        (padded, shape), bug, s = cache, self.bug, self.stride
        W = self.params["W"][::-1, ::-1] if bug == "flipped" else self.params["W"]
        h, w = dy.shape[1:3]
        dpadded, dW = np.zeros(padded.shape), np.zeros(W.shape)
        step = 1 if bug == "stride ignored" else s
        for i in range(3):
            for j in range(3):
                window = padded[:, i : i + s * h : s, j : j + s * w : s][:, :h, :w]
                dW[i, j] = np.einsum("nhwc,nhwk->ck", window, dy)
                dpadded[:, i : i + step * h : step, j : j + step * w : step][:, :h, :w] += dy @ W[i, j].T
        if bug == "dW first position":
            dW[:] = np.einsum("nhwc,nhwk->ck", padded[:, :h, :w], dy)
        if bug == "dW flipped":
            dW = dW[::-1, ::-1].copy()
        db = dy.sum(axis=(0, 1)).mean(axis=0) if bug == "db axes" else dy.sum(axis=(0, 1, 2))
        start = 0 if bug == "padding" else 1
        return dpadded[:, start : start + shape[1], start : start + shape[2]], {"W": dW, "b": db}


class MaxPool(Plain):
    """The maximum over windows of two along axis 1."""

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        pairs = x.reshape(len(x), -1, 2)
        top = pairs.real.argmax(axis=2)[:, :, None]
        return np.take_along_axis(pairs, top, axis=2)[:, :, 0], (pairs, top, x.shape)

    def backward(self, dy: Array, cache: Any) -> Any:
        pairs, top, shape = cache
        dx = np.zeros(pairs.shape)
        if self.bug == "all ties":
            dx[...] = (pairs == np.take_along_axis(pairs, top, axis=2)) * dy[:, :, None]
        elif self.bug == "other window":
            np.put_along_axis(dx, np.roll(top, 1, axis=1), dy[:, :, None], axis=2)
        else:
            np.put_along_axis(dx, top, dy[:, :, None], axis=2)
        return dx.reshape(shape), NONE


class Recurrent(Plain):
    """h_t = tanh(x_t @ W + h_(t-1) @ U + b); y is all h: x (n, t, i), y (n, t, h)."""

    def __init__(self, i: int, h: int, rng: Rng, bug: str = "") -> None:
        super().__init__(bug, W=rng.normal(size=(i, h)) / 2, U=rng.normal(size=(h, h)) / 2, b=rng.normal(size=h) / 2)

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        h = x[:, 0] @ self.params["W"] * 0 + self.params["b"] * 0
        states = [h]
        for t in range(x.shape[1]):
            h = np.tanh(x[:, t] @ self.params["W"] + h @ self.params["U"] + self.params["b"])
            states.append(h)
        return np.stack(states[1:], axis=1), (x, states)

    def backward(self, dy: Array, cache: Any) -> Any:
        x, states = cache
        W, U = self.params["W"], self.params["U"]
        dx, dW, dU, db = np.zeros(x.shape), np.zeros(W.shape), np.zeros(U.shape), np.zeros(U.shape[1])
        d_next = np.zeros(states[0].shape)
        last = x.shape[1] - 1
        for t in range(last, -1, -1):
            dz = (dy[:, t] + d_next) * (1 - states[t + 1] ** 2)
            if self.bug == "truncated" and t == 0:
                dz = dy[:, 0] * (1 - states[1] ** 2)
            dx[:, t] = dz @ W.T
            if not (self.bug == "first step dropped" and t == 0):
                dW += x[:, t].T @ dz
            dU += states[t].T @ dz
            db += dz.sum(axis=0)
            d_next = dz @ U.T
            if self.bug == "no dh":
                d_next = np.zeros_like(d_next)
            if self.bug == "U not transposed":
                d_next = dz @ U
        return dx, {"W": dW, "U": dU, "b": db}


class LSTM(Plain):
    """Gates i, f, o, g of one matrix; y is the last h: x (n, t, i)."""

    def __init__(self, i: int, h: int, rng: Rng, bug: str = "") -> None:
        super().__init__(bug, W=rng.normal(size=(i + h, 4 * h)) / 2, b=rng.normal(size=4 * h) / 2)
        self.h = h

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        k, steps = self.h, []
        h = c = (x[:, 0] @ self.params["W"][: x.shape[2]])[:, :k] * 0
        for t in range(x.shape[1]):
            xh = np.concatenate([x[:, t], h], axis=1)
            z = xh @ self.params["W"] + self.params["b"]
            i, f, o, g = (
                sigmoid(z[:, :k]),
                sigmoid(z[:, k : 2 * k]),
                sigmoid(z[:, 2 * k : 3 * k]),
                np.tanh(z[:, 3 * k :]),
            )
            before, c = c, f * c + i * g
            h = o * np.tanh(c)
            steps.append((xh, i, f, o, g, before, c))
        return h, (x.shape, steps)

    def backward(self, dy: Array, cache: Any) -> Any:
        (shape, steps), k, bug = cache, self.h, self.bug
        W = self.params["W"]
        dx, dW, db = np.zeros(shape), np.zeros(W.shape), np.zeros(W.shape[1])
        dh, dc = dy, np.zeros(dy.shape)
        for t in range(shape[1] - 1, -1, -1):
            xh, i, f, o, g, before, c = steps[t]
            tc = np.tanh(c)
            if not (bug == "dc from h" and t == shape[1] - 1):
                dc = dc + dh * o * (1 - tc * tc)
            parts = [dc * g * i * (1 - i), dc * before * f * (1 - f), dh * tc * o * (1 - o), dc * i * (1 - g * g)]
            if bug == "gate order":
                parts = [parts[0], parts[1], parts[3], parts[2]]
            dz = np.concatenate(parts, axis=1)
            dW += xh.T @ dz
            db += dz.sum(axis=0)
            dxh = dz @ W.T
            dx[:, t], dh = dxh[:, : shape[2]], dxh[:, shape[2] :]
            dc = dc if bug == "forget gate" else dc * f
        if bug == "gate order at the end":
            db = np.concatenate([db[: 2 * k], db[3 * k :], db[2 * k : 3 * k]])
        return dx, {"W": dW, "b": db}


class Attention(Plain):
    """softmax(Q K' / sqrt(d)) V, with nested parameters: x (n, t, c)."""

    def __init__(self, c: int, d: int, rng: Rng, bug: str = "") -> None:
        self.bug, self.d = bug, d
        self.params = {  # type: ignore[assignment]
            "query": {"W": rng.normal(size=(c, d)), "b": rng.normal(size=d)},
            "key": {"W": rng.normal(size=(c, d))},
            "value": {"W": rng.normal(size=(c, d))},
        }

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        p: Any = self.params
        q, k, v = x @ p["query"]["W"] + p["query"]["b"], x @ p["key"]["W"], x @ p["value"]["W"]
        s = q @ k.swapaxes(1, 2) / sqrt(self.d)
        e = np.exp(s - s.real.max(axis=2, keepdims=True))
        a = e / e.sum(axis=2, keepdims=True)
        return a @ v, (x, q, k, v, a)

    def backward(self, dy: Array, cache: Any) -> Any:
        x, q, k, v, a = cache
        p: Any = self.params
        da = dy @ v.swapaxes(1, 2)
        ds = a * (da - (da * a).sum(axis=2, keepdims=True))
        if self.bug == "diagonal":
            ds = a * (1 - a) * da
        if self.bug != "scale":
            ds = ds / sqrt(self.d)
        dq, dk, dv = ds @ k, ds.swapaxes(1, 2) @ q, a.swapaxes(1, 2) @ dy
        if self.bug == "a not transposed":
            dv = a @ dy
        dx = dq @ p["query"]["W"].T + dk @ p["key"]["W"].T + dv @ p["value"]["W"].T
        if self.bug == "branch":
            dx = dx - dk @ p["key"]["W"].T
        flat = x.reshape(-1, x.shape[2])
        grads = {
            name: {"W": flat.T @ d.reshape(len(flat), -1)} for name, d in (("query", dq), ("key", dk), ("value", dv))
        }
        grads["query"]["b"] = dq.sum(axis=(0, 1))
        return dx, grads


class Embedding(Plain):
    """y = E[x]: rows of a table."""

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        return self.params["E"][x], x

    def backward(self, dy: Array, cache: Any) -> Any:
        dE = np.zeros(self.params["E"].shape)
        if self.bug:
            dE[cache] += dy  # counts a repeated row once
        else:
            np.add.at(dE, cache, dy)
        return None, {"E": dE}


class Residual(Plain):
    """y = x + tanh(x @ W)."""

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        a = np.tanh(x @ self.params["W"])
        return x + a, (x, a)

    def backward(self, dy: Array, cache: Any) -> Any:
        x, a = cache
        dz = dy * (1 - a * a)
        dx = dz @ self.params["W"].T
        return dx if self.bug else dx + dy, {"W": x.T @ dz}


class Concat(Plain):
    """y = [tanh(x), x @ W], side by side."""

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        a = np.tanh(x)
        return np.concatenate([a, x @ self.params["W"]], axis=1), (x, a)

    def backward(self, dy: Array, cache: Any) -> Any:
        x, a = cache
        k = x.shape[1]
        left, right = (dy[:, -k:], dy[:, :-k]) if self.bug else (dy[:, :k], dy[:, k:])
        return left * (1 - a * a) + right @ self.params["W"].T, {"W": x.T @ right}


class OffMomentum(SGD):
    """v = -momentum * v - learning_rate * dw."""

    def _move(self, w: Array, dw: Array, learning_rate: float, rows: Any) -> None:
        v = self.state["v"]
        v[:] = -self.momentum * v - learning_rate * dw
        w += v


class OffAdam(Adam):
    """Adam with one thing wrong."""

    bug = ""

    def _move(self, w: Array, dw: Array, learning_rate: float, rows: Any) -> None:
        m, v, t = self.state["m"], self.state["v"], self.n_steps
        if self.bug == "t off by one":
            t = t + 1
        m[:] = self.beta1 * m + (1 - self.beta1) * dw
        v[:] = self.beta2 * v + (1 - self.beta2) * dw**2
        m_hat, v_hat = m / (1 - self.beta1**t), v / (1 - self.beta2**t)
        if self.bug == "no bias correction":
            m_hat, v_hat = m, v
        if self.bug == "epsilon inside":
            w -= learning_rate * m_hat / np.sqrt(v_hat + self.epsilon)
        elif self.bug == "sign":
            w += learning_rate * m_hat / (np.sqrt(v_hat) + self.epsilon)
        else:
            w -= learning_rate * m_hat / (np.sqrt(v_hat) + self.epsilon)


def _adam(bug: str) -> Adam:
    optimizer = OffAdam(0.01, epsilon=1e-4)
    optimizer.bug = bug
    return optimizer


class Early(Sequential):
    """Updates each layer's weights as soon as it has their gradient, and propagates through the new ones."""

    def backward(self, dy: Array, cache: Any) -> Any:
        grads = self.params.like()
        for i in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[i]
            if len(layer.params):
                _, g = layer.backward(dy, cache[i])
                kept = layer.params.vector.copy()
                layer.params.vector -= 0.05 * g.vector
                dy = layer.backward(dy, cache[i])[0]
                layer.params.vector[:] = kept
                for name in g:
                    grads[f"{i}.{name}"] = g[name]
            else:
                dy = layer.backward(dy, cache[i])[0]
        return dy, grads


class Keeps(Dense):
    """Adds to the gradients of earlier calls."""

    def backward(self, dy: Array, cache: Any) -> Any:
        dx, grads = super().backward(dy, cache)
        if not hasattr(self, "sum") or self.sum.shape != grads.vector.shape:
            self.sum = np.zeros(grads.vector.shape)
        self.sum = self.sum + grads.vector
        grads.vector = self.sum
        return dx, grads


class Wrapped(Layer):
    """A plain layer of this module in a Sequential."""

    def __init__(self, inner: Any) -> None:
        self.kind, self.bug, self.make = type(inner), inner.bug, inner
        flat = {name: value.shape for name, value in inner.params.items()}
        self.params = Parameters(
            flat, np.concatenate([v.ravel() for v in inner.params.values()]) if flat else np.zeros(0)
        )

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        import copy

        inner = copy.copy(self.make)
        inner.params = {name: self.params[name] for name in self.params}
        y, cache = inner.forward(x, rng)
        return y, (inner, cache)

    def backward(self, dy: Array, cache: Any) -> Any:
        inner, inside = cache
        dx, found = inner.backward(dy, inside)
        grads = Parameters(self.params.layout, np.zeros(self.params.vector.shape, dy.dtype))
        for name, value in found.items():
            grads[name] = value
        return dx, grads


# -- the cases

_SIZES = ((4, 3, 5), (7, 5, 6), (16, 11, 13))  # rows, inputs, outputs


def _affine(bug: str, *, square: bool = False, rows_are_outputs: bool = False) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = _SIZES[size]
        o = i if square else o
        n = o if rows_are_outputs else n
        return Trial("layer", (Affine(bug, W=rng.normal(size=(i, o)), b=rng.normal(size=o)), rng.normal(size=(n, i))))

    return make


def _in_network(bug: str, *, square: bool = False) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = _SIZES[size]
        inner = Affine(bug, W=rng.normal(size=(o, o if square else i)), b=rng.normal(size=o if square else i))
        width = o if square else i
        net = Sequential([Dense(i, o), Tanh(), Wrapped(inner), Sigmoid(), Dense(width, 2)], rng=rng)
        return Trial("network", (net, HalfSquaredError(), rng.normal(size=(n, i)), rng.normal(size=(n, 2))), "2")

    return make


def _act(kind: str, bug: str) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, _ = _SIZES[size]
        return Trial("layer", (Act(kind, bug), rng.normal(0, 1.5, (n, i))))

    return make


def _act_in_network(kind: str, bug: str) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = _SIZES[size]
        net = Sequential([Dense(i, o), Wrapped(Act(kind, bug)), Dense(o, 2)], rng=rng)
        net.layers[1].make = Act(kind, bug)  # type: ignore[attr-defined]
        return Trial("network", (net, HalfSquaredError(), rng.normal(size=(n, i)), rng.normal(size=(n, 2))), "1")

    return make


def _layer(build: Callable[[Rng, int, int, int], Any], shape: Callable[[int, int, int], tuple[int, ...]]) -> Any:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = _SIZES[size]
        return Trial("layer", (build(rng, n, i, o), rng.normal(size=shape(n, i, o))))

    return make


def _loss(loss: Callable[[Rng, int], Any], *, labels: bool, scale: float = 1.5) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, k, _ = _SIZES[size]
        n = n + 1 if n == k else n
        t = np.concatenate([np.arange(k), rng.integers(0, k, n)])[:n] if labels else rng.uniform(0.05, 0.95, (n, k))
        y_pred = scale * rng.normal(size=(n, k))
        y_pred[0, 0] = scale
        return Trial("loss", (loss(rng, k), y_pred, t))

    return make


def _loss_in_network(loss: Callable[[Rng, int], Any], *, labels: bool) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, k = _SIZES[size]
        net = Sequential([Dense(i, 4), Tanh(), Dense(4, k)], rng=rng)
        t = rng.integers(0, k, n) if labels else rng.uniform(0.05, 0.95, (n, k))
        return Trial("network", (net, loss(rng, k), rng.normal(size=(n, i)), t), "loss")

    return make


def _penalised(penalty: str, bug: str) -> Callable[[Rng, int], Trial]:
    """Ridge or lasso regression as two plain functions of W and b."""

    def make(rng: Rng, size: int) -> Trial:
        n, i, o = _SIZES[size]
        x, t = rng.normal(size=(n, i)), rng.normal(size=(n, o))
        lam = 1e-5 if "1e-5" in bug else 0.1

        def f(W: Array, b: Array) -> Any:
            d = x @ W + b - t
            extra = (W * W).sum() / 2 if penalty == "l2" else np.abs(W).sum()
            return (d * d).sum() / (2 * n) + lam * extra

        def grad(W: Array, b: Array) -> Any:
            d = (x @ W + b - t) / n
            slope = W if penalty == "l2" else np.sign(W)
            factor = {"twice": 2.0, "half": 0.5, "missing 1e-5": 0.0, "missing": 0.0}.get(bug, 1.0)
            db = d.sum(axis=0)
            return x.T @ d + factor * lam * slope, db + lam * b if bug == "on the bias" else db

        W = rng.normal(size=(i, o))
        if bug == "at 0":
            W[0] = 0
        return Trial("function", (f, grad, W, rng.normal(size=o)))

    return make


def _step(optimizer: Callable[[], Any]) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = _SIZES[size]
        net = Sequential([Dense(i, o), Tanh(), Dense(o, 2)], rng=rng)
        return Trial(
            "step",
            (net, HalfSquaredError(), optimizer(), rng.normal(size=(n, i)), rng.normal(size=(n, 2))),
            "optimizer",
        )

    return make


def _early(check: str) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = _SIZES[size]
        net = Early([Dense(i, o), Tanh(), Dense(o, 2)], rng=rng)
        args = (net, HalfSquaredError(), rng.normal(size=(n, i)), rng.normal(size=(n, 2)))
        return Trial(check, args if check == "network" else (*args[:2], SGD(0.05), *args[2:]), "network")

    return make


def _keeps(rng: Rng, size: int) -> Trial:
    n, i, o = _SIZES[size]
    net = Sequential([Dense(i, o), Tanh(), Keeps(o, 2)], rng=rng)
    return Trial("step", (net, HalfSquaredError(), SGD(0.05), rng.normal(size=(n, i)), rng.normal(size=(n, 2))), "2")


def _flat(n: int, i: int, o: int) -> tuple[int, ...]:
    return n, i


def _square(shape: Callable[[int, int, int], tuple[int, ...]] = _flat) -> Any:
    return shape


def _series(n: int, i: int, o: int) -> tuple[int, ...]:
    return min(n, 4), 3 + n // 4, i


def _image(n: int, i: int, o: int) -> tuple[int, ...]:
    return 2, min(i, 5), min(o, 6), 2


def _k(*kinds: str) -> frozenset[str]:
    return frozenset(kinds)


def _cases() -> list[Case]:
    c = Case
    norm = {
        "no mean term": ("mean-term",),
        "no variance term": ("variance-term",),
        "constant statistics": ("statistics", "mean-term", "variance-term"),
        "epsilon outside": ("epsilon",),
        "unbiased": ("variance-term", "scale"),
        "other axis": ("axis", "statistics", "mean-term", "variance-term"),
        "gamma forgotten": ("slice-scale", "term"),
        "gamma by x": ("term", "variance-term", "residual", "value"),
    }
    return [
        c("Dense: dW transposed", _affine("dW transposed", square=True), _k("transpose")),
        c("Dense: dx = dy @ W", _affine("dx transposed", square=True), _k("transpose")),
        c("Dense: dW transposed, shapes differ", _affine("dW transposed"), _k("shape", "transpose")),
        c("Dense: db over the other axis", _affine("db other axis", rows_are_outputs=True), _k("axis")),
        c("Dense: db the mean", _affine("db mean"), _k("scale")),
        c("Dense: db of the last sample", _affine("db last"), _k("samples")),
        c("Dense: the last sample dropped", _affine("dW without last"), _k("samples")),
        c("Dense: dW in float32", _affine("float32"), _k("float32")),
        c("Dense: dx with the updated W", _affine("updated W"), _k("updated-weights")),
        c("Dense: dx with the updated W, small rate", _affine("slightly updated W"), _k("updated-weights")),
        c("Dense: takes its step in backward", _affine("steps in backward"), _k("updated-weights")),
        c("Dense: one element of dW off by 0.1 %", _affine("one element"), _k("elements")),
        c("Dense: dW off by 0.05 %", _affine("0.05 % more"), _k("scale")),
        c("Dense: dW is never written", _affine("zero"), _k("zero")),
        c("Dense: dW decays", _affine("decay"), _k("weight-decay")),
        c("Dense: adds to earlier gradients", _affine("accumulates"), _k("accumulate")),
        c("Dense: scales the caller's x", _affine("halves"), _k("mutation")),
        c("Dense: scales the caller's dy", _affine("halves dy"), _k("mutation")),
        c("Dense: db is missing", _affine("no grad for b"), _k("missing")),
        c("Dense: db keeps dims", _affine("b two-dimensional"), _k("shape")),
        c("Dense: x kept in the layer", _affine("stale"), _k("stale-cache"), contract=True),
        c("Dense: cache is a reused buffer", _affine("buffer"), _k("stale-cache"), contract=True),
        c("Dense: 1/n twice", _affine("n counted"), _k("scale")),
        c("network, Dense: dW transposed", _in_network("dW transposed", square=True), _k("transpose")),
        c("network, Dense: dx = dy @ W", _in_network("dx transposed", square=True), _k("transpose")),
        c("network, Dense: db the mean", _in_network("db mean"), _k("scale")),
        c("network, Dense: the last sample dropped", _in_network("dW without last"), _k("samples")),
        c("network, Dense: dx with the updated W", _in_network("slightly updated W"), _k("updated-weights")),
        c("network, Dense: dW off by 0.05 %", _in_network("0.05 % more"), _k("scale")),
        c(
            "weights used twice, one use counted",
            _layer(lambda r, n, i, o: TwoUses("bug", W=r.normal(size=(i, i))), _flat),
            _k("term"),
        ),
        c(
            "block: dW by z, not a",
            _layer(lambda r, n, i, o: Block("z not a", V=r.normal(size=(i, i)), W=r.normal(size=(i, o))), _flat),
            _k("term", "value"),
        ),
        c(
            "block: dW by x, not a",
            _layer(lambda r, n, i, o: Block("x not a", V=r.normal(size=(i, i)), W=r.normal(size=(i, o))), _flat),
            _k("term", "value"),
        ),
        c("sigmoid: derivative at a", _act("sigmoid", "at a"), _k("slope")),
        c("sigmoid: derivative missing", _act("sigmoid", "missing"), _k("slope")),
        c("sigmoid: derivative twice", _act("sigmoid", "twice"), _k("slope")),
        c("tanh: 1 - a", _act("tanh", "square forgotten"), _k("slope")),
        c("ReLU: mask of dy", _act("relu", "mask of dy"), _k("slope", "mask", "nonlinear")),
        c("ReLU: in place", _act("relu", "in place"), _k("mutation"), contract=True),
        c("LeakyReLU: 0.011 for 0.01", _act("leaky", "slope"), _k("branch")),
        c("ELU: alpha missing", _act("elu", "no alpha"), _k("branch")),
        c("GELU: tanh forward, erf backward", _act("gelu", "erf"), _k("slope", "epsilon")),
        c("swish: one term", _act("swish", "one term"), _k("slope")),
        c("softplus: derivative missing", _act("softplus", "missing"), _k("slope")),
        c("network, sigmoid: derivative at a", _act_in_network("sigmoid", "at a"), _k("slope")),
        c("network, tanh: derivative missing", _act_in_network("tanh", "missing"), _k("slope")),
        c("network, LeakyReLU: 0.011 for 0.01", _act_in_network("leaky", "slope"), _k("branch")),
        c("network, GELU: erf backward", _act_in_network("gelu", "erf"), _k("slope", "epsilon")),
        c("softmax: diagonal only", _layer(lambda r, n, i, o: SoftmaxRows("diagonal"), _flat), _k("diagonal")),
        c(
            "softmax: sum over the other axis",
            _layer(lambda r, n, i, o: SoftmaxRows("other axis"), _flat),
            _k("axis", "term", "mean-term"),
        ),
        c(
            "softmax: epsilon in the denominator",
            _layer(lambda r, n, i, o: SoftmaxRows("epsilon"), _flat),
            _k("epsilon"),
        ),
        c("cross-entropy: no mean", _loss(lambda r, k: CrossEntropy("no mean"), labels=True), _k("scale")),
        c(
            "cross-entropy: mean over classes",
            _loss(lambda r, k: CrossEntropy("over classes"), labels=True),
            _k("scale"),
        ),
        c("cross-entropy: sign", _loss(lambda r, k: CrossEntropy("sign"), labels=True), _k("sign")),
        c(
            "cross-entropy: class weights not normalised",
            _loss(lambda r, k: CrossEntropy("weights not normalised", r.uniform(0.2, 3, k)), labels=True),
            _k("scale"),
        ),
        c(
            "cross-entropy: softmax's Jacobian too",
            _loss(lambda r, k: CrossEntropy("softmax jacobian too"), labels=True),
            _k("slope", "term"),
        ),
        c(
            "cross-entropy: first sample only",
            _loss(lambda r, k: CrossEntropy("one sample"), labels=True),
            _k("samples"),
        ),
        c(
            "cross-entropy: epsilon in the log",
            _loss(lambda r, k: CrossEntropy("log epsilon"), labels=True),
            _k("epsilon"),
        ),
        c(
            "cross-entropy: epsilon in the denominator",
            _loss(lambda r, k: CrossEntropy("denominator"), labels=True),
            _k("epsilon"),
        ),
        c(
            "cross-entropy: overflow at 800",
            _loss(lambda r, k: CrossEntropy("overflow"), labels=True, scale=800),
            _k("overflow"),
        ),
        c(
            "squared error: mean over samples",
            _loss(lambda r, k: SquaredError("over samples"), labels=False),
            _k("scale"),
        ),
        c("squared error: no 2", _loss(lambda r, k: SquaredError("no 2"), labels=False), _k("scale")),
        c("squared error: sign", _loss(lambda r, k: SquaredError("sign"), labels=False), _k("sign")),
        c(
            "binary entropy: sigmoid' again",
            _loss(lambda r, k: BinaryEntropy("sigmoid twice"), labels=False),
            _k("slope"),
        ),
        c("binary entropy: epsilon", _loss(lambda r, k: BinaryEntropy("epsilon"), labels=False), _k("epsilon")),
        c(
            "hinge: counts the true class",
            _loss(lambda r, k: Hinge("counts"), labels=True),
            _k("elements", "term", "samples"),
        ),
        c(
            "network, squared error: mean over samples",
            _loss_in_network(lambda r, k: SquaredError("over samples"), labels=False),
            _k("scale"),
        ),
        c(
            "network, cross-entropy: no mean",
            _loss_in_network(lambda r, k: CrossEntropy("no mean"), labels=True),
            _k("scale"),
        ),
        c(
            "network, cross-entropy: epsilon",
            _loss_in_network(lambda r, k: CrossEntropy("log epsilon"), labels=True),
            _k("epsilon"),
        ),
        c("L2: factor 2", _penalised("l2", "twice"), _k("weight-decay")),
        c("L2: factor 1/2", _penalised("l2", "half"), _k("weight-decay")),
        c("L2: missing, 1e-5", _penalised("l2", "missing 1e-5"), _k("weight-decay")),
        c("L2: on the bias", _penalised("l2", "on the bias"), _k("weight-decay")),
        c("L1: missing", _penalised("l1", "missing"), _k("weight-decay")),
        c("dropout: another mask", _layer(lambda r, n, i, o: Drop("mask again"), _flat), _k("mask")),
        c("dropout: scale missing", _layer(lambda r, n, i, o: Drop("scale"), _flat), _k("scale", "mask")),
        c(
            "dropout: mode kept in the layer",
            _layer(lambda r, n, i, o: Drop("stale mode"), _flat),
            _k("stale-cache"),
            contract=True,
        ),
        *[
            c(f"batch norm: {bug}", _layer(lambda r, n, i, o, bug=bug: Norm(0, i, r, bug), _flat), _k(*kinds))
            for bug, kinds in {
                **norm,
                "running statistics": ("statistics", "mean-term", "variance-term", "term", "axis"),
            }.items()
        ],
        *[
            c(f"layer norm: {bug}", _layer(lambda r, n, i, o, bug=bug: Norm(1, i, r, bug), _flat), _k(*kinds))
            for bug, kinds in norm.items()
        ],
        c("conv: kernel flipped in dx", _layer(lambda r, n, i, o: Conv(2, 3, r, "flipped"), _image), _k("order")),
        c("conv: dW flipped", _layer(lambda r, n, i, o: Conv(2, 3, r, "dW flipped"), _image), _k("order")),
        c("conv: padding cropped off by one", _layer(lambda r, n, i, o: Conv(2, 3, r, "padding"), _image), _k("shift")),
        c(
            "conv: stride ignored in dx",
            _layer(lambda r, n, i, o: Conv(2, 3, r, "stride ignored", 2), _image),
            _k("order", "shift", "elements", "term"),
        ),
        c(
            "conv: dW of one position",
            _layer(lambda r, n, i, o: Conv(2, 3, r, "dW first position"), _image),
            _k("elements", "axis", "samples", "term"),
        ),
        c("conv: db averaged over an axis", _layer(lambda r, n, i, o: Conv(2, 3, r, "db axes"), _image), _k("scale")),
        c(
            "max-pool: argmax of another window",
            _layer(lambda r, n, i, o: MaxPool("other window"), lambda n, i, o: (n, 6)),
            _k("order", "elements", "mask"),
        ),
        c(
            "recurrent: dh of the next step dropped",
            _layer(lambda r, n, i, o: Recurrent(i, o, r, "no dh"), _series),
            _k("elements", "term"),
        ),
        c(
            "recurrent: last step of BPTT cut",
            _layer(lambda r, n, i, o: Recurrent(i, o, r, "truncated"), _series),
            _k("elements", "term"),
        ),
        c(
            "recurrent: first step's dW dropped",
            _layer(lambda r, n, i, o: Recurrent(i, o, r, "first step dropped"), _series),
            _k("samples", "term"),
        ),
        c(
            "recurrent: U not transposed",
            _layer(lambda r, n, i, o: Recurrent(i, o, r, "U not transposed"), _series),
            _k("transpose", "term", "elements"),
        ),
        c(
            "LSTM: dc misses h",
            _layer(lambda r, n, i, o: LSTM(i, o, r, "dc from h"), _series),
            _k("term", "elements", "zero"),
        ),
        c(
            "LSTM: gates in another order",
            _layer(lambda r, n, i, o: LSTM(i, o, r, "gate order"), _series),
            _k("order", "term", "elements"),
        ),
        c(
            "LSTM: gates of db in another order",
            _layer(lambda r, n, i, o: LSTM(i, o, r, "gate order at the end"), _series),
            _k("order"),
        ),
        c(
            "LSTM: forget gate missing",
            _layer(lambda r, n, i, o: LSTM(i, o, r, "forget gate"), _series),
            _k("term", "elements"),
        ),
        c("attention: 1/sqrt(d) missing", _layer(lambda r, n, i, o: Attention(i, o, r, "scale"), _series), _k("scale")),
        c(
            "attention: softmax diagonal",
            _layer(lambda r, n, i, o: Attention(i, o, r, "diagonal"), _series),
            _k("term", "diagonal"),
        ),
        c(
            "attention: a not transposed",
            _layer(lambda r, n, i, o: Attention(i, o, r, "a not transposed"), _series),
            _k("term", "transpose"),
        ),
        c(
            "attention: key's branch of dx lost",
            _layer(lambda r, n, i, o: Attention(i, o, r, "branch"), _series),
            _k("term"),
        ),
        c("embedding: repeated rows counted once", _embedding("once"), _k("elements", "samples", "repeats")),
        c(
            "residual: dy not added",
            _layer(lambda r, n, i, o: Residual("bug", W=r.normal(size=(i, i))), _flat),
            _k("residual"),
        ),
        c(
            "concat: split at the wrong place",
            _layer(lambda r, n, i, o: Concat("bug", W=r.normal(size=(i, o))), _flat),
            _k("order", "term", "shift", "elements", "value"),
        ),
        c("network: steps before it propagates", _early("network"), _k("updated-weights")),
        c("step: steps before it propagates", _early("step"), _k("updated-weights")),
        c("step: gradients kept", _keeps, _k("accumulate")),
        c("Adam: t off by one", _step(lambda: _adam("t off by one")), _k("adam-t")),
        c("Adam: epsilon inside the root", _step(lambda: _adam("epsilon inside")), _k("adam-epsilon")),
        c("Adam: no bias correction", _step(lambda: _adam("no bias correction")), _k("adam-t")),
        c("Adam: sign", _step(lambda: _adam("sign")), _k("sign")),
        c("SGD: sign of the momentum", _step(lambda: OffMomentum(0.1, momentum=0.9)), _k("momentum-sign")),
    ]


def _embedding(bug: str) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = _SIZES[size]
        x = rng.integers(0, 3, n + 2)  # rows repeat
        return Trial("layer", (Embedding(bug, E=rng.normal(size=(i + 1, o))), x))

    return make


def _zeros_in(build: Callable[[], Any]) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, _ = _SIZES[size]
        x = rng.normal(size=(n, i))
        x[0] = 0
        x[1, 0] = -0.0
        return Trial("layer", (build(), x))

    return make


def _at(build: Callable[[Rng], Any], x: Callable[[Rng, int], Array]) -> Callable[[Rng, int], Trial]:
    return lambda rng, size: Trial("layer", (build(rng), x(rng, size)))


def _rows(rng: Rng, size: int, scale: float = 1.0) -> Array:
    n, i, _ = _SIZES[size]
    return scale * rng.normal(size=(n, i))


def _net(
    scale: float, activation: Callable[[], Layer], loss_scale: float = 1.0, dtype: Any = np.float64
) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = _SIZES[size]
        net = Sequential([Dense(i, o), activation(), Dense(o, 3), activation(), Dense(3, 2)], rng=rng, dtype=dtype)
        net.params.vector *= scale
        x, t = rng.normal(size=(n, i)).astype(dtype), (loss_scale * rng.normal(size=(n, 2))).astype(dtype)
        return Trial("network", (net, HalfSquaredError(), x, t))

    return make


def _dead(rng: Rng, size: int) -> Trial:
    n, i, o = _SIZES[size]
    net = Sequential([Dense(i, o), ReLU(), Dense(o, 2)], rng=rng)
    net.params["0.b"][:2] = -1000
    return Trial("network", (net, HalfSquaredError(), rng.normal(size=(n, i)), rng.normal(size=(n, 2))))


def _hinge_at_margin(rng: Rng, size: int) -> Trial:
    n, k, _ = _SIZES[size]
    s = rng.integers(-2, 3, (n, k)).astype(float)
    return Trial("loss", (Hinge(), s, rng.integers(0, k, n)))


def _long_sum(rng: Rng, size: int) -> Trial:
    n = 300 * (size + 1)
    x, t = rng.normal(size=(n, 2)), rng.normal(size=n) * 1e3
    return Trial(
        "function",
        (lambda w: ((x @ w - t) ** 2).sum(), lambda w: 2 * x.T @ (x @ w - t), rng.normal(size=2)),
    )


def _wiggly(rng: Rng, size: int) -> Trial:
    return Trial(
        "function", (lambda x: np.sin(1e4 * x).sum(), lambda x: 1e4 * np.cos(1e4 * x), rng.normal(size=3 + size))
    )


def _linear(rng: Rng, size: int) -> Trial:
    a = rng.normal(size=5 + size)
    return Trial("function", (lambda x: a @ x, lambda x: a.copy(), rng.normal(size=5 + size)))


def _with_numpy_var(rng: Rng, size: int) -> Trial:
    n, i, _ = _SIZES[size]
    return Trial("layer", (Norm(0, i, rng, var=True), rng.normal(size=(n, i))))


def _norm_of(rng: Rng, size: int) -> Trial:
    return Trial("function", (lambda x: np.linalg.norm(x), lambda x: x / np.linalg.norm(x), rng.normal(size=4 + size)))


def _huge(rng: Rng, size: int) -> Trial:
    n, i, _ = _SIZES[size]
    t = 1e4 * rng.normal(size=(n, i))
    return Trial("function", (lambda y: ((y - t) ** 2).sum(), lambda y: 2 * (y - t), rng.normal(size=(n, i))))


def _traps() -> list[Case]:
    c = Case
    return [
        c("T1 ReLU at 0", _zeros_in(ReLU)),
        c("T2 ReLU a hair from 0", _at(lambda r: ReLU(), lambda r, s: 1e-9 * _rows(r, s))),
        c(
            "T3 max-pool with ties",
            _at(lambda r: MaxPool("all ties"), lambda r, s: r.integers(0, 2, (4 + s, 6)).astype(float)),
        ),
        c(
            "T3 max-pool with ties, one of them",
            _at(lambda r: MaxPool(), lambda r, s: r.integers(0, 2, (4 + s, 6)).astype(float)),
        ),
        c("T4 hinge at the margin", _hinge_at_margin),
        c("T5 L1 at 0", _penalised("l1", "at 0")),
        c(
            "T7 hard sigmoid at its edges",
            _at(lambda r: Act("hard sigmoid"), lambda r, s: r.choice([-2.5, 2.5, 0.3, 7.0], (4 + s, 3))),
        ),
        c("T9 saturated tanh", _net(1e3, Tanh)),
        c("T9 saturated sigmoid", _at(lambda r: Sigmoid(), lambda r, s: 40 * _rows(r, s))),
        c("T11 a loss of 1e8", _huge),
        c("T12 weights of 1e4, ReLU", _net(1e4, ReLU)),
        c("T13 weights of 1e-6", _net(1e-6, Tanh)),
        c("T14 float32", _net(1, Tanh, dtype=np.float32)),
        c("T14 float32, ReLU", _net(1, ReLU, dtype=np.float32)),
        c("T15 dead units", _dead),
        c("T18 logits of 500", _loss(lambda r, k: CrossEntropy(), labels=True, scale=500)),
        c("T19 a long sum", _long_sum),
        c("T21 high curvature", _wiggly),
        c("T22 a linear function", _linear),
        c("T24 any layout of dy", _affine("")),
        *[
            c(f"T25 ReLU's slope at 0 is {at}", _zeros_in(lambda at=at: Act("relu", at_zero=at)))
            for at in (0.0, 0.5, 1.0)
        ],
        c("batch norm by x.var", _with_numpy_var),
        c("batch norm", _layer(lambda r, n, i, o: Norm(0, i, r), _flat)),
        c("layer norm", _layer(lambda r, n, i, o: Norm(1, i, r), _flat)),
        c("np.linalg.norm", _norm_of),
        c("conv", _layer(lambda r, n, i, o: Conv(2, 3, r), _image)),
        c("conv, stride 2", _layer(lambda r, n, i, o: Conv(2, 3, r, stride=2), _image)),
        c("recurrent", _layer(lambda r, n, i, o: Recurrent(i, o, r), _series)),
        c("LSTM", _layer(lambda r, n, i, o: LSTM(i, o, r), _series)),
        c("attention", _layer(lambda r, n, i, o: Attention(i, o, r), _series)),
        c("embedding", _embedding("")),
        c("dropout", _layer(lambda r, n, i, o: Drop(), _flat)),
        c("GELU", _act("gelu", "")),
        c("weights used twice", _layer(lambda r, n, i, o: TwoUses("", W=r.normal(size=(i, i))), _flat)),
        c("cross-entropy with class weights", _loss(lambda r, k: CrossEntropy("", r.uniform(0.2, 3, k)), labels=True)),
        c("softmax cross-entropy, a network", _loss_in_network(lambda r, k: SoftmaxCrossEntropy(), labels=True)),
        c("step: SGD", _step(lambda: SGD(0.1))),
        c("step: momentum", _step(lambda: SGD(0.1, momentum=0.9))),
        c("step: Nesterov", _step(lambda: SGD(0.1, momentum=0.9, nesterov=True))),
        c("step: Adam", _step(lambda: Adam(0.01))),
        c("step: AdamW", _step(lambda: Adam(0.01, weight_decay=0.1))),
    ]


BUGS = _cases()
TRAPS = _traps()
