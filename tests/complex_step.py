"""The judge of the invariant: derivatives by the complex step, which knows nothing of anybody's backward.

For an analytic f, Im f(x + ih t) / h with h = 1e-30 is the directional derivative along t, exact to rounding
(Squire and Trapp 1998, "Using complex variables to estimate derivatives of real functions").
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnprofile import Layer, Loss, Parameters

H = 1e-30


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    """Return max |got - expected| / max |expected|."""
    assert got.shape == expected.shape, f"gradient of shape {got.shape}, value of shape {expected.shape}"
    if got.size == 0:
        return 0.0
    scale = np.abs(expected).max()
    return float(np.abs(got - expected).max() / (scale if scale > 0 else 1.0))


def derivative(f: Any, x: np.ndarray) -> np.ndarray:
    """Return df / dx for scalar f, one element at a time."""
    out = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        z = x.astype(complex)
        z[at] += 1j * H
        out[at] = f(z).imag / H
    return out


def check_layer(
    layer: Layer, x: np.ndarray, dy: np.ndarray, *, tolerance: float = 1e-12, seed: int | None = None
) -> None:
    """Assert that backward is the vector-Jacobian product of forward, for x and for every parameter.

    Two forwards of other inputs come between forward and backward, so that a stale cache is seen.
    """

    def draws() -> np.random.Generator | None:
        return None if seed is None else np.random.default_rng(seed)

    before = x.copy(), dy.copy(), layer.params.vector.copy()
    y, cache = layer.forward(x, draws())
    layer.forward(x[::-1] + 0.5, draws())
    dx, grads = layer.backward(dy, cache)
    for array, copy in zip((x, dy, layer.params.vector), before, strict=True):
        np.testing.assert_array_equal(array, copy, err_msg="an input was modified")
    assert y.dtype == x.dtype
    assert dx.dtype == x.dtype and grads.dtype == layer.params.dtype
    assert grads.layout == layer.params.layout

    def with_x(z: np.ndarray) -> complex:
        return (layer.forward(z, draws())[0] * dy).sum()

    def with_vector(z: np.ndarray) -> complex:
        twin = layer.with_params(Parameters(layer.params.layout, z))
        return (twin.forward(x.astype(complex), draws())[0] * dy).sum()

    error = relative(dx, derivative(with_x, x))
    assert error <= tolerance, f"dx is off by {error:.1e}"
    expected = Parameters(layer.params.layout, derivative(with_vector, layer.params.vector))
    for name in grads:
        error = relative(grads[name], expected[name])
        assert error <= tolerance, f"d{name} is off by {error:.1e}"


def check_loss(loss: Loss, y_pred: np.ndarray, y_true: Any, weight: Any = None, *, tolerance: float = 1e-12) -> None:
    """Assert that backward is the derivative of the value that forward returns."""
    value, cache = loss.forward(y_pred, y_true, weight)
    loss.forward(y_pred + (1 - 2 * y_pred) * 0.1, y_true, weight)
    assert value.dtype == y_pred.dtype
    expected = derivative(lambda z: loss.forward(z, y_true, weight)[0], y_pred)
    error = relative(loss.backward(cache), expected)
    assert error <= tolerance, f"dy_pred is off by {error:.1e}"
