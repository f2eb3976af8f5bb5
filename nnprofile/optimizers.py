"""Optimizers turn gradients into steps; each is the textbook update, one line on one flat vector.

Schedules, at the end, are functions of the step's number that give its learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi
from typing import TYPE_CHECKING, Any

import numpy as np

from .contract import Configured, Optimizer, Parameters
from .validation import check_number, check_size

if TYPE_CHECKING:
    from .contract import Array

    LearningRate = float | Callable[[int], float]


class FirstOrder(Optimizer):
    """What SGD and Adam share: the learning rate, decoupled weight decay (docs/backprop.md, eq. 32), and sparse rows."""

    decay_formula = "(1 - learning_rate * weight_decay) * w"  # stands for w where a parameter decays

    def __init__(self, learning_rate: LearningRate, *, weight_decay: float, lazy: bool) -> None:
        super().__init__()
        self.learning_rate = learning_rate if callable(learning_rate) else check_number(learning_rate, "learning_rate")
        self.weight_decay = check_number(weight_decay, "weight_decay")
        if not isinstance(lazy, bool):
            raise ValueError(f"lazy must be True or False, got {lazy!r}")
        self.lazy = lazy

    def step(self, params: Parameters, grads: Parameters) -> None:
        """Move ``params`` in place; ``grads`` is only read.

        Raises
        ------
        ValueError
            If ``grads`` has another layout than ``params``, or ``params`` another than at the first step.
        """
        if not (isinstance(params, Parameters) and isinstance(grads, Parameters)):
            raise ValueError(
                f"step takes params and grads, both Parameters; got {type(params).__name__} and {type(grads).__name__}"
            )
        if not grads.matches(params):
            raise ValueError(f"params have the layout {params.layout}, grads {grads.layout}")
        self.prepare(params)
        learning_rate = self.learning_rate_at(self.n_steps)
        self.n_steps += 1
        if self.weight_decay:
            for name in params.matrices():
                W = params[name]
                W *= 1 - learning_rate * self.weight_decay
        self._move(params.vector, grads.vector, learning_rate, self._rows(grads))

    def _move(self, w: Array, dw: Array, learning_rate: float, rows: Any) -> None:
        raise NotImplementedError

    def _rows(self, grads: Parameters) -> Any:
        """Index the elements that move: all, or, if lazy, all but the rows of W whose gradient is exactly zero."""
        if not self.lazy or not self.moments:
            return slice(None)
        moving = []
        for name, shape in grads.layout.items():
            elements = np.arange(grads.place(name).start, grads.place(name).stop)
            if len(shape) > 1:
                rows = grads.rows.get(name, np.arange(shape[0]))
                rows = rows[(grads[name][rows] != 0).any(axis=tuple(range(1, len(shape))))]
                elements = elements.reshape(shape[0], -1)[rows].ravel()
            moving.append(elements)
        return np.concatenate(moving)


class SGD(FirstOrder):
    """Stochastic gradient descent, with momentum if asked: v = momentum * v - learning_rate * dw, w = w + v.

    Without momentum this is w = w - learning_rate * dw. With Nesterov's, w = w + momentum * v - learning_rate * dw: the
    source's rule, with the point at which it takes the gradient, w + momentum * v, called w (docs/backprop.md, eq. 28-30).

    Parameters
    ----------
    learning_rate : float, or function of the step's number
    momentum : float, default 0.0
        In [0, 1).
    nesterov : bool, default False
    weight_decay : float, default 0.0
        Decoupled: W = W - learning_rate * weight_decay * W, before the step. Biases do not decay.
    lazy : bool, default False
        A row of W whose gradient is exactly zero keeps its v, and is moved by decay only: for sparse features. (An L2 term
        makes no gradient zero; use weight_decay.)

    References
    ----------
    Sutskever et al. (2013), "On the importance of initialization and momentum in deep learning", eq. 1-4.

    Examples
    --------
    >>> params, grads = Parameters({"W": (1, 1)}, np.array([1.0])), Parameters({"W": (1, 1)}, np.array([2.0]))
    >>> SGD(0.25).step(params, grads)
    >>> params["W"].tolist()
    [[0.5]]
    """

    config_names = ("learning_rate", "momentum", "nesterov", "weight_decay", "lazy")

    def __init__(
        self,
        learning_rate: LearningRate,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        lazy: bool = False,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, lazy=lazy)
        self.momentum = check_number(momentum, "momentum", below=1.0)
        if not isinstance(nesterov, bool):
            raise ValueError(f"nesterov must be True or False, got {nesterov!r}")
        if nesterov and not self.momentum:
            raise ValueError("nesterov=True needs a momentum greater than 0")
        self.nesterov = nesterov
        self.moments = ("v",) if self.momentum else ()

    @property
    def formula(self) -> dict[str, str]:  # type: ignore[override]
        """The rule for one element w with the gradient dw."""
        if not self.momentum:
            return {"w": "w - learning_rate * dw"}
        move = "momentum * v_new - learning_rate * dw" if self.nesterov else "v_new"
        return {"v": "momentum * v - learning_rate * dw", "w": f"w + {move}"}

    def _move(self, w: Array, dw: Array, learning_rate: float, rows: Any) -> None:
        if not self.momentum:
            w -= learning_rate * dw
            return
        v = self.state["v"]
        v[rows] = self.momentum * v[rows] - learning_rate * dw[rows]
        w[rows] += self.momentum * v[rows] - learning_rate * dw[rows] if self.nesterov else v[rows]


class Adam(FirstOrder):
    """Adaptive moments: each parameter's step is scaled by the size of its past gradients.

    With t = 1, 2, ... (docs/backprop.md, eq. 31)::

        m = beta1 * m + (1 - beta1) * dw,     v = beta2 * v + (1 - beta2) * dw^2
        w = w - learning_rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

    Parameters
    ----------
    learning_rate : float, or function of the step's number, default 0.001
    beta1, beta2 : float, default 0.9 and 0.999
        In [0, 1).
    epsilon : float, default 1e-8
    weight_decay : float, default 0.0
        Decoupled (AdamW): W = W - learning_rate * weight_decay * W, before the step. Biases do not decay.
    lazy : bool, default False
        A row of W whose gradient is exactly zero keeps its m and v, and is moved by decay only: for sparse features. (An L2
        term makes no gradient zero; use weight_decay.)

    References
    ----------
    Kingma and Ba (2015), "Adam: a method for stochastic optimization", algorithm 1;
    Loshchilov and Hutter (2019), "Decoupled weight decay regularization", algorithm 2.

    Examples
    --------
    >>> params, grads = Parameters({"W": (1, 1)}, np.array([1.0])), Parameters({"W": (1, 1)}, np.array([2.0]))
    >>> Adam(0.25).step(params, grads)
    >>> round(float(params["W"][0, 0]), 6)
    0.75
    """

    config_names = ("learning_rate", "beta1", "beta2", "epsilon", "weight_decay", "lazy")
    moments = ("m", "v")
    formula = {
        "m": "beta1 * m + (1 - beta1) * dw",
        "v": "beta2 * v + (1 - beta2) * dw**2",
        "w": "w - learning_rate * (m_new / (1 - beta1**t)) / (sqrt(v_new / (1 - beta2**t)) + epsilon)",
    }

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        lazy: bool = False,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, lazy=lazy)
        self.beta1 = check_number(beta1, "beta1", below=1.0)
        self.beta2 = check_number(beta2, "beta2", below=1.0)
        self.epsilon = check_number(epsilon, "epsilon", positive=True)

    def _move(self, w: Array, dw: Array, learning_rate: float, rows: Any) -> None:
        m, v, t = self.state["m"], self.state["v"], self.n_steps
        m[rows] *= self.beta1
        m[rows] += (1 - self.beta1) * dw[rows]
        v[rows] *= self.beta2
        v[rows] += (1 - self.beta2) * dw[rows] ** 2
        step, root = m[rows] / (1 - self.beta1**t), v[rows] / (1 - self.beta2**t)
        np.sqrt(root, out=root)
        root += self.epsilon
        step *= learning_rate
        step /= root
        w[rows] -= step


def leaves_rows_alone(optimizer: Optimizer) -> bool:
    """Tell whether a row of W whose gradient is exactly zero stays as it is, and so do its moments."""
    if not isinstance(optimizer, FirstOrder) or type(optimizer) not in (SGD, Adam):
        return False
    return not optimizer.weight_decay and (optimizer.lazy or not optimizer.moments)


class Schedule(Configured):
    """Give the learning rate of a step: ``schedule(step)``, where the first step is 0. Any function can stand here."""

    def __call__(self, step: int) -> float:
        """Return the learning rate of this step."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.config() == other.config()

    def __hash__(self) -> int:
        return hash((type(self), *self.config().values()))


