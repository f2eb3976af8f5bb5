"""Run the pass again with another number somewhere: what the check of a gradient asks for.

In double precision, through complex numbers if they come, with the same draws as the traced pass, and on twins of the layers.
All parameters take part as numbers that the checker may shake, which is how it measures rounding.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ..contract import Array, Layer, Loss, Parameters, numbers_of
from ..gradcheck.reference import Subject
from ..gradcheck.tree import leaves, rebuild
from ..layers.walk import Change, Step, run_back, run_steps
from ..objectives import penalty
from ..ragged import Ragged


class Replay:
    """A network, the loss behind it, and what they were given.

    Parameters
    ----------
    net, loss : Layer, Loss
    x, y_true, weights
        As ``Layer.forward`` and ``Loss.forward`` take them.
    decay : float
        l2 / sum of the weights: the L2 term is decay / 2 * sum W^2.
    rng : Generator or None
        Its state before the pass.
    """

    def __init__(
        self,
        net: Layer,
        loss: Loss,
        x: Any,
        y_true: Any,
        weights: Array | None,
        decay: float,
        rng: np.random.Generator | None,
    ) -> None:
        self.net, self.loss, self.y_true, self.weights, self.decay, self.rng = net, loss, y_true, weights, decay, rng
        self.layout, self.vector = net.params.layout, net.params.vector.astype(float)
        self.x = rebuild(x, (np.array(a, float, order="C") for _, a in leaves(x)))
        self._twin: Layer | None = None  # with the parameters of the last run

    def at(self, name: str, side: str, value: Array) -> Subject:
        """Return the loss as a function of what goes into ("x") or comes out of ("y") a step, and of all parameters."""

        def run(at: list[Array]) -> tuple[Any, Step, Array]:
            return self._run(self.x, at[1], lambda n, s, old: _like(old, at[0]) if (n, s) == (name, side) else old)

        def pullback(at: list[Array], scale: Array) -> list[Array | None]:
            _, whole, dy = run(at)
            run_back(whole, dy)
            step = whole.at(name)
            return [float(scale) * (step.dx if side == "x" else step.dy), None]

        return Subject(
            ["x", "parameters"], [np.array(value, float, order="C"), self.vector], lambda at: run(at)[0], pullback
        )

    def at_parameter(self, step: str, own: str) -> Subject:
        """Return the objective as a function of a step's parameter, of x, and of all parameters."""
        name = f"{step}.{own}".lstrip(".")
        decay = self.decay if name in self.net.params.matrices() else 0.0
        arrays = [a for _, a in leaves(self.x)]

        def run(at: list[Array]) -> tuple[Any, Step, Array]:
            return self._run(rebuild(self.x, iter(at[1:-1])), at[-1], None, (step, own, at[0]))

        def output(at: list[Array]) -> Any:
            return run(at)[0] + penalty([at[0]], decay)

        def pullback(at: list[Array], scale: Array) -> list[Array | None]:
            _, whole, dy = run(at)
            run_back(whole, dy)
            grads = whole.at(step).grads
            assert grads is not None
            return [float(scale) * (np.asarray(grads[own], float) + decay * at[0]), *[None] * (len(at) - 1)]

        start = np.array(Parameters(self.layout, self.vector)[name])
        names = ["V", *("x" for _ in arrays), "parameters"]
        return Subject(names, [start, *arrays, self.vector], output, pullback)

    def _run(
        self, x: Any, vector: Array, change: Change | None, moved: tuple[str, str, Array] | None = None
    ) -> tuple[Any, Step, Array]:
        if self._twin is None or not np.array_equal(self._twin.params.vector, vector):
            self._twin = self.net.with_params(Parameters(self.layout, vector.copy()))
        net = self._twin  # most points differ elsewhere
        if moved is not None:
            net = _with_parameter(net, *moved)
        whole = run_steps(net, x, copy.deepcopy(self.rng), change=change)
        value, cache = self.loss.forward(numbers_of(whole.y), self.y_true, self.weights)
        return value, whole, self.loss.backward(cache)


def _with_parameter(net: Layer, name: str, own: str, value: Array) -> Layer:
    """Return a network in which one parameter is another: complex, perhaps, which no layer before it sees."""
    if name:
        i, _, rest = name.partition(".")
        twin = net.with_params(net.params)
        twin.children = tuple(
            _with_parameter(layer, rest, own, value) if k == int(i) else layer for k, layer in enumerate(net.children)
        )
        return twin
    params = Parameters(net.params.layout, net.params.vector.astype(np.result_type(value, net.params.vector)))
    params[own] = value
    return net.with_params(params)


def _like(old: Any, values: Array) -> Any:
    return Ragged.of(values, old.offsets) if isinstance(old, Ragged) else values
