"""Private training: clipped gradients beside single examples and Opacus, epsilons beside dp-accounting, audits of bugs."""

from __future__ import annotations

import copy
import io
import json
import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn
from nnprofile import privacy
from nnprofile.contract import Spent, n_rows, take
from nnprofile.privacy.training import private_gradient

FACTS = json.loads((Path(__file__).parent / "facts" / "privacy.json").read_text())
LOSS = nn.SigmoidCrossEntropy()
quiet = pytest.mark.filterwarnings("ignore::nnprofile.privacy.PrivacyWarning")  # an rng is given, as tests do


def one_by_one(net: Any, loss: Any, x: Any, y: Any, clip: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the clipped sum and the norms, by a loop over examples."""
    total, norms = np.zeros(net.params.vector.size), []
    for i in range(n_rows(x)):
        t = take(y, slice(i, i + 1))
        n = t.n_events if isinstance(t, nn.Ragged) else 1
        g = n * nn.objective(net, loss, take(x, slice(i, i + 1)), t)[1].vector if n else np.zeros(total.size)
        norms.append(np.linalg.norm(g))
        total += min(1, clip / max(norms[-1], 1e-300)) * g
    return total, np.array(norms)


def kinds() -> dict[str, tuple[list[Any], Any, Any]]:
    rng = np.random.default_rng(0)
    sequences = nn.Ragged.from_list([rng.integers(0, 9, n) for n in rng.integers(0, 6, 40)])
    events = nn.Ragged.of(rng.integers(0, 3, sequences.n_events), sequences.offsets.copy())
    x, labels, two = (
        rng.normal(size=(40, 5)),
        rng.integers(0, 3, 40),
        (rng.normal(size=(40, 2)), rng.normal(size=(40, 3))),
    )
    nested = [
        [nn.Dense(5, 7), nn.ReLU()],
        nn.Residual([nn.Dense(7, 7), nn.GELU()]),
        nn.Concatenate([nn.Dense(7, 2), nn.Tanh()]),
        nn.LayerNorm(9),
        nn.Dense(9, 3),
    ]
    ending = [nn.Dense(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.MeanOverEvents(), nn.Dense(5, 3)]
    return {
        "dense": ([nn.Dense(5, 7), nn.Tanh(), nn.LayerNorm(7), nn.Dense(7, 3)], x, labels),
        "nested": (nested, x, labels),
        "tuple": ([nn.Parallel([nn.Dense(2, 3), nn.Dense(3, 2)]), nn.Dense(5, 3)], two, labels),
        "sequences": ([nn.Embedding(9, 4), nn.PositionalEmbedding(6, 4), *ending], sequences, labels),
        "events": ([nn.Embedding(9, 4), nn.Dense(4, 5), nn.Tanh(), nn.Dense(5, 3)], sequences, events),
        "ids": ([nn.Embedding(9, 4), nn.Dense(4, 3)], rng.integers(0, 9, 40), labels),
    }


@pytest.mark.parametrize("clip", [0.05, 1.0, 100.0])
@pytest.mark.parametrize("kind", ["dense", "nested", "tuple", "sequences", "events", "ids"])
def test_clipped_sums_are_those_of_a_loop_over_examples(
    kind: str, clip: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnprofile.privacy.clipping.BLOCK", 17)
    layers, x, y = kinds()[kind]
    net = nn.Sequential(layers, rng=np.random.default_rng(1))
    found, norms = privacy.clipped_sum(net, nn.SoftmaxCrossEntropy(), x, y, clip)
    expected, lengths = one_by_one(net, nn.SoftmaxCrossEntropy(), x, y, clip)
    np.testing.assert_allclose(found.vector, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(norms, lengths, rtol=1e-12, atol=1e-14)


@given(st.data())
def test_clipped_sums_of_random_networks(data: Any) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    widths = data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=4))
    layers: list[Any] = []
    for a, b in pairwise(widths):
        layers += [
            nn.Dense(a, b),
            data.draw(st.sampled_from([nn.Tanh(), nn.LeakyReLU(0.1), nn.LayerNorm(b), nn.GELU()])),
        ]
    n, k = data.draw(st.integers(0, 9)), widths[-1]
    net = nn.Sequential(layers, rng=rng)
    loss = data.draw(
        st.sampled_from([nn.MeanSquaredError(), nn.Huber(), nn.SigmoidCrossEntropy(), nn.MeanAbsoluteError()])
    )
    x, y = rng.normal(size=(n, widths[0])), rng.uniform(size=(n, k))
    clip = data.draw(st.sampled_from([0.01, 0.3, 10.0]))
    found, norms = privacy.clipped_sum(net, loss, x, y, clip)
    expected, lengths = one_by_one(net, loss, x, y, clip)
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(found.vector, expected, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(norms, lengths, rtol=1e-10, atol=1e-12)


def test_sparse_rows_are_clipped_as_dense_ones() -> None:
    rng = np.random.default_rng(0)
    sparse = pytest.importorskip("scipy.sparse").csr_array(rng.normal(size=(40, 30)) * (rng.random((40, 30)) < 0.1))
    net = nn.Sequential([nn.Dense(30, 5), nn.Tanh(), nn.Dense(5, 3)], rng=np.random.default_rng(1))
    y = np.random.default_rng(2).integers(0, 3, 40)
    a, b = (privacy.clipped_sum(net, nn.SoftmaxCrossEntropy(), x, y, 0.3) for x in (sparse, sparse.toarray()))
    np.testing.assert_allclose(a[0].vector, b[0].vector, atol=1e-13)


def test_opacus_clips_to_the_same_sum() -> None:
    facts = FACTS["clipping"]
    net = nn.Sequential([nn.Dense(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Dense(8, 3)], rng=None)
    for name, value in facts["params"].items():
        net.params[name] = value
    x, y, clip = np.array(facts["x"]), np.array(facts["y"]), facts["clip"]
    found, norms = privacy.clipped_sum(net, nn.SoftmaxCrossEntropy(), x, y, clip)
    np.testing.assert_allclose(norms, facts["norms"], rtol=1e-12)
    total = net.params.like()
    for i in range(len(x)):  # it divides by norm + 1e-6
        g = nn.objective(net, nn.SoftmaxCrossEntropy(), x[i : i + 1], y[i : i + 1])[1].vector
        total.vector += min(1, clip / (norms[i] + 1e-6)) * g
    for name, value in facts["sums"].items():
        np.testing.assert_allclose(total[name], value, atol=1e-12)
        np.testing.assert_allclose(found[name], value, atol=1e-4)
    assert (norms > clip).any() and (norms < clip).any()


class Scaled(nn.Layer):
    """y = a x, for a number a a column: a layer of one's own that says how long its gradients are."""

    def __init__(self) -> None:
        self.params = nn.Parameters({"a": (5,)}, np.full(5, 1.5))

    def forward(self, x: Any, rng: Any = None) -> Any:
        return self.params["a"] * x, x

    def backward(self, dy: Any, cache: Any) -> Any:
        grads = self.params.like()
        grads["a"] = (dy * cache).sum(axis=0)
        return dy * self.params["a"], grads

    def square_norms(self, cache: Any, dy: Any, offsets: Any) -> Any:
        assert offsets is None
        return ((dy * cache) ** 2).sum(axis=1)


def test_a_layer_of_ones_own() -> None:
    net = nn.Sequential([Scaled(), nn.Dense(5, 1)], rng=np.random.default_rng(0))
    x, y = np.random.default_rng(1).normal(size=(9, 5)), np.ones(9)
    found, expected = privacy.clipped_sum(net, LOSS, x, y, 0.5)[0].vector, one_by_one(net, LOSS, x, y, 0.5)[0]
    np.testing.assert_allclose(found, expected, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_row_that_overflows_inside_does_not_spoil_the_others(dtype: Any) -> None:
    """Nor does an exception tell that it is there."""
    x = np.random.default_rng(0).normal(size=(500, 4))
    x[0] = 0.9 * np.finfo(dtype).max
    net = nn.Sequential([nn.Dense(4, 8), nn.ReLU(), nn.Dense(8, 1)], rng=np.random.default_rng(1), dtype=dtype)
    net.params.vector *= 5
    y = (x[:, 1] > 0).astype(float)
    found, norms = privacy.clipped_sum(net, LOSS, x.astype(dtype), y, 1.0)
    others, _ = privacy.clipped_sum(net, LOSS, x[1:].astype(dtype), y[1:], 1.0)
    assert not np.isfinite(norms[0]) and np.isfinite(norms[1:]).all()
    np.testing.assert_array_equal(found.vector, others.vector)


def test_a_square_that_vanishes_in_float32_does_not_hide_a_row() -> None:
    net = nn.Sequential([nn.Dense(1, 4096), nn.Dense(4096, 1)], rng=None, dtype=np.float32)
    net.params.vector = np.zeros(net.params.vector.size)
    net.params["1.W"], net.params["1.b"] = np.ones((4096, 1)), [2e-23]
    total, norms = privacy.clipped_sum(
        net, nn.HalfSquaredError(), np.array([[1e19]], np.float32), np.zeros((1, 1)), 1e-3
    )
    assert norms[0] > 1e-3 >= np.linalg.norm(total.vector)


class Centre(nn.Layer):
    """A layer that mixes rows, as batch normalisation does."""

    def forward(self, x: Any, rng: Any = None) -> Any:
        return x - x.mean(axis=0), None

    def backward(self, dy: Any, cache: Any) -> Any:
        return dy - dy.mean(axis=0), nn.Parameters({})


class Own(nn.Sequential):
    """A network with a forward of its own."""

    def forward(self, x: Any, rng: Any = None) -> Any:
        return super().forward(x, rng)


def test_what_may_mix_or_refuse_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="whether layer 0, Centre"):
        train(nn.Sequential([Centre(), nn.Dense(2, 1)], rng=np.random.default_rng(0)))
    with pytest.raises(ValueError, match="cannot clip layer"):
        train(Own([nn.Dense(2, 1)], rng=np.random.default_rng(0)))
    with pytest.raises(ValueError, match="use SigmoidCrossEntropy"):
        train(loss=nn.BinaryCrossEntropy())
    for clip in (-1, 0, np.nan, np.inf, "a"):
        with pytest.raises(ValueError, match="clip must be"):
            privacy.clipped_sum(nn.Sequential([nn.Dense(2, 1)], rng=np.random.default_rng(0)), LOSS, *rows(4), clip)


def test_the_ledger_goes_with_the_layers(tmp_path: Path) -> None:
    one, _ = train()
    outer = nn.Sequential([one, nn.Identity()], rng=None)
    assert outer.ledger == one.ledger == one.children[0].ledger and len(outer.ledger) == 1
    with pytest.raises(ValueError, match="may hold the noise"):
        nn.save(outer, tmp_path / "m", rng=np.random.default_rng(0))
    _, second = train(outer)
    assert len(second.ledger) == 2 == len(one.ledger) and pickle.loads(pickle.dumps(outer)).ledger == second.ledger
    nn.save(outer, tmp_path / "m")
    assert nn.load(tmp_path / "m").net.children[0].ledger == second.ledger
    side_by_side = nn.Concatenate([copy.deepcopy(one), train()[0]])
    assert len(side_by_side.ledger) == 3


def test_an_example_without_a_finite_gradient_is_left_out() -> None:
    net = nn.Sequential([nn.Dense(2, 1)], rng=np.random.default_rng(0))
    x = np.array([[1e200, 1e200], [1.0, 2.0]])
    found, norms = privacy.clipped_sum(net, nn.MeanSquaredError(), x, np.zeros((2, 1)), 1.0)
    assert not np.isfinite(norms[0]) and abs(np.linalg.norm(found.vector) - min(1, norms[1])) < 1e-12


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.GRU(2, 3), nn.LastEvent()], r"cannot clip layer 0, GRU\(2, 3\)"),
        ([nn.Dense(2, 2), [nn.Conv1D(2, 2, 3)]], r"cannot clip layer 1.0, Conv1D"),
        ([nn.Tied(nn.Embedding(4, 3), [nn.Dense(3, 3)])], "cannot clip layer 0, Tied"),
    ],
)
def test_layers_without_norms_are_refused_by_name(layers: list[Any], message: str) -> None:
    net = nn.Sequential(layers, rng=np.random.default_rng(0))
    before = net.params.vector.copy()
    with pytest.raises(ValueError, match=message):
        train(net)
    np.testing.assert_array_equal(net.params.vector, before)
    assert net.ledger == ()


