"""Step 4, pairs: what is known of a customer and an item on a day, in numbers that a network ranks by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from .candidates import LATELY, PENALTY, ease, interactions, popularity
from .events import Events

HALF_LIVES = (7, 20, 60, 120)
NAMES = (
    *("bought", "times", *(f"times, half-life {days} days" for days in HALF_LIVES)),
    *("days since last", "days since first", "mean gap", "overdue", "in the last trip", "share of trips"),
    *("trips", "items a trip", "days since last trip"),
    *("popularity", "popularity lately", "share of buyers who bought it again"),
    *("EASE, whether", "EASE, how often"),
)
NEVER = 1000.0  # days


@dataclass(frozen=True)
class Pairs:
    """All that the features of pairs are made from, before a day."""

    history: Events
    day: int
    counts: csr_array
    sparse: tuple[csr_array, ...]  # decayed counts, then last and first day, and whether in the last trip
    trips: np.ndarray  # each customer's number, size and recency of trips
    items: np.ndarray  # each item's popularity, lately, and share of rebuyers
    known: tuple[csr_array, ...]  # what EASE multiplies
    weights: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, events: Events, day: int) -> Pairs:
        """Learn from what happened before ``day``."""
        history = events.before(day)
        counts = history.matrix()
        n_items = counts.shape[1]
        buyers = np.bincount(counts.indices, minlength=n_items)
        again = np.bincount(counts.indices[counts.data > 1], minlength=n_items)
        known = [popularity(history, day), popularity(history, day, LATELY)]
        items = np.stack([*map(np.log1p, known), again / np.maximum(buyers, 1)], axis=1)
        weights = tuple(ease(interactions(history, kind), penalty) for kind, penalty in PENALTY.items())
        return cls._describe(history, day, items, weights)

    def of_others(self, history: Events) -> Pairs:
        """Return the same for other customers, by their own history and by what is known of items."""
        return self._describe(history.before(self.day), self.day, self.items, self.weights)

    @classmethod
    def _describe(cls, history: Events, day: int, items: np.ndarray, weights: tuple[np.ndarray, ...]) -> Pairs:
        n_customers = history.shape[0]
        latest = np.full(n_customers, -1)
        np.maximum.at(latest, history.customer, history.day)
        last, first = _extreme(history, np.maximum, 0), _extreme(history, np.minimum, day)
        of_last = history.matrix((history.day == latest[history.customer]).astype(float))
        n_trips = history.n_trips()
        size = np.bincount(history.customer, minlength=n_customers) / np.maximum(n_trips, 1)
        return cls(
            *(history, day, history.matrix()),
            (*(history.decayed(day, h) for h in HALF_LIVES), last, first, of_last),
            *(np.stack([np.log1p(n_trips), np.log1p(size), np.log1p(day - latest)], axis=1), items),
            *(tuple(interactions(history, kind) for kind in PENALTY), weights),
        )

    def bought(self, rows: np.ndarray) -> np.ndarray:
        """Return whether these customers bought each item before, shape (n_rows, n_items)."""
        return self.counts[rows].toarray() > 0

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Return the features of these customers with every item, float32, shape (n_rows, n_items, n_features)."""
        counts = self.counts[rows].toarray()
        *decayed, last, first, of_last = (matrix[rows].toarray() for matrix in self.sparse)
        has = counts > 0
        since, age = np.where(has, self.day - last, NEVER), np.where(has, self.day - first, NEVER)
        gap = np.where(counts > 1, (last - first) / np.maximum(counts - 1, 1), NEVER)
        n_trips = np.expm1(self.trips[rows, :1])
        own = [
            *(has, np.log1p(counts), *(np.log1p(d) for d in decayed)),
            *(np.log1p(since), np.log1p(age), np.log1p(gap), np.log1p(since / np.maximum(gap, 1)), of_last),
            counts / np.maximum(n_trips, 1),
        ]
        wide = np.empty((len(rows), counts.shape[1], len(NAMES)), np.float32)
        for k, values in enumerate(own):
            wide[:, :, k] = values
        at = len(own)
        wide[:, :, at : at + 3] = self.trips[rows][:, None]
        wide[:, :, at + 3 : at + 6] = self.items[None]
        for k, (x, weights) in enumerate(zip(self.known, self.weights, strict=True)):
            wide[:, :, at + 6 + k] = x[rows] @ weights
        return wide


def _extreme(history: Events, better: np.ufunc, start: int) -> csr_array:
    """Return for each customer and item the latest, or earliest, day."""
    keys, place = np.unique(history.customer * history.shape[1] + history.item, return_inverse=True)
    found = np.full(len(keys), start)
    better.at(found, place, history.day)
    return csr_array((found.astype(float), np.divmod(keys, history.shape[1])), shape=history.shape)
