"""A frozen network predicts what the network and the loss's link do; nothing changes it, and many threads may call it."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn

from .test_engine import LOSSES, Doubled, jobs, network


def expected(net: Any, loss: Any, x: Any) -> Any:
    y = net.predict(x)
    return y if loss is None else loss.link.forward(y)[0]


@given(jobs(), st.sampled_from([None, *LOSSES]))
def test_it_is_the_network_and_the_link(job: dict[str, Any], loss: Any) -> None:
    net, x = job["net"], job["x"]
    frozen = nn.freeze(net, loss)
    assert frozen.compiled and frozen.dtype == net.params.dtype
    got = frozen(x)
    assert got.dtype == net.params.dtype and got.shape == (len(x), net.out_features)
    np.testing.assert_allclose(
        got, expected(net, loss, x), rtol=0, atol=200 * np.finfo(got.dtype).eps * (1 + np.abs(got).max())
    )
    out = np.empty_like(got)
    assert frozen(x, out) is out
    np.testing.assert_array_equal(out, got)


@given(jobs(sparse=True))
def test_csr_rows(job: dict[str, Any]) -> None:
    net, x = job["net"], job["x"]
    frozen = nn.freeze(net)
    tolerance = 200 * np.finfo(net.params.dtype).eps
    np.testing.assert_allclose(frozen(x), frozen(x.toarray()), rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(frozen(x.tocsc()), frozen(x))
    np.testing.assert_array_equal(frozen(x[:0]), np.empty((0, net.out_features)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_row_does_not_depend_on_the_rows_beside_it_nor_on_threads(dtype: Any) -> None:
    net = network(7, 33, 18, 2, dtype=dtype)
    frozen = nn.freeze(net, nn.SoftmaxCrossEntropy())
    x = np.random.default_rng(0).normal(size=(20_000, 7)).astype(dtype)
    whole = frozen(x)
    for n_threads in (2, 3, 7):
        np.testing.assert_array_equal(frozen(x, n_threads=n_threads), whole)
    for rows in (slice(0, 1), slice(5, 6), slice(100, 131), slice(19_999, None), slice(3, 3)):
        np.testing.assert_array_equal(frozen(x[rows]), whole[rows])
    np.testing.assert_array_equal(frozen(x[::-1]), whole[::-1])
    np.testing.assert_array_equal(frozen(scipy.sparse.csr_array(x[:100])).shape, (100, 2))


def test_layers_for_blas_give_the_same_bits_for_any_number_of_threads() -> None:
    frozen = nn.freeze(network(40, 300, 200, 1))
    x = np.random.default_rng(0).normal(size=(20_000, 40))
    np.testing.assert_array_equal(frozen(x, n_threads=2), frozen(x))


def test_whatever_x_is_made_of() -> None:
    net = network(3, 5, 1, dtype=np.float32)
    frozen = nn.freeze(net, nn.SigmoidCrossEntropy())
    x = np.arange(12.0, dtype=np.float32).reshape(4, 3) - 6
    got = frozen(x)
    read_only = x.copy()
    read_only.flags.writeable = False
    for other in (
        x.tolist(),
        x.astype(np.float64),
        x.astype(int),
        np.asfortranarray(x),
        read_only,
        np.repeat(x, 2, 1)[:, ::2],
    ):
        np.testing.assert_array_equal(frozen(other), got)
    assert frozen(np.empty((0, 3))).shape == (0, 1)
    assert frozen([[True, False, True]]).shape == (1, 1)


def test_nothing_changes_it() -> None:
    net = network(3, 5, 1)
    frozen = nn.freeze(net)
    x = np.ones((2, 3))
    before = frozen(x)
    net.params.vector = net.params.vector * 2
    np.testing.assert_array_equal(frozen(x), before)
    for name in ("dtype", "compiled", "other"):
        with pytest.raises(AttributeError, match="does not change"):
            setattr(frozen, name, 1)
    with pytest.raises(AttributeError, match="does not change"):
        del frozen.dtype
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frozen))(x), before)
    assert repr(frozen).startswith("FrozenNetwork(Sequential([Dense(3, 5), Tanh(), Dense(5, 1)]), float64")
    net.params.vector = frozen._net.params.vector  # the network it was made of is free to go on
    np.testing.assert_allclose(net.predict(x), before, rtol=1e-12)


def test_many_threads_at_once() -> None:
    frozen = nn.freeze(network(6, 20, 20, 1), nn.SigmoidCrossEntropy())
    x = np.random.default_rng(0).normal(size=(8, 500, 6))
    alone = [frozen(rows) for rows in x]
    wrong = []

    def score(rows: Any, own: Any) -> None:
        wrong.extend(1 for _ in range(50) if not np.array_equal(frozen(rows), own))

    threads = [threading.Thread(target=score, args=pair) for pair in zip(x, alone, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_layer_of_ones_own_is_scored_by_numpy() -> None:
    net = nn.Sequential([nn.Dense(3, 2), Doubled(), nn.Dense(2, 1)], rng=np.random.default_rng(0))
    frozen = nn.freeze(net, nn.SigmoidCrossEntropy())
    x = np.random.default_rng(0).normal(size=(20_000, 3))
    assert not frozen.compiled
    np.testing.assert_array_equal(frozen(x[:9]), expected(net, nn.SigmoidCrossEntropy(), x[:9]))
    np.testing.assert_array_equal(frozen(x, n_threads=2), frozen(x))
    np.testing.assert_allclose(frozen(scipy.sparse.csr_array(x[:9])), frozen(x[:9]), rtol=1e-12)
    assert frozen(x[:0]).shape == (0, 1)
    activations = nn.freeze(nn.Sequential([nn.ReLU(), nn.Identity()], rng=None))
    np.testing.assert_array_equal(activations([[1.0, -2.0]]), [[1.0, 0.0]])


def test_bad_input() -> None:
    net = network(3, 5, 1)
    frozen = nn.freeze(net)
    good = np.zeros((2, 3))
    bad_row = np.zeros((20_000, 3))
    bad_row[17_000, 1] = np.inf
    for x, message in [
        (np.zeros((2, 4)), r"x must have shape \(n_samples, 3\), got \(2, 4\)"),
        (np.zeros((20_000, 4)), r"x must have shape \(n_samples, 3\), got \(20000, 4\)"),
        (np.zeros(3), "for one row pass x"),
        (np.zeros((1, 2, 3)), "got"),
        (np.zeros((2, 3), complex), "real numbers"),
        (np.full((2, 3), np.nan), r"x must be finite in float64, got x\[0, 0\] = nan"),
        (bad_row, r"got x\[17000, 1\] = inf"),
        (bad_row.astype(np.float32), r"got x\[17000, 1\] = inf"),
        ([["a", "b", "c"]], "real numbers"),
        (scipy.sparse.csr_array((2, 4)), r"got \(2, 4\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            frozen(x)
    for out in (np.zeros(2), np.zeros((2, 1), np.float32), np.zeros((3, 1)), [[0.0], [0.0]], np.zeros((4, 1))[::2]):
        with pytest.raises(ValueError, match="out must be a writable float64 array of shape"):
            frozen(good, out)
    with pytest.raises(ValueError, match="n_threads must be an integer of at least 1"):
        frozen(good, n_threads=0)
    for arguments, message in [
        ((nn.Sequential([nn.Dense(2, 1)], rng=None),), "has no values"),
        (("net",), "net must be of type Layer"),
        ((net, nn.Tanh()), "loss must be of type Loss"),
    ]:
        with pytest.raises(ValueError, match=message):
            nn.freeze(*arguments)


def test_out_may_be_part_of_a_larger_array() -> None:
    frozen = nn.freeze(network(3, 5, 2))
    x, out = np.ones((4, 3)), np.full((6, 2), 7.0)
    frozen(x, out[1:5])
    assert (out[[0, 5]] == 7).all() and (out[1:5] == frozen(x)).all()


def test_out_may_overlap_x() -> None:
    for frozen in (nn.freeze(network(20, 20)), nn.freeze(network(400, 400))):
        n = frozen.in_features or 0
        memory = np.random.default_rng(0).normal(size=(301, n))
        right = frozen(memory[:300])
        for x, out in ((memory[:300].copy(), None), (memory[:300], memory[1:])):
            np.testing.assert_array_equal(frozen(x, x if out is None else out), right)


@pytest.mark.parametrize("first", [nn.ReLU(), nn.Tanh(), nn.Dropout(0.5), nn.Softmax()], ids=lambda layer: repr(layer))
def test_sparse_rows_only_where_dense_is_first(first: nn.Layer) -> None:
    frozen = nn.freeze(nn.Sequential([first, nn.Dense(50, 1)], rng=np.random.default_rng(0)))
    out = np.full((9, 1), 7.0)
    with pytest.raises(ValueError, match="sparse x is taken by Dense alone"):
        frozen(scipy.sparse.csr_array(np.eye(6, 50)), out[:6])
    assert (out[6:] == 7).all()
