"""Twins: networks of sequences and branches, with the layers compiled one by one, against the layers themselves."""

from __future__ import annotations

import copy
import os
import pickle
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn
from nnprofile import engine
from nnprofile.contract import numbers_of
from nnprofile.engine.memory import Memory
from nnprofile.engine.program import TWINNED
from nnprofile.engine.twins import TWINS

MIXING = [
    lambda n: nn.RNN(n, 3),
    lambda n: nn.GRU(n, 5),
    lambda n: nn.LSTM(n, 4),
    lambda n: nn.Conv1D(n, 4, 3),
    lambda n: nn.Conv1D(n, 2, 3, dilation=2, causal=False),
    lambda n: nn.SelfAttention(n, 1),
    lambda n: nn.SelfAttention(n, n, causal=False),
    lambda n: nn.PositionalEmbedding(40, n),
    lambda n: nn.LayerNorm(n),
    lambda n: nn.Tanh(),
    lambda n: nn.Sigmoid(),
    lambda n: nn.GELU(),
    lambda n: nn.ReLU(),
    lambda n: nn.LeakyReLU(0.2),
    lambda n: nn.Softmax(),
    lambda n: nn.Exp(),
    lambda n: nn.Identity(),
    lambda n: nn.Dense(n, 3),
    lambda n: nn.Residual([nn.SelfAttention(n, 1), nn.Tanh()]),
    lambda n: nn.Concatenate([nn.GRU(n, 2), nn.Conv1D(n, 3, 2)]),
]
POOLINGS = [nn.LastEvent, nn.MeanOverEvents, nn.MaxOverEvents]
DTYPES = [np.float64, np.float32]


