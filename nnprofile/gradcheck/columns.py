"""A layer of several inputs as one of a single array, their columns side by side: what the checker looks at is one x."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ..contract import Array, Cache, Layer, Parameters
from ..layers import Sequential


def one_array(layer: Any, x: Any) -> tuple[Any, Any]:
    """Return a layer that takes a tuple, and its x, as a layer and an array; others as they are."""
    if not isinstance(x, tuple) or not isinstance(getattr(layer, "in_features", None), tuple):
        return layer, x
    parts = [np.asarray(part) for part in x]
    if any(part.ndim != 2 or len(part) != len(parts[0]) for part in parts):
        raise ValueError(f"the parts of x must be rows, as many each, got shapes {[part.shape for part in parts]}")
    return Columns(layer, [part.shape[1] for part in parts]), np.hstack(parts)


class Columns(Layer):
    """Cut the columns of x into the parts of a tuple."""

    def __init__(self, layer: Layer, widths: list[int]) -> None:
        self.layer, self.widths = layer, widths

    @property
    def params(self) -> Parameters:  # type: ignore[override]
        """Those of the layer, whatever it is copied to."""
        return self.layer.params

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in a row, the first of which takes the tuple; AttributeError, if they are not."""
        if not isinstance(self.layer, Sequential):
            raise AttributeError("layers")
        first, *rest = self.layer.layers
        return (Columns(first, self.widths), *rest)

    def forward(self, x: Array, rng: np.random.Generator | None = None) -> tuple[Array, Cache]:
        """Return what the layer does."""
        return self.layer.forward(tuple(np.split(x, np.cumsum(self.widths)[:-1], axis=1)), rng)  # type: ignore[arg-type]

    def backward(self, dy: Array, cache: Cache) -> tuple[Array, Parameters]:
        """Return dx, its parts side by side, and the gradients."""
        dx, grads = self.layer.backward(dy, cache)
        return np.hstack(list(dx)), grads  # type: ignore[arg-type]

    def with_params(self, params: Parameters) -> Self:
        """Return an unbound twin that reads other parameters."""
        return type(self)(self.layer.with_params(params), self.widths)

    def __repr__(self) -> str:
        return repr(self.layer)
