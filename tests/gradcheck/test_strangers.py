"""Code as strangers write it: right code is accepted, wrong code is found and named, in any layout and at any first values."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import nnprofile as nn
from examples.gradcheck import layouts
from nnprofile import gradcheck as gc


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(16)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


# -- cancelling sums: right to the rounding of their summands


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-8])
@pytest.mark.parametrize("hidden", [nn.Tanh, nn.Sigmoid, nn.ReLU])
def test_balanced_classes_and_small_weights(hidden: Any, scale: float) -> None:
    """The bias gradient of balanced classes is a sum of +-1/2, whose summands' rounding is no error."""
    rng = np.random.default_rng(0)
    net = nn.Sequential([nn.Dense(4, 6, rng=rng), hidden(), nn.Dense(6, 2, rng=rng)], rng=None)
    net.params.vector[:] *= scale
    x, t = rng.normal(size=(8, 4)), np.array([0, 1] * 4)
    x[4:] = -x[:4]
    for report in (
        nn.check_network(net, nn.SoftmaxCrossEntropy(), x, t),
        nn.check_step(net, nn.SoftmaxCrossEntropy(), nn.SGD(0.1), x, t),
    ):
        report.raise_if_failed()
        assert max(row.noise_ratio for row in report.rows) < 32


def test_the_trace_accepts_a_symmetric_xor() -> None:
    rng = np.random.default_rng(3)
    x, t = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([[0.0], [1.0], [1.0], [0.0]])
    net = nn.Sequential([nn.Dense(2, 2, rng=rng), nn.Tanh(), nn.Dense(2, 1, rng=rng)], rng=None)
    net.params.vector[:] *= 1e-6
    found = nn.trace(net, nn.SigmoidCrossEntropy(), x, t)
    assert "agree" in str(found) and "disagree" not in str(found)
    assert nn.check_network(net, nn.SigmoidCrossEntropy(), x, t).ok


@pytest.mark.parametrize("share", [1e-8, 1e-6])
def test_an_error_in_a_cancelling_sum_is_found(rng: np.random.Generator, share: float) -> None:
    x, t = rng.normal(size=(8, 3)), np.array([0.0, 1.0] * 4)

    def loss(w: Any, b: Any) -> Any:
        z = x @ w + b
        return (np.logaddexp(0, z) - t * z).sum() if z.dtype.kind != "c" else (np.log1p(np.exp(z)) - t * z).sum()

    def grad(w: Any, b: Any, wrong: float = 0.0) -> Any:
        d = sigmoid(x @ w + b) - t
        return x.T @ d, d.sum() + wrong

    point = (np.zeros(3), 0.0)
    nn.check_function(loss, lambda w, b: grad(w, b), *point).raise_if_failed()
    assert not nn.check_function(loss, lambda w, b: grad(w, b, 0.5 * share), *point).ok


def test_right_at_an_optimum(rng: np.random.Generator) -> None:
    x = rng.normal(size=(50, 4))
    x, t = np.concatenate([x, -x]), np.tile([0.0, 1.0], 50)
    best = np.linalg.lstsq(x, t, rcond=None)[0]

    def f(w: Any) -> Any:
        return ((x @ w - t) ** 2).sum() / 2

    nn.check_function(f, lambda w: x.T @ (x @ w - t), best).raise_if_failed()
    assert not nn.check_function(f, lambda w: x.T @ (x @ w - t) + 1e-5, best).ok
    nn.check_function(lambda z: np.sin(z).sum(), np.cos, np.full(4, np.pi / 2)).raise_if_failed()


# -- first values: gamma = 1, beta = 0, b = 0


class BatchNorm:
    def __init__(self, d: int, wrong: bool = False) -> None:
        self.params, self.wrong = {"gamma": np.ones(d), "beta": np.zeros(d)}, wrong

    def forward(self, x: Any, rng: Any = None) -> Any:
        centred = x - x.mean(axis=0)
        rate = 1 / np.sqrt((centred * centred).mean(axis=0) + 1e-5)
        return self.params["gamma"] * centred * rate + self.params["beta"], (centred * rate, rate)

    def backward(self, dy: Any, cache: Any) -> Any:
        xh, rate = cache
        d = dy if self.wrong else dy * self.params["gamma"]
        dx = rate * (d - d.mean(axis=0) - xh * (d * xh).mean(axis=0))
        return dx, {"gamma": (dy * xh).sum(axis=0), "beta": dy.sum(axis=0)}


