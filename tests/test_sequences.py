"""Layers on sequences: the textbook's loops, PyTorch's numbers, right gradients; alone, empty, causal; and training on them."""

from __future__ import annotations

import copy
import io
import json
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnprofile as nn
from nnprofile import objectives
from nnprofile.contract import apply, numbers_of, take

from .layer_examples import SEQUENCES, draw_sequences
from .test_invariant import right

LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**32 - 1)
OFFSETS = np.array([0, 0, 3, 3, 8, 9, 13, 13])  # empty ones first, between and last
PYTORCH = json.loads((Path(__file__).parent / "facts" / "pytorch_sequences.json").read_text())


def made(make: Callable[[], nn.Layer], rng: np.random.Generator) -> nn.Layer:
    layer = make()
    layer.initialize(rng)
    layer.params.vector = layer.params.vector + 0.2 * rng.normal(size=layer.params.vector.size)
    return layer


def some(rng: np.random.Generator, width: int = 3) -> nn.Ragged:
    return nn.Ragged(rng.normal(size=(13, width)), OFFSETS)


def some_ids(rng: np.random.Generator, n_ids: int = 6) -> nn.Ragged:
    return nn.Ragged(rng.integers(0, n_ids, 13), OFFSETS)


# -- each layer is its equation: loops over sequences and events, written without the library


