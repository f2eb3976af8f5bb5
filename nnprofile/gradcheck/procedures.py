"""One way to call what is checked, whether it is a layer, a loss, a network's objective or two plain functions.

``run`` goes forward and, if asked, backward, from the same state each time, and returns y and the gradients as flat lists.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..contract import Array, Layer, Loss, backward_pair, check_events, n_rows, numbers_of, take
from ..objectives import penalty
from ..ragged import Ragged
from ..validation import check_number, fitted_inside
from .foreign import ForeignError, foreign
from .stateful import Stateful, StatefulLoss, StatefulValue, as_loss, is_stateful
from .tree import Missing, constants, extra_names, fresh, leaves, penalised, pick, rebuild
from .world import Model, World, copied, describe, untouched, walk

Between = Callable[[Any], None]


class BudgetSpent(BaseException):
    """The evaluations that may be spent on a wrong gradient are spent; no handler of a user's error may take it for one."""


class Procedure:
    """Forward and backward of one thing.

    Attributes
    ----------
    names : list of str
        Of the tensors that gradients are claimed for.
    point : list of Array
        Their values, in the caller's dtypes.
    problems : dict
        Tensor -> (kind, what is wrong with the form of its gradient).
    takes_cotangent : bool
        Whether backward is a function of dy.
    """

    names: list[str]
    point: list[Array]
    world: World
    takes_cotangent = True
    returns_cache = True  # else forward may keep what backward needs
    keeps_state = False  # whether cache and gradients are attributes of the object
    copying = False  # whether inputs must be copied before each call, since they are overwritten

    def __init__(self) -> None:
        self.problems: dict[str, tuple[str, str]] = {}
        self.n_forward = self.n_backward = 0
        self.spend: Callable[[], None] | None = None

    def run(
        self, arrays: list[Array], dy: Array | None = None, *, between: Between | None = None, spoil: bool = False
    ) -> tuple[Array, list[Array | None]]:
        """Return (y, gradients); ``between`` is called after forward, and ``spoil`` overwrites y."""
        raise NotImplementedError

    def count(self, dy: Array | None) -> None:
        """Count an evaluation, and stop where the budget is spent."""
        if self.spend is not None:
            self.spend()
        self.n_forward += 1
        self.n_backward += dy is not None

    def overwritten(self) -> list[str]:
        """Return the names of the constants, such as targets, that the last run wrote into."""
        return []

    @property
    def longest(self) -> int:
        """The size of the largest array that is known: about how long a sum may be."""
        return max((a.size for a in walk(*self.world.objects) if isinstance(a, np.ndarray)), default=0)

    @property
    def n_inputs(self) -> int:
        """How many of the tensors are inputs, not parameters."""
        return len(self.names)

    def copies(self, arrays: list[Array]) -> list[Array]:
        """Return copies of the inputs, and the parameters as they are."""
        n = self.n_inputs
        return [a.copy() for a in arrays[:n]] + arrays[n:]

    def another_forward(self, obj: Any, other: list[Array]) -> None:
        """Go forward with other numbers, whose cache is not used."""
        raise NotImplementedError

    def random_state(self) -> str:
        """Return the state of all generators that are known."""
        return self.world.random_state()

    def shake_constants(self, eps: float, rng: np.random.Generator) -> None:
        """Change what is given beside the tensors, such as targets, by a unit in the last place or none."""

    def output(self, arrays: list[Array]) -> Array:
        """Return y."""
        return self.run(self.copies(arrays) if self.copying else arrays)[0]

    def pullback(self, arrays: list[Array], dy: Array) -> list[Array | None]:
        """Return the gradients of sum(dy * y)."""
        return self.run(self.copies(arrays), dy.copy())[1] if self.copying else self.run(arrays, dy)[1]

    def gathered(self, pairs: list[tuple[str, Any]], extra: list[str]) -> list[Array | None]:
        """Return the gradients as arrays of their tensors' shapes, None where they are missing or misshapen."""
        out: list[Array | None] = []
        for (name, grad), value in zip(pairs, self.point, strict=True):
            array = self._array(name, grad, value)
            out.append(array)
        for name in extra:
            self.problems.setdefault(name, ("unexpected", f"unexpected gradient for {name!r}: there is no such tensor"))
        return out

    def _array(self, name: str, grad: Any, value: Array) -> Array | None:
        if grad is None:
            return None
        if isinstance(grad, Ragged):
            self.problems.setdefault(
                name, ("contract", f"{name}: the gradient is a Ragged; backward returns plain arrays")
            )
            return None
        if grad is Missing:
            self.problems.setdefault(name, ("missing", f"no gradient was returned for {name}"))
            return None
        try:
            array = np.array(grad)  # a copy: it may be a buffer that the next call fills again
        except ValueError as error:
            self.problems.setdefault(name, ("shape", f"{name}: the gradient is no array: {error}"))
            return None
        if array.dtype == object or array.dtype.kind not in "fiuc":
            self.problems.setdefault(name, ("dtype", f"{name}: the gradient is {describe(grad)}, no array of numbers"))
            return None
        if array.shape != value.shape:
            self.problems.setdefault(name, ("shape", _misshapen(name, array, value)))
            return None
        if array.dtype.kind == "c":
            return array
        if array.dtype.kind != "f" and array.size:
            self.problems.setdefault(
                name, ("dtype", f"{name}: the gradient has dtype {array.dtype}, {name} {value.dtype}")
            )
        return array if array.dtype.kind == "f" else array.astype(float)


