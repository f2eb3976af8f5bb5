"""Numbers and column names out of any array or table: NumPy's, pandas', polars', Arrow's, or one with ``__dataframe__``.

None of these is imported. What is no number is refused: dates, durations and text convert to numbers silently otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np

from .contract import Array

_PROTOCOL = {0: "int", 1: "uint", 2: "float", 20: "bool", 21: "string", 22: "datetime", 23: "categorical"}
_NOT_REAL = (
    complex,
    np.complexfloating,
    np.timedelta64,
)  # NumPy's durations are integers to ``numbers``; decimal.Decimal is a Number
_ADVICE = "; encode or drop what is not a number first"


class NotNumbersError(ValueError, TypeError):
    """An array or a table holds something other than real numbers."""


def column_names(table: Any) -> list[Any] | None:
    """Return the names of a table's columns; None if it has none, as an array."""
    for attribute in ("column_names", "columns"):  # Arrow's ``columns`` are the columns themselves
        names = getattr(table, attribute, None)
        if names is not None and not callable(names):
            return list(names)
    if hasattr(table, "__dataframe__"):
        return list(table.__dataframe__().column_names())
    return None


def as_real(a: Any, name: str, *, objects: bool = False) -> Array:
    """Return an array of floats, integers or booleans; missing values become NaN.

    With ``objects``, Python's numbers in an array of objects are taken too.

    Raises
    ------
    NotNumbersError
        If it is ragged, complex, or holds dates, durations, text, bytes or other objects; the message names column and type.
    """
    names = column_names(a)
    if names is not None and not hasattr(a, "iloc"):  # pandas alone never converts a date beside numbers
        _check_columns(a, names, name)
    try:
        out = np.asarray(a)
    except (ValueError, TypeError) as error:
        raise NotNumbersError(f"{name} must be an array of numbers: {error}") from None
    if out.dtype.kind == "O" and objects:
        return _from_objects(out, name, names)
    _check_kind(out.dtype, name, names[0] if names else None)
    masked = isinstance(a, np.ma.MaskedArray) and np.ma.is_masked(a)
    return np.where(np.ma.getmaskarray(a), np.nan, out) if masked else out


def _check_columns(table: Any, names: Sequence[Any], name: str) -> None:
    """Look at each column by itself: a conversion of the whole table makes numbers of dates."""
    if hasattr(table, "column") or hasattr(table, "__getitem__"):
        for k, label in enumerate(names):
            column = np.asarray(table.column(k) if hasattr(table, "column") else table[label])
            if column.dtype.kind == "O":
                _from_objects(column.reshape(-1, 1), name, [label])
            else:
                _check_kind(column.dtype, name, label)
        return
    protocol: Any = table.__dataframe__() if hasattr(table, "__dataframe__") else None
    for k, label in enumerate(names if hasattr(protocol, "get_column") else ()):
        try:
            kind = _PROTOCOL[int(protocol.get_column(k).dtype[0])]
        except (KeyError, ValueError, TypeError, NotImplementedError) as error:  # the protocol knows few types
            raise NotNumbersError(f"{name} must hold real numbers, got column {label!r}: {error}") from None
        if kind not in ("int", "uint", "float", "bool"):
            raise NotNumbersError(f"{name} must hold real numbers, got {kind} in column {label!r}{_ADVICE}")


def _check_kind(dtype: np.dtype[Any], name: str, column: Any) -> None:
    if dtype.kind == "c":
        raise NotNumbersError(f"{name} must hold real numbers, got dtype {dtype}: Complex data not supported")
    if dtype.kind == "O":
        advice = "; of a table with nullable or mixed columns pass .to_numpy(float)"
        raise NotNumbersError(f"{name} must hold real numbers, got dtype object{advice}")
    if dtype.kind not in "fiub":
        where = "" if column is None else f" in column {column!r}"
        raise NotNumbersError(f"{name} must hold real numbers, got dtype {dtype}{where}{_ADVICE}")


def _from_objects(a: Array, name: str, names: Sequence[Any] | None) -> Array:
    """Return objects as float64: numbers, and None or pandas' NA as NaN."""
    missing = np.zeros(a.shape, bool)
    columns = a.reshape(len(a), -1) if a.ndim else a.reshape(1, 1)
    marks = missing.reshape(columns.shape)
    for k in range(columns.shape[1]):
        for kind in set(map(type, columns[:, k])):
            if kind is type(None) or kind.__name__ == "NAType":
                marks[:, k] |= [type(value) is kind for value in columns[:, k]]
            elif not (issubclass(kind, (Number, np.bool_)) and not issubclass(kind, _NOT_REAL)):
                label = repr(names[k]) if names is not None and k < len(names) else str(k)
                where = f" in column {label}" if a.ndim == 2 or names is not None else ""
                _refuse(next(value for value in columns[:, k] if type(value) is kind), kind, name, where)
    try:
        return np.where(missing, np.nan, a).astype(np.float64)
    except (OverflowError, ValueError, TypeError) as error:  # an integer of 400 digits; a signalling NaN
        raise NotNumbersError(f"{name} must hold numbers of float64: {error}") from None


def _refuse(value: Any, kind: type, name: str, where: str) -> None:
    if issubclass(kind, (complex, np.complexfloating)):
        raise NotNumbersError(f"{name} must hold real numbers, got {kind.__name__}{where}: Complex data not supported")
    detail = " (float's argument must be a string or a real number)" if isinstance(value, (dict, set)) else ""
    raise NotNumbersError(f"{name} must hold real numbers, got {kind.__name__}{where}{_ADVICE}{detail}")
