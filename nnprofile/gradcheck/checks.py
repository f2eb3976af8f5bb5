"""The checks: of two functions, a layer, a loss, and a network with its loss. Each returns a report.

All do the same: keep the contracts, judge every gradient against the right one, and, where one is wrong, say why.
"""

from __future__ import annotations

import copy
import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ..contract import Array, Layer
from ..validation import check_size
from .contracts import Contracts
from .diagnosis import Context, diagnose
from .elsewhere import look_elsewhere
from .foreign import ForeignError, foreign
from .functions import FunctionProcedure
from .judge import FULL, Judge, Verdict
from .procedures import (
    BudgetSpent,
    LayerProcedure,
    LossProcedure,
    ObjectiveProcedure,
    Procedure,
    ValueProcedure,
    takes,
)
from .reference import Subject, careful
from .report import KAPPA, Finding, GradCheckReport, Row
from .stateful import Stateful, StatefulValue, is_stateful_pair, methods_of_one, unchecked_arrays
from .world import copied, describe, untouched

# What makes numbers wrong is reported before the numbers; what shows only later, after them.
_FIRST = frozenset(
    (
        "contract",
        "raises",
        "shape",
        "missing",
        "dtype",
        "mutation",
        "accumulate",
        "nondeterministic",
        "mask",
        "updated-weights",
    )
)


SECONDS = 1.0  # that a check with its diagnosis may take in any case
TOO_DEAR = "wrong; what it is would take more evaluations: raise budget="
_VAGUE = ("elements", "float32", "epsilon", "term")  # said last of several tensors


P = TypeVar("P", bound=Procedure)


