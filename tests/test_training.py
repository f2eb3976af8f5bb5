"""The training loop: what it computes, what it keeps, and how it ends."""

from __future__ import annotations

import _thread
import builtins
import os
import signal
import sys
import threading
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn

X = np.random.default_rng(1).normal(size=(50, 3))
Y = (X[:, 0] * X[:, 1] > 0).astype(float)


def network(seed: int = 0, dtype: Any = np.float64, rate: float = 0.0) -> nn.Sequential:
    layers: list[nn.Layer] = [nn.Dense(3, 8), nn.Tanh(), nn.Dense(8, 1)]
    if rate:
        layers.insert(2, nn.Dropout(rate))
    return nn.Sequential(layers, rng=np.random.default_rng(seed), dtype=dtype)


def fit(
    net: nn.Sequential, optimizer: nn.Optimizer | None = None, x: Any = X, y: Any = Y, **options: Any
) -> nn.History:
    settings = {
        "n_epochs": 4,
        "batch_size": 16,
        "rng": np.random.default_rng(0),
        "loss": nn.SigmoidCrossEntropy(),
    } | options
    return nn.fit(net, settings.pop("loss"), optimizer or nn.Adam(0.01), x, y, **settings)


def by_hand(
    net: nn.Sequential, optimizer: nn.Optimizer, n_epochs: int, batch_size: int, weight: Any = None, l2: float = 0.0
) -> list[float]:
    """Train as a student would write it: an independent statement of what ``fit`` does."""
    rng, loss = np.random.default_rng(0), nn.SigmoidCrossEntropy()
    means = []
    for _ in range(n_epochs):
        order = rng.permutation(len(X))
        total, mass = 0.0, 0.0
        for start in range(0, len(X), batch_size):
            rows = order[start : start + batch_size]
            w = None if weight is None else weight[rows]
            m = len(rows) if w is None else w.sum()
            y_pred, caches = net.forward(X[rows], rng)
            value, cache = loss.forward(y_pred, Y[rows], w)
            _, grads = net.backward(loss.backward(cache), caches)
            for name in ("0.W", "2.W"):
                value += l2 / (2 * m) * (net.params[name] ** 2).sum()
                grads[name] += l2 / m * net.params[name]
            optimizer.step(net.params, grads)
            total, mass = total + m * value, mass + m
        means.append(total / mass)
    return means


@given(batch_size=st.integers(1, 60), l2=st.sampled_from([0.0, 0.5]), weighted=st.booleans())
def test_fit_is_the_loop_a_student_would_write(batch_size: int, l2: float, weighted: bool) -> None:
    weight = np.random.default_rng(3).uniform(0.5, 2, 50) if weighted else None
    net, other = network(), network()
    history = fit(net, batch_size=batch_size, l2=l2, sample_weight=weight, n_epochs=2)
    means = by_hand(other, nn.Adam(0.01), 2, batch_size, weight, l2)
    np.testing.assert_allclose(net.params.vector, other.params.vector, rtol=1e-12)
    np.testing.assert_allclose(history["loss"], means, rtol=1e-12)


def test_same_rng_same_bits_another_rng_others() -> None:
    nets = [network(rate=0.3) for _ in range(3)]
    for net, seed in zip(nets, (5, 5, 6), strict=True):
        fit(net, rng=np.random.default_rng(seed))
    np.testing.assert_array_equal(nets[0].params.vector, nets[1].params.vector)
    assert (nets[0].params.vector != nets[2].params.vector).any()


def test_a_second_fit_goes_on_where_the_first_ended() -> None:
    for make in (lambda: nn.Adam(nn.CosineDecay(0.05, n_steps=30)), lambda: nn.SGD(0.1, momentum=0.9)):
        once, twice = network(), network()
        fit(once, make(), n_epochs=6)
        optimizer, rng = make(), np.random.default_rng(0)
        first = fit(twice, optimizer, n_epochs=2, rng=rng)
        fit(twice, optimizer, n_epochs=4, rng=rng)
        np.testing.assert_array_equal(once.params.vector, twice.params.vector)
        assert optimizer.n_steps == 6 * 4 and len(first["loss"]) == 2


