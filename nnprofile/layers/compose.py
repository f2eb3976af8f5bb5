"""Layers made of layers: what composites share, and Sequential, layers in a row; ``branches`` has those that branch.

A composite is itself a layer, so they nest to any depth; and it gives all that it holds one vector of parameters to name.
How a composite runs is stated once, by ``_forward`` and ``_backward``, which let the caller run the children:
``forward`` and ``backward`` run it, ``walk`` notes each step as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..contract import Array, Cache, ContractError, Layer, Parameters, Shape, apply, backward_pair
from ..validation import as_input, check_dtype, check_rng

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from ..contract import Rng

    RunForward = Callable[[int, Any], tuple[Any, Cache]]  # of the child with this number: x -> (y, cache)
    RunBackward = Callable[[int, Array, Cache, bool], Any]  # dy, cache, whether dx is needed -> dx

_REQUIRED: Any = object()


class Composite(Layer):
    """Hold layers: their parameters become views of one vector, ``params.vector``, named by their numbers: "0.W", "1.0.b".

    They are bound, not copied. A list in place of a layer is a Sequential of it.

    Parameters
    ----------
    layers : sequence of Layer

    Raises
    ------
    ValueError
        If there are no layers, one is not a Layer, one with parameters is bound already, or widths do not fit.
    """

    in_features: Any  # the width of x, None where no layer fixes it, a tuple where x is one

    def __init__(self, layers: Iterable[Layer | Sequence[Layer]], dtype: DTypeLike = np.float64) -> None:
        if isinstance(layers, Layer) or not isinstance(layers, Iterable):
            name, more = type(self).__name__, ", rng=..." if isinstance(self, Sequential) else ""
            raise ValueError(f"layers must be a sequence of layers, {name}([...]{more}), got {layers!r}")
        self.children = tuple(
            Sequential(layer, rng=None) if isinstance(layer, list | tuple) else layer  # type: ignore[misc]
            for layer in layers
        )
        self._check_children()
        self._bind_children(check_dtype(dtype), {})

    def forward(self, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        """Return y and the caches of all layers. With ``rng``: training mode."""

        def run(i: int, x: Any) -> tuple[Any, Cache]:
            return apply(self.children[i], x, rng)

        return self._forward(x, run)

    def backward(self, dy: Array, cache: Cache) -> tuple[Any, Parameters]:
        """Return dx and the gradients of all layers, in the layout of ``params``.

        Raises
        ------
        ValueError
            If a layer does not return (dx, grads) with gradients in the layout of its parameters.
        """
        grads = Gradients(self.params)
        dx = self._backward_into(dy, cache, grads, 0)
        return dx, grads.finished()

    def gradients(self, dy: Array, cache: Cache) -> Parameters:
        """Return the gradients of all layers, without dx."""
        if not is_open(self):
            return super().gradients(dy, cache)
        grads = Gradients(self.params)
        self._backward_into(dy, cache, grads, 0, needs_dx=False)
        return grads.finished()

    def initialize(self, rng: np.random.Generator) -> None:
        """Give values to the layers that have none, first to last."""
        for layer in self.children:
            layer.initialize(rng)

    def with_params(self, params: Parameters) -> Self:
        """Return an unbound twin that reads other parameters, of any dtype."""
        twin = super().with_params(params)
        twin.children = tuple(layer.with_params(params.sub(str(i))) for i, layer in enumerate(self.children))
        for twin_layer, layer in zip(twin.children, self.children, strict=True):
            twin_layer._place = layer._place  # bound to the twin, as the layer is to this network
        return twin

    def _own_shapes(self) -> dict[str, Shape]:
        """Return the layout of the parameters that belong to no child; they lie behind the children's."""
        return {}

    def _width_of_x(self) -> Any:
        raise NotImplementedError

    def _kind_of_x(self) -> Any:
        kinds = [layer.takes for layer in self.children]
        if any(kind != kinds[0] for kind in kinds):
            raise ValueError(f"the branches of {type(self).__name__} take one x, but they take {kinds}")
        return kinds[0]

    def _forward(self, x: Any, run: RunForward) -> tuple[Any, Cache]:
        raise NotImplementedError

    def _backward(self, dy: Array, cache: Cache, run: RunBackward, needs_dx: bool) -> Any:
        raise NotImplementedError

    def _backward_into(self, dy: Array, cache: Cache, grads: Gradients, start: int, *, needs_dx: bool = True) -> Any:
        """Return dx, if it is needed; write the gradients into the root's vector, from ``start`` on."""

        def run(i: int, dy: Array, cache: Cache, needs_dx: bool) -> Any:
            layer, at = self.children[i], start + self.places[i].start
            if isinstance(layer, Composite) and is_open(layer):
                return layer._backward_into(dy, cache, grads, at, needs_dx=needs_dx)
            dx, own = (
                backward_pair(layer, layer.backward(dy, cache)) if needs_dx else (None, layer.gradients(dy, cache))
            )
            grads.put(at, own)
            return dx

        return self._backward(dy, cache, run, needs_dx)

    def _check_children(self) -> None:
        if not self.children:
            raise ValueError(f"{type(self).__name__} takes at least one layer, got none")
        seen: dict[int, int] = {}
        for i, layer in enumerate(self.children):
            if not isinstance(layer, Layer):
                hint = f"; did you mean {layer.__name__}(...)?" if isinstance(layer, type) else ""
                raise ValueError(f"layer {i} must be a Layer, got {layer!r}{hint}")
            if not isinstance(layer, Composite) and any(isinstance(part, Layer) for part in vars(layer).values()):
                raise ValueError(
                    f"layer {i}, {layer!r}, holds another layer; only a Composite can bind layers inside layers"
                )
            if len(layer.params) and layer._place is not None:
                place, network = layer._place
                raise ValueError(
                    f"layer {i}, {layer!r}, is bound already, as layer {place} of {network}; pass a copy.deepcopy of it"
                )
            if len(layer.params) and seen.setdefault(id(layer), i) != i:
                raise ValueError(
                    f"layer {i}, {layer!r}, is layer {seen[id(layer)]} of this network too; pass a copy.deepcopy of it"
                )
        self.in_features = self._width_of_x()
        self.output_width(self.in_features)
        self.takes = self._kind_of_x()
        self.mixes_events = any(layer.mixes_events for layer in self.children)

    def _bind_children(self, dtype: DTypeLike, own: Mapping[str, Array]) -> None:
        """Move the layers' values, and one's own, into one new vector, and let the layers name it."""
        layout = {
            f"{i}.{name}": shape for i, layer in enumerate(self.children) for name, shape in layer.params.layout.items()
        }
        self.params = Parameters(layout | self._own_shapes(), dtype=dtype)
        for name, values in own.items():
            self.params[name] = values
        self.places, start = [], 0
        for i, layer in enumerate(self.children):
            self.places.append(slice(start, start + layer.params.vector.size))
            start += layer.params.vector.size
            part = self.params.sub(str(i))
            for name in set(layer.params) - set(layer.params.unfilled()):
                part[name] = layer.params[name]
        runs = {id(layer.ledger): layer.ledger for layer in self.children}  # of a run that trained several: once
        self.ledger = sum(runs.values(), ())
        self._bind(self.params, None)

    def _bind(self, params: Parameters, place: tuple[int, str] | None) -> None:
        super()._bind(params, place)
        name = repr(self)
        for i, layer in enumerate(self.children):
            layer._bind(self.params.sub(str(i)), (i, name))

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        own = {name: self.params[name].copy() for name in self._own_shapes() if name not in self.params.unfilled()}
        return {key: value for key, value in state.items() if key not in ("params", "places")} | {
            "memory": (self.params.dtype, own)
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        memory = state.pop("memory")
        self.__dict__.update(state)
        self._bind_children(*memory)

    def __repr__(self) -> str:
        return f"{type(self).__name__}([{', '.join(map(repr, self.children))}])"


def every(net: Layer) -> Iterator[Layer]:
    """Yield a layer and all that it holds, at any depth."""
    yield net
    for layer in net.children:
        yield from every(layer)


class Sequential(Composite):
    """Compose layers: y = f_L(... f_2(f_1(x))).

    The chain rule, for layers 1 .. L with y_0 = x (docs/backprop.md, eq. 4, 19)::

        forward    y_l = f_l(y_(l-1))                       l = 1 .. L
        backward   dy_(l-1), grads_l = backward_l(dy_l)     l = L .. 1

    Parameters
    ----------
    layers : sequence of Layer
        They are bound, not copied: their parameters become views of ``net.params.vector``, named "0.W", "0.b", "2.W", ...
    rng : numpy.random.Generator or None
        Gives values to the layers that have none, first to last. None leaves them without, for an outer network to give.
    dtype : float64 or float32, default float64

    Raises
    ------
    ValueError
        If there are no layers, one is not a Layer, or one with parameters is bound already.

    Examples
    --------
    >>> from nnprofile import Dense, Sigmoid
    >>> net = Sequential([Dense(3, 5), Sigmoid(), Dense(5, 2), Sigmoid()], rng=np.random.default_rng(0))
    >>> net.predict(np.zeros((1, 3))).shape, list(net.params)
    ((1, 2), ['0.W', '0.b', '2.W', '2.b'])
    """

    _is_kind = True  # one of those that others know how to look into: see ``kind_of``

    def __init__(
        self, layers: Iterable[Layer | Sequence[Layer]], *, rng: Rng = _REQUIRED, dtype: DTypeLike = np.float64
    ) -> None:
        if rng is _REQUIRED:
            raise TypeError(
                "Sequential needs rng: pass rng=numpy.random.default_rng(0) to draw the first weights, or rng=None to leave "
                "them to you or to an outer network"
            )
        super().__init__(layers, dtype)
        if rng is not None:
            check_rng(rng)
            self.initialize(rng)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, first to last: the same as ``children``."""
        return self.children

    def predict(self, x: Any) -> Any:
        """Return the raw output for finite x of shape (n_samples, n_features); a Ragged, where it is of events.

        For a loss on logits these are logits; ``loss.link.forward(net.predict(x))[0]`` are the probabilities.

        Raises
        ------
        ValueError
            If x has another rank or width, is not made of real numbers, or is not finite.
        """
        y = as_input(x, self)
        for layer in self.children:
            y, _ = apply(layer, y)
        return y

    def _width_of_x(self) -> Any:
        for layer in self.children:
            takes = getattr(layer, "in_features", None)
            if takes is not None:
                return takes
            if not _keeps_width(layer):
                return None
        return None

    def _kind_of_x(self) -> Any:
        return self.children[0].takes

    @property
    def out_features(self) -> int | None:
        """The width of y, or None if no layer fixes it."""
        return self.output_width(None)

    def output_width(self, width: Any) -> int | None:
        """Return the width of y, as far as layers state theirs."""
        for i, layer in enumerate(self.children):
            takes = getattr(layer, "in_features", None)
            if takes is not None and width is not None and takes != width:
                raise ValueError(f"layer {i}, {layer!r}, takes {takes} features, but the layers before it give {width}")
            width = layer.output_width(width)
        return width  # type: ignore[no-any-return]

    def _forward(self, x: Any, run: RunForward) -> tuple[Any, Cache]:
        caches = []
        for i in range(len(self.children)):
            x, cache = run(i, x)
            caches.append(cache)
        return x, caches

    def _backward(self, dy: Array, cache: Cache, run: RunBackward, needs_dx: bool) -> Any:
        for i in reversed(range(len(self.children))):
            dy = run(i, dy, cache[i], needs_dx or i > 0)
            if dy is None and i:
                raise ContractError(
                    f"{self.children[i]!r}.backward returned None for dx, which the layer before it needs"
                )
        return dy


class Gradients:
    """The gradients of all layers inside, in one vector, whose dtype is found as they come."""

    def __init__(self, params: Parameters) -> None:
        self.params = params
        self.vector: Array | None = None
        self.rows: dict[int, Array] = {}  # of a matrix, by its place
        self.whole: set[int] = set()  # places of matrices of which all rows may be other than zero

    def put(self, start: int, own: Parameters) -> None:
        """Add those of one layer, whose place begins at ``start``."""
        if not len(own):
            return
        if self.vector is None:
            self.vector = np.zeros(self.params.vector.shape, own.dtype)
        elif self.vector.dtype != own.dtype:
            self.vector = self.vector.astype(np.result_type(self.vector, own.dtype), copy=False)
        self.vector[start : start + own.vector.size] += own.vector
        for name in own.matrices():
            at = start + own.place(name).start
            if name in own.rows and at not in self.rows:
                self.rows[at] = own.rows[name]
            else:
                self.whole.add(at)

    def finished(self) -> Parameters:
        """Return them in the layout of the network."""
        if self.vector is None:
            return self.params.like()
        grads = self.params.of(self.vector)
        if self.rows:
            places = {self.params.place(name).start: name for name in self.params.matrices()}
            grads.rows = {places[at]: rows for at, rows in self.rows.items() if at not in self.whole}
        return grads


_RUNS = ("forward", "backward", "_forward", "_backward", "_backward_into")


def kind_of(layer: Layer) -> type[Composite] | None:
    """Return which composite of the library a layer is, a subclass that runs as it does too; None of any other layer."""
    for cls in type(layer).__mro__:
        if "_is_kind" in vars(cls):
            return cls if all(getattr(type(layer), name) is getattr(cls, name) for name in _RUNS) else None
    return None


def is_open(layer: Layer) -> bool:
    """Tell whether a layer is a composite that runs as the library's do, so that one may look inside."""
    return kind_of(layer) is not None


def _keeps_width(layer: Layer) -> bool:
    """Tell whether y is as wide as x, whatever width that is."""
    try:
        return all(layer.output_width(width) == width for width in (1, 2))
    except ValueError:
        return False
