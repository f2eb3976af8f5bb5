"""Who stays away for 30 days, and who comes within 7: from days and money alone, of any log of orders.

Also what the two reductions of what people buy add to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from . import classify
from .events import Events
from .reductions import N_COMPONENTS, Reductions, beside

TEST, FIT = (61, 31), (265, 235, 205, 175, 145)  # days before the end at which the question is asked
FEWEST, FEWEST_COMPONENTS = 50, N_COMPONENTS  # customers, and half as many items
EARLIEST = 90  # day of the log
QUESTIONS = {"no visit within 30 days": (30, 0), "a visit within 7 days": (7, 1)}
SETTINGS = classify.Settings(dropout=0.1, decay=0.3, n_epochs=20, batch_size=128)
COLUMNS = (
    *("days since the last trip", "mean gap", "overdue", "trips in 7 days", "trips in 30 days", "trips in 90 days"),
    *("money in 30 days", "money in 90 days", "share of past weeks with a trip", "share of past months with a trip"),
)


def calendar(events: Events, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return for each customer and day whether there was a trip, and the money spent, shape (n_customers, n_days)."""
    shape = len(events.customers), events.end
    trips, money = np.zeros(shape, bool), np.zeros(shape)
    customer = pd.Index(events.customers).get_indexer(frame["customer"].astype(str))
    day = (frame["date"] - events.first).dt.days.to_numpy()
    known = (customer >= 0) & (day >= 0) & (day < shape[1])
    trips[customer[known], day[known]] = True
    np.add.at(money, (customer[known], day[known]), frame["amount"].to_numpy()[known])
    return trips, money


def asked(trips: np.ndarray, day: int) -> np.ndarray:
    """Return the customers with at least 3 trips before the day, and one in the last 60 days."""
    return np.flatnonzero((trips[:, :day].sum(axis=1) >= 3) & trips[:, max(day - 60, 0) : day].any(axis=1))


def features(trips: np.ndarray, money: np.ndarray, day: int) -> np.ndarray:
    """Return ``COLUMNS`` of those who are asked about, shape (n_rows, 10)."""
    who = asked(trips, day)
    back, spent = trips[who, :day][:, ::-1], money[who, :day][:, ::-1]  # column k is of k + 1 days before
    last, first = back.argmax(axis=1), day - 1 - back[:, ::-1].argmax(axis=1)
    gap = (first - last) / (back.sum(axis=1) - 1)

    def habit(width: int) -> np.ndarray:
        return back[:, : day // width * width].reshape(len(who), -1, width).any(axis=2).mean(axis=1)

    logs = [last, gap, last / gap, *(back[:, :d].sum(axis=1) for d in (7, 30, 90))]
    logs += [np.maximum(spent[:, :d].sum(axis=1), 0) for d in (30, 90)]
    return np.stack([*map(np.log1p, logs), habit(7), habit(30)], axis=1)


def section(events: Events, frame: pd.DataFrame, *, n_networks: int) -> dict[str, Any]:
    """Return what is measured, for the report."""
    title = "Who stays away, and who comes soon"
    trips, money = calendar(events, frame)
    fit = [events.end - d for d in FIT if events.end - d >= EARLIEST]
    test = [events.end - d for d in TEST]
    if not fit:
        text = f"Not asked: {EARLIEST + min(FIT)} days of orders are needed, and there are {events.end}."
        return {"title": title, "texts": [text], "tables": []}
    if min(len(asked(trips, d)) for d in (*fit, *test)) < FEWEST or min(events.shape) <= 2 * FEWEST_COMPONENTS:
        text = f"Not asked: on some day fewer than {FEWEST} customers had made 3 trips, one of them within 60 days."
        return {"title": title, "texts": [text], "tables": []}
    who = np.concatenate([asked(trips, d) for d in test])
    parts = [np.concatenate([features(trips, money, d) for d in days]) for days in (fit, test)]
    reductions = Reductions.fit(events, fit[-1])
    reduced = [_stacked([reductions.before(d, asked(trips, d)) for d in days]) for days in (fit, test)]
    tried = [beside(x, r) for x, r in zip(parts, reduced, strict=True)]
    tables = []
    for question, (days, wanted) in QUESTIONS.items():
        y, y_test = (
            np.concatenate([trips[asked(trips, d), d : d + days].any(axis=1) == wanted for d in at]).astype(int)
            for at in (fit, test)
        )
        if min(y.mean(), 1 - y.mean(), y_test.mean(), 1 - y_test.mean()) == 0:
            continue
        tables.append(_table(question, tried, y, y_test, who, n_networks))
    text = (
        f"For customers with at least 3 trips and one within 60 days, from {len(COLUMNS)} columns of days and money. Learned at "
        f"{len(fit)} earlier days, measured at {len(test)} later ones ({len(who):,} customers and days). The components and "
        "topics of what people buy were learned before these; the differences are to the network on the columns alone."
    )
    return {"title": title, "texts": [text], "tables": tables}


def _table(
    question: str, tried: list[dict[str, np.ndarray]], y: np.ndarray, y_test: np.ndarray, who: np.ndarray, n: int
) -> dict[str, Any]:
    x, x_test = (part["columns"] for part in tried)
    best, sign = classify.best_column(x, y)
    rows = [
        [*classify.row(f"one column: {COLUMNS[best]}", y_test, sign * x_test[:, best], probabilities=False), ""],
        [*classify.row("logistic regression", y_test, classify.logistic(x, y, x_test)), ""],
        [*classify.row("boosting", y_test, classify.boosting(x, y, x_test)), ""],
    ]
    first = None
    for name in tried[0]:
        p = classify.networks(tried[0][name], y, tried[1][name], SETTINGS, n=n)
        found = classify.row(f"network: {name}", y_test, p)
        first = p if first is None else first
        moved = "" if p is first else "{:+.4f} ± {:.4f}".format(*classify.difference(y_test, who, p, first))
        rows.append([*found, moved])
    caption = f"{question[0].upper()}{question[1:]}: {y_test.mean():.0%} of {len(y_test):,}."
    return {"caption": caption, "head": ["", "AUC", "log loss", "AUC, difference"], "rows": rows}


def _stacked(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
