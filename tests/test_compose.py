"""Composites: a shortcut, branches, several inputs; nested to any depth, in one vector."""

from __future__ import annotations

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn
from nnprofile.contract import n_rows, take
from nnprofile.layers.compose import Composite
from nnprofile.layers.walk import walk


def deep(rng: np.random.Generator, dtype: Any = np.float64) -> nn.Sequential:
    """Return composites three deep, each kind in each other: 3 features to 2."""
    inner = nn.Concatenate([nn.Dense(3, 2), [nn.Dense(3, 1), nn.Tanh()]])
    middle = nn.Residual([nn.Dense(3, 3), nn.Residual(inner), nn.Sigmoid()])
    net = [middle, nn.Tanh(), nn.Concatenate([nn.Identity(), nn.Residual([nn.Tanh(), nn.Dense(3, 3)])]), nn.Dense(6, 2)]
    return nn.Sequential(net, rng=rng, dtype=dtype)


def two_inputs(rng: np.random.Generator, dtype: Any = np.float64) -> nn.Sequential:
    first = nn.Parallel([[nn.Dense(3, 4), nn.Tanh()], nn.Residual([nn.Dense(2, 2), nn.Tanh()])])
    return nn.Sequential([first, nn.Dense(6, 1)], rng=rng, dtype=dtype)


def numeric(f: Any, x: np.ndarray) -> np.ndarray:
    """Return the gradient of a number by the complex step, written again."""
    out = np.empty(x.shape)
    for i in np.ndindex(x.shape):
        z = x.astype(complex)
        z[i] += 1e-30j
        out[i] = f(z).imag / 1e-30
    return out


def test_each_is_its_equation(rng: np.random.Generator) -> None:
    x, dense, other = rng.normal(size=(4, 3)), nn.Dense(3, 3, rng=rng), nn.Dense(3, 2, rng=rng)
    a, b = copy.deepcopy(dense), copy.deepcopy(other)
    np.testing.assert_array_equal(nn.Residual(dense).forward(x)[0], x + a.forward(x)[0])
    both = nn.Concatenate([copy.deepcopy(a), other])
    np.testing.assert_array_equal(both.forward(x)[0], np.hstack([a.forward(x)[0], b.forward(x)[0]]))
    parts = nn.Parallel([copy.deepcopy(a), copy.deepcopy(b)])
    np.testing.assert_array_equal(parts.forward((x, 2 * x))[0], np.hstack([a.forward(x)[0], b.forward(2 * x)[0]]))
    assert list(both.params) == ["0.W", "0.b", "1.W", "1.b"] and list(nn.Residual([nn.Dense(2, 2)]).params) == [
        "0.0.W",
        "0.0.b",
    ]
    assert both.output_width(3) == 5 and parts.output_width((3, 3)) == 5 and parts.in_features == (3, 3)