def test_history_and_metrics_in_inference_mode() -> None:
    net = network(rate=0.5)
    seen: list[Any] = []

    def accuracy(y_true: Any, prediction: Any) -> float:
        seen.append((y_true, prediction))
        return float(((prediction[:, 0] > 0.5) == y_true).mean())

    history = fit(net, metrics={"accuracy": accuracy}, validation_data=(X[:20], Y[:20], np.arange(20.0)))
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy"] and len(history) == 4
    assert all(len(column) == 4 for column in history.values())
    assert history.stop_reason == "n_epochs" and history.best_epoch == int(np.argmin(history["val_loss"]))
    logits = net.predict(X[:20])
    value, _ = nn.SigmoidCrossEntropy().forward(logits, Y[:20], np.arange(20.0))
    assert history["val_loss"][-1] == value
    np.testing.assert_allclose(seen[-1][1], 1 / (1 + np.exp(-logits)))
    assert seen[-1][0] is not Y and len(seen) == 8
    assert "4 epochs" in repr(history)


def test_class_weight_is_a_sample_weight_and_leaves_validation_alone() -> None:
    counts = np.bincount(Y.astype(int))
    for class_weight, each in (({0: 1.0, 1: 3.0}, np.array([1.0, 3.0])), ("balanced", 50 / (2 * counts))):
        a, b = network(), network()
        one = fit(a, class_weight=class_weight, validation_data=(X, Y), sample_weight=np.full(50, 2.0))
        two = fit(b, sample_weight=2 * each[Y.astype(int)], validation_data=(X, Y))
        np.testing.assert_allclose(a.params.vector, b.params.vector, rtol=1e-12)
        np.testing.assert_allclose(one["val_loss"], two["val_loss"], rtol=1e-12)
    labels = np.arange(50) % 3
    net = nn.Sequential([nn.Dense(3, 3)], rng=np.random.default_rng(0))
    fit(net, y=labels, loss=nn.SoftmaxCrossEntropy(), class_weight={0: 1, 1: 2, 2: 3, 9: 1})


def test_batches_of_weight_zero_are_skipped() -> None:
    net, optimizer = network(), nn.Adam()
    before = net.params.vector.copy()
    history = fit(net, optimizer, sample_weight=np.zeros(50), l2=0.1)
    np.testing.assert_array_equal(net.params.vector, before)
    assert optimizer.n_steps == 0 and history["loss"] == [0.0] * 4
    weight = np.zeros(50)
    weight[:5] = 1
    fit(net, optimizer, sample_weight=weight, batch_size=1)
    assert optimizer.n_steps == 4 * 5


def test_callbacks_see_epochs_and_can_stop() -> None:
    net, calls = network(), []
    history = fit(
        net, n_epochs=10, callbacks=[lambda e, logs, n: calls.append((e, logs["loss"], n)), lambda e, logs, n: e == 2]
    )
    assert [e for e, _, _ in calls] == [0, 1, 2] and all(n is net for _, _, n in calls)
    assert [loss for _, loss, _ in calls] == history["loss"]
    assert history.stop_reason == "callback"


