"""Losses on flat arrays: l and dl / dz for every output z and its target t.

Where l is a sum over outputs, each is one loop over all numbers of a block; softmax goes row by row. ``block_loss`` puts
the rows' weights to both: with share_n = w_n / sum w, the batch's loss is the sum of share_n l_n.
"""

from __future__ import annotations

from math import inf, log
from math import log1p as log1p_of_any

from numba import njit

from .cache import compiled
from .elementary import INLINE, exp, expm1, highest, like, log1p, total, view
from .program import (
    ABSOLUTE,
    BINARY,
    HALF_SQUARED,
    HUBER,
    POISSON,
    SIGMOID_BINARY,
    SOFTMAX_LABELS,
    SOFTMAX_ROWS,
    SQUARED,
)
from .vectors import clear, row

_FEW = 16  # classes, for which vectors along the rows are better than along a row


@njit(**INLINE)
def squared(z, t, l, dz):
    """Write l = (z - t)^2; dl = 2 (z - t)."""
    for i in range(z.size):
        d = z[i] - t[i]
        l[i] = d * d
        dz[i] = d + d


@njit(**INLINE)
def half_squared(z, t, l, dz):
    """Write l = (z - t)^2 / 2; dl = z - t."""
    for i in range(z.size):
        d = z[i] - t[i]
        l[i] = d * d * like(z, 0.5)
        dz[i] = d


@njit(**INLINE)
def absolute(z, t, l, dz):
    """Write l = abs(z - t); dl = sign(z - t), and 0 where they are equal."""
    zero, one = like(z, 0), like(z, 1)
    for i in range(z.size):
        d = z[i] - t[i]
        l[i] = abs(d)
        dz[i] = one if d > zero else -one if d < zero else d  # 0, or NaN


@njit(**INLINE)
def huber(z, t, l, dz, delta):
    """Write l = d^2 / 2, or delta (abs(d) - delta / 2) where abs(d) > delta; dl = d, or delta sign(d)."""
    delta, half = like(z, delta), like(z, 0.5)
    for i in range(z.size):
        d = z[i] - t[i]
        near = abs(d) <= delta
        l[i] = half * d * d if near else delta * (abs(d) - half * delta)
        dz[i] = d if near else (delta if d > 0 else -delta)


@njit(**INLINE)
def binary(p, t, l, dp):
    """Write l = -[t log p + (1 - t) log(1 - p)], a term whose factor is 0 being 0; dl = (1 - t) / (1 - p) - t / p."""
    one, infinite = like(p, 1), like(p, inf)
    for i in range(p.size):
        value, slope = like(p, 0), like(p, 0)
        if t[i] != 0:
            value -= t[i] * (like(p, log(p[i])) if p[i] > 0 else p[i] - infinite)
            slope -= t[i] / p[i]
        if t[i] != 1:
            value -= (one - t[i]) * (like(p, log1p_of_any(-p[i])) if p[i] < 1 else -p[i] * infinite)
            slope += (one - t[i]) / (one - p[i])
        l[i], dp[i] = value, slope


@njit(**INLINE)
def sigmoid_binary(z, t, l, dz):
    """Write l = t softplus(-z) + (1 - t) softplus(z); dl = (1 - t) s(z) - t s(-z)."""
    one, zero = like(z, 1), like(z, 0)
    for i in range(z.size):
        e = exp(-abs(z[i]))
        tail, large = log1p(e), one / (one + e)
        small = e * large
        positive = z[i] >= zero
        s, one_minus_s = large if positive else small, small if positive else large
        l_1 = t[i] * (tail + (zero if positive else -z[i]))
        l_0 = (one - t[i]) * (tail + (z[i] if positive else zero))
        l[i] = (zero if t[i] == zero else l_1) + (zero if t[i] == one else l_0)
        dz[i] = (one - t[i]) * s - t[i] * one_minus_s


