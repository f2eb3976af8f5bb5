"""A trace shows the library's own numbers; every formula in it gives the number beside it, and every check is right."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from functools import cache
from itertools import pairwise
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nnprofile as nn
from nnprofile.formulas.expression import flat, substituted, symbolic
from nnprofile.tracing.bugs import BUGS, applicable
from nnprofile.tracing.page import page_data
from nnprofile.tracing.paths import n_paths
from nnprofile.tracing.presets import PRESETS
from nnprofile.tracing.rules import symbol_of
from nnprofile.tracing.text import number

from .equalities import compute, holds
from .layer_examples import BETWEEN, ELEMENTWISE, KINKED, Example, layers, made

ROOT = Path(__file__).parents[1]
OPTIMIZERS: tuple[Any, ...] = (
    nn.SGD(0.1),
    nn.SGD(0.1, weight_decay=0.2),
    nn.SGD(0.1, momentum=0.9),
    nn.SGD(0.1, momentum=0.9, nesterov=True),
    nn.Adam(0.01),
    nn.Adam(0.01, weight_decay=0.1),
    nn.SGD(nn.StepDecay(0.1, every=2)),
)


def assert_equalities(trace: nn.Trace) -> int:
    """Recompute every formula of every element from what is displayed; return how many there were."""
    count = 0
    for name, q in trace.items():
        if q.formula.element is None:
            continue
        tokens = q.formula.element.tokens()
        for index in np.ndindex(q.value.shape):
            at = dict(zip(q.index, index, strict=False))
            text = substituted(tokens, at, lambda n, i: float(trace[n].value[i]), lambda v: number(v, 17))
            assert holds(text, float(q.value[index])), f"{name}{index}: {text} = {compute(text)}, not {q.value[index]}"
            count += 1
    return count


def assert_matrix_formulas(trace: nn.Trace) -> int:
    """Evaluate the formulas for whole arrays, as NumPy; return how many could be."""
    functions = {
        **{symbol_of(layer): lambda z, layer=layer: layer.forward(z)[0] for layer in ELEMENTWISE},
        "softmax": lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True),
        "relu": lambda z: np.maximum(z, 0),
        "tanh": np.tanh,
        "id": lambda z: z,
        "s": lambda z: 1 / (1 + np.exp(-z)),
        "log": np.log,
        "sqrt": np.sqrt,
        "abs": np.abs,
    }
    t, count, optimizer = trace, 0, trace.optimizer
    k = t["t"].value.shape[1]
    total = len(t["x"].value) if t.data[2] is None else t.data[2].sum()
    rate = optimizer.learning_rate_at(optimizer.n_steps) if optimizer else 0.0
    step = optimizer.n_steps + 1 if optimizer else 0
    b1, b2 = getattr(optimizer, "beta1", 0.0), getattr(optimizer, "beta2", 0.0)
    numbers = {
        **{"N": total, "Sw": total, "K": k, "lam": t.l2, "eta": rate},
        **{"mu": getattr(optimizer, "momentum", 0), "delta": getattr(optimizer, "weight_decay", 0)},
        **{"b1": b1, "b2": b2, "c1": 1 - b1**step, "c2": 1 - b2**step, "eps": getattr(optimizer, "epsilon", 0)},
    }
    words = [
        *(
            ("(1 − β₁ᵗ)", "c1"),
            ("(1 − β₂ᵗ)", "c2"),
            ("β₁", "b1 "),
            ("β₂", "b2 "),
            ("η", "eta "),
            ("μ", "mu "),
            ("δ", "*delta"),
        ),
        *(("ε", "eps"), ("λ", "lam"), ("Σw", "Sw"), ("½", "0.5 *"), ("1/K", "1/K *"), ("1/N", "1/N *"), ("−", "-")),
        *(("ᵀ", ".T"), ("⊙", "*"), ("≤", "<="), ("²", "**2"), ("σ(", "s("), ("λ/N", "lam/N"), ("[", "("), ("]", ")")),
    ]
    for name, q in t.items():
        head, _, text = q.formula.matrix.partition(" = ")
        if q.formula.equation == "43" and " ⊙ " not in text:
            continue  # of rows: numbers beside arrays
        if not head or any(
            word in text for word in ("∂", "′", "mask", "lrelu", "h(", "mean(", "Σ W", "dw", "from", "backward")
        ):
            continue
        text = re.sub(r"log (\{\w+\})", r"log(\1)", text)
        text = re.sub(r"\|([^|]*)\|", r"abs(\1)", text)
        for word, code in words:
            text = text.replace(word, code)
        # names, then products: a space between two factors is a product of numbers, or of matrices
        text = re.sub(r"\{([^}]+)\}", r"Q('\1')", text)
        text = re.sub(r"(eta|mu|b1|b2|lam/N|lam/Sw) +(?=[Q(])", r"\1 * ", text)
        text = re.sub(r"\((1 - (?:b1|b2|eta)[^()]*)\) (?=Q)", r"(\1) * ", text)
        text = re.sub(r"(Q\('t'\)|\(1 - Q\('t'\)\)) (?=log)", r"\1 * ", text)
        if name in ("L", "R", "J", "P", "D") or head == "{l}":
            text = text.replace("Σ_n Q('w') Q('l')", "(Q('w') * Q('l')).sum()").replace("Σ_n Q('l')", "Q('l').sum()")
            text = re.sub(r"Σ_j (.*)$", r"(\1).sum(axis=1)", text)
        text = re.sub(r"Σ_n (Q\('\w+'\) \* Q\('\w+'\))", r"(\1).sum(axis=0)", text)
        text = re.sub(r"Σ_n (Q\('\w+'\))", r"\1.sum(axis=0)", text)
        text = re.sub(r"Σ_k (Q\('\w+'\) \* Q\('\w+'\))", r"(\1).sum(axis=1, keepdims=True)", text)
        text = re.sub(r"(?<=\)|T) (?=[Q(])", " @ ", text)
        with np.errstate(all="ignore"):
            found = eval(text, {**functions, **numbers, "Q": lambda n: t[n].value})
        np.testing.assert_allclose(found, q.value, rtol=1e-6, atol=1e-12, err_msg=f"{q.formula.matrix}: {text}")
        count += 1
    return count


@st.composite
def jobs(draw: Any) -> tuple[nn.Sequential, nn.Loss, Any, Any, Any, float, Any, np.random.Generator]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    widths = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    made: list[nn.Layer] = []
    for a, b in pairwise(widths):
        made += [nn.Dense(a, b), *layers(draw(st.lists(st.sampled_from(BETWEEN), max_size=2)), b)]
    n, k = draw(st.integers(1, 4)), widths[-1]
    losses: list[nn.Loss] = [nn.HalfSquaredError(), nn.MeanSquaredError(), nn.MeanAbsoluteError(), nn.Huber(0.7)]
    loss = draw(st.sampled_from([*losses, nn.SigmoidCrossEntropy(), nn.BinaryCrossEntropy(), nn.SoftmaxCrossEntropy()]))
    if isinstance(loss, nn.BinaryCrossEntropy):
        made.append(nn.Sigmoid())
    y: Any = rng.normal(size=(n, k))
    if isinstance(loss, nn.SoftmaxCrossEntropy):
        y = rng.integers(0, k, n)
    elif isinstance(loss, nn.SigmoidCrossEntropy | nn.BinaryCrossEntropy):
        y = rng.integers(0, 2, (n, k))
    net = nn.Sequential(made, rng=rng)
    net.params.vector += 0.1 * rng.normal(size=net.params.vector.size)
    weights = rng.uniform(0.5, 2, n) if draw(st.booleans()) else None
    optimizer = copy.deepcopy(draw(st.sampled_from([*OPTIMIZERS, None])))
    for _ in range(draw(st.sampled_from([0, 2])) if optimizer else 0):  # one that has stepped before
        grads = net.params.like()
        grads.vector[:] = rng.normal(size=grads.vector.size)
        optimizer.step(net.params, grads)
    if draw(st.booleans()):
        net.params["0.W"][0] = 0.0
    x = rng.normal(size=(n, widths[0]))
    x[0, 0] = draw(st.sampled_from([x[0, 0], 0.0]))
    x = draw(st.sampled_from([x, np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2]]))
    return net, loss, x, y, optimizer, draw(st.sampled_from([0.0, 0.3])), weights, rng


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(jobs())
def test_every_formula_gives_its_number_and_every_gradient_is_right(job: Any) -> None:
    net, loss, x, y, optimizer, l2, weights, rng = job
    before, state = net.params.vector.copy(), copy.deepcopy(rng.bit_generator.state)
    steps, moments = (optimizer.n_steps, copy.deepcopy(optimizer.state)) if optimizer else (0, {})
    trace = nn.trace(net, loss, x, y, optimizer, l2, sample_weight=weights, rng=rng)
    assert (net.params.vector == before).all() and rng.bit_generator.state == state
    if optimizer is not None:
        assert optimizer.n_steps == steps and all((optimizer.state[m] == v).all() for m, v in moments.items())
    assert_equalities(trace)
    assert_matrix_formulas(trace)
    assert trace.ok, trace.wrong
    # the numbers are the library's
    twin = copy.deepcopy(net)
    value, grads = nn.objective(net, loss, x, y, sample_weight=weights, l2=l2, rng=copy.deepcopy(rng))
    np.testing.assert_allclose(trace["J" if "J" in trace else "L"].value, value, rtol=1e-14)
    if optimizer is not None:
        copy.deepcopy(optimizer).step(twin.params, grads)
    for q in trace.values():
        if q.role == "gradient" and q.parameter:
            np.testing.assert_allclose(q.value, grads[q.parameter], rtol=1e-13, atol=1e-16)
        if q.role == "update" and q.parameter:
            np.testing.assert_allclose(q.value, twin.params[q.parameter], rtol=1e-9, atol=1e-12)


@settings(max_examples=40)
@given(jobs())
def test_the_ways_to_the_loss_add_up_to_the_gradient(job: Any) -> None:
    net, loss, x, y, _, l2, weights, rng = job
    trace = nn.trace(net, loss, x, y, None, l2, sample_weight=weights, rng=rng)
    for name, q in list(trace.items()):
        if q.role != "parameter":
            continue
        for index in np.ndindex(q.value.shape):
            ways = trace.paths(name, index)
            terms = [way.contribution for way in ways]
            for way in ways:
                assert way.contribution == pytest.approx(np.prod([f.value for f in way.factors]), rel=1e-14)
            gradient = float(trace[f"d{name}"].value[index])
            assert abs(fsum(terms) - gradient) <= 4e-15 * fsum(map(abs, terms)) + 1e-300, (name, index)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_presets(preset: Any) -> None:
    trace = preset.trace()
    assert trace.ok and assert_equalities(trace) >= 50
    wrong = [c.label for c in preset.compare(trace) if not c.agrees]
    expected = {
        "mazur": ["E after one step", "E after 10,000 steps", "out o1 after 10,000 steps", "out o2 after 10,000 steps"],
        "cs231n": ["dW2[0,0]", "dW2[0,1]", "dW1[0,0]", "dW1[1,0]"],
    }
    assert wrong == expected.get(preset.key, [])
    least = min(float(q.check.digits.min()) for q in trace.values() if q.check is not None)
    assert least >= 13


def test_mazurs_last_number_is_that_of_the_bug() -> None:
    trace = PRESETS["mazur"].trace()
    assert f"{trace['L+'].value:.9f}" == "0.291027774"
    x, y, _, _ = trace.data
    (broken,) = [
        nn.trace(net, loss, x, y, trace.optimizer, frozen="*.b")
        for bug, net, loss in applicable(trace.net, trace.loss, x, trace.optimizer)
        if bug.key == "updated-weights"
    ]
    assert f"{broken['L+'].value:.9f}" == "0.291027924"
    assert broken.wrong[0] == "da1"
    assert_equalities(broken)


def test_every_bug_is_seen_where_it_is_and_its_formula_is_what_it_computes() -> None:
    first = {
        "factor-2": "dy",
        "missing-weights": "da1",
        "lost-slope": ("dz2", "dz1"),
        "updated-weights": "da1",
        "not-transposed": "da1",
        "mask-from-dy": "dz1",
        "sign": ("dy", "dz2"),
        "slope-after-softmax": "dz2",
        "bias-of-one-row": "db2",
        "sum-not-mean": ("dy", "dz2"),
    }
    seen = set()
    for preset in PRESETS.values():
        trace = preset.trace()
        x, y, _, _ = trace.data
        for bug, net, loss in applicable(trace.net, trace.loss, x, trace.optimizer):
            broken = nn.trace(net, loss, x, y, trace.optimizer, frozen=trace.frozen)
            assert broken.wrong and broken.wrong[0] in first[bug.key], (preset.key, bug.key, broken.wrong)
            assert_equalities(broken)
            assert broken["L"].value == trace["L"].value
            seen.add(bug.key)
    assert seen == {bug.key for bug in BUGS} == set(first)


def test_promised_and_real_change() -> None:
    """For a small step of plain SGD the loss falls by eta times the sum of squares."""
    net, loss, x, y, _ = PRESETS["document"].make()
    trace = nn.trace(net, loss, x, y, nn.SGD(1e-4))
    grads = nn.objective(net, loss, x, y)[1].vector
    assert float(trace["P"].value) == pytest.approx(-1e-4 * grads @ grads, rel=1e-9)
    assert float(trace["D"].value) == pytest.approx(float(trace["P"].value), rel=1e-4)


class Doubled(nn.Layer):
    """A layer without formulas here, right or wrong."""

    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor

    def forward(self, x: Any, rng: Any = None) -> Any:
        return np.asarray(x) * 2, None

    def backward(self, dy: Any, cache: Any) -> Any:
        return dy * self.factor, nn.Parameters({})


class OnlyReal(Doubled):
    """One that complex numbers do not pass."""

    def forward(self, x: Any, rng: Any = None) -> Any:
        if np.iscomplexobj(x):
            raise TypeError("real numbers only")
        return x * 2, None


class Rolled(nn.Layer):
    """One in which an element goes to its neighbour."""

    def forward(self, x: Any, rng: Any = None) -> Any:
        return np.roll(x, 1, axis=1), None

    def backward(self, dy: Any, cache: Any) -> Any:
        return np.roll(dy, -1, axis=1), nn.Parameters({})


class Kinked(nn.Layer):
    """An ELU."""

    def forward(self, x: Any, rng: Any = None) -> Any:
        return np.where(x.real > 0, x, np.exp(np.where(x.real > 0, 0, x)) - 1), x

    def backward(self, dy: Any, cache: Any) -> Any:
        return dy * np.where(cache > 0, 1, np.exp(np.minimum(cache, 0))), nn.Parameters({})


class Scaled(nn.Layer):
    """An elementwise one with a parameter."""

    def __init__(self) -> None:
        self.params = nn.Parameters({"a": (1,)}, np.array([1.5]))

    def forward(self, x: Any, rng: Any = None) -> Any:
        return np.sin(x) * self.params["a"], x

    def backward(self, dy: Any, cache: Any) -> Any:
        grads = self.params.like()
        grads["a"] = [(dy * np.sin(cache)).sum()]
        return dy * np.cos(cache) * self.params["a"], grads


class Absolute(nn.Layer):
    """One that lies to the complex step."""

    def forward(self, x: Any, rng: Any = None) -> Any:
        return np.abs(x) * np.abs(x) / 2 + x.real, x

    def backward(self, dy: Any, cache: Any) -> Any:
        return dy * (cache + 1), nn.Parameters({})


class TestLayersOfTheUsers:
    def make(self, layer: nn.Layer, rng: np.random.Generator) -> nn.Trace:
        net = nn.Sequential([nn.Dense(2, 3), layer, nn.Dense(3, 1)], rng=rng)
        return nn.trace(net, nn.MeanSquaredError(), rng.normal(size=(3, 2)), rng.normal(size=3), nn.SGD(0.1))

    def test_right(self, rng: np.random.Generator) -> None:
        trace = self.make(Doubled(), rng)
        assert trace.ok and assert_equalities(trace)
        assert "Doubled" in trace.to_text()

    def test_wrong(self, rng: np.random.Generator) -> None:
        trace = self.make(Doubled(3.0), rng)
        assert not trace.ok and trace.wrong[0] == "dz1"
        assert "WRONG" in trace.to_text() and "The first wrong one, on the way back, is dz₁" in trace.to_text()

    def test_complex_numbers_do_not_pass(self, rng: np.random.Generator) -> None:
        trace = self.make(OnlyReal(), rng)
        assert trace.ok and trace["dW1"].check.method == "differences"
        assert trace["dW2"].check.method == "complex step"
        assert not self.make(OnlyReal(2.001), rng).ok

    def test_paths_through_a_layer_that_mixes_elements_are_refused(self, rng: np.random.Generator) -> None:
        trace = self.make(Rolled(), rng)
        with pytest.raises(ValueError, match="a layer without formulas that mixes elements"):
            trace.paths("W1", (0, 0))
        assert len(trace.paths("W2", (0, 0))) == 3
        data = page_data(trace)
        assert (
            data["variants"] == [] and "lead through the layer from z₁ to a₁, which mixes" in data["paths"]["W1"]["why"]
        )

    @pytest.mark.parametrize("layer", [Doubled(), Doubled(3.0), OnlyReal(), Kinked(), Scaled(), Absolute()])
    def test_paths_through_an_elementwise_layer(self, layer: nn.Layer, rng: np.random.Generator) -> None:
        """Right or wrong, with parameters or without: its slope is that of its forward."""
        trace = self.make(layer, rng)
        (slope,) = (q for q in trace.values() if q.role == "slope")
        assert ("the complex step" in slope.formula.why) == (not isinstance(layer, (OnlyReal, Absolute)))
        for index in np.ndindex(2, 3):
            total = sum(path.contribution for path in trace.paths("W1", index))
            assert total == pytest.approx(trace["dW1"].check.reference[index], rel=1e-7)
        assert "rows" in page_data(trace)["paths"]["W1"]
        if isinstance(layer, Scaled):
            with pytest.raises(ValueError, match="start at a parameter whose gradient has a formula"):
                trace.paths("ap2", 0)

    def test_a_network_that_is_one_layer(self, rng: np.random.Generator) -> None:
        trace = nn.trace(nn.Dense(2, 1, rng=rng), nn.HalfSquaredError(), [[1, 2]], [3], nn.SGD(0.1))
        assert trace.ok and assert_equalities(trace)

    def test_nested_networks_and_float32(self, rng: np.random.Generator) -> None:
        inner = nn.Sequential([nn.Dense(2, 3), nn.Tanh()], rng=None)
        net = nn.Sequential([inner, nn.Dense(3, 2), nn.ReLU()], rng=rng, dtype=np.float32)
        trace = nn.trace(net, nn.MeanSquaredError(), [[1, 2], [0, 1]], [[0, 1], [1, 0]], nn.Adam())
        assert trace.ok and trace["W1"].parameter == "0.0.W" and trace["W2"].parameter == "1.W"
        assert trace["z1"].value.dtype == np.float32


class OfUsers(nn.Layer):
    """A layer made of two functions: forward(x) -> (y, cache) and backward(dy, cache) -> dx."""

    def __init__(self, forward: Any, backward: Any) -> None:
        self.f, self.b = forward, backward

    def forward(self, x: Any, rng: Any = None) -> Any:
        return self.f(x)

    def backward(self, dy: Any, cache: Any) -> Any:
        return self.b(dy, cache), nn.Parameters({})


class TestVerdict:
    """The check beside a gradient accuses no right one and passes no wrong one."""

    @staticmethod
    def trace(layer: nn.Layer, n: int = 6) -> nn.Trace:
        net = nn.Sequential([layer, nn.Dense(2, 1)], rng=np.random.default_rng(0))
        x, y = np.random.default_rng(1).normal(size=(n, 2)), np.random.default_rng(2).normal(size=n)
        return nn.trace(net, nn.MeanSquaredError(), x, y)

    def test_code_that_lies_to_the_complex_step(self) -> None:
        def softsign(x: Any) -> Any:
            return x / (1 + np.abs(x)), 1 + np.abs(x)

        def standardise(x: Any) -> Any:
            y = (x - x.mean(0)) / x.std(0)
            return y, (y, x.std(0))

        def right(dy: Any, cache: Any) -> Any:
            y, d = cache
            return (dy - dy.mean(0) - y * (dy * y).mean(0)) / d

        assert self.trace(OfUsers(softsign, lambda dy, d: dy / d**2)).ok
        assert self.trace(OfUsers(softsign, lambda dy, d: dy / d)).wrong == ["dx"]
        assert self.trace(OfUsers(standardise, right)).ok
        assert self.trace(OfUsers(standardise, lambda dy, c: (dy - dy.mean(0)) / c[1])).wrong == ["dx"]

    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_at_a_minimum(self, dtype: Any, rng: np.random.Generator) -> None:
        net = nn.Sequential([nn.Dense(5, 3), nn.Tanh(), nn.Dense(3, 2)], rng=rng, dtype=dtype)
        x = rng.normal(size=(8, 5))
        trace = nn.trace(net, nn.MeanSquaredError(), x, net.predict(x))
        assert trace.ok and not trace.unclear
        x = np.vstack([x, -x])
        assert nn.trace(net, nn.MeanSquaredError(), x, np.zeros((16, 2))).ok

    def test_every_element_of_a_large_gradient_takes_part(self, rng: np.random.Generator) -> None:
        class Half(nn.Dense):
            fill = 0.0

            def backward(self, dy: Any, cache: Any) -> Any:
                dx, grads = super().backward(dy, cache)
                grads["W"][:15] = self.fill
                return dx, grads

        for fill in (0.0, np.nan):
            layer = Half(30, 20, rng=rng)
            layer.fill = fill
            net = nn.Sequential([layer, nn.Tanh(), nn.Dense(20, 1)], rng=rng)
            trace = nn.trace(net, nn.MeanSquaredError(), rng.normal(size=(6, 30)), rng.normal(size=6))
            assert trace.wrong == ["dW1"], fill
            assert "WRONG" in trace.to_text() and "✗" in page_data(trace)["base"]["quantities"]["dW1"]["verdict"]

    def test_one_wrong_element_of_many_is_shown(self, rng: np.random.Generator) -> None:
        class One(nn.Dense):
            def backward(self, dy: Any, cache: Any) -> Any:
                dx, grads = super().backward(dy, cache)
                grads["W"][7, 3] *= 1.5
                return dx, grads

        net = nn.Sequential([One(20, 20), nn.Tanh(), nn.Dense(20, 1)], rng=rng)
        trace = nn.trace(net, nn.MeanSquaredError(), rng.normal(size=(6, 20)), rng.normal(size=6))
        assert trace.wrong == ["dW1"] and trace["dW1"].check.wrong[7, 3]
        assert re.search(r"dW₁\[7,3\] = .*WRONG", trace.to_text())
        q = page_data(trace)["base"]["quantities"]["dW1"]
        assert [q["cells"][k] for k in q["wrong"]] == [[7, 3]]

    def test_a_small_wrong_element_beside_large_ones(self, rng: np.random.Generator) -> None:
        class Small(nn.Dense):
            def backward(self, dy: Any, cache: Any) -> Any:
                dx, grads = super().backward(dy, cache)
                grads["W"][1] *= -2
                return dx, grads

        x = rng.normal(size=(6, 2)) * [1.0, 1e-11]
        trace = nn.trace(nn.Sequential([Small(2, 2)], rng=rng), nn.MeanSquaredError(), x, rng.normal(size=(6, 2)))
        assert trace.wrong == ["dW1"] and trace["dW1"].check.wrong.tolist() == [[False, False], [True, True]]

    def test_what_is_not_finite_is_no_success(self, rng: np.random.Generator) -> None:
        net = nn.Sequential([nn.Dense(2, 2)], rng=rng)
        net.params["0.W"][1, 1] = np.nan
        trace = nn.trace(net, nn.HalfSquaredError(), rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), nn.SGD(0.1))
        assert not trace.ok and trace.unclear and "UNCLEAR" in trace.to_text()
        assert "unclear" in repr(trace) and "NaN" in trace.to_html() and trace.to_markdown() and trace.to_latex()

    def test_a_backward_that_gives_nan(self) -> None:
        def bad(dy: Any, cache: Any) -> Any:
            out = dy * 1.0
            out[0, 0] = np.nan
            return out

        trace = self.trace(OfUsers(lambda x: (x * 1.0, None), bad))
        assert trace.wrong == ["dx"] and "WRONG" in trace.to_text() and trace.to_markdown()

    @pytest.mark.parametrize("logit", [-800.0, -700.0, -40.0, 40.0, 700.0, 800.0])
    def test_saturation(self, logit: float) -> None:
        for loss, y in ((nn.SigmoidCrossEntropy(), [[0.0, 1.0]]), (nn.SoftmaxCrossEntropy(), [1])):
            trace = nn.trace(nn.Sequential([nn.Identity()], rng=None), loss, [[logit, -logit]], y)
            assert trace.ok, (loss, trace.to_text())
            assert trace.to_markdown() and trace.to_html(break_it=False)
        trace = nn.trace(nn.Sequential([nn.Tanh()], rng=None), nn.HalfSquaredError(), [[logit / 40]], [[0.5]])
        assert trace.ok
        assert ("computed in a form that keeps its digits" in trace.to_text()) == (abs(logit) > 600)

    def test_the_number_of_digits(self) -> None:
        """A backward that is off by a millionth agrees to six digits, and is wrong."""
        trace = self.trace(OfUsers(lambda x: (x * 1.0, None), lambda dy, _: dy * (1 + 1e-6)))
        digits = trace["dx"].check.digits
        assert trace.wrong == ["dx"] and (abs(digits - 6) < 0.01).all()
        assert f"{int(digits[0, 0])} digits agree" in trace.to_text()

    @pytest.mark.parametrize("example", KINKED, ids=lambda example: repr(example.make(3)))
    def test_formulas_at_a_kink(self, example: Example) -> None:
        net = nn.Sequential([made(example)], rng=None)
        for loss in (nn.Huber(0.5), nn.MeanAbsoluteError()):
            trace = nn.trace(net, loss, [[0.0, -0.0, 0.5]], [[0.5, -0.5, 0.5]])
            assert trace.ok and assert_equalities(trace)

    def test_kinks(self) -> None:
        net = nn.Sequential([nn.Dense(1, 2), nn.ReLU(), nn.Dense(2, 1)], rng=None)
        net.params.vector = [0.0, 1.0, 0.0, 0.5, 1.0, 1.0, 0.0]
        for chain in (net.layers, [OnlyReal(), *map(copy.deepcopy, net.layers)]):
            made = net if chain is net.layers else nn.Sequential(chain, rng=None)
            trace = nn.trace(made, nn.HalfSquaredError(), [[1.0]], [[3.0]])
            assert trace.ok, trace.to_text()


class TestOddNetworks:
    def test_a_network_with_a_forward_of_its_own(self, rng: np.random.Generator) -> None:
        class Residual(nn.Sequential):
            def forward(self, x: Any, rng: Any = None) -> Any:
                y, cache = super().forward(x, rng)
                return x + y, cache

            def backward(self, dy: Any, cache: Any) -> Any:
                dx, grads = super().backward(dy, cache)
                return dx + dy, grads

        net = nn.Sequential([Residual([nn.Dense(2, 2), nn.Tanh()], rng=None), nn.Dense(2, 1)], rng=rng)
        x, y = rng.normal(size=(3, 2)), rng.normal(size=3)
        trace = nn.trace(net, nn.MeanSquaredError(), x, y, nn.SGD(0.1))
        assert float(trace["L"].value) == nn.objective(net, nn.MeanSquaredError(), x, y)[0]
        assert trace.ok and assert_equalities(trace)

    def test_names_do_not_collide(self, rng: np.random.Generator) -> None:
        class Two(nn.Layer):
            def __init__(self, *names: str) -> None:
                self.names = names
                self.params = nn.Parameters(dict.fromkeys(names, (2,)), np.arange(1.0, 1 + 2 * len(names)))

            def forward(self, x: Any, rng: Any = None) -> Any:
                return x * sum(self.params[name] for name in self.names), x

            def backward(self, dy: Any, cache: Any) -> Any:
                grads = self.params.like()
                for name in self.names:
                    grads[name] = (dy * cache).sum(axis=0)
                return dy * sum(self.params[name] for name in self.names), grads

        for names in (("w1", "w2"), ("a", "b"), ("α", "β"), ("d", "L"), ("W",)):
            net = nn.Sequential([nn.Dense(2, 2), Two(*names), nn.Tanh()], rng=rng)
            x, y = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
            trace = nn.trace(net, nn.MeanSquaredError(), x, y, nn.Adam(), 0.1 if names == ("W",) else 0.0)
            for own in names:
                symbols = [n for n, q in trace.items() if q.parameter == f"1.{own}" and q.role == "parameter"]
                assert len(symbols) == 1 and (trace[symbols[0]].value == net.params[f"1.{own}"]).all()
            assert trace.ok and assert_equalities(trace) and trace.to_latex() and trace.to_html()

    def test_many_activations_in_a_row(self) -> None:
        net = nn.Sequential([nn.Identity() for _ in range(40)], rng=None)
        trace = nn.trace(net, nn.HalfSquaredError(), [[1.0]], [[0.0]])
        assert trace.ok and trace.to_latex()

    def test_weights_that_are_all_zero(self, rng: np.random.Generator) -> None:
        net = nn.Sequential([nn.Dense(2, 1)], rng=rng)
        trace = nn.trace(net, nn.MeanSquaredError(), [[1, 2]], [3], nn.SGD(0.1), 0.5, sample_weight=[0.0])
        assert trace["L"].value == 0 and not trace["dW1"].value.any() and trace.ok

    def test_soft_targets_that_sum_to_nearly_one(self) -> None:
        net = nn.Sequential([nn.Identity()], rng=None)
        trace = nn.trace(net, nn.SoftmaxCrossEntropy(), [[1.0, 2.0, 0.5]], [[0.333333] * 3])
        assert trace.ok and assert_equalities(trace)

    def test_outputs_of_one_axis(self, rng: np.random.Generator) -> None:
        flat = OfUsers(lambda x: (x[:, 0], x.shape), lambda dy, shape: dy[:, None] * np.eye(1, shape[1]))
        trace = nn.trace(
            nn.Sequential([nn.Dense(2, 3), flat], rng=rng), nn.MeanSquaredError(), [[1, 2], [0, 1]], [1, 2]
        )
        assert trace.ok and trace.to_text()

    def test_layers_and_schedules_with_a_memory_are_left_alone(self, rng: np.random.Generator) -> None:
        class Counting(nn.Layer):
            calls = 0

            def forward(self, x: Any, rng: Any = None) -> Any:
                self.calls += 1
                return x * 1.0, None

            def backward(self, dy: Any, cache: Any) -> Any:
                return dy * 1.0, nn.Parameters({})

        asked = []
        net = nn.Sequential([nn.Dense(2, 1), Counting()], rng=rng)
        schedule = lambda step: asked.append(step) or 0.1 / len(asked)  # noqa: E731
        trace = nn.trace(net, nn.MeanSquaredError(), [[1, 2]], [3], nn.SGD(schedule))
        assert net.layers[1].calls == 0 and len(asked) == 1  # type: ignore[attr-defined]
        assert assert_equalities(trace)

    def test_inference_of_dropout_says_so(self) -> None:
        net = nn.Sequential([nn.Dropout(0.5)], rng=None)
        text = nn.trace(net, nn.MeanSquaredError(), [[1.0]], [[0.0]]).to_text()
        assert "nothing is dropped" in text and "Drawn" not in text

    def test_bugs_with_an_l2_term_and_weights(self, rng: np.random.Generator) -> None:
        net = nn.Sequential([nn.Dense(2, 2), nn.Tanh(), nn.Dense(2, 2)], rng=rng)
        x, y, w = rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), rng.uniform(1, 2, 3)
        for _, broken, loss in applicable(net, nn.HalfSquaredError(), x, nn.SGD(0.1), 0.2):
            trace = nn.trace(broken, loss, x, y, nn.SGD(0.1), 0.2, sample_weight=w)
            assert not trace.ok and assert_equalities(trace)


class TestBadInput:
    def net(self) -> nn.Sequential:
        return nn.Sequential([nn.Dense(2, 1)], rng=np.random.default_rng(0))

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"x": np.zeros((0, 2))}, "no rows"),
            ({"x": np.zeros((1, 3))}, "shape"),
            ({"x": [[np.nan, 1]]}, "finite"),
            ({"y": [1, 2]}, "2 rows"),
            ({"frozen": "W1"}, "no parameter is called 'W1'; there are 0.W, 0.b"),
            ({"frozen": 3}, "frozen takes names or patterns"),
            ({"l2": -1}, "l2"),
            ({"sample_weight": [-1]}, "negative"),
            ({"rng": 0}, "Generator"),
            ({"optimizer": "sgd"}, "optimizer must be an Optimizer"),
            ({"net": 3}, "takes a Layer"),
            ({"loss": "mse"}, "takes a Layer and a Loss"),
        ],
    )
    def test_values(self, change: dict[str, Any], match: str) -> None:
        given = {"net": self.net(), "loss": nn.MeanSquaredError(), "x": [[1, 2]], "y": [1]} | change
        with pytest.raises(ValueError, match=match):
            nn.trace(**given)

    def test_digits(self) -> None:
        trace = nn.trace(self.net(), nn.MeanSquaredError(), [[1, 2]], [1])
        for write in (trace.to_text, trace.to_markdown, trace.to_latex):
            with pytest.raises(ValueError, match="digits must be an integer of at least 1"):
                write(digits=-1)

    def test_of_the_page(self) -> None:
        trace = nn.trace(self.net(), nn.MeanSquaredError(), [[1, 2]], [1], nn.SGD(0.1))
        with pytest.raises(ValueError, match="preset must be one of"):
            trace.to_html(preset="mazur")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="n_steps must be an integer of at least 0"):
            trace.to_html(n_steps=-1)

    def test_unknown_quantity(self) -> None:
        trace = nn.trace(self.net(), nn.MeanSquaredError(), [[1, 2]], [1])
        with pytest.raises(KeyError, match="'W7' is not in this trace; it has x, t, W1"):
            trace["W7"]
        assert "W7" not in trace and "W1" in trace

    @pytest.mark.parametrize(
        ("name", "index", "match"), [("x", (0, 0), "parameter"), ("W1", (5, 0), "shape"), ("W1", (0,), "shape")]
    )
    def test_ways(self, name: str, index: tuple[int, ...], match: str) -> None:
        trace = nn.trace(self.net(), nn.MeanSquaredError(), [[1, 2]], [1])
        with pytest.raises(ValueError, match=match):
            trace.paths(name, index)

    def test_frozen(self) -> None:
        net = self.net()
        trace = nn.trace(net, nn.MeanSquaredError(), [[1, 2]], [1], nn.Adam(), frozen="*.b")
        assert trace.frozen == ("0.b",) and trace["b1+"].value == net.params["0.b"]
        assert trace["W1+"].value[0, 0] != net.params["0.W"][0, 0]


class TestText:
    def test_every_printed_equality_holds(self) -> None:
        """Read back from the plain text, with its six digits."""
        for preset in PRESETS.values():
            count = 0
            for line in preset.trace().to_text(digits=9).splitlines():
                parts = line.partition("    [")[0].split(" = ")
                if line.startswith("        ") and len(parts) == 3:
                    count += 1
                    assert holds(parts[1], compute(parts[2]).value, 9), line
            assert count > 30

    def test_the_cap_is_stated(self, rng: np.random.Generator) -> None:
        net = nn.Sequential([nn.Dense(30, 20), nn.ReLU(), nn.Dense(20, 1)], rng=rng)
        trace = nn.trace(net, nn.MeanSquaredError(), rng.normal(size=(5, 30)), rng.normal(size=5), nn.SGD(0.1), 0.1)
        text = trace.to_text()
        assert "600 elements: the 8 largest are shown." in text and "checked: 8 directions." in text
        assert "(24 more: " in text
        for line in text.splitlines():
            parts = line.partition("    [")[0].split(" = ")
            if line.startswith("        ") and len(parts) == 3:
                assert holds(parts[1], compute(parts[2]).value, 6), line

    def test_markdown_latex_and_notebook(self) -> None:
        trace = PRESETS["xor"].trace()
        markdown, latex, html = trace.to_markdown(), trace.to_latex(), trace._repr_html_()
        assert "$dW_{1} = x^\\top dz_{1}$" in markdown
        assert latex.count(r"\begin{align*}") == latex.count(r"\end{align*}") > 20
        assert latex.count("{") == latex.count("}") and "$" in latex and not re.search(r"[₀-₉σηΣ−·²]", latex)
        assert "<script" not in html and html.count("<details>") == len(trace.steps)

    def test_repr(self) -> None:
        assert repr(PRESETS["xor"].trace()).endswith("8 gradients, all agree with their check>")


@cache
def make_page(key: str) -> str:
    return PRESETS[key].trace().to_html(preset=PRESETS[key])


class TestPage:
    """The page without a browser: its data, recomputed; its size; what it may load."""

    @pytest.fixture(params=list(PRESETS))
    def page(self, request: pytest.FixtureRequest) -> str:
        return make_page(request.param)

    def test_size_and_security(self, page: str) -> None:
        assert len(page.encode()) < 300_000
        assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page
        assert not re.search(r'\s(on\w+|style|src)="', page.partition('<script type="application/json"')[0])
        assert "default-src 'none'; script-src 'sha256-" in page and "unsafe" not in page

    def test_every_equality_in_its_data_holds(self, page: str) -> None:
        data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
        right = data["base"]["quantities"]
        count = 0
        for side in (data["base"], *data["variants"]):
            quantities = {**right, **side["quantities"]}

            def lookup(name: str, index: tuple[int, ...], quantities: Any = quantities) -> float:
                q = quantities[name]
                return float(np.reshape(q["values"], q["shape"])[index])

            for q in quantities.values():
                if "tokens" not in q:
                    continue
                for at, index in enumerate(np.ndindex(*q["shape"])):
                    letters = dict(zip(q["index"], index, strict=True))
                    text = substituted(q["tokens"], letters, lookup, lambda v: number(v, 17))
                    assert holds(text, float(q["values"][at])), text
                    count += 1
        assert count > 300
        for name, found in data["paths"].items():
            for k, row in enumerate(found["rows"]):
                terms = [way[3] for way in row["ways"]]
                assert abs(fsum(terms) - row["sum"]) <= 2e-16 * fsum(map(abs, terms))
                assert abs(row["sum"] - right["d" + name]["values"][k]) <= 4e-15 * fsum(map(abs, terms))

    def test_a_large_network_in_blocks(self, rng: np.random.Generator) -> None:
        net = nn.Sequential([nn.Dense(24, 20), nn.ReLU(), nn.Dense(20, 10)], rng=rng)
        x, y = rng.normal(size=(30, 24)), rng.integers(0, 10, 30)
        data = page_data(nn.trace(net, nn.SoftmaxCrossEntropy(), x, y, nn.Adam()), n_steps=3)
        q = data["base"]["quantities"]["dW1"]
        assert len(q["blocks"]) == len(q["cells"]) == len(q["resolved"]) == 64
        assert "480 elements: shown in blocks" in q["leftOut"] and "more than 256 elements" in data["cap"]
        assert "too many to list" in data["paths"]["W1"]["why"]
        for name, quantity in data["base"]["quantities"].items():
            for at, tokens in enumerate(quantity.get("resolved", [])):
                text = substituted(
                    [["c", "", t[-1]] if not isinstance(t, str) and t[0] == "r" else t for t in tokens],
                    {},
                    _none,
                    _signed,
                )
                assert holds(text.replace("(−", "(-"), float(quantity["values"][at])), (name, text)

    def test_a_trace_is_a_record(self, rng: np.random.Generator) -> None:
        """Training that goes on afterwards does not change the page."""
        net, loss, x, y, optimizer = PRESETS["xor"].make()
        trace = nn.trace(net, loss, x, y, optimizer)
        page = trace.to_html()
        nn.fit(net, loss, optimizer, x, y, n_epochs=5, rng=rng)
        x += 1
        assert trace.to_html() == page

    def test_placeholders_and_braces_in_a_name_stay_text(self) -> None:
        class Odd(nn.Layer):
            def forward(self, x: Any, rng: Any = None) -> Any:
                return x * 1.0, None

            def backward(self, dy: Any, cache: Any) -> Any:
                return dy * 1.0, nn.Parameters({})

            def __repr__(self) -> str:
                return "%DATA% %SCRIPT% </script><script>alert(1)</script> {x} <!-- $ _ # & `"

        class OddSGD(nn.SGD):
            def __repr__(self) -> str:
                return "OddSGD({'lr': 1})"

        net = nn.Sequential([nn.Dense(1, 1), Odd()], rng=np.random.default_rng(0))
        trace = nn.trace(net, nn.MeanSquaredError(), [[1.0]], [[2.0]], OddSGD(0.1))
        page = trace.to_html()
        assert page.count('"use strict"') == 1 and "<script>alert" not in page and page.count("%DATA%") >= 2
        assert trace.to_text() and trace.to_markdown() and trace.to_latex() and trace._repr_html_()

    def test_a_network_too_large_to_break_says_so(self, rng: np.random.Generator) -> None:
        net = nn.Sequential([nn.Dense(200, 110), nn.ReLU(), nn.Dense(110, 2)], rng=rng)
        data = page_data(nn.trace(net, nn.SoftmaxCrossEntropy(), rng.normal(size=(4, 200)), [0, 1, 0, 1], nn.SGD(0.1)))
        assert not data["variants"] and data["base"]["curve"] is None and "20,000 parameters" in data["cap"]

    def test_writing_it(self, tmp_path: Path) -> None:
        preset = PRESETS["xor"]
        page = preset.trace().to_html(tmp_path / "page.html", preset=preset)
        assert (tmp_path / "page.html").read_text(encoding="utf-8") == page


def _none(name: str, index: tuple[int, ...]) -> float:
    raise AssertionError("everything is resolved")


def _signed(value: float) -> str:
    return f"({number(value, 17)})"


def test_command_line(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nnprofile", "trace", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    done = run("--example", "mazur", "--out", str(tmp_path / "page.html"))
    assert done.returncode == 0, done.stderr
    assert "0.291027924" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "dW₂[0,0] = 0.59327·0.138499 = 0.082167" in run("--example", "mazur").stdout
    wrong = run("--out", "page.pdf")
    assert wrong.returncode == 2 and "--out must end in .html, .txt, .md, .tex" in wrong.stderr


def test_tokens() -> None:
    from nnprofile.formulas.expression import Constant, Quantities, Square, Sum, call

    x, W = Quantities("x"), Quantities("W1")
    e = -Sum("i", 2, x["n", "i"] * W["i", "j"]) / 2 + Square(1 - x["n", "j"]) * call("max", x["n", "j"], 0)
    assert symbolic(e.tokens()) == "(−(Σ_i x[n,i]·W₁[i,j]))/2 + (1 − x[n,j])²·max(x[n,j], 0)"
    values = {"x": np.array([[-1.0, 2.0]]), "W1": np.array([[3.0], [-4.0]])}
    text = substituted(e.tokens(), {"n": 0, "j": 0}, lambda n, i: float(values[n][i]), lambda v: number(v))
    assert text == "(−(−1·3 + 2·(−4)))/2 + (1 − (−1))²·max(−1, 0)"
    assert compute(text).value == e.value({"n": 0, "j": 0}, lambda n, i: float(values[n][i])) == 5.5
    assert flat(Sum("i", 2, Constant("η", 0.5) * x["n", "i"]).tokens(), {"n": 0})[2] == ["r", "x", [0, 0], 0]


def test_the_title_of_a_page(tmp_path: Path) -> None:
    trace = PRESETS["xor"].trace()
    page = trace.to_html(tmp_path / "p.html", title="Homework 3 & <b>more</b>", break_it=False, n_steps=0)
    assert "<h1>Homework 3 &amp; &lt;b&gt;more&lt;/b&gt;</h1>" in page and "<title>Homework 3 &amp;" in page
    for bad in ("", "  ", 3):
        with pytest.raises(ValueError, match="title must be a string that is not empty"):
            trace.to_html(title=bad)  # type: ignore[arg-type]


def test_the_page_brings_the_checkers_diagnosis(rng: np.random.Generator) -> None:
    net = nn.Sequential([nn.Dense(2, 3), Doubled(4.0), nn.Dense(3, 1)], rng=rng)
    x, y = rng.normal(size=(3, 2)), rng.normal(size=3)
    for weight in (None, [1.0, 2.0, 0.5]):
        found = nn.trace(net, nn.MeanSquaredError(), x, y, nn.SGD(0.1), 0.1, sample_weight=weight)
        (says,) = page_data(found)["diagnosis"]
        assert says.startswith("1.x: your gradient is 2 times the right one"), says
    assert page_data(nn.trace(net, nn.MeanSquaredError(), x, y, sample_weight=[0.0, 0.0, 0.0]))["diagnosis"] == []
    assert page_data(PRESETS["xor"].trace(), break_it=False)["diagnosis"] == []


class Folded(nn.Layer):
    """Rows of 6 as tables of 2 by 3, or back."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def forward(self, x: Any, rng: Any = None) -> Any:
        return x.reshape(len(x), *self.shape), x.shape

    def backward(self, dy: Any, cache: Any) -> Any:
        return dy.reshape(cache), nn.Parameters({})


