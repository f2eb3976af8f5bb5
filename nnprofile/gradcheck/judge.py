"""Compare a claimed gradient with the right one, and tell an error from rounding, from a kink, and from a lying reference.

The tolerance is not a magic number: it is the rounding noise of this gradient at this point, measured by evaluating it
again at points that differ in the last bit (Monte Carlo arithmetic), times 64.

References
----------
Parker (1997), "Monte Carlo arithmetic"; Vignes (1993), "A stochastic arithmetic for reliable scientific computation".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import pi, sqrt

import numpy as np

from ..contract import Array
from .reference import EPS, EXTENDED, STEPS, Difference, Subject, central, sides
from .reference import tangent as complex_tangent
from .report import KAPPA, Row, Worst

U = 2.0**-53
N_RUNS = 8  # evaluations that the noise is measured by
N_DIRECTIONS = 8
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
    wrong : Array of int
        Flat indices of the elements that are wrong.
    """

    k: int
    row: Row
    value: Array
    yours: Array
    where: Array = field(default_factory=lambda: np.zeros(0, int))
    right: Array = field(default_factory=lambda: np.zeros(0))
    tolerance: Array = field(default_factory=lambda: np.zeros(0))
    jacobian: Array | None = None
    wrong: Array = field(default_factory=lambda: np.zeros(0, int))

    @property
    def is_full(self) -> bool:
        """Whether the right gradient is known everywhere."""
        return self.where.size == self.value.size