class Check:
    """One check under way: counts, time, rows and findings."""

    def __init__(self, subject: str, seed: int, *, explain: bool = True, budget: int | None = None) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
        self.start = time.perf_counter()
        self.report = GradCheckReport(subject, seed=int(seed))
        self.procedures: list[Procedure] = []
        self.explains = explain
        self.budget = None if budget is None else check_size(budget, "budget", least=0)
        # Not default_rng(seed): the caller may have drawn x from that, and dy must know nothing of x.
        self.rng = np.random.default_rng([0x6E6E, int(seed)])

    def made(self, p: P) -> P:
        """Count what this procedure evaluates."""
        self.procedures.append(p)
        return p

    def done(self) -> GradCheckReport:
        """Finish: one finding a bug, errors before notes."""
        report = self.report
        seen: set[tuple[str, str, str]] = set()
        findings = []
        for f in report.findings:
            key = (f.kind, f.layer, f.tensor)
            if key not in seen:
                seen.add(key)
                findings.append(f)
        report.findings = sorted(findings, key=lambda f: f.severity != "error")
        report.n_forward = sum(p.n_forward for p in self.procedures)
        report.n_backward = sum(p.n_backward for p in self.procedures)
        report.seconds = time.perf_counter() - self.start
        return report

    def judge(
        self,
        p: Procedure,
        *,
        layer: str = "",
        suffix: str = "",
        context: Context | None = None,
        explain: bool = True,
    ) -> list[Verdict] | None:
        """Check contracts and gradients of one procedure; add findings, and return the verdicts."""
        point = [a.astype(np.float64) for a in p.point]
        y = np.asarray(p.run(p.copies(p.point))[0])
        p.world.observe()
        p.world.reset()
        if y.dtype.kind != "f" or not np.isfinite(y).all():
            raise ValueError(
                f"{self.report.subject}: forward must return finite real numbers here, got "
                + (f"dtype {y.dtype}" if y.dtype.kind != "f" else "inf or nan")
            )
        dy = self.rng.normal(size=y.shape) if p.takes_cotangent else np.ones(y.shape)
        contracts = Contracts(p, dy.astype(y.dtype), self.rng, layer)
        grads = contracts.check()
        first = [f for f in contracts.findings if f.kind in _FIRST]
        last = [f for f in contracts.findings if f.kind not in _FIRST]
        if grads is None or any(f.kind == "nondeterministic" for f in first):
            self.report.findings += first + last
            return None
        subject = Subject(p.names, point, p.output, p.pullback)
        judge = Judge(subject, dy, self.rng, longest=p.longest)
        verdicts = judge.all()
        self.report.findings += first
        context = context or Context()
        context.procedure, context.judge = p, judge
        context.verdicts = tuple(verdicts)
        for verdict in verdicts:
            verdict.row.tensor += suffix
        self.report.rows += [verdict.row for verdict in verdicts]
        if explain:
            self.explain(verdicts, context, layer)
        self.report.findings += last
        self._single(p, judge, verdicts, dy, layer)
        if (
            explain
            and all(v.row.verdict == "right" for v in verdicts)
            and not any(f.severity == "error" for f in contracts.findings)
        ):
            look_elsewhere(self, p, layer)
        return verdicts

    def explain(self, verdicts: list[Verdict], context: Context, layer: str) -> None:
        """Add a finding for each gradient that is not simply right."""
        wrong, spent = [], False
        p = context.procedure
        n = sum(q.n_forward for q in self.procedures)
        extra = context.judge.extra if context.judge is not None else 0
        most = 2 * n - 3 * extra if self.budget is None else self.budget

        def spend() -> None:
            used = sum(q.n_forward for q in self.procedures) - n
            if used >= most and (self.budget is not None or time.perf_counter() - self.start > SECONDS):
                raise BudgetSpent

        if p is not None:
            p.spend = spend
        for verdict in verdicts:
            row = verdict.row
            if row.verdict == "wrong":
                kind, message = "term", "wrong; explain=True says how" if not self.explains else TOO_DEAR
                if self.explains and not spent:
                    try:
                        kind, message = diagnose(verdict, context)
                    except BudgetSpent:
                        spent = True
                text = f"{row.tensor}: {message}"
                wrong.append(Finding(kind, layer, row.tensor, text, unexplained=verdict.unexplained))
            elif row.verdict == "subgradient":
                text = f"{row.tensor}: the point lies on a kink; the gradient there is an element of the subgradient"
                self.report.findings.append(Finding("kink", layer, row.tensor, text, "note"))
            elif row.verdict == "unclear":
                text = f"{row.tensor}: the reference is too inaccurate here to judge ({row.accuracy:.1e})"
                self.report.findings.append(Finding("unclear", layer, row.tensor, text, "note"))
        if p is not None:
            p.spend = None
        right = [v.row.tensor for v in verdicts if v.row.verdict == "right"]
        for f in wrong:
            if f.kind == "term" and right:
                f.message += f" (right: {', '.join(right)})"
        # One bug may spoil several tensors, and be plain to see in one of them.
        self.report.findings += sorted(wrong, key=lambda f: _VAGUE.index(f.kind) if f.kind in _VAGUE else -1)

    def _single(self, p: Procedure, judge: Judge, verdicts: list[Verdict], dy: Array, layer: str) -> None:
        """Judge code in the caller's lower precision against the same code in float64."""
        kinds = {a.dtype for a in p.point if a.dtype.itemsize < 8}
        if not kinds:
            return
        eps = max(float(np.finfo(kind).eps) for kind in kinds)
        y = np.asarray(p.run(p.copies(p.point))[0])
        low = dy.astype(y.dtype)
        base = p.run(p.copies(p.point), low.copy())[1]
        runs = []
        for _ in range(4):
            constants = copy.copy(p)
            shaken = [(a * (1 + eps * self.rng.choice((-1, 1), a.shape))).astype(a.dtype) for a in p.point]
            constants.shake_constants(eps, self.rng)
            try:
                runs.append(constants.run(shaken, low.copy())[1])
            except ForeignError:  # out of the function's domain
                continue
        # What rounding the inputs alone does to the right gradient: the same points, in float64.
        exact = p.run([a.astype(np.float64) for a in p.point], low.astype(np.float64))[1]
        if not runs:
            return
        for verdict in verdicts:
            g, right = base[verdict.k], exact[verdict.k]
            if (
                g is None
                or right is None
                or verdict.row.verdict not in ("right", "subgradient")
                or g.dtype.itemsize >= 8
            ):
                continue
            moves = [np.abs(r[verdict.k] - g) for r in runs if r[verdict.k] is not None]
            moved = np.max(moves, axis=0).astype(float)
            noise = np.maximum(moved, np.sqrt((moved**2).mean()) if moved.size else 0.0) + eps * np.abs(right) + 1e-44
            noise = np.maximum(noise, eps * max(1.0, judge.longest / 1000) * np.abs(right))
            noise = np.maximum(noise, eps / 8 * judge.elsewhere(verdict.k))  # constants are rounded too
            gap = np.abs(g.astype(float) - right)
            if (
                np.isfinite(g).all() and (gap > KAPPA / 8 * noise).any()
            ):  # a sum of terms that cancel is right to their rounding
                noise = np.maximum(noise, eps * judge.terms(verdict.k))
            ratio = float((gap / noise).max(initial=0.0)) if np.isfinite(g).all() else np.inf
            top = float(np.abs(right).max(initial=0.0))
            row = Row(
                f"{verdict.row.tensor} ({p.point[verdict.k].dtype})",
                g.shape,
                "the same code in float64",
                checked=f"all {g.size} elements",
                accuracy=verdict.row.accuracy,
                error=float(gap.max(initial=0.0)) / top if top else 0.0,
                noise_ratio=ratio,
                certificate=KAPPA * float(np.linalg.norm(noise)) / (float(np.linalg.norm(right)) or 1.0),
                verdict="wrong" if ratio > KAPPA else "right",
            )
            self.report.rows.append(row)
            if row.verdict == "wrong":
                text = (
                    f"{row.tensor}: right in float64, but in {p.point[verdict.k].dtype} it is off by "
                    f"{row.error / eps:.2g} units in the last place of the largest element: overflow, or cancellation?"
                )
                self.report.findings.append(Finding("float32", layer, verdict.row.tensor, text))


