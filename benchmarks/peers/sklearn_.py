"""scikit-learn's MLPClassifier: ``fit`` with a warm start, whole epochs at a time, which is faster than partial_fit."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from benchmarks import adult, cases
from benchmarks.cases import Case

warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are counted on purpose


def _model(case: Case, x: Any, y: np.ndarray, n_epochs: int = 1) -> MLPClassifier:
    """Return a model with the shared weights, where its last layer has their shape, that goes on at each ``fit``."""
    model = MLPClassifier(
        tuple(case["sizes"][1:-1]),
        solver=case["optimizer"],
        learning_rate_init=0.01 if case["optimizer"] == "sgd" else 0.001,
        momentum=0.0,
        alpha=0.0,
        batch_size=min(case["batch"], len(y)),
        random_state=0,
        warm_start=True,
        max_iter=n_epochs,
        tol=0.0,
        n_iter_no_change=10**9,
    )
    model.fit(x, y)
    weights = cases.weights(case)
    if model.coefs_[-1].shape == weights[-1][0].shape:
        for mine, (W, b) in zip(zip(model.coefs_, model.intercepts_, strict=True), weights, strict=True):
            mine[0][...], mine[1][...] = W, b
    return model


def _train(case: Case, x: Any, y: np.ndarray) -> Any:
    n_epochs = case.get("epochs_per_fit", 5)
    model = _model(case, x, y, n_epochs)
    measure = cases.per_step(case, lambda: model.fit(x, y))
    return lambda: [t / n_epochs for t in measure()]


def train(case: Case) -> Any:
    """Microseconds per step."""
    return _train(case, *cases.data(case))


def sparse(case: Case) -> Any:
    """Microseconds per step; each costs as much as W is large, so few rows will do."""
    case = case | {"rows": 20 * case["batch"], "epochs_per_fit": 1}
    return _train(case, *cases.sparse_data(case))


def predict(case: Case) -> Any:
    """Microseconds per call."""
    x, _ = cases.data(case)
    model = _model(case, np.repeat(x[:1], 2, 0), np.arange(2))
    return cases.per_call(lambda: model.predict_proba(x))


def curve(case: Case) -> Any:
    """Seconds and validation loss after each epoch."""
    x, y, x_val, y_val = adult.data()
    case = case | {"sizes": [x.shape[1], *case["sizes"][1:]], "rows": len(x)}
    model, rng = _model(case, x, y), np.random.default_rng(2)
    model._optimizer = type(model._optimizer)(model.coefs_ + model.intercepts_, 0.001)  # as if it had never stepped

    def epoch() -> None:  # partial_fit keeps the moments between epochs, fit does not
        for rows in cases.batches(case, rng):
            model.partial_fit(x[rows], y[rows])

    def score() -> float:
        p = model.predict_proba(x_val)[:, 1].astype(np.float64)
        return adult.validation_loss(np.log(p) - np.log1p(-p), y_val)

    return adult.clock(case, epoch, score)
