"""Rows that are read shard by shard train as those of one array do, by whoever runs the tasks, and from any round on."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn
from nnprofile.contract import join, take

ROOT = Path(__file__).parents[1]


def rows(n: int = 103, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5))
    return x, (x[:, 0] + 0.3 * rng.normal(size=n) > 0).astype(int)


X, Y = rows()
CUTS = [0, 0, 3, 4, 5, 6, 7, 90, 90, 103, 103]  # empty shards, and shards less than a batch


def read(i: int) -> tuple[Any, Any]:
    a, b = CUTS[i : i + 2]
    return X[a:b], Y[a:b]


def network(dtype: Any = np.float64) -> nn.Sequential:
    layers = [nn.Dense(5, 7), nn.Tanh(), nn.Dropout(0.3), nn.Dense(7, 1)]
    return nn.Sequential(layers, rng=np.random.default_rng(1), dtype=dtype)


def run(**changes: Any) -> tuple[np.ndarray, nn.History, nn.Adam]:
    net, optimizer = changes.pop("net", None) or network(), nn.Adam(0.01)
    options = {
        "n_epochs": 3,
        "batch_size": 8,
        "rng": np.random.default_rng(5),
        "steps_per_round": 3,
        "l2": 0.1,
    } | changes
    source, reader = options.pop("shards", range(len(CUTS) - 1)), options.pop("read", read)
    history = nn.fit_shards(net, options.pop("loss", nn.SigmoidCrossEntropy()), optimizer, source, reader, **options)
    return net.params.vector.copy(), history, optimizer


def same(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(a[0], b[0])
    assert dict(a[1]) == dict(b[1]) and a[1].best_epoch == b[1].best_epoch and a[2].n_steps == b[2].n_steps
    for name, moment in a[2].state.items():
        np.testing.assert_array_equal(moment, b[2].state[name])


@st.composite
def cuts(draw: st.DrawFn, n: int) -> list[int]:
    return [0, *sorted(draw(st.lists(st.integers(0, n), max_size=9))), n]


@given(st.data(), st.sampled_from([1, 2, 7, 31, 32, 64, 500]), st.sampled_from(["numpy", "numba"]), st.booleans())
def test_one_stream_has_the_bits_of_fit(data: Any, batch_size: int, engine: str, single: bool) -> None:
    at, w = data.draw(cuts(103)), np.random.default_rng(2).integers(0, 3, 103)
    loss, options = (
        nn.SigmoidCrossEntropy(),
        {"n_epochs": 2, "batch_size": batch_size, "shuffle": False, "engine": engine},
    )
    found = []
    for shards in (False, True):
        net, optimizer, rng = network(np.float32 if single else np.float64), nn.Adam(0.01), np.random.default_rng(3)
        if shards:
            part = lambda i, at=at: (X[at[i] : at[i + 1]], Y[at[i] : at[i + 1]], w[at[i] : at[i + 1]])  # noqa: E731
            history = nn.fit_shards(
                net, loss, optimizer, range(len(at) - 1), part, rng=rng, steps_per_round=5, **options
            )
        else:
            history = nn.fit(net, loss, optimizer, X, Y, sample_weight=w, rng=rng, **options)
        found.append((net.params.vector, history, optimizer))
    same(*found)


def kinds_of_rows() -> dict[str, tuple[list[nn.Layer], Any, Any]]:
    """Return layers, rows and targets of each kind."""
    rng = np.random.default_rng(0)
    sequences = nn.Ragged.from_list([rng.integers(0, 9, n) for n in rng.integers(0, 5, 60)])
    events = nn.Ragged.of(rng.integers(0, 3, sequences.n_events), sequences.offsets.copy())
    labels, two = rng.integers(0, 3, 60), (rng.normal(size=(60, 2)), rng.normal(size=(60, 3)))
    sparse = pytest.importorskip("scipy.sparse").csr_array(rng.normal(size=(60, 40)) * (rng.random((60, 40)) < 0.1))
    return {
        "ragged": ([nn.Embedding(9, 4), nn.GRU(4, 3), nn.LastEvent(), nn.Dense(3, 3)], sequences, labels),
        "events": ([nn.Embedding(9, 4), nn.RNN(4, 3)], sequences, events),
        "tuple": ([nn.Parallel([nn.Dense(2, 3), nn.Dense(3, 2)]), nn.Dense(5, 3)], two, labels),
        "sparse": ([nn.Dense(40, 5), nn.Tanh(), nn.Dense(5, 3)], sparse, labels),
    }


@pytest.mark.parametrize(
    ("kind", "engine"),
    [
        (k, e)
        for k in ("ragged", "events", "tuple", "sparse")
        for e in ("numpy", "numba")
        if (k, e) != ("tuple", "numba")
    ],
)
def test_every_kind_of_rows_crosses_the_borders_of_shards(kind: str, engine: str) -> None:
    layers, x, y = kinds_of_rows()[kind]
    at = [0, 5, 6, 6, 31, 60]
    part = lambda i: (take(x, slice(at[i], at[i + 1])), take(y, slice(at[i], at[i + 1])))  # noqa: E731
    options: Any = {"n_epochs": 2, "batch_size": 9, "shuffle": False, "engine": engine}
    a, b = (nn.Sequential(copy.deepcopy(layers), rng=np.random.default_rng(1)) for _ in range(2))
    nn.fit(a, nn.SoftmaxCrossEntropy(), nn.SGD(0.1), x, y, rng=np.random.default_rng(0), **options)
    nn.fit_shards(b, nn.SoftmaxCrossEntropy(), nn.SGD(0.1), range(5), part, rng=np.random.default_rng(0), **options)
    np.testing.assert_array_equal(a.params.vector, b.params.vector)
    whole = join([part(i)[0] for i in range(5)])
    for found, given_ in zip(whole if kind == "tuple" else [whole], x if kind == "tuple" else [x], strict=True):
        if isinstance(found, nn.Ragged):
            assert found.offsets.tolist() == given_.offsets.tolist()
            found, given_ = found.values, given_.values
        difference = abs(found - given_)
        assert difference.max() == 0


@pytest.mark.parametrize("average", ["parameters", "gradients"])
@pytest.mark.parametrize("n_replicas", [2, 3])
def test_tasks_give_the_same_bits_wherever_they_run(average: str, n_replicas: int) -> None:
    here = run(n_replicas=n_replicas, average=average)
    for make in (partial(ThreadPoolExecutor, 2), partial(ProcessPoolExecutor, 1), partial(ProcessPoolExecutor, 2)):
        with make() as pool:
            same(here, run(n_replicas=n_replicas, average=average, map=pool.map))

    def backwards_and_twice(f: Callable[[Any], Any], tasks: list[Any]) -> list[Any]:
        return [f(task) for task in reversed([*tasks, *tasks])][::-1][: len(tasks)]

    same(here, run(n_replicas=n_replicas, average=average, map=backwards_and_twice))
    same(here, run(n_replicas=n_replicas, average=average, map=lambda f, tasks: iter([*map(f, tasks)][::-1])))
    assert any((here[0] != other[0]).any() for other in [run(n_replicas=5 - n_replicas, average=average)])


class Spoiler(nn.Identity):
    """A layer that changes what it was given: its network's parameters, and x."""

    def forward(self, x: Any, rng: Any = None) -> Any:
        x += 0.0  # would raise, were x read-only
        return super().forward(x, rng)


