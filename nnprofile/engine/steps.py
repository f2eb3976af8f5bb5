"""The two compiled functions that Python calls: ``train`` runs many steps of training, ``infer`` predicts many rows.

Both interpret the table of ``program``. A batch goes through the network in blocks of a few rows, forward and straight
back, so that a block's numbers never leave the cache; the blocks' gradients add up, always in the same order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from . import activations, losses, products, sparse
from .cache import compiled
from .elementary import INLINE, SUM, like
from .program import (
    BINARY,
    BY_BLAS,
    DENSE,
    KIND,
    LEAKY_RELU,
    N_IN,
    N_OUT,
    RELU,
    SIGMOID,
    SLOPE,
    SOFTMAX,
    TANH,
    TRANSPOSED,
    UNIFORMS,
    W,
    X,
    Y,
)
from .updates import add_l2, update, update_rows


class Csr(NamedTuple):
    """Sparse rows; empty arrays, if x is dense."""

    data: np.ndarray
    indices: np.ndarray  # int32
    indptr: np.ndarray  # int64


class Data(NamedTuple):
    """What a run of training reads: flat arrays, rows one after the other."""

    x: np.ndarray
    csr: Csr
    targets: np.ndarray
    labels: np.ndarray
    weights: np.ndarray  # float64; empty, if all rows weigh the same


class Slots(NamedTuple):
    """What a sparse first layer remembers between steps; see ``sparse``. Empty arrays, if x is dense or W's gradient is."""

    slots: np.ndarray  # int32, (n_features,): -1 where a feature has none
    touched: np.ndarray  # int32, the features of the slots
    scale: np.ndarray  # float64, (1,)
    seen: np.ndarray  # float64, (n_features,)


