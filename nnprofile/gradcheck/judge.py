"""Compare a claimed gradient with the right one, and tell an error from rounding, from a kink, and from a lying reference.

The tolerance is not a magic number: it is the rounding noise of this gradient at this point, measured by evaluating it
again at points that differ in the last bit (Monte Carlo arithmetic), times 64.

References
----------
Parker (1997), "Monte Carlo arithmetic"; Vignes (1993), "A stochastic arithmetic for reliable scientific computation".
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import pi, sqrt

import numpy as np

from ..contract import Array
from .foreign import ForeignError
from .reference import EXTENDED, Reference, Subject, rms
from .report import KAPPA, Row, Worst

U = 2.0**-53
N_RUNS = 8  # evaluations that the noise is measured by
N_DIRECTIONS = 8
SECONDS = 0.5  # that may be spent on what is off in any case
MISSED = 1e-3  # the probability of missing an error of the certificate's size
FULL = 2000  # up to so many elements in all, each is checked by itself
SMALL = 64  # and in any case those of a tensor of this size
# P(|N(0, e^2)| <= tau) <= 2 tau / (sqrt(2 pi) e), to the power of the number of directions
CERTIFICATE = 2 / sqrt(2 * pi) / MISSED ** (1 / N_DIRECTIONS)
FLOOR = 1e-270  # below it the imaginary part of a complex step is denormal


@dataclass
class Verdict:
    """One tensor's gradient, claimed and right, with what the diagnosis looks at.

    Attributes
    ----------
    value, yours : Array
        The tensor, and the gradient claimed for it.
    where : Array of int
        The flat indices of the elements whose right gradient is known: all, or a sample.
    right, tolerance : Array
        The right gradient there, and 64 times its noise.
    jacobian : Array, shape (n_elements, *y.shape), or None
        d y / d tensor, if it is known.
    found : Array of int
        Flat indices of wrong elements that were searched for, not sampled.
    wrong : Array of int
        Flat indices of the elements that are known to be wrong.
    unexplained : float
        The share of the error that the diagnosis leaves, NaN if it states a fact and computes no gradient.
    """

    k: int
    row: Row
    value: Array
    yours: Array
    where: Array = field(default_factory=lambda: np.zeros(0, int))
    right: Array = field(default_factory=lambda: np.zeros(0))
    tolerance: Array = field(default_factory=lambda: np.zeros(0))
    unexplained: float = np.nan
    errors: Array = field(default_factory=lambda: np.zeros(0))  # of the reference
    jacobian: Array | None = None
    found: Array = field(default_factory=lambda: np.zeros(0, int))
    wrong: Array = field(default_factory=lambda: np.zeros(0, int))

    @property
    def is_full(self) -> bool:
        """Whether the right gradient is known everywhere."""
        return self.where.size == self.value.size


class Judge:
    """Judge the gradients of sum(dy * y) for one subject, at its point."""

    def __init__(
        self, subject: Subject, dy: Array, rng: np.random.Generator, *, full: int = FULL, longest: int = 0
    ) -> None:
        self.subject, self.dy, self.rng, self.full = subject, dy, rng, full
        self.size = sum(a.size for a in subject.point)
        self.longest = max([dy.size, *(a.size for a in subject.point), longest])
        self.reference = Reference(subject, dy, rng)
        self.y0 = self.reference.y0
        self.yours = subject.vjp(subject.point, dy)
        self.nearby: list[list[Array]] = []
        self.moves = self._noise([self._run(j) for j in range(N_RUNS)])
        self._sizes: list[float] | None = None
        self._extended: list[Array | None] | None = None
        self.extra, self.extra_seconds = 0, 0.0  # evaluations and time spent on what is off

    @property
    def is_dear(self) -> bool:
        """Whether what is off has taken more than twice the evaluations of the rest, and half a second."""
        return self.extra > 2 * (self.subject.n - self.extra) and self.extra_seconds > SECONDS

    @contextmanager
    def _on_what_is_off(self) -> Iterator[None]:
        """Count the evaluations of a block as spent on what is off."""
        n, start = self.subject.n, time.perf_counter()
        try:
            yield
        finally:
            self.extra += self.subject.n - n
            self.extra_seconds += time.perf_counter() - start

    # -- rounding noise

    def _run(self, j: int) -> list[Array | None]:
        """Return the claimed gradients where each number differs by a unit in its last place or so."""
        point, vector = self.subject.point, self.dy.size > 1
        dy = self.dy * (1 + 2 * U * self.rng.choice((-1.0, 1.0), self.dy.shape)) if vector else self.dy
        if vector and j < 2:  # the first two shake the cotangent only, which moves no unit across its kink
            return self.subject.vjp(point, dy)
        shaken = [a * (1 + 2 * U * self.rng.choice((-1.0, 1.0), a.shape)) for a in point]
        inwards = [a * (1 - 2 * U * self.rng.integers(0, 2, a.shape)) for a in point]
        for place in (shaken, inwards):  # at the edge of a domain, such as p = 1, only inwards
            try:
                grads = self.subject.vjp(place, dy)
            except ForeignError:
                continue
            self.nearby.append(place)
            return grads
        self.nearby.append(point)
        return self.subject.vjp(point, dy)

    def _noise(self, runs: list[list[Array | None]]) -> list[list[Array]]:
        """Return, for each leaf, how far its gradient moved in each run that crossed no kink."""
        out: list[list[Array]] = []
        for k, g in enumerate(self.yours):
            moves = [there - g for grads in runs if g is not None and (there := grads[k]) is not None]
            if moves and g is not None:
                sizes = [rms(move) for move in moves]
                limit = max(1e6 * min(sizes), 1e-7 * rms(g))
                if min(sizes) > 1e-5 * rms(g):  # all of them crossed one: the point itself is a tie
                    limit = 0.0
                moves = [move for move, size in zip(moves, sizes, strict=True) if size <= limit]
            out.append(moves)
        return out

    def _element_noise(self, k: int) -> Array:
        yours = self.yours[k]
        assert yours is not None
        moved = np.nan_to_num(np.max(np.abs(self.moves[k]), axis=0)) if self.moves[k] else np.zeros_like(yours)
        unit = self.reference.unit
        size = np.abs(yours) + (rms(yours) if unit > U else 0.0)  # code in single precision rounds its terms
        noise: Array = np.maximum(moved, rms(moved)) + unit * max(2.0, self.longest / 64) * size + FLOOR
        # Where all derivatives up to the second are 0, a complex step of 1e-30 finds 1e-60 times the third.
        noise += np.where(yours == 0, 1e-50 * np.abs(self.dy).max(initial=0.0), 0.0)
        return np.where(np.isfinite(noise), noise, FLOOR)

    def size_at_smaller(self, k: int) -> float:
        """Return the size that this gradient has at smaller arguments, where nothing is saturated.

        Where it is many orders below that, code that is right has lost it to cancellation: 1 - a, with a = 1.
        """
        if self._sizes is None:
            sizes = [np.zeros(1) for _ in self.yours]
            here = float(np.abs(self.dy * self.y0).sum() + np.abs(self.dy).sum())
            for factor in (0.1, 0.01):
                try:
                    point = [factor * a for a in self.subject.point]
                    y, grads = self.subject.y(point), self.subject.vjp(point, self.dy)
                except ForeignError:  # not defined there
                    continue
                if np.isfinite(y).all() and float(np.abs(self.dy * y).sum()) <= 1e3 * here:
                    sizes = [
                        s if g is None else np.append(s, np.abs(g).max(initial=0))
                        for s, g in zip(sizes, grads, strict=True)
                    ]
            self._sizes = [float(s[np.isfinite(s)].max(initial=0.0)) for s in sizes]
        return self._sizes[k]

    def terms(self, k: int) -> float:
        """Return about how large the terms are whose sum this gradient is: its size where they do not cancel.

        Every leaf is moved by a third to ten times its size; where it is small beside 1, as if that were its size.
        """
        size = 0.0
        for share in (0.3, 0.3, 1.0, 3.0, 10.0, 10.0):
            point = [a + share * max(rms(a), 1.0) * self.rng.normal(size=a.shape) for a in self.subject.point]
            try:
                grad = self.subject.vjp(point, self.dy)[k]
            except ForeignError:  # not defined there
                continue
            if grad is not None and np.isfinite(grad).all():
                size = max(size, float(np.abs(grad).max(initial=0.0)))
        return size

    def _cancellation_noise(self, k: int, i: int, *, is_zero: bool) -> float:
        """Return what code that is right may lose to cancellation, which no shaking of the last bits shows.

        It is a rounding error of the gradient as it is elsewhere (1 - a, with a = 1), or of y, over the size of the tensor
        (p - t, where they are nearly equal); and where one of the two is 0 everywhere, rounding in the other.
        """
        leaf, yours = self.subject.point[k], self.yours[k]
        size = max(abs(float(leaf.flat[i])), 1e-3 * float(np.abs(leaf).max()))
        terms = float(np.abs(self.dy * self.y0).max(initial=0.0))
        zero = 0.0
        if yours is not None and (not yours.any() or is_zero):
            zero = float(np.linalg.norm(self.dy)) * self.longest
        return 8 * U * max(self.size_at_smaller(k), terms / size if size else 0.0, zero)

    def extended(self, k: int) -> Array | None:
        """Return leaf k's claimed gradient in extended precision; None where the code does not carry it."""
        if self._extended is None:
            self._extended = [None] * len(self.yours)
            if EXTENDED:
                longer = [a.astype(np.longdouble) for a in self.subject.point]
                with suppress(ForeignError):  # of code that knows no long doubles
                    self._extended = self.subject.vjp(longer, self.dy.astype(np.longdouble))
        found = self._extended[k]
        return found if found is not None and found.dtype == np.longdouble and np.isfinite(found).all() else None

    def rounding(self, k: int, t: Array, right: float, gap: float, method: str) -> float:
        """Return what rounding has done to the claimed derivative along t and to the right one; NaN if it can't be told.

        Both are computed again with more digits. What is left of their gap then is no rounding: if that is most of it, 0.
        """
        longer = self.extended(k)
        if longer is None:
            return np.nan
        yours, mine = self.yours[k], (longer * t).sum()
        assert yours is not None
        try:
            exact = self.reference.slope_extended(k, t) if method == "complex step" else np.longdouble(right)
        except ForeignError:  # complex numbers of extended precision do not pass
            return np.nan
        left = float(abs(mine - exact))
        noise = float(abs((yours * t).sum() - mine) + abs(right - exact))
        if left <= noise / 2:
            return noise
        return 0.0 if left <= 2 * gap else np.nan  # the code does something else in extended precision

    def _gap_variation(self, k: int, t: Array, method: str) -> float:
        """Measure how far claimed minus right varies near by, where nothing is computed with more digits.

        Between points at a distance d an error varies with d, and rounding does not: it is the same at each d, or suddenly
        there, where d is no longer lost in the last digit. A leaf that is 0 moves like the smallest other one.
        """
        if method != "complex step":
            return 0.0
        scales = [rms(a) for a in self.subject.point]
        unit = min((scale for scale in scales if scale > 1e-100), default=1.0)
        noise = before = self._varies(k, t, self.nearby[:4])
        for distance in (1e-9, 1e-7, 1e-5, 1e-3):
            steps = [distance * (scale if scale > 1e-100 else unit) for scale in scales]
            points = [
                [a + step * self.rng.normal(size=a.shape) for a, step in zip(self.subject.point, steps, strict=True)]
                for _ in range(4)
            ]
            here = self._varies(k, t, points)
            if here <= 20 * before or here > 2000 * before:
                noise = max(noise, here)
            before = here
        return noise

    def _varies(self, k: int, t: Array, points: list[list[Array]]) -> float:
        gaps = []
        for point in points:
            try:
                grads = self.subject.vjp(point, self.dy)[k]
                if grads is not None:
                    gaps.append(float((grads * t).sum()) - self.reference.slope(k, t, point))
            except ForeignError:  # out of the domain
                continue
        return max(gaps) - min(gaps) if len(gaps) > 1 else 0.0

    # -- verdicts

    def all(self) -> list[Verdict]:
        """Judge all gradients that are claimed."""
        return [self.leaf(k, yours) for k, yours in enumerate(self.yours) if yours is not None]

    def leaf(self, k: int, yours: Array) -> Verdict:
        """Judge one leaf's gradient."""
        value = self.subject.point[k]
        reason, noise = self.reference.guard(k, self.nearby[-1]) if value.size else ("", 0.0)
        method = "differences" if reason else "complex step"
        row = Row(self.subject.names[k], value.shape, method, reason, accuracy=max(noise, 2 * U))
        verdict = Verdict(k, row, value, yours)
        full = self.full if method == "complex step" else self.full // 4
        if self.size <= full or value.size <= SMALL:
            self._elements(verdict)
        else:
            self._directions(verdict)
        return verdict

    def right(self, verdict: Verdict, where: Array, *, keep: bool = False) -> tuple[Array, Array]:
        """Return the right gradient of these elements, and the error of the reference."""
        k, shape = verdict.k, verdict.value.shape
        right, errors, columns = np.zeros(where.size), np.zeros(where.size), []
        for j, i in enumerate(where):
            t = _unit(shape, i)
            if verdict.row.method == "complex step":
                column = self.reference.tangent(k, t)
                right[j] = (self.dy * column).sum()
                if keep:
                    columns.append(column)
            else:
                found = self.reference.differences(k, t)
                right[j], errors[j] = found.value, found.error
        if columns:
            verdict.jacobian = np.array(columns)
        return right, errors

    def _elements(self, verdict: Verdict) -> None:
        """Compare each element."""
        n, row = verdict.value.size, verdict.row
        verdict.where = np.arange(n)
        verdict.right, errors = self.right(verdict, verdict.where, keep=n * self.dy.size <= 4_000_000)
        noise = self._element_noise(verdict.k).ravel()
        if verdict.jacobian is not None and self.dy.ndim:  # the terms of the sum, and how long it is
            terms = np.abs(verdict.jacobian * self.dy).reshape(n, -1)
            noise = np.maximum(noise, U * max(1.0, self.dy.size / 2048) * terms.sum(axis=1))
        verdict.tolerance, verdict.errors = KAPPA * noise + 16 * errors, errors
        row.checked = f"all {n} elements" if n != 1 else "the element"
        self._decide(verdict)
        row.certificate = _relative(_norm(verdict.tolerance), _norm(verdict.right))

    def _directions(self, verdict: Verdict) -> None:
        """Compare the projections on random directions; search for the elements if one is off."""
        row, g = verdict.row, verdict.yours
        row.checked = f"{N_DIRECTIONS} directions"
        directions = [self.rng.normal(size=verdict.value.shape) for _ in range(N_DIRECTIONS)]
        gaps, noises, tolerances = self.compare(verdict, directions)
        worst = int(np.argmax(gaps / tolerances))
        row.noise_ratio = float(gaps[worst] / noises[worst])
        row.error = _relative(float(gaps.max()), _norm(g))
        row.certificate = _relative(CERTIFICATE * float(tolerances.max()), _norm(g))
        if (gaps <= tolerances).all():
            row.verdict = "unclear" if row.method != "complex step" and row.accuracy > 1e-3 else "right"
            return
        kept = self.subject.point, self.yours, self._extended
        self._extended = None
        self.subject.point = [
            a + step * self.rng.normal(size=a.shape)
            for a, step in zip(kept[0], self.reference.steps(1e-8), strict=True)
        ]
        try:
            self.yours = self.subject.vjp(self.subject.point, self.dy)
            verdict.yours = self.yours[verdict.k]  # type: ignore[assignment]
            apart = [self._gap(verdict, t) for t in directions]
            if any(gap > max(tolerance, KAPPA * noise) for gap, noise, tolerance, _ in apart):
                self._search(verdict)  # where no kink is
                return
        finally:
            self.subject.point, self.yours, self._extended = kept
        # Right beside the point, so the point lies on kinks: is what is claimed there between the sides?
        verdict.yours = g
        ends = self.reference.ends(verdict.k, directions[worst], row.method)
        mine = float((g * directions[worst]).sum())
        width = ends[1] - ends[0] if ends else 0.0
        if ends and ends[0] - width <= mine <= ends[1] + width:
            row.verdict = "subgradient"
        else:
            self._search(verdict)

    def compare(self, verdict: Verdict, directions: list[Array]) -> tuple[Array, Array, Array]:
        """Return, for each direction, how far off the gradient is, its noise, and the tolerance."""
        gaps, noises, tolerances, rights = np.array([self._gap(verdict, t) for t in directions]).T
        for j in np.flatnonzero(gaps > tolerances / 8):
            t, method = directions[j], verdict.row.method
            noise = self.rounding(verdict.k, t, rights[j], gaps[j], method)
            if np.isnan(noise) and gaps[j] > tolerances[j]:
                noise = self._gap_variation(verdict.k, t, method)
            noises[j] = np.nanmax([noises[j], noise])
            tolerances[j] = max(tolerances[j], KAPPA * noises[j])
        return gaps, noises, tolerances

    def _search(self, verdict: Verdict) -> None:
        """Find wrong elements, and look at a sample of the others."""
        with self._on_what_is_off():
            verdict.found = self._bisect(verdict)
        n_sampled = min(8 if self.is_dear else 32, verdict.value.size)
        sample = self.rng.choice(verdict.value.size, n_sampled, replace=False)
        verdict.where = np.unique(np.concatenate([verdict.found, sample])).astype(int)
        with self._on_what_is_off():
            verdict.right, errors = self.right(verdict, verdict.where)
        verdict.tolerance = KAPPA * self._element_noise(verdict.k).ravel()[verdict.where] + 16 * errors
        verdict.errors = errors
        self._decide(verdict)
        verdict.row.verdict = "wrong"  # the directions show it, whether the sample does or not

    def _gap(self, verdict: Verdict, t: Array) -> tuple[float, float, float, float]:
        """Return |<yours, t> - right|, its noise, its tolerance, and the right one."""
        k, g, moves = verdict.k, verdict.yours, self.moves[verdict.k]
        if verdict.row.method == "complex step":
            right, error = self.reference.slope(k, t), 0.0
        else:
            found = self.reference.differences(k, t)
            right, error = found.value, found.error
            verdict.row.accuracy = max(verdict.row.accuracy, _relative(error, _norm(g)))
        gap = abs(float((g * t).sum()) - right)
        moved = max((abs(float((move * t).sum())) for move in moves), default=0.0)
        spread = max((_norm(move) for move in moves), default=0.0)
        noise = max(moved, spread) + 2 * self.reference.unit * _norm(g * t) + FLOOR
        return (gap if np.isfinite(gap) else np.inf), noise, KAPPA * noise + 16 * error, right

    def _bisect(self, verdict: Verdict, n_found: int = 4) -> Array:
        """Find wrong elements: halve the tensor, and go on with the half whose error is larger."""
        found: list[int] = []
        for _ in range(n_found):
            if found and self.is_dear:
                break
            indices = np.setdiff1d(np.arange(verdict.value.size), np.array(found, int))
            while indices.size > 1:
                halves = np.array_split(indices, 2)
                gaps = []
                for half in halves:
                    t = np.zeros(verdict.value.size)
                    t[half] = self.rng.normal(size=half.size)
                    gap, _, tolerance, _ = self._gap(verdict, t.reshape(verdict.value.shape))
                    gaps.append(gap if gap > tolerance else 0.0)
                if not any(gaps):
                    break
                indices = halves[int(np.argmax(gaps))]
            if indices.size != 1:
                break
            found.append(int(indices[0]))
        return np.array(found, int)

    def _decide(self, verdict: Verdict) -> None:
        """Fill in the row from the elements that are known; look at each that is off, before it is called wrong."""
        row, right, tolerance = verdict.row, verdict.right, verdict.tolerance
        yours = verdict.yours.ravel()[verdict.where]
        if not yours.size:
            return
        finite = np.isfinite(yours)
        if not np.isfinite(right[finite]).all():
            row.verdict = "unclear"
            return
        gap = np.where(finite, np.abs(yours - right), np.inf)
        gap[~finite & ~np.isfinite(right)] = 0
        size = float(np.abs(right[np.isfinite(right)]).max(initial=0.0))
        # A kink may be why the error is large; and what is near the limit is looked at too, so that the limit is never near.
        off = np.flatnonzero((gap > tolerance / 8) | (verdict.errors > 1e-5 * size))
        off = off[np.argsort(-(gap[off] / tolerance[off]))]
        wrong: list[int] = []
        kinks = 0
        for n, j in enumerate(off):
            if (n >= 3 and len(wrong) == n) or (
                wrong and self.is_dear
            ):  # the worst cannot be explained, so the others are not looked at
                wrong += [int(i) for i in off[n:]]
                break
            with self._on_what_is_off():
                why = self._explain_gap(verdict, int(j), float(yours[j]), float(gap[j]), tolerance) if finite[j] else ""
            if why == "kink":
                kinks += 1
                verdict.errors[j] = 0.0
            if not why and gap[j] > tolerance[j]:
                with self._on_what_is_off():
                    lies = (
                        len(wrong) < 3
                        and row.method == "complex step"
                        and finite[j]
                        and self._reference_is_contradicted(verdict, int(j))
                    )
                if lies:
                    self._again_by_differences(verdict)
                    return
                wrong.append(int(j))
        if verdict.errors.any():
            row.accuracy = _relative(_norm(verdict.errors), _norm(right))
        row.error = _relative(float(gap[np.isfinite(gap)].max(initial=0.0)), size) if finite.all() else np.inf
        row.noise_ratio = float((gap / (tolerance / KAPPA)).max())
        verdict.wrong = verdict.where[wrong]
        row.verdict = "wrong" if wrong else "subgradient" if kinks else "right"
        if row.verdict == "right" and row.method != "complex step" and not row.accuracy <= 1e-3:
            row.verdict = "unclear"
        row.worst = [
            Worst(
                tuple(int(i) for i in np.unravel_index(verdict.where[j], verdict.value.shape)),
                float(yours[j]),
                float(right[j]),
            )
            for j in wrong[:3]
        ]

    def _explain_gap(self, verdict: Verdict, j: int, yours: float, gap: float, tolerance: Array) -> str:
        """Return why an element that is off may be right: "noise" (then its tolerance is raised) or "kink"; else ""."""
        k, i, method = verdict.k, int(verdict.where[j]), verdict.row.method
        t = _unit(verdict.value.shape, i)
        noise = KAPPA * self.rounding(k, t, float(verdict.right[j]), gap, method)
        if np.isnan(noise):
            noise = self._cancellation_noise(k, i, is_zero=not verdict.right.any())
            size = max(abs(float(verdict.right[j])), abs(yours))
            if gap > noise and (
                gap < 1e-3 * size or size < 1e-8 * float(np.abs(self.dy).max())
            ):  # else it is no rounding
                noise = max(noise, KAPPA * self._gap_variation(k, t, method))
        if gap <= noise:
            tolerance[j] = max(tolerance[j], noise)
            return "noise"
        if gap <= tolerance[j] and method == "complex step":
            return ""
        if method != "complex step" and verdict.right[j] == 0 and self.reference.is_stepped(k, t, yours):
            verdict.errors[j] = np.inf  # too coarse for the small steps
            tolerance[j] = np.inf
            return "noise"
        ends = self.reference.ends(k, t, method)
        if ends is not None:
            slack = 1e-7 * max(abs(ends[0]), abs(ends[1])) + KAPPA * float(self._element_noise(k).flat[i])
            if ends[0] - slack <= yours <= ends[1] + slack:
                return "kink"
            tolerance[j] = slack  # the sides are known, whatever the reference makes of the kink
            verdict.errors[j] = 0.0
        return ""

    def _reference_is_contradicted(self, verdict: Verdict, j: int) -> bool:
        """Tell whether differences side with the claimed gradient against the complex step."""
        second = self.reference.differences(verdict.k, _unit(verdict.value.shape, int(verdict.where[j])))
        yours, right = verdict.yours.ravel()[verdict.where[j]], verdict.right[j]
        return bool(abs(second.value - yours) <= 4 * second.error < 0.25 * abs(second.value - right))

    def _again_by_differences(self, verdict: Verdict) -> None:
        row = verdict.row
        row.method, row.reason = "differences", "differences contradict the complex step: abs, norm, var or conj?"
        verdict.jacobian = None
        verdict.right, errors = self.right(verdict, verdict.where)
        verdict.tolerance = KAPPA * self._element_noise(verdict.k).ravel()[verdict.where] + 16 * errors
        verdict.errors = errors
        self._decide(verdict)


def _unit(shape: tuple[int, ...], i: int) -> Array:
    t = np.zeros(shape)
    t.reshape(-1)[i] = 1
    return t


def _norm(a: Array) -> float:
    return float(np.linalg.norm(a))


def _relative(a: float, size: float) -> float:
    return a / size if size else a
