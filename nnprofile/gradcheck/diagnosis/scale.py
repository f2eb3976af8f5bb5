"""Hypotheses about factors: one for all elements, one a slice or a branch, a sign, digits lost, a clipped gradient."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...contract import Array
from .facts import Diagnosis, Facts
from .slopes import elementwise


def zero(f: Facts) -> Diagnosis | None:
    """Never written."""
    if not f.yours.any() and f.right.any():
        return "zero", "your gradient is 0 everywhere, the right one is not: it was never written, or to a copy"
    return None


def unused(f: Facts) -> Diagnosis | None:
    """The right gradient is 0 everywhere."""
    if f.full and not f.right.any() and f.yours.any():
        if f.again()[1].any():
            return (
                "term",
                "the right gradient is 0: a minimum, a maximum or another stationary point, where yours is not",
            )
        hint = "" if f.verdict.k < f.context.procedure.n_inputs else " Does it read params itself, or a copy?"  # type: ignore[union-attr]
        return "unused", f"the right gradient is 0: around this point forward does not change with it.{hint}"
    return None


def float32_exact(f: Facts) -> Diagnosis | None:
    """Each element is a float32 number."""
    with np.errstate(over="ignore"):
        single = f.yours.astype(np.float32).astype(float)
    small = f.error_size <= 1e-5 * f.size
    if small and (single == f.yours).all() and not (f.right.astype(np.float32).astype(float) == f.right).all():
        return (
            "float32",
            "every element is a float32 number: single precision somewhere in backward (astype, or a float32 buffer)",
        )
    return None


def factor(f: Facts) -> Diagnosis | None:
    """One factor for all elements; one number alone has to show it at a second point too."""
    power = float(f.right @ f.right)
    if not power:
        return None
    c = float(f.yours @ f.right) / power
    if not f.fits(c * f.right):
        return None
    if f.yours.size == 1:  # one number is always a multiple of another: ask at a second point
        _, right, yours = f.again()
        is_other = abs(float(right[0] - f.right[0])) > 1e-6 * abs(float(right[0]))
        if not (is_other or _named(c, f)) or abs(float(yours[0] - c * right[0])) > 1e-7 * abs(float(yours[0])):
            return None
    if abs(c + 1) < 1e-9:
        return "sign", "your gradient is -1.000 times the right one: the sign is wrong (y - t, not t - y?)"
    reason = _named(c, f)
    if not reason and 0 < c < 1 and (norm := norm_clipped(f)):
        return "clipped", f"your gradient is {c:.4g} times the right one, and {norm}"
    times = f"{c:.4g}" if abs(c - 1) > 1e-2 else f"{c:.12g}"
    if c < 0 and _named(-c, f):
        reason = f"the sign is wrong, and {_named(-c, f)}"
    return "scale", f"your gradient is {times} times the right one: {reason or 'a constant factor is wrong'}"


def _named(c: float, f: Facts) -> str:
    """Name a factor: the first of these that it equals."""
    p = f.context.procedure
    x = getattr(p, "x", None)
    sizes: dict[int, str] = {}
    for array in (f.dy if f.dy.ndim else f.value, x if isinstance(x, np.ndarray) else f.value):
        for axis, size in enumerate(array.shape):
            what = (
                "samples"
                if axis == 0
                else "outputs"
                if array.ndim == 2 and array is not x
                else f"places along axis {axis}"
            )
            if size > 1:
                sizes.setdefault(size, what)
        if array.size > 1:
            sizes.setdefault(array.size, "elements")
    named: list[tuple[float, str]] = [
        (2.0, "factor 2; did the loss lose its 1/2?"),
        (0.5, "factor 1/2; where is the 2 of the square?"),
    ]
    for size, what in sizes.items():
        named += [
            (float(size), f"factor {size}, the number of {what}: a sum where a mean belongs (1/{size} is missing)"),
            (1 / size, f"factor 1/{size}, with {size} {what}: a mean where a sum belongs, or 1/{size} twice"),
        ]
    for size, what in sizes.items():
        for other, that in sizes.items():
            if other != size:
                named.append(
                    (
                        size / other,
                        f"factor {size}/{other}: divided by {other}, the {that}, where {size}, the {what}, belong",
                    )
                )
    n = f.dy.shape[0] if f.dy.ndim else (f.shape[0] if f.shape else 1)
    if n > 2:
        named += [(n / (n - 1), "n / (n - 1): biased and unbiased variance"), ((n - 1) / n, "(n - 1) / n: ddof")]
    for what, weights in _weights(f):
        total = float(weights.sum())
        named += [
            (total, f"the sum of the {what}: not normalised"),
            (total / n, f"the mean of the {what}: divided by n, not by their sum"),
        ]
    kept = _constant_slope(f)
    if kept:
        named += [
            (1 / kept, f"forward's factor {kept:.4g} is missing: dropout's 1 / (1 - rate)?"),
            (kept, f"forward's factor {kept:.4g} twice"),
        ]
    for value, text in named:
        if abs(c / value - 1) < 1e-6:
            alike = [t for v, t in named if abs(c / v - 1) < 1e-6 and t != text]
            return text + (f" (or {alike[0]})" if alike and value in (2.0, 0.5) else "")
    if abs(c - round(c)) < 1e-6 * abs(c) and 1.5 < abs(c) < 1000:
        return f"factor {round(c)}"
    if c and abs(1 / c - round(1 / c)) < 1e-6 * abs(1 / c) and 1.5 < abs(1 / c) < 1000:
        return f"factor 1/{round(1 / c)}"
    for value in (c * c, 1 / (c * c) if c else 0.0):
        if 1.5 < value < 10_000 and abs(value - round(value)) < 1e-6 * value:
            up = value == c * c
            return f"factor {'' if up else '1/'}sqrt({round(value)}): a scale like 1/sqrt(d) is {'missing' if up else 'twice'}"
    return ""


def _weights(f: Facts) -> Iterator[tuple[str, Array]]:
    """Yield (what they are, weights): those of the samples, or of the classes."""
    if f.context.sample_weight is not None:
        yield "sample weights", np.asarray(f.context.sample_weight, float)
    labels = np.asarray(f.context.y_true) if f.context.y_true is not None else np.zeros(0)
    loss = getattr(f.context.procedure, "loss", None)
    if labels.dtype.kind in "iu" and labels.size and hasattr(loss, "__dict__"):
        for value in vars(loss).values():
            if (
                isinstance(value, np.ndarray)
                and value.ndim == 1
                and value.dtype.kind == "f"
                and value.size > labels.max()
            ):
                yield "class weights", value[labels]


def _constant_slope(f: Facts) -> float:
    """Return the one slope, beside 0, of a layer that scales and drops elements; 0 for others."""
    slope = elementwise(f)
    if slope is None:
        return 0.0
    values = np.unique(np.round(slope[slope != 0], 12))
    return float(values[0]) if values.size == 1 and values[0] != 1 else 0.0


def slice_scale(f: Facts) -> Diagnosis | None:
    """One factor for each index of an axis."""
    if not f.full or f.value.ndim < 2:
        return None
    right, yours = f.as_tensor(f.right), f.as_tensor(f.yours)
    for axis in range(f.value.ndim):
        others = tuple(i for i in range(f.value.ndim) if i != axis)
        if int(np.prod([f.shape[i] for i in others])) < 2:
            continue
        power = (right * right).sum(axis=others, keepdims=True)
        c = (yours * right).sum(axis=others, keepdims=True) / np.where(power == 0, 1, power)
        if f.fits(c * right) and np.abs(c - 1).max() > 1e-2:
            values = ", ".join(f"{v:.3g}" for v in c.ravel()[:4])
            return (
                "slice-scale",
                f"each slice along axis {axis} has a factor of its own, {values} ...: a scale or weight per index is wrong",
            )
    return None


def few_factors(f: Facts) -> Diagnosis | None:
    """A few factors, one for each of some groups of elements."""
    if f.yours.size < 4 or not f.right.all():
        return None
    ratio = f.yours / f.right
    if f.yours.size < 6 and not np.isin(np.round(ratio, 9), (1.0, -1.0)).all():
        return None
    values, counts = np.unique(np.round(ratio, 9), return_counts=True)
    if 2 <= values.size <= 3 and counts.min() >= 2 and np.abs(values - 1).max() > 1e-2:
        named = ", ".join(f"{v:.4g} ({c} elements)" for v, c in zip(values, counts, strict=True))
        return (
            "branch",
            f"your gradient is the right one times {named}: a factor per branch or class is wrong, or branches are swapped",
        )
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


def small(f: Facts) -> Diagnosis | None:
    """A small error everywhere: single precision if it is random, else an epsilon."""
    ratio = f.error_size / f.size if f.size else np.inf
    if ratio > 5e-3 or f.yours.size == 1:
        return None
    known = np.abs(f.right) > 1e-3 * np.abs(f.right).max(initial=0.0)
    relative = f.error[known] / f.right[known]
    mixed = min((relative > 0).mean(), (relative < 0).mean()) > 0.2
    if ratio < 1e-6 and mixed and np.abs(relative).max() < 1e-5 and f.yours.size > 3 and f.is_random():
        return (
            "float32",
            f"off by {ratio:.1e} of its size, at random, as float32 rounds: single precision somewhere in backward?",
        )
    return (
        "epsilon",
        f"off by {ratio:.1e} of its size: an epsilon that is in forward or backward alone, or at another place?",
    )