class Counter(nn.SGD):
    """An optimizer with a state of its own."""

    def step(self, params: Any, grads: Any) -> None:
        self.state["seen"] = self.state.get("seen", np.zeros(params.vector.size)) + 1
        params.vector[...] *= 1 - 1e-3 * self.state["seen"]
        super().step(params, grads)


def test_a_task_that_changes_what_it_was_given_is_harmless() -> None:
    def go(call: Any) -> np.ndarray:
        net = nn.Sequential([nn.Dense(5, 4), Spoiler(), nn.Dense(4, 1)], rng=np.random.default_rng(0))
        options: Any = {"n_epochs": 2, "batch_size": 4, "rng": np.random.default_rng(0), "n_replicas": 3}
        nn.fit_shards(net, nn.SigmoidCrossEntropy(), Counter(0.01), range(10), read, map=call, **options)
        return net.params.vector

    with ProcessPoolExecutor(2) as pool:
        np.testing.assert_array_equal(go(map), go(pool.map))


@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_averaged_gradients_are_those_of_one_batch(engine: str) -> None:
    """Three replicas with a shard each of equal batches: a step along the mean is the step of all rows."""
    x, y = rows(24)
    w = np.random.default_rng(2).uniform(0.5, 2, 24)
    part = lambda i: (x[i::3], y[i::3], w[i::3])  # noqa: E731
    a = nn.Sequential([nn.Dense(5, 4), nn.Tanh(), nn.Dense(4, 1)], rng=np.random.default_rng(0))
    b = nn.Sequential([nn.Dense(5, 4), nn.Tanh(), nn.Dense(4, 1)], rng=np.random.default_rng(0))
    options: Any = {"n_epochs": 9, "l2": 0.5, "shuffle": False, "rng": np.random.default_rng(0)}
    one = nn.fit(a, nn.SigmoidCrossEntropy(), nn.Adam(0.05), x, y, batch_size=24, sample_weight=w, **options)
    options |= {"batch_size": 8, "n_replicas": 3, "average": "gradients", "engine": engine}
    many = nn.fit_shards(b, nn.SigmoidCrossEntropy(), nn.Adam(0.05), range(3), part, **options)
    np.testing.assert_allclose(a.params.vector, b.params.vector, rtol=1e-10)
    np.testing.assert_allclose(one["loss"], many["loss"], rtol=1e-12)


