"""The engine equals the NumPy path, to rounding, for every network, loss, optimizer, dtype and batch that it takes."""

from __future__ import annotations

import copy
import platform
import re
import signal
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn
from nnprofile import engine
from nnprofile.layers.activations import Elementwise
from nnprofile.layers.walk import chain

from .layer_examples import COMPILED, layers

LOSSES = [
    nn.MeanSquaredError(),
    nn.HalfSquaredError(),
    nn.MeanAbsoluteError(),
    nn.Huber(0.7),
    nn.BinaryCrossEntropy(),
    nn.SigmoidCrossEntropy(),
    nn.SoftmaxCrossEntropy(),
    nn.PoissonLoss(),
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


def sparse_rows(rng: np.random.Generator, n: int, n_features: int, density: float) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array(rng.normal(size=(n, n_features)) * (rng.uniform(size=(n, n_features)) < density))


@st.composite
def jobs(draw: st.DrawFn, *, sparse: bool = False) -> dict[str, Any]:
    """A network with data, a loss, an optimizer and all that fit takes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    widths = draw(st.lists(st.integers(1, 21), min_size=2, max_size=4))
    some = st.lists(st.sampled_from(COMPILED), max_size=3)
    made: list[nn.Layer] = [] if sparse else layers(draw(some), widths[0])
    for a, b in pairwise(widths):
        made += [nn.Dense(a, b), *layers(draw(some), b)]
    loss = draw(st.sampled_from(LOSSES))
    if isinstance(loss, nn.BinaryCrossEntropy):
        made.append(nn.Sigmoid())
    if draw(st.booleans()) and len(made) > 2:
        made[1:] = [nn.Sequential(made[1:], rng=None)]
    net = nn.Sequential(made, rng=rng, dtype=dtype)
    net.params.vector = net.params.vector + 0.1 * rng.normal(size=net.params.vector.size).astype(dtype)
    n, k = draw(st.integers(1, 30)), widths[-1]
    x: Any = rng.normal(size=(n, widths[0]))
    if sparse:
        x = sparse_rows(rng, n, widths[0], 0.3)
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


def trained(job: dict[str, Any], name: str, seed: int = 0) -> tuple[Any, Any, Any]:
    job = copy.deepcopy(job)
    history = nn.fit(**job, rng=np.random.default_rng(seed), engine=name, validation_data=(job["x"], job["y"]))
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


@given(jobs())
def test_the_gradient_of_all_rows(job: dict[str, Any]) -> None:
    """What L-BFGS asks for: ``objective``'s value and gradient, and the parameters stay."""
    layers = [layer for layer, _ in chain(job["net"]) if not isinstance(layer, nn.Dropout)]
    net = nn.Sequential(copy.deepcopy(layers), rng=None, dtype=np.float64)
    y = job["loss"].targets(job["y"], net.out_features)
    weight = np.ones(len(y)) if job["sample_weight"] is None else job["sample_weight"] + 0.01
    before = net.params.vector.copy()
    value, gradient = engine.differentiator(net, job["loss"], job["x"], y, weight, job["l2"])()
    J, grads = nn.objective(net, job["loss"], job["x"], y, sample_weight=weight, l2=job["l2"])
    close(J, value, 1e-12)
    close(grads.vector, gradient, 1e-11)
    np.testing.assert_array_equal(net.params.vector, before)


def check_float32(job: dict[str, Any]) -> None:
    """From a common state, each path's distance from a step in float64 is at most four times the other's."""
    job = job | {"batch_size": 1000, "n_epochs": 1}
    # Two normalised numbers are 1 and -1: what is left of their gradient is rounding, in either path.
    if any(isinstance(layer, nn.LayerNorm) and layer.features < 3 for layer, _ in chain(job["net"])):
        return
    if isinstance(job["optimizer"], nn.Adam):  # with a small epsilon its first step is the gradient's sign
        job["optimizer"] = nn.Adam(0.5, epsilon=1.0, lazy=job["optimizer"].lazy)
    net = job.pop("net")
    nets = {dtype: nn.Sequential([copy.deepcopy(net)], rng=None, dtype=dtype) for dtype in (np.float64, np.float32)}
    nets[np.float64].params.vector = nets[np.float32].params.vector
    job["x"] = job["x"].astype(np.float32)
    exact, _, _ = trained(job | {"net": nets[np.float64]}, "numpy")
    by_numpy, _, _ = trained(job | {"net": nets[np.float32]}, "numpy")
    by_engine, _, _ = trained(job | {"net": nets[np.float32]}, "numba")
    floor = np.finfo(np.float32).eps * float(np.linalg.norm(exact))
    of_numpy, of_engine = (float(np.linalg.norm(w - exact)) for w in (by_numpy, by_engine))
    assert of_engine <= 4 * of_numpy + floor and of_numpy <= 4 * of_engine + floor


@given(jobs())
def test_one_step_in_float32_is_as_exact_as_numpys(job: dict[str, Any]) -> None:
    check_float32(job)


@given(jobs(sparse=True))
def test_one_step_of_csr_rows_in_float32_is_as_exact_as_numpys(job: dict[str, Any]) -> None:
    check_float32(job)


def network(*widths: int, dtype: Any = np.float64, activation: Any = nn.Tanh, seed: int = 0) -> nn.Sequential:
    layers: list[nn.Layer] = []
    for a, b in pairwise(widths):
        layers += [nn.Dense(a, b), activation()]
    return nn.Sequential(layers[:-1], rng=np.random.default_rng(seed), dtype=dtype)


def data(n: int, n_features: int, n_outputs: int = 1, *, sparse: bool = False) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    x: Any = rng.normal(size=(n, n_features))
    if sparse:
        x = sparse_rows(rng, n, n_features, 0.2)
    return x, rng.uniform(size=(n, n_outputs))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "widths", [(13, 300, 200, 1), (300, 250, 3), (40, 70, 1)], ids=["BLAS inside", "BLAS first", "no BLAS"]
)
@pytest.mark.parametrize("batch_size", [1, 130, 300])
@pytest.mark.parametrize("optimizer", [nn.Adam(0.001, weight_decay=0.1), nn.SGD(0.01, weight_decay=0.2)])
def test_blas_and_blocks(widths: tuple[int, ...], batch_size: int, sparse: bool, optimizer: Any) -> None:
    """Layers that BLAS multiplies, and batches of more than one block."""
    x, y = data(301 if batch_size > 1 else 7, widths[0], widths[-1], sparse=sparse)
    net = network(*widths)
    net = nn.Sequential([*copy.deepcopy(net.layers[:2]), nn.Dropout(0.3), *copy.deepcopy(net.layers[2:])], rng=None)
    job = {
        "net": net,
        "loss": nn.Huber(0.3),
        "optimizer": optimizer,
        "x": x,
        "y": y,
        "batch_size": batch_size,
        "n_epochs": 2,
        "sample_weight": np.random.default_rng(2).uniform(size=len(y)),
    }
    check_float64(dict(job))
    check_float32(dict(job))