@njit(**INLINE)
def poisson(z, t, l, dz):
    """Write l = t log(t / r) + r - t with the rate r = exp(z); dl = r - t. With d = z - log t, r - t = t (exp(d) - 1)."""
    for i in range(z.size):
        d = z[i] - like(z, log(t[i])) if t[i] > 0 else like(z, 0)
        near = t[i] > 0 and abs(d) < 1  # where r - t would lose digits
        dz[i] = t[i] * expm1(d) if near else exp(z[i]) - t[i]
        l[i] = dz[i] - t[i] * d


@njit(**INLINE)
def _logits(z, p):
    """Write p = exp(z - max z) and return where the largest z is, and the sum of the other p."""
    top = 0
    for j in range(z.size):
        top = j if z[j] > z[top] else top
    highest = z[top]
    for j in range(z.size):
        p[j] = exp(z[j] - highest)
    p[top] = like(z, 0)
    others = total(p)
    p[top] = exp(z[top] - highest)  # 1; NaN, if it is
    return top, others


@njit(**INLINE)
def softmax_labels(z, label, dz):
    """Return -log p_c for the label c, p = softmax(z); dl = p - 1[j = c], with p_c - 1 summed from the others."""
    top = highest(z)
    for j in range(z.size):
        dz[j] = exp(z[j] - top)
    own = dz[label]
    dz[label] = like(z, 0)
    others = total(dz)
    sum_ = own + others
    l = log1p(others) if own == 1 and others <= 1 else like(z, log(sum_)) + (top - z[label])
    share = like(z, 1) / sum_
    for j in range(z.size):
        dz[j] *= share
    dz[label] = -others * share
    return l


@njit(**INLINE)
def softmax_few_labels(z, rows, labels, n_classes, dz, l, e):
    """Do what ``softmax_labels`` does for all rows of a block, class by class, so that vectors run along the rows.

    ``e`` is memory for as many numbers as z has; l_n goes to l[n * n_classes], and 0 to the places between.
    """
    n, one = rows.size, like(z, 1)
    top, others, own, behind = view(l, 0, n), view(l, n, n), view(dz, 0, n), view(dz, n, n)
    for j in range(n_classes):
        e_j = view(e, j * n, n)
        for i in range(n):
            e_j[i] = z[i * n_classes + j]
        for i in range(n):
            top[i] = e_j[i] if j == 0 or e_j[i] > top[i] else top[i]
    for j in range(n_classes):
        e_j = view(e, j * n, n)
        for i in range(n):
            e_j[i] = exp(e_j[i] - top[i])
    for i in range(n):
        label = labels[rows[i]]
        own[i], behind[i], e[label * n + i] = e[label * n + i], top[i] - z[i * n_classes + label], like(z, 0)
    for i in range(n):
        others[i] = e[i]
    for j in range(1, n_classes):
        e_j = view(e, j * n, n)
        for i in range(n):
            others[i] += e_j[i]
    for i in range(n):
        e[labels[rows[i]] * n + i] = -others[i]
    for i in range(n):  # top holds l from here on, and others 1 / sum
        is_top = own[i] == one and others[i] <= one
        sum_ = own[i] + others[i]
        top[i] = log1p(others[i]) if is_top else log_of_few(sum_) + behind[i]
        others[i] = one / sum_
    for j in range(n_classes):
        for i in range(n):
            dz[i * n_classes + j] = e[j * n + i] * others[i]
    for i in range(n - 1, -1, -1):
        l[i * n_classes] = top[i]
        for j in range(1, n_classes):
            l[i * n_classes + j] = like(z, 0)


@njit(**INLINE)
def log_of_few(s):
    """Return log(s) for 1 <= s <= 32."""
    one = like(s, 1)
    halves = like(s, 0)
    for _ in range(2):
        is_large = s >= like(s, 4)
        s = s * like(s, 0.25) if is_large else s
        halves = halves + like(s, 2) if is_large else halves
    is_large = s > like(s, 2)
    s = s * like(s, 0.5) if is_large else s
    halves = halves + one if is_large else halves
    return log1p(s - one) + halves * like(s, log(2))


