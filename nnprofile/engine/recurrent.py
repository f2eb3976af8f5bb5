"""RNN, GRU and LSTM through time; the formulas are those of ``layers.recurrent``.

Sequences are taken in the order of falling length: ``ends[t]`` of them have a step t, and these are the first of those of the
step before. ``events`` names the events in that order of time, which h and ``kept`` have; all other arrays are in the order of
the sequences. ``kept`` are the factors that the way back multiplies by, a block of columns for each. A loop names few arrays:
a compiler uses vectors only where it can ask of each two whether they overlap.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .cache import compiled
from .elementary import HELPER, INLINE, like, sigmoid_parts, tanh_parts, view
from .products import product


@compiled
def in_time(offsets, events, ends):
    """Write the events step by step, those of longer sequences first, and how many sequences have each step."""
    n_sequences, longest = offsets.size - 1, ends.size
    ends[:] = 0
    for i in range(n_sequences):
        for t in range(offsets[i + 1] - offsets[i]):
            ends[t] += 1
    place = np.empty(longest + 1, np.int64)  # of the next sequence of each length
    place[longest] = 0
    for length in range(longest - 1, -1, -1):
        place[length] = ends[length]  # so many are longer
    first = np.cumsum(ends) - ends
    for i in range(n_sequences):
        length = offsets[i + 1] - offsets[i]
        for t in range(length):
            events[first[t] + place[length]] = offsets[i] + t
        place[length] += 1


@compiled
def rnn(a, U, b, c, events, ends, h, y, kept):
    """Write h = tanh(a + h_before U + b), for which c is b."""
    k = h.shape[1]
    u, first, before = np.empty((ends[0], k), a.dtype), 0, 0
    for t in range(ends.size):
        _recur(h, before, U, c, u, ends[t], t)
        for i in range(ends[t]):
            now = first + i
            _copy(_part(u, i, 0, k), _part(h, now, 0, k))
            _tanh_of_sum(_part(h, now, 0, k), _part(a, events[now], 0, k), _part(kept, now, 0, k))
            _copy(_part(h, now, 0, k), _part(y, events[now], 0, k))
        before, first = first, first + ends[t]


@compiled
def rnn_back(dy, U, events, ends, kept, da, du_n):
    """Write da = dh (1 - h^2), with dh = dy + da_after U^T."""
    k = dy.shape[1]
    dh, U_turned, first = np.zeros((ends[0], k), dy.dtype), np.ascontiguousarray(U.T), len(dy)
    du = np.empty((ends[0], k), dy.dtype)
    for t in range(ends.size - 1, -1, -1):
        first -= ends[t]
        for i in range(ends[t]):
            now, d = first + i, _part(dh, i, 0, k)
            _add(d, _part(dy, events[now], 0, k))
            _product(d, _part(kept, now, 0, k), _part(du, i, 0, k))
            _copy(_part(du, i, 0, k), _part(da, events[now], 0, k))
            _clear(d)
        _return(du, U_turned, dh, ends[t])


@compiled
def gru(a, U, b, c, events, ends, h, y, kept):
    """Write h = n + z (h_before - n), with a + b as r, z and n in turn; a is written over."""
    k = h.shape[1]
    u, start, first, before = np.empty((ends[0], 3 * k), a.dtype), np.zeros((1, k), a.dtype), 0, 0
    for t in range(ends.size):
        _recur(h, before, U, c, u, ends[t], t)
        for i in range(ends[t]):
            now, at = first + i, events[first + i]
            h_before = _part(h, before + i, 0, k) if t else _part(start, 0, 0, k)
            r, z, u_n = _part(u, i, 0, k), _part(u, i, k, k), _part(u, i, 2 * k, k)
            not_r, not_z, n = _part(a, at, 0, k), _part(a, at, k, k), _part(a, at, 2 * k, k)
            of_n, of_z, of_r = _part(kept, now, 0, k), _part(kept, now, k, k), _part(kept, now, 2 * k, k)
            _add(_part(a, at, 0, 3 * k), b)
            _sigmoids_of_sum(_part(u, i, 0, 2 * k), _part(a, at, 0, 2 * k))
            _product(u_n, r, of_r)
            _tanh_of_sum(n, of_r, of_n)
            _multiply(of_r, not_r)
            _multiply(of_n, not_z)
            _difference(h_before, n, of_z)
            _mix(n, of_z, z, not_z, h_before, _part(h, now, 0, k))
            _multiply(of_z, z)
            _multiply(of_z, not_z)
            _copy(_part(u, i, 0, 2 * k), _part(kept, now, 3 * k, 2 * k))
            _copy(_part(h, now, 0, k), _part(y, at, 0, k))
        before, first = first, first + ends[t]


@compiled
def gru_back(dy, U, events, ends, kept, da, du_n):
    """Write da, and du where it is another: du_n = da_n r."""
    k = dy.shape[1]
    dh, U_turned, first = np.zeros((ends[0], k), dy.dtype), np.ascontiguousarray(U.T), len(dy)
    du = np.empty((ends[0], 3 * k), dy.dtype)
    for t in range(ends.size - 1, -1, -1):
        first -= ends[t]
        for i in range(ends[t]):
            now, at, d = first + i, events[first + i], _part(dh, i, 0, k)
            du_r, du_z, du_of_n = _part(du, i, 0, k), _part(du, i, k, k), _part(du, i, 2 * k, k)
            da_n, r, z = _part(da, at, 2 * k, k), _part(kept, now, 3 * k, k), _part(kept, now, 4 * k, k)
            _add(d, _part(dy, at, 0, k))
            _product(d, _part(kept, now, 0, k), da_n)
            _product(d, _part(kept, now, k, k), du_z)
            _product(da_n, _part(kept, now, 2 * k, k), du_r)
            _product(da_n, r, du_of_n)
            _copy(du_of_n, _part(du_n, at, 0, k))
            _copy(_part(du, i, 0, 2 * k), _part(da, at, 0, 2 * k))
            _multiply(d, z)
        _return(du, U_turned, dh, ends[t])


@compiled
def lstm(a, U, b, c, events, ends, h, y, kept):
    """Write h = o tanh(s), with the cell's state s = f s_before + i g; a is written over, and c is b."""
    k = h.shape[1]
    u, cell = np.empty((ends[0], 4 * k), a.dtype), np.zeros((ends[0], k), a.dtype)
    first, before = 0, 0
    for t in range(ends.size):
        _recur(h, before, U, c, u, ends[t], t)
        for j in range(ends[t]):
            now, at, s = first + j, events[first + j], _part(cell, j, 0, k)
            i, f, g, o = _part(u, j, 0, k), _part(u, j, k, k), _part(u, j, 2 * k, k), _part(u, j, 3 * k, k)
            not_i, not_f, zero, not_o = (
                _part(a, at, 0, k),
                _part(a, at, k, k),
                _part(a, at, 2 * k, k),
                _part(a, at, 3 * k, k),
            )
            of_i, of_f, of_g = _part(kept, now, 0, k), _part(kept, now, k, k), _part(kept, now, 2 * k, k)
            of_o, of_s = _part(kept, now, 3 * k, k), _part(kept, now, 5 * k, k)
            _sigmoids_of_sum(_part(u, j, 0, 2 * k), _part(a, at, 0, 2 * k))
            _tanh_of_sum(g, zero, of_g)
            _sigmoids_of_sum(o, not_o)
            _product(s, not_f, of_f)
            _multiply(of_f, f)
            _multiply(s, f)
            _product(i, g, of_i)
            _add(s, of_i)
            _multiply(of_i, not_i)
            _multiply(of_g, i)
            _copy(s, of_o)
            _clear(zero)
            _tanh_of_sum(of_o, zero, of_s)
            _product(o, of_o, _part(h, now, 0, k))
            _multiply(of_s, o)
            _multiply(of_o, o)
            _multiply(of_o, not_o)
            _copy(f, _part(kept, now, 4 * k, k))
            _copy(_part(h, now, 0, k), _part(y, at, 0, k))
        before, first = first, first + ends[t]


