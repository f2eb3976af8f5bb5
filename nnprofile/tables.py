"""Numbers and column names out of any array or table: NumPy's, pandas', polars', Arrow's, or one with ``__dataframe__``.

None of these is imported. What is no number is refused: dates, durations and text convert to numbers silently otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Number
from typing import Any

import numpy as np

from .parameters import Array

_PROTOCOL = {0: "int", 1: "uint", 2: "float", 20: "bool", 21: "string", 22: "datetime", 23: "categorical"}
_NOT_REAL = (complex, np.complexfloating, np.timedelta64)  # NumPy's durations are integers; decimal.Decimal is a Number
_ADVICE = "; encode or drop what is not a number first"


class NotNumbersError(ValueError, TypeError):
    """An array or a table holds something other than real numbers."""


def column_names(table: Any) -> list[Any] | None:
    """Return the names of a table's columns; None if it has none, as an array."""
    shape = getattr(table, "shape", (0, None))
    for attribute in (
        ("columns",) if _is_pandas(table) else ("column_names", "columns")
    ):  # Arrow's ``columns`` are arrays
        names = getattr(table, attribute, None)
        if isinstance(names, Iterable) and not callable(names) and not isinstance(names, str):
            names = names.tolist() if hasattr(names, "tolist") else list(names)
            return names if len(shape) == 2 and shape[1] in (None, len(names)) else None
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
    if objects and _is_pandas(a) and {getattr(dtype, "kind", "O") for dtype in a.dtypes} <= set("biuf"):
        kinds = set(a.dtypes)  # nullable ones would become objects
        plain = len(kinds) == 1 and isinstance(next(iter(kinds)), np.dtype)
        return np.asarray(a) if plain else a.to_numpy(dtype=np.float64, na_value=np.nan)
    if type(a) is not np.ndarray and not isinstance(a, (list, tuple)) and not hasattr(a, "iloc"):
        _check_columns(a, name)  # pandas alone never converts a date beside numbers
    try:
        out = np.asarray(a)
    except (ValueError, TypeError) as error:
        raise NotNumbersError(f"{name} must be an array of numbers: {error}") from None
    if out.dtype.kind == "O" and out.ndim == 0 and a is not None and not isinstance(a, Number):
        kind = type(a).__name__
        raise NotNumbersError(
            f"{name} must hold real numbers in an array, a list or a table, got {kind}: convert it first"
        )
    mask = _mask_of(a)
    if out.dtype.kind == "O":
        real = _from_objects(out, name, a, mask)
        if not objects:
            advice = "; of a table with nullable or mixed columns pass .to_numpy(float)"
            raise NotNumbersError(f"{name} must hold real numbers, got dtype object{advice}")
        return real
    if out.dtype.kind in "USO" and isinstance(a, (list, tuple)) and out.ndim == 2:
        _from_objects(np.array(a, object), name, a, None)  # names the column
    _check_kind(out.dtype, name, (column_names(a) or [None])[0] if out.dtype.kind not in "fiub" else None)
    if out.dtype.kind == "V":  # bfloat16 and its kin
        out = out.astype(np.float64)
    return out if mask is None else np.where(mask, np.nan, out)


def _is_pandas(table: Any) -> bool:
    return hasattr(table, "iloc") and getattr(table, "ndim", 0) == 2 and hasattr(table, "dtypes")


def _mask_of(a: Any) -> Array | None:
    """Return which elements are masked; None if none is."""
    if isinstance(a, np.ma.MaskedArray):
        return np.ma.getmaskarray(a) if np.ma.is_masked(a) else None
    if isinstance(a, (list, tuple)) and any(isinstance(row, np.ma.MaskedArray) for row in a):
        return np.stack([np.ma.getmaskarray(row) for row in a])
    return None


