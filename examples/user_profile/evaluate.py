"""Step 5, evaluate: measure the network on rows it has not seen, beside three other models on the very same rows.

Every model learns from the rows to fit, and takes its threshold from the validation rows. Numbers, pictures, one page.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from sklearn import metrics
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from .features import as_text, signed_log
from .preprocess import Table
from .train import Model

matplotlib.use("Agg")
from matplotlib import pyplot as plt

METRICS = ("accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "brier")
MODELS = ("network", "logistic_regression", "gradient_boosting", "majority")
COLORS = {"network": "#0b6e4f", "logistic_regression": "#c1666b", "gradient_boosting": "#48639c", "majority": "#999999"}


@dataclass(frozen=True)
class SplitResult:
    """One split: labels of the test rows, each model's probabilities and threshold, and the network's history."""

    y: np.ndarray
    proba: dict[str, np.ndarray]
    threshold: dict[str, float]
    scores: dict[str, dict[str, float]]
    history: Mapping[str, list[float]]


def best_threshold(y: np.ndarray, proba: np.ndarray) -> float:
    """Return the threshold with the highest F1 on these (validation) rows; "yes" is a probability of at least it."""
    precision, recall, thresholds = metrics.precision_recall_curve(y, proba)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[np.argmax(f1[:-1])])


def score(y: np.ndarray, proba: np.ndarray, threshold: float) -> dict[str, float]:
    """Return the seven metrics."""
    said = proba >= threshold
    return {
        "accuracy": metrics.accuracy_score(y, said),
        "precision": metrics.precision_score(y, said, zero_division=0.0),
        "recall": metrics.recall_score(y, said),
        "f1": metrics.f1_score(y, said),
        "roc_auc": metrics.roc_auc_score(y, proba),
        "average_precision": metrics.average_precision_score(y, proba),
        "brier": metrics.brier_score_loss(y, proba),
    }


def evaluate(
    table: Table, fit: np.ndarray, validate: np.ndarray, test: np.ndarray, networks: list[Model]
) -> SplitResult:
    """Measure the networks of one split (one a seed, their scores averaged) and the models to compare with."""
    x = _plain(table)
    proba, threshold, scores = {}, {}, {}
    for name, model in _baselines(table).items():
        model.fit(x.iloc[fit], table.y[fit])
        proba[name] = model.predict_proba(x.iloc[test])[:, 1]
        threshold[name] = best_threshold(table.y[validate], model.predict_proba(x.iloc[validate])[:, 1])
        if name == "majority":
            threshold[name] = 0.5
        scores[name] = score(table.y[test], proba[name], threshold[name])
    found = [
        score(table.y[test], network.predict_proba(table.frame.iloc[test]), network.threshold) for network in networks
    ]
    scores["network"] = {metric: float(np.mean([s[metric] for s in found])) for metric in METRICS}
    proba["network"] = networks[0].predict_proba(table.frame.iloc[test])
    threshold["network"] = networks[0].threshold
    return SplitResult(table.y[test], proba, threshold, scores, networks[0].history)


def _plain(table: Table) -> pd.DataFrame:
    """Return the table with missing categories as a category."""
    text = [name for name, kind in table.kinds.items() if kind == "category"]
    return table.frame.assign(**{name: as_text(table.frame[name]) for name in text})


def _baselines(table: Table) -> dict[str, object]:
    """Return scikit-learn's models, each with the preprocessing it is usually given."""
    text = [name for name, kind in table.kinds.items() if kind == "category"]
    codes = [name for name, kind in table.kinds.items() if kind == "code"]
    numbers = [name for name, kind in table.kinds.items() if kind != "category"]
    linear = make_column_transformer(
        (make_pipeline(FunctionTransformer(signed_log), SimpleImputer(add_indicator=True), StandardScaler()), numbers),
        (OneHotEncoder(min_frequency=5, handle_unknown="infrequent_if_exist"), text + codes),
    )
    trees = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=250), text),
        ("passthrough", numbers),
    )
    return {
        "logistic_regression": make_pipeline(linear, LogisticRegression(max_iter=5000)),
        "gradient_boosting": make_pipeline(
            trees, HistGradientBoostingClassifier(categorical_features=list(range(len(text))), random_state=0)
        ),
        "majority": DummyClassifier(strategy="prior"),
    }


def values(results: list[SplitResult]) -> dict[str, dict[str, list[float]]]:
    """Return model -> metric -> one value a split."""
    return {
        model: {metric: [float(r.scores[model][metric]) for r in results] for metric in METRICS} for model in MODELS
    }


def differences(found: dict[str, dict[str, list[float]]], metric: str = "roc_auc") -> dict[str, tuple[float, float]]:
    """Return, for each other model, mean and standard deviation over splits of the network's metric minus its own."""
    pairs = {model: np.subtract(found["network"][metric], found[model][metric]) for model in MODELS[1:]}
    return {model: (float(d.mean()), _spread(d)) for model, d in pairs.items()}


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation over splits, as of a sample."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def text_table(name: str, found: dict[str, dict[str, list[float]]]) -> str:
    """Return the results for a terminal."""
    n_splits = len(found["network"]["roc_auc"])
    lines = [f"{name}: mean over {n_splits} splits (standard deviation of the AUC in brackets)"]
    lines.append(f"{'':22}" + "".join(f"{metric.replace('average_precision', 'avg.prec'):>11}" for metric in METRICS))
    for model in MODELS:
        cells = "".join(f"{np.mean(found[model][metric]):11.4f}" for metric in METRICS)
        lines.append(f"{model:22}{cells}   [{_spread(found[model]['roc_auc']):.4f}]")
    for model, (mean, spread) in list(differences(found).items())[:2]:
        lines.append(f"AUC of the network minus {model}, same splits: {mean:+.4f}, standard deviation {spread:.4f}")
    return "\n".join(lines)


def pictures(results: list[SplitResult]) -> dict[str, str]:
    """Return the four pictures of the first split, as base64 PNG."""
    first = results[0]
    return {
        "losses": _png(_draw_losses, first),
        "curves": _png(_draw_curves, first),
        "calibration": _png(_draw_calibration, first),
        "confusion": _png(_draw_confusion, first),
    }


def _png(draw, result: SplitResult) -> str:
    figure = plt.figure(figsize=(8.4 if draw is _draw_curves else 4.4, 3.6), layout="constrained")
    draw(figure, result)
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
    for model in MODELS[:3]:
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
    axes.plot(
        [proba[b].mean() for b in bins],
        [result.y[b].mean() for b in bins],
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


def write_metrics(path: Path, found: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    """Write data set -> model -> metric -> one value a split."""
    path.write_text(json.dumps(found, indent=1) + "\n")


def write_report(path: Path, sections: list[dict[str, object]]) -> None:
    """Write one self-contained page: no script, no other file, no network."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.jinja").render(sections=sections, metrics=METRICS, models=MODELS)
    path.write_text(page, encoding="utf-8")
