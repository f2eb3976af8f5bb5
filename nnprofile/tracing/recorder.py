"""Record one training step: every quantity of it, how it came about, and the right value beside each gradient.

The numbers are the library's own: the layers' forward and backward, the loss's, the optimizer's step, on copies, so that
neither the network nor the optimizer has moved afterwards.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import numpy as np

from ..contract import Array, Layer, Loss, Optimizer, Parameters, backward_pair, is_sparse, n_rows, numbers_of
from ..formulas import formula_of
from ..formulas.expression import PLAIN, Constant, Quantities
from ..gradcheck.reference import Subject
from ..layers import Dense, Dropout, Parallel, Sequential
from ..layers.walk import Step as LayerStep
from ..layers.walk import run_steps
from ..objectives import other_targets
from ..ragged import Ragged
from ..validation import as_input, check_number, check_rng, fitted_inside, weights_of
from .branching import Fork, Join, back_apart, back_together, record_branches
from .large import wanted
from .measure import record_loss
from .record import EMPTY, Link, Quantity, Record, Step
from .reference import check
from .replay import Replay
from .rules import (
    Formula,
    LayerRule,
    Place,
    first_factors,
    layer_rule,
    own_names,
    slope_formula,
    slope_of,
)
from .slope import Slope, elementwise_slope
from .update import record_update

R = TypeVar("R", bound=Record)
Names = Any  # the name of x, or a tuple of names


def record(
    net: Layer,
    loss: Loss,
    x: Any,
    y: Any,
    optimizer: Optimizer | None,
    l2: float,
    frozen: str | Sequence[str],
    *,
    sample_weight: Any,
    rng: np.random.Generator | None,
    kind: type[R],
) -> R:
    """Return a record of one training step, of the class ``kind``; what the arguments are, ``trace`` says."""
    if not isinstance(net, Layer) or not isinstance(loss, Loss):
        model = fitted_inside(net)
        hint = f"; of a fitted estimator pass {model}.network_ and {model}.loss_function_" if model else ""
        raise ValueError(f"trace takes a Layer and a Loss, got {type(net).__name__} and {type(loss).__name__}{hint}")
    if rng is not None:
        check_rng(rng)
    x = _dense(as_input(x, net))
    if not n_rows(x) or (isinstance(y, Ragged) and not y.n_events):
        raise ValueError("x has no rows, or y no events: there is nothing to trace")
    y = y if isinstance(y, Ragged) else _as_rows(y)
    weights = None if sample_weight is None else weights_of(sample_weight, y)
    frozen = _frozen(frozen, net.params)
    title = f"{net!r} with {loss!r}"
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise ValueError(f"optimizer must be an Optimizer, such as SGD(0.1), got {optimizer!r}")
    given = copy.deepcopy((x, y, weights, rng))  # the trace is a record: training may go on
    found = kind(title, copy.deepcopy(net), loss, copy.deepcopy(optimizer), check_number(l2, "l2"), frozen, given)
    Recorder(found).record()
    return found


def _as_rows(y: Any) -> Any:
    """Return an array of targets; what is none is left to the loss."""
    return np.asarray(y) if np.ndim(y) else y


def _dense(x: Any) -> Any:
    """Return copies of the arrays of x; every element is shown, zeros of a sparse matrix too."""
    if isinstance(x, tuple):
        return tuple(map(_dense, x))
    if isinstance(x, Ragged):
        return Ragged(_dense(x.values), x.offsets)
    return x.toarray() if is_sparse(x) else np.array(x)


def _frozen(patterns: str | Sequence[str], params: Parameters) -> tuple[str, ...]:
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, Sequence) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f"frozen takes names or patterns of parameters, such as '*.b', got {patterns!r}")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in params):
            raise ValueError(f"frozen: no parameter is called {pattern!r}; there are {', '.join(params) or 'none'}")
    return tuple(name for name in params if any(fnmatchcase(name, pattern) for pattern in patterns))


@dataclass
class _Leaf:
    """A layer that holds no others, what it was given and what it returned."""

    step: LayerStep
    place: Place
    rule: LayerRule
    slope: Slope | None = None  # of an elementwise layer without formulas

    @property
    def prefix(self) -> str:
        """Of the names of its parameters in the network: "2."."""
        return f"{self.step.name}." if self.step.name else ""


class Recorder:
    """Walk forward, backward and through the update, and record every quantity."""

    def __init__(self, found: Record) -> None:
        self.trace = found
        self.net = copy.deepcopy(found.net)  # a layer of a user's may change as it computes
        self.x, y, weights, self.rng = found.data
        self.y_true, self.weights = numbers_of(y), numbers_of(weights)
        self.n = y.n_events if isinstance(y, Ragged) else n_rows(self.x)
        total = float(self.n if self.weights is None else self.weights.sum())
        self.total = Constant("N" if self.weights is None else "Σw", total)
        self.decay = found.l2 / total if total else 0.0
        self.nodes: list[_Leaf | Fork | Join] = []
        self.places: dict[str, tuple[str, str]] = {}  # quantity -> the step whose x or y it is, and which of the two
        self.d: dict[str, Array] = {}  # quantity -> its gradient
        self.objective = "L"  # the name of what is descended
        self.steepest = 0.0  # the largest element of all gradients so far
        self.n_weighted = self.n_copies = 0
        self.taken = {"x", "y", "t", "w", "p", "l", "L", "R", "J", "P", "D"}
        self.axes: dict[str, tuple[str, ...]] = {}

    @property
    def leaves(self) -> list[_Leaf]:
        """The layers that hold no others."""
        return [node for node in self.nodes if isinstance(node, _Leaf)]

    def record(self) -> None:
        """Record everything."""
        with np.errstate(all="ignore"):
            y_name, y = self.forward()
            targets = self.trace.data[1]
            if isinstance(y, Ragged) != isinstance(targets, Ragged):
                raise ValueError(other_targets(y, targets))
            if isinstance(y, Ragged) and (other := y.difference(targets)):
                raise ValueError(f"y must have a target for each event of x: {other}")
            y = numbers_of(y)
            self.replay = Replay(
                self.trace.net, self.trace.loss, self.x, self.y_true, self.weights, self.decay, self.rng
            )
            self.y_name = y_name
            self.d[y_name] = record_loss(self, y_name, y)
            self.backward()
            if self.trace.optimizer is not None:
                record_update(self)
        found = self.trace.quantities
        self.trace.quantities = {name: found[name] for step in self.trace.steps for name in step.names}

    def add(
        self, name: str, value: Any, axes: tuple[str, ...], role: str, formula: Formula = EMPTY, **more: Any
    ) -> str:
        """Write down a quantity."""
        assert name not in self.trace.quantities, f"two quantities are called {name}"
        value = np.array(value)  # a copy, which nothing changes afterwards
        if formula.element is not None and len(formula.index) != value.ndim:  # formulas are of rows
            formula = replace(formula, element=None, index=())
        self.trace.quantities[name] = Quantity(name, value, axes, role, formula, **more)
        self.axes[name] = axes
        return name

    def step(self, title: str, phase: str, names: list[str], why: str = "") -> None:
        """Write down a step."""
        self.trace.steps.append(Step(title, phase, names, why))

    def given(self) -> str:
        """Say what is given, with the constants that have no table."""
        optimizer, numbers = self.trace.optimizer, [f"{self.total.symbol} = {self.total.number:g}"]
        if optimizer is not None:
            self.rate = optimizer.learning_rate_at(optimizer.n_steps)
            numbers.append(f"η = {self.rate:g}")
        if self.trace.l2:
            numbers.append(f"λ = {self.trace.l2:g}")
        rows = "one row a sample"
        if isinstance(self.x, Ragged):
            lengths = ", ".join(map(str, self.x.lengths))
            rows = f"one row an event: events of {len(self.x)} sequences, of lengths {lengths}"
        return f"The inputs x, {rows}; the targets t; and the parameters. {', '.join(numbers)}."

    def tail(self, number: int, letters: list[str]) -> str:
        """Return the number, with letters behind it if a name that it makes is taken: "1", "1b", "1c", ..., "1bb", ..."""
        for n in itertools.count():
            for suffix in itertools.product("bcdefghijklmnopqrstuvwxyz", repeat=n):
                tail = f"{number}{''.join(suffix)}"
                names = {letter + tail for letter in letters}
                names |= {"d" + name for name in names}
                if not names & self.taken:
                    self.taken |= names
                    return tail
        raise AssertionError("there is always another")

    def forward(self) -> tuple[str, Array]:
        """Record x, the parameters and the forward pass."""
        states: dict[str, np.random.Generator | None] = {}  # before each layer
        rng = copy.deepcopy(self.rng)

        def noting(name: str, side: str, value: Any) -> Any:
            if side == "x":
                states[name] = copy.deepcopy(rng)
            return value

        whole = run_steps(self.net, self.x, rng, change=noting)
        self.states = states
        self.given_names: list[str] = []
        self.step("What is given", "given", self.given_names, self.given())
        x_name = self.inputs(self.x)
        self.trace.inputs = tuple(self.given_names)
        flat = _leaves(whole)
        weighted = [i for i, leaf in enumerate(flat) if len(leaf.layer.params)]
        self.last = flat[-1].name
        self.outputs = {leaf.name for leaf in flat[weighted[-1] if weighted else 0 :]}  # no parameters behind them
        return self.through(whole, x_name, inside=False), whole.y

    def inputs(self, x: Any) -> Names:
        """Record what goes in; return its name, or names."""
        if isinstance(x, tuple):
            return tuple(map(self.inputs, x))
        name = f"x{len(self.given_names) + 1}" if isinstance(self.x, tuple) else "x"
        self.taken.add(name)
        axes = ("events" if isinstance(x, Ragged) else "samples", "inputs")
        self.given_names.append(self.add(name, numbers_of(x), axes[: numbers_of(x).ndim], "data"))
        self.places[name] = ("", "x")
        return name

    def through(self, step: LayerStep, x_name: Names, *, inside: bool) -> str:
        """Record a step of the forward pass; return the name of y. ``inside``: in a branch."""
        if step.parts and isinstance(step.layer, Sequential):
            for i in sorted(step.parts):
                x_name = self.through(step.parts[i], x_name, inside=inside)
            return str(x_name)
        if isinstance(x_name, tuple) and not (step.parts and isinstance(step.layer, Parallel)):
            raise ValueError(f"trace shows a tuple x where Parallel takes it; {step.layer!r} takes one too")
        return record_branches(self, step, x_name) if step.parts else self.leaf(step, x_name, inside=inside)

    def leaf(self, step: LayerStep, x_name: str, *, inside: bool) -> str:
        """Record a layer that holds no others."""
        layer, x, y = step.layer, numbers_of(step.x), numbers_of(step.y)
        rows = "events" if isinstance(step.y, Ragged) else "samples"
        self.n_weighted += bool(len(layer.params))
        letter = "z" if isinstance(layer, Dense) else "h" if isinstance(layer, Dropout) else "a"
        extra = own_names(layer)
        own = _letters(list(layer.params), {letter, *extra})
        tail = self.tail(self.n_weighted, [letter, *own.values(), *extra])
        y_name = "y" if step.name == self.last and not inside and letter == "a" else letter + tail
        width = (x.shape[-1], y.shape[-1])
        params = {name: letters + tail for name, letters in own.items()}
        place = Place(x_name, y_name, tail, len(y), *width, params, extra)
        rule, before = layer_rule(layer, place), self.states[step.name]
        slope = None if formula_of(layer) else elementwise_slope(layer, x, before)
        if slope is not None:
            rule = replace(rule, slope=slope_formula(layer, place, slope.method))
        x_axes = self.axes[x_name]
        is_output = step.name in self.outputs and not inside
        y_axes = (rows, "outputs" if is_output else PLAIN.name(f"hidden{self.n_weighted}"))
        if not len(layer.params):
            y_axes = (rows, *x_axes[1:])  # type: ignore[assignment]
            if y.ndim == 2 and y.shape[1:] != x.shape[1:]:
                y_axes = (rows, f"columns of {PLAIN.name(y_name)}")
        if y.ndim != len(y_axes):
            y_axes = (rows, *(f"axis {a}" for a in range(1, y.ndim)))  # type: ignore[assignment]
        node = _Leaf(step, place, rule, slope)
        self.nodes.append(node)
        self.places[y_name] = (step.name, "y")
        for name in layer.params:
            value = layer.params[name]
            axes = tuple(f"axis {a}" for a in range(value.ndim))
            if value.shape == width and len(x_axes) == 2:
                axes = x_axes[1], y_axes[1]
            elif value.shape == width[1:]:
                axes = (y_axes[1],)
            self.given_names.append(self.add(params[name], value, axes, "parameter", parameter=node.prefix + name))
        names = []
        if extra == ("m",) and rule.slope is not None:
            mask = rule.slope[1] if before is not None else replace(rule.slope[1], why="Inference: nothing is dropped.")
            names.append(self.add(f"m{tail}", step.cache, y_axes, "slope", mask))
        for inner, value in layer.inner(step.cache).items() if rule.inner else ():
            names.append(
                self.add(place.name(inner), value, (x_axes[0], y_axes[1])[: value.ndim], "forward", rule.inner[inner])
            )
        names.append(self.add(y_name, y, y_axes, "forward", rule.forward))
        self.step(f"Forward: {rule.title}", "forward", names, rule.forward.why)
        self.link(self.local_derivative(node))
        return y_name

    def link(self, link: Link) -> None:
        """Note what a path of the chain rule needs to know."""
        self.trace.links.append(link)

    def local_derivative(self, node: _Leaf) -> Link:
        """Return what a path needs to know of a layer."""
        place, rule = node.place, node.rule
        kind, local, jacobian = "unknown", "", None
        if rule.slope is not None:
            kind, local = "elementwise" if numbers_of(node.step.y).ndim == 2 else "unknown", rule.slope[0]
        elif "W" in place.params and rule.forward.element is not None:
            kind, local = "dense", place.params["W"]
        elif rule.forward.element is not None:
            kind, jacobian = "rows", _jacobian(node.step)
        starts = first_factors(rule, place)
        return Link(place.x, place.y, kind, local, starts, tuple(place.params.values()), jacobian)

    def backward(self) -> None:
        """Record the backward pass, and the update's gradients."""
        self.grads = self.net.params.like(float)
        for node in reversed(self.nodes):
            if isinstance(node, _Leaf):
                self.back_through(node)
            elif isinstance(node, Join):
                back_apart(self, node)
            else:
                back_together(self, node)

    def back_through(self, node: _Leaf) -> None:
        """Record the gradients of a layer's parameters, and of what went in."""
        place, rule, step, names = node.place, node.rule, node.step, []
        dy = self.d[place.y]
        if rule.slope is not None and rule.slope[0] not in self.trace.quantities:
            slope = slope_of(step.layer, numbers_of(step.y), dy, step.cache) if node.slope is None else node.slope.value
            names.append(self.add(rule.slope[0], slope, self.axes[place.y], "slope", rule.slope[1]))
        dx, grads = backward_pair(step.layer, step.layer.backward(dy, step.cache))
        for own in step.layer.params:
            value, formula = self.with_l2(node, own, np.asarray(grads[own], float), rule.gradients[own])
            name, symbol = node.prefix + own, place.params[own]
            self.grads[name] = value
            subject = self.replay.at_parameter(step.name, own)
            names.append(self.gradient(f"d{symbol}", value, self.axes[symbol], formula, subject, parameter=name))
        if dx is not None:
            self.d[place.x] = dx
            names.append(self.gradient_at(place.x, rule.backward))
        self.step(f"Backward: {rule.title}", "backward", names)

    def gradient_at(self, name: str, formula: Formula) -> str:
        """Record the gradient of a quantity of the forward pass."""
        value = self.trace[name].value
        return self.gradient(
            f"d{name}", self.d[name], self.axes[name], formula, self.replay.at(*self.places[name], value)
        )

    def with_l2(self, node: _Leaf, own: str, value: Array, formula: Formula) -> tuple[Array, Formula]:
        """Add the L2 term's share of a weight's gradient."""
        if own not in node.step.layer.params.matrices() or not self.decay:
            return value, formula
        symbol = node.place.params[own]
        value = value + self.decay * node.step.layer.params[own]
        element = formula.element
        if element is not None:
            element = element + Constant("λ", self.trace.l2) / self.total * Quantities(symbol)[formula.index]
        head = f"{formula.matrix} + λ/{self.total.symbol} {{{symbol}}}"
        return value, replace(formula, matrix=head, element=element, equation=f"{formula.equation}, 27".strip(", "))

    def gradient(
        self, name: str, value: Any, axes: tuple[str, ...], formula: Formula, subject: Subject, **more: Any
    ) -> str:
        """Record a gradient with its check."""
        single = any(numbers_of(leaf.step.y).dtype == np.float32 for leaf in self.leaves)
        self.steepest = max(self.steepest, float(np.abs(np.nan_to_num(value)).max(initial=0.0)))
        found = check(subject, value, wanted, self.steepest if single else None)
        self.add(name, value, axes, "gradient", formula, **more)
        self.trace.quantities[name].check = found
        return name


