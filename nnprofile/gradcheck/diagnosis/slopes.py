"""Hypotheses about derivatives of activations: missing, twice, elsewhere, of another function, or of a mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...contract import Array
from ..reference import H, rms
from .facts import Diagnosis, Facts, subsets


def elementwise(f: Facts) -> Array | None:
    """Return f'(x) if the layer is an elementwise function of x, else None."""
    jacobian = f.verdict.jacobian
    if not f.full or jacobian is None or f.shape != f.dy.shape:
        return None
    n = f.value.size
    square = jacobian.reshape(n, n)
    slope = np.diag(square).copy()
    return slope if not (square - np.diag(slope)).any() else None


def other_slope(f: Facts) -> Diagnosis | None:
    """Another derivative of an elementwise function: missing, twice, elsewhere, on one side."""
    slope = elementwise(f)
    if slope is None:
        return None
    if f.error_size < 1e-6 * f.size and f.yours.size > 3 and f.is_random():
        return (
            "float32",
            f"off by {f.error_size / f.size:.1e} of its size, at random, as float32 rounds: single precision somewhere?",
        )
    dy, x, y = f.dy.ravel(), f.value.ravel(), f.y.ravel()

    def at(point: Array) -> Array:
        ones = np.ones(f.shape)
        subject = f.judge.subject
        moved = subject.moved(f.verdict.k, point.reshape(f.shape) + 1j * H * ones)
        return subject.y(moved).imag.ravel() / H

    for candidate, text in (
        (lambda: np.ones_like(slope), "the derivative of the activation is missing: dx = dy"),
        (lambda: slope**2, "the derivative of the activation is there twice"),
        (lambda: at(y), "the derivative of the activation is taken at its output a, not at its input z: f'(f(z))"),
        (lambda: at(dy), "the derivative is taken at dy, not at x: a mask made of dy"),
        (lambda: at(-x), "the derivative is taken at -x: a sign inside the activation's derivative"),
        (lambda: y, "dx = dy * y: the function in place of its derivative"),
        (lambda: 1 - y, "dx = dy * (1 - y): is 1 - y^2 meant?"),
        (lambda: 1 - x * x, "1 - x^2 of the input, where 1 - y^2 of the output belongs"),
        (lambda: x * (1 - x), "x (1 - x) of the input, where y (1 - y) of the output belongs"),
        (lambda: slope * x, "an extra factor x"),
    ):
        if f.fits(candidate() * dy):
            return "slope", text
    if f.yours.size == 1:
        return None
    wrong = np.abs(f.error) > f.tolerance
    mask = _other_mask(f, slope)
    if mask:
        return mask
    for side, text in ((x < 0, "x < 0"), (x > 0, "x > 0")):
        if wrong.any() and not (wrong & ~side).any() and (~side).any() and side.any() and wrong[side].mean() > 0.5:
            ratio = f.yours[wrong] / f.right[wrong] if f.right[wrong].all() else np.zeros(0)
            constant = ratio.size > 0 and np.ptp(ratio) < 1e-6 * abs(ratio[0])
            more = (
                f", where it is {ratio[0]:.4g} times the right one (another slope than in forward?)" if constant else ""
            )
            return "branch", f"wrong only where {text}{more}"
    if 0 < wrong.sum() <= wrong.size // 4:
        low, high = x[wrong].min(), x[wrong].max()
        where = f"where x is {low:.4g}" if low == high else f"where x is from {low:.4g} to {high:.4g}"
        return "elements", f"wrong at {wrong.sum()} of {wrong.size} elements, {where}; right at all others"
    return None


def _other_mask(f: Facts, slope: Array) -> Diagnosis | None:
    """A mask of the same kind, elsewhere: zero where the right gradient is not, and the other way round."""
    with np.errstate(all="ignore"):
        mine = f.yours / f.dy.ravel()
    values = set(np.round(slope, 9)) | {0.0}
    if len(values) > 2 or not np.isfinite(mine).all() or not set(np.round(mine, 9)) <= values:
        return None
    return "mask", "not the mask of the forward pass: another threshold, or drawn again in backward"


def unknown_slope(f: Facts) -> Diagnosis | None:
    """The derivative of an elementwise function is another, at most elements."""
    slope = elementwise(f)
    if slope is None or f.yours.size == 1:
        return None
    with np.errstate(all="ignore"):
        mine = f.yours / f.dy.ravel()
        off = float(np.nanmax(np.abs(mine / slope - 1)[slope != 0], initial=0.0))
    size = f"by up to {off:.1e} times its value" if off else "everywhere"
    return (
        "slope",
        f"the derivative of the activation is wrong {size}: not the derivative of this forward (another approximation?)",
    )


_RATIOS: tuple[tuple[str, Callable[[Array], Array]], ...] = (
    ("sigmoid'(z)", lambda z: 1 / (1 + np.exp(-z)) * (1 - 1 / (1 + np.exp(-z)))),
    ("tanh'(z)", lambda z: 1 - np.tanh(z) ** 2),
    ("p (1 - p)", lambda z: z * (1 - z)),
    ("1 - a^2", lambda z: 1 - z * z),
    ("sigmoid(z)", lambda z: 1 / (1 + np.exp(-z))),
)


def extra_factor(f: Facts) -> Diagnosis | None:
    """A factor that is a known function of the tensor, element by element."""
    for name, function in _RATIOS:
        with np.errstate(all="ignore"):
            factor = function(f.theta)
            if np.isfinite(factor).all() and f.fits(f.right * factor):
                return (
                    "slope",
                    f"your gradient has a factor {name} extra: the loss on logits includes the activation already",
                )
            if np.isfinite(1 / factor).all() and f.fits(f.right / factor):
                return "slope", f"your gradient lacks the factor {name}"
    return None


