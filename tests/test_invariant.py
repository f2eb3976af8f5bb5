"""Every backward is the exact vector-Jacobian product of its forward; and the check is seen to fail on wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn
from tests.complex_step import check_layer, check_loss

ACTIVATIONS = [nn.Identity(), nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.LeakyReLU(0.2), nn.Softmax()]
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 5)
LAYOUTS = st.sampled_from(["C", "F", "strided", "read-only"])


def away_from_kinks(rng: np.random.Generator, shape: tuple[int, ...], scale: float = 2.0) -> np.ndarray:
    """Draw points at least 1e-3 from 0, the kink of ReLU."""
    x = rng.normal(0, scale, shape)
    return x + np.where(x < 0, -1e-3, 1e-3)


def arranged(a: np.ndarray, layout: str) -> np.ndarray:
    """Return the same numbers in another memory layout."""
    if layout == "F":
        return np.asfortranarray(a)
    if layout == "strided":
        wide = np.repeat(a, 2, axis=-1)
        return wide[..., ::2]
    a = a.copy()
    a.flags.writeable = layout != "read-only"
    return a


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
@given(seed=SEEDS, n=SIZES, k=SIZES, scale=st.sampled_from([0.1, 2.0, 15.0]), layout=LAYOUTS)
def test_activations(layer: nn.Layer, seed: int, n: int, k: int, scale: float, layout: str) -> None:
    rng = np.random.default_rng(seed)
    x = arranged(away_from_kinks(rng, (n, k), scale), layout)
    elementwise = not isinstance(layer, nn.Softmax)  # whose dx is a sum over the row
    check_layer(layer, x, arranged(rng.normal(size=(n, k)), layout), elementwise=elementwise)


@given(seed=SEEDS, n=SIZES, i=SIZES, o=SIZES, layout=LAYOUTS)
def test_dense(seed: int, n: int, i: int, o: int, layout: str) -> None:
    rng = np.random.default_rng(seed)
    layer = nn.Dense(i, o, rng=rng)
    check_layer(layer, arranged(rng.normal(size=(n, i)), layout), arranged(rng.normal(size=(n, o)), layout))


@given(seed=SEEDS, n=SIZES, k=SIZES, rate=st.floats(0, 0.9))
def test_dropout_with_its_mask_held(seed: int, n: int, k: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    x, dy = rng.normal(size=(n, k)), rng.normal(size=(n, k))
    check_layer(nn.Dropout(rate), x, dy)
    check_layer(nn.Dropout(rate), x, dy, seed=seed)


@given(data=st.data(), seed=SEEDS, n=SIZES)
def test_networks_and_nested_networks(data: st.DataObject, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)

    def draw(width: int, depth: int) -> tuple[list[nn.Layer], int]:
        layers: list[nn.Layer] = []
        for _ in range(data.draw(st.integers(1, 3))):
            kind = data.draw(st.sampled_from(["dense", "smooth", "dropout", "nested"]))
            if kind == "dense":
                out = data.draw(SIZES)
                layers.append(nn.Dense(width, out))
                width = out
            elif kind == "smooth":
                layers.append(data.draw(st.sampled_from([nn.Sigmoid(), nn.Tanh(), nn.Softmax(), nn.Identity()])))
            elif kind == "dropout":
                layers.append(nn.Dropout(0.3))
            elif depth:
                inner, width = draw(width, depth - 1)
                layers.append(nn.Sequential(inner, rng=None))
        return layers or [nn.Tanh()], width

    first = data.draw(SIZES)
    layers, last = draw(first, 2)
    net = nn.Sequential(layers, rng=rng)
    x, dy = rng.normal(size=(n, first)), rng.normal(size=(n, last))
    check_layer(net, x, dy)
    check_layer(net, x, dy, seed=seed)


@given(seed=SEEDS, n=SIZES, leaky=st.booleans())
def test_networks_with_kinks(seed: int, n: int, leaky: bool) -> None:
    rng = np.random.default_rng(seed)
    first = nn.Dense(3, 4, rng=rng)
    net = nn.Sequential([first, nn.LeakyReLU(0.1) if leaky else nn.ReLU(), nn.Dense(4, 2)], rng=rng)
    x = rng.normal(size=(n, 3))
    z = first.forward(x)[0]
    for j in range(4):  # move the bias until no pre-activation is within 1e-3 of the kink
        while (abs(z[:, j]) < 1e-3).any():
            net.params["0.b"][j] += 2e-3
            z = first.forward(x)[0]
    check_layer(net, x, rng.normal(size=(n, 2)))


@pytest.mark.parametrize(("layer", "low"), [(nn.ReLU(), 0.0), (nn.LeakyReLU(0.2), 0.2)], ids=repr)
def test_at_the_kink_the_gradient_is_a_subgradient(layer: nn.Layer, low: float) -> None:
    for zero in (0.0, -0.0):
        _, cache = layer.forward(np.array([[zero]]))
        for dy in (3.0, -3.0):
            dx = layer.backward(np.array([[dy]]), cache)[0][0, 0]
            assert dx == low * dy  # the documented one
            assert min(low * dy, dy) <= dx <= max(low * dy, dy)


@pytest.mark.parametrize(
    "loss", [nn.MeanSquaredError(), nn.HalfSquaredError(), nn.Huber(0.7), nn.MeanAbsoluteError()], ids=repr
)
@given(seed=SEEDS, n=SIZES, k=SIZES, weighted=st.booleans())
def test_regression_losses(loss: nn.Loss, seed: int, n: int, k: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    y_true = rng.normal(size=(n, k))
    d = away_from_kinks(rng, (n, k))
    d[abs(abs(d) - 0.7) < 1e-3] = 0.5
    weight = rng.choice([0.0, 1e-9, 0.5, 2.0], n) if weighted else None
    check_loss(loss, y_true + d, y_true, weight)


@given(
    seed=SEEDS, n=SIZES, k=SIZES, weighted=st.booleans(), hard=st.booleans(), scale=st.sampled_from([0.1, 3.0, 30.0])
)
def test_cross_entropies(seed: int, n: int, k: int, weighted: bool, hard: bool, scale: float) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.choice([0.0, 1e-9, 0.5, 2.0], n) if weighted else None
    t = rng.integers(0, 2, (n, k)) if hard else rng.uniform(0, 1, (n, k))
    check_loss(nn.BinaryCrossEntropy(), rng.uniform(1e-6, 1 - 1e-6, (n, k)), t, weight)
    z = rng.normal(0, scale, (n, k))
    check_loss(nn.SigmoidCrossEntropy(), z, t, weight)
    labels = rng.integers(0, k, n) if hard else rng.dirichlet(np.ones(k), n)
    check_loss(nn.SoftmaxCrossEntropy(), z, labels if k > 1 else np.zeros(n), weight)


@pytest.mark.parametrize("loss", [nn.MeanAbsoluteError(), nn.Huber(1.0)], ids=repr)
def test_losses_at_their_kinks(loss: nn.Loss) -> None:
    for d in (0.0, 1.0, -1.0):
        _, cache = loss.forward(np.array([[d]]), np.array([[0.0]]))
        assert loss.backward(cache)[0, 0] == d  # 0 at the tie; at |d| = delta both sides agree


# Wrong on purpose: the helper that passes the right ones must catch each of these.


class OffBy(nn.Dense):
    """0.05 % too large a dW."""

    def backward(self, dy: np.ndarray, cache: Any) -> Any:
        dx, grads = super().backward(dy, cache)
        grads["W"] = grads["W"] * 1.0005
        return dx, grads


class Transposed(nn.Dense):
    """dx = dy @ W, silent for a square W."""

    def backward(self, dy: np.ndarray, cache: Any) -> Any:
        _, grads = super().backward(dy, cache)
        return dy @ self.params["W"], grads


class MeanBias(nn.Dense):
    """The bias gradient averaged instead of summed."""

    def backward(self, dy: np.ndarray, cache: Any) -> Any:
        dx, grads = super().backward(dy, cache)
        grads["b"] = dy.mean(axis=0)
        return dx, grads


class StaleCache(nn.Dense):
    """Remembers the last input in itself."""

    def forward(self, x: np.ndarray, rng: Any = None) -> Any:
        self.x = x
        return super().forward(x, rng)

    def backward(self, dy: np.ndarray, cache: Any) -> Any:
        return super().backward(dy, self.x)


class SpoilsInput(nn.ReLU):
    """Overwrites dy."""

    def backward(self, dy: np.ndarray, cache: Any) -> Any:
        dx, grads = super().backward(dy, cache)
        dy[:] = dx
        return dx, grads


class DiagonalSoftmax(nn.Softmax):
    """The Jacobian's diagonal only."""

    def backward(self, dy: np.ndarray, cache: Any) -> Any:
        return dy * cache[0] * (1 - cache[0]), nn.Parameters({})


