"""Code as strangers write it: in other layouts, with the parameters as ``__init__`` made them, and where sums cancel.

The second part of the corpus. These kinds were added when the checker had failed on them, so their labels are not older than
its diagnoses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnprofile import BinaryCrossEntropy, Dense, HalfSquaredError, Sequential, Sigmoid, SoftmaxCrossEntropy, Tanh
from nnprofile.contract import Array

from .case import SIZES, Case, Rng, Trial

# -- layouts


class Affine:
    """Cache and gradients in the object."""

    def __init__(self, bug: str, W: Array, b: Array) -> None:
        self.bug, self.W, self.b = bug, W, b

    def forward(self, x: Array) -> Array:
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout: Array) -> Array:
        self.dW = self.x.T @ dout
        self.db = dout.mean(axis=0) if self.bug == "mean" else dout.sum(axis=0)
        if self.bug == "clipped":
            self.dW = np.clip(self.dW, -0.5, 0.5)
        return dout @ (self.W if self.bug == "transpose" else self.W.T)


class Returnless:
    """Everything in the object: forward leaves output, backward leaves dinputs."""

    def __init__(self, bug: str, rng: Rng, n_in: int, n_out: int) -> None:
        self.bug, self.weights, self.biases = bug, rng.normal(size=(n_in, n_out)), np.zeros((1, n_out))

    def forward(self, inputs: Array) -> None:
        self.inputs = inputs
        self.output = np.maximum(0, inputs @ self.weights + self.biases)

    def backward(self, dvalues: Array) -> None:
        d = dvalues.copy()
        if self.bug != "mask":
            d[self.output.real <= 0] = 0
        self.dweights = self.inputs.T @ d
        self.dbiases = d.sum(axis=0, keepdims=True)
        self.dinputs = (d[::-1] if self.bug == "reversed" else d) @ self.weights.T


class TwoDicts:
    """params and grads are dicts of the object."""

    def __init__(self, bug: str, rng: Rng, n_in: int, n_out: int) -> None:
        self.bug, self.grads = bug, dict[str, Array]()
        self.params = {"W": rng.normal(size=(n_in, n_out)), "b": np.zeros(n_out)}

    def forward(self, x: Array) -> Array:
        self.x, self.y = x, np.tanh(x @ self.params["W"] + self.params["b"])
        return self.y

    def backward(self, dout: Array) -> Array:
        dz = dout * (1 - self.y if self.bug == "square" else 1 - self.y**2)
        self.grads = {"W": self.x.T @ dz, "b": dz.sum(axis=0)}
        if self.bug == "weight decay":
            self.grads["W"] = self.grads["W"] + 1e-4 * self.params["W"]
        return dz @ self.params["W"].T


class BatchNorm:
    """As __init__ makes it: gamma = 1, beta = 0."""

    def __init__(self, bug: str, n: int) -> None:
        self.bug, self.params = bug, {"gamma": np.ones(n), "beta": np.zeros(n)}

    def forward(self, x: Array) -> Any:
        d = x - x.mean(axis=0)
        s = np.sqrt((d * d).mean(axis=0) + 1e-5)
        y = self.params["gamma"] * (d / s) + self.params["beta"]
        return y, (d / s, s, y)

    def backward(self, dy: Array, cache: Any) -> Any:
        z, s, y = cache
        dz = dy if self.bug == "gamma" else dy * self.params["gamma"]
        dx = (dz - dz.mean(axis=0) - z * (dz * z).mean(axis=0)) / s
        dgamma = (dy * (y if self.bug == "y for z" else z)).sum(axis=0)
        return dx, {"gamma": dgamma, "beta": dy.sum(axis=0)}


class Swish:
    """y = x sigmoid(beta x), with beta = 1."""

    def __init__(self, bug: str) -> None:
        self.bug, self.params = bug, {"beta": np.ones(1)}

    def forward(self, x: Array) -> Any:
        s = 1 / (1 + np.exp(-self.params["beta"] * x))
        return x * s, (x, s)

    def backward(self, dy: Array, cache: Any) -> Any:
        x, s = cache
        beta = 1.0 if self.bug == "beta" else self.params["beta"]
        dx = dy * (s + beta * x * s * (1 - s))
        return dx, {"beta": np.array([(dy * x * x * s * (1 - s)).sum()])}


class SoftmaxWithLoss:
    """A loss whose backward takes nothing."""

    def __init__(self, bug: str = "") -> None:
        self.bug = bug

    def forward(self, scores: Array, t: Array) -> Any:
        e = np.exp(scores - scores.real.max(axis=1, keepdims=True))
        self.p, self.t = e / e.sum(axis=1, keepdims=True), t
        return -np.log(self.p[np.arange(len(t)), t]).mean()

    def backward(self) -> Array:
        d = self.p.copy()
        d[np.arange(len(d)), self.t] -= 1
        return d if self.bug == "1/n" else d / len(d)


class TwoLayerNet:
    """A network with loss(x, t) and gradient(x, t)."""

    def __init__(self, bug: str, rng: Rng, n_in: int, n_out: int) -> None:
        sizes = {"W1": (n_in, 4), "b1": (4,), "W2": (4, n_out), "b2": (n_out,)}
        self.bug, self.params = bug, {name: 0.3 * rng.normal(size=size) for name, size in sizes.items()}

    def predict(self, x: Array) -> tuple[Array, Array]:
        p = self.params
        h = np.tanh(x @ p["W1"] + p["b1"])
        return h, h @ p["W2"] + p["b2"]

    def loss(self, x: Array, t: Array) -> Any:
        return ((self.predict(x)[1] - t) ** 2).mean()

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        h, y = self.predict(x)
        dy = (y - t) / y.size * (1 if self.bug == "2" else 2)
        dz = dy @ self.params["W2"].T * (1 - h**2)
        b1 = dz[:-1].sum(axis=0) if self.bug == "last row" else dz.sum(axis=0)
        return {"W1": x.T @ dz, "b1": b1, "W2": h.T @ dy, "b2": dy.sum(axis=0)}


def _flat(make: Callable[[Rng, int, int], Any]) -> Callable[[Rng, int], Trial]:
    def trial(rng: Rng, size: int) -> Trial:
        n, i, o = SIZES[size]
        return Trial("layer", (make(rng, i, o), rng.normal(size=(n, i))))

    return trial


def _affine(bug: str, *, square: bool = False) -> Callable[[Rng, int], Trial]:
    return _flat(
        lambda r, i, o: Affine(bug, 2 * r.normal(size=(i, i if square else o)), r.normal(size=i if square else o))
    )


def _loss(bug: str) -> Callable[[Rng, int], Trial]:
    def trial(rng: Rng, size: int) -> Trial:
        n, k, _ = SIZES[size]
        return Trial("loss", (SoftmaxWithLoss(bug), rng.normal(size=(n, k)), rng.integers(0, k, n)))

    return trial


def _net(bug: str) -> Callable[[Rng, int], Trial]:
    def trial(rng: Rng, size: int) -> Trial:
        n, i, o = SIZES[size]
        return Trial("network", (TwoLayerNet(bug, rng, i, o), None, rng.normal(size=(n, i)), rng.normal(size=(n, o))))

    return trial


# -- forms of a derivative, and plain functions


def _function(make: Callable[[Rng, int], tuple[Any, ...]]) -> Callable[[Rng, int], Trial]:
    return lambda rng, size: Trial("function", make(rng, 5 + 3 * size))


def _elementwise(bug: str) -> Callable[[Rng, int], Trial]:
    def slope(x: Array) -> Array:
        t = np.tanh(x)
        return 1 - t if bug else 1 - t * t

    return _function(lambda rng, n: (np.tanh, slope, rng.normal(size=n)))


def _jacobian(bug: str) -> Callable[[Rng, int], Trial]:
    def softmax(x: Array) -> Array:
        e = np.exp(x - x.real.max())
        return e / e.sum()

    def jacobian(x: Array) -> Array:
        p = softmax(x)
        return np.diag(p * (1 - p)) if bug else np.diag(p) - np.outer(p, p)

    return _function(lambda rng, n: (softmax, jacobian, rng.normal(size=n)))


def _hessian(bug: str) -> Callable[[Rng, int], Trial]:
    """The gradient of sum x_i^2 x_{i+1} (the last with the first), and its Hessian."""

    def gradient(x: Array) -> Array:
        return 2 * x * np.roll(x, -1) + np.roll(x, 1) ** 2

    def hessian(x: Array) -> Array:
        n = len(x)
        H = np.zeros((n, n), x.dtype)
        for i in range(n):
            H[i, i] += 2 * x[(i + 1) % n]
            H[i, (i + 1) % n] += 2 * x[i]
            H[(i + 1) % n, i] += x[i] if bug else 2 * x[i]
        return H

    return _function(lambda rng, n: (gradient, hessian, rng.normal(size=n)))


def _boosting(bug: str) -> Callable[[Rng, int], Trial]:
    """A custom objective: loss, and gradient and Hessian, sample by sample."""

    def make(rng: Rng, n: int) -> tuple[Any, ...]:
        t = (rng.random(n) < 0.5).astype(float)

        def loss(z: Array) -> Array:
            return np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0) - z * t

        def derivatives(z: Array) -> tuple[Array, Array]:
            p = 1 / (1 + np.exp(-z))
            return p - t, p if bug else p * (1 - p)

        return loss, derivatives, rng.normal(size=n)

    return _function(make)


def _ridge(bug: str) -> Callable[[Rng, int], Trial]:
    """scipy's convention: cost(theta, X, y, lam), whose gradient is that of theta."""

    def cost(theta: Array, X: Array, y: Array, lam: float) -> Any:
        d = X @ theta - y
        return (d @ d) / (2 * len(y)) + lam / (2 * len(y)) * (theta[1:] @ theta[1:])

    def gradient(theta: Array, X: Array, y: Array, lam: float) -> Array:
        g = X.T @ (X @ theta - y) / len(y)
        start = 0 if bug == "bias" else 1
        g[start:] += lam / len(y) * theta[start:]
        return g

    return _function(
        lambda rng, n: (cost, gradient, rng.normal(size=3), rng.normal(size=(n, 3)), rng.normal(size=n), 0.7)
    )


