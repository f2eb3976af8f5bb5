"""The README's picture: how many times longer the others take, and validation loss against seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from .harness import OURS, TITLES

COLORS = {
    "nnprofile_": "#0b6e4f",
    "numpy_": "#7fb69e",
    "jax_": "#48639c",
    "torch_": "#c1666b",
    "torch_compile": "#d99a6c",
    "sklearn_": "#d4b483",
    "keras_": "#8a6a9c",
    "onnx_": "#4c4c4c",
    "onnx_bound": "#9a9a9a",
}


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw the panels whose suites have been run."""
    panels = [p for p in (_train, _predict, _adult) if p.__name__[1:] in record]
    if not panels:
        return
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.1), layout="constrained", squeeze=False)
    for panel, axis in zip(panels, axes[0], strict=True):
        panel(axis, record[panel.__name__[1:]]["results"])
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _bars(axis: Any, result: dict[str, Any], title: str, unit: str) -> None:
    found = {p: f["median"] for p, f in result["found"].items() if p in TITLES and "median" in f}
    order = sorted(found, key=found.__getitem__, reverse=True)
    axis.barh(range(len(order)), [found[p] for p in order], color=[COLORS[p] for p in order])
    for row, peer in enumerate(order):
        times = (
            "" if peer == OURS else f"   {found[peer] / found[OURS]:.{0 if found[peer] > 9.95 * found[OURS] else 1}f}x"
        )
        axis.annotate(
            f" {found[peer]:,.{0 if found[peer] >= 100 else 1}f}{times}", (found[peer], row), va="center", fontsize=8
        )
    axis.set(xscale="log", yticks=range(len(order)), xlabel=unit, xlim=(1, max(found.values()) * 15))
    axis.set_yticklabels([TITLES[p] for p in order], fontsize=8)
    axis.set_title(title, fontsize=10)


def _train(axis: Any, results: list[dict[str, Any]]) -> None:
    wanted = {"sizes": [100, 64, 32, 16, 1], "dtype": "float32", "optimizer": "adam", "batch": 32}
    result = next(r for r in results if wanted.items() <= r["case"].items())
    _bars(axis, result, "A training step, 100-64-32-16-1, batch 32", "microseconds, one core")


def _predict(axis: Any, results: list[dict[str, Any]]) -> None:
    result = next(r for r in results if r["case"]["rows"] == 1)
    _bars(axis, result, "Scoring one row", "microseconds, one core")


def _adult(axis: Any, results: list[dict[str, Any]]) -> None:
    for peer, points in results[0]["curves"].items():
        axis.plot(*zip(*points[1:], strict=True), ".-", ms=4, lw=1, color=COLORS[peer], label=TITLES[peer])
    axis.set(xscale="log", xlabel="seconds of training, one core", ylabel="validation loss")
    axis.set_title("Adult, 64-32-16-1, 15 epochs", fontsize=10)
    axis.legend(fontsize=7)
