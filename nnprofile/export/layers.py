"""How each layer is written, as nodes of an ONNX graph and as C: from its formula, if it works element by element.

A layer that mixes the numbers of a row has one row in the table below, and a C function of its name in ``c_header``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

import numpy as np

from ..contract import Layer
from ..formulas import formula_of, parse
from ..formulas.expression import Binary, Call, Constant, Element, Expression, Negative, Square
from ..formulas.parse import free_letters
from ..functions import NORMAL_TAIL
from ..layers import (
    GRU,
    Dense,
    Dropout,
    Embedding,
    Identity,
    LastEvent,
    LayerNorm,
    Parallel,
    ReLU,
    Residual,
    Sequential,
    Softmax,
    Tied,
)
from ..layers.compose import is_open, kind_of
from . import over_time


class Graph(Protocol):
    """Where ONNX nodes are added; all return the name of what they made."""

    dtype: np.dtype[Any]

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Add an array, of the graph's dtype unless another is given."""


# (graph, layer, name of x) -> name of y
NODES: dict[type[Layer], Callable[[Any, Any, str], str]] = {
    **over_time.NODES,
    Dense: lambda g, layer, x: g.add("Gemm", x, *(g.constant(layer.params[name]) for name in ("W", "b"))),
    ReLU: lambda g, layer, x: g.add("Relu", x),
    Softmax: lambda g, layer, x: g.add("Softmax", x, axis=1),
    LayerNorm: lambda g, layer, x: _layer_norm(g, layer, x),
    Tied: lambda g, layer, x: _tied(g, layer, x),
}
ROW_FUNCTIONS: dict[type[Layer], str] = {Dense: "dense", LayerNorm: "layer_norm", Softmax: "softmax"}  # in C
EVENT_FUNCTIONS: dict[type[Layer], str] = {
    GRU: "gru",
    Embedding: "",
    LastEvent: "",
}  # in C, of one event after the other
DO_NOTHING: tuple[type[Layer], ...] = (Dropout, Identity)  # when they predict
_OPERATORS = {"+": "Add", "−": "Sub", "·": "Mul", "/": "Div"}
_FUNCTIONS = {"exp": "Exp", "log": "Log", "tanh": "Tanh", "sqrt": "Sqrt", "max": "Max", "abs": "Abs", "sign": "Sign"}
_COMPARISONS = {">": "Greater", "≤": "LessOrEqual"}
_ADD, _MULTIPLY, _ATOM = 1, 2, 3  # how tightly an expression holds together


def without_form(layer: Layer, known: Collection[type[Layer]]) -> Layer | None:
    """Return the first layer, this or one inside it, that is neither one of these nor works element by element."""
    if is_open(layer) or (isinstance(layer, Tied) and type(layer) in known):
        return next((found for child in layer.children if (found := without_form(child, known)) is not None), None)
    works_alone = {"y", "slope"} <= formula_of(layer).keys() and not len(layer.params)
    return None if type(layer) in (*known, *DO_NOTHING) or works_alone else layer


def expression_of(layer: Layer) -> Expression:
    """Return y of an elementwise layer as an expression in x[n, j].

    Raises
    ------
    ValueError
        If the formula is none in x[n, j] alone, or does not give what the layer's forward does.
    """
    text = formula_of(layer)["y"]
    e = parse(text, {"x": "x"}.__getitem__, layer, sizes={})
    if free_letters(e) != ("n", "j"):
        raise ValueError(f"{layer!r} can't be exported: its formula for y is no function of x[n, j]: {text}")
    points = np.array([[-2.5, -1.0, -0.3, 0.4, 1.0, 3.0]])
    with np.errstate(all="ignore"):
        given = np.array(
            [[e.value({"n": 0, "j": j}, lambda _, index: float(points[index])) for j in range(points.size)]]
        )
        computed, _ = layer.forward(points)
    if not np.allclose(given, computed, rtol=1e-6, atol=1e-9, equal_nan=True):
        raise ValueError(f"{layer!r} can't be exported: its formula for y, {text}, does not give what its forward does")
    return e


def add_nodes(g: Graph, layer: Layer, x: Any) -> str:
    """Add the nodes of a layer to a graph; return the name of y."""
    if is_open(layer):
        return _branches(g, layer, x)
    if type(layer) in DO_NOTHING:
        return str(x)
    if type(layer) in NODES:
        return NODES[type(layer)](g, layer, x)
    return _nodes(expression_of(layer), g, x)


def _tied(g: Graph, layer: Tied, x: str) -> str:
    for child in layer.children:
        x = add_nodes(g, child, x)
    return g.add("Gemm", x, *(g.constant(layer.head.params[name]) for name in ("W", "b")))


