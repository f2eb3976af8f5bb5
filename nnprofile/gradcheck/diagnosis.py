"""Say what the bug is: try the known ways of being wrong, from the most specific to the least, until one fits exactly.

Each hypothesis computes what the gradient would be if it were true, and fits if that is the claimed gradient up to rounding.
So none is a guess; where nothing fits, the finding says so ("term").
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import permutations

import numpy as np

from ..contract import Array
from . import callees, mistakes
from .facts import Context, Diagnosis, Facts, listed, subsets
from .foreign import ForeignError
from .judge import Verdict
from .reference import H, rms

KINDS = {
    "overflow": "the gradient is inf or NaN where the right one is finite",
    "zero": "the gradient was never written",
    "unused": "forward does not react to the parameter at all",
    "scale": "a constant factor is missing or extra",
    "sign": "the sign is wrong",
    "slice-scale": "a factor is missing that is constant along an axis",
    "float32": "digits are lost to single precision",
    "transpose": "a transpose is missing or extra",
    "order": "the right numbers in other places: reshape order, flipped kernel, swapped blocks",
    "shift": "the right numbers, shifted by some places: off by one",
    "weight-decay": "a penalty on the parameters is missing, doubled, or where it should not be",
    "samples": "some samples (or steps) are not counted, or counted twice",
    "axis": "a sum over the wrong axis",
    "slope": "the derivative of an activation is missing, twice, or taken at another place",
    "branch": "the derivative is wrong on one side only: x < 0 or x > 0",
    "mask": "not the mask of the forward pass",
    "diagonal": "only the diagonal of the Jacobian",
    "residual": "a branch that passes its input on is missing or extra",
    "value": "a multiple of the output or of the tensor itself is missing or extra",
    "mean-term": "the term through the mean is missing",
    "variance-term": "the term through the variance is missing",
    "statistics": "the terms through mean and variance are wrong",
    "updated-weights": "the gradient at the updated weights: a step was taken before propagating",
    "epsilon": "an epsilon in forward or backward alone, or misplaced",
    "repeats": "rows that are used more than once are counted once",
    "clipped": "the gradient is clipped, by value or by norm",
    "symmetric": "the right gradient of a symmetric matrix, in another convention",
    "elements": "some elements are wrong, all others right",
    "term": "a term of the derivative is missing or wrong",
    "shape": "the gradient has another shape than its tensor",
    "dtype": "the gradient has another dtype than its tensor",
    "missing": "no gradient was returned",
    "unexpected": "a gradient was returned for something that there is not",
    "raises": "backward raises an error",
    "mutation": "an input was overwritten",
    "stale-cache": "backward uses what the last forward left, not its own cache",
    "backward-twice": "the cache serves only once",
    "accumulate": "gradients are added to earlier ones",
    "nonlinear": "backward is not linear in dy",
    "memory-layout": "the result depends on the layout of dy in memory",
    "nondeterministic": "the same call gives different results",
    "batch": "wrong for another batch only",
    "point": "wrong at other values of the parameters or arguments, or not looked at there (a note)",
    "contract": "a layer's method returns something else than the contract says",
    "shared-output": "the cache is the very array that forward returned (a note)",
    "shared-gradient": "the next backward overwrites the gradients that were returned (a note)",
    "form": "what the derivative of a plain function was taken for (a note)",
    "layout": "which attributes of an object that keeps its state were taken for what (a note)",
    "integers": "x is of integers, so its gradient was not checked (a note)",
    "kink": "the point lies on a kink, and the gradient is an element of the subgradient (a note)",
    "unclear": "the reference is too inaccurate to judge (a note)",
    "optimizer": "the step is not the optimizer's formula",
    "adam-t": "Adam's bias correction is missing or counts steps wrongly",
    "adam-epsilon": "Adam's epsilon is at the wrong place",
    "epsilon-hat": "Adam's epsilon is added before the bias correction",
    "adam-moments": "Adam's moments are not the formula's",
    "momentum": "the momentum is not used, dampened, or Nesterov's by mistake",
    "momentum-sign": "the sign of the momentum is wrong",
    "decay-on-biases": "weight decay touches biases",
    "decay-in-gradient": "weight decay is part of the gradient, not decoupled",
    "no-step": "the parameters did not move",
}


def diagnose(verdict: Verdict, context: Context) -> Diagnosis:
    """Return (kind, message) of the first hypothesis that fits."""
    facts = Facts(verdict, context)
    if not np.isfinite(facts.yours).all():
        n = int((~np.isfinite(facts.yours)).sum())
        targets = np.asarray(context.y_true) if context.y_true is not None else np.zeros(0)
        if targets.dtype.kind == "f" and np.isnan(targets).any():
            return (
                "overflow",
                f"{n} elements of your gradient are NaN: those of targets that are NaN, masked in the value only?",
            )
        return "overflow", (
            f"{n} of {facts.yours.size} elements of your gradient are inf or NaN, where the right ones are finite: overflow; "
            "subtract the largest logit before exp, or split by sign"
        )
    for hypothesis in _HYPOTHESES:
        facts.unexplained = np.nan
        try:
            found = hypothesis(facts)
        except ForeignError:  # the code is not defined where the hypothesis looks
            continue
        except Exception as error:  # a fault of ours costs no verdict, and is no secret: the tests make it an error
            name = hypothesis.__name__.strip("_")
            text = (
                f"the hypothesis {name} failed, and was left out: {type(error).__name__}: {error}; please report this"
            )
            warnings.warn(text, UserWarning, stacklevel=2)
            continue
        if found:
            verdict.unexplained = facts.unexplained
            return found
    ratio = facts.error_size / facts.size if facts.size else np.inf
    if facts.yours.size == 1:
        return "term", f"it is {facts.yours[0]:.6g} where {facts.right[0]:.6g} is right; one number does not tell more"
    return (
        "term",
        f"off by {ratio:.1e} of its size, in no way that is known: a term of the derivative is missing or wrong",
    )


# -- hypotheses, in the order in which they are tried


def _zero(f: Facts) -> Diagnosis | None:
    if not f.yours.any() and f.right.any():
        return "zero", "your gradient is 0 everywhere, the right one is not: it was never written, or to a copy"
    return None


def _unused(f: Facts) -> Diagnosis | None:
    if f.full and not f.right.any() and f.yours.any():
        if f.again()[1].any():
            return (
                "term",
                "the right gradient is 0: a minimum, a maximum or another stationary point, where yours is not",
            )
        hint = "" if f.verdict.k < f.context.procedure.n_inputs else " Does it read params itself, or a copy?"  # type: ignore[union-attr]
        return "unused", f"the right gradient is 0: around this point forward does not change with it.{hint}"
    return None


def _float32_exact(f: Facts) -> Diagnosis | None:
    with np.errstate(over="ignore"):
        single = f.yours.astype(np.float32).astype(float)
    small = f.error_size <= 1e-5 * f.size
    if small and (single == f.yours).all() and not (f.right.astype(np.float32).astype(float) == f.right).all():
        return (
            "float32",
            "every element is a float32 number: single precision somewhere in backward (astype, or a float32 buffer)",
        )
    return None


def _scale(f: Facts) -> Diagnosis | None:
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
    if not reason and 0 < c < 1 and (norm := mistakes.norm_clipped(f)):
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
    slope = _elementwise(f)
    if slope is None:
        return 0.0
    values = np.unique(np.round(slope[slope != 0], 12))
    return float(values[0]) if values.size == 1 and values[0] != 1 else 0.0


def _permuted(f: Facts) -> Diagnosis | None:
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


def _decay(f: Facts) -> Diagnosis | None:
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


def _contributions(f: Facts, axis: int) -> Array:
    """Return what each index along an axis of y contributes to the right gradient: (n_elements, y.shape[axis])."""
    jacobian = f.verdict.jacobian
    if jacobian is None or f.dy.ndim <= axis:
        raise ValueError
    parts = np.moveaxis(jacobian * f.dy, axis + 1, 1)
    out: Array = parts.reshape(*parts.shape[:2], -1).sum(axis=2)
    return out


def _samples(f: Facts) -> Diagnosis | None:
    if f.full and f.value.ndim >= 1 and f.value.shape[0] > 1 and not f.context.procedure.takes_cotangent:  # type: ignore[union-attr]
        rows = f.as_tensor(f.yours).reshape(f.shape[0], -1)
        good = f.as_tensor(np.abs(f.error) <= f.tolerance).reshape(f.shape[0], -1).all(axis=1)
        empty = ~rows.any(axis=1) & ~good
        if empty.any() and (empty | good).all():
            return (
                "samples",
                f"the gradient is 0 for sample {listed(np.flatnonzero(empty))}: not counted, or overwritten in a loop",
            )
    if f.verdict.jacobian is None or not f.dy.ndim:
        return None
    for axis in range(f.dy.ndim):
        n = f.dy.shape[axis]
        if n < 2 or n > 4096:
            continue
        parts = _contributions(f, axis)
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


def _axis(f: Facts) -> Diagnosis | None:
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


def _elementwise(f: Facts) -> Array | None:
    """Return f'(x) if the layer is an elementwise function of x, else None."""
    jacobian = f.verdict.jacobian
    if not f.full or jacobian is None or f.shape != f.dy.shape:
        return None
    n = f.value.size
    square = jacobian.reshape(n, n)
    slope = np.diag(square).copy()
    return slope if not (square - np.diag(slope)).any() else None


