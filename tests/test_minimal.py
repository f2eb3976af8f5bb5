"""The file that shows the whole idea computes what the library does."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnprofile as nn

PATH = Path(__file__).parents[1] / "examples" / "minimal.py"


@pytest.fixture(scope="module")
def minimal() -> Any:
    return type("minimal", (), {name: staticmethod(value) for name, value in runpy.run_path(str(PATH)).items()})


def both(minimal: Any, seed: int) -> tuple[Any, nn.Sequential, Any, Any, nn.Ragged]:
    """Return the same network twice, and sequences, as an array and packed."""
    rng = np.random.default_rng(seed)
    layers = [minimal.RNN(1, 4, rng), minimal.Dense(4, 5, rng), minimal.Tanh(), minimal.Dense(5, 2, rng)]
    last = [nn.Dense(4, 5), nn.Tanh(), nn.Dense(5, 2)]
    net = nn.Sequential(
        [nn.Sequential([nn.RNN(1, 4), nn.LastEvent()], rng=None), *last], rng=np.random.default_rng(seed)
    )
    for name, values in named(net.params):
        np.testing.assert_array_equal(values, layers[name[0]].params[name[1]])  # drawn alike
    x, labels = minimal.walks(30, rng)
    return layers, net, x, labels, nn.Ragged.from_padded(x, np.full(30, 8))


def named(params: nn.Parameters) -> list[tuple[tuple[int, str], np.ndarray]]:
    """Return each of the library's parameters, with the number of its layer and its name there."""
    return [((int(name[0]), name.split(".")[-1]), params[name]) for name in params]


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_the_librarys(minimal: Any, seed: int) -> None:
    layers, net, x, labels, packed = both(minimal, seed)
    value, grads = minimal.objective(layers, minimal.SoftmaxCrossEntropy(), x, labels)
    expected, theirs = nn.objective(net, nn.SoftmaxCrossEntropy(), packed, labels)
    assert value == pytest.approx(expected, rel=1e-14)
    for (i, own), values in named(theirs):
        np.testing.assert_allclose(grads[i][own], values, rtol=1e-12, atol=1e-15)
    assert minimal.largest_error(layers, minimal.SoftmaxCrossEntropy(), x, labels) < 1e-15


@pytest.mark.parametrize("seed", range(3))
def test_training_is_the_librarys(minimal: Any, seed: int) -> None:
    layers, net, x, labels, packed = both(minimal, seed)
    losses = minimal.fit(
        layers, minimal.SoftmaxCrossEntropy(), minimal.Adam(0.01), x, labels, 4, 8, np.random.default_rng(7)
    )
    options = {"n_epochs": 4, "batch_size": 8, "rng": np.random.default_rng(7), "engine": "numpy"}
    history = nn.fit(net, nn.SoftmaxCrossEntropy(), nn.Adam(0.01), packed, labels, **options)
    np.testing.assert_allclose(losses, history["loss"], rtol=1e-12)
    for (i, own), values in named(net.params):
        np.testing.assert_allclose(layers[i].params[own], values, rtol=1e-9, atol=1e-12)


def test_it_runs_as_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(PATH), run_name="__main__")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("every gradient is right to") and float(first.split()[-1]) < 1e-14
    assert float(second.split()[-6].rstrip("%")) > 90, second
