"""How far back layers on sequences look: recall of the first event, and copies at a distance; curves for docs/sequences.md.

python -m benchmarks.memory [--out docs/images/memory.png]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

import nnprofile as nn

DISTANCE, N_IDS = 30, 6
Task = Callable[[int, int], tuple[nn.Ragged, np.ndarray]]


def recall(n: int, seed: int) -> tuple[nn.Ragged, np.ndarray]:
    """Thirty-one numbers: is the first one positive?"""
    x = np.random.default_rng(seed).normal(size=(n, DISTANCE + 1, 1))
    return nn.Ragged.from_padded(x, np.full(n, DISTANCE + 1)), (x[:, 0, 0] > 0).astype(int)


def copy(n: int, seed: int) -> tuple[nn.Ragged, np.ndarray]:
    """Two of six ids, blanks, and an event that asks for the first or the second: it is to be copied from 30 events before."""
    rng = np.random.default_rng(seed)
    ids, which = rng.integers(0, N_IDS, (n, 2)), rng.integers(0, 2, n)
    x = np.hstack([ids, np.full((n, DISTANCE), N_IDS)])
    x[np.arange(n), DISTANCE + which] = N_IDS + 1 + which
    return nn.Ragged.from_padded(x, DISTANCE + 1 + which), ids[np.arange(n), which]


def attention(d: int) -> list[Any]:
    """A block of attention, which knows the places, and the last event."""
    block = nn.Residual([nn.LayerNorm(d), nn.SelfAttention(d, 2)])
    return [nn.PositionalEmbedding(DISTANCE + 2, d), block, nn.LayerNorm(d), nn.LastEvent()]


MEMORIES: dict[str, Callable[[int], list[Any]]] = {
    "GRU": lambda d: [nn.GRU(d, d), nn.LastEvent()],
    "LSTM": lambda d: [nn.LSTM(d, d), nn.LastEvent()],
    "attention": attention,
    "RNN": lambda d: [nn.RNN(d, d), nn.LastEvent()],
    "pooling alone": lambda d: [nn.Dense(d, d), nn.Tanh(), nn.Concatenate([nn.MeanOverEvents(), nn.MaxOverEvents()])],
}


def curve(task: Task, memory: str, n_epochs: int, width: int = 32) -> list[float]:
    """Train on fresh sequences each epoch; return the share of right answers on others, after each."""
    first = nn.Dense(1, width) if task is recall else nn.Embedding(N_IDS + 3, width)
    layers = MEMORIES[memory](width)
    last = nn.Dense(width * (1 + (memory == "pooling alone")), N_IDS)
    net = nn.Sequential([first, *layers, last], rng=np.random.default_rng(0), dtype=np.float32)
    if (
        memory == "LSTM"
    ):  # its gates f open for as long as is asked for (Tallec and Ollivier 2018): 1 / (1 - f) is 2 .. 30 events
        net.params["1.b"][width : 2 * width] = np.log(np.random.default_rng(2).uniform(1, DISTANCE - 1, width))
    optimizer, loss, rng = nn.Adam(0.003), nn.SoftmaxCrossEntropy(), np.random.default_rng(1)
    (x_test, y_test), found = task(1000, 10**6), []
    for epoch in range(n_epochs):
        nn.fit(net, loss, optimizer, *task(1000, epoch), n_epochs=1, batch_size=50, rng=rng)
        found.append(float((net.predict(x_test).argmax(axis=1) == y_test).mean()))
    return found


def main() -> None:
    """Print a table, and draw the curves."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--out", default="docs/images/memory.png")
    parser.add_argument("--epochs", type=int, default=100)
    options = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    print(f"| share right after {options.epochs} epochs | {' | '.join(MEMORIES)} |\n|---|{'---|' * len(MEMORIES)}")
    for axis, (task, title) in zip(
        axes, ((recall, "recall of the first of 31"), (copy, "copy at distance 30")), strict=True
    ):
        cells = []
        for memory in MEMORIES:
            start = perf_counter()
            found = curve(task, memory, options.epochs)
            axis.plot(range(1, len(found) + 1), found, label=memory)
            solved = next((str(k) for k, share in enumerate(found, start=1) if share > 0.99), "-")
            cells.append(f"{found[-1]:.3f} (above 0.99 from epoch {solved}; {perf_counter() - start:.0f} s)")
        axis.set(title=title, xlabel="epochs of 1,000 sequences", ylim=(0, 1.02))
        print(f"| {title} | {' | '.join(cells)} |", flush=True)
    axes[0].set_ylabel("share of right answers")
    axes[1].legend(fontsize=8, loc="center right")
    figure.tight_layout()
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
