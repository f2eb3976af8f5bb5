"""Ragged: sequences of different lengths, packed one behind the other; there is no padding, and no mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import numpy as np

from .parameters import Array
from .tables import as_real

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Ragged:
    """Sequences of events: sequence i is ``values[offsets[i]:offsets[i + 1]]``, one row an event, and may be empty.

    ``len(x)`` is the number of sequences; ``x[i]`` is one of them, ``x[rows]`` (a slice, numbers, or a mask) are some.

    Parameters
    ----------
    values : array, shape (n_events, ...), or CSR matrix
        Numbers, or integer ids of shape (n_events,).
    offsets : array of int, shape (n_sequences + 1,)
        From 0 to n_events, never falling.

    Raises
    ------
    ValueError
        If values are no rows of numbers, or the offsets are not as above; the message names the first that is wrong.

    Examples
    --------
    >>> x = Ragged([[1.0], [2.0], [3.0]], [0, 2, 2, 3])
    >>> len(x), x.lengths.tolist(), x[0].tolist(), x[1:].offsets.tolist()
    (3, [2, 0, 1], [[1.0], [2.0]], [0, 0, 1])
    """

    __slots__ = ("offsets", "values")
    offsets: Array
    values: Any

    def __init__(self, values: Any, offsets: ArrayLike) -> None:
        self.values = _as_values(values)
        self.offsets = _as_offsets(offsets, self.n_events)

    @classmethod
    def of(cls, values: Any, offsets: Array) -> Ragged:
        """Return what the constructor does, of parts that are known to fit: nothing is looked at."""
        out = object.__new__(cls)
        out.values, out.offsets = values, offsets
        offsets.flags.writeable = False  # it is shared, by what goes into a layer and what comes out
        return out

    @classmethod
    def from_list(cls, sequences: Sequence[Any]) -> Ragged:
        """Pack a list of sequences: arrays or lists of events, each of the same shape; empty ones take the others' shape.

        Raises
        ------
        ValueError
            If events differ in shape, where the message names the sequence, or are no numbers.

        Examples
        --------
        >>> Ragged.from_list([[3, 1], [], [2]]).values.tolist()
        [3, 1, 2]
        """
        if not isinstance(sequences, Iterable):
            raise ValueError(f"from_list takes a list of sequences, got {sequences!r}")
        parts = [np.asarray(s) for s in sequences]
        offsets = np.concatenate([[0], np.cumsum([len(p) if p.ndim else 0 for p in parts])]).astype(np.int64)
        shape: tuple[int, ...] | None = None
        for i, part in enumerate(parts):
            if not part.ndim:
                raise ValueError(f"sequence {i} must be a list of events, got {part[()]!r}")
            if len(part):
                shape = part.shape[1:] if shape is None else shape
                if part.shape[1:] != shape:
                    raise ValueError(
                        f"every event must have shape {shape}, sequence {i} has events of {part.shape[1:]}"
                    )
        full = [part for part in parts if len(part)] or parts[:1]
        return cls.of(_as_values(np.concatenate(full) if full else np.zeros(0)), offsets)

    @classmethod
    def from_padded(cls, x: ArrayLike, lengths: ArrayLike) -> Ragged:
        """Pack an array of shape (n_sequences, longest, ...), whose sequence i is ``x[i, :lengths[i]]``.

        Raises
        ------
        ValueError
            If there is not one length a sequence, or one is negative or more than ``longest``, or x holds no numbers.
        """
        x, found = np.asarray(x), np.asarray(lengths)
        if x.ndim < 2 or found.shape != x.shape[:1] or found.dtype.kind not in "iu":
            raise ValueError(
                f"from_padded takes x of shape (n_sequences, longest, ...) and an integer length for each, got x of shape "
                f"{x.shape} and lengths of shape {found.shape} and type {found.dtype}"
            )
        found = found.astype(np.int64)
        if ((found < 0) | (found > x.shape[1])).any():
            bad = int(np.argmax((found < 0) | (found > x.shape[1])))
            raise ValueError(f"lengths must be in 0 .. {x.shape[1]}, the longest, got lengths[{bad}] = {found[bad]}")
        return cls.of(_as_values(x[np.arange(x.shape[1]) < found[:, None]]), np.concatenate([[0], np.cumsum(found)]))

    @classmethod
    def from_frame(cls, frame: Any, by: Any, columns: Any, keys: Iterable[Any] | None = None) -> Ragged:
        """Pack a table of events: a sequence for each value of the column ``by``, in the order of pandas' groupby(observed=True).

        Events keep the order of the table: sort it by time before.

        Parameters
        ----------
        frame : pandas or polars DataFrame
        by : str
            The column that names whose event it is.
        columns : str or list of str
            One column, for ids or targets of shape (n_events,), or several: numbers of shape (n_events, n_columns).
        keys : values of ``by``, optional
            Whose sequences, in this order, in place of all: one without events has an empty one, others' are left out.

        Raises
        ------
        ValueError
            If a column is missing, is there twice, or holds no numbers, ``by`` has a missing value, or a key is
            missing, stands twice, or is of another type than the column.
        """
        known: list[Any] = [] if hasattr(frame, "collect") else list(getattr(frame, "columns", []))
        if not known or not hasattr(frame, "__getitem__"):
            raise ValueError(f"from_frame takes a table with columns, of pandas or polars, got {type(frame).__name__}")
        single = not isinstance(columns, list | tuple) or columns in known
        names = [by, *([columns] if single else columns)]
        for name in names:
            if known.count(name) != 1:
                raise ValueError(f"the table has {known.count(name) or 'no'} column {name!r}; it has {known}")
        if len(names) == 1:
            raise ValueError("columns must name at least one column, got none")
        group, offsets = _groups(frame, by, keys)
        order = np.argsort(group, kind="stable")[len(group) - offsets[-1] :]  # the rows of none come first
        values = [as_real(frame[name], str(name))[order] for name in names[1:]]
        return cls.of(values[0] if single else np.stack(values, axis=1), offsets)

    def to_padded(self, fill: Any = 0) -> Array:
        """Return an array of shape (n_sequences, longest, ...), with ``fill`` after the end of each sequence."""
        lengths = self.lengths
        values: Any = self.values
        values = values.toarray() if hasattr(values, "tocsr") else values
        dtype = np.result_type(values.dtype, np.min_scalar_type(fill))
        out = np.full((len(self), lengths.max(initial=0), *values.shape[1:]), fill, dtype)
        out[np.arange(out.shape[1]) < lengths[:, None]] = values
        return out

    @property
    def n_events(self) -> int:
        """The number of events of all sequences."""
        return int(self.values.shape[0])

    @property
    def lengths(self) -> Array:
        """The number of events of each sequence, shape (n_sequences,)."""
        return np.diff(self.offsets)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type of the values."""
        return self.values.dtype  # type: ignore[no-any-return]

    def same_events(self, other: Ragged) -> bool:
        """Tell whether both have sequences of the same lengths."""
        return self.offsets is other.offsets or np.array_equal(self.offsets, other.offsets)

    def difference(self, other: Ragged) -> str:
        """Say where the sequences of another differ in length; nothing, if they do not."""
        if self.same_events(other):
            return ""
        if len(self) != len(other):
            return f"there are {len(self)} sequences, and {len(other)}"
        i = int(np.argmax(self.lengths != other.lengths))
        return f"sequence {i} has {self.lengths[i]} events, and {other.lengths[i]}"

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __array__(self, *args: Any, **options: Any) -> Array:
        raise ValueError(
            "a Ragged is no array: x.values are its events; networks take sequences, estimators and layers of rows do not"
        )

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(len(self))
            ends = self.offsets[start : max(start, stop) + 1]
            return Ragged.of(self.values[ends[0] : ends[-1]], ends - ends[0])
        if not isinstance(rows, slice):
            rows = np.asarray(rows, np.int64 if np.size(rows) == 0 else None)
            if rows.ndim > 1 or rows.dtype.kind not in ("iub" if rows.ndim else "iu"):
                raise IndexError(
                    f"sequences are picked by a number, a slice, a list of numbers, or a mask; got {rows!r}"
                )
            if not rows.ndim:
                i = range(len(self))[int(rows)]
                return self.values[self.offsets[i] : self.offsets[i + 1]]
        starts, lengths = self.offsets[:-1][rows], self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        events = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged.of(self.values[events], offsets)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Ragged, (self.values, self.offsets)

    def __repr__(self) -> str:
        return f"Ragged({len(self)} sequences, {self.n_events} events, {self.dtype} of shape {self.values.shape})"


