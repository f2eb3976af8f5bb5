"""Ready examples: a network out of an article that we correct, and two published ones with their printed digits beside ours.

What was printed is kept as text, so that "agrees" means: to the last printed digit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from ..contract import Array, Layer, Loss, Optimizer
from ..formulas.expression import PLAIN
from ..layers import Dense, ReLU, Sequential, Sigmoid, Tanh
from ..losses import HalfSquaredError, SigmoidCrossEntropy, SoftmaxCrossEntropy
from ..objectives import objective
from ..optimizers import SGD
from .record import Record
from .traces import Trace, trace


@dataclass(frozen=True)
class At:
    """The place of a number in a trace."""

    name: str
    index: tuple[int, ...]

    def __call__(self, found: Record) -> float:
        """Return the number."""
        return float(found[self.name].value[self.index])

    def __str__(self) -> str:
        return PLAIN.element(self.name, list(self.index))


@dataclass(frozen=True)
class Printed:
    """A number as it was printed.

    Attributes
    ----------
    label : str
        What the source calls it.
    text : str
        As printed.
    value : function (Record) -> float
        Ours.
    note : str
        Why they differ, where they do.
    """

    label: str
    text: str
    value: Callable[[Record], float]
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """A printed number beside ours: how many units of its last digit they differ by; up to 0.5 is rounding."""

    label: str
    here: str
    printed: str
    ours: float
    units: float
    note: str

    @property
    def agrees(self) -> bool:
        """Whether ours rounds to what was printed."""
        return self.units <= 0.5000001


@dataclass(frozen=True)
class Preset:
    """An example: how to make it, where it is from, and what was printed there."""

    key: str
    title: str
    intro: str
    make: Callable[[], tuple[Sequential, Loss, Array, Array, Optimizer]]
    frozen: tuple[str, ...] = ()
    printed: tuple[Printed, ...] = ()
    errata: tuple[str, ...] = field(default=())

    def trace(self) -> Trace:
        """Trace the example's step."""
        net, loss, x, y, optimizer = self.make()
        return trace(net, loss, x, y, optimizer, frozen=self.frozen)

    def compare(self, found: Record) -> list[Comparison]:
        """Put the printed numbers beside ours."""
        out = []
        for p in self.printed:
            ours = float(p.value(found))
            digits = len(p.text.partition(".")[2])
            here = str(p.value) if isinstance(p.value, At) else ""
            out.append(Comparison(p.label, here, p.text, ours, abs(ours - float(p.text)) * 10.0**digits, p.note))
        return out


def network(*layers: Any) -> Sequential:
    """Make a network of activations and of (W, b) pairs."""
    made: list[Layer] = []
    for layer in layers:
        if not isinstance(layer, Layer):
            W, b = layer
            layer = Dense(*np.shape(W))
            layer.params["W"], layer.params["b"] = W, b
        made.append(layer)
    return Sequential(made, rng=None)


def _at(name: str, *index: int) -> At:
    return At(name, index)


def _document() -> tuple[Sequential, Loss, Array, Array, Optimizer]:
    first = (
        [[0.1, -0.2, 0.3, -0.4, 0.5], [0.6, 0.4, -0.5, 0.3, -0.1], [-0.3, 0.2, 0.7, 0.1, 0.4]],
        [0.3, 0.0, -0.1, 0.2, 0.0],
    )
    second = ([[0.4, -0.6], [-0.3, 0.5], [0.8, 0.2], [0.1, -0.7], [-0.5, 0.3]], [0.1, -0.2])
    net = network(first, Sigmoid(), second, Sigmoid())
    return net, HalfSquaredError(), np.array([[0.5, 0.2, 0.9]]), np.array([[1.0, 0.0]]), SGD(0.5)


def _mazur() -> tuple[Sequential, Loss, Array, Array, Optimizer]:
    first, second = ([[0.15, 0.25], [0.20, 0.30]], [0.35, 0.35]), ([[0.40, 0.50], [0.45, 0.55]], [0.60, 0.60])
    net = network(first, Sigmoid(), second, Sigmoid())
    return net, HalfSquaredError(), np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]]), SGD(0.5)


def _cs231n() -> tuple[Sequential, Loss, Array, Array, Optimizer]:
    first = ([[0.18, 0.04], [0.1, 0.22]], [0.0, 0.0])
    second = ([[0.19, -0.1, 0.1], [-0.02, -0.01, 0.04]], [0.0, 0.0, 0.0])
    return network(first, ReLU(), second), SoftmaxCrossEntropy(), np.array([[16.0, -6.0]]), np.array([2]), SGD(0.01)


def _xor() -> tuple[Sequential, Loss, Array, Array, Optimizer]:
    first, second = ([[0.8, -0.5, 0.3], [-0.6, 0.9, 0.4]], [0.1, 0.0, -0.2]), ([[0.7], [0.5], [-0.9]], [0.1])
    x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return network(first, Tanh(), second), SigmoidCrossEntropy(), x, np.array([0, 1, 1, 0]), SGD(0.5)


@cache
def _mazur_after(n_steps: int) -> tuple[float, float, float]:
    """Return the loss and the outputs of Mazur's network after that many steps."""
    net, loss, x, y, optimizer = _mazur()
    for _ in range(n_steps):
        _, grads = objective(net, loss, x, y)
        grads["0.b"][:] = grads["2.b"][:] = 0
        optimizer.step(net.params, grads)
    (o1, o2) = net.predict(x)[0]
    return float(objective(net, loss, x, y)[0]), float(o1), float(o2)


