"""Hypotheses about what people mix up around a gradient: tensors, clipping, masks, conventions, indices that repeat.

As in ``diagnosis``, each is a function of the facts that returns (kind, message) if it fits, else None. What few numbers could
fit by chance has to fit at a second point too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..contract import Array
from .facts import Diagnosis, Facts, listed, subsets
from .reference import rms


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


def clipped(f: Facts) -> Diagnosis | None:
    """Each element is cut off at +-c, or the whole is scaled to a norm."""
    if f.yours.size < 2:
        return None
    c = float(np.abs(f.yours).max())
    off = np.abs(f.error) > f.tolerance
    n = int(off.sum())
    at_the_edge = not (off & (np.abs(np.abs(f.yours) - c) > 1e-12 * c)).any()
    if c and (n > 1 or _is_round(c)) and at_the_edge and f.fits(np.clip(f.right, -c, c)):
        return "clipped", f"{n} of {off.size} elements are cut off at +-{c:.6g}: np.clip is part of the gradient"
    return None


def norm_clipped(f: Facts) -> str:
    """Name the norm to which a gradient that is too small by a factor was scaled, or return ""."""
    alone = float(np.linalg.norm(f.yours)) if f.full else 0.0
    total = float(np.sqrt(sum(float((v.yours**2).sum()) for v in f.context.verdicts)))
    for norm, what in ((alone, "its norm"), (total, "the norm of all gradients")):
        if norm and _is_round(norm):
            return f"{what} is {norm:.6g}: clipped by norm"
    return ""


def _is_round(c: float) -> bool:
    """Tell whether a number has two digits at most, as people choose them."""
    return bool(c) and abs(float(f"{c:.1e}") / c - 1) < 1e-9


def forgotten_mask(f: Facts) -> Diagnosis | None:
    """Right where the right gradient is not 0, something else where it is."""
    off = np.abs(f.error) > f.tolerance
    zero = (f.right == 0) & off
    if off.any() and (off == zero).all() and f.right.any():
        return "mask", (
            f"should be 0 at {int(off.sum())} of {off.size} elements, and is right at the others: a mask of forward, such as "
            "that of max(0, .), is forgotten"
        )
    return None


def log_argument(f: Facts) -> Diagnosis | None:
    """The derivative by log(theta) or by exp(theta): right * theta, right / exp(theta)."""
    for factor, text in _ARGUMENTS:
        with np.errstate(all="ignore"):
            values = factor(f.theta)
            if np.isfinite(values).all() and f.fits(f.right * values) and f.varied_or_again(values, factor):
                return "slope", f"your gradient is {text}"
    return None


_ARGUMENTS: tuple[tuple[Callable[[Array], Array], str], ...] = (
    (
        lambda theta: np.where(theta > 0, theta, np.nan),
        "theta times the right one: the derivative by log(theta), where that by theta is asked for",
    ),
    (
        lambda theta: 1 / theta,
        "the right one over theta: the derivative by theta**2 / 2, or a factor theta is missing",
    ),
    (
        lambda theta: np.exp(-theta),
        "the right one without the factor exp(theta): the derivative by exp(theta), not by theta",
    ),
    (np.exp, "exp(theta) times the right one: exp is differentiated twice"),
)


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


def other_softmax(f: Facts) -> Diagnosis | None:
    """The error is a multiple of the difference of two softmaxes of the tensor."""
    if not f.full or f.value.ndim < 2:
        return None
    x = f.value - f.value.max()
    kinds = [np.exp(x) / np.exp(x).sum(axis=a, keepdims=True) for a in range(x.ndim)]
    for i, mine in enumerate(kinds):
        for j, right in enumerate(kinds):
            term = (mine - right).ravel()
            power = float(term @ term)
            if i != j and power and f.fits(f.right + float(f.error @ term) / power * term):
                return "axis", f"softmax is over axis {i} in the gradient, and over axis {j} in forward"
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


def lost_reaction(f: Facts) -> Diagnosis | None:
    """The right gradient sums to 0 along an axis, as forward ignores a common shift; yours does not."""
    if not f.full or not f.shape:
        return None
    right, yours = f.as_tensor(f.right), f.as_tensor(f.yours)
    for axes in sorted(subsets(f.value.ndim), key=len):
        total = np.abs(right).sum(axis=axes)
        if int(np.prod([f.shape[a] for a in axes])) < 2 or not total.all():
            continue
        if (np.abs(right.sum(axis=axes)) <= 1e-9 * total).all() and (np.abs(yours.sum(axis=axes)) > 1e-6 * total).any():
            return "term", (
                f"the right gradient sums to 0 along axis {', '.join(map(str, axes))}, as forward ignores a common shift; yours "
                "does not: a part of it, such as a reaction, is lost or wrong"
            )
    return None
