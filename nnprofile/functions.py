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


def tanh_slope(x: Array) -> Array:
    """Return 1 - tanh(x)^2 = 4 s(2x) s(-2x), which keeps its digits where tanh(x) is nearly 1 or -1."""
    s, one_minus_s = sigmoid(2 * x)
    return 4 * s * one_minus_s


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

    Real numbers by SciPy, if it is there, else by ``NORMAL_TAIL``; long doubles have the digits of float64. Complex numbers by a
    series around their real part: Abramowitz and Stegun (1964), 7.1.29.
    """
    if np.iscomplexobj(x):
        return _complex_erfc(x)
    try:
        from scipy.special import erfc as real
    except ImportError:
        real = _real_erfc
    out: Array = np.asarray(real(x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)), dtype=x.dtype)
    return out


# The coefficients of t^0, t^1, ... in exp(x^2 / 2) (x + 4) Phi(-x), for x >= 0 and t = (x - 4) / (x + 4): the polynomial that is
# right at Chebyshev's 25 points, found with 50 digits, and within 1e-16 of its size in between.
NORMAL_TAIL = (
    0.7552851304157515,
    -0.6078966419718923,
    0.38713740074221453,
    -0.18652185795963533,
    0.06039657489093607,
    -0.007540188967419565,
    -0.0034796923673884156,
    0.0016308184678064444,
    0.00013334431270030784,
    -0.00023109501999200649,
    -1.908265085342679e-06,
    3.5145122560125815e-05,
    7.167263978705016e-07,
    -5.921638801978817e-06,
    -6.299974265164222e-07,
    1.0248325060946323e-06,
    2.727176083262385e-07,
    -1.5982676610438677e-07,
    -8.713294621467491e-08,
    1.7881872409503415e-08,
    2.1604426842720404e-08,
    -6.021003727951476e-10,
    -3.798041859957449e-09,
    -1.1742107539247065e-10,
    3.51569242668093e-10,
)


def _real_erfc(x: Array) -> Array:
    u = np.minimum(np.abs(x), 30) * 2**0.5
    tail = 2 * np.exp(-x * x) * np.polynomial.polynomial.polyval((u - 4) / (u + 4), NORMAL_TAIL) / (u + 4)
    out: Array = np.where(x < 0, 2 - tail, tail)
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
    out: Array = (erfc(x) - np.exp(-near * near) * total).astype(z.dtype)
    return out


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which never overflows."""
    positive = x.real > 0
    return np.where(positive, x, 0) + log1p(np.exp(np.where(positive, -x, x)))
