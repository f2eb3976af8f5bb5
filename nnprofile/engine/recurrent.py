"""RNN, GRU and LSTM through time; the formulas are those of ``layers.recurrent``.

Sequences are taken in the order of falling length: ``ends[t]`` of them have a step t, and these are the first of those of the
step before. ``events`` names the events in that order of time, which u and h have; all other arrays are in the order of the
sequences. What a gate's a and u are, x W and h_before U, is written over by what the way back multiplies by.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .cache import compiled
from .elementary import HELPER, LOOP, like, sigmoid_parts, tanh_parts, view
from .products import ONE, ZERO, product
from .vectors import add, add_product, clear, copy, multiply, part, product_of, products_of, row


@compiled
def in_time(offsets, events, ends):
    """Write the events step by step, those of longer sequences first, and how many sequences have each step."""
    ends[:] = 0
    for i in range(offsets.size - 1):
        for t in range(offsets[i + 1] - offsets[i]):
            ends[t] += 1
    first, place = np.cumsum(ends) - ends, np.zeros(ends.size + 1, np.int64)
    place[:-1] = ends  # of the next sequence of each length, among those at a step: so many are longer
    for i in range(offsets.size - 1):
        length = offsets[i + 1] - offsets[i]
        for t in range(length):
            events[first[t] + place[length]] = offsets[i] + t
        place[length] += 1


@compiled
def before_each(h, events, ends, out):
    """Write the h before each event, 0 for the first of a sequence."""
    first = before = 0
    for t in range(ends.size):
        for i in range(ends[t]):
            if t == 0:
                clear(row(out, events[i]))
            else:
                copy(row(h, before + i), row(out, events[first + i]))
        before, first = first, first + ends[t]


@compiled
def rnn(a, U, b, events, ends, u, h, y):
    """Write h = tanh(a + u) with u = h_before U + b; its slope to a."""
    first = before = 0
    for t in range(ends.size):
        _recur(h, before, U, b, u, first, ends[t], t)
        for i in range(first, first + ends[t]):
            _rnn_output(row(a, events[i]), row(u, i), row(h, i))
            copy(row(h, i), row(y, events[i]))
        before, first = first, first + ends[t]


@compiled
def rnn_back(dy, U, events, ends, a, u, da, du_n):
    """Write da = dh (1 - h^2), with dh = dy + da_after U^T."""
    first, (dh, du, U_turned) = len(dy), _way_back(dy, U, ends)
    for t in range(ends.size - 1, -1, -1):
        first -= ends[t]
        for i in range(ends[t]):
            at, d = events[first + i], row(dh, i)
            add(d, row(dy, at))
            product_of(d, row(a, at), row(du, i))
            copy(row(du, i), row(da, at))
            clear(d)
        _return(du, U_turned, dh, ends[t])


@compiled
def gru(a, U, b, c, events, ends, u, h, y):
    """Write h = n + z (h_before - n); c holds b too, where a and u are added: for r and z."""
    k, first, before, start = h.shape[1], 0, 0, np.zeros(h.shape[1], h.dtype)
    for t in range(ends.size):
        _recur(h, before, U, c, u, first, ends[t], t)
        for i in range(first, first + ends[t]):
            at, h_i = events[i], row(h, i)
            r, z, u_n = part(u, i, 0, k), part(u, i, k, k), part(u, i, 2 * k, k)
            not_r, not_z, a_n = part(a, at, 0, k), part(a, at, k, k), part(a, at, 2 * k, k)
            h_before = row(h, before + i - first) if t else start
            _sigmoids(part(u, i, 0, 2 * k), part(a, at, 0, 2 * k))
            _gru_new(a_n, view(b, 2 * k, k), r, u_n, h_i)
            multiply(a_n, not_z)
            _gru_mix(h_i, z, not_z, h_before)
            _gru_reset(u_n, r, not_r)
            copy(h_i, row(y, at))
        before, first = first, first + ends[t]


@compiled
def gru_back(dy, U, events, ends, a, u, da, du_n):
    """Write da, and du where it differs: du_n = da_n r."""
    k, first, (dh, du, U_turned) = dy.shape[1], len(dy), _way_back(dy, U, ends)
    for t in range(ends.size - 1, -1, -1):
        first -= ends[t]
        for i in range(ends[t]):
            now, at, d = first + i, events[first + i], row(dh, i)
            r, z, of_r = part(u, now, 0, k), part(u, now, k, k), part(u, now, 2 * k, k)
            da_n, new = part(da, at, 2 * k, k), part(du, i, 2 * k, k)
            add(d, row(dy, at))
            products_of(d, part(a, at, k, k), part(du, i, k, k), part(a, at, 2 * k, k), da_n)
            products_of(da_n, of_r, part(du, i, 0, k), r, new)
            multiply(d, z)
            copy(part(du, i, 0, 2 * k), part(da, at, 0, 2 * k))
            copy(new, row(du_n, at))
        _return(du, U_turned, dh, ends[t])


@compiled
def lstm(a, U, b, events, ends, u, h, y):
    """Write h = o tanh(s), with the cell's state s = f s_before + i g."""
    k, first, before, cell = h.shape[1], 0, 0, np.zeros((ends[0], h.shape[1]), h.dtype)
    for t in range(ends.size):
        _recur(h, before, U, b, u, first, ends[t], t)
        for j in range(first, first + ends[t]):
            at, s = events[j], row(cell, j - first)
            i, f, g, o = part(u, j, 0, k), part(u, j, k, k), part(u, j, 2 * k, k), part(u, j, 3 * k, k)
            of_i, of_f, of_g = part(a, at, 0, k), part(a, at, k, k), part(a, at, 2 * k, k)
            _sigmoids(part(u, j, 0, 2 * k), part(a, at, 0, 2 * k))
            _tanhs(g, of_g)
            _sigmoids(o, part(a, at, 3 * k, k))
            _lstm_state(s, of_f, f, i, g)
            _lstm_factors(of_i, of_g, i, g)
            _lstm_show(s, o, i, g)
            _lstm_output(o, g, part(a, at, 3 * k, k), row(h, j))
            copy(row(h, j), row(y, at))
        before, first = first, first + ends[t]


