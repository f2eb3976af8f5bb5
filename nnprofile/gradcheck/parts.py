"""Judge a layer, a loss, and a network by its parts, and add what is found to a check."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np

from ..contract import Array, Layer, numbers_of
from ..layers.compose import is_open
from ..layers.walk import walk
from .check import Check
from .contracts import Contracts
from .diagnosis import Context
from .elsewhere import look_elsewhere
from .foreign import ForeignError, foreign
from .judge import FULL, Judge
from .procedures import LayerProcedure, LossProcedure, ObjectiveProcedure, go, takes
from .reference import Subject
from .report import Finding, Row
from .stateful import Stateful
from .tree import constants, fresh, leaves


def judge_layer(check: Check, layer: Any, x: Any, rng: np.random.Generator | None, place: str) -> bool:
    """Add rows and findings of one layer, in inference and, if it differs, in training mode; return whether all is right."""
    n_findings = len(check.report.errors)
    generator = rng if rng is not None else np.random.default_rng([0x6E6F, check.report.seed])
    modes = [check.register(LayerProcedure(layer, x, mode)) for mode in (None, generator)]
    rows: list[Row] = []
    try:
        if modes[0].needs_rng:
            modes = modes[1:]
        outputs = [p.run(p.copies(p.point))[0] for p in modes]
        if len(modes) == 2 and (not modes[1].takes_rng or outputs[0].tobytes() == outputs[1].tobytes()):
            modes = modes[:1]
        for p in reversed(modes):  # training first: a bug in what is drawn shows there
            p.world.observe()
            p.world.reset()
            p.prepare(check.rng)
            before = len(check.report.rows)
            check.judge(p, layer=place, suffix=" in training" if p.generator else "")
            if p.keeps_state:
                say_what_was_taken(check, p, place)
            if isinstance(p.world.objects[0], Layer) and not p.takes_rng:
                text = "forward takes no rng, which fit and predict pass: def forward(self, x, rng=None)"
                check.report.findings.append(Finding("contract", place, "", text, "note"))
            if p.ignored_dx:
                text = (
                    f"x is of {constants(p.x)[0].dtype}, so the dx that backward returned was not checked: give floats"
                )
                check.report.findings.append(Finding("integers", place, "x", text, "note"))
            rows = check.report.rows[before:] + rows
            del check.report.rows[before:]
    finally:
        for p in modes:
            p.world.close()
    check.report.rows += rows
    return len(check.report.errors) == n_findings


def say_what_was_taken(check: Check, p: LayerProcedure, place: str) -> None:
    """Report which attributes of an object that keeps its state were taken for what, and which were not checked."""
    adapter: Stateful = p.world.objects[0]
    check.report.findings.append(Finding("layout", place, "", adapter.says(), "note"))
    for name in adapter.unchecked:
        text = f"{name} was not checked: the output depends on it, and no gradient of it was found"
        text += "; name what has gradients, gradcheck.stateful(obj, params, grads), and leave out what is constant"
        severity = "note" if not adapter.params or adapter.is_mask(name) else "error"
        check.report.findings.append(
            Finding("missing" if severity == "error" else "layout", place, name, text, severity)
        )


def judge_loss(check: Check, loss: Any, y_pred: Any, y_true: Any, weight: Any, place: str = "") -> None:
    """Add rows and findings of one loss."""
    p = check.register(LossProcedure(loss, y_pred, y_true, weight))
    try:
        context = Context(y_true=y_true, sample_weight=weight)
        verdicts = check.judge(p, layer=place, context=context)
        right = verdicts is not None and all(v.row.verdict == "right" for v in verdicts)
        if right and p.point[0].ndim and len(p.point[0]) > 1 and weight is None:
            _loss_elsewhere(check, loss, p.point[0], y_true, place)
    finally:
        p.world.close()


def _loss_elsewhere(check: Check, loss: Any, y_pred: Array, y_true: Any, place: str) -> None:
    """Look at one row alone, and at each row twice: the 1/n of value and gradient."""
    t = np.asarray(y_true)
    if t.ndim < 1 or len(t) != len(y_pred):
        return
    n = len(y_pred)
    for text, rows in (("one row", [0]), ("each row twice", [i for i in range(n) for _ in range(2)])):
        try:
            p = check.register(LossProcedure(loss, y_pred[rows].astype(np.float64), t[rows]))
        except ForeignError:  # a loss may refuse such a batch
            continue
        try:
            subject = Subject(p.names, p.point, p.output, p.pullback)
            verdicts = Judge(subject, np.ones(()), check.rng, full=100).all()
            if any(v.row.verdict == "wrong" and 1e-7 < v.row.error < np.inf for v in verdicts):
                message = f"y_pred: wrong with {text}, though right for the batch given: the 1/n of value or gradient?"
                check.report.findings.append(Finding("batch", place, "y_pred", message))
                return
        except ForeignError:  # a loss may refuse such a batch
            continue
        finally:
            p.world.close()


def judge_network(check: Check, p: ObjectiveProcedure) -> None:
    """Judge the whole gradient, then loss and layers by themselves; what is wrong there explains what is wrong in the whole."""
    p.prepare(check.rng)
    report, context = check.report, Context(l2=p.l2)
    before = len(report.findings)
    verdicts = check.judge(p, context=context, explain=False) or []
    whole, report.findings = report.findings[before:], report.findings[:before]
    wrong = [v.row.tensor for v in verdicts if v.row.verdict == "wrong"]
    is_wrong = bool(wrong or not verdicts or any(f.severity == "error" for f in whole))
    if check_parts(check, p, numbers=is_wrong) and not is_wrong:
        report.findings += whole
        check.explain(verdicts, context, "")
        look_elsewhere(check, p, "")
        return
    found = [f for f in report.findings[before:] if f.severity == "error"]
    if found:
        found[0].message += f" (in the whole network wrong: {', '.join(wrong)})" if wrong else ""
        report.findings += [f for f in whole if f.severity == "note"]
        return
    begun = len(report.findings)
    report.findings += whole
    place = "network"
    check.explain(verdicts, context, place)
    for f in report.findings[begun:]:
        if f.severity == "error" and hasattr(p.world.objects[0], "layers"):
            f.layer = place
            if f.kind in ("contract", "raises", "shape"):
                continue
            f.message += "; each layer is right by itself, so it is how the network puts them together"


def check_parts(check: Check, p: ObjectiveProcedure, *, numbers: bool) -> bool:
    """Check the loss and each layer by themselves, from the output to the input; return whether all are right."""
    report = check.report
    p.world.reset()
    parts, y_pred = _parts(p)
    before, rows = len(report.findings), report.rows
    report.rows = []
    if numbers and y_pred is not None:
        judge_loss(check, p.loss, y_pred, p.y, None, "loss")
    for place, layer, x in reversed(parts):
        if numbers or _differs_in_training(copy.deepcopy(layer), x):
            judge_layer(check, layer, x, p.generator, place)
        else:
            _check_contracts(check, layer, x, p.generator, place)
    report.rows = rows
    found = [f for f in report.findings[before:] if f.severity == "error"]
    for f in report.findings[before:]:
        if f.layer[:1].isdigit() and f.tensor:
            f.message = re.sub(rf"(?<![\w.]){re.escape(f.tensor)}(?!\w)", f"{f.layer}.{f.tensor}", f.message, count=1)
            f.tensor = f"{f.layer}.{f.tensor}"
    return not found


def _parts(p: ObjectiveProcedure) -> tuple[list[tuple[str, Any, Any]], Array | None]:
    """Return (place, layer, its x) of all layers, nested ones too, and the output.

    No layers, if ``layers`` is something else, or the network is not these layers in a row.
    """
    net = p.world.objects[0]
    with p.bound(p.copies(p.point)) as (_, x):
        y = np.array(numbers_of(p._forward(net, x)[0]))
    p.world.reset()
    out: list[tuple[str, Any, Any]] = []
    rng = p.draws()

    def through(layers: Any, x: Any, prefix: str) -> Any:
        for i, layer in enumerate(layers):
            inner = getattr(layer, "layers", None)
            if isinstance(inner, list | tuple) and inner and all(map(_is_layer, inner)):
                x = through(inner, x, f"{prefix}{i}.")
                continue
            if is_open(layer):
                steps = walk(layer, fresh(x), rng)
                inside = [step for step in steps if not is_open(step.layer)]
                out.extend((f"{prefix}{i}.{step.name}", step.layer, fresh(step.x)) for step in inside)
                x = fresh(steps[-1].y)
                continue
            out.append((f"{prefix}{i}", layer, fresh(x)))
            takes_rng = rng is not None and takes(layer.forward, "rng")
            x = fresh((go(layer, fresh(x), rng=rng) if takes_rng else go(layer, fresh(x)))[0])
        return x

    layers = getattr(net, "layers", None)
    if not isinstance(layers, list | tuple) or not layers or not all(map(_is_layer, layers)):
        return [], y
    try:
        with foreign():
            last = numbers_of(through(layers, fresh(p.x), ""))
    except ForeignError:
        return [], y
    finally:
        p.world.reset()
    return (out, y) if last.shape == y.shape and np.allclose(last, y, equal_nan=True) else ([], y)


def _differs_in_training(layer: Any, x: Any) -> bool:
    if not takes(layer.forward, "rng") or sum(a.size for _, a in leaves(x)) > FULL:
        return False
    try:
        with foreign():
            modes = (None, np.random.default_rng(0))
            outputs = [np.array(numbers_of(go(layer, fresh(x), rng=rng)[0])) for rng in modes]
    except ForeignError:  # no inference mode
        return True
    return not np.array_equal(outputs[0], outputs[1], equal_nan=True)


def _is_layer(layer: Any) -> bool:
    return callable(getattr(layer, "forward", None)) and callable(getattr(layer, "backward", None))


def _check_contracts(check: Check, layer: Any, x: Any, generator: np.random.Generator | None, place: str) -> None:
    p = check.register(LayerProcedure(layer, x, generator))
    try:
        y = np.asarray(p.run(p.copies(p.point))[0])
        p.world.observe()
        contracts = Contracts(p, check.rng.normal(size=y.shape).astype(y.dtype), check.rng, place)
        contracts.check()
        check.report.findings += contracts.findings
    finally:
        p.world.close()
