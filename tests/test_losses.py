"""Losses and activations at their limits: values others publish, extremes, weights, shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn
from nnprofile.functions import _real_erfc, erfc

from .layer_examples import BETWEEN, layers

DTYPES = st.sampled_from([np.float64, np.float32])


@given(seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 30.0, 1e4]), dtype=DTYPES)
def test_activations_equal_scipys(seed: int, scale: float, dtype: Any) -> None:
    x = np.random.default_rng(seed).normal(0, scale, (4, 3)).astype(dtype)
    tiny = {"rtol": 8 * np.finfo(dtype).eps, "atol": np.finfo(dtype).tiny}
    for layer, expected in (
        (nn.Sigmoid(), scipy.special.expit(x.astype(float))),
        (nn.Softmax(), scipy.special.softmax(x.astype(float), axis=1)),
        (nn.Tanh(), np.tanh(x.astype(float))),
    ):
        y, cache = layer.forward(x)
        dx, grads = layer.backward(np.ones_like(y), cache)
        assert y.dtype == dx.dtype == dtype and len(grads) == 0 and np.isfinite(dx).all()
        loose = tiny | {"rtol": 4 * np.finfo(dtype).eps * (1 + 2 * scale)} if isinstance(layer, nn.Softmax) else tiny
        np.testing.assert_allclose(y, expected.astype(dtype), **loose)


@given(seed=st.integers(0, 1000), height=st.sampled_from([1e-300, 1e-100, 1e-8, 0.1, 1.0, 4.0]))
def test_erfc_of_complex_numbers_equals_scipys(seed: int, height: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 3, (50, 2))
    z = x + 1j * height * rng.uniform(0.1, 1, x.shape)
    found, expected = erfc(z), scipy.special.erfc(z)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    if height <= 1e-8:  # the derivative, which a complex step reads there
        np.testing.assert_allclose(found.imag, -2 / np.sqrt(np.pi) * np.exp(-x * x) * z.imag, rtol=1e-6, atol=1e-320)
    ends = np.array([np.inf, -np.inf, 40.0, -40.0]) + 1e-30j
    assert erfc(ends).real.tolist() == [0.0, 2.0, 0.0, 2.0] and not erfc(ends).imag.any()
    np.testing.assert_allclose(_real_erfc(x), scipy.special.erfc(x), rtol=3e-14)  # what stands in for SciPy's
    assert erfc(z.astype(np.complex64)).dtype == np.complex64 and erfc(x.astype(np.float32)).dtype == np.float32


def test_slopes_keep_their_digits_in_saturation() -> None:
    x = np.array([[-40.0, 40.0]])
    for layer, expected in ((nn.Sigmoid(), np.exp(-40.0)), (nn.Tanh(), 4 * np.exp(-80.0))):
        _, cache = layer.forward(x)
        np.testing.assert_allclose(layer.backward(np.ones_like(x), cache)[0], [[expected] * 2], rtol=1e-14)


@given(seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 30.0, 1e4]), dtype=DTYPES)
def test_cross_entropies_equal_scipys(seed: int, scale: float, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(0, scale, (5, 3)).astype(dtype)
    labels = rng.integers(0, 3, 5)
    expected = -scipy.special.log_softmax(z.astype(float), axis=1)[np.arange(5), labels].mean()
    value, cache = nn.SoftmaxCrossEntropy().forward(z, labels)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, expected, rtol=1e-5 if dtype is np.float32 else 1e-13, atol=1e-30)
    one_hot, _ = nn.SoftmaxCrossEntropy().forward(z, np.eye(3)[labels])
    assert one_hot == value
    t = rng.integers(0, 2, 5)
    expected = -np.where(
        t, scipy.special.log_expit(z[:, 0].astype(float)), scipy.special.log_expit(-z[:, 0].astype(float))
    ).mean()
    for y_true in (t, t[:, None], t.tolist(), t.astype(bool)):
        value, cache = nn.SigmoidCrossEntropy().forward(z[:, :1], y_true)
        assert nn.SigmoidCrossEntropy().backward(cache).shape == (5, 1)
        np.testing.assert_allclose(value, expected, rtol=1e-5 if dtype is np.float32 else 1e-13, atol=1e-30)


def test_confident_and_right_is_a_small_number_not_zero() -> None:
    for loss, z, y in ((nn.SigmoidCrossEntropy(), [[40.0]], [1]), (nn.SoftmaxCrossEntropy(), [[40.0, 0.0]], [0])):
        value, cache = loss.forward(np.array(z), y)
        np.testing.assert_allclose(value, np.exp(-40.0), rtol=1e-14)
        np.testing.assert_allclose(loss.backward(cache)[0, 0], -np.exp(-40.0), rtol=1e-14)


def test_binary_cross_entropy_at_zero_and_one() -> None:
    loss = nn.BinaryCrossEntropy()
    value, cache = loss.forward([0.0, 1.0], [0, 1])
    assert value == 0 and loss.backward(cache).tolist() == [0.5, -0.5]
    assert loss.forward([0.0, 1.0], [1, 1])[0] == np.inf
    assert loss.forward([1.0], [0.5])[0] == np.inf
    assert loss.forward([0.0, 1.0], [1, 1], [0, 1])[0] == 0  # the infinite sample has no weight
    with pytest.raises(
        ValueError, match=r"takes probabilities in \[0, 1\], got -1.5; for logits use SigmoidCrossEntropy"
    ):
        loss.forward([-1.5], [1])


LOSSES = [
    nn.MeanSquaredError(),
    nn.HalfSquaredError(),
    nn.MeanAbsoluteError(),
    nn.Huber(),
    nn.BinaryCrossEntropy(),
    nn.SigmoidCrossEntropy(),
]


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_weights(loss: nn.Loss, rng: np.random.Generator) -> None:
    y_pred, y_true = rng.uniform(0.1, 0.9, (6, 2)), rng.uniform(0, 1, (6, 2))
    counts = np.array([2, 0, 1, 3, 0, 1])
    repeated, cache = loss.forward(np.repeat(y_pred, counts, axis=0), np.repeat(y_true, counts, axis=0))
    value, weighted_cache = loss.forward(y_pred, y_true, counts)
    np.testing.assert_allclose(value, repeated, rtol=1e-14)
    dy = loss.backward(weighted_cache)
    np.testing.assert_allclose(dy.sum(axis=0), loss.backward(cache).sum(axis=0), rtol=1e-13)
    assert not dy[[1, 4]].any()
    ones, ones_cache = loss.forward(y_pred, y_true, np.full(6, 7.0))
    np.testing.assert_allclose(ones, loss.forward(y_pred, y_true)[0], rtol=1e-15)
    np.testing.assert_allclose(loss.backward(ones_cache), loss.backward(loss.forward(y_pred, y_true)[1]), rtol=1e-14)
    nothing, nothing_cache = loss.forward(y_pred, y_true, np.zeros(6))
    assert nothing == 0 and not loss.backward(nothing_cache).any()
    with pytest.raises(ValueError, match="negative"):
        loss.forward(y_pred, y_true, -np.ones(6))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_nothing_is_broadcast(loss: nn.Loss) -> None:
    p = np.full((4, 1), 0.5)
    values = [loss.forward(p, y)[0] for y in (np.ones(4), np.ones((4, 1)))]
    assert values[0] == values[1]
    flat, cache = loss.forward(p[:, 0], np.ones((4, 1)))
    assert flat == values[0] and loss.backward(cache).shape == (4,)
    for y_pred, y_true in (
        (p, np.ones(1)),
        (p, np.ones((1, 4))),
        (np.full((4, 2), 0.5), np.ones(4)),
        (p[0, 0], [1]),
        (p, 1.0),
    ):
        with pytest.raises(ValueError, match="y_true|y_pred"):
            loss.forward(y_pred, y_true)


def test_backward_gives_memory_of_its_own(rng: np.random.Generator) -> None:
    _, cache = nn.MeanSquaredError().forward(rng.normal(size=(3, 1)), np.ones(3))
    first = nn.MeanSquaredError().backward(cache)
    first[:] = 0
    assert nn.MeanSquaredError().backward(cache).all()


def test_links() -> None:
    z = np.array([[0.0, 2.0]])
    for loss, layer in (
        (nn.HalfSquaredError(), nn.Identity()),
        (nn.SigmoidCrossEntropy(), nn.Sigmoid()),
        (nn.SoftmaxCrossEntropy(), nn.Softmax()),
    ):
        np.testing.assert_array_equal(loss.link.forward(z)[0], layer.forward(z)[0])


def test_a_network_can_end_in_its_link(rng: np.random.Generator) -> None:
    """Sigmoid then BinaryCrossEntropy, the document's way, equals SigmoidCrossEntropy on the logits."""
    x, y = rng.normal(size=(8, 3)), rng.integers(0, 2, 8)
    logits = nn.Sequential([nn.Dense(3, 1)], rng=np.random.default_rng(0))
    proba = nn.Sequential([nn.Dense(3, 1), nn.Sigmoid()], rng=np.random.default_rng(0))
    a, da = nn.objective(logits, nn.SigmoidCrossEntropy(), x, y)
    b, db = nn.objective(proba, nn.BinaryCrossEntropy(), x, y)
    np.testing.assert_allclose(a, b, rtol=1e-14)
    np.testing.assert_allclose(da.vector, db.vector, rtol=1e-13)


