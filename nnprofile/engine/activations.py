"""Activations on flat arrays: y = f(x) and dx = dy f'(x), number by number; softmax row by row.

``dx`` overwrites ``dy``. Sigmoid and tanh note f'(x) on the way forward, where it comes without loss of digits; ReLU
reads it from the sign of y.
"""

from __future__ import annotations

from numba import njit

from .elementary import INLINE, exp, exp_parts, like


@njit(**INLINE)
def relu(x, y):
    """Write y = max(x, 0); NaN stays NaN."""
    zero = like(x, 0)
    for i in range(x.size):
        y[i] = zero if x[i] <= zero else x[i]


@njit(**INLINE)
def relu_backward(dy, y):
    """Write dx = dy where y > 0, else 0."""
    zero = like(y, 0)
    for i in range(y.size):
        dy[i] = dy[i] if y[i] > zero else zero


@njit(**INLINE)
def leaky_relu(x, y, slope):
    """Write y = x where x > 0, slope * x elsewhere."""
    zero, slope = like(x, 0), like(x, slope)
    for i in range(x.size):
        y[i] = x[i] if x[i] > zero else slope * x[i]


@njit(**INLINE)
def leaky_relu_backward(dy, y, slope):
    """Write dx = dy where y > 0, slope * dy elsewhere."""
    zero, slope = like(y, 0), like(y, slope)
    for i in range(y.size):
        dy[i] = dy[i] if y[i] > zero else slope * dy[i]


@njit(**INLINE)
def sigmoid(x, y, slope):
    """Write y = s(x) and slope = s(x) s(-x), from e = exp(-abs(x)): s(abs(x)) = 1 / (1 + e), s(-abs(x)) = e / (1 + e)."""
    one = like(x, 1)
    for i in range(x.size):
        z = x[i]
        e = exp(-abs(z))
        large = one / (one + e)
        small = e * large
        y[i] = large if z >= 0 else small
        slope[i] = large * small


@njit(**INLINE)
def tanh(x, y, slope):
    """Write y = tanh(x) and slope = 1 - tanh(x)^2, from e = exp(-2 abs(x)): (1 - e) / (1 + e), 4 e / (1 + e)^2."""
    one, two = like(x, 1), like(x, 2)
    for i in range(x.size):
        z = x[i]
        p, scale = exp_parts(-two * abs(z))
        e, e_minus_one = scale + scale * p, scale * p + (scale - one)
        t = -e_minus_one / (two + e_minus_one)
        y[i] = -t if z < 0 else t
        slope[i] = two / (one + e) * (two * e / (one + e))


@njit(**INLINE)
def times(dy, slope):
    """Write dx = dy * slope."""
    for i in range(dy.size):
        dy[i] *= slope[i]


@njit(**INLINE)
def dropout(x, y, uniforms, rate):
    """Write y = x / (1 - rate) where the uniform is at least ``rate``, else 0; the backward pass is the same on dy."""
    zero, scale = like(x, 0), like(x, 1 / (1 - rate))
    for i in range(x.size):
        y[i] = x[i] * (scale if uniforms[i] >= rate else zero)


@njit(**INLINE)
def softmax(x, y, n_columns):
    """Write y_j = exp(x_j - max x) / sum_k exp(x_k - max x) for each row."""
    for start in range(0, x.size, n_columns):
        x_row, y_row = x[start : start + n_columns], y[start : start + n_columns]
        top = x_row[0]
        for j in range(n_columns):
            top = x_row[j] if x_row[j] > top else top
        for j in range(n_columns):
            y_row[j] = exp(x_row[j] - top)
        total = like(x, 0)
        for j in range(n_columns):
            total += y_row[j]
        for j in range(n_columns):
            y_row[j] /= total


@njit(**INLINE)
def softmax_backward(dy, y, n_columns):
    """Write dx = y (dy - sum_k dy_k y_k) for each row, with the dy of the largest y taken off first."""
    for start in range(0, y.size, n_columns):
        dy_row, y_row = dy[start : start + n_columns], y[start : start + n_columns]
        top = 0
        for j in range(n_columns):
            top = j if y_row[j] > y_row[top] else top
        reference, mean = dy_row[top], like(y, 0)
        for j in range(n_columns):
            dy_row[j] -= reference
            mean += dy_row[j] * y_row[j]
        for j in range(n_columns):
            dy_row[j] = y_row[j] * (dy_row[j] - mean)
