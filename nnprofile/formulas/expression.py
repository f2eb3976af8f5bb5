"""A formula for one element, as a tree: shown with its symbols, or with the numbers in their places.

``Sum("i", 3, x["n", "i"] * W["i", "j"]) + b["j"]`` is what a reader sees as "Σᵢ x[n,i]·W[i,j] + b[j]", and for n = 0, j = 1
as "0.05·0.25 + 0.1·0.3 + 0.35". Both come from one list of tokens, which the page expands in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import erfc, fsum
from typing import Any

import numpy as np

Token = Any  # a string, or one of the lists that ``Expression.tokens`` returns
Lookup = Callable[[str, tuple[int, ...]], float]
_ADD, _MULTIPLY, _ATOM = 1, 2, 3  # how tightly an expression holds together
MAX_TERMS, KEPT_TERMS = 16, 6  # a longer sum is shown by its largest terms
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


_OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "−": lambda a, b: a - b,
    "·": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else np.float64(a) / b,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sqrt": np.sqrt,
    "erfc": erfc,
    "max": max,
    "abs": abs,
    "sign": np.sign,
    ">": lambda a, b: a > b,
    "≤": lambda a, b: a <= b,
}


def total(terms: list[float]) -> float:
    """Return the sum, rounded once; inf or nan where it overflows."""
    try:
        return fsum(terms)
    except (OverflowError, ValueError):
        return float(np.sum(terms))


class Expression:
    """Anything that has a value for given indices."""

    level = _ATOM

    def tokens(self) -> list[Token]:
        """Return what is shown, in order: strings, and lists for what depends on the indices.

        ["r", name, index, protect] is an element of a quantity, in parentheses if it is negative and ``protect`` is set;
        ["c", symbol, value] a constant; ["s", index, size, tokens] a sum.
        """
        raise NotImplementedError

    def value(self, at: Mapping[str, int], lookup: Lookup) -> float:
        """Return the value at these indices."""
        raise NotImplementedError

    def abridged(self, at: Mapping[str, int], lookup: Lookup) -> Expression:
        """Return the expression with the long sums in it cut down to their largest terms, and the rest in one number."""
        return self

    def __add__(self, other: Operand) -> Expression:
        return Binary("+", self, _expression(other))

    def __radd__(self, other: Operand) -> Expression:
        return Binary("+", _expression(other), self)

    def __sub__(self, other: Operand) -> Expression:
        return Binary("−", self, _expression(other))

    def __rsub__(self, other: Operand) -> Expression:
        return Binary("−", _expression(other), self)

    def __mul__(self, other: Operand) -> Expression:
        return Binary("·", self, _expression(other))

    def __rmul__(self, other: Operand) -> Expression:
        return Binary("·", _expression(other), self)

    def __truediv__(self, other: Operand) -> Expression:
        return Binary("/", self, _expression(other))

    def __rtruediv__(self, other: Operand) -> Expression:
        return Binary("/", _expression(other), self)

    def __neg__(self) -> Expression:
        return Negative(self)

    def within(self, level: int) -> list[Token]:
        """Return the tokens, in parentheses if the place holds together more tightly."""
        return self.tokens() if self.level >= level else ["(", *self.tokens(), ")"]


Operand = Expression | float


def _expression(value: Operand) -> Expression:
    return value if isinstance(value, Expression) else Constant(f"{value:g}", float(value))


@dataclass(frozen=True)
class Constant(Expression):
    """A number with a symbol: η = 0.5, N = 4; or a number that is its own symbol."""

    symbol: str
    number: float

    def tokens(self) -> list[Token]:
        """Return the constant."""
        return [["c", self.symbol, self.number]]

    def value(self, at: Mapping[str, int], lookup: Lookup) -> float:
        """Return the number."""
        return self.number


@dataclass(frozen=True)
class Element(Expression):
    """An element of a quantity, ``name[index]``."""

    name: str
    index: tuple[str, ...]
    protect: bool = False

    def tokens(self) -> list[Token]:
        """Return the element."""
        return [["r", self.name, list(self.index), int(self.protect)]]

    def value(self, at: Mapping[str, int], lookup: Lookup) -> float:
        """Look the element up."""
        return lookup(self.name, tuple(int(i) if i.isdigit() else at[i] for i in self.index))


class Quantities:
    """Write ``Quantities("x")["n", "i"]`` for an element of x."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getitem__(self, index: str | tuple[str, ...]) -> Element:
        return Element(self.name, (index,) if isinstance(index, str) else index)


