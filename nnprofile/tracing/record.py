"""What a trace is made of: quantities, the steps that make them, and the links that paths follow; data alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..contract import Array, Layer, Loss, Optimizer
from ..formulas.expression import PLAIN, Element
from .reference import Check
from .rules import Formula

EMPTY = Formula("")


@dataclass(eq=False)
class Quantity:
    """An array of the step: a parameter, an activation, a gradient, ...

    Attributes
    ----------
    name : str
        "W1", "z1", "dW1", "W1+" (after the update): what ``trace[name]`` takes.
    value : Array
    axes : tuple of str
        What the axes count: ("samples", "inputs").
    role : str
        "data", "parameter", "forward", "loss", "slope", "gradient", "update" or "after".
    formula : Formula
    parameter : str
        The library's name, "0.W", of a parameter and of its gradient and update.
    check : Check or None
        Beside a gradient: the right values, found without any backward.
    """

    name: str
    value: Array
    axes: tuple[str, ...]
    role: str
    formula: Formula = EMPTY
    parameter: str = ""
    check: Check | None = None

    @property
    def index(self) -> tuple[str, ...]:
        """The letters of its indices."""
        return self.formula.index or tuple("nijklm"[: self.value.ndim])

    @property
    def formula_text(self) -> str:
        """The formula for the whole array: "dz₂ = ∂L/∂z₂"."""
        return PLAIN.matrix(self.formula.matrix)

    @property
    def shape_text(self) -> str:
        """The shape with the axes' names: "(samples 1, inputs 3)"; "a number" if there are none."""
        axes = [f"{axis} {size}" for axis, size in zip(self.axes, self.value.shape, strict=True)]
        return f"({', '.join(axes)})" if axes else "a number"


@dataclass
class Step:
    """A part of the pass, and the quantities that it makes."""

    title: str
    phase: str  # "given", "forward", "loss", "backward", "update", "after"
    names: list[str]
    why: str = ""


@dataclass
class Link:
    """What a path of the chain rule needs to know of a layer: the names of x and y, and its local derivative."""

    x: str
    y: str
    kind: str  # "dense", "elementwise", "copy", "rows" (within a row all act on all) or "unknown"
    local: str = ""  # the name of W, or of the slope
    starts: dict[str, Element | None] = field(default_factory=dict)  # parameter -> dy/dp, an element, or None: 1
    parameters: tuple[str, ...] = ()
    jacobian: Callable[[int], Array] | None = None  # sample -> (n_in, n_out), of "rows"
    offset: int = 0  # of a "copy": the column of y at which x begins


@dataclass(eq=False)
class Record(Mapping[str, Quantity]):
    """One training step: a mapping from names to quantities, in the order in which they come about.

    Attributes
    ----------
    title : str
        What was traced.
    steps : list of Step
    links : list of Link
        The layers, and the forks and joins of those that branch, first to last.
    inputs : tuple of str
        The names of what goes in: "x", or "x1", "x2", ...
    net, loss, optimizer : Layer, Loss, Optimizer or None
        Copies, as they were before the step.
    l2 : float
    frozen : tuple of str
        Parameters that the update leaves alone.
    """

    title: str
    net: Layer
    loss: Loss
    optimizer: Optimizer | None
    l2: float
    frozen: tuple[str, ...]
    data: tuple[Any, Any, Any, Any]  # x, y, sample_weight, the generator's state before the pass
    quantities: dict[str, Quantity] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    inputs: tuple[str, ...] = ("x",)

    def __getitem__(self, name: str) -> Quantity:
        try:
            return self.quantities[name]
        except KeyError:
            known = ", ".join(self.quantities)
            raise KeyError(f"{name!r} is not in this trace; it has {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.quantities)

    def __len__(self) -> int:
        return len(self.quantities)

    def __contains__(self, name: object) -> bool:
        return name in self.quantities

    @property
    def ok(self) -> bool:
        """Whether every gradient agrees with the one found without a backward pass."""
        return all(q.check is None or q.check.ok for q in self.values())

    @property
    def wrong(self) -> list[str]:
        """The gradients that are wrong, nearest to the loss first."""
        return [name for name, q in self.items() if q.check is not None and q.check.verdict == "wrong"]

    @property
    def unclear(self) -> list[str]:
        """The gradients that cannot be judged here, because something is not finite."""
        return [name for name, q in self.items() if q.check is not None and q.check.verdict == "unclear"]

    def __repr__(self) -> str:
        n = sum(q.check is not None for q in self.values())
        bad = [
            f"{word}: {', '.join(names)}" for word, names in (("wrong", self.wrong), ("unclear", self.unclear)) if names
        ]
        state = "; ".join(bad) or "all agree with their check"
        return f"<{type(self).__name__} of {self.title}: {len(self.steps)} steps, {len(self)} quantities, {n} gradients, {state}>"
