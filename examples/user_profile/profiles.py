"""What the model says of each person, and of groups of people: probability, band, segment, and the three strongest reasons.

A profile is about a person, and belongs where the data are. Tables for others, such as those of the report, are about groups of
``K`` people at least; where a person is shown, each value is a range that at least ``K`` people share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from .features import as_text
from .preprocess import Table
from .reasons import reasons
from .train import Model

K = 50
BANDS = ("top 10 %", "next 20 %", "middle 40 %", "bottom 30 %")
N_REASONS = 3
LATELY = 90  # days
OTHER = "(other)"
SEGMENTS = {
    "high value": "spent more than four in five customers have, and bought within the last 90 days",
    "growing": "not the above; spent more in the last 90 days than in the 90 days before",
    "at risk": "bought on two days or more, but not within the last 90 days",
    "low": "everyone else",
}


@dataclass(frozen=True)
class Profiles:
    """The people of some rows: one row each of ``people``, and the aggregates of their reasons."""

    people: pd.DataFrame
    importance: pd.Series  # of each column: how its shares vary over these people, in log-odds, the greatest first
    average: float  # log-odds that the shares are told against: the mean of a sample of people
    completeness: float  # the largest difference between a log-odds and the sum of its shares


def band_edges(proba: np.ndarray) -> tuple[float, ...]:
    """Return the probabilities from which on a person is in the first, second and third band, by these (validation) rows."""
    return tuple(float(q) for q in np.quantile(proba, [0.9, 0.7, 0.3]))


def bands(model: Model, proba: np.ndarray) -> np.ndarray:
    """Return each person's band."""
    return np.array(BANDS)[np.sum(proba[:, None] < np.array(model.bands), axis=1)]


def segments(frame: pd.DataFrame, rich: float) -> np.ndarray:
    """Return each customer's segment by the rules of SEGMENTS, the first that holds; ``rich``: money that 4 in 5 are below."""
    lately = frame["days_since_last"] < LATELY
    before = frame["amount_180_days"] - frame["amount_90_days"]
    rules = [
        (frame["amount"] > rich) & lately,
        frame["amount_90_days"] > before,
        (frame["days_with_purchase"] >= 2) & ~lately,
    ]
    return np.select(rules, list(SEGMENTS)[:3], list(SEGMENTS)[3])


def make(table: Table, model: Model, fit: np.ndarray, rows: np.ndarray, *, is_log: bool) -> Profiles:
    """Return the profiles of the people in ``rows``; what counts as much money is taken from the rows ``fit``."""
    frame = table.frame.iloc[rows]
    proba = model.predict_proba(frame)
    shares, log_odds, average = reasons(model, frame)
    people = pd.DataFrame({"probability": proba, "band": bands(model, proba)}, index=frame.index)
    if is_log:
        people["segment"] = segments(frame, float(table.frame["amount"].iloc[fit].quantile(0.8)))
    values, names = shares.to_numpy(), shares.columns.to_numpy()
    order = np.argsort(-np.abs(values), axis=1, kind="stable")[:, :N_REASONS]
    each = np.arange(len(frame))
    for k in range(order.shape[1]):
        column = order[:, k]
        people[f"reason_{k + 1}"] = names[column]
        people[f"value_{k + 1}"] = [frame.iat[i, j] for i, j in zip(each, column, strict=True)]
        people[f"moved_{k + 1}"] = values[each, column]
    importance = shares.std(ddof=0).sort_values(ascending=False)
    return Profiles(people, importance, average, float(np.abs(values.sum(axis=1) + average - log_odds).max(initial=0)))


def hidden(counts: np.ndarray) -> np.ndarray:
    """Return which groups to suppress: those of fewer than K people, and the next one if a single sum would tell them.

    The people of all suppressed groups together are K at least, so that no group follows from the total and the others.
    """
    order = np.argsort(counts, kind="stable")
    hide = (counts < K) & (counts > 0)
    for k in order:
        if hide.any() and counts[hide].sum() < K and counts[k] > 0:
            hide[k] = True
    return hide


def cuts(band: np.ndarray, shares: tuple[float, ...] = (0.01, 0.05, 0.2, 0.5)) -> list[int]:
    """Return numbers of people to look at from the top: down to the end of each band but the last, and ``shares`` of all.

    Any two are at least K people apart, since their difference would tell of those in between.
    """
    n = len(band)
    sizes = [int(np.isin(band, BANDS[: k + 1]).sum()) for k in range(len(BANDS) - 1)] + [
        round(share * n) for share in shares
    ]
    kept = [0, n]
    for size in sizes:
        if all(abs(size - other) >= K for other in kept):
            kept.append(size)
    return sorted(kept)[1:-1]