def test_epsilons_beside_dp_accounting() -> None:
    """By Renyi divergences never less, and at most 1 % more; by privacy loss distributions, which are exact, 8 to 12 % less."""
    for noise, rate, n_steps, epsilon, exact in FACTS["accounting"]["epsilons"]:
        found = privacy.epsilon_of([Spent(noise, rate, n_steps)], FACTS["accounting"]["delta"])
        assert 1 <= found / epsilon <= 1.01, (noise, rate, n_steps)
        assert exact is None or 1.05 < found / exact < 1.15
    assert len(FACTS["accounting"]["epsilons"]) == 256


@given(st.floats(0.1, 10), st.floats(1e-3, 1), st.integers(1, 5000), st.sampled_from([1e-7, 1e-5, 1e-3]))
def test_the_noise_is_the_least(epsilon: float, rate: float, n_steps: int, delta: float) -> None:
    noise = privacy.noise_for(epsilon, delta, rate, n_steps)
    assert privacy.epsilon_of([Spent(noise, rate, n_steps)], delta) <= epsilon
    assert privacy.epsilon_of([Spent(0.999 * noise, rate, n_steps)], delta) > epsilon


def test_odd_settings_of_the_accountant() -> None:
    for noise in (1e-6, 0.05, 9500.0):
        spent = [Spent(noise, 0.5, 10**6)]
        assert privacy.noise_for(privacy.epsilon_of(spent, 1e-5), 1e-5, 0.5, 10**6) == pytest.approx(noise, rel=1e-3)
    assert 450 < privacy.noise_for(0.01, 1e-9, 1.0, 1) < 700  # 459 by the exact formula of one Gaussian
    for wrong in (
        Spent(np.nan, 0.1, 1),
        Spent(-1.0, 0.1, 1),
        Spent(1.0, 1.5, 1),
        Spent(1.0, np.nan, 1),
        Spent(1.0, 0.1, -5),
    ):
        with pytest.raises(ValueError, match=r"(noise|rate|n_steps) must be"):
            privacy.epsilon_of([wrong], 1e-5)
    for rate in (np.nan, 0.0, 1.5, -1):
        with pytest.raises(ValueError, match="rate must be"):
            privacy.noise_for(1.0, 1e-5, rate, 1)


