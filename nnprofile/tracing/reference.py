"""The right value of a gradient, found without any backward, and the verdict of the gradient checker on it.

The same judge as in ``nnprofile.gradcheck``: a guarded complex step (docs/backprop.md, eq. 34), differences (eq. 35) where
complex numbers do not pass or are lied about, a tolerance that is the measured rounding noise, and kinks told from errors.
It judges the computation in double precision; what a float32 network shows is compared with the same right values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..contract import Array
from ..gradcheck.judge import Judge
from ..gradcheck.reference import Subject, careful

ALL_DIGITS = 16.0  # that a float64 has
ENOUGH = 6  # fewer agree where a gradient is a sum that cancels, as at a minimum
EACH = 256  # elements: of a larger gradient the checker takes directions, and searches for wrong elements
SEED = 0


@dataclass
class Check:
    """What stands beside a gradient.

    Attributes
    ----------
    reference : Array
        The right values; NaN where none was computed.
    method : str
        "complex step", exact to rounding, or "differences", where complex numbers do not pass through a layer.
    verdict : str
        "right", "subgradient" (at a kink: between the derivatives of both sides), "wrong", or "unclear".
    digits : Array
        How many digits agree: -log10 of the relative difference, at most 16; NaN where there is no reference.
    wrong : Array of bool
        Elements that are off by more than rounding.
    checked : str
        "all 6 elements", or "8 directions": then every element took part, and the reference is known for some.
    """

    reference: Array
    method: str
    verdict: str
    digits: Array
    wrong: Array
    checked: str

    @property
    def ok(self) -> bool:
        """Whether it is right, or an element of the subgradient."""
        return self.verdict in ("right", "subgradient")

    def says(self, index: tuple[int, ...]) -> str:
        """Say of one element how it compares."""
        if not np.isfinite(self.reference[index]):
            return "not checked by itself"
        digits = self.digits[index]
        n = int(np.nan_to_num(digits))
        count = f"{n} digit{' agrees' if n == 1 else 's agree'}"
        if self.wrong[index]:
            return f"WRONG, {count}"
        if self.verdict == "unclear":
            return f"unclear, {count}"
        if digits >= ENOUGH:
            return count
        return "between both sides of a kink" if self.verdict == "subgradient" else "equal within rounding"


def check(subject: Subject, gradient: Array, shown: Callable[[Array], Array], single: float | None = None) -> Check:
    """Judge the gradient by the first leaf of ``subject``.

    Parameters
    ----------
    subject : Subject
        The loss as a function, and the gradient that is claimed for it, which the checker evaluates at other points too.
    gradient : Array
        As the traced pass has it.
    shown : function (Array) -> Array of int
        The flat indices whose right values are wanted, where there are too many to know all.
    single : float or None
        If the pass was in single precision, the size of its gradients, by which their rounding is measured.
    """
    gradient, start = np.asarray(gradient, float), subject.point[0]
    reference = np.full(gradient.size, np.nan)
    others = sum(leaf.size for leaf in subject.point[1:])
    with careful():
        judge = Judge(subject, np.ones(()), np.random.default_rng(SEED), full=EACH + others)
        verdict, terms = judge.all()[0], judge.size_at_smaller(0)
        reference[verdict.where] = verdict.right
        more = np.setdiff1d(shown(gradient), verdict.where) if verdict.where.size < start.size else np.zeros(0, int)
        reference[more], _ = judge.right(verdict, more)
    wrong = np.zeros(gradient.size, bool)
    wrong[verdict.wrong] = True
    state = verdict.row.verdict
    right: Array = reference.reshape(gradient.shape)
    digits = _digits(gradient, right)
    if state == "wrong":
        wrong[more] = digits.ravel()[more] < ENOUGH
    off: Array = wrong.reshape(gradient.shape)
    # The judge has recomputed the gradient in double precision; what the pass itself has must be that, but for its rounding.
    again = verdict.yours.reshape(gradient.shape)
    size = float(np.abs(again[np.isfinite(again)]).max(initial=0.0))
    slack = 1e-4 * max(size, terms, single) if single is not None else 1e-8 * size + 1e-12 * terms
    other = ~(np.abs(gradient - again) <= 1e-2 * np.abs(again) + slack) & np.isfinite(again)
    if other.any():
        off, state = off | other, "wrong"
    return Check(right, verdict.row.method, state, digits, off, verdict.row.checked)


def _digits(gradient: Array, reference: Array) -> Array:
    with np.errstate(all="ignore"):
        off, size = np.abs(gradient - reference), np.maximum(np.abs(gradient), np.abs(reference))
        digits = np.where(off == 0, ALL_DIGITS, np.clip(-np.log10(off / size), 0, ALL_DIGITS))
    digits = np.where(np.isnan(digits), 0.0, digits)
    digits[np.isnan(reference)] = np.nan
    return digits