def test_early_stopping_restores_the_best_epoch_and_starts_afresh() -> None:
    net, optimizer, stopping = network(), nn.Adam(0.05), nn.EarlyStopping(patience=3)
    noise = np.random.default_rng(9).integers(0, 2, 50)
    states: list[Any] = []
    keep = [lambda e, logs, n: states.append((n.params.vector.copy(), optimizer.n_steps, optimizer.state["m"].copy()))]
    history = fit(
        net, optimizer, y=noise, n_epochs=300, validation_data=(X[::-1], noise), early_stopping=stopping, callbacks=keep
    )
    assert history.stop_reason == "early_stopping"
    assert history.best_epoch == int(np.argmin(history["val_loss"])) == len(history["loss"]) - 4
    vector, n_steps, m = states[history.best_epoch]
    np.testing.assert_array_equal(net.params.vector, vector)
    np.testing.assert_array_equal(optimizer.state["m"], m)
    assert optimizer.n_steps == n_steps
    again = fit(net, optimizer, y=noise, n_epochs=300, validation_data=(X[::-1], noise), early_stopping=stopping)
    assert len(again["loss"]) >= 4
    best = fit(
        network(),
        n_epochs=5,
        metrics={"one": lambda t, p: 1.0},
        early_stopping=nn.EarlyStopping(patience=2, monitor="one", mode="max"),
    )
    assert best.best_epoch == 0 and len(best["loss"]) == 3
    slow = fit(
        network(), nn.SGD(1e-6), n_epochs=9, early_stopping=nn.EarlyStopping(patience=2, monitor="loss", min_delta=0.1)
    )
    assert len(slow["loss"]) == 3


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_divergence_goes_back_to_the_start_of_the_epoch(dtype: Any) -> None:
    net, optimizer = (
        network(dtype=dtype),
        nn.SGD(lambda step: 1e-3 if step < 10 else 1e200 if dtype is np.float64 else 1e30, momentum=0.5),
    )
    starts: list[Any] = [(net.params.vector.copy(), 0)]
    keep = [lambda e, logs, n: starts.append((n.params.vector.copy(), optimizer.n_steps))]
    with pytest.raises(nn.DivergenceError, match=r"epoch 2, step \d: .*not finite") as error:
        fit(net, optimizer, y=Y * 10, loss=nn.MeanSquaredError(), n_epochs=50, callbacks=keep)
    assert isinstance(error.value, ValueError) and len(error.value.history["loss"]) == 2
    np.testing.assert_array_equal(net.params.vector, starts[2][0])
    assert optimizer.n_steps == starts[2][1] == 8
    optimizer.learning_rate = 1e-3
    fit(net, optimizer, y=Y * 10, loss=nn.MeanSquaredError())


def test_an_infinite_loss_is_divergence_before_the_step() -> None:
    net = nn.Sequential([nn.Dense(3, 1), nn.ReLU()], rng=np.random.default_rng(0))
    net.params["0.W"] = np.zeros((3, 1))
    with pytest.raises(nn.DivergenceError, match="epoch 0, step 0"):
        fit(net, loss=nn.BinaryCrossEntropy(), x=X[:4], y=[1, 1, 1, 1])
    assert not net.params.vector.any()


@pytest.mark.parametrize(
    "press", [lambda: os.kill(os.getpid(), signal.SIGINT), _thread.interrupt_main], ids=["SIGINT", "interrupt_main"]
)
@pytest.mark.usefixtures("pythons_own_handler")
def test_ctrl_c_stops_after_a_whole_step(press: Any) -> None:
    class Pressed(nn.Tanh):
        """Sends Ctrl-C in the middle of the sixth step's backward pass."""

        count = 0

        def backward(self, dy: Any, cache: Any) -> Any:
            Pressed.count += 1
            if Pressed.count == 6:
                press()
            return super().backward(dy, cache)

    rng = np.random.default_rng(0)
    net = nn.Sequential([nn.Dense(3, 8), Pressed(), nn.Dense(8, 1)], rng=rng)
    optimizer = nn.Adam(0.01)
    history = fit(net, optimizer, n_epochs=100)
    assert history.stop_reason == "interrupted" and len(history["loss"]) == 1
    assert optimizer.n_steps == 6
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    expected = network()
    other = nn.Adam(0.01)
    order_rng = np.random.default_rng(0)
    for _ in range(2):
        order = order_rng.permutation(50)
        for start in range(0, 50, 16):
            if other.n_steps < 6:
                rows = order[start : start + 16]
                other.step(expected.params, nn.objective(expected, nn.SigmoidCrossEntropy(), X[rows], Y[rows])[1])
    np.testing.assert_array_equal(net.params.vector, expected.params.vector)


