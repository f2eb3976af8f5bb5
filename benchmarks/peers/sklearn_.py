"""scikit-learn's MLPClassifier, by partial_fit."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier

from benchmarks import adult, cases
from benchmarks.cases import Case


def _model(case: Case, x: Any, y: np.ndarray) -> MLPClassifier:
    model = MLPClassifier(
        tuple(case["sizes"][1:-1]),
        solver=case["optimizer"],
        learning_rate_init=0.01 if case["optimizer"] == "sgd" else 0.001,
        momentum=0.0,
        alpha=0.0,
        batch_size=case["batch"],
        random_state=0,
    )
    model.partial_fit(x[: case["batch"]], y[: case["batch"]], classes=np.unique(y))
    weights = cases.weights(case)
    if model.coefs_[-1].shape == weights[-1][0].shape:
        for mine, (W, b) in zip(zip(model.coefs_, model.intercepts_, strict=True), weights, strict=True):
            mine[0][...], mine[1][...] = W, b
    return model


def _train(case: Case, x: Any, y: np.ndarray) -> Any:
    model, rng = _model(case, x, y), np.random.default_rng(2)

    def epoch() -> None:
        for rows in cases.batches(case, rng):
            model.partial_fit(x[rows], y[rows])

    return cases.per_step(case, epoch)


def train(case: Case) -> Any:
    """Microseconds per step."""
    return _train(case, *cases.data(case))


def sparse(case: Case) -> Any:
    """Microseconds per step; each costs as much as W is large, so few rows will do."""
    case = case | {"rows": 3 * case["batch"]}
    return _train(case, *cases.sparse_data(case))


def predict(case: Case) -> Any:
    """Microseconds per call."""
    x, y = cases.data(case)
    model = _model(case, x[: case["batch"]] if case["rows"] > 1 else np.repeat(x, 2, 0), np.arange(max(len(y), 2)) % 2)
    return cases.per_call(lambda: model.predict_proba(x))


def curve(case: Case) -> Any:
    """Seconds and validation loss after each epoch."""
    x, y, x_val, y_val = adult.data()
    case = case | {"sizes": [x.shape[1], *case["sizes"][1:]], "rows": len(x)}
    model, rng = _model(case, x, y), np.random.default_rng(2)

    def epoch() -> None:
        for rows in cases.batches(case, rng):
            model.partial_fit(x[rows], y[rows])

    def score() -> float:
        p = model.predict_proba(x_val)[:, 1].astype(np.float64)
        return adult.validation_loss(np.log(p) - np.log1p(-p), y_val)

    return adult.clock(case, epoch, score)
