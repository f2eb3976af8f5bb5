"""Hypotheses about terms: penalties, branches that pass their input on, mean and variance, weights updated too early."""

from __future__ import annotations

import numpy as np

from ...contract import Array
from ...ragged import Ragged
from ..reference import rms
from .facts import Diagnosis, Facts, subsets


def decay(f: Facts) -> Diagnosis | None:
    """A multiple of theta, of its signs, of both, or a constant."""
    for what, term in (("theta", f.theta), ("sign(theta)", np.sign(f.theta))):
        power = float(term @ term)
        if not power or f.theta.size < 2 or (what == "sign(theta)" and np.ptp(term) == 0):
            continue
        c = float(f.error @ term) / power
        if c and f.fits(f.right + c * term):
            kind = "an L2 term" if what == "theta" else "an L1 term"
            if c < 0:
                text = f"{kind}, {-c:.4g} * {what}, is missing, or is in the value with a larger factor than in the gradient"
            else:
                text = f"{kind}, {c:.4g} * {what}, is extra: not in the value, there twice, or meant for other tensors"
            return "weight-decay", text
    if f.theta.size > 4 and np.ptp(np.sign(f.theta)):
        design = np.stack([f.theta, np.sign(f.theta)], axis=1)
        c, *_ = np.linalg.lstsq(design, f.error, rcond=None)
        if f.fits(f.right + design @ c):
            return (
                "weight-decay",
                f"an L2 term, {-c[0]:.4g} * theta, and an L1 term, {-c[1]:.4g} * sign(theta), are missing",
            )
    mean = float(f.error.mean())
    if f.theta.size > 2 and mean and f.fits(f.right + mean):
        return "term", f"a constant, {-mean:.4g}, is missing from each element"
    return None


def passed_on(f: Facts) -> Diagnosis | None:
    """A multiple of dy, of y or of the tensor itself is missing or extra."""
    for name, term in (("dy", f.dy), ("y", f.y), ("the tensor itself", f.value)):
        if term.shape != f.shape:
            continue
        flat = term.ravel()[f.where]
        power = float(flat @ flat)
        c = float(f.error @ flat) / power if power else 0.0
        if flat.size == 1 and abs(abs(c) - 1) > 1e-9:
            continue
        if c and f.fits(f.right + c * flat):
            what = f"{abs(c):.4g} * {name}" if abs(abs(c) - 1) > 1e-9 else name
            if name == "dy":
                return (
                    "residual",
                    f"{what} is {'missing' if c < 0 else 'extra'}: the branch that passes its input on (a residual)",
                )
            return "value", f"{what} is {'missing' if c < 0 else 'extra'}"
    return None


def norm_terms(f: Facts) -> Diagnosis | None:
    """The right gradient sums to 0 along an axis, as through a mean; yours does not."""
    if not f.full or f.value.ndim < 1:
        return None
    right, error, x = f.as_tensor(f.right), f.as_tensor(f.error), f.value
    for axes in sorted(subsets(f.value.ndim), key=len):
        count = int(np.prod([f.shape[a] for a in axes]))
        if count < 2:
            continue
        total = np.abs(right).sum(axis=axes)
        if not (np.abs(right.sum(axis=axes)) <= 1e-9 * total + 1e-300).all() or not total.any():
            continue
        centred = x - x.mean(axis=axes, keepdims=True)
        along = np.abs((right * centred).sum(axis=axes))
        is_norm = (along <= 1e-2 * np.sqrt((right**2).sum(axis=axes) * (centred**2).sum(axis=axes)) + 1e-300).all()
        flat_error = _by_slice(error, axes)
        flat_centred = _by_slice(centred, axes)
        what = f"axis {', '.join(map(str, axes))}"
        if is_norm:
            constant = _explained(flat_error, [np.ones_like(flat_error)], f)
            slanted = _explained(flat_error, [flat_centred], f)
            both = _explained(flat_error, [np.ones_like(flat_error), flat_centred], f)
            if constant:
                return "mean-term", f"the error is constant along {what}: the term through the mean is missing, mean(d)"
            if slanted:
                return (
                    "variance-term",
                    f"the error is a multiple of x - mean along {what}: the term through the variance is missing",
                )
            if both:
                return (
                    "statistics",
                    f"the terms through mean and variance (over {what}) are missing: they are treated as constants",
                )
        broken = np.abs((right + error).sum(axis=axes)) > 1e-6 * total
        if broken.any():
            if f.error_size < 1e-3 * f.size or (np.abs(f.error) > f.tolerance).mean() < 0.6:
                continue  # an epsilon, or a few elements
            if is_norm:
                return "statistics", (
                    f"the right gradient sums to 0 along {what}, yours does not: the terms through mean and variance are "
                    "wrong, or taken over another axis"
                )
            if is_softmax(f.y):
                return "axis", (
                    f"the right gradient sums to 0 along {what}, yours does not: the sum of softmax's Jacobian is over another "
                    "axis"
                )
            continue
    return None


def is_softmax(y: Array) -> bool:
    """Tell whether y, or exp(y), sums to 1 along an axis."""
    with np.errstate(over="ignore"):
        sums = [a.sum(axis=axis) for a in (y, np.exp(y)) for axis in range(y.ndim) if y.shape[axis] > 1]
    return any(bool(np.allclose(s, 1, rtol=1e-9)) for s in sums)


