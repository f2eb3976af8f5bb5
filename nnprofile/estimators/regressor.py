"""MLPRegressor: numbers, and how well they are hit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..contract import Array, Layer, Loss
from ..losses import HalfSquaredError, Huber, MeanAbsoluteError, PoissonLoss
from .base import Estimator
from .checks import as_values, check_loss, one_of
from .watch import score_by

REGRESSION_LOSSES: dict[str, type[Loss]] = {
    "squared_error": HalfSquaredError,
    "absolute_error": MeanAbsoluteError,
    "huber": Huber,
    "poisson": PoissonLoss,
}


@dataclass(eq=False, repr=False)
class MLPRegressor(Estimator):
    """A multi-layer perceptron for one number or several, with scikit-learn's interface.

    The objective is the half squared error, the mean over samples of 1/2 sum over outputs of (y_pred - y)^2, plus
    alpha / (2 n) * sum W^2. (For k outputs scikit-learn reports this over k, and descends this.)

    Parameters
    ----------
    loss : "squared_error", "absolute_error", "huber", "poisson" or Loss, default "squared_error"
    hidden_layer_sizes, activation, ..., max_fun
        As in scikit-learn; and see ``MLPClassifier`` for dropout, scoring, callbacks, engine and progress.

    Examples
    --------
    >>> model = MLPRegressor(hidden_layer_sizes=4, activation="tanh", solver="lbfgs", alpha=0, random_state=0)
    >>> model.fit([[0.0], [0.5], [1.0]], [0, 1, 0]).predict([[0.5]]).round(2).tolist()
    [1.0]
    """

    _kind = "regressor"

    loss: Any = "squared_error"
    hidden_layer_sizes: Any = (100,)
    activation: str = "relu"

    def predict(self, X: Any) -> Array:
        """Return the prediction of each row, shape (n_samples,) or (n_samples, n_outputs), as y was."""
        self._check_fitted()
        return self._values(self._features(X, reset=False))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R^2 = 1 - sum w (y - y_pred)^2 / sum w (y - mean)^2, its mean over outputs."""
        said = self.predict(X)
        y = as_values(y, type(self).__name__, len(said))
        if y.size != said.size:
            raise ValueError(f"y must have the form {said.shape} of the prediction, got {y.shape}")
        return r2(y.reshape(said.shape), said, self._weights(sample_weight, len(said)))

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        self._check_parameters()
        return self._one_epoch(X, y, sample_weight, again=hasattr(self, "_net"))

    def _values(self, x: Any) -> Array:
        y = self._predicted(x)
        return y[:, 0] if self._flat else y

    def _target(
        self, y: Any, n_samples: int, *, again: bool, strict: bool = False, grow: bool = True, classes: Any = None
    ) -> Array:
        y = as_values(y, type(self).__name__, n_samples)
        width = 1 if y.ndim == 1 else y.shape[1]
        if not again:
            self._flat, self.n_outputs_ = y.ndim == 1, width
        elif width != self.n_outputs_:
            raise ValueError(f"y has {width} outputs, the model was fitted to {self.n_outputs_}")
        return y.reshape(n_samples, width)

    def _loss_and_last(self) -> tuple[Loss, list[Layer]]:
        if isinstance(self.loss, str):
            one_of(self.loss, tuple(REGRESSION_LOSSES), "loss")
            return REGRESSION_LOSSES[self.loss](), []
        check_loss(self.loss)
        return self.loss, []

    def _score_of(self, x: Any, target: Array, weight: Array | None = None) -> float:
        y = target[:, 0] if self._flat else target
        if self.scoring is not None:
            return score_by(self.scoring, self, x, y, weight)
        with np.errstate(over="ignore", invalid="ignore"):
            said = self._values(x)
        return r2(y, said, weight) if np.isfinite(said).all() else float("nan")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=True, multi_output=True),
            transformer_tags=None,
            classifier_tags=None,
            regressor_tags=RegressorTags(),
            input_tags=InputTags(sparse=True),
        )


def r2(y: Array, said: Array, sample_weight: Any) -> float:
    """Return R^2, weighted, its mean over outputs."""
    if len(y) < 2:
        warnings.warn("R^2 score is not well-defined with less than two samples.", UserWarning, stacklevel=3)
        return float("nan")
    y, said = y.reshape(len(y), -1), said.reshape(len(said), -1)
    w = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    left = w @ (y - said) ** 2
    total = w @ (y - np.average(y, axis=0, weights=w)) ** 2
    score = np.where(total > 0, 1 - left / np.where(total > 0, total, 1.0), np.where(left > 0, 0.0, 1.0))
    return float(score.mean())
