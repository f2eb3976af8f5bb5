"""What private training costs, and what it does to scores: the figures of docs/privacy.md.

python -m benchmarks.privacy [steps] [adult]

Opacus is measured where it is installed: python -m pip install opacus.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np

import nnprofile as nn
from nnprofile import privacy
from nnprofile.contract import Spent
from nnprofile.privacy.training import private_gradient

SIZES = (100, 64, 32, 16, 1)
LOSS = nn.SigmoidCrossEntropy()


def network() -> nn.Sequential:
    """Return 100-64-32-16-1 with ReLU."""
    layers: list[nn.Layer] = []
    for a, b in pairwise(SIZES):
        layers += [nn.Dense(a, b), nn.ReLU()]
    return nn.Sequential(layers[:-1], rng=np.random.default_rng(0), dtype=np.float32)


def ours(x: Any, y: Any, batch: int) -> Callable[[], None]:
    """Return a private step: sampling, clipped sum, noise, Adam."""
    net, optimizer, rng = network(), nn.Adam(), np.random.default_rng(0)
    history = privacy.PrivateHistory((Spent(1.0, batch / len(x), 1),), 1e-5, 1.0, batch)

    def step() -> None:
        gradient = private_gradient(net, LOSS, x, y, history, rng)
        optimizer.step(net.params, net.params.of(gradient.astype(np.float32)))

    return step


def plain(x: Any, y: Any, batch: int, engine: str) -> Callable[[], None]:
    """Return 16 steps that are not private, by ``fit``."""
    net, optimizer, rng = network(), nn.Adam(), np.random.default_rng(0)
    rows = slice(0, 16 * batch)

    def steps() -> None:
        nn.fit(net, LOSS, optimizer, x[rows], y[rows], n_epochs=1, batch_size=batch, rng=rng, engine=engine)

    return steps


def opacus(x: Any, y: Any, batch: int, mode: str) -> Callable[[], None]:
    """Return a step of Opacus: per-example gradients by hooks, or ghost clipping."""
    import torch
    from opacus import PrivacyEngine

    torch.set_num_threads(1)
    layers: list[Any] = []
    for a, b in pairwise(SIZES):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    net: Any = torch.nn.Sequential(*layers[:-1])
    data = torch.utils.data.TensorDataset(torch.tensor(x[: 4 * batch]), torch.tensor(y[: 4 * batch, None]))
    loader = torch.utils.data.DataLoader(data, batch_size=batch)
    options: Any = {"grad_sample_mode": "ghost"} if mode == "ghost" else {}
    made = PrivacyEngine().make_private(
        module=net,
        optimizer=torch.optim.Adam(net.parameters()),
        data_loader=loader,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        poisson_sampling=False,
        **options,
        **({"criterion": torch.nn.BCEWithLogitsLoss()} if mode == "ghost" else {}),
    )
    net, optimizer = made[0], made[1]
    criterion = made[2] if mode == "ghost" else torch.nn.BCEWithLogitsLoss()
    xb, yb = torch.tensor(x[:batch]), torch.tensor(y[:batch, None])

    def step() -> None:
        optimizer.zero_grad()
        criterion(net(xb), yb).backward()
        optimizer.step()

    return step


def steps() -> None:
    """Print microseconds a step, all in turn, medians of 15 rounds."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80_000, 100)).astype(np.float32), rng.integers(0, 2, 80_000).astype(np.float32)
    print(
        "| batch | plain, NumPy | private | plain, engine | Opacus, hooks | Opacus, ghost |\n|---|---|---|---|---|---|"
    )
    for batch in (256, 1024, 4096):
        ways: dict[str, tuple[Callable[[], None], int]] = {
            "plain": (plain(x, y, batch, "numpy"), 16),
            "private": (ours(x, y, batch), 1),
            "engine": (plain(x, y, batch, "numba"), 16),
        }
        for mode in ("hooks", "ghost"):
            try:
                ways[mode] = opacus(x, y, batch, mode), 1
            except ImportError:
                continue
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(3):
            for run, _n in ways.values():
                run()
        for _ in range(15):
            for name, (run, n) in ways.items():
                start = perf_counter()
                for _k in range(16 // n):
                    run()
                times[name].append((perf_counter() - start) / 16 * 1e6)
        medians = {name: float(np.median(found)) for name, found in times.items()}
        cells = [f"{m:,.0f} ({m / medians['plain']:.2f})" for m in medians.values()]
        print(f"| {batch:,} | {' | '.join(cells)} |", flush=True)


def adult() -> None:
    """Print the area under the curve on Adult's test rows for three epsilons, five seeds, with an encoder that sees no row."""
    from examples.user_profile import private

    for epsilon in (1.0, 3.0, 8.0):
        found = [private.on_adult(epsilon, seed)["roc_auc"] for seed in range(5)]
        print(f"epsilon {epsilon:g}: AUC {np.mean(found):.4f}, from {min(found):.4f} to {max(found):.4f}", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for part in sys.argv[1:] or ("steps", "adult"):
        {"steps": steps, "adult": adult}[part]()