def test_dropout_keeps_the_mean_and_its_rate(rng: np.random.Generator) -> None:
    x = np.ones((200, 300), np.float32)
    y, cache = nn.Dropout(0.3).forward(x, rng)
    assert y.dtype == np.float32
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.01) and y.mean() == pytest.approx(1.0, abs=0.01)
    np.testing.assert_array_equal(nn.Dropout(0.3).backward(x, cache)[0], y)


def test_nan_is_seen_through_every_layer() -> None:
    for layer in layers(BETWEEN, 2):
        layer.initialize(np.random.default_rng(0))
        with np.errstate(invalid="ignore"):
            assert np.isnan(layer.forward(np.array([[np.nan, 1.0]]))[0]).any()
    assert nn.ReLU().forward(np.array([[-np.inf, np.inf]]))[0].tolist() == [[0.0, np.inf]]


def test_weights_of_any_size(rng: np.random.Generator) -> None:
    y_pred, y_true = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    for loss in (nn.HalfSquaredError(), nn.MeanAbsoluteError()):
        expected, cache = loss.forward(y_pred, y_true, [1, 2, 0])
        for scale in (1e-300, 1e-40, 1e38, 8e307):
            for dtype, close in ((np.float64, 1e-14), (np.float32, 1e-6)):
                value, scaled = loss.forward(y_pred.astype(dtype), y_true, np.array([1, 2, 0]) * scale)
                np.testing.assert_allclose(value, expected, rtol=close)
                np.testing.assert_allclose(loss.backward(scaled), loss.backward(cache), rtol=close)