def _pair(bug: str) -> Callable[[Rng, int], Trial]:
    """Two tensors of one shape: their gradients are swapped, or one is the other's."""

    def f(a: Array, b: Array) -> Any:
        return (a * a * b).sum()

    def grad(a: Array, b: Array) -> tuple[Array, Array]:
        da, db = 2 * a * b, a * a
        return {"swapped": (db, da), "copied": (da, da)}.get(bug, (da, db))

    return _function(lambda rng, n: (f, grad, rng.normal(size=n), rng.normal(size=n)))


def _lookup(bug: str) -> Callable[[Rng, int], Trial]:
    """Rows of a table, some of them twice."""

    def make(rng: Rng, n: int) -> tuple[Any, ...]:
        rows, weights = np.array([0, 2, 2, 4, 2, 3, 0]), rng.normal(size=(7, 2))

        def f(E: Array) -> Any:
            return (weights * E[rows] ** 2).sum()

        def grad(E: Array) -> Array:
            g, d = np.zeros_like(E), 2 * weights * E[rows]
            if bug:
                g[rows] += d
            else:
                np.add.at(g, rows, d)
            return g

        return f, grad, rng.normal(size=(n + 1, 2))

    return _function(make)


def _log_scale(bug: str) -> Callable[[Rng, int], Trial]:
    """A normal log density, by its scale; the gradient by the scale's logarithm is another."""

    def make(rng: Rng, n: int) -> tuple[Any, ...]:
        x = rng.normal(size=n)

        def f(s: Array) -> Any:
            return (np.log(s) + x * x / (2 * s * s)).sum()

        def grad(s: Array) -> Array:
            g = 1 / s - x * x / s**3
            return s * g if bug else g

        return f, grad, rng.uniform(0.5, 2, n)

    return _function(make)


