"""Prove, on this machine and with these versions, that the checker still catches what it is meant to catch.

The right gradients of every layer and loss are spoiled, in each of some twenty ways: all must be found. As they are, in
several dtypes, layouts and batches, none may be called wrong.
A layer that is added to ``nnprofile.layers.LAYERS`` is covered at once.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..contract import Array, Layer, Loss, Parameters, apply, numbers_of, take
from ..layers import LAYERS as REGISTRY
from ..layers import Dense, Identity, Sequential, Sigmoid, Tanh
from ..losses import (
    BinaryCrossEntropy,
    HalfSquaredError,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    PoissonLoss,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
)
from ..ragged import Ragged
from ..validation import check_size
from .checks import check_layer, check_loss, check_network
from .report import GradCheckReport

Rng = np.random.Generator
Change = Callable[[Array], Any]
Backward = Callable[["MutantLayer", Array, Any], Any]

MANY = 3  # parameters, from which on they take turns: each way spoils one of them
ROWS = (4, 7, 16)  # by size; the width is one less, so that no two axes are equally long
LAYERS: tuple[Callable[[int], Layer], ...] = (
    lambda width: Dense(width, width),  # a transposed square matrix keeps its shape
    *REGISTRY.values(),
)
# Each with what draws its targets; the losses of probabilities are given probabilities.
LOSSES: tuple[tuple[Loss, Callable[[Array, Rng], Array]], ...] = (
    *((loss, lambda p, rng: rng.normal(size=p.shape)) for loss in (MeanSquaredError(), HalfSquaredError())),
    *((loss, lambda p, rng: rng.normal(size=p.shape)) for loss in (MeanAbsoluteError(), Huber(0.7))),
    *(
        (loss, lambda p, rng: 1.0 * (rng.random(p.shape) < 0.5))
        for loss in (BinaryCrossEntropy(), SigmoidCrossEntropy())
    ),
    (SoftmaxCrossEntropy(), lambda p, rng: rng.integers(0, p.shape[1], len(p))),
    (PoissonLoss(), lambda p, rng: 1.0 * rng.poisson(2, p.shape)),
)


def _with_last(g: Array, value: float) -> Array:
    """Multiply the last element by a number."""
    g = g.copy()
    g.reshape(-1)[-1:] *= value
    return g


# What is done to a gradient -> (how, the diagnoses that are right).
GRADIENTS: dict[str, tuple[Change, frozenset[str]]] = {
    "doubled": (lambda g: 2 * g, frozenset({"scale"})),
    "negated": (lambda g: -g, frozenset({"sign"})),
    "never written": (lambda g: 0 * g, frozenset({"zero"})),
    "a millionth too large": (lambda g: (1 + 1e-6) * g, frozenset({"scale", "epsilon"})),
    "rounded to float32": (lambda g: g.astype(np.float32).astype(g.dtype), frozenset({"float32"})),
    "clipped": (lambda g: np.clip(g, -0.5, 0.5), frozenset({"clipped"})),
    "transposed": (lambda g: g.T.copy() if g.ndim > 1 else g, frozenset({"transpose", "shape"})),
    "shifted": (lambda g: np.roll(g, 1, axis=0), frozenset({"shift", "order"})),
    "in reverse": (lambda g: g[::-1].copy(), frozenset({"order"})),
    "one element wrong": (lambda g: _with_last(g, 1.5), frozenset({"elements"})),
    "NaN in it": (lambda g: _with_last(g, np.nan), frozenset({"overflow"})),
    "one axis too many": (lambda g: g[None], frozenset({"shape", "contract"})),
    "missing": (lambda g: None, frozenset({"missing", "contract"})),
}


class MutantLayer(Layer):
    """A layer whose backward is another."""

    def __init__(self, layer: Layer, name: str, mutated: Backward) -> None:
        self.name, self.mutated, self.params = f"{layer!r}, {name}", mutated, layer.params
        self.takes, self.mixes_events, self.causal = layer.takes, layer.mixes_events, layer.causal
        self.twin = layer.with_params  # a network allows no layer inside a layer
        self.keeps_cache = mutated is _stale
        self.kept: Any = None  # what a layer must not keep

    def forward(self, x: Array, rng: Rng | None = None) -> tuple[Array, Any]:
        """Return what the layer returns."""
        y, cache = self.twin(self.params).forward(x, rng=rng)
        if self.keeps_cache:
            self.kept = cache
        return y, [x, cache]

    def right(self, dy: Array, cache: Any) -> tuple[Array | None, Parameters]:
        """Return the layer's own (dx, grads)."""
        return self.twin(self.params).backward(dy, cache[1])

    def backward(self, dy: Array, cache: Any) -> Any:
        """Return (dx, grads), spoiled."""
        return self.mutated(self, dy, cache)

    def __repr__(self) -> str:
        return self.name