def test_what_is_spent_adds_up() -> None:
    one = Spent(2.0, 0.05, 600)
    assert privacy.epsilon_of([one] * 3, 1e-5) == pytest.approx(
        privacy.epsilon_of([Spent(2.0, 0.05, 1800)], 1e-5), rel=1e-12
    )
    assert privacy.epsilon_of([one, Spent(3.0, 0.01, 10)], 1e-5) > privacy.epsilon_of([one], 1e-5)
    assert privacy.epsilon_of([], 1e-5) == privacy.epsilon_of([Spent(1.0, 0.1, 0)], 1e-5) == 0
    assert privacy.epsilon_of([Spent(0.0, 0.1, 1)], 1e-5) == np.inf
    for delta in (0, 1, -1, np.nan):
        with pytest.raises(ValueError, match="delta must be"):
            privacy.epsilon_of([one], delta)
    with pytest.raises(ValueError, match="needs noise of more than"):
        privacy.noise_for(1e-3, 1e-9, 1.0, 10_000_000)


def rows(n: int = 1000) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, 2))
    return x, (x[:, 0] > 0).astype(int)


def train(net: Any = None, **changes: Any) -> tuple[Any, Any]:
    net = net or nn.Sequential([nn.Dense(2, 4), nn.Tanh(), nn.Dense(4, 1)], rng=np.random.default_rng(0))
    x, y = rows()
    options = {"epsilon": 2.0, "delta": 1e-5, "clip": 1.0, "expected_batch_size": 100, "n_steps": 50} | changes
    loss, optimizer = options.pop("loss", LOSS), options.pop("optimizer", None) or nn.SGD(1.0)
    return net, nn.fit_private(net, loss, optimizer, options.pop("x", x), options.pop("y", y), **options)


