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


def fits_in_json(value: Any) -> bool:
    """Tell whether JSON, and a little more, can hold it."""
    if isinstance(value, (list, tuple)):
        return all(map(fits_in_json, value))
    if isinstance(value, Mapping):
        return all(map(fits_in_json, value)) and all(map(fits_in_json, value.values()))
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


def save(estimator: Any, path: Any) -> None:
    """Write a fitted estimator, whose arguments are in range, to one file."""
    import json

    from ..modelfile import save_with

    params = estimator.get_params() | {"callbacks": list(estimator.callbacks)}
    if not fits_in_json(estimator.hidden_layer_sizes):
        params["hidden_layer_sizes"] = [int(width) for width in estimator._widths()]
    for name, value in params.items():
        if not fits_in_json(value):
            raise ValueError(f"{name}={value!r} cannot be saved; only numbers, strings and lists of them can")
    state = {name: value for name, value in vars(estimator).items() if name not in params}
    for name in ("_net", "_loss", "_optimizer", "_rng", "_metadata_request"):  # in the file, made anew, or not kept
        state.pop(name, None)
    if unknown := sorted(state.keys() - STATE):
        raise ValueError(f"the attributes {unknown} cannot be saved")
    curves = {name: np.array(state.pop(name)) for name in CURVES if state.get(name) is not None}
    for name, value in state.items():
        try:
            state[name] = described(value)
            json.dumps(state[name])
        except TypeError as error:
            raise ValueError(f"the attribute {name} cannot be saved: {error}") from error
    about = {"class": type(estimator).__name__, "params": {n: described(v) for n, v in params.items()}, "state": state}
    save_with(about, estimator._net, path, optimizer=estimator._optimizer, rng=estimator._rng, curves=curves)


def load(cls: Any, path: Any) -> Any:
    """Read an estimator of a class; a ModelFileError, if there is none in the file."""
    from ..modelfile import load_with
    from ..safetensors import ModelFileError, source_name

    saved, about, curves = load_with(path)
    try:
        if about is None or about["class"] != cls.__name__:
            raise ValueError(f"it holds {'no estimator' if about is None else about['class']}, not {cls.__name__}")
        params = {name: restored(value) for name, value in about["params"].items()}
        params["callbacks"] = tuple(params["callbacks"])
        if isinstance(params["hidden_layer_sizes"], list):
            params["hidden_layer_sizes"] = tuple(params["hidden_layer_sizes"])
        found = cls(**params)
        for name, value in about["state"].items():
            if name not in STATE:
                raise ValueError(f"it holds {name!r}")
            setattr(found, name, restored(value))
        for name, curve in curves.items():
            if name not in CURVES or curve.ndim != 1:
                raise ValueError(f"it holds a curve {name!r} of shape {curve.shape}")
            setattr(found, name, curve.tolist())
        found._check_parameters(strict=False)
        if saved.optimizer is None or saved.rng is None:
            raise ValueError("it holds no optimizer, or no generator")
        found._net, found._optimizer, found._rng = saved.net, saved.optimizer, saved.rng
        found._loss, _ = found._loss_and_last()
        choices = found._choices()
        if "_built" not in about["state"]:  # a file of the time before it was kept
            found._built = choices
        if found._built.keys() != choices.keys():
            raise ValueError(f"it was built of {sorted(found._built)}")
        if saved.net.out_features != found.n_outputs_ or saved.net.in_features != found.n_features_in_:
            raise ValueError("network and estimator have other widths")
        found._check_state()
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ModelFileError(f"{source_name(path)} holds no {cls.__name__}: {error}") from error
    return found