def diagonal(f: Facts) -> Diagnosis | None:
    """Only the diagonal of the Jacobian."""
    jacobian = f.verdict.jacobian
    if jacobian is None or f.shape != f.dy.shape or not f.full:
        return None
    n = f.value.size
    square = jacobian.reshape(n, n)
    if f.fits(np.diag(square) * f.dy.ravel()):
        return "diagonal", "only the diagonal of the Jacobian is there: softmax's dx = y * (dy - sum(dy * y))"
    if f.fits(square.T @ f.dy.ravel()):
        return (
            "transpose",
            "the Jacobian is not transposed: J dy for J.T dy, such as dy @ W for dy @ W.T (silent here, as J is square)",
        )
    return None


def output_slope(f: Facts) -> Diagnosis | None:
    """A layer that ends in an activation: all its gradients are right for a dy that is scaled element by element."""
    dy, y = f.dy.ravel(), f.y.ravel()
    verdicts = [v for v in f.context.verdicts if v.jacobian is not None and v.is_full]
    if len(verdicts) < 2 or len(verdicts) != len(f.context.verdicts) or not 1 < dy.size <= 400:
        return None
    design = np.concatenate([v.jacobian.reshape(v.value.size, -1) for v in verdicts])  # type: ignore[union-attr]
    yours = np.concatenate([v.yours.ravel() for v in verdicts])
    if len(design) < 1.2 * dy.size or not np.isfinite(yours).all():
        return None
    used, _, rank, _ = np.linalg.lstsq(design, yours, rcond=None)
    error = yours - design @ dy
    if rank < dy.size or rms(yours - design @ used) > 1e-7 * rms(error):
        return None
    factor = used / dy
    for name, slope in (("1 - y^2 (tanh)", 1 - y * y), ("y (1 - y) (sigmoid)", y * (1 - y))):
        with np.errstate(all="ignore"):
            for text, candidate in (
                (f"the derivative of the output's activation, {name}, is missing", 1 / slope),
                (f"the derivative of the output's activation, {name}, is there twice", slope),
                (f"the output's activation has the derivative {name}; 1 - y is used", (1 - y) / slope),
                (f"the output's activation has the derivative {name}; y is used", y / slope),
            ):
                if np.allclose(factor, candidate, rtol=1e-5, atol=0):
                    return "slope", text
    off = np.abs(factor - 1) > 1e-6
    where = "y < 0" if not (off & (y >= 0)).any() else "y > 0" if not (off & (y <= 0)).any() else ""
    return "slope", (
        f"as if dy were multiplied, element by element, by {', '.join(f'{v:.3g}' for v in factor[:3])} ...: the derivative "
        f"of the output's activation is wrong{' where ' + where if where else ''}, or taken at another place"
    )


def softmax_again(f: Facts) -> Diagnosis | None:
    """The right gradient, sent through softmax's Jacobian once more."""
    if not f.full or f.value.ndim < 2:
        return None
    right = f.as_tensor(f.right)
    e = np.exp(f.value - f.value.max(axis=-1, keepdims=True))
    y = e / e.sum(axis=-1, keepdims=True)
    if f.fits(y * (right - (right * y).sum(axis=-1, keepdims=True))):
        return (
            "slope",
            "the right gradient went through softmax's Jacobian once more: a loss on logits includes it already",
        )
    return None


def other_cotangent(f: Facts) -> Diagnosis | None:
    """The gradient of dy in another order."""
    jacobian, dy = f.verdict.jacobian, f.dy
    if jacobian is None or not f.full or not dy.ndim or dy.size < 2:
        return None
    flat = jacobian.reshape(len(jacobian), -1)

    def gives(other: Array) -> bool:
        return f.fits(flat @ other.ravel())

    for axis in range(dy.ndim):
        if gives(np.flip(dy, axis)):
            return "order", f"equals the gradient for dy reversed along axis {axis}"
        for by in range(1, min(dy.shape[axis], 64)):
            if gives(np.roll(dy, by, axis)):
                return (
                    "order",
                    f"equals the gradient for dy rolled by {by} along axis {axis}: split, or joined, at the wrong index",
                )
            kept = np.array(dy)
            np.moveaxis(kept, axis, 0)[:by] = 0
            if gives(kept):
                return "samples", f"the first {by} along axis {axis} of dy are not counted"
            kept = np.array(dy)
            np.moveaxis(kept, axis, 0)[-by:] = 0
            if gives(kept):
                return "samples", f"the last {by} along axis {axis} of dy are not counted"
    for others in subsets(dy.ndim):
        if gives(np.broadcast_to(dy.mean(axis=others, keepdims=True), dy.shape)):
            return "axis", f"equals the gradient for dy averaged over axis {', '.join(map(str, others))}"
        if gives(np.broadcast_to(dy.sum(axis=others, keepdims=True), dy.shape)):
            return "axis", f"equals the gradient for dy summed over axis {', '.join(map(str, others))}"
    if gives(np.ones(dy.shape)):
        return "nonlinear", "equals the gradient for dy = 1: dy is left out"
    if gives(np.abs(dy)) or gives(np.sign(dy)):
        return "nonlinear", "equals the gradient for the size or the sign of dy"
    if gives(dy / len(dy)):
        return "scale", "an extra factor 1/n"
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