def check_function(
    f: Callable[..., Any],
    grad: Callable[..., Any] | bool,
    *args: Any,
    wrt: str | int | Sequence[str | int] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    explain: bool = True,
    budget: int | None = None,
) -> GradCheckReport:
    """Check the derivative of a plain function: a gradient, a vector-Jacobian product, a Jacobian, an elementwise derivative.

    Parameters
    ----------
    f : function
        ``f(*args)`` returns a number; or an array, or nested dicts, lists and tuples of arrays.
    grad : function
        For one number: ``grad(*args)`` returns the gradients, one for each argument that holds floats (for one such argument
        just its gradient; if it returns one gradient for several, it is that of the first, as scipy's check_grad has it, and
        a note says so). Else ``grad(dy, *args)``, or ``grad(*args, dy)``, returns those of ``sum(dy * f(*args))``;
        ``grad(dy, cache)``, if f returns (y, cache); ``grad(*args)`` returns the elementwise derivative, the Jacobian matrix
        (either way round), or, of a loss of samples, the pair of its gradient and the diagonal of its Hessian. True: f itself
        returns (value, gradient). The gradient of a nested argument is nested in the same way. None claims nothing. Which of
        these grad was taken for, a note says. Methods of an object that keeps its gradients in itself are checked with its
        parameters, as by ``check_layer``.
    args
        Arrays, numbers, and nested dicts, lists and tuples of them. What is not of floats (labels, say) is a constant.
    wrt : str, int, or a sequence of them, optional
        The arguments to differentiate by, by name or number; the others are constants.
    kwargs : mapping, optional
        Keyword arguments of f, and of grad, if it takes them.
    seed : int, default 0
        Draws directions and cotangent. The global generators are left as they were.
    explain : bool, default True
        Whether to say what a wrong gradient is.
    budget : int, optional
        The most evaluations that this may take; by default twice those that the check has taken, or one second.

    Returns
    -------
    GradCheckReport

    Raises
    ------
    ValueError
        If there is nothing to differentiate by, f is not finite here, or the numbers of arguments do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> report = check_function(lambda x: (x**3).sum(), lambda x: 6 * x**2, np.array([1.0, 2.0]))
    >>> report.ok, report.findings[0].kind
    (False, 'scale')
    """
    check = Check(describe(f), seed, explain=explain, budget=budget)
    with careful():
        obj = methods_of_one(f, grad)
        if len(args) == 1 and wrt is None and is_stateful_pair(obj, f, grad):
            _check_layer(check, obj, args[0], None, "")
            return check.done()
        if wrt is None and not kwargs and (adapter := _with_its_own_gradients(f, grad, args)) is not None:
            _check_value(check, adapter, args[0])
            return check.done()
        p = check.made(FunctionProcedure(f, grad, args, wrt, kwargs))
        try:
            _settle(p, seed)
            check.judge(p)
            check.report.findings += [Finding("form", "", "", note, "note") for note in p.notes]
            if obj is not None and not isinstance(obj, Layer):
                with untouched(obj):
                    unchecked = unchecked_arrays(obj, f.__name__, args)
                for name in unchecked:
                    text = f"{name} of {describe(obj)} was not checked: f depends on it; see check_layer, gradcheck.stateful"
                    check.report.findings.append(Finding("layout", "", name, text, "note"))
            if p.form == "gradient and Hessian":
                _check_diagonal(check, p)
            if p.only_dy and check.report.errors:
                text = "grad was called with dy alone, as backward(dy) is, since f returns an array; a derivative takes x too"
                check.report.errors[0].message += f" ({text}: grad(dy, x))"
        finally:
            p.world.close()
    return check.done()


