"""The estimators' arguments: stated once, as scikit-learn handles them, and checked when training begins."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import inf, isfinite
from typing import Any, Self

import numpy as np

from ..contract import Layer
from ..layers import Identity, ReLU, Sigmoid, Tanh
from ..validation import check_number
from .checks import one_of
from .routing import Routed

ACTIVATIONS: dict[str, type[Layer]] = {
    "identity": Identity,
    "logistic": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
}


class Positional(Routed):
    """What both estimators take by position, each in an order of its own."""

    hidden_layer_sizes: Any
    activation: str
    loss: Any


@dataclass(eq=False, repr=False, kw_only=True)
class Arguments(Positional):
    """What both estimators take by keyword."""

    solver: str = "adam"
    alpha: float = 0.0001
    batch_size: Any = "auto"
    learning_rate: str = "constant"
    learning_rate_init: float = 0.001
    power_t: float = 0.5
    max_iter: int = 200
    shuffle: bool = True
    random_state: Any = None
    tol: float = 1e-4
    verbose: Any = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: float = 10
    max_fun: int = 15000
    dropout: float = 0.0
    scoring: Any = None
    callbacks: Sequence[Callable[..., Any]] = ()
    engine: str = "auto"
    n_threads: int = 1
    progress: bool = False

    @classmethod
    def _names(cls) -> list[str]:
        return sorted(name for name in inspect.signature(cls.__init__).parameters if name != "self")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's arguments by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Self:
        """Set constructor's arguments by name.

        Raises
        ------
        ValueError
            If there is no such argument.
        """
        for name, value in params.items():
            if name not in self._names():
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {self}. Valid parameters are: {self._names()}."
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = {name: p.default for name, p in inspect.signature(type(self).__init__).parameters.items()}
        changed = [
            f"{name}={getattr(self, name)!r}" for name in self._names() if differs(getattr(self, name), defaults[name])
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def _repr_html_(self) -> str:
        if "sklearn" in sys.modules:
            from sklearn.utils import estimator_html_repr

            return str(estimator_html_repr(self))
        return f"<pre>{escape(repr(self))}</pre>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def _check_parameters(self, *, strict: bool = True) -> None:
        """Raise a ValueError for the first argument that is out of range; files may hold what was in range once."""
        widths = self._widths()
        if not all(isinstance(w, (int, np.integer)) and not isinstance(w, bool) and w > 0 for w in widths):
            raise ValueError(f"hidden_layer_sizes must be integers above 0, got {self.hidden_layer_sizes!r}")
        one_of(self.activation, tuple(ACTIVATIONS), "activation")
        one_of(self.solver, ("lbfgs", "sgd", "adam"), "solver")
        one_of(self.learning_rate, ("constant", "invscaling", "adaptive"), "learning_rate")
        for name, low, high, whole in (
            ("alpha", 0, inf, False),
            ("power_t", 0, inf, False),
            ("tol", 0, inf, False),
            ("momentum", 0, 1, False),
            ("beta_1", 0, 1, False),
            ("beta_2", 0, 1, False),
            ("validation_fraction", 0, 1, False),
            ("dropout", 0, 1, False),
            ("max_iter", 1, inf, True),
            ("max_fun", 1, inf, True),
            ("n_iter_no_change", 1, inf, False),
        ):
            value = getattr(self, name)
            number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
            broken = whole and number and not (isfinite(value) and value == int(value))
            if not number or not low <= value <= high or broken or value == high < inf:
                kind = "an integer" if whole else "a number"
                below = f" and < {high}" if high < inf else ""
                raise ValueError(f"{name} must be {kind} >= {low}{below}, got {value!r}")
        for name in ("learning_rate_init", "epsilon"):  # 0 would train nothing, or divide by 0, without a word
            check_number(getattr(self, name), name, positive=strict)
        for name in ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if strict and not isinstance(self.verbose, (bool, int, np.bool_, np.integer)):
            raise ValueError(f"verbose must be True, False or an integer, got {self.verbose!r}")
        if self.early_stopping and self.validation_fraction == 0:
            raise ValueError("early_stopping needs a validation_fraction above 0")
        if self.batch_size != "auto" and not (isinstance(self.batch_size, (int, np.integer)) and self.batch_size > 0):
            raise ValueError(f"batch_size must be 'auto' or an integer above 0, got {self.batch_size!r}")
        if not isinstance(self.callbacks, Sequence) or not all(map(callable, self.callbacks)):
            raise ValueError(f"callbacks must be a sequence of functions (epoch, logs, net), got {self.callbacks!r}")
        if self.solver == "lbfgs" and (self.dropout or self.early_stopping or len(self.callbacks)):
            raise ValueError(
                "solver='lbfgs' has no mini-batches and no epochs: dropout, early_stopping and callbacks need 'adam' or 'sgd'"
            )

    def _widths(self) -> list[Any]:
        sizes = self.hidden_layer_sizes
        return list(sizes) if hasattr(sizes, "__iter__") else [sizes]


def differs(value: Any, default: Any) -> bool:
    """Tell whether an argument is not its default."""
    return value is not default and not (type(value) is type(default) and value == default)
