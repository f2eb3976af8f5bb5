"""Published worked examples: to their printed digits as published, and to 1e-13 as recomputed in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnprofile as nn


def printed(value: Any, text: str, *, units: float = 0.5000001) -> None:
    """Assert that the numbers are those of the text, each to half a unit in its last place."""
    for v, t in zip(np.ravel(value), text.split(), strict=True):
        digits = len(t.partition(".")[2])
        assert abs(v - float(t)) <= units * 10.0**-digits, f"{v} is not {t}"


def exact(value: Any, expected: Any) -> None:
    np.testing.assert_allclose(value, expected, rtol=1e-13, atol=1e-15)


def network(*layers: Any) -> nn.Sequential:
    """Make a network from (W, b) pairs and activations."""
    made = [layer if isinstance(layer, nn.Layer) else nn.Dense(*np.shape(layer[0])) for layer in layers]
    for dense, layer in zip(made, layers, strict=True):
        if not isinstance(layer, nn.Layer):
            dense.params["W"], dense.params["b"] = layer
    return nn.Sequential(made, rng=None)


class TestMazur:
    """G1. Mazur (2015), "A step by step backpropagation example": 2-2-2, sigmoid, biases left alone."""

    X, T = np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])

    @staticmethod
    def network() -> nn.Sequential:
        first, second = ([[0.15, 0.25], [0.20, 0.30]], [0.35, 0.35]), ([[0.40, 0.50], [0.45, 0.55]], [0.60, 0.60])
        return network(first, nn.Sigmoid(), second, nn.Sigmoid())

    def step(self, net: nn.Sequential) -> float:
        """Take the post's step: the weights move, the biases stay."""
        value, grads = nn.objective(net, nn.HalfSquaredError(), self.X, self.T)
        for name in net.params.matrices():
            net.params[name] -= 0.5 * grads[name]
        return float(value)

    def test_forward(self) -> None:
        net = self.network()
        h, _ = net.layers[1].forward(net.layers[0].forward(self.X)[0])
        printed(net.layers[0].forward(self.X)[0], "0.3775 0.3925")
        printed(h, "0.593269992 0.596884378")
        printed(net.layers[2].forward(h)[0], "1.105905967 1.224921404")
        o = net.predict(self.X)
        printed(o, "0.75136507 0.772928465")
        printed(o, "0.751365069552 0.772928465321")
        value, _ = nn.HalfSquaredError().forward(o, self.T)
        printed(value, "0.298371109")
        exact(value, 0.2983711087600027)

    def test_gradients(self) -> None:
        _, grads = nn.objective(self.network(), nn.HalfSquaredError(), self.X, self.T)
        printed(grads["2.W"][0, 0], "0.082167041")
        exact(grads["2.b"], [0.13849856162855695, -0.038098236516556236])
        exact(grads["2.W"], [[0.08216704056423077, -0.02260254047747507], [0.08266762784753325, -0.022740242215978222]])
        printed(grads["0.W"][0, 0], "0.000438568")
        exact(
            grads["0.W"],
            [[0.0004385677344743465, 0.0004977127352608599], [0.000877135468948693, 0.0009954254705217198]],
        )

    def test_one_step(self) -> None:
        net = self.network()
        self.step(net)
        printed(net.params["2.W"], "0.35891648 0.511301270 0.408666186 0.561370121")
        printed(net.params["0.W"], "0.149780716 0.24975114 0.19956143 0.29950229")
        exact(net.params["2.W"], [[0.35891647971788465, 0.5113012702387375], [0.4086661860762334, 0.5613701211079891]])
        exact(
            net.params["0.W"], [[0.1497807161327628, 0.24975114363236958], [0.19956143226552567, 0.29950228726473915]]
        )
        value, _ = nn.objective(net, nn.HalfSquaredError(), self.X, self.T)
        exact(value, 0.29102777369359933)

    def test_ten_thousand_steps(self) -> None:
        net = self.network()
        for _ in range(10_000):
            self.step(net)
        value, _ = nn.objective(net, nn.HalfSquaredError(), self.X, self.T)
        np.testing.assert_allclose(value, 3.510187782978859e-05, rtol=1e-13)
        printed(net.predict(self.X), "0.015913620444 0.984064273515")

    def test_with_biases_updated(self) -> None:
        net = self.network()
        _, grads = nn.objective(net, nn.HalfSquaredError(), self.X, self.T)
        nn.SGD(0.5).step(net.params, grads)
        exact(net.params["0.b"], [0.3456143226552565, 0.3450228726473914])
        exact(net.params["2.b"], [0.5307507191857215, 0.6190491182582781])
        exact(nn.objective(net, nn.HalfSquaredError(), self.X, self.T)[0], 0.28047144679143016)

    def test_erratum_updated_weights_in_backward(self) -> None:
        """The post's last numbers, 0.291027924 and 0.000035085, come from a program that updates w5..w8 too early."""
        net = self.network()
        for step in range(10_000):
            y, caches = net.forward(self.X)
            value, loss_cache = nn.HalfSquaredError().forward(y, self.T)
            if step == 1:
                printed(value, "0.291027924")
                exact(value, 0.29102792390544197)
            dy = nn.HalfSquaredError().backward(loss_cache)
            for i in (3, 2, 1, 0):
                if i == 2:  # the wrong order: step first, then propagate through the new weights
                    grads = net.layers[2].backward(dy, caches[2])[1]
                    net.params["2.W"] -= 0.5 * grads["W"]
                dy, grads = net.layers[i].backward(dy, caches[i])
            net.params["0.W"] -= 0.5 * grads["W"]
        value, _ = nn.objective(net, nn.HalfSquaredError(), self.X, self.T)
        printed(net.predict(self.X), "0.015912196 0.984065734")
        assert value == pytest.approx(3.5084786e-05, rel=1e-7)


