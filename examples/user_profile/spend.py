"""How much each customer will spend within the horizon, and how sure that is: the value of a customer, by numbers that add up.

A network with one output z says e^z times the mean; the Poisson loss makes it right on average, without setting apart
customers who spend nothing or much. Customers of similar expectation tell the interval.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingRegressor

import nnprofile as nn

from .features import ENCODINGS, Encoder
from .preprocess import Table
from .train import N_NETWORKS, Model, build

LOSS = nn.PoissonLoss()
INSIDE = 0.8  # of the customers spend what lies within the interval
N_BINS = 10  # of validation rows, by what is expected of them
MOST = 1.5  # times: by so much a total is put right
TOP = 0.1  # of the customers: how much of the money is theirs


def spent(log: pd.DataFrame, index: pd.Index, cutoff: pd.Timestamp, horizon: pd.Timedelta) -> np.ndarray:
    """Return what each of these customers spends within ``horizon`` after ``cutoff``, returns taken off: at least 0."""
    later = log[(log["date"] > cutoff) & (log["date"] <= cutoff + horizon)]
    total = later.groupby("customer")["amount"].sum().reindex(index, fill_value=0.0)
    return np.maximum(total.to_numpy(float), 0.0)


@dataclass(frozen=True)
class Spend:
    """What is expected of each customer, and between what nearly all of such customers spend."""

    encoder: Encoder
    nets: tuple[nn.Sequential, ...]
    mean: float
    edges: np.ndarray  # between bins, of what is expected
    low: np.ndarray  # in each bin, what 1 in 10 spends at most, as a multiple of what is expected
    high: np.ndarray  # and 9 in 10

    def expected(self, frame: pd.DataFrame) -> np.ndarray:
        """Return what each customer spends on average, shape (n_rows,)."""
        x = self.encoder.transform(frame)
        return self.mean * np.mean([np.exp(net.predict(x)[:, 0].astype(float)) for net in self.nets], axis=0)

    def interval(self, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return between what ``INSIDE`` of the customers with such an expectation spend."""
        at = np.searchsorted(self.edges, expected)
        return np.minimum(expected * self.low[at], expected), np.maximum(expected * self.high[at], expected)


def train(
    table: Table,
    amount: np.ndarray,
    fit: np.ndarray,
    validate: np.ndarray,
    model: Model,
    *,
    n_networks: int = N_NETWORKS,
    n_epochs: int = 100,
) -> Spend:
    """Train networks on what the rows ``fit`` spent, by the encoding of the model of who buys; intervals by ``validate``."""
    encoder, mean, nets = model.encoder, float(amount[fit].mean()) or 1.0, []
    x, x_validate = (encoder.transform(table.frame.iloc[rows]) for rows in (fit, validate))
    for seed in range(n_networks):
        rng = np.random.default_rng(seed)
        net = build(x.shape[1], ENCODINGS[model.encoding].dropout, rng)
        history = nn.fit(
            net,
            LOSS,
            nn.Adam(0.002, weight_decay=1.0),
            x,
            amount[fit] / mean,
            n_epochs=n_epochs,
            batch_size=256 if len(fit) > 5000 else 64,
            rng=rng,
            validation_data=(x_validate, amount[validate] / mean),
            early_stopping=nn.EarlyStopping(patience=5),
        )
        if history.stop_reason == "interrupted":
            raise KeyboardInterrupt
        nets.append(net)
    found = Spend(encoder, tuple(nets), mean, *[np.empty(0)] * 3)
    known = np.concatenate([fit, validate])  # without dropout e^z is lower, on average: the total is put right,
    right = amount[known].sum() / max(found.expected(table.frame.iloc[known]).sum(), 1e-9)
    mean *= float(np.clip(right, 1 / MOST, MOST)) if amount.any() else 0.0  # but not for one who outweighs all
    return _with_intervals(replace(found, mean=mean), table, amount, validate)


def _with_intervals(spend: Spend, table: Table, amount: np.ndarray, validate: np.ndarray) -> Spend:
    expected = spend.expected(table.frame.iloc[validate])
    order = np.argsort(expected, kind="stable")
    bins = [b for b in np.array_split(order, min(N_BINS, max(1, len(order) // 30))) if len(b)]
    tails, low, high = (1 - INSIDE) / 2, [], []
    # Of n rows the k-th smallest has k / (n + 1) of new ones below it, on average: so the interval holds what it says.
    for b in bins:
        ratio = np.sort(np.divide(amount[validate][b], expected[b], out=np.zeros(len(b)), where=expected[b] > 0))
        k = int(np.floor(tails * (len(b) + 1)))
        low.append(ratio[k - 1] if k else 0.0)
        high.append(ratio[-k] if k else ratio[-1])
    edges = np.array([expected[b].min() for b in bins[1:]])
    return replace(spend, edges=edges, low=np.array(low), high=np.array(high))


def others(table: Table, amount: np.ndarray, fit: np.ndarray, rows: np.ndarray, days: int) -> dict[str, np.ndarray]:
    """Return what boosting and the simple rule expect of these rows: that everyone goes on as in their days so far."""
    x = table.frame
    trees = HistGradientBoostingRegressor(loss="poisson", random_state=0).fit(x.iloc[fit], amount[fit] + 1e-9)
    rate = np.maximum(x["amount"], 0) / (x["days_since_first"] + 1)
    scale = amount[fit].sum() / max(
        float((rate * days).iloc[fit].sum()), 1e-9
    )  # the simple rule is right in total, too
    return {"gradient_boosting": trees.predict(x.iloc[rows]), "simple_rule": (rate * days * scale).to_numpy()[rows]}


def measure(amount: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Return how right an expectation is: in total, one by one, and in order.

    ``total``: expected over spent; ``error``: mean absolute error; ``top``: the share of the money that the tenth of highest
    expectation spends; ``rank``: the rank correlation.
    """
    top = np.argsort(-expected, kind="stable")[: max(1, round(TOP * len(amount)))]
    ranks = np.corrcoef(rankdata(amount), rankdata(expected))[0, 1] if np.ptp(amount) and np.ptp(expected) else 0.0
    return {
        "total": float(expected.sum() / max(amount.sum(), 1e-9)),
        "error": float(np.abs(amount - expected).mean()),
        "top": float(amount[top].sum() / max(amount.sum(), 1e-9)),
        "rank": float(ranks),
    }


def calibration(amount: np.ndarray, expected: np.ndarray, n_bins: int = N_BINS) -> list[tuple[float, float, int]]:
    """Return what was expected and what was spent on average, and of how many, by tenths of what was expected."""
    order = np.argsort(expected, kind="stable")
    return [
        (float(expected[b].mean()), float(amount[b].mean()), len(b)) for b in np.array_split(order, n_bins) if len(b)
    ]