def _as_values(values: Any) -> Any:
    if isinstance(values, Ragged):
        raise ValueError("values are the events, not sequences; got a Ragged")
    found = values.tocsr() if hasattr(values, "tocsr") else np.asarray(values)
    if not found.ndim or found.dtype.kind not in "biufc":
        raise ValueError(f"values must be rows of numbers, one an event, got {found.dtype} of shape {found.shape}")
    return found


def _groups(frame: Any, by: Any, keys: Iterable[Any] | None) -> tuple[Array, Array]:
    """Return the number of each row's sequence, -1 for none, and where each sequence begins, and the last ends."""
    column = frame[by]
    if _misses(column):
        raise ValueError(f"the column {by!r} must name whose event it is in every row, got a missing value")
    if keys is not None:
        group, n = _numbers_of(column, keys, by)
    elif hasattr(frame, "groupby"):
        group, n = frame.groupby(by, sort=True, observed=True).ngroup().to_numpy(), 0
    else:
        group, n = np.unique(column.to_numpy(), return_inverse=True)[1], 0
    return group, np.concatenate([[0], np.cumsum(np.bincount(group[group >= 0], minlength=n))]).astype(np.int64)


def _misses(column: Any) -> bool:
    return bool((column.isna() if hasattr(column, "isna") else column.is_null()).any())


