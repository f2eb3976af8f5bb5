"""MLPClassifier: labels to numbers and back, classes that come later, and what is right or wrong of a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from ..contract import Array, Layer, Loss
from ..layers import Dense, Identity, Sequential, Sigmoid, Softmax
from ..losses import SigmoidCrossEntropy, SoftmaxCrossEntropy
from ..validation import check_number
from .base import Estimator
from .checks import as_labels, check_loss, one_of
from .losses import OneHot
from .watch import score_by


@dataclass(eq=False, repr=False)
class MLPClassifier(Estimator):
    """A multi-layer perceptron classifier, with scikit-learn's interface: binary, multi-class or multi-label.

    The objective is the mean cross-entropy of the samples plus alpha / (2 n) * sum W^2, n the samples of a mini-batch. Two
    classes have one output, its sigmoid the probability of the second; several classes a softmax; labels that do not exclude
    each other one sigmoid each, whose losses are summed.

    Parameters
    ----------
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, shuffle, \
random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction, beta_1, beta_2, \
epsilon, n_iter_no_change, max_fun
        As in scikit-learn. ``random_state`` may be a numpy.random.Generator too.
    loss : "log_loss" or Loss, default "log_loss"
        A loss on probabilities, such as ``BinaryCrossEntropy()`` or ``MeanSquaredError()``, gets a sigmoid or a softmax
        before it.
    class_weight : mapping of label to weight, or "balanced", optional
        Multiplied into the sample weights in training.
    dropout : float, default 0.0
        The share of each hidden layer that is dropped in training.
    scoring : "loss", name of a scorer, or function (estimator, X, y) -> number, optional
        What ``early_stopping`` watches; the more the better, but for "loss". None: the accuracy.
    callbacks : sequence of function (epoch, logs, net) -> object, default ()
    engine : "auto", "numpy" or "numba", default "auto"
    n_threads : int, default 1
        As ``fit`` takes it, and of all rows for "lbfgs".
    progress : bool, default False

    Attributes
    ----------
    classes_, coefs_, intercepts_, loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_, n_iter_, t_, \