def _slope(f: Facts) -> Diagnosis | None:
    slope = _elementwise(f)
    if slope is None:
        return None
    if f.error_size < 1e-6 * f.size and f.yours.size > 3 and _is_random(f):
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


def _slope_otherwise(f: Facts) -> Diagnosis | None:
    """The derivative of an elementwise function is another, at most elements."""
    slope = _elementwise(f)
    if slope is None or f.yours.size == 1:
        return None
    with np.errstate(all="ignore"):
        mine = f.yours / f.dy.ravel()
        off = float(np.nanmax(np.abs(mine / slope - 1)[slope != 0], initial=0.0))
    size = f"by up to {off:.1e} of itself" if off else "everywhere"
    return (
        "slope",
        f"the derivative of the activation is wrong {size}: not the derivative of this forward (another approximation?)",
    )


def _other_mask(f: Facts, slope: Array) -> Diagnosis | None:
    """A mask of the same kind, elsewhere: zero where the right gradient is not, and the other way round."""
    with np.errstate(all="ignore"):
        mine = f.yours / f.dy.ravel()
    values = set(np.round(slope, 9)) | {0.0}
    if len(values) > 2 or not np.isfinite(mine).all() or not set(np.round(mine, 9)) <= values:
        return None
    return "mask", "not the mask of the forward pass: another threshold, or drawn again in backward"