def both_ways(net: nn.Layer, x: Any, rng: np.random.Generator) -> None:
    """A network and its twin agree in y, dx and all gradients."""
    twin, dtype = engine.compiled(net), net.params.dtype
    (y, cache), (y_twin, cache_twin) = net.forward(x), twin.forward(x)
    assert type(y) is type(y_twin) and numbers_of(y_twin).dtype == numbers_of(y).dtype
    close = {"rtol": 1e-9, "atol": 1e-10} if dtype == np.float64 else {"rtol": 2e-3, "atol": 2e-4}
    np.testing.assert_allclose(numbers_of(y_twin), numbers_of(y), **close)
    dy = rng.normal(size=numbers_of(y).shape).astype(dtype)
    (dx, grads), (dx_twin, grads_twin) = net.backward(dy, cache), twin.backward(dy, cache_twin)
    assert (dx is None) == (dx_twin is None)
    if dx is not None:
        np.testing.assert_allclose(dx_twin, dx, **close)
    np.testing.assert_allclose(grads_twin.vector, grads.vector, **close)
    assert {name: rows.tolist() for name, rows in grads_twin.rows.items()} == {
        name: rows.tolist() for name, rows in grads.rows.items()
    }
    again = twin.backward(dy, cache_twin)[1].vector  # a cache is not used up
    np.testing.assert_array_equal(again, grads_twin.vector)


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=9),
    parts=st.lists(st.integers(0, len(MIXING) - 1), min_size=1, max_size=3),
    width=st.sampled_from([1, 2, 3, 8, 17]),
    pooling=st.integers(-1, len(POOLINGS) - 1),
    ids=st.booleans(),
)
def test_a_twin_computes_what_its_network_does(
    dtype: Any, seed: int, lengths: list[int], parts: list[int], width: int, pooling: int, ids: bool
) -> None:
    rng = np.random.default_rng(seed)
    n_events, offsets = sum(lengths), np.concatenate([[0], np.cumsum(lengths)])
    layers: list[nn.Layer] = [nn.Embedding(6, width)] if ids else []
    for i in parts:
        now = nn.Sequential(copy.deepcopy(layers), rng=None).output_width(width) if layers else width
        layers.append(MIXING[i](now or width))
    layers += [POOLINGS[pooling]()] if pooling >= 0 else []
    net = nn.Sequential(layers, rng=rng, dtype=dtype)
    values: Any = rng.integers(0, 6, n_events) if ids else rng.normal(size=(n_events, width)).astype(dtype)
    x = nn.Ragged(values, offsets)
    if any(type(layer) in TWINNED for layer in engine.every(net)):
        both_ways(net, x, rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_lies_otherwise_in_memory(dtype: Any, rng: np.random.Generator) -> None:
    """Strided, read-only and Fortran-ordered values."""
    net = nn.Sequential([nn.GRU(4, 4), nn.Conv1D(4, 4, 2), nn.SelfAttention(4, 2), nn.Tanh()], rng=rng, dtype=dtype)
    values, offsets = rng.normal(size=(20, 8)).astype(dtype), [0, 3, 3, 12, 20]
    read_only = values[:, :4].copy()
    read_only.flags.writeable = False
    for some in (values[:, ::2], np.asfortranarray(values[:, :4]), read_only, np.repeat(values[:, :4], 2, axis=0)[::2]):
        both_ways(net, nn.Ragged(some, offsets), rng)


def test_every_layer_that_is_promised_has_a_twin() -> None:
    assert set(TWINNED) <= set(TWINS)
    for cls, twin in TWINS.items():
        assert issubclass(twin, cls) and twin.__name__.lstrip("_") == cls.__name__


def test_what_kernels_do_not_take_goes_to_the_layer(rng: np.random.Generator) -> None:
    """Complex numbers, another dtype, no events; and errors are the layer's own."""
    net = nn.Sequential([nn.GRU(3, 3), nn.SelfAttention(3, 1), nn.LastEvent()], rng=rng)
    twin = engine.compiled(net)
    x = rng.normal(size=(5, 3))
    for values in (x + 1e-20j, x.astype(np.float32)):
        some = nn.Ragged(values, [0, 2, 5])
        y, _ = twin.forward(some)
        np.testing.assert_array_equal(y, net.forward(some)[0])
        assert y.dtype == net.forward(some)[0].dtype
    assert twin.forward(nn.Ragged(np.zeros((0, 3)), [0, 0, 0]))[0].tolist() == [[0, 0, 0]] * 2
    _, cache = twin.forward(nn.Ragged(x, [0, 2, 5]))
    dy = rng.normal(size=(2, 3))
    dx = twin.backward(dy.astype(np.float32), cache)[0]
    np.testing.assert_allclose(dx, net.backward(dy, net.forward(nn.Ragged(x, [0, 2, 5]))[1])[0], rtol=1e-4, atol=1e-6)
    for wrong in (x, nn.Ragged(x[:, :2], [0, 2, 5])):
        with pytest.raises(ValueError, match="takes") as expected:
            net.forward(wrong)
        with pytest.raises(ValueError, match="takes") as found:
            twin.forward(wrong)
        assert str(found.value) == str(expected.value)
    with pytest.raises(ValueError, match="dy must have the output's shape"):
        twin.backward(dy[:1], cache)
    ids = nn.Sequential([nn.Embedding(3, 2), nn.LastEvent()], rng=rng)
    for bad in (3, -1):
        with pytest.raises(ValueError, match=r"takes ids in 0 \.\. 2"):
            engine.compiled(ids).forward(nn.Ragged([0, bad], [0, 2]))
    long = nn.Sequential([nn.PositionalEmbedding(2, 1)], rng=rng)
    with pytest.raises(ValueError, match="at most 2 events"):
        engine.compiled(long).forward(nn.Ragged(np.zeros((3, 1)), [0, 3]))


def test_nan_is_seen(rng: np.random.Generator) -> None:
    """It comes out where it comes out of the layers: divergence is found by it."""
    for layer in (nn.GRU(2, 2), nn.LSTM(2, 2), nn.RNN(2, 2), nn.Conv1D(2, 2, 2), nn.SelfAttention(2, 1), nn.GELU()):
        net = nn.Sequential([nn.PositionalEmbedding(9, 2), layer], rng=rng)
        values = rng.normal(size=(7, 2))
        values[4, 0] = np.nan
        x = nn.Ragged(values, [0, 3, 7])
        found = np.isnan(engine.compiled(net).forward(x)[0].values)
        np.testing.assert_array_equal(found, np.isnan(net.forward(x)[0].values))
    for pooling in POOLINGS:
        net = nn.Sequential([nn.PositionalEmbedding(9, 2), pooling()], rng=rng)
        np.testing.assert_array_equal(
            np.isnan(engine.compiled(net).forward(x)[0]), np.isnan(net.forward(x)[0]), err_msg=repr(pooling)
        )


def test_a_twin_shares_the_parameters(rng: np.random.Generator) -> None:
    net = nn.Sequential([nn.GRU(2, 3), nn.LastEvent(), nn.Dense(3, 1)], rng=rng)
    twin, x = engine.compiled(net), nn.Ragged(rng.normal(size=(4, 2)), [0, 4])
    assert repr(twin) == repr(net)
    net.params.vector[...] = 0.5
    np.testing.assert_allclose(twin.forward(x)[0], net.forward(x)[0], rtol=1e-12)
    twin.params["0.U"][...] = 0.25
    assert (net.params["0.U"] == 0.25).all()


def test_what_has_no_twin_says_so(rng: np.random.Generator) -> None:
    class Mine(nn.GRU):
        pass

    for net in (nn.Sequential([Mine(2, 3)], rng=rng), nn.Sequential([nn.Dense(2, 2)], rng=rng)):
        with pytest.raises(ValueError, match="no kernels for the layers of"):
            engine.compiled(net)
    mixed = nn.Sequential([Mine(2, 3), nn.Tanh(), nn.LastEvent()], rng=rng)
    both_ways(mixed, nn.Ragged(rng.normal(size=(4, 2)), [0, 1, 4]), rng)


@pytest.mark.parametrize("make", MIXING[:18])
def test_what_a_caller_does_to_y_changes_no_gradient(make: Any, rng: np.random.Generator) -> None:
    """As ``dy = y; dy -= t`` does."""
    net = nn.Sequential([nn.PositionalEmbedding(9, 4), make(4)], rng=rng)
    x, found = nn.Ragged(rng.normal(size=(12, 4)), [0, 3, 3, 12]), []
    for some in (net, engine.compiled(net)):
        y, cache = some.forward(x)
        y.values[...] -= 0.5
        found.append(some.backward(y.values, cache))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[1][1].vector, found[0][1].vector, rtol=1e-9, atol=1e-12)


