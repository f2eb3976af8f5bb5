"""A first Dense layer on CSR rows: forward, backward and update touch only the rows of W whose features occur.

*Plain SGD* is linear in the gradient, so each number of x moves its row of W by itself. Other rules need the whole
gradient of a row first: each feature that occurs in a batch gets a *slot*, a row of a compact gradient.

The *L2 term* adds a multiple of W to every row of the gradient: for plain SGD a decay. The sum of all W^2, which is its
value, changes by the rows that a step moves.

*Decay* moves every row at every step, but a row that is not read can wait: ``scale`` is the product of all decays so far,
``seen[f]`` its value when row f was last brought up to date, and scale / seen[f] is the factor still to be applied. It is applied
before the row is read.

Rows lie anywhere in a large memory. ``gather`` waits for many at once; for the update, the rows of W and of the moments
are prefetched a little before they are needed.
"""

from __future__ import annotations

from numba import njit

from .elementary import HELPER, INLINE, SUM, like, view, zero_if_finite
from .program import ADAM, PLAIN
from .tile import LINE, WIDE, gather, narrow_gather, narrow_scatter, prefetch, scatter, wide_gather, wide_scatter
from .updates import any_nonzero, update

_TINY = 1e-100  # below it, scale is applied to all rows
_AHEAD = 6  # rows between asking and reading


