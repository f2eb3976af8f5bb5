"""The matrix products of a Dense layer, on flat arrays: by the register tile, or by BLAS where W is large.

All are one form, C = S + A B. Forward: y = b + x W. Backward: dW = dW + x.T dy over the blocks of a batch, and dx = dy W.T,
for which W is transposed once a step, so that its columns lie side by side.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .elementary import HELPER, INLINE, SUM, like, view
from .tile import LINE, PAIRS, ROWS, WIDE, double_tile, narrow_row, narrow_tile, row, tile, wide_row

MANY = 4  # rows in a batch, from which on it pays to transpose W
ZERO, ONE = np.int64(0), np.int64(1)  # strides: of a literal number Numba compiles a product of its own


@njit(**HELPER)
def product(a, a_0, a_row, a_step, b, b_0, b_row, s, s_0, s_row, c, c_0, c_row, n_rows, n_steps, n_columns):
    """C = S + A B for C of n_rows x n_columns and n_steps columns of A; places and strides as in ``tile``."""
    n_lanes = LINE // c.itemsize
    n_whole, n_tiled, j = n_columns - n_columns % n_lanes, n_rows - n_rows % ROWS, 0
    while j < n_columns:
        width = 2 * n_lanes if PAIRS and j + 2 * n_lanes <= n_columns else min(n_lanes, n_columns - j)
        for i in range(0, n_tiled, ROWS):
            at, s_at, c_at = a_0 + i * a_row, s_0 + i * s_row + j, c_0 + i * c_row + j
            if PAIRS and width > n_lanes:
                double_tile(a, at, a_row, a_step, b, b_0 + j, b_row, s, s_at, s_row, c, c_at, c_row, n_steps, width)
            elif j < n_whole:
                tile(a, at, a_row, a_step, b, b_0 + j, b_row, s, s_at, s_row, c, c_at, c_row, n_steps, width)
            else:
                narrow_tile(a, at, a_row, a_step, b, b_0 + j, b_row, s, s_at, s_row, c, c_at, c_row, n_steps, width)
        j += width
    for i in range(n_tiled, n_rows):
        j, at, s_at, c_at = 0, a_0 + i * a_row, s_0 + i * s_row, c_0 + i * c_row
        while j + WIDE * n_lanes <= n_columns:
            wide_row(a, at, 0, a_step, b, b_0 + j, b_row, s, s_at + j, 0, c, c_at + j, 0, n_steps, n_lanes)
            j += WIDE * n_lanes
        while j + n_lanes <= n_columns:
            row(a, at, 0, a_step, b, b_0 + j, b_row, s, s_at + j, 0, c, c_at + j, 0, n_steps, n_lanes)
            j += n_lanes
        if j < n_columns:
            narrow_row(a, at, 0, a_step, b, b_0 + j, b_row, s, s_at + j, 0, c, c_at + j, 0, n_steps, n_columns - j)


@njit(**HELPER)
def matrix(a, start, n_rows, n_columns):
    """Return a flat array's piece as a matrix."""
    return view(a, start, n_rows * n_columns).reshape(n_rows, n_columns)


@njit(**HELPER)
def forward(x, x_0, params, w_0, n_in, n_out, y, y_0, n_rows, by_blas):
    """Write y = x W + b; W lies at w_0, and b after it."""
    b_0 = w_0 + n_in * n_out
    if by_blas:
        y_rows, b = matrix(y, y_0, n_rows, n_out), view(params, b_0, n_out)
        np.dot(matrix(x, x_0, n_rows, n_in), matrix(params, w_0, n_in, n_out), y_rows)
        for i in range(n_rows):
            y_i = y_rows[i]
            for j in range(n_out):
                y_i[j] += b[j]
    else:
        product(x, x_0, n_in, ONE, params, w_0, n_out, params, b_0, ZERO, y, y_0, n_out, n_rows, n_in, n_out)


@njit(**HELPER)
def weight_gradient(x, x_0, dy, n_in, n_out, grads, g_0, n_rows, by_blas, first, zeros):
    """Write dW = x.T dy, or add it, if this is not the first block of the batch."""
    if by_blas:
        x_rows, dy_rows, dw = (
            matrix(x, x_0, n_rows, n_in),
            matrix(dy, 0, n_rows, n_out),
            matrix(grads, g_0, n_in, n_out),
        )
        if first:
            np.dot(x_rows.T, dy_rows, dw)
        else:
            dw += np.dot(x_rows.T, dy_rows)
    elif first:
        product(x, x_0, ONE, n_in, dy, ZERO, n_out, zeros, ZERO, ZERO, grads, g_0, n_out, n_in, n_rows, n_out)
    else:
        product(x, x_0, ONE, n_in, dy, ZERO, n_out, grads, g_0, n_out, grads, g_0, n_out, n_in, n_rows, n_out)


@njit(**INLINE)
def bias_gradient(dy, n_out, grads, g_0, n_rows, first):
    """Write db = the sum of dy's rows, or add it."""
    db = view(grads, g_0, n_out)
    for j in range(n_out):
        db[j] = like(db, 0) if first else db[j]
    for i in range(n_rows):
        dy_i = view(dy, i * n_out, n_out)
        for j in range(n_out):
            db[j] += dy_i[j]


@njit(**HELPER)
def input_gradient(dy, params, w_0, transposed, t_0, n_in, n_out, dx, n_rows, n_batch, by_blas, zeros):
    """Write dx = dy W.T; for a batch of few rows without a transposed copy of W."""
    if by_blas:
        W = matrix(params, w_0, n_in, n_out)
        np.dot(matrix(dy, 0, n_rows, n_out), W.T, matrix(dx, 0, n_rows, n_in))
    elif n_batch >= MANY:
        product(dy, ZERO, n_out, ONE, transposed, t_0, n_in, zeros, ZERO, ZERO, dx, ZERO, n_in, n_rows, n_out, n_in)
    else:
        for r in range(n_rows):
            for i in range(n_in):
                dx[r * n_in + i] = dot(view(dy, r * n_out, n_out), view(params, w_0 + i * n_out, n_out))


@njit(**SUM)
def dot(a, b):
    """Return sum_j a_j b_j."""
    total = like(a, 0)
    for j in range(a.size):
        total += a[j] * b[j]
    return total


@njit(**HELPER)
def transpose(params, w_0, n_in, n_out, transposed, t_0):
    """Write W.T."""
    for i in range(n_in):
        for j in range(n_out):
            transposed[t_0 + j * n_in + i] = params[w_0 + i * n_out + j]
