"""Run the pass again from any place on: what the check of a gradient asks for.

In double precision, through complex numbers if they come, with the same draws as the traced pass, and on twins of the layers.
The parameters behind the place take part as numbers that the checker may shake, which is how it measures rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..contract import Array, Layer, Loss, Parameters
from ..gradcheck.reference import Subject


class Replay:
    """The layers with what each was given, and the loss behind them.

    Parameters
    ----------
    layers : sequence of (Layer, Array, Generator or None)
        Each with its input, and the generator's state before its forward.
    loss, y_true, weights
        As ``Loss.forward`` takes them.
    decay : float
        l2 / sum of the weights: the L2 term is decay / 2 * sum W^2.
    """

    def __init__(
        self,
        layers: Sequence[tuple[Layer, Array, np.random.Generator | None]],
        loss: Loss,
        y_true: Any,
        weights: Array | None,
        decay: float,
    ) -> None:
        self.layers = [layer for layer, _, _ in layers]
        self.vectors = [layer.params.vector.astype(float) for layer in self.layers]
        self.inputs = [np.array(x, float, order="C") for _, x, _ in layers]
        self.rngs = [rng for _, _, rng in layers]
        self.loss, self.y_true, self.weights, self.decay = loss, y_true, weights, decay

    def at_input(self, k: int, x: Array) -> Subject:
        """Return the loss as a function of what goes into layer k, and of the parameters behind it."""
        x = np.array(x, float, order="C")

        def output(at: list[Array]) -> Any:
            return self._forward(at[0], k, self._twins(k, at[1:]))[0]

        def pullback(at: list[Array], scale: Array) -> list[Array | None]:
            layers = self._twins(k, at[1:])
            _, caches, dy = self._forward(at[0], k, layers)
            for layer, cache in zip(layers[::-1], caches[::-1], strict=True):
                dy, _ = layer.backward(dy, cache)
            return [float(scale) * dy, *[None] * len(at[1:])]

        return Subject(self._names(["x"], k), [x, *self.vectors[k:]], output, pullback)

    def at_parameter(self, k: int, name: str) -> Subject:
        """Return the objective as a function of a parameter of layer k, of the layer's input, and of all behind it."""
        decay = self.decay if name in self.layers[k].params.matrices() else 0.0

        def layers(at: list[Array]) -> list[Layer]:
            kind = np.result_type(at[0], at[2])
            params = Parameters(self.layers[k].params.layout, at[2].astype(kind))
            params[name] = at[0]
            return [self.layers[k].with_params(params), *self._twins(k + 1, at[3:])]

        def output(at: list[Array]) -> Any:
            return self._forward(at[1], k, layers(at))[0] + decay / 2 * (at[0] * at[0]).sum()

        def pullback(at: list[Array], scale: Array) -> list[Array | None]:
            twins = layers(at)
            _, caches, dy = self._forward(at[1], k, twins)
            grads = Parameters({})
            for layer, cache in zip(twins[::-1], caches[::-1], strict=True):
                dy, grads = layer.backward(dy, cache)
            return [float(scale) * (np.asarray(grads[name], float) + decay * at[0]), *[None] * len(at[1:])]

        start = np.array(Parameters(self.layers[k].params.layout, self.vectors[k])[name])
        return Subject(self._names(["V", "x"], k), [start, self.inputs[k], *self.vectors[k:]], output, pullback)

    def _forward(self, x: Array, k: int, layers: list[Layer]) -> tuple[Any, list[Any], Any]:
        caches = []
        for j, layer in enumerate(layers, k):
            x, cache = layer.forward(x, copy.deepcopy(self.rngs[j]))
            caches.append(cache)
        value, cache = self.loss.forward(x, self.y_true, self.weights)
        return value, caches, self.loss.backward(cache)

    def _twins(self, k: int, vectors: list[Array]) -> list[Layer]:
        return [
            layer.with_params(Parameters(layer.params.layout, vector))
            for layer, vector in zip(self.layers[k:], vectors, strict=True)
        ]

    def _names(self, first: list[str], k: int) -> list[str]:
        return [*first, *(f"parameters of layer {j}" for j in range(k, len(self.layers)))]