@njit(**HELPER)
def prefetch_row(a, start, n_columns):
    """Prefetch a row."""
    for j in range(0, n_columns, LINE // a.itemsize):
        prefetch(a, start + j)


@njit(**HELPER)
def csr_forward(csr, rows, params, w_0, n_in, n_out, y, y_0):
    """Write y_i = b + sum_f x_if W_f for the given rows."""
    b_0, n_lanes = w_0 + n_in * n_out, LINE // params.itemsize
    x, index = csr.data, csr.indices
    for i in range(rows.size):
        first, y_i = csr.indptr[rows[i]], y_0 + i * n_out
        n = csr.indptr[rows[i] + 1] - first
        j = 0
        while j + WIDE * n_lanes <= n_out:
            wide_gather(x, index, first, params, w_0 + j, n_out, params, b_0 + j, y, y_i + j, n, n_lanes)
            j += WIDE * n_lanes
        while j + n_lanes <= n_out:
            gather(x, index, first, params, w_0 + j, n_out, params, b_0 + j, y, y_i + j, n, n_lanes)
            j += n_lanes
        if j < n_out:
            narrow_gather(x, index, first, params, w_0 + j, n_out, params, b_0 + j, y, y_i + j, n, n_out - j)


@njit(**HELPER)
def csr_add(factor, csr, row, index, i_0, d, d_0, n_out, goal, check):
    """Add factor x_f d to the rows of ``goal`` that ``index`` names from i_0 on, for the numbers x_f of one row of x."""
    first, n_lanes = csr.indptr[row], LINE // goal.itemsize
    n = csr.indptr[row + 1] - first
    factor, x, j = like(goal, factor), csr.data, 0
    while j + WIDE * n_lanes <= n_out:
        wide_scatter(factor, x, first, index, i_0, d, d_0 + j, goal, j, n_out, check, 0, n, n_lanes)
        j += WIDE * n_lanes
    while j + n_lanes <= n_out:
        scatter(factor, x, first, index, i_0, d, d_0 + j, goal, j, n_out, check, 0, n, n_lanes)
        j += n_lanes
    if j < n_out:
        narrow_scatter(factor, x, first, index, i_0, d, d_0 + j, goal, j, n_out, check, 0, n, n_out - j)


@njit(**HELPER)
def csr_weight_gradient(csr, rows, dy, n_out, grads, slots, n_before, is_compact, check):
    """Add x_if dy_i to the gradient of feature f: in its slot, or in its own row where the gradient has all rows.

    ``n_before``: how many numbers of x the rows of the batch before these have. Return that for the next.
    """
    for i in range(rows.size):
        first, after = csr.indptr[rows[i]], csr.indptr[rows[i] + 1]
        if is_compact:
            csr_add(1.0, csr, rows[i], slots.places, n_before, dy, i * n_out, n_out, grads, check)
        else:
            csr_add(1.0, csr, rows[i], csr.indices, first, dy, i * n_out, n_out, grads, check)
        n_before += after - first
    return n_before


@njit(**HELPER)
def csr_sgd(csr, rows, dy, n_out, params, learning_rate, decay, slots, check):
    """Move W_f = decay W_f - learning_rate sum_i x_if dy_i for the features that occur."""
    slots.scale[0] *= decay
    decay_rows(csr, rows, params, n_out, slots)
    for i in range(rows.size):
        csr_add(-learning_rate, csr, rows[i], csr.indices, csr.indptr[rows[i]], dy, i * n_out, n_out, params, check)


@njit(**INLINE)
def open_slots(csr, rows, slots):
    """Give each feature that occurs a slot, note the slot of every number of x, and return how many slots there are."""
    n, q = 0, 0
    for i in range(rows.size):
        for p in range(csr.indptr[rows[i]], csr.indptr[rows[i] + 1]):
            f = csr.indices[p]
            if slots.slots[f] < 0:
                slots.slots[f] = n
                slots.touched[n] = f
                n += 1
            slots.places[q] = slots.slots[f]
            q += 1
    return n


@njit(**INLINE)
def close_slots(slots, n):
    """Take the slots back."""
    for i in range(n):
        slots.slots[slots.touched[i]] = -1


@njit(**INLINE)
def decay_row(params, n_out, f, slots):
    """Bring row f of W up to date."""
    if slots.seen[f] != slots.scale[0]:
        factor, w_f = like(params, slots.scale[0] / slots.seen[f]), view(params, f * n_out, n_out)
        for j in range(n_out):
            w_f[j] *= factor
        slots.seen[f] = slots.scale[0]


@njit(**INLINE)
def decay_rows(csr, rows, params, n_out, slots):
    """Bring the rows of the features that occur up to date, if decay is pending."""
    if slots.scale[0] != 1:
        for i in range(rows.size):
            for p in range(csr.indptr[rows[i]], csr.indptr[rows[i] + 1]):
                decay_row(params, n_out, csr.indices[p], slots)


@njit(**SUM)
def decay_all_rows(params, n_out, slots):
    """Bring all rows up to date and start the product anew; return 0, or NaN if a row is not finite."""
    check = like(params, 0)
    for f in range(slots.seen.size):
        decay_row(params, n_out, f, slots)
        slots.seen[f] = 1.0
        w_f = view(params, f * n_out, n_out)
        for j in range(n_out):
            check += zero_if_finite(w_f[j])
    slots.scale[0] = 1.0
    return check


@njit(**HELPER)
def update_touched(rule, params, grads, m, v, n_out, slots, n, decay, sizes):
    """Move the rows that occurred, and note the others' decay; return 0, or NaN as ``update`` does."""
    check, before, after = like(params, 0), 0.0, 0.0
    slots.scale[0] *= decay
    for i in range(n):
        ahead = slots.touched[min(i + _AHEAD, n - 1)] * n_out
        prefetch_row(params, ahead, n_out)
        if rule.update != PLAIN:
            prefetch_row(v, ahead, n_out)
        if rule.update == ADAM:
            prefetch_row(m, ahead, n_out)
        f, here = slots.touched[i], i * n_out
        if not rule.lazy or any_nonzero(view(grads, here, n_out)):
            w_f = view(params, f * n_out, n_out)
            if rule.l2 != 0:
                before += squares(w_f)
            check += update(rule, params, f * n_out, grads, here, m, v, n_out, decay, sizes)
            slots.seen[f] = slots.scale[0]
            if rule.l2 != 0:
                after += squares(w_f)
    if rule.l2 != 0:
        slots.squares[0] = max(0.0, (slots.squares[0] - before) * decay**2) + after
    return check


@njit(**SUM)
def squares(a):
    """Return the sum of a_i^2, in float64."""
    total = 0.0
    for i in range(a.size):
        total += float(a[i]) * float(a[i])
    return total


@njit(**HELPER)
def sum_of_squares(W, slots):
    """Return sum W^2: as the updates kept it, or, where it is not known, of all rows, with no decay pending."""
    if slots.squares[0] < 0:
        slots.squares[0] = squares(W)
    return slots.squares[0]


@njit(**HELPER)
def keep_scale(params, n_out, decay, slots):
    """Bring all rows up to date before the product gets too small to divide by; return 0, or NaN if a row is not finite."""
    if not 0 < decay <= 1 or slots.scale[0] < _TINY:
        return decay_all_rows(params, n_out, slots)
    return like(params, 0)
