"""Who says yes, from a table of columns: four small networks, averaged, beside logistic regression and boosting.

Early stopping is not used: scikit-learn's, which watches the accuracy, stops at once where few say yes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nnprofile as nn

from ..user_profile.train import average, dense_stack
from .train import HIDDEN, LOSS, N_NETWORKS

N_RESAMPLES = 100


@dataclass(frozen=True)
class Settings:
    """How the networks are trained."""

    dropout: float
    decay: float
    n_epochs: int
    batch_size: int


def networks(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, how: Settings, *, n: int = N_NETWORKS, scale: bool = True
) -> np.ndarray:
    """Return the probabilities of ``x_test`` by the average of ``n`` networks; columns are standardised unless told not to."""
    mean, std = (x.mean(axis=0), x.std(axis=0) + 1e-9) if scale else (0.0, 1.0)
    x, x_test = (x - mean) / std, (x_test - mean) / std
    nets = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        net = dense_stack(x.shape[1], HIDDEN, rng, how.dropout)
        rate = nn.CosineDecay(0.002, n_steps=how.n_epochs * -(-len(y) // how.batch_size))
        optimizer = nn.Adam(rate, weight_decay=how.decay)
        history = nn.fit(net, LOSS, optimizer, x, y, n_epochs=how.n_epochs, batch_size=how.batch_size, rng=rng)
        if history.stop_reason == "interrupted":
            raise KeyboardInterrupt
        nets.append(net)
    return LOSS.link.forward(average(tuple(nets)).predict(x_test))[0][:, 0].astype(float)


def logistic(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, penalty: float = 10.0, *, scale: bool = True
) -> np.ndarray:
    """Return the probabilities by logistic regression; columns are standardised unless told not to."""
    scaler = StandardScaler(with_mean=scale, with_std=scale)
    model = make_pipeline(scaler, LogisticRegression(C=1 / penalty, max_iter=2000))
    return model.fit(x, y).predict_proba(x_test)[:, 1]


def boosting(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Return the probabilities by gradient boosting."""
    model = HistGradientBoostingClassifier(
        max_iter=80, learning_rate=0.05, max_leaf_nodes=8, l2_regularization=5, early_stopping=False, random_state=0
    )
    return model.fit(x, y).predict_proba(x_test)[:, 1]


def best_column(x: np.ndarray, y: np.ndarray) -> tuple[int, int]:
    """Return the column that alone ranks best, and 1, or -1 if the yes are where it is small."""
    found = np.array([roc_auc_score(y, column) for column in x.T])
    best = int(np.argmax(np.abs(found - 0.5)))
    return best, 1 if found[best] > 0.5 else -1


def top_tenth(y: np.ndarray, scores: np.ndarray) -> float:
    """Return the part of the yes among the highest tenth of the scores."""
    return float(y[np.argsort(-scores, kind="stable")[: round(len(y) / 10)]].sum() / y.sum())


def difference(y: np.ndarray, who: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the AUC of one minus the other's, and its standard error over people, by drawing them again."""
    rng = np.random.default_rng(0)
    order = np.argsort(who, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(who[order])) + 1)
    found = []
    for _ in range(N_RESAMPLES):
        r = np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))])
        found.append(roc_auc_score(y[r], one[r]) - roc_auc_score(y[r], other[r]))
    return roc_auc_score(y, one) - roc_auc_score(y, other), float(np.std(found))


def row(name: str, y: np.ndarray, p: np.ndarray, *, probabilities: bool = True, top: bool = False) -> list[Any]:
    """Return a row of a table: name, AUC, log loss where the scores are probabilities, and the top tenth where asked."""
    found = [name, f"{roc_auc_score(y, p):.4f}", f"{log_loss(y, p):.4f}" if probabilities else "–"]
    return [*found, f"{top_tenth(y, p):.1%}"] if top else found