def test_the_mean_of_replicas_is_weighted_by_their_rows() -> None:
    """One step each, of plain SGD: the mean of parameters is the step along the mean gradient."""
    x, y = rows(12)
    part = lambda i: (x[:8], y[:8]) if i == 0 else (x[8:], y[8:])  # noqa: E731
    found = []
    for n_replicas in (1, 2):
        net = nn.Sequential([nn.Dense(5, 1)], rng=np.random.default_rng(0))
        options: Any = {"n_epochs": 1, "shuffle": False, "rng": np.random.default_rng(0), "n_replicas": n_replicas}
        options["batch_size"] = 12 if n_replicas == 1 else 8
        nn.fit_shards(net, nn.SigmoidCrossEntropy(), nn.SGD(0.5), range(2), part, **options)
        found.append(net.params.vector)
    np.testing.assert_allclose(*found, rtol=1e-12)


class Stopped(Exception):
    """A run is cut off."""


@pytest.mark.parametrize(("n_replicas", "average"), [(1, "parameters"), (3, "parameters"), (2, "gradients")])
def test_a_run_goes_on_from_any_round(n_replicas: int, average: str, tmp_path: Path) -> None:
    options: Any = {
        "n_replicas": n_replicas,
        "average": average,
        "checkpoint_seconds": 0,
        "validation_data": rows(40, 9),
    }
    stopping = nn.EarlyStopping(patience=1)
    whole = run(**options, early_stopping=stopping)
    for stop in range(2, 40, 3):
        n_read, path = 0, tmp_path / f"{stop}"

        def cut_off(i: int, stop: int = stop) -> Any:
            nonlocal n_read
            n_read += 1
            if n_read == stop:
                raise Stopped
            return read(i)

        net = network()
        before = [net.params.vector.copy()]
        try:
            run(net=net, read=cut_off, checkpoint=path, early_stopping=stopping, **options)
        except Stopped:
            if path.exists():
                np.testing.assert_array_equal(nn.load(path).net.params.vector, net.params.vector)  # nothing half done
            else:
                np.testing.assert_array_equal(before[0], net.params.vector)
        same(whole, run(checkpoint=path, early_stopping=stopping, **options))
        same(whole, run(checkpoint=path, early_stopping=stopping, **options))  # a run that has ended is only read


def test_what_a_callback_changed_and_an_interrupt_inside_a_round(tmp_path: Path) -> None:
    def slower(optimizer: Any) -> Any:
        return lambda *_: setattr(optimizer, "learning_rate", optimizer.learning_rate / 10)

    def go(path: Any, n_epochs: int, reader: Any = read) -> np.ndarray:
        net, optimizer = network(), nn.Adam(0.01)
        options: Any = {"n_epochs": n_epochs, "batch_size": 8, "rng": np.random.default_rng(5), "steps_per_round": 3}
        options |= {"checkpoint": path, "checkpoint_seconds": 0, "callbacks": [slower(optimizer)]}
        nn.fit_shards(net, nn.SigmoidCrossEntropy(), optimizer, range(10), reader, **options)
        return net.params.vector

    whole, n = go(None, 4), 0
    go(tmp_path / "a", 2)
    np.testing.assert_array_equal(whole, go(tmp_path / "a", 4))

    def interrupted(i: int) -> Any:  # by a handler of somebody else's: the layers have drawn for steps that are undone
        nonlocal n
        n += 1
        if n == 17:
            raise KeyboardInterrupt
        return read(i)

    go(tmp_path / "b", 4, interrupted)
    np.testing.assert_array_equal(whole, go(tmp_path / "b", 4))