class WrongInFloat32(nn.Dense):
    """Twice dW, but only in single precision."""

    def backward(self, dy: np.ndarray, cache: Any) -> Any:
        dx, grads = super().backward(dy, cache)
        grads["W"] *= 2 if dy.dtype == np.float32 else 1
        return dx, grads


class UsesUpItsCache(nn.Dense):
    """The second backward finds nothing."""

    def forward(self, x: np.ndarray, rng: Any = None) -> Any:
        return super().forward(x, rng)[0], x.copy()

    def backward(self, dy: np.ndarray, cache: Any) -> Any:
        out = super().backward(dy, cache)
        cache[...] = 0
        return out


class SharesItsCache(nn.Sigmoid):
    """Caches the very array it returns."""

    def forward(self, x: np.ndarray, rng: Any = None) -> Any:
        y, _ = super().forward(x, rng)
        return y, y

    def backward(self, dy: np.ndarray, cache: Any) -> Any:
        return dy * cache * (1 - cache), nn.Parameters({})


class Detached(nn.Identity):
    """Takes the mean of the real part, which hides it from the complex step, and forgets it in backward."""

    def forward(self, x: np.ndarray, rng: Any = None) -> Any:
        return x - x.real.mean(axis=0), x


class OtherForComplex(nn.Identity):
    """Forward and backward agree for complex input, and real input gets another function."""

    def forward(self, x: np.ndarray, rng: Any = None) -> Any:
        return x * (1 if np.iscomplexobj(x) else 3), x