_RATIOS: tuple[tuple[str, Callable[[Array], Array]], ...] = (
    ("sigmoid'(z)", lambda z: 1 / (1 + np.exp(-z)) * (1 - 1 / (1 + np.exp(-z)))),
    ("tanh'(z)", lambda z: 1 - np.tanh(z) ** 2),
    ("p (1 - p)", lambda z: z * (1 - z)),
    ("1 - a^2", lambda z: 1 - z * z),
    ("sigmoid(z)", lambda z: 1 / (1 + np.exp(-z))),
)


def _ratio(f: Facts) -> Diagnosis | None:
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


def _diagonal(f: Facts) -> Diagnosis | None:
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


def _output_slope(f: Facts) -> Diagnosis | None:
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


def _softmax_again(f: Facts) -> Diagnosis | None:
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


def _other_cotangent(f: Facts) -> Diagnosis | None:
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


def _passed_on(f: Facts) -> Diagnosis | None:
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


def _norm_terms(f: Facts) -> Diagnosis | None:
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
            if _is_softmax(f.y):
                return "axis", (
                    f"the right gradient sums to 0 along {what}, yours does not: the sum of softmax's Jacobian is over another "
                    "axis"
                )
            continue
    return None


def _is_softmax(y: Array) -> bool:
    """Tell whether y, or exp(y), sums to 1 along an axis."""
    with np.errstate(over="ignore"):
        sums = [a.sum(axis=axis) for a in (y, np.exp(y)) for axis in range(y.ndim) if y.shape[axis] > 1]
    return any(bool(np.allclose(s, 1, rtol=1e-9)) for s in sums)


def _norm_term(f: Facts) -> Diagnosis | None:
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


def _few_factors(f: Facts) -> Diagnosis | None:
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


def _moved_point(f: Facts, k: int, value: Array) -> Array:
    """Return the right gradient of this tensor, at another value of leaf k."""
    judge, subject = f.judge, f.judge.subject
    point = subject.moved(k, value)
    kept, subject.point = subject.point, point
    try:
        right, _ = judge.right(f.verdict, f.where)
    finally:
        subject.point = kept
    return right


