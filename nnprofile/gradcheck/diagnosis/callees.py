"""Hypotheses about the functions that forward calls: the gradient if the derivative of one of them were missing, or another.

The complex step of forward, where the imaginary part that one function returns is replaced, is that gradient.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CellType, FunctionType
from typing import Any

import numpy as np

from ...contract import Array
from .facts import Diagnosis, Facts

MAX_CALLS, MAX_FUNCTIONS, MAX_PERIOD = 400, 12, 4
_OF_NUMPY = ("tanh", "sin", "cos", "arctan", "exp", "maximum")
_SLOPES: tuple[tuple[str, Callable[[Array, Array, Array], Array]], ...] = (
    ("is missing", lambda z, y, slope: np.ones_like(y)),
    ("is there twice", lambda z, y, slope: slope * slope),
    ("is replaced by its value", lambda z, y, slope: y),
    ("is s(y) for y (1 - y), the sigmoid of its value", lambda z, y, slope: 1 / (1 + np.exp(-y))),
    ("is only its diagonal, y (1 - y)", lambda z, y, slope: y * (1 - y)),
    ("is 1 - y^2", lambda z, y, slope: 1 - y * y),
    ("is 1 - y", lambda z, y, slope: 1 - y),
    ("is taken of its argument, 1 - z^2", lambda z, y, slope: 1 - z * z),
    ("is taken of its argument, z (1 - z)", lambda z, y, slope: z * (1 - z)),
)


def callee(f: Facts) -> Diagnosis | None:
    """The derivative of a function that forward calls is wrong, in all its calls or in each second, third or fourth."""
    if f.verdict.row.method != "complex step" or not f.where.size:
        return None
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(2, f.where.size))
    yours, right, slack = weights @ f.yours, weights @ f.right, np.abs(weights) @ f.tolerance
    directions = np.zeros((2, f.value.size))
    directions[:, f.where] = weights

    def fits(i: int) -> bool:
        got = float((f.dy * f.judge.reference.tangent(f.verdict.k, directions[i].reshape(f.shape))).sum())
        off = abs(got - float(yours[i]))
        f.unexplained = off / (abs(float(yours[i] - right[i])) or 1.0)
        size = abs(float(yours[i] - right[i]))
        return off <= 1e-6 * size + min(4 * float(slack[i]), 0.01 * size)

    for place, name, function in _functions(f.context.procedure):
        with _replaced(place, name, _Changed(function, None, 1, 0)) as changed:
            fits(0)
        calls = changed.calls
        for period in range(1, MAX_PERIOD + 1):
            if not 0 < calls <= MAX_CALLS or calls % period:
                continue
            for phase in range(period):
                for text, slope in _SLOPES:
                    with _replaced(place, name, _Changed(function, slope, period, phase)):
                        found = fits(0) and fits(1)
                    if found:
                        which = "" if period == 1 else f", in call {phase + 1} of each {period},"
                        return "slope", f"equals the gradient where the derivative of {name}{which} {text}"
    f.unexplained = np.nan
    return None


class _Changed:
    """A function with another derivative, in the calls of one phase."""

    def __init__(
        self, function: Any, slope: Callable[[Array, Array, Array], Array] | None, period: int, phase: int
    ) -> None:
        self.function, self.slope, self.period, self.phase = function, slope, period, phase
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, and change the imaginary part of what it returns."""
        y = self.function(*args, **kwargs)
        if not isinstance(y, np.ndarray | np.generic):
            return y
        z = next((a for a in args if isinstance(a, np.ndarray | np.generic) and a.shape == y.shape), None)
        if z is None:
            return y
        turn = self.calls % self.period == self.phase
        self.calls += 1
        if self.slope is None or not turn or y.dtype.kind != "c" or z.dtype.kind != "c":
            return y
        slope = np.divide(y.imag, z.imag, out=np.zeros(z.shape), where=z.imag != 0)
        return y.real + 1j * self.slope(z.real, y.real, slope) * z.imag


@contextmanager
def _replaced(place: Any, name: str, function: _Changed) -> Iterator[_Changed]:
    """Put a function in another's place for a while: in a namespace, a cell, or NumPy."""
    if isinstance(place, CellType):
        kept, place.cell_contents = place.cell_contents, function
        try:
            yield function
        finally:
            place.cell_contents = kept
    else:
        kept, place[name] = place[name], function
        try:
            yield function
        finally:
            place[name] = kept


def _functions(procedure: Any) -> Iterator[tuple[Any, str, Any]]:
    """Yield (place, name, function) for what forward calls by name, and what that calls."""
    found = [getattr(procedure, "f", None)]
    objects = getattr(getattr(procedure, "world", None), "objects", ())
    found += [getattr(type(getattr(obj, "obj", obj)), "forward", None) for obj in objects]  # inside of what adapts it
    stack: list[Any] = [inspect.unwrap(one) for one in found if isinstance(one, FunctionType)]
    seen: set[int] = set()
    n = 0
    while stack and n < MAX_FUNCTIONS:
        function = stack.pop()
        if not isinstance(function, FunctionType) or id(function) in seen:
            continue
        seen.add(id(function))
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        for name in _names(function.__code__):
            place: Any = function.__globals__
            value = place.get(name)
            if name in cells:
                try:
                    place, value = cells[name], cells[name].cell_contents
                except ValueError:  # not filled yet
                    continue
            if isinstance(value, FunctionType | np.ufunc) and id(value) not in seen:
                stack += [value] if isinstance(value, FunctionType) else []
            elif name in _OF_NUMPY and value is None:
                place, value = vars(np), getattr(np, name)
                if id(value) in seen:
                    continue
                seen.add(id(value))
            else:
                continue
            n += 1
            yield place, name, value


def _names(code: Any) -> Iterator[str]:
    """Yield the names that code and the functions within it refer to."""
    yield from (*code.co_names, *code.co_freevars)
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from _names(constant)