def _symmetric(bug: str) -> Callable[[Rng, int], Trial]:
    """log det A of a symmetric A; the gradient for its free elements is another."""

    def f(A: Array) -> Any:
        return np.log(np.linalg.det(A))

    def grad(A: Array) -> Array:
        g = np.linalg.inv(A).T
        return g + g.T - np.diag(np.diag(g)) if bug else g

    def make(rng: Rng, n: int) -> tuple[Any, ...]:
        B = rng.normal(size=(4, 4))
        return f, grad, B @ B.T + np.eye(4)

    return _function(make)


def _rows_drawn(bug: str) -> Callable[[Rng, int], Trial]:
    """A minibatch that value and gradient draw by themselves, from a generator that they share."""

    def make(rng: Rng, n: int) -> tuple[Any, ...]:
        X, y, generator = rng.normal(size=(20, 3)), rng.normal(size=20), np.random.default_rng(int(rng.integers(1000)))

        def f(w: Array) -> Any:
            rows = generator.choice(20, n, replace=False)
            return ((X[rows] @ w - y[rows]) ** 2).mean()

        def grad(w: Array) -> Array:
            rows = generator.choice(20, n, replace=False)
            g: Array = (1 if bug else 2) * X[rows].T @ (X[rows] @ w - y[rows]) / n
            return g

        return f, grad, rng.normal(size=3)

    return _function(make)


