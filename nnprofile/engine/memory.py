"""Memory for the numbers between layers, that is used again: new memory costs as much as the work on it, a page at a time."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from ..contract import Array

_SMALL = 1 << 16  # bytes, that an allocator keeps for itself
_MOST = 1 << 28  # bytes that are kept


class Memory:
    """Arrays of one dtype whose memory comes back by itself, when nothing looks into it any more."""

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._free: dict[int, list[Array]] = {}

    def empty(self, *shape: int) -> Array:
        """Return what ``np.empty`` does."""
        n_bytes = prod(shape) * self.dtype.itemsize
        if n_bytes < _SMALL:
            return np.empty(shape, self.dtype)
        size = 1 << (n_bytes - 1).bit_length()
        size -= size // 4 if n_bytes <= size - size // 4 else 0
        try:
            raw = self._free[size].pop()
        except (KeyError, IndexError):
            raw = np.empty(size, np.uint8)
        return np.ndarray(shape, self.dtype, np.asarray(_Lease(self, raw)))

    def _give_back(self, raw: Array) -> None:
        if sum(size * len(pieces) for size, pieces in list(self._free.items())) + raw.nbytes <= _MOST:
            self._free.setdefault(raw.nbytes, []).append(raw)


class _Lease:
    """What an array and its views hold on to: with the last of them it goes, and gives the memory back."""

    __slots__ = ("__array_interface__", "_memory", "_raw")

    def __init__(self, memory: Memory, raw: Array) -> None:
        self.__array_interface__: dict[str, Any] = raw.__array_interface__
        self._memory, self._raw = memory, raw

    def __del__(self) -> None:
        self._memory._give_back(self._raw)