def _require_methods(*objects: Any) -> None:
    for obj in objects:
        if isinstance(obj, type):
            raise ValueError(f"{obj.__name__} is a class: give an object of it, {obj.__name__}(...)")
        if model := fitted_inside(obj):
            raise ValueError(f"{describe(obj)} is an estimator: check {model}.network_ with {model}.loss_function_")
        for method in ("forward", "backward"):
            if not callable(getattr(obj, method, None)):
                raise ValueError(f"{describe(obj)} must have a method {method}")


def _misshapen(name: str, grad: Array, value: Array) -> str:
    text = f"{name} has shape {value.shape}, its gradient {grad.shape}"
    if grad.shape == value.shape[::-1] and grad.ndim > 1:
        return f"{text}: a missing transpose?"
    if grad.size == value.size:
        return f"{text}: the same number of elements; a missing reshape, or keepdims?"
    if grad.ndim == value.ndim + 1 and grad.shape[1:] == value.shape:
        return f"{text}: not summed over the batch (axis 0)?"
    if grad.size == 1 or grad.ndim < value.ndim:
        return f"{text}: summed over too many axes?"
    if grad.ndim == value.ndim == 1:
        return f"{text}: summed over the wrong axis?"
    return f"{text}: summed over the wrong axis, or a sum over a broadcast axis is missing?"


def go(layer: Any, x: Any, **more: Any) -> Any:
    """Call forward; where sequences meet a layer that does not know of them, with the events of all."""
    if not isinstance(x, Ragged):
        return layer.forward(x, **more)
    if getattr(layer, "mixes_events", False):
        out = layer.forward(x, **more)
        if isinstance(out, tuple) and len(out) == 2:
            check_events(layer, x, out[0])
        return out
    out = layer.forward(x.values, **more)
    return (Ragged.of(out[0], x.offsets), out[1]) if isinstance(out, tuple) and len(out) == 2 else out


