"""How an estimator's arguments and attributes are written as plain JSON, and read again."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np

STATE = {
    *("classes_", "n_features_in_", "feature_names_in_", "n_outputs_", "n_layers_", "out_activation_", "n_iter_", "t_"),
    *("loss_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "validation_loss_curve_"),
    *("_multilabel", "_open", "_flat", "_scale", "_no_improvement_count", "_built"),
}
KINDS = "biufUSO"  # of arrays of labels
CURVES = ("loss_curve_", "validation_loss_curve_")  # a number an epoch, written as arrays


def is_plain(value: Any) -> bool:
    """Tell whether JSON, and a little more, can hold it."""
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, Mapping):
        return all(map(is_plain, value)) and all(map(is_plain, value.values()))
    return value is None or isinstance(value, (bool, int, float, str, np.integer, np.floating, np.bool_))


def described(value: Any) -> Any:
    """Return a plain value as JSON has it: what JSON has no word for becomes a mapping with one key."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in KINDS:
            raise TypeError(f"an array of {value.dtype}")
        return {
            "array": [described(item) for item in value.tolist()],
            "dtype": "O" if value.dtype == object else value.dtype.str,
        }
    if isinstance(value, Mapping):
        return {"mapping": [[described(key), described(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [described(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return {"float": repr(value)} if isinstance(value, float) and not isfinite(value) else value


def restored(value: Any) -> Any:
    """Return what ``described`` was given."""
    if isinstance(value, list):
        return [restored(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {"float"}:
            return float(value["float"])
        if value.keys() == {"mapping"}:
            return {restored(key): restored(item) for key, item in value["mapping"]}
        if value.keys() == {"array", "dtype"}:
            dtype = np.dtype(value["dtype"])
            if dtype.kind not in KINDS or dtype.itemsize > 1 << 16:
                raise ValueError(f"an array of {dtype}")
            return np.array([restored(item) for item in value["array"]], dtype)
        raise ValueError(f"it holds {sorted(value)}")
    return value