class TanhWithoutBias:
    """Its backward forgets b where it computes z again."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.params = {"W": rng.normal(size=(3, 2)), "b": np.zeros(2)}

    def forward(self, x: Any, rng: Any = None) -> Any:
        return np.tanh(x @ self.params["W"] + self.params["b"]), x

    def backward(self, dy: Any, x: Any) -> Any:
        dz = dy * (1 - np.tanh(x @ self.params["W"]) ** 2)
        return dz @ self.params["W"].T, {"W": x.T @ dz, "b": dz.sum(axis=0)}


def test_layers_are_checked_at_other_values_than_their_first(rng: np.random.Generator) -> None:
    x = rng.normal(size=(7, 3))
    right, wrong = nn.check_layer(BatchNorm(3), x), nn.check_layer(BatchNorm(3, wrong=True), x)
    right.raise_if_failed()
    assert "other parameters" in right.points and "also looked at" in str(right)
    assert not wrong.ok and "wrong with other parameters" in wrong.errors[0].message
    assert not nn.check_layer(TanhWithoutBias(rng), x).ok


def test_functions_are_checked_at_other_arguments(rng: np.random.Generator) -> None:
    x, t = rng.normal(size=(6, 3)), np.array([0.0, 1.0] * 3)

    def f(w: Any, b: Any) -> Any:
        z = x @ w + b
        return (np.log1p(np.exp(z)) - t * z).mean()

    def grad(w: Any, b: Any) -> Any:
        d = (sigmoid(x @ w + b) - t) / 6
        return x.T @ d, d.sum() + 0.1 * b  # no penalty is in the value

    report = nn.check_function(f, grad, rng.normal(size=3), 0.0)
    assert not report.ok and report.errors[0].tensor == "b"


def test_a_domain_is_no_accusation() -> None:
    """At other arguments the function may be undefined, which is not the gradient's fault."""

    def f(x: Any) -> Any:
        if np.any(np.real(x) != np.array([1.0, 2.0])):
            raise ValueError("outside of the domain")
        return (x * x).sum()

    nn.check_function(f, lambda x: 2 * x, np.array([1.0, 2.0])).raise_if_failed()


# -- layouts


def test_the_layouts_of_the_examples(capsys: pytest.CaptureFixture[str]) -> None:
    reports = layouts.main()
    assert all(report.ok for report in reports.values())
    assert {name: [row.tensor for row in report.rows] for name, report in reports.items()} == {
        "Affine": ["x", "W", "b"],
        "DenseWithoutReturn": ["x", "weights", "biases"],
        "TanhLayer": ["x", "params.W", "params.b"],
        "SoftmaxWithLoss": ["y_pred"],
        "TwoLayerNet": ["params.W1", "params.b1", "params.W2", "params.b2"],
        "OwnNames": ["x", "theta"],
    }
    assert "took dweights for the gradient of weights" in str(reports["DenseWithoutReturn"])
    assert capsys.readouterr().out.count("right") > 6


@pytest.mark.parametrize(
    ("base", "attribute"),
    [
        (lambda rng: layouts.Affine(rng.normal(size=(3, 2)), np.zeros(2)), "dW"),
        (lambda rng: layouts.Affine(rng.normal(size=(3, 2)), np.zeros(2)), "db"),
        (lambda rng: layouts.DenseWithoutReturn(3, 2, rng), "dweights"),
        (lambda rng: layouts.DenseWithoutReturn(3, 2, rng), "dbiases"),
        (lambda rng: layouts.DenseWithoutReturn(3, 2, rng), "dinputs"),
    ],
)
@pytest.mark.parametrize("through", ["check_layer", "check_function"])
def test_a_wrong_gradient_in_an_attribute_is_found(base: Any, attribute: str, through: str) -> None:
    rng = np.random.default_rng(0)
    obj = base(rng)
    right = type(obj)

    def backward(self: Any, dout: Any) -> Any:
        out = right.backward(self, dout)
        setattr(self, attribute, 2 * getattr(self, attribute))
        return out

    obj.__class__ = type("Wrong", (right,), {"backward": backward})
    x = rng.normal(size=(5, 3))
    if through == "check_layer":
        report = nn.check_layer(obj, x)
    elif right is layouts.Affine:
        report = nn.check_function(obj.forward, obj.backward, x)
    else:
        pytest.skip("its methods return nothing")
    assert not report.ok
    assert {f.kind for f in report.errors} == {"scale"} and "2 times" in report.errors[0].message