@compiled
def train(program, rule, data, slots, params, m, v, order, n_batch, rates, n_before, uniforms, values, totals, done):
    """Run the steps over the rows of ``order``; return 0, or a number that was to be a probability and is none.

    ``rates`` are the learning rates of the updates from number ``n_before`` on. The objective and the weight of each step
    are written to ``values`` and ``totals``, the numbers of updates and of steps to ``done``. After a step that is not
    finite, or is refused, nothing more is done.
    """
    table, numbers, n_block = program.table, program.numbers, min(program.n_block, n_batch)
    is_csr, is_compact = data.csr.indptr.size > 0, slots.slots.size > 0
    n_layers, n_outputs = len(table), table[-1, N_OUT]
    buffer = np.empty(n_block * program.n_buffer, params.dtype)
    dy, dx = np.empty(n_block * program.n_widest, params.dtype), np.empty(n_block * program.n_widest, params.dtype)
    transposed = np.empty(program.n_transposed, params.dtype)
    zeros = np.zeros(max(program.n_widest, 1), params.dtype)
    shares = np.empty(n_batch, np.float64)
    # Gradients lie as the parameters do; but of a compact first W only the rows in the slots are there.
    shift = table[0, N_IN] * table[0, N_OUT] - slots.touched.size * table[0, N_OUT] if is_compact else 0
    grads = np.zeros(params.size - shift, params.dtype)
    first_dense = 0
    while table[first_dense, KIND] != DENSE:
        first_dense += 1

    n_drawn = 0
    for step in range(len(values)):
        batch = order[step * n_batch : min((step + 1) * n_batch, len(order))]
        total = _shares(data.weights, batch, shares)
        totals[step] = total
        n_touched = 0
        if is_compact:
            n_touched = sparse.open_slots(data.csr, batch, slots.slots, slots.touched)
            for i in range(n_touched):
                sparse.pay(params, table[0, N_OUT], slots.touched[i], slots.scale[0], slots.seen)
            _clear(grads, n_touched * table[0, N_OUT])
        elif is_csr:
            _clear(grads, table[0, N_IN] * table[0, N_OUT])
        for l in range(first_dense + 1, n_layers):
            if table[l, KIND] == DENSE and not table[l, BY_BLAS] and len(batch) >= products.MANY:
                products.transpose(
                    params, table[l, W], table[l, N_IN], table[l, N_OUT], transposed, table[l, TRANSPOSED]
                )

        value = 0.0
        for start in range(0, len(batch), n_block):
            rows = batch[start : start + n_block]
            n = len(rows)
            empty_or_zeros = zeros if start == 0 else zeros[:0]
            if not is_csr:
                _gather(data.x, rows, table[0, N_IN], buffer)
            for l in range(n_layers):
                row = table[l]
                kind, size = row[KIND], n * row[N_OUT]
                x_0, y_0 = n_block * row[X], n_block * row[Y]
                y = buffer[y_0 : y_0 + size]
                if kind != DENSE and y_0 != x_0:
                    _copy(buffer[x_0 : x_0 + size], y)
                if kind == DENSE:
                    if is_csr and l == 0:
                        sparse.csr_forward(data.csr, rows, params, row[W], row[N_IN], row[N_OUT], buffer, y_0)
                    else:
                        products.forward(
                            buffer, x_0, params, row[W], row[N_IN], row[N_OUT], buffer, y_0, n, row[BY_BLAS] != 0
                        )
                elif kind == RELU:
                    activations.relu(y)
                elif kind == LEAKY_RELU:
                    activations.leaky_relu(y, numbers[l])
                elif kind == SIGMOID:
                    activations.sigmoid(y, buffer[n_block * row[SLOPE] : n_block * row[SLOPE] + size])
                elif kind == TANH:
                    activations.tanh(y, buffer[n_block * row[SLOPE] : n_block * row[SLOPE] + size])
                elif kind == SOFTMAX:
                    activations.softmax(y, row[N_OUT])
                else:
                    u = n_drawn + len(batch) * row[UNIFORMS] + start * row[N_OUT]
                    activations.dropout(y, uniforms[u : u + size], numbers[l])

            y_0 = n_block * table[-1, Y]
            z = buffer[y_0 : y_0 + n * n_outputs]
            if rule.loss == BINARY:
                refused = losses.no_probability(z)
                if refused != 0:
                    return float(refused)
            value += losses.block_loss(
                rule.loss,
                rule.delta,
                z,
                n_outputs,
                rows,
                data.targets,
                data.labels,
                shares[start : start + n],
                dy[: n * n_outputs],
            )

            for l in range(n_layers - 1, first_dense - 1, -1):
                row = table[l]
                kind, size = row[KIND], n * row[N_OUT]
                x_0, y_0 = n_block * row[X], n_block * row[Y]
                d, y = dy[:size], buffer[y_0 : y_0 + size]
                if kind == DENSE:
                    n_in, n_out, by_blas, w_0 = row[N_IN], row[N_OUT], row[BY_BLAS] != 0, row[W]
                    g_0 = w_0 - shift if l > 0 else 0
                    products.bias_gradient(d, n_out, grads, w_0 + n_in * n_out - shift, n, start == 0)
                    if is_csr and l == 0:
                        sparse.csr_weight_gradient(data.csr, rows, d, n_out, grads, slots.slots, is_compact)
                    else:
                        products.weight_gradient(buffer, x_0, dy, n_in, n_out, grads, g_0, n, by_blas, empty_or_zeros)
                    if l > first_dense:
                        products.input_gradient(
                            dy, params, w_0, transposed, row[TRANSPOSED], n_in, n_out, dx, n, len(batch), by_blas, zeros
                        )
                        dy, dx = dx, dy
                elif kind == RELU:
                    activations.relu_backward(d, y)
                elif kind == LEAKY_RELU:
                    activations.leaky_relu_backward(d, y, numbers[l])
                elif kind == SIGMOID or kind == TANH:
                    activations.times(d, buffer[n_block * row[SLOPE] : n_block * row[SLOPE] + size])
                elif kind == SOFTMAX:
                    activations.softmax_backward(d, y, row[N_OUT])
                else:
                    u = n_drawn + len(batch) * row[UNIFORMS] + start * row[N_OUT]
                    activations.dropout(d, uniforms[u : u + size], numbers[l])
        n_drawn += len(batch) * program.n_uniforms

        if rule.l2 != 0 and total != 0:
            for l in range(n_layers):
                if table[l, KIND] == DENSE:
                    w_0, size = table[l, W], table[l, N_IN] * table[l, N_OUT]
                    value += add_l2(params, w_0, grads, w_0 - shift, size, rule.l2 / total)
        values[step], done[1] = value, step + 1
        if not np.isfinite(value):
            break
        if total == 0:
            for i in range(n_touched):
                slots.slots[slots.touched[i]] = -1
            continue

        rate, t, check = rates[done[0]], n_before + done[0] + 1, like(params, 0)
        decay = 1 - rate * rule.weight_decay
        for l in range(first_dense, n_layers):
            if table[l, KIND] == DENSE:
                w_0, n_in, n_out = table[l, W], table[l, N_IN], table[l, N_OUT]
                b_0 = w_0 + n_in * n_out
                if l == 0 and is_compact:
                    check += sparse.update_touched(
                        rule,
                        params,
                        grads,
                        m,
                        v,
                        n_out,
                        slots.slots,
                        slots.touched,
                        n_touched,
                        decay,
                        rate,
                        t,
                        slots.scale,
                        slots.seen,
                    )
                elif rule.lazy:
                    check += update_rows(rule, params, w_0, grads, w_0 - shift, m, v, n_in, n_out, decay, rate, t)
                else:
                    check += update(rule, params, w_0, grads, w_0 - shift, m, v, n_in * n_out, decay, rate, t)
                check += update(rule, params, b_0, grads, b_0 - shift, m, v, n_out, 1.0, rate, t)
        done[0] += 1
        if check != 0:
            values[step] = np.nan
            break
    return 0.0