def _settle(p: FunctionProcedure, seed: int) -> None:
    """Where neither names nor shapes tell how grad is meant, take it as it is right, if it is."""
    if p.form == "cotangent" and p.first is None and not p.only_dy:
        p.first = _the_right_one(p, "first", (True, False), seed)
    if p.form == "Jacobian":
        p.transposed = _the_right_one(p, "transposed", (False, True), seed)
        if p.transposed:
            p.notes.append("the Jacobian is that of rows for arguments: transposed")


def _the_right_one(p: FunctionProcedure, attribute: str, options: tuple[bool, bool], seed: int) -> bool:
    """Return the option with which the gradient is right; the first, if there is none."""
    for option in options:
        setattr(p, attribute, option)
        p.problems = {}
        try:
            subject = Subject(p.names, [a.astype(float) for a in p.point], p.output, p.pullback)
            rng = np.random.default_rng([0x6E6E, seed])
            verdicts = Judge(subject, rng.normal(size=np.shape(subject.y(subject.point))), rng).all()
            if verdicts and all(v.row.verdict != "wrong" for v in verdicts) and not p.problems:
                return option
        except ForeignError:
            continue
        finally:
            p.problems = {}
    return options[0]


def _check_diagonal(check: Check, p: FunctionProcedure) -> None:
    """Check that the second of the pair is the derivative of the first, sample by sample."""
    first, second = (functools.wraps(p.grad)(lambda *a, i=i, **k: p.grad(*a, **k)[i]) for i in (0, 1))
    q = check.made(FunctionProcedure(first, second, p.args, p.selected, p.kwargs))
    q.names = [f"{name} (Hessian)" for name in q.names]
    try:
        check.judge(q)
    finally:
        q.world.close()


def _with_its_own_gradients(f: Any, grad: Any, args: tuple[Any, ...]) -> StatefulValue | None:
    """Return a network whose methods f and grad are, if f is its loss and grad the gradients of its parameters."""
    obj = methods_of_one(f, grad)
    if obj is None or not args or isinstance(obj, Layer):
        return None
    with untouched(obj):
        try:
            with foreign():
                value = getattr(copied(obj), f.__name__)(*copied(args))
            if np.size(value) != 1:
                return None
            adapter = StatefulValue(obj, f.__name__, grad.__name__, tuple(args[1:]))
            adapter.learn(np.asarray(args[0]))
        except ForeignError:  # its methods are called otherwise
            return None
    return adapter if adapter.keys or adapter.places else None


def _check_value(check: Check, adapter: StatefulValue, x: Any) -> None:
    p = check.made(ValueProcedure(adapter, np.asarray(x)))
    try:
        p.prepare(check.rng)
        check.judge(p)
        _say_what_was_taken(check, p, "")
    finally:
        p.world.close()


def check_layer(
    layer: Any,
    x: Any,
    *,
    rng: np.random.Generator | None = None,
    seed: int = 0,
    explain: bool = True,
    budget: int | None = None,
) -> GradCheckReport:
    """Check that a layer's backward is the vector-Jacobian product of its forward, for x and every parameter.

    Parameters
    ----------
    layer : object
        With ``params``, a mapping (nested, if need be) of names to arrays; ``forward(x)`` or ``forward(x, rng=None)``,
        which returns (y, cache); ``backward(dy, cache)``, which returns (dx, grads). It is copied, and not changed.
    x : array
        Of floats; of integers, for a layer that looks things up: then no dx is asked for.
    rng : numpy.random.Generator, optional
        What the layer draws from in training mode. It is copied, and not advanced. A layer that takes ``rng`` is checked
        in both modes, by default with a generator made of ``seed``.
    seed : int, default 0
        Draws directions and cotangent.
    explain : bool, default True
        Whether to say what a wrong gradient is.
    budget : int, optional
        The most evaluations that this may take; by default twice those that the check has taken, or one second.

    Returns
    -------
    GradCheckReport

    Raises
    ------
    ValueError
        If the layer does not have these methods, or its output is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from nnprofile import Dense
    >>> bool(check_layer(Dense(3, 2, rng=np.random.default_rng(0)), np.ones((4, 3))))
    True
    """
    check = Check(describe(layer), seed, explain=explain, budget=budget)
    with careful():
        _check_layer(check, layer, x, rng, "")
    return check.done()


