"""A first Dense layer on CSR rows: forward, backward and update touch only the rows of W whose features occur.

The gradient of a batch has a row for each feature that occurs in it: its *slot*. Decay moves every row at every step, but
a row that nobody reads can wait: ``scale`` is the product of all decays so far, ``seen[f]`` its value when row f was last
brought up to date, and scale / seen[f] is what the row still owes. It is paid before the row is read.
"""

from __future__ import annotations

from numba import njit

from .elementary import INLINE, SUM, like, view
from .updates import any_nonzero, update

_TINY, _HUGE = 1e-100, 1e100


@njit(**INLINE)
def csr_forward(csr, rows, params, w_0, n_in, n_out, y, y_0):
    """Write y_i = b + sum_f x_if W_f for the given rows."""
    b = view(params, w_0 + n_in * n_out, n_out)
    for i in range(rows.size):
        y_i = view(y, y_0 + i * n_out, n_out)
        for j in range(n_out):
            y_i[j] = b[j]
        for p in range(csr.indptr[rows[i]], csr.indptr[rows[i] + 1]):
            w_f = view(params, w_0 + csr.indices[p] * n_out, n_out)
            value = csr.data[p]
            for j in range(n_out):
                y_i[j] += value * w_f[j]


@njit(**INLINE)
def csr_weight_gradient(csr, rows, dy, n_out, grads, slots, compact):
    """Add x_if dy_i to the gradient of feature f: in its slot, or in its own row where the gradient has all rows."""
    for i in range(rows.size):
        dy_i = view(dy, i * n_out, n_out)
        for p in range(csr.indptr[rows[i]], csr.indptr[rows[i] + 1]):
            f = csr.indices[p]
            at = slots[f] * n_out if compact else f * n_out
            dw_f = view(grads, at, n_out)
            value = csr.data[p]
            for j in range(n_out):
                dw_f[j] += value * dy_i[j]


@njit(**INLINE)
def open_slots(csr, rows, slots, touched):
    """Give each feature that occurs a slot and return how many there are; ``touched`` lists the features."""
    n = 0
    for i in range(rows.size):
        for p in range(csr.indptr[rows[i]], csr.indptr[rows[i] + 1]):
            f = csr.indices[p]
            if slots[f] < 0:
                slots[f] = n
                touched[n] = f
                n += 1
    return n


@njit(**INLINE)
def pay(params, n_out, f, scale, seen):
    """Bring row f of W up to date."""
    if seen[f] != scale:
        factor = like(params, scale / seen[f])
        w_f = view(params, f * n_out, n_out)
        for j in range(n_out):
            w_f[j] *= factor
        seen[f] = scale


@njit(**SUM)
def pay_all(params, n_out, scale, seen):
    """Bring all rows up to date and start the product anew; return 0, or NaN if a row is not finite."""
    check, zero = like(params, 0), like(params, 0)
    for f in range(seen.size):
        pay(params, n_out, f, scale[0], seen)
        seen[f] = 1.0
        w_f = view(params, f * n_out, n_out)
        for j in range(n_out):
            check += zero * w_f[j]
    scale[0] = 1.0
    return check


@njit(**INLINE)
def update_touched(rule, params, grads, m, v, n_out, slots, n, decay, learning_rate, t):
    """Move the rows that occurred, note the others' decay, and close the slots; return 0, or NaN as ``update`` does."""
    check = like(params, 0)
    scale, seen = slots.scale, slots.seen
    scale[0] *= decay
    for i in range(n):
        f, here = slots.touched[i], i * n_out
        slots.slots[f] = -1
        if not rule.lazy or any_nonzero(view(grads, here, n_out)):
            check += update(rule, params, f * n_out, grads, here, m, v, n_out, decay, learning_rate, t)
            seen[f] = scale[0]
    if abs(decay) > 1 or not _TINY < abs(scale[0]) < _HUGE:
        check += pay_all(params, n_out, scale, seen)
    return check
