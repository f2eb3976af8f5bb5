"""Step 4, pairs: what is known of a customer and an item on a day, in numbers that a network ranks by.

A customer has bought few of all items; so what tells of a pair that was bought is kept once, in a row of ``own``, and all other
pairs share its last row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, hstack

from .candidates import KINDS, LATELY, foretell, interactions, neighbours, popularity
from .events import Events

HALF_LIVES = (7, 20, 60, 120)
OWN = (
    *("bought", "times", *(f"times, half-life {days} days" for days in HALF_LIVES)),
    *("days since last", "days since first", "mean gap", "overdue", "in the last trip", "share of trips"),
)
TRIPS = ("trips", "items a trip", "days since last trip")
ITEM = ("popularity", "popularity lately", "share of buyers who bought it again")
OTHERS = ("others' purchases, whether", "others' purchases, how often", "others' purchases, whether, over popularity")
NAMES = (*OWN, *TRIPS, *ITEM, *OTHERS)
NEVER = 1000.0  # days
Weights = np.ndarray | csr_array  # of EASE, or of item-kNN
NEVER_BOUGHT = np.array([*[0.0] * (2 + len(HALF_LIVES)), *[np.log1p(NEVER)] * 3, np.log1p(1.0), 0.0, 0.0], np.float32)


@dataclass(frozen=True)
class Learned:
    """What is learned of items from everybody's purchases."""

    items: np.ndarray  # popularity, lately, and share of rebuyers, shape (n_items, 3)
    weights: tuple[Weights, ...]  # how purchases foretell others, shape (n_known, n_items), for each of KINDS

    @property
    def n_known(self) -> int:
        """The number of items that others are foretold by: the first ones; of the rest there are texts."""
        return int(self.weights[0].shape[0])

    @property
    def exact(self) -> bool:
        """Whether the weights are those of EASE, or of item-kNN."""
        return isinstance(self.weights[0], np.ndarray)

    @property
    def rarity(self) -> np.ndarray:
        """1 / the root of how often each item was bought."""
        return 1 / np.sqrt(np.maximum(np.expm1(self.items[:, 0]), 1))

    @classmethod
    def of(cls, history: Events, day: int, near: csr_array | None = None, *, exact: bool | None = None) -> Learned:
        """Learn from all that happened before ``day``.

        ``near`` says how the last items, which are rare, are like the first ones, by their texts. Others' purchases foretell such
        an item as they do those it is like, but no more of it than its own few purchases allow; ``exact``: see ``neighbours``.
        """
        counts = history.matrix()
        buyers = np.bincount(counts.indices, minlength=counts.shape[1])
        again = np.bincount(counts.indices[counts.data > 1], minlength=counts.shape[1]) / np.maximum(buyers, 1)
        popular = popularity(history, day)
        n_known = len(popular) - (0 if near is None else near.shape[0])
        weights = tuple(neighbours(history.known(n_known), kind, exact=exact) for kind in KINDS)
        if near is not None:
            allowed = np.minimum((1 + popular[n_known:]) / (1 + near @ popular[:n_known]), 1).astype(np.float32)
            more = csr_array(near.T) * allowed[None]
            weights = tuple(_extended(w, csr_array(more)) for w in weights)
            again[n_known:] = near @ again[:n_known]
        return cls(np.stack([np.log1p(popular), np.log1p(popularity(history, day, LATELY)), again], axis=1), weights)


@dataclass(frozen=True)
class Block:
    """Some customers, beside all items."""

    rows: np.ndarray
    place: np.ndarray  # the row of ``own`` of each pair, shape (n_rows, n_items)
    others: tuple[np.ndarray, ...]  # the score by others' purchases, for each of KINDS, shape (n_rows, n_items)
    bought: np.ndarray  # bool, shape (n_rows, n_items)


@dataclass(frozen=True)
class Pairs:
    """All that the features of pairs are made from, before a day."""

    history: Events
    day: int
    learned: Learned
    cells: csr_array  # the row of ``own``, plus one
    own: np.ndarray
    trips: np.ndarray  # each customer's number, size and recency of trips
    known: tuple[csr_array, ...]  # what ``learned.weights`` multiply

    @classmethod
    def of(cls, events: Events, day: int, learned: Learned | None = None) -> Pairs:
        """Describe what happened before ``day``; ``learned`` from others, by default from the same."""
        history = events.before(day)
        learned = learned or Learned.of(history, day)
        known = history.known(learned.n_known)  # what the networks are taught by; rarer purchases are no trips
        latest, n_trips = known.latest(), known.n_trips()
        size = np.bincount(known.customer, minlength=len(latest)) / np.maximum(n_trips, 1)
        since = np.where(latest < 0, NEVER, day - latest)
        return cls(
            history,
            day,
            learned,
            *_own(history, day, latest, n_trips),
            np.stack([np.log1p(n_trips), np.log1p(size), np.log1p(since)], axis=1).astype(np.float32),
            tuple(interactions(known, kind) for kind in KINDS),
        )

    def block(self, rows: np.ndarray) -> Block:
        """Return these customers beside all items."""
        place = self.cells[rows].toarray() - 1
        others = tuple(foretell(x[rows], w) for x, w in zip(self.known, self.learned.weights, strict=True))
        return Block(rows, place, others, place >= 0)

    def features(self, block: Block, row: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Return the features of pairs, float32, shape (n_pairs, n_features); ``row`` counts within the block."""
        wide = np.empty((len(row), len(NAMES)), np.float32)
        at = len(OWN)
        wide[:, :at] = self.own[block.place[row, item]]
        wide[:, at : at + 3] = self.trips[block.rows[row]]
        wide[:, at + 3 : at + 6] = self.learned.items[item]
        for k, scores in enumerate(block.others):
            wide[:, at + 6 + k] = scores[row, item]
        wide[:, -1] = wide[:, at + 6] * self.learned.rarity[item]
        return wide


def _extended(weights: Weights, near: csr_array) -> Weights:
    more = weights @ near
    return csr_array(hstack([weights, more])) if isinstance(weights, csr_array) else np.hstack([weights, more])


def _own(history: Events, day: int, latest: np.ndarray, n_trips: np.ndarray) -> tuple[csr_array, np.ndarray]:
    """Return where each pair that was bought has its row, and these rows; the last row is of what was never bought."""
    starts = np.ones(len(history), bool)  # events are sorted: those of a pair stand together, in order of time
    starts[1:] = (np.diff(history.customer) != 0) | (np.diff(history.item) != 0)
    place, at = np.cumsum(starts) - 1, np.flatnonzero(starts)
    n, customer, item, first = len(at), history.customer[at], history.item[at], history.day[at]
    last = history.day[np.append(at, len(history))[1:] - 1]
    counts = np.bincount(place, minlength=n)
    decayed = [np.bincount(place, 2.0 ** (-(day - history.day) / days), n) for days in HALF_LIVES]
    gap = np.where(counts > 1, (last - first) / np.maximum(counts - 1, 1), NEVER)
    since = day - last
    bought = [
        *(np.ones(n), np.log1p(counts), *map(np.log1p, decayed), np.log1p(since), np.log1p(day - first)),
        *(
            np.log1p(gap),
            np.log1p(since / np.maximum(gap, 1)),
            last == latest[customer],
            counts / np.maximum(n_trips[customer], 1),
        ),
    ]
    own = np.vstack([np.stack(bought, axis=1).astype(np.float32), NEVER_BOUGHT])
    return csr_array((np.arange(1, n + 1), (customer, item)), shape=history.shape), own
