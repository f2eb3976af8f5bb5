"""Hypotheses about sums: samples, steps and windows that are not counted, or counted twice, and sums over the wrong axis."""

from __future__ import annotations

import numpy as np

from ...contract import Array
from .facts import Diagnosis, Facts, listed


def _contributions(jacobian: Array, dy: Array, axis: int) -> Array:
    """Return what each index along an axis of y contributes to the right gradient: (n_elements, y.shape[axis])."""
    parts = np.moveaxis(jacobian * dy, axis + 1, 1)
    out: Array = parts.reshape(*parts.shape[:2], -1).sum(axis=2)
    return out


def miscounted(f: Facts) -> Diagnosis | None:
    """Samples, or other indices of y, that count for nothing, twice, or by another weight."""
    if f.full and f.value.ndim >= 1 and f.value.shape[0] > 1 and not f.context.procedure.takes_cotangent:  # type: ignore[union-attr]
        rows = f.as_tensor(f.yours).reshape(f.shape[0], -1)
        good = f.as_tensor(np.abs(f.error) <= f.tolerance).reshape(f.shape[0], -1).all(axis=1)
        empty = ~rows.any(axis=1) & ~good
        if empty.any() and (empty | good).all():
            return (
                "samples",
                f"the gradient is 0 for sample {listed(np.flatnonzero(empty))}: not counted, or overwritten in a loop",
            )
    jacobian = f.verdict.jacobian
    if jacobian is None or not f.dy.ndim:
        return None
    for axis in range(f.dy.ndim):
        n = f.dy.shape[axis]
        if n < 2 or n > 4096:
            continue
        parts = _contributions(jacobian, f.dy, axis)
        what = "sample" if axis == 0 else f"index (along axis {axis} of y)"
        for i in (n - 1, 0):
            which = "last" if i else "first"
            if f.fits(parts[:, i]):
                return (
                    "samples",
                    f"the gradient of the {which} {what} only: = where += belongs, or a loop that keeps one",
                )
            if f.fits(parts.sum(axis=1) - parts[:, i]):
                return "samples", f"the {which} {what} is not counted: a loop or a slice that is off by one"
        if f.where.size >= 2 * n:
            share, _, rank, _ = np.linalg.lstsq(parts, f.yours, rcond=None)
            if rank == n and f.fits(parts @ share) and np.abs(share - 1).max() > 1e-2:
                off = np.flatnonzero(np.abs(share - 1) > 1e-6)
                values = ", ".join(f"{np.round(share[i], 9) + 0.0:.3g}" for i in off[:4])
                if np.abs(share - np.round(share)).max() < 1e-6:
                    return "samples", f"{what} {listed(off)} is counted {values} times, not once"
                return (
                    "slice-scale",
                    f"{what} {listed(off)} is counted {values} times: a weight or scale per index is wrong",
                )
    return None


def other_axis(f: Facts) -> Diagnosis | None:
    """The sum, or the mean, of dy over other axes."""
    dy = f.dy
    for axis in range(dy.ndim):
        if dy.ndim > 1 and (dy.shape[axis],) == f.shape:
            others = tuple(i for i in range(dy.ndim) if i != axis)
            for way in (np.sum, np.mean):
                if f.fits(way(dy, axis=others)):
                    return (
                        "axis",
                        f"your gradient is the {way.__name__} of dy over axis {', '.join(map(str, others))}: the wrong axis",
                    )
    return None


def same_step(f: Facts) -> Diagnosis | None:
    """Of the Jacobian between steps, only the blocks of equal steps."""
    jacobian = f.verdict.jacobian
    if jacobian is None or not f.full or f.value.ndim < 3 or f.dy.ndim < 3 or f.shape[:2] != f.dy.shape[:2]:
        return None
    blocks = jacobian.reshape(*f.shape, *f.dy.shape)
    steps = np.eye(f.shape[1], dtype=bool).reshape(
        1, f.shape[1], *(1,) * (f.value.ndim - 1), f.shape[1], *(1,) * (f.dy.ndim - 2)
    )
    if f.shape[1] > 1 and f.fits((np.where(steps, blocks, 0) * f.dy).reshape(f.value.size, -1).sum(axis=1)):
        return "term", "each step's own part only: the gradient of the state is not handed on from step to step"
    return None


def last_window(f: Facts) -> Diagnosis | None:
    """Of the places of y, such as a convolution's windows, only the last one of each channel counts: = where += belongs."""
    jacobian = f.verdict.jacobian
    if jacobian is None or f.dy.ndim < 3:
        return None
    channels = f.dy.shape[-1]
    last = (jacobian * f.dy).reshape(len(jacobian), -1, channels)[:, -1]
    if f.fits(last.sum(axis=-1)):
        return "samples", "the gradient of the last place of y only: = where += belongs, in a loop"
    return None
