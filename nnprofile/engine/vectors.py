"""Loops over flat arrays, and rows of a matrix as such.

Each names few arrays: a compiler uses vectors only where it can ask, of a few pairs, whether they overlap.
"""

from __future__ import annotations

from numba import njit

from .elementary import HELPER, LOOP, like, view


@njit(**HELPER)
def row(a, i):
    """Return row i of a matrix."""
    return view(a, i * a.shape[1], a.shape[1])


@njit(**HELPER)
def part(a, i, start, size):
    """Return ``size`` numbers of row i, from ``start`` on."""
    return view(a, i * a.shape[1] + start, size)


@njit(**LOOP)
def clear(y):
    """Write y = 0."""
    for j in range(y.size):
        y[j] = like(y, 0)


@njit(**LOOP)
def copy(x, y):
    """Write y = x."""
    for j in range(x.size):
        y[j] = x[j]


@njit(**LOOP)
def add(y, x):
    """Write y = y + x."""
    for j in range(y.size):
        y[j] += x[j]


@njit(**LOOP)
def multiply(y, x):
    """Write y = y x."""
    for j in range(y.size):
        y[j] *= x[j]


@njit(**LOOP)
def divide(y, number):
    """Write y = y / number."""
    number = like(y, number)
    for j in range(y.size):
        y[j] /= number


@njit(**LOOP)
def product_of(x, z, y):
    """Write y = x z, number by number."""
    for j in range(y.size):
        y[j] = x[j] * z[j]


@njit(**LOOP)
def add_product(x, z, y):
    """Write y = y + x z, number by number."""
    for j in range(y.size):
        y[j] += x[j] * z[j]


@njit(**LOOP)
def products_of(d, x, dx, y, dy):
    """Write dx = d x and dy = d y, number by number."""
    for j in range(d.size):
        dx[j], dy[j] = d[j] * x[j], d[j] * y[j]