_EARLY = (
    "The post's program, in the version that printed this, updates w5 to w8 before the gradient has passed through them; "
    "the break-it switch “updated weights in backward” shows its number."
)
_EARLY_TOO = "The same cause, 10,000 steps long."
_ROUNDED = "The source multiplied numbers that it had rounded to 12 digits before."

PRESETS = {
    preset.key: preset
    for preset in (
        Preset(
            "document",
            "A 3-5-2 network of sigmoids with ½ (y − t)², after an article whose formulas we correct",
            "An article whose formulas we correct describes this network in symbols; the numbers here are ours. Two of its "
            "faults can be switched on under “break it”: the factor 2, and the missing weights between the layers.",
            _document,
        ),
        Preset(
            "mazur",
            "Mazur's example: 2-2-2, sigmoid, one step with learning rate 0.5",
            "Matt Mazur, “A step by step backpropagation example” (2015). The biases stay as they are, as in the post.",
            _mazur,
            frozen=("*.b",),
            printed=(
                Printed("net h1", "0.3775", _at("z1", 0, 0)),
                Printed("out h1", "0.593269992", _at("a1", 0, 0)),
                Printed("out h2", "0.596884378", _at("a1", 0, 1)),
                Printed("net o1", "1.105905967", _at("z2", 0, 0)),
                Printed("out o1", "0.75136507", _at("y", 0, 0)),
                Printed("out o2", "0.772928465", _at("y", 0, 1)),
                Printed("E total", "0.298371109", _at("L")),
                Printed("∂E/∂out o1", "0.74136507", _at("dy", 0, 0)),
                Printed("∂out o1/∂net o1", "0.186815602", _at("s2", 0, 0)),
                Printed("δ o1", "0.138498562", _at("dz2", 0, 0)),
                Printed("∂E/∂w5", "0.082167041", _at("dW2", 0, 0)),
                Printed("w5 after", "0.35891648", _at("W2+", 0, 0)),
                Printed("w6 after", "0.408666186", _at("W2+", 1, 0)),
                Printed("w7 after", "0.511301270", _at("W2+", 0, 1)),
                Printed("w8 after", "0.561370121", _at("W2+", 1, 1)),
                Printed("∂E/∂out h1", "0.036350306", _at("da1", 0, 0)),
                Printed("∂out h1/∂net h1", "0.241300709", _at("s1", 0, 0)),
                Printed("∂E/∂w1", "0.000438568", _at("dW1", 0, 0)),
                Printed("w1 after", "0.149780716", _at("W1+", 0, 0)),
                Printed("w2 after", "0.19956143", _at("W1+", 1, 0)),
                Printed("w3 after", "0.24975114", _at("W1+", 0, 1)),
                Printed("w4 after", "0.29950229", _at("W1+", 1, 1)),
                Printed("E after one step", "0.291027924", _at("L+"), _EARLY),
                Printed("E after 10,000 steps", "0.000035085", lambda _: _mazur_after(10_000)[0], _EARLY_TOO),
                Printed("out o1 after 10,000 steps", "0.015912196", lambda _: _mazur_after(10_000)[1], _EARLY_TOO),
                Printed("out o2 after 10,000 steps", "0.984065734", lambda _: _mazur_after(10_000)[2], _EARLY_TOO),
            ),
            errata=(
                "The numbers up to the new weights are right. The last four come from an earlier version of the post's program: "
                "its backward pass used weights that had been updated already. With the weights of the forward pass the loss "
                "after one step is 0.291027774, not 0.291027924. Float precision does not explain it.",
            ),
        ),
        Preset(
            "cs231n",
            "CS231n's two-layer network: 2-2-3, ReLU, softmax with cross-entropy",
            "A worked example of the two-layer network of Stanford's CS231n, published with 12 digits. It takes no step; the "
            "update here is ours. Hidden unit 1 is off: nothing flows through it.",
            _cs231n,
            printed=(
                *(
                    Printed(f"hidden {j} before ReLU", text, _at("z1", 0, j))
                    for j, text in enumerate(("2.28", "-0.68"))
                ),
                *(Printed(f"score {j}", text, _at("z2", 0, j)) for j, text in enumerate(("0.4332", "-0.228", "0.228"))),
                Printed("loss", "1.051375468504", _at("L")),
                *(
                    Printed(f"dscores[{j}]", text, _at("dz2", 0, j))
                    for j, text in enumerate(("0.429052723714", "0.221490524653", "-0.650543248367"))
                ),
                *(
                    Printed(f"dW2[0,{j}]", text, _at("dW2", 0, j), _ROUNDED)
                    for j, text in enumerate(("0.978240210068", "0.504998396209", "-1.483238606277"))
                ),
                *(
                    Printed(f"dh1[{j}]", text, _at("da1", 0, j))
                    for j, text in enumerate(("-0.005683359796", "-0.036817689655"))
                ),
                Printed("db1[0]", "-0.005683359796", _at("db1", 0)),
                Printed("db1[1]", "0", _at("db1", 1)),
                Printed("dW1[0,0]", "-0.090933756736", _at("dW1", 0, 0), _ROUNDED),
                Printed("dW1[1,0]", "0.034100158776", _at("dW1", 1, 0), _ROUNDED),
            ),
            errata=(
                "Where the last digit differs, the source went on with rounded numbers: 16 times a rounding of half a unit is up "
                "to 8 units.",
            ),
        ),
        Preset(
            "xor",
            "XOR: 2-3-1, tanh, four rows at once",
            "Four rows in one batch: every gradient of a parameter is a sum over rows, and the loss a mean over rows.",
            _xor,
        ),
    )
}
