"""PyTorch, eager: fused optimizers, inference mode; EmbeddingBag with sparse gradients for sparse rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks import adult, cases
from benchmarks.cases import Case

COMPILE = False


def network(case: Case) -> tuple[torch.nn.Sequential, Any]:
    """Return the network with the shared weights, and its loss."""
    torch.set_num_threads(case.get("threads", 1))
    layers: list[torch.nn.Module] = []
    for W, b in cases.weights(case):
        linear = torch.nn.Linear(*W.shape, dtype=getattr(torch, case["dtype"]))
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W.T.copy()))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, torch.nn.ReLU()]
    one = case["sizes"][-1] == 1
    loss = torch.nn.functional.binary_cross_entropy_with_logits if one else torch.nn.functional.cross_entropy
    return torch.nn.Sequential(*layers[:-1]), loss


def optimizer(case: Case, parameters: Any) -> torch.optim.Optimizer:
    """Return a new optimizer."""
    if case["optimizer"] == "sgd":
        return torch.optim.SGD(parameters, 0.01, fused=True)
    return torch.optim.Adam(parameters, 0.001, fused=True)


def _targets(case: Case, y: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(y.astype(case["dtype"])[:, None] if case["sizes"][-1] == 1 else y)


def _epoch(case: Case, x: np.ndarray, y: np.ndarray) -> tuple[Any, torch.nn.Module]:
    net, loss = network(case)
    opt, rng = optimizer(case, net.parameters()), np.random.default_rng(2)
    x_all, y_all = torch.from_numpy(x), _targets(case, y)
    value = torch.compile(lambda a, b: loss(net(a), b)) if COMPILE else lambda a, b: loss(net(a), b)

    def epoch() -> None:
        for rows in cases.batches(case, rng):
            index = torch.from_numpy(rows)
            opt.zero_grad(set_to_none=True)
            value(x_all[index], y_all[index]).backward()
            opt.step()

    return epoch, net


def train(case: Case) -> Any:
    """Microseconds per step."""
    return cases.per_step(case, _epoch(case, *cases.data(case))[0])


def sparse(case: Case) -> Any:
    """Microseconds per step: SGD on sparse gradients, or SparseAdam for the first layer and Adam for the others."""
    x, y = cases.sparse_data(case)
    net, loss = network(case)
    bag = torch.nn.EmbeddingBag(*net[0].weight.T.shape, mode="sum", sparse=True)
    with torch.no_grad():
        bag.weight.copy_(net[0].weight.T)
    bias, rest = net[0].bias, net[1:]
    dense = [bias, *rest.parameters()]
    if case["optimizer"] == "sgd":
        opts = [torch.optim.SGD(bag.parameters(), 0.01), torch.optim.SGD(dense, 0.01, fused=True)]
    else:
        opts = [torch.optim.SparseAdam(bag.parameters(), 0.001), torch.optim.Adam(dense, 0.001, fused=True)]
    columns, values = (
        torch.from_numpy(x.indices.reshape(case["rows"], -1)),
        torch.from_numpy(x.data.reshape(case["rows"], -1)),
    )
    y_all, rng = _targets(case, y), np.random.default_rng(2)

    def epoch() -> None:
        for rows in cases.batches(case, rng):
            index = torch.from_numpy(rows)
            for opt in opts:
                opt.zero_grad(set_to_none=True)
            hidden = bag(columns[index], per_sample_weights=values[index]) + bias
            loss(rest(hidden), y_all[index]).backward()
            for opt in opts:
                opt.step()

    return cases.per_step(case, epoch)


def predict(case: Case) -> Any:
    """Microseconds per call, from NumPy to NumPy."""
    net, _ = network(case)
    x, _ = cases.data(case)

    def call() -> np.ndarray:
        with torch.inference_mode():
            return torch.sigmoid(net(torch.from_numpy(x))).numpy()

    return cases.per_call(call)


def curve(case: Case) -> Any:
    """Seconds and validation loss after each epoch."""
    x, y, x_val, y_val = adult.data()
    case = case | {"sizes": [x.shape[1], *case["sizes"][1:]], "rows": len(x)}
    epoch, net = _epoch(case, x, y)

    def score() -> float:
        with torch.inference_mode():
            return adult.validation_loss(net(torch.from_numpy(x_val)).numpy()[:, 0], y_val)

    return adult.clock(case, epoch, score)