class LayerProcedure(Procedure):
    """A layer: forward(x, rng) -> (y, cache), backward(dy, cache) -> (dx, grads).

    x may be an array, a Ragged, or a tuple of these; its arrays of floats are tensors.
    """

    without_dx: Any = Missing  # what a dx of None means

    def __init__(self, layer: Any, x: Any, generator: np.random.Generator | None, *others: Any) -> None:
        super().__init__()
        if not isinstance(layer, Layer) and not isinstance(layer, Stateful) and is_stateful(layer):
            layer = Stateful(layer)
        self.keeps_state = isinstance(layer, Stateful)
        if isinstance(layer, Stateful):
            with untouched(layer.obj):
                layer.learn(np.asarray(x))
        _require_methods(layer, *others)
        self.world = World(layer, *others)
        self.model = Model(self.world.objects[0])
        self.takes_rng = takes(layer.forward, "rng")
        self.needs_rng = self.takes_rng and _needs(layer.forward, "rng")
        if generator is not None and not isinstance(generator, np.random.Generator):
            raise ValueError(f"rng must be a numpy.random.Generator, got {describe(generator)}")
        self.generator = generator if self.takes_rng else None
        self.x = as_given(x)
        for array in constants(self.x):
            if array.dtype.kind not in "iub":
                raise ValueError(f"x must be an array of real numbers, got {describe(x)} of dtype {array.dtype}")
        inputs = list(leaves(self.x, "x"))
        self.n_given = len(inputs)
        self.names = [name for name, _ in inputs] + self.model.names
        self.gives_events = False  # whether the last y was a Ragged
        self.ignored_dx = False  # whether a dx came back for an x of integers
        if not self.names:
            kind = ", ".join(sorted({str(a.dtype) for a in constants(self.x)}))
            raise ValueError(
                f"{describe(layer)} has no params and x is of {kind}, so there is nothing to check: give floats"
            )
        self.point = [a for _, a in inputs] + self.model.arrays

    @property
    def n_inputs(self) -> int:
        """How many arrays of floats x holds."""
        return self.n_given

    def given(self, arrays: list[Array]) -> Any:
        """Return x made of the first of these arrays."""
        return rebuild(self.x, iter(arrays[: self.n_given]))

    @contextmanager
    def at(self, x: Any) -> Iterator[list[Array]]:
        """Give the values of all tensors with another x, in whose place it stands meanwhile."""
        kept = self.x, self.point
        self.x, self.point = x, [*(a for _, a in leaves(x)), *self.point[self.n_given :]]
        try:
            yield self.point
        finally:
            self.x, self.point = kept
            self.problems = {}

    def prepare(self, rng: np.random.Generator) -> None:
        """Find out how to give the layer other parameters."""
        self.model.choose(lambda obj: numbers_of(self._forward(obj, fresh(self.x))[0]), rng)
        self.world.snapshot.restore()

    def draws(self) -> np.random.Generator | None:
        """Return a generator in the same state each time; None in inference mode."""
        if self.generator is None:
            return None
        self.last = copy.deepcopy(self.generator)
        return self.last

    def random_state(self) -> str:
        """Return the state of all generators that are known, the one that was passed among them."""
        return super().random_state() + (repr(self.last.bit_generator.state) if self.generator is not None else "")

    @foreign()
    def _forward(self, obj: Any, x: Any) -> tuple[Any, Any]:
        rng = self.draws()
        out = go(obj, x) if rng is None else go(obj, x, rng=rng)
        if not isinstance(out, tuple) or len(out) != 2:
            raise ValueError(
                f"{describe(obj)}.forward must return (y, cache), got {describe(out)}; the backward of an object that keeps its "
                "cache in itself takes dout alone; or check it by check_function(forward, backward, x)"
            )
        return out

    @contextmanager
    def bound(self, arrays: list[Array]) -> Iterator[tuple[Any, Any]]:
        """Give the layer with these parameters, and x."""
        self.world.reset()
        self.used = x = self.given(arrays)
        with self.model.bound(arrays[self.n_given :]) as obj:
            yield obj, x

    @foreign()
    def run(
        self, arrays: list[Array], dy: Array | None = None, *, between: Between | None = None, spoil: bool = False
    ) -> tuple[Array, list[Array | None]]:
        """Return (y, gradients)."""
        self.count(dy)
        with self.bound(arrays) as (obj, x):
            y, cache = self._forward(obj, x)
            self.gives_events = isinstance(y, Ragged)
            y = np.asarray(numbers_of(y))
            result = y.copy() if spoil else y
            if dy is None:
                return result, []
            if between:
                between(obj)
            if spoil and y.flags.writeable:
                y[...] = 7
            return result, self.backward(obj, dy, cache)

    @foreign()
    def another_forward(self, obj: Any, other: list[Array]) -> None:
        """Go forward with other numbers, and last in the other mode."""
        x = self.given(other)
        if isinstance(x, Ragged) or (not self.n_given and np.ndim(x)):
            x = take(x, np.arange(n_rows(x))[::-1])
        if self.takes_rng:
            go(obj, fresh(x), rng=np.random.default_rng(1))
        if (self.generator is not None or not self.takes_rng) and not self.needs_rng:
            go(obj, fresh(x))

    def overwritten(self) -> list[str]:
        """Look at the integers in x."""
        pairs = zip(constants(self.used), constants(self.x), strict=True)
        return ["x"] if any(a.tobytes() != b.tobytes() for a, b in pairs) else []

    @foreign()
    def backward(self, obj: Any, dy: Array, cache: Any) -> list[Array | None]:
        """Call backward, and sort its gradients."""
        out = obj.backward(dy, cache)
        if isinstance(obj, Layer) and (not isinstance(out, tuple) or len(out) != 2):  # which fit and Sequential refuse
            backward_pair(obj, out)
        if isinstance(out, np.ndarray) and not self.model.names:
            out = out, {}
        if not isinstance(out, tuple) or len(out) != 2:
            raise ValueError(f"{describe(obj)}.backward must return (dx, grads), got {describe(out)}")
        dx, grads = out
        self.ignored_dx = self.ignored_dx or (dx is not None and not self.n_given)
        if grads is None and self.model.names:
            grads = {}
        pairs = [*pick(self.without_dx if dx is None else dx, self.x, "x"), *pick(grads, self.model.structure)]
        found = self.gathered(pairs, extra_names(grads, self.model.structure))
        if isinstance(obj, Layer) and not self.problems:
            backward_pair(obj, out)
            self._check_named_rows(grads)
        return found

    def _check_named_rows(self, grads: Any) -> None:
        """``grads.rows`` names all rows that are not zero, by number."""
        for name, rows in getattr(grads, "rows", {}).items():
            others = np.ones(len(grads[name]), bool)
            if np.asarray(rows).dtype.kind in "iu":
                others[rows] = False
            if np.asarray(rows).dtype.kind not in "iu" or grads[name][others].any():
                text = f"grads.rows[{name!r}] must be the numbers of all rows that are not zero: a lazy optimizer moves these"
                self.problems.setdefault(name, ("contract", text))