def test_training_learns_and_says_what_it_spent() -> None:
    net, spent = train(n_steps=200, public_validation=rows(200))
    x, y = rows()
    assert ((net.predict(x)[:, 0] > 0) == y).mean() > 0.9
    assert 1.9 < spent.epsilon <= 2 and spent.rate == 0.1 and spent.n_steps == 200 and list(spent) == ["val_loss"]
    assert len(spent["val_loss"]) == 20 and spent["val_loss"][-1] < spent["val_loss"][0]
    assert "epsilon=2 at delta=1e-05; 200 steps" in repr(spent)


def test_the_ledger_over_three_calls_and_in_the_file(tmp_path: Path) -> None:
    net, first = train()
    _, second = train(net, epsilon=1.0)
    assert second.epsilon > max(first.epsilon, 1.0) and second.epsilon < first.epsilon + 1.0
    nn.save(net, tmp_path / "m", loss=LOSS, optimizer=nn.SGD(0.1))
    again = nn.load(tmp_path / "m").net
    assert again.ledger == net.ledger == second.ledger and len(again.ledger) == 2
    _, third = train(again)
    assert third.epsilon == privacy.epsilon_of(again.ledger, 1e-5) > second.epsilon and len(third.ledger) == 3
    for twin in (copy.deepcopy(again), pickle.loads(pickle.dumps(again))):
        assert twin.ledger == again.ledger
    with pytest.raises(ValueError, match="may hold the noise"):
        nn.save(net, io.BytesIO(), rng=np.random.default_rng(0))
    plain = nn.Sequential([nn.Dense(1, 1)], rng=np.random.default_rng(0))
    nn.save(plain, tmp_path / "p", rng=np.random.default_rng(0))
    assert nn.load(tmp_path / "p").net.ledger == ()


