"""Step 3, candidates: simple exact methods, each a score for every customer and item from what is known before a day.

Popularity, the customer's own frequency, and two kinds of collaborative filtering. Higher is better; only the order counts.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array, diags_array

from .events import Events

LATELY = 30  # days
HALF_LIFE = 120.0  # days
NEIGHBOURS = 100
PENALTY = {"binary": 2000.0, "log": 100.0}  # of EASE, by what is known of a customer and an item
MOST_ITEMS = 8000  # EASE is an inverse of items x items


def popularity(history: Events, day: int, days: int | None = None) -> np.ndarray:
    """Return how often each item was bought, by whomever, in the last ``days``; shape (n_items,)."""
    lately = history if days is None else history.within(day - days, day)
    return np.bincount(lately.item, minlength=len(history.items)).astype(float)


def frequency(history: Events, day: int, half_life: float = HALF_LIFE) -> csr_array:
    """Return how often each customer bought each item, a purchase counting half after ``half_life`` days."""
    return history.decayed(day, half_life)


def interactions(history: Events, kind: str) -> csr_array:
    """Return what EASE learns from: "binary", whether a customer bought an item; "log", the logarithm of 1 + how often."""
    counts = history.matrix()
    return csr_array(
        (np.ones_like(counts.data) if kind == "binary" else np.log1p(counts.data), counts.indices, counts.indptr),
        counts.shape,
    )


def ease(x: csr_array, penalty: float) -> np.ndarray:
    """Return the weights B, shape (n_items, n_items), with which x @ B foretells x, no item itself: diag(B) = 0.

    The minimum of |x - x B|^2 + penalty |B|^2 is one solve: with P = (x' x + penalty)^-1, B = 1 - P diag(P)^-1.

    References
    ----------
    Steck (2019), "Embarrassingly shallow autoencoders for sparse data", eq. 8.
    """
    n = x.shape[1]
    if n > MOST_ITEMS:
        raise ValueError(f"EASE inverts a matrix of items by items, and {n} are more than {MOST_ITEMS}: use item_knn")
    gram = (x.T @ x).toarray()
    gram[np.diag_indices(n)] += penalty
    inverse = cho_solve(cho_factor(gram, lower=True, overwrite_a=True), np.eye(n))
    weights = -inverse / np.diag(inverse)
    weights[np.diag_indices(n)] = 0.0
    return weights.astype(np.float32)


def item_knn(history: Events, n_neighbours: int = NEIGHBOURS) -> csr_array:
    """Return for each item its nearest others, by the cosine of the logarithms of counts; x @ this is a score."""
    x = interactions(history, "log")
    norms = np.sqrt((x.multiply(x)).sum(axis=0))
    unit = x @ diags_array(1 / np.maximum(norms, 1e-12))
    cosine = csr_array(unit.T @ unit)
    cosine.setdiag(0)
    cosine.eliminate_zeros()
    rows = []
    for i in range(cosine.shape[0]):  # row by row: the whole need not be dense
        start, end = cosine.indptr[i : i + 2]
        data, place = cosine.data[start:end], cosine.indices[start:end]
        best = np.argsort(-data, kind="stable")[:n_neighbours]
        rows.append((np.full(len(best), i), place[best], data[best]))
    row, column, value = (np.concatenate(part) for part in zip(*rows, strict=True))
    return csr_array((value, (column, row)), cosine.shape)
