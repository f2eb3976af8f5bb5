"""Hypotheses about places: the right numbers elsewhere, those of another tensor, and places that are wrong or count twice."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from itertools import permutations
from typing import Any

import numpy as np

from ...contract import Array, numbers_of
from ..reference import rms
from .facts import Diagnosis, Facts, listed, subsets


def permuted(f: Facts) -> Diagnosis | None:
    """The right numbers with their axes, blocks or order changed."""
    g = f.yours_all
    if not f.varied(f.right):
        return None
    if g.ndim >= 2:
        for axes in permutations(range(g.ndim)):
            moved = g.transpose(axes)
            if axes != tuple(range(g.ndim)) and moved.shape == g.shape and f.right_is(moved):
                text = (
                    "the right gradient, transposed"
                    if g.ndim == 2
                    else f"the right gradient with its axes in the order {axes}"
                )
                return "transpose", f"{text}: a transpose is missing or extra (silent here, as the sizes are equal)"
        if f.right_is(g.reshape(-1, order="F").reshape(g.shape)) or f.right_is(g.ravel().reshape(g.shape, order="F")):
            return "order", "the right numbers, reshaped in the other order (C and Fortran), or after a swapped axis"
        flat = g.reshape(g.shape[::-1])
        if f.right_is(flat.T):
            return "transpose", "the right numbers, reshaped where they should be transposed"
    for axes in subsets(g.ndim):
        if f.right_is(np.flip(g, axes)):
            what = "a convolution's kernel turned by 180 degrees" if len(axes) == 2 else "a reversed loop"
            return "order", f"the right gradient, flipped along axis {', '.join(map(str, axes))}: {what}"
    for axis in range(g.ndim):
        for n in (2, 3, 4, 6):
            if g.shape[axis] % n == 0 and g.shape[axis] > 1:
                parts = np.split(g, n, axis)
                for order in permutations(range(n)):
                    if order != tuple(range(n)) and f.right_is(np.concatenate([parts[i] for i in order], axis)):
                        return (
                            "order",
                            f"the right blocks along axis {axis} in another order, {order}: gates or halves swapped",
                        )
    return None


def another_tensor(f: Facts) -> Diagnosis | None:
    """The gradient of another tensor: claims[k] = claims[j], or the right gradient of j."""
    if not f.full or f.yours.size < 2 or not f.varied(f.yours):
        return None
    names = {v.k: v.row.tensor for v in f.context.verdicts}
    for other in f.context.verdicts:
        if other.k == f.verdict.k or other.value.shape != f.shape:
            continue
        theirs = other.yours.ravel()
        known = other.right if other.right.size == theirs.size else theirs if other.row.verdict == "right" else None
        if known is not None and f.fits(known):
            if other.row.verdict == "wrong" and rms(theirs - f.right) <= 1e-6 * f.error_size:
                return "order", f"this is the gradient of {names[other.k]}, which has this one's: the two are swapped"
            return "order", f"this is the gradient of {names[other.k]}"
        if f.fits(theirs):
            return "order", f"the same as what {names[other.k]} got: copied, or one array for both"
    return None


def shifted(f: Facts) -> Diagnosis | None:
    """The right numbers, some places further along an axis."""
    if not f.full:
        return None
    right, yours = f.as_tensor(f.right), f.as_tensor(f.yours)
    tolerance = float(f.tolerance.max(initial=0.0))
    for axes in subsets(right.ndim):
        if any(right.shape[a] < 3 for a in axes):
            continue
        late = tuple(slice(1, None) if i in axes else slice(None) for i in range(right.ndim))
        early = tuple(slice(None, -1) if i in axes else slice(None) for i in range(right.ndim))
        for by, to, at in ((1, late, early), (-1, early, late)):
            if right[at].any() and np.abs(yours[to] - right[at]).max() <= 4 * tolerance:
                return "shift", f"the right numbers, shifted by {by} along axis {', '.join(map(str, axes))}: off by one"
    return None


def rearranged(f: Facts) -> Diagnosis | None:
    """The right numbers in any other order."""
    if not f.full or f.yours.size < 4:
        return None
    a, b = np.sort(f.yours), np.sort(f.right)
    if (
        np.abs(a - b).max() <= 4 * float(f.tolerance.max())
        and f.varied(b)
        and np.unique(np.round(b, 12)).size > b.size // 3
    ):
        return "order", "the right numbers in other places: a reshape, an index or an axis is mixed up"
    return None


def unsorted(f: Facts) -> Diagnosis | None:
    """The right numbers in the order of the sorted tensor."""
    if not f.full or f.value.ndim != 1 or f.yours.size < 4 or not f.varied(f.right):
        return None
    for key, what in ((f.theta, "x"), (np.abs(f.theta), "|x|"), (-f.theta, "-x")):
        order = np.argsort(key, kind="stable")
        if f.fits(f.right[order]):
            return "order", f"the right numbers in the order of sorted {what}: undo it, g[np.argsort({what})] = d"
        if f.fits(f.right[np.argsort(order)]) or f.fits(f.right[order][order]):
            return "order", f"the right numbers, sent through argsort of {what} in the wrong direction"
    return None


def symmetric(f: Facts) -> Diagnosis | None:
    """The right gradient in another convention for a symmetric matrix."""
    if not f.full or f.value.ndim < 2 or f.shape[-1] != f.shape[-2] or f.shape[-1] < 2:
        return None
    right = f.as_tensor(f.right)
    turned = right.swapaxes(-1, -2)
    diagonal = right * np.eye(f.shape[-1])
    both, triangle = (
        right + turned,
        "forward reads one triangle of it only, as LAPACK does"
        if not (np.tril(right, -1).any() and np.triu(right, 1).any())
        else "the right one takes its elements as independent",
    )
    for candidate, text in (
        (both / 2, f"the right gradient made symmetric, (g + g.T) / 2: {triangle}"),
        (both / 4, f"half the right gradient made symmetric, (g + g.T) / 4: {triangle}"),
        (both, "g + g.T of the right gradient g: it is twice the symmetric one"),
        (
            both - diagonal,
            "g + g.T - diag(g) of the right gradient g: the convention for the free elements of a symmetric matrix",
        ),
        (both / 2 - diagonal / 2, "the symmetric gradient with half its diagonal"),
        (np.tril(right), "the lower triangle of the right gradient only"),
        (np.triu(right), "the upper triangle of the right gradient only"),
    ):
        if f.fits(candidate):
            return "symmetric", f"your gradient is {text}"
    error = f.as_tensor(f.error)
    if f.shape[-1] > 2 and rms(error + error.swapaxes(-1, -2)) <= 1e-9 * f.error_size:
        return "transpose", "the error is antisymmetric: a part of the gradient is transposed"
    return None


def repeats(f: Facts) -> Diagnosis | None:
    """Rows that integers in x name more than once."""
    return _repeated_rows(f, f.as_tensor(np.abs(f.error) > f.tolerance)) if f.full else None


def _repeated_rows(f: Facts, off: Array) -> Diagnosis | None:
    """Rows that integers in x name more than once."""
    x = numbers_of(getattr(f.context.procedure, "x", None))
    if not isinstance(x, np.ndarray):
        return None
    if x.dtype.kind not in "iu" or off.ndim < 1 or x.size == 0 or x.max() >= off.shape[0] or x.min() < 0:
        return None
    rows, counts = np.unique(x, return_counts=True)
    bad = np.flatnonzero(off.reshape(off.shape[0], -1).any(axis=1))
    if bad.size and np.isin(bad, rows[counts > 1]).all():
        return (
            "repeats",
            f"wrong for the rows that x names more than once, {listed(bad)}: use np.add.at, as E[x] += dy counts them once",
        )
    return None


def repeated_constants(f: Facts) -> Diagnosis | None:
    """Wrong only at places that integers among the function's constants name more than once."""
    if not f.full or not f.shape:
        return None
    off = f.as_tensor(np.abs(f.error) > f.tolerance)
    for name, integers in _integers(f):
        for axis, size in enumerate(f.shape):
            if not integers.size or integers.min() < -size or integers.max() >= size:
                continue
            rows, counts = np.unique(integers % size, return_counts=True)
            often = rows[counts > 1]
            rows_off = np.moveaxis(off, axis, 0).reshape(size, -1)
            bad = np.flatnonzero(rows_off.any(axis=1))
            if bad.size and 2 * bad.size >= often.size < size and np.isin(bad, often).all() and rows_off[bad].all():
                return "repeats", (
                    f"wrong only at index {listed(bad)} of axis {axis}, which {name} names more than once: "
                    "use np.add.at, as g[i] += d counts them once"
                )
    return None


