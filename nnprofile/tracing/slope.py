"""The slope of a reader's own elementwise layer, so that paths of the chain rule can lead through it."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np

from ..contract import Array, Layer

H = 1e-100  # of the complex step: nothing is subtracted, so nothing cancels
_EPS = 6e-6  # of the differences, the cube root of float64's epsilon
_N_MASKS = 32  # a single element that reaches another is missed with probability (3/4)**32


class Slope(NamedTuple):
    """dy/dx, element by element, and how it was found."""

    value: Array
    method: str


def elementwise_slope(layer: Layer, x: Array, rng: np.random.Generator | None) -> Slope | None:
    """Return dy/dx of a layer whose y[i] depends on x[i] alone; None of any other, and where y is not finite.

    The complex step finds it (docs/backprop.md, eq. 34); where complex numbers do not pass, or differences (eq. 35) contradict
    them away from a kink, differences do.
    """
    x = np.array(x, float)

    def f(at: Array) -> Array:
        return np.asarray(layer.forward(at.copy(), copy.deepcopy(rng))[0])

    try:
        y, step = f(x), _EPS * np.maximum(np.abs(x), 1)
        if y.shape != x.shape or not x.size or not _is_elementwise(f, x, y):
            return None
        above, below = (f(x + step) - y) / step, (y - f(x - step)) / step
    except Exception:  # the layer's own code refuses these numbers: it keeps its values and checks, and has no paths
        return None
    central = (above + below) / 2
    if not np.isfinite(central).all():
        return None
    size = np.abs(above) + np.abs(below) + 1e-6
    smooth = np.abs(above - below) <= 1e-3 * size
    try:
        moved = f(x + 1j * H)
        exact = moved.imag / H
    except Exception:  # real numbers only
        return Slope(central, "differences")
    agrees = np.abs(exact - central) <= 1e-4 * size
    if not np.iscomplexobj(moved) or not np.isfinite(exact).all() or not (agrees | ~smooth).all():
        return Slope(central, "differences")
    return Slope(exact, "the complex step")


def _is_elementwise(f: object, x: Array, y: Array) -> bool:
    """Tell whether elements that are moved leave all others as they are."""
    draws = np.random.default_rng(0)
    for _ in range(_N_MASKS):
        mask = draws.integers(0, 2, x.shape).astype(bool)
        moved = f(np.where(mask, x + 1e-3 * (1 + np.abs(x)), x))  # type: ignore[operator]
        if not np.allclose(moved[~mask], y[~mask], rtol=1e-12, atol=1e-300):
            return False
    return True