def _numbers_of(column: Any, keys: Any, by: Any) -> tuple[Array, int]:
    """Return what `_groups` does of keys in their order, and how many they are."""
    if not isinstance(keys, Iterable) or isinstance(keys, str | bytes | Set | Mapping) or hasattr(keys, "columns"):
        raise ValueError(f"keys must be a list or a column of values of {by!r}, got {type(keys).__name__}")
    try:
        values = type(column)(list(keys))  # of the column's library, so that a day equals a day
        keys = list(values)
        number = {key: i for i, key in enumerate(keys)}
    except TypeError as error:  # of several types, or of one that names nothing
        raise ValueError(
            f"keys must be values of the column {by!r}, all of its type: {str(error).splitlines()[0]}"
        ) from None
    if _misses(values):
        raise ValueError(f"keys must be values of the column {by!r}, got a missing one")
    if len(number) != len(keys):
        raise ValueError(f"keys must differ, got {next(k for i, k in enumerate(keys) if number[k] != i)!r} twice")
    group = np.array([number.get(key, -1) for key in column], np.int64)
    if len(group) and len(keys) and group.max() < 0 and not _comparable(keys[0], next(iter(column))):
        raise ValueError(f"keys must be values of the column {by!r}; it has {next(iter(column))!r}, got {keys[0]!r}")
    return group, len(keys)


def _comparable(a: Any, b: Any) -> bool:
    try:
        return bool(a < b) or True
    except TypeError:
        return False


def _as_offsets(offsets: ArrayLike, n_events: int) -> Array:
    found = np.asarray(offsets)
    if found.ndim != 1 or len(found) == 0 or found.dtype.kind not in "iu":
        raise ValueError(
            f"offsets must be whole numbers, one more than there are sequences, got {found.dtype} of shape {found.shape}"
        )
    found = found.astype(np.int64)
    if (np.diff(found) < 0).any():
        bad = int(np.argmax(np.diff(found) < 0)) + 1
        raise ValueError(f"offsets must not fall, got offsets[{bad}] = {found[bad]} after {found[bad - 1]}")
    if found[0] != 0 or found[-1] != n_events:
        raise ValueError(f"offsets must go from 0 to the number of events, {n_events}, got {found[0]} to {found[-1]}")
    found.flags.writeable = False
    return found