class LossProcedure(Procedure):
    """A loss: forward(y_pred, y_true[, sample_weight]) -> (value, cache), backward(cache) -> dy_pred."""

    takes_cotangent = False

    def __init__(self, loss: Any, y_pred: Any, y_true: Any, sample_weight: Any = None) -> None:
        super().__init__()
        rest = (y_true,) if sample_weight is None else (y_true, sample_weight)
        loss = as_loss(loss, np.asarray(y_pred), *rest)
        self.keeps_state = isinstance(loss, StatefulLoss)
        _require_methods(loss)
        self.world = World(loss)
        self.loss = self.world.objects[0]
        self.names, self.point = ["y_pred"], [np.asarray(y_pred)]
        if self.point[0].dtype.kind != "f":
            raise ValueError(
                f"y_pred must be an array of floats, got {describe(y_pred)} of dtype {self.point[0].dtype}"
            )
        self.rest = [y_true] if sample_weight is None else [y_true, sample_weight]

    @foreign()
    def run(
        self, arrays: list[Array], dy: Array | None = None, *, between: Between | None = None, spoil: bool = False
    ) -> tuple[Array, list[Array | None]]:
        """Return (value, [dy_pred])."""
        self.count(dy)
        self.world.reset()
        self.passed = {name: np.array(a) for name, a in zip(("y_true", "sample_weight"), self.rest, strict=False)}
        out = self.loss.forward(arrays[0], *self.passed.values())
        if not isinstance(out, tuple) or len(out) != 2:
            raise ValueError(f"{describe(self.loss)}.forward must return (value, cache), got {describe(out)}")
        value, cache = np.asarray(out[0]), out[1]
        if value.size != 1:
            raise ValueError(f"{describe(self.loss)}.forward must return one number, got shape {value.shape}")
        if dy is None:
            return value, []
        if between:
            between(self.loss)
        grad = self.loss.backward(cache)
        grads = self.gathered([("y_pred", Missing if grad is None else grad)], [])
        return value, [None if g is None else g * dy for g in grads]

    def shake_constants(self, eps: float, rng: np.random.Generator) -> None:
        """Shake targets and weights, if they are of floats."""
        self.rest = [_shaken(a, eps, rng) for a in self.rest]

    def overwritten(self) -> list[str]:
        """Look at targets and weights."""
        given = zip(("y_true", "sample_weight"), self.rest, strict=False)
        return [name for name, a in given if self.passed[name].tobytes() != np.array(a).tobytes()]

    @foreign()
    def another_forward(self, obj: Any, other: list[Array]) -> None:
        """Compute the loss of other predictions."""
        obj.forward(other[0], *(np.array(a) for a in self.rest))


