"""Read a displayed formula such as "0.05·0.15 + (−0.1)·0.2 + 0.35" and compute it, with a bound on its rounding.

It shares nothing with the code that writes the formulas: text in, number out.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass

EPS = 2.3e-16


@dataclass
class Bounded:
    """A number and how far rounding, or a shortened display, may have moved it."""

    value: float
    error: float = 0.0

    def rounded(self, value: float, error: float) -> Bounded:
        return Bounded(value, error + EPS * abs(value))


def _call(name: str, arguments: list[Bounded]) -> Bounded:
    a = arguments[0]
    if name == "exp":
        value = math.exp(a.value) if a.value < 709.7 else math.inf
        return Bounded(value, value * (math.expm1(min(a.error, 700)) + 4 * EPS))
    if name == "log":
        value = math.log(a.value) if a.value > 0 else -math.inf
        return Bounded(value, a.error / a.value * 2 + 4 * EPS * abs(value) if a.value > 0 else 0.0)
    if name == "tanh":
        return Bounded(math.tanh(a.value), a.error + 4 * EPS)
    if name == "sqrt":
        value = math.sqrt(a.value)
        return Bounded(value, (a.error / (2 * value) if value else math.sqrt(a.error)) + 2 * EPS * value)
    if name == "erfc":
        value = math.erfc(a.value)
        return Bounded(value, a.error * 2 * math.exp(-(max(abs(a.value) - a.error, 0) ** 2)) + 4 * EPS * value)
    if name == "max":
        return Bounded(max(a.value, arguments[1].value), max(a.error, arguments[1].error))
    if name == "abs":
        return Bounded(abs(a.value), a.error)
    if name == "sign":
        return Bounded(float((a.value > 0) - (a.value < 0)))
    raise AssertionError(f"no function {name}")


def _evaluate(node: ast.expr, shown: float) -> Bounded:
    if isinstance(node, ast.Constant):
        value = float(node.value)
        return Bounded(value, shown * abs(value))
    if isinstance(node, ast.UnaryOp):
        inner = _evaluate(node.operand, shown)
        return Bounded(-inner.value, inner.error)
    if isinstance(node, ast.Call):
        return _call(node.func.id, [_evaluate(argument, shown) for argument in node.args])  # type: ignore[attr-defined]
    if isinstance(node, ast.List):  # [a > b]
        (test,) = node.elts
        left, right = _evaluate(test.left, shown), _evaluate(test.comparators[0], shown)  # type: ignore[attr-defined]
        true = left.value > right.value if isinstance(test.ops[0], ast.Gt) else left.value <= right.value  # type: ignore[attr-defined]
        return Bounded(float(true))
    assert isinstance(node, ast.BinOp), ast.dump(node)
    a, b = _evaluate(node.left, shown), _evaluate(node.right, shown)
    if isinstance(node.op, ast.Add | ast.Sub):
        sign = 1 if isinstance(node.op, ast.Add) else -1
        return a.rounded(a.value + sign * b.value, a.error + b.error)
    if isinstance(node.op, ast.Mult):
        if 0 in (a.value, b.value) and math.inf in (abs(a.value), abs(b.value)):
            return Bounded(0.0)  # 0 · log 0 is 0 here
        return a.rounded(a.value * b.value, abs(a.value) * b.error + abs(b.value) * a.error + a.error * b.error)
    if isinstance(node.op, ast.Div):
        if math.isinf(b.value):
            return Bounded(0.0, EPS)
        value = a.value / b.value
        return a.rounded(value, (a.error + abs(value) * b.error) / max(abs(b.value) - b.error, 1e-300))
    assert isinstance(node.op, ast.Pow)
    return a.rounded(a.value**2, 2 * abs(a.value) * a.error + a.error**2)


def compute(text: str, digits: int = 17) -> Bounded:
    """Compute the text; ``digits`` is how many significant ones its numbers are shown with."""
    text = re.sub(r"\(\d+ more: ([^()]*|\([^()]*\))\)", r"(\1)", text)
    text = re.sub(r"\|([^|]*)\|", r"abs(\1)", text)
    text = text.replace("·", "*").replace("−", "-").replace("²", "**2").replace("≤", "<=").replace("…", "")
    tree = ast.parse(text.strip(), mode="eval")
    # Even with 17 digits a displayed number is a rounded one: what the library made of it may have had the last bit right.
    return _evaluate(tree.body, EPS / 2 if digits >= 17 else 0.5 * 10.0 ** (1 - digits))


def holds(text: str, value: float, digits: int = 17) -> bool:
    """Tell whether the formula gives the value, to rounding."""
    found = compute(text, digits)
    shown = 0.0 if digits >= 17 else 0.5 * 10.0 ** (1 - digits) * abs(value)
    return abs(found.value - value) <= 8 * found.error + 4 * EPS * abs(value) + shown + 1e-300