def test_shards_of_other_kinds_are_named() -> None:
    sparse = pytest.importorskip("scipy.sparse").csr_array
    parts = [(X[:25], Y[:25]), (sparse(X[25:]), Y[25:])]
    net = nn.Sequential([nn.Dense(5, 1)], rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"shard 1 \(1\) has rows, or targets, of another kind"):
        run(net=net, shards=[0, 1], read=parts.__getitem__, shuffle=False)


def test_more_epochs_than_before_go_on(tmp_path: Path) -> None:
    run(checkpoint=tmp_path / "c", n_epochs=2)
    same(run(n_epochs=5), run(checkpoint=tmp_path / "c", n_epochs=5))


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    run(checkpoint=path)
    for changes, name in (
        ({"batch_size": 9}, "batch_size"),
        ({"n_replicas": 2}, "n_replicas"),
        ({"shuffle": False}, "shuffle"),
    ):
        with pytest.raises(ValueError, match=f"the checkpoint of another run: it differs in {name}"):
            run(checkpoint=path, **changes)
    with pytest.raises(ValueError, match="it differs in network"):
        run(checkpoint=path, net=network(np.float32))
    for changes, name in (
        ({"loss": nn.MeanSquaredError()}, "loss"),
        ({"net": nn.Sequential([nn.Dense(5, 7), nn.ReLU(), nn.Dropout(0.3), nn.Dense(7, 1)], rng=None)}, "network"),
        ({"class_weight": {0: 1, 1: 9}}, "class_weight"),
        ({"shards": list("abcdefghij"), "read": lambda i: read(ord(i) - 97)}, "shards"),
        ({"early_stopping": nn.EarlyStopping(monitor="loss")}, "early_stopping"),
        ({"validation_data": rows(40, 9)}, "monitor"),
        ({"rng": np.random.Generator(np.random.MT19937(0))}, "rng"),
    ):
        net = changes.get("net") or network()
        net.params.vector = np.full(net.params.vector.size, 0.5)
        with pytest.raises(ValueError, match=f"it differs in {name}"):
            run(checkpoint=path, **changes | {"net": net})
        assert (net.params.vector == 0.5).all()
    nn.save(network(), path)
    with pytest.raises(ValueError, match="no checkpoint of fit_shards"):
        run(checkpoint=path)
    path.write_bytes(b"something else")
    with pytest.raises(nn.ModelFileError):
        run(checkpoint=path)
    assert path.read_bytes() == b"something else"


@pytest.mark.parametrize("n_replicas", [1, 3])
def test_divergence_goes_back_to_the_start_of_the_round(n_replicas: int) -> None:
    net, optimizer = network(), nn.SGD(lambda step: 1e-2 if step < 6 else 1e300)
    options: Any = {
        "n_epochs": 9,
        "batch_size": 4,
        "n_replicas": n_replicas,
        "steps_per_round": 2,
        "checkpoint_seconds": 0,
    }
    with pytest.raises(nn.DivergenceError, match=r"epoch \d, round \d+: .*start of the round"):
        nn.fit_shards(net, nn.MeanSquaredError(), optimizer, range(10), read, rng=np.random.default_rng(0), **options)
    assert np.isfinite(net.params.vector).all() and (net.params.vector != network().params.vector).any()
    assert optimizer.n_steps == 6


def test_early_stopping_metrics_and_callbacks_as_in_fit() -> None:
    valid = rows(40, 9)
    accuracy = {"accuracy": lambda t, p: float(((p[:, 0] > 0.5) == t).mean())}
    common: Any = {"n_epochs": 30, "batch_size": 8, "shuffle": False, "validation_data": valid, "metrics": accuracy}
    common |= {"early_stopping": nn.EarlyStopping(patience=2, monitor="val_accuracy", mode="max")}
    a, b = network(), network()
    one = nn.fit(a, nn.SigmoidCrossEntropy(), nn.Adam(0.05), X, Y, rng=np.random.default_rng(0), **common)
    two = nn.fit_shards(
        b, nn.SigmoidCrossEntropy(), nn.Adam(0.05), range(10), read, rng=np.random.default_rng(0), **common
    )
    np.testing.assert_array_equal(a.params.vector, b.params.vector)
    assert one["val_accuracy"] == two["val_accuracy"] and one.best_epoch == two.best_epoch
    assert one.stop_reason == two.stop_reason == "early_stopping"
    assert run(callbacks=[lambda epoch, logs, net: epoch == 1])[1].stop_reason == "callback"


