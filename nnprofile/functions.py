"""Elementary functions that neither overflow nor cancel, for real and complex numbers.

Branches look at the real part and nothing takes an absolute value, so that the complex step can pass through.
"""

from __future__ import annotations

import numpy as np

from .contract import Array


def sigmoid(x: Array) -> tuple[Array, Array]:
    """Return s(x) = 1 / (1 + exp(-x)) and s(-x) = 1 - s(x), each without overflow or cancellation."""
    positive = x.real >= 0
    e = np.exp(np.where(positive, -x, x))
    large, small = 1 / (1 + e), e / (1 + e)
    return np.where(positive, large, small), np.where(positive, small, large)


def log1p(u: Array) -> Array:
    """Return log(1 + u) for Re u >= -1, accurate near 0 for complex u too (NumPy's complex log1p is not)."""
    if not np.iscomplexobj(u):
        return np.log1p(u)
    a, b = u.real, u.imag
    tiny = np.where(a > -0.5, a * (2 + a) + b * b, 0)  # |1 + u|^2 - 1
    with np.errstate(divide="ignore"):
        out: Array = np.where(a > -0.5, np.log1p(tiny) / 2, np.log(np.hypot(1 + a, b))) + 1j * np.arctan2(b, 1 + a)
    return out


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which never overflows."""
    positive = x.real > 0
    return np.where(positive, x, 0) + log1p(np.exp(np.where(positive, -x, x)))
