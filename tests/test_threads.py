"""Threads that share a step: the same bits for any number of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn
from nnprofile.engine.threads import FEWEST_ROWS, MOST, rows_of_group


@pytest.fixture(autouse=True, scope="module")
def _however_little_there_is_to_do() -> Iterator[None]:
    """Threads are started for every call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nnprofile.engine.WORTH_THREADS", -1.0)
        yield


def trained(
    layers: list[nn.Layer],
    loss: nn.Loss,
    x: Any,
    y: np.ndarray,
    *,
    optimizer: nn.Optimizer | None = None,
    dtype: Any = np.float32,
    engine: str = "numba",
    **how: Any,
) -> np.ndarray:
    rng = np.random.default_rng(3)
    net = nn.Sequential(layers, rng=rng, dtype=dtype)
    history = nn.fit(net, loss, optimizer or nn.Adam(), x, y, rng=rng, engine=engine, **how)
    return np.concatenate([net.params.vector, history["loss"]])


@given(
    batch=st.sampled_from([1, 100, FEWEST_ROWS, FEWEST_ROWS + 1, 1024, 1500, 5000]),
    dtype=st.sampled_from([np.float64, np.float32]),
    n_threads=st.integers(2, 5),
    weighted=st.booleans(),
    l2=st.sampled_from([0.0, 0.1]),
)
def test_the_same_bits_for_any_number_of_threads(
    batch: int, dtype: Any, n_threads: int, weighted: bool, l2: float
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2100, 5)), rng.normal(size=(2100, 2))
    how: dict[str, Any] = {"n_epochs": 1, "batch_size": batch, "l2": l2, "dtype": dtype}
    how |= {"sample_weight": rng.integers(0, 3, 2100)} if weighted else {}

    def layers() -> list[nn.Layer]:
        return [nn.Dense(5, 9), nn.Tanh(), nn.Dropout(0.3), nn.LayerNorm(9), nn.Dense(9, 2)]

    one = trained(layers(), nn.MeanSquaredError(), x, y, n_threads=1, **how)
    np.testing.assert_array_equal(trained(layers(), nn.MeanSquaredError(), x, y, n_threads=n_threads, **how), one)
    if dtype is np.float64:
        numpy = trained(layers(), nn.MeanSquaredError(), x, y, engine="numpy", **how)
        np.testing.assert_allclose(one, numpy, rtol=1e-7, atol=1e-9)


LOSSES = [
    (nn.SigmoidCrossEntropy(), 1, lambda y: y[:, :1] > 0),
    (nn.SoftmaxCrossEntropy(), 3, lambda y: (y[:, 0] > 0).astype(int) + (y[:, 1] > 0)),
    (nn.Huber(), 2, lambda y: y),
    (nn.PoissonLoss(), 2, lambda y: np.floor(np.abs(y))),
]


@pytest.mark.parametrize(("loss", "n_out", "targets"), LOSSES, ids=lambda a: repr(a) if isinstance(a, nn.Loss) else "")
@pytest.mark.parametrize(
    "optimizer", [lambda: nn.SGD(0.1), lambda: nn.SGD(0.1, momentum=0.9, weight_decay=0.1), lambda: nn.Adam(lazy=True)]
)
def test_all_losses_and_rules(loss: nn.Loss, n_out: int, targets: Any, optimizer: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3000, 4)), rng.normal(size=(3000, 2))
    found = [
        trained(
            [nn.Dense(4, 8), nn.GELU(), nn.Dense(8, n_out)],
            loss,
            x,
            targets(y),
            optimizer=optimizer(),
            n_epochs=2,
            batch_size=2048,
            n_threads=n,
        )
        for n in (1, 2, 3)
    ]
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


def test_layers_that_blas_multiplies_and_sparse_rows() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2500, 300)), rng.normal(size=(2500, 1))
    rows = scipy.sparse.csr_array(rng.normal(size=(2500, 50)) * (rng.random((2500, 50)) < 0.1))
    for some, width in ((x, 300), (rows, 50)):
        how: dict[str, Any] = {"n_epochs": 2, "batch_size": 2500, "optimizer": None}
        found = [
            trained(
                [nn.Dense(width, 300), nn.ReLU(), nn.Dense(300, 1)], nn.MeanSquaredError(), some, y, n_threads=n, **how
            )
            for n in (1, 3)
        ]
        np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)  # BLAS promises no bits beside itself


def test_what_is_refused_is_refused_in_all_threads() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3000, 2)), rng.integers(0, 2, 3000)
    x[2900, 0] = 5e5  # the last group's
    for n in (1, 2):
        net = nn.Sequential([nn.Dense(2, 1)], rng=np.random.default_rng(0))
        before = net.params.vector.copy()
        with pytest.raises(ValueError, match="probability|probabilities"):
            nn.fit(
                net, nn.BinaryCrossEntropy(), nn.SGD(0.1), x, y, n_epochs=1, batch_size=3000, rng=rng, engine="numba",
                n_threads=n, shuffle=False,
            )  # fmt: skip
        np.testing.assert_array_equal(net.params.vector, before)


