"""Record where a network forks, and where its branches join."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..contract import numbers_of
from ..formulas.expression import PLAIN, Expression, Quantities
from ..layers import Concatenate, Parallel, Residual
from ..layers.compose import kind_of
from ..layers.walk import Step as LayerStep
from ..ragged import Ragged
from .record import Link
from .rules import NJ, Formula

if TYPE_CHECKING:
    from .recorder import Names, Recorder


@dataclass
class Fork:
    """A quantity that several branches use, each by a copy of its own; a shortcut uses it directly."""

    title: str
    x: str
    copies: list[str]
    shortcut: str = ""  # the name of what it is added to
    equation: str = "38"


@dataclass
class Join:
    """Branches that come together: added to the shortcut, or side by side."""

    title: str
    y: str
    parts: list[str]
    side_by_side: bool
    equation: str


def record_branches(r: Recorder, step: LayerStep, x_name: Names) -> str:
    """Record a fork, the branches behind it, and their join."""
    layer, composite = step.layer, kind_of(step.layer)
    assert composite is not None
    kind = composite.__name__
    parts, names = [step.parts[i] for i in sorted(step.parts)], list(x_name) if isinstance(x_name, tuple) else []
    equation = {Residual: "37", Concatenate: "38", Parallel: "39"}[composite]
    if isinstance(layer, Parallel):
        for part, name in zip(parts, names, strict=True):
            r.places[name] = (part.name, "x")
    else:
        for part in parts:
            r.n_copies += 1
            name = f"u{r.tail(r.n_copies, ['u'])}"
            names.append(name)
            r.places[name] = (part.name, "x")
            formula = Formula(f"{{{name}}} = {{{x_name}}}", Quantities(x_name)["n", "j"], NJ, equation)
            r.add(name, numbers_of(part.x), r.axes[x_name], "forward", formula)
            r.link(Link(x_name, name, "copy"))
        fork = Fork(kind, x_name, names[:], equation=equation)
        why = "A value that is used twice counts as two: each use gets a gradient of its own, and they are added."
        r.step(
            f"Forward: a branch of {kind}" if len(names) == 1 else f"Forward: branches of {kind}",
            "forward",
            names,
            why,
        )
        r.nodes.append(fork)
    ends = [r.through(part, name, inside=True) for part, name in zip(parts, names, strict=True)]
    letter = "r" if isinstance(layer, Residual) else "c"
    y_name = letter + r.tail(r.n_weighted, [letter])
    r.places[y_name] = (step.name, "y")
    if isinstance(layer, Residual):
        fork.shortcut = y_name
        element: Expression | None = Quantities(x_name)["n", "j"] + Quantities(ends[0])["n", "j"]
        why, axes = "The shortcut: x itself, beside what the layers make of it.", r.axes[x_name]
        head = f"{{{x_name}}} + {{{ends[0]}}}"
        r.link(Link(x_name, y_name, "copy"))
    else:
        element, why = None, "The outputs of the branches, side by side."
        head = f"[{', '.join(f'{{{end}}}' for end in ends)}]"
        axes = ("events" if isinstance(step.y, Ragged) else "samples", f"columns of {PLAIN.name(y_name)}")
    offset = 0
    for end in ends:
        r.link(Link(end, y_name, "copy", offset=offset))
        offset += 0 if isinstance(layer, Residual) else r.trace[end].value.shape[1]
    formula = Formula(f"{{{y_name}}} = {head}", element, NJ if element is not None else (), equation, why)
    r.add(y_name, numbers_of(step.y), axes, "forward", formula)
    r.step(f"Forward: {kind}", "forward", [y_name], why)
    r.nodes.append(Join(kind, y_name, ends, not isinstance(layer, Residual), equation))
    return y_name


def back_apart(r: Recorder, node: Join) -> None:
    """Record the gradients of the branches' outputs: pieces of dy, or dy itself."""
    dy, names, start = r.d[node.y], [], 0
    for part in node.parts:
        stop = start + r.trace[part].value.shape[1] if node.side_by_side else dy.shape[1]
        r.d[part] = dy[:, start:stop]
        piece = f"{{d{node.y}}}, columns {start} to {stop - 1}" if node.side_by_side else f"{{d{node.y}}}"
        element = None if node.side_by_side else Quantities(f"d{node.y}")["n", "j"]
        why = (
            "Each branch gets the part of the gradient that belongs to its columns."
            if node.side_by_side
            else ("A sum hands its gradient on to both of its terms as it is.")
        )
        formula = Formula(f"{{d{part}}} = {piece}", element, NJ if element is not None else (), node.equation, why)
        names.append(r.gradient_at(part, formula))
        start = stop if node.side_by_side else 0
    r.step(f"Backward: {node.title}", "backward", names)


def back_together(r: Recorder, node: Fork) -> None:
    """Record the gradient of what the branches share: the sum of theirs."""
    uses = [node.shortcut] * bool(node.shortcut) + node.copies
    r.d[node.x] = sum((r.d[use] for use in uses[1:]), start=r.d[uses[0]])
    element: Expression = Quantities(f"d{uses[0]}")["n", "j"]
    for use in uses[1:]:
        element = element + Quantities(f"d{use}")["n", "j"]
    head = " + ".join(f"{{d{use}}}" for use in uses)
    why = "A value that is used more than once gets the sum of the gradients of all its uses."
    formula = Formula(f"{{d{node.x}}} = {head}", element, NJ, node.equation, why)
    r.step(f"Backward: the branches of {node.title} meet", "backward", [r.gradient_at(node.x, formula)])
