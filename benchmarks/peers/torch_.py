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
        layers += [linear, torch.nn.Tanh() if case.get("activation") == "tanh" else torch.nn.ReLU()]
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


class _Block(torch.nn.Module):
    """Attention and a network of two layers, each on what is normalized, and added."""

    def __init__(self, n: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = torch.nn.LayerNorm(n), torch.nn.LayerNorm(n)
        self.qkv, self.out, self.heads = torch.nn.Linear(n, 3 * n), torch.nn.Linear(n, n), heads
        self.inner = torch.nn.Sequential(torch.nn.Linear(n, n), torch.nn.ReLU(), torch.nn.Linear(n, n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, T, f = x.shape
        q, k, v = self.qkv(self.first(x)).view(n, T, 3, self.heads, f // self.heads).permute(2, 0, 3, 1, 4)
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(o.transpose(1, 2).reshape(n, T, f))
        return x + self.inner(self.second(x))


class _Convolution(torch.nn.Module):
    """A causal convolution of width 3."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(n, n, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.nn.functional.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2)


def sequences(case: Case) -> Any:
    """Microseconds of forward and backward on one batch, padded; of skewed lengths the best of padded and packed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    n, lengths = cases.WIDTH, torch.from_numpy(cases.lengths(case))
    values, dvalues = (torch.from_numpy(a) for a in cases.events(case))
    if case["kind"] == "softmax":
        linear = torch.nn.Sequential(torch.nn.LayerNorm(n), torch.nn.Linear(n, case["items"]))
        labels = torch.from_numpy(np.random.default_rng(0).integers(0, case["items"], len(values)))
        value = lambda: torch.nn.functional.cross_entropy(linear(values), labels)  # noqa: E731
        values.requires_grad_()
        compiled = torch.compile(value) if COMPILE else value

        def learn() -> None:
            values.grad = None
            linear.zero_grad(set_to_none=True)
            compiled().backward()

        return cases.per_call(learn)
    recurrent = case["kind"] in ("GRU", "LSTM", "RNN")
    net: Any = (
        getattr(torch.nn, case["kind"])(n, n, batch_first=True)
        if recurrent
        else _Block(n, case["heads"])
        if case["kind"] == "attention"
        else _Convolution(n)
    )
    run = torch.compile(net) if COMPILE else net
    pieces = [torch.nn.utils.rnn.pad_sequence(a.split(lengths.tolist()), batch_first=True) for a in (values, dvalues)]
    x, dy = pieces[0].requires_grad_(), pieces[1]
    packed = torch.nn.utils.rnn.pack_padded_sequence(x.detach(), lengths, batch_first=True, enforce_sorted=False)
    data = packed.data.clone().requires_grad_()
    packed = packed._replace(data=data)
    dpacked = torch.nn.utils.rnn.pack_padded_sequence(dy, lengths, batch_first=True, enforce_sorted=False).data

    def padded() -> None:
        x.grad = None
        net.zero_grad(set_to_none=True)
        y = run(x)
        (y[0] if recurrent else y).backward(dy)

    def in_packs() -> None:
        data.grad = None
        net.zero_grad(set_to_none=True)
        run(packed)[0].data.backward(dpacked)

    ways = [cases.per_call(padded)] + ([cases.per_call(in_packs)] if recurrent and not COMPILE else [])
    return lambda: min((way() for way in ways), key=np.median)
