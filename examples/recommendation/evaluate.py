"""Step 6, evaluate: rank the full catalogue for every customer at days whose future is known, beside every simple method.

What is next, and what is new, are asked apart: most of a trip was bought before, and whoever mixes the two measures shopping
lists.
Items of equal score have no order, so each metric is its expectation over all of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOP = 10
METRICS = ("ndcg", "recall", "f1", "mrr")


@dataclass(frozen=True)
class Ranking:
    """How well one method ranked, a value a customer (NaN where nothing was to be found), and which items it put on top."""

    values: dict[str, np.ndarray]
    top: np.ndarray  # numbers of items, shape (n_rows, TOP)

    def coverage(self) -> int:
        """Return the number of distinct items in all tops."""
        return len(np.unique(self.top))


def rank(scores: np.ndarray, relevant: np.ndarray, top: int = TOP) -> Ranking:
    """Measure the ranking by ``scores`` of what is ``relevant``, both of shape (n_rows, n_items); -inf is never recommended."""
    n_items = scores.shape[1]
    top = min(top, n_items)
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    found = np.take_along_axis(relevant, order, axis=1) & np.isfinite(ranked)
    expected = _expected(ranked, found)
    n_relevant = (relevant & np.isfinite(scores)).sum(axis=1)
    discount = 1 / np.log2(np.arange(2, n_items + 2))
    ideal = np.append(0, np.cumsum(discount))[np.minimum(n_relevant, top)]
    hits = expected[:, :top].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        none = n_relevant == 0
        values = {
            "ndcg": (expected[:, :top] @ discount[:top]) / ideal,
            "recall": hits / n_relevant,
            "f1": 2 * hits / (top + n_relevant),
            "mrr": np.array([_reciprocal(*row) for row in zip(ranked, found, strict=True)]),
        }
    return Ranking({name: np.where(none, np.nan, value) for name, value in values.items()}, order[:, :top])


def _expected(ranked: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the probability that each place holds something relevant, equal scores in any order."""
    n_rows, n_items = ranked.shape
    starts = np.ones(ranked.shape, bool)
    starts[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    group = np.cumsum(starts.ravel()) - 1
    return (np.bincount(group, found.ravel()) / np.bincount(group))[group].reshape(n_rows, n_items)


def _reciprocal(ranked: np.ndarray, found: np.ndarray) -> float:
    """Return the expectation of 1 / the place of the first that is relevant; it stands among equals, and may be any of them."""
    if not found.any():
        return 0.0
    score = ranked[np.argmax(found)]
    equal = ranked == score
    start, size, hits = int(np.argmax(equal)), int(equal.sum()), int((found & equal).sum())
    value, left = 0.0, 1.0  # left: the probability that none of them came so far
    for k in range(size - hits + 1):
        here = left * hits / (size - k)
        value += here / (start + k + 1)
        left -= here
    return value


def difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the mean over customers of one minus the other, and its standard error."""
    d = (one - other)[~np.isnan(one) & ~np.isnan(other)]
    return float(d.mean()), float(d.std(ddof=1) / len(d) ** 0.5)