def _check_layer(check: Check, layer: Any, x: Any, rng: np.random.Generator | None, place: str) -> bool:
    """Add rows and findings of one layer, in inference and, if it differs, in training mode; return whether all is right."""
    n_findings = len(check.report.errors)
    generator = rng if rng is not None else np.random.default_rng([0x6E6F, check.report.seed])
    modes = [check.made(LayerProcedure(layer, x, mode)) for mode in (None, generator)]
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
                _say_what_was_taken(check, p, place)
            if p.ignored_dx:
                text = f"x is of {p.x.dtype}, so the dx that backward returned was not checked: give floats"
                check.report.findings.append(Finding("integers", place, "x", text, "note"))
            rows = check.report.rows[before:] + rows
            del check.report.rows[before:]
    finally:
        for p in modes:
            p.world.close()
    check.report.rows += rows
    return len(check.report.errors) == n_findings


def _say_what_was_taken(check: Check, p: LayerProcedure, place: str) -> None:
    """Report which attributes of an object that keeps its state were taken for what, and which were not checked."""
    adapter: Stateful = p.world.objects[0]
    check.report.findings.append(Finding("layout", place, "", adapter.says(), "note"))
    for name in adapter.unchecked:
        text = f"{name} was not checked: the output depends on it, and no gradient of it was found"
        text += "; name both, gradcheck.stateful(obj, params, grads)"
        severity = "error" if adapter.params else "note"
        check.report.findings.append(
            Finding("missing" if severity == "error" else "layout", place, name, text, severity)
        )


def check_loss(
    loss: Any,
    y_pred: Any,
    y_true: Any,
    sample_weight: Any = None,
    *,
    seed: int = 0,
    explain: bool = True,
    budget: int | None = None,
) -> GradCheckReport:
    """Check that a loss's backward is the derivative of the value that its forward returns.

    Parameters
    ----------
    loss : object
        With ``forward(y_pred, y_true[, sample_weight])``, which returns (value, cache), and ``backward(cache)``.
    y_pred : array of floats
    y_true : anything that the loss takes
    sample_weight : array, optional
        Passed on if given.
    seed : int, default 0
    explain : bool, default True
        Whether to say what a wrong gradient is.
    budget : int, optional
        The most evaluations that this may take; by default twice those that the check has taken, or one second.

    Returns
    -------
    GradCheckReport

    Raises
    ------
    ValueError
        If the loss does not have these methods, or its value is not one finite number.

    Examples
    --------
    >>> from nnprofile import MeanSquaredError
    >>> check_loss(MeanSquaredError(), [[1.0, 2.0]], [[0.0, 0.0]]).ok
    True
    """
    check = Check(describe(loss), seed, explain=explain, budget=budget)
    with careful():
        _check_loss(check, loss, y_pred, y_true, sample_weight)
    return check.done()


def _check_loss(check: Check, loss: Any, y_pred: Any, y_true: Any, weight: Any, place: str = "") -> None:
    p = check.made(LossProcedure(loss, y_pred, y_true, weight))
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
            p = check.made(LossProcedure(loss, y_pred[rows].astype(np.float64), t[rows]))
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


