"""What is looked at after each epoch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ..contract import Array, Layer


class EpochMonitor:
    """What is looked at after each epoch: the curves, the best state, the learning rate, and whether to stop."""

    def __init__(self, estimator: Any, n_samples: int, validation: tuple[Any, ...] | None, *, stops: bool) -> None:
        self.estimator, self.n_samples, self.validation, self.stops = estimator, n_samples, validation, stops
        self.best: tuple[Array, int, dict[str, Array]] | None = None
        self.converged = False
        if estimator.early_stopping and estimator.validation_scores_:  # training goes on: what there is may be the best
            x, target, *weight = validation or ()
            y_pred = estimator._net.predict(x)
            loss = float(estimator._loss.forward(y_pred, estimator._loss.targets(target, y_pred.shape[1]), *weight)[0])
            self._keep(self._score({"val_loss": loss}))

    def __call__(self, epoch: int, logs: Mapping[str, float], net: Layer) -> bool:
        """Look at an epoch; True stops."""
        e = self.estimator
        e.n_iter_ += 1
        e.t_ += self.n_samples
        e.loss_ = logs["loss"] * e._scale
        e.loss_curve_.append(e.loss_)
        if e.verbose:
            print(f"Iteration {e.n_iter_}, loss = {e.loss_:.8f}")
        if "val_loss" in logs:
            if e.validation_loss_curve_ is None:
                e.validation_loss_curve_ = []
            e.validation_loss_curve_.append(logs["val_loss"] * e._scale)
        if e.early_stopping:
            score = self._score(logs)
            e.validation_scores_.append(score)
            if e.verbose:
                print(f"Validation score: {score:.6f}")
            e._no_improvement_count = e._no_improvement_count + 1 if score < e.best_validation_score_ + e.tol else 0
            if score > e.best_validation_score_:
                self._keep(score)
        else:
            if e.loss_ > e.best_loss_ - e.tol:
                e._no_improvement_count += 1
            else:
                e._no_improvement_count = 0
            e.best_loss_ = min(e.best_loss_, e.loss_)
        if e.solver == "sgd" and e.learning_rate == "invscaling":
            e._optimizer.learning_rate = e._rate(e.learning_rate_init) / (e.t_ + 1) ** e.power_t
        if not self.stops or e._no_improvement_count <= e.n_iter_no_change:
            return False
        if e.solver == "sgd" and e.learning_rate == "adaptive" and e._optimizer.learning_rate > 1e-6:
            e._optimizer.learning_rate /= 5
            e._no_improvement_count = 0
            return False
        self.converged = True
        return True

    def _score(self, logs: Mapping[str, float]) -> float:
        e = self.estimator
        return float(-logs["val_loss"] if e.scoring == "loss" else e._score_of(*(self.validation or ())))

    def _keep(self, score: float) -> None:
        e = self.estimator
        e.best_validation_score_ = score
        state = {name: moment.copy() for name, moment in e._optimizer.state.items()}
        self.best = e._net.params.vector.copy(), e._optimizer.n_steps, state

    def finish(self) -> None:
        """Go back to the best epoch."""
        if self.best is not None:
            e = self.estimator
            e._net.params.vector, e._optimizer.n_steps, state = self.best
            for name, moment in state.items():
                e._optimizer.state[name][...] = moment


def score_by(scoring: Any, estimator: Any, x: Any, y: Array, weight: Array | None) -> float:
    """Return the score of a function (estimator, X, y), or, weighted, of a scorer that scikit-learn has a name for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")  # it did, when it was given
        if callable(scoring):
            return float(scoring(estimator, x, y))
        from sklearn.metrics import get_scorer

        return float(get_scorer(scoring)(estimator, x, y, **({} if weight is None else {"sample_weight": weight})))
