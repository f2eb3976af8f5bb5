"""The report: pictures, one self-contained page for the person who decides, and the card that travels with the model.

No raw identifier gets in: the page is made from aggregates and from ranges (see profiles.py).
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sklearn import metrics

from .evaluate import BESIDE, METRICS, MODELS, SplitResult
from .orders import MEANING
from .profiles import BANDS, SEGMENTS, K
from .targeting import Business, among_equals, curves
from .update import Backtest

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLORS = {"network": "#0b6e4f", "logistic_regression": "#c1666b", "gradient_boosting": "#48639c", "majority": "#999999"}
COLORS["one_column"] = COLORS["simple_rule"] = "#d9a441"
PATHS = {"frozen": "#999999", "incremental": "#0b6e4f", "retrained": "#48639c"}


def pictures(result: SplitResult) -> dict[str, str]:
    """Return the four pictures of one split, as base64 PNG; of fewer than K people, only that of the losses."""
    if len(result.y) < K:
        return {"losses": png(_draw_losses, result)}
    return {
        "losses": png(_draw_losses, result),
        "curves": png(_draw_curves, result, wide=True),
        "calibration": png(_draw_calibration, result),
        "confusion": png(_draw_confusion, result),
    }


def picture_of_action(y: np.ndarray, proba: dict[str, np.ndarray], business: Business) -> str:
    """Return the gain curve and the money by share acted on, as base64 PNG."""
    return png(_draw_action, y, proba, business, wide=True)


def picture_of_months(found: Backtest) -> str:
    """Return the log losses month by month, beside frozen, as base64 PNG."""
    return png(_draw_months, found, wide=True)


def picture_of_drift(found: Backtest) -> str:
    """Return the drift of the columns month by month, as base64 PNG."""
    return png(_draw_drift, found, wide=True)


def png(draw: Callable[..., None], *arguments: Any, wide: bool = False) -> str:
    """Return what ``draw`` draws into a figure, as base64 PNG."""
    figure = plt.figure(figsize=(8.4 if wide else 4.4, 3.6), layout="constrained")
    draw(figure, *arguments)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def _draw_losses(figure, result: SplitResult) -> None:
    axes = figure.subplots()
    loss, validation = result.history["loss"], result.history["val_loss"]
    axes.plot(loss, color="#999999", label="training, with dropout")
    axes.plot(validation, color=COLORS["network"], label="validation")
    best = int(np.argmin(validation))
    axes.plot(best, validation[best], "o", color=COLORS["network"], label=f"kept: epoch {best}")
    axes.set(xlabel="epoch", ylabel="cross-entropy", title="Losses")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()


def _draw_curves(figure, result: SplitResult) -> None:
    left, right = figure.subplots(1, 2)
    for model in BESIDE:
        fpr, tpr, _ = metrics.roc_curve(result.y, result.proba[model])
        precision, recall, _ = metrics.precision_recall_curve(result.y, result.proba[model])
        label = model.replace("_", " ")
        left.plot(fpr, tpr, color=COLORS[model], label=f"{label} ({result.scores[model]['roc_auc']:.3f})")
        right.plot(
            recall, precision, color=COLORS[model], label=f"{label} ({result.scores[model]['average_precision']:.3f})"
        )
    left.plot([0, 1], [0, 1], ":", color=COLORS["majority"], label="majority (0.500)")
    right.axhline(result.y.mean(), ls=":", color=COLORS["majority"], label=f"majority ({result.y.mean():.3f})")
    left.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC (area)")
    right.set(xlabel="recall", ylabel="precision", title="Precision and recall (average precision)", ylim=(0, 1.03))
    left.legend(loc="lower right", fontsize=8)
    right.legend(loc="lower left", fontsize=8)


def _draw_calibration(figure, result: SplitResult) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="#999999", label="perfect")
    proba = result.proba["network"]
    bins = np.array_split(np.argsort(proba, kind="stable"), min(10, len(proba)))
    y = among_equals(result.y, proba)
    axes.plot(
        [proba[b].mean() for b in bins],
        [y[b].mean() for b in bins],
        "o-",
        color=COLORS["network"],
        label="network, tenths of the rows",
    )
    axes.set(xlabel="predicted probability", ylabel="share of yes", title="Calibration", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")


def _draw_confusion(figure, result: SplitResult) -> None:
    axes = figure.subplots()
    threshold = result.threshold["network"]
    counts = metrics.confusion_matrix(result.y, result.proba["network"] >= threshold)
    axes.imshow(counts / counts.sum(axis=1, keepdims=True), cmap="Greens", vmin=0, vmax=1.3)
    for (i, j), count in np.ndenumerate(counts):
        axes.text(j, i, f"{count}\n{count / counts[i].sum():.0%} of {('no', 'yes')[i]}", ha="center", va="center")
    axes.set(xticks=[0, 1], yticks=[0, 1], xticklabels=["no", "yes"], yticklabels=["no", "yes"])
    axes.set(xlabel=f"said, at threshold {threshold:.2f}", ylabel="true", title="Confusion matrix")


def _short(name: str) -> str:
    return name if len(name) <= 44 else name[:43] + "…"


def _draw_action(figure, y: np.ndarray, proba: dict[str, np.ndarray], business: Business) -> None:
    left, right = figure.subplots(1, 2)
    for model, p in proba.items():
        found = curves(y, p, business)
        label = model.replace("_", " ")
        left.plot(100 * found["acted"], 100 * found["reached"], color=COLORS[model], label=label)
        right.plot(100 * found["acted"], found["money"], color=COLORS[model], label=label)
    left.plot([0, 100], [0, 100], ":", color=COLORS["majority"], label="at random")
    right.plot([0, 100], [0, business.gains(y).sum()], ":", color=COLORS["majority"], label="at random")
    acted = 100 * float((proba["network"] >= business.threshold).mean())
    right.axvline(acted, color=COLORS["network"], lw=0.8, ls="--", label=f"threshold {business.threshold:.2f}")
    left.set(xlabel="% of people acted on, highest scores first", ylabel="% of those aimed at", title="Whom it reaches")
    right.set(xlabel="% of people acted on, highest scores first", ylabel="gain", title="What it brings")
    left.legend(loc="lower right", fontsize=8)


def _draw_months(figure, found: Backtest) -> None:
    left, right = figure.subplots(1, 2)
    dates = [f"{month.date:%y-%m}" for month in found.months]
    frozen = np.array([month.loss["frozen"] for month in found.months])
    for name, color in PATHS.items():
        loss = np.array([month.loss[name] for month in found.months])
        left.plot(dates, loss, "o-", ms=3, color=color, label=name)
        right.plot(dates, loss - frozen, "o-", ms=3, color=color, label=name)
    left.set(ylabel="log loss, before learning", title="The loss, month by month")
    right.set(ylabel="log loss minus the frozen model's", title="Below 0: better than frozen")
    for axes in (left, right):
        axes.tick_params(axis="x", labelrotation=60, labelsize=8)
        axes.legend(fontsize=8)


def _draw_drift(figure, found: Backtest) -> None:
    axes = figure.subplots()
    table = pd.DataFrame({f"{month.date:%y-%m}": month.drift for month in found.months})
    table = table.loc[table.iloc[:, -1].sort_values(ascending=False).index[:12]]
    axes.imshow(np.minimum(table, 1), cmap="YlOrRd", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(table.to_numpy()):
        axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=7, color="white" if value > 0.7 else "black")
    axes.set_xticks(range(table.shape[1]), table.columns, fontsize=8)
    axes.set_yticks(range(len(table)), [_short(MEANING.get(name, name)) for name in table.index], fontsize=8)
    axes.set_title("Drift since launch: population stability index (dark from 1 on)", fontsize=10)


def write_report(path: Path, sections: list[dict[str, Any]]) -> None:
    """Write one self-contained page: no script, no other file, no network."""
    page = templates(autoescape=True).get_template("report.html.jinja").render(sections=sections, **_WORDS)
    path.write_text(page, encoding="utf-8")


def write_card(path: Path, section: dict[str, Any]) -> None:
    """Write the model card, as Markdown."""
    page = templates(autoescape=False).get_template("model_card.md.jinja").render(s=section, **_WORDS)
    path.write_text(page, encoding="utf-8")


_WORDS = {"metrics": METRICS, "models": MODELS, "K": K, "segment_rules": SEGMENTS, "bands": BANDS}


def _in_markdown(value: Any) -> Any:
    """Return text so that a table of Markdown holds it: a column may be called anything."""
    return re.sub(r"([|<\\])", r"\\\1", " ".join(value.split())) if isinstance(value, str) else value


def templates(*folders: Path, autoescape: bool = False) -> Environment:
    """Return the templates of these folders and of this one: of HTML with ``autoescape``, else of Markdown."""
    found = Environment(
        finalize=None if autoescape else _in_markdown,
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "percent": lambda x, digits=0: "–" if x is None else f"{100 * x:.{digits}f} %",
        "number": lambda x, digits=0: (
            "–" if x is None else f"{x + 0 if round(x, digits) else 0:,.{digits}f}".replace("-", "−")
        ),
        "figure": lambda x: f"{x:,.3g}" if abs(x) < 1000 else f"{x:,.0f}",
        "odds": lambda moved: f"{np.exp(moved):.2g}" if moved < 4.6 else f"{np.exp(moved):,.0f}",
        "signed": lambda x, digits=2: f"{x:+.{digits}f}".replace("-", "−"),
        "meaning": lambda column, meaning: meaning.get(column, column),
        "words": lambda name: name.replace("_", " "),
    }
    return found
