"""The engine equals the NumPy path, to rounding, for every network, loss, optimizer, dtype and batch that it takes."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn

ACTIVATIONS = [nn.ReLU(), nn.LeakyReLU(0.2), nn.Sigmoid(), nn.Tanh(), nn.Identity(), nn.Softmax(), nn.Dropout(0.4)]
LOSSES = [
    nn.MeanSquaredError(),
    nn.HalfSquaredError(),
    nn.MeanAbsoluteError(),
    nn.Huber(0.7),
    nn.BinaryCrossEntropy(),
    nn.SigmoidCrossEntropy(),
    nn.SoftmaxCrossEntropy(),
]
OPTIMIZERS = [
    nn.SGD(0.01),
    nn.SGD(0.01, weight_decay=0.3),
    nn.SGD(0.01, momentum=0.9, weight_decay=0.1),
    nn.SGD(0.02, momentum=0.8, nesterov=True),
    nn.SGD(0.01, momentum=0.9, lazy=True, weight_decay=0.2),
    nn.SGD(nn.CosineDecay(0.02, n_steps=9, warmup=3)),
    nn.Adam(0.01),
    nn.Adam(nn.StepDecay(0.01, every=3), weight_decay=0.2),
    nn.Adam(0.01, beta1=0.7, epsilon=1e-4, lazy=True, weight_decay=0.1),
]


@st.composite
def jobs(draw: st.DrawFn, *, sparse: bool = False) -> dict[str, Any]:
    """A network with data, a loss, an optimizer and all that fit takes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    widths = draw(st.lists(st.integers(1, 21), min_size=2, max_size=4))
    some = st.lists(st.sampled_from(ACTIVATIONS), max_size=3)
    layers: list[nn.Layer] = [] if sparse else copy.deepcopy(draw(some))
    for a, b in pairwise(widths):
        layers += [nn.Dense(a, b), *copy.deepcopy(draw(some))]
    loss = draw(st.sampled_from(LOSSES))
    if isinstance(loss, nn.BinaryCrossEntropy):
        layers.append(nn.Sigmoid())
    if draw(st.booleans()) and len(layers) > 2:
        layers[1:] = [nn.Sequential(layers[1:], rng=None)]
    net = nn.Sequential(layers, rng=rng, dtype=dtype)
    net.params.vector = net.params.vector + 0.1 * rng.normal(size=net.params.vector.size).astype(dtype)
    n, k = draw(st.integers(1, 30)), widths[-1]
    x: Any = rng.normal(size=(n, widths[0]))
    if sparse:
        x = scipy.sparse.random_array((n, widths[0]), density=0.3, format="csr", rng=rng)
    if isinstance(loss, nn.SoftmaxCrossEntropy):
        y: Any = rng.integers(0, k, n) if draw(st.booleans()) or k == 1 else rng.dirichlet(np.ones(k), n)
    else:
        y = rng.uniform(size=(n, k)) if draw(st.booleans()) else rng.integers(0, 2, (n, k))
    weight = draw(st.sampled_from([None, "some", "many"]))
    if weight is not None:
        weight = rng.uniform(size=n) * (rng.uniform(size=n) < (0.4 if weight == "some" else 0.9))
    return {
        "net": net,
        "loss": loss,
        "optimizer": copy.deepcopy(draw(st.sampled_from(OPTIMIZERS))),
        "x": x,
        "y": y,
        "sample_weight": weight,
        "batch_size": draw(st.sampled_from([1, 2, 7, 16, 64])),
        "n_epochs": draw(st.integers(1, 3)),
        "l2": draw(st.sampled_from([0.0, 0.0, 0.3])),
    }


def trained(job: dict[str, Any], engine: str, seed: int = 0) -> tuple[Any, Any, Any]:
    job = copy.deepcopy(job)
    history = nn.fit(**job, rng=np.random.default_rng(seed), engine=engine, validation_data=(job["x"], job["y"]))
    return job["net"].params.vector, job["optimizer"], history


def close(a: Any, b: Any, tolerance: float) -> None:
    scale = max(1.0, float(np.abs(a).max(initial=0)))
    assert np.abs(a - b).max(initial=0) <= tolerance * scale, (a, b)


def check_float64(job: dict[str, Any]) -> None:
    job["net"] = nn.Sequential([copy.deepcopy(job["net"])], rng=None, dtype=np.float64)
    (w, optimizer, history), (w2, optimizer2, history2) = trained(job, "numpy"), trained(job, "numba")
    close(w, w2, 1e-9)
    assert optimizer.n_steps == optimizer2.n_steps and list(optimizer.state) == list(optimizer2.state)
    for name in optimizer.state:
        close(optimizer.state[name], optimizer2.state[name], 1e-9)
    for name in history:
        np.testing.assert_allclose(history[name], history2[name], rtol=1e-9, atol=1e-9)


@given(jobs())
def test_several_epochs_in_float64(job: dict[str, Any]) -> None:
    check_float64(job)


@given(jobs(sparse=True))
def test_several_epochs_of_csr_rows_in_float64(job: dict[str, Any]) -> None:
    check_float64(job)