class Judge:
    """Judge the gradients of sum(dy * y) for one subject, at its point."""

    def __init__(self, subject: Subject, dy: Array, rng: np.random.Generator, *, full: int = FULL) -> None:
        self.subject, self.dy, self.rng = subject, dy, rng
        self.size = sum(a.size for a in subject.point)
        self.full = full
        self.y0 = subject.y(subject.point)
        self.yours = subject.vjp(subject.point, dy)
        self.eps = _precision(self.y0)
        self.nearby = [self._shaken() for _ in range(N_RUNS)]
        self.runs = [self._run(j) for j in range(N_RUNS)]
        self.noise_runs = self._noise()
        del self.runs
        self._sizes: list[float] | None = None

    def _shaken(self) -> list[Array]:
        """Return the point with each number changed by a unit in its last place or so."""
        return [a * (1 + 2 * U * self.rng.choice((-1.0, 1.0), a.shape)) for a in self.subject.point]

    def _run(self, j: int) -> list[Array | None]:
        """Return the claimed gradients at the point shaken for the j-th time, within the domain of the code."""
        vector = self.dy.size > 1
        dy = self.dy * (1 + 2 * U * self.rng.choice((-1.0, 1.0), self.dy.shape)) if vector else self.dy
        if vector and j < 2:  # the first two shake the cotangent only, which moves no unit across its kink
            return self.subject.vjp(self.subject.point, dy)
        shrunk = [a * (1 - 2 * U * self.rng.integers(0, 2, a.shape)) for a in self.subject.point]
        for point in (self.nearby[j], shrunk):  # at the edge of a domain, such as p = 1, only inwards
            try:
                self.nearby[j] = point
                return self.subject.vjp(point, dy)
            except Exception:
                continue
        self.nearby[j] = self.subject.point
        return self.subject.vjp(self.subject.point, dy)

    def _noise(self) -> list[list[Array]]:
        """Return, for each leaf, how far its gradient moved in each run that crossed no kink."""
        out: list[list[Array]] = [[] for _ in self.yours]
        for grads in self.runs:
            for k, (g, there) in enumerate(zip(self.yours, grads, strict=True)):
                if g is not None and there is not None:
                    out[k].append(there - g)
        for k, moves in enumerate(out):
            g = self.yours[k]
            if moves and g is not None:
                sizes = [_rms(move) for move in moves]
                limit = 1e6 * max(min(sizes), 4 * U * _rms(g))
                out[k] = [move for move, size in zip(moves, sizes, strict=True) if size <= limit]
        return out

    def phi(self, y: Array) -> object:
        """Return sum(dy * y)."""
        return (self.dy * y).sum()

    # -- the right derivative along t, by whichever method serves this leaf

    def _derivative(self, k: int, t: Array, point: list[Array] | None = None) -> float:
        at = self.subject if point is None else _at(self.subject, point)
        out = float((self.dy * complex_tangent(at, k, t)).sum())
        if at is not self.subject:
            self.subject.n_forward += at.n_forward
        return out

    def _line(self, k: int, t: Array, *, extended: bool):  # type: ignore[no-untyped-def]
        kind = np.longdouble if extended else np.float64
        base, step, dy = self.subject.point[k].astype(kind), t.astype(kind), self.dy.astype(kind)

        def phi(s: object) -> object:
            try:
                return (dy * self.subject.y(self.subject.moved(k, base + s * step))).sum()  # type: ignore[operator]
            except Exception:  # a step out of the function's domain
                return kind(np.nan)

        return phi

    def _by_differences(self, k: int, t: Array) -> Difference:
        """Differentiate along t by differences, in extended precision where the code carries it."""
        scale = _scale(self.subject.point[k], t)
        plain = _scaled(central(self._line(k, t * scale, extended=False), eps=self.eps), scale)
        if EXTENDED and self.size <= FULL:
            try:
                fine = _scaled(central(self._line(k, t * scale, extended=True), extended=True), scale)
            except Exception:  # code that knows no long doubles
                return plain
            if fine.error < plain.error and abs(fine.value - plain.value) <= 4 * (fine.error + plain.error):
                return fine
        return plain

    def _guard(self, k: int) -> tuple[str, float]:
        """Return why the complex step cannot be used for leaf k ("" if it can), and its relative noise."""
        leaf = self.subject.point[k]
        t = self.rng.normal(size=leaf.shape) * _scale(leaf, None)
        try:
            y = self.subject.y(self.subject.moved(k, leaf + 1j * 1e-30 * t))
        except Exception as error:
            return f"complex numbers do not pass: {_short(error)}", 0.0
        if not np.iscomplexobj(y):
            return "complex numbers do not pass: real ones come out", 0.0
        slope = y.imag / 1e-30
        if not np.isfinite(y).all():
            return "complex numbers overflow where real ones do not", 0.0
        try:
            noise = max(float(np.abs(self.subject.y(p) - self.y0).max(initial=0.0)) for p in self.nearby[2:4])
        except Exception:
            noise = 0.0
        off = np.abs(y.real - self.y0)
        if (off > 1e-8 * (np.abs(self.y0) + _rms(self.y0)) + 64 * noise).any():
            return "the code takes another path for complex numbers", 0.0
        mine = float((self.dy * slope).sum())
        there = self._derivative(k, t, self.nearby[-1])
        check = central(self._line(k, t, extended=False), eps=self.eps)
        if abs(mine - check.value) > 8 * check.error + 1e-9 * abs(mine):
            # At a kink nearer than the smallest difference, that difference is a mean of the slopes around it.
            far = STEPS[-1] * np.array([0, 1, 0.3, 1e-2, 1e-4, 1e-6])
            slopes = [self._derivative(k, t, self.subject.moved(k, leaf + s * t)) for s in np.concatenate([far, -far])]
            slack = 8 * check.error + 1e-9 * abs(mine)
            if not min(slopes) - slack <= check.value <= max(slopes) + slack:
                return "the complex step and differences disagree: abs, norm, var, std or conj in the code?", 0.0
        size = float(np.abs(self.dy * slope).sum()) or 1.0
        return "", abs(there - mine) / size

    def _sides_of(self, k: int, t: Array, method: str) -> tuple[float, float] | None:
        """Return the least and the largest one-sided derivative along t if there is a kink at the point, else None."""
        scale = _scale(self.subject.point[k], t)
        if method == "complex step":
            gaps = []
            for distance in (1e-10, 1e-12):
                pair = [
                    self._derivative(k, t, self.subject.moved(k, self.subject.point[k] + s * distance * scale * t))
                    for s in (1, -1)
                ]
                gaps.append((max(pair) - min(pair), min(pair), max(pair)))
            (near, low, high), (nearer, low2, high2) = gaps
            if nearer > 1e-7 * (abs(low2) + abs(high2)) and nearer > 0.3 * near:
                return min(low, low2), max(high, high2)
            return None
        both = sides(self._line(k, t * scale, extended=False), eps=self.eps)
        if both.jump:
            return None
        if not both.is_kink:
            return None
        low = min(both.left.value - both.left.error, both.right.value - both.right.error) / scale
        high = max(both.left.value + both.left.error, both.right.value + both.right.error) / scale
        return low, high

    def _is_jump(self, k: int, t: Array) -> bool:
        scale = _scale(self.subject.point[k], t)
        return sides(self._line(k, t * scale, extended=False), eps=self.eps).jump

    def _spread(self, k: int, t: Array, method: str) -> float:
        """Measure how far claimed minus right moves between points that differ in the last bit."""
        if method != "complex step":
            return 0.0
        gaps = []
        for point in self.nearby[2:6]:
            grads = self.subject.vjp(point, self.dy)[k]
            if grads is not None:
                gaps.append(float((grads * t).sum()) - self._derivative(k, t, point))
        return max(gaps) - min(gaps) if len(gaps) > 1 else 0.0

    def elsewhere(self, k: int) -> float:
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
                except Exception:  # not defined there
                    continue
                if np.isfinite(y).all() and float(np.abs(self.dy * y).sum()) <= 1e3 * here:
                    sizes = [
                        s if g is None else np.append(s, np.abs(g).max(initial=0))
                        for s, g in zip(sizes, grads, strict=True)
                    ]
            self._sizes = [float(s[np.isfinite(s)].max(initial=0.0)) for s in sizes]
        return self._sizes[k]

    def _lost(self, k: int, i: int) -> float:
        """Return what code that is right may lose to cancellation, which no shaking of the last bits shows.

        It is a rounding error of the gradient as it is elsewhere (1 - a, with a = 1), or of y, over the size of the tensor
        (p - t, where they are nearly equal).
        """
        leaf = self.subject.point[k]
        size = max(abs(float(leaf.flat[i])), 1e-3 * float(np.abs(leaf).max()))
        terms = float(np.abs(self.dy * self.y0).max(initial=0.0))
        return max(8 * U * self.elsewhere(k), 8 * U * terms / size if size else 0.0)

    # -- verdicts

    def leaf(self, k: int) -> Verdict | None:
        """Judge one leaf's gradient; None if none is claimed."""
        yours = self.yours[k]
        value = self.subject.point[k]
        if yours is None:
            return None
        reason, noise = self._guard(k) if value.size else ("", 0.0)
        method = "differences" if reason else "complex step"
        row = Row(self.subject.names[k], value.shape, method, reason, accuracy=max(noise, 2 * U))
        verdict = Verdict(k, row, value, yours)
        full = self.full if method == "complex step" else self.full // 4
        if self.size <= full or value.size <= SMALL:
            self._elements(verdict)
        else:
            self._directions(verdict)
        return verdict

    def all(self) -> list[Verdict]:
        """Judge all gradients that are claimed."""
        return [verdict for k in range(len(self.yours)) if (verdict := self.leaf(k)) is not None]

    def _element_noise(self, k: int) -> Array:
        yours = self.yours[k]
        assert yours is not None
        moves = self.noise_runs[k]
        moved = np.nan_to_num(np.max(np.abs(moves), axis=0) if moves else np.zeros_like(yours))
        noise: Array = np.maximum(moved, _rms(moved)) + 2 * U * np.abs(yours) + FLOOR
        return np.where(np.isfinite(noise), noise, FLOOR)

    def _right(self, verdict: Verdict, where: Array, *, keep: bool) -> tuple[Array, Array]:
        """Return the right gradient of these elements, and the error of the reference."""
        k, shape = verdict.k, verdict.value.shape
        right, errors, columns = np.zeros(where.size), np.zeros(where.size), []
        for j, i in enumerate(where):
            t = _unit(shape, i)
            if verdict.row.method == "complex step":
                column = complex_tangent(self.subject, k, t)
                right[j] = (self.dy * column).sum()
                if keep:
                    columns.append(column)
            else:
                found = self._by_differences(k, t)
                right[j], errors[j] = found.value, found.error
        if keep and columns:
            verdict.jacobian = np.array(columns)
        return right, errors

    def _elements(self, verdict: Verdict) -> None:
        k, n = verdict.k, verdict.value.size
        verdict.where = np.arange(n)
        keep = verdict.value.size * self.dy.size <= 4_000_000
        verdict.right, errors = self._right(verdict, verdict.where, keep=keep)
        noise = self._element_noise(k).ravel()
        verdict.tolerance = KAPPA * noise + 4 * errors
        verdict.row.checked = f"all {n} elements" if n != 1 else "the element"
        if n and errors.any():
            size = _norm(verdict.right)
            verdict.row.accuracy = float(_norm(errors) / size) if size else float(errors.max())
        self._decide(verdict)
        row, size = verdict.row, _norm(verdict.right)
        row.certificate = _relative(_norm(verdict.tolerance), size)

    def _directions(self, verdict: Verdict) -> None:
        k, value, g = verdict.k, verdict.value, verdict.yours
        row, moves = verdict.row, self.noise_runs[k]
        excluded = np.zeros(0, int)  # elements at a kink
        noise = 0.0
        for _ in range(3):
            gaps, noises, tolerances = [], [], []
            for _ in range(N_DIRECTIONS):
                t = self.rng.normal(size=value.shape)
                t.ravel()[excluded] = 0
                gap, noise, tolerance = self._gap(verdict, t, moves)
                if gap > tolerance:
                    noise = max(noise, self._spread(k, t, row.method))
                    tolerance = max(tolerance, KAPPA * noise)
                gaps.append(gap)
                noises.append(noise)
                tolerances.append(tolerance)
            tau = float(np.median(tolerances))
            worst = int(np.argmax(np.array(gaps) / np.array(tolerances)))
            row.noise_ratio = gaps[worst] / noises[worst] if noises[worst] else 0.0
            row.error = _relative(max(gaps), _norm(g))
            row.checked = f"{N_DIRECTIONS} directions"
            row.certificate = _relative(CERTIFICATE * tau, _norm(g))
            if not gaps[worst] > tolerances[worst] and np.isfinite(gaps).all():
                row.verdict = "subgradient" if excluded.size else "right"
                return
            found = self._bisect(verdict, excluded)
            sample = self.rng.choice(value.size, min(32, value.size), replace=False)
            verdict.where = np.unique(np.concatenate([found, sample])).astype(int)
            verdict.right, errors = self._right(verdict, verdict.where, keep=False)
            verdict.tolerance = KAPPA * self._element_noise(k).ravel()[verdict.where] + 4 * errors
            self._decide(verdict)
            if row.verdict != "subgradient":
                break
            off = np.abs(verdict.yours.ravel()[verdict.where] - verdict.right) > verdict.tolerance
            excluded = np.union1d(excluded, verdict.where[off]).astype(int)
        if row.verdict == "right":  # the sample missed it, the directions did not
            row.verdict = "wrong"
        elif row.verdict == "subgradient":
            row.verdict = "unclear"  # more kinks than were looked at

    def _gap(self, verdict: Verdict, t: Array, moves: list[Array]) -> tuple[float, float, float]:
        """Return |<yours, t> - right|, its noise, and its tolerance."""
        k, g = verdict.k, verdict.yours
        if verdict.row.method == "complex step":
            right, error = self._derivative(k, t), 0.0
        else:
            found = self._by_differences(k, t)
            right, error = found.value, found.error
            verdict.row.accuracy = max(verdict.row.accuracy, _relative(error, _norm(g)))
        gap = abs(float((g * t).sum()) - right)
        moved = max((abs(float((move * t).sum())) for move in moves), default=0.0)
        spread = max((_norm(move) for move in moves), default=0.0)
        noise = max(moved, spread) + 2 * U * _norm(g * t) + FLOOR
        return (gap if np.isfinite(gap) else np.inf), noise, KAPPA * noise + 4 * error

    def _bisect(self, verdict: Verdict, excluded: Array, n_found: int = 4) -> Array:
        """Find wrong elements: halve the tensor, and go on with the half whose error is larger."""
        found: list[int] = []
        moves = self.noise_runs[verdict.k]
        for _ in range(n_found):
            indices = np.setdiff1d(np.arange(verdict.value.size), np.concatenate([excluded, np.array(found, int)]))
            while indices.size > 1:
                halves = np.array_split(indices, 2)
                gaps = []
                for half in halves:
                    t = np.zeros(verdict.value.size)
                    t[half] = self.rng.normal(size=half.size)
                    gap, _, tolerance = self._gap(verdict, t.reshape(verdict.value.shape), moves)
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
        k, row = verdict.k, verdict.row
        yours = verdict.yours.ravel()[verdict.where]
        right, tolerance = verdict.right, verdict.tolerance
        if not yours.size:
            row.verdict = "right"
            return
        finite = np.isfinite(yours)
        if not np.isfinite(right[finite]).all():
            row.verdict = "unclear"
            return
        gap = np.where(finite, np.abs(yours - right), np.inf)
        gap[~finite & ~np.isfinite(right)] = 0
        off = np.flatnonzero(gap > tolerance)
        kinks = noisy = 0
        wrong = []
        order = off[np.argsort(-(gap[off] / tolerance[off]))]
        for n, j in enumerate(order):
            if n >= 256 and not kinks and not noisy:
                wrong += list(order[n:])
                break
            t = _unit(verdict.value.shape, verdict.where[j])
            if np.isfinite(yours[j]):
                lost = self._lost(k, verdict.where[j]) if n < 256 else 0.0
                if gap[j] <= lost:
                    tolerance[j] = lost
                    noisy += 1
                    continue
                if (n < 64 or noisy) and gap[j] < 1e-3 * max(abs(right[j]), abs(yours[j]), FLOOR):
                    spread = self._spread(k, t, row.method)
                    if spread * KAPPA > tolerance[j]:
                        tolerance[j] = KAPPA * spread
                    if gap[j] <= tolerance[j]:
                        noisy += 1
                        continue
                ends = self._sides_of(k, t, row.method)
                if ends is not None:
                    slack = 1e-7 * max(abs(ends[0]), abs(ends[1])) + tolerance[j]
                    if ends[0] - slack <= yours[j] <= ends[1] + slack:
                        kinks += 1
                        continue
                if n < 3 and row.method == "complex step" and self._lies(verdict, t, yours[j], right[j]):
                    self._again_by_differences(verdict)
                    return
            wrong.append(j)
        verdict.wrong = verdict.where[np.array(wrong, int)]
        size = float(np.abs(right).max(initial=0.0))
        inner = gap[np.isfinite(gap)]
        row.error = _relative(float(inner.max(initial=0.0)), size) if finite.all() else np.inf
        row.noise_ratio = float((gap / (tolerance / KAPPA)).max())
        row.verdict = "wrong" if wrong else "subgradient" if kinks else "right"
        if row.verdict == "right" and row.method != "complex step" and row.accuracy > 1e-3:
            row.verdict = "unclear"
        row.worst = [
            Worst(
                tuple(int(i) for i in np.unravel_index(verdict.where[j], verdict.value.shape)),
                float(yours[j]),
                float(right[j]),
            )
            for j in wrong[:3]
        ]

    def _lies(self, verdict: Verdict, t: Array, yours: float, right: float) -> bool:
        """Tell whether differences side with the claimed gradient against the complex step."""
        second = self._by_differences(verdict.k, t)
        return abs(second.value - yours) <= 4 * second.error < 0.25 * abs(second.value - right)

    def _again_by_differences(self, verdict: Verdict) -> None:
        row = verdict.row
        row.method, row.reason = "differences", "the complex step and differences disagree: abs, norm, var or conj?"
        verdict.jacobian = None
        verdict.right, errors = self._right(verdict, verdict.where, keep=False)
        verdict.tolerance = KAPPA * self._element_noise(verdict.k).ravel()[verdict.where] + 4 * errors
        size = _norm(verdict.right)
        row.accuracy = float(_norm(errors) / size) if size else float(errors.max(initial=0.0))
        self._decide(verdict)


