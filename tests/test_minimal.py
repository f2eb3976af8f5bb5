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


def both(minimal: Any, seed: int) -> tuple[Any, nn.Sequential, Any, Any]:
    """Return the same network twice, and points."""
    rng = np.random.default_rng(seed)
    layers = [minimal.Dense(2, 5, rng), minimal.Tanh(), minimal.Dense(5, 2, rng)]
    net = nn.Sequential([nn.Dense(2, 5), nn.Tanh(), nn.Dense(5, 2)], rng=np.random.default_rng(seed))
    for name in net.params:
        i, own = name.split(".")
        np.testing.assert_array_equal(net.params[name], layers[int(i)].params[own])  # drawn alike
    return layers, net, *minimal.spirals(30, rng)


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_the_librarys(minimal: Any, seed: int) -> None:
    layers, net, x, labels = both(minimal, seed)
    value, grads = minimal.objective(layers, minimal.SoftmaxCrossEntropy(), x, labels)
    expected, theirs = nn.objective(net, nn.SoftmaxCrossEntropy(), x, labels)
    assert value == pytest.approx(expected, rel=1e-14)
    for name in net.params:
        i, own = name.split(".")
        np.testing.assert_allclose(grads[int(i)][own], theirs[name], rtol=1e-12, atol=1e-15)
    assert minimal.largest_error(layers, minimal.SoftmaxCrossEntropy(), x, labels) < 1e-15


@pytest.mark.parametrize("seed", range(3))
def test_training_is_the_librarys(minimal: Any, seed: int) -> None:
    layers, net, x, labels = both(minimal, seed)
    losses = minimal.fit(
        layers, minimal.SoftmaxCrossEntropy(), minimal.Adam(0.01), x, labels, 4, 8, np.random.default_rng(7)
    )
    options = {"n_epochs": 4, "batch_size": 8, "rng": np.random.default_rng(7), "engine": "numpy"}
    history = nn.fit(net, nn.SoftmaxCrossEntropy(), nn.Adam(0.01), x, labels, **options)
    np.testing.assert_allclose(losses, history["loss"], rtol=1e-12)
    for name in net.params:
        i, own = name.split(".")
        np.testing.assert_allclose(layers[int(i)].params[own], net.params[name], rtol=1e-9, atol=1e-12)


def test_it_runs_as_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(PATH), run_name="__main__")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("every gradient is right to") and float(first.split()[-1]) < 1e-14
    assert float(second.split()[-6].rstrip("%")) > 90, second