def _check_columns(table: Any, name: str) -> None:
    """Look at each kind of column by itself: a conversion of the whole table makes numbers of dates."""
    names = column_names(table)
    if names is None:
        return
    kinds = getattr(table, "dtypes", None)
    if kinds is None:
        kinds = getattr(getattr(table, "schema", None), "types", None)
    known: set[Any] = set()
    for k, label in enumerate(names):
        kind = kinds[k] if isinstance(kinds, list) and len(kinds) == len(names) else None
        if kind is not None and kind in known:
            continue
        try:
            column = table.column(k) if hasattr(table, "column") else table[label]
        except Exception:  # no table after all, but an array with labels
            break
        try:
            values = np.asarray(column)
        except Exception as error:
            raise NotNumbersError(f"{name} must hold real numbers, got column {label!r}: {error}") from None
        if values.dtype.kind == "O":
            _from_objects(values.reshape(-1, 1), name, [label], None)
            continue
        _check_kind(values.dtype, name, label)
        known.add(kind)
    else:
        return
    protocol: Any = table.__dataframe__() if hasattr(table, "__dataframe__") else None
    for k, label in enumerate(names if hasattr(protocol, "get_column") else ()):
        try:
            meaning = _PROTOCOL[int(protocol.get_column(k).dtype[0])]
        except (KeyError, ValueError, TypeError, NotImplementedError) as error:  # the protocol knows few types
            raise NotNumbersError(f"{name} must hold real numbers, got column {label!r}: {error}") from None
        if meaning not in ("int", "uint", "float", "bool"):
            raise NotNumbersError(f"{name} must hold real numbers, got {meaning} in column {label!r}{_ADVICE}")


def _check_kind(dtype: np.dtype[Any], name: str, column: Any) -> None:
    if dtype.kind == "c":
        raise NotNumbersError(f"{name} must hold real numbers, got dtype {dtype}: Complex data not supported")
    if dtype.kind not in "fiub" and not (dtype.kind == "V" and dtype.names is None and np.can_cast(dtype, np.float64)):
        where = "" if column is None else f" in column {column!r}"
        raise NotNumbersError(f"{name} must hold real numbers, got dtype {dtype}{where}{_ADVICE}")


def _from_objects(a: Array, name: str, given: Any, mask: Array | None) -> Array:
    """Return objects as float64: numbers, and None, pandas' NA and masked elements as NaN."""
    missing = np.zeros(a.shape, bool) if mask is None else mask.copy()
    if not a.size:
        return np.zeros(a.shape)
    columns = a.reshape(len(a), -1) if a.ndim else a.reshape(1, 1)
    marks = missing.reshape(columns.shape)
    for k in range(columns.shape[1]):
        for kind in set(map(type, columns[:, k])):
            if kind is type(None) or kind.__name__ == "NAType":
                marks[:, k] |= [type(value) is kind for value in columns[:, k]]
            elif not (issubclass(kind, (Number, np.bool_)) and not issubclass(kind, _NOT_REAL)):
                values = [
                    v for v, hidden in zip(columns[:, k], marks[:, k], strict=True) if type(v) is kind and not hidden
                ]
                if values:
                    _refuse(values[0], kind, name, _where(given, k) if a.ndim == 2 else "")
    try:
        return np.where(missing, np.nan, a).astype(np.float64)
    except (OverflowError, ValueError, TypeError) as error:  # an integer of 400 digits; a signalling NaN
        raise NotNumbersError(f"{name} must hold numbers of float64: {error}") from None


def _where(given: Any, k: int) -> str:
    """Name a column: by its label, where the table has labels."""
    names: Sequence[Any] | None = given if isinstance(given, list) and len(given) == 1 else column_names(given)
    return f" in column {names[k]!r}" if names is not None and k < len(names) else f" in column {k}"


def _refuse(value: Any, kind: type, name: str, where: str) -> None:
    if issubclass(kind, (complex, np.complexfloating)):
        raise NotNumbersError(f"{name} must hold real numbers, got {kind.__name__}{where}: Complex data not supported")
    detail = " (float's argument must be a string or a real number)" if isinstance(value, (dict, set)) else ""
    raise NotNumbersError(f"{name} must hold real numbers, got {kind.__name__}{where}{_ADVICE}{detail}")
