"""What of a large array is shown: its largest elements in text, its blocks in the page; a cap is never silent."""

from __future__ import annotations

import numpy as np

from ..contract import Array

MAX_CELLS = 256  # a larger array is shown in blocks
BLOCKS = 8  # along each axis
LARGEST = 8  # elements of a larger array that text shows

Index = tuple[int, ...]


def sizes(value: Array) -> Array:
    """Return how much each element counts: its absolute value, and most of all if it is not finite."""
    out: Array = np.abs(np.nan_to_num(value.astype(float), nan=np.inf))
    return out


def shown_in_text(value: Array, most: int, wrong: Array | None = None) -> list[Index]:
    """Return the indices of all elements, or, if there are more than ``most``, of the wrong and the largest ones."""
    everything: list[Index] = list(np.ndindex(value.shape))
    if len(everything) <= most:
        return everything
    size = sizes(value).ravel()
    n = min(most, LARGEST)
    largest = set(np.argsort(-size, kind="stable")[:n].tolist())
    if wrong is not None:
        bad = np.flatnonzero(wrong)
        largest |= set(bad[np.argsort(-size[bad], kind="stable")][:n].tolist())
    return [everything[i] for i in sorted(largest)]


def blocks(value: Array, wrong: Array | None = None) -> list[tuple[list[int], list[int], Index]]:
    """Cut an array into at most 8 blocks an axis; return each one's start, stop, and largest (or largest wrong) element."""
    edges = [np.unique(np.linspace(0, size, min(size, BLOCKS) + 1).astype(int)) for size in value.shape]
    size = sizes(value)
    out = []
    for corner in np.ndindex(*(len(edge) - 1 for edge in edges)):
        start = [int(edge[c]) for edge, c in zip(edges, corner, strict=True)]
        stop = [int(edge[c + 1]) for edge, c in zip(edges, corner, strict=True)]
        where = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        part = size[where]
        if wrong is not None and wrong[where].any():
            part = np.where(wrong[where], part, -1.0)
        place = np.unravel_index(int(np.argmax(part)), part.shape)
        out.append((start, stop, tuple(a + int(p) for a, p in zip(start, place, strict=True))))
    return out


def wanted(value: Array) -> Array:
    """Return the flat indices of all elements that text or page show, of a large array."""
    indices = shown_in_text(value, 0) + shown_in_text(value, LARGEST) + [index for *_, index in blocks(value)]
    return np.unique(np.ravel_multi_index(np.array(indices).T, value.shape))