def test_a_network_with_a_wrong_dict_of_gradients() -> None:
    class Wrong(layouts.TwoLayerNet):
        def gradient(self, x: Any, t: Any) -> Any:
            grads = super().gradient(x, t)
            return grads | {"W2": -grads["W2"]}

    rng = np.random.default_rng(0)
    net = Wrong((3, 4, 2), rng)
    kept = {name: value.copy() for name, value in net.params.items()}
    report = nn.check_network(net, None, rng.normal(size=(6, 3)), rng.normal(size=(6, 2)))
    assert [f.tensor for f in report.errors] == ["params.W2"] and report.errors[0].kind == "sign"
    assert all(net.params[name].tobytes() == value.tobytes() for name, value in kept.items())


class Suffixed:
    def __init__(self) -> None:
        self.weight, self.bias = np.ones((3, 2)), np.zeros(2)

    def forward(self, x: Any) -> Any:
        self.x = x
        return x @ self.weight + self.bias

    def backward(self, d: Any) -> Any:
        self.weight_grad, self.bias_grad = self.x.T @ d, d.sum(axis=0)
        return d @ self.weight.T


class Lists:
    def __init__(self) -> None:
        self.params = [np.ones((3, 2)), np.zeros(2)]
        self.grads = [np.zeros((3, 2)), np.zeros(2)]

    def forward(self, x: Any) -> Any:
        self.x = x
        return x @ self.params[0] + self.params[1]

    def backward(self, d: Any) -> Any:
        self.grads[0][...], self.grads[1][...] = self.x.T @ d, d.sum(axis=0)
        return d @ self.params[0].T


class Stack:
    def __init__(self) -> None:
        self.layers = [Suffixed(), layouts.Affine(np.ones((2, 2)), np.zeros(2))]

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, d: Any) -> Any:
        for layer in reversed(self.layers):
            d = layer.backward(d)
        return d


@pytest.mark.parametrize(("make", "n"), [(Suffixed, 3), (Lists, 3), (Stack, 5)])
def test_more_layouts(rng: np.random.Generator, make: Any, n: int) -> None:
    report = nn.check_layer(make(), rng.normal(size=(5, 3)))
    report.raise_if_failed()
    assert len(report.rows) == n


def test_parameters_that_no_gradient_is_found_for_are_not_passed_over() -> None:
    class Hidden(layouts.Affine):
        def backward(self, dout: Any) -> Any:
            self.slope_of_w, self.db = self.x.T @ dout, dout.sum(axis=0)
            return dout @ self.W.T

    rng = np.random.default_rng(0)
    report = nn.check_layer(Hidden(rng.normal(size=(3, 2)), np.zeros(2)), rng.normal(size=(5, 3)))
    assert not report.ok or "W" in str([f.message for f in report.findings])
    assert any("W" in f.message for f in report.findings)
    named = gc.stateful(Hidden(rng.normal(size=(3, 2)), np.zeros(2)), ["W", "b"], ["slope_of_w", "db"])
    nn.check_layer(named, rng.normal(size=(5, 3))).raise_if_failed()


# -- other forms of a derivative


@pytest.mark.parametrize("x", [np.linspace(-2, 2, 5), np.linspace(-2, 2, 6).reshape(2, 3), 0.7])
def test_an_elementwise_derivative(x: Any) -> None:
    nn.check_function(sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x)), x).raise_if_failed()
    assert not nn.check_function(sigmoid, lambda x: x * (1 - x), x).ok


@pytest.mark.parametrize("turned", [False, True])
def test_a_jacobian_either_way_round(rng: np.random.Generator, turned: bool) -> None:
    a = rng.normal(size=(6, 3))

    def jacobian(x: Any) -> Any:
        out = (1 - np.tanh(a @ x) ** 2)[:, None] * a
        return out.T if turned else out

    nn.check_function(lambda x: np.tanh(a @ x), jacobian, rng.normal(size=3)).raise_if_failed()
    assert not nn.check_function(lambda x: np.tanh(a @ x), lambda x: 1.01 * jacobian(x), rng.normal(size=3)).ok


