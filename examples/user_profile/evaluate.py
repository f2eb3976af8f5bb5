"""Step 5, evaluate: measure the network on rows it has not seen, beside three other models on the very same rows.

Every model learns from the rows to fit, and takes its threshold from the validation rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from .features import as_text, signed_log
from .preprocess import Table
from .train import Model, train

METRICS = ("accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "brier")
BESIDE = ("network", "logistic_regression", "gradient_boosting")  # what the pictures show
MODELS = ("network", "single_network", "logistic_regression", "gradient_boosting", "majority")


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


def evaluate(table: Table, fit: np.ndarray, validate: np.ndarray, test: np.ndarray, model: Model) -> SplitResult:
    """Measure the average of networks, its networks alone (the mean of their scores), and the models to compare with."""
    x = _plain(table)
    proba, threshold, scores = (
        {"network": model.predict_proba(table.frame.iloc[test])},
        {"network": model.threshold},
        {},
    )
    scores["network"] = score(table.y[test], proba["network"], model.threshold)
    alone = []
    for k in range(len(model.nets)):
        one = model.single(k)
        p = one.predict_proba(table.frame.iloc[test])
        cut = best_threshold(table.y[validate], one.predict_proba(table.frame.iloc[validate]))
        alone.append((p, cut, score(table.y[test], p, cut)))
    proba["single_network"], threshold["single_network"], _ = alone[0]
    scores["single_network"] = {metric: float(np.mean([s[metric] for *_, s in alone])) for metric in METRICS}
    for name, other in _baselines(table).items():
        other.fit(x.iloc[fit], table.y[fit])
        proba[name] = other.predict_proba(x.iloc[test])[:, 1]
        threshold[name] = best_threshold(table.y[validate], other.predict_proba(x.iloc[validate])[:, 1])
        if name == "majority":
            threshold[name] = 0.5
        scores[name] = score(table.y[test], proba[name], threshold[name])
    return SplitResult(table.y[test], proba, threshold, scores, model.history)


def _plain(table: Table) -> pd.DataFrame:
    """Return the table with missing categories as a category."""
    text = [name for name, kind in table.kinds.items() if kind == "category"]
    return table.frame.assign(**{name: as_text(table.frame[name]) for name in text})


def _baselines(table: Table) -> dict[str, Any]:
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


def one_column(table: Table, fit: np.ndarray, validate: np.ndarray, test: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the simple rule to beat: the column that alone ranks validation rows best, and what it says of the test rows."""
    alone = each_column(table, fit, validate)
    name = max(alone, key=lambda name: alone[name])
    return name, _rule(table, _plain(table), name, fit).predict_proba(_plain(table).iloc[test])[:, 1]


def each_column(table: Table, fit: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """Return the AUC that each column has alone on these rows."""
    x = _plain(table)
    return {
        name: float(metrics.roc_auc_score(table.y[rows], _rule(table, x, name, fit).predict_proba(x.iloc[rows])[:, 1]))
        for name in table.kinds
    }


def _rule(table: Table, x: pd.DataFrame, name: str, fit: np.ndarray) -> Pipeline:
    """Return a decision tree of eight leaves at most, which turns a column into probabilities."""
    encoder = (
        OneHotEncoder(min_frequency=5, handle_unknown="infrequent_if_exist")
        if table.kinds[name] == "category"
        else "passthrough"
    )
    tree = DecisionTreeClassifier(max_leaf_nodes=8, min_samples_leaf=max(5, len(fit) // 500), random_state=0)
    return make_pipeline(make_column_transformer((encoder, [name])), tree).fit(x.iloc[fit], table.y[fit])


def boosting(table: Table, fit: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the probabilities that gradient boosting gives these rows."""
    x = _plain(table)
    return _baselines(table)["gradient_boosting"].fit(x.iloc[fit], table.y[fit]).predict_proba(x.iloc[rows])[:, 1]


def learning_curve(table: Table, split: tuple[np.ndarray, ...], model: Model, n_epochs: int) -> list[tuple[int, float]]:
    """Return the AUC on the test rows of single networks trained on a quarter, a half and all of the rows to fit.

    With their numbers; ``model`` was trained on all.
    """
    fit, validate, test = split
    order, models = np.random.default_rng(0).permutation(len(fit)), {len(fit): model.single()}
    for share in (0.5, 0.25):
        rows = fit[order[: int(share * len(fit))]]
        if min(np.bincount(table.y[rows], minlength=2)) >= 10:
            models[len(rows)] = train(table, rows, validate, n_networks=1, n_epochs=n_epochs)
    frame, y = table.frame.iloc[test], table.y[test]
    return [(n, float(metrics.roc_auc_score(y, models[n].predict_proba(frame)))) for n in sorted(models)]


def shuffled(table: Table, model: Model, rows: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Return the AUC that the network loses on these rows when a column is shuffled among them, mean of three times."""
    rng, x, y = np.random.default_rng(0), model.encoder.transform(table.frame.iloc[rows]), table.y[rows]
    whole = metrics.roc_auc_score(y, model.of_features(x))
    columns, lost = [column["name"] for column in model.encoder.columns], {}
    for name in names:
        own, mixed, aucs = model.encoder.feature_columns() == columns.index(name), x.copy(), []
        for _ in range(3):
            mixed[:, own] = x[rng.permutation(len(rows))][:, own]
            aucs.append(metrics.roc_auc_score(y, model.of_features(mixed)))
        lost[name] = float(whole - np.mean(aucs))
    return lost


def values(results: list[SplitResult]) -> dict[str, dict[str, list[float]]]:
    """Return model -> metric -> one value a split."""
    return {
        model: {metric: [float(r.scores[model][metric]) for r in results] for metric in METRICS} for model in MODELS
    }


def differences(found: dict[str, dict[str, list[float]]], metric: str = "roc_auc") -> dict[str, tuple[float, float]]:
    """Return, for each other model, mean and standard deviation over splits of the network's metric minus its own."""
    pairs = {model: np.subtract(found["network"][metric], found[model][metric]) for model in MODELS[1:]}
    return {model: (float(d.mean()), _spread(d)) for model, d in pairs.items()}


def spreads(found: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Return model -> metric -> standard deviation over splits."""
    return {model: {name: _spread(values) for name, values in scores.items()} for model, scores in found.items()}


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation over splits, as of a sample."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def text_table(name: str, found: dict[str, dict[str, list[float]]]) -> str:
    """Return the results for a terminal."""
    n_splits = len(found["network"]["roc_auc"])
    over = (
        f"mean over {n_splits} splits (standard deviation of the AUC in brackets)"
        if n_splits > 1
        else "the network beside others"
    )
    lines = [f"{name}: {over}"]
    lines.append(f"{'':22}" + "".join(f"{metric.replace('average_precision', 'avg.prec'):>11}" for metric in METRICS))
    for model in MODELS:
        cells = "".join(f"{np.mean(found[model][metric]):11.4f}" for metric in METRICS)
        spread = f"   [{_spread(found[model]['roc_auc']):.4f}]" if n_splits > 1 else ""
        lines.append(f"{model:22}{cells}{spread}")
    lines.append("(network: the average that is deployed; single_network: one of its networks, on average)")
    for model, (mean, spread) in list(differences(found).items())[1:3] if n_splits > 1 else []:
        lines.append(f"AUC of the network minus {model}, same splits: {mean:+.4f}, standard deviation {spread:.4f}")
    return "\n".join(lines)


def write_metrics(path: Path, found: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    """Write data set -> model -> metric -> one value a split."""
    path.write_text(json.dumps(found, indent=1) + "\n")
