"""A loss that only estimators need: of the numbers of classes, for a loss on probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract import Array, Layer, Loss


class OneHot(Loss):
    """A loss on probabilities of classes that exclude each other, given the classes' numbers."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    @property
    def link(self) -> Layer:
        """That of the loss."""
        return self.loss.link

    def targets(self, y_true: Any, n_outputs: int) -> Array:
        """Return rows with a 1 at the class."""
        return self.loss.targets(np.eye(n_outputs)[np.asarray(y_true, int)], n_outputs)

    def forward(self, y_pred: Any, y_true: Any, sample_weight: Any = None) -> tuple[Any, Any]:
        """Return the loss and its cache."""
        y_true = np.asarray(y_true)
        if y_true.ndim == 1:
            y_true = self.targets(y_true, y_pred.shape[1])
        return self.loss.forward(y_pred, y_true, sample_weight)

    def backward(self, cache: Any) -> Array:
        """Return dy_pred."""
        return self.loss.backward(cache)