def test_a_hessian_matrix() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rosen, rosen_der, rosen_hess = optimize.rosen, optimize.rosen_der, optimize.rosen_hess
    x = np.array([1.3, 0.7, 0.8, 1.9])
    nn.check_function(rosen, rosen_der, x).raise_if_failed()
    report = nn.check_function(rosen_der, rosen_hess, x)
    report.raise_if_failed()
    assert any(f.kind == "form" for f in report.findings)
    assert not nn.check_function(rosen_der, lambda x: rosen_hess(x) * 1.001, x).ok


@pytest.mark.parametrize("summed", [False, True])
def test_a_boosting_objective(summed: bool) -> None:
    t = np.array([0.0, 1.0, 1.0, 0.0, 1.0])

    def loss(m: Any) -> Any:
        each = np.log1p(np.exp(m)) - t * m
        return each.sum() if summed else each

    def pair(m: Any, factor: float = 1.0) -> Any:
        p = sigmoid(m)
        return p - t, factor * p * (1 - p)

    def opened(*args: Any) -> Any:
        (m,) = args
        return pair(m)

    m = np.linspace(-1, 1, 5)
    nn.check_function(loss, lambda m: pair(m), m).raise_if_failed()
    nn.check_function(loss, opened, m).raise_if_failed()
    report = nn.check_function(loss, lambda m: pair(m, 2.0), m)
    assert [f.tensor for f in report.errors] == ["m (Hessian)"]


# -- SciPy's convention


def cost(theta: Any, x: Any, y: Any, rate: float = 0.0) -> Any:
    z = x @ theta
    return (np.log1p(np.exp(z)) - y * z).mean() + rate * (theta @ theta) / 2


def cost_grad(theta: Any, x: Any, y: Any, rate: float = 0.0) -> Any:
    return x.T @ (sigmoid(x @ theta) - y) / len(y) + rate * theta


def test_constants_keywords_and_pairs(rng: np.random.Generator) -> None:
    x, y, theta = rng.normal(size=(8, 3)), np.array([0.0, 1.0] * 4), rng.normal(size=3)
    for report in (
        nn.check_function(cost, cost_grad, theta, x, y, 0.1),
        nn.check_function(cost, cost_grad, theta, x, y, 0.1, wrt="theta"),
        nn.check_function(cost, cost_grad, theta, x, y, wrt=0, kwargs={"rate": 0.1}),
        nn.check_function(lambda w: (cost(w, x, y), cost_grad(w, x, y)), True, theta),
    ):
        report.raise_if_failed()
        assert len(report.rows) == 1
    assert not nn.check_function(cost, lambda *a: cost_grad(*a[:3]), theta, x, y, 0.1).ok


@pytest.mark.parametrize("wrt", ["nobody", 7, [], "y"])
def test_wrt_of_what_is_not_there(rng: np.random.Generator, wrt: Any) -> None:
    x, y = rng.normal(size=(8, 3)), np.array([0, 1] * 4)
    with pytest.raises(ValueError, match="wrt must name arguments of floats, of theta"):
        nn.check_function(cost, cost_grad, rng.normal(size=3), x, y, wrt=wrt)


# -- diagnoses


def test_one_number_is_not_one_of_one_elements() -> None:
    report = nn.check_function(lambda x: x**3, lambda x: 2 * x**2 + 1, 1.3)
    assert not report.ok and "1 of 1" not in str(report) and "5.07 is right" in report.errors[0].message
    report = nn.check_function(sigmoid, lambda x: x * (1 - x), 0.7)
    assert report.errors[0].kind == "slope" and "y (1 - y)" in report.errors[0].message


def test_a_stationary_point_is_not_unused() -> None:
    """The Kullback-Leibler divergence of equal distributions."""

    def softmax(z: Any) -> Any:
        return np.exp(z) / np.exp(z).sum()

    def f(z: Any) -> Any:
        return -(np.log(softmax(z)) / 5).sum()

    nn.check_function(f, lambda z: softmax(z) - 1 / 5, np.zeros(5)).raise_if_failed()
    report = nn.check_function(f, lambda z: softmax(z) - 1 / 5 + 1e-6, np.zeros(5))
    assert report.errors[0].kind == "term" and "stationary point" in report.errors[0].message
    unused = nn.check_function(lambda a, b: (a * a).sum(), lambda a, b: (2 * a, b + 1), np.ones(3), np.zeros(3))
    assert [f.kind for f in unused.errors] == ["unused"]