@compiled
def lstm_back(dy, U, events, ends, kept, da, du_n):
    """Write da, with dh = dy + da_after U^T and ds = ds_after f_after + dh o (1 - tanh(s)^2)."""
    k = dy.shape[1]
    dh, U_turned, first = np.zeros((ends[0], k), dy.dtype), np.ascontiguousarray(U.T), len(dy)
    du, dcell = np.empty((ends[0], 4 * k), dy.dtype), np.zeros((ends[0], k), dy.dtype)
    for t in range(ends.size - 1, -1, -1):
        first -= ends[t]
        for i in range(ends[t]):
            now, d, ds = first + i, _part(dh, i, 0, k), _part(dcell, i, 0, k)
            _add(d, _part(dy, events[now], 0, k))
            _add_product(ds, d, _part(kept, now, 5 * k, k))
            for gate in range(3):
                _product(ds, _part(kept, now, gate * k, k), _part(du, i, gate * k, k))
            _product(d, _part(kept, now, 3 * k, k), _part(du, i, 3 * k, k))
            _multiply(ds, _part(kept, now, 4 * k, k))
            _copy(_part(du, i, 0, 4 * k), _part(da, events[now], 0, 4 * k))
            _clear(d)
        _return(du, U_turned, dh, ends[t])


@compiled
def befores(y, offsets, out):
    """Write the h before each event: y of the event before, and 0 for the first of a sequence."""
    k = y.shape[1]
    for i in range(offsets.size - 1):
        for event in range(offsets[i], offsets[i + 1]):
            if event == offsets[i]:
                _clear(_part(out, event, 0, k))
            else:
                _copy(_part(y, event - 1, 0, k), _part(out, event, 0, k))


