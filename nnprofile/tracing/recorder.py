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
from typing import Any

import numpy as np

from ..contract import Array, Layer, Loss, Optimizer, Parameters, backward_pair, forward_pair, is_sparse
from ..formulas import formula_of
from ..formulas.expression import PLAIN, Constant, Expression, Quantities, Square, Sum
from ..layers import Dense, Dropout, Sequential
from ..validation import as_features, as_weights, check_number, check_rng, fitted_inside
from .large import wanted
from .record import EMPTY, Link, Quantity, Step, Trace
from .reference import check
from .replay import Replay
from .rules import (
    Formula,
    LayerRule,
    Place,
    first_factors,
    layer_rule,
    loss_rule,
    own_names,
    slope_formula,
    slope_of,
    update_rule,
)
from .slope import Slope, elementwise_slope


def trace(
    net: Layer,
    loss: Loss,
    x: Any,
    y: Any,
    optimizer: Optimizer | None = None,
    l2: float = 0.0,
    frozen: str | Sequence[str] = (),
    *,
    sample_weight: Any = None,
    rng: np.random.Generator | None = None,
) -> Trace:
    """Record one training step of ``net`` on the batch x, y: eq. 1-36 of docs/backprop.md with the numbers in.

    Parameters
    ----------
    net : Layer
        Not changed. A layer without known formulas is shown with its values and checks alone.
    loss : Loss
    x : Array, shape (n_samples, n_features)
    y : Array
        As the loss takes it.
    optimizer : Optimizer, optional
        Not changed: a copy takes the step. Without one there is no update.
    l2 : float, default 0.0
        As in ``fit``: l2 / (2 n) * sum W^2 belongs to the objective J.
    frozen : str or sequence of str
        Names, ``"0.b"``, or patterns, ``"*.b"``, of parameters that the update leaves alone.
    sample_weight : Array, shape (n_samples,), optional
    rng : numpy.random.Generator, optional
        Training mode, for layers that draw. Not changed: a copy draws.

    Returns
    -------
    Trace
        A mapping from names to quantities, with ``to_text``, ``to_markdown``, ``to_latex`` and ``to_html``.

    Raises
    ------
    ValueError
        If x, y, the weights or a name in ``frozen`` do not fit.

    Examples
    --------
    >>> from nnprofile import SGD, HalfSquaredError
    >>> net = Sequential([Dense(1, 1)], rng=None)
    >>> net.params["0.W"], net.params["0.b"] = [[2.0]], [1.0]
    >>> step = trace(net, HalfSquaredError(), [[3.0]], [[5.0]], SGD(0.1))
    >>> step["dW1"].value.tolist(), step["dW1"].check.digits.tolist(), round(float(step["W1+"].value[0, 0]), 12)
    ([[6.0]], [[16.0]], 1.4)
    """
    if not isinstance(net, Layer) or not isinstance(loss, Loss):
        model = fitted_inside(net)
        hint = f"; of a fitted estimator pass {model}.network_ and {model}.loss_function_" if model else ""
        raise ValueError(f"trace takes a Layer and a Loss, got {type(net).__name__} and {type(loss).__name__}{hint}")
    if rng is not None:
        check_rng(rng)
    dtype = net.params.dtype if len(net.params) else np.dtype(np.float64)
    width = getattr(net, "in_features", None)
    if isinstance(width, tuple):
        raise ValueError(f"trace shows networks of one array x; {net!r} takes a tuple")
    x = as_features(x, dtype, width)
    if is_sparse(x):
        x = x.toarray()  # every element is shown, zeros too
    if not len(x):
        raise ValueError("x has no rows: there is nothing to trace")
    weights = None if sample_weight is None else as_weights(sample_weight, len(x))
    frozen = _frozen(frozen, net.params)
    title = f"{net!r} with {loss!r}"
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise ValueError(f"optimizer must be an Optimizer, such as SGD(0.1), got {optimizer!r}")
    given = copy.deepcopy((np.array(x), y, weights, rng))  # the trace is a record: training may go on
    found = Trace(title, copy.deepcopy(net), loss, copy.deepcopy(optimizer), check_number(l2, "l2"), frozen, given)
    _Recorder(found).record()
    return found


def _frozen(patterns: str | Sequence[str], params: Parameters) -> tuple[str, ...]:
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, Sequence) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f"frozen takes names or patterns of parameters, such as '*.b', got {patterns!r}")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in params):
            raise ValueError(f"frozen: no parameter is called {pattern!r}; there are {', '.join(params) or 'none'}")
    return tuple(name for name in params if any(fnmatchcase(name, pattern) for pattern in patterns))


