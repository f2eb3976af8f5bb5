"""The textbook's step of SGD and Adam, written a second time, and the mistakes that people make in it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ..contract import Array
from ..optimizers import SGD, Adam


class Formulas:
    """The textbook's step of an optimizer with these attributes, and of those that make one known mistake.

    Attributes
    ----------
    name : str
        "SGD", "SGD with momentum" or "Adam"; "" if it is not known.
    """

    def __init__(self, optimizer: Any, weights: list[int], **changes: Any) -> None:
        self.optimizer, self.weights, self.changes = optimizer, weights, changes
        found = _settings(optimizer)

        def get(name: str, default: Any) -> Any:
            return changes.get(name, found.get(name, default))

        self.learning_rate = get("learning_rate", None)
        self.beta1, self.beta2, self.epsilon = get("beta1", None), get("beta2", None), get("epsilon", 1e-8)
        self.momentum, self.nesterov = get("momentum", 0.0) or 0.0, bool(get("nesterov", False))
        self.decay = get("weight_decay", 0.0) or 0.0
        self.lazy = bool(get("lazy", False))
        self.is_adam = self.beta1 is not None and self.beta2 is not None
        self.name = ("Adam" if self.is_adam else "SGD") + (
            " with momentum" if self.momentum and not self.is_adam else ""
        )
        known = isinstance(optimizer, SGD | Adam)
        used = not known and any(_is_used(value) for value in getattr(optimizer, "__dict__", {}).values())
        if isinstance(self.learning_rate, dict) or self.learning_rate is None or "" in found or used:
            self.name = ""
        self.rates: list[float] = changes.get("rates", [])
        self.begun = changes["begun"] if "begun" in changes else int(getattr(optimizer, "n_steps", 0) or 0)
        self.state = changes["state"] if "state" in changes else copy.deepcopy(getattr(optimizer, "state", None))

    def observe(self, optimizer: Any) -> None:
        """Note the learning rate that the next step will find, if it is a number."""
        rate = _settings(optimizer).get("learning_rate")
        if isinstance(rate, int | float | np.number):
            self.rates.append(float(rate))

    def rate(self, t: int) -> float:
        """Return the learning rate of step t."""
        if t < len(self.rates):
            return self.rates[t]
        return float(self.learning_rate(self.begun + t) if callable(self.learning_rate) else self.learning_rate)

    def _moment(self, name: str, like: list[Array]) -> list[Array]:
        """Return a moment as the optimizer has it already: one flat array, or zeros."""
        flat = self.state.get(name) if isinstance(self.state, dict) else None
        if not isinstance(flat, np.ndarray) or flat.size != sum(a.size for a in like):
            return [np.zeros(a.shape) for a in like]
        parts = np.split(flat.astype(float), np.cumsum([a.size for a in like])[:-1])
        return [part.reshape(a.shape) for part, a in zip(parts, like, strict=True)]

    def steps(self, trajectory: list[list[Array]], gradients: list[list[Array]]) -> list[list[Array]]:
        """Return the moves that the formula makes at these points with these gradients."""
        c = self.changes
        m = self._moment("m" if self.is_adam else "v", trajectory[0])
        v = self._moment("v", trajectory[0])
        out = []
        for t, grads in enumerate(gradients):
            rate = self.rate(t)
            moves = []
            for k, g in enumerate(grads):
                w = trajectory[t][k]
                decays = self.decay and (k in self.weights or c.get("decay on biases"))
                shrink = rate * self.decay * w if decays else np.zeros(w.shape)
                if c.get("decay in the gradient") and decays:
                    g, shrink = g + self.decay * w, np.zeros(w.shape)
                if c.get("no decay"):
                    shrink = np.zeros(w.shape)
                keep: Array = np.ones(g.shape, bool)
                if self.lazy and k in self.weights and g.ndim and (self.is_adam or self.momentum):
                    keep = np.broadcast_to((g != 0).any(axis=tuple(range(1, g.ndim)), keepdims=True), g.shape)
                move = self._adam(m, v, k, g, t, rate, keep) if self.is_adam else self._sgd(m, k, g, rate, keep)
                moves.append(np.where(keep, move, 0.0) * c.get("sign", 1.0) - shrink * c.get("decay factor", 1.0))
            out.append(moves)
        return out

    def _sgd(self, m: list[Array], k: int, g: Array, rate: float, keep: Array) -> Array:
        if not self.momentum:
            return -rate * g
        c = self.changes
        if c.get("dampened"):
            m[k] = self.momentum * m[k] - (1 - self.momentum) * rate * g
        else:
            m[k] = np.where(keep, c.get("momentum sign", 1.0) * self.momentum * m[k] - rate * g, m[k])
        step: Array = m[k]
        if self.nesterov:
            step = self.momentum * m[k] - rate * g
        if c.get("step sign"):
            step = -m[k]
        return step

    def _adam(self, m: list[Array], v: list[Array], k: int, g: Array, t: int, rate: float, keep: Array) -> Array:
        c = self.changes
        b1, b2 = self.beta1, self.beta2
        m[k] = np.where(keep, b1 * m[k] + (1 - b1) * g, m[k])
        v[k] = np.where(keep, b2 * v[k] + (1 - b2) * (np.abs(g) if c.get("no square") else g * g), v[k])
        n = self.begun + t + 1 + c.get("late", 0)
        with np.errstate(all="ignore"):
            m_hat: Array = m[k] if c.get("raw m") else m[k] / (1 - b1**n)
            v_hat: Array = v[k] if c.get("raw v") else v[k] / (1 - b2**n)
            below: Array = np.sqrt(v_hat) + (0 if c.get("no epsilon") else self.epsilon)
            if c.get("inside"):
                below = np.sqrt(v_hat + self.epsilon)
            elif c.get("no root"):
                below = v_hat + self.epsilon
            elif c.get("before correction"):
                below = (np.sqrt(v[k]) + self.epsilon) / np.sqrt(1 - b2**n)
            step: Array = -rate * m_hat / below
            return step

    def mistakes(self) -> list[tuple[str, str, Formulas]]:
        """Return (kind, message, the formula with this mistake)."""

        def other(**changes: Any) -> Formulas:
            kept = {"begun": self.begun, "state": self.state, "rates": self.rates}
            return Formulas(self.optimizer, self.weights, **kept, **changes)

        found = [
            ("sign", "the step goes uphill: w + learning_rate * ... for w - learning_rate * ...", other(sign=-1.0))
        ]
        if self.is_adam:
            found += [
                ("adam-t", "Adam's t is off by one: the first step counts as the second", other(late=1)),
                ("adam-t", "Adam's t is off by one: the first step counts as step 0", other(late=-1)),
                ("adam-t", "Adam's bias correction is missing", other(**{"raw m": True, "raw v": True})),
                ("adam-t", "Adam's bias correction of m is missing", other(**{"raw m": True})),
                ("adam-t", "Adam's bias correction of v is missing", other(**{"raw v": True})),
                (
                    "adam-epsilon",
                    "Adam's epsilon is inside the root: sqrt(v + epsilon) for sqrt(v) + epsilon",
                    other(inside=True),
                ),
                (
                    "epsilon-hat",
                    "Adam's epsilon is added before the bias correction",
                    other(**{"before correction": True}),
                ),
                ("adam-epsilon", "Adam's epsilon is missing", other(**{"no epsilon": True})),
                ("adam-moments", "the root of v is missing", other(**{"no root": True})),
                ("adam-moments", "v collects |g|, not g^2", other(**{"no square": True})),
                ("adam-moments", "beta1 and beta2 are swapped", other(beta1=self.beta2, beta2=self.beta1)),
                ("adam-moments", "the formula is SGD's", other(beta1=None, beta2=None)),
            ]
        elif self.momentum:
            found += [
                (
                    "momentum-sign",
                    "the momentum has the wrong sign: v = -momentum * v - learning_rate * g",
                    other(**{"momentum sign": -1.0}),
                ),
                (
                    "momentum-sign",
                    "the step has the wrong sign: w - v, where v holds -learning_rate * g",
                    other(**{"step sign": True}),
                ),
                ("momentum", "the gradient is dampened by 1 - momentum", other(dampened=True)),
                ("momentum", "the momentum is not used", other(momentum=0.0, nesterov=False)),
                (
                    "momentum",
                    "the step is plain momentum's, not Nesterov's"
                    if self.nesterov
                    else "the step is Nesterov's, not plain momentum's",
                    other(nesterov=not self.nesterov),
                ),
            ]
        if self.decay:
            found += [
                ("decay-on-biases", "weight decay touches biases", other(**{"decay on biases": True})),
                (
                    "decay-in-gradient",
                    "weight decay is part of the gradient (an L2 term), not decoupled",
                    other(**{"decay in the gradient": True}),
                ),
                (
                    "decay-in-gradient",
                    "weight decay is part of the gradient, of biases too",
                    other(**{"decay in the gradient": True, "decay on biases": True}),
                ),
                ("weight-decay", "weight decay is not applied", other(**{"no decay": True})),
                ("weight-decay", "weight decay has the wrong sign: weights grow", other(**{"decay factor": -1.0})),
                (
                    "weight-decay",
                    "weight decay is not multiplied by the learning rate",
                    other(**{"decay factor": 1 / self.rate(0) if self.rate(0) else 1.0}),
                ),
            ]
        return found


_ALIASES = {
    "learning_rate": ("learning_rate", "lr", "eta"),
    "momentum": ("momentum", "mu"),
    "nesterov": ("nesterov",),
    "beta1": ("beta1", "b1", "beta_1"),
    "beta2": ("beta2", "b2", "beta_2"),
    "epsilon": ("epsilon", "eps"),
    "weight_decay": ("weight_decay",),
    "lazy": ("lazy",),
}


def _settings(optimizer: Any) -> dict[str, Any]:
    """Return the settings by their names here; with one named "" if there is one that no formula here has."""
    held = dict(vars(optimizer)) if hasattr(optimizer, "__dict__") else {}
    found: dict[str, Any] = {}
    for name, aliases in _ALIASES.items():
        for alias in aliases:
            if hasattr(optimizer, alias):
                found[name] = getattr(optimizer, alias)
                held.pop(alias, None)
    betas = held.pop("betas", getattr(optimizer, "betas", None))
    if isinstance(betas, tuple | list) and len(betas) == 2:
        found["beta1"], found["beta2"] = betas
    strange = [name for name, value in held.items() if isinstance(value, float) and not name.startswith("_")]
    if strange and not isinstance(optimizer, SGD | Adam):
        found[""] = strange
    if "beta1" not in found and ("epsilon" in found or "beta2" in found):
        found[""] = "epsilon"  # RMSProp, Adagrad
    return found


def _is_used(value: Any) -> bool:
    """Tell whether an attribute of an optimizer looks like the state of steps that were taken."""
    parts = (
        list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list | tuple) else [value]
    )
    return any(isinstance(part, np.ndarray) and part.dtype.kind == "f" and part.any() for part in parts)
