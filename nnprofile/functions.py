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


def erfc(x: Array) -> Array:
    """Return 1 - erf(x) = 2 / sqrt(pi) * the integral of exp(-t^2) from x on, which keeps its digits where it is small.

    Real numbers by SciPy, if it is there, else one by one. For z = x + iy a series around x, where SciPy's has no better digits:
    Abramowitz and Stegun (1964), 7.1.29.
    """
    if np.iscomplexobj(x):
        return _complex_erfc(x)
    try:
        from scipy.special import erfc as real
    except ImportError:
        import math

        real = np.vectorize(math.erfc, otypes=[x.dtype])
    out: Array = np.asarray(real(x))
    return out


def _complex_erfc(z: Array) -> Array:
    x, y = z.real.astype(float), z.imag.astype(float)
    near, xy = np.clip(x, -30, 30), np.clip(x, -30, 30) * y  # beyond 30, exp(-x^2) is 0
    total = np.sinc(xy / np.pi) * y / np.pi * (np.sin(xy) + 1j * np.cos(xy))
    largest = np.abs(y[np.isfinite(y)]).max(initial=0.0)
    for n in range(1, int(14 + 4 * largest)):
        least = np.exp(-n * n / 4)
        up, down = np.exp(n * y - n * n / 4), np.exp(-n * y - n * n / 4)
        rise = (up + down) / 2  # cosh(n y) exp(-n^2 / 4), and so with sinh, which keeps its digits near 0
        fall = np.where(abs(n * y) < 1, least * np.sinh(np.clip(n * y, -1, 1)), (up - down) / 2)
        real = 2 * near * (least - rise * np.cos(2 * xy)) + n * fall * np.sin(2 * xy)
        imaginary = 2 * near * rise * np.sin(2 * xy) + n * fall * np.cos(2 * xy)
        total = total + 2 / np.pi * (real + 1j * imaginary) / (n * n + 4 * near * near)
    out: Array = (erfc(x) - np.exp(-x * x) * total).astype(z.dtype)
    return out


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which never overflows."""
    positive = x.real > 0
    return np.where(positive, x, 0) + log1p(np.exp(np.where(positive, -x, x)))
