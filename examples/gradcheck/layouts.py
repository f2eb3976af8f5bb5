"""The layouts in which people write layers, losses and networks, one class of each, checked as they stand.

Run: python examples/gradcheck/layouts.py
"""

from __future__ import annotations

from typing import Any

import numpy as np

import nnprofile as nn
from nnprofile import gradcheck

Array = Any


class Affine:
    """Cache and gradients in the object: backward returns dx, and leaves dW and db."""

    def __init__(self, W: Array, b: Array) -> None:
        self.W, self.b = W, b

    def forward(self, x: Array) -> Array:
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout: Array) -> Array:
        self.dW = self.x.T @ dout
        self.db = dout.sum(axis=0)
        return dout @ self.W.T


class DenseWithoutReturn:
    """Everything in the object: forward leaves output, backward leaves dweights, dbiases and dinputs."""

    def __init__(self, n_in: int, n_out: int, rng: np.random.Generator) -> None:
        self.weights = rng.normal(size=(n_in, n_out))
        self.biases = np.zeros((1, n_out))

    def forward(self, inputs: Array) -> None:
        self.inputs = inputs
        self.output = inputs @ self.weights + self.biases

    def backward(self, dvalues: Array) -> None:
        self.dweights = self.inputs.T @ dvalues
        self.dbiases = dvalues.sum(axis=0, keepdims=True)
        self.dinputs = dvalues @ self.weights.T


class TanhLayer:
    """Two dicts in the object, params and grads."""

    def __init__(self, n_in: int, n_out: int, rng: np.random.Generator) -> None:
        self.params = {"W": rng.normal(size=(n_in, n_out)), "b": np.zeros(n_out)}
        self.grads: dict[str, Array] = {}

    def forward(self, x: Array) -> Array:
        self.x, self.y = x, np.tanh(x @ self.params["W"] + self.params["b"])
        return self.y

    def backward(self, dout: Array) -> Array:
        dz = dout * (1 - self.y**2)
        self.grads = {"W": self.x.T @ dz, "b": dz.sum(axis=0)}
        return dz @ self.params["W"].T


class SoftmaxWithLoss:
    """A loss whose backward takes nothing: forward(scores, t), then backward()."""

    def forward(self, scores: Array, t: Array) -> Any:
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        self.p, self.t = e / e.sum(axis=1, keepdims=True), t
        return -np.log(self.p[np.arange(len(t)), t]).mean()

    def backward(self) -> Array:
        d = self.p.copy()
        d[np.arange(len(d)), self.t] -= 1
        return d / len(d)


class TwoLayerNet:
    """A network with loss(x, t) and gradient(x, t), which returns a dict."""

    def __init__(self, sizes: tuple[int, int, int], rng: np.random.Generator) -> None:
        n_in, n_hidden, n_out = sizes
        self.params = {
            "W1": 0.1 * rng.normal(size=(n_in, n_hidden)),
            "b1": np.zeros(n_hidden),
            "W2": 0.1 * rng.normal(size=(n_hidden, n_out)),
            "b2": np.zeros(n_out),
        }

    def predict(self, x: Array) -> tuple[Array, Array]:
        p = self.params
        h = np.tanh(x @ p["W1"] + p["b1"])
        return h, h @ p["W2"] + p["b2"]

    def loss(self, x: Array, t: Array) -> Any:
        return ((self.predict(x)[1] - t) ** 2).mean()

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        h, y = self.predict(x)
        dy = 2 * (y - t) / y.size
        dz = dy @ self.params["W2"].T * (1 - h**2)
        return {"W1": x.T @ dz, "b1": dz.sum(axis=0), "W2": h.T @ dy, "b2": dy.sum(axis=0)}


class OwnNames:
    """Names that cannot be guessed are passed to gradcheck.stateful."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.theta = rng.normal(size=(3, 2))

    def forward(self, x: Array) -> Array:
        self.seen = x
        return x @ self.theta

    def backward(self, dout: Array) -> Array:
        self.slope = self.seen.T @ dout
        return dout @ self.theta.T


def main() -> dict[str, gradcheck.GradCheckReport]:
    """Check each, and print its report."""
    rng = np.random.default_rng(0)
    x, t, labels = rng.normal(size=(6, 3)), rng.normal(size=(6, 2)), np.array([0, 1, 1, 0, 1, 0])
    reports = {
        "Affine": nn.check_layer(Affine(rng.normal(size=(3, 2)), np.zeros(2)), x),
        "DenseWithoutReturn": nn.check_layer(DenseWithoutReturn(3, 2, rng), x),
        "TanhLayer": nn.check_layer(TanhLayer(3, 2, rng), x),
        "SoftmaxWithLoss": nn.check_loss(SoftmaxWithLoss(), t, labels),
        "TwoLayerNet": nn.check_network(TwoLayerNet((3, 4, 2), rng), None, x, t),
        "OwnNames": nn.check_layer(gradcheck.stateful(OwnNames(rng), ["theta"], ["slope"]), x),
    }
    for report in reports.values():
        print(report, end="\n\n")
    return reports


if __name__ == "__main__":
    main()