def test_more_rows_than_a_large_block() -> None:
    x, y = data(2100, 300)
    check_float64(
        {
            "net": network(300, 200, 1),
            "loss": nn.MeanSquaredError(),
            "optimizer": nn.SGD(0.01),
            "x": x,
            "y": y,
            "batch_size": 2100,
            "n_epochs": 2,
        }
    )


@pytest.mark.parametrize("sparse", [False, True])
def test_chunks_give_the_same_bits(sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch in one compiled call, or a call for each step: Dropout, schedules and decay go on as if nothing were cut."""
    x, y = data(50, 9, sparse=sparse)
    net = network(9, 8, 1)
    net = nn.Sequential([*copy.deepcopy(net.layers), nn.Dropout(0.4)], rng=None)
    job = {"net": net, "loss": nn.MeanSquaredError(), "x": x, "y": y, "batch_size": 7, "n_epochs": 3}
    for optimizer in (
        nn.SGD(nn.CosineDecay(0.1, n_steps=20), weight_decay=0.5),
        nn.Adam(0.01, weight_decay=0.3, lazy=True),
    ):
        whole = trained(job | {"optimizer": optimizer}, "numba")
        monkeypatch.setattr(engine, "CHUNK", 0.0)
        cut = trained(job | {"optimizer": optimizer}, "numba")
        monkeypatch.undo()
        np.testing.assert_array_equal(whole[0], cut[0])
        assert whole[2]["loss"] == cut[2]["loss"]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("optimizer", [nn.SGD(1e3), nn.SGD(1e3, momentum=0.9), nn.SGD(0.1, weight_decay=1e9)])
def test_divergence_is_the_same(dtype: Any, optimizer: Any) -> None:
    x, y = data(40, 3)
    found = []
    for name in ("numpy", "numba"):
        net = network(3, 5, 1, dtype=dtype, activation=nn.ReLU)
        before = net.params.vector.copy()
        mine = copy.deepcopy(optimizer)
        with pytest.raises(nn.DivergenceError) as error:
            nn.fit(
                net,
                nn.HalfSquaredError(),
                mine,
                x,
                y,
                n_epochs=200,
                batch_size=8,
                rng=np.random.default_rng(0),
                engine=name,
            )
        found.append((str(error.value), mine.n_steps))
        epoch = int(str(error.value).split()[1].strip(","))
        assert mine.n_steps == epoch * 5
        if epoch == 0:
            np.testing.assert_array_equal(net.params.vector, before)
    assert found[0][1] == found[1][1] and found[0][0] == found[1][0]


def test_a_moment_that_overflows_is_divergence() -> None:
    net = network(1, 1, dtype=np.float32)
    net.params.vector = [1.0, 0.0]
    with pytest.raises(nn.DivergenceError):
        fit(net, nn.HalfSquaredError(), nn.Adam(), [[1e19]], [[0.0]])


def fit(net: Any, loss: Any, optimizer: Any, x: Any, y: Any, **options: Any) -> Any:
    options = {"n_epochs": 3, "batch_size": 4, "rng": np.random.default_rng(0), "engine": "numba"} | options
    return nn.fit(net, loss, optimizer, x, y, **options)


def test_a_schedule_that_fails_does_so_at_its_step() -> None:
    x, y = data(40, 3)
    states = []
    for name in ("numpy", "numba"):
        net, optimizer = network(3, 4, 1), nn.SGD(lambda step: 0.1 if step < 13 else -1.0)
        with pytest.raises(ValueError, match="the learning rate of step 13 is -1.0"):
            fit(net, nn.MeanSquaredError(), optimizer, x, y, engine=name)
        assert optimizer.n_steps == 13
        states.append(net.params.vector)
    close(states[0], states[1], 1e-12)


def test_what_is_no_probability_is_named() -> None:
    x, y = data(40, 3)
    states = []
    for name in ("numpy", "numba"):
        net = network(3, 4, 1)
        net.params["2.b"] = [0.5]
        with pytest.raises(ValueError, match="takes probabilities in .0, 1., got"):
            fit(net, nn.BinaryCrossEntropy(), nn.SGD(0.5), x, y, engine=name)
        states.append(net.params.vector)
    close(states[0], states[1], 1e-12)


class Doubled(nn.ReLU):
    """A layer of one's own."""

    def forward(self, x: Any, rng: Any = None) -> Any:
        y, cache = super().forward(2 * x, rng)
        return y, cache

    def backward(self, dy: Any, cache: Any) -> Any:
        dx, grads = super().backward(dy, cache)
        return 2 * dx, grads


def test_what_the_engine_does_not_know_runs_on_numpy_and_is_named() -> None:
    class OwnLoss(nn.MeanSquaredError):
        pass

    class OwnSgd(nn.SGD):
        pass

    x, y = data(40, 3)
    own = nn.Sequential([nn.Dense(3, 2), Doubled(), nn.Dense(2, 1)], rng=np.random.default_rng(0))
    for net, loss, optimizer, message in [
        (
            own,
            nn.MeanSquaredError(),
            nn.SGD(0.1),
            "has no kernels for the layers of Sequential([Dense(3, 2), Doubled(), ",
        ),
        (network(3, 1), OwnLoss(), nn.SGD(0.1), "does not know the loss OwnLoss()"),
        (network(3, 1), nn.MeanSquaredError(), OwnSgd(0.1), "does not know the optimizer OwnSgd"),
    ]:
        before = net.params.vector.copy()
        with pytest.raises(ValueError, match=re.escape(f"engine='numba' is not possible: the engine {message}")):
            fit(net, loss, optimizer, x, y)
        np.testing.assert_array_equal(net.params.vector, before)
        results = []
        for name in ("auto", "numpy"):
            twin, its_optimizer = copy.deepcopy((net, optimizer))
            fit(twin, loss, its_optimizer, x, y, engine=name, n_epochs=2)
            results.append(twin.params.vector)
        np.testing.assert_array_equal(results[0], results[1])


def test_auto_goes_by_the_work_alone() -> None:
    x, y = data(4, 2)
    small, large = network(2, 4, 1), network(100, 64, 32, 1)
    assert not engine.is_worth_it(small, x, n_epochs=1000, batch_size=4)
    assert engine.is_worth_it(small, x, n_epochs=100_000, batch_size=4)
    assert engine.is_worth_it(large, np.zeros((30_000, 100)), n_epochs=20, batch_size=32)
    assert not engine.is_worth_it(large, np.zeros((300, 100)), n_epochs=20, batch_size=32)
    wide = network(100_000, 16, 1)
    assert engine.is_worth_it(wide, scipy.sparse.csr_array((1000, 100_000)), n_epochs=10, batch_size=32)
    del y


@pytest.mark.usefixtures("pythons_own_handler")
def test_ctrl_c_ends_after_whole_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pressed while a chunk's rates are asked for, it ends the run after that chunk; all its steps are done."""
    monkeypatch.setattr(engine, "CHUNK", 0.0)

    def rate(step: int) -> float:
        if step == 13:
            signal.raise_signal(signal.SIGINT)
        return 0.1

    x, y = data(40, 3)
    net, optimizer = network(3, 4, 1), nn.SGD(rate)
    history = fit(net, nn.MeanSquaredError(), optimizer, x, y)
    assert history.stop_reason == "interrupted" and optimizer.n_steps == 14 and len(history["loss"]) == 1
    other, reference = network(3, 4, 1), nn.SGD(0.1)
    rng = np.random.default_rng(0)
    for _ in range(2):
        order = rng.permutation(40)
        for first in range(0, 40, 4):
            if reference.n_steps < 14:
                rows = order[first : first + 4]
                reference.step(other.params, nn.objective(other, nn.MeanSquaredError(), x[rows], y[rows])[1])
    close(net.params.vector, other.params.vector, 1e-12)


def test_the_engine_keeps_no_reference() -> None:
    x, y = data(40, 3)
    net, optimizer = network(3, 4, 1), nn.Adam()
    fit(net, nn.MeanSquaredError(), optimizer, x, y)
    counts = [sys.getrefcount(a) for a in (net.params.vector, optimizer.state["m"], optimizer.state["v"], x)]
    fit(net, nn.MeanSquaredError(), optimizer, x, y)
    assert counts == [sys.getrefcount(a) for a in (net.params.vector, optimizer.state["m"], optimizer.state["v"], x)]


@pytest.mark.parametrize("name", ["read-only", "Fortran order", "strided", "reversed"])
def test_memory_layouts_of_x(name: str) -> None:
    """Whatever lies in memory how, the numbers and the compiled functions are the same."""
    x, y = data(40, 6)
    x_of_layout = {
        "read-only": np.copy(x),
        "Fortran order": np.asfortranarray(x),
        "strided": np.repeat(x, 2, axis=1)[:, ::2],
        "reversed": x[::-1].copy()[::-1],
    }[name]
    x_of_layout.flags.writeable = name != "read-only"
    n_compiled = len(engine.kernels().train.signatures)
    nets = network(6, 4, 1), network(6, 4, 1)
    for net, its_x in zip(nets, (x, x_of_layout), strict=True):
        fit(net, nn.MeanSquaredError(), nn.SGD(0.1), its_x, y, validation_data=(its_x, y))
    np.testing.assert_array_equal(nets[0].params.vector, nets[1].params.vector)
    np.testing.assert_array_equal(nn.freeze(nets[0])(x), nn.freeze(nets[0])(x_of_layout))
    assert len(engine.kernels().train.signatures) in (n_compiled, 1, 2)


def test_csr_arrays_that_point_outside_are_refused() -> None:
    _, y = data(3, 4)
    good = scipy.sparse.csr_array(np.eye(3, 4))
    for part, values in [
        ("indices", [0, 1, 4]),
        ("indices", [0, -1, 2]),
        ("indptr", [0, 2, 1, 3]),
        ("indptr", [0, 1, 2, 9]),
    ]:
        bad = good.copy()
        setattr(bad, part, np.array(values, np.int32))
        with pytest.raises(ValueError, match="indices outside"):
            engine.csr(bad, np.float64)
    fit(network(4, 2, 1), nn.MeanSquaredError(), nn.SGD(0.1), good, y)


def test_a_million_features_in_bounded_memory() -> None:
    """SGD with decay on 10^6 features: beside the parameters, their copy for the start of the epoch and 12 bytes a feature."""
    n_features, n_out = 1_000_000, 4
    rng = np.random.default_rng(0)
    indices = rng.integers(0, n_features, 64 * 20).astype(np.int32)
    x = scipy.sparse.csr_array((np.ones(64 * 20), indices, np.arange(65) * 20), shape=(64, n_features))
    y = rng.uniform(size=64)
    net = nn.Sequential([nn.Dense(n_features, n_out), nn.ReLU(), nn.Dense(n_out, 1)], rng=rng, dtype=np.float32)
    before, first_top = net.params["0.W"].copy(), net.params["2.W"].copy()
    small = nn.Sequential([nn.Dense(3, 1)], rng=rng, dtype=np.float32)
    fit(
        small, nn.MeanSquaredError(), nn.SGD(0.1), scipy.sparse.csr_array(np.eye(3)), y[:3]
    )  # compiles, which takes memory
    tracemalloc.start()
    optimizer = nn.SGD(0.1, weight_decay=0.5)
    fit(net, nn.MeanSquaredError(), optimizer, x, y, batch_size=16, n_epochs=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * net.params.vector.nbytes + 30 * n_features
    absent = np.ones(n_features, bool)
    absent[indices] = False
    np.testing.assert_allclose(net.params["0.W"][absent], before[absent] * 0.95**8, rtol=1e-5)
    other = nn.Sequential([nn.Dense(n_features, n_out), nn.ReLU(), nn.Dense(n_out, 1)], rng=None, dtype=np.float32)
    other.params["0.W"], other.params["0.b"] = before, np.zeros(n_out)
    other.params["2.W"], other.params["2.b"] = first_top, np.zeros(1)
    fit(other, nn.MeanSquaredError(), nn.SGD(0.1, weight_decay=0.5), x, y, batch_size=16, n_epochs=2, engine="numpy")
    np.testing.assert_allclose(net.params.vector, other.params.vector, rtol=2e-5, atol=1e-8)


def test_the_product_is_three_loops() -> None:
    """The tile against its twin, for all remainders, strides of A and A.T, rows of S that repeat, and both dtypes."""
    from numba import njit

    from nnprofile.engine.products import product

    @njit
    def call(a: Any, a_row: int, a_step: int, b: Any, s: Any, s_row: int, c: Any, n: int, k: int, m: int) -> None:
        product(a, 3, a_row, a_step, b, 2, m, s, 1, s_row, c, 4, m, n, k, m)

    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for n, k, m in [
            (1, 1, 1),
            (4, 3, 16),
            (5, 0, 8),
            (7, 9, 33),
            (3, 2, 15),
            (8, 70, 31),
            (13, 5, 17),
            (0, 2, 3),
            (2, 2, 0),
        ]:
            for transposed in (False, True):
                for s_row in (0, m):
                    a = rng.normal(size=n * k + 3).astype(dtype)
                    b = rng.normal(size=k * m + 2).astype(dtype)
                    s, c = rng.normal(size=n * m + 1 + m).astype(dtype), np.full(n * m + 9, 7, dtype)
                    a_row, a_step = (1, n) if transposed else (k, 1)
                    call(a, a_row, a_step, b, s, s_row, c, n, k, m)
                    expected = np.empty((n, m), dtype)
                    for i in range(n):
                        for j in range(m):
                            total = float(s[1 + i * s_row + j])
                            for p in range(k):
                                total += float(a[3 + i * a_row + p * a_step]) * float(b[2 + p * m + j])
                            expected[i, j] = total
                    got = c[4 : 4 + n * m].reshape(n, m)
                    np.testing.assert_allclose(got, expected, rtol=0, atol=30 * np.finfo(dtype).eps * (k + 1))
                    assert (c[:4] == 7).all() and (c[4 + n * m :] == 7).all()  # nothing is written beside C


def test_exp_and_log1p_have_all_their_digits() -> None:
    """Within two units in the last place of NumPy's long double, over the range and at its ends."""
    from numba import njit

    from nnprofile.engine import elementary

    @njit
    def call(x: Any, e: Any, u: Any, l: Any) -> None:
        for i in range(x.size):
            e[i], l[i] = elementary.exp(x[i]), elementary.log1p(u[i])

    rng = np.random.default_rng(0)
    for dtype, lowest in ((np.float32, -104.0), (np.float64, -746.0)):
        x = np.concatenate([-rng.exponential(5, 4000), -rng.uniform(0, 1e-3, 1000), np.linspace(lowest, 0, 3000)])
        x = np.maximum(x, lowest).astype(dtype)
        u = rng.uniform(0, 1, x.size).astype(dtype)
        u[:3] = 0, 1, 1e-30
        found = [np.empty_like(x) for _ in range(2)]
        call(x, found[0], u, found[1])
        for f, argument, value in zip((np.exp, np.log1p), (x, u), found, strict=True):
            exact = f(argument.astype(np.longdouble))
            unit = np.spacing(np.maximum(np.abs(exact), np.finfo(dtype).smallest_subnormal).astype(dtype))
            assert (np.abs(value - exact) <= 2 * unit).all(), f
        ends = np.array([0, -0.0, -np.inf, np.nan, 2 * lowest], dtype)
        e, l = np.empty_like(ends), np.empty_like(ends)
        call(ends, e, np.array([0, 1, np.nan, 0, 0], dtype), l)
        np.testing.assert_array_equal(e, np.array([1, 1, 0, np.nan, 0], dtype))
        assert np.isnan(l[2]) and l[0] == 0


# Units in the last place, at most, as ``elementary`` states them: of float32, and of float64.
DIGITS = {
    "exp": (1.3, 1.3),
    "expm1": (1.6, 1.6),
    "log1p": (2, 2),
    "sigmoid": (3, 3),
    "sigmoid of -x": (3, 3),
    "tanh": (3, 3),
    "slope of tanh": (6, 6),
    "density": (2.5, 2.5),
    "tail": (4.5, 12),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elementary_functions_over_all_exponents(dtype: Any) -> None:
    """Against long doubles: normal results as stated, subnormal ones to three of the smallest numbers, and the ends."""
    from numba import njit

    from nnprofile.engine import elementary

    @njit
    def call(x: Any, out: Any) -> None:
        for i in range(x.size):
            a = abs(x[i])
            u = a if a <= 1 else elementary.like(a, 1) / a
            out[0, i], out[2, i] = elementary.exp(x[i]), elementary.log1p(u)
            out[1, i] = elementary.expm1(min(x[i], elementary.like(a, 80)))
            out[3, i], out[4, i] = elementary.sigmoid_parts(x[i])
            out[5, i], out[6, i] = elementary.tanh_parts(x[i])
            out[7, i], out[8, i] = elementary.normal(a)

    rng, info = np.random.default_rng(0), np.finfo(dtype)
    exponents = np.repeat(np.arange(info.minexp - info.nmant, info.maxexp), 20)
    x = np.ldexp(1 + rng.random(exponents.size), exponents) * rng.choice([-1, 1], exponents.size)
    x = np.concatenate([x, rng.normal(0, 3, 30_000), rng.uniform(-100, 100, 20_000), rng.uniform(-750, 750, 10_000)])
    with np.errstate(over="ignore"):
        x = x.astype(dtype)
    x = x[np.isfinite(x)]
    out = np.empty((len(DIGITS), x.size), dtype)
    call(x, out)
    exact = x.astype(np.longdouble)
    a = np.abs(exact)
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        u = np.where(a <= 1, np.abs(x), dtype(1) / np.abs(x)).astype(np.longdouble)
        e, e2, density = np.exp(-a), np.exp(-2 * a), np.exp(-a * a / 2)
        large, small = 1 / (1 + e), e / (1 + e)
        tail = density * scipy.special.erfcx(np.minimum(a, 1e9).astype(np.float64) / np.sqrt(2.0)) / 2
        slope = 4 * e2 / (1 + e2) ** 2
        expected = [np.exp(exact), np.expm1(np.minimum(exact, 80)), np.log1p(u), np.where(x >= 0, large, small)]
        expected += [np.where(x >= 0, small, large), np.tanh(exact), slope, density, tail]
        for (name, most), value, right in zip(DIGITS.items(), out, expected, strict=True):
            too_large = np.isinf(right.astype(dtype))
            assert np.isinf(value[too_large]).all(), name
            value, right = value[~too_large], right[~too_large]
            unit = np.spacing(np.maximum(np.abs(right), info.smallest_subnormal).astype(dtype))
            error = np.abs(value - right) / unit
            is_normal = np.abs(right) >= info.tiny
            assert error[is_normal].max() <= most[dtype is np.float64], (name, error[is_normal].max())
            assert error[~is_normal].max(initial=0) <= 3, name
    ends = np.array([np.nan, np.inf, -np.inf, 0, -0.0], dtype)
    out = np.empty((len(DIGITS), ends.size), dtype)
    call(ends, out)
    assert np.isnan(out[:, 0][[0, 2, 3, 4, 5, 6, 7, 8]]).all()
    np.testing.assert_array_equal(out[[0, 3, 4, 5, 6], 1], [np.inf, 1, 0, 1, 0])
    np.testing.assert_array_equal(out[[0, 1, 3, 4, 5, 6], 2], [0, -1, 0, 1, -1, 0])
    np.testing.assert_array_equal(out[[0, 1, 2, 3, 5, 6, 7, 8], 3], [1, 0, 0, 0.5, 0, 1, 1, 0.5])


def test_the_normal_distribution_has_its_digits() -> None:
    from numba import njit

    from nnprofile.engine import elementary

    @njit
    def call(x: Any, density: Any, above: Any) -> None:
        for i in range(x.size):
            density[i], above[i] = elementary.normal(x[i])

    for dtype, last in ((np.float32, 13.0), (np.float64, 37.0)):
        x = np.concatenate([np.linspace(0, last, 3001), np.geomspace(1e-30, 1, 500)]).astype(dtype)
        density, above = np.empty_like(x), np.empty_like(x)
        call(x, density, above)
        exact = x.astype(np.longdouble)
        np.testing.assert_allclose(density, np.exp(-exact * exact / 2).astype(dtype), rtol=3 * np.finfo(dtype).eps)
        share = np.exp(-exact * exact / 2) * scipy.special.erfcx(x / np.sqrt(2.0)) / 2
        np.testing.assert_allclose(above, share.astype(dtype), rtol=8 * np.finfo(dtype).eps)
        ends = np.array([0, 1e4, np.inf, np.nan], dtype)
        call(ends, density, above)
        np.testing.assert_array_equal(density[:4], np.array([1, 0, 0, np.nan], dtype))
        assert above[0] == 0.5 and not above[1:2].any() and np.isnan(above[3])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("behind", [[], [nn.Dropout(0.3)], [nn.LayerNorm(3)], [nn.Sigmoid(), nn.Exp()]], ids=repr)
def test_exp_in_a_network(dtype: Any, behind: list[nn.Layer], rng: np.random.Generator) -> None:
    """It reads its own output in the backward pass, so nothing may write over that."""
    nets = [
        nn.Sequential(
            [nn.Dense(2, 3), nn.Exp(), *copy.deepcopy(behind), nn.Dense(3, 2)],
            rng=np.random.default_rng(0),
            dtype=dtype,
        )
        for _ in range(2)
    ]
    exact = dtype is np.float64
    x, y = 0.5 * rng.normal(size=(50, 2)), rng.poisson(2, (50, 2)).astype(float)
    for net, name in zip(nets, ("numpy", "numba"), strict=True):
        fit(net, nn.PoissonLoss(), nn.SGD(0.001, weight_decay=0.1), x, y, n_epochs=3, batch_size=7, engine=name)
    close = {"rtol": 1e-9, "atol": 1e-12} if exact else {"rtol": 1e-3, "atol": 1e-4}
    np.testing.assert_allclose(nets[1].params.vector, nets[0].params.vector, **close)
    frozen = nn.freeze(nets[0], nn.PoissonLoss())
    assert frozen.compiled
    np.testing.assert_allclose(frozen(x), np.exp(nets[0].predict(x)), rtol=1e-9 if exact else 1e-4)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_what_overflows_before_an_activation(dtype: Any) -> None:
    for layer in (nn.GELU(), nn.Tanh(), nn.Sigmoid(), nn.ReLU(), nn.Exp(), nn.LeakyReLU()):
        net = nn.Sequential([nn.Dense(1, 1), layer], rng=None, dtype=dtype)
        net.params.vector = [10.0, 0.0]
        x = np.array([[np.finfo(dtype).max], [-np.finfo(dtype).max]], dtype)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(nn.freeze(net)(x), net.predict(x), err_msg=repr(layer))


Z = np.array([s * z for z in (1e-300, 1e-3, 1.0, 20.0, 36.5, 80.0, 700.0, 1e30) for s in (1, -1)])


@pytest.mark.parametrize(
    "layer", [layer for layer in layers(COMPILED) if isinstance(layer, Elementwise)], ids=lambda layer: repr(layer)
)
def test_activations_keep_their_digits_at_the_ends(layer: nn.Layer) -> None:
    """A step of lr 1 on W = 1: what it moves by is the slope, and its last digits are compared, not its size."""
    for z in Z:
        nets = []
        for name in ("numpy", "numba"):
            net = nn.Sequential([nn.Dense(1, 1), copy.deepcopy(layer)], rng=None)
            net.params.vector = [0.0, z]
            fit(
                net,
                Linear() if name == "numpy" else nn.MeanAbsoluteError(),
                nn.SGD(1.0),
                [[1.0]],
                [[-2e30]],
                n_epochs=1,
                engine=name,
            )
            nets.append(net.params["0.W"][0, 0])
        np.testing.assert_allclose(nets[1], nets[0], rtol=1e-13)


class Linear(nn.MeanAbsoluteError):
    """The same loss: NumPy's path takes it, so that nothing of the engine is in the reference."""


@pytest.mark.parametrize(
    ("loss", "targets"),
    [(nn.SigmoidCrossEntropy(), [0.0, 0.3, 1.0]), (nn.BinaryCrossEntropy(), [0.0, 0.3, 1.0]), (nn.Huber(2.0), [0.0])],
    ids=lambda value: repr(value),
)
def test_losses_keep_their_digits_at_the_ends(loss: nn.Loss, targets: list[float]) -> None:
    """The objective and the gradient of one output, each to the last digits; infinite where the reference is."""
    outputs = [0.0, 1e-300, 1e-17, 0.3, 1 - 1e-16, 1.0] if isinstance(loss, nn.BinaryCrossEntropy) else Z
    for z in outputs:
        for t in targets:
            found = []
            for name in ("numpy", "numba"):
                net = nn.Sequential([nn.Dense(1, 1)], rng=None)
                net.params.vector = [0.0, z]
                try:
                    history = fit(net, loss, nn.SGD(1.0), [[1.0]], [[t]], n_epochs=1, engine=name)
                    found.append((history["loss"][0], net.params["0.W"][0, 0]))
                except nn.DivergenceError as error:
                    found.append((np.inf, str(error)))
            if np.isinf(found[0][0]):
                assert found[0] == found[1]
            else:
                np.testing.assert_allclose(found[1], found[0], rtol=1e-13, err_msg=f"{z} {t}")


def test_softmax_keeps_its_digits_where_one_class_is_certain_and_over_many() -> None:
    for k, gap in ((3, 40.0), (3, -40.0), (2, 300.0), (2000, 0.0)):
        logits = np.random.default_rng(0).normal(size=k)
        logits[0] += gap
        rows = np.full((1, k), 0.1 / (k - 1))
        rows[0, 0] = 0.9
        for y in ([0], [1], rows):
            moved = []
            for name in ("numpy", "numba"):
                net = nn.Sequential([nn.Dense(1, k)], rng=None)
                net.params.vector = np.concatenate([np.zeros(k), logits])
                fit(net, nn.SoftmaxCrossEntropy(), nn.SGD(1.0), [[1.0]], y, n_epochs=1, engine=name)
                moved.append(net.params["0.W"][0].copy())
            np.testing.assert_allclose(
                moved[1], moved[0], rtol=1e-12, atol=1e-18 if k == 2000 else 0
            )  # p - t, nearly equal
    net = nn.Sequential([nn.Dense(1, 100_000), nn.Softmax()], rng=np.random.default_rng(0), dtype=np.float32)
    net.params["0.b"] = 2 * np.random.default_rng(1).normal(size=100_000)
    assert abs(nn.freeze(net)(np.zeros((1, 1), np.float32)).sum(dtype=np.float64) - 1) < 1e-6


@pytest.mark.parametrize("optimizer", [nn.SGD(0.05, weight_decay=10.0), nn.Adam(0.05, weight_decay=10.0, lazy=True)])
def test_decay_that_comes_to_nothing_is_paid_in_time(optimizer: Any) -> None:
    """1,300 steps of 1/2 an epoch: their product is less than any number, and nothing may be divided by it."""
    rng = np.random.default_rng(0)
    x, y = sparse_rows(rng, 2600, 12, 0.2), rng.uniform(size=(2600, 1))
    job = {"net": network(12, 4, 1), "loss": nn.MeanSquaredError(), "optimizer": optimizer, "x": x, "y": y}
    check_float64(job | {"batch_size": 2, "n_epochs": 2})


@pytest.mark.parametrize("weight_decay", [100.0, 150.0, 200.0])
@pytest.mark.parametrize("kind", [nn.SGD, lambda rate, **options: nn.Adam(rate, lazy=True, **options)])
def test_decay_beyond_zero(weight_decay: float, kind: Any) -> None:
    """lr * weight_decay of 1, 1.5 and 2: W is wiped out, or changes its sign."""
    rng = np.random.default_rng(0)
    x, y = sparse_rows(rng, 64, 12, 0.2), rng.uniform(size=(64, 1))
    job = {"net": network(12, 4, 1), "loss": nn.MeanSquaredError(), "x": x, "y": y, "batch_size": 8, "n_epochs": 2}
    check_float64(job | {"optimizer": kind(0.01, weight_decay=weight_decay)})


def test_a_row_that_never_occurs_and_is_not_finite_is_divergence() -> None:
    rng = np.random.default_rng(0)
    x, y = sparse_rows(rng, 20, 6, 0.5).toarray(), rng.uniform(size=20)
    x[:, 5] = 0
    net = network(6, 3, 1)
    net.params["0.W"][5, 1] = np.nan
    with pytest.raises(nn.DivergenceError, match="epoch 0, step 0"):
        fit(net, nn.MeanSquaredError(), nn.SGD(0.1), scipy.sparse.csr_array(x), y)


def test_training_and_validation_data_may_differ_in_kind() -> None:
    x, y = data(40, 30)
    losses = [
        fit(network(30, 4, 1), nn.MeanSquaredError(), nn.SGD(0.01), a, y, validation_data=(b, y))["val_loss"]
        for a in (x, scipy.sparse.csr_array(x))
        for b in (x, scipy.sparse.csr_array(x))
    ]
    np.testing.assert_allclose(losses, [losses[0]] * 4, rtol=1e-12)


def test_moments_that_were_tampered_with_are_refused() -> None:
    """The kernels trust their arrays, so this is where a wrong one has to stop."""
    x, y = data(40, 3)
    bad: list[Any] = [{}, {"m": np.zeros(1), "v": np.zeros(1)}, {"m": np.zeros(21), "v": np.zeros(42)[::2]}]
    for state in bad:
        net, optimizer = network(3, 4, 1), nn.Adam()
        fit(net, nn.MeanSquaredError(), optimizer, x, y)
        before = net.params.vector.copy()
        optimizer.state = state
        with pytest.raises(ValueError, match="make a new optimizer where its moments have been changed"):
            fit(net, nn.MeanSquaredError(), optimizer, x, y)
        np.testing.assert_array_equal(net.params.vector, before)
    optimizer = nn.SGD(0.1)
    fit(network(3, 4, 1), nn.MeanSquaredError(), optimizer, x, y)
    optimizer.momentum = 0.9
    with pytest.raises(ValueError, match="needs v"):
        fit(network(3, 4, 1), nn.MeanSquaredError(), optimizer, x, y)


def test_parameters_that_do_not_lie_in_one_piece_are_trained_by_numpy() -> None:
    x, y = data(40, 3)
    base = network(3, 4, 1)
    n = base.params.vector.size
    memory = np.full(2 * n, 7.0)
    for strided in (memory[::2], memory[:n:1][::-1]):
        strided[:] = base.params.vector
        net = base.with_params(nn.Parameters(base.params.layout, strided))
        with pytest.raises(ValueError, match="in one piece of memory"):
            fit(net, nn.MeanSquaredError(), nn.SGD(0.1), x, y)
        fit(net, nn.MeanSquaredError(), nn.SGD(0.1), x, y, engine="auto")
        np.testing.assert_allclose(nn.freeze(net)(x), net.predict(x), rtol=1e-12)
    for dtype in (np.float16, np.longdouble, ">f8"):
        net = base.with_params(nn.Parameters(base.params.layout, base.params.vector.astype(dtype)))
        assert not nn.freeze(net).compiled
        with pytest.raises(ValueError, match="takes float32 and float64"):
            fit(net, nn.MeanSquaredError(), nn.SGD(0.1), x, y)


def test_what_a_callback_changes_counts() -> None:
    x, y = data(40, 12)
    results = []
    for name in ("numpy", "numba"):
        net = network(12, 8, 1)
        net = nn.Sequential([*copy.deepcopy(net.layers[:2]), nn.Dropout(0.5), *copy.deepcopy(net.layers[2:])], rng=None)
        optimizer = nn.SGD(0.05, momentum=0.5)

        def change(epoch: int, logs: Any, net: Any, optimizer: Any = optimizer) -> None:
            net.layers[2].rate = 0.1
            optimizer.weight_decay, optimizer.momentum, optimizer.learning_rate = 0.3, 0.9, 1 / 32

        fit(net, nn.MeanSquaredError(), optimizer, x, y, n_epochs=4, engine=name, callbacks=[change])
        results.append(net.params.vector)
    close(results[0], results[1], 1e-10)


def test_batches_larger_than_the_data_and_csr_with_room_to_spare() -> None:
    x, y = data(40, 12, sparse=True)
    roomy = x.copy()
    roomy.indices = np.concatenate([x.indices, np.full(9, 10**6, np.int32)])
    roomy.data = np.concatenate([x.data, np.full(9, np.nan)])
    results = []
    for features, batch_size in ((x, 40), (x, sys.maxsize), (roomy, 40)):
        net = network(12, 8, 1)
        run = engine.runner(net, nn.MeanSquaredError(), nn.SGD(0.1), features, y, None, batch_size, 0.0)
        list(run(np.arange(40), np.random.default_rng(0)))
        results.append(net.params.vector)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    too_wide = scipy.sparse.csr_array((np.ones(1), np.array([2**32 + 5]), np.array([0, 1])), shape=(1, 2**33))
    with pytest.raises(ValueError, match="too many features"):
        engine.csr(too_wide, np.float64)


def test_numbers_of_other_types_compile_nothing_anew() -> None:
    x, y = data(40, 3)
    fit(network(3, 4, 1), nn.MeanSquaredError(), nn.SGD(0.1), x, y)
    n_compiled = len(engine.kernels().train.signatures)
    optimizer = nn.SGD(0.1)
    optimizer.learning_rate, optimizer.weight_decay, optimizer.n_steps = 1, np.float32(0), np.int32(0)
    fit(network(3, 4, 1), nn.MeanSquaredError(), optimizer, x, y)
    optimizer.learning_rate = np.float32(0.1)
    fit(network(3, 4, 1), nn.MeanSquaredError(), optimizer, x, y)
    assert len(engine.kernels().train.signatures) == n_compiled


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_too_small_to_be_normal_are_zero_in_the_engine_and_nowhere_else(dtype: Any) -> None:
    """Behind a ReLU that never opens only L2 moves the weights: towards 0, below the least normal number."""
    tiny = np.finfo(dtype).tiny
    net = nn.Sequential([nn.Dense(2, 2), nn.ReLU(), nn.Dense(2, 1)], rng=np.random.default_rng(0), dtype=dtype)
    net.params["0.b"] = [-100.0, -100.0]
    x, y = np.ones((4, 2), dtype), np.ones(4)
    run = (net, nn.MeanSquaredError(), nn.Adam(1e-3), x, y)
    nn.fit(*run, n_epochs=20_000, batch_size=4, l2=1e-3, rng=np.random.default_rng(0), engine="numba")
    W = np.abs(net.params["0.W"])
    assert W.max() < tiny**0.75
    if platform.machine().lower() in ("x86_64", "amd64"):
        assert ((W == 0) | (tiny <= W)).all()
    assert (np.array([tiny / 8, tiny / 4], dtype) * dtype(1) > 0).all()  # NumPy has its subnormal numbers back


def test_an_engine_chosen_for_a_context(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(20, 3)), rng.integers(2, size=20)

    def trained(**how: Any) -> np.ndarray:
        net = nn.Sequential([nn.Dense(3, 4), nn.Tanh(), nn.Dense(4, 1)], rng=np.random.default_rng(0), dtype=np.float32)
        nn.fit(net, nn.SigmoidCrossEntropy(), nn.SGD(0.1), x, y, n_epochs=5, rng=np.random.default_rng(1), **how)
        return net.params.vector.copy()

    numpy, numba = trained(engine="numpy"), trained(engine="numba")
    assert not np.array_equal(numpy, numba)  # to rounding only
    np.testing.assert_array_equal(trained(), numpy)  # so little work
    with nn.use_engine("numba"):
        np.testing.assert_array_equal(trained(), numba)
        np.testing.assert_array_equal(trained(engine="numpy"), numpy)
        with nn.use_engine("auto"):
            np.testing.assert_array_equal(trained(), numpy)
        with ThreadPoolExecutor(1) as pool:
            np.testing.assert_array_equal(pool.submit(trained).result(), numpy)
        plain = nn.Sequential([nn.Dense(3, 3), nn.Residual(nn.Dense(3, 3)), nn.Dense(3, 1)], rng=rng)
        with pytest.raises(ValueError, match=r"engine='numba' is not possible.*Residual"):
            nn.fit(plain, nn.SigmoidCrossEntropy(), nn.SGD(0.1), x, y, n_epochs=1, rng=rng)
    net = nn.Sequential([nn.Dense(3, 1)], rng=rng)
    assert nn.freeze(net).compiled
    with nn.use_engine("numpy"):
        frozen = nn.freeze(net)
        assert not frozen.compiled
        np.testing.assert_array_equal(frozen(x), net.predict(x))
    with pytest.raises(RuntimeError), nn.use_engine("numba"):
        raise RuntimeError
    np.testing.assert_array_equal(trained(), numpy)
    with (
        pytest.raises(ValueError, match="engine must be 'auto', 'numpy' or 'numba', got 'cuda'"),
        nn.use_engine("cuda"),
    ):
        pass