@pytest.mark.parametrize("middle", [*ELEMENTWISE, nn.Dropout(0.5), Kinked()])
def test_values_of_three_axes(middle: nn.Layer, rng: np.random.Generator) -> None:
    net = nn.Sequential([nn.Dense(2, 6), Folded(2, 3), middle, Folded(6), nn.Dense(6, 1)], rng=rng)
    trace = nn.trace(net, nn.MeanSquaredError(), rng.normal(size=(3, 2)), rng.normal(size=3), nn.SGD(0.1), rng=rng)
    assert trace.ok
    assert trace.to_text() and trace.to_markdown() and trace.to_latex() and trace.to_html() and trace._repr_html_()


@pytest.mark.parametrize("size", [1e100, 1e154, 1e200, 1e307])
def test_numbers_that_overflow_are_shown(size: float) -> None:
    net = nn.Sequential([nn.Dense(2, 2), nn.Tanh(), nn.Dense(2, 1)], rng=np.random.default_rng(0))
    net.params.vector[:] *= size
    with np.errstate(all="ignore"):
        trace = nn.trace(net, nn.HalfSquaredError(), [[1.0, 2.0]], [1.0], nn.SGD(50.0), 0.1)
        assert trace.to_text() and trace.to_markdown() and trace.to_latex() and trace._repr_html_()
        assert trace.to_html(n_steps=3)


