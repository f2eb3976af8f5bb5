"""Layers, losses and networks that each can have one known bug: the right backward with one line spoiled.

``bug`` names the bug; "" is the right code. They know nothing of each other, nor of the checker, and little of nnprofile.
"""

from __future__ import annotations

import copy
from math import erf, pi, sqrt
from typing import Any

import numpy as np

from nnprofile import SGD, Adam, Dense, Layer, Parameters, Sequential
from nnprofile.contract import Array

Rng = np.random.Generator
NONE: dict[str, Array] = {}


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


class Cumulative(Plain):
    """y = cumsum(x, axis=1); its transpose sums from the other end."""

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        return np.cumsum(x, axis=1), None

    def backward(self, dy: Array, cache: Any) -> Any:
        return np.cumsum(dy, axis=1) if self.bug else np.cumsum(dy[:, ::-1], axis=1)[:, ::-1].copy(), NONE


class Running(Plain):
    """Batch normalisation that keeps running statistics in training (rng given), and uses them in inference."""

    def __init__(self, width: int, bug: str = "") -> None:
        super().__init__(bug, gamma=np.ones(width), beta=np.zeros(width))
        self.mean, self.variance = np.zeros(width), np.ones(width)

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        if rng is None:
            sd = np.sqrt(self.variance + 1e-5)
            x_hat = (x - self.mean) / sd
            return x_hat * self.params["gamma"] + self.params["beta"], (x_hat, sd, False)
        mu = x.mean(axis=0)
        variance = ((x - mu) ** 2).mean(axis=0)
        self.mean = 0.9 * self.mean + 0.1 * mu.real
        self.variance = 0.9 * self.variance + 0.1 * variance.real
        sd = np.sqrt(variance + 1e-5)
        x_hat = (x - mu) / sd
        return x_hat * self.params["gamma"] + self.params["beta"], (x_hat, sd, True)

    def backward(self, dy: Array, cache: Any) -> Any:
        x_hat, sd, training = cache
        d = dy * self.params["gamma"]
        grads = {"gamma": (dy * x_hat).sum(axis=0), "beta": dy.sum(axis=0)}
        if not training:
            return d / sd, grads
        along = 0 if self.bug else (d * x_hat).mean(axis=0)
        return (d - d.mean(axis=0) - x_hat * along) / sd, grads


class Buffers(Plain):
    """y = x @ W, whose gradient is written into the same array each time."""

    def __init__(self, W: Array, bug: str = "") -> None:
        super().__init__(bug, W=W)
        self.dW = np.zeros(W.shape)

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        return x @ self.params["W"], x

    def backward(self, dy: Array, cache: Any) -> Any:
        if not self.bug:
            self.dW[...] = 0
        self.dW += cache.T @ dy
        return dy @ self.params["W"].T, {"W": self.dW}


class Views:
    """Keeps all parameters in one vector, and shows them as views of it."""

    def __init__(self, i: int, o: int, rng: Rng) -> None:
        self.theta = rng.normal(size=i * o + o)
        self.params = {"W": self.theta[: i * o].reshape(i, o), "b": self.theta[i * o :]}
        self.shape = i, o

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        i, o = self.shape
        return np.maximum(x @ self.theta[: i * o].reshape(i, o) + self.theta[i * o :], 0), x

    def backward(self, dy: Array, cache: Any) -> Any:
        i, o = self.shape
        W = self.theta[: i * o].reshape(i, o)
        dz = dy * (cache @ W + self.theta[i * o :] > 0)
        return dz @ W.T, {"W": cache.T @ dz, "b": dz.sum(axis=0)}


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
        return dy * slope, NONE


class SoftmaxRows(Plain):
    """y = exp(x) / sum exp(x)."""

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        e = np.exp(x - x.max(axis=-1, keepdims=True))
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
        self.params = {
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
                dy = layer.backward(dy, cache[i])[0]  # type: ignore[assignment]
                layer.params.vector[:] = kept
                for name in g:
                    grads[f"{i}.{name}"] = g[name]
            else:
                dy = layer.backward(dy, cache[i])[0]  # type: ignore[assignment]
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
        self.bug, self.make = inner.bug, inner
        flat = {name: value.shape for name, value in inner.params.items()}
        self.params = Parameters(
            flat, np.concatenate([v.ravel() for v in inner.params.values()]) if flat else np.zeros(0)
        )

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
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
