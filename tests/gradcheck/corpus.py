"""The checker's exam: one bug a case, and right code that is often accused.

The labels, the kinds of finding that count as the right diagnosis, were written before the diagnosis was. ``exam`` and
``benchmarks.gradcheck`` run all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnprofile import (
    SGD,
    Adam,
    Dense,
    HalfSquaredError,
    Layer,
    Parameters,
    ReLU,
    Sequential,
    Sigmoid,
    SoftmaxCrossEntropy,
    Tanh,
)
from nnprofile.contract import Array

from . import sequences, strangers
from .case import SIZES, Case, Rng, Trial
from .specimens import (
    LSTM,
    Act,
    Affine,
    Attention,
    BinaryEntropy,
    Block,
    Buffers,
    Concat,
    Conv,
    CrossEntropy,
    Cumulative,
    Drop,
    Early,
    Embedding,
    Hinge,
    Keeps,
    MaxPool,
    Norm,
    OffAdam,
    OffMomentum,
    Recurrent,
    Residual,
    Running,
    SoftmaxRows,
    SquaredError,
    TwoUses,
    Views,
    Wrapped,
)

# -- the cases


def _adam(bug: str) -> Adam:
    optimizer = OffAdam(0.01, epsilon=1e-4)
    optimizer.bug = bug
    return optimizer


def _affine(bug: str, *, square: bool = False, rows_are_outputs: bool = False) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = SIZES[size]
        o = i if square else o
        n = o if rows_are_outputs else n
        return Trial("layer", (Affine(bug, W=rng.normal(size=(i, o)), b=rng.normal(size=o)), rng.normal(size=(n, i))))

    return make


def _in_network(bug: str, *, square: bool = False) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = SIZES[size]
        inner = Affine(bug, W=rng.normal(size=(o, o if square else i)), b=rng.normal(size=o if square else i))
        width = o if square else i
        net = Sequential([Dense(i, o), Tanh(), Wrapped(inner), Sigmoid(), Dense(width, 2)], rng=rng)
        return Trial("network", (net, HalfSquaredError(), rng.normal(size=(n, i)), rng.normal(size=(n, 2))), "2")

    return make


def _act(kind: str, bug: str) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, _ = SIZES[size]
        return Trial("layer", (Act(kind, bug), rng.normal(0, 1.5, (n, i))))

    return make


def _act_in_network(kind: str, bug: str) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = SIZES[size]
        net = Sequential([Dense(i, o), Wrapped(Act(kind, bug)), Dense(o, 2)], rng=rng)
        net.layers[1].make = Act(kind, bug)  # type: ignore[attr-defined]
        return Trial("network", (net, HalfSquaredError(), rng.normal(size=(n, i)), rng.normal(size=(n, 2))), "1")

    return make


def _layer(build: Callable[[Rng, int, int, int], Any], shape: Callable[[int, int, int], tuple[int, ...]]) -> Any:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = SIZES[size]
        return Trial("layer", (build(rng, n, i, o), rng.normal(size=shape(n, i, o))))

    return make


def _loss(loss: Callable[[Rng, int], Any], *, labels: bool, scale: float = 1.5) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, k, _ = SIZES[size]
        n = n + 1 if n == k else n
        t = np.concatenate([np.arange(k), rng.integers(0, k, n)])[:n] if labels else rng.uniform(0.05, 0.95, (n, k))
        y_pred = scale * rng.normal(size=(n, k))
        y_pred[0, 0] = scale
        return Trial("loss", (loss(rng, k), y_pred, t))

    return make


def _loss_in_network(loss: Callable[[Rng, int], Any], *, labels: bool) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, k = SIZES[size]
        net = Sequential([Dense(i, 4), Tanh(), Dense(4, k)], rng=rng)
        t = rng.integers(0, k, n) if labels else rng.uniform(0.05, 0.95, (n, k))
        return Trial("network", (net, loss(rng, k), rng.normal(size=(n, i)), t), "loss")

    return make


def _penalised(penalty: str, bug: str) -> Callable[[Rng, int], Trial]:
    """Ridge or lasso regression as two plain functions of W and b."""

    def make(rng: Rng, size: int) -> Trial:
        n, i, o = SIZES[size]
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
        n, i, o = SIZES[size]
        net = Sequential([Dense(i, o), Tanh(), Dense(o, 2)], rng=rng)
        return Trial(
            "step",
            (net, HalfSquaredError(), optimizer(), rng.normal(size=(n, i)), rng.normal(size=(n, 2))),
            "optimizer",
        )

    return make


def _early(check: str) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = SIZES[size]
        net = Early([Dense(i, o), Tanh(), Dense(o, 2)], rng=rng)
        args = (net, HalfSquaredError(), rng.normal(size=(n, i)), rng.normal(size=(n, 2)))
        return Trial(check, args if check == "network" else (*args[:2], SGD(0.05), *args[2:]), "network")

    return make


def _keeps(rng: Rng, size: int) -> Trial:
    n, i, o = SIZES[size]
    net = Sequential([Dense(i, o), Tanh(), Keeps(o, 2)], rng=rng)
    return Trial("step", (net, HalfSquaredError(), SGD(0.05), rng.normal(size=(n, i)), rng.normal(size=(n, 2))), "2")


def _flat(n: int, i: int, o: int) -> tuple[int, ...]:
    return n, i


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
        c("Dense: adds to earlier gradients", _affine("accumulates"), _k("accumulate"), contract=True),
        c("Dense: scales the caller's x", _affine("halves"), _k("mutation"), contract=True),
        c("Dense: scales the caller's dy", _affine("halves dy"), _k("mutation"), contract=True),
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
        c("cumulative sum: from the wrong end", _layer(lambda r, n, i, o: Cumulative("bug"), _flat), _k("transpose")),
        c("batch norm: wrong in training only", _running("bug"), _k("variance-term")),
        c("dW never zeroed", _layer(lambda r, n, i, o: Buffers(r.normal(size=(i, o)), "bug"), _flat), _k("accumulate")),
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
        n, i, o = SIZES[size]
        x = rng.integers(0, 3, n + 2)  # rows repeat
        return Trial("layer", (Embedding(bug, E=rng.normal(size=(i + 1, o))), x))

    return make


def _running(bug: str) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = SIZES[size]
        net = Sequential([Dense(i, o), _Running(o, bug), Dense(o, 2)], rng=rng)
        return Trial("network", (net, HalfSquaredError(), rng.normal(size=(n, i)), rng.normal(size=(n, 2))), "1")

    return make


class _Running(Layer):
    """The specimen in a network: with Parameters, and statistics of its own."""

    def __init__(self, width: int, bug: str) -> None:
        self.inner = Running(width, bug)
        self.params = Parameters({"gamma": (width,), "beta": (width,)}, np.r_[np.ones(width), np.zeros(width)])

    def forward(self, x: Array, rng: Rng | None = None) -> Any:
        """Go forward with these parameters."""
        self.inner.params = dict(self.params)
        return self.inner.forward(x, rng)

    def backward(self, dy: Array, cache: Any) -> Any:
        """Go backward with these parameters."""
        self.inner.params = dict(self.params)
        dx, found = self.inner.backward(dy, cache)
        grads = self.params.like(np.result_type(*found.values()))
        for name, value in found.items():
            grads[name] = value
        return dx, grads


def _padded(rng: Rng, size: int) -> Trial:
    n, i, o = SIZES[size]
    layer = Views(i, o, rng)
    layer.params["b"][:] = 0
    x = rng.normal(size=(n, i))
    x[1:3] = 0  # padding: every unit lies on its kink
    return Trial("layer", (layer, x))


def _before_norm(rng: Rng, size: int) -> Trial:
    n, i, _ = SIZES[size]
    x = rng.normal(size=(n + 60, i))

    def f(b: Array) -> Any:
        z = x + b
        c = z - z.mean(axis=0)
        return np.sin(c / np.sqrt((c**2).mean(axis=0) + 1e-5)).sum()

    return Trial("function", (f, lambda b: np.zeros_like(b), rng.normal(size=i)))


def _many_zeros(slope: float) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        x = rng.normal(size=(60, 50))
        x[rng.random(x.shape) < 0.02] = 0

        def backward(dy: Array, x: Array) -> Array:
            return dy * np.where(x == 0, slope, x > 0)

        return Trial("function", (lambda x: np.maximum(x, 0), backward, x))

    return make


def _abs_near(distance: float) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        x, W = rng.normal(size=(1, 4)), rng.normal(size=(4, 6))
        b = -(x @ W)[0] + distance * rng.normal(size=6)

        def grad(x: Array, W: Array, b: Array) -> Any:
            d = np.sign(x @ W + b)
            return d @ W.T, x.T @ d, d.sum(axis=0)

        return Trial("function", (lambda x, W, b: np.abs(x @ W + b).sum(), grad, x, W, b))

    return make


def _relu_near(distance: float) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = SIZES[size]
        net = Sequential([Dense(i, o), ReLU(), Dense(o, 2)], rng=rng)
        x = np.tile(rng.normal(size=i), (n, 1))
        net.params["0.b"] = -(x @ net.params["0.W"])[0] + distance * rng.normal(size=o)
        return Trial("network", (net, HalfSquaredError(), x, rng.normal(size=(n, 2))))

    return make


class _AdamOfAnother:
    """Adam with its constants in the code, so that nothing tells what it is."""

    def __init__(self) -> None:
        self.lr, self.t = 0.01, 0
        self.moments: Any = None

    def step(self, params: Any, grads: Any) -> None:
        """Move the parameters."""
        m, v = self.moments or (0.0, 0.0)
        self.t += 1
        m, v = 0.9 * m + 0.1 * grads.vector, 0.999 * v + 0.001 * grads.vector**2
        self.moments = m, v
        params.vector -= self.lr * (m / (1 - 0.9**self.t)) / (np.sqrt(v / (1 - 0.999**self.t)) + 1e-8)


def _zeros_in(build: Callable[[], Any]) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, _ = SIZES[size]
        x = rng.normal(size=(n, i))
        x[0] = 0
        x[1, 0] = -0.0
        return Trial("layer", (build(), x))

    return make


def _at(build: Callable[[Rng], Any], x: Callable[[Rng, int], Array]) -> Callable[[Rng, int], Trial]:
    return lambda rng, size: Trial("layer", (build(rng), x(rng, size)))


def _rows(rng: Rng, size: int, scale: float = 1.0) -> Array:
    n, i, _ = SIZES[size]
    return scale * rng.normal(size=(n, i))


def _net(
    scale: float, activation: Callable[[], Layer], loss_scale: float = 1.0, dtype: Any = np.float64
) -> Callable[[Rng, int], Trial]:
    def make(rng: Rng, size: int) -> Trial:
        n, i, o = SIZES[size]
        net = Sequential([Dense(i, o), activation(), Dense(o, 3), activation(), Dense(3, 2)], rng=rng, dtype=dtype)
        net.params.vector *= scale
        x, t = rng.normal(size=(n, i)).astype(dtype), (loss_scale * rng.normal(size=(n, 2))).astype(dtype)
        return Trial("network", (net, HalfSquaredError(), x, t))

    return make


def _dead(rng: Rng, size: int) -> Trial:
    n, i, o = SIZES[size]
    net = Sequential([Dense(i, o), ReLU(), Dense(o, 2)], rng=rng)
    net.params["0.b"][:2] = -1000
    return Trial("network", (net, HalfSquaredError(), rng.normal(size=(n, i)), rng.normal(size=(n, 2))))


def _hinge_at_margin(rng: Rng, size: int) -> Trial:
    n, k, _ = SIZES[size]
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
    n, i, _ = SIZES[size]
    return Trial("layer", (Norm(0, i, rng, var=True), rng.normal(size=(n, i))))


def _norm_of(rng: Rng, size: int) -> Trial:
    return Trial("function", (lambda x: np.linalg.norm(x), lambda x: x / np.linalg.norm(x), rng.normal(size=4 + size)))


def _huge(rng: Rng, size: int) -> Trial:
    n, i, _ = SIZES[size]
    t = 1e4 * rng.normal(size=(n, i))
    return Trial("function", (lambda y: ((y - t) ** 2).sum(), lambda y: 2 * (y - t), rng.normal(size=(n, i))))


def _traps() -> list[Case]:
    c = Case
    return [
        c("ReLU at 0", _zeros_in(ReLU)),
        c("ReLU a hair from 0", _at(lambda r: ReLU(), lambda r, s: 1e-9 * _rows(r, s))),
        c(
            "T3 max-pool with ties",
            _at(lambda r: MaxPool("all ties"), lambda r, s: r.integers(0, 2, (4 + s, 6)).astype(float)),
        ),
        c(
            "T3 max-pool with ties, one of them",
            _at(lambda r: MaxPool(), lambda r, s: r.integers(0, 2, (4 + s, 6)).astype(float)),
        ),
        c("hinge at the margin", _hinge_at_margin),
        c("L1 at 0", _penalised("l1", "at 0")),
        c(
            "T7 hard sigmoid at its edges",
            _at(lambda r: Act("hard sigmoid"), lambda r, s: r.choice([-2.5, 2.5, 0.3, 7.0], (4 + s, 3))),
        ),
        c("saturated tanh", _net(1e3, Tanh)),
        c("saturated sigmoid", _at(lambda r: Sigmoid(), lambda r, s: 40 * _rows(r, s))),
        c("a loss of 1e8", _huge),
        c("weights of 1e4, ReLU", _net(1e4, ReLU)),
        c("weights of 1e-6", _net(1e-6, Tanh)),
        c("float32", _net(1, Tanh, dtype=np.float32)),
        c("float32, ReLU", _net(1, ReLU, dtype=np.float32)),
        c("dead units", _dead),
        c("logits of 500", _loss(lambda r, k: CrossEntropy(), labels=True, scale=500)),
        c("a long sum", _long_sum),
        c("high curvature", _wiggly),
        c("a linear function", _linear),
        c("any layout of dy", _affine("")),
        *[c(f"ReLU's slope at 0 is {at}", _zeros_in(lambda at=at: Act("relu", at_zero=at))) for at in (0.0, 0.5, 1.0)],
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
        c("rows of zeros with biases of 0, views of one vector", _padded),
        c("a bias before a norm, gradient 0", _before_norm),
        *[c(f"a large tensor with zeros, slope {at} there", _many_zeros(at)) for at in (0.0, 0.5, 1.0)],
        *[c(f"abs at {d:g} from its kink", _abs_near(d)) for d in (1e-7, 1e-9, 1e-12)],
        *[c(f"ReLU at {d:g} from its kink", _relu_near(d)) for d in (1e-7, 1e-9, 1e-12)],
        c("batch norm with running statistics", _running("")),
        c("cumulative sum", _layer(lambda r, n, i, o: Cumulative(), _flat)),
        c("dW in the same array each time", _layer(lambda r, n, i, o: Buffers(r.normal(size=(i, o))), _flat)),
        c("step: Adam of another, constants in the code", _step(_AdamOfAnother)),
        c("step: SGD", _step(lambda: SGD(0.1))),
        c("step: momentum", _step(lambda: SGD(0.1, momentum=0.9))),
        c("step: Nesterov", _step(lambda: SGD(0.1, momentum=0.9, nesterov=True))),
        c("step: Adam", _step(lambda: Adam(0.01))),
        c("step: AdamW", _step(lambda: Adam(0.01, weight_decay=0.1))),
    ]


BUGS = [*_cases(), *strangers.BUGS, *sequences.BUGS]
TRAPS = [*_traps(), *strangers.TRAPS, *sequences.TRAPS]
