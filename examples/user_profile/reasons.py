"""Which of a person's traits moved the score, and by how much.

Integrated gradients: backpropagation gives the gradient with respect to the input for free; its mean along the straight line
from an artificial person, who has the mean of the training rows in every feature, to this one, times the difference between the
two, shares the score out among the features. Nobody is that person, to whom the model may give a score that nobody has; so each
column's mean share, over a sample of people, is then taken off: reasons say what sets someone apart from other people.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

import nnprofile as nn

from .train import Model

CHUNK = 32  # rows at a time: a row has some hundred pieces of path
N_PEOPLE = 500  # whose mean share of each column is taken off


def reasons(model: Model, frame: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, float]:
    """Return each column's share of each record's log-odds, a row a record; these log-odds; and the base.

    A row's shares add up to its log-odds minus the base (completeness). The base is the mean log-odds of the people whose mean
    shares the model keeps; without them that of an artificial person, the zero vector, since the encoder has centred all
    features on the training rows.
    """
    x = model.encoder.transform(frame).astype(np.float64)
    params = model.net.params.like(np.float64)
    params.vector[...] = model.net.params.vector
    net = model.net.with_params(params)
    start = np.zeros(x.shape[1])
    shares = integrated_gradients(net, x, start)
    columns = model.encoder.feature_columns()
    names = [column["name"] for column in model.encoder.columns]
    summed = np.stack([shares[:, columns == k].sum(axis=1) for k in range(len(names))], axis=1)
    log_odds = net.forward(np.vstack([x, start]))[0][:, 0]
    usual = np.array(model.mean_shares) if model.mean_shares else np.zeros(len(names))
    shares = pd.DataFrame(summed - usual, columns=names, index=frame.index)
    return shares, log_odds[:-1], float(log_odds[-1] + usual.sum())


def against_people(model: Model, frame: pd.DataFrame) -> Model:
    """Return the model with the mean shares of a sample of these people, against whom its reasons are told."""
    rows = np.random.default_rng(0).permutation(len(frame))[:N_PEOPLE]
    shares, _, _ = reasons(replace(model, mean_shares=()), frame.iloc[rows])
    return replace(model, mean_shares=tuple(shares.mean().tolist()))


def without(model: Model, frame: pd.DataFrame, columns: np.ndarray) -> np.ndarray:
    """Return the log-odds of each record with one column, ``columns[i]`` by number, set to the mean: its features are 0."""
    x = model.encoder.transform(frame)
    x[model.encoder.feature_columns()[None, :] == columns[:, None]] = 0
    return model.net.predict(x)[:, 0].astype(float)


def integrated_gradients(net: nn.Sequential, x: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return (x - start) * integral over t in [0, 1] of dF/dx at start + t (x - start), F = net; shape of x.

    A network of Dense and ReLU layers is linear between the kinks of its ReLUs, and the gradient constant; so the integral is
    a sum over the pieces between kinks: exact, but for rounding. The first layer is linear all the way, and is applied once.
    Where a path runs inside a kink (a ReLU's input is 0 all along), the gradient is the one that ``backward`` chooses.

    References
    ----------
    Sundararajan, Taly and Yan (2017), "Axiomatic attribution for deep networks", eq. 1.
    """
    first, *rest = net.layers
    if not isinstance(first, nn.Dense) or not all(isinstance(layer, nn.Dense | nn.ReLU | nn.Dropout) for layer in rest):
        raise ValueError(f"the path is cut at the kinks of ReLU layers between Dense ones; {net!r} has others")
    z_start, z_end = first.forward(start[None])[0], first.forward(x)[0]
    parts = [
        _mean_gradient(rest, np.broadcast_to(z_start, z.shape), z)
        for z in (z_end[i : i + CHUNK] for i in range(0, len(x), CHUNK))
    ]
    mean_dz = np.concatenate([np.empty((0, z_end.shape[1])), *parts])
    return (x - start) * (mean_dz @ first.params["W"].T)


def _mean_gradient(layers: list[nn.Layer], start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the mean over the line from ``start`` to ``end`` of the gradient of the output, a row a line."""
    t = _kinks(layers, start, end)
    middle, length = (t[:, 1:] + t[:, :-1]) / 2, np.diff(t)
    y, caches = _forward(layers, _points(start, end, middle))
    dz = np.ones_like(y)
    for layer, cache in zip(reversed(layers), reversed(caches), strict=True):
        dz, _ = layer.backward(dz, cache)
    return np.einsum("ns,nsj->nj", length, dz.reshape(*length.shape, -1))


def _kinks(layers: list[nn.Layer], start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return, in ascending order, the t in [0, 1] where a ReLU's input changes sign on the way; rows are filled up with 1."""
    t = np.tile([0.0, 1.0], (len(start), 1))
    for k, layer in enumerate(layers):
        if not isinstance(layer, nn.ReLU):
            continue
        z = _forward(layers[:k], _points(start, end, t))[0].reshape(*t.shape, -1)
        before, after = z[:, :-1], z[:, 1:]  # linear in between: the kinks of the layers below are in t
        crosses = (before > 0) != (after > 0)
        share = np.divide(before, before - after, out=np.ones_like(before), where=crosses)
        found = np.where(crosses, t[:, :-1, None] + share * np.diff(t)[:, :, None], 1.0).reshape(len(t), -1)
        t = np.sort(np.hstack([t, found]), axis=1)
        t = t[:, : 1 + (t < 1).sum(axis=1).max(initial=1)]
    return t


def _points(start: np.ndarray, end: np.ndarray, t: np.ndarray) -> np.ndarray:
    return (start[:, None] + t[:, :, None] * (end - start)[:, None]).reshape(-1, start.shape[1])


def _forward(layers: list[nn.Layer], z: np.ndarray) -> tuple[np.ndarray, list[object]]:
    caches = []
    for layer in layers:
        z, cache = layer.forward(z)
        caches.append(cache)
    return z, caches