@njit(**INLINE)
def softmax_rows(z, t, dz):
    """Return -sum_j t_j log p_j, p = softmax(z); dl = (sum t - t_j) p_j - t_j (1 - p_j)."""
    top, others = _logits(z, dz)
    sum_, t_sum = dz[top] + others, total(t)
    log_total, l = log1p(others) if others <= 1 else like(z, log(sum_)), 0.0
    for j in range(z.size):
        if t[j] != 0:  # a masked class, z = -inf, is ignored
            l += t[j] * (log_total - (z[j] - z[top]))
    for j in range(z.size):
        p = dz[j] / sum_
        one_minus_p = others / sum_ if j == top else like(z, 1) - p
        dz[j] = (t_sum - t[j]) * p - t[j] * one_minus_p
    return like(z, l)


@njit(**INLINE)
def block_loss(rule, z, n_outputs, rows, targets, labels, shares, dz, scratch):
    """Return sum_n share_n l_n over a block of rows and write dz_n = share_n dl_n; a row of share 0 is ignored.

    ``scratch`` holds l first, and then the targets, in the order of ``rows``.
    """
    n, kind, dz = rows.size, rule.loss, view(dz, 0, z.size)
    l, t = view(scratch, 0, n * n_outputs), view(scratch, n * n_outputs, n * n_outputs)
    by_rows = kind in (SOFTMAX_LABELS, SOFTMAX_ROWS)
    scale = like(z, 1) if by_rows or kind in (HALF_SQUARED, POISSON) else like(z, 1 / n_outputs)
    if kind != SOFTMAX_LABELS:
        for i in range(n):
            for j in range(n_outputs):
                t[i * n_outputs + j] = targets[rows[i] * n_outputs + j]

    if kind == SOFTMAX_LABELS and 1 < n_outputs <= _FEW and n >= _FEW:
        softmax_few_labels(z, rows, labels, n_outputs, dz, l, t)
    elif by_rows:
        for i in range(n):
            z_i, dz_i = view(z, i * n_outputs, n_outputs), view(dz, i * n_outputs, n_outputs)
            for j in range(n_outputs):
                l[i * n_outputs + j] = like(z, 0)
            if kind == SOFTMAX_LABELS:
                l[i * n_outputs] = softmax_labels(z_i, labels[rows[i]], dz_i)
            else:
                l[i * n_outputs] = softmax_rows(z_i, view(t, i * n_outputs, n_outputs), dz_i)
    elif kind == SQUARED:
        squared(z, t, l, dz)
    elif kind == HALF_SQUARED:
        half_squared(z, t, l, dz)
    elif kind == ABSOLUTE:
        absolute(z, t, l, dz)
    elif kind == HUBER:
        huber(z, t, l, dz, rule.delta)
    elif kind == BINARY:
        binary(z, t, l, dz)
    elif kind == SIGMOID_BINARY:
        sigmoid_binary(z, t, l, dz)
    elif kind == POISSON:
        poisson(z, t, l, dz)

    value = 0.0
    for i in range(n):
        share, l_i = scale * like(z, shares[i]), like(z, 0)
        for j in range(i * n_outputs, (i + 1) * n_outputs):
            l_i += l[j]
            dz[j] = share * dz[j] if share != 0 else like(z, 0)
        value += shares[i] * (scale * l_i) if share != 0 else 0.0
    return value


@njit(**INLINE)
def no_probability(p):
    """Return the first number outside [0, 1], or 0."""
    for i in range(p.size):
        if p[i] < 0 or p[i] > 1:
            return p[i]
    return like(p, 0)


@compiled
def softmax_of_labels(z, labels, shares, dz):
    """Return sum_n share_n l_n of softmax_labels over rows of logits, and write dz_n = share_n dl_n; 0 where the share is 0."""
    value = 0.0
    for n in range(labels.size):
        dz_n, share = row(dz, n), like(dz, shares[n])
        if share == 0:
            clear(dz_n)
        else:
            value += shares[n] * softmax_labels(row(z, n), labels[n], dz_n)
            for j in range(dz_n.size):
                dz_n[j] *= share
    return value
