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
from .elementary import HELPER, INLINE, SUM, like, view
from .program import BINARY, BY_BLAS, DENSE, DROPOUT, KIND, N_IN, N_OUT, PLAIN, SLOPE, TRANSPOSED, UNIFORMS, W, X, Y
from .tile import LINE, WIDE
from .updates import add_l2, pace_of, update, update_rows

_SMALL = 1 << 20  # parameters, of which a copy is nothing beside the steps of a chunk


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
    places: np.ndarray  # int32, the slot of each number of the batch
    scale: np.ndarray  # float64, (1,)
    seen: np.ndarray  # float64, (n_features,)


@compiled
def train(program, rule, data, slots, params, m, v, order, n_batch, rates, n_before, uniforms, values, totals, done):
    """Run the steps over the rows of ``order``; return 0, or a number that was to be a probability and is none.

    ``rates`` are the learning rates of the updates from number ``n_before`` on. The objective and the weight of each step
    are written to ``values`` and ``totals``, the numbers of updates and of steps to ``done``. After a step that is not
    finite, or is refused, nothing more is done.
    """
    # A copy that starts with a cache line is read and written twice as fast as one that lies as it happens to.
    is_small = params.size <= _SMALL
    w, m_w, v_w = params, m, v
    if is_small:
        w, m_w, v_w = _aligned(params), _aligned(m), _aligned(v)
    refused = _steps(
        program, rule, data, slots, w, m_w, v_w, order, n_batch, rates, n_before, uniforms, values, totals, done
    )
    if is_small:
        _copy(w, params)
        _copy(m_w, m)
        _copy(v_w, v)
    return refused


@compiled
def infer(table, numbers, n_block, n_widest, params, x, first, y):
    """Write the predictions of the rows of x from ``first`` on to y, (n_rows, n_outputs); tell whether x is finite.

    Plain arrays, not tuples of them: Numba takes those apart in a tenth of the time.
    """
    return _infer(table, numbers, n_block, n_widest, params, x, None, first, y)


@compiled
def infer_csr(table, numbers, n_block, n_widest, params, csr, first, y):
    """Do the same for rows of a CSR matrix."""
    return _infer(table, numbers, n_block, n_widest, params, y, csr, first, y)


@compiled
def settle(params, n_out, slots):
    """Pay what all rows of a sparse first layer owe."""
    if slots.scale[0] != 1:
        sparse.pay_all(params, n_out, slots)


