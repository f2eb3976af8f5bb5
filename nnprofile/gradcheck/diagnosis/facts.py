"""What is known of a wrong gradient, as the hypotheses see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...contract import Array
from ..reference import rms

if TYPE_CHECKING:
    from ..judge import Judge, Verdict
    from ..procedures import Procedure

Diagnosis = tuple[str, str]


@dataclass
class Context:
    """What else is known where a gradient is wrong."""

    y_true: Any = None
    sample_weight: Any = None
    l2: float = 0.0
    procedure: Procedure | None = None
    judge: Judge | None = None
    verdicts: tuple[Verdict, ...] = ()  # those of all tensors


class Facts:
    """A wrong gradient, seen from the hypotheses."""

    def __init__(self, verdict: Verdict, context: Context) -> None:
        assert context.judge is not None and context.procedure is not None
        self.verdict, self.context = verdict, context
        self.judge = context.judge
        self.dy, self.y = context.judge.dy, context.judge.y0
        self.where, self.full = verdict.where, verdict.is_full
        self.yours_all = verdict.yours
        self.yours = verdict.yours.ravel()[self.where]
        self.right, self.tolerance = verdict.right, verdict.tolerance
        self.value = verdict.value
        self.theta = verdict.value.ravel()[self.where]
        self.error = self.yours - self.right
        self.size = rms(self.right)
        self.error_size = rms(self.error)
        self.shape = verdict.value.shape
        self.unexplained = np.nan  # share of the error that the last hypothesis that fits leaves
        self._again: tuple[Array, Array, Array] | None = None

    def fits(self, candidate: Array, *, slack: float = 1e-6) -> bool:
        """Tell whether this is the claimed gradient: at the known elements, up to noise or a millionth of the error."""
        left = np.asarray(candidate, float).ravel()
        if left.size != self.where.size:
            if left.size != self.value.size:
                return False
            left = left[self.where]
        return self._explains(np.abs(left - self.yours), slack)

    def right_is(self, candidate: Array, *, slack: float = 1e-6) -> bool:
        """Tell whether this, made of the claimed gradient, is the right one."""
        left = np.asarray(candidate, float).ravel()[self.where]
        return self._explains(np.abs(left - self.right), slack)

    def _explains(self, off: Array, slack: float) -> bool:
        """Tell whether what is left of the error is noise, or next to nothing, and keep how much it is."""
        share = rms(off) / self.error_size if self.error_size else np.inf
        if share <= slack or (share <= 0.1 and (off <= 4 * self.tolerance).all()):
            self.unexplained = share
            return True
        return False

    def varied(self, a: Array) -> bool:
        """Tell whether an array has so many distinct sizes that an arrangement of them cannot fit by chance."""
        sizes = np.unique([float(f"{v:.6e}") for v in np.abs(a[:1000])])
        return sizes.size >= 3

    def varied_or_again(self, factor: Array, function: Callable[[Array], Array]) -> bool:
        """Tell whether a factor that fits has several values, or fits at a second point too."""
        if self.yours.size >= 3 and self.varied(factor):
            return True
        theta, right, yours = self.again()
        return bool(np.allclose(yours, right * function(theta), rtol=1e-6, atol=0))

    def again(self) -> tuple[Array, Array, Array]:
        """Return (tensor, right gradient, claimed gradient), at the known elements, a small way off."""
        if self._again is None:
            rng = np.random.default_rng(0)
            point = self.judge.subject.point
            moved = [np.where(a == 0, 1e-3, a) * (1 + 1e-3 * rng.uniform(0.5, 1.5, size=a.shape)) for a in point]
            self._again = moved[self.verdict.k].ravel()[self.where], *self.at(moved)
        return self._again

    def at(self, point: list[Array]) -> tuple[Array, Array]:
        """Return (right gradient, claimed gradient) at another point, at the known elements."""
        yours = self.judge.subject.vjp(point, self.judge.dy)[self.verdict.k]
        assert yours is not None
        return self.right_at(point), yours.ravel()[self.where]

    def right_at(self, point: list[Array]) -> Array:
        """Return the right gradient at another point, at the known elements."""
        subject = self.judge.subject
        kept, subject.point = subject.point, point
        try:
            return self.judge.right(self.verdict, self.where)[0]
        finally:
            subject.point = kept

    def is_random(self) -> bool:
        """Tell whether the error is another one a small way off, as rounding is and a formula is not."""
        right, yours = self.at([a * (1 + 1e-4 * self.judge.rng.normal(size=a.shape)) for a in self.judge.subject.point])
        error = yours - right
        alike = float(error @ self.error) / ((rms(error) * rms(self.error) * error.size) or 1.0)
        return alike < 0.9

    def as_tensor(self, flat: Array) -> Array:
        """Give the elements their places back, if all are known."""
        return flat.reshape(self.shape)


def subsets(ndim: int) -> Iterator[tuple[int, ...]]:
    """Yield the sets of axes, but the empty one."""
    for mask in range(1, 2**ndim):
        yield tuple(i for i in range(ndim) if mask >> i & 1)


def listed(indices: Array) -> str:
    """Write the first few indices."""
    shown = ", ".join(str(int(i)) for i in indices[:6])
    return shown + (" ..." if len(indices) > 6 else "")