@pytest.mark.parametrize("spent", [[1.0, 0.1], [1.0, 0.1, 2.5], [-1.0, 0.1, 2], [1.0, 1.5, 2], ["1", 0.1, 2], 3])
def test_a_ledger_that_is_none_is_refused(spent: Any, tmp_path: Path) -> None:
    net, _ = train()
    net.ledger = ((1.0, 0.5, 7),)  # type: ignore[assignment]
    nn.save(net, tmp_path / "m")
    content = (tmp_path / "m").read_bytes()
    assert nn.load(content).net.ledger == (Spent(1.0, 0.5, 7),)
    net.ledger = (spent if isinstance(spent, list) else [spent],)  # type: ignore[assignment]
    nn.save(net, tmp_path / "m")
    with pytest.raises(nn.ModelFileError):
        nn.load(tmp_path / "m")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_epochs": 3}, "an epoch is no unit of privacy"),
        ({"batch_size": 3}, "give expected_batch_size"),
        ({"shuffle": True}, "Poisson sampling"),
        ({"early_stopping": nn.EarlyStopping()}, "takes no early_stopping: to stop by the private rows' loss"),
        ({"validation_data": rows()}, "public_validation"),
        ({"metrics": {}}, "metrics of private rows"),
        ({"class_weight": "balanced"}, "counts"),
        ({"sample_weight": np.ones(1000)}, "how far a row can move"),
        ({"l2": 0.1}, "weight_decay"),
        ({"engine": "numba"}, "NumPy"),
        ({"epsilon": 0}, "epsilon must be"),
        ({"epsilon": np.nan}, "epsilon must be"),
        ({"delta": 0}, "delta must be"),
        ({"delta": 1}, "delta must be"),
        ({"clip": 0}, "clip must be"),
        ({"expected_batch_size": 1001}, "at most the 1000 rows"),
        ({"expected_batch_size": 0}, "expected_batch_size must be"),
        ({"n_steps": 0}, "n_steps must be"),
        ({"y": np.ones(3)}, "x has 1000 rows, y has 3"),
        ({"x": np.full((1000, 2), np.nan)}, "x must be finite"),
        ({"public_validation": (rows()[0],)}, "validation_data must be"),
        ({"rng": 3}, "rng must be a numpy.random.Generator"),
    ],
)
def test_what_would_tell_of_the_rows_is_refused(changes: Any, message: str) -> None:
    net = nn.Sequential([nn.Dense(2, 1)], rng=np.random.default_rng(0))
    before = net.params.vector.copy()
    with pytest.raises(ValueError, match=message):
        train(net, **changes)
    np.testing.assert_array_equal(before, net.params.vector)
    assert net.ledger == ()


