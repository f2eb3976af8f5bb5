"""Objects that keep cache and gradients in themselves: recognised by name and shape, and called as if they returned both.

``forward(x)`` returns y, or leaves it in ``self.output``; ``backward(dout)`` returns dx, or leaves it in ``self.dinputs``, and
leaves the gradients in ``self.dW``, ``self.grads["W"]``, ``self.weight.grad`` or the like.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..contract import Array
from .foreign import ForeignError, foreign
from .world import copied, describe, untouched

OUTPUTS = ("output", "out", "outputs", "y", "a", "z")
INPUT_GRADIENTS = (
    *("dinputs", "dinput", "d_inputs", "d_input", "dx", "dX", "d_x", "grad_input", "grad_inputs", "input_grad"),
    *("dvalues", "din"),
)
RATES = frozenset(("lr", "learning_rate", "eta", "alpha", "rate", "step_size"))
_RESETS = ("zero_grad", "zero_grads", "reset_grad", "reset_grads", "clear_grads")
_MAPPINGS = {"params": ("grads", "gradients", "dparams", "grad"), "parameters": ("grads", "gradients")}
MAX_ARRAYS = 64


def gradient_names(path: str) -> list[str]:
    """Return where the gradient of the array at ``path`` may be: "W" -> "dW", "W_grad", ...; "params.W" -> "grads.W", ..."""
    head, _, name = path.rpartition(".")
    prefix = f"{head}." if head else ""
    under = name[: len(name) - len(name.lstrip("_"))]
    bare = name.lstrip("_")
    names = [f"{under}d{bare}", f"{under}d_{bare}", f"{under}{bare}_grad", f"{under}grad_{bare}", f"{under}grad{bare}"]
    names += [f"{under}{bare}grad", f"{under}{bare}_gradient", f"nabla_{bare}", f"delta_{bare}", f"g{bare}"]
    found = [prefix + each for each in names]
    if name in ("data", "value", "values", "array"):
        found += [prefix + each for each in ("grad", "gradient")]
    parts = path.split(".")
    for k, part in enumerate(parts[:-1]):  # the mapping or list in which the parameters are
        others = _MAPPINGS.get(part, ()) or (tuple(gradient_names(part)) if k == len(parts) - 2 else ())
        for other in others:
            found += [
                ".".join([*parts[:k], other, *parts[k + 1 :]]),
                ".".join([*parts[:k], other, *parts[k + 1 : -1], f"d{name}"]),
            ]
    return found


class Stateful:
    """An object that keeps its state in itself, with the methods of a layer that returns it.

    Parameters
    ----------
    obj : object
    params, grads : sequence of str, optional
        Attributes with the parameters, and those in which ``backward`` leaves their gradients, in the same order; "layer.W"
        for an attribute of an attribute, "params.W" for what a mapping holds. By default they are found by name and shape.
    output, dx : str, optional
        Attributes with y and dx, where ``forward`` and ``backward`` return nothing.

    Raises
    ------
    ValueError
        If there are no such attributes.
    """

    keeps_state = True

    def __init__(
        self,
        obj: Any,
        params: Sequence[str] | None = None,
        grads: Sequence[str] | None = None,
        output: str | None = None,
        dx: str | None = None,
    ) -> None:
        if (params is None) != (grads is None):
            raise ValueError("params and grads belong together: give both, or none")
        if params is not None and grads is not None:
            params, grads = ([names] if isinstance(names, str) else list(names) for names in (params, grads))
            if len(params) != len(grads):
                raise ValueError(f"params and grads must be equally many, got {params} and {grads}")
            for name in params:
                if not isinstance(_get(obj, name), np.ndarray):
                    raise ValueError(f"{describe(obj)} has no array {name!r}")
        self.obj, self.output, self.dx = obj, output, dx
        self.given = params is not None
        self.places: dict[str, str] = dict(zip(params or (), grads or (), strict=True))
        self.returned: list[str] = []  # parameters whose gradients backward returns, after dx
        self.steps = False  # whether backward takes a learning rate, and steps
        self.unchecked: list[str] = []

    @property
    def params(self) -> dict[str, Array]:
        """The parameters by their paths."""
        return {name: _get(self.obj, name) for name in [*self.places, *self.returned]}

    def forward(self, x: Any) -> tuple[Array, None]:
        """Return (y, None)."""
        call = getattr(self.obj, "forward", None)
        y = (call if callable(call) else self.obj)(x)
        if isinstance(y, tuple):
            y = y[0]
        return (self._left(OUTPUTS, self.output, "forward") if y is None else y), None

    def backward(self, dy: Array, cache: None) -> tuple[Any, dict[str, Any]]:
        """Return (dx, grads)."""
        before = {name: array.copy() for name, array in self.params.items()} if self.steps else {}
        out = self.obj.backward(dy, 1.0) if self.steps else self.obj.backward(dy)
        grads: dict[str, Any] = {}
        if self.steps:
            for name, old in before.items():
                array = _get(self.obj, name)
                grads[name] = old - array
                array[...] = old
        elif self.returned and isinstance(out, tuple):
            grads = dict(zip(self.returned, out[1:], strict=False))
        for name, place in self.places.items():
            if not self.steps and (found := _get(self.obj, place)) is not None:
                grads[name] = found
        if isinstance(out, tuple):
            out = out[0]
        if out is None and np.asarray(self.x).dtype.kind == "f":
            out = self._left(INPUT_GRADIENTS, self.dx, "backward")
        return out, grads

    def _left(self, names: Sequence[str], named: str | None, who: str) -> Any:
        for name in (named,) if named else names:
            if isinstance(found := _get(self.obj, name), (np.ndarray, np.generic)):
                return found
        what = "y" if who == "forward" else "dx"
        raise ValueError(
            f"{describe(self.obj)}.{who} returns nothing, and no attribute {' or '.join((named,) if named else names[:4])} holds "
            f"{what}: name it, gradcheck.stateful(..., {'output' if who == 'forward' else 'dx'}='...')"
        )

    def learn(self, x: Any) -> None:
        """Call a copy once, and see which attributes hold what."""
        self.x = x
        trial = copied(self)
        before = dict(arrays_of(trial.obj))
        required = _required(trial.obj.backward)
        self.steps = trial.steps = len(required) == 2 and required[1] in RATES
        y, _ = trial.forward(np.array(x))
        dy = np.random.default_rng(0).normal(size=np.shape(y))
        if self.given:
            return
        kept = {name: array.copy() for name, array in before.items()}
        for name in _RESETS:
            if callable(reset := getattr(trial.obj, name, None)):
                reset()
        out = trial.obj.backward(dy, 1.0) if self.steps else trial.obj.backward(dy)
        after = dict(arrays_of(trial.obj))
        taken: set[str] = set()
        if self.steps:
            self.places = {n: "" for n, a in after.items() if n in kept and not np.array_equal(a, kept[n])}
            taken |= self.places.keys()
        else:
            for name, array in before.items():
                place = next((g for g in gradient_names(name) if g in after and after[g].shape == array.shape), None)
                place = place or next((g for g in gradient_names(name) if g in after), None)
                if place is not None and array.size:
                    self.places[name] = place
                    taken |= {name, place}
        rest = [name for name, array in before.items() if name not in taken and name not in self.places.values()]
        rest = [name for name in rest[:MAX_ARRAYS] if self._matters(name, x)]
        extra = list(out[1:]) if isinstance(out, tuple) else []
        for grad in extra:
            if (match := next((n for n in rest if np.shape(before[n]) == np.shape(grad)), None)) is not None:
                self.returned.append(match)
                rest.remove(match)
        self.unchecked = rest

    def _matters(self, name: str, x: Any) -> bool:
        """Tell whether y depends on the array at this path."""
        results = []
        for share in (0.0, 0.01):
            trial = copied(self)
            array = _get(trial.obj, name)
            array[...] = array * (1 + share) + share
            try:
                with foreign():
                    results.append(np.array(trial.forward(np.array(x))[0]))
            except ForeignError:  # numbers that the object refuses: it does look at them
                return True
        return not np.array_equal(results[0], results[1], equal_nan=True)

    def is_mask(self, name: str) -> bool:
        """Tell whether the array at this path is called a mask, and is of zeros and ones: biases of an LSTM are that too."""
        called = any(word in name.rpartition(".")[2].lower() for word in ("mask", "valid", "pad"))
        return called and set(np.unique(_get(self.obj, name)).tolist()) <= {0, 1}

    def says(self) -> str:
        """Return which attributes were taken for which gradients."""
        took = [f"{place} for the gradient of {name}" for name, place in self.places.items() if place]
        took += [f"the step of backward for the gradient of {name}" for name, place in self.places.items() if not place]
        took += [f"what backward returns for the gradient of {name}" for name in self.returned]
        return f"{describe(self.obj)} keeps its state in itself; took {', '.join(took) or 'no parameters'}"

    def __repr__(self) -> str:
        return describe(self.obj)


def stateful(
    obj: Any,
    params: Sequence[str] | None = None,
    grads: Sequence[str] | None = None,
    *,
    output: str | None = None,
    dx: str | None = None,
) -> Stateful:
    """Return an object that keeps cache and gradients in itself as ``check_layer`` takes it.

    ``check_layer`` does this by itself where the names are usual; name the attributes where it takes others, or finds none.

    Parameters
    ----------
    obj : object
        With ``forward(x)`` and ``backward(dout)``.
    params, grads : sequence of str, optional
        Attributes, ("W", "b") and ("dW", "db"); "params.W" for what a mapping or a list holds.
    output, dx : str, optional
        Attributes with y and dx, where the methods return nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from nnprofile import check_layer
    >>> class Scale:
    ...     def __init__(self):
    ...         self.k = np.array([2.0])
    ...     def forward(self, x):
    ...         self.x = x
    ...         return self.k * x
    ...     def backward(self, dout):
    ...         self.k_bar = np.array([(dout * self.x).sum()])
    ...         return self.k * dout
    >>> report = check_layer(stateful(Scale(), ["k"], ["k_bar"]), np.ones((2, 3)))
    >>> report.ok, [row.tensor for row in report.rows]
    (True, ['x', 'k'])
    """
    return Stateful(obj, params, grads, output, dx)


def arrays_of(obj: Any, prefix: str = "", depth: int = 3, seen: set[int] | None = None) -> Iterator[tuple[str, Array]]:
    """Yield (path, array) for the arrays of floats that an object holds, in attributes, mappings, lists, and theirs."""
    seen = set() if seen is None else seen
    if isinstance(obj, Mapping):
        pairs = [(str(key), value) for key, value in obj.items()]
    elif isinstance(obj, (list, tuple)):
        pairs = [(str(k), value) for k, value in enumerate(obj)]
    elif hasattr(obj, "__dict__") and not isinstance(obj, type) and not callable(getattr(obj, "__code__", None)):
        pairs = list(vars(obj).items())
    else:
        return
    if id(obj) in seen or depth < 0:
        return
    seen.add(id(obj))
    for name, value in pairs:
        if isinstance(value, np.ndarray):
            if value.dtype.kind == "f" and id(value) not in seen:
                seen.add(id(value))
                yield prefix + name, value
        elif isinstance(value, (Mapping, list, tuple)) or (
            hasattr(value, "__dict__") and (not callable(value) or hasattr(type(value), "backward"))
        ):
            yield from arrays_of(value, f"{prefix}{name}.", depth - 1, seen)


def _get(obj: Any, path: str) -> Any:
    """Return what is at "layer.params.W.0"; None if there is nothing."""
    for name in path.split("."):
        if isinstance(obj, Mapping):
            obj = next((value for key, value in obj.items() if str(key) == name), None)
        elif isinstance(obj, (list, tuple)):
            obj = obj[int(name)] if name.isdigit() and int(name) < len(obj) else None
        else:
            obj = getattr(obj, name, None)
        if obj is None:
            return None
    return obj


def _required(function: Any) -> list[str]:
    """Return the names of the arguments without a default."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]