def _branches(draw: Any, depth: int, width: int) -> nn.Layer | list[nn.Layer]:
    """Draw a layer for rows of this width: a chain, or something that branches, to this depth."""
    kind = draw(st.sampled_from(["chain", "residual", "concatenate"] if depth else ["chain"]))
    if kind == "chain":
        keeping = layers(draw(st.lists(st.sampled_from(BETWEEN), max_size=1)), width)
        return [*keeping, nn.Dense(width, width), *layers(draw(st.lists(st.sampled_from(BETWEEN), max_size=1)), width)]
    if kind == "residual":
        return nn.Residual(_branches(draw, depth - 1, width))
    parts = [_branches(draw, depth - 1, width) for _ in range(2)]
    return [nn.Concatenate(parts), nn.Dense(2 * width, width)]


@st.composite
def branching(draw: Any) -> tuple[nn.Sequential, Any]:
    """A network with branches nested up to three deep, on an array, or on a tuple of two."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, width = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    x = rng.normal(size=(2, n, width))
    if draw(st.booleans()):
        first, given = nn.Parallel([_branches(draw, 2, width), _branches(draw, 2, width)]), tuple(x)
        net = nn.Sequential([first, nn.Dense(2 * width, 1)], rng=rng)
    else:
        given = x[0]
        net = nn.Sequential([_branches(draw, 3, width), nn.Dense(width, 1)], rng=rng)
    net.params.vector = net.params.vector + 0.1 * rng.normal(size=net.params.vector.size)
    return net, given


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=25)
@given(branching(), st.sampled_from([0.0, 0.2]), st.sampled_from(OPTIMIZERS))
def test_branches_are_traced_with_all_paths_through_their_joins(
    job: tuple[nn.Sequential, Any], l2: float, optimizer: nn.Optimizer
) -> None:
    net, x = job
    y = np.linspace(-1, 1, len(x[0]) if isinstance(x, tuple) else len(x))
    trace = nn.trace(net, nn.HalfSquaredError(), x, y, optimizer, l2, rng=np.random.default_rng(0))
    assert trace.ok, trace.to_text()
    assert assert_equalities(trace)
    _, grads = nn.objective(net, nn.HalfSquaredError(), x, y, l2=l2, rng=np.random.default_rng(0))
    for name, q in trace.items():
        if q.role != "parameter":
            continue
        np.testing.assert_allclose(trace[f"d{name}"].value, grads[q.parameter], rtol=1e-12, atol=1e-14)
        index = tuple(size - 1 for size in q.value.shape)
        if n_paths(trace, name) <= 200:
            ways = trace.paths(name, index)
            assert len({(*way.units, (str(way.sample), 0)) for way in ways}) == len(ways)
            total = sum(way.contribution for way in ways)
            assert total == pytest.approx(trace[f"d{name}"].value[index], rel=1e-9, abs=1e-12)


class TestBranches:
    def trace(self, *branch: nn.Layer) -> nn.Trace:
        rng = np.random.default_rng(0)
        net = nn.Sequential([nn.Dense(2, 3), nn.Residual([*branch]), nn.Dense(3, 1)], rng=rng)
        return nn.trace(net, nn.HalfSquaredError(), rng.normal(size=(4, 2)), rng.normal(size=4), nn.SGD(0.1))

    def test_a_value_that_is_used_twice_gets_two_gradients(self) -> None:
        trace = self.trace(nn.Dense(3, 3), nn.Tanh())
        np.testing.assert_array_equal(trace["r2"].value, trace["z1"].value + trace["a2"].value)
        np.testing.assert_array_equal(trace["dz1"].value, trace["dr2"].value + trace["du1"].value)
        assert "dz₁ = dr₂ + du₁" in trace.to_text() and trace["dz1"].formula.equation == "37"
        assert {way.units[0] for way in trace.paths("W1", (0, 1))} == {("z1", 1)}
        through = [way for way in trace.paths("W1", (0, 1)) if ("u1", 1) in way.units]
        assert len(through) == 4 * 3 and len(trace.paths("W1", (0, 1))) == 4 * 3 + 4

    def test_a_wrong_layer_in_a_branch_is_named(self) -> None:
        trace = self.trace(nn.Dense(3, 3), Doubled(3.0))
        assert trace.wrong == ["dz2", "dW2", "db2", "du1", "dz1", "dW1", "db1", "dx"]

    def test_the_page_shows_branches(self) -> None:
        trace = self.trace(nn.Dense(3, 3), nn.Tanh())
        data = page_data(trace)
        assert [column["names"] for column in data["columns"]] == [["x"], ["z1", "u1", "r2"], ["z2", "a2"], ["z3"]]
        assert [(edge["W"], edge["from"], edge["to"]) for edge in data["edges"]] == [
            ("W1", 0, 1),
            ("W2", 1, 2),
            ("W3", 1, 3),
        ]
        assert all("rows" in data["paths"][name] for name in ("W1", "b1", "W2", "b2", "W3"))

    def test_several_inputs(self) -> None:
        rng = np.random.default_rng(0)
        net = nn.Sequential([nn.Parallel([nn.Dense(2, 1), nn.Identity()]), nn.Dense(3, 1)], rng=rng)
        trace = nn.trace(
            net, nn.HalfSquaredError(), (rng.normal(size=(3, 2)), rng.normal(size=(3, 2))), rng.normal(size=3)
        )
        assert trace.ok and trace.inputs == ("x1", "x2") and "dx2" in trace
        assert trace.to_text() and trace.to_latex() and trace.to_html(n_steps=2)
        with pytest.raises(ValueError, match="x must be a tuple of 2 parts"):
            nn.trace(net, nn.HalfSquaredError(), rng.normal(size=(3, 2)), rng.normal(size=3))
        both = nn.Sequential([nn.Concatenate([copy.deepcopy(net), copy.deepcopy(net)])], rng=None)
        with pytest.raises(ValueError, match="a tuple x where Parallel takes it"):
            nn.trace(both, nn.HalfSquaredError(), (np.ones((1, 2)), np.ones((1, 2))), np.ones((1, 2)))


class TestSubclasses:
    """What a subclass computes is its own: nothing false is said of it."""

    def trace(self, layer: nn.Layer) -> nn.Trace:
        rng = np.random.default_rng(0)
        net = nn.Sequential([nn.Dense(2, 2), layer, nn.Dense(2, 1)], rng=rng)
        return nn.trace(net, nn.HalfSquaredError(), rng.normal(size=(3, 2)), rng.normal(size=3), nn.SGD(0.1))

    def test_a_dense_that_computes_something_else(self) -> None:
        class Twice(nn.Dense):
            def forward(self, x: Any, rng: Any = None) -> Any:
                y, cache = super().forward(x, rng)
                return 2 * y, cache

            def backward(self, dy: Any, cache: Any) -> Any:
                return super().backward(2 * dy, cache)

        text = self.trace(Twice(2, 2)).to_text()
        assert "Twice(z₁)" in text and "z₁ W₂" not in text and "dW₂ from Twice.backward" in text

    @pytest.mark.parametrize("base", [nn.LayerNorm, nn.Dropout])
    def test_a_backward_that_is_wrong(self, base: Any) -> None:
        class Wrong(base):  # type: ignore[misc]
            def backward(self, dy: Any, cache: Any) -> Any:
                dx, grads = super().backward(dy, cache)
                return 3 * dx, grads

        trace = self.trace(Wrong(2) if base is nn.LayerNorm else Wrong(0.5))
        assert trace.wrong and trace.to_text() and trace.to_latex()

    def test_composites(self) -> None:
        class Renamed(nn.Residual):
            pass

        class Own(nn.Residual):
            def forward(self, x: Any, rng: Any = None) -> Any:
                y, cache = super().forward(x, rng)
                return 2 * y, cache

            def backward(self, dy: Any, cache: Any) -> Any:
                return super().backward(2 * dy, cache)

        class Half(nn.Residual):
            def _forward(self, x: Any, run: Any) -> Any:
                y, cache = run(0, x)
                return x + y / 2, cache

            def _backward(self, dy: Any, cache: Any, run: Any, needs_dx: bool) -> Any:
                return dy + run(0, dy / 2, cache, True)

        renamed = self.trace(Renamed(nn.Dense(2, 2)))
        assert renamed.ok and "r2" in renamed
        for kind in (Own, Half):
            trace = self.trace(kind(nn.Dense(2, 2)))
            assert trace.ok and trace.to_text() and trace.to_latex() and trace.to_html(n_steps=2)

    def test_a_formula_that_is_not_what_it_computes(self) -> None:
        class Lies(nn.Tanh):
            formula = {"y": "x", "slope": "1"}

        text = self.trace(Lies()).to_text()
        assert "not what its formula gives" in text and "keeps its digits" not in text
        saturated = nn.Sequential([nn.Tanh()], rng=None)
        text = nn.trace(saturated, nn.HalfSquaredError(), [[30.0]], [0.0]).to_text()
        assert "keeps its digits" in text and "not what its formula" not in text

    def test_the_page_of_every_loss(self) -> None:
        for loss in (nn.Huber(0.5), *(cls() for cls in nn.losses.LOSSES)):
            net = nn.Sequential([nn.Dense(2, 2), nn.Sigmoid()], rng=np.random.default_rng(0))
            y: Any = [1] if isinstance(loss, nn.SoftmaxCrossEntropy) else [[0.5, 1.0]]
            trace = nn.trace(net, loss, [[1.0, 2.0]], y, nn.SGD(0.1))
            assert trace.ok and assert_equalities(trace) and trace.to_html(n_steps=2)


# -- sequences


SEQUENCES = np.array([0, 2, 2, 5])


def over_time(rng: np.random.Generator) -> tuple[nn.Sequential, nn.Ragged]:
    inside = nn.Residual([nn.LayerNorm(2), nn.SelfAttention(2, 1)])
    layers = [nn.Embedding(6, 2), nn.PositionalEmbedding(4, 2), inside, nn.GRU(2, 2), nn.Dense(2, 1)]
    return nn.Sequential(layers, rng=rng), nn.Ragged(rng.integers(0, 6, 5), SEQUENCES)


@pytest.mark.parametrize("weighted", [False, True])
def test_sequences_are_shown_event_by_event(weighted: bool, rng: np.random.Generator) -> None:
    net, x = over_time(rng)
    y, loss = nn.Ragged(rng.integers(0, 2, 5), SEQUENCES), nn.SigmoidCrossEntropy()
    w = np.array([1.0, 2.0, 3.0]) if weighted else None
    step = nn.trace(net, loss, x, y, nn.SGD(0.1), l2=0.1, sample_weight=w)
    assert step.ok
    value, grads = nn.objective(net, loss, x, y, l2=0.1, sample_weight=w)
    assert step["J"].value == pytest.approx(value, rel=1e-14)
    for name, q in ((q.parameter, q) for q in step.values() if q.role == "gradient" and q.parameter):
        np.testing.assert_allclose(q.value, grads[name], rtol=1e-13, atol=1e-16)
        assert q.check is not None and q.check.digits[np.abs(q.value) > 1e-12].min() > 9, name
    assert step["x"].axes == ("events",) and step["l"].value.shape == (5,)
    for text in (step.to_text(), step.to_markdown(), step.to_html()):
        assert "events of 3 sequences, of lengths 2, 0, 3" in text
    assert "tanh(a_n + r u_n)" in step["a5"].formula_text and r"\tanh(a_n" in step.to_latex()


def test_the_formula_says_whether_later_events_are_seen(rng: np.random.Generator) -> None:
    x = nn.Ragged(rng.normal(size=(5, 2)), SEQUENCES)
    for causal, window, sums in ((True, "s = (k − K + 1) d", "s ≤ t"), (False, "s = (k − (K − 1) / 2) d", "all s")):
        for layer, wanted in (
            (nn.Conv1D(2, 2, 3, causal=causal), window),
            (nn.SelfAttention(2, 1, causal=causal), sums),
        ):
            net = nn.Sequential([layer], rng=rng)
            step = nn.trace(net, nn.HalfSquaredError(), x, nn.Ragged(rng.normal(size=(5, 2)), SEQUENCES))
            y = next(q for q in step.quantities.values() if q.formula.equation in ("50", "64"))
            assert wanted in y.formula_text
            assert step["dW1"].formula.equation == ("51, 52" if isinstance(layer, nn.Conv1D) else "67, 68")
            if isinstance(layer, nn.Conv1D):  # what the formula says is what was computed
                W, s = layer.params["W"], np.arange(3) - (2 if causal else 1)
                for t in range(3):
                    inside = [k for k in range(3) if 0 <= t + s[k] < 3]
                    np.testing.assert_allclose(y.value[2 + t], sum(x[2][t + s[k]] @ W[k] for k in inside), rtol=1e-12)


def test_pooled_sequences_and_ties_are_traced(rng: np.random.Generator) -> None:
    pools = nn.Concatenate([nn.LastEvent(), nn.MeanOverEvents(), nn.MaxOverEvents()])
    net = nn.Sequential([nn.Dense(2, 3), nn.Tanh(), nn.LSTM(3, 2), nn.Conv1D(2, 2, 2), pools, nn.Dense(6, 1)], rng=rng)
    x = nn.Ragged(rng.normal(size=(5, 2)), SEQUENCES)
    step = nn.trace(net, nn.HalfSquaredError(), x, rng.normal(size=3), nn.Adam(0.1), sample_weight=[1, 2, 3.0])
    assert step.ok and step["dx"].value.shape == (5, 2) and step["t"].axes[0] == "samples"
    tied = nn.Sequential([nn.Tied(nn.Embedding(6, 2), [nn.RNN(2, 2)])], rng=rng)
    ids = nn.Ragged(rng.integers(0, 6, 5), SEQUENCES)
    assert nn.trace(tied, nn.SoftmaxCrossEntropy(), ids, ids).ok
    with pytest.raises(ValueError, match="y is a Ragged, with a target for each event"):
        nn.trace(net, nn.HalfSquaredError(), x, nn.Ragged(np.zeros(5), SEQUENCES))
    rows = nn.Sequential([nn.Dense(2, 1)], rng=rng)
    step = nn.trace(rows, nn.HalfSquaredError(), x, nn.Ragged(rng.normal(size=5), SEQUENCES))
    assert step["z1"].formula.element is not None  # a layer of rows has its formulas on events too
    paths = step.paths("W1", (0, 0))
    assert sum(path.contribution for path in paths) == pytest.approx(float(step["dW1"].value[0, 0]), rel=1e-12)