def test_keyboard_interrupt_from_a_callback_ends_the_run() -> None:
    def stop(epoch: int, logs: Any, net: Any) -> None:
        raise KeyboardInterrupt

    history = fit(network(), callbacks=[stop])
    assert history.stop_reason == "interrupted" and len(history["loss"]) == 1


def test_a_handler_of_the_application_is_left_alone() -> None:
    handler = lambda *_: None  # noqa: E731
    before = signal.signal(signal.SIGINT, handler)
    try:
        fit(network(), callbacks=[lambda *_: signal.getsignal(signal.SIGINT) is not handler])
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_fit_works_in_a_thread() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(fit(network())))
    thread.start()
    thread.join()
    assert len(found[0]["loss"]) == 4


def test_silent_unless_asked(capfd: pytest.CaptureFixture[str]) -> None:
    fit(network())
    assert capfd.readouterr() == ("", "")


def test_progress_with_tqdm(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    fit(network(), progress=True, validation_data=(X, Y))
    out, err = capfd.readouterr()
    assert out == "" and "4/4" in err and "loss=" in err and "val_loss=" in err


def test_progress_without_tqdm(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_tqdm(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("tqdm"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_tqdm)
    for name in [name for name in sys.modules if name.startswith("tqdm")]:
        monkeypatch.delitem(sys.modules, name)
    fit(network(), progress=True, validation_data=(X, Y))
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 4 and "epoch 4/4  loss " in err and "val_loss" in err


@pytest.mark.parametrize("lazy", [False, True])
def test_csr_input_trains_like_the_dense_array(lazy: bool) -> None:
    x = np.where(np.random.default_rng(4).random((50, 3)) < 0.5, 0.0, X)
    for make in (lambda: nn.Adam(0.01, weight_decay=0.1, lazy=lazy), lambda: nn.SGD(0.1, momentum=0.9, lazy=lazy)):
        a, b = network(), network()
        fit(a, make(), x=x, validation_data=(x, Y))
        fit(b, make(), x=scipy.sparse.csr_array(x), validation_data=(scipy.sparse.csr_array(x), Y))
        np.testing.assert_allclose(a.params.vector, b.params.vector, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("engine", ["numpy", "numba"])
@pytest.mark.parametrize("make", [nn.SGD, lambda r: nn.SGD(r, momentum=0.5), lambda r: nn.Adam(r, lazy=True), nn.Adam])
@pytest.mark.parametrize("decays", [False, True])
def test_divergence_goes_back_where_few_columns_are_in_use(engine: str, make: Any, decays: bool) -> None:
    """Only rows of W that can move are copied; a callback that turns on decay makes that all of them."""
    x = scipy.sparse.random_array((50, 400), density=0.002, format="csr", rng=np.random.default_rng(0))
    net = nn.Sequential([nn.Dense(400, 3), nn.Tanh(), nn.Dense(3, 1)], rng=np.random.default_rng(1))
    optimizer, starts = make(lambda step: 1e-2 if step < 12 else 1e308), []

    def keep(epoch: int, logs: Any, net: nn.Layer) -> None:
        if decays:
            optimizer.weight_decay, net.params.vector = 0.1, net.params.vector * 1.5
        starts.append([a.copy() for a in (net.params.vector, *optimizer.state.values())])

    with pytest.raises(nn.DivergenceError, match="epoch 3"):
        fit(net, optimizer, x=x, y=Y, loss=nn.MeanSquaredError(), n_epochs=9, callbacks=[keep], engine=engine)
    assert len(starts) == 3 and optimizer.n_steps == 12
    for kept, now in zip(starts[-1], (net.params.vector, *optimizer.state.values()), strict=True):
        np.testing.assert_array_equal(kept, now)


def test_dense_backward_of_csr_has_no_dx(rng: np.random.Generator) -> None:
    layer = nn.Dense(3, 2, rng=rng)
    for make in (scipy.sparse.csr_array, scipy.sparse.csr_matrix):
        y, cache = layer.forward(make(X))
        dx, grads = layer.backward(np.ones_like(y), cache)
        assert dx is None and isinstance(y, np.ndarray)
        np.testing.assert_allclose(grads["W"], X.T @ np.ones((50, 2)))


def test_lazy_rows_keep_their_moments() -> None:
    for optimizer in (
        nn.Adam(0.1, lazy=True, weight_decay=0.5),
        nn.SGD(0.1, momentum=0.9, lazy=True, weight_decay=0.5),
    ):
        params = nn.Parameters({"W": (3, 2), "b": (2,)}, np.ones(8))
        grads = nn.Parameters(params.layout, np.array([1.0, 0, 0, 0, 2, 2, 0, 1]))
        optimizer.step(params, grads)
        moments = {name: nn.Parameters(params.layout, m.copy()) for name, m in optimizer.state.items()}
        grads.vector[:] = [0, 0, 3, 3, 0, 0, 0, 0]
        optimizer.step(params, grads)
        for name, m in optimizer.state.items():
            now = nn.Parameters(params.layout, m)
            assert not moments[name]["W"][1].any() and now["W"][1].all()
            np.testing.assert_array_equal(now["W"][[0, 2]], moments[name]["W"][[0, 2]])
            assert now["b"][1] != moments[name]["b"][1]  # biases are not rows: their moments go on
        assert params["W"][1, 0] != 1 * 0.95**2


def test_optimizers_reject_other_layouts_and_dtypes(rng: np.random.Generator) -> None:
    for optimizer in (nn.Adam(), nn.SGD(0.1), nn.SGD(0.1, momentum=0.5)):
        net = network()
        optimizer.step(net.params, net.params.like())
        with pytest.raises(ValueError, match="has stepped"):
            optimizer.step(nn.Parameters({"W": (1,)}), nn.Parameters({"W": (1,)}))
        with pytest.raises(ValueError, match="grads"):
            optimizer.step(net.params, nn.Parameters({"W": (1,)}))
        with pytest.raises(ValueError, match="has stepped"):
            fit(nn.Sequential([nn.Dense(3, 1)], rng=rng), optimizer)
    adam = nn.Adam()
    fit(network(), adam)
    with pytest.raises(ValueError, match="keeps m in float64"):
        fit(network(dtype=np.float32), adam)
    with pytest.raises(ValueError, match="learning rate of step 0 is nan"):
        nn.SGD(lambda step: float("nan")).step(net.params, net.params.like())


def test_decay_spares_biases() -> None:
    params = nn.Parameters({"0.W": (1, 1), "0.b": (1,), "1.0.W": (1, 1)}, np.ones(3))
    nn.SGD(0.5, weight_decay=0.1).step(params, params.like())
    assert params.vector.tolist() == [0.95, 1.0, 0.95]


def test_steps_keep_float32_and_schedules_may_return_anything_numeric() -> None:
    net = network(dtype=np.float32)
    optimizer = nn.Adam(lambda step: np.float64(0.01))  # type: ignore[arg-type, return-value]
    fit(net, optimizer)
    assert net.params.dtype == net.predict(X).dtype == optimizer.state["m"].dtype == np.float32


def test_a_lone_layer_can_be_trained() -> None:
    layer = nn.Dense(3, 1, rng=np.random.default_rng(0))
    truth = X @ [[1.0], [2.0], [3.0]] + 0.5
    nn.fit(layer, nn.MeanSquaredError(), nn.SGD(0.1), X, truth, n_epochs=200, rng=np.random.default_rng(0))
    np.testing.assert_allclose(layer.params.vector, [1, 2, 3, 0.5], rtol=1e-6)


def test_a_layer_of_ones_own_trains() -> None:
    class Scale(nn.Layer):
        """y = x * W."""

        def __init__(self) -> None:
            self.params = nn.Parameters({"W": (1,)}, np.ones(1))

        def forward(self, x: Any, rng: Any = None) -> Any:
            return x * self.params["W"], x

        def backward(self, dy: Any, cache: Any) -> Any:
            grads = self.params.like(dy.dtype)
            grads["W"] = [(dy * cache).sum()]
            return dy * self.params["W"], grads

    net = nn.Sequential([nn.Dense(3, 4), nn.Tanh(), Scale(), nn.Dense(4, 1)], rng=np.random.default_rng(0))
    history = fit(net, n_epochs=30)
    assert history["loss"][-1] < history["loss"][0] and net.params["2.W"][0] != 1


def test_a_moment_that_overflows_is_divergence() -> None:
    net = nn.Sequential([nn.Dense(1, 1)], rng=np.random.default_rng(0), dtype=np.float32)
    with pytest.raises(nn.DivergenceError, match="a moment is not finite"):
        nn.fit(net, nn.SigmoidCrossEntropy(), nn.Adam(), [[1e20]], [0], n_epochs=3, rng=np.random.default_rng(0))


def test_weights_of_any_size_train_alike() -> None:
    histories, vectors = [], []
    for scale in (1.0, 1e-300, 1e306):
        net = network()
        histories.append(fit(net, sample_weight=np.linspace(0.1, 1, 50) * scale)["loss"])
        vectors.append(net.params.vector)
    for history, vector in zip(histories[1:], vectors[1:], strict=True):
        np.testing.assert_allclose(history, histories[0], rtol=1e-9)
        np.testing.assert_allclose(vector, vectors[0], rtol=1e-9)


def test_metrics_cannot_change_the_callers_y() -> None:
    y = Y.copy()
    fit(network(), y=y, metrics={"sorts": lambda t, p: t.sort() or 0.0})
    np.testing.assert_array_equal(y, Y)


def test_targets_must_fit_the_dtype() -> None:
    with pytest.raises(ValueError, match="y must be finite in float32"):
        fit(network(dtype=np.float32), y=Y * 1e39, loss=nn.MeanSquaredError())


def test_lazy_takes_weights_of_any_shape() -> None:
    params = nn.Parameters({"0.W": (), "1.W": (2,), "2.W": (2, 2, 2)}, np.ones(11))
    grads = params.like()
    grads["1.W"] = [0, 1]
    nn.Adam(0.5, lazy=True).step(params, grads)
    assert params.vector.tolist() == [1, 1, pytest.approx(0.5), *[1] * 8]


def test_a_foreign_interrupt_in_the_middle_of_a_step_leaves_a_whole_state() -> None:
    class Broken(nn.SGD):
        """Raises after half of its third step."""

        def _move(self, w: Any, dw: Any, learning_rate: float, rows: Any) -> None:
            w[: w.size // 2] -= learning_rate * dw[: w.size // 2]
            if self.n_steps == 7:
                raise KeyboardInterrupt
            w[w.size // 2 :] -= learning_rate * dw[w.size // 2 :]

    net, optimizer, states = network(), Broken(0.1), []
    history = fit(net, optimizer, callbacks=[lambda e, logs, n: states.append(n.params.vector.copy())])
    assert history.stop_reason == "interrupted" and optimizer.n_steps == 4
    np.testing.assert_array_equal(net.params.vector, states[0])


def test_soft_targets_pass_the_gate_once() -> None:
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(5), 50) * (1 + 0.99e-5)
    net = nn.Sequential([nn.Dense(3, 5)], rng=rng, dtype=np.float32)
    fit(net, y=rows, loss=nn.SoftmaxCrossEntropy(), batch_size=1)