@given(seed=st.integers(0, 10**6), n=st.integers(0, 3))
def test_gradients_are_right_three_deep(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    net, x = deep(rng), rng.normal(size=(n, 3))
    y, cache = net.forward(x)
    dy = rng.normal(size=y.shape)
    dx, grads = net.backward(dy, cache)
    np.testing.assert_allclose(dx, numeric(lambda z: (net.forward(z)[0] * dy).sum(), x), atol=1e-12)

    def of_params(z: np.ndarray) -> Any:
        return (net.with_params(nn.Parameters(net.params.layout, z)).forward(x)[0] * dy).sum()

    np.testing.assert_allclose(grads.vector, numeric(of_params, net.params.vector), atol=1e-12)
    assert grads.matches(net.params)


def test_the_checker_agrees(rng: np.random.Generator) -> None:
    net = deep(rng)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    nn.check_network(net, nn.HalfSquaredError(), x, y, l2=0.1).raise_if_failed()
    nn.check_layer(nn.Residual([nn.Dense(3, 3, rng=rng), nn.Tanh()]), x).raise_if_failed()
    nn.check_layer(nn.Concatenate([nn.Dense(3, 2, rng=rng), nn.Tanh()]), x).raise_if_failed()
    nn.check_step(net, nn.HalfSquaredError(), nn.Adam(0.01, weight_decay=0.1), x, y).raise_if_failed()

    class Wrong(nn.Tanh):
        def _slope(self, cache: Any) -> Any:
            return 2 * super()._slope(cache)

    broken = nn.Sequential([nn.Dense(3, 3), nn.Residual([nn.Dense(3, 3), Wrong()]), nn.Dense(3, 2)], rng=rng)
    report = nn.check_network(broken, nn.HalfSquaredError(), x, y)
    assert {finding.layer for finding in report.errors} == {"1.0.1"} and "factor 2" in str(report)


def test_walk_sees_every_layer_and_join(rng: np.random.Generator) -> None:
    net, x = deep(rng), rng.normal(size=(4, 3))
    y, cache = net.forward(x)
    dy = rng.normal(size=y.shape)
    _, grads = net.backward(dy, cache)
    steps = walk(net, x, dy=dy)
    names = [step.name for step in steps]
    residual = ["0.0.0", "0.0.1.0.0", "0.0.1.0.1.0", "0.0.1.0.1.1", "0.0.1.0", "0.0.1", "0.0.2", "0"]
    assert names == [*residual, "1", "2.0", "2.1.0.0", "2.1.0.1", "2.1", "2", "3"]
    for step in steps:
        own = step.layer.forward(step.x)[0]
        np.testing.assert_allclose(step.y, own)
        if step.grads is not None:
            for name, gradient in step.grads.items():
                np.testing.assert_array_equal(gradient, grads[f"{step.name}.{name}"])
        elif not isinstance(step.layer, Composite):
            assert not len(step.layer.params)
        assert np.shape(step.dy) == np.shape(step.y) and np.shape(step.dx) == np.shape(step.x)
    np.testing.assert_array_equal(steps[-1].y, y)
    np.testing.assert_array_equal(steps[0].x, x)
    assert sum(len(step.grads) for step in steps if step.grads is not None) == len(net.params)
    one = walk(nn.Tanh(), x)
    assert len(one) == 1 and one[0].dx is None
    training = walk(nn.Sequential([nn.Dropout(0.5)], rng=None), np.ones((100, 3)), rng=np.random.default_rng(0))
    assert set(np.unique(training[0].y)) == {0.0, 2.0}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_one_vector_copies_and_files(rng: np.random.Generator, dtype: Any) -> None:
    net, x = deep(rng, dtype), rng.normal(size=(4, 3))
    y = net.predict(x)
    assert y.dtype == dtype and net.backward(*net.forward(x.astype(dtype)))[1].dtype == dtype
    view = net.layers[0].children[0].children[1].params  # type: ignore[attr-defined]
    assert np.shares_memory(view.vector, net.params.vector)
    buffer = io.BytesIO()
    nn.save(net, buffer)
    loaded = nn.load(buffer.getvalue()).net
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), loaded, net.with_params(net.params)):
        np.testing.assert_array_equal(twin.predict(x), y)
        assert repr(twin) == repr(net)
    loaded.params["0.0.0.b"] = loaded.params["0.0.0.b"] + 1
    assert not np.array_equal(loaded.predict(x), y)


def test_training_and_scoring(rng: np.random.Generator) -> None:
    x = rng.normal(size=(200, 3))
    y = np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:]
    net = nn.Sequential([nn.Dense(3, 8), nn.Residual([nn.Dense(8, 8), nn.Tanh()]), nn.Dense(8, 1)], rng=rng)
    history = nn.fit(net, nn.MeanSquaredError(), nn.Adam(0.02), x, y, n_epochs=30, rng=rng)
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    twin = copy.deepcopy(net)
    for some, name in ((net, "numpy"), (twin, "numba")):
        own = np.random.default_rng(3)
        nn.fit(some, nn.MeanSquaredError(), nn.Adam(0.02), x, y, n_epochs=2, rng=own, engine=name)
    np.testing.assert_allclose(twin.params.vector, net.params.vector, rtol=1e-9)
    frozen = nn.freeze(net)
    assert frozen.compiled
    np.testing.assert_allclose(frozen(x), net.predict(x), rtol=1e-12)