def test_parameters_that_do_not_lie_side_by_side_are_refused(rng: np.random.Generator) -> None:
    net = nn.Sequential([nn.GRU(3, 4), nn.LastEvent()], rng=rng)
    x, y = nn.Ragged(rng.normal(size=(5, 3)), [0, 3, 5]), rng.normal(size=(2, 4))
    for roomy in (np.zeros(2 * net.params.vector.size)[::2], np.zeros(net.params.vector.size)[::-1]):
        roomy[...] = net.params.vector
        other = net.with_params(nn.Parameters(net.params.layout, roomy))
        with pytest.raises(ValueError, match="in one piece of memory"):
            engine.compiled(other)
        with pytest.raises(ValueError, match="in one piece of memory"):
            nn.fit(other, nn.MeanSquaredError(), nn.SGD(0.1), x, y, n_epochs=1, rng=rng, engine="numba")
        np.testing.assert_allclose(nn.freeze(other)(x), other.predict(x), rtol=1e-12)  # which has a copy of its own


def test_a_twin_of_a_dense_layer_takes_what_the_layer_takes(rng: np.random.Generator) -> None:
    net = nn.Sequential([nn.Tanh(), nn.Dense(3, 2)], rng=rng)
    x, dy = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    (_, cache), (_, cache_twin) = net.forward(x), engine.compiled(net).forward(x)
    np.testing.assert_allclose(engine.compiled(net).backward(dy.tolist(), cache_twin)[0], net.backward(dy, cache)[0])
    with pytest.raises(ValueError, match="a layer of rows takes the events"):
        engine.compiled(net).backward(nn.Ragged(dy, [0, 4]), cache_twin)  # type: ignore[arg-type]