@pytest.mark.parametrize("wrong", [OffBy, Transposed, MeanBias, StaleCache, WrongInFloat32, UsesUpItsCache])
def test_a_wrong_dense_layer_is_caught(wrong: type[nn.Dense], rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    check_layer(nn.Dense(3, 3, rng=rng), x, dy)
    with pytest.raises(AssertionError, match="off"):
        check_layer(wrong(3, 3, rng=rng), x, dy)


@pytest.mark.parametrize(
    "wrong",
    [SpoilsInput(), DiagonalSoftmax(), SharesItsCache(), Detached(), OtherForComplex()],
    ids=lambda w: type(w).__name__,
)
def test_a_wrong_activation_is_caught(wrong: nn.Layer, rng: np.random.Generator) -> None:
    with pytest.raises(AssertionError, match="off|modified|differs|disagree"):
        check_layer(wrong, away_from_kinks(rng, (4, 3)), rng.normal(size=(4, 3)))


class NotAveraged(nn.HalfSquaredError):
    """The gradient without 1/n."""

    def backward(self, cache: Any) -> np.ndarray:
        return cache * len(cache)


class LostHalf(nn.HalfSquaredError):
    """The document's factor 2."""

    def backward(self, cache: Any) -> np.ndarray:
        return 2 * cache


@pytest.mark.parametrize("wrong", [NotAveraged(), LostHalf()], ids=lambda w: type(w).__name__)
def test_a_wrong_loss_is_caught(wrong: nn.Loss, rng: np.random.Generator) -> None:
    y_pred, y_true = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    check_loss(nn.HalfSquaredError(), y_pred, y_true)
    with pytest.raises(AssertionError, match="off by"):
        check_loss(wrong, y_pred, y_true)
