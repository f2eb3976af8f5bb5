"""A network is layers in a row: forward from the first to the last, backward from the last to the first.

It is itself a layer, so networks nest; and it gives all its layers one vector of parameters to look into.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .activations import Elementwise, Softmax
from .contract import Array, Cache, ContractError, Layer, Parameters, backward_pair, forward_pair
from .layers import Dropout
from .validation import as_features, check_rng

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    Rng = np.random.Generator | None

_REQUIRED: Any = object()
_KEEP_WIDTH = (Elementwise, Softmax, Dropout)


class Sequential(Layer):
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

    def __init__(self, layers: Sequence[Layer], *, rng: Rng = _REQUIRED, dtype: DTypeLike = np.float64) -> None:
        if rng is _REQUIRED:
            raise TypeError(
                "Sequential needs rng: pass rng=numpy.random.default_rng(0) to draw the first weights, or rng=None to leave "
                "them to you or to an outer network"
            )
        if isinstance(layers, Layer) or not isinstance(layers, Iterable):
            raise ValueError(f"layers must be a sequence of layers, Sequential([...], rng=...), got {layers!r}")
        self.layers = tuple(layers)
        try:
            known = dtype is not None and np.dtype(dtype) in (np.dtype(np.float64), np.dtype(np.float32))
        except TypeError:
            known = False
        if not known:
            raise ValueError(f"dtype must be float64 or float32, got {dtype!r}")
        self._check_layers()
        if rng is not None:
            check_rng(rng)
            self.initialize(rng)
        self._bind_layers(dtype)

    def forward(self, x: Array, rng: Rng = None) -> tuple[Array, Cache]:
        """Return the last layer's output and the caches of all layers. With ``rng``: training mode."""
        caches = []
        for layer in self.layers:
            x, cache = forward_pair(layer, layer.forward(x, rng))
            caches.append(cache)
        return x, caches

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        """Return dx and the gradients of all layers, in the layout of ``params``.

        Raises
        ------
        ValueError
            If a layer does not return (dx, grads) with gradients in the layout of its parameters.
        """
        parts = []
        for layer, place, layer_cache in zip(self.layers[::-1], self._places[::-1], cache[::-1], strict=True):
            dy, layer_grads = backward_pair(layer, layer.backward(dy, layer_cache))
            if dy is None and layer is not self.layers[0]:
                raise ContractError(f"{layer!r}.backward returned None for dx, which the layer before it needs")
            if len(layer_grads):
                parts.append((place, layer_grads.vector))
        grads = self.params.like(np.result_type(*(part for _, part in parts)) if parts else None)
        for place, part in parts:
            grads.vector[place] = part
        return dy, grads

    def predict(self, x: Any) -> Array:
        """Return the raw output for finite x of shape (n_samples, n_features).

        For a loss on logits these are logits; ``loss.link.forward(net.predict(x))[0]`` are the probabilities.

        Raises
        ------
        ValueError
            If x has another rank or width, is not made of real numbers, or is not finite.
        """
        y = as_features(x, self.params.dtype, self.in_features)
        for layer in self.layers:
            y, _ = forward_pair(layer, layer.forward(y))
        return y  # type: ignore[no-any-return]

    @property
    def in_features(self) -> int | None:
        """The width of x, or None if no layer fixes it."""
        return self._widths()[0]

    @property
    def out_features(self) -> int | None:
        """The width of y, or None if no layer fixes it."""
        return self._widths()[1]

    def initialize(self, rng: np.random.Generator) -> None:
        """Give values to the layers that have none, first to last."""
        for layer in self.layers:
            layer.initialize(rng)

    def _widths(self) -> tuple[int | None, int | None]:
        """Return the widths of x and y, as far as layers state theirs; raise a ValueError where two disagree."""
        first: int | None = None
        width: int | None = None
        at_start = True  # nothing but layers that keep the width so far
        for i, layer in enumerate(self.layers):
            if isinstance(layer, Sequential):
                takes, gives = layer._widths()
            else:
                takes, gives = getattr(layer, "in_features", None), getattr(layer, "out_features", None)
            if takes is not None and width is not None and takes != width:
                raise ValueError(f"layer {i}, {layer!r}, takes {takes} features, but the layers before it give {width}")
            if at_start:
                first = takes
            if not _keeps_width(layer):
                at_start, width = False, gives
        return first, width

    def _check_layers(self) -> None:
        if not self.layers:
            raise ValueError("Sequential takes at least one layer, got none")
        seen: dict[int, int] = {}
        for i, layer in enumerate(self.layers):
            if not isinstance(layer, Layer):
                hint = f"; did you mean {layer.__name__}(...)?" if isinstance(layer, type) else ""
                raise ValueError(f"layer {i} must be a Layer, got {layer!r}{hint}")
            if not isinstance(layer, Sequential) and any(isinstance(part, Layer) for part in vars(layer).values()):
                raise ValueError(
                    f"layer {i}, {layer!r}, holds another layer; only Sequential can bind layers inside layers"
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
        self._widths()

    def _bind_layers(self, dtype: DTypeLike) -> None:
        """Move the layers' values into one new vector, and let the layers look into it."""
        layout = {
            f"{i}.{name}": shape for i, layer in enumerate(self.layers) for name, shape in layer.params.layout.items()
        }
        self.params = Parameters(layout, dtype=dtype)
        self._places = []
        start = 0
        for i, layer in enumerate(self.layers):
            self._places.append(slice(start, start + layer.params.vector.size))
            start += layer.params.vector.size
            part = self.params.sub(str(i))
            for name in set(layer.params) - set(layer.params.unfilled()):
                part[name] = layer.params[name]
        self._bind(self.params, None)

    def _bind(self, params: Parameters, place: tuple[int, str] | None) -> None:
        super()._bind(params, place)
        name = repr(self)
        for i, layer in enumerate(self.layers):
            layer._bind(self.params.sub(str(i)), (i, name))

    def with_params(self, params: Parameters) -> Self:
        """Return an unbound twin that reads other parameters, of any dtype."""
        twin = super().with_params(params)
        twin.layers = tuple(layer.with_params(params.sub(str(i))) for i, layer in enumerate(self.layers))
        for twin_layer, layer in zip(twin.layers, self.layers, strict=True):
            twin_layer._place = layer._place  # bound to the twin, as the layer is to this network
        return twin

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {key: value for key, value in state.items() if key not in ("params", "_places")} | {
            "dtype": self.params.dtype
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        dtype = state.pop("dtype")
        self.__dict__.update(state)
        self._bind_layers(dtype)

    def __repr__(self) -> str:
        return f"Sequential([{', '.join(map(repr, self.layers))}])"


def _keeps_width(layer: Layer) -> bool:
    """Tell whether y is known to be as wide as x."""
    if isinstance(layer, Sequential):
        return all(map(_keeps_width, layer.layers))
    return isinstance(layer, _KEEP_WIDTH)
