"""The data of the cases, and what the libraries share: the same numbers and, where it can be given, order of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import numpy as np
import scipy.sparse

Case = dict[str, Any]
WIDTH = 64  # of events, and of what is made of them


def data(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return dense features and labels: 0 or 1 for one output, else a class."""
    rng = np.random.default_rng(0)
    n, sizes = case["rows"], case["sizes"]
    x = rng.standard_normal((n, sizes[0]), np.float32).astype(case["dtype"], copy=False)
    return x, rng.integers(0, max(2, sizes[-1]), n)


def sparse_data(case: Case) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """Return rows of 50 ones in columns drawn uniformly or by Zipf's law (exponent 1.1), and labels 0 or 1.

    By Zipf's law a frequent column occurs more than once in a row, as a word does in a text: some 36 are distinct.
    """
    rng = np.random.default_rng(0)
    n, n_features, k = case["rows"], case["sizes"][0], 50
    if case["columns"] == "uniform":
        columns = rng.integers(0, n_features, (n, k))
    else:
        weight = 1 / np.arange(1, n_features + 1) ** 1.1
        columns = np.searchsorted(np.cumsum(weight) / weight.sum(), rng.uniform(size=(n, k))).clip(max=n_features - 1)
    # A bijection: frequent columns lie anywhere, as hashed ones do.
    columns = rng.permutation(n_features)[columns].astype(np.int32)
    columns.sort(axis=1)
    x = scipy.sparse.csr_array((np.ones(n * k, np.float32), columns.ravel(), np.arange(n + 1) * k), (n, n_features))
    return x, rng.integers(0, 2, n)


def weights(case: Case) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return Glorot's initial W and b of each layer."""
    rng = np.random.default_rng(1)
    found = []
    for a, b in zip(case["sizes"][:-1], case["sizes"][1:], strict=True):
        bound = np.sqrt(6 / (a + b))
        W = rng.random((a, b), np.float32) * (2 * bound) - bound
        found.append((W.astype(case["dtype"]), np.zeros(b, case["dtype"])))
    return found


def batches(case: Case, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the rows of each mini-batch of an epoch."""
    order = rng.permutation(case["rows"])
    for first in range(0, len(order), case["batch"]):
        yield order[first : first + case["batch"]]


def n_steps(case: Case) -> int:
    """Return how many steps an epoch has."""
    return -(-case["rows"] // case["batch"])


def per_step(case: Case, epoch: Callable[[], Any], least: float = 0.05) -> Callable[[], list[float]]:
    """Return a measurement: microseconds per step, over as many epochs as take ``least`` seconds; the first is warm-up."""
    epoch()
    start = perf_counter()
    epoch()
    n_epochs = max(1, int(least / (perf_counter() - start)))

    def measure() -> list[float]:
        start = perf_counter()
        for _ in range(n_epochs):
            epoch()
        return [(perf_counter() - start) / n_epochs / n_steps(case) * 1e6]

    return measure


def per_call(call: Callable[[], Any], least: float = 0.05) -> Callable[[], list[float]]:
    """Return a measurement: microseconds of each of many calls."""
    for _ in range(3):
        call()
    start = perf_counter()
    call()
    n_calls = max(1, min(5000, int(least / (perf_counter() - start))))

    def measure() -> list[float]:
        times = []
        for _ in range(n_calls):
            start = perf_counter()
            call()
            times.append((perf_counter() - start) * 1e6)
        return times

    return measure


def lengths(case: Case) -> np.ndarray:
    """Return the lengths of 64 sequences: 50 events each, or skewed, with a mean of 19 (geometric, at most 50)."""
    if case["lengths"] == "equal":
        return np.full(64, 50)
    return np.minimum(np.random.default_rng(0).geometric(1 / 22, 64), 50)


def events(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return x and dy of all events, one sequence behind the other."""
    rng, n = np.random.default_rng(1), int(lengths(case).sum())
    return rng.standard_normal((n, WIDTH), np.float32), rng.standard_normal((n, WIDTH), np.float32)