@njit(**HELPER)
def _recur(h, before, U, c, u, n, t):
    """Write u = h_before U + c of n rows; h is 0 before the first step."""
    k, width = U.shape
    n_steps = k if t else 0
    product(_flat(h), before * k, k, 1, _flat(U), 0, width, c, 0, 0, _flat(u), 0, n, n_steps, width)


@njit(**HELPER)
def _return(du, U_turned, dh, n):
    """Add du U^T to dh, of n rows."""
    width, k = U_turned.shape
    dh = _flat(dh)
    product(_flat(du), 0, width, 1, _flat(U_turned), 0, k, dh, 0, k, dh, 0, n, width, k)


@njit(**HELPER)
def _flat(a):
    return view(a, 0, a.size)


@njit(**HELPER)
def _part(a, i, start, size):
    """Return ``size`` numbers of row i, from ``start`` on."""
    return view(a, i * a.shape[1] + start, size)


@njit(**INLINE)
def _sigmoids_of_sum(x, y):
    """Write s(x + y) to x, and s(-x - y) to y."""
    for j in range(x.size):
        x[j], y[j] = sigmoid_parts(x[j] + y[j])


@njit(**INLINE)
def _tanh_of_sum(x, y, slope):
    """Write tanh(x + y) to x, and its slope."""
    for j in range(x.size):
        x[j], slope[j] = tanh_parts(x[j] + y[j])


@njit(**INLINE)
def _mix(n, difference, z, not_z, h_before, h):
    """Write h = n + z d with d = h_before - n, in the form that loses no digits."""
    half = like(n, 0.5)
    for j in range(n.size):
        h[j] = h_before[j] - not_z[j] * difference[j] if z[j] > half else n[j] + z[j] * difference[j]


@njit(**INLINE)
def _difference(x, y, out):
    for j in range(x.size):
        out[j] = x[j] - y[j]


@njit(**INLINE)
def _product(x, y, out):
    for j in range(x.size):
        out[j] = x[j] * y[j]


@njit(**INLINE)
def _add_product(out, x, y):
    for j in range(out.size):
        out[j] += x[j] * y[j]


@njit(**INLINE)
def _multiply(out, x):
    for j in range(out.size):
        out[j] *= x[j]


@njit(**INLINE)
def _add(out, x):
    for j in range(out.size):
        out[j] += x[j]


@njit(**INLINE)
def _copy(x, out):
    for j in range(x.size):
        out[j] = x[j]


@njit(**INLINE)
def _clear(out):
    for j in range(out.size):
        out[j] = like(out, 0)
