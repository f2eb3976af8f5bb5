"""LayerNorm on flat arrays, row by row and in place: y = g h + b, with h = (x - m) r."""

from __future__ import annotations

from math import sqrt

from numba import njit

from .cache import compiled
from .elementary import SUM, like, view


@njit(**SUM)
def forward(y, params, start, n_columns, epsilon, kept):
    """Write y over x; note h of all rows in ``kept``, and behind them r of each."""
    g, b = view(params, start, n_columns), view(params, start + n_columns, n_columns)
    n_rows, one, count = y.size // n_columns, like(y, 1), like(y, n_columns)
    for i in range(n_rows):
        row, h = view(y, i * n_columns, n_columns), view(kept, i * n_columns, n_columns)
        mean, variance = like(y, 0), like(y, 0)
        for j in range(n_columns):
            mean += row[j]
        mean /= count
        for j in range(n_columns):
            h[j] = row[j] - mean
            variance += h[j] * h[j]
        r = one / like(y, sqrt(variance / count + like(y, epsilon)))
        for j in range(n_columns):
            h[j] *= r
            row[j] = g[j] * h[j] + b[j]
        kept[n_rows * n_columns + i] = r


@njit(**SUM)
def backward(dy, params, start, n_columns, kept, grads, g_0, first):
    """Write dx over dy; add to dg and db, which start at g_0, or, if this is the first block, write them."""
    g, dg, db = view(params, start, n_columns), view(grads, g_0, n_columns), view(grads, g_0 + n_columns, n_columns)
    n_rows, count = dy.size // n_columns, like(dy, n_columns)
    if first:
        for j in range(n_columns):
            dg[j] = db[j] = like(dy, 0)
    for i in range(n_rows):
        row, h, r = (
            view(dy, i * n_columns, n_columns),
            view(kept, i * n_columns, n_columns),
            kept[n_rows * n_columns + i],
        )
        mean, along = like(dy, 0), like(dy, 0)
        for j in range(n_columns):
            dg[j] += row[j] * h[j]
            db[j] += row[j]
        for j in range(n_columns):
            row[j] *= g[j]
            mean += row[j]
            along += row[j] * h[j]
        mean, along = mean / count, along / count
        for j in range(n_columns):
            row[j] = r * (row[j] - mean - h[j] * along)


@compiled
def forward_rows(y, params, epsilon, kept):
    """Do what ``forward`` does, of a matrix; params are g and b."""
    forward(view(y, 0, y.size), params, 0, y.shape[1], epsilon, kept)


@compiled
def backward_rows(dy, params, kept, grads):
    """Do what ``backward`` does, of a matrix; grads are dg and db."""
    backward(view(dy, 0, dy.size), params, 0, dy.shape[1], kept, grads, 0, True)