def test_weights_of_classes() -> None:
    a, b = network(), network()
    common: Any = {"n_epochs": 2, "batch_size": 8, "shuffle": False, "class_weight": {0: 1.0, 1: 3.0}}
    nn.fit(a, nn.SigmoidCrossEntropy(), nn.SGD(0.1), X, Y, rng=np.random.default_rng(0), **common)
    nn.fit_shards(b, nn.SigmoidCrossEntropy(), nn.SGD(0.1), range(10), read, rng=np.random.default_rng(0), **common)
    np.testing.assert_array_equal(a.params.vector, b.params.vector)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shards": []}, "shards must name at least one piece"),
        ({"shards": "data/"}, "shards must be a sequence of names"),
        ({"shards": 3}, "shards must be a sequence of names"),
        ({"read": None}, "read must be a function"),
        ({"map": 3}, "map must be a function"),
        ({"n_replicas": 11}, "n_replicas must be at most the number of shards, 10"),
        ({"n_replicas": 0}, "n_replicas must be"),
        ({"steps_per_round": 0}, "steps_per_round must be"),
        ({"average": "mean"}, "average must be 'parameters' or 'gradients'"),
        ({"shuffle": 1}, "shuffle must be True or False"),
        ({"class_weight": "balanced"}, "count the labels with summarize"),
        ({"metrics": {"m": lambda t, p: 0.0}}, "metrics are taken on validation_data"),
        ({"early_stopping": nn.EarlyStopping()}, "monitors 'val_loss'"),
        ({"shards": [0, 9]}, "the shards must have at least one row"),
        ({"read": lambda i: X}, r"read must return \(x, y\).*shard 0 \(0\)"),
        ({"read": lambda i: (X[:, :3], Y)}, r"shard 0 \(0\): x must have shape"),
        ({"read": lambda i: (np.full((4, 5), np.nan), Y[:4])}, r"shard 0 \(0\): x must be finite"),
        ({"read": lambda i: (X, Y[:0])}, r"shard 0 \(0\): "),
        ({"read": lambda i: (X, None)}, r"shard 0 \(0\): "),
        ({"read": lambda i: (None, None)}, r"shard 0 \(0\): "),
        ({"read": lambda i: (X, Y[:50])}, r"shard 0 \(0\): x has 103 rows, y has 50"),
        ({"n_replicas": 2, "map": lambda f, tasks: []}, "map must return the result of each of 2 tasks"),
        ({"n_replicas": 2, "map": lambda f, tasks: [1, 2]}, "map must return the result"),
        ({"n_replicas": 2, "map": lambda f, tasks: None}, "map must return the result"),
        ({"n_replicas": 2, "map": lambda f, tasks: [f(tasks[0])] * 2}, "map must return the result"),
        ({"shards": np.array(4)}, "shards must be a sequence"),
        ({"average": np.array(["parameters"])}, "average must be"),
        ({"class_weight": np.array([1, 2])}, "class_weight must be"),
        ({"checkpoint": True}, "checkpoint must be a path"),
        ({"engine": "cuda"}, "engine must be"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds must be"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_moves(changes: Any, message: str) -> None:
    net = network()
    with pytest.raises(ValueError, match=message):
        run(net=net, **changes)
    np.testing.assert_array_equal(net.params.vector, network().params.vector)


def test_a_shard_unlike_the_first_is_named_and_the_round_undone() -> None:
    starts: list[Any] = []
    for wrong in (lambda i: (X, Y, np.ones(103)), lambda i: (X[:, :4], Y), lambda i: (X, np.full(103, 2))):
        net = network()
        with pytest.raises(ValueError, match=r"shard 9 \(9\)|shard 9"):
            run(net=net, read=lambda i, w=wrong: w(i) if i == 9 else read(i), shuffle=False, steps_per_round=100)
        starts.append(net.params.vector)
    np.testing.assert_array_equal(np.array(starts), [network().params.vector] * 3)


@pytest.mark.usefixtures("pythons_own_handler")
def test_ctrl_c_ends_after_a_step_and_the_run_goes_on(tmp_path: Path) -> None:
    path, n = tmp_path / "c", 0

    def interrupting(i: int) -> Any:
        nonlocal n
        n += 1
        if n == 14:
            signal.raise_signal(signal.SIGINT)
        return read(i)

    found = run(read=interrupting, checkpoint=path, checkpoint_seconds=1e9)
    assert found[1].stop_reason == "interrupted" and len(found[1].columns.get("loss", [])) == 1
    same(run(), run(checkpoint=path))


def test_the_order_is_new_in_each_epoch_and_rows_stay_in_their_shard() -> None:
    seen: list[int] = []
    run(read=lambda i: (seen.append(i), read(i))[1], n_epochs=4)  # it reads until there are rows, to look at them
    orders = [tuple(seen[2 + k * 10 : 12 + k * 10]) for k in range(4)]
    assert len(set(orders)) == 4 and all(sorted(order) == list(range(10)) for order in orders)
    assert (run(shuffle=False)[0] != run()[0]).any()


PROGRAM = """
import resource, sys
import numpy as np
import nnprofile as nn
N, D, SIZE = int(sys.argv[1]), 50, 10_000
def read(i):
    rng = np.random.default_rng(i)
    x = rng.standard_normal((SIZE, D), np.float32)
    return x, (x[:, 0] > 0).astype(np.int8)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
net = nn.Sequential([nn.Dense(D, 8), nn.ReLU(), nn.Dense(8, 1)], rng=np.random.default_rng(0), dtype=np.float32)
common = {"n_epochs": 1, "batch_size": 500, "rng": np.random.default_rng(0), "engine": "numpy"}
nn.fit_shards(net, nn.SigmoidCrossEntropy(), nn.Adam(), range(1), read, **common)
before = peak()
nn.fit_shards(net, nn.SigmoidCrossEntropy(), nn.Adam(), range(N), read, **common)
nn.summarize(range(N), lambda i: read(i)[0], sample_size=1000)
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_shards() -> None:
    """60 shards of 2 MB, read, trained and counted, in less than 10 MB more than one shard took."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "60"], env=environment, check=True, capture_output=True, text=True
    )
    assert float(done.stdout) < 10