@dataclass(frozen=True)
class Binary(Expression):
    """Two expressions and one of + − · /."""

    operator: str
    left: Expression
    right: Expression

    @property
    def level(self) -> int:  # type: ignore[override]
        """Of the operator."""
        return _ADD if self.operator in "+−" else _MULTIPLY

    def tokens(self) -> list[Token]:
        """Return left, operator, right."""
        between = self.operator if self.level == _MULTIPLY else f" {self.operator} "
        right = self.right.within(self.level + (self.operator in "−/"))
        return [*self.left.within(self.level), between, *right]

    def value(self, at: Mapping[str, int], lookup: Lookup) -> float:
        """Return left operator right."""
        return _OPERATORS[self.operator](self.left.value(at, lookup), self.right.value(at, lookup))

    def abridged(self, at: Mapping[str, int], lookup: Lookup) -> Expression:
        """Abridge both sides."""
        return Binary(self.operator, self.left.abridged(at, lookup), self.right.abridged(at, lookup))


@dataclass(frozen=True)
class Negative(Expression):
    """−argument."""

    argument: Expression
    level = _ADD

    def tokens(self) -> list[Token]:
        """Return the sign and the argument."""
        return ["−", *self.argument.within(_MULTIPLY)]

    def value(self, at: Mapping[str, int], lookup: Lookup) -> float:
        """Return −argument."""
        return -self.argument.value(at, lookup)

    def abridged(self, at: Mapping[str, int], lookup: Lookup) -> Expression:
        """Abridge the argument."""
        return Negative(self.argument.abridged(at, lookup))


@dataclass(frozen=True)
class Square(Expression):
    """base²."""

    base: Expression

    def tokens(self) -> list[Token]:
        """Return the base, in parentheses if it needs them, and ²."""
        base = self.base
        inner = Element(base.name, base.index, protect=True) if isinstance(base, Element) else base
        return [*inner.within(_ATOM), "²"]

    def value(self, at: Mapping[str, int], lookup: Lookup) -> float:
        """Return the square."""
        base = self.base.value(at, lookup)
        return base * base  # which overflows to inf, where ** raises an error


@dataclass(frozen=True)
class Call(Expression):
    """function(arguments), |argument| for abs, and [left > right], which is 1 if it is true and 0 if not, for ">" or "≤"."""

    function: str
    arguments: tuple[Expression, ...]

    def tokens(self) -> list[Token]:
        """Return the function's name and the arguments between brackets."""
        first, *rest = [argument.tokens() for argument in self.arguments]
        if self.function == "abs":
            return ["|", *first, "|"]
        if self.function in (">", "≤"):
            return ["[", *first, f" {self.function} ", *rest[0], "]"]
        return [f"{self.function}(", *first, *(token for argument in rest for token in (", ", *argument)), ")"]

    def value(self, at: Mapping[str, int], lookup: Lookup) -> float:
        """Return the function's value."""
        return float(_FUNCTIONS[self.function](*(argument.value(at, lookup) for argument in self.arguments)))

    def abridged(self, at: Mapping[str, int], lookup: Lookup) -> Expression:
        """Abridge the arguments."""
        return Call(self.function, tuple(argument.abridged(at, lookup) for argument in self.arguments))


def call(function: str, *arguments: Operand) -> Call:
    """Return function(arguments)."""
    return Call(function, tuple(map(_expression, arguments)))


@dataclass(frozen=True)
class Sum(Expression):
    """The sum of body over index = 0 .. size - 1."""

    index: str
    size: int
    body: Expression
    level = _ADD

    def tokens(self) -> list[Token]:
        """Return the sum."""
        body = self.body.tokens() if isinstance(self.body, Sum) else self.body.within(_MULTIPLY)
        return [["s", self.index, self.size, body]]

    def value(self, at: Mapping[str, int], lookup: Lookup) -> float:
        """Return the sum."""
        return total([self.body.value({**at, self.index: i}, lookup) for i in range(self.size)])

    def abridged(self, at: Mapping[str, int], lookup: Lookup) -> Expression:
        """Keep the largest terms, in their order, and sum the rest."""
        if self.size <= MAX_TERMS:
            return self
        terms = [self.body.value({**at, self.index: i}, lookup) for i in range(self.size)]
        largest = sorted(sorted(range(self.size), key=lambda i: -abs(terms[i]))[:KEPT_TERMS])
        rest = total([term for i, term in enumerate(terms) if i not in set(largest)])
        return Terms(self.body, self.index, tuple(largest), self.size - len(largest), rest)