# -- points at which sums cancel, or what is multiplied by is 0


def _balanced(scale: float, dtype: Any = np.float64) -> Callable[[Rng, int], Trial]:
    """Classes in balance, rows in pairs x and -x, and weights so small that the output is about 0."""

    def trial(rng: Rng, size: int) -> Trial:
        n, i, _ = SIZES[size]
        net = Sequential([Dense(i, 4), Tanh(), Dense(4, 2)], rng=rng, dtype=dtype)
        net.params.vector *= scale
        half = rng.normal(size=(n, i))
        x = np.concatenate([half, -half]).astype(dtype)
        return Trial("network", (net, SoftmaxCrossEntropy(), x, np.tile([0, 1], n)))

    return trial


def _zero_weights(rng: Rng, size: int) -> Trial:
    n, i, _ = SIZES[size]
    net = Sequential([Dense(i, 1), Sigmoid()], rng=rng)
    net.params.vector = np.zeros(net.params.vector.size)
    x = rng.normal(size=(n, i))
    return Trial("network", (net, BinaryCrossEntropy(), np.concatenate([x, x]), np.repeat([[0.0], [1.0]], n, axis=0)))


def _nothing_left(rng: Rng, size: int) -> Trial:
    """The mean of t is predicted: the gradient is a sum whose terms leave nothing but their rounding."""
    n, i, _ = SIZES[size]
    t = rng.normal(size=(3 * n, 1))
    net = Sequential([Dense(i, 1)], rng=rng)
    net.params.vector = np.append(np.zeros(i), t.mean())
    return Trial("network", (net, HalfSquaredError(), np.ones((3 * n, i)), t))


def _of(*kinds: str) -> frozenset[str]:
    return frozenset(kinds)