def test_logits_of_any_size() -> None:
    big = np.finfo(np.float64).max
    for z, label, expected in (
        ([big, -big], 0, 0.0),
        ([0.0, -np.inf], 0, 0.0),  # a masked class
        ([0.0, -np.inf, 0.0], 2, np.log(2)),
        ([1e308, 0.0], 1, 1e308),
    ):
        value, cache = nn.SoftmaxCrossEntropy().forward([z], [label])
        assert value == pytest.approx(expected)
        assert np.isfinite(nn.SoftmaxCrossEntropy().backward(cache)).all()
    for z, label, expected in ((-np.inf, 0, 0.0), (np.inf, 1, 0.0), (np.inf, 0, np.inf), (big, 0, big)):
        value, cache = nn.SigmoidCrossEntropy().forward([z], [label])
        assert value == expected and nn.SigmoidCrossEntropy().backward(cache).tolist() == [
            0.0 if expected == 0 else 1.0
        ]


def test_the_poisson_loss_keeps_its_digits_where_rates_are_counts() -> None:
    for dtype in (np.float64, np.float32):
        t = np.array([[1.0], [7.0], [1e6]])
        z = np.log(t).astype(dtype)
        value, cache = nn.PoissonLoss().forward(z, t)
        assert 0 <= value <= 1e6 * np.finfo(dtype).eps ** 2 * 300
        assert (abs(nn.PoissonLoss().backward(cache)) <= 20 * np.finfo(dtype).eps * t).all()


def test_layer_norm_at_its_ends() -> None:
    for dtype in (np.float64, np.float32):
        layer = nn.LayerNorm(2, 1e-50)
        layer.initialize(np.random.default_rng(0))
        layer = layer.with_params(nn.Parameters(layer.params.layout, layer.params.vector.astype(dtype)))
        y, cache = layer.forward(
            np.array([[3.0, 3.0]], dtype)
        )  # no variance, and an epsilon that float32 has no number for
        assert y.tolist() == [[0.0, 0.0]] and np.isfinite(layer.backward(np.ones((1, 2), dtype), cache)[0]).all()
        y, _ = layer.forward(np.array([[1e300, -1e300]]) if dtype is np.float64 else np.array([[3e38, -3e38]], dtype))
        assert np.isfinite(y).all()