def _letters(names: list[str], taken: set[str]) -> dict[str, str]:
    """Return the letters that stand for a layer's parameters: their own, lengthened until no two are the same.

    A gradient is called d and then the parameter, so those count as taken too.
    """
    taken = taken | {"d" + letter for letter in taken}
    out = {}
    for name in names:
        letters = "".join(c for c in name if c.isascii() and c.isalpha()) or "q"
        while {letters, "d" + letters} & taken:
            letters += "p"
        out[name] = letters
        taken |= {letters, "d" + letters}
    return out


def _leaves(step: LayerStep) -> list[LayerStep]:
    """Return the steps inside that hold no others, in the order in which they ran."""
    return [leaf for i in sorted(step.parts) for leaf in _leaves(step.parts[i])] or [step]


def _jacobian(step: LayerStep) -> Callable[[int], Array]:
    """Return the function sample -> dy_k / dx_j, by one backward for each output; the parameters are those of now."""
    params = step.layer.params
    layer = step.layer.with_params(Parameters(params.layout, params.vector.copy()))

    y = numbers_of(step.y)

    def jacobian(n: int) -> Array:
        columns = []
        for k in range(y.shape[1]):
            dy = np.zeros_like(y)
            dy[:, k] = 1
            columns.append(layer.backward(dy, step.cache)[0][n])  # type: ignore[index]
        return np.stack(columns, axis=1)

    return jacobian
