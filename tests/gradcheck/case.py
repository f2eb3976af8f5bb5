"""A trial of the checker, and the bug or the right code that it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Rng = np.random.Generator
SIZES = ((4, 3, 5), (7, 5, 6), (16, 11, 13))  # rows, inputs, outputs


@dataclass
class Trial:
    """One check to make: ``check`` names the entry point ("layer", "loss", "function", "network", "step")."""

    check: str
    args: tuple[Any, ...]
    layer: str = ""  # the first wrong one


@dataclass
class Case:
    """A bug, or a trap.

    Attributes
    ----------
    name : str
    make : function (rng, size) -> Trial
        ``size`` is 0, 1 or 2: small, middle, large.
    kinds : set of str
        The findings that diagnose it rightly; empty for a trap, which is right code.
    contract : bool
        Whether the numbers are right at one point, and only a contract is broken.
    """

    name: str
    make: Callable[[Rng, int], Trial]
    kinds: frozenset[str] = frozenset()
    contract: bool = False