def test_unknown_arguments_and_losses_of_ones_own() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'epsilonn'"):
        train(epsilonn=3)

    class Own(nn.MeanSquaredError):
        pass

    with pytest.raises(ValueError, match="losses of the library"):
        train(loss=Own())


def test_a_seed_and_a_large_delta_are_warned_of() -> None:
    with pytest.warns(privacy.PrivacyWarning, match="take the noise away"):
        train(rng=np.random.default_rng(0))
    with pytest.warns(privacy.PrivacyWarning, match="it would allow to publish a row"):
        train(delta=0.01)
    one, other = train()[0], train()[0]  # without: never the same noise twice
    assert (one.params.vector != other.params.vector).all()


@quiet
def test_divergence_goes_back_and_counts_as_spent() -> None:
    net = nn.Sequential([nn.Dense(2, 1)], rng=np.random.default_rng(0), dtype=np.float32)
    before, optimizer = net.params.vector.copy(), nn.SGD(lambda step: 1.0 if step < 3 else 1e38)
    with pytest.raises(nn.DivergenceError, match="step 4"):
        train(net, optimizer=optimizer, rng=np.random.default_rng(0), clip=1e6)
    np.testing.assert_array_equal(before, net.params.vector)
    assert len(net.ledger) == 1 and optimizer.n_steps == 0


