"""Optimizers on flat arrays: each moves a piece of the parameters along its gradient, decay first.

Each returns 0, or NaN if a number that it wrote is not finite: 0 * w is 0 for every finite w.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from numba import njit

from .cache import compiled
from .elementary import SUM, like, view, zero_if_finite
from .program import ADAM, MOMENTUM, PLAIN


class StepSizes(NamedTuple):
    """How far a step goes: the learning rate, and Adam's, corrected for the moments' start from zero."""

    learning_rate: float
    rate: float  # learning_rate / (1 - beta1^t)
    scale: float  # 1 / (1 - beta2^t)


@njit(**SUM)
def sgd(w, dw, decay, learning_rate):
    """Move w = decay * w - learning_rate * dw."""
    decay, learning_rate, check = like(w, decay), like(w, learning_rate), like(w, 0)
    for i in range(w.size):
        w[i] = decay * w[i] - learning_rate * dw[i]
        check += zero_if_finite(w[i])
    return check


@njit(**SUM)
def momentum(w, dw, v, decay, learning_rate, rate, nesterov):
    """Move v = rate * v - learning_rate * dw, then w = decay * w + v, or decay * w + rate * v - learning_rate * dw (Nesterov)."""
    decay, learning_rate, rate, zero = like(w, decay), like(w, learning_rate), like(w, rate), like(w, 0)
    ahead, direct = (rate, learning_rate) if nesterov else (like(w, 1), zero)
    check = zero
    for i in range(w.size):
        v[i] = rate * v[i] - learning_rate * dw[i]
        w[i] = decay * w[i] + (ahead * v[i] - direct * dw[i])
        check += zero_if_finite(w[i]) + zero_if_finite(v[i])
    return check


@njit(**SUM)
def adam(w, dw, m, v, decay, rate, scale, beta1, beta2, epsilon):
    """Move m = beta1 m + (1 - beta1) dw; v = beta2 v + (1 - beta2) dw^2; w = decay w - rate m / (sqrt(scale v) + epsilon).

    In step t, rate is learning_rate / (1 - beta1^t), and scale is 1 / (1 - beta2^t).
    """
    rate, scale, decay, epsilon, check = like(w, rate), like(w, scale), like(w, decay), like(w, epsilon), like(w, 0)
    beta1, rest1, beta2, rest2 = like(w, beta1), like(w, 1 - beta1), like(w, beta2), like(w, 1 - beta2)
    for i in range(w.size):
        m[i] = beta1 * m[i] + rest1 * dw[i]
        v[i] = beta2 * v[i] + rest2 * (dw[i] * dw[i])
        w[i] = decay * w[i] - rate * m[i] / (sqrt(v[i] * scale) + epsilon)
        check += zero_if_finite(w[i]) + zero_if_finite(v[i])
    return check


@njit(**SUM)
def step_sizes(rule, learning_rate, t):
    """Return the sizes of step t = 1, 2, ..."""
    if rule.update == ADAM:
        return StepSizes(learning_rate, learning_rate / (1 - rule.beta1**t), 1 / (1 - rule.beta2**t))
    return StepSizes(learning_rate, 0.0, 0.0)


@njit(**SUM)
def update(rule, params, p_0, grads, g_0, m, v, size, decay, sizes):
    """Move ``size`` parameters from p_0 on, whose gradients start at g_0; v and m hold the moments, where there are some."""
    w, dw = view(params, p_0, size), view(grads, g_0, size)
    if rule.update == PLAIN:
        return sgd(w, dw, decay, sizes.learning_rate)
    v = view(v, p_0, size)
    if rule.update == ADAM:
        m = view(m, p_0, size)
        return adam(w, dw, m, v, decay, sizes.rate, sizes.scale, rule.beta1, rule.beta2, rule.epsilon)
    return momentum(w, dw, v, decay, sizes.learning_rate, rule.momentum, rule.update != MOMENTUM)


@njit(**SUM)
def update_rows(rule, params, p_0, grads, g_0, m, v, n_rows, n_columns, decay, sizes):
    """Move W row by row: lazily, so that a row whose gradient is exactly zero only decays."""
    check = like(params, 0)
    for i in range(n_rows):
        p_i, g_i = p_0 + i * n_columns, g_0 + i * n_columns
        dw = view(grads, g_i, n_columns)
        if any_nonzero(dw):
            check += update(rule, params, p_i, grads, g_i, m, v, n_columns, decay, sizes)
        elif decay != 1:
            check += sgd(view(params, p_i, n_columns), dw, decay, 0.0)
    return check


@njit(**SUM)
def any_nonzero(a):
    """Tell whether a number of ``a`` is not 0."""
    for i in range(a.size):
        if a[i] != 0:
            return True
    return False


@njit(**SUM)
def add_l2(params, p_0, grads, g_0, size, share):
    """Add share * W to dW and return share / 2 * sum W^2: the L2 term, with share = l2 / sum of the batch's weights."""
    w, dw = view(params, p_0, size), view(grads, g_0, size)
    total, factor = like(w, 0), like(w, share)
    for i in range(size):
        total += w[i] * w[i]
        dw[i] += factor * w[i]
    return share / 2 * total


@compiled
def move(rule, w, dw, m, v, start, stop, learning_rate, t):
    """Move the parameters from ``start`` to ``stop``, in step t = 1, 2, ..."""
    update(rule, w, start, dw, start, m, v, stop - start, 1.0, step_sizes(rule, learning_rate, t))


@compiled
def move_rows(rule, w, dw, m, v, start, n_columns, rows, learning_rate, t):
    """Move these rows of the matrix at ``start``, but for those whose gradient is exactly zero."""
    sizes = step_sizes(rule, learning_rate, t)
    for row in rows:
        at = start + row * n_columns
        if any_nonzero(view(dw, at, n_columns)):
            update(rule, w, at, dw, at, m, v, n_columns, 1.0, sizes)
