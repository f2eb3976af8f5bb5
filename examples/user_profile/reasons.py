"""Which of a person's traits moved the score, and by how much.

Integrated gradients: backpropagation gives the gradient with respect to the input for free; its mean along the straight line
from an artificial person, who has the mean of the training rows in every feature, to this one, times the difference between the
two, shares the score out among the features. No person is like that, and the model may give it a score that no person has; so
each column's mean share, over a sample of people, is then taken off: reasons say what sets someone apart from other people.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pandas as pd

import nnprofile as nn
from nnprofile.layers.walk import walk

from .train import Model

CHUNK = 32  # rows at a time: a row has some fifty pieces of path
N_PEOPLE = 500  # whose mean share of each column is taken off


def reasons(model: Model, frame: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, float]:
    """Return each column's share of each record's log-odds, a row a record; these log-odds; and the base.

    A row's shares add up to its log-odds minus the base (completeness). The base is the mean log-odds of the people whose mean
    shares the model keeps; without them that of an artificial person, the zero vector, since the encoder has centred all
    features on the training rows.
    """
    x = model.encoder.transform(frame).astype(np.float64)
    start = np.zeros(x.shape[1])
    nets = [in_float64(net) for net in model.nets]
    shares = np.mean([integrated_gradients(net, x, start) for net in nets], axis=0)
    columns = model.encoder.feature_columns()
    names = [column["name"] for column in model.encoder.columns]
    summed = np.stack([shares[:, columns == k].sum(axis=1) for k in range(len(names))], axis=1)
    log_odds = np.mean([net.forward(np.vstack([x, start]))[0][:, 0] for net in nets], axis=0)
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
    return np.mean([net.predict(x)[:, 0].astype(float) for net in model.nets], axis=0)


def in_float64(net: nn.Sequential) -> nn.Sequential:
    """Return the network with its parameters in float64."""
    params = net.params.like(np.float64)
    params.vector[...] = net.params.vector
    return net.with_params(params)


def integrated_gradients(net: nn.Sequential, x: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return (x - start) * integral over t in [0, 1] of dF/dx at start + t (x - start), F = net; shape of x.

    A network of Dense and ReLU layers, in a row or in branches, is linear between the kinks of its ReLUs, and the gradient
    constant; so the integral is a sum over the pieces between kinks: exact, but for rounding. The first layer is linear all the
    way, and is applied once. Where a path runs inside a kink (a ReLU's input is 0 all along), the gradient is the one that
    ``backward`` chooses.

    References
    ----------
    Sundararajan, Taly and Yan (2017), "Axiomatic attribution for deep networks", eq. 1.
    """
    first = net.layers[0]
    linear = (nn.Dense, nn.ReLU, nn.Dropout, nn.Identity, nn.Residual, nn.Concatenate)
    if not isinstance(first, nn.Dense) or not all(isinstance(step.layer, linear) for step in walk(net, start[None])):
        raise ValueError(f"the path is cut at the kinks of ReLU layers behind a Dense one; {net!r} has others")
    rest = nn.Sequential([nn.Identity(), *map(copy.deepcopy, net.layers[1:])], rng=None)
    z_start, z_end = first.forward(start[None])[0], first.forward(x)[0]
    parts = [_mean_gradient(rest, z_start, z_end[i : i + CHUNK]) for i in range(0, len(x), CHUNK)]
    mean_dz = np.concatenate([np.empty((0, z_end.shape[1])), *parts])
    return (x - start) * (mean_dz @ first.params["W"].T)


def _mean_gradient(net: nn.Sequential, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the mean over the line from ``start`` to each row of ``end`` of the gradient of the output, a row a line."""
    line, t = _kinks(net, start, end)
    inside = line[1:] == line[:-1]  # a piece is between two neighbours on one line
    line, length, middle = line[1:][inside], np.diff(t)[inside], ((t[1:] + t[:-1]) / 2)[inside]
    y, cache = net.forward(start + middle[:, None] * (end - start)[line])
    dz, _ = net.backward(np.repeat(length[:, None], y.shape[1], axis=1), cache)
    return np.add.reduceat(dz, np.flatnonzero(np.diff(line, prepend=-1)))


def _kinks(net: nn.Sequential, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return line and t in [0, 1], in ascending order, of the ends of lines, and of where a ReLU's input changes sign."""
    line, t, k = np.repeat(np.arange(len(end)), 2), np.tile([0.0, 1.0], len(end)), 0
    while True:
        steps = walk(net, start + t[:, None] * (end - start)[line])
        relus = [step.x for step in steps if isinstance(step.layer, nn.ReLU)]
        if k == len(relus):
            return line, t
        z = relus[k]
        above = z > 0  # between two neighbours z is linear: the kinks of the ReLUs before it are in t
        at, unit = np.nonzero((above[1:] != above[:-1]) & (line[1:] == line[:-1])[:, None])
        before, after = z[at, unit], z[at + 1, unit]
        found = t[at] + before / (before - after) * (t[at + 1] - t[at])
        line, t = np.append(line, line[at]), np.append(t, found)
        order = np.lexsort((t, line))
        line, t, k = line[order], t[order], k + 1