def test_cs231n_two_layer_maths() -> None:
    """G2. x = (16, -6), ReLU, softmax cross-entropy: every gradient to 12 digits."""
    first, second = (
        ([[0.18, 0.04], [0.1, 0.22]], [0.0, 0.0]),
        ([[0.19, -0.1, 0.1], [-0.02, -0.01, 0.04]], [0.0, 0.0, 0.0]),
    )
    net = network(first, nn.ReLU(), second)
    x = np.array([[16.0, -6.0]])
    printed(net.layers[0].forward(x)[0], "2.28 -0.68")
    printed(net.predict(x), "0.4332 -0.228 0.228")
    value, grads = nn.objective(net, nn.SoftmaxCrossEntropy(), x, np.array([2]))
    printed(value, "1.051375468504")
    exact(value, 1.0513754685043635)
    printed(grads["2.b"], "0.429052723714 0.221490524653 -0.650543248367")
    # The source multiplied rounded numbers by 2.28 and by 16 and -6: as many half units off, and its own half.
    printed(grads["2.W"], "0.978240210068 0.504998396209 -1.483238606277 0 0 0", units=(2.28 + 1) / 2)
    exact(grads["2.W"], np.outer([2.28, 0], grads["2.b"]))
    printed(grads["0.b"], "-0.005683359796 0")
    printed(grads["0.W"], "-0.090933756736 0 0.034100158776 0", units=(16 + 1) / 2)
    exact(grads["0.W"], np.outer([16, -6], grads["0.b"]))
    dh, _ = net.layers[2].backward(grads["2.b"][None], np.array([[2.28, 0.0]]))
    printed(dh, "-0.005683359796 -0.036817689655")


