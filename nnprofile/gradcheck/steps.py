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

from ..contract import Array, numbers_of
from ..optimizers import SGD, Adam
from .check import Check
from .foreign import ForeignError, foreign
from .optimizer_formulas import Formulas
from .parts import judge_network
from .procedures import ObjectiveProcedure, as_given, go
from .reference import careful
from .report import KAPPA, Finding, GradCheckReport, Row, Worst
from .tree import constants, leaves, penalised, rebuild
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
        decay of matrices; ``learning_rate`` alone, plain SGD.
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
        self.x, self.y = copy.deepcopy(as_given(x)), copy.deepcopy(y)
        self.names = [name for name, _ in leaves(self.net.params)]
        self.weights = [k for k, name in enumerate(self.names) if name in penalised(self.net.params)]

    def _inputs(self) -> list[bytes]:
        arrays = [a for tree in (self.x, as_given(self.y)) for a in (*constants(tree), *(a for _, a in leaves(tree)))]
        return [np.asarray(a).tobytes() for a in arrays]

    def values(self) -> list[Array]:
        """Return copies of the parameters."""
        return [np.array(a) for _, a in leaves(self.net.params)]

    def gradients(self) -> list[Array]:
        """Return the gradients that backpropagation gives a copy of the network."""
        p = self.check.register(ObjectiveProcedure(self.net, self.loss, self.x, self.y, self.l2))
        grads = p.run(p.copies(p.point), np.ones(()))[1][p.n_inputs :]
        return [np.zeros(v.shape) if g is None else g.copy() for g, v in zip(grads, p.point[p.n_inputs :], strict=True)]

    @foreign()
    def take(self) -> None:
        """Take one step."""
        if self.own is not None:
            self.own(self.net, self.loss, self.optimizer, self.x, self.y)
            return
        y_pred, cache = go(self.net, self.x)
        y_pred = numbers_of(y_pred)
        loss_cache = self.loss.forward(y_pred, numbers_of(self.y))[1]
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
        p = check.register(ObjectiveProcedure(self.net, self.loss, self.x, self.y, self.l2))
        try:
            judge_network(check, p)
            if check.report.errors:
                return
            check.report.rows = []
        finally:
            p.world.close()
        trajectory, gradients = [self.values()], []
        formulas = Formulas(self.optimizer, self.weights)
        inputs = self._inputs()
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
        if self._inputs() != inputs:
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
            p = self.check.register(ObjectiveProcedure(self.net, self.loss, self.x, self.y, self.l2))
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


def _norm(a: Array) -> float:
    return float(np.linalg.norm(np.ravel(a)))