@compiled
def lstm_back(dy, U, events, ends, a, u, da, du_n):
    """Write da, with dh = dy + da_after U^T and ds = ds_after f_after + dh o (1 - tanh(s)^2)."""
    k, first, (dh, du, U_turned) = dy.shape[1], len(dy), _way_back(dy, U, ends)
    dcell = np.zeros_like(dh)
    for t in range(ends.size - 1, -1, -1):
        first -= ends[t]
        for j in range(ends[t]):
            now, at, d, ds = first + j, events[first + j], row(dh, j), row(dcell, j)
            add(d, row(dy, at))
            add_product(d, part(u, now, 0, k), ds)
            products_of(ds, part(a, at, 0, k), part(du, j, 0, k), part(a, at, k, k), part(du, j, k, k))
            product_of(ds, part(a, at, 2 * k, k), part(du, j, 2 * k, k))
            product_of(d, part(a, at, 3 * k, k), part(du, j, 3 * k, k))
            multiply(ds, part(u, now, k, k))
            copy(row(du, j), row(da, at))
            clear(d)
        _return(du, U_turned, dh, ends[t])


@njit(**HELPER)
def _recur(h, before, U, c, u, first, n, t):
    """Write u = h_before U + c of n rows; h is 0 before the first step."""
    k, width = U.shape
    h, U, u = view(h, 0, h.size), view(U, 0, U.size), view(u, 0, u.size)
    product(h, before * k, k, ONE, U, ZERO, width, c, ZERO, ZERO, u, first * width, width, n, k if t else ZERO, width)


@njit(**HELPER)
def _return(du, U_turned, dh, n):
    """Add du U^T to dh, of n rows."""
    width, k = U_turned.shape
    du, U_turned, dh = view(du, 0, du.size), view(U_turned, 0, U_turned.size), view(dh, 0, dh.size)
    product(du, ZERO, width, ONE, U_turned, ZERO, k, dh, ZERO, k, dh, ZERO, k, n, width, k)


@njit(**HELPER)
def _way_back(dy, U, ends):
    """Return dh after the last step, which is 0, memory for the du of a step, and U^T."""
    return np.zeros((ends[0], dy.shape[1]), dy.dtype), np.empty((ends[0], U.shape[1]), dy.dtype), U.T.copy()


@njit(**LOOP)
def _rnn_output(a, u, h):
    for j in range(a.size):
        h[j], a[j] = tanh_parts(a[j] + u[j])


@njit(**LOOP)
def _sigmoids(u, a):
    """Write s(a + u) to u, and s(-a - u) to a."""
    for j in range(u.size):
        u[j], a[j] = sigmoid_parts(a[j] + u[j])


@njit(**LOOP)
def _tanhs(u, a):
    """Write tanh(a + u) to u, and its slope to a."""
    for j in range(u.size):
        u[j], a[j] = tanh_parts(a[j] + u[j])


@njit(**LOOP)
def _gru_new(a_n, b_n, r, u_n, n):
    """Write n = tanh(a_n + b_n + r u_n), and its slope to a_n."""
    for j in range(n.size):
        n[j], a_n[j] = tanh_parts(a_n[j] + b_n[j] + r[j] * u_n[j])


@njit(**LOOP)
def _gru_mix(h, z, not_z, h_before):
    """Write h = n + z d over n, with d = h_before - n, in the form that loses no digits; and dh_z's factor d z (1 - z)."""
    half = like(h, 0.5)
    for j in range(h.size):
        n, d = h[j], h_before[j] - h[j]
        h[j] = h_before[j] - not_z[j] * d if z[j] > half else n + z[j] * d
        not_z[j] *= d * z[j]


@njit(**LOOP)
def _gru_reset(u_n, r, not_r):
    """Write da_r's factor u_n r (1 - r)."""
    for j in range(r.size):
        u_n[j] *= r[j] * not_r[j]


@njit(**LOOP)
def _lstm_state(s, of_f, f, i, g):
    """Write s = f s + i g, and da_f's factor s f (1 - f) of the s before."""
    for j in range(s.size):
        of_f[j] *= s[j] * f[j]
        s[j] = f[j] * s[j] + i[j] * g[j]


@njit(**LOOP)
def _lstm_factors(of_i, of_g, i, g):
    """Write those of da_i and da_g: g i (1 - i) and i (1 - g^2)."""
    for j in range(i.size):
        of_i[j] *= g[j] * i[j]
        of_g[j] *= i[j]


@njit(**LOOP)
def _lstm_show(s, o, i, g):
    """Write tanh(s) over g, and ds's factor o (1 - tanh(s)^2) over i."""
    for j in range(s.size):
        g[j], slope = tanh_parts(s[j])
        i[j] = o[j] * slope


@njit(**LOOP)
def _lstm_output(o, shown, of_o, h):
    """Write h = o tanh(s), and da_o's factor tanh(s) o (1 - o)."""
    for j in range(o.size):
        h[j] = o[j] * shown[j]
        of_o[j] *= h[j]
