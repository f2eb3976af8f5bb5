"""Record the loss, the L2 term, and the gradient with which the backward pass begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Array
from ..formulas.expression import Constant, Expression, Quantities, Square, Sum
from ..objectives import penalty
from .rules import Formula, loss_rule

if TYPE_CHECKING:
    from .recorder import Recorder


def record_loss(r: Recorder, y_name: str, y: Array) -> Array:
    """Record the loss, and return its gradient."""
    found, loss = r.trace, r.trace.loss
    value, cache = loss.forward(y, r.y_true, r.weights)
    rows = y.reshape(r.n, -1)
    target = np.asarray(loss.targets(r.y_true, rows.shape[1]))
    k = rows.shape[1]
    plain = y.ndim == 2 and r.total.number > 0  # with weights of 0 alone, all is 0 and nothing is divided
    rule = loss_rule(loss, y_name, k, labels=target.ndim == 1) if plain else None
    if target.ndim == 1 and rule is not None:  # labels
        target = (target[:, None] == np.arange(k)).astype(float)
    axes = r.axes[y_name] if target.ndim == y.ndim else ("samples", *(f"axis {a}" for a in range(1, target.ndim)))
    r.add("t", target, axes, "data")
    found.steps[0].names.insert(len(found.inputs), "t")
    names = []
    w = Quantities("w")["n"]
    if r.weights is not None:
        r.add("w", r.weights, ("samples",), "data")
        found.steps[0].names.insert(len(found.inputs) + 1, "w")
    mean = "1/N Σ_n {l}" if r.weights is None else "(Σ_n {w} {l}) / Σw"
    if rule is None:
        kind = type(loss).__name__
        names.append(r.add("L", value, (), "loss", Formula(f"{{L}} = {kind}({{{y_name}}}, {{t}})")))
    else:
        if rule.probabilities is not None:
            p, _ = loss.link.forward(y)
            names.append(r.add("p", p, r.axes[y_name], "forward", rule.probabilities))
        l = loss.sample_losses(rows, loss.targets(r.y_true, k))[0]  # type: ignore[attr-defined]
        names.append(r.add("l", l, ("samples",), "loss", rule.sample))
        l_n = Quantities("l")["n"]
        summed = Sum("n", r.n, l_n if r.weights is None else w * l_n) / r.total
        why = "The mean over the samples: this is where the 1/N comes from."
        names.append(r.add("L", value, (), "loss", Formula(f"{{L}} = {mean}", summed, (), "9", why)))
    r.objective = _l2_term(r, names, value)
    why = "One number says how wrong the outputs are; it is what training makes smaller."
    r.step(f"Loss: {type(loss).__name__}", "loss", names, why)
    dy = loss.backward(cache)
    element = None if rule is None else rule.slope
    if element is not None:
        element = (element if r.weights is None else w * element) / r.total
    head = f"{{d{y_name}}} = ∂{{{r.objective}}}/∂{{{y_name}}}"
    why = "Backpropagation starts here: how the loss changes with each output. Its 1/N goes through all that follows."
    formula = Formula(head, element, ("n", "j"), "20", why)
    subject = r.replay.at(*r.places[y_name], y)
    r.gradient(f"d{y_name}", dy, r.axes[y_name], formula, subject)
    r.step("Backward: start at the loss", "backward", [f"d{y_name}"], why)
    return dy


def _l2_term(r: Recorder, names: list[str], value: Any) -> str:
    """Record R and J if there is an L2 term, and return the name of what is descended."""
    weights = [q for q in r.trace.values() if q.role == "parameter" and q.value.ndim > 1]
    if not r.decay or not weights:
        return "L"
    lam = Constant("λ", r.trace.l2)
    squares: Expression | None = None
    for q in weights:
        part: Expression = Square(Quantities(q.name)[q.index])
        for letter, size in zip(q.index[::-1], q.value.shape[::-1], strict=True):
            part = Sum(letter, size, part)
        squares = part if squares is None else squares + part
    R = penalty((q.value.astype(float) for q in weights), r.decay)
    element = lam / (2 * r.total) * squares if squares is not None else None
    head, why = f"{{R}} = λ/(2 {r.total.symbol}) Σ W²", "Large weights cost; biases do not."
    names.append(r.add("R", R, (), "loss", Formula(head, element, (), "17", why)))
    J = Formula("{J} = {L} + {R}", Quantities("L")[()] + Quantities("R")[()], (), "17")
    names.append(r.add("J", value + R, (), "loss", J))
    return "J"