def _changed(tensor: str, change: Change) -> Backward:
    """Return a backward that changes one gradient."""

    def backward(layer: MutantLayer, dy: Array, cache: Any) -> Any:
        dx, grads = layer.right(dy, cache)
        if tensor == "x":
            return change(dx), grads  # type: ignore[arg-type]
        changed = change(grads[tensor])
        if np.shape(changed) != grads[tensor].shape:  # there is no place for it in Parameters
            return dx, {**{name: grads[name] for name in grads}, tensor: changed}
        grads[tensor] = changed
        return dx, grads

    return backward


def _rows_counted(first: float, last: float) -> Backward:
    def backward(layer: MutantLayer, dy: Array, cache: Any) -> Any:
        times = np.ones((len(dy), 1), dy.dtype)
        times[:1], times[-1:] = first, last
        return layer.right(times * dy, cache)

    return backward


def _stale(layer: MutantLayer, dy: Array, cache: Any) -> Any:
    return layer.right(dy, [None, layer.kept])


def _accumulated(layer: MutantLayer, dy: Array, cache: Any) -> Any:
    dx, grads = layer.right(dy, cache)
    layer.kept = grads if layer.kept is None else Parameters(grads.layout, layer.kept.vector + grads.vector)
    return dx, layer.kept


def _used_up(layer: MutantLayer, dy: Array, cache: Any) -> Any:
    return layer.right(dy, [cache.pop(0), cache.pop(0)])


def _overwritten(layer: MutantLayer, dy: Array, cache: Any) -> Any:
    out = layer.right(dy, cache)
    dy *= 0.5
    return out


def _drawn_again(layer: MutantLayer, dy: Array, cache: Any) -> Any:
    again = layer.twin(layer.params).forward(cache[0], rng=np.random.default_rng(int(1e6 * abs(dy.flat[0]))))[1]
    return layer.right(dy, [None, again])


def _decayed(layer: MutantLayer, dy: Array, cache: Any) -> Any:
    dx, grads = layer.right(dy, cache)
    return dx, Parameters(grads.layout, grads.vector + 0.1 * layer.params.vector)


# What is done to a layer's backward as a whole -> (how, the diagnoses that are right, what the layer must have).
BACKWARDS: dict[str, tuple[Backward, frozenset[str], str]] = {
    "last row forgotten": (_rows_counted(1, 0), frozenset({"samples", "elements", "zero"}), "rows"),
    "first row counted twice": (
        _rows_counted(2, 1),
        frozenset({"samples", "elements", "slice-scale", "scale"}),
        "rows",
    ),
    "stale cache": (_stale, frozenset({"stale-cache"}), "cache"),
    "cache used up": (_used_up, frozenset({"backward-twice"}), ""),
    "dy overwritten": (_overwritten, frozenset({"mutation"}), ""),
    "gradients added up": (_accumulated, frozenset({"accumulate"}), "params"),
    "weights decayed": (_decayed, frozenset({"weight-decay"}), "params"),
    "mask drawn again": (_drawn_again, frozenset({"mask", "nondeterministic"}), "draws"),
}


class MutantLoss(Loss):
    """A loss whose derivative is changed."""

    def __init__(self, loss: Loss, name: str, change: Change) -> None:
        self.loss, self.name, self.change = loss, name, change

    def forward(self, y_pred: ArrayLike, y_true: Any, sample_weight: ArrayLike | None = None) -> tuple[Any, Any]:
        """Return what the loss returns."""
        return self.loss.forward(y_pred, y_true, sample_weight)

    def backward(self, cache: Any) -> Any:
        """Return dy_pred, spoiled."""
        return self.change(self.loss.backward(cache))

    def __repr__(self) -> str:
        return f"{self.loss!r}, {self.name}"


@dataclass(frozen=True)
class Outcome:
    """One trial: what was to be found, and what was.

    Attributes
    ----------
    name : str
        Of the bug, or of the right code.
    kinds : set of str
        The findings that diagnose it rightly; empty for right code.
    layer : str
        The first wrong layer of a network; "" if there is none to find.
    """

    name: str
    kinds: frozenset[str]
    layer: str
    report: GradCheckReport

    @property
    def detected(self) -> bool:
        """Whether the report says that something is wrong."""
        return not self.report.ok

    @property
    def right_layer(self) -> bool:
        """Whether the first error names the layer that has the bug."""
        return self.detected and (not self.layer or self.report.errors[0].layer == self.layer)

    @property
    def diagnosed(self) -> bool:
        """Whether the first error is of a kind that the label allows."""
        return self.detected and self.report.errors[0].kind in self.kinds