BUGS = [
    Case("self.db: a mean for a sum", _affine("mean"), _of("scale")),
    Case("self.dW is clipped", _affine("clipped"), _of("clipped")),
    Case("self.W square, not transposed", _affine("transpose", square=True), _of("transpose")),
    Case(
        "dinputs of the rows in reverse",
        _flat(lambda r, i, o: Returnless("reversed", r, i, o)),
        _of("order", "samples"),
    ),
    Case(
        "the mask of max(0, z) is forgotten", _flat(lambda r, i, o: Returnless("mask", r, i, o)), _of("slope", "mask")
    ),
    Case("grads['W'] has a penalty", _flat(lambda r, i, o: TwoDicts("weight decay", r, i, o)), _of("weight-decay")),
    Case("1 - y for 1 - y^2, in dicts", _flat(lambda r, i, o: TwoDicts("square", r, i, o)), _of("slope")),
    Case("batch norm at gamma = 1: dx without gamma", _flat(lambda r, i, o: BatchNorm("gamma", i)), _of("slice-scale")),
    Case(
        "batch norm at beta = 0: dgamma by y",
        _flat(lambda r, i, o: BatchNorm("y for z", i)),
        _of("slope", "point", "term", "value"),
    ),
    Case("swish at beta = 1: dx without beta", _flat(lambda r, i, o: Swish("beta")), _of("slope", "point")),
    Case("loss.backward() without 1/n", _loss("1/n"), _of("scale")),
    Case("gradient(x, t) without its 2", _net("2"), _of("scale")),
    Case("gradient(x, t) without the last row", _net("last row"), _of("samples")),
    Case("an elementwise derivative, 1 - y", _elementwise("1 - y"), _of("slope")),
    Case("a Jacobian, its diagonal only", _jacobian("diagonal"), _of("diagonal")),
    Case(
        "a Hessian, one side of it halved",
        _hessian("half"),
        _of("elements", "term", "transpose", "slice-scale", "branch"),
    ),
    Case("a boosting objective, p for p (1 - p)", _boosting("p"), _of("slope", "value")),
    Case("a penalty on the bias too", _ridge("bias"), _of("weight-decay")),
    Case("two gradients swapped", _pair("swapped"), _of("order")),
    Case("one gradient for both", _pair("copied"), _of("order")),
    Case("g[rows] += d counts once", _lookup("once"), _of("repeats")),
    Case("the gradient by log s, for that by s", _log_scale("log"), _of("slope")),
    Case("the gradient for a symmetric matrix's free elements", _symmetric("free"), _of("symmetric")),
    Case("a minibatch, without the 2", _rows_drawn("2"), _of("scale")),
]

TRAPS = [
    Case("self.dW, self.db", _affine("")),
    Case("self.dinputs, backward returns nothing", _flat(lambda r, i, o: Returnless("", r, i, o))),
    Case("self.params, self.grads", _flat(lambda r, i, o: TwoDicts("", r, i, o))),
    Case("loss.backward()", _loss("")),
    Case("loss(x, t), gradient(x, t)", _net("")),
    Case("batch norm at gamma = 1, beta = 0", _flat(lambda r, i, o: BatchNorm("", i))),
    Case("swish at beta = 1", _flat(lambda r, i, o: Swish(""))),
    Case("an elementwise derivative", _elementwise("")),
    Case("a Jacobian", _jacobian("")),
    Case("a Hessian", _hessian("")),
    Case("a boosting objective", _boosting("")),
    Case("cost(theta, X, y, lam)", _ridge("")),
    Case("two tensors of one shape", _pair("")),
    Case("rows that are looked up twice", _lookup("")),
    Case("log det of a symmetric matrix", _symmetric("")),
    Case("a minibatch drawn by the function", _rows_drawn("")),
    *[Case(f"classes in balance, weights times {s:g}", _balanced(s)) for s in (1.0, 1e-4, 1e-8)],
    Case("classes in balance, weights times 0.0001, float32", _balanced(1e-4, np.float32)),
    Case("weights of 0", _zero_weights),
    Case("nothing is left of the sum", _nothing_left),
]