def test_copies_of_a_twin_are_the_network(rng: np.random.Generator) -> None:
    inner = nn.Sequential([nn.GRU(4, 4), nn.Dense(4, 4), nn.Tanh()], rng=None)
    net = nn.Sequential([nn.Tied(nn.Embedding(6, 4), inner)], rng=rng)
    x = nn.Ragged(rng.integers(0, 6, 9), [0, 2, 9])
    for other in (pickle.loads(pickle.dumps(engine.compiled(net))), copy.deepcopy(engine.compiled(net))):
        assert {type(layer) for layer in engine.every(other)} == {type(layer) for layer in engine.every(net)}
        np.testing.assert_array_equal(other.forward(x)[0].values, net.forward(x)[0].values)


def log_of_items(rng: np.random.Generator, n: int = 30, n_ids: int = 12) -> tuple[nn.Ragged, nn.Ragged]:
    lengths = rng.integers(0, 9, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(0, n_ids, offsets[-1])
    return nn.Ragged(ids, offsets), nn.Ragged(np.roll(ids, -1), offsets)


OPTIMIZERS = [
    lambda: nn.Adam(0.01),
    lambda: nn.Adam(0.01, lazy=True, weight_decay=0.1),
    lambda: nn.SGD(0.1),
    lambda: nn.SGD(0.1, momentum=0.9, weight_decay=0.1),
    lambda: nn.SGD(0.1, momentum=0.9, nesterov=True, lazy=True),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_training_gives_what_numpy_gives(make: Any, dtype: Any, rng: np.random.Generator) -> None:
    """Losses, parameters, moments and metrics; weights, L2, validation, dropout, tied output."""
    x, y = log_of_items(rng)
    found = []
    for name in ("numpy", "numba"):
        own = np.random.default_rng(5)
        inner = nn.Sequential([nn.Dropout(0.1), nn.GRU(4, 4), nn.LayerNorm(4)], rng=None)
        net = nn.Sequential([nn.Tied(nn.Embedding(12, 4), inner)], rng=own, dtype=dtype)
        optimizer = make()
        history = nn.fit(
            net,
            nn.SoftmaxCrossEntropy(),
            optimizer,
            x,
            y,
            n_epochs=3,
            batch_size=7,
            rng=own,
            engine=name,
            sample_weight=np.arange(len(x)) % 3,
            l2=0.0 if optimizer.lazy else 0.01,
            validation_data=(x, y),
            metrics={"hits": lambda t, p: float((p.argmax(axis=1) == t).mean())},
        )
        assert optimizer.n_steps > 0 and type(optimizer) in (nn.Adam, nn.SGD)
        found.append((dict(history), net.params.vector.copy(), optimizer.state))
    (a, w, state), (b, w_twin, state_twin) = found
    close = {"rtol": 1e-8, "atol": 1e-9} if dtype is np.float64 else {"rtol": 5e-3, "atol": 5e-4}
    assert a.keys() == b.keys()
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(b[name], a[name], **close)
    np.testing.assert_allclose(w_twin, w, **close)
    for name in state:
        np.testing.assert_allclose(state_twin[name], state[name], **close)


def test_many_classes_in_blocks(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnprofile import objectives

    monkeypatch.setattr(objectives, "MANY", 40)
    x, y = log_of_items(rng)
    vectors = []
    for name in ("numpy", "numba"):
        own = np.random.default_rng(5)
        net = nn.Sequential([nn.Tied(nn.Embedding(12, 4), nn.LSTM(4, 4))], rng=own)
        nn.fit(net, nn.SoftmaxCrossEntropy(), nn.Adam(0.01), x, y, n_epochs=2, rng=own, engine=name)
        vectors.append(net.params.vector)
    np.testing.assert_allclose(vectors[1], vectors[0], rtol=1e-8, atol=1e-10)


def test_what_a_callback_changes_counts_from_the_next_epoch(rng: np.random.Generator) -> None:
    x, y = log_of_items(rng)
    vectors = []
    for name in ("numpy", "numba"):
        own = np.random.default_rng(5)
        net = nn.Sequential([nn.Embedding(12, 4), nn.Dropout(0.5), nn.GRU(4, 4), nn.Dense(4, 12)], rng=own)
        optimizer = nn.SGD(0.1)

        def change(epoch: int, logs: Any, net: Any, optimizer: Any = optimizer) -> None:
            net.children[1].rate = 0.0
            optimizer.learning_rate = 0.5

        nn.fit(
            net,
            nn.SoftmaxCrossEntropy(),
            optimizer,
            x,
            y,
            n_epochs=2,
            batch_size=9,
            rng=own,
            engine=name,
            callbacks=[change],
        )
        vectors.append(net.params.vector)
    np.testing.assert_allclose(vectors[1], vectors[0], rtol=1e-9)


def test_divergence_goes_back_to_the_start_of_the_epoch(rng: np.random.Generator) -> None:
    x, y = log_of_items(rng)
    net = nn.Sequential([nn.Embedding(12, 4), nn.GRU(4, 4), nn.Dense(4, 12), nn.Exp(), nn.Exp()], rng=rng)
    before = net.params.vector.copy()
    with pytest.raises(nn.DivergenceError):
        nn.fit(net, nn.SoftmaxCrossEntropy(), nn.SGD(1e6), x, y, n_epochs=3, batch_size=5, rng=rng, engine="numba")
    np.testing.assert_array_equal(net.params.vector, before)


def test_auto_goes_by_the_work(rng: np.random.Generator) -> None:
    small, large = nn.Ragged(np.zeros((10, 2)), [0, 5, 10]), nn.Ragged(np.zeros((20_000, 2)), np.arange(0, 20_001, 50))
    net = nn.Sequential([nn.GRU(2, 32), nn.LastEvent(), nn.Dense(32, 1)], rng=rng)
    assert not engine.is_worth_it(net, small, n_epochs=10, batch_size=32)
    assert engine.is_worth_it(net, large, n_epochs=100, batch_size=32)
    assert engine.is_worth_it(
        nn.Sequential([nn.Parallel([net, nn.Tanh()])], rng=None),
        (large, np.zeros((400, 3))),
        n_epochs=100,
        batch_size=32,
    )
    assert not engine.is_worth_it(
        nn.Sequential([nn.Parallel([nn.Dense(2, 3), nn.Dense(2, 3)])], rng=rng),
        (large, large),
        n_epochs=9999,
        batch_size=1,
    )


def test_frozen_networks_are_compiled_and_pickle(rng: np.random.Generator) -> None:
    net = nn.Sequential([nn.GRU(2, 3), nn.LastEvent(), nn.Dense(3, 1)], rng=rng)
    x = nn.Ragged(rng.normal(size=(30, 2)), [0, 7, 7, 30])
    frozen = nn.freeze(net, nn.SigmoidCrossEntropy())
    assert frozen.compiled
    with nn.use_engine("numpy"):
        plain = nn.freeze(net, nn.SigmoidCrossEntropy())
    assert not plain.compiled
    np.testing.assert_allclose(frozen(x), plain(x), rtol=1e-12)
    copied = pickle.loads(pickle.dumps(frozen))
    assert copied.compiled and (copied(x) == frozen(x)).all()
    net.params.vector[...] = 0
    np.testing.assert_allclose(frozen(x), plain(x), rtol=1e-12)  # it has its own numbers


def test_memory_comes_back_when_nothing_looks_into_it() -> None:
    memory = Memory(np.float32)
    a = memory.empty(1000, 64)
    place = a.ctypes.data
    view = a[3:]
    del a
    b = memory.empty(1000, 64)
    assert b.ctypes.data != place and b.flags.carray
    del view
    c = memory.empty(990, 64)
    assert c.ctypes.data == place and c.shape == (990, 64)
    assert memory.empty(0, 5).shape == (0, 5)
    large = [memory.empty(1 << 20, 64) for _ in range(3)]
    del large
    assert sum(size * len(pieces) for size, pieces in memory._free.items()) <= 1 << 28


def test_warming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It calls every kernel there is of its kind, in both dtypes, and no other; and refuses what is no kind."""
    from numba.core.dispatcher import Dispatcher

    from nnprofile.engine import attention, events, losses, norm, recurrent, updates

    for wrong in ("all", ["dense", "sequence"], [1], None, 5):
        with pytest.raises(ValueError, match="kinds must be of 'dense', 'sparse', 'sequences'"):
            nn.warmup(wrong)
    assert nn.warmup([]) and nn.warmup("sequences")
    for module in (recurrent, attention, events, norm, losses, updates):
        for name, kernel in vars(module).items():
            if isinstance(kernel, Dispatcher) and "no_cpython_wrapper" not in kernel.targetoptions:
                n = 1 if name == "in_time" else 2  # that one counts, whatever the dtype
                assert len(kernel.signatures) >= n, (module.__name__, name)


_TILES = """
import numpy as np, nnprofile as nn
from nnprofile.engine import tile
rng = np.random.default_rng(0)
x, y = rng.normal(size=(300, 37)), rng.normal(size=(300, 2))
vectors = []
for engine in ("numpy", "numba"):
    own = np.random.default_rng(0)
    net = nn.Sequential([nn.Dense(37, 45), nn.Tanh(), nn.Dense(45, 2)], rng=own)
    nn.fit(net, nn.MeanSquaredError(), nn.SGD(0.01), x, y, n_epochs=2, rng=own, engine=engine)
    vectors.append(net.params.vector)
np.testing.assert_allclose(vectors[1], vectors[0], rtol=1e-9, atol=1e-12)
print(tile.ROWS)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the kinds of processor are x86's")
def test_both_kinds_of_tile_are_right(tmp_path: Path) -> None:
    """As on a machine of AVX2 alone, and as on this one."""
    rows = []
    for settings in ({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}, {}):
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)} | settings
        found = subprocess.run(
            [sys.executable, "-c", _TILES], env=environment, capture_output=True, text=True, check=True
        )
        rows.append(int(found.stdout))
    assert rows[0] == 4 and rows[1] in (4, 8)


_FITS = """
import hashlib
import numpy as np, nnprofile as nn
rng = np.random.default_rng(0)
x = nn.Ragged(rng.normal(size=(500, 20)).astype(np.float32), np.arange(0, 501, 20))
y = rng.normal(size=(25, 1))
for layer in (nn.RNN(20, 19), nn.GRU(20, 19), nn.LSTM(20, 19), nn.Conv1D(20, 19, 3), [nn.Dense(20, 19), nn.SelfAttention(19, 1)]):
    rng = np.random.default_rng(0)
    net = nn.Sequential([layer, nn.LayerNorm(19), nn.GELU(), nn.MeanOverEvents(), nn.Dense(19, 1)], rng=rng, dtype=np.float32)
    nn.fit(net, nn.MeanSquaredError(), nn.Adam(), x, y, n_epochs=3, rng=rng, engine="numba")
    print(hashlib.sha256(net.params.vector.tobytes()).hexdigest())
for layer in (nn.Tanh(), nn.GELU()):
    rng = np.random.default_rng(0)
    net = nn.Sequential([nn.Dense(20, 33), layer, nn.Dense(33, 1)], rng=rng, dtype=np.float32)
    nn.fit(net, nn.MeanSquaredError(), nn.Adam(), x.values, x.values[:, 0], n_epochs=3, rng=rng, engine="numba")
    print(hashlib.sha256(net.params.vector.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_the_same_bits_compiled_or_loaded(tmp_path: Path) -> None:
    """A process that compiles holds the functions inside a kernel twice, one that loads machine code once."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "OPENBLAS_NUM_THREADS": "1"}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", _FITS], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    )
    assert first == second and len(first.split()) == 7