class ValueProcedure(LayerProcedure):
    """A network with a method for its loss and one for its gradients."""

    takes_cotangent = False
    without_dx = None

    def __init__(self, adapter: StatefulValue, x: Any) -> None:
        super().__init__(adapter, x, None)

    @foreign()
    def run(
        self, arrays: list[Array], dy: Array | None = None, *, between: Between | None = None, spoil: bool = False
    ) -> tuple[Array, list[Array | None]]:
        """Return (loss, gradients)."""
        self.count(dy)
        with self.bound(arrays) as (obj, x):
            value, cache = self._forward(obj, x)
            if dy is None:
                return np.asarray(value), []
            if between:
                between(obj)
            grads = self.backward(obj, dy, cache)
            return np.asarray(value), [None if g is None else g * dy for g in grads]


class ObjectiveProcedure(LayerProcedure):
    """A network and its loss: J = L(net(x), y) + l2 / (2 n) sum W^2, by its parameters and x."""

    takes_cotangent = False
    without_dx = None  # the first layer of a network may spare itself dx

    def __init__(
        self, net: Any, loss: Any, x: Any, y: Any, l2: float, generator: np.random.Generator | None = None
    ) -> None:
        if not isinstance(loss, Loss) and callable(getattr(net, "forward", None)) and not isinstance(loss, type):
            with untouched(net, loss):
                out = copied(net).forward(np.array(x))
                loss = as_loss(loss, out[0] if isinstance(out, tuple) else out, y)
        super().__init__(net, x, generator, loss)
        self.targets = y if isinstance(y, Ragged) else None
        self.loss, self.y, self.l2 = self.world.objects[1], copy.deepcopy(numbers_of(y)), check_number(l2, "l2")
        weights = penalised(self.model.tree) if l2 else ()
        self.penalised = [k for k, name in enumerate(self.names) if name in weights]

    @foreign()
    def run(
        self, arrays: list[Array], dy: Array | None = None, *, between: Between | None = None, spoil: bool = False
    ) -> tuple[Array, list[Array | None]]:
        """Return (J, gradients)."""
        self.count(dy)
        with self.bound(arrays) as (obj, x):
            y_pred, cache = self._forward(obj, x)
            if isinstance(y_pred, Ragged) and self.targets is not None and (other := y_pred.difference(self.targets)):
                raise ForeignError(ValueError(f"y must have a target for each event of x: {other}"))
            y_pred = numbers_of(y_pred)
            value, loss_cache = self.loss.forward(y_pred, self.y)
            share = self.l2 / (len(y_pred) if np.ndim(y_pred) else 1)
            if self.penalised:
                value = value + penalty((arrays[k] for k in self.penalised), share)
            if dy is None:
                return np.asarray(value), []
            if between:
                between(obj)
            grads = self.backward(obj, self.loss.backward(loss_cache), cache)
            for k in self.penalised:
                g = grads[k]
                if g is not None:
                    grads[k] = g + share * arrays[k]
            return np.asarray(value), [None if g is None else g * dy for g in grads]

    def shake_constants(self, eps: float, rng: np.random.Generator) -> None:
        """Shake the targets, if they are of floats."""
        self.y = _shaken(self.y, eps, rng)

    @foreign()
    def through(self, moved: list[Array]) -> list[Array | None]:
        """Return the gradients that come of forward here, and of backward, layer by layer, through these parameters."""
        with self.bound(self.point) as (obj, x):
            caches = []
            y = x
            for layer in obj.layers:
                y, cache = go(layer, y)
                caches.append(cache)
            dy = self.loss.backward(self.loss.forward(numbers_of(y), self.y)[1])
        with self.bound(moved) as (obj, _):
            found: dict[str, Any] = {}
            for i in range(len(caches) - 1, -1, -1):
                dy, grads = obj.layers[i].backward(dy, caches[i])
                found.update({f"{i}.{name}": grad for name, grad in grads.items()})
        return [dy if name == "x" else found.get(name) for name in self.names]


def as_given(x: Any) -> Any:
    """Return x as an array, a Ragged, or a tuple of these."""
    if isinstance(x, tuple):
        return tuple(map(as_given, x))
    return x if isinstance(x, Ragged) else np.asarray(x)


def _shaken(value: Any, eps: float, rng: np.random.Generator) -> Any:
    array = np.asarray(value)
    if array.dtype.kind != "f":
        return value
    return (array * (1 - eps * rng.integers(0, 2, array.shape))).astype(array.dtype)  # inwards: it may be a probability


def _needs(function: Any, name: str) -> bool:
    parameter = inspect.signature(function).parameters.get(name)
    return parameter is not None and parameter.default is parameter.empty


def takes(function: Any, name: str) -> bool:
    """Tell whether a function has a parameter of this name."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())