@njit(**HELPER)
def _steps(program, rule, data, slots, params, m, v, order, n_batch, rates, n_before, uniforms, values, totals, done):
    """Do what ``train`` says."""
    table, numbers, n_block, csr = program.table, program.numbers, min(program.n_block, n_batch), data.csr
    n_layers, n_features, n_first, n_outputs = len(table), table[0, N_IN], table[0, N_OUT], table[-1, N_OUT]
    is_csr, is_compact = csr.indptr.size > 0, slots.slots.size > 0
    # Plain SGD on a batch of one block needs no gradient of W.
    is_direct = is_compact and rule.update == PLAIN and n_batch <= n_block
    size = 2 * n_block * program.n_widest  # twice: the loss keeps two numbers for an output there
    buffer, dy, dx = _empty(n_block * program.n_buffer, params), _empty(size, params), _empty(size, params)
    transposed, zeros = _empty(program.n_transposed, params), np.zeros(program.n_widest, params.dtype)
    shares = np.empty(n_batch, np.float64)
    # Gradients lie as the parameters do; but of a compact first W only the rows in the slots are there.
    n_slots = 0 if is_direct else slots.touched.size
    shift = (n_features - n_slots) * n_first if is_compact else 0
    grads = _empty(params.size - shift, params)
    _clear(grads, grads.size)
    finite = _empty(WIDE * LINE, params)  # zeros, as long as all that a sparse update wrote is finite
    _clear(finite, finite.size)
    first_dense = 0
    while table[first_dense, KIND] != DENSE:
        first_dense += 1

    n_drawn = 0
    for step in range(len(values)):
        size = min(n_batch, len(order) - step * n_batch)
        batch = view(order, step * n_batch, size)
        total = _shares(data.weights, batch, shares)
        totals[step] = total
        n_touched, n_before_block = 0, 0
        if is_compact:
            sparse.pay_rows(csr, batch, params, n_first, slots)
        if is_compact and not is_direct:
            n_touched = sparse.open_slots(csr, batch, slots)
            sparse.close_slots(slots, n_touched)
            _clear(grads, n_touched * n_first)
        elif is_csr and not is_compact:
            _clear(grads, n_features * n_first)
        for l in range(first_dense + 1, n_layers):
            if table[l, KIND] == DENSE and table[l, BY_BLAS] == 0 and size >= products.MANY:
                products.transpose(
                    params, table[l, W], table[l, N_IN], table[l, N_OUT], transposed, table[l, TRANSPOSED]
                )

        value = 0.0
        for start in range(0, size, n_block):
            n = min(n_block, size - start)
            rows = view(batch, start, n)
            if not is_csr:
                _gather(data.x, rows, n_features, buffer)
            for l in range(n_layers):
                kind, n_in, n_out = table[l, KIND], table[l, N_IN], table[l, N_OUT]
                x_0, y_0 = n_block * table[l, X], n_block * table[l, Y]
                y = view(buffer, y_0, n * n_out)
                if kind == DENSE:
                    if is_csr and l == 0:
                        sparse.csr_forward(csr, rows, params, table[l, W], n_in, n_out, buffer, y_0)
                    else:
                        products.forward(
                            buffer, x_0, params, table[l, W], n_in, n_out, buffer, y_0, n, table[l, BY_BLAS] != 0
                        )
                    continue
                if y_0 != x_0:
                    _copy(view(buffer, x_0, n * n_in), y)
                if kind == DROPOUT:
                    u = n_drawn + size * table[l, UNIFORMS] + start * n_out
                    activations.dropout(y, view(uniforms, u, n * n_out), numbers[l])
                else:
                    activations.activate(kind, numbers[l], y, n_out, view(buffer, n_block * table[l, SLOPE], n * n_out))

            y = view(buffer, n_block * table[-1, Y], n * n_outputs)
            if rule.loss == BINARY:
                refused = losses.no_probability(y)
                if refused != 0:
                    return float(refused)
            value += losses.block_loss(
                rule.loss,
                rule.delta,
                y,
                n_outputs,
                rows,
                data.targets,
                data.labels,
                view(shares, start, n),
                view(dy, 0, n * n_outputs),
                dx,
            )

            for l in range(n_layers - 1, first_dense - 1, -1):
                kind, n_in, n_out = table[l, KIND], table[l, N_IN], table[l, N_OUT]
                d = view(dy, 0, n * n_out)
                if kind == DENSE:
                    by_blas, w_0 = table[l, BY_BLAS] != 0, table[l, W]
                    g_0, first = w_0 - shift if l > 0 else 0, start == 0
                    products.bias_gradient(d, n_out, grads, w_0 + n_in * n_out - shift, n, first)
                    if is_csr and l == 0 and not is_direct:
                        n_before_block = sparse.csr_weight_gradient(
                            csr, rows, d, n_out, grads, slots, n_before_block, is_compact, finite
                        )
                    elif not is_direct or l > 0:
                        products.weight_gradient(
                            buffer, n_block * table[l, X], dy, n_in, n_out, grads, g_0, n, by_blas, first, zeros
                        )
                    if l > first_dense:
                        t_0 = table[l, TRANSPOSED]
                        products.input_gradient(
                            dy, params, w_0, transposed, t_0, n_in, n_out, dx, n, size, by_blas, zeros
                        )
                        dy, dx = dx, dy
                elif kind == DROPOUT:
                    u = n_drawn + size * table[l, UNIFORMS] + start * n_out
                    activations.dropout(d, view(uniforms, u, n * n_out), numbers[l])
                else:
                    y = view(buffer, n_block * table[l, Y], n * n_out)
                    slope = view(buffer, n_block * table[l, SLOPE], n * n_out)
                    activations.activate_backward(kind, numbers[l], d, y, n_out, slope)
        n_drawn += size * program.n_uniforms

        if rule.l2 != 0 and total != 0:
            for l in range(first_dense, n_layers):
                if table[l, KIND] == DENSE:
                    w_0, n_weights = table[l, W], table[l, N_IN] * table[l, N_OUT]
                    value += add_l2(params, w_0, grads, w_0 - shift, n_weights, rule.l2 / total)
        values[step], done[1] = value, step + 1
        if not np.isfinite(value):
            break
        if total == 0:
            continue

        pace, check = pace_of(rule, rates[done[0]], n_before + done[0] + 1), like(params, 0)
        decay = 1 - pace[0] * rule.weight_decay
        at_once = decay == 1 and not rule.lazy and not is_compact
        if at_once:
            check += update(rule, params, 0, grads, 0, m, v, params.size, 1.0, pace)
        for l in range(first_dense, n_layers):
            if table[l, KIND] == DENSE and not at_once:
                w_0, n_in, n_out = table[l, W], table[l, N_IN], table[l, N_OUT]
                b_0 = w_0 + n_in * n_out
                if l == 0 and is_direct:
                    sparse.csr_sgd(csr, batch, dy, n_out, params, pace[0], decay, slots, finite)
                    for j in range(finite.size):
                        check += finite[j]
                elif l == 0 and is_compact:
                    check += sparse.update_touched(rule, params, grads, m, v, n_out, slots, n_touched, decay, pace)
                elif rule.lazy:
                    check += update_rows(rule, params, w_0, grads, w_0 - shift, m, v, n_in, n_out, decay, pace)
                else:
                    check += update(rule, params, w_0, grads, w_0 - shift, m, v, n_in * n_out, decay, pace)
                check += update(rule, params, b_0, grads, b_0 - shift, m, v, n_out, 1.0, pace)
        if is_compact:
            check += sparse.keep_scale(params, n_first, decay, slots)
        done[0] += 1
        if check != 0:
            values[step] = np.nan
            break
    return 0.0


