"""A network is layers in a row: forward from the first to the last, backward from the last to the first.

It is itself a layer, so networks nest; and it gives all its layers one vector of parameters to look into.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .contract import Array, Cache, Layer, Parameters
from .validation import as_features, check_rng

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    Rng = np.random.Generator | None


class Sequential(Layer):
    """Compose layers: y = f_L(... f_2(f_1(x))).

    The chain rule, for layers 1 .. L with y_0 = x::

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

    def __init__(self, layers: Sequence[Layer], *, rng: Rng, dtype: DTypeLike = np.float64) -> None:
        self.layers = tuple(layers)
        if np.dtype(dtype) not in (np.dtype(np.float64), np.dtype(np.float32)):
            raise ValueError(f"dtype must be float64 or float32, got {np.dtype(dtype)}")
        self._check_layers()
        if rng is not None:
            check_rng(rng)
            self.initialize(rng)
        self._bind_layers(dtype)

    def forward(self, x: Array, rng: Rng = None) -> tuple[Array, Cache]:
        """Return the last layer's output and the caches of all layers. With ``rng``: training mode."""
        caches = []
        for layer in self.layers:
            x, cache = layer.forward(x, rng)
            caches.append(cache)
        return x, caches

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        """Return dx and the gradients of all layers, in the layout of ``params``."""
        grads = None
        for layer, place, layer_cache in zip(self.layers[::-1], self._places[::-1], cache[::-1], strict=True):
            dy, layer_grads = layer.backward(dy, layer_cache)  # type: ignore[assignment]
            if len(layer_grads):
                if grads is None:
                    grads = self.params.like(layer_grads.dtype)
                grads.vector[place] = layer_grads.vector
        return dy, self.params.like() if grads is None else grads

    def predict(self, x: Any) -> Array:
        """Return the raw output (logits, for a loss on logits) for finite x of shape (n_samples, n_features).

        Raises
        ------
        ValueError
            If x has another rank or width, is not made of real numbers, or is not finite.
        """
        y = as_features(x, self.params.dtype, self.in_features)
        for layer in self.layers:
            y, _ = layer.forward(y)
        return y  # type: ignore[no-any-return]

    @property
    def in_features(self) -> int | None:
        """The width of x, or None if no layer fixes it."""
        return next((n for layer in self.layers if (n := getattr(layer, "in_features", None)) is not None), None)

    def initialize(self, rng: np.random.Generator) -> None:
        """Give values to the layers that have none, first to last."""
        for layer in self.layers:
            layer.initialize(rng)

    def _check_layers(self) -> None:
        if not self.layers:
            raise ValueError("Sequential takes at least one layer, got none")
        seen: dict[int, int] = {}
        for i, layer in enumerate(self.layers):
            if not isinstance(layer, Layer):
                raise ValueError(f"layer {i} must be a Layer, got {layer!r}")
            if len(layer.params) and layer._place is not None:
                raise ValueError(
                    f"layer {i}, {layer!r}, is bound already, as {layer._place}; pass a copy.deepcopy of it"
                )
            if len(layer.params) and seen.setdefault(id(layer), i) != i:
                raise ValueError(
                    f"layer {i}, {layer!r}, is layer {seen[id(layer)]} of this network too; pass a copy.deepcopy of it"
                )

    def _bind_layers(self, dtype: DTypeLike) -> None:
        """Move the layers' values into one new vector, and let the layers look into it."""
        layout = {
            f"{i}.{name}": shape for i, layer in enumerate(self.layers) for name, shape in layer.params.layout.items()
        }
        params = Parameters(layout, dtype=dtype)
        for i, layer in enumerate(self.layers):
            params.sub(str(i)).vector = layer.params.vector
        self._bind(params, None)

    def _bind(self, params: Parameters, place: str | None) -> None:
        super()._bind(params, place)
        self._places = []
        start, name = 0, repr(self)
        for i, layer in enumerate(self.layers):
            sub = params.sub(str(i))
            layer._bind(sub, f"layer {i} of {name}")
            self._places.append(slice(start, start + sub.vector.size))
            start += sub.vector.size

    def with_params(self, params: Parameters) -> Sequential:
        """Return an unbound twin that reads other parameters, of any dtype."""
        twin = object.__new__(type(self))
        if params.layout != self.params.layout:
            raise ValueError(f"the network has parameters {self.params.layout}, got {params.layout}")
        twin.__dict__.update(self.__dict__)
        twin.layers = tuple(layer.with_params(params.sub(str(i))) for i, layer in enumerate(self.layers))
        twin._bind(params, None)
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
