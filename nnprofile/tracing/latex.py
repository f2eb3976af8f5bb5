"""LaTeX of a trace: formulas with fractions, matrices, and lines that are no wider than a page.

A formula is printed from its tree into pieces between which a line may break; widths are estimated in points at 10 pt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..formulas.expression import Binary, Call, Constant, Element, Expression, Lookup, Negative, Square, Sum, Terms

if TYPE_CHECKING:
    from ..contract import Array

LINE = 315.0  # points; a page of LaTeX's class article has 345, and each estimate is a little rough
_ADD, _MULTIPLY, _ATOM = 1, 2, 3  # how tightly an expression holds together, as in ``expression``
_MAX_COLUMNS = 10  # of amsmath's matrices

_WORDS = {
    **{"·": r" \cdot ", "−": "-", "²": "^2", "≤": r"\le ", "⊙": r"\odot ", "½": r"\tfrac{1}{2}", "∂": r"\partial "},
    **{"ᵀ": r"^\top", "′": "'", "σ": r"\sigma ", "Σ": r"\sum ", "Δ": r"\Delta ", "…": r"\dots "},
    **{"η": r"\eta ", "λ": r"\lambda ", "μ": r"\mu ", "δ": r"\delta ", "ε": r"\varepsilon "},
    **{"β₁ᵗ": r"\beta_1^t", "β₂ᵗ": r"\beta_2^t", "β₁": r"\beta_1", "β₂": r"\beta_2", "π": r"\pi "},
    **{word: rf"\{word}" for word in ("exp", "log", "max", "tanh")},
    "from": r"\text{ from }",
    **{word: rf"\operatorname{{{word}}}" for word in ("softmax", "lrelu", "relu", "sqrt", "sign", "erfc")},
}
# All words at once, the longest first: "softmax(" holds "max(", and "lrelu" holds "relu". Names may be Chinese.
_LETTERS = r"A-Za-z_\u00c0-\u024f\u2e80-\u9fff"
_SYMBOLS = "|".join(sorted((word for word in _WORDS if not word.isascii()), key=len)[::-1])
_WORD = re.compile(
    rf"Σ_(?P<sum>\w)|(?<![{_LETTERS}])(?P<gate>[a-z]_[a-z])(?![{_LETTERS}])|(?P<name>[{_LETTERS}][0-9{_LETTERS}]{{2,}})|{_SYMBOLS}"
)
_OPERAND = r"(∂?\{[^{}]*\}|\([^()]*\)|[\w\ue000-\uf8ff]+)"
_QUOTIENT, _ROOT = re.compile(rf"{_OPERAND} ?/ ?{_OPERAND}"), re.compile(r"sqrt\(([^()]*)\)")
_PROSE = {"✓": r"$\checkmark$", "✗": r"$\times$", "“": "``", "”": "''", "–": "--", "—": "---", "→": r"$\to$"}
_SPECIAL = {
    "|": "$|$",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
}


class Latex:
    """Show as LaTeX; the counterpart of ``expression.Plain``."""

    def name(self, name: str) -> str:
        """Return z_{1} for z1, W_{1}^{+} for W1+."""
        letters, number, plus = re.fullmatch(r"([A-Za-z]+)(\d+[a-z]*)?(\+?)", name).groups()  # type: ignore[union-attr]
        letters = letters if len(letters) <= 2 else rf"\mathrm{{{letters}}}"
        return letters + (f"_{{{number}}}" if number else "") + ("^{+}" if plus else "")

    def element(self, name: str, index: list[Any]) -> str:
        """Return (z_{1})_{n,j}."""
        if not index:
            return self.name(name)
        base = self.name(name) if re.fullmatch(r"[a-zA-Z]", name) else f"({self.name(name)})"
        return f"{base}_{{{','.join(map(str, index))}}}"

    def rest(self, text: str) -> str:
        """Return any other text: symbols and the names of functions."""

        def word(found: re.Match[str]) -> str:
            if found["sum"]:
                return rf"\sum_{found['sum']}"
            if found["gate"]:
                return str(found["gate"])
            if found["name"]:
                plain = re.sub(r"[^\x00-\u024f]", "?", found["name"]).replace("_", r"\_")
                return _WORDS.get(found["name"], rf"\text{{{plain}}}")
            return _WORDS[found[0]]

        return _WORD.sub(word, text)

    def number(self, text: str) -> str:
        """Return a number: 1.5e−08 is 1.5 · 10⁻⁸."""
        return re.sub(r"e([−-]?)\+?0*(\d+)$", lambda e: rf" \cdot 10^{{{'-' * bool(e[1])}{e[2]}}}", text).replace(
            "−", "-"
        )

    def matrix(self, text: str) -> str:
        """Return a formula for whole arrays, names in braces, with its quotients as fractions and its roots as roots."""
        made: list[str] = []  # each stands in the text as one private character, and is put in at the end

        def keep(latex: str) -> str:
            made.append(latex)
            return chr(0xE000 + len(made) - 1)

        def quotient(found: re.Match[str]) -> str:
            top, bottom = (re.sub(r"^\((.*)\)$", r"\1", found[k]) for k in (1, 2))
            return keep(rf"\frac{{{self._names(top)}}}{{{self._names(bottom)}}}")

        changed = -1
        while changed != len(made):  # from the inside out
            changed = len(made)
            text = _QUOTIENT.sub(quotient, text)
            text = _ROOT.sub(lambda found: keep(rf"\sqrt{{{self._names(found[1])}}}"), text)
        text = self._names(text)
        for k, latex in reversed(list(enumerate(made))):
            text = text.replace(chr(0xE000 + k), latex)
        return text

    def _names(self, text: str) -> str:
        pieces = re.split(r"\{(.*?)\}", text)
        return "".join(self.name(piece) if i % 2 else self.rest(piece) for i, piece in enumerate(pieces))

    def symbolic(self, expression: Expression) -> str:
        """Return a formula with its symbols."""
        return "".join(pieces_of(expression))

    def substituted(
        self, expression: Expression, at: Mapping[str, int], lookup: Lookup, show: Callable[[float], str]
    ) -> str:
        """Return a formula with numbers."""
        return "".join(pieces_of(expression, at, lookup, show))


LATEX = Latex()


def pieces_of(
    expression: Expression,
    at: Mapping[str, int] | None = None,
    lookup: Lookup | None = None,
    show: Callable[[float], str] = str,
) -> list[str]:
    """Return a formula in pieces: with its symbols, or, given indices and numbers, with numbers."""
    return pieces(expression, _Symbols() if at is None or lookup is None else _Numbers(dict(at), lookup, show))


class _Symbols:
    """Leaves as symbols; sums with their sign."""

    def leaf(self, e: Element | Constant, first: bool) -> str:
        return LATEX.element(e.name, list(e.index)) if isinstance(e, Element) else LATEX.rest(e.symbol)

    def sum(self, e: Sum) -> list[str]:
        inner = pieces(e.body, self) if isinstance(e.body, Sum) else _within(e.body, self, _MULTIPLY, first=True)
        return [rf"\sum_{{{e.index}}} {inner[0]}", *inner[1:]]


class _Numbers:
    """Leaves as numbers; sums written out."""

    def __init__(self, at: dict[str, int], lookup: Lookup, show: Callable[[float], str]) -> None:
        self.at, self.lookup, self.show = at, lookup, show

    def leaf(self, e: Element | Constant, first: bool) -> str:
        text = LATEX.number(self.show(e.value(self.at, self.lookup)))
        return text if first or not text.startswith("-") else f"({text})"

    def sum(self, e: Sum) -> list[str]:
        out: list[str] = []
        for i in range(e.size):
            term = _Numbers({**self.at, e.index: i}, self.lookup, self.show)
            inner = pieces(e.body, term) if isinstance(e.body, Sum) else _within(e.body, term, _MULTIPLY, first=not out)
            out += inner if not out else [f" + {inner[0]}", *inner[1:]]
        return out or ["0"]


_Leaves = _Symbols | _Numbers


def pieces(e: Expression, leaves: _Leaves, *, first: bool = True) -> list[str]:
    """Return a formula as pieces of LaTeX; a line may break before each but the first."""
    if isinstance(e, (Element, Constant)):
        return [leaves.leaf(e, first)]
    if isinstance(e, Sum):
        return leaves.sum(e)
    if isinstance(e, Binary):
        return _binary(e, leaves, first=first)
    if isinstance(e, Negative):
        inner = _within(e.argument, leaves, _MULTIPLY, first=False)
        return [f"-{inner[0]}", *inner[1:]]
    if isinstance(e, Square):
        base = pieces(e.base, leaves, first=False) if isinstance(e.base, Element) else _within(e.base, leaves, _ATOM)
        if "10^" in base[0] and not base[0].startswith("("):
            base = [f"({base[0]})"]
        return [*base[:-1], f"{base[-1]}^2"]
    if isinstance(e, Call):
        return _call(e, leaves)
    assert isinstance(e, Terms)
    return _terms(e, leaves)


def _within(e: Expression, leaves: _Leaves, level: int, *, first: bool = True) -> list[str]:
    """Return pieces, in parentheses if the place holds together more tightly."""
    if e.level >= level:
        return pieces(e, leaves, first=first)
    inner = pieces(e, leaves)
    return _together([f"({inner[0]}", *inner[1:-1], f"{inner[-1]})"] if len(inner) > 1 else [f"({inner[0]})"])


def _together(parts: list[str]) -> list[str]:
    """Return what is short as one piece: a product or a difference reads best on one line."""
    text = "".join(parts)
    return [text] if width(text) <= LINE / 3 else parts


def _binary(e: Binary, leaves: _Leaves, *, first: bool) -> list[str]:
    if e.operator == "/":
        top, bottom = "".join(pieces(e.left, leaves)), "".join(pieces(e.right, leaves))
        if max(width(top), width(bottom)) <= LINE / 2:
            return [rf"\frac{{{top}}}{{{bottom}}}"]
    left = _within(e.left, leaves, e.level, first=first)
    right = _within(e.right, leaves, e.level + (e.operator in "−/"), first=False)
    sign = {"·": r" \cdot ", "/": " / "}.get(e.operator, f" {LATEX.rest(e.operator)} ")
    parts = [*left, sign + right[0], *right[1:]]
    return _together(parts) if e.operator == "·" else parts


def _call(e: Call, leaves: _Leaves) -> list[str]:
    arguments = [pieces(argument, leaves) for argument in e.arguments]
    if e.function == "sqrt" and width("".join(arguments[0])) <= LINE / 2:
        return [rf"\sqrt{{{''.join(arguments[0])}}}"]
    opening, closing, between = rf"{LATEX.rest(e.function)}(", ")", ", "
    if e.function == "abs":
        opening, closing = r"\lvert ", r"\rvert "
    elif e.function in (">", "≤"):
        opening, closing, between = "[", "]", f" {LATEX.rest(e.function)} "
    flat = [piece for k, part in enumerate(arguments) for piece in ([between] * bool(k) + part)]
    text = opening + "".join(flat) + closing
    return [text] if width(text) <= LINE / 2 else [opening + flat[0], *flat[1:], closing]


def _terms(e: Terms, leaves: _Leaves) -> list[str]:
    assert isinstance(leaves, _Numbers)
    out: list[str] = []
    for i in e.kept:
        term = _Numbers({**leaves.at, e.letter: i}, leaves.lookup, leaves.show)
        inner = _within(e.body, term, _MULTIPLY, first=not out)
        out += inner if not out else [f" + {inner[0]}", *inner[1:]]
    return [*out, rf" + (\text{{{e.n_rest} more: }}{LATEX.number(leaves.show(e.rest))})"]


def width(latex: str) -> float:
    """Return about how many points a formula is wide."""
    latex = re.sub(r"\\text\{(.*?)\}", lambda found: "e" * len(found[1]), latex)
    total, k = 0.0, 0
    while k < len(latex):
        if latex.startswith(r"\frac", k):
            top, k = _braced(latex, k + 5)
            bottom, k = _braced(latex, k)
            total += max(width(top), width(bottom)) + 3
        elif latex[k] in "_^":
            small, k = _braced(latex, k + 1)
            total += 0.75 * width(small)
        elif latex[k] == "\\":
            word = re.match(r"\\([A-Za-z]+|.)", latex[k:])
            assert word is not None
            k += len(word[0])
            total += {"cdot": 7.3, "odot": 12.3, "sum": 16.5, "operatorname": 2, "mathrm": 0, "quad": 10}.get(
                word[1], 0
            )
            total += {"exp": 17, "log": 14, "max": 19, "tanh": 22, "checkmark": 9, "times": 9, "top": 6}.get(word[1], 6)
        else:
            spaced = latex[k] in "+-/" and latex[k - 1 : k] == " "
            total += {" ": 0, "{": 0, "}": 0, "+": 7.8, "-": 7.8, "=": 13.3, ".": 2.8, ",": 4.5}.get(latex[k], 5.1)
            total += 4.5 * spaced
            k += 1
    return total


def _braced(latex: str, k: int) -> tuple[str, int]:
    """Return what stands at k, in braces or one character, and where it ends."""
    if k >= len(latex) or latex[k] != "{":
        return latex[k : k + 1], k + 1
    depth, end = 0, k
    while True:
        depth += {"{": 1, "}": -1}.get(latex[end], 0)
        end += 1
        if not depth:
            return latex[k + 1 : end - 1], end


def rows(left: str, parts: list[str], value: str = "", check: str = "") -> list[str]:
    """Return the rows of an aligned equation left = parts = value, each no wider than a page."""
    out: list[str] = []
    row, start = "", f"{left} &= "
    limit = LINE - width(f"{left} = ")
    for piece in [*parts, *([f" = {value}"] if value and parts else [value] if value else [])]:
        if row and width(row + piece) > limit:
            out.append(start + row)
            row, start = "", r"&\quad "
            piece = (
                "{}" + piece.lstrip() if piece.lstrip()[:1] in "+-=/" or piece.lstrip().startswith(r"\cdot") else piece
            )
        row += piece
    out.append(start + row)
    if check and width(row) + width(check) + 10 > limit:
        out.append(rf"&\quad {check}")
    elif check:
        out[-1] += rf"\quad {check}"
    return out


def matrix_rows(name: str, value: Array, show: Callable[[float], str]) -> list[str]:
    """Return an array of one or two axes as rows name = (numbers), in blocks of columns that fit on a line."""
    table = value.reshape(1, -1) if value.ndim < 2 else value
    texts = [[LATEX.number(show(number)) for number in row] for row in table]
    widths = [max(width(row[j]) for row in texts) + 10.5 for j in range(table.shape[1])]
    symbol, rows, start = LATEX.name(name), [], 0
    while start < table.shape[1]:
        stop, used = start, width(symbol) + 60
        while stop < table.shape[1] and stop - start < _MAX_COLUMNS and (stop == start or used + widths[stop] <= LINE):
            used += widths[stop]
            stop += 1
        body = r" \\ ".join(" & ".join(row[start:stop]) for row in texts)
        whole = stop - start == table.shape[1]
        columns = "" if whole else rf"_{{\cdot,{start}" + (rf"\ldots {stop - 1}}}" if stop - start > 1 else "}")
        left = symbol if whole else f"({symbol}){columns}"
        rows.append(rf"{left} &= \begin{{pmatrix}} {body} \end{{pmatrix}}")
        start = stop
    return rows


def prose(text: str) -> str:
    """Return a sentence, with names of quantities in braces, as LaTeX text."""
    parts = re.split(r"\{(.*?)\}", text)
    return "".join(f"${LATEX.name(p)}$" if i % 2 else escaped(p) for i, p in enumerate(parts))


def escaped(text: str) -> str:
    """Return plain text as LaTeX text."""

    def subscript(found: re.Match[str]) -> str:
        return f"$_{{{found[0].translate(_DIGITS)}}}$"

    def other(found: re.Match[str]) -> str:
        c = found[0]
        if c in _SPECIAL:
            return _SPECIAL[c]
        if c in "%#&_{}$":
            return "\\" + c
        if c in _PROSE:
            return _PROSE[c]
        return f"${_WORDS[c].strip()}$" if c in _WORDS else c if c.isalpha() and ord(c) < 0x250 else "?"

    return re.sub(r"([₀-₉]+)|[|\\~^<>%#&_{}$]|[^\x00-\x7f]", lambda f: subscript(f) if f[1] else other(f), text)


_DIGITS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


def finite(value: Array) -> bool:
    """Tell whether an array can be shown as a matrix of numbers."""
    return bool(value.size and value.ndim <= 2 and np.isfinite(value.astype(float)).all())
