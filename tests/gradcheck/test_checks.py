"""The gradient checker passes what is right, catches what is wrong, says why, and leaves everything as it found it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import warnings
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn
from nnprofile import gradcheck as gc
from tests.gradcheck import specimens
from tests.gradcheck.corpus import BUGS, TRAPS, Case
from tests.gradcheck.exam import exam, run

SEEDS = st.integers(0, 2**32 - 1)
x4 = np.random.default_rng(3).normal(size=4)


def kinds(report: nn.GradCheckReport) -> list[str]:
    return [f.kind for f in report.errors]


# -- the exam

UNNAMED = {
    "gradient(x, t) without the last row",  # of a value that is one number, no row's share is known
    "RNN on sequences: tanh of da",  # not linear in dy, which is said as well
    "PositionalEmbedding on sequences: dx of E",
    "PositionalEmbedding on sequences: from the end",
    "SelfAttention on sequences: heads not moved",
}


@pytest.mark.parametrize("case", BUGS, ids=lambda case: case.name)
def test_bugs_are_found_located_and_named(case: Case) -> None:
    outcome = run(case, 0, 0)
    assert outcome.detected
    assert outcome.right_layer, str(outcome.report)
    assert outcome.diagnosed or case.name in UNNAMED, str(outcome.report)
    assert all(f.kind in gc.KINDS for f in outcome.report.findings)


@pytest.mark.parametrize("case", TRAPS, ids=lambda case: case.name)
def test_right_code_is_not_accused(case: Case) -> None:
    for size in (0, 1):
        outcome = run(case, 0, size)
        assert outcome.report.ok, str(outcome.report)
        assert all(row.verdict != "unclear" for row in outcome.report.rows), str(outcome.report)


@pytest.mark.slow
def test_the_exam_with_other_numbers() -> None:
    result = exam(n_seeds=2, sizes=(0, 2))
    assert result.ok, str(result)
    assert result.detection == 1 and result.false_alarms == 0


def test_every_kind_is_explained() -> None:
    used = {kind for case in BUGS for kind in case.kinds}
    assert used <= set(gc.KINDS)
    page = (Path(__file__).parents[2] / "docs" / "kinds.md").read_text("utf-8")
    assert page == "| kind | meaning |\n|---|---|\n" + "".join(f"| `{k}` | {v} |\n" for k, v in gc.KINDS.items())


# -- published: deeplearning.ai, "Gradient checking": dW2 and db1 have bugs


def coursera() -> tuple[Any, Any, Any, dict[str, np.ndarray]]:
    draw = np.random.RandomState(1)
    x, y = draw.randn(4, 3), np.array([1, 1, 0])
    shapes = {"W1": (5, 4), "b1": (5, 1), "W2": (3, 5), "b2": (3, 1), "W3": (1, 3), "b3": (1, 1)}
    params = {name: draw.randn(*shape) for name, shape in shapes.items()}

    def forward(p: dict[str, np.ndarray]) -> Any:
        a1 = (z1 := p["W1"] @ x + p["b1"]) * (z1.real > 0)
        a2 = (z2 := p["W2"] @ a1 + p["b2"]) * (z2.real > 0)
        a3 = 1 / (1 + np.exp(-(p["W3"] @ a2 + p["b3"])))
        return -(np.log(a3) * y + np.log(1 - a3) * (1 - y)).sum() / 3, (a1, a2, a3)

    def gradient(p: dict[str, np.ndarray], two: float, four: float) -> dict[str, np.ndarray]:
        a1, a2, a3 = forward(p)[1]
        d3 = (a3 - y) / 3
        d2 = p["W3"].T @ d3 * (a2 > 0)
        d1 = p["W2"].T @ d2 * (a1 > 0)
        return {
            "W1": d1 @ x.T,
            "b1": four * d1.sum(axis=1, keepdims=True),
            "W2": two * d2 @ a1.T,
            "b2": d2.sum(axis=1, keepdims=True),
            "W3": d3 @ a2.T,
            "b3": d3.sum(axis=1, keepdims=True),
        }

    return lambda p: forward(p)[0], lambda p: gradient(p, 2, 4), lambda p: gradient(p, 1, 1), params


def test_the_published_bugs_are_named() -> None:
    f, wrong, right, params = coursera()
    assert nn.check_function(f, right, params).ok
    report = nn.check_function(f, wrong, params)
    messages = {f.tensor: f.message for f in report.errors}
    assert set(messages) == {"W2", "b1"}
    assert "2 times" in messages["W2"] and "factor 2" in messages["W2"]
    assert "4 times" in messages["b1"] and "factor 4" in messages["b1"]


def test_no_choice_of_directions_accuses_the_right_one() -> None:
    """Its 1 - a, with a nearly 1, loses digits that no shaking of last bits shows."""
    f, _, right, params = coursera()
    assert all(nn.check_function(f, right, params, seed=seed) for seed in range(60, 80))


def test_the_published_difference() -> None:
    _, wrong, right, params = coursera()
    reference = np.concatenate([np.ravel(v) for v in right(params).values()])
    for grad, published in ((wrong, 0.2850931567761623), (right, 1.1890913024229996e-07)):
        mine = np.concatenate([np.ravel(v) for v in grad(params).values()])
        difference = np.linalg.norm(mine - reference) / (np.linalg.norm(mine) + np.linalg.norm(reference))
        # theirs has the rounding of differences with a step of 1e-7 in it
        assert abs(difference - published) < 2e-7


# -- functions


def test_several_arguments_nested_ones_and_constants() -> None:
    rng = np.random.default_rng(0)
    Point = namedtuple("Point", "W b")
    params = {"first": Point(rng.normal(size=(3, 4)), rng.normal(size=4)), "rest": [rng.normal(size=(4, 2)), 0.5]}
    x, labels = rng.normal(size=(5, 3)), rng.integers(0, 2, 5)

    def f(x: Any, labels: Any, params: Any) -> Any:
        a = np.tanh(x @ params["first"].W + params["first"].b)
        return (a @ params["rest"][0])[np.arange(5), labels].sum() * params["rest"][1]

    def grad(x: Any, labels: Any, params: Any) -> Any:
        a = np.tanh(x @ params["first"].W + params["first"].b)
        W, scale = params["rest"]
        out = a @ W
        d = np.zeros_like(out)
        d[np.arange(5), labels] = scale
        dz = d @ W.T * (1 - a * a)
        inner = {"first": Point(x.T @ dz, dz.sum(axis=0)), "rest": [a.T @ d, out[np.arange(5), labels].sum()]}
        return dz @ params["first"].W.T, inner

    report = nn.check_function(f, grad, x, labels, params)
    report.raise_if_failed()
    names = [row.tensor for row in report.rows]
    assert names == ["x", "params.first.W", "params.first.b", "params.rest.0", "params.rest.1"]
    assert nn.check_function(f, lambda *a: (grad(*a)[0], None, grad(*a)[1]), x, labels, params).ok
    assert nn.check_function(
        f, lambda *a: dict(zip(("x", "params"), grad(*a), strict=True)) | {"labels": None}, x, labels, params
    ).ok

    def wrong(*args: Any) -> Any:
        dx, inner = grad(*args)
        return dx, {**inner, "rest": [inner["rest"][0] * 3, inner["rest"][1]]}

    assert [f.tensor for f in nn.check_function(f, wrong, x, labels, params).errors] == ["params.rest.0"]


@pytest.mark.parametrize("first", [True, False])
def test_the_cotangent_comes_first_or_last(first: bool) -> None:
    x, w = np.random.default_rng(1).normal(size=(2, 3, 3))

    def named_first(dy: Any, x: Any, w: Any) -> Any:
        return dy @ w.T, x.T @ dy

    def named_last(x: Any, w: Any, dy: Any) -> Any:
        return dy @ w.T, x.T @ dy

    def unnamed(*args: Any) -> Any:
        return named_first(*args) if first else named_last(*args)

    assert nn.check_function(lambda x, w: x @ w, named_first if first else named_last, x, w).ok
    assert nn.check_function(lambda x, w: x @ w, unnamed, x, w).ok
    report = nn.check_function(lambda x, w: x @ w, lambda *args: unnamed(*args)[::-1], x, w)
    assert not report.ok


def test_a_gradient_of_none_claims_nothing_unless_it_is_the_only_one() -> None:
    assert nn.check_function(lambda x, y: x @ y, lambda x, y: (y, None), x4, x4 + 1).ok

    class Silent(nn.MeanSquaredError):
        def backward(self, cache: Any) -> Any:
            return None

    assert kinds(nn.check_loss(Silent(), x4[:, None], x4[:, None] + 1)) == ["missing"]
    assert kinds(nn.check_function(lambda x: x @ x, lambda x: None, x4)) == ["missing"]


def test_gradients_that_are_missing_or_too_many() -> None:
    f = lambda x, y: x @ y  # noqa: E731
    assert kinds(nn.check_function(f, lambda x, y: (y,), x4, x4 + 1)) == ["missing"]
    assert kinds(nn.check_function(f, lambda x, y: (y, x, 0), x4, x4 + 1)) == ["unexpected"]
    assert kinds(nn.check_function(lambda p: p["a"] @ p["b"], lambda p: {"a": p["b"]}, {"a": x4, "b": x4})) == [
        "missing"
    ]


@pytest.mark.parametrize("name", ["v", "g", "delta", "dy"])
def test_an_argument_of_the_gradient_may_be_called_anything(name: str) -> None:
    grad = eval(f"lambda {name}: 2 * {name}")
    assert nn.check_function(lambda x: (x * x).sum(), grad, x4).ok


def test_a_list_of_numbers_may_have_an_array_as_its_gradient() -> None:
    f, right = (lambda x: x[0] ** 2 + x[1] ** 3), [1.0, 2.0]
    assert nn.check_function(f, lambda x: np.array([2 * x[0], 3 * x[1] ** 2]), right).ok
    assert not nn.check_function(f, lambda x: np.array([2 * x[0], 3 * x[1]]), right).ok


def test_constants_that_are_overwritten() -> None:
    class Spoils(nn.MeanSquaredError):
        def forward(self, y_pred: Any, y_true: Any, sample_weight: Any = None) -> Any:
            y_true *= 0.5
            return super().forward(y_pred, y_true)

    t = x4[:, None].copy()
    report = nn.check_loss(Spoils(), t + 1, t)
    assert kinds(report) == ["mutation"] and "y_true" in report.errors[0].message and (t[:, 0] == x4).all()
    labels, table = np.array([0, 1, 1]), np.random.default_rng(0).normal(size=(3, 2))

    class Empties(specimens.Embedding):
        def backward(self, dy: Any, cache: Any) -> Any:
            out = super().backward(dy, cache)
            cache[:] = 0
            return out

    report = nn.check_layer(Empties(E=table), labels)
    assert "mutation" in kinds(report) and labels.tolist() == [0, 1, 1]


def test_values_that_are_rounded_coarsely_are_unclear() -> None:
    for digits in (2, 3, 6):
        report = nn.check_function(lambda x, d=digits: float(np.round((x * x).sum(), d)), lambda x: 2 * x, x4)
        assert report.ok and "unclear" in str(report)


def test_several_outputs() -> None:
    def f(x: Any) -> Any:
        return {"a": x[0] * x, "b": [x.sum(), 3]}

    def backward(dy: Any, x: Any) -> Any:
        dx = dy["a"] * x[0] + dy["b"][0]
        dx[0] += (dy["a"] * x).sum()
        return dx

    assert nn.check_function(f, backward, np.arange(1.0, 5.0)).ok


def test_numbers_and_arrays_without_axes() -> None:
    assert nn.check_function(lambda x, y: x * y**2, lambda x, y: (y**2, 2 * x * y), 3.0, np.float64(2)).ok
    assert nn.check_function(lambda x: x**2, lambda x: 2 * x, np.array(3.0)).ok
    assert not nn.check_function(lambda x: x**2, lambda x: x, np.array(3.0)).ok
    assert nn.check_function(lambda x: x.sum(), lambda x: np.ones_like(x), np.zeros((0, 3))).ok


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: nn.check_function(lambda x: x.sum(), lambda x: x, np.arange(3)), "nothing to differentiate"),
        (lambda: nn.check_function(lambda x: x, lambda x, y, z: x, np.ones(3)), "must take a cotangent"),
        (lambda: nn.check_function(lambda x: x.sum() * np.inf, lambda x: x, np.ones(3)), "inf or nan"),
        (lambda: nn.check_function(1, lambda x: x, np.ones(3)), "two functions"),
        (lambda: nn.check_function(np.sum, lambda x: x, np.ones(3), seed=-1), "seed must be"),
        (lambda: nn.check_layer(object(), np.ones(3)), "must have a method forward"),
        (lambda: nn.check_layer(nn.ReLU, np.ones((3, 3))), "is a class"),
        (lambda: nn.check_layer(nn.ReLU(), np.ones((3, 3)), rng=np.random.RandomState(0)), "numpy.random.Generator"),
        (lambda: nn.check_layer(specimens.Affine(W=3.0, b=x4), np.ones((3, 3))), "make it an array"),  # type: ignore[arg-type]
        (lambda: nn.check_layer(specimens.Affine(W=x4, b=x4), np.ones((3, 3))), "are the same array"),
        (lambda: nn.check_network(nn.ReLU(), object(), x4, x4), "must have a method forward"),
        (lambda: nn.check_step(nn.ReLU(), nn.MeanSquaredError(), nn.SGD(1), x4, x4, l2=-1.0), "l2 must be"),
        (lambda: nn.check_network(nn.ReLU(), nn.MeanSquaredError(), x4, x4, l2="a"), "l2 must be"),  # type: ignore[arg-type]
        (lambda: nn.check_layer(nn.ReLU(), ["a"]), "real numbers"),
        (lambda: nn.check_loss(nn.MeanSquaredError(), [1, 2], [1, 2]), "array of floats"),
        (lambda: nn.check_layer(nn.Dense(3, 2), np.ones((4, 3))), "has no values"),
        (lambda: nn.check_step(nn.Dense(1, 1), nn.MeanSquaredError(), 3, [[1.0]], [[1.0]]), "method step"),
    ],
)  # fmt: skip
def test_bad_input_gets_a_clear_error(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


class OldStyle(nn.ReLU):
    def forward(self, x: Any, rng: Any = None) -> Any:
        return super().forward(x)[0]


def test_a_layer_of_the_old_style_is_told_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"(?s)must return \(y, cache\).*check_function"):
        nn.check_layer(OldStyle(), np.ones((2, 2)))


def test_a_layer_that_keeps_its_cache_can_be_checked_as_functions() -> None:
    class Square:
        def forward(self, x: Any) -> Any:
            self.x = x
            return x * x

        def backward(self, dy: Any) -> Any:
            return 2 * self.x * dy

    layer = Square()
    x = np.array([1.0, -2.0, 3.0])
    for report, kind in (
        (nn.check_function(layer.forward, layer.backward, x), "layout"),
        (nn.check_function(layer.forward, lambda dy, x: layer.backward(dy), x), "stale-cache"),
    ):
        assert report.ok, str(report)
        assert [f.kind for f in report.notes] == [kind]
    assert not hasattr(layer, "x")


# -- the reference: complex step, its guard, and what stands in for it


@pytest.mark.parametrize(
    ("f", "grad"),
    [
        (lambda x: np.abs(x).sum(), np.sign),
        (lambda x: np.linalg.norm(x), lambda x: x / np.linalg.norm(x)),
        (lambda x: x.var(), lambda x: 2 * (x - x.mean()) / 4),
        (lambda x: x.std() + (x**2).sum(), lambda x: (x - x.mean()) / 4 / x.std() + 2 * x),
        (lambda x: (np.sign(x) * x).sum(), np.sign),
        (lambda x: np.vdot(x, x), lambda x: 2 * x),
        (lambda x: (x.conj() * x).sum(), lambda x: 2 * x),
        (lambda x: float((x**2).sum()), lambda x: 2 * x),
        (lambda x: np.array([v**2 for v in x.astype(float)]).sum(), lambda x: 2 * x),
        (lambda x: np.logaddexp(x, 0).sum(), lambda x: 1 / (1 + np.exp(-x))),
        (lambda x: (x**2).sum() + 1e-7 * np.abs(x).sum(), lambda x: 2 * x + 1e-7 * np.sign(x)),
        (lambda x: np.heaviside(x, 0.5) @ x, lambda x: np.heaviside(x, 0.5)),
    ],
)
def test_code_that_complex_numbers_lie_in_is_judged_by_differences(f: Any, grad: Any) -> None:
    report = nn.check_function(f, grad, x4)
    report.raise_if_failed()
    (row,) = report.rows
    assert row.method == "differences" and row.reason and row.accuracy < 1e-9
    assert row.reason in str(report)
    assert not nn.check_function(f, lambda x: grad(x) * (1 + 1e-6), x4).ok


def test_the_fallback_is_chosen_tensor_by_tensor() -> None:
    report = nn.check_function(
        lambda x, y: np.abs(x) @ y, lambda x, y: (np.sign(x) * y, np.abs(x)), x4, x4[::-1].copy()
    )
    report.raise_if_failed()
    assert [row.method for row in report.rows] == ["differences", "complex step"]


def test_a_step_never_leaves_the_domain() -> None:
    x = np.array([1e-9, 0.5, 1 - 1e-9])

    def f(x: Any) -> Any:
        if (x.real < 0).any() or (x.real > 1).any():
            raise ValueError("outside")
        return np.sqrt(x).sum() + np.sqrt(1 - x).sum()

    assert nn.check_function(f, lambda x: 0.5 / np.sqrt(x) - 0.5 / np.sqrt(1 - x), x).ok


# -- kinks


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("complex_step", [True, False])
def test_any_subgradient_passes_and_is_reported_as_such(slope: float, complex_step: bool) -> None:
    x = np.array([0.0, 1.0, -2.0, 0.0])
    f = (lambda x: (x * (x.real > 0)).sum()) if complex_step else (lambda x: np.abs(x).sum() / 2 + x.real.sum() / 2)
    report = nn.check_function(f, lambda x: np.where(x == 0, slope, (x > 0) * 1.0), x)
    assert report.ok, str(report)
    if slope == 0.3:
        assert report.rows[0].verdict == "subgradient"
        assert [f.kind for f in report.notes] == ["kink"]
    assert not nn.check_function(f, lambda x: np.where(x == 0, 1.5, (x > 0) * 1.0), x).ok
    assert not nn.check_function(f, lambda x: np.where(x == 0, -0.2, (x > 0) * 1.0), x).ok


@pytest.mark.parametrize("factor", [0.5, 1.0, -3.0, 17.0])
def test_at_a_tie_not_any_multiple_passes(factor: float) -> None:
    def grad(x: Any) -> Any:
        return factor * (x == x.max()) / (x == x.max()).sum()

    report = nn.check_function(lambda x: x.max(), grad, np.array([1.0, 1.0, 0.0]))
    assert report.ok == (0 <= factor <= 2), str(report)
    assert report.rows[0].certificate < 1e-6


def test_a_kink_near_by_is_no_excuse_and_no_trap() -> None:
    x = np.array([1e-9, -1e-9, 1e-15, 1.0])
    f, right = (lambda x: (x * (x.real > 0)).sum()), (x > 0) * 1.0
    assert nn.check_function(f, lambda x: right, x).rows[0].verdict == "right"
    assert not nn.check_function(f, lambda x: np.array([0.0, 0, 1, 1]), x).ok


def test_kinks_in_a_large_tensor() -> None:
    x = np.random.default_rng(0).normal(size=5000)
    x[[3, 4000]] = 0
    report = nn.check_function(lambda x: (x * (x.real > 0)).sum(), lambda x: np.where(x == 0, 0.5, (x > 0) * 1.0), x)
    assert report.ok
    assert report.rows[0].verdict == "subgradient"


# -- large tensors


def test_one_wrong_element_of_half_a_million_is_found() -> None:
    x = np.random.default_rng(0).normal(size=(500, 1000))

    def grad(x: Any) -> Any:
        g = 2 * x
        g[123, 456] *= 1 + 1e-6
        return g

    report = nn.check_function(lambda x: (x * x).sum(), grad, x)
    assert report.rows[0].worst[0].index == (123, 456)
    assert "123, 456" in str(report)
    assert report.n_forward < 250
    assert nn.check_function(lambda x: (x * x).sum(), lambda x: 2 * x, x).rows[0].checked == "8 directions"


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (lambda g, x: 2 * g, "scale"),
        (lambda g, x: g.T, "transpose"),
        (lambda g, x: g + 0.1 * x, "weight-decay"),
        (lambda g, x: 0 * g, "zero"),
    ],
)
def test_a_large_tensor_is_diagnosed_from_a_sample(wrong: Any, kind: str) -> None:
    rng = np.random.default_rng(0)
    a, x = rng.normal(size=(100, 100)), rng.normal(size=(100, 100))
    assert kinds(nn.check_function(lambda x: (a * x**2).sum(), lambda x: wrong(2 * a * x, x), x)) == [kind]


@given(seed=SEEDS, n=st.sampled_from([10, 3000]))
def test_the_certificate_holds(seed: int, n: int) -> None:
    """An error of the size that it states is found, wherever it lies."""
    rng = np.random.default_rng(seed)
    x, e = rng.normal(size=n), rng.normal(size=n)
    f = lambda x: (np.exp(x / 3) * x).sum()  # noqa: E731
    right = lambda x: np.exp(x / 3) * (1 + x / 3)  # noqa: E731
    report = nn.check_function(f, right, x, seed=seed)
    report.raise_if_failed()
    certificate = report.rows[0].certificate
    assert certificate < 1e-12
    size = 2 * certificate * np.linalg.norm(right(x))
    e *= size / np.linalg.norm(e)
    assert not nn.check_function(f, lambda x: right(x) + e, x, seed=seed + 1).ok


# -- noise


@given(seed=SEEDS, scale=st.sampled_from([1e-8, 1e-3, 1.0, 1e3, 1e8]), n=st.integers(1, 6))
def test_no_scale_is_a_false_alarm_and_none_hides_an_error(seed: int, scale: float, n: int) -> None:
    rng = np.random.default_rng(seed)
    W, x, t = scale * rng.normal(size=(n, n)), rng.normal(size=(3, n)), scale * rng.normal(size=(3, n))
    f = lambda W: ((x @ W - t) ** 2).sum() / 2  # noqa: E731
    nn.check_function(f, lambda W: x.T @ (x @ W - t), W).raise_if_failed()
    assert not nn.check_function(f, lambda W: x.T @ (x @ W - t) * (1 + 1e-9), W).ok


def test_float32_has_a_verdict_of_its_own() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 3)).astype(np.float32)
    report = nn.check_layer(nn.Softmax(), x)
    assert report.ok
    assert [row.tensor for row in report.rows] == ["x", "x (float32)"]
    assert report.rows[1].method == "the same code in float64"

    class OnlyInFloat32(nn.Dense):
        def backward(self, dy: Any, cache: Any) -> Any:
            dx, grads = super().backward(dy, cache)
            grads["W"] *= 1.001 if dy.dtype == np.float32 else 1
            return dx, grads

    net = nn.Sequential([OnlyInFloat32(3, 2)], rng=rng, dtype=np.float32)
    report = nn.check_layer(net, x)
    assert kinds(report) == ["float32"] and report.errors[0].tensor == "0.W"
    assert "right in float64" in report.errors[0].message


def test_float32_that_overflows() -> None:
    x = np.array([[95.0, 1.0]], np.float32)  # exp(95) is beyond float32, and no trouble in float64

    class Softplus(nn.Identity):
        def forward(self, x: Any, rng: Any = None) -> Any:
            return np.where(x.real > 50, x, np.log1p(np.exp(np.minimum(x.real, 50)) * np.exp(x - x.real))), x

        def backward(self, dy: Any, cache: Any) -> Any:
            return dy * np.exp(cache) / (1 + np.exp(cache)), nn.Parameters({})

    assert kinds(nn.check_layer(Softplus(), x)) == ["float32"]


# -- layers of others


class Hidden:
    """Keeps its weights as attributes, and shows them by a property."""

    def __init__(self, *, views: bool = False) -> None:
        rng = np.random.default_rng(0)
        if views:
            self.flat = rng.normal(size=8)
        else:
            self.W, self.b = rng.normal(size=(3, 2)), rng.normal(size=2)

    def parts(self) -> Any:
        return (self.flat[:6].reshape(3, 2), self.flat[6:]) if hasattr(self, "flat") else (self.W, self.b)

    @property
    def params(self) -> Any:
        W, b = self.parts()
        return {"W": W, "b": b}

    def forward(self, x: Any) -> Any:
        W, b = self.parts()
        return x @ W + b, x

    def backward(self, dy: Any, x: Any) -> Any:
        return dy @ self.parts()[0].T, {"W": x.T @ dy, "b": dy.sum(axis=0)}


@pytest.mark.parametrize("views", [False, True])
def test_parameters_may_live_anywhere(views: bool) -> None:
    layer, x = Hidden(views=views), np.random.default_rng(1).normal(size=(4, 3))
    report = nn.check_layer(layer, x)
    report.raise_if_failed()
    assert [row.method for row in report.rows] == ["complex step", *["differences" if views else "complex step"] * 2]
    assert all(row.accuracy < 1e-9 for row in report.rows)
    layer.backward = lambda dy, x: (dy @ layer.parts()[0].T, {"W": 2 * x.T @ dy, "b": dy.sum(axis=0)})  # type: ignore[method-assign]
    assert kinds(nn.check_layer(layer, x)) == ["scale"]


def test_integers_are_looked_up() -> None:
    rng = np.random.default_rng(0)
    report = nn.check_layer(specimens.Embedding(E=rng.normal(size=(5, 3))), np.array([0, 3, 3]))
    assert report.ok and [row.tensor for row in report.rows] == ["E"]


def test_integers_where_floats_are_meant_do_not_pass_in_silence() -> None:
    with pytest.raises(ValueError, match="nothing to check: give floats"):
        nn.check_layer(nn.Tanh(), [[1, 2]])
    report = nn.check_layer(nn.Dense(2, 1, rng=np.random.default_rng(0)), [[1, 2]])
    assert report.ok and [f.kind for f in report.notes] == ["integers"]
    assert nn.check_layer(specimens.Embedding(E=np.ones((5, 3))), np.array([0, 3])).notes == []


def test_a_generator_of_ones_own_is_frozen() -> None:
    class Noise(specimens.Plain):
        rng = np.random.default_rng(5)

        def __init__(self, bug: str = "") -> None:
            super().__init__(bug)
            self.own = np.random.default_rng(5)

        def forward(self, x: Any) -> Any:
            mask = self.own.random(x.shape) > 0.5 if self.bug != "global" else np.random.random(x.shape) > 0.5  # noqa: NPY002
            return x * mask, mask

        def backward(self, dy: Any, mask: Any) -> Any:
            return dy * (self.own.random(dy.shape) > 0.5 if self.bug == "again" else mask), {}

    x = np.random.default_rng(0).normal(size=(5, 4))
    layer = Noise()
    before = layer.own.bit_generator.state
    nn.check_layer(layer, x).raise_if_failed()
    assert layer.own.bit_generator.state == before
    nn.check_layer(Noise("global"), x).raise_if_failed()
    assert "mask" in kinds(nn.check_layer(Noise("again"), x))


def test_chance_that_cannot_be_frozen_is_reported() -> None:
    class Chaos(specimens.Plain):
        def forward(self, x: Any) -> Any:
            mask = np.random.default_rng().random(x.shape)
            return x * mask, mask

        def backward(self, dy: Any, mask: Any) -> Any:
            return dy * mask, {}

    assert kinds(nn.check_layer(Chaos(), np.ones((3, 2)))) == ["nondeterministic"]


class Broken(nn.Dense):
    """A layer that breaks one contract, ``how``."""

    how = ""

    def forward(self, x: Any, rng: Any = None) -> Any:
        y, _ = super().forward(x)
        cache = x.copy()
        return (y, (cache, y)) if self.how == "shares y" else (y, cache)

    def backward(self, dy: Any, cache: Any) -> Any:
        if self.how == "shares y":
            cache, y = cache
            dx, grads = super().backward(dy, cache)
            return dx + 0 * y if np.isfinite(y).all() and abs(y).max() < 6.9 else 2 * dx, grads
        if self.how == "read-only":
            dy += 0.0
        if self.how == "flat":
            dy = (
                dy.T.ravel(order="K").reshape(self.out_features, -1).T
                if dy.flags.c_contiguous
                else dy.ravel(order="K").reshape(dy.shape)
            )
        if self.how == "clips":
            dy = np.clip(dy, -5, 5)
        if self.how == "bias":
            dx, grads = super().backward(dy, cache)
            return dx + 0.1, grads
        dx, grads = super().backward(dy, cache)
        if self.how == "used up":
            cache[...] = 0
        if self.how == "popped":
            cache.resize((0, 0), refcheck=False)
        if self.how == "one row" and len(dy) == 1:
            grads["W"] *= 2
        if self.how == "single":
            return dx.astype(np.float32), grads
        if self.how == "raises":
            raise KeyError("nothing")
        return dx, grads


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("read-only", "mutation"),
        ("flat", "memory-layout"),
        ("clips", "nonlinear"),
        ("bias", "nonlinear"),
        ("used up", "backward-twice"),
        ("popped", "backward-twice"),
        ("one row", "batch"),
        ("single", "float32"),
        ("raises", "raises"),
    ],
)
def test_broken_contracts(how: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    layer = Broken(3, 2, rng=rng)
    assert nn.check_layer(layer, rng.normal(size=(4, 3))).ok
    layer.how = how
    assert kind in kinds(nn.check_layer(layer, rng.normal(size=(4, 3))))


def test_a_cache_that_is_the_output_is_worth_a_note() -> None:
    report = nn.check_layer(specimens.Act("tanh"), x4[None])
    assert report.ok and [f.kind for f in report.notes] == ["shared-output"]
    assert nn.check_layer(nn.Tanh(), x4[None]).notes == []


def test_networks_that_are_not_layers_in_a_row() -> None:
    rng = np.random.default_rng(0)

    class Sizes(specimens.Affine):
        layers = [3, 2]

    class Skip(specimens.Residual):
        def __init__(self) -> None:
            super().__init__(W=rng.normal(size=(3, 3)))
            self.layers = [nn.Tanh(), nn.Tanh()]

    for net in (Sizes(W=rng.normal(size=(3, 3)), b=rng.normal(size=3)), Skip()):
        assert nn.check_network(net, specimens.SquaredError(), rng.normal(size=(5, 3)), rng.normal(size=(5, 3))).ok
        net.bug = "dW transposed"
        assert not nn.check_network(net, specimens.SquaredError(), rng.normal(size=(5, 3)), rng.normal(size=(5, 3))).ok


def test_an_activation_in_place_within_a_network() -> None:
    rng = np.random.default_rng(0)

    class Net:
        params: dict[str, np.ndarray] = {}
        layers = [specimens.Act("tanh"), specimens.Act("relu", "in place")]

        def forward(self, x: Any) -> Any:
            a, first = self.layers[0].forward(x)
            y, second = self.layers[1].forward(a)
            return y, (first, second)

        def backward(self, dy: Any, caches: Any) -> Any:
            return self.layers[0].backward(self.layers[1].backward(dy, caches[1])[0], caches[0])

    report = nn.check_network(Net(), specimens.SquaredError(), rng.normal(size=(5, 3)), rng.normal(size=(5, 3)))
    assert (report.errors[0].layer, report.errors[0].kind) == ("1", "mutation")


# -- nothing is left behind


def test_everything_is_left_as_it_was_found() -> None:
    rng = np.random.default_rng(0)
    net = nn.Sequential([specimens.Keeps(3, 4), nn.Dropout(0.5), specimens.Keeps(4, 2)], rng=rng)
    loss, optimizer = nn.HalfSquaredError(), nn.Adam()
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    before = net.params.vector.copy(), x.copy(), y.copy(), dict(vars(net.layers[0]))
    states = rng.bit_generator.state, np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    filters, errors = list(warnings.filters), np.geterr()
    nn.check_network(net, loss, x, y, rng=rng)
    nn.check_step(net, loss, optimizer, x, y)
    nn.check_layer(net.layers[0], x, rng=rng)
    nn.check_loss(loss, x, x + 1)
    nn.check_function(lambda x: np.random.random() * x.sum(), lambda x: 0 * x + rng.random(), x)  # noqa: NPY002
    after = net.params.vector, x, y
    for a, b in zip(after, before, strict=False):
        np.testing.assert_array_equal(a, b)
    assert vars(net.layers[0]).keys() == before[3].keys()
    assert (rng.bit_generator.state, random.getstate()) == (states[0], states[2])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert optimizer.n_steps == 0 and not optimizer.state
    assert warnings.filters == filters and np.geterr() == errors


# -- networks


def test_the_first_wrong_layer_is_named_in_nested_networks() -> None:
    rng = np.random.default_rng(0)

    class Twice(nn.Tanh):
        def backward(self, dy: Any, cache: Any) -> Any:
            dx, grads = super().backward(dy, cache)
            return 2 * dx, grads

    inner = nn.Sequential([nn.Dense(4, 4), Twice(), nn.Dense(4, 3)], rng=None)
    net = nn.Sequential([nn.Dense(3, 4), nn.Sigmoid(), inner], rng=rng)
    report = nn.check_network(net, nn.HalfSquaredError(), rng.normal(size=(5, 3)), rng.normal(size=(5, 3)))
    assert report.errors[0].layer == "2.1" and report.errors[0].kind == "scale"
    assert "0.W, 0.b, 2.0.W, 2.0.b" in report.errors[0].message


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_networks_of_others(l2: float) -> None:
    rng = np.random.default_rng(0)

    class Net:
        def __init__(self) -> None:
            self.layers = [specimens.Affine(W=rng.normal(size=(3, 4)), b=rng.normal(size=4)), specimens.Act("tanh")]

        @property
        def params(self) -> Any:
            return {str(i): layer.params for i, layer in enumerate(self.layers)}

        def forward(self, x: Any) -> Any:
            caches = []
            for layer in self.layers:
                x, cache = layer.forward(x)
                caches.append(cache)
            return x, caches

        def backward(self, dy: Any, caches: Any) -> Any:
            grads = {}
            for i in (1, 0):
                dy, grads[str(i)] = self.layers[i].backward(dy, caches[i])
            return dy, grads

    net, x, y = Net(), rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    report = nn.check_network(net, specimens.SquaredError(), x, y, l2)
    report.raise_if_failed()
    assert [row.tensor for row in report.rows] == ["x", "0.W", "0.b"]
    net.layers[1].bug = "square forgotten"
    report = nn.check_network(net, specimens.SquaredError(), x, y, l2)
    assert (report.errors[0].layer, report.errors[0].kind) == ("1", "slope")


@pytest.mark.parametrize("how", ["raises", "shape", "none"])
@pytest.mark.parametrize("stepping", [False, True])
def test_a_layer_whose_backward_fails_is_named(how: str, stepping: bool) -> None:
    class Fails(nn.Tanh):
        def backward(self, dy: Any, cache: Any) -> Any:
            if how == "raises":
                raise KeyError("cache")
            dx, grads = super().backward(dy, cache)
            return (None if how == "none" else dx[:, :1]), grads

    rng = np.random.default_rng(0)
    net = nn.Sequential([nn.Dense(3, 4), Fails(), nn.Dense(4, 2)], rng=rng)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    check = (lambda: nn.check_step(net, nn.HalfSquaredError(), nn.SGD(1), x, y)) if stepping else None
    report = check() if check else nn.check_network(net, nn.HalfSquaredError(), x, y)
    assert report.errors[0].layer == "1", str(report)
    assert report.errors[0].kind == {"raises": "raises", "shape": "shape", "none": "missing"}[how]


def test_training_mode_holds_the_mask() -> None:
    rng = np.random.default_rng(0)
    net = nn.Sequential([nn.Dense(3, 8), nn.Dropout(0.5), nn.Dense(8, 2)], rng=rng)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    nn.check_network(net, nn.HalfSquaredError(), x, y, rng=rng).raise_if_failed()


# -- steps


def step_by_hand(net: Any, loss: Any, optimizer: Any, x: Any, y: Any) -> None:
    y_pred, cache = net.forward(x)
    dy = loss.backward(loss.forward(y_pred, y)[1])
    _, grads = net.backward(dy, cache)
    net.params.vector -= optimizer.learning_rate * grads.vector


def early_step(net: Any, loss: Any, optimizer: Any, x: Any, y: Any) -> None:
    y_pred, caches = net.forward(x)
    dy = loss.backward(loss.forward(y_pred, y)[1])
    for layer, cache in zip(net.layers[::-1], caches[::-1], strict=True):
        _, grads = layer.backward(dy, cache)
        if len(layer.params):
            layer.params.vector -= optimizer.learning_rate * grads.vector
        dy, _ = layer.backward(dy, cache)


kept: list[Any] = []


def keeping_step(net: Any, loss: Any, optimizer: Any, x: Any, y: Any) -> None:
    y_pred, caches = net.forward(x)
    kept.append(net.backward(loss.backward(loss.forward(y_pred, y)[1]), caches)[1].vector)
    net.params.vector -= optimizer.learning_rate * sum(kept)


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (step_by_hand, None),
        (early_step, "updated-weights"),
        (keeping_step, "accumulate"),
        (lambda net, *rest: None, "no-step"),
        (lambda *args: (step_by_hand(*args), step_by_hand(*args)), "optimizer"),
    ],
)
def test_a_training_step_of_ones_own(step: Any, kind: str | None) -> None:
    rng = np.random.default_rng(0)
    kept.clear()
    net = nn.Sequential([nn.Dense(3, 4), nn.Tanh(), nn.Dense(4, 2)], rng=rng)
    report = nn.check_step(
        net, nn.HalfSquaredError(), nn.SGD(0.1), rng.normal(size=(5, 3)), rng.normal(size=(5, 2)), step=step
    )
    assert kinds(report) == ([] if kind is None else [kind]), str(report)


class Other:
    """An optimizer that knows nothing of nnprofile."""

    def __init__(self, how: str = "") -> None:
        self.lr, self.mu, self.v, self.how = 0.1, 0.9, None, how

    def step(self, params: Any, grads: Any) -> None:
        if self.how == "raises":
            raise KeyError("v")
        self.v = (0 if self.v is None else self.mu * self.v) - self.lr * grads.vector
        if self.how == "uphill":
            params.vector += self.lr * grads.vector
        elif self.how == "infinite":
            params.vector *= np.inf
        elif self.how == "half":
            params.vector[:5] += self.v[:5]
        elif self.how != "still":
            params.vector += self.v


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("", None),
        ("raises", "raises"),
        ("uphill", "sign"),
        ("infinite", "optimizer"),
        ("half", "no-step"),
        ("still", "no-step"),
    ],
)
def test_optimizers_of_others(how: str, kind: str | None) -> None:
    rng = np.random.default_rng(0)
    net = nn.Sequential([nn.Dense(3, 2)], rng=rng)
    report = nn.check_step(net, nn.HalfSquaredError(), Other(how), rng.normal(size=(5, 3)), rng.normal(size=(5, 2)))
    assert kinds(report) == ([] if kind is None else [kind]), str(report)
    if how == "":
        assert all(row.verdict == "right" and "momentum" in row.method for row in report.rows)


def test_an_unknown_optimizer_is_not_accused() -> None:
    class RMSProp:
        def __init__(self) -> None:
            self.learning_rate, self.rho, self.epsilon, self.v = 0.1, 0.9, 1e-8, 0.0

        def step(self, params: Any, grads: Any) -> None:
            self.v = self.rho * self.v + (1 - self.rho) * grads.vector**2
            params.vector -= self.learning_rate * grads.vector / (np.sqrt(self.v) + self.epsilon)

    rng = np.random.default_rng(0)
    net = nn.Sequential([nn.Dense(3, 2)], rng=rng)
    report = nn.check_step(net, nn.HalfSquaredError(), RMSProp(), rng.normal(size=(5, 3)), rng.normal(size=(5, 2)))
    assert report.ok and [f.kind for f in report.notes] == ["optimizer"]


# -- second order


def test_hessian_vector_products_of_a_network() -> None:
    rng = np.random.default_rng(0)
    net = nn.Sequential([nn.Dense(3, 4), nn.Tanh(), nn.Dense(4, 2)], rng=rng)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    grad = gc.gradient_of(net, nn.HalfSquaredError(), x, y, l2=0.1)
    n = net.params.vector.size
    columns = [nn.hvp(grad, net.params, nn.Parameters(net.params.layout, row)).vector for row in np.eye(n)]
    hessian = np.array(columns)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-15)

    def at(vector: Any) -> Any:
        return grad(nn.Parameters(net.params.layout, vector)).vector

    h = 1e-5
    w = net.params.vector
    differences = np.array([(at(w + h * row) - at(w - h * row)) / (2 * h) for row in np.eye(n)])
    np.testing.assert_allclose(hessian, differences, atol=1e-9)


def test_a_double_backward_is_checked_with_the_gradient_as_the_function() -> None:
    rng = np.random.default_rng(0)
    a, x = rng.normal(size=(4, 4)), rng.normal(size=4)
    f, grad = (lambda x: np.exp(a @ x).sum()), (lambda x: a.T @ np.exp(a @ x))
    assert nn.check_function(f, grad, x).ok

    def double(v: Any, x: Any) -> Any:
        return a.T @ (np.exp(a @ x) * (a @ v))

    assert nn.check_function(grad, double, x).ok
    v = rng.normal(size=4)
    np.testing.assert_allclose(nn.hvp(grad, x, v), double(v, x), rtol=1e-13)
    assert not nn.check_function(grad, lambda v, x: 2 * double(v, x), x).ok


def test_hvp_of_nested_arguments_and_its_errors() -> None:
    point = {"a": np.ones(2), "b": [np.ones(3)]}
    out = nn.hvp(lambda p: {"a": p["a"] ** 2, "b": [3 * p["b"][0]]}, point, point)
    assert out["a"].tolist() == [2, 2] and out["b"][0].tolist() == [3, 3, 3]
    swapped = nn.hvp(lambda p: {"b": 5 * p["b"], "a": 2 * p["a"]}, {"a": x4, "b": x4}, {"b": 0 * x4, "a": x4})
    np.testing.assert_allclose(swapped["a"], 2 * x4)
    assert not swapped["b"].any()
    with pytest.raises(ValueError, match="structure of x"):
        nn.hvp(lambda x: x, np.ones(3), np.ones(2))


def test_hvp_of_a_network_of_others() -> None:
    rng = np.random.default_rng(0)
    net = specimens.Affine(W=rng.normal(size=(3, 2)), b=rng.normal(size=2))
    grad = gc.gradient_of(net, specimens.SquaredError(), rng.normal(size=(5, 3)), rng.normal(size=(5, 2)))
    out = nn.hvp(grad, net.params, {"W": np.zeros((3, 2)), "b": np.ones(2)})
    np.testing.assert_allclose(out["b"], [1, 1])


def test_hvp_wants_complex_numbers() -> None:
    with pytest.raises(ValueError, match="do not pass"):
        nn.hvp(lambda x: np.abs(x), np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="contradict the complex step"):
        nn.hvp(lambda x: 3 * x * np.abs(x), x4, x4)
    with pytest.raises(ValueError, match="do not pass"):
        nn.hvp(lambda x: x.astype(float), np.ones(3), np.ones(3))


# -- the report


def report_of_a_bug() -> nn.GradCheckReport:
    return nn.check_function(lambda x: (x**3).sum(), lambda x: 6 * x**2, np.array([[1.0, 2.0]]))


def test_the_report_reads_in_text_json_and_html() -> None:
    report = report_of_a_bug()
    assert not report and not report.ok
    text = str(report)
    assert "2 times the right one" in text and "x[0, 1] yours 24, right 12" in text and "wrong" in text
    with pytest.raises(AssertionError, match=r"wrong gradient\n  x: your gradient is 2 times"):
        report.raise_if_failed()
    data = json.loads(json.dumps(report.to_dict()))
    assert data["ok"] is False and data["findings"][0]["kind"] == "scale" and data["rows"][0]["worst"][0]["yours"] == 24
    page = report.to_html()
    assert "<table>" in page and "factor 2" in page and "<script" not in page
    right = nn.check_function(lambda x: (x**3).sum(), lambda x: 3 * x**2, np.array([1.0, 2.0]))
    assert right and right.raise_if_failed() is None and "right" in str(right)
    assert "&lt;lambda&gt;" in right.to_html()


def test_the_report_of_an_overflow_is_json_too() -> None:
    report = nn.check_function(lambda x: np.log(np.exp(x).sum()), lambda x: np.exp(x * 1e5), x4 + 1)
    assert not report.ok
    assert "inf" in json.dumps(report.to_dict(), allow_nan=False)


def test_a_network_that_cannot_be_copied_is_put_back() -> None:
    rng = np.random.default_rng(0)
    net = specimens.Affine(W=rng.normal(size=(3, 2)), b=rng.normal(size=2))
    net.lock = threading.Lock()
    kept = net.params["W"].copy()

    class Descent:
        lr = 0.1

        def step(self, params: Any, grads: Any) -> None:
            for name in params:
                params[name] -= self.lr * grads[name]

    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    assert nn.check_step(net, specimens.SquaredError(), Descent(), x, y).ok
    assert nn.check_network(net, specimens.SquaredError(), x, y).ok
    assert (net.params["W"] == kept).all()


def test_the_same_seed_gives_the_same_report() -> None:
    a, b = report_of_a_bug(), report_of_a_bug()
    a.seconds = b.seconds = 0
    assert a == b


# -- the command line

LAYER = """
import numpy as np
class MyLayer:
    def __init__(self, in_features, units=3, *, rng, wrong=False):
        self.wrong, self.params = wrong, {"W": rng.normal(size=(in_features, units))}
    def forward(self, x):
        return np.tanh(x @ self.params["W"]), x
    def backward(self, dy, x):
        dz = dy * (1 - np.tanh(x @ self.params["W"]) ** (1 if self.wrong else 2))
        return dz @ self.params["W"].T, {"W": x.T @ dz}
