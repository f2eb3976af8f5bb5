"""The right derivative, by two ways that know nothing of anybody's backward.

The complex step is exact to rounding, where the code lets complex numbers through and does not lie about them; it is
guarded, and extrapolated central differences, which say how accurate they are, are its second opinion and its stand-in.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contract import Array

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
    n_forward: int = 0
    n_backward: int = 0

    def y(self, arrays: list[Array]) -> Array:
        """Evaluate the output, and count."""
        self.n_forward += 1
        return np.asarray(self.output(arrays))

    def vjp(self, arrays: list[Array], dy: Array) -> list[Array | None]:
        """Evaluate the claimed gradients, and count."""
        self.n_forward += 1
        self.n_backward += 1
        return self.pullback(arrays, dy)

    def moved(self, k: int, value: Array) -> list[Array]:
        """Return the point with leaf k replaced."""
        return [*self.point[:k], value, *self.point[k + 1 :]]


@contextmanager
def careful() -> Iterator[None]:
    """Let floating-point trouble pass, which is judged by its result, and make a discarded imaginary part an error."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def tangent(subject: Subject, k: int, t: Array) -> Array:
    """Return J t, the derivative of y when leaf k moves along t, by the complex step: Im y(x + i H t) / H."""
    y = subject.y(subject.moved(k, subject.point[k] + 1j * H * t))
    if not np.iscomplexobj(y):
        raise TypeError("real numbers came out for complex ones")
    out: Array = y.imag / H
    return out


@dataclass
class Difference:
    """A derivative by differences: its value, and the error it may have."""

    value: float
    error: float


def extrapolate(slopes: Array, steps: Array, noise: float, order: int) -> Difference:
    """Combine difference quotients D(h) = D + c h^order + ... over a ladder of steps, the largest first.

    The derivative is a limit for small h, so the smallest steps, however noisy, decide which others are believed: a kink
    or a wiggle between them and a larger step shows as a contradiction.
    """
    usable = np.isfinite(slopes)  # a large step may leave the function's domain
    if usable.sum() < 3:
        return Difference(float(slopes[-1]), np.inf)
    slopes, steps = slopes[usable], steps[usable]
    gain = RATIO**order
    noises = 4 * noise / steps
    refined = (gain * slopes[1:] - slopes[:-1]) / (gain - 1)
    best = Difference(float(slopes[-1]), float(noises[-1]) + abs(float(slopes[-1] - slopes[-2])))
    low, high = -np.inf, np.inf
    for j in range(len(refined) - 1, -1, -1):  # from the smallest steps up
        spread = abs(refined[j] - (refined[j + 1] if j + 1 < len(refined) else slopes[-1]))
        error = float(spread + 2 * noises[j + 1])
        value = float(refined[j])
        if not np.isfinite(value):
            break
        if value + error < low or value - error > high:
            break  # contradicts a smaller step
        if error < best.error:
            best = Difference(value, error)
        low, high = max(low, value - error - noises[j + 1]), min(high, value + error + noises[j + 1])
    return best


def _noise(values: dict[float, Any], here: Any, eps: float) -> float:
    """Estimate the rounding noise of phi: from its size, and from its second differences, if they don't grow with the step.

    They do at a kink; where the code drops digits they are as large at the smallest steps as at others.
    """
    sizes = [abs(float(v)) for v in values.values() if np.isfinite(v)]
    second = [abs(float(values[h] + values[-h] - 2 * here)) for h in sorted({abs(h) for h in values})[:4]]
    flat = np.isfinite(second).all() and max(second) <= 30 * min(second)
    return max(float(np.median(second)) if flat else 0.0, eps * max(sizes, default=0.0))


def ladder(phi: Callable[[Any], Any], *, extended: bool, eps: float) -> tuple[dict[float, Any], Any, Array, float]:
    """Evaluate phi, which is computed to a relative eps, at 0 and at both sides over the ladder of steps."""
    steps = LONG_STEPS if extended else STEPS
    eps = float(np.finfo(np.longdouble).eps) if extended else eps
    kind = np.longdouble if extended else np.float64
    here = phi(kind(0))
    values = {s * h: phi(kind(s * h)) for h in steps for s in (1, -1)}
    return values, here, steps, _noise(values, here, eps)


def central(phi: Callable[[Any], Any], *, extended: bool = False, eps: float = EPS) -> Difference:
    """Differentiate phi at 0 by central differences, extrapolated: D(h) = (phi(h) - phi(-h)) / 2h."""
    values, _, steps, noise = ladder(phi, extended=extended, eps=eps)
    slopes = np.array([(values[h] - values[-h]) / (2 * h) for h in steps], float)
    return extrapolate(slopes, steps, noise, 2)


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

    def holds(self, slope: float) -> bool:
        """Whether this slope lies between the two."""
        low = min(self.left.value - self.left.error, self.right.value - self.right.error)
        high = max(self.left.value + self.left.error, self.right.value + self.right.error)
        slack = 1e-7 * (high - low)
        return low - slack <= slope <= high + slack


def sides(phi: Callable[[Any], Any], *, extended: bool = False, eps: float = EPS) -> Sides:
    """Differentiate phi at 0 from either side."""
    values, here, steps, noise = ladder(phi, extended=extended, eps=eps)
    right = np.array([(values[h] - here) / h for h in steps], float)
    left = np.array([(here - values[-h]) / h for h in steps], float)
    smallest = steps[-1]
    gap = max(abs(float(values[smallest] - here)), abs(float(values[-smallest] - here)))
    wider = max(abs(float(values[steps[2]] - here)), abs(float(values[-steps[2]] - here)))
    # A continuous function has come nearer by now: the steps differ by a factor of 10^5 and more.
    jump = gap > 1e3 * noise and gap > 0.1 * wider
    return Sides(extrapolate(left, steps, noise, 1), extrapolate(right, steps, noise, 1), jump)