def s(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


def by_hand(layer: Any, x: nn.Ragged) -> np.ndarray:
    """Return y by the equations of docs/sequences.md, one number at a time where that is readable."""
    p, out = {name: layer.params[name] for name in layer.params}, []
    k = getattr(layer, "out_features", None)
    for seq in x:
        h, c, T = np.zeros(k or 0), np.zeros(k or 0), len(seq)
        if isinstance(layer, nn.LastEvent | nn.MeanOverEvents | nn.MaxOverEvents):
            pool = {nn.LastEvent: lambda a: a[-1], nn.MeanOverEvents: np.mean, nn.MaxOverEvents: np.max}[type(layer)]
            out.append([pool(seq[:, j]) if T else 0.0 for j in range(seq.shape[1])])
            continue
        if isinstance(layer, nn.SelfAttention):
            d, rows = layer.features // layer.n_heads, np.zeros((T, layer.features))
            q, keys, v = np.split(seq @ p["W"] + p["b"], 3, axis=1)
            for head in (slice(i * d, (i + 1) * d) for i in range(layer.n_heads)):
                for t in range(T):
                    last = t + 1 if layer.causal else T
                    e = np.exp([q[t, head] @ keys[u, head] / np.sqrt(d) for u in range(last)])
                    rows[t, head] = sum(e[u] / e.sum() * v[u, head] for u in range(last))
            out.extend(rows @ p["V"] + p["c"])
            continue
        for t in range(T):
            if isinstance(layer, nn.Conv1D):
                now = layer.width - 1 if layer.causal else layer.width // 2
                seen = [(i, t + (i - now) * layer.dilation) for i in range(layer.width)]
                out.append(p["b"] + sum((seq[u] @ p["W"][i] for i, u in seen if 0 <= u < T), start=np.zeros(k)))
            elif isinstance(layer, nn.PositionalEmbedding):
                out.append(seq[t] + p["E"][t])
            elif isinstance(layer, nn.RNN):
                h = np.tanh(seq[t] @ p["W"] + h @ p["U"] + p["b"])
                out.append(h)
            elif isinstance(layer, nn.GRU):
                a, u = seq[t] @ p["W"] + p["b"], h @ p["U"] + p["c"]
                r, z = s(a[:k] + u[:k]), s(a[k : 2 * k] + u[k : 2 * k])
                h = (1 - z) * np.tanh(a[2 * k :] + r * u[2 * k :]) + z * h
                out.append(h)
            elif isinstance(layer, nn.LSTM):
                i, f, g, o = np.split(seq[t] @ p["W"] + h @ p["U"] + p["b"], 4)
                c = s(f) * c + s(i) * np.tanh(g)
                h = s(o) * np.tanh(c)
                out.append(h)
    return np.array(out)


BY_HAND = [(make, width) for make, width in SEQUENCES if make().takes == "numbers"]


@pytest.mark.parametrize(("make", "width"), BY_HAND, ids=lambda value: repr(value()) if callable(value) else "")
@given(seed=SEEDS, lengths=LENGTHS)
def test_each_is_its_equation(make: Any, width: int, seed: int, lengths: list[int]) -> None:
    rng = np.random.default_rng(seed)
    layer = made(make, rng)
    x = draw_sequences(rng, layer, width, lengths)
    y = layer.forward(x)[0]
    expected = by_hand(layer, x)
    np.testing.assert_allclose(numbers_of(y), expected.reshape(numbers_of(y).shape), rtol=1e-12, atol=1e-13)
    if isinstance(y, nn.Ragged):
        assert y.same_events(x)
    low = layer.with_params(nn.Parameters(layer.params.layout, layer.params.vector.astype(np.float32)))
    single = low.forward(nn.Ragged(x.values.astype(np.float32), x.offsets))[0]
    assert numbers_of(single).dtype == np.float32
    np.testing.assert_allclose(numbers_of(single), numbers_of(y), rtol=1e-4, atol=1e-5)


def built(fact: dict) -> nn.Layer:
    config = fact["config"]
    if fact["layer"] == "SelfAttention":
        return nn.SelfAttention(config[0], config[1], causal=config[2])
    if fact["layer"] == "Conv1D":
        return nn.Conv1D(*config[:3], dilation=config[3], causal=config[4])
    if fact["layer"] == "Transformer block":
        d, heads = config
        attend = nn.Residual([nn.LayerNorm(d), nn.SelfAttention(d, heads)])
        think = nn.Residual([nn.LayerNorm(d), nn.Dense(d, 2 * d), nn.GELU(), nn.Dense(2 * d, d)])
        return nn.Sequential([attend, think], rng=None)
    return getattr(nn, fact["layer"])(*config)


@pytest.mark.parametrize("fact", PYTORCH["facts"], ids=lambda fact: f"{fact['layer']}-{fact['config']}")
def test_forward_gradients_and_a_step_of_adam_equal_pytorch(fact: dict) -> None:
    layer = built(fact)
    for name, value in fact["before"].items():
        layer.params[name] = value
    x = nn.Ragged(np.array(fact["x"]), np.concatenate([[0], np.cumsum(PYTORCH["lengths"])]))
    y, cache = apply(layer, x)
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(numbers_of(y), fact["y"], **close)
    dx, grads = layer.backward(np.array(fact["dy"]), cache)
    if fact["dx"] is not None:
        np.testing.assert_allclose(dx, fact["dx"], **close)
    assert set(grads) == set(fact["grads"])
    for name, value in fact["grads"].items():
        np.testing.assert_allclose(grads[name], value, **close)
    nn.Adam(0.01).step(layer.params, grads)
    for name, value in fact[
        "after"
    ].items():  # Adam divides by the size of a gradient, be it rounding: k's bias has none
        moved = np.abs(fact["grads"][name]) > 1e-12
        np.testing.assert_allclose(layer.params[name][moved], np.array(value)[moved], **close)


def test_the_steps_of_cs231n_to_their_printed_digits() -> None:
    def ramp(start: float, stop: float, *shape: int) -> np.ndarray:
        return np.linspace(start, stop, int(np.prod(shape))).reshape(shape)

    rnn = nn.RNN(10, 4)
    x, h = ramp(-0.4, 0.7, 3, 10), ramp(-0.2, 0.5, 3, 4)
    W, U, b = ramp(-0.1, 0.9, 10, 4), ramp(-0.3, 0.7, 4, 4), ramp(-0.2, 0.4, 4)
    (found,), _ = rnn._forward_step(x @ W + b, h @ U, (h,))
    printed = [
        [-0.58172089, -0.50182032, -0.41232771, -0.31410098],
        [0.66854692, 0.79562378, 0.87755553, 0.92795967],
        [0.97934501, 0.99144213, 0.99646691, 0.99854353],
    ]
    np.testing.assert_allclose(found, printed, rtol=0, atol=5e-9)

    lstm = nn.LSTM(4, 5)
    x, h, c = ramp(-0.4, 1.2, 3, 4), ramp(-0.3, 0.7, 3, 5), ramp(-0.4, 0.9, 3, 5)
    W, U, b = ramp(-2.1, 1.3, 4, 20), ramp(-0.7, 2.2, 5, 20), ramp(0.3, 0.7, 20)
    ours = [0, 1, 3, 2]  # theirs are i, f, o, g

    def ordered(a: np.ndarray) -> np.ndarray:
        return np.concatenate([np.split(a, 4, axis=-1)[i] for i in ours], axis=-1)

    (next_h, next_c), _ = lstm._forward_step(x @ ordered(W) + ordered(b), h @ ordered(U), (h, c))
    np.testing.assert_allclose(next_h[0], [0.24635157, 0.28610883, 0.32240467, 0.35525807, 0.38474904], atol=5e-9)
    np.testing.assert_allclose(next_c[0], [0.32986176, 0.39145139, 0.451556, 0.51014116, 0.56717407], atol=5e-9)


# -- the invariant, and what holds of sequences


@pytest.mark.parametrize(("make", "width"), SEQUENCES, ids=lambda value: repr(value()) if callable(value) else "")
@settings(max_examples=12)
@given(seed=SEEDS, lengths=LENGTHS, scale=st.sampled_from([0.1, 1.0, 5.0]))
def test_every_gradient_is_right(make: Any, width: int, seed: int, lengths: list[int], scale: float) -> None:
    rng = np.random.default_rng(seed)
    layer = made(make, rng)
    x = draw_sequences(rng, layer, width, lengths)
    if not x.n_events:
        y, cache = apply(layer, x)
        layer.backward(np.zeros(numbers_of(y).shape), cache)
        return
    if layer.takes == "numbers":
        x = nn.Ragged(scale * x.values, x.offsets)
        right(nn.check_layer(layer, nn.Ragged(x.values.astype(np.float32), x.offsets), seed=seed))
    report = nn.check_layer(layer, x, seed=seed)
    right(report)
    assert all(row.error < 1e-12 for row in report.rows if "float32" not in row.tensor), str(report)


def mixed(rng: np.random.Generator) -> tuple[nn.Sequential, bool]:
    """Return a random network of everything, and whether it gives a row for each event."""
    width = int(rng.integers(1, 4)) * 2
    layers: list[Any] = [nn.Embedding(6, width)]
    blocks: list[Callable[[], Any]] = [
        lambda: nn.Residual([nn.LayerNorm(width), nn.SelfAttention(width, 2, causal=bool(rng.integers(2)))]),
        lambda: nn.Residual([nn.LayerNorm(width), nn.Dense(width, 3), nn.GELU(), nn.Dense(3, width)]),
        lambda: nn.Concatenate([nn.GRU(width, width // 2), [nn.Dense(width, width // 2), nn.Tanh()]]),
        lambda: nn.Residual([nn.Conv1D(width, 2, 3, dilation=2), nn.Tanh(), nn.LSTM(2, width)]),
        lambda: nn.RNN(width, width),
        lambda: nn.PositionalEmbedding(6, width),
        lambda: nn.Residual(nn.Residual(nn.Concatenate([nn.LSTM(width, 1), nn.Conv1D(width, width - 1, 2)]))),
        lambda: nn.Dropout(0.2),
    ]
    layers += [blocks[i]() for i in rng.integers(0, len(blocks), 3)]
    ending = int(rng.integers(3))
    if ending == 0:
        return nn.Sequential([*layers, nn.Dense(width, 2)], rng=rng), True
    if ending == 1:
        return nn.Sequential([nn.Tied(layers[0], layers[1:])], rng=rng), True
    pools = nn.Concatenate([nn.LastEvent(), [nn.Dense(width, 2), nn.MeanOverEvents()], nn.MaxOverEvents()])
    return nn.Sequential([*layers, pools, nn.Dense(2 * width + 2, 2)], rng=rng), False


@pytest.mark.parametrize("seed", range(20))
def test_architectures_that_mix_all_of_them(seed: int) -> None:
    rng = np.random.default_rng([21, seed])
    net, on_events = mixed(rng)
    x = some_ids(rng)
    y = rng.normal(size=(13 if on_events else 7, numbers_of(apply(net, x)[0]).shape[1]))
    target = nn.Ragged(y, OFFSETS) if on_events else y
    mode = rng if seed % 2 else None  # training, with the draws held
    right(nn.check_network(net, nn.HalfSquaredError(), x, target, l2=0.1, seed=seed, rng=mode))
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), saved(net)):
        assert twin.params == net.params and repr(twin) == repr(net)
        np.testing.assert_array_equal(numbers_of(twin.predict(x)), numbers_of(net.predict(x)))


def saved(net: nn.Sequential) -> nn.Sequential:
    file = io.BytesIO()
    nn.save(net, file)
    file.seek(0)
    return nn.load(file).net


@pytest.mark.parametrize(("make", "width"), SEQUENCES, ids=lambda value: repr(value()) if callable(value) else "")
@given(seed=SEEDS, lengths=LENGTHS)
def test_a_sequence_does_not_depend_on_its_neighbours(make: Any, width: int, seed: int, lengths: list[int]) -> None:
    rng = np.random.default_rng(seed)
    layer = made(make, rng)
    x = draw_sequences(rng, layer, width, [0, *lengths, 0])
    y = apply(layer, x)[0]
    assert len(y) == len(x)
    for i in range(len(x)):
        np.testing.assert_allclose(apply(layer, x[i : i + 1])[0][0], y[i], rtol=1e-13, atol=1e-14)
    order = rng.permutation(len(x))
    moved = apply(layer, x[order])[0]
    np.testing.assert_allclose(numbers_of(moved), numbers_of(y[order]), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("make", "width"), SEQUENCES, ids=lambda value: repr(value()) if callable(value) else "")
def test_causal_layers_see_no_later_event(make: Any, width: int, rng: np.random.Generator) -> None:
    layer = made(make, rng)
    if not layer.mixes_events or layer.takes == "ids" or not isinstance(layer.forward(some(rng, width))[0], nn.Ragged):
        return
    x = nn.Ragged(rng.normal(size=(6, width)), [0, 6])
    y = layer.forward(x)[0]
    for t in range(1, 6):
        other = x.values.copy()
        other[t:] = rng.normal(size=(6 - t, width))
        same = np.allclose(layer.forward(nn.Ragged(other, [0, 6]))[0].values[:t], y.values[:t], rtol=1e-13, atol=0)
        assert same or not layer.causal
    assert layer.causal == same  # the last one, of all but one event


def test_pooling_of_no_event_is_zero_and_has_no_gradient(rng: np.random.Generator) -> None:
    for layer in (nn.LastEvent(), nn.MeanOverEvents(), nn.MaxOverEvents()):
        x = nn.Ragged(np.zeros((0, 3)), [0, 0, 0])
        y, cache = layer.forward(x)
        assert y.tolist() == [[0] * 3] * 2 and layer.backward(np.ones((2, 3)), cache)[0].shape == (0, 3)


@pytest.mark.parametrize("cell", [nn.RNN, nn.GRU, nn.LSTM])
def test_one_long_sequence_costs_no_more_than_its_events(cell: Any, rng: np.random.Generator) -> None:
    lengths = np.ones(20_000, np.int64)
    lengths[rng.integers(20_000)] = 2_000  # of sequences x the longest there would be 40 million cells
    x = nn.Ragged(np.ones((int(lengths.sum()), 1)), np.concatenate([[0], np.cumsum(lengths)]))
    layer = cell(1, 1)
    layer.initialize(rng)
    tracemalloc.start()
    y, cache = layer.forward(x)
    layer.backward(y.values, cache)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6, f"{peak / 1e6:.0f} MB"
    np.testing.assert_allclose(
        y[int(lengths.argmax())], layer.forward(nn.Ragged(np.ones((2000, 1)), [0, 2000]))[0].values
    )


def test_initial_values() -> None:
    net = nn.Sequential([nn.LSTM(3, 4), nn.GRU(4, 5)], rng=np.random.default_rng(0))
    assert net.params["0.b"].tolist() == [0] * 4 + [1] * 4 + [0] * 8
    assert not net.params["1.b"].any() and not net.params["1.c"].any()
    for name, fan in (("0.W", 3 + 4), ("0.U", 4 + 4), ("1.W", 4 + 5), ("1.U", 5 + 5)):
        assert abs(net.params[name]).max() <= np.sqrt(6 / fan)  # each gate as a Dense layer's W
    assert net.params.matrices() == ["0.W", "0.U", "1.W", "1.U"]


# -- training


def test_fit_is_the_loop_a_student_would_write(rng: np.random.Generator) -> None:
    x, y = some(rng), rng.normal(size=(7, 1))
    w = rng.random(7)
    nets = [nn.Sequential([nn.GRU(3, 4), nn.LastEvent(), nn.Dense(4, 1)], rng=np.random.default_rng(1)) for _ in "ab"]
    loss, steps = nn.HalfSquaredError(), [nn.Adam(0.01), nn.Adam(0.01)]
    nn.fit(
        nets[0], loss, steps[0], x, y, n_epochs=3, batch_size=2, rng=np.random.default_rng(2), sample_weight=w, l2=0.1
    )
    order_of = np.random.default_rng(2)
    for _ in range(3):
        order = order_of.permutation(7)
        for rows in (order[i : i + 2] for i in range(0, 7, 2)):
            y_pred, cache = nets[1].forward(x[rows])
            _, loss_cache = loss.forward(y_pred, y[rows], w[rows])
            _, grads = nets[1].backward(loss.backward(loss_cache), cache)
            for name in nets[1].params.matrices():
                grads[name] += 0.1 / w[rows].sum() * nets[1].params[name]
            steps[1].step(nets[1].params, grads)
    np.testing.assert_array_equal(nets[0].params.vector, nets[1].params.vector)


def test_targets_on_events_are_targets_of_rows(rng: np.random.Generator) -> None:
    """A layer of rows on sequences learns what it learns from their events as rows, batch by batch."""
    x, y = some(rng), nn.Ragged(rng.integers(0, 2, 13), OFFSETS)
    found = []
    for weight in (None, rng.random(7)):
        net = nn.Sequential([nn.Dense(3, 1)], rng=np.random.default_rng(1))
        options = {"n_epochs": 3, "rng": np.random.default_rng(0), "shuffle": False, "class_weight": {0: 1.0, 1: 3.0}}
        on = nn.fit(
            net, nn.SigmoidCrossEntropy(), nn.SGD(0.1), x, y, batch_size=7, sample_weight=weight, l2=0.1, **options
        )
        flat = nn.Sequential([nn.Dense(3, 1)], rng=np.random.default_rng(1))
        w = None if weight is None else np.repeat(weight, x.lengths)
        rows = nn.fit(
            flat,
            nn.SigmoidCrossEntropy(),
            nn.SGD(0.1),
            x.values,
            y.values,
            batch_size=13,
            sample_weight=w,
            l2=0.1,
            **options,
        )
        assert on["loss"] == rows["loss"]
        np.testing.assert_array_equal(net.params.vector, flat.params.vector)
        if weight is not None:  # a weight an event
            again = nn.Sequential([nn.Dense(3, 1)], rng=np.random.default_rng(1))
            per_event = nn.Ragged(w, OFFSETS)
            nn.fit(
                *(again, nn.SigmoidCrossEntropy(), nn.SGD(0.1), x, y),
                batch_size=7,
                sample_weight=per_event,
                l2=0.1,
                **options,
            )
            np.testing.assert_array_equal(net.params.vector, again.params.vector)
        found.append(net.params.vector.copy())
    assert not np.array_equal(*found)


def test_batches_without_events_are_skipped(rng: np.random.Generator) -> None:
    x, y = some(rng), nn.Ragged(rng.normal(size=13), OFFSETS)
    net = nn.Sequential([nn.GRU(3, 4), nn.Dense(4, 1)], rng=rng)
    optimizer = nn.SGD(0.1)
    history = nn.fit(net, nn.MeanSquaredError(), optimizer, x, y, n_epochs=2, batch_size=1, rng=rng)
    assert optimizer.n_steps == 2 * (np.diff(OFFSETS) > 0).sum() and np.isfinite(history["loss"]).all()
    empty = nn.Ragged(np.zeros((0, 3)), [0, 0, 0])
    before = net.params.vector.copy()
    history = nn.fit(
        *(net, nn.MeanSquaredError(), optimizer, empty, nn.Ragged(np.zeros(0), [0, 0, 0])), n_epochs=1, rng=rng
    )
    assert history["loss"] == [0.0] and np.array_equal(net.params.vector, before)


def test_a_run_in_two_halves_with_a_file_between_is_one_run(rng: np.random.Generator) -> None:
    ids, y = some_ids(rng), rng.integers(0, 3, 7)

    def new() -> nn.Sequential:
        layers = [nn.Embedding(6, 4), nn.Dropout(0.2), nn.LSTM(4, 4), nn.MaxOverEvents(), nn.Dense(4, 3)]
        return nn.Sequential(layers, rng=np.random.default_rng(1), dtype=np.float32)

    loss = nn.SoftmaxCrossEntropy()
    whole, optimizer, generator = new(), nn.Adam(0.01, lazy=True), np.random.default_rng(2)
    nn.fit(whole, loss, optimizer, ids, y, n_epochs=4, batch_size=3, rng=generator)
    half, optimizer, generator = new(), nn.Adam(0.01, lazy=True), np.random.default_rng(2)
    nn.fit(half, loss, optimizer, ids, y, n_epochs=2, batch_size=3, rng=generator)
    file = io.BytesIO()
    nn.save(half, file, loss=loss, optimizer=optimizer, rng=generator)
    file.seek(0)
    net, loss, optimizer, generator = nn.load(file)
    nn.fit(net, loss, optimizer, ids, y, n_epochs=2, batch_size=3, rng=generator)
    np.testing.assert_array_equal(net.params.vector, whole.params.vector)


def test_several_inputs_some_of_them_sequences(rng: np.random.Generator) -> None:
    parts = nn.Parallel([[nn.Embedding(6, 4), nn.GRU(4, 4), nn.LastEvent()], nn.Embedding(3, 2), nn.Dense(5, 3)])
    net = nn.Sequential([parts, nn.Tanh(), nn.Dense(9, 1)], rng=rng)
    x = (some_ids(rng), rng.integers(0, 3, 7), rng.normal(size=(7, 5)))
    assert net.takes == ("ids", "ids", "numbers") and net.mixes_events
    right(nn.check_network(net, nn.HalfSquaredError(), x, rng.normal(size=(7, 1))))
    history = nn.fit(
        *(net, nn.MeanSquaredError(), nn.Adam(0.02), x, rng.normal(size=7)),
        n_epochs=150,
        batch_size=3,
        rng=rng,
        validation_data=(x, np.zeros(7)),
    )
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    np.testing.assert_allclose(nn.freeze(net)(x), net.predict(x), rtol=1e-14)
    np.testing.assert_array_equal(net.predict(x).shape, (7, 1))


def test_a_lazy_optimizer_touches_the_ids_that_occur(rng: np.random.Generator) -> None:
    x = nn.Ragged(np.array([4, 1, 4]), [0, 2, 3])
    y = np.array([0.0, 1.0])
    found = []
    for hidden in (False, True):
        net = nn.Sequential([nn.Embedding(6, 3), nn.MeanOverEvents(), nn.Dense(3, 1)], rng=np.random.default_rng(0))
        optimizer, loss = nn.Adam(0.1, lazy=True), nn.MeanSquaredError()
        before = net.params["0.E"].copy()
        for _ in range(2):
            _, grads = nn.objective(net, loss, x, y)
            assert {name: rows.tolist() for name, rows in grads.rows.items()} == {"0.E": [1, 4]}
            if hidden:  # found again by their zeros
                grads.rows = {}
            optimizer.step(net.params, grads)
        moved = (net.params["0.E"] != before).any(axis=1)
        assert moved.tolist() == [False, True, False, False, True, False]
        found.append(net.params.vector)
        _, grads = nn.objective(net, loss, x, y, l2=0.1)
        assert not grads.rows  # the L2 term is everywhere
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("targets", ["labels", "sets", "shares"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_wide_softmax_in_blocks_is_the_whole_one(
    tied: bool, targets: str, weighted: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = [nn.Dropout(0.2), nn.GRU(4, 4)]
    tail = nn.Sequential([nn.LayerNorm(4), nn.Dense(4, 6)], rng=None)
    layers = [nn.Tied(nn.Embedding(6, 4), inside)] if tied else [nn.Embedding(6, 4), *inside, tail]
    net, x, loss = nn.Sequential(layers, rng=rng), some_ids(rng), nn.SoftmaxCrossEntropy()
    values: Any = rng.integers(0, 6, 13) if targets == "labels" else rng.dirichlet(np.ones(6), 13)
    if targets == "sets":
        values = pytest.importorskip("scipy.sparse").csr_array((values > 0.1) * 1.0)
    y, w = nn.Ragged(values, OFFSETS), rng.random(7) if weighted else None
    whole, grads = nn.objective(net, loss, x, y, sample_weight=w, l2=0.1, rng=np.random.default_rng(1))
    monkeypatch.setattr(objectives, "MANY", 20)
    value, parts = nn.objective(net, loss, x, y, sample_weight=w, l2=0.1, rng=np.random.default_rng(1))
    assert value == pytest.approx(whole, rel=1e-14)
    np.testing.assert_allclose(parts.vector, grads.vector, rtol=1e-12, atol=1e-15)
    history = nn.fit(net, loss, nn.Adam(0.01), x, y, n_epochs=1, rng=rng, validation_data=(x, y), sample_weight=w)
    expected = loss.forward(net.predict(x).values, y.values)[0]
    assert history["val_loss"][0] == pytest.approx(expected, rel=1e-13)


def test_sets_as_targets(rng: np.random.Generator) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    loss, z = nn.SoftmaxCrossEntropy(), rng.normal(size=(2, 3))
    sets = sparse.csr_array(np.array([[1, 0, 1], [0, 5, 0]]))
    value, cache = loss.forward(z, sets)
    dense = loss.forward(z, [[0.5, 0, 0.5], [0, 1, 0]])
    assert value == dense[0]
    np.testing.assert_array_equal(loss.backward(cache), loss.backward(dense[1]))
    net = nn.Sequential([nn.Dense(3, 3)], rng=rng)
    history = nn.fit(net, loss, nn.SGD(0.1), z, sets, n_epochs=2, rng=rng, engine="auto")
    assert history["loss"][1] < history["loss"][0]
    for bad, match in (([[0, 0, 0], [1, 0, 0]], "row 0 is empty"), ([[2, -1, 0], [1, 0, 0]], "negative")):
        with pytest.raises(ValueError, match=match):
            loss.forward(z, sparse.csr_array(np.array(bad)))
    with pytest.raises(ValueError, match="sparse y"):
        nn.fit(net, loss, nn.SGD(0.1), z, sets, n_epochs=2, rng=rng, engine="numba")


# -- scoring


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_frozen_networks_give_what_predict_gives(dtype: Any, rng: np.random.Generator, monkeypatch: Any) -> None:
    import nnprofile.frozen

    monkeypatch.setattr(nnprofile.frozen, "_PIECE", 3)
    net = nn.Sequential([nn.Embedding(6, 4), nn.SelfAttention(4, 2), nn.Dense(4, 3)], rng=rng, dtype=dtype)
    x, score = some_ids(rng), nn.freeze(net, nn.SoftmaxCrossEntropy())
    expected = nn.Softmax().forward(net.predict(x).values)[0]
    for n_threads in (1, 2):
        y = score(x, n_threads=n_threads)
        assert y.same_events(x) and y.dtype == dtype
        np.testing.assert_allclose(y.values, expected, rtol=1e-12 if dtype is np.float64 else 1e-5)
    out = np.empty((13, 3), dtype)
    assert score(x, out).values is out
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(score))(x).values, y.values)
    last = nn.Sequential([nn.Embedding(6, 4), nn.LastEvent(), nn.Dense(4, 1)], rng=rng, dtype=dtype)
    np.testing.assert_allclose(nn.freeze(last)(x), last.predict(x), rtol=1e-6)
    assert nn.freeze(last)(x[:0]).shape == (0, 1)
    rows = nn.Sequential([nn.Dense(3, 2)], rng=rng, dtype=dtype)
    events = nn.Ragged(rng.normal(size=(13, 3)).astype(dtype), OFFSETS)
    np.testing.assert_allclose(nn.freeze(rows)(events).values, rows.predict(events).values, rtol=1e-5)


# -- what strangers found


def test_a_lazy_optimizer_moves_all_of_a_tied_embedding(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = nn.Sequential([nn.Tied(nn.Embedding(6, 4), [nn.GRU(4, 4)])], rng=rng)
    x, y = nn.Ragged(np.array([0, 1, 0]), [0, 3]), nn.Ragged(np.array([5, 5, 5]), [0, 3])
    for many in (objectives.MANY, 6):
        monkeypatch.setattr(objectives, "MANY", many)
        _, grads = nn.objective(net, nn.SoftmaxCrossEntropy(), x, y)
        assert not grads.rows and grads["0.0.E"][2].any()
        nn.check_step(net, nn.SoftmaxCrossEntropy(), nn.Adam(0.01, lazy=True), x, y).raise_if_failed()


def test_many_logits_of_sparse_rows(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dense = (rng.random((13, 5)) < 0.5) * rng.normal(size=(13, 5))
    net, loss, y = nn.Sequential([nn.Dense(5, 4)], rng=rng), nn.SoftmaxCrossEntropy(), rng.integers(0, 4, 13)
    whole = nn.objective(net, loss, dense, y)
    monkeypatch.setattr(objectives, "MANY", 12)
    packed = nn.Ragged(sparse.csr_array(dense), OFFSETS)
    for x, t in ((dense, y), (sparse.csr_array(dense), y), (packed, nn.Ragged(y, OFFSETS))):
        value, grads = nn.objective(net, loss, x, t)
        assert value == pytest.approx(whole[0], rel=1e-14)
        np.testing.assert_allclose(grads.vector, whole[1].vector, rtol=1e-12, atol=1e-15)
        nn.fit(net.with_params(net.params.of(net.params.vector.copy())), loss, nn.SGD(0.1), x, t, n_epochs=1, rng=rng)


def test_the_largest_of_what_is_not_a_number(rng: np.random.Generator) -> None:
    for events in ([1.0, np.nan], [np.nan, 1.0], [np.nan, np.nan]):
        y, cache = nn.MaxOverEvents().forward(nn.Ragged(np.array(events)[:, None], [0, 2]))
        assert np.isnan(y).all()
        nn.MaxOverEvents().backward(np.ones((1, 1)), cache)


@pytest.mark.parametrize(
    ("layers", "x", "match"),
    [
        ([nn.Embedding(3, 1)], np.array([0, 1, 2, 7]), "got 7"),
        ([nn.Embedding(3, 1), nn.LastEvent()], nn.Ragged(np.array([0, 1, 2, -7]), [0, 1, 2, 3, 4]), "got -7"),
        ([nn.PositionalEmbedding(2, 1), nn.LastEvent()], nn.Ragged(np.ones((7, 1)), [0, 1, 2, 3, 7]), "got one of 4"),
        (
            [nn.Parallel([nn.Embedding(3, 1), nn.Dense(1, 1)]), nn.GRU(2, 1), nn.LastEvent()],
            (nn.Ragged(np.zeros(5, int), [0, 1, 2, 3, 5]), nn.Ragged(np.ones((5, 1)), [0, 1, 2, 4, 5])),
            "events of sequences of equal lengths",
        ),
    ],
)
def test_what_is_wrong_in_the_last_batch_is_found_before_the_first(
    layers: Any, x: Any, match: str, rng: np.random.Generator
) -> None:
    net = nn.Sequential([*copy.deepcopy(layers), nn.Dense(1, 1)], rng=rng)
    optimizer, before = nn.SGD(0.1), net.params.vector.copy()
    good = take(x, [0]), np.zeros(1)
    for data in ((x, np.zeros(4), None), (*good, (x, np.zeros(4)))):
        with pytest.raises(ValueError, match=match):
            nn.fit(
                *(net, nn.MeanSquaredError(), optimizer, *data[:2]),
                n_epochs=1,
                batch_size=1,
                shuffle=False,
                rng=rng,
                validation_data=data[2],
            )
    assert optimizer.n_steps == 0 and np.array_equal(net.params.vector, before)


def test_validation_without_events_is_refused_before_the_first_epoch(rng: np.random.Generator) -> None:
    net, optimizer = nn.Sequential([nn.GRU(3, 4), nn.Dense(4, 1)], rng=rng), nn.SGD(0.1)
    nothing = nn.Ragged(np.zeros((0, 3)), [0, 0]), nn.Ragged(np.zeros(0), [0, 0])
    with pytest.raises(ValueError, match="validation y must have at least one event"):
        nn.fit(
            *(net, nn.MeanSquaredError(), optimizer, some(rng), nn.Ragged(np.zeros(13), OFFSETS)),
            n_epochs=1,
            rng=rng,
            validation_data=nothing,
        )
    assert optimizer.n_steps == 0
    value, grads = nn.objective(net, nn.MeanSquaredError(), *nothing)
    assert value == 0 and not grads.vector.any()


def test_targets_of_other_events_are_refused_everywhere(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = nn.Sequential([nn.GRU(3, 4), nn.Dense(4, 2)], rng=rng), some(rng)
    loss, other = nn.SoftmaxCrossEntropy(), nn.Ragged(np.zeros(13, int), [0, 3, 3, 3, 8, 9, 13, 13])
    for many in (objectives.MANY, 4):
        monkeypatch.setattr(objectives, "MANY", many)
        for call in (nn.objective, nn.check_network, nn.trace):
            with pytest.raises(ValueError, match="target for each event of x: sequence 0 has 0 events, and 3"):
                call(net, loss, x, other)
        with pytest.raises(ValueError, match="so y must be a Ragged"):
            nn.objective(net, loss, x, np.zeros(13, int))
        rows = nn.Sequential([nn.Dense(3, 2)], rng=rng)
        for t, w, match in ((6, None, "y_true has 6 rows, y_pred has 4"), (4, 6, r"shape \(4,\), one weight a sample")):
            with pytest.raises(ValueError, match=match):
                nn.objective(
                    rows, loss, np.ones((4, 3)), np.zeros(t, int), sample_weight=None if w is None else np.ones(w)
                )


class Halved(nn.Layer):
    mixes_events = True

    def forward(self, x: Any, rng: Any = None) -> Any:
        lengths = x.lengths // 2
        return nn.Ragged(x.values[: lengths.sum()], np.concatenate([[0], np.cumsum(lengths)])), None


class Plain(nn.Layer):
    mixes_events = True

    def forward(self, x: Any, rng: Any = None) -> Any:
        return x.values, None


@pytest.mark.parametrize("layer", [Halved(), Plain()], ids=["Halved", "Plain"])
def test_a_layer_that_mixes_events_keeps_them(layer: nn.Layer, rng: np.random.Generator) -> None:
    net = nn.Sequential([nn.Dense(3, 3), layer], rng=rng)
    for call in (lambda: net.predict(some(rng)), lambda: nn.check_layer(layer, some(rng))):
        with pytest.raises(
            ValueError, match="must return a Ragged with an event for each of x, or an array with a row"
        ):
            call()


def test_the_checker_looks_at_named_rows(rng: np.random.Generator) -> None:
    class TooFew(nn.Embedding):
        def backward(self, dy: Any, cache: Any) -> Any:
            dx, grads = super().backward(dy, cache)
            grads.rows["E"] = grads.rows["E"][1:]
            return dx, grads

    layer = made(lambda: TooFew(6, 2), rng)
    report = nn.check_layer(layer, np.array([1, 4, 1]))
    assert not report.ok and "grads.rows['E']" in report.errors[0].message


def test_no_events_at_all_are_scored(rng: np.random.Generator) -> None:
    nobody = nn.Ragged.from_list([[], []])
    for first in (nn.Embedding(6, 3), nn.Dense(3, 3)):
        net = nn.Sequential([first, nn.GRU(3, 4), nn.LastEvent(), nn.Dense(4, 1)], rng=rng)
        assert net.predict(nobody).shape == nn.freeze(net)(nobody).shape == (2, 1)
    assert nn.Sequential([nn.Embedding(6, 3)], rng=rng).predict([]).shape == (0, 3)


def test_nested_tuples_are_checked(rng: np.random.Generator) -> None:
    inner = nn.Parallel([nn.Dense(2, 1), nn.Dense(3, 1)])
    net = nn.Sequential([nn.Parallel([nn.Dense(2, 1), inner])], rng=rng)
    a, b, c = (rng.normal(size=(3, n)) for n in (2, 2, 3))
    right(nn.check_layer(net, (a, (b, c))))


# -- what is refused


def two(rng: np.random.Generator) -> nn.Sequential:
    return nn.Sequential([nn.GRU(3, 4), nn.Dense(4, 1)], rng=rng)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda r: two(r).predict(np.zeros((4, 3))), "takes sequences, a Ragged; got an array of shape"),
        (lambda r: two(r).predict([[[1.0, 2.0, 3.0]]]), "see Ragged.from_list"),
        (lambda r: two(r).predict(some(r, 4)), r"x.values must have shape \(n_samples, 3\), got \(13, 4\)"),
        (lambda r: two(r).predict(nn.Ragged(np.zeros(13), OFFSETS)), r"give x.values\[:, None\]"),
        (lambda r: two(r).predict(nn.Ragged(np.full((13, 3), np.nan), OFFSETS)), "x.values must be finite"),
        (
            lambda r: nn.GRU(
                3,
                4,
            ).forward(np.zeros((4, 3))),
            r"GRU\(3, 4\) takes sequences",
        ),
        (
            lambda r: made(lambda: nn.GRU(3, 4), r).forward(some(r, 2)),
            r"events of shape \(n_events, 3\), got \(13, 2\)",
        ),
        (lambda r: nn.GRU(3, 4).forward(some(r)), "has no values for"),
        (lambda r: nn.Dense(3, 4, rng=r).forward(some(r)), "takes the events, x.values"),
        (lambda r: made(lambda: nn.Embedding(6, 2), r).forward(np.array([1, 6])), r"ids in 0 \.\. 5, got 6"),
        (lambda r: made(lambda: nn.Embedding(6, 2), r).forward(np.array([-1])), "got -1"),
        (lambda r: made(lambda: nn.Embedding(6, 2), r).forward(np.array([1.0])), "must hold integer ids"),
        (lambda r: made(lambda: nn.Embedding(6, 2), r).forward(np.array([[1]])), r"shape \(n,\); got int64"),
        (lambda r: made(lambda: nn.PositionalEmbedding(4, 3), r).forward(some(r)), "at most 4 events, got one of 5"),
        (lambda r: nn.Conv1D(3, 2, 2, causal=False), "a centred window has an odd width"),
        (lambda r: nn.Conv1D(3, 2, 0), "width must be an integer of at least 1"),
        (lambda r: nn.Conv1D(3, 2, 2, dilation=0), "dilation must be"),
        (lambda r: nn.Conv1D(3, 2, 2, causal=1), "causal must be True or False"),
        (lambda r: nn.SelfAttention(4, 3), "n_heads must divide features, got 3 and 4"),
        (lambda r: nn.SelfAttention(4, 2, causal=None), "causal must be"),
        (lambda r: nn.Tied(nn.Dense(3, 3), nn.Tanh()), "takes an Embedding"),
        (lambda r: nn.Tied(nn.Embedding(5, 3), nn.Dense(3, 4)), "Tied compares"),
        (lambda r: nn.Residual([nn.GRU(3, 3), nn.LastEvent()]).forward(some(r)), "has no values for"),
        (lambda r: made(lambda: nn.Residual([nn.GRU(3, 3), nn.LastEvent()]), r).forward(some(r)), "sequences as long"),
        (
            lambda r: nn.Concatenate([nn.LastEvent(), nn.Identity()]).forward(some(r)),
            "events of sequences of equal lengths",
        ),
        (lambda r: nn.Concatenate([nn.Embedding(3, 2), nn.Dense(2, 2)]), "take one x, but they take"),
        (
            lambda r: nn.Parallel([nn.Identity(), nn.Identity()]).forward(
                (some(r), nn.Ragged(np.zeros((13, 2)), [0] * 7 + [13]))
            ),
            "equal lengths",
        ),
    ],
)
def test_bad_input_gets_a_clear_error(call: Any, match: str, rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match=match):
        call(rng)


@pytest.mark.parametrize(
    ("x", "y", "more", "match"),
    [
        ("events", np.zeros(7), {}, "gives a row for each event, so y must be a Ragged"),
        ("pooled", "events", {}, "y is a Ragged, with a target for each event"),
        (
            "events",
            nn.Ragged(np.zeros(13), [0] * 7 + [13]),
            {},
            "a target for each event of x: sequence 1 has 3 events, and 0",
        ),
        ("events", nn.Ragged(np.zeros(12), [0, 12]), {}, "x has 7 rows, y has 1"),
        (
            "events",
            "events",
            {"sample_weight": np.ones(13)},
            r"Ragged\(sample_weight, y.offsets\); or give one a sequence, \(7,\)",
        ),
        (
            "events",
            "events",
            {"sample_weight": nn.Ragged(np.ones(13), [0] * 7 + [13])},
            "a weight for each event, as y has a target: sequence 1 has 3",
        ),
        ("events", "events", {"sample_weight": nn.Ragged(-np.ones(13), OFFSETS)}, "must not be negative"),
        ("pooled", np.zeros(7), {"sample_weight": nn.Ragged(np.ones(13), OFFSETS)}, "one weight a row"),
        ("events", "events", {"validation_data": "sequences"}, "validation y: the network gives a row for each event"),
    ],
)
def test_what_fit_refuses(x: str, y: Any, more: dict, match: str, rng: np.random.Generator) -> None:
    layers = [nn.GRU(3, 4), nn.Dense(4, 1)] if x == "events" else [nn.GRU(3, 4), nn.LastEvent(), nn.Dense(4, 1)]
    net, data = nn.Sequential(layers, rng=rng), some(rng)
    before = net.params.vector.copy()
    y = nn.Ragged(np.zeros(13), OFFSETS) if isinstance(y, str) else y
    more = {**more, "validation_data": (data, np.zeros(7))} if "validation_data" in more else more
    with pytest.raises(ValueError, match=match):
        nn.fit(net, nn.MeanSquaredError(), nn.SGD(0.1), data, y, n_epochs=1, rng=rng, **more)
    np.testing.assert_array_equal(net.params.vector, before)


def test_offsets_are_checked_at_the_gate(rng: np.random.Generator) -> None:
    x = some(rng)
    x.offsets = OFFSETS + 1
    with pytest.raises(ValueError, match="got 1 to 14"):
        two(rng).predict(x)
