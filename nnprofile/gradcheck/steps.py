"""Check the training step itself: which weights and which gradients went into it, and whether it is the optimizer's formula.

A gradient may be right and the training wrong: updated before it was propagated, added to the last one, or scaled by an
Adam that counts its steps from 0. The step is compared with the textbook's, written here a second time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from ..contract import Array
from ..optimizers import SGD, Adam
from .checks import Check, judge_network
from .foreign import ForeignError, foreign
from .procedures import ObjectiveProcedure
from .reference import careful
from .report import KAPPA, Finding, GradCheckReport, Row, Worst
from .tree import leaves, rebuild
from .world import World, describe

N_STEPS = 4
TOLERANCE = 1e-9  # of a step, relative to its size: formulas that are equal on paper differ in rounding

_VARIANTS = frozenset(  # what may be meant, in the optimizers of others
    (
        "optimizer",
        "scale",
        "momentum",
        "decay-on-biases",
        "decay-in-gradient",
        "weight-decay",
        "adam-moments",
        "epsilon-hat",
    )
)

Step = Callable[[Any, Any, Any, Any, Any], object]


def check_step(
    net: Any, loss: Any, optimizer: Any, x: Any, y: Any, l2: float = 0.0, *, step: Step | None = None, seed: int = 0
) -> GradCheckReport:
    """Check training steps: the gradient, that the old weights were used, that nothing is kept, and the update's formula.

    Copies of network and optimizer take four steps. At each, the change of every parameter is compared with the formula of
    the optimizer, applied to the right gradients; where they differ, known mistakes are tried.

    Parameters
    ----------
    net, loss : objects
        As ``check_network`` takes.
    optimizer : object
        With ``step(params, grads)``, which moves ``params`` in place. Its formula is known by its attributes: ``beta1``,
        ``beta2`` and ``epsilon`` mean Adam, ``momentum`` (and ``nesterov``) SGD with momentum, ``weight_decay`` decoupled
        decay of parameters named W; ``learning_rate`` alone, plain SGD.
    x, y : arrays
    l2 : float, default 0.0
        As in ``check_network``.
    step : function (net, loss, optimizer, x, y), optional
        Your own training step. By default: forward, backward, ``optimizer.step(net.params, grads)``.
    seed : int, default 0

    Returns
    -------
    GradCheckReport

    Raises
    ------
    ValueError
        If the objects lack these methods, or the objective is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from nnprofile import Adam, Dense, HalfSquaredError, Sequential
    >>> net = Sequential([Dense(2, 1)], rng=np.random.default_rng(0))
    >>> check_step(net, HalfSquaredError(), Adam(0.01), np.ones((3, 2)), np.zeros((3, 1))).ok
    True
    """
    if step is None and not callable(getattr(optimizer, "step", None)):
        raise ValueError(f"{describe(optimizer)} must have a method step(params, grads)")
    check = Check(f"step of {describe(optimizer)} on {describe(net)}", seed)
    with careful():
        steps, kept = _Steps(check, net, loss, optimizer, x, y, l2, step), World(step, copied=False)
        try:
            steps.run()
        finally:
            kept.close()  # what the step refers to
            steps.world.close()  # what could not be copied
    return check.done()


class _Steps:
    """Some steps of copies, and what they should have been."""

    def __init__(
        self, check: Check, net: Any, loss: Any, optimizer: Any, x: Any, y: Any, l2: float, step: Step | None
    ) -> None:
        self.check, self.l2, self.own = check, l2, step
        self.world = World(net, loss, optimizer)
        self.net, self.loss, self.optimizer = self.world.objects
        self.x, self.y = np.array(x), copy.deepcopy(y)
        self.names = [name for name, _ in leaves(self.net.params)]
        self.weights = [k for k, name in enumerate(self.names) if name.rpartition(".")[2] == "W"]

    def values(self) -> list[Array]:
        """Return copies of the parameters."""
        return [np.array(a) for _, a in leaves(self.net.params)]

    def gradients(self) -> list[Array]:
        """Return the gradients that backpropagation gives a copy of the network."""
        p = self.check.made(ObjectiveProcedure(self.net, self.loss, self.x, self.y, self.l2))
        grads = p.run(p.copies(p.point), np.ones(()))[1][p.n_inputs :]
        return [np.zeros(v.shape) if g is None else g.copy() for g, v in zip(grads, p.point[p.n_inputs :], strict=True)]

    @foreign()
    def take(self) -> None:
        """Take one step."""
        if self.own is not None:
            self.own(self.net, self.loss, self.optimizer, self.x, self.y)
            return
        y_pred, cache = self.net.forward(self.x)
        loss_cache = self.loss.forward(y_pred, self.y)[1]
        _, grads = self.net.backward(self.loss.backward(loss_cache), cache)
        if self.l2:
            n = len(y_pred)
            changed = [
                g + self.l2 / n * v if k in self.weights else g
                for k, ((_, g), (_, v)) in enumerate(zip(leaves(grads), leaves(self.net.params), strict=True))
            ]
            grads = rebuild(grads, iter(changed))
        self.optimizer.step(self.net.params, grads)

    def run(self) -> None:
        """Take the steps, and compare."""
        check = self.check
        p = check.made(ObjectiveProcedure(self.net, self.loss, self.x, self.y, self.l2))
        try:
            judge_network(check, p)
            if check.report.errors:
                return
            check.report.rows = []
        finally:
            p.world.close()
        trajectory, gradients = [self.values()], []
        formulas = Formulas(self.optimizer, self.weights)
        inputs = self.x.tobytes(), np.asarray(self.y).tobytes()
        world = World(self.net, self.loss, copied=False)
        try:
            for _ in range(N_STEPS):
                world.rewind()  # the step draws what the gradient drew
                gradients.append(self.gradients())
                formulas.observe(self.optimizer)
                world.rewind()
                self.take()
                trajectory.append(self.values())
                if not all(np.isfinite(v).all() for v in trajectory[-1]):
                    self.add("optimizer", f"step {len(gradients)} makes the parameters infinite or NaN")
                    return
        except ForeignError as error:
            self.add("raises", f"step {len(gradients)} raises {error}")
            return
        finally:
            world.rewind()
        if (self.x.tobytes(), np.asarray(self.y).tobytes()) != inputs:
            self.add("mutation", "the step overwrites x or y")
        self.compare(formulas, trajectory, gradients)

    def add(self, kind: str, message: str, tensor: str = "") -> None:
        """Add a finding about the step."""
        self.check.report.findings.append(Finding(kind, "optimizer", tensor, message))

    def compare(self, formulas: Formulas, trajectory: list[list[Array]], gradients: list[list[Array]]) -> None:
        """Compare each step with the formula, and look for the known mistake that explains it."""
        moved = [[b - a for a, b in zip(one, two, strict=True)] for one, two in pairwise(trajectory)]
        largest = [max(float(np.abs(g[k]).max(initial=0.0)) for g in gradients) for k in range(len(self.names))]
        paths = [max(float(np.abs(m[k]).max(initial=0.0)) for m in moved) for k in range(len(self.names))]
        speed = max((path / g for path, g in zip(paths, largest, strict=True) if path and g), default=np.inf)
        still = [
            name
            for k, name in enumerate(self.names)
            if not paths[k] and largest[k] and speed * largest[k] > 1e-15 * np.abs(trajectory[0][k]).max()
        ]  # where it is not rounded away
        if still:
            others = "" if len(still) == len(self.names) else "; the others did"
            text = f"{', '.join(still)} did not move{others}: a step writes into params, in place"
            self.add("no-step", text, still[0])
            return
        slopes = [
            sum(float((m * g).sum()) for m, g in zip(move, grads, strict=True))
            for move, grads in zip(moved, gradients, strict=True)
        ]
        if all(slope > 0 for slope in slopes):
            self.add(
                "sign",
                f"{self.names[0]} and the others go uphill, along their gradients: w + ... for w - ...",
                self.names[0],
            )
            return
        if not formulas.name:
            self._unknown()
            return
        expected = formulas.steps(trajectory, gradients)
        eps = max(float(np.finfo(v.dtype).eps) for v in trajectory[0])
        tolerance = max(TOLERANCE, 1e3 * eps)
        wrong = []
        for k, name in enumerate(self.names):
            size = max(_norm(s[k]) for s in expected) or 1.0
            floor = 8 * eps * max(_norm(v[k]) for v in trajectory)
            gaps = [_norm(m[k] - e[k]) for m, e in zip(moved, expected, strict=True)]
            worst = int(np.argmax(gaps))
            row = Row(
                name,
                trajectory[0][k].shape,
                f"{formulas.name}, written again",
                checked=f"{N_STEPS} steps",
                error=gaps[worst] / size,
                noise_ratio=KAPPA * gaps[worst] / max(tolerance * size, floor),
                certificate=max(tolerance, floor / size),
            )
            if gaps[worst] > max(tolerance * size, floor):
                row.verdict = "wrong"
                i = int(np.argmax(np.abs(moved[worst][k] - expected[worst][k])))
                index = tuple(int(j) for j in np.unravel_index(i, row.shape))
                row.worst = [Worst(index, float(moved[worst][k].flat[i]), float(expected[worst][k].flat[i]))]
                wrong.append(k)
            self.check.report.rows.append(row)
        if wrong:
            kind, message = self.explain(formulas, trajectory, gradients, moved, wrong, tolerance)
            # The class of another may mean another formula, that of its attributes or not.
            if not isinstance(self.optimizer, SGD | Adam) and self.own is None and kind in _VARIANTS:
                self.check.report.rows = []
                self._unknown("" if kind == "optimizer" else f" ({message})")
            else:
                self.add(kind, f"{', '.join(self.names[k] for k in wrong)}: {message}", self.names[wrong[0]])

    def _unknown(self, seen: str = "") -> None:
        text = (
            f"the formula of {describe(self.optimizer)} is not known, so its steps were not compared with it{seen}. Known are "
            "SGD, momentum, Nesterov's, Adam, and decoupled decay, by the attributes learning_rate, momentum, nesterov, beta1, "
            "beta2, epsilon and weight_decay"
        )
        self.check.report.findings.append(Finding("optimizer", "optimizer", "", text, "note"))

    def explain(
        self,
        formulas: Formulas,
        trajectory: list[list[Array]],
        gradients: list[list[Array]],
        moved: list[list[Array]],
        wrong: list[int],
        tolerance: float,
    ) -> tuple[str, str]:
        """Return (kind, message) of the mistake that gives these very steps."""

        def fits(steps: list[list[Array]]) -> bool:
            eps = max(float(np.finfo(v.dtype).eps) for v in trajectory[0])
            return all(
                _norm(m[k] - s[k]) <= max(4 * tolerance * max(_norm(m[k]), 1e-300), 8 * eps * _norm(v[k]))
                for m, s, v in zip(moved, steps, trajectory, strict=False)
                for k in range(len(self.names))
            )

        for kind, message, other in formulas.mistakes():
            if fits(other.steps(trajectory, gradients)):
                return kind, message
        total: list[list[Array]] = []
        for grads in gradients:
            total.append([a + b for a, b in zip(total[-1], grads, strict=True)] if total else grads)
        if fits(formulas.steps(trajectory, total)):
            return "accumulate", "each step uses the sum of all gradients so far: they are not reset between steps"
        late = [gradients[0], *gradients[:-1]]
        if fits(formulas.steps(trajectory, late)):
            return "stale-cache", "each step uses the gradients of the step before"
        through = self._through(trajectory)
        if through and fits(formulas.steps(trajectory, through)):
            return "updated-weights", (
                "the gradient was propagated through weights that had moved already: all gradients first, then the step"
            )
        ratio = [
            float((m[k] * e[k]).sum()) / (_norm(e[k]) ** 2 or 1.0)
            for m, e in zip(moved, formulas.steps(trajectory, gradients), strict=True)
            for k in wrong
        ]
        if np.ptp(ratio) < 1e-6 * abs(ratio[0]):
            c = ratio[0]
            if abs(c + 1) < 1e-6:
                return "sign", "each step is -1 times the formula's: it goes uphill"
            if abs(c - 1) > 1e3 * tolerance:
                return "scale", f"each step is {c:.4g} times the formula's"
        return "optimizer", f"the steps are not those of {formulas.name} with these settings, nor of a known mistake"

    def _through(self, trajectory: list[list[Array]]) -> list[list[Array]]:
        """Return, for each step, the gradients propagated through the weights that it led to; none without ``layers``."""
        out = []
        for old, new in pairwise(trajectory):
            self._write(old)
            p = self.check.made(ObjectiveProcedure(self.net, self.loss, self.x, self.y, self.l2))
            if not hasattr(p.model.obj, "layers"):
                return []
            p.prepare(np.random.default_rng(0))
            grads = p.through([*p.point[: p.n_inputs], *new])[p.n_inputs :]
            if any(g is None for g in grads):
                return []
            out.append([g for g in grads if g is not None])
        return out

    def _write(self, values: list[Array]) -> None:
        for (_, array), value in zip(leaves(self.net.params), values, strict=True):
            array[...] = value


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


def _norm(a: Array) -> float:
    return float(np.linalg.norm(np.ravel(a)))
