"""Activations on flat arrays, in place: y = f(y) and dy = dy f'(x), number by number; softmax row by row.

Sigmoid, tanh and GELU note f'(x) on the way forward, where it comes without loss of digits; ReLU reads it from the sign of y.
(In place, because a loop over two arrays is only vectorised where they do not overlap.)
"""

from __future__ import annotations

from math import pi, sqrt

from numba import njit

from .cache import compiled
from .elementary import INLINE, exp, highest, like, normal, sigmoid_parts, tanh_parts, total, view
from .program import EXP, GELU_UNIT, LEAKY_RELU, RELU, SIGMOID, SOFTMAX, TANH


@njit(**INLINE)
def relu(y):
    """Write y = max(y, 0); NaN stays NaN."""
    zero = like(y, 0)
    for i in range(y.size):
        y[i] = zero if y[i] <= zero else y[i]


@njit(**INLINE)
def relu_backward(dy, y):
    """Write dx = dy where y > 0, else 0."""
    zero = like(y, 0)
    for i in range(y.size):
        dy[i] = dy[i] if y[i] > zero else zero


@njit(**INLINE)
def leaky_relu(y, slope):
    """Write y = y where y > 0, slope * y elsewhere."""
    zero, slope = like(y, 0), like(y, slope)
    for i in range(y.size):
        y[i] = y[i] if y[i] > zero else slope * y[i]


@njit(**INLINE)
def leaky_relu_backward(dy, y, slope):
    """Write dx = dy where y > 0, slope * dy elsewhere."""
    zero, slope = like(y, 0), like(y, slope)
    for i in range(y.size):
        dy[i] = dy[i] if y[i] > zero else slope * dy[i]


@njit(**INLINE)
def sigmoid(y, slope):
    """Write y = s(x) and slope = s(x) s(-x)."""
    for i in range(y.size):
        y[i], below = sigmoid_parts(y[i])
        slope[i] = y[i] * below


@njit(**INLINE)
def tanh(y, slope):
    """Write y, the tanh of x, and slope = 1 - y^2."""
    for i in range(y.size):
        y[i], slope[i] = tanh_parts(y[i])


@njit(**INLINE)
def exponential(y):
    """Write y = exp(y), which is its own slope."""
    for i in range(y.size):
        y[i] = exp(y[i])


@njit(**INLINE)
def gelu(y, slope):
    """Write y = x Phi(x) and slope = Phi(x) + x phi(x), from the share above abs(x) and the density."""
    one, factor = like(y, 1), like(y, 1 / sqrt(2 * pi))
    for i in range(y.size):
        x = y[i]
        density, above = normal(abs(x))
        below = above if x < 0 else one - above
        y[i] = x * below
        slope[i] = below + x * (density * factor)


@njit(**INLINE)
def times(dy, slope):
    """Write dx = dy * slope."""
    for i in range(dy.size):
        dy[i] *= slope[i]


@njit(**INLINE)
def dropout(y, uniforms, rate):
    """Write y / (1 - rate) where the uniform is at least ``rate``, else 0; the backward pass is the same on dy."""
    zero, scale, rate = like(y, 0), like(y, 1 / (1 - rate)), like(uniforms, rate)
    for i in range(y.size):
        y[i] *= scale if uniforms[i] >= rate else zero


@njit(**INLINE)
def softmax(y, n_columns):
    """Write y_j = exp(x_j - max x) / sum_k exp(x_k - max x) for each row."""
    for start in range(0, y.size, n_columns):
        row = view(y, start, n_columns)
        top = highest(row)
        for j in range(n_columns):
            row[j] = exp(row[j] - top)
        row_total = total(row)
        for j in range(n_columns):
            row[j] /= row_total


@njit(**INLINE)
def softmax_backward(dy, y, n_columns):
    """Write dx = y (dy - sum_k dy_k y_k) for each row, with the dy of the largest y taken off first."""
    for start in range(0, y.size, n_columns):
        dy_row, y_row = view(dy, start, n_columns), view(y, start, n_columns)
        top = 0
        for j in range(n_columns):
            top = j if y_row[j] > y_row[top] else top
        reference, mean = dy_row[top], like(y, 0)
        for j in range(n_columns):
            dy_row[j] -= reference
            mean += dy_row[j] * y_row[j]
        for j in range(n_columns):
            dy_row[j] = y_row[j] * (dy_row[j] - mean)


@njit(**INLINE)
def activate(kind, number, y, n_columns, slope):
    """Write y = f(y); ``number`` is a slope, if f has one, and ``slope`` is where to note f'(x), if f does."""
    if kind == RELU:
        relu(y)
    elif kind == LEAKY_RELU:
        leaky_relu(y, number)
    elif kind == SIGMOID:
        sigmoid(y, slope)
    elif kind == TANH:
        tanh(y, slope)
    elif kind == GELU_UNIT:
        gelu(y, slope)
    elif kind == EXP:
        exponential(y)
    elif kind == SOFTMAX:
        softmax(y, n_columns)


@njit(**INLINE)
def activate_backward(kind, number, dy, y, n_columns, slope):
    """Write dx over dy."""
    if kind == RELU:
        relu_backward(dy, y)
    elif kind == LEAKY_RELU:
        leaky_relu_backward(dy, y, number)
    elif kind == SOFTMAX:
        softmax_backward(dy, y, n_columns)
    elif kind == EXP:
        times(dy, y)
    else:
        times(dy, slope)


@compiled
def forward_rows(kind, number, y, slope):
    """Do what ``activate`` does, of a matrix."""
    activate(kind, number, view(y, 0, y.size), y.shape[1], view(slope, 0, slope.size))


@compiled
def backward_rows(kind, number, dy, y, slope):
    """Do what ``activate_backward`` does, of a matrix."""
    activate_backward(kind, number, view(dy, 0, dy.size), view(y, 0, y.size), y.shape[1], view(slope, 0, slope.size))