def _integers(f: Facts) -> Iterator[tuple[str, Array]]:
    """Yield (name, array) of the integers that a plain function gets or refers to."""
    p = f.context.procedure
    seen: dict[str, Any] = {}
    for function in (getattr(p, "f", None), getattr(p, "grad", None)):
        function = inspect.unwrap(function) if callable(function) else None
        function = getattr(function, "__func__", function)
        if not inspect.isfunction(function):
            continue
        found = inspect.getclosurevars(function)
        seen |= dict(found.globals) | dict(found.nonlocals)
    labels = getattr(p, "labels", ())
    seen |= dict(zip(labels, getattr(p, "args", ()), strict=False)) | dict(getattr(p, "kwargs", {}))
    for name, value in seen.items():
        parts = value if isinstance(value, tuple) else (value,)
        for part in parts if not isinstance(value, Mapping) else ():
            try:
                array = np.asarray(part)
            except ValueError:  # ragged
                continue
            if array.dtype.kind in "iu" and 1 < array.size <= 1_000_000 and np.ptp(array) > 1:  # not labels of 0 and 1
                yield name, array


def confined(f: Facts) -> Diagnosis | None:
    """Wrong at some elements only: an index of an axis, or a few."""
    if not f.full:
        off = np.abs(f.error) > f.tolerance
        sampled = ~np.isin(f.where, f.verdict.found)
        if f.verdict.found.size and not off[sampled].any():
            return (
                "elements",
                f"wrong at a few elements of {f.value.size}, right at {int(sampled.sum())} others that were drawn",
            )
        return None
    off = f.as_tensor(np.abs(f.error) > f.tolerance)
    n, total = int(off.sum()), off.size
    if total == 1:
        return None
    if f.error_size < 1e-4 * f.size and n > max(1, total // 20):
        return None  # an epsilon that shows at some elements only
    for axis in range(off.ndim):
        others = tuple(i for i in range(off.ndim) if i != axis)
        bad = off.any(axis=others)
        if 0 < bad.sum() < bad.size and (off.all(axis=others) | ~bad).mean() > 0.5 and n > 1:
            where = listed(np.flatnonzero(bad))
            return (
                "elements",
                f"wrong only at index {where} of axis {axis}, right elsewhere: a term from another index, or an edge, is lost",
            )
    if n <= max(1, total // 2):
        return "elements", f"wrong at {n} of {total} elements, right at all others: indices, masks, or repeated ones?"
    return None


def few_elements(f: Facts) -> Diagnosis | None:
    """A penalty, or a factor, that is wrong on some elements: the same on several of them, or at a second point too."""
    off = np.flatnonzero(np.abs(f.error) > f.tolerance)
    if not 0 < off.size < f.yours.size or not f.full or not f.theta[off].all():
        return None
    theta, right, yours = (a[off] for a in f.again())
    here = f.error[off] / f.theta[off]
    there = (yours - right) / theta
    where = [str(tuple(int(i) for i in np.unravel_index(j, f.shape))) if f.value.ndim > 1 else str(j) for j in off[:4]]
    head = f"wrong at element {', '.join(where)}{' ...' if off.size > 4 else ''} only"
    c = float(here.mean())
    if np.abs(np.append(here, there) - c).max() <= 1e-5 * abs(c):
        reason = (
            "a penalty that is not in the value there (a bias?), or twice" if c > 0 else "a penalty is missing there"
        )
        return "weight-decay", f"{head}, by {abs(c):.4g} * theta: {reason}"
    for factor, text in _FACTORS:
        with np.errstate(all="ignore"):
            pairs = ((f.yours[off] * factor(f.theta[off]), f.right[off]), (yours * factor(theta), right))
        if all(np.allclose(mine, good, rtol=1e-5, atol=0) for mine, good in pairs):
            return "slope", f"{head}: {text}"
    return None


_FACTORS: tuple[tuple[Callable[[Array], Array], str], ...] = (
    (np.exp, "the factor exp(theta) is missing there: the derivative by exp(theta), not by theta"),
    (lambda theta: np.exp(-theta), "a factor exp(theta) is extra there"),
    (lambda theta: theta, "the factor theta is missing there"),
    (lambda theta: 1 / theta, "a factor theta is extra there: the derivative by log(theta), not by theta"),
)