n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_
        As in scikit-learn. ``coefs_`` and ``intercepts_`` are views of ``network_.params.vector``.
    validation_loss_curve_ : list of float, or None

    Examples
    --------
    >>> x, y = [[0, 0], [0, 1], [1, 0], [1, 1]], ["same", "not", "not", "same"]
    >>> model = MLPClassifier(8, solver="lbfgs", alpha=0, random_state=1).fit(x, y)
    >>> model.predict([[1, 0], [1, 1]]).tolist()
    ['not', 'same']
    """

    _kind = "classifier"
    _routes = Estimator._routes | {"partial_fit": ("sample_weight", "classes")}

    hidden_layer_sizes: Any = (100,)
    activation: str = "relu"
    loss: Any = field(default="log_loss", kw_only=True)
    class_weight: Any = field(default=None, kw_only=True)

    def predict(self, X: Any) -> Array:
        """Return the label of each row; for multi-label, rows of 0 and 1."""
        self._check_fitted()
        return self._labels(self._proba(self._features(X, reset=False)))

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, shape (n_samples, n_classes)."""
        self._check_fitted()
        p = self._proba(self._features(X, reset=False))
        return np.hstack([1 - p, p]) if p.shape[1] == 1 else p

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of ``predict_proba``."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the (weighted) share of rows whose labels are all right."""
        said = self.predict(X)
        y = as_labels(y, type(self).__name__, len(said))
        if y.shape != said.shape:
            raise ValueError(f"y must have the form {said.shape} of the prediction, got {y.shape}")
        if not self._multilabel:
            self._check_kind(y)
        right = said == y
        right = right.all(axis=1) if right.ndim == 2 else right
        return float(np.average(right, weights=self._weights(sample_weight, len(said))))

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        self._check_parameters()
        again = hasattr(self, "_net")
        if classes is not None:
            listed = classes if hasattr(classes, "__array__") else list(classes)
            if not len(listed):
                raise ValueError("classes must name all labels, got none")
            given = np.unique(as_labels(listed, type(self).__name__, len(listed)))
            if again and not np.array_equal(given, self.classes_):
                raise ValueError(
                    f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {self.classes_!r}"
                )
            classes = given
        return self._one_epoch(X, y, sample_weight, again=again, classes=classes)

    def _proba(self, x: Any) -> Array:
        return self._predicted(x)

    def _labels(self, p: Array) -> Array:
        if self._multilabel:
            return (p > 0.5).astype(int)
        index = (p[:, 0] > 0.5).astype(int) if p.shape[1] == 1 else p.argmax(axis=1)
        return self.classes_[np.minimum(index, len(self.classes_) - 1)]

    def _target(
        self, y: Any, n_samples: int, *, again: bool, strict: bool = False, grow: bool = True, classes: Any = None
    ) -> Array:
        """Return y as numbers: 0 and 1, the number of the class, or rows of 0 and 1."""
        y = as_labels(y, type(self).__name__, n_samples)
        if y.ndim == 2:
            width = y.shape[1]
            if again and (not self._multilabel or width != self.n_outputs_):
                raise ValueError(f"y has {width} labels, the model was fitted to {self.n_outputs_} outputs")
            if not again:
                self._multilabel, self.classes_, self.n_outputs_ = True, np.arange(width), width
            return y.astype(np.float64)
        found = np.unique(y)
        if again and self._multilabel:
            raise ValueError("the model was fitted to several labels a row, y has one")
        if not again:
            self._multilabel = False
            self._open = classes is None
            self.classes_ = found if classes is None else classes
            self.n_outputs_ = 1 if len(self.classes_) <= 2 else len(self.classes_)
        self._check_kind(found)
        unknown = np.setdiff1d(found, self.classes_)
        if again and strict and not np.array_equal(found, self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {self.classes_}, `y` has {found}"
            )
        if len(unknown):
            if not again or not self._open or not grow:
                raise ValueError(
                    f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {found}."
                )
            self._widen(unknown)
        index = np.searchsorted(self.classes_, y)
        return index.astype(np.float64) if self.n_outputs_ == 1 else index

    def _check_kind(self, y: Array) -> None:
        """Raise a ValueError if some labels are texts and others numbers."""
        if len(y) and isinstance(y[0], str) != isinstance(self.classes_[0], str):
            raise ValueError(f"y has labels such as {y[0]!r}, the model such as {self.classes_[0]!r}")

    def _check_parameters(self, *, strict: bool = True) -> None:
        super()._check_parameters(strict=strict)
        if self.class_weight is not None and not isinstance(self.class_weight, Mapping):
            if not isinstance(self.class_weight, str):
                raise ValueError(f"class_weight must be a mapping, 'balanced' or None, got {self.class_weight!r}")
            one_of(self.class_weight, ("balanced",), "class_weight")

    def _check_state(self) -> None:
        n_classes = len(np.unique(self.classes_))
        n_outputs = 1 if n_classes <= 2 and not self._multilabel else n_classes
        if (
            n_classes != len(self.classes_)
            or n_outputs != self.n_outputs_
            or list(self.classes_) != sorted(self.classes_)
        ):
            raise ValueError(f"classes {self.classes_} and {self.n_outputs_} outputs do not belong together")

    def _widen(self, unknown: Array) -> None:
        """Give the network an output for each new class; what it says of the others stays."""
        old, known = self._net, self.classes_
        self.classes_ = np.union1d(known, unknown)
        place = np.searchsorted(self.classes_, known)
        *before, last = old.layers if isinstance(old.layers[-1], Dense) else old.layers[:-1]
        assert isinstance(last, Dense)
        n_outputs = 1 if len(self.classes_) <= 2 else len(self.classes_)
        if n_outputs == 1:  # a second class has a place already: that of the yes, or, if it sorts first, of the no
            if place[0] == 1:
                last.params["W"], last.params["b"] = -last.params["W"], -last.params["b"]
                for name in self._optimizer.moments[:1]:  # the velocity, or the mean gradient, turns round too
                    self._optimizer.state[name][-last.params.vector.size :] *= -1
            return
        new = Dense(last.in_features, n_outputs, rng=self._rng)
        W, b = new.params["W"] * 0.1, np.full(n_outputs, last.params["b"].min() - 3.0)
        if last.out_features == 1:  # a sigmoid of z is a softmax of (-z / 2, z / 2)
            sides = np.array([-0.5, 0.5])[: len(known)]
            W[:, place], b[place] = last.params["W"] * sides, last.params["b"] * sides
            b[np.setdiff1d(np.arange(n_outputs), place)] = -3.0
        else:
            W[:, place], b[place] = last.params["W"], last.params["b"]
        new.params["W"], new.params["b"] = W, b
        n_kept = old.params.vector.size - last.params.vector.size
        self.n_outputs_ = n_outputs
        self._loss, extra = self._loss_and_last()
        # The layers before are bound to the old network; twins of them take their parameters along.
        twins = [twin(layer) for layer in before]
        net = Sequential([*twins, new, *extra], rng=None, dtype=old.params.dtype)
        net.params.vector[:n_kept] = old.params.vector[:n_kept]
        net.params.mark_filled()
        self._net, self.out_activation_ = net, self._out_activation(extra)
        fresh = type(self._optimizer)(**self._optimizer.config())
        fresh.prepare(net.params)
        fresh.n_steps = self._optimizer.n_steps
        for name, moment in self._optimizer.state.items():
            fresh.state[name][:n_kept] = moment[:n_kept]
        self._optimizer = fresh

    def _loss_and_last(self) -> tuple[Loss, list[Layer]]:
        """Return the loss, and the layer that makes probabilities, if the loss is on them."""
        single = self.n_outputs_ == 1 or self._multilabel
        if isinstance(self.loss, str):
            one_of(self.loss, ("log_loss",), "loss")
            return (SigmoidCrossEntropy() if single else SoftmaxCrossEntropy()), []
        check_loss(self.loss)
        if not isinstance(self.loss.link, Identity):
            return self.loss, []
        return OneHot(self.loss) if not single else self.loss, [Sigmoid() if single else Softmax()]

    def _class_weighted(self, target: Array, weight: Array | None) -> Array | None:
        if self.class_weight is None:
            return weight
        if self._multilabel:
            raise ValueError("class_weight is not for multi-label targets")
        index = target.astype(int)
        counts = np.bincount(index, minlength=len(self.classes_))
        if isinstance(self.class_weight, str):
            factors = len(index) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        else:  # labels that are not there may come later; but if none is, it was meant for others
            labels = self.classes_.tolist()
            if self.class_weight and not any(label in self.class_weight for label in labels):
                raise ValueError(f"class_weight names {list(self.class_weight)}, and none of the classes {labels}")
            factors = np.array(
                [check_number(self.class_weight.get(label, 1.0), f"class_weight[{label!r}]") for label in labels]
            )
        if not factors[index].any():
            raise ValueError("class_weight leaves no row a weight above 0")
        return factors[index] if weight is None else factors[index] * weight

    def _strata(self, target: Array) -> Array | None:
        return None if self._multilabel else target.astype(int)

    def _as_binarized(self, few: Array) -> list[str]:
        """Name classes as scikit-learn's message does: of two, by whether it is the second."""
        return [str(bool(k)) if self.n_outputs_ == 1 else str(self.classes_[k]) for k in few]

    def _score_of(self, x: Any, target: Array, weight: Array | None = None) -> float:
        if self.scoring is not None:
            labels = target if self._multilabel else self.classes_[target.astype(int)]
            return score_by(self.scoring, self, x, labels, weight)
        p = self._proba(x)
        if not np.isfinite(p).all():
            return float("nan")
        if self._multilabel:
            right = ((p > 0.5) == target).all(axis=1)
        else:
            right = ((p[:, 0] > 0.5) if p.shape[1] == 1 else p.argmax(axis=1)) == target
        return float(np.average(right, weights=weight))

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            transformer_tags=None,
            classifier_tags=ClassifierTags(multi_label=True),
            regressor_tags=None,
            input_tags=InputTags(sparse=True),
        )


def twin(layer: Layer) -> Layer:
    """Return a layer of the same kind, not bound to a network."""
    return Dense(layer.in_features, layer.out_features) if isinstance(layer, Dense) else type(layer)(**layer.config())