def test_swapped_and_copied_gradients(rng: np.random.Generator) -> None:
    x = rng.normal(size=(5, 3))

    def f(a: Any, b: Any) -> Any:
        return (np.tanh(x @ a) * (x @ b)).sum()

    def grad(a: Any, b: Any) -> Any:
        h = np.tanh(x @ a)
        return x.T @ ((1 - h * h) * (x @ b)), x.T @ h

    point = rng.normal(size=3), rng.normal(size=3)
    nn.check_function(f, grad, *point).raise_if_failed()
    swapped = nn.check_function(f, lambda a, b: grad(a, b)[::-1], *point)
    assert all("swapped" in e.message and e.kind == "order" for e in swapped.errors) and len(swapped.errors) == 2
    copied = nn.check_function(f, lambda a, b: (grad(a, b)[1],) * 2, *point)
    assert [e.message for e in copied.errors] == ["a: this is the gradient of b (right: b)"] or [
        e.message for e in copied.errors
    ] == ["a: this is the gradient of b"]


@pytest.mark.parametrize("limit", [0.5, 1.0])
def test_clipping(rng: np.random.Generator, limit: float) -> None:
    w = 3 * rng.normal(size=9)

    def norm_clipped(w: Any) -> Any:
        return 2 * w * limit / np.linalg.norm(2 * w)

    for grad in (lambda w: np.clip(2 * w, -limit, limit), norm_clipped):
        report = nn.check_function(lambda w: (w * w).sum(), grad, w)
        assert report.errors[0].kind == "clipped", report


def test_a_forgotten_mask(rng: np.random.Generator) -> None:
    x = np.linspace(-1, 1, 8)
    report = nn.check_function(lambda x: (np.maximum(x, 0) ** 2).sum(), lambda x: 2 * np.abs(x) * np.sign(x), x)
    assert report.errors[0].kind == "mask" and "forgotten" in report.errors[0].message


def test_the_derivative_by_the_logarithm() -> None:
    report = nn.check_function(lambda k: (k**3).sum(), lambda k: 3 * k**3, np.array([0.4, 0.9, 1.7]))
    assert report.errors[0].kind == "slope" and "log(theta)" in report.errors[0].message and "logits" not in str(report)
    one = nn.check_function(lambda k: k**3, lambda k: 3 * k**3, 0.4)
    assert "log(theta)" in one.errors[0].message


def test_a_penalty_on_one_element(rng: np.random.Generator) -> None:
    x, y, theta = rng.normal(size=(7, 4)), np.array([0.0, 1.0] * 3 + [1.0]), rng.normal(size=4)

    def f(t: Any) -> Any:
        return cost(t, x, y) + 0.25 * (t[1:] ** 2).sum()

    report = nn.check_function(f, lambda t: cost_grad(t, x, y, 0.5), theta)
    assert report.errors[0].kind == "weight-decay" and "element 0 only, by 0.5 * theta" in report.errors[0].message


@pytest.mark.parametrize("symmetric", [lambda g: (g + g.T) / 2, lambda g: g + g.T - np.diag(np.diag(g))])
def test_a_symmetric_matrix(rng: np.random.Generator, symmetric: Any) -> None:
    c = rng.normal(size=(4, 4))
    report = nn.check_function(lambda s: (c * s).sum(), lambda s: symmetric(c), np.eye(4) + 0.1)
    assert report.errors[0].kind == "symmetric"


def test_rows_that_a_functions_indices_repeat(rng: np.random.Generator) -> None:
    index = np.array([2, 0, 2, 3])
    weights = rng.normal(size=(4, 3))

    def grad(e: Any) -> Any:
        g = np.zeros_like(e)
        g[index] += weights * 2 * e[index]
        return g

    report = nn.check_function(lambda e: (weights * e[index] ** 2).sum(), grad, rng.normal(size=(5, 3)))
    assert report.errors[0].kind == "repeats" and "index names more than once" in report.errors[0].message


