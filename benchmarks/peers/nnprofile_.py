"""Ours: ``fit`` by the compiled engine, and ``freeze``."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import nnprofile as nn
from benchmarks import adult, cases
from benchmarks.cases import Case
from nnprofile import engine
from nnprofile.objectives import Objective

ENGINE = "numba"


def network(case: Case) -> tuple[nn.Sequential, nn.Loss]:
    """Return the network with the shared weights, and its loss."""
    layers: list[nn.Layer] = []
    for W, b in cases.weights(case):
        layers += [nn.Dense(*W.shape), nn.Tanh() if case.get("activation") == "tanh" else nn.ReLU()]
        layers[-2].params["W"], layers[-2].params["b"] = W, b
    loss = nn.SigmoidCrossEntropy() if case["sizes"][-1] == 1 else nn.SoftmaxCrossEntropy()
    return nn.Sequential(layers[:-1], rng=None, dtype=case["dtype"]), loss


def optimizer(case: Case) -> nn.Optimizer:
    """Return a new optimizer."""
    lazy = case.get("lazy", False)
    return nn.SGD(0.01) if case["optimizer"] == "sgd" else nn.Adam(0.001, lazy=lazy)


def _train(case: Case, x: Any, y: np.ndarray) -> Any:
    net, loss = network(case)
    opt, rng = optimizer(case), np.random.default_rng(2)
    n_epochs, n_threads = case.get("epochs_per_fit", 5), case.get("threads", 1)

    def epochs() -> None:
        how = {"n_epochs": n_epochs, "batch_size": case["batch"], "n_threads": n_threads, "engine": ENGINE}
        nn.fit(net, loss, opt, x, y, rng=rng, **how)

    measure = cases.per_step(case, epochs, case.get("least", 0.1))
    return lambda: [t / n_epochs for t in measure()]


def train(case: Case) -> Any:
    """Microseconds per step."""
    return _train(case, *cases.data(case))


def sparse(case: Case) -> Any:
    """Microseconds per step on CSR rows."""
    return _train(case, *cases.sparse_data(case))


def predict(case: Case) -> Any:
    """Microseconds per call."""
    net, loss = network(case)
    score = nn.freeze(net, loss)
    x, _ = cases.data(case)
    n_threads = case.get("threads", 1)
    return cases.per_call(partial(score, x, n_threads=n_threads) if n_threads > 1 else partial(score, x))


def curve(case: Case) -> Any:
    """Seconds and validation loss after each epoch; the validation is not part of the seconds."""
    x, y, x_val, y_val = adult.data()
    case = case | {"sizes": [x.shape[1], *case["sizes"][1:]], "rows": len(x)}
    net, loss = network(case)
    opt, rng = optimizer(case), np.random.default_rng(2)

    def epoch() -> None:
        nn.fit(net, loss, opt, x, y, n_epochs=1, batch_size=case["batch"], rng=rng, engine=ENGINE)

    return adult.clock(case, epoch, lambda: adult.validation_loss(net.predict(x_val)[:, 0], y_val))


def layers(case: Case) -> list[nn.Layer]:
    """Return the network of a kind of sequence."""
    n = cases.WIDTH
    if case["kind"] == "attention":
        inner = [nn.LayerNorm(n), nn.Dense(n, n), nn.ReLU(), nn.Dense(n, n)]
        return [nn.Residual([nn.LayerNorm(n), nn.SelfAttention(n, case["heads"])]), nn.Residual(inner)]
    if case["kind"] == "softmax":
        return [nn.LayerNorm(n), nn.Dense(n, case["items"])]
    return {"GRU": [nn.GRU(n, n)], "LSTM": [nn.LSTM(n, n)], "RNN": [nn.RNN(n, n)], "convolution": [nn.Conv1D(n, n, 3)]}[
        case["kind"]
    ]


def sequences(case: Case) -> Any:
    """Microseconds of forward and backward on one batch."""
    x, dy = cases.events(case)
    lengths = cases.lengths(case)
    net = nn.Sequential(layers(case), rng=np.random.default_rng(0), dtype=np.float32)
    ragged = nn.Ragged(x, np.concatenate([[0], np.cumsum(lengths)]))
    loss: nn.Loss = nn.SoftmaxCrossEntropy()
    if case["kind"] == "softmax":
        labels = np.random.default_rng(0).integers(0, case["items"], len(x))
        if ENGINE == "numba":
            net, loss = engine.twin_maker(net, loss)()
        objective = Objective(net, loss, trusted=True)
        return cases.per_call(lambda: objective.value_and_gradient(x, labels))
    if ENGINE == "numba":
        net = engine.compiled(net)

    def both() -> None:
        _, cache = net.forward(ragged)
        net.backward(dy, cache)

    return cases.per_call(both)