@dataclass
class _Part:
    """A layer of the flattened network, what it was given and what it returned."""

    layer: Layer
    prefix: str  # of its parameters in the network: "2."
    place: Place
    rule: LayerRule
    rng: np.random.Generator | None
    cache: Any
    y: Array
    slope: Slope | None = None  # of an elementwise layer without formulas


def flatten(net: Layer, prefix: str = "") -> list[tuple[str, Layer]]:
    """Return the layers of a network at any depth, with the prefix of their parameters."""
    whole = type(net).forward is not Sequential.forward or type(net).backward is not Sequential.backward  # a user's own
    if not isinstance(net, Sequential) or whole:
        return [(prefix, net)]
    return [part for i, layer in enumerate(net.layers) for part in flatten(layer, f"{prefix}{i}.")]


class _Recorder:
    """Walk forward, backward and through the update, and write down what comes by."""

    def __init__(self, found: Trace) -> None:
        self.trace = found
        self.net = copy.deepcopy(found.net)  # a layer of a user's may change as it computes
        self.x, self.y_true, self.weights, self.rng = found.data
        self.n = len(self.x)
        total = float(self.n if self.weights is None else self.weights.sum())
        self.total = Constant("N" if self.weights is None else "Σw", total)
        self.decay = found.l2 / total if total else 0.0
        self.parts: list[_Part] = []
        self.steepest = 0.0  # the largest element of all gradients so far
        self.taken = {"x", "y", "t", "w", "p", "l", "L", "R", "J", "P", "D"}
        self.axes: dict[str, tuple[str, ...]] = {}

    def record(self) -> None:
        """Record everything."""
        with np.errstate(all="ignore"):
            y_name, y = self.forward()
            inputs = [self.x, *(part.y for part in self.parts)]
            layers = [(part.layer, x, part.rng) for part, x in zip(self.parts, inputs, strict=False)]
            self.replay = Replay(layers, self.trace.loss, self.y_true, self.weights, self.decay)
            dy = self.measure(y_name, y)
            self.backward(y_name, dy)
            if self.trace.optimizer is not None:
                self.update()
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
        return f"The inputs x, one row a sample; the targets t; and the parameters. {', '.join(numbers)}."

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
        flat = flatten(self.net)
        given = [self.add("x", self.x, ("samples", "inputs"), "data")]
        self.step("What is given", "given", given, self.given())
        x_name, x, count = "x", self.x, 0
        rng = copy.deepcopy(self.rng)
        for i, (prefix, layer) in enumerate(flat):
            count += bool(len(layer.params))
            last = i == len(flat) - 1
            letter = "z" if isinstance(layer, Dense) else "h" if isinstance(layer, Dropout) else "a"
            extra = own_names(layer)
            own = _letters(list(layer.params), {letter, *extra})
            tail = self.tail(count, [letter, *own.values(), *extra])
            y_name = "y" if last and letter == "a" else letter + tail
            before = copy.deepcopy(rng)
            y, cache = forward_pair(layer, layer.forward(x, rng))
            width = (x.shape[-1], y.shape[-1])
            params = {name: letters + tail for name, letters in own.items()}
            place = Place(x_name, y_name, tail, self.n, *width, params, extra)
            rule = layer_rule(layer, place)
            slope = None if formula_of(layer) else elementwise_slope(layer, x, before)
            if slope is not None:
                rule = replace(rule, slope=slope_formula(layer, place, slope.method))
            x_axes = self.axes[x_name]
            units = (
                "outputs" if last or all(len(p.params) == 0 for _, p in flat[i + 1 :]) else PLAIN.name(f"hidden{count}")
            )
            y_axes = ("samples", units) if len(layer.params) else x_axes
            if not len(layer.params) and y.ndim == 2 and y.shape[1:] != x.shape[1:]:
                y_axes = ("samples", f"columns of {PLAIN.name(y_name)}")
            if y.ndim != len(y_axes):
                y_axes = ("samples", *(f"axis {a}" for a in range(1, y.ndim)))
            self.parts.append(_Part(layer, prefix, place, rule, before, cache, y, slope))
            for name in layer.params:
                value = layer.params[name]
                axes: tuple[str, ...] = ()
                if value.shape == width and len(x_axes) == 2:
                    axes = x_axes[1], y_axes[1]
                elif value.shape == width[1:]:
                    axes = (y_axes[1],)
                axes = axes if len(axes) == value.ndim else tuple(f"axis {a}" for a in range(value.ndim))
                given.append(self.add(params[name], value, axes, "parameter", parameter=prefix + name))
            names = []
            if type(layer) is Dropout and rule.slope is not None:
                mask = (
                    rule.slope[1] if rng is not None else replace(rule.slope[1], why="Inference: nothing is dropped.")
                )
                names.append(self.add(f"m{tail}", cache, y_axes, "slope", mask))
            for inner, value in layer.inner(cache).items():
                axes = (x_axes[0], y_axes[1])[: value.ndim]
                names.append(self.add(place.name(inner), value, axes, "forward", rule.inner[inner]))
            names.append(self.add(y_name, y, y_axes, "forward", rule.forward))
            self.step(f"Forward: {rule.title}", "forward", names, rule.forward.why)
            x_name, x = y_name, y
        return x_name, x

    def measure(self, y_name: str, y: Array) -> Array:
        """Record the loss, and return its gradient."""
        found, loss = self.trace, self.trace.loss
        value, cache = loss.forward(y, self.y_true, self.weights)
        rows = y.reshape(self.n, -1)
        target = np.asarray(loss.targets(self.y_true, rows.shape[1]))
        k = rows.shape[1]
        plain = y.ndim == 2 and self.total.number > 0  # with weights of 0 alone, all is 0 and nothing is divided
        rule = loss_rule(loss, y_name, k, labels=target.ndim == 1) if plain else None
        if target.ndim == 1 and rule is not None:  # labels
            target = (target[:, None] == np.arange(k)).astype(float)
        axes = (
            self.axes[y_name] if target.ndim == y.ndim else ("samples", *(f"axis {a}" for a in range(1, target.ndim)))
        )
        self.add("t", target, axes, "data")
        found.steps[0].names.insert(1, "t")
        names = []
        w = Quantities("w")["n"]
        if self.weights is not None:
            self.add("w", self.weights, ("samples",), "data")
            found.steps[0].names.insert(2, "w")
        mean = "1/N Σ_n {l}" if self.weights is None else "(Σ_n {w} {l}) / Σw"
        if rule is None:
            kind = type(loss).__name__
            names.append(self.add("L", value, (), "loss", Formula(f"{{L}} = {kind}({{{y_name}}}, {{t}})")))
        else:
            if rule.probabilities is not None:
                p, _ = loss.link.forward(y)
                names.append(self.add("p", p, self.axes[y_name], "forward", rule.probabilities))
            l = loss.sample_losses(rows, loss.targets(self.y_true, k))[0]  # type: ignore[attr-defined]
            names.append(self.add("l", l, ("samples",), "loss", rule.sample))
            l_n = Quantities("l")["n"]
            summed = Sum("n", self.n, l_n if self.weights is None else w * l_n) / self.total
            why = "The mean over the samples: this is where the 1/N comes from."
            names.append(self.add("L", value, (), "loss", Formula(f"{{L}} = {mean}", summed, (), "9", why)))
        self.objective = self.l2_term(names, value)
        why = "One number says how wrong the outputs are; it is what training makes smaller."
        self.step(f"Loss: {type(loss).__name__}", "loss", names, why)
        dy = loss.backward(cache)
        element = None if rule is None else rule.slope
        if element is not None:
            element = (element if self.weights is None else w * element) / self.total
        head = f"{{d{y_name}}} = ∂{{{self.objective}}}/∂{{{y_name}}}"
        why = (
            "Backpropagation starts here: how the loss changes with each output. Its 1/N goes through all that follows."
        )
        formula = Formula(head, element, ("n", "j"), "20", why)
        self.gradient(f"d{y_name}", dy, self.axes[y_name], formula, len(self.parts))
        self.step("Backward: start at the loss", "backward", [f"d{y_name}"], why)
        return dy

    def l2_term(self, names: list[str], value: Any) -> str:
        """Record R and J if there is an L2 term, and return the name of what is descended."""
        weights = [q for q in self.trace.values() if q.role == "parameter" and q.value.ndim > 1]
        if not self.decay or not weights:
            return "L"
        lam = Constant("λ", self.trace.l2)
        squares: Expression | None = None
        for q in weights:
            part: Expression = Square(Quantities(q.name)[q.index])
            for letter, size in zip(q.index[::-1], q.value.shape[::-1], strict=True):
                part = Sum(letter, size, part)
            squares = part if squares is None else squares + part
        R = self.decay / 2 * sum(float((q.value.astype(float) ** 2).sum()) for q in weights)
        element = lam / (2 * self.total) * squares if squares is not None else None
        head, why = f"{{R}} = λ/(2 {self.total.symbol}) Σ W²", "Large weights cost; biases do not."
        names.append(self.add("R", R, (), "loss", Formula(head, element, (), "17", why)))
        J = Formula("{J} = {L} + {R}", Quantities("L")[()] + Quantities("R")[()], (), "17")
        names.append(self.add("J", value + R, (), "loss", J))
        return "J"

    def backward(self, y_name: str, dy: Array) -> None:
        """Record the backward pass, and the update's gradients."""
        self.grads = self.net.params.like(float)
        for k in range(len(self.parts) - 1, -1, -1):
            part = self.parts[k]
            place, rule = part.place, part.rule
            names = []
            kind, local = "unknown", ""
            if rule.slope is not None:
                kind, local = "elementwise" if part.y.ndim == 2 else "unknown", rule.slope[0]
                if local not in self.trace.quantities:
                    slope = slope_of(part.layer, part.y, dy, part.cache) if part.slope is None else part.slope.value
                    names.append(self.add(local, slope, self.axes[place.y], "slope", rule.slope[1]))
            elif "W" in place.params and "W" in rule.gradients and rule.forward.element is not None:
                kind, local = "dense", place.params["W"]
            dx, grads = backward_pair(part.layer, part.layer.backward(dy, part.cache))
            for name in part.layer.params:
                value, formula = np.asarray(grads[name], float), rule.gradients[name]
                value, formula = self.with_l2(part, name, value, formula)
                self.grads[part.prefix + name] = value
                symbol = place.params[name]
                names.append(
                    self.gradient(
                        f"d{symbol}", value, self.axes[symbol], formula, k, name, parameter=part.prefix + name
                    )
                )
            if dx is not None:
                names.append(self.gradient(place.name("dx"), dx, self.axes[place.x], rule.backward, k))
            self.step(f"Backward: {rule.title}", "backward", names)
            jacobian, starts = None, first_factors(rule, place)
            if kind == "unknown" and rule.forward.element is not None:
                kind, jacobian = "rows", _jacobian(part)
            self.trace.links.insert(
                0, Link(place.x, place.y, kind, local, starts, tuple(place.params.values()), jacobian)
            )
            dy = dx

    def with_l2(self, part: _Part, name: str, value: Array, formula: Formula) -> tuple[Array, Formula]:
        """Add the L2 term's share of a weight's gradient."""
        if name not in part.layer.params.matrices() or not self.decay:
            return value, formula
        symbol = part.place.params[name]
        value = value + self.decay * part.layer.params[name]
        element = formula.element
        if element is not None:
            element = element + Constant("λ", self.trace.l2) / self.total * Quantities(symbol)[formula.index]
        head = f"{formula.matrix} + λ/{self.total.symbol} {{{symbol}}}"
        return value, replace(formula, matrix=head, element=element, equation=f"{formula.equation}, 27".strip(", "))

    def gradient(
        self,
        name: str,
        value: Any,
        axes: tuple[str, ...],
        formula: Formula,
        k: int,
        parameter_name: str = "",
        **more: Any,
    ) -> str:
        """Write down a gradient with its check: of layer k's parameter, or of what goes into layer k."""
        if parameter_name:
            subject = self.replay.at_parameter(k, parameter_name)
        else:
            subject = self.replay.at_input(k, self.parts[k - 1].y if k else self.x)
        single = any(part.y.dtype == np.float32 for part in self.parts)
        self.steepest = max(self.steepest, float(np.abs(np.nan_to_num(value)).max(initial=0.0)))
        found = check(subject, value, wanted, self.steepest if single else None)
        self.add(name, value, axes, "gradient", formula, **more)
        self.trace.quantities[name].check = found
        return name

    def update(self) -> None:
        """Record the optimizer's step, and what the loss is afterwards beside what the gradient promised."""
        found = self.trace
        optimizer = copy.deepcopy(found.optimizer)
        assert optimizer is not None
        net = self.net
        grads = net.params.like()
        grads.vector[:] = self.grads.vector
        optimizer.prepare(net.params)
        before = {name: moment.copy() for name, moment in optimizer.state.items()}
        rate, start = self.rate, net.params.vector.copy()
        optimizer.learning_rate = rate  # asked once: a schedule may be anything
        optimizer.step(net.params, grads)
        old = Parameters(net.params.layout, start)
        for name in found.frozen:
            net.params[name] = old[name]
        for part in self.parts:
            names: list[str] = []
            for own, symbol in part.place.params.items():
                name = part.prefix + own
                index = tuple(("ijkl" if old[name].ndim > 1 else "jkl")[: old[name].ndim])
                self.update_one(optimizer, net.params, name, symbol, index, rate, before, names)
            if names:
                why = "Only now, after the whole backward pass, do the parameters move."
                self.step(f"Update: {part.rule.title}", "update", names, why)
        self.after(net, old)

    def update_one(
        self,
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
        axes = self.axes[symbol]
        if name in self.trace.frozen:
            formula = Formula(
                f"{{{symbol}+}} = {{{symbol}}}", Quantities(symbol)[index], index, why="Frozen: left alone."
            )
            names.append(self.add(f"{symbol}+", params[name], axes, "update", formula, parameter=name))
            return
        decays = name in params.matrices()
        rule = update_rule(optimizer, symbol, index, learning_rate=rate, step=optimizer.n_steps, decays=decays)
        if rule is not None:
            for moment, formula in rule.moments.items():
                old, new = (Parameters(params.layout, state[moment])[name] for state in (before, optimizer.state))
                names.append(self.add(f"{moment}{symbol}", old, axes, "update"))
                names.append(self.add(f"{moment}{symbol}+", new, axes, "update", formula))
        by = Formula(f"{{{symbol}+}} from {type(optimizer).__name__}.step") if rule is None else rule.update
        names.append(self.add(f"{symbol}+", params[name], axes, "update", by, parameter=name))

    def after(self, net: Layer, old: Parameters) -> None:
        """Record the loss after the update, beside what the gradient promised (docs/backprop.md, eq. 33)."""
        found = self.trace
        x, name = self.x, self.parts[-1].place.y
        try:
            for (_, layer), part in zip(flatten(net), self.parts, strict=True):
                x, _ = layer.forward(x, copy.deepcopy(part.rng))
            value = found.loss.forward(x, self.y_true, self.weights)[0]
        except ValueError:
            if np.isfinite(net.params.vector).all():
                raise
            x, value = (
                np.full_like(self.parts[-1].y, np.nan),
                np.nan,
            )  # the step has led to numbers that nobody can go on with
        by = Formula("", why="The forward pass with the new parameters.")
        names = [self.add(f"{name}+", x, self.axes[name], "after", by)]
        if self.objective == "J":
            for weight in net.params.matrices():
                value = value + self.decay / 2 * (net.params[weight] ** 2).sum()
        J = self.objective
        names.append(self.add(f"{J}+", value, (), "after", Formula("", why="And its loss.")))
        moved = net.params.vector - old.vector
        predicted, parts = float(self.grads.vector @ moved), None
        for part in self.parts:
            for symbol in part.place.params.values():
                q = self.trace[symbol]
                index = tuple("ijkl"[: q.value.ndim])
                term: Expression = Quantities(f"d{symbol}")[index] * (
                    Quantities(f"{symbol}+")[index] - Quantities(symbol)[index]
                )
                for letter, size in zip(index[::-1], q.value.shape[::-1], strict=True):
                    term = Sum(letter, size, term)
                parts = term if parts is None else parts + term
        why = "What the gradient promises: each move times its gradient. For plain SGD that is −η Σ dw²."
        names.append(self.add("P", predicted, (), "after", Formula("{P} = Σ dw Δw", parts, (), "33", why)))
        real = Quantities(f"{J}+")[()] - Quantities(J)[()]
        why = "What happened; the difference to the promise is the curvature and what comes after it: small for small steps."
        change = Formula(f"{{D}} = {{{J}+}} − {{{J}}}", real, (), "33", why)
        names.append(self.add("D", value - found[J].value, (), "after", change))
        self.step(
            "After the update: promised and real change",
            "after",
            names,
            "The same batch again, with the new parameters.",
        )


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


def _jacobian(part: _Part) -> Callable[[int], Array]:
    """Return the function sample -> dy_k / dx_j, by one backward for each output."""

    def jacobian(n: int) -> Array:
        columns = []
        for k in range(part.y.shape[1]):
            dy = np.zeros_like(part.y)
            dy[:, k] = 1
            columns.append(part.layer.backward(dy, part.cache)[0][n])  # type: ignore[index]
        return np.stack(columns, axis=1)

    return jacobian