def test_few_equal_numbers_are_no_order() -> None:
    """Among gradients of +-1 an order fits by chance."""
    x = np.array([0.3, -1.2, 0.8, -0.1, 2.0, -0.7, 0.2, 1.1, -0.4])
    report = nn.check_function(lambda x: np.sqrt(x * x).sum(), lambda x: np.sign(np.sort(x)), x)
    assert not report.ok and report.errors[0].kind != "order"


def squash(z: Any) -> Any:
    return np.tanh(z)


@pytest.mark.parametrize("act", [np.tanh, squash])
def test_a_derivative_that_a_network_forgets(rng: np.random.Generator, act: Any) -> None:
    """The gradient where the derivative of what forward calls is missing, as a whole, or for one tensor."""
    x, t = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    p = {"W": rng.normal(size=(3, 4)), "b": rng.normal(size=4), "V": rng.normal(size=(4, 2))}
    kept = np.tanh

    def grad(p: Any, wrong: tuple[str, ...]) -> Any:
        h = act(x @ p["W"] + p["b"])
        d = 2 * (h @ p["V"] - t)
        dz = {k: d @ p["V"].T * (1.0 if k in wrong else 1 - h * h) for k in ("W", "b")}
        return {"W": x.T @ dz["W"], "b": dz["b"].sum(axis=0), "V": h.T @ d}

    def f(p: Any) -> Any:
        return ((act(x @ p["W"] + p["b"]) @ p["V"] - t) ** 2).sum()

    nn.check_function(f, lambda p: grad(p, ()), p).raise_if_failed()
    for wrong in (("W", "b"), ("b",)):
        report = nn.check_function(f, lambda p, wrong=wrong: grad(p, wrong), p)
        assert tuple(e.tensor for e in report.errors) == wrong
        assert all(e.kind == "slope" and "the derivative of act is missing" in e.message for e in report.errors), report
    assert np.tanh is kept


def test_a_gate_of_several(rng: np.random.Generator) -> None:
    """Of three calls of one function in each step, only the second has a wrong derivative."""
    x = rng.normal(size=(4, 3))

    def forward(w: Any) -> Any:
        return [tuple(squash(row * w * k) for k in (1, 2, 3)) for row in x]

    def f(w: Any) -> Any:
        return sum((a * b * c).sum() for a, b, c in forward(w))

    def grad(w: Any, wrong: bool) -> Any:
        total = np.zeros(3)
        for row, (a, b, c) in zip(x, forward(w), strict=True):
            slope_b = 1.0 if wrong else 1 - b * b
            total += row * ((1 - a * a) * b * c + 2 * slope_b * a * c + 3 * (1 - c * c) * a * b)
        return total

    w = rng.normal(size=3)
    nn.check_function(f, lambda w: grad(w, False), w).raise_if_failed()
    report = nn.check_function(f, lambda w: grad(w, True), w)
    assert "the derivative of squash, in call 2 of each 3, is missing" in report.errors[0].message


def test_a_convolution_that_assigns(rng: np.random.Generator) -> None:
    x, w = rng.normal(size=(2, 5, 5)), rng.normal(size=(2, 2, 3))

    def f(w: Any) -> Any:
        windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(1, 2))
        return np.einsum("nijab,abk->nijk", windows, w)

    def backward(dy: Any, w: Any) -> Any:
        dw = np.zeros_like(w)
        for n, i, j, k in np.ndindex(*dy.shape):
            dw[..., k] = x[n, i : i + 2, j : j + 2] * dy[n, i, j, k]
        return dw

    report = nn.check_function(f, backward, w)
    assert report.errors[0].kind == "samples" and "last place" in report.errors[0].message


def test_a_finding_says_how_much_it_explains(rng: np.random.Generator) -> None:
    report = nn.check_function(lambda x: (x * x).sum(), lambda x: x, rng.normal(size=5))
    assert report.errors[0].unexplained < 1e-6 and "explains all but" in str(report)
    other = nn.check_function(lambda x: np.sin(x).sum(), lambda x: np.cos(x) + 0.1 * x**3, rng.normal(size=5))
    assert np.isnan(other.errors[0].unexplained) and "explains" not in str(other)


# -- cost, chance, traces left behind


