"""What the two estimators share: the fitted network, and the ways to train."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, ClassVar, Self

import numpy as np

from ..contract import Array, Layer, Loss, Optimizer
from ..history import DivergenceError
from ..layers import Dense, Dropout, Sequential
from ..optimizers import SGD, Adam
from ..training import fit
from ..validation import check_size
from .arguments import ACTIVATIONS, Arguments
from .checks import (
    ConvergenceWarning,
    NotFittedError,
    as_sample_weights,
    as_table,
    compare_names,
    known_to_sklearn,
    names_of,
    warn,
)
from .draws import generator, held_back, training_generator
from .files import load, save
from .lbfgs import lbfgs
from .watch import EpochMonitor

NETWORK = ("hidden_layer_sizes", "activation", "dropout", "loss")
OPTIMIZER = (
    *("solver", "learning_rate_init", "learning_rate", "momentum", "nesterovs_momentum", "beta_1", "beta_2", "epsilon"),
)
NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be preprocessed."
)

_PIECE = 2048  # rows that are predicted at a time


class Fitted:
    """What training leaves."""

    n_features_in_: int
    n_outputs_: int
    _net: Sequential
    _loss: Loss
    _optimizer: Any
    _built: dict[str, Any]
    _rng: np.random.Generator
    _scale: int
    _multilabel: bool
    _flat: bool
    _open: bool


class Estimator(Arguments, Fitted):
    """What both share: the fitted network, and the three ways to train."""

    _kind: ClassVar[str]

    @property
    def _estimator_type(self) -> str:
        return self._kind

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_net")

    # The fitted network, as scikit-learn shows it.

    @property
    def coefs_(self) -> list[Array]:
        """The weights of each layer, shape (fan_in, fan_out): views of the network's vector."""
        return [layer.params["W"] for layer in self._dense()]

    @property
    def intercepts_(self) -> list[Array]:
        """The biases of each layer, shape (fan_out,): views of the network's vector."""
        return [layer.params["b"] for layer in self._dense()]

    @property
    def network_(self) -> Sequential:
        """The network itself: for ``freeze``, ``trace``, ``check_network``, ``save``."""
        self._check_fitted()
        return self._net

    @property
    def loss_function_(self) -> Loss:
        """The loss that is trained."""
        self._check_fitted()
        return self._loss

    def _dense(self) -> list[Layer]:
        if not hasattr(self, "_net"):
            raise AttributeError(f"{type(self).__name__} has no weights before it is fitted")
        return [layer for layer in self._net.layers if isinstance(layer, Dense)]

    def save(self, path: Any) -> None:
        """Write the estimator to one file, as ``nnprofile.save`` does: no pickle; what is loaded goes on bit for bit.

        ``path`` is a path, or a binary file that is open for writing.

        Raises
        ------
        ValueError
            If it is not fitted, or an argument is no plain value: a Loss, a function, a generator.
        """
        self._check_fitted()
        self._check_parameters()
        self._check_network()
        save(self, path)

    @classmethod
    def load(cls, path: Any) -> Self:
        """Read an estimator of this class that ``save`` wrote, from a path, its bytes, or a binary file.

        Raises
        ------
        ModelFileError
            If the file is not as ``save`` wrote it, or of another class.
        """
        found = load(cls, path)
        assert isinstance(found, cls)
        return found

    # Checks.

    def _check_fitted(self) -> None:
        if not hasattr(self, "_net"):
            raise known_to_sklearn(NotFittedError)(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with appropriate arguments before using "
                "this estimator."
            )

    def _features(self, X: Any, *, reset: bool) -> Any:
        """Return X as finite float32 (if it is float32) or float64, dense or CSR; its width and names as in ``fit``."""
        who, names = type(self).__name__, names_of(X)
        if reset:
            self.__dict__.pop("feature_names_in_", None)
            if names is not None:
                self.feature_names_in_ = np.array(names, object)
        else:
            compare_names(names, getattr(self, "feature_names_in_", None), who)
        X = as_table(X, who)
        if reset:
            self.n_features_in_ = X.shape[1]
        elif X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {who} is expecting {self.n_features_in_} features as input"
            )
        return X

    def _weights(self, sample_weight: Any, n_samples: int) -> Array | None:
        return as_sample_weights(sample_weight, n_samples, type(self).__name__)

    # What the two do differently.

    def _check_state(self) -> None:
        """Raise a ValueError if attributes read from a file do not belong together."""

    def _target(
        self, y: Any, n_samples: int, *, again: bool, strict: bool = False, grow: bool = True, classes: Any = None
    ) -> Array:
        """Return y as the loss takes it."""
        raise NotImplementedError

    def _loss_and_last(self) -> tuple[Loss, list[Layer]]:
        """Return the loss, and the layers it needs at the end."""
        raise NotImplementedError

    def _partial_fit(self, *args: Any, **kwargs: Any) -> Self:
        raise NotImplementedError

    def _score_of(self, x: Any, target: Array, weight: Array | None = None) -> float:
        raise NotImplementedError

    def _class_weighted(self, target: Array, weight: Array | None) -> Array | None:
        return weight

    def _strata(self, target: Array) -> Array | None:
        """Return the classes of which the rows set aside are to hold a share each."""
        return None

    def _as_binarized(self, few: Array) -> list[str]:
        return list(map(str, few))

    def _validation(self, X: Any, y: Any, sample_weight: Any = None) -> tuple[Any, ...]:
        x = self._features(X, reset=False)
        target = self._target(y, x.shape[0], again=True, grow=False)
        weight = self._weights(sample_weight, x.shape[0])
        return (x, target) if weight is None else (x, target, weight)

    # Training.

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, validation_data: tuple[Any, ...] | None = None) -> Self:
        """Train anew; with ``warm_start``, go on from the parameters and the optimizer's moments of the last ``fit``.

        Parameters
        ----------
        X : array, data frame, or scipy.sparse matrix, shape (n_samples, n_features)
        y : array, shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array, shape (n_samples,), optional
        validation_data : (X, y) or (X, y, sample_weight), optional
            Its loss is recorded after each epoch, as ``validation_loss_curve_``; with ``early_stopping`` it takes the place of
            the rows that would be set aside.

        Raises
        ------
        ValueError
            If an argument is not as above, or the parameters do not stay finite.
        """
        self._check_parameters()
        if validation_data is not None and self.solver == "lbfgs":
            raise ValueError("solver='lbfgs' has no epochs, after which validation_data would be looked at")
        if validation_data is not None and not (
            isinstance(validation_data, (tuple, list)) and len(validation_data) in (2, 3)
        ):
            raise ValueError("validation_data must be (X, y) or (X, y, sample_weight)")
        again = self.warm_start and hasattr(self, "_net")
        with self._restored_on_error():
            x = self._features(X, reset=not again)
            weight = self._weights(sample_weight, x.shape[0])
            target = self._target(y, x.shape[0], again=again, strict=True)
            if again:
                self._follow()
                if self.solver == "sgd":  # a schedule begins anew
                    self._optimizer.learning_rate = self._rate(self.learning_rate_init)
            else:
                self._start(x, target)
            validation = None if validation_data is None else self._validation(*validation_data)
            if self.early_stopping and validation is None:
                x, target, weight, validation = self._set_aside(x, target, weight)
            weight = self._class_weighted(target, weight)
        self._no_improvement_count = 0
        self.n_iter_ = 0
        if self.solver == "lbfgs":
            self._minimize(x, target, weight)
        else:
            self._epochs(x, target, weight, validation, n_epochs=int(self.max_iter))
        return self

    @property
    def partial_fit(self) -> Any:
        """``partial_fit(X, y, sample_weight=None)``: one epoch more, in mini-batches, from where the model is.

        ``MLPClassifier``'s takes ``classes`` too, in the first call: all there are. Classes that appear later widen the network.
        """
        if self.solver == "lbfgs":
            raise AttributeError("partial_fit is only available for stochastic optimizers. lbfgs is not stochastic")
        return self._partial_fit

    def fit_batches(self, batches: Iterable[tuple[Any, ...]], **first: Any) -> Self:
        """Train on an iterator of (X, y) or (X, y, sample_weight): data larger than memory, each batch seen once.

        ``first`` goes to the first ``partial_fit``: ``classes``, for a classifier.
        """
        for k, batch in enumerate(batches):
            self.partial_fit(
                *batch[:2], sample_weight=batch[2] if len(batch) > 2 else None, **(first if k == 0 else {})
            )
        self._check_fitted()
        return self

    def _one_epoch(self, X: Any, y: Any, sample_weight: Any, *, again: bool, classes: Any = None) -> Self:
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        with self._restored_on_error():
            x = self._features(X, reset=not again)
            weight = self._weights(sample_weight, x.shape[0])
            if again:
                self._follow()
            target = self._target(y, x.shape[0], again=again, classes=classes)  # late: it may widen the network
            if not again:
                self._start(x, target)
                self._no_improvement_count = 0
            weight = self._class_weighted(target, weight)
        self._epochs(x, target, weight, None, n_epochs=1, stops=False)
        return self

    @contextmanager
    def _restored_on_error(self) -> Iterator[None]:
        """Keep the attributes if the call is refused."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def _start(self, x: Any, target: Array) -> None:
        """Make network, loss, optimizer and generator."""
        dtype = x.dtype
        draws = generator(self.random_state)
        self._loss, last = self._loss_and_last()
        layers: list[Layer] = []
        width = x.shape[1]
        self._scale = self.n_outputs_ if getattr(self, "_multilabel", False) else 1
        for out in self._widths():
            layers += [Dense(width, int(out)), ACTIVATIONS[self.activation]()]
            if self.dropout:
                layers.append(Dropout(self.dropout))
            width = int(out)
        self._net = Sequential([*layers, Dense(width, self.n_outputs_), *last], rng=None, dtype=dtype)
        spread = 2.0 if self.activation == "logistic" else 6.0
        for layer in self._dense():  # as scikit-learn draws them: the same random_state gives the same first weights
            limit = (spread / sum(layer.params["W"].shape)) ** 0.5
            layer.params["W"] = draws.uniform(-limit, limit, layer.params["W"].shape)
            layer.params["b"] = draws.uniform(-limit, limit, layer.params["b"].shape)
        self._rng = training_generator(self.random_state, draws)  # after the weights, which are scikit-learn's
        self.n_layers_ = len(self._widths()) + 2
        self.out_activation_ = self._out_activation(last)
        self._optimizer, self._built = self._new_optimizer(), self._choices()
        self.t_ = self.n_iter_ = 0
        self.loss_curve_: list[float] = []
        self.validation_loss_curve_: list[float] | None = None
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_: float | None = -inf if self.early_stopping else None
        self.best_loss_: float | None = None if self.early_stopping else inf

    def _new_optimizer(self) -> Optimizer:
        if self.solver == "sgd":
            nesterov = bool(self.nesterovs_momentum and self.momentum)
            return SGD(self._rate(self.learning_rate_init), momentum=self.momentum, nesterov=nesterov)
        return Adam(self.learning_rate_init, beta1=self.beta_1, beta2=self.beta_2, epsilon=self.epsilon)

    def _choices(self) -> dict[str, Any]:
        """Return the arguments that made network and optimizer, as plain values."""
        chosen = {name: getattr(self, name) for name in (*NETWORK, *OPTIMIZER)}
        return chosen | {"hidden_layer_sizes": list(map(int, self._widths())), "loss": repr(self.loss)}

    def _follow(self) -> None:
        """Before training goes on, take over what ``set_params`` has changed of the optimizer; its moments stay.

        Raises
        ------
        ValueError
            If it has changed what the network is made of.
        """
        now = self._choices()
        self._check_network()
        changed = {name for name in now if now[name] != self._built[name]}
        if not changed:
            return
        old, new = self._optimizer, self._new_optimizer()
        if type(new) is type(old):
            new.prepare(self._net.params)
            new.n_steps = old.n_steps
            for name in new.state.keys() & old.state.keys():
                new.state[name][...] = old.state[name]
        if not changed & {"solver", "learning_rate_init", "learning_rate"}:  # it may have been lowered since
            new.learning_rate = old.learning_rate
        self._optimizer, self._built = new, now

    def _check_network(self) -> None:
        """Raise a ValueError if ``set_params`` has changed what the network is made of."""
        now = self._choices()
        if fixed := [name for name in NETWORK if now[name] != self._built[name]]:
            raise ValueError(
                f"training goes on with the network as it is, made with "
                f"{', '.join(f'{name}={self._built[name]}' for name in fixed)}; for another, fit with warm_start=False"
            )

    def _rate(self, rate: float) -> float:
        """Return the learning rate for the mean over labels that is as good as ``rate`` for their sum."""
        return float(rate) * self._scale

    def _out_activation(self, last: list[Layer]) -> str:
        name = type(last[0]).__name__ if last else type(self._loss.link).__name__
        return {"Sigmoid": "logistic", "Softmax": "softmax", "Exp": "exp"}.get(name, "identity")

    def _epochs(
        self,
        x: Any,
        target: Array,
        weight: Array | None,
        validation: tuple[Any, ...] | None,
        *,
        n_epochs: int,
        stops: bool = True,
    ) -> None:
        """Run epochs of mini-batches, watched after each one."""
        n_samples = x.shape[0]
        batch_size = min(200, n_samples) if self.batch_size == "auto" else int(self.batch_size)
        if batch_size > n_samples:
            warnings.warn(f"batch_size={batch_size} is larger than the number of samples, {n_samples}", stacklevel=4)
        if self.early_stopping and self.validation_scores_ is None:  # it was switched on or off since
            self.validation_scores_, self.best_validation_score_ = [], -inf
        if not self.early_stopping and self.best_loss_ is None:
            self.best_loss_ = inf
        monitor = EpochMonitor(self, n_samples, validation, stops=stops)
        try:
            history = fit(
                self._net,
                self._loss,
                self._optimizer,
                x,
                target,
                n_epochs=n_epochs,
                batch_size=min(batch_size, n_samples),
                rng=self._rng,
                sample_weight=weight,
                l2=float(self.alpha) / self._scale,
                validation_data=validation,
                callbacks=[monitor, *self.callbacks],
                shuffle=bool(self.shuffle),
                engine=self.engine,
                n_threads=self.n_threads,
                progress=self.progress,
            )
        except DivergenceError as error:
            if not self.early_stopping or monitor.best is None:
                raise ValueError(NOT_FINITE) from error
            assert self.validation_scores_ is not None
            self.validation_scores_.append(float("nan"))
            warn(ConvergenceWarning, "the parameters did not stay finite; the model is that of the best epoch")
        else:
            if history.stop_reason == "interrupted":
                warnings.warn("Training interrupted by user.", stacklevel=4)
            elif stops and not monitor.converged and history.stop_reason == "n_epochs":
                warn(
                    ConvergenceWarning,
                    f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't converged "
                    "yet.",
                )
        monitor.finish()

    def _predicted(self, x: Any) -> Array:
        """Return the prediction of checked rows, some at a time: what is between the layers stays in the cache."""
        pieces = [x[i : i + _PIECE] for i in range(0, max(1, x.shape[0]), _PIECE)]
        first = self._loss.link.forward(self._net.predict(pieces[0]))[0]
        if len(pieces) == 1:
            return first
        out = np.empty((x.shape[0], first.shape[1]), first.dtype)
        out[: len(first)] = first
        for i, piece in enumerate(pieces[1:], 1):
            out[i * _PIECE : (i + 1) * _PIECE] = self._loss.link.forward(self._net.predict(piece))[0]
        return out

    def _minimize(self, x: Any, target: Array, weight: Array | None) -> None:
        """Minimize the objective of all rows by L-BFGS."""
        found = lbfgs(
            self._net,
            self._loss,
            x,
            target,
            weight,
            l2=float(self.alpha) / self._scale,
            scale=float(self._scale),
            engine=self.engine,
            n_threads=check_size(self.n_threads, "n_threads"),
            maxfun=int(self.max_fun),
            maxiter=int(self.max_iter),
            gtol=float(self.tol),
        )
        if not (np.isfinite(found.x).all() and np.isfinite(found.fun)):
            raise ValueError(NOT_FINITE)
        self.n_iter_ = min(int(found.nit), int(self.max_iter))
        self.loss_ = float(found.fun)
        self.t_ += self.n_iter_ * x.shape[0]
        if found.status != 0:
            warn(
                ConvergenceWarning,
                f"lbfgs failed to converge after {found.nit} iteration(s) (status={found.status}): {found.message}",
            )
        if self.verbose:
            print(f"L-BFGS: {found.nit} iterations, loss = {found.fun:.8f}")

    def _set_aside(
        self, x: Any, target: Array, weight: Array | None
    ) -> tuple[Any, Array, Array | None, tuple[Any, ...]]:
        """Return the rows to fit and those to validate with: a share of each class, where there are classes."""
        mask = held_back(x.shape[0], self.validation_fraction, self._strata(target), self._as_binarized, self._rng)
        held_weight = () if weight is None else (weight[mask],)
        if weight is not None and not (weight[mask].any() and weight[~mask].any()):
            raise ValueError("The rows set aside to validate, or the others, have no weight.")
        return x[~mask], target[~mask], None if weight is None else weight[~mask], (x[mask], target[mask], *held_weight)