@dataclass
class SelfTest:
    """The rates of one self-test; true if nothing was missed and nothing right was called wrong."""

    bugs: list[Outcome] = field(default_factory=list)
    traps: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def detection(self) -> float:
        """The share of bugs that were found."""
        return _share(outcome.detected for outcome in self.bugs)

    @property
    def layers(self) -> float:
        """The share of bugs in networks and steps for which the first wrong layer was named."""
        return _share(outcome.right_layer for outcome in self.bugs if outcome.layer)

    @property
    def diagnosis(self) -> float:
        """The share of bugs that were called by their name."""
        return _share(outcome.diagnosed for outcome in self.bugs)

    @property
    def false_alarms(self) -> int:
        """How many pieces of right code were called wrong."""
        return sum(outcome.detected for outcome in self.traps)

    @property
    def ok(self) -> bool:
        """Whether it keeps its promises: all found, no false alarm, 95 % of layers, 85 % of diagnoses."""
        return self.detection == 1 and not self.false_alarms and self.layers >= 0.95 and self.diagnosis >= 0.85

    def add(self, outcome: Outcome) -> None:
        """Sort an outcome in."""
        (self.bugs if outcome.kinds else self.traps).append(outcome)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        names = [len({outcome.name for outcome in some}) for some in (self.bugs, self.traps)]
        lines = [
            f"{len(self.bugs)} trials of {names[0]} bugs: {self.detection:.1%} found, {self.diagnosis:.1%} diagnosed, "
            f"{self.layers:.1%} of layers named",
            f"{len(self.traps)} trials of {names[1]} pieces of right code: {self.false_alarms} false alarms",
            f"{self.seconds:.1f} s: {'passed' if self.ok else 'FAILED'}",
        ]
        lines += [f"  missed: {o.name}" for o in self.bugs if not o.detected]
        lines += [f"  called wrong: {o.name}: {o.report.errors[0]}" for o in self.traps if o.detected]
        return "\n".join(lines)


def selftest(*, n_seeds: int = 1, sizes: tuple[int, ...] = (0,), progress: Callable[[Any], Any] = iter) -> SelfTest:
    """Check every layer and loss, as it is and with each of some twenty mistakes made in its backward.

    Parameters
    ----------
    n_seeds : int, default 1
    sizes : tuple of 0, 1 and 2, default (0,)
        Batches of 4, 7 and 16 rows.
    progress : function, optional
        Wraps the list of (seed, size) pairs, as ``tqdm.tqdm`` does.

    Returns
    -------
    SelfTest
        ``.ok`` if every mistake was found, no right code was called wrong, and the diagnoses are right, but for a few.

    Raises
    ------
    ValueError
        If there is nothing to run.
    """
    check_size(n_seeds, "n_seeds")
    if not sizes or not set(sizes) <= {0, 1, 2}:
        raise ValueError(f"sizes must hold some of 0, 1 and 2, got {sizes!r}")
    start = time.perf_counter()
    result = SelfTest()
    for seed, size in progress([(seed, size) for seed in range(n_seeds) for size in sizes]):
        for outcome in (*_layer_trials(seed, size), *_loss_trials(seed, size), *_network_trials(seed, size)):
            result.add(outcome)
    result.seconds = time.perf_counter() - start
    return result


def _layer_trials(seed: int, size: int) -> Iterator[Outcome]:
    n = ROWS[size]
    for k, make in enumerate(LAYERS):
        rng = np.random.default_rng([seed, size, k])
        layer = make(n - 1)
        layer.initialize(rng)
        x = _draw(layer, rng, n, getattr(layer, "in_features", None) or n - 1)
        y, cache = layer.forward(x, rng=np.random.default_rng(seed))
        dx, grads = layer.backward(rng.normal(size=numbers_of(y).shape), cache)
        for how, given in _arrangements(x):
            if np.isfinite(numbers_of(layer.forward(given)[0])).all():  # exp of a thousand is not
                yield Outcome(f"{layer!r}, {how}", frozenset(), "", check_layer(layer, given, seed=seed))
        for turn, (tensor, g) in enumerate((("x", dx), *((name, grads[name]) for name in grads))):
            for way, (name, (change, kinds)) in enumerate(GRADIENTS.items()):
                if _matters(g, change) and (tensor == "x" or len(grads) < MANY or way % len(grads) == turn - 1):
                    bug = MutantLayer(layer, f"d{tensor} {name}", _changed(tensor, change))
                    yield Outcome(repr(bug), kinds, "", check_layer(bug, x, seed=seed))
        for name, (mutated, kinds, needs) in BACKWARDS.items():
            has = {
                "": True,
                "rows": dx is not None and dx[0].any() and dx[-1].any(),
                "cache": not isinstance(layer, Identity),
                "params": len(grads) > 0,
                "draws": not np.array_equal(numbers_of(layer.forward(x)[0]), numbers_of(y)),
            }
            if has[needs]:
                bug = MutantLayer(layer, name, mutated)
                yield Outcome(repr(bug), kinds, "", check_layer(bug, x, seed=seed))


