"""Record the optimizer's step, and what the loss is afterwards beside what the gradient promised."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from ..contract import Array, Layer, Optimizer, Parameters, apply, numbers_of
from ..formulas.expression import Expression, Quantities, Sum
from ..objectives import penalty
from .rules import Formula, update_rule

if TYPE_CHECKING:
    from .recorder import Recorder


def record_update(r: Recorder) -> None:
    """Record the optimizer's step, and what the loss is afterwards beside what the gradient promised."""
    found = r.trace
    optimizer = copy.deepcopy(found.optimizer)
    assert optimizer is not None
    net = r.net
    grads = net.params.like()
    grads.vector[:] = r.grads.vector
    optimizer.prepare(net.params)
    before = {name: moment.copy() for name, moment in optimizer.state.items()}
    rate, start = r.rate, net.params.vector.copy()
    optimizer.learning_rate = rate  # asked once: a schedule may be anything
    optimizer.step(net.params, grads)
    old = Parameters(net.params.layout, start)
    for name in found.frozen:
        net.params[name] = old[name]
    for leaf in r.leaves:
        names: list[str] = []
        for own, symbol in leaf.place.params.items():
            name = leaf.prefix + own
            index = tuple(("ijkl" if old[name].ndim > 1 else "jkl")[: old[name].ndim])
            _one(r, optimizer, net.params, name, symbol, index, rate, before, names)
        if names:
            why = "Only now, after the whole backward pass, do the parameters move."
            r.step(f"Update: {leaf.rule.title}", "update", names, why)
    _after(r, net, old)


def _one(
    r: Recorder,
    optimizer: Optimizer,
    params: Parameters,
    name: str,
    symbol: str,
    index: tuple[str, ...],
    rate: float,
    before: dict[str, Array],
    names: list[str],
) -> None:
    """Record one parameter's update."""
    axes = r.axes[symbol]
    if name in r.trace.frozen:
        formula = Formula(f"{{{symbol}+}} = {{{symbol}}}", Quantities(symbol)[index], index, why="Frozen: left alone.")
        names.append(r.add(f"{symbol}+", params[name], axes, "update", formula, parameter=name))
        return
    decays = name in params.matrices()
    rule = update_rule(optimizer, symbol, index, learning_rate=rate, step=optimizer.n_steps, decays=decays)
    if rule is not None:
        for moment, formula in rule.moments.items():
            old, new = (Parameters(params.layout, state[moment])[name] for state in (before, optimizer.state))
            names.append(r.add(f"{moment}{symbol}", old, axes, "update"))
            names.append(r.add(f"{moment}{symbol}+", new, axes, "update", formula))
    by = Formula(f"{{{symbol}+}} from {type(optimizer).__name__}.step") if rule is None else rule.update
    names.append(r.add(f"{symbol}+", params[name], axes, "update", by, parameter=name))


def _after(r: Recorder, net: Layer, old: Parameters) -> None:
    """Record the loss after the update, beside what the gradient promised (docs/backprop.md, eq. 33)."""
    found = r.trace
    name = r.y_name
    try:
        y = numbers_of(apply(net, r.x, copy.deepcopy(r.rng))[0])
        value = found.loss.forward(y, r.y_true, r.weights)[0]
    except ValueError:
        if np.isfinite(net.params.vector).all():
            raise
        y, value = np.full_like(found[name].value, np.nan), np.nan  # the step has led to parameters that are not finite
    by = Formula("", why="The forward pass with the new parameters.")
    names = [r.add(f"{name}+", y, r.axes[name], "after", by)]
    if r.objective == "J":
        value = value + penalty((net.params[weight] for weight in net.params.matrices()), r.decay)
    J = r.objective
    names.append(r.add(f"{J}+", value, (), "after", Formula("", why="And its loss.")))
    moved = net.params.vector - old.vector
    predicted, parts = float(r.grads.vector @ moved), None
    for leaf in r.leaves:
        for symbol in leaf.place.params.values():
            q = r.trace[symbol]
            index = tuple("ijkl"[: q.value.ndim])
            term: Expression = Quantities(f"d{symbol}")[index] * (
                Quantities(f"{symbol}+")[index] - Quantities(symbol)[index]
            )
            for letter, size in zip(index[::-1], q.value.shape[::-1], strict=True):
                term = Sum(letter, size, term)
            parts = term if parts is None else parts + term
    why = "What the gradient promises: each move times its gradient. For plain SGD that is −η Σ dw²."
    names.append(r.add("P", predicted, (), "after", Formula("{P} = Σ dw Δw", parts, (), "33", why)))
    real = Quantities(f"{J}+")[()] - Quantities(J)[()]
    why = (
        "What happened; the difference to the promise is the curvature and what comes after it: small for small steps."
    )
    change = Formula(f"{{D}} = {{{J}+}} − {{{J}}}", real, (), "33", why)
    names.append(r.add("D", value - found[J].value, (), "after", change))
    r.step(
        "After the update: promised and real change",
        "after",
        names,
        "The same batch again, with the new parameters.",
    )