def test_a_wrong_gradient_costs_no_more_than_its_budget(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 8))

    def f(w: Any) -> Any:
        return np.tanh(np.tanh(x @ w[:64].reshape(8, 8)) @ w[64:].reshape(8, 2)).sum()

    def grad(w: Any, wrong: float = 0.0) -> Any:
        a = np.tanh(x @ w[:64].reshape(8, 8))
        d = 1 - np.tanh(a @ w[64:].reshape(8, 2)) ** 2
        dz = d @ w[64:].reshape(8, 2).T * (1 - (1 - wrong) * a * a)
        return np.concatenate([(x.T @ dz).ravel(), (a.T @ d).ravel()])

    w = rng.normal(size=80)
    right = nn.check_function(f, grad, w)
    right.raise_if_failed()
    plain = nn.check_function(f, lambda w: grad(w, 0.3), w, explain=False)
    capped = nn.check_function(f, lambda w: grad(w, 0.3), w, budget=0)
    assert not plain.ok and not capped.ok
    assert plain.n_forward <= 3 * right.n_forward and "explain=True" in plain.errors[0].message
    assert capped.n_forward <= plain.n_forward + 1 + right.n_forward


def test_functions_that_draw_their_own_numbers(rng: np.random.Generator) -> None:
    """The generators are rewound, so f and grad draw the same."""
    x = rng.normal(size=(6, 3))

    def rows() -> Any:
        return x[np.random.randint(0, 6, 4)]  # noqa: NPY002

    before = np.random.get_state()[1].copy()  # noqa: NPY002
    report = nn.check_function(
        lambda w: ((rows() @ w) ** 2).sum(), lambda w: 2 * (r := rows()).T @ (r @ w), rng.normal(size=3)
    )
    report.raise_if_failed()
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    wrong = nn.check_function(
        lambda w: ((rows() @ w) ** 2).sum(), lambda w: (r := rows()).T @ (r @ w), rng.normal(size=3)
    )
    assert not wrong.ok


MODEL = {"W": np.ones((3, 2), np.float32), "step": 0}
COUNTS = itertools.repeat(1)


def test_a_global_model_comes_back_as_it_was(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3))

    def loss(w: Any) -> Any:
        MODEL["W"], MODEL["step"] = w, MODEL["step"] + next(COUNTS)
        return ((x @ MODEL["W"]) ** 2).sum()

    def grad(w: Any) -> Any:
        MODEL["W"] = w
        return 2 * x.T @ (x @ MODEL["W"])

    kept = MODEL["W"]
    nn.check_function(loss, grad, rng.normal(size=(3, 2))).raise_if_failed()
    assert MODEL["W"].dtype == np.float32 and MODEL["W"].tobytes() == kept.tobytes() and MODEL["step"] == 0


@pytest.mark.parametrize("kind", [float, np.float32, int, bool])
def test_a_mask_beside_the_weights_is_no_parameter(kind: type) -> None:
    class Padded:
        def __init__(self) -> None:
            self.W = np.random.default_rng(0).normal(size=(3, 2))
            self.mask = (np.arange(4) < np.array([3, 1])[:, None]).astype(kind)

        def forward(self, x: np.ndarray) -> np.ndarray:
            self.x = x
            return (x @ self.W) * self.mask[..., None]

        def backward(self, dy: np.ndarray) -> np.ndarray:
            dy = dy * self.mask[..., None]
            self.dW = np.einsum("nti,ntj->ij", self.x, dy)
            return dy @ self.W.T

    x = np.random.default_rng(1).normal(size=(2, 4, 3))
    assert nn.check_layer(Padded(), x).ok


@pytest.mark.parametrize("start", [np.ones(4), np.array([0, 1.0, 0, 0]), np.zeros(4), np.eye(4)])
def test_a_forgotten_gradient_is_no_mask_because_it_starts_at_zeros_and_ones(start: np.ndarray) -> None:
    class Forgetful:
        def __init__(self) -> None:
            self.W, self.b = np.random.default_rng(0).normal(size=(3, 4)), start.copy()

        def forward(self, x: np.ndarray) -> np.ndarray:
            self.x = x
            return x @ self.W @ self.b if self.b.ndim == 2 else x @ self.W + self.b

        def backward(self, dy: np.ndarray) -> np.ndarray:
            da = dy @ self.b.T if self.b.ndim == 2 else dy
            self.dW = self.x.T @ da
            return da @ self.W.T

    report = nn.check_layer(Forgetful(), np.random.default_rng(1).normal(size=(2, 3)))
    assert not report.ok and "b was not checked" in str(report) and "leave out what is constant" in str(report)
