"""The right derivative, by two ways that know nothing of anybody's backward.

The complex step is exact to rounding, where the code lets complex numbers through and does not lie about them; it is
guarded, and extrapolated central differences, which say how accurate they are, are its second opinion and its stand-in.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from ..contract import Array
from .foreign import ForeignError, foreign, handed_over

T = TypeVar("T")
Line = Callable[[Any], Any]  # sum(dy * y) along a line: phi(0) is the point
H = 1e-30  # the imaginary step: H * H vanishes beside anything, H does not underflow
EPS = float(np.finfo(np.float64).eps)
RATIO = 8.0  # between two steps of the ladder of differences
STEPS = RATIO ** -np.arange(2.0, 11.0)  # 0.016 .. 9e-10
LONG_STEPS = RATIO ** -np.arange(2.0, 13.0)
EXTENDED = np.finfo(np.longdouble).eps < np.finfo(np.float64).eps  # whether long doubles carry more digits here


@dataclass
class Subject:
    """What is checked: a function of named float64 arrays, and the vector-Jacobian product that is claimed for it.

    Attributes
    ----------
    names : list of str
    point : list of Array
    output : function (arrays) -> Array
        y, of any shape, real or complex.
    pullback : function (arrays, dy) -> list
        The claimed gradients of sum(dy * y), None where none is claimed.
    """

    names: list[str]
    point: list[Array]
    output: Callable[[list[Array]], Array]
    pullback: Callable[[list[Array], Array], list[Array | None]]
    n: int = 0  # evaluations
    form: dict[str, Any] = field(default_factory=dict)  # the shape of y, and for which leaves gradients are claimed

    @foreign()
    def y(self, arrays: list[Array]) -> Array:
        """Evaluate the output."""
        self.n += 1
        return self._of_one_form("shape of y", np.asarray(self.output(arrays)), np.shape)

    @foreign()
    def vjp(self, arrays: list[Array], dy: Array) -> list[Array | None]:
        """Evaluate the claimed gradients."""
        self.n += 1
        return self._of_one_form(
            "list of gradients", self.pullback(arrays, dy), lambda out: [g is not None for g in out]
        )

    def _of_one_form(self, what: str, out: T, form: Callable[[T], Any]) -> T:
        """Return what was evaluated, if it has the form that it had the first time."""
        if form(out) != self.form.setdefault(what, form(out)):
            raise ValueError(f"the {what} is {form(out)} at other numbers, where it was {self.form[what]}")
        return out

    def moved(self, k: int, value: Array) -> list[Array]:
        """Return the point with leaf k replaced."""
        return [*self.point[:k], value, *self.point[k + 1 :]]


@contextmanager
def careful() -> Iterator[None]:
    """Let floating-point trouble pass, which is judged by its result, and make a discarded imaginary part an error."""
    with handed_over(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


@dataclass
class Difference:
    """A derivative by differences: its value, and the error it may have."""

    value: float
    error: float


def extrapolate(slopes: Array, bends: Array, steps: Array, noise: float, order: int) -> Difference:
    """Combine difference quotients D(h) = D + c h^order + ... over a ladder of steps, the largest first.

    The derivative is a limit for small h, so the smallest steps, however noisy, decide which others are believed: a kink
    or a wiggle between them and a larger step shows as a contradiction, or as second differences, ``bends``, that grow by
    more than the square of the step.
    """
    usable = np.isfinite(slopes)  # a large step may leave the function's domain
    if usable.sum() < 3:
        return Difference(float(slopes[-1]), np.inf)
    slopes, bends, steps = slopes[usable], bends[usable], steps[usable]
    smooth = len(steps) - 1  # the largest step of those before which nothing happens
    while smooth > 0 and bends[smooth - 1] <= 1.6 * RATIO**2 * max(bends[smooth], noise):
        smooth -= 1
    first = min(smooth, len(steps) - 2)
    slopes, steps = slopes[first:], steps[first:]
    gain = RATIO**order
    noises = 4 * noise / steps
    refined = (gain * slopes[1:] - slopes[:-1]) / (gain - 1)
    best = Difference(float(slopes[-1]), float(noises[-1]) + abs(float(slopes[-1] - slopes[-2])))
    low, high = -np.inf, np.inf
    for j in range(len(refined) - 1, -1, -1):  # from the smallest steps up
        spread = abs(refined[j] - (refined[j + 1] if j + 1 < len(refined) else slopes[-1]))
        error = float(spread + 2 * noises[j + 1])
        value = float(refined[j])
        if value + error < low or value - error > high:
            break  # contradicts a smaller step
        if error < best.error:
            best = Difference(value, error)
        low, high = max(low, value - error - noises[j + 1]), min(high, value + error + noises[j + 1])
    return best


def ladder(phi: Line, *, noise: float, extended: bool) -> tuple[dict[float, Any], Any, Array, float]:
    """Evaluate phi at 0 and at both sides over the ladder of steps; return also its rounding noise.

    ``noise`` is the least that it has in float64. Its second differences tell whether it has more, unless they grow with
    the step, as they do at a kink; so does a value that does not change at all at some steps, and a little at others.
    """
    steps = LONG_STEPS if extended else STEPS
    kind = np.longdouble if extended else np.float64
    here = phi(kind(0))
    values = {s * h: phi(kind(s * h)) for h in steps for s in (1, -1)}
    second = [abs(float(values[h] + values[-h] - 2 * here)) for h in steps[-4:]]
    flat = np.isfinite(second).all() and second[0] <= 30 * second[-1]
    moves = np.array([abs(float(v - here)) for v in values.values()])
    moves = moves[np.isfinite(moves)]
    size = max(abs(float(here)), float(moves.max(initial=0.0)))
    quantum = moves[moves > 0].min(initial=np.inf) if (moves == 0).any() else np.inf
    eps = float(np.finfo(kind).eps)
    found = [noise * eps / EPS, size * eps]
    if flat:
        found.append(float(np.median(second)))
    if quantum <= 1e-5 * size:
        found.append(float(quantum))
    return values, here, steps, max(found)


def central(phi: Line, *, noise: float, extended: bool = False) -> Difference:
    """Differentiate phi at 0 by central differences, extrapolated: D(h) = (phi(h) - phi(-h)) / 2h (docs/backprop.md, eq. 35)."""
    values, here, steps, noise = ladder(phi, noise=noise, extended=extended)
    slopes = np.array([(values[h] - values[-h]) / (2 * h) for h in steps], float)
    bends = np.array([abs(values[h] + values[-h] - 2 * here) for h in steps], float)
    tiny = steps[-1] / RATIO ** np.arange(1.0, 4.0)
    kind = np.longdouble if extended else np.float64
    below = [(phi(kind(h)), phi(kind(-h))) for h in tiny]
    bends_below = np.array([abs(ahead + behind - 2 * here) for ahead, behind in below], float)
    crooked = [abs(float(ahead - behind) - 2 * h * slopes[-1]) for h, (ahead, behind) in zip(tiny, below, strict=True)]
    # A bend that is rounding does not depend on the step, one of a smooth function goes with its square, a kink's with it.
    per_step = np.concatenate([bends[-4:] / steps[-4:], bends_below / tiny])
    triples = [per_step[j : j + 3] for j in range(len(per_step) - 2)]
    if any(min(triple) > 0 and max(triple) < 3 * min(triple) for triple in triples):
        found = extrapolate(slopes, bends, steps, noise, 2)
        return Difference(found.value, found.error + float(np.nanmax(per_step)) / 2)
    # phi may be small by cancellation: then its terms are about as large as its slope, as the step 1 is the tensor's size.
    terms = 4 * float(np.finfo(kind).eps) * float(np.nan_to_num(np.abs(slopes)).max())
    rounding = np.nan_to_num([*bends_below, *crooked, terms])
    return extrapolate(slopes, bends, steps, max(noise, float(rounding.max())), 2)


@dataclass
class Sides:
    """The derivatives from the left and from the right; a jump if phi is not continuous."""

    left: Difference
    right: Difference
    jump: bool

    @property
    def is_kink(self) -> bool:
        """Whether the sides differ by more than they may err."""
        gap = abs(self.right.value - self.left.value)
        return gap > 8 * (self.left.error + self.right.error) and gap > 1e-7 * (
            abs(self.left.value) + abs(self.right.value)
        )


def sides(phi: Line, *, noise: float, extended: bool = False) -> Sides:
    """Differentiate phi at 0 from either side."""
    values, here, steps, noise = ladder(phi, noise=noise, extended=extended)
    right = np.array([(values[h] - here) / h for h in steps], float)
    left = np.array([(here - values[-h]) / h for h in steps], float)
    smallest = steps[-1]
    gap = max(abs(float(values[smallest] - here)), abs(float(values[-smallest] - here)))
    wider = max(abs(float(values[steps[2]] - here)), abs(float(values[-steps[2]] - here)))
    # A continuous function has come nearer by now: the steps differ by a factor of 10^5 and more.
    jump = gap > 1e3 * noise and gap > 0.1 * wider
    straight = np.zeros(steps.size)
    return Sides(extrapolate(left, straight, steps, noise, 1), extrapolate(right, straight, steps, noise, 1), jump)


class Reference:
    """The right derivative of sum(dy * y) at a subject's point, along any direction of any of its leaves.

    Attributes
    ----------
    y0 : Array
        The output at the point.
    phi_noise : float
        The rounding noise of sum(dy * y).
    """

    def __init__(self, subject: Subject, dy: Array, rng: np.random.Generator) -> None:
        self.subject, self.dy, self.rng = subject, dy, rng
        self.small = sum(a.size for a in subject.point) <= 2000
        self._extended: dict[int, bool] = {}
        self.y0 = subject.y(subject.point)
        self.unit = _precision(self.y0) / 2
        self.phi_noise = _precision(self.y0) * float(np.abs(dy * self.y0).sum())

    def slope(self, k: int, t: Array, point: list[Array] | None = None) -> float:
        """Return the derivative along t by the complex step, here or at another point."""
        return float((self.dy * self.tangent(k, t, point)).sum())

    def slope_extended(self, k: int, t: Array) -> Any:
        """Return the derivative along t by the complex step in extended precision."""
        at: list[Array] = [a.astype(np.longdouble) for a in self.subject.point]
        at[k] = at[k] + 1j * H * t.astype(np.longdouble)
        y = self.subject.y(at)
        if y.dtype != np.clongdouble:
            raise ForeignError(TypeError("numbers of extended precision do not pass"))
        return (self.dy.astype(np.longdouble) * (y.imag / H)).sum()

    def tangent(self, k: int, t: Array, point: list[Array] | None = None) -> Array:
        """Return J t by the complex step: Im y(x + i H t) / H (docs/backprop.md, eq. 34)."""
        at = list(self.subject.point if point is None else point)
        at[k] = at[k] + 1j * H * t
        y = self.subject.y(at)
        if not np.iscomplexobj(y):
            raise ForeignError(TypeError("real numbers came out for complex ones"))
        out: Array = y.imag / H
        return out

    def line(self, k: int, t: Array, *, extended: bool = False) -> Line:
        """Return phi(s) = sum(dy * y) at the point moved by s t; NaN where that is out of the function's domain."""
        kind = np.longdouble if extended else np.float64
        base, step, dy = self.subject.point[k].astype(kind), t.astype(kind), self.dy.astype(kind)

        def phi(s: Any) -> Any:
            try:
                return (dy * self.subject.y(self.subject.moved(k, base + s * step))).sum()
            except ForeignError:
                return kind(np.nan)

        return phi

    def differences(self, k: int, t: Array) -> Difference:
        """Differentiate along t by differences, in extended precision where the code carries it."""
        scale = scale_of(self.subject.point[k], t)
        extended = self._is_extended(k)
        found = central(self.line(k, t * scale, extended=extended), noise=self.phi_noise, extended=extended)
        return Difference(found.value / scale, found.error / scale)

    def _is_extended(self, k: int) -> bool:
        """Tell whether extended precision goes in and comes out of the code, for small problems."""
        if k not in self._extended:
            try:
                y = self.subject.y(self.subject.moved(k, self.subject.point[k].astype(np.longdouble)))
                self._extended[k] = bool(EXTENDED and self.small and y.dtype == np.longdouble)
            except ForeignError:  # code that knows no long doubles
                self._extended[k] = False
        return self._extended[k]

    def is_stepped(self, k: int, t: Array, slope: float) -> bool:
        """Tell whether phi is constant near by, and rises about as this slope says farther off, as rounded values do."""
        phi, scale = self.line(k, t), scale_of(self.subject.point[k], t)
        rises = [float(phi(h * scale) - phi(-h * scale)) / (2 * h * scale) for h in (0.3, 0.1, 0.03, 0.01)]
        return any(0.3 < rise / slope < 3 for rise in rises if slope and np.isfinite(rise))

    def guard(self, k: int, nearby: list[Array]) -> tuple[str, float]:
        """Return why the complex step cannot be trusted for leaf k ("" if it can), and its relative noise."""
        leaf = self.subject.point[k]
        t = self.rng.normal(size=leaf.shape) * scale_of(leaf, None)
        try:
            y = self.subject.y(self.subject.moved(k, leaf + 1j * H * t))
        except ForeignError as refused:
            error = refused.error
            text = str(error).split("\n")[0][:90]
            return f"complex numbers do not pass: {type(error).__name__}{': ' + text if text else ''}", 0.0
        if not np.iscomplexobj(y):
            return "complex numbers do not pass: real ones come out", 0.0
        if not np.isfinite(y).all():
            return "complex numbers overflow where real ones do not", 0.0
        try:
            noise = float(np.abs(self.subject.y(nearby) - self.y0).max(initial=0.0))
            there = self.slope(k, t, nearby)
        except ForeignError:  # out of the domain
            noise, there = 0.0, np.nan
        size = np.abs(self.y0)
        nothing = np.where(
            size == 0, 1e-24, 0
        )  # a loss of exactly 0 is the square of a rounding error for complex numbers
        if (np.abs(y.real - self.y0) > 1e-8 * (size + rms(self.y0)) + 64 * noise + nothing).any():
            return "the code takes another path for complex numbers", 0.0
        if self._is_contradicted(k, t):
            return "differences contradict the complex step: abs, norm, var, std, conj or .real in the code?", 0.0
        along = y.imag / H
        total = float(np.abs(self.dy * along).sum()) or 1.0
        return "", abs(there - float((self.dy * along).sum())) / total if np.isfinite(there) else 0.0

    def _is_contradicted(self, k: int, t: Array) -> bool:
        """Tell whether phi(h) - phi(-h) is not the integral of the complex step's slopes, by the same amount for each h.

        The integral is right on both sides of a kink too; what changes with h is a kink on the way, or a wiggle.
        """
        phi, leaf = self.line(k, t), self.subject.point[k]
        gaps = []
        for h in (2e-3, 2.5e-4, 3e-5):
            ahead, behind = phi(h), phi(-h)
            slopes = np.zeros(4)
            for j, node in enumerate(_NODES):
                try:
                    slopes[j] = self.slope(k, t, self.subject.moved(k, leaf + h * node * t))
                except ForeignError:
                    return False
            mean, coarse = float(_SHARES @ slopes), float(slopes[1] + slopes[2]) / 2
            quotient = float(ahead - behind) / (2 * h)
            error = 8 * self.phi_noise / h + abs(mean - coarse) + 1e-11 * float(np.abs(slopes).max())
            if not abs(quotient - mean) > error or ahead == behind:
                return False
            gaps.append(quotient - mean)
        return max(gaps) - min(gaps) <= 0.3 * max(map(abs, gaps))

    def ends(self, k: int, t: Array, method: str) -> tuple[float, float] | None:
        """Return the least and the largest derivative along t around the point, if it lies on a kink; else None."""
        scale = scale_of(self.subject.point[k], t)
        if method != "complex step":
            both = sides(self.line(k, t * scale), noise=self.phi_noise)
            if both.jump or not both.is_kink:
                return None
            low = min(both.left.value - both.left.error, both.right.value - both.right.error) / scale
            high = max(both.left.value + both.left.error, both.right.value + both.right.error) / scale
            return low - 0.05 * (high - low), high + 0.05 * (high - low)  # the kink may be a little way off
        far, near = self._around(k, t, scale, 1e-9), self._around(k, t, scale, 1e-11)
        width = np.ptp(near) if near.size else 0.0
        if not near.size or width <= 1e-7 * np.abs(near).sum() / near.size or width < 0.3 * np.ptp(far):
            return None
        low, high = min(far.min(), near.min()), max(far.max(), near.max())
        # Where several kinks meet, not every combination of sides is among those that were looked at.
        spare = (high - low) / 2 if np.unique(np.round(near / (high - low), 6)).size > 2 else 0.0
        return float(low - spare), float(high + spare)

    def steps(self, distance: float) -> list[float]:
        """Return a small step for each leaf: a share of its size; of a leaf of zeros next to nothing, which crosses its kink.

        What zeros are added to may be of any size, as the first bias of a network with small weights.
        """
        return [distance * (scale_of(a, None) if a.any() else 1e-31) for a in self.subject.point]

    def _around(self, k: int, t: Array, scale: float, distance: float) -> Array:
        """Return the slopes along t close by: on either side along t, with each leaf shifted up and down, and at random."""
        point = self.subject.point
        steps = self.steps(distance)
        along = distance * scale if point[k].any() else steps[k]
        places = [self.subject.moved(k, point[k] + s * along * t) for s in (1, -1)]
        places += [
            self.subject.moved(j, a + s * step)
            for j, (a, step) in enumerate(zip(point, steps, strict=True))
            for s in (1, -1)
        ]
        places += [
            [a + step * self.rng.normal(size=a.shape) for a, step in zip(point, steps, strict=True)] for _ in range(8)
        ]
        slopes = []
        for place in places:
            try:
                slopes.append(self.slope(k, t, place))
            except ForeignError:  # out of the domain
                continue
        return np.array([slope for slope in slopes if np.isfinite(slope)])


_NODES = np.array([-0.861136311594052575, -0.339981043584856265, 0.339981043584856265, 0.861136311594052575])
_SHARES = np.array([0.173927422568726929, 0.326072577431273071, 0.326072577431273071, 0.173927422568726929])  # Gauss


def rms(a: Array) -> float:
    """Return the root of the mean square; 0 of nothing."""
    return float(np.sqrt((a * a).mean())) if a.size else 0.0


def scale_of(leaf: Array, t: Array | None) -> float:
    """Return the size of the elements that t moves, or of all: a small part of it is a small step."""
    everywhere = rms(leaf)
    moved = leaf if t is None else leaf[t != 0]
    scale = max(rms(np.asarray(moved)), 0.1 * everywhere)
    return scale if scale > 1e-100 else 1.0


def _precision(y: Array) -> float:
    """Return the relative precision that y was computed in, as its digits tell."""
    with np.errstate(over="ignore"):
        single = y.astype(np.float32)
        if y.dtype == np.float32 or ((single == y).all() and (single.astype(np.float16) != y).any()):
            return float(np.finfo(np.float32).eps)
    return EPS