def groups(
    labels: np.ndarray, y: np.ndarray, proba: np.ndarray, threshold: float, names: list[str]
) -> list[dict[str, Any]]:
    """Return aggregates of each group: people, share of yes, mean probability, and how right the answers are; None is hidden.

    A rate among fewer than K people has no figure. What is hidden in one table is hidden in that one only: somebody who knows
    how the groups of two tables overlap may learn more from both.
    """
    counts = np.array([np.sum(labels == name) for name in names])
    found = []
    for name, n, hide in zip(names, counts, hidden(counts), strict=True):
        if not n:
            continue
        figures: dict[str, Any] = {"name": name, "n": None if hide else int(n)}
        own = labels == name
        yes, no, said = own & (y == 1), own & (y == 0), proba >= threshold
        enough = not hide and min(yes.sum(), no.sum()) >= K
        figures["share"] = None if hide else float(y[own].mean())
        figures["proba"] = None if hide else float(proba[own].mean())
        figures["said_yes"] = None if hide else float(said[own].mean())
        figures["recall"] = float(said[yes].mean()) if enough else None
        figures["false_alarms"] = float(said[no].mean()) if enough else None
        figures["auc"] = float(roc_auc_score(y[own], proba[own])) if enough else None
        found.append(figures)
    return found


def coarse(values: pd.Series, reference: pd.Series, kind: str, n_bins: int) -> tuple[np.ndarray, list[str]]:
    """Return each value as a text that at least K of the ``reference`` rows share, and these texts in order.

    Numbers become ranges, about ``n_bins`` of them; categories stay. What is rare is OTHER, the one text that few may share.
    """
    if kind == "category":
        counts = as_text(reference).value_counts()
        common = counts.index[counts >= K].tolist()
        text = as_text(values).to_numpy(object)
        return np.where(np.isin(text.astype(str), common), text, OTHER), [*common, OTHER]
    known = reference.dropna().to_numpy(float)
    n_bins = max(min(n_bins, len(known) // K), 1)
    edges: list[float] = []
    for edge in (
        np.unique(np.quantile(known, np.linspace(0, 1, n_bins + 1)[1:-1], method="lower")) if n_bins > 1 else []
    ):
        below = edges[-1] if edges else -np.inf
        told_apart = not edges or _number(edge) != _number(below)
        if told_apart and min(((known > below) & (known <= edge)).sum(), (known > edge).sum()) >= K:
            edges.append(float(edge))
    whole = bool((known == np.round(known)).all())
    lows = [float(known.min()) if edges and known.min() == edges[0] else None, *edges]
    names = [_range(low, high, whole) for low, high in zip(lows, [*edges, None], strict=True)]
    names.append("not known" if len(reference) - len(known) >= K else OTHER)
    x = values.to_numpy(float)
    place = np.where(np.isnan(x), len(names) - 1, np.searchsorted(edges, x))
    return np.array(names, object)[place], names


def _range(low: float | None, high: float | None, whole: bool) -> str:
    if low is None or high is None:
        return "any" if low is high else f"up to {_number(high)}" if high is not None else f"more than {_number(low)}"
    if low == high or (whole and low + 1 == high):
        return _number(high)
    return f"{_number(low + 1)} to {_number(high)}" if whole else f"above {_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.4g}"


def cards(table: Table, profiles: Profiles, fit: np.ndarray, rows: np.ndarray) -> list[dict[str, Any]]:
    """Return an example of each segment (of each band, without segments): the person of median probability.

    Without a name or number, and with ranges for values. Groups that would be suppressed have no card.
    """
    people = profiles.people
    by = "segment" if "segment" in people else "band"
    names = list(SEGMENTS if by == "segment" else BANDS)
    hide = hidden(np.array([(people[by] == name).sum() for name in names]))
    found: list[dict[str, Any]] = []
    for name, suppressed in zip(names, hide, strict=True):
        own = np.flatnonzero(people[by] == name)
        if suppressed or not len(own):
            continue
        i = own[np.argsort(people["probability"].to_numpy()[own], kind="stable")[len(own) // 2]]
        person = people.iloc[i]
        card = {"of": name, "probability": float(person["probability"]), "band": person["band"], "reasons": []}
        log_odds = float(np.log(person["probability"]) - np.log1p(-person["probability"]))
        for k in range(1, N_REASONS + 1):
            if f"reason_{k}" in people:
                column = person[f"reason_{k}"]
                text, _ = coarse(
                    table.frame[column].iloc[rows[[i]]], table.frame[column].iloc[fit], table.kinds[column], 10
                )
                card["reasons"].append({"column": column, "value": text[0], "moved": float(person[f"moved_{k}"])})
        card["others"] = log_odds - profiles.average - sum(reason["moved"] for reason in card["reasons"])
        found.append(card)
    return found


def groups_of_columns(
    table: Table, profiles: Profiles, fit: np.ndarray, rows: np.ndarray, threshold: float, n_columns: int = 6
) -> dict[str, list[dict[str, Any]]]:
    """Return ``groups`` by the values of some columns: all categories of few values, then the numbers that matter most."""
    names = [name for name, kind in table.kinds.items() if kind == "category" and table.frame[name].nunique() <= 8]
    names += [name for name in profiles.importance.index if table.kinds[name] != "category"]
    proba = profiles.people["probability"].to_numpy()
    found = {}
    for name in names[:n_columns]:
        column = table.frame[name]
        labels, texts = coarse(column.iloc[rows], column.iloc[fit], table.kinds[name], 4)
        found[name] = groups(labels, table.y[rows], proba, threshold, texts)
    return found