def _branches(g: Graph, layer: Layer, x: Any) -> str:
    """Add the nodes of a composite; x is a name, or, of Parallel, a tuple of names."""
    if kind_of(layer) is Sequential:
        for child in layer.children:
            x = add_nodes(g, child, x)
        return str(x)
    if kind_of(layer) is Residual:
        return g.add("Add", x, add_nodes(g, layer.children[0], x))
    given = x if kind_of(layer) is Parallel else [x] * len(layer.children)
    return g.add("Concat", *(add_nodes(g, *pair) for pair in zip(layer.children, given, strict=True)), axis=1)


def _nodes(e: Expression, g: Graph, x: str) -> str:
    match e:
        case Element():
            return x
        case Constant(number=number):
            return g.constant(number)
        case Negative(argument=argument):
            return g.add("Neg", _nodes(argument, g, x))
        case Square(base=base):
            root = _nodes(base, g, x)
            return g.add("Mul", root, root)
        case Binary(operator=operator, left=left, right=right):
            return g.add(_OPERATORS[operator], _nodes(left, g, x), _nodes(right, g, x))
        case Call(function="erfc", arguments=(argument,)):
            return _erfc(g, _nodes(argument, g, x))
        case Call(function=function, arguments=arguments) if function in _COMPARISONS:
            truth = g.add(_COMPARISONS[function], *(_nodes(argument, g, x) for argument in arguments))
            return g.add("CastLike", truth, g.constant(0.0))
        case Call(function=function, arguments=arguments):
            return g.add(_FUNCTIONS[function], *(_nodes(argument, g, x) for argument in arguments))
    raise AssertionError(f"an elementwise formula has no {e!r}")


def _layer_norm(g: Graph, layer: LayerNorm, x: str) -> str:
    """Add the nodes of a LayerNorm: ONNX's own knows its epsilon in float32 only."""
    apart = g.add("Sub", x, g.add("ReduceMean", x, axes=[1]))
    variance = g.add("ReduceMean", g.add("Mul", apart, apart), axes=[1])
    h = g.add("Div", apart, g.add("Sqrt", g.add("Add", variance, g.constant(layer.epsilon_in(g.dtype)))))
    g_, b = (g.constant(layer.params[name]) for name in ("g", "b"))
    return g.add("Add", g.add("Mul", h, g_), b)


def _erfc(g: Graph, x: str) -> str:
    """Add erfc(x) by ``NORMAL_TAIL``: 1 - Erf(x) would lose its digits, and ONNX Runtime has no Erf of float64."""
    u = g.add("Mul", g.add("Abs", x), g.constant(2**0.5))
    to_four, four = g.add("Sub", u, g.constant(4.0)), g.add("Add", u, g.constant(4.0))
    t, p = g.add("Div", to_four, four), g.constant(NORMAL_TAIL[-1])
    for coefficient in NORMAL_TAIL[-2::-1]:
        p = g.add("Add", g.add("Mul", p, t), g.constant(coefficient))
    density = g.add("Exp", g.add("Neg", g.add("Mul", x, x)))
    tail = g.add("Mul", g.add("Mul", density, g.constant(2.0)), g.add("Div", p, four))
    return g.add("Where", g.add("Less", x, g.constant(0.0)), g.add("Sub", g.constant(2.0), tail), tail)


def c_expression(e: Expression, x: str, number: Callable[[float], str], f: str) -> str:
    """Return an elementwise formula in C; x is what stands for its x, ``f`` the end of the functions' names."""

    def write(e: Expression, level: int = _ADD) -> str:
        match e:
            case Element():
                return x
            case Constant(number=value):
                return number(value)
            case Negative(argument=argument):
                text = f"-{write(argument, _MULTIPLY)}"
            case Square(base=base):
                return f"({write(base, _ATOM)} * {write(base, _ATOM)})"
            case Binary(operator=operator, left=left, right=right):
                sign = {"−": "-", "·": "*"}.get(operator, operator)
                text = f"{write(left, e.level)} {sign} {write(right, e.level + (operator in '−/'))}"
            case Call(function=">" | "≤" as sign, arguments=(left, right)):
                return f"({write(left)} {'<=' if sign == '≤' else sign} {write(right)} ? {number(1)} : {number(0)})"
            case Call(function="max", arguments=(left, right)):  # so that NaN stays NaN
                a, b = (right, left) if isinstance(left, Constant) else (left, right)
                is_nan = "" if isinstance(b, Constant) else f" || {write(b)} != {write(b)}"
                text = f"{write(a)} <= {write(b)}{is_nan} ? {write(b)} : {write(a)}"
                return text if level == 0 else f"({text})"
            case Call(function="sign", arguments=(argument,)):
                z, zero = write(argument), number(0)
                return f"({z} > {zero} ? {number(1)} : {z} < {zero} ? {number(-1)} : {z})"
            case Call(function=function, arguments=(argument,)):
                return f"{'fabs' if function == 'abs' else function}{f}({write(argument)})"
            case _:
                raise AssertionError(f"an elementwise formula has no {e!r}")
        return text if e.level >= level else f"({text})"

    return write(e, 0)
