"""Whole training steps equal PyTorch's; the numbers were produced once by facts/make_pytorch_facts.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import nnprofile as nn

FACTS = json.loads((Path(__file__).parent / "facts" / "pytorch.json").read_text())
ACTIVATIONS = {"Sigmoid": nn.Sigmoid, "ReLU": nn.ReLU}
LOSSES = {"half_squared": nn.HalfSquaredError(), "sigmoid_cross_entropy": nn.SigmoidCrossEntropy()}


def network(fact: dict) -> nn.Sequential:
    layers: list[nn.Layer] = []
    for name, value in fact["before"].items():
        if name.endswith("W"):
            layers += [nn.Dense(*np.shape(value)), ACTIVATIONS[fact["activation"]]()]
    net = nn.Sequential(layers if fact["last"] else layers[:-1], rng=None)
    for name, value in fact["before"].items():
        net.params[name] = value
    return net


CASES = [(fact, case) for fact in FACTS["networks"] for case in fact["cases"]]
IDS = [f"{fact['loss']}-{case['optimizer']}-{case['weight_decay']}-{case['steps']}" for fact, case in CASES]


@pytest.mark.parametrize(("fact", "case"), CASES, ids=IDS)
def test_steps_equal_pytorch(fact: dict, case: dict) -> None:
    net, loss = network(fact), LOSSES[fact["loss"]]
    options = dict(case["options"])
    make = {"sgd": nn.SGD, "adam": nn.Adam}[case["optimizer"]]
    optimizer = make(options.pop("lr"), weight_decay=case["weight_decay"], **options)
    x, y = np.array(fact["x"]), np.array(fact["y"])
    for expected in case["losses"]:
        value, grads = nn.objective(net, loss, x, y)
        assert value == pytest.approx(expected, rel=1e-13)
        optimizer.step(net.params, grads)
    assert list(net.params) == list(case["after"])
    for name, expected in case["after"].items():
        np.testing.assert_allclose(net.params[name], expected, rtol=1e-12, atol=1e-12)
