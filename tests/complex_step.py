"""The judge of the invariant: derivatives by the complex step, which knows nothing of anybody's backward.

For an analytic f, Im f(x + ih t) / h with h = 1e-30 is the directional derivative along t, exact to rounding
(Squire and Trapp 1998, "Using complex variables to estimate derivatives of real functions").
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnprofile import Layer, Loss, Parameters

H = 1e-30


def relative(got: np.ndarray, expected: np.ndarray, *, elementwise: bool = False) -> float:
    """Return max |got - expected| / max |expected|, or the largest ratio of the two element by element."""
    assert got.shape == expected.shape, f"gradient of shape {got.shape}, value of shape {expected.shape}"
    if got.size == 0:
        return 0.0
    scale = np.abs(expected) if elementwise else np.abs(expected).max()
    return float((np.abs(got - expected) / np.where(scale > 0, scale, 1.0)).max())


def derivative(f: Any, x: np.ndarray) -> np.ndarray:
    """Return df / dx for scalar f, one element at a time.

    f is real for real x, continues the real function (so nothing in it takes a real part away), and a real central
    difference along one direction agrees with the complex steps: a second opinion, to seven digits or so.
    """
    out = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        z = x.astype(complex)
        z[at] += 1j * H
        out[at] = f(z).imag / H
    here = f(x + 0j).real
    np.testing.assert_allclose(f(x), here, rtol=1e-12, atol=1e-12, err_msg="forward differs for complex x")
    t = np.random.default_rng(x.size).normal(size=x.shape) * np.maximum(np.abs(x), 1e-2)
    difference = (f(x + 1e-6 * t) - f(x - 1e-6 * t)) / 2e-6
    size = np.abs(out * t).sum() + 1e-3 * abs(here) + 1e-6
    assert abs(difference - (out * t).sum()) <= 1e-5 * size, "complex step and central difference disagree"
    return out


def check_layer(
    layer: Layer,
    x: np.ndarray,
    dy: np.ndarray,
    *,
    tolerance: float = 1e-12,
    elementwise: bool = False,
    seed: int | None = None,
) -> None:
    """Assert that backward is the vector-Jacobian product of forward, for x and for every parameter.

    Another forward comes between forward and backward, so that a stale cache is seen; the output is overwritten, and
    backward called twice, so that a cache that is shared or used up is.
    """

    def draws() -> np.random.Generator | None:
        return None if seed is None else np.random.default_rng(seed)

    before = x.copy(), dy.copy(), layer.params.vector.copy()
    y, cache = layer.forward(x, draws())
    layer.forward(x[::-1] + 0.5, draws())
    assert y.dtype == x.dtype
    y[...] = 7
    layer.backward(dy, cache)
    dx, grads = layer.backward(dy, cache)
    for array, copy in zip((x, dy, layer.params.vector), before, strict=True):
        np.testing.assert_array_equal(array, copy, err_msg="an input was modified")
    assert dx is not None
    assert dx.dtype == x.dtype
    assert grads.dtype == layer.params.dtype
    assert grads.matches(layer.params)

    def with_x(z: np.ndarray) -> complex:
        return (layer.forward(z, draws())[0] * dy).sum()

    def with_vector(z: np.ndarray) -> complex:
        twin = layer.with_params(Parameters(layer.params.layout, z))
        return (twin.forward(x.astype(z.dtype), draws())[0] * dy).sum()

    error = relative(dx, derivative(with_x, x), elementwise=elementwise)
    assert error <= tolerance, f"dx is off by {error:.1e}"
    expected = Parameters(layer.params.layout, derivative(with_vector, layer.params.vector))
    for name in grads:
        error = relative(grads[name], expected[name])
        assert error <= tolerance, f"d{name} is off by {error:.1e}"
    check_float32(layer, x, dy, draws)


def check_float32(layer: Layer, x: np.ndarray, dy: np.ndarray, draws: Any) -> None:
    """Assert that float32 code computes what the same code computes in float64 from the same numbers, to 1e-4."""
    x, dy, vector = (a.astype(np.float32) for a in (x, dy, layer.params.vector))
    results = []
    for dtype in (np.float32, np.float64):
        twin = layer.with_params(Parameters(layer.params.layout, vector.astype(dtype)))
        y, cache = twin.forward(x.astype(dtype), draws())
        dx, grads = twin.backward(dy.astype(dtype), cache)
        assert y.dtype == dx.dtype == dtype
        assert not len(grads) or grads.dtype == dtype
        results.append((y, dx, grads.vector))
    for got, expected in zip(*results, strict=True):
        assert relative(got, expected) <= 1e-4, "float32 is off"


def check_loss(
    loss: Loss,
    y_pred: np.ndarray,
    y_true: Any,
    weight: Any = None,
    *,
    tolerance: float = 1e-12,
    elementwise: bool = False,
) -> None:
    """Assert that backward is the derivative of the value that forward returns, in both precisions."""
    value, cache = loss.forward(y_pred, y_true, weight)
    loss.forward(y_pred + (1 - 2 * y_pred) * 0.1, y_true, weight)
    assert value.dtype == y_pred.dtype
    expected = derivative(lambda z: loss.forward(z, y_true, weight)[0], y_pred)
    error = relative(loss.backward(cache), expected, elementwise=elementwise)
    assert error <= tolerance, f"dy_pred is off by {error:.1e}"
    single = y_pred.astype(np.float32)
    value32, cache32 = loss.forward(single, y_true, weight)
    value, cache = loss.forward(single.astype(np.float64), y_true, weight)
    assert value32.dtype == loss.backward(cache32).dtype == np.float32
    np.testing.assert_allclose(value32, value, rtol=1e-4, atol=1e-6)
    assert relative(loss.backward(cache32), loss.backward(cache)) <= 1e-4, "float32 is off"
