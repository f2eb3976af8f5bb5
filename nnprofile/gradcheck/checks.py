"""The checks: of two functions, a layer, a loss, and a network with its loss. Each returns a report.

All do the same: keep the contracts, judge every gradient against the right one, and, where one is wrong, say why.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..contract import Layer
from .check import Check
from .foreign import ForeignError, foreign
from .functions import FunctionProcedure
from .judge import Judge
from .parts import judge_layer, judge_loss, judge_network, say_what_was_taken
from .procedures import ObjectiveProcedure, ValueProcedure
from .reference import Subject, careful
from .report import Finding, GradCheckReport
from .stateful import StatefulValue, is_stateful_pair, methods_of_one, unchecked_arrays
from .world import copied, describe, untouched


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
            judge_layer(check, obj, args[0], None, "")
            return check.done()
        if wrt is None and not kwargs and (adapter := _with_its_own_gradients(f, grad, args)) is not None:
            _check_value(check, adapter, args[0])
            return check.done()
        p = check.register(FunctionProcedure(f, grad, args, wrt, kwargs))
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
    q = check.register(FunctionProcedure(first, second, p.args, p.selected, p.kwargs))
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
    p = check.register(ValueProcedure(adapter, np.asarray(x)))
    try:
        p.prepare(check.rng)
        check.judge(p)
        say_what_was_taken(check, p, "")
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
    x : array, Ragged, or tuple of these for a layer that takes one
        Of floats; of integers, for a layer that looks things up: then no dx is asked for. The parts of a tuple are tensors of
        their own, "x.0", "x.1". A layer that mixes the events of sequences is also held to what holds of them: alone, empty,
        causal.
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
        judge_layer(check, layer, x, rng, "")
    return check.done()


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
        judge_loss(check, loss, y_pred, y_true, sample_weight)
    return check.done()


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

    The objective is J = L(net(x), y) + l2 / (2 n) * sum W^2, over all matrices W; its gradient, by each parameter
    and by x, is compared with the right one. Then the loss and each layer are checked by themselves, from the output to
    the input, on the numbers that reach them: the first that is wrong by itself is the first wrong layer.

    Parameters
    ----------
    net : object
        As ``check_layer`` takes; with ``layers``, a sequence of such objects, wrong ones can be found.
    loss : object or None
        As ``check_loss`` takes. None: ``net`` has methods ``loss(x, y)`` and ``gradient(x, y)`` of its own.
    x, y : arrays, Ragged, or x a tuple of these
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
        p = check.register(ObjectiveProcedure(net, loss, x, y, l2, rng))
        try:
            judge_network(check, p)
        finally:
            p.world.close()
    return check.done()
