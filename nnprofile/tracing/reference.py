"""The right value of a gradient, found without any backward: by the complex step, or by central differences.

``nnprofile.gradcheck`` judges whole functions, guards against code that lies, and names bugs; here each element has a
right value of its own to stand beside it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contract import Array

H = 1e-30
FULL = 16.0  # digits: all that a float64 has


@dataclass
class Check:
    """What stands beside a gradient.

    Attributes
    ----------
    reference : Array
        The right values; NaN where none was computed.
    method : str
        "complex step" (eq. 34 of docs/backprop.md: exact to rounding) or "central difference" (eq. 35), where complex
        numbers do not pass through a layer.
    digits : Array
        How many digits agree: -log10 of the relative difference, at most 16; NaN where there is no reference.
    right : Array of bool
        False where the difference is more than rounding, measured by the largest element.
    """

    reference: Array
    method: str
    digits: Array
    right: Array

    @property
    def ok(self) -> bool:
        """Whether all that was checked is right."""
        return bool(self.right.all())

    @property
    def n_checked(self) -> int:
        """How many elements were checked."""
        return int(np.isfinite(self.reference).sum())


def check(objective: Callable[[Array], Any], start: Array, gradient: Array, most: int) -> Check:
    """Differentiate ``objective`` at ``start``, element by element, at the ``most`` largest elements of the gradient."""
    gradient = np.asarray(gradient, float)
    where = np.argsort(-np.abs(gradient.ravel()), kind="stable")[:most]
    values, method = np.full(gradient.size, np.nan), "complex step"
    single = start.dtype == np.float32
    start = start.astype(float)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        try:
            for i in where:
                values[i] = _complex_step(objective, start, int(i))
        except Exception:  # complex numbers do not pass through every layer of a user's
            method = "central difference"
            for i in where:
                values[i] = _central_difference(objective, start, int(i))
    return compare(values.reshape(gradient.shape), gradient, method, single)


def compare(reference: Array, gradient: Array, method: str, single: bool = False) -> Check:
    """Count the digits that agree."""
    off, size = np.abs(gradient - reference), np.maximum(np.abs(gradient), np.abs(reference))
    with np.errstate(all="ignore"):
        digits = np.where(off == 0, FULL, np.clip(-np.log10(off / size), 0, FULL))
    digits[np.isnan(reference)] = np.nan
    scale = float(np.nanmax(size, initial=0.0, where=np.isfinite(size)))
    tolerance = 1e-4 if single else 1e-10 if method == "complex step" else 1e-6
    # NaN where nothing was checked is no error; a gradient that is not finite beside a finite reference is one.
    right = np.isnan(reference) | (off <= tolerance * scale)
    return Check(reference, method, digits, right)


def _complex_step(objective: Callable[[Array], Any], start: Array, i: int) -> float:
    moved = start.astype(complex)
    moved.ravel()[i] += 1j * H
    value = objective(moved)
    if not np.iscomplexobj(value):
        raise TypeError("real numbers came out for complex ones")
    return float(np.imag(value)) / H


def _central_difference(objective: Callable[[Array], Any], start: Array, i: int) -> float:
    h = 6e-6 * max(1.0, abs(float(start.ravel()[i])))
    ahead, behind = start.copy(), start.copy()
    ahead.ravel()[i] += h
    behind.ravel()[i] -= h
    return float(objective(ahead) - objective(behind)) / float(ahead.ravel()[i] - behind.ravel()[i])
