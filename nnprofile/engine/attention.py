"""Self-attention, sequence by sequence and head by head, on flat arrays; the formulas are those of ``layers.attention``.

Causal, a block of rows meets the columns up to its last row alone: half of the products, and of the exponentials, are not made.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numba import njit

from .cache import compiled
from .elementary import HELPER, LOOP, exp, highest, like, total, view
from .products import ONE, ZERO, dot, product
from .vectors import clear

_BLOCK = 16  # rows at a time


@compiled
def attend(qkv, offsets, n_heads, causal, o, A):
    """Write o = softmax(q k^T / sqrt(d)) v of each head; A holds the softmax of each sequence and head, one after the other."""
    f, w = o.shape[1], 3 * o.shape[1]
    d, longest = f // n_heads, _longest(offsets)
    qkv, o, k_turned, zeros = (
        view(qkv, 0, qkv.size),
        view(o, 0, o.size),
        np.empty(d * longest, o.dtype),
        np.zeros(max(f, longest), o.dtype),
    )
    at = 0
    for i in range(offsets.size - 1):
        first, T = offsets[i], offsets[i + 1] - offsets[i]
        for head in range(n_heads):
            q = first * w + head * d
            _turn(qkv, q + f, w, T, d, k_turned)
            for t in range(0, T, _BLOCK):
                n = min(_BLOCK, T - t)
                n_seen, row = t + n if causal else T, at + t * T
                product(qkv, q + t * w, w, ONE, k_turned, ZERO, T, zeros, ZERO, ZERO, A, row, T, n, d, n_seen)
                for r in range(n):
                    _softmax(view(A, row + r * T, n_seen), t + r + 1 if causal else T, 1 / sqrt(d))
                to = (first + t) * f + head * d
                product(A, row, T, ONE, qkv, q + 2 * f, w, zeros, ZERO, ZERO, o, to, f, n, n_seen, d)
            at += T * T


@compiled
def attend_back(do, qkv, offsets, n_heads, causal, A, dqkv):
    """Write dq, dk and dv of each head; A stays as it is."""
    f, w = do.shape[1], 3 * do.shape[1]
    d, longest = f // n_heads, _longest(offsets)
    do, qkv, dqkv = view(do, 0, do.size), view(qkv, 0, qkv.size), view(dqkv, 0, dqkv.size)
    v_turned, zeros, dS = (
        np.empty(d * longest, do.dtype),
        np.zeros(max(f, longest), do.dtype),
        np.empty(longest * longest, do.dtype),
    )
    at = 0
    for i in range(offsets.size - 1):
        first, T = offsets[i], offsets[i + 1] - offsets[i]
        for head in range(n_heads):
            q, o = first * w + head * d, first * f + head * d
            _turn(qkv, q + 2 * f, w, T, d, v_turned)
            for t in range(0, T, _BLOCK):
                n = min(_BLOCK, T - t)
                n_seen = t + n if causal else T
                product(do, o + t * f, f, ONE, v_turned, ZERO, T, zeros, ZERO, ZERO, dS, t * T, T, n, d, n_seen)
                for r in range(n):
                    _softmax_back(view(A, at + (t + r) * T, n_seen), view(dS, (t + r) * T, n_seen), 1 / sqrt(d))
                to = q + t * w
                product(dS, t * T, T, ONE, qkv, q + f, w, zeros, ZERO, ZERO, dqkv, to, w, n, n_seen, d)
            for s in range(0, T, _BLOCK):
                n, start = min(_BLOCK, T - s), s if causal else 0  # only these rows and later ones see the columns
                to, by = q + s * w, start * T + s
                k, v, seen = to + f, to + 2 * f, T - start
                product(dS, by, ONE, T, qkv, q + start * w, w, zeros, ZERO, ZERO, dqkv, k, w, n, seen, d)
                product(A, at + by, ONE, T, do, o + start * f, f, zeros, ZERO, ZERO, dqkv, v, w, n, seen, d)
            at += T * T


@njit(**HELPER)
def _longest(offsets):
    longest = 0
    for i in range(offsets.size - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    return longest


@njit(**HELPER)
def _turn(a, start, stride, n_rows, n_columns, out):
    """Write the transpose of rows that lie ``stride`` apart."""
    for i in range(n_rows):
        for j in range(n_columns):
            out[j * n_rows + i] = a[start + i * stride + j]


@njit(**LOOP)
def _softmax(s, n_seen, scale):
    """Write softmax(scale * s) of the first numbers, and 0 to the others."""
    seen, scale = view(s, 0, n_seen), like(s, scale)
    top = highest(seen)
    for j in range(n_seen):
        seen[j] = exp((seen[j] - top) * scale)
    share = like(s, 1) / total(seen)
    for j in range(n_seen):
        seen[j] *= share
    clear(view(s, n_seen, s.size - n_seen))


@njit(**LOOP)
def _softmax_back(a, da, scale):
    """Write ds = scale a (da - sum_k da_k a_k)."""
    mean, scale = dot(a, da), like(a, scale)
    for j in range(a.size):
        da[j] = scale * (a[j] * (da[j] - mean))
