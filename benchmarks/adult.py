"""Adult, as the example encodes it, for the question that matters in the end: which loss after how many seconds."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np


def data() -> tuple[np.ndarray, ...]:
    """Return features and labels to train and to validate on: the first split, coarsely encoded."""
    from examples.user_profile import collect, features, preprocess, splits

    table = preprocess.clean(collect.adult())
    fit, validate, _ = splits.splits(table)[0]
    encoder = features.Encoder.fit(table.frame.iloc[fit], table.kinds, table.y[fit], features.ENCODINGS["coarse"])
    x = encoder.transform(table.frame)
    y = table.y.astype(np.int64)
    return x[fit], y[fit], x[validate], y[validate]


def validation_loss(logits: np.ndarray, y: np.ndarray) -> float:
    """Return the mean cross-entropy."""
    z = logits.astype(np.float64)
    return float(np.mean(np.logaddexp(0, z) - y * z))


def clock(
    case: dict[str, Any], epoch: Callable[[], Any], score: Callable[[], float]
) -> Callable[[], list[list[float]]]:
    """Return a measurement: after each epoch, the seconds spent in epochs so far, and the validation loss."""

    def measure() -> list[list[float]]:
        seconds, points = 0.0, [[0.0, score()]]
        for _ in range(case["epochs"]):
            start = perf_counter()
            epoch()
            seconds += perf_counter() - start
            points.append([seconds, score()])
        return points

    return measure
