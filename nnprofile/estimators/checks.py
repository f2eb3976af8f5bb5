"""What an estimator says of wrong input: scikit-learn's words, which its users and its tests know, without scikit-learn."""

from __future__ import annotations

import sys
import warnings
from math import isnan
from typing import Any

import numpy as np

from ..contract import Array, Loss, is_sparse
from ..tables import as_real, column_names


class NotFittedError(ValueError, AttributeError):
    """An estimator was asked before it had learned anything. Where scikit-learn is loaded, its class of this name is raised."""


class ConvergenceWarning(UserWarning):
    """Training ended before it had converged. Where scikit-learn is loaded, its class of this name is given."""


class DataConversionWarning(UserWarning):
    """y was a column where a vector was expected. Where scikit-learn is loaded, its class of this name is given."""


def known_to_sklearn(own: type) -> type:
    """Return scikit-learn's class of the same name, where that is loaded, so that code that catches it catches ours."""
    module = sys.modules.get("sklearn.exceptions")
    return own if module is None else getattr(module, own.__name__)


def warn(category: type[Warning], message: str) -> None:
    """Warn the caller of the estimator."""
    warnings.warn(message, known_to_sklearn(category), stacklevel=5)


def one_of(value: Any, allowed: tuple[str, ...], name: str) -> None:
    """Raise a ValueError unless ``value`` is one of the names allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_loss(loss: Any) -> None:
    """Raise a ValueError unless it is a Loss."""
    if not isinstance(loss, Loss):
        raise ValueError(f"loss must be a name or a Loss, got {loss!r}")


def check_finite(a: Array, name: str, who: str) -> None:
    """Raise a ValueError if a number is NaN or infinite."""
    if a.dtype.kind == "f" and not np.isfinite(a).all():
        if np.isnan(a).any():
            raise ValueError(
                f"Input {name} contains NaN.\n{who} does not accept missing values encoded as NaN natively."
            )
        raise ValueError(f"Input {name} contains infinity or a value too large for {a.dtype!r}.")


def as_array(a: Any, name: str, who: str) -> Array:
    """Return an array of float32, if it is one, or float64, all finite."""
    a = as_real(a, name, objects=True)
    with np.errstate(over="ignore"):
        a = a if a.dtype in (np.float32, np.float64) else a.astype(np.float64)
    check_finite(a, name, who)
    return a


def dense(y: Any) -> Any:
    """Return a sparse y as an array."""
    return y.toarray() if is_sparse(y) else y


def as_column(y: Any, who: str, n_samples: int, *, numbers: bool = False) -> Array:
    """Return y, which may be labels or is to be numbers, as an array (n_samples,) or of several columns."""
    if y is None:
        raise ValueError(f"{who} requires y to be passed, but the target y is None")
    y = dense(y)
    if not numbers and np.ma.is_masked(y):
        raise ValueError("Input y contains masked elements.")
    y = as_real(y, "y", objects=True) if numbers else np.asarray(y)
    if y.ndim == 0 or y.ndim > 2:
        raise ValueError(f"y should be a 1d array, got an array of shape {y.shape} instead.")
    if y.ndim == 2 and y.shape[1] == 1:
        warn(
            DataConversionWarning,
            "A column-vector y was passed when a 1d array was expected. Please change the shape of y to (n_samples,), for "
            "example using ravel().",
        )
        y = y[:, 0]
    if y.dtype.kind == "c":
        raise ValueError(f"Complex data not supported\n{y}\n")
    if y.dtype.kind == "f":
        check_finite(y.astype(np.float64), "y", who)
    if len(y) != n_samples:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: [{n_samples}, {len(y)}]")
    return y


def is_missing(value: Any) -> bool:
    """Tell whether it is None, NaN, or pandas' NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and isnan(value)


def native(a: Array) -> Array:
    """Return an array in this machine's byte order, which pandas and Numba need of what ``predict`` returns."""
    return a if a.dtype.isnative else a.astype(a.dtype.newbyteorder("="))


