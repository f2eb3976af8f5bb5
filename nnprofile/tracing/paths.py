"""Every path of the chain rule from one weight to the loss: its factors, their product, and the sum of all paths.

A weight W[i,j] moves z[n,j] in each row n; that moves everything behind it, until the loss. Each way through the network
is one product of local derivatives, and the gradient is the sum over all ways (docs/backprop.md, eq. 36). Backpropagation
computes that sum without ever listing the ways; here they are listed, for networks small enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import numbers_of
from ..formulas.expression import total as summed

if TYPE_CHECKING:
    from .record import Link, Record

MAX_PATHS = 512  # of one weight


@dataclass(frozen=True)
class Factor:
    """A local derivative: an element of a quantity, or, where it is none, a number with a symbol."""

    name: str
    index: tuple[int, ...]
    value: float
    symbol: str = ""


@dataclass(frozen=True)
class ChainPath:
    """One way to the loss: ``contribution`` is the product of the factors' values.

    Attributes
    ----------
    sample : int or None
        The row of the batch; None for the L2 term.
    units : tuple of (str, int)
        The quantities and their columns that it goes through.
    factors : tuple of Factor
    contribution : float
    """

    sample: int | None
    units: tuple[tuple[str, int], ...]
    factors: tuple[Factor, ...]
    contribution: float


def paths(trace: Record, name: str, index: int | Sequence[int]) -> list[ChainPath]:
    """Return all paths from one element of the parameter ``name`` to the loss.

    Raises
    ------
    ValueError
        If it is not a parameter whose gradient has a formula, there are more than 512 paths, or a layer behind it has no
        formulas.
    """
    if name not in trace or trace[name].role != "parameter":
        known = [q.name for q in trace.values() if q.role == "parameter"]
        raise ValueError(f"paths start at a parameter: {', '.join(known)}; got {name!r}")
    value = trace[name].value
    given: Any = index
    index = tuple(given) if isinstance(given, Sequence) or np.ndim(given) == 1 else (given,)
    whole = all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in index)
    if not whole or len(index) != value.ndim or not all(0 <= i < n for i, n in zip(index, value.shape, strict=True)):
        letters = ", ".join("ijkl"[: value.ndim]) if value.ndim > 1 else "j"
        raise ValueError(f"{name} has shape {value.shape}: its index is {letters}, each from 0; got {given!r}")
    link = owner(trace, name)
    if name not in link.starts:
        raise ValueError(f"paths start at a parameter whose gradient has a formula; {name} belongs to a layer without")
    if blocking(trace, name):
        raise ValueError(
            f"paths from {name} lead through a layer without formulas that mixes elements: no local derivatives are known"
        )
    count = n_paths(trace, name)
    if count > MAX_PATHS:
        raise ValueError(f"{count} paths lead from an element of {name} to the loss; at most {MAX_PATHS} are listed")
    found: list[ChainPath] = []
    at = dict(zip(trace["d" + name].index, index, strict=True))
    for n in range(len(trace["t"].value)):
        factor = link.starts[name]
        first: tuple[Factor, ...] = ()
        if factor is not None:
            first = (_element(trace, factor.name, tuple(n if i == "n" else at[i] for i in factor.index)),)
        _walk(trace, n, index[-1], ((link.y, index[-1]),), first, found)
    if value.ndim > 1 and "R" in trace:
        share = trace.l2 / _total(trace)
        factors = (Factor("", (), share, "λ/N"), _element(trace, name, index))
        found.append(ChainPath(None, (), factors, _product(factors)))
    return found


def owner(trace: Record, name: str) -> Link:
    """Return the layer that a parameter belongs to."""
    return next(link for link in trace.links if name in link.parameters)


def blocking(trace: Record, name: str) -> Link | None:
    """Return the first layer, on a way from a parameter to the loss, whose local derivatives are not known."""
    reached = {owner(trace, name).y}
    for link in trace.links:  # in the order of the forward pass
        if link.x in reached:
            if link.kind == "unknown":
                return link
            reached.add(link.y)
    return None


def n_paths(trace: Record, name: str) -> int:
    """Return how many paths lead from one element of a parameter to the loss."""
    count: dict[str, int] = {}  # from one column of a quantity on
    for link in reversed(trace.links):
        width = 1 if link.kind in ("elementwise", "copy") else trace[link.y].value.shape[1]
        count[link.x] = count.get(link.x, 0) + width * count.get(link.y, 1)
    return len(trace["t"].value) * count.get(owner(trace, name).y, 1)


def _walk(
    trace: Record,
    n: int,
    unit: int,
    units: tuple[tuple[str, int], ...],
    factors: tuple[Factor, ...],
    found: list[ChainPath],
) -> None:
    """Go on from column ``unit`` of the quantity that ``units`` has come to, by all ways."""
    at = units[-1][0]
    ways = [link for link in trace.links if link.x == at]
    if not ways:
        end = (*factors, _element(trace, "d" + at, (n, unit)))
        found.append(ChainPath(n, units, end, _product(end)))
    for link in ways:
        if link.kind == "elementwise":
            factor = _element(trace, link.local, (n, unit))
            _walk(trace, n, unit, (*units, (link.y, unit)), (*factors, factor), found)
            continue
        if link.kind == "copy":
            _walk(trace, n, unit + link.offset, (*units, (link.y, unit + link.offset)), factors, found)
            continue
        for j in range(trace[link.y].value.shape[1]):
            if link.kind == "dense":
                factor = _element(trace, link.local, (unit, j))
            else:
                assert link.jacobian is not None
                factor = Factor("", (), float(link.jacobian(n)[unit, j]), f"∂{link.y}[{n},{j}]/∂{link.x}[{n},{unit}]")
            _walk(trace, n, j, (*units, (link.y, j)), (*factors, factor), found)


def _element(trace: Record, name: str, index: tuple[int, ...]) -> Factor:
    return Factor(name, index, float(trace[name].value[index]))


def _product(factors: tuple[Factor, ...]) -> float:
    with np.errstate(all="ignore"):
        return float(np.prod([factor.value for factor in factors]))


def _total(trace: Record) -> float:
    weights = trace.data[2]
    return float(len(trace["t"].value) if weights is None else numbers_of(weights).sum())


def total(found: list[ChainPath]) -> float:
    """Return the sum of the contributions, rounded once."""
    return summed([path.contribution for path in found])
