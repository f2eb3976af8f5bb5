"""Why an item: the log-odds shared out, exactly, among what the customer bought, how popular the item is, and the rest.

The network's share of each feature is its integrated gradient along the straight line from an artificial pair: someone of usual
trips, and an item of usual popularity, which they never bought, and of which their other purchases say nothing. What the other
purchases say is a sum over them, and so is shared out among them as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from ..user_profile.reasons import in_float64, integrated_gradients
from .pairs import ITEM, NEVER_BOUGHT, OTHERS, OWN, TRIPS, Pairs, Weights
from .train import KEPT, Ranker


@dataclass(frozen=True)
class Why:
    """The log-odds of a pair: the base and all shares add up to them."""

    log_odds: float
    base: float
    purchases: dict[str, float]  # the share of each other item that was bought, the largest first
    itself: float  # of having bought this item before, how often and when, or never
    popularity: float  # of the item
    trips: float  # of how often the customer comes, and how much they take


def why(pairs: Pairs, ranker: Ranker, items: np.ndarray, row: int, item: int, task: str) -> Why:
    """Return the shares of one pair."""
    block = pairs.block(np.array([row]))
    x = pairs.features(block, np.zeros(1, int), np.array([item]))
    start = ranker.mean.astype(float)
    n = len(OWN)
    start[:n], start[-len(OTHERS) :] = NEVER_BOUGHT, 0.0
    shares, base, log_odds = _shares(ranker, x[0].astype(float), start, task)
    parts = [
        contributions(x, weights, row, item) for x, weights in zip(pairs.known, pairs.learned.weights, strict=True)
    ]
    parts.append(parts[0])  # over popularity
    others = np.zeros(len(parts[0]))
    for part, share in zip(parts, shares[-len(OTHERS) :], strict=True):
        others += part * (share / part.sum() if share else 0.0)
    order = [i for i in np.argsort(-np.abs(others), kind="stable") if others[i]]
    at = n + len(TRIPS)
    return Why(
        log_odds,
        base,
        {str(items[i]): float(others[i]) for i in order},
        float(shares[:n].sum()),
        float(shares[at : at + len(ITEM)].sum()),
        float(shares[n:at].sum()),
    )


def contributions(known: csr_array, weights: Weights, row: int, item: int) -> np.ndarray:
    """Return what each purchase of a customer adds to the score of an item by others' purchases, shape (n_known,)."""
    x = known[[row]].toarray()[0]
    column = weights[:, [item]]
    return x.astype(float) * (column if isinstance(column, np.ndarray) else column.toarray())[:, 0]


def _shares(ranker: Ranker, x: np.ndarray, start: np.ndarray, task: str) -> tuple[np.ndarray, float, float]:
    """Return the share of each feature, and the log-odds at the start and at x."""
    net = in_float64(ranker.nets[task])
    one, other = ((values - ranker.mean) / ranker.scale for values in (x, start))
    z = net.forward(np.stack([other, one]))[0][:, 0] + np.log(KEPT)
    return integrated_gradients(net, one[None], other)[0], float(z[0]), float(z[1])
