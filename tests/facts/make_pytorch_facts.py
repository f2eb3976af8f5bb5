"""Write pytorch.json: single training steps as PyTorch computes them, in float64. Needs torch; run once, by hand.

python tests/facts/make_pytorch_facts.py > tests/facts/pytorch.json
"""

from __future__ import annotations

import copy
import json
from itertools import pairwise

import numpy as np
import torch

torch.set_default_dtype(torch.float64)
rng = np.random.default_rng(42)


def network(widths: list[int], activation: type[torch.nn.Module], last: bool) -> torch.nn.Sequential:
    """Return dense layers with an activation between them, and behind the last if asked."""
    layers: list[torch.nn.Module] = []
    for i, o in pairwise(widths):
        layers += [torch.nn.Linear(i, o), activation()]
    return torch.nn.Sequential(*(layers if last else layers[:-1]))


def named(net: torch.nn.Sequential) -> dict[str, list]:
    """Return parameters by our names, W as (in_features, out_features)."""
    out = {}
    for name, value in net.named_parameters():
        layer, kind = name.split(".")
        out[f"{layer}.{'W' if kind == 'weight' else 'b'}"] = (value.T if kind == "weight" else value).tolist()
    return out


def data(net: torch.nn.Sequential, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """Return seven rows for this network."""
    n_in, n_out = net[0].in_features, [m for m in net if isinstance(m, torch.nn.Linear)][-1].out_features
    y = rng.uniform(size=(7, n_out)) if loss == "half_squared" else rng.integers(0, 2, (7, 1)).astype(float)
    return rng.normal(size=(7, n_in)), y


def case(
    net: torch.nn.Sequential,
    x: np.ndarray,
    y: np.ndarray,
    loss: str,
    optimizer: str,
    steps: int,
    decay: float,
    **options: object,
) -> dict:
    """Run some steps and record the losses and the parameters after them."""
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    groups = [{"params": weights, "weight_decay": decay}, {"params": biases, "weight_decay": 0.0}]
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.AdamW if decay else torch.optim.Adam}
    torch_optimizer = kinds[optimizer](groups, **options)
    fact = {"optimizer": optimizer, "options": options, "weight_decay": decay, "steps": steps, "losses": []}
    for _ in range(steps):
        torch_optimizer.zero_grad()
        output = net(torch.tensor(x))
        if loss == "half_squared":
            value = 0.5 * ((output - torch.tensor(y)) ** 2).sum(dim=1).mean()
        else:
            value = torch.nn.functional.binary_cross_entropy_with_logits(output, torch.tensor(y))
        value.backward()
        torch_optimizer.step()
        fact["losses"].append(value.item())
    return fact | {"after": named(net)}


torch.manual_seed(0)
facts = []
for widths, activation, last, loss in (
    ([3, 5, 2], torch.nn.Sigmoid, True, "half_squared"),
    ([6, 64, 32, 16, 1], torch.nn.ReLU, False, "sigmoid_cross_entropy"),
):
    net = network(widths, activation, last)
    x, y = data(net, loss)
    start = {"activation": activation.__name__, "last": last, "loss": loss, "x": x.tolist(), "y": y.tolist()}
    cases = []
    for steps in (1, 5):
        for optimizer, decay, options in (
            ("sgd", 0.0, {"lr": 0.1}),
            ("sgd", 0.02, {"lr": 0.1}),
            ("sgd", 0.0, {"lr": 0.1, "momentum": 0.9}),
            ("sgd", 0.0, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
            ("adam", 0.0, {"lr": 0.01}),
            ("adam", 0.02, {"lr": 0.01}),
        ):
            if len(widths) == 3 or (steps == 1 and "momentum" not in options):
                cases.append(case(copy.deepcopy(net), x, y, loss, optimizer, steps, decay, **options))
    facts.append(start | {"before": named(net), "cases": cases})
print(json.dumps({"torch": torch.__version__, "numpy": np.__version__, "networks": facts}))
