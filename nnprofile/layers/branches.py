"""Layers that branch: beside a shortcut, and side by side."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Array, Cache, ContractError, Layer, is_sparse, n_rows, numbers_of
from ..ragged import Ragged
from .compose import Composite

if TYPE_CHECKING:
    from .compose import RunBackward, RunForward


class Residual(Composite):
    """Add a layer's output to its input: y = x + f(x), so dx = dy + J_f^T dy (docs/backprop.md, eq. 37).

    Parameters
    ----------
    layer : Layer or list of Layer
        f, which keeps the width, and the lengths of sequences; a list is a Sequential of it.

    Raises
    ------
    ValueError
        If f changes the width; the message names both.

    Examples
    --------
    >>> from nnprofile import Tanh
    >>> layer = Residual(Tanh())
    >>> y, cache = layer.forward(np.array([[0.0, 1.0]]))
    >>> y.round(3).tolist()
    [[0.0, 1.762]]
    >>> layer.backward(np.ones((1, 2)), cache)[0].round(3).tolist()
    [[2.0, 1.42]]
    """

    _is_kind = True

    def __init__(self, layer: Layer | Sequence[Layer]) -> None:
        super().__init__([layer])

    def _width_of_x(self) -> Any:
        takes = getattr(self.children[0], "in_features", None)
        return getattr(self.children[0], "out_features", None) if takes is None else takes

    def output_width(self, width: Any) -> Any:
        """Return the width of x, which f keeps."""
        gives = self.children[0].output_width(width)
        if width is not None and gives is not None and gives != width:
            raise ValueError(f"Residual adds f(x) to x: {self.children[0]!r} makes {gives} features of {width}")
        return gives if width is None else width

    def _forward(self, x: Any, run: RunForward) -> tuple[Any, Cache]:
        x = _as_part(x)
        y, cache = run(0, x)
        if not _fits(x, y):
            raise ValueError(
                f"Residual adds f(x) to x, arrays of one shape, or sequences as long; got x, {_form(x)}, and f(x), {_form(y)}"
            )
        if isinstance(x, Ragged):
            return Ragged.of(x.values + y.values, x.offsets), cache
        return x + y, cache

    def _backward(self, dy: Array, cache: Cache, run: RunBackward, needs_dx: bool) -> Any:
        dx = run(0, dy, cache, needs_dx)
        if not needs_dx:
            return None
        if dx is None:
            raise ContractError(f"{self.children[0]!r}.backward returned None for dx, to which Residual adds dy")
        return dy + dx

    def __repr__(self) -> str:
        return f"Residual({self.children[0]!r})"


class Concatenate(Composite):
    """Put the outputs of several layers on one x side by side (docs/backprop.md, eq. 38).

    y = [f_1(x), ..., f_k(x)], so dx = sum_k J_k^T dy_k; dx is None for a CSR x. Of sequences, all branches give a row each, or
    all an event for each event.

    Parameters
    ----------
    layers : sequence of Layer or list of Layer
        The branches f_1 .. f_k.

    Examples
    --------
    >>> from nnprofile import Identity, Tanh
    >>> layer = Concatenate([Identity(), Tanh()])
    >>> y, cache = layer.forward(np.array([[1.0, 0.0]]))
    >>> y.round(3).tolist()
    [[1.0, 0.0, 0.762, 0.0]]
    >>> layer.backward(np.ones((1, 4)), cache)[0].round(3).tolist()
    [[1.42, 2.0]]
    """

    _is_kind = True

    def _width_of_x(self) -> Any:
        known = [takes for layer in self.children if (takes := getattr(layer, "in_features", None)) is not None]
        try:
            return functools.reduce(_same_width, known, None)
        except ValueError:
            raise ValueError(
                f"the branches of {type(self).__name__} take one x, but they take {known} features"
            ) from None

    def output_width(self, width: Any) -> int | None:
        """Return the sum of the branches' widths."""
        return _total(layer.output_width(width) for layer in self.children)

    def _forward(self, x: Any, run: RunForward) -> tuple[Any, Cache]:
        return _side_by_side(self, [run(i, x) for i in range(len(self.children))])

    def _backward(self, dy: Array, cache: Cache, run: RunBackward, needs_dx: bool) -> Any:
        parts = [
            run(i, part, own, needs_dx) for i, (part, own) in enumerate(zip(*_apart(self, dy, cache), strict=True))
        ]
        if any(dx is None for dx in parts):
            return None
        return sum(parts[1:], start=parts[0])