def _updated(f: Facts) -> Diagnosis | None:
    """The gradient at parameters that have moved along their own gradients: theta - rate * d theta."""
    judge, subject = f.judge, f.judge.subject
    if f.where.size > 600 or f.verdict.row.method != "complex step":
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
            kept, subject.point = subject.point, moved
            try:
                right, _ = judge.right(f.verdict, f.where)
            finally:
                subject.point = kept
            return right

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


def _other_parameter(f: Facts) -> Diagnosis | None:
    """The gradient as it would be if another tensor were transposed or flipped."""
    subject = f.judge.subject
    if f.where.size > 400 or f.verdict.row.method != "complex step":
        return None
    for j, value in enumerate(subject.point):
        if j == f.verdict.k or value.ndim < 2 or value.size > 4096:
            continue
        if value.shape[-1] == value.shape[-2] and f.fits(_moved_point(f, j, value.swapaxes(-1, -2))):
            return (
                "transpose",
                f"equals the gradient with {subject.names[j]} transposed: a transpose of {subject.names[j]} is missing",
            )
        if value.ndim > 2:
            for axes in ((0, 1), (2, 3), (0,), (1,)):
                if max(axes) < value.ndim and f.fits(_moved_point(f, j, np.flip(value, axes))):
                    return (
                        "order",
                        f"equals the gradient with {subject.names[j]} flipped along axis {axes}: a kernel turned by 180 degrees",
                    )
    return None


def _shifted(f: Facts) -> Diagnosis | None:
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


def _rearranged(f: Facts) -> Diagnosis | None:
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


def _slice_scale(f: Facts) -> Diagnosis | None:
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


def _confined(f: Facts) -> Diagnosis | None:
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


def _repeated_rows(f: Facts, off: Array) -> Diagnosis | None:
    """Rows that integers in x name more than once."""
    x = getattr(f.context.procedure, "x", None)
    if x is None:
        return None
    x = np.asarray(x)
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


def _repeats(f: Facts) -> Diagnosis | None:
    return _repeated_rows(f, f.as_tensor(np.abs(f.error) > f.tolerance)) if f.full else None


def _small(f: Facts) -> Diagnosis | None:
    ratio = f.error_size / f.size if f.size else np.inf
    if ratio > 5e-3 or f.yours.size == 1:
        return None
    known = np.abs(f.right) > 1e-3 * np.abs(f.right).max(initial=0.0)
    relative = f.error[known] / f.right[known]
    mixed = min((relative > 0).mean(), (relative < 0).mean()) > 0.2
    if ratio < 1e-6 and mixed and np.abs(relative).max() < 1e-5 and f.yours.size > 3 and _is_random(f):
        return (
            "float32",
            f"off by {ratio:.1e} of its size, at random, as float32 rounds: single precision somewhere in backward?",
        )
    return (
        "epsilon",
        f"off by {ratio:.1e} of its size: an epsilon that is in forward or backward alone, or at another place?",
    )


def _is_random(f: Facts) -> bool:
    """Tell whether the error is another one a small way off, as rounding is and a formula is not."""
    right, yours = f.at([a * (1 + 1e-4 * f.judge.rng.normal(size=a.shape)) for a in f.judge.subject.point])
    error = yours - right
    alike = float(error @ f.error) / ((rms(error) * rms(f.error) * error.size) or 1.0)
    return alike < 0.9


_HYPOTHESES: tuple[Callable[[Facts], Diagnosis | None], ...] = (
    _zero,
    _unused,
    _float32_exact,
    _scale,
    _permuted,
    mistakes.another_tensor,
    mistakes.clipped,
    _updated,  # before _decay: for one row, updated weights look like an L2 term on x
    _decay,
    _axis,
    _repeats,
    _samples,
    mistakes.log_argument,
    _slope,
    mistakes.forgotten_mask,
    _ratio,
    _softmax_again,
    mistakes.other_softmax,
    _diagonal,
    _passed_on,
    _other_cotangent,
    mistakes.same_step,
    mistakes.last_window,
    _output_slope,
    mistakes.symmetric,
    _norm_terms,
    _norm_term,
    callees.callee,
    _other_parameter,
    mistakes.few_elements,
    mistakes.repeated_constants,
    _slice_scale,
    _shifted,
    _rearranged,
    mistakes.unsorted,
    _slope_otherwise,
    _few_factors,
    _confined,
    _small,
    mistakes.lost_reaction,
)
