"""A re-ranker for diversity: maximal marginal relevance, by how alike two items' buyers are.

The list is built from the top: of those left, the item with the largest

    (1 - d) p / p_max - d max over those above it of alike(item, other)

comes next; p is its probability, p_max the customer's largest, and d in [0, 1) how much diversity is wanted.

References
----------
Carbonell and Goldstein (1998), "The use of MMR, diversity-based reranking for reordering documents and producing summaries".
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from .candidates import largest

POOL = 50  # an item below this place is not moved up


def rerank(logits: np.ndarray, pool: np.ndarray, alike: csr_array, k: int, wanted: float) -> np.ndarray:
    """Return the ``k`` items of each row in their new order, from the ``pool``, which is sorted by ``logits``."""
    z = np.take_along_axis(logits, pool, axis=1)
    with np.errstate(invalid="ignore"):
        p = np.where(np.isfinite(z), 1 / (1 + np.exp(-z)), -np.inf)
        left = (1 - wanted) * p / np.maximum(p[:, :1], 1e-300)
    left = np.maximum(left, -1e300)  # what is -inf comes last, but before what is taken
    near, rows, found = np.zeros(p.shape), np.arange(len(p)), []
    for _ in range(min(k, pool.shape[1])):
        best = np.argmax(left - wanted * near, axis=1)
        found.append(pool[rows, best])
        left[rows, best] = -np.inf
        near = np.maximum(near, similarity(alike, pool, found[-1]))
    return np.stack(found, axis=1)


def top(logits: np.ndarray, alike: csr_array | None, k: int, wanted: float) -> np.ndarray:
    """Return the ``k`` best items of each row, re-ranked if it is known how alike they are."""
    pool = largest(logits, k if alike is None else max(POOL, k))
    order = np.argsort(-np.take_along_axis(logits, pool, axis=1), axis=1, kind="stable")
    pool = np.take_along_axis(pool, order, axis=1)
    return pool if alike is None else rerank(logits, pool, alike, k, wanted)


def similarity(alike: csr_array, items: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how alike the items of each row, shape (n_rows, n), are to the row's other one, shape (n_rows,)."""
    return np.asarray(alike[items.ravel(), np.repeat(other, items.shape[1])]).reshape(items.shape)


def within(top: np.ndarray, alike: csr_array) -> float:
    """Return how alike two items of one list are, on average over lists."""
    n = top.shape[1]
    total = sum(similarity(alike, top[:, :i], top[:, i]).sum() for i in range(1, n))
    return float(total / (len(top) * n * (n - 1) / 2))