def is_stateful(layer: Any) -> bool:
    """Tell whether an object's backward takes dout alone (or with a learning rate), so that it must keep its cache."""
    if not callable(getattr(layer, "backward", None)):
        return False
    required = _required(layer.backward)
    try:
        parameters = inspect.signature(layer.backward).parameters.values()
    except (TypeError, ValueError):
        return False
    most = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    return most == 1 or (len(required) == 2 and required[1] in RATES) or (len(required) == 1 and most > 1)


class StatefulLoss:
    """A loss whose forward returns the value alone, with the methods of one that returns (value, cache)."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss
        self.value = next(
            (n for n in ("forward", "__call__", "calculate", "loss") if callable(getattr(loss, n, None))), ""
        )
        names = ("backward", "gradient", "grad", "derivative", "prime", "delta")
        self.derivative = next((n for n in names if callable(getattr(loss, n, None))), "")
        if not self.value or not self.derivative:
            raise ValueError(
                f"{describe(loss)} must have a method forward, or be callable, and a method backward or gradient"
            )

    def learn(self, *args: Any) -> None:
        """Call a copy once: where forward returns a number for each sample, ``calculate`` is their mean."""
        value = getattr(copied(self.loss), self.value)(*args)
        if np.size(value) != 1 and callable(getattr(self.loss, "calculate", None)):
            self.value = "calculate"

    def forward(self, *args: Any) -> tuple[Any, Any]:
        """Return (value, arguments)."""
        value = getattr(self.loss, self.value)(*args)
        return (value[0] if isinstance(value, tuple) else value), args

    def backward(self, cache: Any) -> Any:
        """Return dy_pred, which backward returns, with no arguments, 1, or those of forward, or leaves in an attribute."""
        method = getattr(self.loss, self.derivative)
        n = len(_required(method))
        out = method(*cache) if n >= 2 else method(1.0) if n == 1 else method()
        if out is None:
            out = next((a for n in INPUT_GRADIENTS if (a := getattr(self.loss, n, None)) is not None), None)
        return out[0] if isinstance(out, tuple) else out

    def __repr__(self) -> str:
        return describe(self.loss)


@foreign()
def as_loss(loss: Any, *args: Any) -> Any:
    """Return a loss as ``check_loss`` takes it: itself, if forward returns (value, cache) and backward takes a cache."""
    if isinstance(loss, type):
        return loss
    forward, backward = getattr(loss, "forward", None), getattr(loss, "backward", None)
    if callable(forward) and callable(backward) and len(_required(backward)) == 1:
        with untouched(loss):
            out = copied(loss).forward(*copied(args))
        if isinstance(out, tuple) and len(out) == 2:
            return loss
    adapter = StatefulLoss(loss)
    with untouched(loss):
        adapter.learn(*copied(args))
    return adapter


class StatefulValue(Stateful):
    """A network with a method for its loss and one for its gradients, such as loss(x, t) and gradient(x, t)."""

    def __init__(self, obj: Any, value: str, gradient: str, rest: tuple[Any, ...]) -> None:
        super().__init__(obj)
        self.value, self.gradient, self.rest = value, gradient, rest
        self.keys: dict[str, Any] = {}  # parameter -> where its gradient is in what the method returns

    @property
    def params(self) -> dict[str, Array]:
        """The parameters by their paths."""
        return {name: _get(self.obj, name) for name in [*self.keys, *self.places]}

    @foreign()
    def forward(self, x: Any) -> tuple[Any, Any]:
        """Return (loss, x)."""
        return np.asarray(getattr(self.obj, self.value)(x, *self.rest)), x

    def backward(self, dy: Array, cache: Any) -> tuple[Any, dict[str, Any]]:
        """Return (dx or None, grads)."""
        method = getattr(self.obj, self.gradient)
        out = method(cache, *self.rest) if _required(method) else method()
        grads = {name: _at(out, key) for name, key in self.keys.items()}
        grads |= {name: _get(self.obj, place) for name, place in self.places.items()}
        same = isinstance(out, np.ndarray) and not self.keys and out.shape == np.shape(cache)
        return (out if same else None), grads

    def learn(self, x: Any) -> None:
        """Call a copy once, and see which gradient belongs to which array."""
        self.x = x
        trial = copied(self)
        before = dict(arrays_of(trial.obj))
        trial.forward(np.array(x))
        method = getattr(trial.obj, self.gradient)
        with foreign():
            out = method(np.array(x), *copied(self.rest)) if _required(method) else method()
        after = dict(arrays_of(trial.obj))
        rest = {name: array for name, array in before.items() if self._matters(name, x)}
        if isinstance(out, Mapping):
            for key in out:
                bare = str(key)
                ends = [n for n in rest if n.rpartition(".")[2] in (bare, bare.removeprefix("d"))]
                self.keys |= dict.fromkeys(ends[:1], (key,))
        elif isinstance(out, (list, tuple)):
            for key, grad in _flat(out):
                name = next((n for n in rest if n not in self.keys and rest[n].shape == np.shape(grad)), None)
                if name is not None:
                    self.keys[name] = key
        else:
            for name, array in rest.items():
                place = next((g for g in gradient_names(name) if g in after and after[g].shape == array.shape), None)
                if place is not None:
                    self.places[name] = place
        self.unchecked = [name for name in rest if name not in self.keys and name not in self.places]

    def says(self) -> str:
        """Return what was taken for which gradients."""
        took = [f"{'.'.join(map(str, key))} for the gradient of {name}" for name, key in self.keys.items()]
        took += [f"self.{place} for the gradient of {name}" for name, place in self.places.items()]
        return f"{describe(self.obj)}.{self.gradient}: took {', '.join(took)}"


def _flat(tree: Any, key: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for k, part in enumerate(tree):
        if isinstance(part, (list, tuple)):
            yield from _flat(part, (*key, k))
        else:
            yield (*key, k), part


def _at(tree: Any, key: tuple[Any, ...]) -> Any:
    for part in key:
        tree = tree[part]
    return tree


def methods_of_one(f: Any, grad: Any) -> Any:
    """Return the object whose methods f and grad are; None if they are other functions."""
    obj = getattr(f, "__self__", None)
    return obj if obj is not None and obj is getattr(grad, "__self__", None) and hasattr(obj, "__dict__") else None


def is_stateful_pair(obj: Any, f: Any, grad: Any) -> bool:
    """Tell whether f and grad are forward and backward of an object that keeps its state in itself."""
    names = getattr(f, "__name__", ""), getattr(grad, "__name__", "")
    return obj is not None and names == ("forward", "backward") and is_stateful(obj)


def unchecked_arrays(obj: Any, method: str, args: tuple[Any, ...]) -> list[str]:
    """Return the paths of the arrays in an object on which a method's result depends."""
    found = []
    for name, _ in list(arrays_of(obj))[:MAX_ARRAYS]:
        results: list[Any] = []
        for share in (0.0, 0.01):
            trial = copied(obj)
            array = _get(trial, name)
            array[...] = array * (1 + share) + share
            try:
                with foreign():
                    out = getattr(trial, method)(*copied(args))
            except ForeignError:  # numbers that the object refuses: it does look at them
                results = [0.0, 1.0]
                break
            results.append(np.array(out[0] if isinstance(out, tuple) else out))
        if not np.array_equal(results[0], results[1], equal_nan=True):
            found.append(name)
    return found
