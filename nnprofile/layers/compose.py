"""Layers made of layers: in a row, beside a shortcut, side by side.

A composite is itself a layer, so they nest to any depth; and it gives all that it holds one vector of parameters to name.
How a composite runs is stated once, by ``_forward`` and ``_backward``, which let the caller run the children:
``forward`` and ``backward`` run it, ``walk`` notes each step as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..contract import Array, Cache, ContractError, Layer, Parameters, backward_pair, forward_pair, is_sparse, n_rows
from ..validation import as_input, check_dtype, check_rng

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    Rng = np.random.Generator | None
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
        self._bind_children(check_dtype(dtype))

    def forward(self, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        """Return y and the caches of all layers. With ``rng``: training mode."""

        def run(i: int, x: Any) -> tuple[Any, Cache]:
            layer = self.children[i]
            return forward_pair(layer, layer.forward(x, rng))

        return self._forward(x, run)

    def backward(self, dy: Array, cache: Cache) -> tuple[Any, Parameters]:
        """Return dx and the gradients of all layers, in the layout of ``params``.

        Raises
        ------
        ValueError
            If a layer does not return (dx, grads) with gradients in the layout of its parameters.
        """
        grads = _Gradients(self.params)
        dx = self._backward_into(dy, cache, grads, 0)
        return dx, grads.finished()

    def gradients(self, dy: Array, cache: Cache) -> Parameters:
        """Return the gradients of all layers, without dx."""
        if not is_open(self):
            return super().gradients(dy, cache)
        grads = _Gradients(self.params)
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

    def _width_of_x(self) -> Any:
        raise NotImplementedError

    def _forward(self, x: Any, run: RunForward) -> tuple[Any, Cache]:
        raise NotImplementedError

    def _backward(self, dy: Array, cache: Cache, run: RunBackward, needs_dx: bool) -> Any:
        raise NotImplementedError

    def _backward_into(self, dy: Array, cache: Cache, grads: _Gradients, start: int, *, needs_dx: bool = True) -> Any:
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

    def _bind_children(self, dtype: DTypeLike) -> None:
        """Move the layers' values into one new vector, and let the layers name it."""
        layout = {
            f"{i}.{name}": shape for i, layer in enumerate(self.children) for name, shape in layer.params.layout.items()
        }
        self.params = Parameters(layout, dtype=dtype)
        self.places, start = [], 0
        for i, layer in enumerate(self.children):
            self.places.append(slice(start, start + layer.params.vector.size))
            start += layer.params.vector.size
            part = self.params.sub(str(i))
            for name in set(layer.params) - set(layer.params.unfilled()):
                part[name] = layer.params[name]
        self._bind(self.params, None)

    def _bind(self, params: Parameters, place: tuple[int, str] | None) -> None:
        super()._bind(params, place)
        name = repr(self)
        for i, layer in enumerate(self.children):
            layer._bind(self.params.sub(str(i)), (i, name))

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {key: value for key, value in state.items() if key not in ("params", "places")} | {
            "dtype": self.params.dtype
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        dtype = state.pop("dtype")
        self.__dict__.update(state)
        self._bind_children(dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}([{', '.join(map(repr, self.children))}])"


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

    def predict(self, x: Any) -> Array:
        """Return the raw output for finite x of shape (n_samples, n_features).

        For a loss on logits these are logits; ``loss.link.forward(net.predict(x))[0]`` are the probabilities.

        Raises
        ------
        ValueError
            If x has another rank or width, is not made of real numbers, or is not finite.
        """
        y = as_input(x, self.params.dtype, self.in_features)
        for layer in self.children:
            y, _ = forward_pair(layer, layer.forward(y))
        return y  # type: ignore[no-any-return]

    def _width_of_x(self) -> Any:
        for layer in self.children:
            takes = getattr(layer, "in_features", None)
            if takes is not None:
                return takes
            if not _keeps_width(layer):
                return None
        return None

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


class Residual(Composite):
    """Add a layer's output to its input: y = x + f(x), so dx = dy + J_f^T dy (docs/backprop.md, eq. 37).

    Parameters
    ----------
    layer : Layer or list of Layer
        f, which keeps the width; a list is a Sequential of it.

    Raises
    ------
    ValueError
        If f changes the width; the message names both.

    Examples
    --------
    >>> from nnprofile import Tanh
    >>> layer = Residual(Tanh())
    >>> y, cache = layer.forward(np.array([[0.0, 1.0]]))
    >>> y.round(3).tolist()
    [[0.0, 1.762]]
    >>> layer.backward(np.ones((1, 2)), cache)[0].round(3).tolist()
    [[2.0, 1.42]]
    """

    def __init__(self, layer: Layer | Sequence[Layer]) -> None:
        super().__init__([layer])

    def _width_of_x(self) -> Any:
        takes = getattr(self.children[0], "in_features", None)
        return getattr(self.children[0], "out_features", None) if takes is None else takes

    def output_width(self, width: Any) -> Any:
        """Return the width of x, which f keeps."""
        gives = self.children[0].output_width(width)
        if width is not None and gives is not None and gives != width:
            raise ValueError(f"Residual adds f(x) to x: {self.children[0]!r} makes {gives} features of {width}")
        return gives if width is None else width

    def _forward(self, x: Any, run: RunForward) -> tuple[Any, Cache]:
        x = x if is_sparse(x) or isinstance(x, tuple) else np.asarray(x)
        y, cache = run(0, x)
        if is_sparse(x) or isinstance(x, tuple) or y.shape != x.shape:
            shape = "a tuple" if isinstance(x, tuple) else f"{type(x).__name__} of shape {x.shape}"
            raise ValueError(
                f"Residual adds f(x) to x, arrays of one shape; got x, {shape}, and f(x) of shape {y.shape}"
            )
        return x + y, cache

    def _backward(self, dy: Array, cache: Cache, run: RunBackward, needs_dx: bool) -> Any:
        dx = run(0, dy, cache, needs_dx)
        if not needs_dx:
            return None
        if dx is None:
            raise ContractError(f"{self.children[0]!r}.backward returned None for dx, to which Residual adds dy")
        return dy + dx

    def __repr__(self) -> str:
        return f"Residual({self.children[0]!r})"


class Concatenate(Composite):
    """Put the outputs of several layers on one x side by side (docs/backprop.md, eq. 38).

    y = [f_1(x), ..., f_k(x)], so dx = sum_k J_k^T dy_k; dx is None for a CSR x.

    Parameters
    ----------
    layers : sequence of Layer or list of Layer
        The branches f_1 .. f_k.

    Examples
    --------
    >>> from nnprofile import Identity, Tanh
    >>> layer = Concatenate([Identity(), Tanh()])
    >>> y, cache = layer.forward(np.array([[1.0, 0.0]]))
    >>> y.round(3).tolist()
    [[1.0, 0.0, 0.762, 0.0]]
    >>> layer.backward(np.ones((1, 4)), cache)[0].round(3).tolist()
    [[1.42, 2.0]]
    """

    def _width_of_x(self) -> Any:
        known = [takes for layer in self.children if (takes := getattr(layer, "in_features", None)) is not None]
        try:
            return functools.reduce(_same_width, known, None)
        except ValueError:
            raise ValueError(
                f"the branches of {type(self).__name__} take one x, but they take {known} features"
            ) from None

    def output_width(self, width: Any) -> int | None:
        """Return the sum of the branches' widths."""
        return _total(layer.output_width(width) for layer in self.children)

    def _forward(self, x: Any, run: RunForward) -> tuple[Any, Cache]:
        return _side_by_side(self, [run(i, x) for i in range(len(self.children))])

    def _backward(self, dy: Array, cache: Cache, run: RunBackward, needs_dx: bool) -> Any:
        parts = [
            run(i, part, own, needs_dx) for i, (part, own) in enumerate(zip(*_apart(self, dy, cache), strict=True))
        ]
        if any(dx is None for dx in parts):
            return None
        return sum(parts[1:], start=parts[0])


class Parallel(Composite):
    """Give each part of a tuple x a layer of its own, and put the outputs side by side (docs/backprop.md, eq. 39).

    y = [f_1(x_1), ..., f_k(x_k)], so dx_k = J_k^T dy_k; dx is a tuple, as x is.

    Parameters
    ----------
    layers : sequence of Layer or list of Layer
        As many as x has parts.

    Examples
    --------
    >>> from nnprofile import Identity, Tanh
    >>> layer = Parallel([Identity(), Tanh()])
    >>> y, cache = layer.forward((np.array([[1.0]]), np.array([[0.0, 1.0]])))
    >>> y.round(3).tolist()
    [[1.0, 0.0, 0.762]]
    >>> [dx.round(3).tolist() for dx in layer.backward(np.ones((1, 3)), cache)[0]]
    [[[1.0]], [[1.0, 0.42]]]
    """

    def _width_of_x(self) -> tuple[Any, ...]:
        return tuple(getattr(layer, "in_features", None) for layer in self.children)

    def output_width(self, width: Any) -> int | None:
        """Return the sum of the parts' widths."""
        widths = [None] * len(self.children) if width is None else width
        return _total(layer.output_width(own) for layer, own in zip(self.children, widths, strict=True))

    def _forward(self, x: Any, run: RunForward) -> tuple[Any, Cache]:
        if not isinstance(x, tuple) or len(x) != len(self.children):
            raise ValueError(f"{self!r} takes a tuple x of {len(self.children)} parts, got {type(x).__name__}")
        x = tuple(part if is_sparse(part) or isinstance(part, tuple) else np.asarray(part) for part in x)
        n_rows(x)  # the same of all parts
        return _side_by_side(self, [run(i, part) for i, part in enumerate(x)])

    def _backward(self, dy: Array, cache: Cache, run: RunBackward, needs_dx: bool) -> Any:
        return tuple(
            run(i, part, own, needs_dx) for i, (part, own) in enumerate(zip(*_apart(self, dy, cache), strict=True))
        )


def _same_width(a: Any, b: Any) -> Any:
    """Return what two widths of one x say together; None says nothing."""
    if a is None or b is None or a == b:
        return b if a is None else a
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return tuple(map(_same_width, a, b))
    raise ValueError


def _total(widths: Iterable[int | None]) -> int | None:
    found = list(widths)
    return None if None in found else sum(found)  # type: ignore[arg-type]


def _side_by_side(layer: Composite, parts: list[tuple[Any, Cache]]) -> tuple[Array, Cache]:
    outputs = [y for y, _ in parts]
    if any(getattr(y, "ndim", 0) != 2 for y in outputs):
        raise ValueError(f"{layer!r} puts rows side by side, got outputs of shape {[np.shape(y) for y in outputs]}")
    return np.hstack(outputs), ([y.shape for y in outputs], [cache for _, cache in parts])


def _apart(layer: Composite, dy: Array, cache: Cache) -> tuple[list[Array], list[Cache]]:
    shapes, caches = cache
    expected = (shapes[0][0], sum(width for _, width in shapes))
    if np.shape(dy) != expected:
        raise ValueError(f"dy must have the output's shape {expected}, got {np.shape(dy)}")
    ends = np.cumsum([width for _, width in shapes])
    return np.split(dy, ends[:-1], axis=1), caches


class _Gradients:
    """The gradients of all layers inside, in one vector, whose dtype is found as they come."""

    def __init__(self, params: Parameters) -> None:
        self.params = params
        self.vector: Array | None = None

    def put(self, start: int, own: Parameters) -> None:
        if not len(own):
            return
        if self.vector is None:
            self.vector = np.zeros(self.params.vector.shape, own.dtype)
        elif self.vector.dtype != own.dtype:
            self.vector = self.vector.astype(np.result_type(self.vector, own.dtype), copy=False)
        self.vector[start : start + own.vector.size] = own.vector

    def finished(self) -> Parameters:
        return self.params.like() if self.vector is None else self.params.of(self.vector)


_RUNS = ("forward", "backward", "_forward", "_backward", "_backward_into")


def kind_of(layer: Layer) -> type[Composite] | None:
    """Return which composite of the library a layer is, a subclass that runs as it does too; None of any other layer."""
    for kind in (Sequential, Residual, Concatenate, Parallel):
        if isinstance(layer, kind) and all(getattr(type(layer), name) is getattr(kind, name) for name in _RUNS):
            return kind
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