@njit(**HELPER)
def _infer(table, numbers, n_block, n_widest, params, x, csr, first, y):
    """Do what ``infer`` says; csr is None, or x is not read."""
    n_rows = len(y)
    n_features, n_outputs, n_block = table[0, N_IN], table[-1, N_OUT], max(1, min(n_block, n_rows))
    x_all, y_all = view(x, 0, x.size), view(y, 0, y.size)
    side = n_block * n_widest
    buffer = _empty(3 * side, params)  # two to go from one to the other, and one for slopes, which nobody reads
    last_dense = len(table) - 1
    while table[last_dense, KIND] != DENSE:
        last_dense -= 1

    finite = True
    for start in range(0, n_rows, n_block):
        n = min(n_block, n_rows - start)
        source, at = x_all, (first + start) * n_features  # where the numbers of the layer before are
        if csr is None:
            finite = finite and _all_finite(view(x_all, at, n * n_features))
            if table[0, KIND] != DENSE:
                _copy(view(x_all, at, n * n_features), buffer)
                source, at = buffer, 0
        other = side
        for l in range(len(table)):
            kind, n_in, n_out = table[l, KIND], table[l, N_IN], table[l, N_OUT]
            if kind == DENSE:
                goal, to = (y_all, start * n_outputs) if l == last_dense else (buffer, other)
                if csr is not None and l == 0:
                    rows = np.arange(first + start, first + start + n)
                    sparse.csr_forward(csr, rows, params, table[l, W], n_in, n_out, goal, to)
                else:
                    products.forward(source, at, params, table[l, W], n_in, n_out, goal, to, n, table[l, BY_BLAS] != 0)
                source, at, other = goal, to, side - other
            elif kind != DROPOUT:
                z = view(source, at, n * n_out)
                activations.activate(kind, numbers[l], z, n_out, view(buffer, 2 * side, n * n_out))
    return finite


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
    for i in range(n):
        plain += weights[batch[i]]
        shares[i] = weights[batch[i]] / largest if largest > 0 else 0.0
        total += shares[i]
    for i in range(n):
        shares[i] = shares[i] / total if largest > 0 else 0.0
    return plain


@njit(**HELPER)
def _empty(n, a):
    """Return n numbers like those of ``a``, from the start of a cache line on."""
    n_lanes = LINE // a.itemsize
    raw = np.empty(n + n_lanes, a.dtype)
    start = -(raw.ctypes.data // a.itemsize) % n_lanes
    return raw[start : start + n]


@njit(**HELPER)
def _aligned(a):
    """Return a copy that starts with a cache line."""
    copy = _empty(a.size, a)
    _copy(a, copy)
    return copy


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
        _copy(view(x, rows[i] * n_features, n_features), view(buffer, i * n_features, n_features))


@njit(**SUM)
def _all_finite(a):
    """Tell whether 0 * a is 0 throughout."""
    check, zero = like(a, 0), like(a, 0)
    for i in range(a.size):
        check += zero * a[i]
    return check == 0
