"""The compiled functions that Python calls: ``train`` runs many steps of training, ``infer`` predicts many rows.

Both interpret the table of ``program``. A batch goes through the network in blocks of a few rows, forward and straight
back, so that a block's numbers never leave the cache; the blocks' gradients add up, always in the same order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from . import activations, losses, norm, products, sparse, threads
from .cache import compiled
from .elementary import (
    HELPER,
    INLINE,
    ONCE,
    SUM,
    flush_subnormals,
    like,
    restore_subnormals,
    total,
    view,
    zero_if_finite,
)
from .program import (
    BINARY,
    BY_BLAS,
    DENSE,
    DROPOUT,
    KIND,
    LAYER_NORM,
    MATRIX,
    N_IN,
    N_OUT,
    PARAMS,
    PLAIN,
    SLOPE,
    TRANSPOSED,
    UNIFORMS,
    VECTOR,
    Program,
    Rule,
    X,
    Y,
)
from .tile import LINE, WIDE
from .updates import add_l2, step_sizes, update, update_rows
from .vectors import add, clear, copy

_SMALL = 1 << 16  # parameters, of which a copy is nothing beside the steps of a chunk


class Csr(NamedTuple):
    """Sparse rows; empty arrays, if x is dense."""

    data: np.ndarray
    indices: np.ndarray  # int32
    indptr: np.ndarray  # int64


class Data(NamedTuple):
    """What a run of training reads: flat arrays, rows one after the other."""

    x: np.ndarray  # empty, if x is a CSR matrix
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
    squares: np.ndarray  # float64, (1,): sum W^2 for the L2 term; negative where it is not known


class Work(NamedTuple):
    """The memory of a training step, made once; a block of rows at a time goes through it."""

    n_block: int
    first: int  # the layer with the first parameters
    is_compact: bool  # the gradient of a sparse first W has rows only for the features that occur
    is_direct: bool  # or there is none: plain SGD on a batch of one block needs no such gradient
    shift: int  # how much earlier than its parameter a gradient lies, as a compact one is shorter
    n_group: int  # rows of a group, which has gradients of its own
    n_grads: int  # numbers of these
    params: np.ndarray  # a copy, that starts with a cache line; empty, if the parameters are many
    buffer: np.ndarray
    dy: np.ndarray  # twice as long as a block's outputs: the loss keeps two numbers for each in dx
    dx: np.ndarray
    grads: np.ndarray
    transposed: np.ndarray
    shares: np.ndarray
    zeros: np.ndarray
    finite: np.ndarray  # zeros, as long as all that a sparse update wrote is finite


def slots_for(rule: Rule, csr: Csr | None, n_features: int, n_batch: int) -> Slots:
    """Return the memory of a sparse first layer, empty where all of its rows move at every step, or x is dense."""
    none = np.empty(0, np.int32)
    if csr is None or not (rule.update == PLAIN or (rule.lazy and rule.l2 == 0)):
        return Slots(none, none, none, np.ones(1), np.empty(0), np.empty(0))
    n_numbers = int(np.sort(np.diff(csr.indptr))[::-1][:n_batch].sum())  # in a batch, at most
    n_slots = min(n_features, n_numbers)
    return Slots(
        np.full(n_features, -1, np.int32),
        np.empty(n_slots, np.int32),
        np.empty(n_numbers, np.int32),
        np.ones(1),
        np.ones(n_features),
        np.zeros(1),
    )


def work_for(
    program: Program, rule: Rule, slots: Slots, n_params: int, n_batch: int, dtype: Any, *, is_csr: bool
) -> Work:
    """Return the memory for batches of so many rows."""
    table, n_block = program.table, min(program.n_block, n_batch)
    is_compact = slots.slots.size > 0
    is_direct = is_compact and rule.update == PLAIN and rule.l2 == 0 and n_batch <= n_block
    n_slots = 0 if is_direct else slots.touched.size
    shift = int((table[0, N_IN] - n_slots) * table[0, N_OUT]) if is_compact else 0
    n_both = 2 * n_block * program.n_widest
    n_group, n_grads = threads.rows_of_group(n_batch, n_block), -(-(n_params - shift) // LINE) * LINE
    n_groups = 1 if is_csr else -(-n_batch // n_group)
    sizes = (n_block * program.n_buffer, n_both, n_both, n_groups * n_grads, program.n_transposed)
    buffer, dy, dx, grads, transposed = (aligned_zeros(n, dtype) for n in sizes)
    return Work(
        n_block=n_block,
        first=int(np.argmax(table[:, VECTOR] > 0)),
        is_compact=is_compact,
        is_direct=is_direct,
        shift=shift,
        n_group=n_group,
        n_grads=n_grads,
        params=aligned_zeros(n_params if n_params <= _SMALL else 0, dtype),
        buffer=buffer,
        dy=dy,
        dx=dx,
        grads=grads,
        transposed=transposed,
        shares=np.zeros(n_batch),
        zeros=aligned_zeros(program.n_widest, dtype),
        finite=aligned_zeros(WIDE * LINE // np.dtype(dtype).itemsize, dtype),
    )


def aligned_zeros(n: int, dtype: Any) -> np.ndarray:
    """Return n zeros, from the start of a cache line on."""
    raw = np.zeros(n + LINE, dtype)
    start = -(raw.ctypes.data // raw.itemsize) % (LINE // raw.itemsize)
    return raw[start : start + n]


class Block(NamedTuple):
    """Some rows of a batch, and what came before them."""

    rows: np.ndarray
    start: int  # in the batch
    is_first: bool  # of its group
    size: int  # of the batch
    n_drawn: int  # uniforms of the steps before
    n_numbers: int  # of the batch's sparse x


def with_own_blocks(work: Work) -> Work:
    """Return the memory of another thread that shares the steps: its blocks are its own."""
    buffer, dy, dx = (aligned_zeros(a.size, a.dtype) for a in (work.buffer, work.dy, work.dx))
    return work._replace(buffer=buffer, dy=dy, dx=dx)


@compiled
def train(
    program,
    rule,
    data,
    csr,
    slots,
    work,
    crew,
    helps,
    params,
    m,
    v,
    order,
    n_batch,
    rates,
    n_before,
    uniforms,
    values,
    totals,
    done,
):
    """Run the steps over the rows of ``order``; return 0, or the first value outside [0, 1].

    ``rates`` are the learning rates of the updates from number ``n_before`` on. The objective and the weight of each step
    are written to ``values`` and ``totals``, the numbers of updates and of steps to ``done``. After a step that is not
    finite, or is refused, nothing more is done. On x86, numbers below the least normal one count as 0.

    A thread that ``helps`` takes groups of rows of the steps that another thread runs, until that has ended.
    """
    # A copy that starts with a cache line is read and written twice as fast as one that lies as it happens to.
    is_small = work.params.size > 0
    w = work.params if is_small else params
    before = flush_subnormals()
    refused = 0.0
    if helps:
        group = threads.wait_for_a_group(crew)
        while group >= 0:
            _run_group(program, rule, data, csr, slots, work, crew, w, uniforms, order, group)
            group = threads.wait_for_a_group(crew)
    else:
        m_w, v_w = m, v
        if is_small:
            copy(params, w)
            m_w, v_w = _aligned(m), _aligned(v)
        refused = _steps(
            program,
            rule,
            data,
            csr,
            slots,
            work,
            crew,
            w,
            m_w,
            v_w,
            order,
            n_batch,
            rates,
            n_before,
            uniforms,
            values,
            totals,
            done,
        )
        threads.stop(crew)
        if is_small:
            copy(w, params)
            copy(m_w, m)
            copy(v_w, v)
    restore_subnormals(before)
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
def finish_decay(params, n_out, slots):
    """Apply the pending decay to all rows of a sparse first layer."""
    if slots.scale[0] != 1:
        sparse.decay_all_rows(params, n_out, slots)


@njit(**ONCE)
def _steps(
    program,
    rule,
    data,
    csr,
    slots,
    work,
    crew,
    params,
    m,
    v,
    order,
    n_batch,
    rates,
    n_before,
    uniforms,
    values,
    totals,
    done,
):
    """Do what ``train`` says."""
    n_drawn = 0
    for step in range(len(values)):
        start, size = step * n_batch, min(n_batch, len(order) - step * n_batch)
        batch = view(order, start, size)
        weight = _shares(data.weights, batch, work.shares)
        n_slots = _prepare(program, csr, slots, params, work, batch)
        n_groups = 1
        if csr is None:
            n_groups = -(-size // work.n_group)
        threads.publish(crew, n_groups, start, size, n_drawn)
        group, is_swapped = threads.next_group(crew), False
        while group >= 0:
            is_swapped = _run_group(program, rule, data, csr, slots, work, crew, params, uniforms, order, group)
            group = threads.next_group(crew)
        if not threads.wait_for_all(crew, n_groups):
            break
        value = 0.0
        for i in range(n_groups):
            if crew.refused[i] != 0:
                return crew.refused[i]
            value += crew.values[i]
            if i > 0:
                add(view(work.grads, 0, work.n_grads), view(work.grads, i * work.n_grads, work.n_grads))
        n_drawn += size * program.n_uniforms

        share = rule.l2 / weight if weight != 0 else 0.0
        if share != 0:
            value += _add_l2(program, csr, slots, params, work, share)
        values[step], totals[step], done[1] = value, weight, step + 1
        if not np.isfinite(value):
            break
        if weight == 0:  # all rows weigh nothing: there is no step
            continue
        sizes = step_sizes(rule, rates[done[0]], n_before + done[0] + 1)
        dy = work.dx if is_swapped else work.dy
        check = _update(program, rule, csr, slots, params, m, v, work, batch, n_slots, dy, sizes, share)
        done[0] += 1
        if check != 0:
            values[step] = np.nan
            break
    return 0.0


@njit(**HELPER)
def _run_group(program, rule, data, csr, slots, work, crew, params, uniforms, order, group):
    """Send a group of rows through the network, forward and back; tell whether the last dy lies in ``work.dx``."""
    size, n_drawn = crew.state[threads.SIZE], crew.state[threads.DRAWN]
    batch, first = view(order, crew.state[threads.START], size), group * work.n_group
    last = size
    if csr is None:
        last = min(size, first + work.n_group)
    grads = view(work.grads, group * work.n_grads, work.n_grads)
    dy, dx, is_swapped, value, n_numbers = work.dy, work.dx, False, 0.0, 0
    crew.refused[group] = 0.0
    for start in range(first, last, work.n_block):
        rows = view(batch, start, min(work.n_block, last - start))
        block = Block(rows, start, start == first, size, n_drawn, n_numbers)
        y = _forward(program, data, csr, params, uniforms, work, block)
        if rule.loss == BINARY and crew.refused[group] == 0:
            crew.refused[group] = losses.no_probability(y)
        shares, n_outputs = view(work.shares, start, len(rows)), program.table[-1, N_OUT]
        value += losses.block_loss(rule, y, n_outputs, rows, data.targets, data.labels, shares, dy, dx)
        n_numbers, is_odd = _backward(program, csr, slots, params, uniforms, work, grads, block, dy, dx)
        if is_odd:
            dy, dx, is_swapped = dx, dy, not is_swapped
    crew.values[group] = value
    threads.finish(crew)
    return is_swapped


@njit(**ONCE)
def _prepare(program, csr, slots, params, work, batch):
    """Make W.T and an empty gradient of a sparse first W; return how many slots there are."""
    table, n_slots = program.table, 0
    for l in range(work.first + 1, len(table)):
        if table[l, KIND] == DENSE and table[l, BY_BLAS] == 0 and len(batch) >= products.MANY:
            w_0, n_in, n_out = table[l, PARAMS], table[l, N_IN], table[l, N_OUT]
            products.transpose(params, w_0, n_in, n_out, work.transposed, table[l, TRANSPOSED])
    n_out = table[0, N_OUT]
    if csr is not None:
        if work.is_compact:
            sparse.decay_rows(csr, batch, params, n_out, slots)
            if not work.is_direct:
                n_slots = sparse.open_slots(csr, batch, slots)
                sparse.close_slots(slots, n_slots)
                clear(view(work.grads, 0, n_slots * n_out))
        else:
            clear(view(work.grads, 0, table[0, N_IN] * n_out))
    return n_slots


@njit(**ONCE)
def _forward(program, data, csr, params, uniforms, work, block):
    """Send a block through the layers; return its output."""
    table, buffer, rows, n = program.table, work.buffer, block.rows, len(block.rows)
    first = 0
    if csr is None:
        _gather(data.x, rows, table[0, N_IN], buffer)
    else:
        y_0, first = work.n_block * table[0, Y], 1
        sparse.csr_forward(csr, rows, params, table[0, PARAMS], table[0, N_IN], table[0, N_OUT], buffer, y_0)
    for l in range(first, len(table)):
        kind, n_in, n_out = table[l, KIND], table[l, N_IN], table[l, N_OUT]
        x_0, y_0 = work.n_block * table[l, X], work.n_block * table[l, Y]
        if kind == DENSE:
            by_blas = table[l, BY_BLAS] != 0
            products.forward(buffer, x_0, params, table[l, PARAMS], n_in, n_out, buffer, y_0, n, by_blas)
        else:
            y = view(buffer, y_0, n * n_out)
            if y_0 != x_0:
                copy(view(buffer, x_0, n * n_in), y)
            if kind == DROPOUT:
                activations.dropout(y, _drawn(uniforms, block, table[l, UNIFORMS], n_out), program.numbers[l])
            elif kind == LAYER_NORM:
                kept = view(buffer, work.n_block * table[l, SLOPE], n * (n_out + 1))
                norm.forward(y, params, table[l, PARAMS], n_out, program.numbers[l], kept)
            else:
                slope = view(buffer, work.n_block * table[l, SLOPE], n * n_out)
                activations.activate(kind, program.numbers[l], y, n_out, slope)
    return view(buffer, work.n_block * table[-1, Y], n * table[-1, N_OUT])


@njit(**ONCE)
def _backward(program, csr, slots, params, uniforms, work, grads, block, dy, dx):
    """Send dy back to the first Dense layer and add up gradients; tell whether dy and dx have changed places."""
    table, buffer, n, first = program.table, work.buffer, len(block.rows), block.is_first
    n_numbers, is_odd, first_product = block.n_numbers, False, 0
    if csr is not None:
        first_product = 1
    for l in range(len(table) - 1, work.first - 1, -1):
        kind, n_in, n_out = table[l, KIND], table[l, N_IN], table[l, N_OUT]
        d = view(dy, 0, n * n_out)
        if kind == DENSE:
            by_blas, w_0 = table[l, BY_BLAS] != 0, table[l, PARAMS]
            g_0 = w_0 - work.shift
            products.bias_gradient(d, n_out, grads, w_0 + n_in * n_out - work.shift, n, first)
            if l >= first_product:
                x_0 = work.n_block * table[l, X]
                products.weight_gradient(buffer, x_0, dy, n_in, n_out, grads, g_0, n, by_blas, first, work.zeros)
            if l > work.first:
                products.input_gradient(
                    dy,
                    params,
                    w_0,
                    work.transposed,
                    table[l, TRANSPOSED],
                    n_in,
                    n_out,
                    dx,
                    n,
                    block.size,
                    by_blas,
                    work.zeros,
                )
                dy, dx, is_odd = dx, dy, not is_odd
        elif kind == DROPOUT:
            activations.dropout(d, _drawn(uniforms, block, table[l, UNIFORMS], n_out), program.numbers[l])
        elif kind == LAYER_NORM:
            kept, start = view(buffer, work.n_block * table[l, SLOPE], n * (n_out + 1)), table[l, PARAMS]
            norm.backward(d, params, start, n_out, kept, grads, start - work.shift, first)
        else:
            y = view(buffer, work.n_block * table[l, Y], n * n_out)
            slope = view(buffer, work.n_block * table[l, SLOPE], n * n_out)
            activations.activate_backward(kind, program.numbers[l], d, y, n_out, slope)
    if csr is not None:
        if not work.is_direct:
            n_out = table[0, N_OUT]
            d = view(dy, 0, n * n_out)
            n_numbers = sparse.csr_weight_gradient(
                csr, block.rows, d, n_out, grads, slots, n_numbers, work.is_compact, work.finite
            )
    return n_numbers, is_odd


@njit(**ONCE)
def _drawn(uniforms, block, before, n_out):
    """Return the uniforms of a dropout layer for the rows of a block."""
    return view(uniforms, block.n_drawn + block.size * before + block.start * n_out, len(block.rows) * n_out)


@njit(**ONCE)
def _add_l2(program, csr, slots, params, work, share):
    """Add the L2 term to the gradients, but of a sparse W, which decays for it; return its value."""
    table, value, first = program.table, 0.0, work.first
    if csr is not None:
        if work.is_compact:
            value, first = share / 2 * sparse.sum_of_squares(view(params, 0, table[0, MATRIX]), slots), 1
    for l in range(first, len(table)):
        if table[l, MATRIX] > 0:
            w_0 = table[l, PARAMS]
            value += add_l2(params, w_0, work.grads, w_0 - work.shift, table[l, MATRIX], share)
    return value


@njit(**ONCE)
def _update(program, rule, csr, slots, params, m, v, work, batch, n_slots, dy, sizes, share):
    """Move the parameters; return 0, or NaN if one is not finite now.

    The L2 term's gradient is share * W, so plain SGD's step along it is a decay: of a sparse W it is left to that.
    """
    table, grads, shift = program.table, work.grads, work.shift
    decay, check = 1 - sizes.learning_rate * rule.weight_decay, like(params, 0)
    decay_0 = decay - sizes.learning_rate * share
    if decay == 1 and not rule.lazy and not work.is_compact:  # all are moved alike
        return update(rule, params, 0, grads, 0, m, v, params.size, 1.0, sizes)
    for l in range(work.first, len(table)):
        w_0, n_matrix, n_out = table[l, PARAMS], table[l, MATRIX], table[l, N_OUT]
        if n_matrix + table[l, VECTOR] == 0:
            continue
        if l == 0 and work.is_compact:
            if csr is not None:
                if work.is_direct:
                    sparse.csr_sgd(csr, batch, dy, n_out, params, sizes.learning_rate, decay_0, slots, work.finite)
                    check += total(work.finite)
                else:
                    check += sparse.update_touched(rule, params, grads, m, v, n_out, slots, n_slots, decay_0, sizes)
        elif rule.lazy:
            check += update_rows(rule, params, w_0, grads, w_0 - shift, m, v, n_matrix // n_out, n_out, decay, sizes)
        else:
            check += update(rule, params, w_0, grads, w_0 - shift, m, v, n_matrix, decay, sizes)
        b_0 = w_0 + n_matrix
        check += update(rule, params, b_0, grads, b_0 - shift, m, v, table[l, VECTOR], 1.0, sizes)
    if csr is not None:
        if work.is_compact:
            check += sparse.keep_scale(params, table[0, N_OUT], decay_0, slots)
    return check


@njit(**ONCE)
def _infer(table, numbers, n_block, n_widest, params, x, csr, first, y):
    """Do what ``infer`` says; csr is None, or x is not read."""
    n_rows = len(y)
    n_features, n_outputs, n_block = table[0, N_IN], table[-1, N_OUT], max(1, min(n_block, n_rows))
    x_all, y_all = view(x, 0, x.size), view(y, 0, y.size)
    side = n_block * n_widest
    # Two to go from one to the other, and one for slopes, or for what LayerNorm notes; those are not read.
    buffer = _empty(3 * side + n_block, params)
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
                copy(view(x_all, at, n * n_features), buffer)
                source, at = buffer, 0
        other = side
        for l in range(len(table)):
            kind, n_in, n_out = table[l, KIND], table[l, N_IN], table[l, N_OUT]
            if kind == DENSE:
                goal, to = (y_all, start * n_outputs) if l == last_dense else (buffer, other)
                if csr is not None and l == 0:
                    rows = np.arange(first + start, first + start + n)
                    sparse.csr_forward(csr, rows, params, table[l, PARAMS], n_in, n_out, goal, to)
                else:
                    products.forward(
                        source, at, params, table[l, PARAMS], n_in, n_out, goal, to, n, table[l, BY_BLAS] != 0
                    )
                source, at, other = goal, to, side - other
            elif kind == LAYER_NORM:
                z, kept = view(source, at, n * n_out), view(buffer, 2 * side, n * (n_out + 1))
                norm.forward(z, params, table[l, PARAMS], n_out, numbers[l], kept)
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
    out = _empty(a.size, a)
    copy(a, out)
    return out


@njit(**INLINE)
def _gather(x, rows, n_features, buffer):
    """Copy the given rows, one after the other."""
    for i in range(len(rows)):
        copy(view(x, rows[i] * n_features, n_features), view(buffer, i * n_features, n_features))


@njit(**SUM)
def _all_finite(a):
    """Tell whether 0 * a is 0 throughout."""
    check = like(a, 0)
    for i in range(a.size):
        check += zero_if_finite(a[i])
    return check == 0