def check_network(
    net: Any,
    loss: Any,
    x: Any,
    y: Any,
    l2: float = 0.0,
    *,
    rng: np.random.Generator | None = None,
    seed: int = 0,
    explain: bool = True,
    budget: int | None = None,
) -> GradCheckReport:
    """Check the gradient of a network's objective, and find the first wrong layer.

    The objective is J = L(net(x), y) + l2 / (2 n) * sum W^2, over all parameters named W; its gradient, by each parameter
    and by x, is compared with the right one. Then the loss and each layer are checked by themselves, from the output to
    the input, on the numbers that reach them: the first that is wrong by itself is the first wrong layer.

    Parameters
    ----------
    net : object
        As ``check_layer`` takes; with ``layers``, a sequence of such objects, wrong ones can be found.
    loss : object or None
        As ``check_loss`` takes. None: ``net`` has methods ``loss(x, y)`` and ``gradient(x, y)`` of its own.
    x, y : arrays
    l2 : float, default 0.0
    rng : numpy.random.Generator, optional
        Checks in training mode, with what the layers draw from it held. It is copied, and not advanced.
    seed : int, default 0
    explain : bool, default True
        Whether to say what a wrong gradient is.
    budget : int, optional
        The most evaluations that this may take; by default twice those that the check has taken, or one second.

    Returns
    -------
    GradCheckReport

    Raises
    ------
    ValueError
        If the objects do not have these methods, or the objective is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from nnprofile import Dense, HalfSquaredError, Sequential, Tanh
    >>> generator = np.random.default_rng(0)
    >>> net = Sequential([Dense(3, 5), Tanh(), Dense(5, 2)], rng=generator)
    >>> report = check_network(net, HalfSquaredError(), generator.normal(size=(4, 3)), np.zeros((4, 2)))
    >>> report.ok, [row.tensor for row in report.rows]
    (True, ['x', '0.W', '0.b', '2.W', '2.b'])
    """
    if loss is None:
        for method in ("loss", "gradient"):
            if not callable(getattr(net, method, None)):
                raise ValueError(f"without a loss, {describe(net)} must have methods loss(x, y) and gradient(x, y)")
        return check_function(net.loss, net.gradient, x, y, seed=seed, explain=explain, budget=budget)
    check = Check(describe(net), seed, explain=explain, budget=budget)
    with careful():
        p = check.made(ObjectiveProcedure(net, loss, x, y, l2, rng))
        try:
            judge_network(check, p)
        finally:
            p.world.close()
    return check.done()


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
        _check_loss(check, p.loss, y_pred, p.y, None, "loss")
    for place, layer, x in reversed(parts):
        if numbers or _differs_in_training(copy.deepcopy(layer), x):
            _check_layer(check, layer, x, p.generator, place)
        else:
            _check_contracts(check, layer, x, p.generator, place)
    report.rows = rows
    found = [f for f in report.findings[before:] if f.severity == "error"]
    for f in report.findings[before:]:
        if f.layer[:1].isdigit() and f.tensor:
            f.message = re.sub(rf"(?<![\w.]){re.escape(f.tensor)}(?!\w)", f"{f.layer}.{f.tensor}", f.message, count=1)
            f.tensor = f"{f.layer}.{f.tensor}"
    return not found


def _parts(p: ObjectiveProcedure) -> tuple[list[tuple[str, Any, Array]], Array | None]:
    """Return (place, layer, its x) of all layers, nested ones too, and the output.

    No layers, if ``layers`` is something else, or the network is not these layers in a row.
    """
    net = p.world.objects[0]
    with p.bound(p.copies(p.point)) as (_, x):
        y = np.array(p._forward(net, x)[0])
    p.world.reset()
    out: list[tuple[str, Any, Array]] = []
    rng = p.draws()

    def through(layers: Any, x: Array, prefix: str) -> Array:
        for i, layer in enumerate(layers):
            inner = getattr(layer, "layers", None)
            if isinstance(inner, list | tuple) and inner and all(map(_is_layer, inner)):
                x = through(inner, x, f"{prefix}{i}.")
                continue
            out.append((f"{prefix}{i}", layer, np.array(x)))
            takes_rng = rng is not None and takes(layer.forward, "rng")
            x = np.array((layer.forward(np.array(x), rng=rng) if takes_rng else layer.forward(np.array(x)))[0])
        return x

    layers = getattr(net, "layers", None)
    if not isinstance(layers, list | tuple) or not layers or not all(map(_is_layer, layers)):
        return [], y
    try:
        with foreign():
            last = through(layers, np.array(p.x), "")
    except ForeignError:
        return [], y
    finally:
        p.world.reset()
    return (out, y) if last.shape == y.shape and np.allclose(last, y, equal_nan=True) else ([], y)


def _differs_in_training(layer: Any, x: Array) -> bool:
    if not takes(layer.forward, "rng") or x.size > FULL:
        return False
    try:
        with foreign():
            outputs = [np.array(layer.forward(x.copy(), rng=rng)[0]) for rng in (None, np.random.default_rng(0))]
    except ForeignError:  # no inference mode
        return True
    return not np.array_equal(outputs[0], outputs[1], equal_nan=True)


def _is_layer(layer: Any) -> bool:
    return callable(getattr(layer, "forward", None)) and callable(getattr(layer, "backward", None))


def _check_contracts(check: Check, layer: Any, x: Array, generator: np.random.Generator | None, place: str) -> None:
    p = check.made(LayerProcedure(layer, x, generator))
    try:
        y = np.asarray(p.run(p.copies(p.point))[0])
        p.world.observe()
        contracts = Contracts(p, check.rng.normal(size=y.shape).astype(y.dtype), check.rng, place)
        contracts.check()
        check.report.findings += contracts.findings
    finally:
        p.world.close()