def norm_term(f: Facts) -> Diagnosis | None:
    """The right gradient is orthogonal to the tensor along an axis, as through a norm, and the error is a multiple of it."""
    if not f.full or f.value.ndim < 1 or np.abs(f.value).min(initial=0.0) == 0:
        return None
    right, error, x = f.as_tensor(f.right), f.as_tensor(f.error), f.value
    for axes in sorted(subsets(f.value.ndim), key=len):
        if int(np.prod([f.shape[a] for a in axes])) < 3:
            continue
        along = np.abs((right * x).sum(axis=axes))
        size = np.sqrt((right**2).sum(axis=axes) * (x**2).sum(axis=axes))
        if (along <= 1e-2 * size + 1e-300).all() and _explained(_by_slice(error, axes), [_by_slice(x, axes)], f):
            what = f"axis {', '.join(map(str, axes))}"
            return (
                "variance-term",
                f"the error is a multiple of the tensor along {what}: the term through its norm is wrong",
            )
    return None


def _by_slice(a: Array, axes: tuple[int, ...]) -> Array:
    return np.moveaxis(a, axes, range(a.ndim - len(axes), a.ndim)).reshape(-1, int(np.prod([a.shape[i] for i in axes])))


def _explained(error: Array, basis: list[Array], f: Facts) -> bool:
    """Tell whether the error of each slice is a combination of these, which have fewer unknowns than it has elements."""
    if error.shape[1] <= len(basis):
        return False
    left = []
    for j, row in enumerate(error):
        design = np.stack([b[j] for b in basis], axis=1)
        left.append(row - design @ np.linalg.lstsq(design, row, rcond=None)[0])
    return rms(np.array(left)) <= max(1e-6 * f.error_size, 4 * float(f.tolerance.max(initial=0.0)))


def updated(f: Facts) -> Diagnosis | None:
    """The gradient at parameters that have moved along their own gradients: theta - rate * d theta."""
    judge, subject = f.judge, f.judge.subject
    over_time = isinstance(
        getattr(f.context.procedure, "x", None), Ragged
    )  # too dear, and no step is taken in a loop over time
    if f.where.size > 600 or f.verdict.row.method != "complex step" or over_time:
        return None
    k = f.verdict.k
    names = subject.names
    owned = [
        j for j, g in enumerate(judge.yours) if j != k and g is not None and names[j] != "x" and np.isfinite(g).all()
    ]
    right = [v.k for v in f.context.verdicts if v.row.verdict == "right"]
    later = [j for j in owned if j in right and j > k]
    for group in (later, owned):
        if not group:
            continue
        size = max(rms(subject.point[j]) for j in group) or 1.0
        steepest = max(rms(judge.yours[j]) for j in group)  # type: ignore[arg-type]
        if not steepest:
            continue
        small = 1e-4 * size / steepest

        def at(rate: float, group: list[int] = group) -> Array:
            moved = [a - rate * judge.yours[j] if j in group else a for j, a in enumerate(subject.point)]  # type: ignore[operator]
            through = getattr(f.context.procedure, "through", None)
            if through is not None:  # a network: forward as it was, backward through what has moved
                return np.asarray(through(moved)[k]).ravel()[f.where]
            return f.right_at(moved)

        turn = (at(small) - at(0.0)) / small
        power = float(turn @ turn)
        if not power:
            continue
        rate = float(f.error @ turn) / power
        for _ in range(8):  # Newton, where the gradient is not linear in the rate
            if rate <= 0:
                break
            here = at(rate)
            if f.fits(here):
                moved = ", ".join(names[j] for j in group)
                return "updated-weights", (
                    f"equals the gradient at the updated weights ({moved} moved by {rate:.3g} times their gradients): "
                    "propagate first, then take the step"
                )
            slope = (at(rate * (1 + 1e-6)) - here) / (rate * 1e-6)
            change = float((f.yours - here) @ slope) / (float(slope @ slope) or 1.0)
            if not np.isfinite(change):
                break
            rate += change
    return None


def other_parameter(f: Facts) -> Diagnosis | None:
    """The gradient as it would be if another tensor were transposed or flipped."""
    subject = f.judge.subject
    if f.where.size > 400 or f.verdict.row.method != "complex step":
        return None
    for j, value in enumerate(subject.point):
        if j == f.verdict.k or value.ndim < 2 or value.size > 4096:
            continue
        if value.shape[-1] == value.shape[-2] and f.fits(f.right_at(subject.moved(j, value.swapaxes(-1, -2)))):
            return (
                "transpose",
                f"equals the gradient with {subject.names[j]} transposed: a transpose of {subject.names[j]} is missing",
            )
        if value.ndim > 2:
            for axes in ((0, 1), (2, 3), (0,), (1,)):
                if max(axes) < value.ndim and f.fits(f.right_at(subject.moved(j, np.flip(value, axes)))):
                    return (
                        "order",
                        f"equals the gradient with {subject.names[j]} flipped along axis {axes}: a kernel turned by 180 degrees",
                    )
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
