"""Parameters: names for the pieces of one contiguous vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    Array = NDArray[Any]
else:
    Array = np.ndarray
Shape = tuple[int, ...]


class Parameters(Mapping[str, Array]):
    """Name the pieces of one contiguous vector: ``params[name]`` is a view, shaped, of ``params.vector``.

    One vector holds a whole network, so an optimizer is one line on one array, and a file is one array.
    ``params[name] = a`` copies ``a`` into the view. When a layer is bound into a network, its ``params`` name the
    network's vector from then on; an array taken out before, ``W = layer.params["W"]``, does not.

    Whether a name has values yet is a flag, which all that name the same memory share. Assignment sets it; code that writes
    into a view in place, ``params["W"][:] = a``, calls ``mark_filled``.

    Of gradients, ``rows`` may name the only rows of a matrix that are not zero; lazy optimizers touch those alone.

    Parameters
    ----------
    layout : mapping of str to tuple of int
        Names and shapes, in the order in which they lie in the vector.
    vector : Array, shape (n_parameters,), optional
        The memory to name. Not copied. By default a new one, without values yet.
    dtype : data type, default float64
        Of the new vector, when none is given.

    Raises
    ------
    ValueError
        If ``vector`` does not have the size that the layout needs.

    Examples
    --------
    >>> params = Parameters({"W": (2, 1), "b": (1,)}, np.array([1.0, 2.0, 3.0]))
    >>> params["W"].tolist(), params["b"].tolist()
    ([[1.0], [2.0]], [3.0])
    >>> params["b"] = [5]
    >>> params.vector.tolist()
    [1.0, 2.0, 5.0]
    >>> params.matrices()
    ['W']
    """

    __slots__ = ("_filled", "_slices", "_vector", "layout", "rows")

    def __init__(
        self, layout: Mapping[str, Shape], vector: Array | None = None, *, dtype: DTypeLike = np.float64
    ) -> None:
        self.layout: dict[str, Shape] = {name: tuple(shape) for name, shape in layout.items()}
        self.rows: dict[str, Array] = {}
        self._slices: dict[str, slice] = {}
        size = 0
        for name, shape in self.layout.items():
            self._slices[name] = slice(size, size + prod(shape))
            size += prod(shape)
        # A flag a name, in memory that all share who name this vector; None once and for all, if all have values.
        self._filled = np.zeros(len(self.layout), bool) if vector is None else None
        if vector is None:
            vector = np.full(size, np.nan, dtype)  # a caller who does not check .filled gets NaN
        if vector.shape != (size,):
            raise ValueError(f"vector has shape {vector.shape}, the layout {self.layout} needs ({size},)")
        self._vector = vector

    @property
    def vector(self) -> Array:
        """All parameters in one array, shape (n_parameters,). Assignment copies into it."""
        return self._vector

    @vector.setter
    def vector(self, values: ArrayLike) -> None:
        _copy_into(self._vector, values, "vector")
        self.mark_filled()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type of the vector."""
        return self._vector.dtype

    @property
    def filled(self) -> bool:
        """Whether every name has values."""
        filled = self._filled  # read once: another thread may set it to None meanwhile
        if filled is not None and filled.all():
            self._filled = filled = None
        return filled is None

    def unfilled(self) -> list[str]:
        """Return the names that have no values yet."""
        filled = self._filled
        return [] if filled is None else [name for name, has in zip(self.layout, filled, strict=True) if not has]

    def mark_filled(self, *names: str) -> None:
        """State that these names, by default all, have values: after they were written in place."""
        filled = self._filled
        if filled is not None:
            filled[[i for i, name in enumerate(self.layout) if name in names or not names]] = True

    def matrices(self) -> list[str]:
        """Return the names of rank 2 and more: what decay, the L2 term and lazy rows touch; gains and biases never."""
        return [name for name, shape in self.layout.items() if len(shape) > 1]

    def place(self, name: str) -> slice:
        """Return where these values lie in the vector."""
        return self._slices[name]

    def __getitem__(self, name: str) -> Array:
        return self._vector[self._slices[name]].reshape(self.layout[name])

    def __setitem__(self, name: str, values: ArrayLike) -> None:
        _copy_into(self[name], values, name)
        if self._filled is not None:
            self.mark_filled(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def sub(self, prefix: str) -> Parameters:
        """Return the parameters whose names start with ``prefix + "."``, without it: a contiguous slice, not a copy."""
        head = prefix.removesuffix(".") + "."
        places = [i for i, name in enumerate(self.layout) if name.startswith(head)]
        layout = {name[len(head) :]: shape for name, shape in self.layout.items() if name.startswith(head)}
        slices = [self._slices[head + name] for name in layout]
        if places != list(range(places[0], places[-1] + 1) if places else ()):
            raise ValueError(f"the parameters under {prefix!r} do not lie side by side in {list(self.layout)}")
        part = Parameters(layout, self._vector[slices[0].start : slices[-1].stop] if slices else self._vector[:0])
        if self._filled is not None and places:
            part._filled = self._filled[places[0] : places[-1] + 1]
        return part

    def like(self, dtype: DTypeLike | None = None) -> Parameters:
        """Return zeros of the same layout."""
        return self.of(np.zeros(self._vector.shape, self._vector.dtype if dtype is None else dtype))

    def of(self, vector: Array) -> Parameters:
        """Return the same names for another vector, of this size."""
        twin = object.__new__(Parameters)
        twin.layout, twin._slices, twin._vector, twin._filled = self.layout, self._slices, vector, None
        twin.rows = {}
        return twin

    def view(self) -> Parameters:
        """Return another object that names the same memory."""
        twin = self.of(self._vector)
        twin._filled = self._filled
        return twin

    def matches(self, other: Parameters) -> bool:
        """Tell whether the names and shapes are the same, in the same order."""
        return list(self.layout.items()) == list(other.layout.items())

    def rebind(self, other: Parameters) -> None:
        """Name the memory of others from now on, which have the same layout."""
        if not self.matches(other):
            raise ValueError(f"the layout {self.layout} cannot name the memory of {other.layout}")
        self._vector, self._filled = other._vector, other._filled

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Parameters)
            and self.matches(other)
            and self.unfilled() == other.unfilled()
            and np.array_equal(self._vector, other._vector)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of the numbers, never of the memory that they are a window on.
        return _restored, (self.layout, self._vector.copy(), None if self._filled is None else self._filled.copy())

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {shape}" for name, shape in self.layout.items())
        return f"Parameters({{{shapes}}}, {self.dtype})"


def _restored(layout: dict[str, Shape], vector: Array, filled: NDArray[np.bool_] | None) -> Parameters:
    params = Parameters(layout, vector)
    params._filled = filled
    return params


def _copy_into(view: Array, values: ArrayLike, name: str) -> None:
    values = np.asarray(values)
    if values.shape != view.shape:
        raise ValueError(f"{name} has shape {view.shape}, got values of shape {values.shape}")
    try:
        np.copyto(view, values, casting="same_kind")
    except TypeError:
        raise ValueError(f"{name} holds {view.dtype}, got values of type {values.dtype}") from None