def test_several_inputs(rng: np.random.Generator) -> None:
    net = two_inputs(rng)
    x = rng.normal(size=(60, 3)), rng.normal(size=(60, 2))
    y = x[0][:, :1] - 2 * x[1][:, 1:]
    assert net.in_features == (3, 2) and net.out_features == 1
    assert n_rows(x) == 60 and [part.shape for part in take(x, slice(3, 7))] == [(4, 3), (4, 2)]
    how = {"n_epochs": 80, "batch_size": 16, "validation_data": (x, y), "rng": rng}
    history = nn.fit(net, nn.MeanSquaredError(), nn.Adam(0.02), x, y, **how)
    assert history["val_loss"][-1] < 0.5 * history["val_loss"][0]
    np.testing.assert_allclose(nn.freeze(net)(x), net.predict(x), rtol=1e-12, atol=1e-14)
    out, cache = net.forward(x)
    dx, _ = net.backward(np.ones_like(out), cache)
    assert isinstance(dx, tuple)
    for k in range(2):
        parts = list(x)

        def f(z: np.ndarray, k: int = k, parts: list[Any] = parts) -> Any:
            return net.forward(tuple(z if j == k else part for j, part in enumerate(parts)))[0].sum()

        np.testing.assert_allclose(dx[k], numeric(f, x[k]), atol=1e-12)
    for wrong, says in (
        (x[0], "must be a tuple of 2 parts"),
        ((x[0],), "got a tuple of 1"),
        ((x[0], x[1][:5]), "as many rows each"),
        ((x[1], x[0]), r"x\[0\] must have shape \(n_samples, 3\)"),
        ((x[0], np.full((60, 2), np.nan)), r"x\[1\] must be finite"),
    ):
        with pytest.raises(ValueError, match=says):
            net.predict(wrong)


def test_sparse_rows_into_branches(rng: np.random.Generator) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    x = sparse.csr_array(rng.normal(size=(5, 4)) * (rng.random((5, 4)) < 0.5))
    net = nn.Sequential([nn.Concatenate([nn.Dense(4, 2), [nn.Dense(4, 3), nn.Tanh()]]), nn.Dense(5, 1)], rng=rng)
    y, cache = net.forward(x)
    np.testing.assert_allclose(y, net.forward(x.toarray())[0])
    dx, grads = net.backward(np.ones_like(y), cache)
    dense_y, dense_cache = net.forward(x.toarray())
    assert dx is None
    np.testing.assert_allclose(grads.vector, net.backward(np.ones_like(dense_y), dense_cache)[1].vector)
    with pytest.raises(ValueError, match="Residual adds f"):
        nn.Residual(nn.Dense(4, 4, rng=rng)).forward(x)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: nn.Residual(nn.Dense(3, 2)), r"Residual adds f\(x\) to x: Dense\(3, 2\) makes 2 features of 3"),
        (lambda: nn.Residual([nn.Dense(3, 4), nn.Dense(4, 2)]), "makes 2 features of 3"),
        (lambda: nn.Sequential([nn.Dense(2, 3), nn.Residual(nn.Dense(4, 4))], rng=None), "takes 4 features.*give 3"),
        (lambda: nn.Concatenate([nn.Dense(2, 3), nn.Dense(3, 3)]), r"take \[2, 3\] features"),
        (
            lambda: nn.Sequential([nn.Concatenate([nn.Dense(2, 3), nn.Tanh()]), nn.Dense(4, 1)], rng=None),
            "takes 4.*give 5",
        ),
        (lambda: nn.Concatenate([]), "Concatenate takes at least one layer"),
        (lambda: nn.Concatenate(nn.Dense(2, 2)), r"must be a sequence of layers, Concatenate\(\[...\]\)"),
        (lambda: nn.Parallel([nn.Dense]), r"did you mean Dense\(\.\.\.\)\?"),
        (lambda: nn.Residual(3), "must be a Layer, got 3"),
    ],
)
def test_what_does_not_fit(wrong: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        wrong()


def test_a_layer_that_is_bound_is_not_bound_again(rng: np.random.Generator) -> None:
    dense = nn.Dense(2, 2, rng=rng)
    nn.Residual(dense)
    with pytest.raises(ValueError, match=r"is bound already, as layer 0 of Residual\(Dense\(2, 2\)\)"):
        nn.Concatenate([nn.Tanh(), dense])
    again = nn.Dense(2, 2)
    with pytest.raises(ValueError, match="is layer 0 of this network too"):
        nn.Concatenate([again, again])


def test_deep_nesting_costs_little() -> None:
    layer: nn.Layer = nn.Tanh()
    for _ in range(60):
        layer = nn.Residual(nn.Sequential([layer], rng=None))
    assert layer.output_width(3) == 3
    assert np.isfinite(layer.forward(np.zeros((1, 2)))[0]).all()


def test_the_checker_takes_a_tuple(rng: np.random.Generator) -> None:
    net, x = two_inputs(rng), (rng.normal(size=(5, 3)), rng.normal(size=(5, 2)))
    before = net.params.vector.copy()
    y, loss = rng.normal(size=(5, 1)), nn.HalfSquaredError()
    report = nn.check_layer(net.layers[0], x)
    assert report.ok and [row.tensor for row in report.rows] == ["x.0", "x.1", *net.layers[0].params]
    whole = nn.check_network(net, loss, x, y, l2=0.1)
    assert whole.ok and [row.tensor for row in whole.rows] == ["x.0", "x.1", *net.params]
    nn.check_step(net, loss, nn.Adam(0.01, weight_decay=0.1), x, y).raise_if_failed()
    np.testing.assert_array_equal(net.params.vector, before)

    class Swapped(nn.Parallel):
        def backward(self, dy: Any, cache: Any) -> Any:
            dx, grads = super().backward(dy, cache)
            return (2 * dx[0], dx[1]), grads

    wrong = Swapped([nn.Dense(3, 2, rng=rng), nn.Dense(2, 2, rng=rng)])
    assert not nn.check_layer(wrong, x).ok
    found = nn.check_network(nn.Sequential([wrong, nn.Dense(4, 1)], rng=rng), loss, x, y)
    assert {finding.layer for finding in found.errors} == {"0"}
    broken = two_inputs(rng)
    last = broken.layers[1]
    last.backward = lambda dy, cache: (2 * nn.Dense.backward(last, dy, cache)[0], nn.Dense.backward(last, dy, cache)[1])  # type: ignore
    assert {finding.layer for finding in nn.check_network(broken, loss, x, y).errors} == {"1"}
    with pytest.raises(ValueError, match="as many rows each"):
        nn.check_layer(net.layers[0], (x[0], x[1][:3]))


class Forgetful(nn.Residual):
    def _backward(self, dy: Any, cache: Any, run: Any) -> Any:
        return run(0, dy, cache)  # dy is not added


class Exchanged(nn.Concatenate):
    def _backward(self, dy: Any, cache: Any, run: Any) -> Any:
        return super()._backward(dy[:, ::-1], cache, run)


class FirstOnly(nn.Concatenate):
    def _backward(self, dy: Any, cache: Any, run: Any) -> Any:
        kept: list[Any] = []
        super()._backward(dy, cache, lambda i, dy, own: kept.append(run(i, dy, own)) or kept[-1])
        return kept[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: Forgetful([nn.Dense(3, 3, rng=rng), nn.Tanh()]),
        lambda rng: Exchanged([nn.Dense(3, 2, rng=rng), nn.Tanh()]),
        lambda rng: FirstOnly([nn.Dense(3, 2, rng=rng), nn.Tanh()]),
    ],
)
def test_a_wrong_join_is_found(make: Any, rng: np.random.Generator) -> None:
    x = rng.normal(size=(5, 3))
    assert not nn.check_layer(make(rng), x).ok
    join = make(rng)
    width = join.forward(x)[0].shape[1]
    net = nn.Sequential([nn.Dense(3, 3), join, nn.Dense(width, 1)], rng=rng)
    assert not nn.check_network(net, nn.HalfSquaredError(), x, rng.normal(size=(5, 1))).ok