class StepDecay(Schedule):
    """initial * factor^floor(step / every).

    Examples
    --------
    >>> rate = StepDecay(1.0, every=10, factor=0.5)
    >>> rate(9), rate(10), rate(20)
    (1.0, 0.5, 0.25)
    """

    config_names = ("initial", "every", "factor")

    def __init__(self, initial: float, *, every: int, factor: float = 0.1) -> None:
        self.initial = check_number(initial, "initial")
        self.every = check_size(every, "every")
        self.factor = check_number(factor, "factor")

    def __call__(self, step: int) -> float:
        """Return initial * factor^floor(step / every)."""
        return self.initial * self.factor ** (step // self.every)


class ExponentialDecay(StepDecay):
    """initial * factor^(step / every): as StepDecay, without the jumps.

    Examples
    --------
    >>> rate = ExponentialDecay(1.0, every=10, factor=0.25)
    >>> rate(0), rate(5), rate(10)
    (1.0, 0.5, 0.25)
    """

    def __call__(self, step: int) -> float:
        """Return initial * factor^(step / every)."""
        return float(self.initial * self.factor ** (step / self.every))


class CosineDecay(Schedule):
    """Rise linearly to ``initial`` over ``warmup`` steps, then fall along half a cosine to ``final`` at ``n_steps``.

    After the warm-up, with u = (step - warmup) / (n_steps - warmup): final + (initial - final) * (1 + cos(pi u)) / 2.

    References
    ----------
    Loshchilov and Hutter (2017), "SGDR: stochastic gradient descent with warm restarts", eq. 5, without restarts.

    Examples
    --------
    >>> rate = CosineDecay(1.0, n_steps=12, warmup=2)
    >>> rate(0), rate(1), rate(2), rate(7), rate(12), rate(99)
    (0.5, 1.0, 1.0, 0.5, 0.0, 0.0)
    """

    config_names = ("initial", "n_steps", "warmup", "final")

    def __init__(self, initial: float, *, n_steps: int, warmup: int = 0, final: float = 0.0) -> None:
        self.initial = check_number(initial, "initial")
        self.n_steps = check_size(n_steps, "n_steps")
        self.warmup = check_size(warmup, "warmup", least=0)
        if self.warmup >= self.n_steps:
            raise ValueError(f"warmup must be less than n_steps = {self.n_steps}, got {self.warmup}")
        self.final = check_number(final, "final")

    def __call__(self, step: int) -> float:
        """Return the learning rate of this step."""
        if step < self.warmup:
            return self.initial * (step + 1) / self.warmup
        u = min((step - self.warmup) / (self.n_steps - self.warmup), 1.0)
        return self.final + (self.initial - self.final) * (1 + cos(pi * u)) / 2