def _loss_trials(seed: int, size: int) -> Iterator[Outcome]:
    n = ROWS[size]
    for k, (loss, draw) in enumerate(LOSSES):
        rng = np.random.default_rng([seed, size, k])
        y_pred = rng.normal(size=(n, n - 1))
        if isinstance(loss, BinaryCrossEntropy):
            y_pred = 1 / (1 + np.exp(-y_pred))
        y_true = draw(y_pred, rng)
        right = loss.backward(loss.forward(y_pred, y_true)[1])
        for how, given in _arrangements(y_pred):
            if isinstance(loss, BinaryCrossEntropy) and not ((given > 0) & (given < 1)).all():
                continue
            if np.isfinite(loss.forward(given, y_true[: len(given)])[0]):
                report = check_loss(loss, given, y_true[: len(given)], seed=seed)
                yield Outcome(f"{loss!r}, {how}", frozenset(), "", report)
        for name, (change, kinds) in GRADIENTS.items():
            if _matters(right, change):
                bug = MutantLoss(loss, f"dy_pred {name}", change)
                yield Outcome(repr(bug), kinds, "", check_loss(bug, y_pred, y_true, seed=seed))


def _network_trials(seed: int, size: int) -> Iterator[Outcome]:
    """Put each layer between two others, right and with one mistake, which is to be found there."""
    n = ROWS[size]
    for k, make in enumerate(LAYERS):
        rng = np.random.default_rng([seed, size, k])
        layer = make(n - 1)
        layer.initialize(rng)
        inside = _draw(layer, rng, n, getattr(layer, "in_features", None) or n - 1)
        width = numbers_of(apply(layer, inside)[0]).shape[1]
        has_dx = layer.takes == "numbers"
        before = [Dense(3, numbers_of(inside).shape[1]), Tanh()] if has_dx else []
        x = _draw(layer, rng, n, 3)
        name = list(GRADIENTS)[k % 4]
        change, kinds = GRADIENTS[name]
        tensor = "x" if has_dx else layer.params.matrices()[0]
        for middle, found in (
            (layer, frozenset[str]()),
            (MutantLayer(layer, f"d{tensor} {name}", _changed(tensor, change)), kinds),
        ):
            net = Sequential([*copy.deepcopy(before), middle, Sigmoid(), Dense(width, 2)], rng=rng)
            y = rng.normal(size=numbers_of(apply(net, x)[0]).shape)
            report = check_network(net, HalfSquaredError(), x, y, rng=np.random.default_rng(seed))
            yield Outcome(f"{middle!r}, in a network", found, str(len(before)) if found else "", report)


def _draw(layer: Layer, rng: Rng, n: int, width: int) -> Any:
    """Return ids, sequences or rows, as the layer takes them: n rows or events."""
    if layer.takes == "ids":
        return rng.integers(0, layer.n_ids, n)  # type: ignore[attr-defined]
    x = rng.normal(size=(n, width))
    return Ragged(x, [0, 1, 1, n]) if layer.mixes_events else x


def _arrangements(x: Any) -> Iterator[tuple[str, Any]]:
    """Yield (what it is, numbers) that right code is right for."""
    if isinstance(x, Ragged):
        yield "a batch of one sequence", take(x, slice(2, 3))
        yield from ((how, Ragged(v, x.offsets)) for how, v in _arrangements(x.values) if len(v) == len(x.values))
        return
    yield "as drawn", x
    if x.dtype.kind == "i":
        yield "a batch of one row", x[:1]
        return
    yield "of float32", x.astype(np.float32)
    yield "a batch of one row", x[:1]
    yield "in Fortran's order", np.asfortranarray(x)
    yield "a thousand times as large", 1e3 * x
    yield "a millionth as large", 1e-6 * x
    yield "zeros", 0 * x


def _matters(g: Array | None, change: Change) -> bool:
    """Tell whether the change makes another gradient of it."""
    if g is None:
        return False
    changed = change(g)
    return changed is None or not np.array_equal(changed, g)


def _share(flags: Iterator[bool]) -> float:
    found = list(flags)
    return sum(found) / len(found) if found else 1.0