def test_lists_orders_and_dtypes(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3))
    for layer in (nn.Residual(nn.Tanh()), nn.Concatenate([nn.Tanh(), nn.Sigmoid()])):
        y = layer.forward(x)[0]
        np.testing.assert_array_equal(layer.forward(x.tolist())[0], y)
        np.testing.assert_array_equal(layer.forward(np.asfortranarray(x))[0], y)
        assert layer.forward(x.astype(np.float32))[0].dtype == np.float32
        out, cache = layer.forward(x[:0])
        assert layer.backward(out, cache)[0].shape == (0, 3)
        assert np.isnan(layer.forward(np.where(x > 0, np.nan, x))[0]).any()  # seen, not hidden
    parts = nn.Parallel([nn.Tanh(), nn.Sigmoid()])
    np.testing.assert_array_equal(parts.forward((x.tolist(), x.tolist()))[0], parts.forward((x, x))[0])


def test_many_threads_ask_at_once_whether_there_are_values(rng: np.random.Generator) -> None:
    """A flag is let go by the first who finds all filled; the others must not stumble."""
    x = rng.normal(size=(2, 3))
    with ThreadPoolExecutor(8) as pool:
        for _ in range(200):
            net = nn.Sequential([nn.Dense(3, 2)], rng=rng)
            found = list(pool.map(lambda _, net=net: net.predict(x), range(8)))
            assert all(np.array_equal(y, found[0]) for y in found)