def test_scikit_learn_test_fit() -> None:
    """G3. The 3-2-1 network of scikit-learn's test_fit: logistic, L2 0.1, learning rate 0.1; its comment has a slip (E2)."""
    first, second = ([[0.1, 0.2], [0.3, 0.1], [0.5, 0.0]], [0.1, 0.1]), ([[0.1], [0.2]], [1.0])
    net = network(first, nn.Sigmoid(), second)
    x, y, loss = np.array([[0.6, 0.8, 0.7]]), np.array([0]), nn.SigmoidCrossEntropy()
    h = net.layers[1].forward(net.layers[0].forward(x)[0])[0]
    printed(h, "0.679178699175393 0.574442516811659")
    exact(loss.link.forward(net.predict(x))[0], 0.76545202190952)  # printed 0.7654329: a slip of theirs
    _, grads = nn.objective(net, loss, x, y, l2=0.1)
    printed(grads["2.b"], "0.765")
    printed(grads["0.W"], "0.02000728981 0.04245453307 0.04334305308 0.03993937743 0.06167517145 0.02619695525")
    printed(grads["2.W"], "0.52987870852 0.45970818596")
    nn.SGD(0.1).step(net.params, grads)
    printed(
        net.params["0.W"], "0.09799927101877 0.19575454669 0.29566569469 0.09600606226 0.49383248286 -0.00261969553"
    )
    printed(net.params["2.W"], "0.04701212915 0.15402918140")
    printed(net.params["0.b"], "0.09833211836 0.09625757782")
    printed(net.params["2.b"], "0.92345479781")
    printed(loss.link.forward(net.predict(x))[0], "0.739491918")
    # E2: row 3 of W1 was computed with 0.6 where x_3 = 0.7 belongs, hence 0.4939998 in the comment
    wrong = 0.5 - 0.1 * (0.1 * 0.5 + 0.6 * grads["0.b"][0])
    printed(wrong, "0.494")
    assert abs(net.params["0.W"][2, 0] - 0.4939998) > 1e-4


class TestCS231nAssignments:
    """G4. CS231n's assignments, whose inputs are np.linspace."""

    def test_affine(self) -> None:
        net = network((np.linspace(-0.2, 0.3, 360).reshape(120, 3), np.linspace(-0.3, 0.1, 3)))
        out = net.predict(np.linspace(-0.1, 0.5, 240).reshape(2, 120))
        printed(out, "1.49834967 1.70660132 1.91485297 3.25553199 3.5141327 3.77273342")

    def test_relu(self) -> None:
        x = np.linspace(-0.5, 0.5, 12).reshape(3, 4)
        out = nn.ReLU().forward(x)[0]
        printed(out, "0 0 0 0 0 0 0.04545455 0.13636364 0.22727273 0.31818182 0.40909091 0.5")

    def test_two_layer_net_with_and_without_l2(self) -> None:
        net = network(
            (np.linspace(-0.7, 0.3, 250).reshape(5, 50), np.linspace(-0.1, 0.9, 50)),
            nn.ReLU(),
            (np.linspace(-0.3, 0.4, 350).reshape(50, 7), np.linspace(-0.9, 0.1, 7)),
        )
        x, y, loss = np.linspace(-5.5, 4.5, 15).reshape(5, 3).T, np.array([0, 5, 1]), nn.SoftmaxCrossEntropy()
        scores = net.predict(x)
        printed([scores[0, 0], scores[0, -1]], "11.53165108 16.09215096")
        printed(nn.objective(net, loss, x, y)[0], "3.4702243556")
        # their 1/2 * reg * sum W^2 with reg = 1 is our l2 / (2 n) * sum W^2 with l2 = n
        printed(nn.objective(net, loss, x, y, l2=3.0)[0], "26.5948426952")

    W, DW = np.linspace(-0.4, 0.6, 20), np.linspace(-0.6, 0.4, 20)

    def test_momentum(self) -> None:
        params = nn.Parameters({"W": (4, 5)}, self.W.copy())
        optimizer = nn.SGD(1e-3, momentum=0.9)
        optimizer.prepare(params)
        optimizer.state["v"][:] = np.linspace(0.6, 0.9, 20)
        optimizer.step(params, nn.Parameters({"W": (4, 5)}, self.DW.copy()))
        printed(params["W"][0], "0.1406 0.20738947 0.27417895 0.34096842 0.40775789")

    def test_adam(self) -> None:
        params = nn.Parameters({"W": (4, 5)}, self.W.copy())
        optimizer = nn.Adam(1e-2)
        optimizer.prepare(params)
        optimizer.state["m"][:], optimizer.state["v"][:] = np.linspace(0.6, 0.9, 20), np.linspace(0.7, 0.5, 20)
        optimizer.n_steps = 5
        optimizer.step(params, nn.Parameters({"W": (4, 5)}, self.DW.copy()))
        printed(params["W"][0], "-0.40094747 -0.34836187 -0.29577703 -0.24319299 -0.19060977")
        printed(optimizer.state["m"][:5], "0.48 0.49947368 0.51894737 0.53842105 0.55789474")
        printed(optimizer.state["v"][:5], "0.69966 0.68908382 0.67851319 0.66794809 0.65738853")


