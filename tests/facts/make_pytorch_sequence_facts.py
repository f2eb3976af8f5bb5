"""Write pytorch_sequences.json: sequence layers as PyTorch computes them, in float64: forward, gradients, one step of Adam.

Needs torch; run once, by hand: python tests/facts/make_pytorch_sequence_facts.py > tests/facts/pytorch_sequences.json
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
rng = np.random.default_rng(7)
LENGTHS = [3, 1, 5, 2]  # PyTorch's packed sequences take none that is empty
Names = dict[str, Callable[[], torch.Tensor]]


def gates(module: nn.Module) -> Names:
    """Return a recurrent module's parameters by our names and in our layout."""
    out = {"W": lambda w: w["weight_ih_l0"].T, "U": lambda w: w["weight_hh_l0"].T, "b": lambda w: w["bias_ih_l0"]}
    if isinstance(module, nn.GRU):
        return out | {"c": lambda w: w["bias_hh_l0"]}
    return out  # bias_hh is 0, and is not trained


def recurrent(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Run on the packed sequences of x."""
    parts = torch.split(x, LENGTHS)
    packed = nn.utils.rnn.pack_sequence(list(parts), enforce_sorted=False)
    out, _ = nn.utils.rnn.pad_packed_sequence(module(packed)[0], batch_first=True)
    return torch.cat([row[:n] for row, n in zip(out, LENGTHS, strict=True)])


def attention(module: nn.MultiheadAttention, x: torch.Tensor, causal: bool) -> torch.Tensor:
    """Attend within each sequence by itself."""
    out = []
    for part in torch.split(x, LENGTHS):
        mask = torch.triu(torch.ones(len(part), len(part), dtype=torch.bool), diagonal=1) if causal else None
        out.append(module(part[None], part[None], part[None], attn_mask=mask, need_weights=False)[0][0])
    return torch.cat(out)


def convolution(module: nn.Conv1d, x: torch.Tensor, causal: bool) -> torch.Tensor:
    """Convolve each sequence by itself, with zeros in front of it, or on both sides."""
    reach = (module.kernel_size[0] - 1) * module.dilation[0]
    pad = (reach, 0) if causal else (reach // 2, reach // 2)
    parts = torch.split(x, LENGTHS)
    return torch.cat([module(nn.functional.pad(part.T[None], pad))[0].T for part in parts])


class Block(nn.Module):
    """A pre-norm Transformer block."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = nn.MultiheadAttention(d, heads, batch_first=True)
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x + attention, then + the perceptron."""
        x = x + attention(self.attention, self.n1(x), True)
        return x + self.down(nn.functional.gelu(self.up(self.n2(x))))


LAYOUTS: dict[str, dict[str, Any]] = {
    "attention": {
        "W": lambda w, p="": w[p + "in_proj_weight"].T,
        "b": lambda w, p="": w[p + "in_proj_bias"],
        "V": lambda w, p="": w[p + "out_proj.weight"].T,
        "c": lambda w, p="": w[p + "out_proj.bias"],
    },
    "convolution": {"W": lambda w: w["weight"].permute(2, 1, 0), "b": lambda w: w["bias"]},
    "embedding": {"E": lambda w: w["weight"]},
}


def block_layout() -> dict[str, Any]:
    """Return our names of Sequential([Residual([LayerNorm, SelfAttention]), Residual([LayerNorm, Dense, GELU, Dense])])."""
    inside = {f"0.0.1.{n}": (lambda w, f=f: f(w, "attention.")) for n, f in LAYOUTS["attention"].items()}
    return {
        "0.0.0.g": lambda w: w["n1.weight"],
        "0.0.0.b": lambda w: w["n1.bias"],
        **inside,
        "1.0.0.g": lambda w: w["n2.weight"],
        "1.0.0.b": lambda w: w["n2.bias"],
        "1.0.1.W": lambda w: w["up.weight"].T,
        "1.0.1.b": lambda w: w["up.bias"],
        "1.0.3.W": lambda w: w["down.weight"].T,
        "1.0.3.b": lambda w: w["down.bias"],
    }


def fact(
    name: str, config: list, module: nn.Module, run: Callable[..., torch.Tensor], layout: Any, x: np.ndarray
) -> dict:
    """Return x, the parameters before, y, all gradients for a random dy, and the parameters after a step of Adam."""
    for key, value in module.named_parameters():
        value.data = torch.tensor(rng.normal(size=value.shape) * 0.5)
        if key == "bias_hh_l0" and not isinstance(module, nn.GRU):
            value.data.zero_()
            value.requires_grad_(False)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.01, eps=1e-8)
    inputs = torch.tensor(x, requires_grad=x.dtype.kind == "f")

    def named(get: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, list]:
        values = {key: get(value) for key, value in module.named_parameters()}
        return {key: take(values).tolist() for key, take in layout.items()}

    before = named(lambda p: p.detach().clone())
    y = run(module, inputs)
    dy = torch.tensor(rng.normal(size=y.shape))
    (y * dy).sum().backward()
    grads = named(lambda p: torch.zeros_like(p) if p.grad is None else p.grad)
    optimizer.step()
    return {
        "layer": name,
        "config": config,
        "x": x.tolist(),
        "y": y.tolist(),
        "dy": dy.tolist(),
        "dx": None if inputs.grad is None else inputs.grad.tolist(),
        "before": before,
        "grads": grads,
        "after": named(lambda p: p.detach()),
    }


n = sum(LENGTHS)
x = rng.normal(size=(n, 4))
FACTS = [
    fact("RNN", [4, 3], nn.RNN(4, 3), recurrent, gates(nn.RNN(4, 3)), x),
    fact("GRU", [4, 3], nn.GRU(4, 3), recurrent, gates(nn.GRU(4, 3)), x),
    fact("LSTM", [4, 3], nn.LSTM(4, 3), recurrent, gates(nn.LSTM(4, 3)), x),
    *(
        fact(
            "SelfAttention",
            [4, heads, causal],
            nn.MultiheadAttention(4, heads, batch_first=True),
            lambda m, x, causal=causal: attention(m, x, causal),
            LAYOUTS["attention"],
            x,
        )
        for heads, causal in ((1, True), (2, True), (2, False))
    ),
    *(
        fact(
            "Conv1D",
            [4, 3, width, dilation, causal],
            nn.Conv1d(4, 3, width, dilation=dilation),
            lambda m, x, causal=causal: convolution(m, x, causal),
            LAYOUTS["convolution"],
            x,
        )
        for width, dilation, causal in ((3, 1, True), (2, 2, True), (3, 2, False))
    ),
    fact("Embedding", [6, 3], nn.Embedding(6, 3), lambda m, x: m(x), LAYOUTS["embedding"], rng.integers(0, 6, n)),
    fact("Transformer block", [4, 2], Block(4, 2), lambda m, x: m(x), block_layout(), x),
]
print(json.dumps({"torch": torch.__version__, "lengths": LENGTHS, "facts": FACTS}))
