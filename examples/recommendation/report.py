"""The report: one picture, one self-contained page for the person who decides, and the card that travels with the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..user_profile.report import png, templates
from .candidates import N_CANDIDATES
from .evaluate import ACTIVITY, DIVERSE, LIMITS, METRICS, NETWORK, ONE_TRIP, Measured
from .pairs import NAMES
from .train import FEWEST_TRIPS, TASKS

HERE = Path(__file__).parent
K = 10  # items for everyone
GREEN, GREY, RED = "#0b6e4f", "#999999", "#c1666b"


def picture(found: Measured) -> str:
    """Return the picture: each method's NDCG on both tasks, and the network's probabilities beside what happened."""
    return png(_draw, found, wide=True)


def _draw(figure: Any, found: Measured) -> None:
    *tasks, calibration = figure.subplots(1, 3, width_ratios=(3, 3, 2.4))
    for axes, task in zip(tasks, TASKS, strict=True):
        names = found.methods(task)[::-1]
        values = [found.mean(task, name, "ndcg") for name in names]
        colors = [GREEN if name == NETWORK else RED if name == found.rival(task) else GREY for name in names]
        axes.barh(range(len(names)), values, color=colors)
        axes.set_yticks(range(len(names)), [name.replace(", half-life", ",\nhalf-life") for name in names], fontsize=7)
        for k, value in enumerate(values):
            axes.text(value, k, f" {value:.3f}", va="center", fontsize=7)
        axes.set(title=f"{task}: NDCG@10", xlim=(0, 1.3 * max(values)))
        axes.tick_params(axis="x", labelsize=7)
    calibration.plot([LIMITS[1], 1], [LIMITS[1], 1], ":", color=GREY)
    for task, color in zip(TASKS, (GREEN, RED), strict=True):
        n, p, y = found.counts[task][found.counts[task][:, 0] >= 50].T
        calibration.loglog(p / n, np.maximum(y, 0.5) / n, "o-", ms=3, color=color, label=task)
    calibration.set_xlabel("predicted probability", fontsize=8)
    calibration.set_title("share bought", fontsize=9)
    calibration.tick_params(labelsize=7)
    calibration.legend(fontsize=7)


def measured(found: Measured) -> dict[str, Any]:
    """Return the tables, as the page and the card need them."""
    suffixes = ("", ONE_TRIP)
    rivals = {task: found.rival(task) for task in TASKS}
    gains = {task: [(name, *found.gain(task, rivals[task], name)) for name in ("", *ACTIVITY)] for task in TASKS}
    return {
        "tasks": TASKS,
        "n_days": len(found.days),
        "n_seeds": len(next(iter(found.rankings.values()))[0]),
        "n_customers": int(np.mean([len(trips) for trips in found.n_trips])),
        "tables": {
            task + suffix: [
                {
                    "name": name,
                    "values": [found.mean(task + suffix, name, metric) for metric in METRICS],
                    "coverage": found.coverage(task + suffix, name),
                    "network": name == NETWORK,
                }
                for name in found.methods(task + suffix)
            ]
            for task in TASKS
            for suffix in suffixes
        },
        "gains": gains,
        "again": float(np.mean(found.again)),
        "gained": [
            [name or "all", *(_gain(*gains[task][k][1:]) for task in TASKS)] for k, name in enumerate(("", *ACTIVITY))
        ],
        "heads": [f"{task}: beside “{rivals[task]}”" for task in TASKS],
        "rivals": rivals,
        "network": NETWORK,
        "one_trip": ONE_TRIP,
        "k": K,
        "n_features": len(NAMES),
        "n_candidates": N_CANDIDATES,
        "fewest": FEWEST_TRIPS,
        "calibration": {
            task: [
                [f"{low:.1%} to {high:.1%}", f"{n:,.0f}", f"{p / n:.2%}", f"{y / n:.2%}"]
                for (n, p, y), low, high in zip(counts, LIMITS, LIMITS[1:], strict=False)
                if n >= 50
            ]
            for task, counts in found.counts.items()
        },
        "expected": {
            task: float(counts[:, 1].sum() / max(counts[:, 2].sum(), 1)) for task, counts in found.counts.items()
        },
        "diversity": [
            [
                *(f"{wanted:.1f}", f"{found.mean('new', name, 'ndcg'):.4f}", f"{np.mean(found.alike[name]):.3f}"),
                f"{found.coverage('new', name):.0f}",
            ]
            for wanted, name in zip((0.0, *DIVERSE), found.alike, strict=True)
        ],
        "metrics": METRICS,
    }


def _gain(mean: float, error: float) -> str:
    return "–" if mean != mean else f"{mean:+.4f} ± {error:.4f}".replace("-", "−")


def cold(found: dict[str, list[float]]) -> list[list[str]]:
    """Return the rows of the table of items of which the texts alone are known."""
    return [
        [name, f"{np.mean(draws):.4f} ± {np.std(draws, ddof=1) / len(draws) ** 0.5:.4f}"]
        for name, draws in found.items()
    ]


def write(out: Path, context: dict[str, Any]) -> None:
    """Write report.html and model_card.md."""
    for name, autoescape in (("report.html", True), ("model_card.md", False)):
        page = templates(HERE, autoescape=autoescape).get_template(f"{name}.jinja").render(**context)
        (out / name).write_text(page, encoding="utf-8")
