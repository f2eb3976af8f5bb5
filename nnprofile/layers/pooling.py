"""Poolings: one row for each sequence. A sequence without events gives zeros, and no gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Array, Cache, Layer, Parameters, as_sequences, floating

if TYPE_CHECKING:
    from ..contract import Rng
    from ..ragged import Ragged


class Pooling(Layer):
    """Make one row, shape (n_sequences, features), of each sequence of x; poolings differ in ``_pool`` and ``_unpool``."""

    mixes_events = True

    def output_width(self, width: Any) -> Any:
        """Return the width of x."""
        return width

    def forward(self, x: Ragged, rng: Rng = None) -> tuple[Array, Cache]:
        """Return y, shape (n_sequences, features)."""
        x = as_sequences(self, x)
        y = np.zeros((len(x), x.values.shape[1]), x.dtype)
        full = x.lengths > 0
        y[full], kept = self._pool(x.values, x.offsets[:-1][full], x.lengths[full])
        return y, (full, x.values.shape, kept)

    def backward(self, dy: Array, cache: Cache) -> tuple[Array, Parameters]:
        """Return dx, of the shape of x's values, and no gradients."""
        dy, (full, shape, kept) = floating(dy), cache
        if dy.shape != (len(full), shape[1]):
            raise ValueError(f"dy must have the output's shape {(len(full), shape[1])}, got {dy.shape}")
        dx = np.zeros(shape, dy.dtype)
        self._unpool(dy[full], kept, dx)
        return dx, Parameters({})

    def _pool(self, x: Array, starts: Array, lengths: Array) -> tuple[Array, Cache]:
        """Return the rows of sequences that have events."""
        raise NotImplementedError

    def _unpool(self, dy: Array, kept: Cache, dx: Array) -> None:
        raise NotImplementedError


class LastEvent(Pooling):
    """y_i = the last event of sequence i, so dx is dy there and 0 elsewhere (docs/sequences.md, eq. 47).

    Examples
    --------
    >>> from nnprofile import Ragged
    >>> LastEvent().forward(Ragged([[1.0], [2.0]], [0, 2, 2]))[0].tolist()
    [[2.0], [0.0]]
    """

    def _pool(self, x: Array, starts: Array, lengths: Array) -> tuple[Array, Cache]:
        last = starts + lengths - 1
        return x[last], last

    def _unpool(self, dy: Array, kept: Cache, dx: Array) -> None:
        dx[kept] = dy


class MeanOverEvents(Pooling):
    """y_i = the mean of the T_i events of sequence i, so dx_t = dy_i / T_i for each of them (docs/sequences.md, eq. 48).

    Examples
    --------
    >>> from nnprofile import Ragged
    >>> MeanOverEvents().forward(Ragged([[1.0], [2.0]], [0, 2, 2]))[0].tolist()
    [[1.5], [0.0]]
    """

    def _pool(self, x: Array, starts: Array, lengths: Array) -> tuple[Array, Cache]:
        T = lengths.astype(x.real.dtype)[:, None]
        return (np.add.reduceat(x, starts, axis=0) if len(starts) else x[:0]) / T, (T, lengths)

    def _unpool(self, dy: Array, kept: Cache, dx: Array) -> None:
        T, lengths = kept
        dx[...] = np.repeat(dy / T, lengths, axis=0)


class MaxOverEvents(Pooling):
    """y_ij = the largest x_tj of sequence i; dx is dy_ij there, at the first where several are largest, and 0 elsewhere
    (docs/sequences.md, eq. 49).

    Examples
    --------
    >>> from nnprofile import Ragged
    >>> MaxOverEvents().forward(Ragged([[1.0], [3.0], [3.0]], [0, 3, 3]))[0].tolist()
    [[3.0], [0.0]]
    """

    def _pool(self, x: Array, starts: Array, lengths: Array) -> tuple[Array, Cache]:
        if not len(starts):
            return x[:0], (np.zeros((0, x.shape[1]), int),)
        top = np.maximum.reduceat(x.real, starts, axis=0)
        largest = (x.real == np.repeat(top, lengths, axis=0)) | np.isnan(x.real)
        first = np.minimum.reduceat(np.where(largest, np.arange(len(x))[:, None], len(x)), starts, axis=0)
        return np.take_along_axis(x, first, axis=0), (first,)

    def _unpool(self, dy: Array, kept: Cache, dx: Array) -> None:
        np.put_along_axis(dx, kept[0], dy, axis=0)