def f(x, w): return x @ w
def grad(dy, x, w): return np.outer(dy, w), x.T @ dy
"""


def command(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "nnprofile", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "my_layer.py"
    path.write_text(LAYER)
    code, out, _ = command("check", f"{path}:MyLayer", "--shape", "7,5")
    assert code == 0 and out.startswith("MyLayer: right")
    code, out, _ = command(
        "check", f"{path}:MyLayer", "--shape", "7,5", "--set", "wrong=True", "--html", str(tmp_path / "r.html")
    )
    assert code == 1 and "1 - y is used" in out and "1 - y is used" in (tmp_path / "r.html").read_text()
    code, out, _ = command("check", f"{path}:f,grad", "--shape", "7,5", "--shape", "5", "--json")
    assert code == 0 and json.loads(out)["ok"]
    for arguments, message in (
        (("check", f"{path}:Other", "--shape", "7,5"), "has no 'Other'; it has MyLayer, f, grad"),
        (("check", f"{tmp_path / 'none.py'}:A", "--shape", "7"), "there is no file"),
        (("check", f"{path}:MyLayer", "--shape", "7,5", "--set", "unit=3"), "takes in_features"),
        (("check", f"{path}:MyLayer", "--shape", "seven"), "whole numbers"),
        (("check", "nonsense", "--shape", "7"), "FILE.py:Name"),
        (("check", "nnprofile:Dense", "--shape", "7,5"), "needs 'out_features'"),
    ):
        code, out, err = command(*arguments)
        assert code == 2 and message in err and "Traceback" not in err
    code, out, _ = command("check", "nnprofile:Dense", "--shape", "7,5", "--set", "out_features=2")
    assert code == 0


@pytest.mark.slow
def test_selftest_on_the_command_line() -> None:
    code, out, _ = command("selftest")
    assert code == 0 and "100.0% found" in out and "0 false alarms" in out