@dataclass(frozen=True)
class Terms(Expression):
    """Some terms of a sum, and the number that the others add up to: "0.3·0.2 + … (506 more: 0.81)"."""

    body: Expression
    letter: str
    kept: tuple[int, ...]
    n_rest: int
    rest: float
    level = _ADD

    def tokens(self) -> list[Token]:
        """Return the terms, and the rest."""
        body = self.body.within(_MULTIPLY)
        shown = [token for i in self.kept for token in (*flat(body, {self.letter: i}, partial=True), " + ")]
        return [*shown, f"({self.n_rest} more: ", ["c", "…", self.rest], ")"]


class Plain:
    """Show with Unicode's letters, as text and as HTML; the counterpart of ``latex.Latex``."""

    def name(self, name: str) -> str:
        """Return z₁ for z1, W₁⁺ for W1+, vW₁⁺ for vW1+."""
        return re.sub(r"\d+", lambda found: found[0].translate(_SUBSCRIPTS), name).replace("+", "⁺")

    def element(self, name: str, index: list[Any]) -> str:
        """Return z₁[n,j]."""
        return self.name(name) + (f"[{','.join(map(str, index))}]" if index else "")

    def number(self, text: str) -> str:
        """Return a number as it is."""
        return text

    def matrix(self, text: str) -> str:
        """Return a formula for whole arrays, "{z1} = {x} {W1} + {b1}", with the names in place."""
        return re.sub(r"\{(.*?)\}", lambda found: self.name(found[1]), text)

    def symbolic(self, expression: Expression) -> str:
        """Return a formula with its symbols."""
        return symbolic(expression.tokens())

    def substituted(
        self, expression: Expression, at: Mapping[str, int], lookup: Lookup, show: Callable[[float], str]
    ) -> str:
        """Return a formula with numbers."""
        return substituted(expression.tokens(), at, lookup, show)


PLAIN = Plain()


def symbolic(tokens: list[Token]) -> str:
    """Return the formula with its symbols."""
    out = ""
    for token in tokens:
        if isinstance(token, str):
            out += token
        elif token[0] == "c":
            out += token[1]
        elif token[0] == "r":
            out += PLAIN.element(token[1], token[2])
        else:
            out += f"Σ_{token[1]} {symbolic(token[3])}"
    return out


def substituted(tokens: list[Token], indices: Mapping[str, int], lookup: Lookup, show: Callable[[float], str]) -> str:
    """Return the formula with numbers: each element looked up, each sum written out."""
    out = ""
    for token in flat(tokens, indices):
        if isinstance(token, str):
            out += token
            continue
        value = token[2] if token[0] == "c" else lookup(token[1], tuple(token[2]))
        text = show(value)
        second = out.endswith((" ", "·", "/", "−")) or (
            token[0] == "r" and token[3]
        )  # beside another sign, or below a ²
        out += f"({text})" if second and text.startswith("−") else text
    return out


def flat(tokens: list[Token], indices: Mapping[str, int], *, partial: bool = False) -> list[Token]:
    """Return strings, constants and elements, with numbers for the letters of the indices, and all sums written out.

    If ``partial``, letters without a number stay.
    """
    out: list[Token] = []
    for token in tokens:
        if isinstance(token, str) or token[0] == "c":
            out.append(token)
        elif token[0] == "r":
            index = [_number(i, indices, partial=partial) for i in token[2]]
            out.append(["r", token[1], index, token[3]])
        else:
            for i in range(token[2]):
                out += [" + "] * (i > 0) + flat(token[3], {**indices, token[1]: i}, partial=partial)
    return out


def _number(letter: Any, indices: Mapping[str, int], *, partial: bool) -> Any:
    if isinstance(letter, int) or (partial and letter not in indices):
        return letter
    return int(letter) if letter.isdigit() else indices[letter]