class Parallel(Composite):
    """Give each part of a tuple x a layer of its own, and put the outputs side by side (docs/backprop.md, eq. 39).

    y = [f_1(x_1), ..., f_k(x_k)], so dx_k = J_k^T dy_k; dx is a tuple, as x is.

    Parameters
    ----------
    layers : sequence of Layer or list of Layer
        As many as x has parts.

    Examples
    --------
    >>> from nnprofile import Identity, Tanh
    >>> layer = Parallel([Identity(), Tanh()])
    >>> y, cache = layer.forward((np.array([[1.0]]), np.array([[0.0, 1.0]])))
    >>> y.round(3).tolist()
    [[1.0, 0.0, 0.762]]
    >>> [dx.round(3).tolist() for dx in layer.backward(np.ones((1, 3)), cache)[0]]
    [[[1.0]], [[1.0, 0.42]]]
    """

    _is_kind = True

    def _width_of_x(self) -> tuple[Any, ...]:
        return tuple(getattr(layer, "in_features", None) for layer in self.children)

    def _kind_of_x(self) -> tuple[Any, ...]:
        return tuple(layer.takes for layer in self.children)

    def output_width(self, width: Any) -> int | None:
        """Return the sum of the parts' widths."""
        widths = [None] * len(self.children) if width is None else width
        return _total(layer.output_width(own) for layer, own in zip(self.children, widths, strict=True))

    def _forward(self, x: Any, run: RunForward) -> tuple[Any, Cache]:
        if not isinstance(x, tuple) or len(x) != len(self.children):
            raise ValueError(f"{self!r} takes a tuple x of {len(self.children)} parts, got {type(x).__name__}")
        x = tuple(map(_as_part, x))
        n_rows(x)  # the same of all parts
        return _side_by_side(self, [run(i, part) for i, part in enumerate(x)])

    def _backward(self, dy: Array, cache: Cache, run: RunBackward, needs_dx: bool) -> Any:
        return tuple(
            run(i, part, own, needs_dx) for i, (part, own) in enumerate(zip(*_apart(self, dy, cache), strict=True))
        )


def _same_width(a: Any, b: Any) -> Any:
    """Return what two widths of one x say together; None says nothing."""
    if a is None or b is None or a == b:
        return b if a is None else a
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return tuple(map(_same_width, a, b))
    raise ValueError


def _total(widths: Iterable[int | None]) -> int | None:
    found = list(widths)
    return None if None in found else sum(found)  # type: ignore[arg-type]


def _as_part(x: Any) -> Any:
    return x if is_sparse(x) or isinstance(x, tuple | Ragged) else np.asarray(x)


def _fits(x: Any, y: Any) -> bool:
    if isinstance(x, Ragged) and isinstance(y, Ragged):
        return x.same_events(y) and x.values.shape == y.values.shape
    return isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and x.shape == y.shape


def _form(x: Any) -> str:
    if isinstance(x, Ragged):
        return repr(x)
    return "a tuple" if isinstance(x, tuple) else f"{type(x).__name__} of shape {np.shape(x)}"


def _side_by_side(layer: Composite, parts: list[tuple[Any, Cache]]) -> tuple[Any, Cache]:
    outputs = [y for y, _ in parts]
    sequences = [y for y in outputs if isinstance(y, Ragged)]
    values = [numbers_of(y) for y in outputs]
    if any(getattr(y, "ndim", 0) != 2 for y in values):
        raise ValueError(f"{layer!r} puts rows side by side, got outputs of shape {[np.shape(y) for y in values]}")
    if sequences and not (len(sequences) == len(outputs) and all(map(sequences[0].same_events, sequences))):
        raise ValueError(
            f"{layer!r} puts rows side by side, or events of sequences of equal lengths, got {', '.join(map(_form, outputs))}"
        )
    y, cache = np.hstack(values), ([y.shape for y in values], [cache for _, cache in parts])
    return (Ragged.of(y, sequences[0].offsets) if sequences else y), cache


def _apart(layer: Composite, dy: Array, cache: Cache) -> tuple[list[Array], list[Cache]]:
    shapes, caches = cache
    expected = (shapes[0][0], sum(width for _, width in shapes))
    if np.shape(dy) != expected:
        raise ValueError(f"dy must have the output's shape {expected}, got {np.shape(dy)}")
    ends = np.cumsum([width for _, width in shapes])
    return np.split(dy, ends[:-1], axis=1), caches
