"""What is done to events one by one, or to those of a sequence: embeddings, windows, poolings. Flat loops on (n_events, k)."""

from __future__ import annotations

from .cache import compiled
from .vectors import add, clear, copy, divide, part, row


@compiled
def take_rows(E, ids, y):
    """Write y_n = E[ids_n]."""
    for n in range(ids.size):
        copy(row(E, ids[n]), row(y, n))


@compiled
def add_rows(dy, ids, dE, occurs):
    """Add dy_n to dE[ids_n]; note which ids occur."""
    for n in range(ids.size):
        add(row(dE, ids[n]), row(dy, n))
        occurs[ids[n]] = True


@compiled
def add_positions(x, offsets, E, y):
    """Write y_t = x_t + E[t], t counted from the start of a sequence."""
    for i in range(offsets.size - 1):
        for event in range(offsets[i], offsets[i + 1]):
            copy(row(x, event), row(y, event))
            add(row(y, event), row(E, event - offsets[i]))


@compiled
def sum_positions(dy, offsets, dE):
    """Add dy_t to dE[t]."""
    for i in range(offsets.size - 1):
        for event in range(offsets[i], offsets[i + 1]):
            add(row(dE, event - offsets[i]), row(dy, event))


@compiled
def windows(x, offsets, steps, out):
    """Write x_(t + steps_k) for all k side by side, and 0 where that is no event of the sequence."""
    n = x.shape[1]
    for i in range(offsets.size - 1):
        for event in range(offsets[i], offsets[i + 1]):
            for k in range(steps.size):
                source = event + steps[k]
                if offsets[i] <= source < offsets[i + 1]:
                    copy(row(x, source), part(out, event, k * n, n))
                else:
                    clear(part(out, event, k * n, n))


@compiled
def sum_windows(d, offsets, steps, dx):
    """Write dx_t = sum_k d_(t - steps_k)k."""
    n = dx.shape[1]
    for i in range(offsets.size - 1):
        for event in range(offsets[i], offsets[i + 1]):
            clear(row(dx, event))
            for k in range(steps.size):
                by = event - steps[k]
                if offsets[i] <= by < offsets[i + 1]:
                    add(row(dx, event), part(d, by, k * n, n))


@compiled
def last(x, offsets, y):
    """Write the last event of each sequence; 0 for one without."""
    for i in range(offsets.size - 1):
        if offsets[i] < offsets[i + 1]:
            copy(row(x, offsets[i + 1] - 1), row(y, i))
        else:
            clear(row(y, i))


@compiled
def last_back(dy, offsets, dx):
    """Write dx = dy for the last event, and 0 for the others."""
    for i in range(offsets.size - 1):
        for event in range(offsets[i], offsets[i + 1]):
            if event == offsets[i + 1] - 1:
                copy(row(dy, i), row(dx, event))
            else:
                clear(row(dx, event))


@compiled
def mean(x, offsets, y):
    """Write the mean of each sequence's events; 0 for one without."""
    for i in range(offsets.size - 1):
        clear(row(y, i))
        for event in range(offsets[i], offsets[i + 1]):
            add(row(y, i), row(x, event))
        divide(row(y, i), max(1, offsets[i + 1] - offsets[i]))


@compiled
def mean_back(dy, offsets, dx):
    """Write dx_t = dy_i / T_i."""
    for i in range(offsets.size - 1):
        for event in range(offsets[i], offsets[i + 1]):
            copy(row(dy, i), row(dx, event))
            divide(row(dx, event), offsets[i + 1] - offsets[i])


@compiled
def largest(x, offsets, y, where):
    """Write the largest of each column in each sequence, NaN before all, and the event that it is of; 0 without events."""
    for i in range(offsets.size - 1):
        y_i, where_i = row(y, i), row(where, i)
        clear(y_i)
        for event in range(offsets[i], offsets[i + 1]):
            x_t = row(x, event)
            for j in range(y_i.size):
                if event == offsets[i] or x_t[j] > y_i[j] or (x_t[j] != x_t[j] and y_i[j] == y_i[j]):
                    y_i[j], where_i[j] = x_t[j], event


@compiled
def largest_back(dy, offsets, where, dx):
    """Write dx = dy where the largest was, and 0 elsewhere."""
    for i in range(offsets.size - 1):
        for event in range(offsets[i], offsets[i + 1]):
            clear(row(dx, event))
        if offsets[i] < offsets[i + 1]:
            for j in range(dy.shape[1]):
                dx[where[i, j], j] = dy[i, j]
