"""Every backward is the exact vector-Jacobian product of its forward, and every optimizer's step the textbook's.

The judge is the library's own gradient checker, which ``tests/gradcheck`` sees fail on what is wrong.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn

from .layer_examples import EXAMPLES, KINKED, Example, made

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 5)
LAYOUTS = st.sampled_from(["C", "F", "strided", "read-only"])


def away_from_kinks(rng: np.random.Generator, shape: tuple[int, ...], scale: float = 2.0) -> np.ndarray:
    """Draw points at least 1e-3 from 0, the kink of ReLU."""
    x = rng.normal(0, scale, shape)
    return x + np.where(x < 0, -1e-3, 1e-3)


def right(report: nn.GradCheckReport, *, kinks: bool = False) -> None:
    """Assert that nothing is wrong, nor anything doubtful or worth a note."""
    report.raise_if_failed()
    assert {row.verdict for row in report.rows} <= ({"right", "subgradient"} if kinks else {"right"}), str(report)
    assert kinks or not report.findings, str(report)
    assert all(row.method != "differences" for row in report.rows), str(report)


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


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: repr(example.make(3)))
@given(seed=SEEDS, n=SIZES, k=SIZES, scale=st.sampled_from([0.1, 2.0, 15.0]), layout=LAYOUTS)
def test_every_layer(example: Example, seed: int, n: int, k: int, scale: float, layout: str) -> None:
    rng = np.random.default_rng(seed)
    layer = example.make(k)
    layer.initialize(rng)
    layer.params.vector = layer.params.vector + 0.1 * rng.normal(size=layer.params.vector.size)
    x = arranged(away_from_kinks(rng, (n, k), scale), layout)
    right(nn.check_layer(layer, x, seed=seed))
    right(nn.check_layer(layer, away_from_kinks(rng, (n, k), min(scale, 2.0)).astype(np.float32), seed=seed))


@given(seed=SEEDS, n=SIZES, k=SIZES, rate=st.floats(0, 0.9))
def test_dropout_with_its_mask_held(seed: int, n: int, k: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    right(nn.check_layer(nn.Dropout(rate), rng.normal(size=(n, k)), rng=rng, seed=seed))


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
    assert net.out_features in (last, None)
    right(nn.check_layer(net, rng.normal(size=(n, first)), rng=rng, seed=seed))


@pytest.mark.parametrize("example", KINKED, ids=lambda example: repr(example.make(3)))
@given(seed=SEEDS, n=SIZES)
def test_networks_with_kinks(example: Example, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    first = nn.Dense(3, 4, rng=rng)
    net = nn.Sequential([first, example.make(4), nn.Dense(4, 2)], rng=rng)
    x = rng.normal(size=(n, 3))
    z = first.forward(x)[0]
    for j in range(4):  # move the bias until no pre-activation is within 1e-3 of the kink
        while (abs(z[:, j]) < 1e-3).any():
            net.params["0.b"][j] += 2e-3
            z = first.forward(x)[0]
    right(nn.check_network(net, nn.HalfSquaredError(), x, rng.normal(size=(n, 2)), l2=0.1, seed=seed))


@pytest.mark.parametrize("example", KINKED, ids=lambda example: repr(example.make(3)))
def test_at_the_kink_the_gradient_is_a_subgradient(example: Example) -> None:
    layer, low = made(example, 1), example.kink
    assert low is not None
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
    right(nn.check_loss(loss, y_true + d, y_true, weight, seed=seed))
    right(nn.check_loss(loss, (y_true + d).astype(np.float32), y_true, weight, seed=seed))


@given(
    seed=SEEDS, n=SIZES, k=SIZES, weighted=st.booleans(), hard=st.booleans(), scale=st.sampled_from([0.1, 3.0, 30.0])
)
def test_cross_entropies(seed: int, n: int, k: int, weighted: bool, hard: bool, scale: float) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.choice([0.0, 1e-9, 0.5, 2.0], n) if weighted else None
    t = rng.integers(0, 2, (n, k)) if hard else rng.uniform(0, 1, (n, k))
    right(nn.check_loss(nn.BinaryCrossEntropy(), rng.uniform(1e-6, 1 - 1e-6, (n, k)), t, weight, seed=seed))
    z = rng.normal(0, scale, (n, k))
    right(nn.check_loss(nn.SigmoidCrossEntropy(), z, t, weight, seed=seed))
    labels = rng.integers(0, k, n) if hard else rng.dirichlet(np.ones(k), n)
    labels = labels if k > 1 else np.zeros(n)
    right(nn.check_loss(nn.SoftmaxCrossEntropy(), z, labels, weight, seed=seed))
    right(nn.check_loss(nn.SoftmaxCrossEntropy(), z.astype(np.float32), labels, weight, seed=seed))


@pytest.mark.parametrize("loss", [nn.MeanAbsoluteError(), nn.Huber(1.0)], ids=repr)
def test_losses_at_their_kinks(loss: nn.Loss) -> None:
    for d in (0.0, 1.0, -1.0):
        _, cache = loss.forward(np.array([[d]]), np.array([[0.0]]))
        assert loss.backward(cache)[0, 0] == d  # 0 at the tie; at |d| = delta both sides agree


@pytest.mark.parametrize("loss", [nn.MeanAbsoluteError(), nn.Huber(1.0)], ids=repr)
def test_losses_at_their_kinks_pass_as_subgradients(loss: nn.Loss) -> None:
    y_true = np.zeros((4, 2))
    y_pred = np.array([[0.0, 1.0], [-1.0, 0.5], [0.0, 0.0], [2.0, -0.3]])
    right(nn.check_loss(loss, y_pred, y_true), kinks=True)


@pytest.mark.parametrize("example", KINKED, ids=lambda example: repr(example.make(3)))
@given(seed=SEEDS)
def test_activations_at_their_kinks_pass_as_subgradients(example: Example, seed: int) -> None:
    layer = made(example)
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, (4, 3)).astype(float)
    right(nn.check_layer(layer, x, seed=seed), kinks=True)


OPTIMIZERS = [
    nn.SGD(0.1),
    nn.SGD(0.1, momentum=0.9),
    nn.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    nn.SGD(nn.StepDecay(0.1, every=2), momentum=0.9, lazy=True),
    nn.Adam(0.01),
    nn.Adam(nn.ExponentialDecay(0.1, every=2), weight_decay=0.1),
    nn.Adam(0.01, lazy=True),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_optimizers(optimizer: nn.Optimizer, dtype: type) -> None:
    rng, optimizer = np.random.default_rng(0), type(optimizer)(**optimizer.config())
    net = nn.Sequential([nn.Dense(4, 3), nn.Tanh(), nn.Dense(3, 2)], rng=rng, dtype=dtype)
    x, y = rng.normal(size=(5, 4)).astype(dtype), rng.normal(size=(5, 2)).astype(dtype)
    x[:, 1] = 0  # a row of W whose gradient is zero, for lazy ones
    for _ in range(2):  # the second time with moments
        right(nn.check_step(net, nn.HalfSquaredError(), optimizer, x, y, l2=0.0 if optimizer.config()["lazy"] else 0.1))
        nn.fit(net, nn.HalfSquaredError(), optimizer, x, y, n_epochs=1, batch_size=2, rng=rng)