@compiled
def infer(table, numbers, n_block, n_widest, params, x, data, indices, indptr, first, y):
    """Write the predictions of the rows from ``first`` on to y, (n_rows, n_outputs); tell whether x was finite.

    Plain arrays, not tuples of them: Numba takes those apart in a third of a microsecond, and these in two.
    """
    n_rows, csr = len(y), Csr(data, indices, indptr)
    is_csr = indptr.size > 0
    n_features, n_outputs, n_block = table[0, N_IN], table[-1, N_OUT], max(1, min(n_block, n_rows))
    x_all, y_all = x.reshape(-1), y.reshape(-1)
    size = n_block * n_widest
    buffer = np.empty(3 * size, params.dtype)  # two to go from one to the other, and one for slopes, which nobody reads
    last_dense = len(table) - 1
    while table[last_dense, KIND] != DENSE:
        last_dense -= 1

    finite = True
    for start in range(0, n_rows, n_block):
        n = min(n_block, n_rows - start)
        source, at = x_all, (first + start) * n_features  # where the numbers of the layer before are
        if not is_csr:
            finite = finite and _all_finite(x_all[at : at + n * n_features])
            if table[0, KIND] != DENSE:
                _copy(x_all[at : at + n * n_features], buffer)
                source, at = buffer, 0
        side = 0
        for l in range(len(table)):
            row = table[l]
            kind = row[KIND]
            if kind == DENSE:
                side = size - side
                goal, to = (y_all, start * n_outputs) if l == last_dense else (buffer, side)
                if is_csr and l == 0:
                    rows = np.arange(first + start, first + start + n)
                    sparse.csr_forward(csr, rows, params, row[W], row[N_IN], row[N_OUT], goal, to)
                else:
                    products.forward(source, at, params, row[W], row[N_IN], row[N_OUT], goal, to, n, row[BY_BLAS] != 0)
                source, at = goal, to
                continue
            z, slope = source[at : at + n * row[N_OUT]], buffer[2 * size : 2 * size + n * row[N_OUT]]
            if kind == RELU:
                activations.relu(z)
            elif kind == LEAKY_RELU:
                activations.leaky_relu(z, numbers[l])
            elif kind == SIGMOID:
                activations.sigmoid(z, slope)
            elif kind == TANH:
                activations.tanh(z, slope)
            elif kind == SOFTMAX:
                activations.softmax(z, row[N_OUT])
    return finite


@compiled
def settle(params, n_out, scale, seen):
    """Pay what all rows of a sparse first layer owe; tell whether they are finite."""
    return sparse.pay_all(params, n_out, scale, seen) == 0


@njit(**INLINE)
def _shares(weights, batch, shares):
    """Write w_n / sum w for the rows of a batch and return sum w; around the largest, so that no sum overflows."""
    n = len(batch)
    if weights.size == 0:
        for i in range(n):
            shares[i] = 1 / n
        return float(n)
    largest, total, plain = 0.0, 0.0, 0.0
    for i in range(n):
        largest = max(largest, weights[batch[i]])
    if largest == 0:
        for i in range(n):
            shares[i] = 0.0
        return 0.0
    for i in range(n):
        plain += weights[batch[i]]
        shares[i] = weights[batch[i]] / largest
        total += shares[i]
    for i in range(n):
        shares[i] /= total
    return plain


@njit(**INLINE)
def _clear(a, n):
    """Write n zeros."""
    for i in range(n):
        a[i] = like(a, 0)


@njit(**INLINE)
def _copy(x, y):
    """Write y = x."""
    for i in range(x.size):
        y[i] = x[i]


@njit(**INLINE)
def _gather(x, rows, n_features, buffer):
    """Copy the given rows, one after the other."""
    for i in range(len(rows)):
        _copy(x[rows[i] * n_features : (rows[i] + 1) * n_features], buffer[i * n_features : (i + 1) * n_features])


@njit(**SUM)
def _all_finite(a):
    """Tell whether 0 * a is 0 throughout."""
    check, zero = like(a, 0), like(a, 0)
    for i in range(a.size):
        check += zero * a[i]
    return check == 0
