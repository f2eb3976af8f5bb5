"""Losses on flat arrays: each returns l for one row of outputs z and targets t, and writes dl / dz.

``share`` is the row's w_n / sum w, so the sum over rows of share * l is the batch's loss; dl is written times share.
"""

from __future__ import annotations

from math import inf, log
from math import log1p as log1p_of_any

from numba import njit

from .elementary import INLINE, exp, like, log1p
from .program import (
    ABSOLUTE,
    BINARY,
    HALF_SQUARED,
    HUBER,
    SIGMOID_BINARY,
    SOFTMAX_LABELS,
    SQUARED,
)


@njit(**INLINE)
def squared(z, t, dz):
    """Return mean_j (z_j - t_j)^2; dl = 2 (z - t) / k."""
    l, scale = like(z, 0), like(z, 2 / z.size)
    for j in range(z.size):
        d = z[j] - t[j]
        l += d * d
        dz[j] = scale * d
    return l / like(z, z.size)


@njit(**INLINE)
def half_squared(z, t, dz):
    """Return sum_j (z_j - t_j)^2 / 2; dl = z - t."""
    l = like(z, 0)
    for j in range(z.size):
        d = z[j] - t[j]
        l += d * d
        dz[j] = d
    return l / like(z, 2)


@njit(**INLINE)
def absolute(z, t, dz):
    """Return mean_j abs(z_j - t_j); dl = sign(z - t) / k, and 0 where they are equal."""
    l, k, zero = like(z, 0), like(z, z.size), like(z, 0)
    for j in range(z.size):
        d = z[j] - t[j]
        l += abs(d)
        dz[j] = (like(z, 1) if d > zero else like(z, -1) if d < zero else d) / k  # d: 0, or NaN
    return l / k


@njit(**INLINE)
def huber(z, t, dz, delta):
    """Return mean_j h(z_j - t_j), h a parabola up to delta and a straight line beyond."""
    l, k, delta = like(z, 0), like(z, z.size), like(z, delta)
    for j in range(z.size):
        d = z[j] - t[j]
        size = abs(d)
        near = size <= delta
        l += d * d / like(z, 2) if near else delta * (size - delta / like(z, 2))
        dz[j] = (d if near else (delta if d > 0 else -delta)) / k
    return l / k


@njit(**INLINE)
def binary(p, t, dp):
    """Return -mean_j [t log p + (1 - t) log(1 - p)]; a term whose factor is 0 is 0. dl = ((1 - t) / (1 - p) - t / p) / k."""
    l, k, one = like(p, 0), like(p, p.size), like(p, 1)
    for j in range(p.size):
        slope = like(p, 0)
        if t[j] != 0:
            l -= t[j] * (like(p, log(p[j])) if p[j] > 0 else p[j] - like(p, inf))
            slope -= t[j] / p[j]
        if t[j] != 1:
            l -= (one - t[j]) * (like(p, log1p_of_any(-p[j])) if p[j] < 1 else -p[j] * like(p, inf))
            slope += (one - t[j]) / (one - p[j])
        dp[j] = slope / k
    return l / k


@njit(**INLINE)
def sigmoid_binary(z, t, dz):
    """Return mean_j [t softplus(-z) + (1 - t) softplus(z)]; dl = ((1 - t) s(z) - t s(-z)) / k."""
    l, k, one, zero = like(z, 0), like(z, z.size), like(z, 1), like(z, 0)
    for j in range(z.size):
        z_j, t_j = z[j], t[j]
        e = exp(-abs(z_j))
        tail, large = log1p(e), one / (one + e)
        small = e * large
        positive = z_j >= zero
        s, one_minus_s = (large, small) if positive else (small, large)
        l += zero if t_j == zero else t_j * (tail + (zero if positive else -z_j))
        l += zero if t_j == one else (one - t_j) * (tail + (z_j if positive else zero))
        dz[j] = ((one - t_j) * s - t_j * one_minus_s) / k
    return l / k


@njit(**INLINE)
def _logits(z, p):
    """Write p = exp(z - max z) and return where the largest z is, and the sum of the other p."""
    top, others = 0, like(z, 0)
    for j in range(z.size):
        top = j if z[j] > z[top] else top
    highest = z[top]
    for j in range(z.size):
        p[j] = exp(z[j] - highest)
    p[top] = like(z, 0)
    for j in range(z.size):
        others += p[j]
    p[top] = exp(z[top] - highest)  # 1; NaN, if it is
    return top, others


@njit(**INLINE)
def softmax_labels(z, label, dz):
    """Return -log p_c for the label c, p = softmax(z); dl = p - 1[j = c], with p_c - 1 summed from the others."""
    top, others = _logits(z, dz)
    total = dz[top] + others
    l = (log1p(others) if others <= 1 else like(z, log(total))) - (z[label] - z[top])
    rest = like(z, 0)
    for j in range(z.size):
        rest += like(z, 0) if j == label else dz[j]
    for j in range(z.size):
        dz[j] /= total
    dz[label] = -rest / total
    return l


@njit(**INLINE)
def softmax_rows(z, t, dz):
    """Return -sum_j t_j log p_j, p = softmax(z); dl = (sum t - t_j) p_j - t_j (1 - p_j)."""
    top, others = _logits(z, dz)
    total = dz[top] + others
    log_total = log1p(others) if others <= 1 else like(z, log(total))
    l, t_sum = like(z, 0), like(z, 0)
    for j in range(z.size):
        t_sum += t[j]
        if t[j] != 0:  # a masked class, z = -inf, counts nothing
            l += t[j] * (log_total - (z[j] - z[top]))
    for j in range(z.size):
        p = dz[j] / total
        one_minus_p = others / total if j == top else like(z, 1) - p
        dz[j] = (t_sum - t[j]) * p - t[j] * one_minus_p
    return l


@njit(**INLINE)
def block_loss(kind, delta, z, n_outputs, rows, targets, labels, shares, dz):
    """Return sum_n share_n l_n over a block of rows and write dz_n = share_n dl_n; a row of share 0 counts nothing."""
    value = 0.0
    for i in range(rows.size):
        here = slice(i * n_outputs, (i + 1) * n_outputs)
        z_i, dz_i, row = z[here], dz[here], rows[i]
        t_i = targets[row * n_outputs : (row + 1) * n_outputs]
        if shares[i] == 0:
            for j in range(n_outputs):
                dz_i[j] = like(z, 0)
            continue
        if kind == SQUARED:
            l = squared(z_i, t_i, dz_i)
        elif kind == HALF_SQUARED:
            l = half_squared(z_i, t_i, dz_i)
        elif kind == ABSOLUTE:
            l = absolute(z_i, t_i, dz_i)
        elif kind == HUBER:
            l = huber(z_i, t_i, dz_i, delta)
        elif kind == BINARY:
            l = binary(z_i, t_i, dz_i)
        elif kind == SIGMOID_BINARY:
            l = sigmoid_binary(z_i, t_i, dz_i)
        elif kind == SOFTMAX_LABELS:
            l = softmax_labels(z_i, labels[row], dz_i)
        else:
            l = softmax_rows(z_i, t_i, dz_i)
        share = like(z, shares[i])
        for j in range(n_outputs):
            dz_i[j] *= share
        value += l * shares[i]
    return value


@njit(**INLINE)
def no_probability(p):
    """Return the first number outside [0, 1], or 0."""
    for i in range(p.size):
        if p[i] < 0 or p[i] > 1:
            return p[i]
    return like(p, 0)
