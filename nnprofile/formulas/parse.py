"""Read a formula that is written in Python's syntax as an expression.

``x`` alone is the element x[n, j]; ``sum(i, x[n, i] * W[i, j])`` is a sum over the letter i; ``x > 0`` is 1 where it holds, else
0. Other names are numbers: a setting of the object that owns the formula, such as ``negative_slope``, or ``K``, how many columns
there are. Letters: n counts rows, i columns of x, j columns of y, k columns of y once more.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from math import pi
from typing import Any

from .expression import Binary, Call, Constant, Element, Expression, Negative, Square, Sum, call

# How many arguments each takes.
FUNCTIONS = {**dict.fromkeys(("exp", "log", "tanh", "sqrt", "erfc", "abs", "sign"), 1), "max": 2}
_OPERATORS: dict[type, str] = {ast.Add: "+", ast.Sub: "−", ast.Mult: "·", ast.Div: "/"}
_COMPARISONS: dict[type, str] = {ast.Gt: ">", ast.LtE: "≤"}
_SYMBOLS = {
    **{"negative_slope": "c", "delta": "δ", "epsilon": "ε", "pi": "π", "n_samples": "N"},
    **{"learning_rate": "η", "weight_decay": "δ", "momentum": "μ", "beta1": "β₁", "beta2": "β₂"},
}
_METHODS = ("forward", "backward", "_slope", "sample_losses", "step", "_move")  # what a formula speaks of


def formula_of(obj: object) -> Mapping[str, str]:
    """Return ``obj.formula``; none, if a subclass has changed what the formula speaks of, and has not changed the formula."""
    for cls in (obj, *type(obj).__mro__):
        if "formula" in vars(cls):
            return obj.formula  # type: ignore[attr-defined,no-any-return]
        if any(method in vars(cls) for method in _METHODS):
            break
    return {}


def parse(
    text: str,
    quantity: Callable[[str], str | Expression],
    owner: object = None,
    *,
    sizes: Mapping[str, int],
    numbers: Mapping[str, float] | None = None,
    index: tuple[str, ...] = ("n", "j"),
) -> Expression:
    """Return a formula as an expression.

    Parameters
    ----------
    text : str
    quantity : function (str) -> str or Expression
        What a name of the formula, such as "x" or "dW", is called elsewhere, or is made of; a KeyError, if it is a number's name.
    owner : object
        Its attributes are numbers of the formula.
    sizes : mapping of str to int
        How far each letter runs.
    numbers : mapping of str to float, optional
        More numbers.
    index : tuple of str
        The letters of a quantity that is written without any.

    Raises
    ------
    ValueError
        If the text is not a formula; the message says at what.
    """
    known = {"pi": pi, **({"K": sizes["k"]} if "k" in sizes else {}), **(numbers or {})}

    def named(name: str, letters: tuple[str, ...]) -> Expression:
        unknown = [letter for letter in letters if letter not in (*sizes, *index) and not letter.isdigit()]
        if unknown:
            raise ValueError(f"a formula has the letters {', '.join({*sizes, *index})}, no {unknown[0]!r}: {text}")
        try:
            found = quantity(name)
        except KeyError:
            if letters is not index:
                raise ValueError(f"{name!r} is no quantity with indices: {text}") from None
            value = known.get(name, getattr(owner, name, None))
            if not isinstance(value, (int, float)):
                raise ValueError(f"{name!r} is neither a quantity nor a number of {owner!r}: {text}") from None
            return Constant(_SYMBOLS.get(name, name), float(value))
        return Element(found, letters) if isinstance(found, str) else found

    def read(node: ast.expr) -> Expression:
        match node:
            case ast.Constant(value=int() | float() as number):
                return Constant(f"{number:g}", float(number))
            case ast.Name(id=name):
                return named(name, index)
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Tuple(elts=letters)):
                return named(name, tuple(map(ast.unparse, letters)))
            case ast.Subscript(value=ast.Name(id=name), slice=letter):
                return named(name, (ast.unparse(letter),))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Negative(read(operand))
            case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
                return _power(read(base), exponent, known)
            case ast.BinOp(left=left, op=ast.Div(), right=ast.Name(id="K")) if known.get("K") == 1:
                return read(left)
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
                return Binary(_OPERATORS[type(operator)], read(left), read(right))
            case ast.Compare(left=left, ops=[operator], comparators=[right]) if type(operator) in _COMPARISONS:
                return call(_COMPARISONS[type(operator)], read(left), read(right))
            case ast.Call(func=ast.Name(id="sum"), args=[ast.Name(id=letter), body], keywords=[]):
                return Sum(letter, sizes[letter], read(body))
            case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]) if FUNCTIONS.get(function) == len(
                arguments
            ):
                return Call(function, tuple(map(read, arguments)))
        raise ValueError(
            f"a formula has no {ast.unparse(node)!r}, but + - * / **2, > <=, sum(letter, ...) and {', '.join(FUNCTIONS)}: {text}"
        )

    try:
        return read(ast.parse(text, mode="eval").body)
    except (SyntaxError, AttributeError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"this is no formula: {text!r} ({error})") from error


def _power(base: Expression, exponent: Any, known: Mapping[str, float]) -> Expression:
    if isinstance(exponent, ast.Constant) and exponent.value == 2:
        return Square(base)
    if isinstance(exponent, ast.Name) and exponent.id == "t" and isinstance(base, Constant):
        return Constant(f"{base.symbol}ᵗ", base.number ** known["t"])
    raise ValueError(f"a formula has squares, and powers with t of a number, no ** {ast.unparse(exponent)}")


def free_letters(e: Expression) -> tuple[str, ...]:
    """Return the letters that an expression depends on, in the order n, i, j, k."""
    return tuple(sorted(_letters(e), key="nijk".find))


def _letters(e: Any) -> set[str]:
    if isinstance(e, Element):
        return {letter for letter in e.index if not letter.isdigit()}
    if isinstance(e, Sum):
        return _letters(e.body) - {e.index}
    if isinstance(e, Call):
        return {letter for argument in e.arguments for letter in _letters(argument)}
    parts = (getattr(e, name, None) for name in ("left", "right", "argument", "base"))
    return {letter for part in parts if part is not None for letter in _letters(part)}