class TestNNFS:
    """G7. Kinsley and Kukieła, "Neural networks from scratch in Python"."""

    X = np.array([[1, 2, 3, 2.5], [2, 5, -1, 2], [-1.5, 2.7, 3.3, -0.8]])
    W = np.array([[0.2, 0.8, -0.5, 1], [0.5, -0.91, 0.26, -0.5], [-0.26, -0.27, 0.17, 0.87]]).T

    def test_dense_and_relu(self) -> None:
        net = network((self.W, [2, 3, 0.5]), nn.ReLU())
        exact(net.layers[0].forward(self.X)[0], [[4.8, 1.21, 2.385], [8.9, -1.81, 0.2], [1.41, 1.051, 0.026]])
        y, cache = net.forward(self.X)
        _, grads = net.backward(y, cache)
        nn.SGD(0.001).step(net.params, grads)
        printed(net.params["0.W"][0], "0.179515 0.5003665 -0.262746")
        printed(net.params["0.W"][1], "0.742093 -0.9152577 -0.2758402")
        printed(net.params["0.W"][2], "-0.510153 0.2529017 0.1629592")
        printed(net.params["0.W"][3], "0.971328 -0.5021842 0.8636583")
        printed(net.params["0.b"], "1.98489 2.997739 0.497389")

    def test_dense_backward(self) -> None:
        net = network((self.W, [2, 3, 0.5]))
        dx, grads = net.backward(np.array([[1.0] * 3, [2.0] * 3, [3.0] * 3]), [self.X])
        exact(dx, [[0.44, -0.38, -0.07, 1.37], [0.88, -0.76, -0.14, 2.74], [1.32, -1.14, -0.21, 4.11]])
        exact(grads["0.W"], np.repeat([[0.5], [20.1], [10.9], [4.1]], 3, axis=1))
        exact(grads["0.b"], [6, 6, 6])

    def test_softmax_cross_entropy(self) -> None:
        p, y = np.array([[0.7, 0.1, 0.2], [0.1, 0.5, 0.4], [0.02, 0.9, 0.08]]), [0, 1, 1]
        value, cache = nn.SoftmaxCrossEntropy().forward(np.log(p), y)
        exact(value, 0.38506088005216804)
        printed(
            nn.SoftmaxCrossEntropy().backward(cache),
            "-0.1 0.0333333 0.0666667 0.0333333 -0.1666667 0.1333333 0.0066667 -0.0333333 0.0266667",
        )

    def test_neuron(self) -> None:
        net = network(([[-3], [-1], [2]], [1]), nn.ReLU())
        x = np.array([[1.0, -2.0, 3.0]])
        y, cache = net.forward(x)
        exact(y, [[6]])
        nn.SGD(0.001).step(net.params, net.backward(np.ones((1, 1)), cache)[1])
        printed(net.predict(x), "5.985")


def test_cs231n_sigmoid_neuron() -> None:
    """G9. w = (2, -3), b = -3, x = (-1, -2)."""
    net = network(([[2], [-3]], [-3]), nn.Sigmoid())
    y, cache = net.forward(np.array([[-1.0, -2.0]]))
    dx, grads = net.backward(np.ones((1, 1)), cache)
    printed(y, "0.73")
    printed(y, "0.7310585786")
    printed([*grads["0.W"][:, 0], *grads["0.b"]], "-0.20 -0.39 0.20")
    printed([*grads["0.W"][:, 0], *grads["0.b"]], "-0.1966119332 -0.3932238665 0.1966119332")
    printed(dx, "0.39 -0.59")
    printed(dx, "0.3932238665 -0.5898357997")
