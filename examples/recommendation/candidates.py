"""Step 3, candidates: simple exact methods, each a score for every customer and item from what is known before a day.

Popularity, the customer's own frequency, and two kinds of collaborative filtering. Higher is better; only the order counts.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack
from scipy.sparse import csr_array, csr_matrix, diags_array

from .events import Events

LATELY = 30  # days
HALF_LIFE = 120.0  # days
NEIGHBOURS = 100
SOME = 1000  # items at a time
FACTORS, RIDGE = 32, 0.01  # of alternating least squares
DENSE = 0.02  # share of purchases among pairs from which on a dense product is faster
KINDS = ("binary", "log")  # what is known of a customer and an item
PENALTY = {"binary": 2000.0, "log": 100.0}  # of EASE
MOST_ITEMS = 8000  # EASE is an inverse of items x items
N_CANDIDATES = 100  # of each method


def popularity(history: Events, day: int, days: int | None = None) -> np.ndarray:
    """Return how often each item was bought, by whomever, in the last ``days``; shape (n_items,)."""
    lately = history if days is None else history.within(day - days, day)
    return np.bincount(lately.item, minlength=len(history.items)).astype(float)


def frequency(history: Events, day: int, half_life: float = HALF_LIFE) -> csr_array:
    """Return how often each customer bought each item, a purchase counting half after ``half_life`` days."""
    return history.decayed(day, half_life)


def interactions(history: Events, kind: str) -> csr_array:
    """Return what filtering learns from: "binary", whether a customer bought an item; "log", the logarithm of 1 + how often."""
    x = history.matrix().astype(np.float32)
    x.data = np.ones_like(x.data) if kind == "binary" else np.log1p(x.data)
    return x


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
    x, gram = x.astype(float), np.empty((n, n), order="F")
    across = csr_array(x.T)
    for start in range(0, n, SOME):  # the whole, sparse, is larger than the matrix
        gram[start : start + SOME] = (across[start : start + SOME] @ x).toarray()
    gram[np.diag_indices(n)] += penalty
    inverse, info = lapack.dpotri(lapack.dpotrf(gram, lower=True, overwrite_a=True)[0], lower=True, overwrite_c=True)
    assert info == 0
    scale = -1 / np.diag(inverse).astype(np.float32)
    weights = np.asarray(np.tril(inverse, -1), np.float32)
    weights += weights.T
    return weights * scale


def item_knn(x: csr_array, n_neighbours: int = NEIGHBOURS) -> csr_array:
    """Return for each item its nearest others, by the cosine of their columns of x; x @ this is a score."""
    norms = np.sqrt((x.multiply(x)).sum(axis=0))
    unit = csr_array(x @ diags_array(1 / np.maximum(norms, 1e-12)), dtype=np.float32)
    across, n_items, parts = csr_array(unit.T), x.shape[1], []
    for start in range(0, n_items, SOME):  # the whole need not fit into memory
        cosine = (across[start : start + SOME] @ unit).toarray()
        at = np.arange(len(cosine))
        cosine[at, start + at] = 0
        best = largest(cosine, n_neighbours)
        value = np.take_along_axis(cosine, best, axis=1)
        row, column = np.nonzero(value)
        parts.append((value[row, column], best[row, column], start + row))
    value, near, item = (np.concatenate(part) for part in zip(*parts, strict=True))
    return csr_array((value, (near, item)), (n_items, n_items))


def largest(scores: np.ndarray, n: int) -> np.ndarray:
    """Return the columns of the ``n`` largest scores of each row, in no order."""
    n_rows, n_columns = scores.shape
    if n >= n_columns:
        return np.tile(np.arange(n_columns), (n_rows, 1))
    return np.argpartition(-scores, n - 1, axis=1)[:, :n]


def neighbours(history: Events, kind: str, *, exact: bool | None = None) -> np.ndarray | csr_array:
    """Return the weights of EASE if ``exact``, else those of item-kNN; by default EASE, unless there are too many items."""
    x = interactions(history, kind)
    return ease(x, PENALTY[kind]) if (x.shape[1] <= MOST_ITEMS if exact is None else exact) else item_knn(x)


def foretell(x: csr_array, weights: np.ndarray | csr_array) -> np.ndarray:
    """Return x @ weights, dense, float32."""
    if isinstance(weights, csr_array):
        return (x @ weights).toarray().astype(np.float32, copy=False)
    return (x.toarray() if x.nnz > DENSE * np.prod(x.shape) else x) @ weights


def choose(others: tuple[np.ndarray, ...], lately: np.ndarray, able: np.ndarray, n: int = N_CANDIDATES) -> np.ndarray:
    """Return which pairs are worth ranking, bool: the ``n`` best able ones by each score, and by popularity of late."""
    chosen = np.zeros(able.shape, bool)
    for scores in (*others, np.broadcast_to(lately, able.shape)):
        np.put_along_axis(chosen, largest(np.where(able, scores, -np.inf), n), True, axis=1)
    return chosen & able


def least_squares(x: csr_array) -> np.ndarray | None:
    """Return the items' factors by implicit alternating least squares, shape (n_items, FACTORS); None without ``implicit``.

    References
    ----------
    Hu, Koren and Volinsky (2008), "Collaborative filtering for implicit feedback datasets"; the package implicit.
    """
    try:
        from implicit.cpu.als import AlternatingLeastSquares
    except ImportError:
        return None
    model = AlternatingLeastSquares(FACTORS, regularization=RIDGE, random_state=0, num_threads=1)
    model.fit(csr_matrix(x), show_progress=False)
    return model.item_factors


def fold_in(x: csr_array, factors: np.ndarray) -> np.ndarray:
    """Return customers' factors, as alternating least squares has them: (Y' Y + Y' (C - 1) Y + ridge)^-1 Y' C p, C = x."""
    gram, found = factors.T @ factors + RIDGE * np.eye(factors.shape[1]), np.zeros((x.shape[0], factors.shape[1]))
    for i in range(x.shape[0]):
        which = slice(*x.indptr[i : i + 2])
        confidence, y = x.data[which], factors[x.indices[which]]
        found[i] = np.linalg.solve(gram + (y.T * (confidence - 1)) @ y, confidence @ y)
    return found.astype(np.float32)
