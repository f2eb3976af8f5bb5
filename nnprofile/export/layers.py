"""How each layer is written: one row a layer, as nodes of an ONNX graph and as C.

A new layer that can be exported is one more row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..contract import Layer
from ..estimators.losses import Exp
from ..layers import Dense, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh


class Graph(Protocol):
    """Where ONNX nodes are added; all return the name of what they made."""

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Add an array, of the graph's dtype unless another is given."""


class Form(NamedTuple):
    """A layer as ONNX nodes and as C."""

    onnx: Callable[[Any, Any, str], str]  # (graph, layer, name of x) -> name of y
    c: str  # an expression in x, number by number; of Dense and Softmax, the name of a function over a row


FORMS: dict[type[Layer], Form] = {
    Dense: Form(
        lambda g, layer, x: g.add("Gemm", x, *(g.constant(layer.params[name]) for name in ("W", "b"))),
        "dense",
    ),
    ReLU: Form(lambda g, layer, x: g.add("Relu", x), "x <= 0 ? 0 : x"),
    LeakyReLU: Form(
        # Not the operator LeakyRelu, which knows its slope in float32 only.
        lambda g, layer, x: g.add("Max", x, g.add("Mul", x, g.constant(layer.negative_slope))),
        "x > 0 ? x : {negative_slope} * x",
    ),
    Sigmoid: Form(
        # Not the operator Sigmoid, which makes small probabilities 0 in ONNX Runtime.
        lambda g, layer, x: g.add("Reciprocal", g.add("Add", g.add("Exp", g.add("Neg", x)), g.constant(1.0))),
        "1 / (1 + exp(-x))",
    ),
    Tanh: Form(lambda g, layer, x: g.add("Tanh", x), "tanh(x)"),
    Exp: Form(lambda g, layer, x: g.add("Exp", x), "exp(x)"),
    Softmax: Form(lambda g, layer, x: g.add("Softmax", x, axis=1), "softmax"),
}