def part_of_table(i: int) -> dict[str, Any]:
    a, b = CUTS[i : i + 2]
    text = np.array(["red", "green", None, "blue"], object)[np.arange(a, b) % 4]
    return {"x": X[a:b, 0], "y": Y[a:b], "colour": text, "gaps": np.where(Y[a:b] == 1, X[a:b, 1], np.nan)}


def test_a_summary_is_that_of_all_rows() -> None:
    found = nn.summarize(range(10), part_of_table, sample_size=200)
    assert found.n_rows == 103 and list(found) == ["x", "y", "colour", "gaps"] and len(found) == 4
    np.testing.assert_allclose([found["x"].mean, found["x"].variance], [X[:, 0].mean(), X[:, 0].var()], rtol=1e-12)
    assert (found["x"].minimum, found["x"].maximum) == (X[:, 0].min(), X[:, 0].max())
    assert found["y"].counts == {0: int((Y == 0).sum()), 1: int(Y.sum())} and found["x"].counts is None
    assert found["colour"].counts == {"blue": 25, "green": 26, "red": 26} and found["colour"].n_missing == 26
    gaps = X[Y == 1, 1]
    assert found["gaps"].n == len(gaps) and found["gaps"].n_missing == 103 - len(gaps)
    np.testing.assert_allclose(found["gaps"].quantile([0, 0.3, 1]), np.quantile(gaps, [0, 0.3, 1]), rtol=1e-12)
    np.testing.assert_array_equal(found.sample["x"], X[:, 0])  # smaller data than the sample: all rows, in their order
    edges = found["x"].edges(4)
    assert len(edges) == 5 and (np.diff(edges) > 0).all() and found["y"].edges(10).tolist() == [0, 1]
    assert "103 rows" in repr(found) and "colour: category, 3 values, 26 missing" in repr(found)


@given(st.lists(st.lists(st.floats(-1e6, 1e6) | st.none(), max_size=6), min_size=1, max_size=8))
def test_sums_of_parts(parts: list[list[float | None]]) -> None:
    found = nn.summarize(range(len(parts)), lambda i: {"a": np.array(parts[i], object)})["a"]
    values = np.array([v for part in parts for v in part if v is not None])
    assert (found.n, found.n_missing) == (len(values), sum(map(len, parts)) - len(values))
    if len(values):
        scale = max(1.0, float(np.abs(values).max()))
        assert (
            abs(found.mean - values.mean()) <= 1e-12 * scale and abs(found.variance - values.var()) <= 1e-10 * scale**2
        )
        assert (found.minimum, found.maximum) == (values.min(), values.max())