def _at(subject: Subject, point: list[Array]) -> Subject:
    return Subject(subject.names, point, subject.output, subject.pullback)


def _precision(y: Array) -> float:
    """Return the relative precision that y was computed in, as its digits tell."""
    with np.errstate(over="ignore"):
        single = y.astype(np.float32)
        if y.dtype == np.float32 or ((single == y).all() and (single.astype(np.float16) != y).any()):
            return float(np.finfo(np.float32).eps)
    return EPS


def _unit(shape: tuple[int, ...], i: int) -> Array:
    t = np.zeros(shape)
    t.reshape(-1)[i] = 1
    return t


def _rms(a: Array) -> float:
    return float(np.sqrt((a * a).mean())) if a.size else 0.0


def _norm(a: Array) -> float:
    return float(np.linalg.norm(a))


def _relative(a: float, size: float) -> float:
    return a / size if size else a


def _scale(leaf: Array, t: Array | None) -> float:
    """Return how far is a small part of the way: the size of the elements that t moves, or of all."""
    everywhere = _rms(leaf)
    moved = leaf if t is None else leaf[t != 0]
    scale = max(_rms(np.asarray(moved)), 0.1 * everywhere)
    return scale if scale > 1e-100 else 1.0


def _scaled(found: Difference, scale: float) -> Difference:
    return Difference(found.value / scale, found.error / scale)


def _short(error: BaseException) -> str:
    text = str(error).split("\n")[0]
    return f"{type(error).__name__}: {text[:90]}" if text else type(error).__name__
