"""Two losses that only estimators need: of counts, and of the numbers of classes for a loss on probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract import Array, Layer, Loss
from ..layers.activations import Elementwise
from ..losses import MeanLoss


class Exp(Elementwise):
    """y = exp(x), dx = dy * y: a rate from its logarithm."""

    def forward(self, x: Array, rng: np.random.Generator | None = None) -> tuple[Array, Any]:
        """Return exp(x)."""
        y = np.exp(x)
        return y, y

    def _slope(self, cache: Any) -> Array:
        return cache


class Poisson(MeanLoss):
    """l = sum_j t log(t / e^z) + e^z - t, of counts t and the logarithms z of their rates; dl = e^z - t. Half the deviance."""

    @property
    def link(self) -> Layer:
        """e^z: the rates."""
        return Exp()

    def targets(self, y_true: Any, n_outputs: int) -> Array:
        """Return ``y_true``, not negative."""
        t = super().targets(y_true, n_outputs)
        if (t < 0).any():
            raise ValueError(f"the Poisson loss needs y that is not negative, got {t.min()}")
        return t

    def sample_losses(self, y_pred: Array, y_true: Array) -> tuple[Array, Array]:
        """Return l and dl."""
        rate = np.exp(y_pred)
        entropy = y_true * np.log(np.where(y_true > 0, y_true, 1.0))
        return (entropy - y_true * y_pred + rate - y_true).sum(axis=1), rate - y_true


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