def test_the_sample_is_uniform_and_the_same_for_any_workers() -> None:
    table = lambda i: {"row": np.arange(i * 500, (i + 1) * 500)}  # noqa: E731
    one = nn.summarize(range(20), table, sample_size=2000, seed=3)
    with ThreadPoolExecutor(3) as pool:
        other = nn.summarize(range(20), table, sample_size=2000, seed=3, map=pool.map)
    row = one.sample["row"]
    np.testing.assert_array_equal(row, other.sample["row"])
    assert len(row) == 2000 == len(set(row)) and (np.diff(row) > 0).all()
    counts = np.bincount(row.astype(int) // 500, minlength=20)
    assert (
        (counts - 100) ** 2 / 100
    ).sum() < 40  # chi-square of 19 degrees: 0.999 is 43.8, less for draws without repetition
    assert (nn.summarize(range(20), table, sample_size=2000, seed=4).sample["row"] != row).any()
    assert one["row"].counts == dict.fromkeys(range(10_000), 1)
    assert nn.summarize(range(20), table, max_categories=9_999)["row"].counts is None


def test_infinite_missing_and_odd_columns() -> None:
    parts: list[Any] = [
        {"a": np.array([1.0, np.inf, -np.inf, np.nan]), "b": [None] * 4, "c": np.array([True, False, True, True])},
        {"a": np.array([], float), "b": np.array([], object), "c": np.array([], bool)},
        {"a": [3], "b": ["x"], "c": [False]},
    ]
    found = nn.summarize(range(3), lambda i: parts[i])
    a = found["a"]
    assert (a.n, a.n_infinite, a.n_missing, a.mean, a.variance) == (2, 2, 1, 2.0, 1.0)
    assert found["b"].kind == "category" and found["b"].counts == {"x": 1} and found["b"].n_missing == 4
    assert found["c"].counts == {0: 2, 1: 3}
    with pytest.raises(ValueError, match="'category' has no quantiles"):
        found["b"].quantile(0.5)
    numbers = nn.summarize([0], lambda i: np.ones((3, 2)))
    assert list(numbers) == [0, 1] and numbers[1].variance == 0
    empty = nn.summarize([0], lambda i: {"a": np.array([], float)})["a"]
    assert empty.n == 0 and np.isnan(empty.mean) and empty.counts == {}


def test_whole_numbers_masks_and_shards_in_any_order() -> None:
    many = [2**53, 2**53 + 1, 2**53 + 2]
    for column in (many, np.array(many), np.array(many, object)):
        assert nn.summarize([0], lambda i, c=column: {"a": c})["a"].counts == dict.fromkeys(many, 1)
    assert nn.summarize([0], lambda i: {"a": np.array([2**64 - 1], np.uint64)})["a"].counts == {2**64 - 1: 1}
    masked = nn.summarize([0], lambda i: {"a": np.ma.masked_array([1.0, 999.0], [0, 1])})["a"]
    assert (masked.n, masked.n_missing, masked.maximum) == (1, 1, 1.0)
    parts: list[Any] = [{"a": [], "b": [1]}, {"b": [2], "a": ["x"]}, {"a": np.array([np.nan]), "b": [3]}]
    parts[0]["a"] = [None]
    one = nn.summarize(range(3), lambda i: parts[i])
    other = nn.summarize(range(3), lambda i: parts[i], map=lambda f, tasks: iter([*map(f, tasks)][::-1]))
    assert one["a"].counts == {"x": 1} and one["a"].n_missing == 2 and list(one.sample["a"]) == [None, "x", None]
    assert list(other.sample["b"]) == [1, 2, 3] == list(one.sample["b"])
    rare = nn.summarize([0], lambda i: {"a": [np.nan] * 999 + [5.0]}, sample_size=3)["a"]
    assert rare.quantile(0.5) == 5 and rare.edges(3).tolist() == [5]
    with pytest.raises(ValueError, match="without a finite number"):
        nn.summarize([0], lambda i: {"a": [np.inf]})["a"].quantile(0.5)
    with pytest.raises(ValueError, match="the result of each task, got"):
        nn.summarize([0], lambda i: {"a": [1]}, map=lambda f, tasks: [1])
    for wrong in (lambda f, tasks: None, lambda f, tasks: [], lambda f, tasks: [f(tasks[0])] * 2):
        with pytest.raises(ValueError, match="the result of each of 2 tasks"):
            nn.summarize([0, 1], lambda i: {"a": [1]}, map=wrong)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([{"a": 5}], "column 'a' must hold one value a row, got int"),
        ([{"a": [[1, 2], [3]]}], "must hold numbers or text, got list"),
        ([{"a": [10**400]}], "must hold numbers of float64"),
        ([{"a": [True, "x"]}], "must hold numbers or text, got bool, str"),
        ([{}], "the table has no columns"),
        ([np.zeros((5, 0))], "the table has no columns"),
        ([{"a": [1]}, {"b": [1]}], "must have the same columns; shard 1 .*'b'"),
        ([{"a": [1]}, {"a": ["x"]}], "shard 1 .*column 'a' is a category, and a number"),
        (
            [{"a": np.array(["2020-01-01"], "datetime64[D]")}],
            "shard 0, column 'a' must hold numbers or text, got datetime",
        ),
        ([{"a": [1 + 2j]}], "must hold numbers or text"),
        ([{"a": np.array([{}, 3], object)}], "must hold numbers or text, got dict, int"),
        ([{"a": np.array(["x", 3], object)}], "must hold numbers or text, got int, str"),
        ([{"a": [1, 2], "b": [1]}], "as many rows each"),
        ([{"a": np.ones((2, 2))}], "one value a row"),
        (["text"], "read must return a table"),
        ([3.0], "read must return a table"),
    ],
)
def test_tables_that_have_no_summary(parts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nn.summarize(range(len(parts)), lambda i: parts[i])


def test_tables_of_other_libraries() -> None:
    pandas = pytest.importorskip("pandas")
    polars, arrow = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    frames = [
        pandas.DataFrame(part_of_table(i)).assign(n=pandas.array([1] * (CUTS[i + 1] - CUTS[i]), "Int64"))
        for i in range(10)
    ]
    expected = nn.summarize(range(10), lambda i: frames[i])
    for convert in (polars.from_pandas, arrow.Table.from_pandas):
        found = nn.summarize(range(10), lambda i, convert=convert: convert(frames[i].astype({"colour": object})))
        for name, column in expected.items():
            assert found[name].counts == column.counts and found[name].n == column.n, name
    coded = arrow.table({"city": arrow.array(["Rome", None, "Oslo", "Bern", None]).dictionary_encode()})
    assert nn.summarize([0], lambda i: coded)["city"].counts == {"Bern": 1, "Oslo": 1, "Rome": 1}
    twice = arrow.table([arrow.array([1]), arrow.array([2])], names=["a", "a"])
    with pytest.raises(ValueError, match="two columns have one name"):
        nn.summarize([0], lambda i: twice)


def read_many(i: int) -> tuple[Any, Any]:
    return rows(1000, seed=i)


def big_run(call: Any, each_epoch: Callable[..., Any] = lambda *_: None) -> tuple[Any, Any, Any]:
    """Return what came of 20 epochs of some three rounds each, with four replicas."""
    net, optimizer = network(), nn.Adam(0.01)
    options: Any = {
        "n_epochs": 20,
        "batch_size": 50,
        "rng": np.random.default_rng(0),
        "n_replicas": 4,
        "steps_per_round": 20,
    }
    loss, callbacks = nn.SigmoidCrossEntropy(), [each_epoch]
    history = nn.fit_shards(net, loss, optimizer, range(12), read_many, map=call, callbacks=callbacks, **options)
    return net.params.vector, history, optimizer


@pytest.mark.slow
def test_dask_gives_the_same_bits_for_any_workers_and_when_they_are_killed() -> None:
    distributed = pytest.importorskip("distributed")
    here = big_run(map)
    for n_workers in (1, 2, 3):
        cluster = distributed.LocalCluster(
            n_workers=n_workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        )
        with cluster, distributed.Client(cluster) as client:
            on_workers = lambda f, tasks, client=client: client.gather(client.map(f, tasks, pure=False, retries=9))  # noqa: E731
            draws, n_killed = np.random.default_rng(0), 0

            def kill(*_: Any, cluster: Any = cluster, draws: Any = draws) -> None:
                """End one of the workers, somewhere in the next rounds."""
                nonlocal n_killed
                alive = [nanny.pid for nanny in cluster.workers.values() if nanny.pid]
                if alive:
                    n_killed += 1
                    victim = int(draws.choice(alive))
                    Timer(float(draws.uniform(0, 0.3)), lambda: _end(victim)).start()

            same(here, big_run(on_workers))
            if n_workers == 2:
                same(here, big_run(on_workers, kill))
                assert n_killed == 20


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
