"""The gate: turn what a user gives into the arrays the library computes on, or say exactly what is wrong.

It is passed at ``fit`` and ``predict``; behind it, layers and losses trust their input. Inputs are never modified.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from .contract import Array, Layer, is_sparse, n_rows, needs_sequences
from .ragged import Ragged
from .tables import as_real

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


_PIECE = 1 << 16  # numbers looked at together


def all_finite(a: Array) -> bool:
    """Tell whether all numbers are finite, piece by piece: an answer for each would be another large array."""
    a = np.atleast_1d(a)
    step = max(1, _PIECE * len(a) // max(1, a.size))
    return all(np.isfinite(a[first : first + step]).all() for first in range(0, len(a), step))


def as_numbers(a: ArrayLike, dtype: DTypeLike, name: str, first_row: int = 0) -> Array:
    """Return ``a`` as an array of ``dtype``, finite throughout; its rows are those of ``name`` from ``first_row`` on.

    Raises
    ------
    ValueError
        If it is ragged, not numeric, complex, or not finite; the message names the first bad element.
    """
    a = as_real(a, name)
    with np.errstate(over="ignore"):
        out = a.astype(dtype, copy=False)
    if not all_finite(out):
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(out))[0])
        where = ", ".join(map(str, (at[0] + first_row, *at[1:]) if at else at))
        raise ValueError(f"{name} must be finite in {np.dtype(dtype)}, got {name}[{where}] = {a[at]}")
    return out


def as_features(x: Any, dtype: DTypeLike, n_features: int | None, name: str = "x", first_row: int = 0) -> Any:
    """Return ``x`` as a finite (n_samples, n_features) array, or a CSR matrix, of ``dtype``.

    Raises
    ------
    ValueError
        If rank, width, type or values are not those; the message says what was got and what was expected.
    """
    if is_sparse(x):
        x = x.tocsr()
        if x.dtype.kind not in "fiub":
            raise ValueError(f"{name} must hold real numbers, got dtype {x.dtype}")
        with np.errstate(over="ignore"):
            x = x.astype(dtype, copy=False)
        if not all_finite(x.data):
            raise ValueError(f"{name} must be finite in {np.dtype(dtype)}, got {x.data[~np.isfinite(x.data)][0]}")
    else:
        x = as_numbers(x, dtype, name, first_row)
    check_shape(x.shape, n_features, name)
    return x


def check_shape(shape: tuple[int, ...], n_features: int | None, name: str = "x") -> None:
    """Raise a ValueError unless this is the shape of rows of so many features."""
    if len(shape) != 2 or n_features not in (None, shape[1]):
        hint = "; for one row pass x[None, :]" if len(shape) == 1 else ""
        width = "n_features" if n_features is None else n_features
        raise ValueError(f"{name} must have shape (n_samples, {width}), got {shape}{hint}")


def as_ids(x: Any, name: str) -> Array:
    """Return ``x`` as int64, shape (n,).

    Raises
    ------
    ValueError
        If it does not hold integers, or has another rank.
    """
    found = as_real(x, name) if not is_sparse(x) else x
    if found.shape == (0,):
        return np.zeros(0, np.int64)
    if found.dtype.kind not in "iu" or found.ndim != 1:
        gaps = ", with NaN for what is missing" if found.dtype.kind == "f" and np.isnan(found).any() else ""
        raise ValueError(
            f"{name} must hold integer ids, one a row, shape (n,); got {found.dtype} of shape {found.shape}{gaps}"
        )
    if found.dtype == np.uint64 and found.max(initial=0) >= 1 << 63:
        raise ValueError(f"{name} must hold ids below 2**63, got {found.max()}")
    return found.astype(np.int64)


def as_input(x: Any, net: Layer, name: str = "x") -> Any:
    """Return what ``net`` takes: features, integer ids, sequences of either, or a tuple of these, in the network's dtype.

    Raises
    ------
    ValueError
        If rank, width, type or values are not those; the message says what was got and what was expected.
    """
    if net.mixes_events and not isinstance(x, tuple | Ragged) and not isinstance(net.takes, tuple):
        raise ValueError(needs_sequences(net, x))
    return _as_input(x, net.params.dtype, getattr(net, "in_features", None), net.takes, name)


def _as_input(x: Any, dtype: DTypeLike, width: Any, takes: Any, name: str) -> Any:
    if isinstance(takes, tuple):
        if not isinstance(x, tuple) or len(x) != len(takes):
            got = f"a tuple of {len(x)}" if isinstance(x, tuple) else type(x).__name__
            raise ValueError(f"{name} must be a tuple of {len(takes)} parts, one for each layer of Parallel, got {got}")
        widths = width if isinstance(width, tuple) else [None] * len(takes)
        parts = tuple(_as_input(x[i], dtype, widths[i], takes[i], f"{name}[{i}]") for i in range(len(takes)))
        n_rows(parts)
        return parts
    if isinstance(x, Ragged):
        name = f"{name}.values"
        if not x.n_events:  # of no events, neither width nor type is known
            n = width if isinstance(width, int) else x.values.shape[-1] if len(x.values.shape) == 2 else 1
            return Ragged(np.zeros(0, np.int64) if takes == "ids" else np.zeros((0, n), dtype), x.offsets)
        if takes != "ids" and len(x.values.shape) == 1:
            raise ValueError(
                f"{name} must have shape (n_events, n_features), got {x.values.shape}: give {name}[:, None]"
            )
        return Ragged(_as_input(x.values, dtype, width, takes, name), x.offsets)
    return as_ids(x, name) if takes == "ids" else as_features(x, dtype, width, name)


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """Return ``dtype`` as a data type; raise a ValueError unless it is float64 or float32."""
    try:
        known = dtype is not None and np.dtype(dtype) in (np.dtype(np.float64), np.dtype(np.float32))
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"dtype must be float64 or float32, got {dtype!r}")
    return np.dtype(dtype)  # type: ignore[no-any-return]


def as_weights(w: ArrayLike, n_samples: int, name: str = "sample_weight") -> Array:
    """Return ``w`` as n_samples finite float64 weights, none negative; raise a ValueError otherwise."""
    w = as_numbers(w, np.float64, name)
    if w.shape != (n_samples,):
        raise ValueError(f"{name} must have shape ({n_samples},), one weight a sample, got {w.shape}")
    if (w < 0).any():
        raise ValueError(f"{name} must not be negative, got {w.min()}")
    return w


def weights_of(w: Any, y: Any, name: str = "sample_weight") -> Any:
    """Return the weights of the targets ``y``: one a row; or for a target on each event, one a sequence or one an event.

    Raises
    ------
    ValueError
        If there are not as many, or one is negative or not finite.
    """
    if not isinstance(y, Ragged):
        if isinstance(w, Ragged):
            raise ValueError(f"{name} must have one weight a row, as y has; got {w!r}")
        return as_weights(w, n_rows(y), name)
    if not isinstance(w, Ragged) and np.shape(w) == (y.n_events,) != (len(y),):
        raise ValueError(
            f"{name} has one weight an event: make it Ragged({name}, y.offsets); or give one a sequence, ({len(y)},)"
        )
    if not isinstance(w, Ragged):
        return Ragged.of(np.repeat(as_weights(w, len(y), name), y.lengths), y.offsets)
    if not w.same_events(y):
        raise ValueError(f"{name} must have a weight for each event, as y has a target: {y.difference(w)}")
    return Ragged.of(as_weights(w.values, y.n_events, name), y.offsets)


def as_class_weights(class_weight: Mapping[Any, float] | str, y: ArrayLike) -> Array:
    """Return one weight a sample, from its label: "balanced", n_samples / (n_classes * count of the class), or as it is mapped.

    Raises
    ------
    ValueError
        If y does not hold one label a sample, or a label has no weight.
    """
    if is_sparse(y):
        raise ValueError("class_weight needs one label a sample in y, got a sparse y")
    labels = np.asarray(y)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or (labels != np.floor(labels)).any():
        raise ValueError(f"class_weight needs one whole-numbered label a sample in y, got shape {labels.shape}")
    classes, index, counts = np.unique(labels.astype(np.int64), return_inverse=True, return_counts=True)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f"class_weight must be a mapping or 'balanced', got {class_weight!r}")
        weights = len(labels) / (len(classes) * counts)
    elif isinstance(class_weight, Mapping):
        missing = [int(c) for c in classes if c not in class_weight]
        if missing:
            raise ValueError(f"class_weight must name every label in y; it names {list(class_weight)}, not {missing}")
        weights = np.array([check_number(class_weight[c], f"class_weight[{c}]") for c in classes.tolist()])
    else:
        raise ValueError(f"class_weight must be a mapping or 'balanced', got {class_weight!r}")
    return weights[index]


def fitted_inside(model: object, name: str = "model") -> str:
    """Return how the estimator of this library in ``model`` is reached, such as "model[-1]" of a pipeline; "" if there is none.

    For messages that name the right call: a network is asked for, and an estimator, a pipeline or a search was given.
    """
    if hasattr(type(model), "network_"):
        return name
    if name.count(".") + name.count("[") > 4 or not hasattr(type(model), "fit"):
        return ""
    steps = getattr(model, "steps", None)
    if isinstance(steps, list) and steps and isinstance(steps[-1], tuple):
        return fitted_inside(steps[-1][-1], f"{name}[-1]")
    for attribute in ("best_estimator_", "estimator_", "regressor_", "estimator"):
        if attribute in vars(model):
            return fitted_inside(getattr(model, attribute), f"{name}.{attribute}")
    return ""


def check_rng(rng: object) -> None:
    """Raise a ValueError unless ``rng`` is a numpy.random.Generator."""
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng must be a numpy.random.Generator, e.g. numpy.random.default_rng(0); got {rng!r}")


def check_size(value: object, name: str, *, least: int = 1) -> int:
    """Return ``value`` as an int of at least ``least``; raise a ValueError otherwise."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def check_number(value: object, name: str, *, below: float = inf, positive: bool = False) -> float:
    """Return ``value`` as a finite float with 0 <= value < below, or 0 < value if positive; raise a ValueError otherwise."""
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # 10**400
            number = inf
        if isfinite(number) and 0 <= number < below and (number > 0 or not positive):
            return number
    expected = "greater than 0" if positive else "at least 0"
    raise ValueError(f"{name} must be a number {expected}{f' and below {below}' if below < inf else ''}, got {value!r}")
