"""A trace as plain text, Markdown, LaTeX, or a table for a notebook: the same lines, written four ways."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ..formulas.expression import MAX_TERMS, PLAIN, Plain
from ..validation import check_size
from .large import shown_in_text
from .latex import LATEX, Latex, escaped, finite, matrix_rows, pieces_of, prose, rows
from .reference import ENOUGH

if TYPE_CHECKING:
    from .record import Quantity, Record, Step

Style = Plain | Latex


def number(value: float, digits: int = 6) -> str:
    """Return a number to that many significant digits, with a true minus sign: "−4.38568e−05"."""
    return f"{value + 0.0:.{digits}g}".replace("-", "−")  # + 0.0 makes a negative zero 0


@dataclass
class Line:
    """One element: its formula with numbers, its value, and what stands beside a gradient."""

    left: str
    middle: str
    value: str
    check: str = ""
    right: bool = True


def lines(trace: Record, name: str, digits: int, most: int, style: Style) -> Iterator[Line]:
    """Yield the elements of a quantity."""
    q = trace[name]

    def lookup(other: str, index: tuple[int, ...]) -> float:
        return float(trace[other].value[index])

    for index in shown_in_text(q.value, most, None if q.check is None else q.check.wrong):
        at, middle = dict(zip(q.index, index, strict=False)), ""
        if q.formula.element is not None:
            element = q.formula.element.abridged(at, lookup)
            middle = style.substituted(element, at, lookup, lambda v: number(v, digits))
        value, check, right = number(q.value[index], digits), "", True
        if q.formula.element is not None and not gives(q, index, lookup):
            check = KEPT if may_be_rounding(q, index, lookup) else "not what its formula gives"
        if q.check is not None:
            right = not q.check.wrong[index]
            reference = number(q.check.reference[index], digits)
            known = bool(np.isfinite(q.check.reference[index]))
            says = (f"{q.check.method} {style.number(reference)}: " if known else "") + q.check.says(index)
            check = f"{says}; {check}" if check else says
        yield Line(
            style.element(name, list(index)), "" if middle == value else middle, style.number(value), check, right
        )


KEPT = "computed in a form that keeps its digits"


def gives(q: Quantity, index: tuple[int, ...], lookup: Any) -> bool:
    """Tell whether a formula, computed as it stands, gives the number: 1 − y² gives nothing where y is nearly 1."""
    element = q.formula.element
    assert element is not None
    sums = [token[2] for token in element.tokens() if isinstance(token, list) and token[0] == "s"]
    if max(sums, default=0) > MAX_TERMS:
        return True  # a long sum of products is no place where digits are lost at once
    with np.errstate(all="ignore"):
        try:
            plain = element.value(dict(zip(q.index, index, strict=False)), lookup)
        except ValueError:  # inf - inf
            return False
    value = float(q.value[index])
    if q.value.dtype == np.float32 or sums:  # a sum may cancel, for good reasons
        return bool(np.isfinite(plain) or not np.isfinite(value))
    return bool(abs(plain - value) <= 1e-6 * abs(value)) or not np.isfinite(value)


def may_be_rounding(q: Quantity, index: tuple[int, ...], lookup: Any) -> bool:
    """Tell whether a formula, computed as it stands, misses the number by no more than digits that it lost on the way."""
    largest = 1.0

    def noting(name: str, at: tuple[int, ...]) -> float:
        nonlocal largest
        found: float = lookup(name, at)
        largest = max(largest, abs(found)) if np.isfinite(found) else largest
        return found

    assert q.formula.element is not None
    with np.errstate(all="ignore"):
        try:
            plain = q.formula.element.value(dict(zip(q.index, index, strict=False)), noting)
        except ValueError:
            return True
    return not np.isfinite(plain) or abs(plain - float(q.value[index])) <= 1e-9 * largest * largest


def left_out(q: Quantity, most: int, shown: str = "") -> str:
    """Say in words what of a large quantity is not shown, with its norm and range; nothing if all is."""
    n = len(shown_in_text(q.value, most, None if q.check is None else q.check.wrong))
    if n == q.value.size:
        return ""
    v = q.value.astype(float)
    text = (
        f"{q.value.size} elements: {shown or f'the {n} largest are shown'}. Least {number(v.min())}, largest "
        f"{number(v.max())}, mean {number(v.mean())}, norm {number(float(np.sqrt((v * v).sum())))}"
    )
    return text + (f"; checked: {q.check.checked}." if q.check is not None else ".")


def verdict(q: Quantity) -> str:
    """Say of a whole gradient how it compares."""
    check = q.check
    assert check is not None
    if check.verdict == "wrong":
        return (
            f"✗ {check.wrong.sum()} of {q.value.size} wrong"
            if q.value.size == np.isfinite(check.reference).sum()
            else "✗ wrong"
        )
    if check.verdict == "unclear":
        return "? unclear"
    if check.verdict == "subgradient":
        return "✓ at a kink, between its sides"
    enough = check.digits[check.digits >= ENOUGH]
    return f"✓ {int(enough.min())} digits or more" if enough.size else "✓ within rounding"


def summary(trace: Record) -> str:
    """Say in one line whether the gradients are right."""
    found = [q for q in trace.values() if q.check is not None]
    parts = []
    if trace.wrong:  # the quantities stand in the order of the pass, so the first wrong one is nearest to its cause
        wrong = [PLAIN.name(name) for name in trace.wrong]
        parts.append(
            f"WRONG: {', '.join(wrong)} of {len(found)} gradients. The first wrong one, on the way back, is {wrong[0]}."
        )
    if trace.unclear:
        parts.append(f"UNCLEAR, as something is not finite: {', '.join(map(PLAIN.name, trace.unclear))}.")
    if not parts:
        digits = np.concatenate([q.check.digits.ravel() for q in found if q.check is not None])
        enough = digits[digits >= ENOUGH]
        rounding = int((digits < ENOUGH).sum())
        parts.append(
            f"{sum(q.value.size for q in found)} elements of {len(found)} gradients agree with derivatives found without "
            f"backward, to {int(enough.min(initial=16))} digits or more"
            + (f"; {rounding} of them within rounding, or at a kink." if rounding else ".")
        )
    return " ".join(parts)


def _formulas(q: Quantity, style: Style) -> list[str]:
    out = []
    if q.formula.matrix:
        out.append(style.matrix(q.formula.matrix))
    if q.formula.element is not None and q.index[: q.value.ndim]:
        left = style.element(q.name, list(q.index[: q.value.ndim]))
        out.append(f"{left} = {style.symbolic(q.formula.element)}")
    return out


def _equation(q: Quantity) -> str:
    return f"eq. {q.formula.equation}" if q.formula.equation else ""


def to_text(trace: Record, *, digits: int, max_elements: int) -> str:
    """Return plain text."""
    check_size(digits, "digits")
    out = [trace.title, summary(trace)]
    for k, step in enumerate(trace.steps):
        out += ["", f"{k}. {step.title}"]
        if step.why:
            out.append(f"   {PLAIN.matrix(step.why)}")
        for name in step.names:
            q = trace[name]
            heads = _formulas(q, PLAIN)
            head = heads[0] if heads else PLAIN.name(name)
            out.append(f"   {head}    {q.shape_text}    {_equation(q)}".rstrip())
            if q.formula.why and q.formula.why != step.why:
                out.append(f"      {PLAIN.matrix(q.formula.why)}")
            out += [f"      {formula}" for formula in heads[1:]]
            rest = left_out(q, max_elements)
            out += [f"      {rest}"] * bool(rest)
            for line in lines(trace, name, digits, max_elements, PLAIN):
                middle = f" = {line.middle}" if line.middle else ""
                out.append(
                    f"        {line.left}{middle} = {line.value}" + (f"    [{line.check}]" if line.check else "")
                )
    return "\n".join(out) + "\n"


def to_markdown(trace: Record, *, digits: int, max_elements: int) -> str:
    """Return Markdown with LaTeX between dollars; gradients as tables with their checks."""
    check_size(digits, "digits")
    out = ["# One training step", "", f"`{trace.title}`", "", summary(trace)]
    for k, step in enumerate(trace.steps):
        out += ["", f"## {k}. {step.title}"]
        if step.why:
            out += ["", _prose(step.why)]
        for name in step.names:
            q = trace[name]
            heads = _formulas(q, LATEX)
            title = f"${heads[0]}$" if heads else f"${LATEX.name(name)}$"
            out += ["", " &nbsp; ".join(part for part in (title, q.shape_text, _equation(q)) if part)]
            if q.formula.why and q.formula.why != step.why:
                out += ["", _prose(q.formula.why)]
            out += [f"\n$${formula}$$" for formula in heads[1:]]
            rest = left_out(q, max_elements)
            out += [f"\n{rest}"] * bool(rest)
            checked = q.check is not None
            out += ["", "| element | with numbers | value |" + (" check |" if checked else "")]
            out += ["|---|---|---|" + ("---|" if checked else "")]
            for line in lines(trace, name, digits, max_elements, LATEX):
                cells = [f"${line.left}$", f"${line.middle}$" if line.middle else "", f"${line.value}$"]
                cells += [line.check if line.right else f"**{line.check}**"] if checked else []
                out.append("| " + " | ".join(cell.replace("|", r"\vert ") for cell in cells) + " |")
    return "\n".join(out) + "\n"


def _prose(text: str) -> str:
    return re.sub(r"\{(.*?)\}", lambda found: f"${LATEX.name(found[1])}$", text)


def to_latex(trace: Record, *, digits: int, max_elements: int) -> str:
    """Return LaTeX: a section a step, arrays as matrices, an aligned formula an element, no line wider than a page."""
    check_size(digits, "digits")
    about = [re.sub(r"\s+", " ", text) for text in (trace.title, summary(trace))]
    out = [*(f"% {text}" for text in about), "% needs amsmath and amssymb", r"\allowdisplaybreaks"]
    for k, step in enumerate(trace.steps):
        out += [rf"\subsection*{{{k}. {escaped(step.title)}}}", prose(step.why)]
        for name in step.names:
            out += _latex_quantity(trace, name, digits, max_elements, trace[name].formula.why != step.why)
    return "\n".join(out) + "\n"


def _latex_quantity(trace: Record, name: str, digits: int, most: int, explains: bool) -> list[str]:
    """Return a quantity: heading, matrix, the formula of its elements, and each with its numbers."""
    q, shown = trace[name], []
    heads = _formulas(q, LATEX)
    about = ". ".join(part for part in (escaped(q.shape_text), _equation(q)) if part) + "."
    if explains:
        about += f" {prose(q.formula.why)}"
    if q.check is not None:
        about += f" {escaped(verdict(q))}, by {escaped(q.check.method)}."
    about += f" {escaped(left_out(q, most))}"
    if q.value.ndim and q.value.size <= most and finite(q.value):
        shown += matrix_rows(name, q.value, lambda v: number(v, digits))
    element = q.formula.element
    if element is not None and q.index[: q.value.ndim]:
        shown += rows(LATEX.element(name, list(q.index[: q.value.ndim])), pieces_of(element))
    if element is not None or not shown:
        for line, parts in _latex_lines(trace, name, digits, most):
            shown += rows(
                line.left, parts, line.value, rf"\text{{\footnotesize {escaped(line.check)}}}" * bool(line.check)
            )
    title = f"${heads[0]}$" if heads else f"${LATEX.name(name)}$"
    return [rf"\paragraph{{{title}}} {about.strip()}", r"\begin{align*}", " \\\\\n".join(shown), r"\end{align*}"]


def _latex_lines(trace: Record, name: str, digits: int, most: int) -> Iterator[tuple[Line, list[str]]]:
    """Yield the elements with the pieces of their formulas; a check only where it is not as the verdict says."""
    q = trace[name]

    def lookup(other: str, index: tuple[int, ...]) -> float:
        return float(trace[other].value[index])

    indices = shown_in_text(q.value, most, None if q.check is None else q.check.wrong)
    for index, line in zip(indices, lines(trace, name, digits, most, LATEX), strict=True):
        parts: list[str] = []
        if q.formula.element is not None and line.middle:
            at = dict(zip(q.index, index, strict=False))
            parts = pieces_of(q.formula.element.abridged(at, lookup), at, lookup, lambda v: number(v, digits))
        if line.right and (q.check is None or q.check.verdict == "right") and KEPT not in line.check:
            line.check = ""
        yield line, parts


def to_table(trace: Record, *, digits: int = 6, max_elements: int = 64) -> str:
    """Return HTML for a notebook, without script or style sheet: a folded section a step."""
    out = [f"<p><b>{escape(trace.title)}</b><br>{escape(summary(trace))}</p>"]
    for k, step in enumerate(trace.steps):
        out.append(
            f"<details><summary>{k}. {escape(step.title)}</summary>{_html_step(trace, step, digits, max_elements)}"
        )
        out.append("</details>")
    return "\n".join(out)


def _html_step(trace: Record, step: Step, digits: int, most: int) -> str:
    out = [f"<p>{escape(PLAIN.matrix(step.why))}</p>"] if step.why else []
    for name in step.names:
        q = trace[name]
        heads = _formulas(q, PLAIN) or [PLAIN.name(name)]
        about = [escape(q.shape_text), escape(_equation(q)), escape(left_out(q, most))]
        out.append(
            f"<p><b>{escape(heads[0])}</b> {' '.join(a for a in about if a)}<br>{escape(' '.join(heads[1:]))}</p>"
        )
        rows = []
        for line in lines(trace, name, digits, most, PLAIN):
            cells: list[Any] = [line.left, line.middle, line.value, line.check]
            rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
        out.append(f"<table>{''.join(rows)}</table>")
    return "".join(out)