@quiet
def test_sampling_is_poisson_and_the_divisor_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows a step sees is binomial, each row is as likely as another, and the sum is divided by B whatever was drawn."""
    sizes, seen = [], np.zeros(1000)

    def spy(net: Any, loss: Any, x: Any, y: Any, clip: float, rng: Any) -> Any:
        sizes.append(len(x))
        seen[x[:, 0].astype(int)] += 1
        total = net.params.like(np.float64)
        total.vector[...] = 7.0
        return total, np.zeros(len(x))

    monkeypatch.setattr("nnprofile.privacy.training.clipped_sum", spy)
    net = nn.Sequential([nn.Dense(1, 1)], rng=np.random.default_rng(0))
    x, y = np.arange(1000.0)[:, None], np.zeros(1000)
    history = privacy.PrivateHistory((Spent(0.0, 0.1, 1),), 1e-5, 1.0, 100)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        np.testing.assert_array_equal(private_gradient(net, LOSS, x, y, history, rng), [0.07, 0.07])
    assert abs(np.mean(sizes) - 100) < 4 * np.sqrt(90 / 2000) and abs(np.var(sizes) / 90 - 1) < 0.2
    assert ((seen - 200) ** 2 / 180).sum() < 1000 + 4 * np.sqrt(2000)  # chi-square
    noisy = privacy.PrivateHistory((Spent(3.0, 0.1, 1),), 1e-5, 2.0, 100)
    noise = np.array([private_gradient(net, LOSS, x, y, noisy, rng) for _ in range(4000)])
    np.testing.assert_allclose(noise.mean(axis=0), 0.07, atol=4 * 0.06 / np.sqrt(4000))
    np.testing.assert_allclose(noise.std(axis=0), 3 * 2 / 100, rtol=0.06)


@quiet
def test_dropout_and_adam_train_too() -> None:
    net = nn.Sequential(
        [nn.Dense(2, 8), nn.ReLU(), nn.Dropout(0.2), nn.Dense(8, 1)], rng=np.random.default_rng(0), dtype=np.float32
    )
    train(net, optimizer=nn.Adam(0.05, weight_decay=0.01), n_steps=200, epsilon=8.0, rng=np.random.default_rng(1))
    x, y = rows()
    assert ((net.predict(x)[:, 0] > 0) == y).mean() > 0.85 and net.params.vector.dtype == np.float32


N_STEPS, BATCH, RATE = 300, 200, 0.05


def training(bug: str, epsilon: float) -> Callable[[Any, Any], Any]:
    """Return private training of a network with a hidden layer, written out, with a bug in it."""
    rng = np.random.default_rng(0)

    def fit(x: Any, y: Any) -> Any:
        q = BATCH / len(x)
        z = privacy.noise_for(epsilon, 1e-5, q, N_STEPS)
        net = nn.Sequential([nn.Dense(x.shape[1], 8), nn.Tanh(), nn.Dense(8, 1)], rng=np.random.default_rng(1))
        before = [a.copy() for a in net.params.values()]
        if bug == "ours":
            options: Any = {
                "epsilon": epsilon,
                "delta": 1e-5,
                "clip": 1.0,
                "expected_batch_size": BATCH,
                "n_steps": N_STEPS,
            }
            nn.fit_private(net, LOSS, nn.SGD(RATE), x, y, rng=rng, **options)
            return before, list(net.params.values())
        W, b, V, c = params = [a.copy() for a in before]
        for _ in range(N_STEPS):
            some = np.flatnonzero(rng.random(len(x)) < q)
            x_s, n = x[some], max(1, len(some))
            h = np.tanh(x_s @ W + b)
            do = 1 / (1 + np.exp(-(h @ V + c))) - y[some, None]
            dh = (do @ V.T) * (1 - h * h)
            first = ((x_s**2).sum(1) + 1) * (dh**2).sum(1)
            norms = np.sqrt(
                ((h**2).sum(1) + 1) * (do**2).sum(1) + (0 if bug == "a layer is not in the norm" else first)
            )
            k = np.minimum(1, 1 / np.maximum(norms, 1e-12))[:, None]
            if bug == "the batch is clipped":
                k = np.ones_like(k)
            sums = [x_s.T @ (k * dh), (k * dh).sum(0), h.T @ (k * do), (k * do).sum(0)]
            if bug == "the batch is clipped":
                length = np.sqrt(sum((a**2).sum() for a in sums)) / n
                sums = [a * BATCH / n * min(1, 1 / length) for a in sums]
            for i, (value, a) in enumerate(zip(params, sums, strict=True)):
                noise = z * rng.normal(size=a.shape)
                noise *= 0 if bug == "no noise" or (bug == "no noise on biases" and i in (1, 3)) else 1
                noise /= BATCH if bug == "the noise is divided twice" else 1
                value -= RATE * (a + noise) / BATCH
        return before, params

    return fit


@quiet
@pytest.mark.parametrize(
    ("bug", "epsilon"), [("", 1.0), ("", 3.0), ("", 8.0), ("ours", 1.0), ("ours", 3.0), ("ours", 8.0)]
)
def test_an_audit_does_not_accuse_what_is_right(bug: str, epsilon: float) -> None:
    audit = nn.check_private(training(bug, epsilon), epsilon, rng=np.random.default_rng(5))
    assert audit and audit.passed and 0 <= audit.lower_bound <= epsilon and not audit.without_noise
    assert audit.lower_bound > 0.2 or epsilon < 3  # it has the power to tell something
    assert f"the claim is {epsilon:g}" in str(audit) and "no contradiction" in str(audit) and "cannot see" in str(audit)


@pytest.mark.parametrize(
    "bug",
    [
        "no noise",
        "the noise is divided twice",
        "the batch is clipped",
        "a layer is not in the norm",
        "no noise on biases",
    ],
)
def test_an_audit_convicts_planted_bugs(bug: str) -> None:
    audit = nn.check_private(training(bug, 3.0), 3.0, rng=np.random.default_rng(5))
    assert not audit.passed and "WRONG" in str(audit)
    if bug == "no noise on biases":
        assert audit.without_noise == [1] and audit.lower_bound < 3
    else:
        assert audit.lower_bound > 3


def moving(change: Callable[[Any, int], Any]) -> Callable[[Any, Any], Any]:
    """Return what moves three arrays by noise, changed by a function (arrays, number of the call)."""
    draws, calls = np.random.default_rng(0), []

    def fit(x: Any, y: Any) -> Any:
        calls.append(1)
        before = [np.zeros((x.shape[1], 4)), np.zeros(64), np.zeros((64, 32))]
        return before, change([a + draws.normal(size=a.shape) for a in before], len(calls))

    return fit


def test_an_audit_does_not_accuse_arrays_that_stay_or_have_a_rate_of_their_own() -> None:
    audit = nn.check_private(moving(lambda a, n: [a[0], 0.5 * a[1], 0 * a[2]]), 3.0, rng=np.random.default_rng(0))
    assert audit.passed
    fixed = [np.random.default_rng(7).normal(size=s) for s in ((2072, 4), 64, (64, 32))]
    audit = nn.check_private(moving(lambda a, n: fixed), 3.0, rng=np.random.default_rng(0))
    assert audit.is_repeated and audit.passed and "the same to the bit" in str(audit)
    audit = nn.check_private(moving(lambda a, n: [a[0], a[1], fixed[2]]), 3.0, rng=np.random.default_rng(0))
    assert audit.without_noise == [2] and not audit.passed
    with pytest.raises(ValueError, match="not finite"):
        nn.check_private(moving(lambda a, n: [a[0] * np.nan, *a[1:]]), 3.0, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="of the same shapes"):
        nn.check_private(lambda x, y: ([np.zeros(3)], [np.zeros(3), np.zeros(2)]), 3.0, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="n_canaries must be"):
        nn.check_private(moving(lambda a, n: a), 3.0, n_canaries=3, rng=np.random.default_rng(0))


def test_the_bound_holds_for_randomised_response() -> None:
    """Guesses that are right with e^eps / (1 + e^eps) exactly: the bound is above eps in at most 5 of 100 audits."""
    from nnprofile.privacy.audit import _lower_bound

    rng, epsilon, above, bounds = np.random.default_rng(0), 1.5, 0, []
    for _ in range(100):
        is_in = rng.random(500) < 0.5
        told = np.where(rng.random(500) < 1 / (1 + np.exp(-epsilon)), is_in, ~is_in)
        bound, n_right, n_guesses = _lower_bound(told + 1e-3 * rng.random(500), is_in, 0.0, 0.05)
        above, bounds = above + (bound > epsilon), [*bounds, bound]
        assert n_right <= n_guesses <= 500
    assert above <= 5 and np.median(bounds) > 0.8


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (lambda x, y: None, r"fit must return \(before, after\), got NoneType"),
        (lambda x, y: (np.zeros((3, 2)), np.ones((3, 2))), "a row for each of 2072 columns"),
        (lambda x, y: ([], []), "a row for each of 2072 columns"),
        (lambda x, y: (np.zeros(2072), np.zeros(2072)), "a row for each of 2072 columns"),
        (3, "fit must be a function"),
    ],
)
def test_an_audit_of_what_is_no_training(fit: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nn.check_private(fit, 1.0, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="claimed_epsilon must be"):
        nn.check_private(lambda x, y: (x, y), -1, rng=np.random.default_rng(0))