def test_divergence_and_what_a_callback_raises_end_the_threads() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3000, 2)), rng.normal(size=3000)
    n_before = threading.active_count()
    net = nn.Sequential([nn.Dense(2, 8), nn.ReLU(), nn.Dense(8, 1)], rng=rng)
    how: dict[str, Any] = {"n_epochs": 50, "batch_size": 1500, "rng": rng, "engine": "numba", "n_threads": 3}
    with pytest.raises(nn.DivergenceError):
        nn.fit(net, nn.MeanSquaredError(), nn.SGD(1e6), x, y, **how)
    assert np.isfinite(net.params.vector).all()

    net = nn.Sequential([nn.Dense(2, 8), nn.ReLU(), nn.Dense(8, 1)], rng=rng)

    def fails(epoch: int, logs: Any, net: nn.Layer) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        nn.fit(net, nn.MeanSquaredError(), nn.SGD(0.001), x, y, callbacks=[fails], **how)
    assert threading.active_count() == n_before


def test_a_thread_that_cannot_be_started_keeps_none_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y, start, n_started = rng.normal(size=(8192, 2)), rng.normal(size=8192), threading.Thread.start, [0]

    def fails_later(self: threading.Thread) -> None:
        n_started[0] += 1
        if n_started[0] > 1:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", fails_later)
    net, n_before = nn.Sequential([nn.Dense(2, 1)], rng=rng), threading.active_count()
    how: dict[str, Any] = {"n_epochs": 1, "batch_size": 8192, "rng": rng, "engine": "numba", "n_threads": 4}
    with pytest.raises(RuntimeError, match="can't start"):
        nn.fit(net, nn.MeanSquaredError(), nn.SGD(0.1), x, y, **how)
    assert threading.active_count() == n_before


def test_a_thread_that_fails_keeps_none_waiting() -> None:
    """Its group is never done, and whoever waits for that hears of the end."""
    from numba import njit

    from nnprofile.engine import threads

    @njit(nogil=True)
    def wait(crew: Any) -> Any:
        threads.publish(crew, 2, 0, 0, 0)
        threads.next_group(crew)
        threads.finish(crew)
        return threads.next_group(crew), threads.wait_for_all(crew, 2)

    crew = threads.new_crew()
    threads.begin(crew)
    threading.Timer(0.2, threads.end, [crew]).start()
    assert wait(crew) == (1, False)


def test_several_fits_at_once() -> None:
    """Threads of theirs do not meet."""
    from concurrent.futures import ThreadPoolExecutor

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2000, 3)), rng.normal(size=(2000, 1))

    def one(i: int) -> np.ndarray:
        layers: list[nn.Layer] = [nn.Dense(3, 4 + i), nn.Tanh(), nn.Dense(4 + i, 1)]
        return trained(layers, nn.MeanSquaredError(), x, y, n_epochs=5, batch_size=1024, n_threads=2)

    alone = [one(i) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for a, b in zip(pool.map(one, range(4)), alone, strict=True):
            np.testing.assert_array_equal(a, b)


def test_lbfgs_and_estimators() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 4))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    for solver in ("lbfgs", "adam"):
        found = []
        for n in (1, 2):
            model = nn.MLPClassifier(
                (8,), solver=solver, max_iter=5, batch_size=1500, random_state=0, engine="numba", n_threads=n, tol=0.0
            )
            with pytest.warns(match="reach|converge|ITERATIONS"):
                found.append(model.fit(x, y).network_.params.vector)
        np.testing.assert_array_equal(found[1], found[0])
        with pytest.raises(ValueError, match="n_threads must be"):
            nn.MLPClassifier((8,), solver=solver, n_threads=0).fit(x, y)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", None, True])
def test_bad_numbers_of_threads(wrong: Any, rng: np.random.Generator) -> None:
    net = nn.Sequential([nn.Dense(1, 1)], rng=rng)
    with pytest.raises(ValueError, match="n_threads must be"):
        nn.fit(net, nn.MeanSquaredError(), nn.SGD(0.1), [[1.0]], [1.0], n_epochs=1, rng=rng, n_threads=wrong)


@given(n_batch=st.integers(1, 10**7), n_block=st.sampled_from([1, 7, 128, 1024]))
def test_groups_are_whole_blocks_and_few(n_batch: int, n_block: int) -> None:
    n = rows_of_group(n_batch, n_block)
    assert n % n_block == 0 and n >= FEWEST_ROWS and -(-n_batch // n) <= MOST


def test_each_group_is_taken_once() -> None:
    """By many more threads than cores, over many steps."""
    from concurrent.futures import ThreadPoolExecutor

    from numba import njit

    from nnprofile.engine import threads

    @njit(nogil=True)
    def steps(crew: Any, helps: bool, n_steps: int, counts: np.ndarray) -> None:
        if helps:
            group = threads.wait_for_a_group(crew)
            while group >= 0:
                counts[crew.state[threads.START], group] += 1
                threads.finish(crew)
                group = threads.wait_for_a_group(crew)
            return
        for step in range(n_steps):
            n = 1 + step % 16
            threads.publish(crew, n, step, 0, 0)
            group = threads.next_group(crew)
            while group >= 0:
                counts[step, group] += 1
                threads.finish(crew)
                group = threads.next_group(crew)
            threads.wait_for_all(crew, n)
        threads.stop(crew)

    crew, counts = threads.new_crew(), np.zeros((4000, 16), np.int64)
    with ThreadPoolExecutor(4) as pool:
        threads.begin(crew)
        helping = [pool.submit(steps, crew, True, 0, counts) for _ in range(4)]
        steps(crew, False, len(counts), counts)
        for each in helping:
            each.result()
    assert (counts == (np.arange(16) <= (np.arange(4000) % 16)[:, None])).all()