def as_labels(y: Any, who: str, n_samples: int) -> Array:
    """Return labels, shape (n_samples,), or rows of 0 and 1."""
    y = as_column(y, who, n_samples)
    if y.ndim == 2:
        if y.dtype == object:
            if any(map(is_missing, y.ravel())):
                raise ValueError("Input y contains NaN.")
            y = np.array(y.tolist())  # pandas' nullable columns
        if y.dtype.kind not in "iufb" or not np.isin(y, (0, 1)).all():
            raise ValueError(f"Unknown label type: several columns must hold 0 and 1; got {np.unique(y)[:5]}")
        return y
    if y.dtype.kind == "T":  # NumPy's text of any length, which a file has no word for
        y = y.astype(object)
    if y.dtype.kind in "mM" and np.isnat(y).any():
        raise ValueError("Input y contains NaT.")
    y = native(y)
    if y.dtype.kind == "O":
        if any(map(is_missing, y)):
            raise ValueError("Input y contains NaN.")
        kinds = {isinstance(value, str) for value in y}
        if len(kinds) > 1:
            raise TypeError("Labels are either all text or all numbers, got both")
    if y.dtype.kind == "f" and (y != np.round(y)).any():
        raise ValueError(
            "Unknown label type: continuous. Maybe you are trying to fit a classifier, which expects discrete classes on a "
            "regression target with continuous values."
        )
    return y


def as_values(y: Any, who: str, n_samples: int) -> Array:
    """Return float64 values, shape (n_samples,) or (n_samples, n_outputs)."""
    y = as_column(y, who, n_samples, numbers=True).astype(np.float64)
    check_finite(y, "y", who)
    return y


def names_differ(known: list[str], names: list[str]) -> str:
    """Return scikit-learn's message on columns that are not those of ``fit``."""
    message = "The feature names should match those that were passed during fit.\n"
    for title, some in (
        ("Feature names unseen at fit time:", sorted(set(names) - set(known))),
        ("Feature names seen at fit time, yet now missing:", sorted(set(known) - set(names))),
    ):
        if some:
            shown = [f"- {name}" for name in some[:5]] + ["- ..."] * (len(some) > 5)
            message += "\n".join([title, *shown]) + "\n"
    if set(names) == set(known):
        message += "Feature names must be in the same order as they were in fit.\n"
    return message


def as_table(X: Any, who: str) -> Any:
    """Return X as finite float32 (if it is float32) or float64, dense or CSR, of at least one row and one column."""
    if is_sparse(X):
        if X.ndim != 2:
            raise ValueError(f"Expected 2D input, got {X.ndim}D sparse input.")
        X = X.tocsr()
        as_real(X.data if hasattr(X, "data") else X, "X")
        X = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
        check_finite(X.data, "X", who)
    else:
        X = as_array(X, "X", who)
    if X.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead. Reshape your data either using array.reshape(-1, 1) if your "
            "data has a single feature or array.reshape(1, -1) if it contains a single sample."
        )
    for size, name in zip(X.shape, ("sample", "feature"), strict=True):
        if size < 1:
            raise ValueError(f"Found array with 0 {name}(s) (shape={X.shape}) while a minimum of 1 is required.")
    return X


def names_of(X: Any) -> list[str] | None:
    """Return the names of a table's columns, if they are texts; a TypeError, if only some are."""
    names = column_names(X)
    if names is None:
        return None
    kinds = {isinstance(name, str) for name in names}
    if len(kinds) > 1:
        raise TypeError(
            "Feature names are only supported if all input features have string names, but your input has "
            f"{sorted({type(name).__name__ for name in names})} as feature name / column name types."
        )
    return list(names) if kinds == {True} else None


def compare_names(names: list[str] | None, known: Any, who: str) -> None:
    """Warn where only one of ``fit`` and this call had names of columns; a ValueError, if they are others."""
    if known is None and names is not None:
        warnings.warn(f"X has feature names, but {who} was fitted without feature names", stacklevel=5)
    elif known is not None and names is None:
        warnings.warn(f"X does not have valid feature names, but {who} was fitted with feature names", stacklevel=5)
    elif known is not None and names is not None and names != list(known):
        raise ValueError(names_differ(list(known), names))


def as_sample_weights(sample_weight: Any, n_samples: int, who: str) -> Array | None:
    """Return n_samples float64 weights, none negative, some above 0; None, if there are none."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, (int, float, np.integer, np.floating)):
        sample_weight = np.full(n_samples, float(sample_weight))
    w = as_array(sample_weight, "sample_weight", who)
    if w.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, got {w.ndim}D array.")
    if w.shape != (n_samples,):
        raise ValueError(f"sample_weight.shape == {w.shape}, expected {(n_samples,)}!")
    if (w < 0).any():
        raise ValueError("Negative values in data passed to `sample_weight`")
    if n_samples and not w.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return w.astype(np.float64)
