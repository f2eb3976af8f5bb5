"""Run a network step by step: the one walker of checks, traces and reasons, through composites at any depth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..contract import Array, Cache, Layer, Parameters, apply, backward_pair
from .compose import Composite, Sequential, is_open

if TYPE_CHECKING:
    from ..contract import Rng

Change = Callable[[str, str, Any], Any]  # (name of a step, "x" or "y", value) -> value


class Step:
    """One layer at work: its name, such as "1.0", what came in and went out; with dy, what came back as well.

    ``parts`` are the steps inside a composite, by number; ``grads`` are those of a layer that holds no others.
    """

    __slots__ = ("cache", "dx", "dy", "grads", "layer", "name", "parts", "x", "y")

    def __init__(self, name: str, layer: Layer, x: Any, y: Any, cache: Cache, parts: dict[int, Step]) -> None:
        self.name, self.layer, self.x, self.y, self.cache, self.parts = name, layer, x, y, cache, parts
        self.dy: Any = None
        self.dx: Any = None
        self.grads: Parameters | None = None

    def at(self, name: str) -> Step:
        """Return the step of this name, inside of this one."""
        step = self
        for i in filter(None, name.removeprefix(self.name).split(".")):
            step = step.parts[int(i)]
        return step


def walk(net: Layer, x: Any, rng: Rng = None, dy: Array | None = None) -> list[Step]:
    """Return the steps of a network in the order in which they ran: its layers, and the joins of its composites.

    A Sequential joins nothing, and is no step; Residual, Concatenate and Parallel are steps after those of their branches.
    With ``dy``, the gradient with respect to y, each step also has dy, dx and grads. A composite whose forward or backward is
    somebody's own is one step.
    """
    whole = run_steps(net, x, rng)
    if dy is not None:
        run_back(whole, dy)
    return list(_in_order(whole))


def _in_order(step: Step) -> Iterator[Step]:
    for i in sorted(step.parts):
        yield from _in_order(step.parts[i])
    if not (step.parts and isinstance(step.layer, Sequential)):
        yield step


def run_steps(net: Layer, x: Any, rng: Rng = None, *, change: Change | None = None, name: str = "") -> Step:
    """Run a network; return it as a step, with those inside as its parts.

    ``change(name, side, value)`` may put another value in the place of what goes into ("x") or comes out of ("y") a step.
    """
    parts: dict[int, Step] = {}
    if change is not None:
        x = change(name, "x", x)
    if is_open(net):
        assert isinstance(net, Composite)

        def run(i: int, x: Any) -> tuple[Any, Cache]:
            parts[i] = run_steps(net.children[i], x, rng, change=change, name=f"{name}.{i}".lstrip("."))
            return parts[i].y, parts[i].cache

        y, cache = net._forward(x, run)
    else:
        y, cache = apply(net, x, rng)
    if change is not None:
        y = change(name, "y", y)
    return Step(name, net, x, y, cache, parts)


def run_back(step: Step, dy: Any) -> Any:
    """Send dy back through a step; its dy, dx and grads, and those of its parts, are noted. Return dx."""
    step.dy = dy
    if step.parts:
        assert isinstance(step.layer, Composite)
        step.dx = step.layer._backward(dy, step.cache, lambda i, dy, _, needs_dx: run_back(step.parts[i], dy), True)
    else:
        step.dx, step.grads = backward_pair(step.layer, step.layer.backward(dy, step.cache))
    return step.dx


def chain(net: Layer, start: int = 0) -> Iterator[tuple[Layer, int]]:
    """Yield the layers of Sequentials in Sequentials, each with the place of its parameters in the outermost vector.

    What branches counts as one layer, and so does a subclass of Sequential.
    """
    if type(net) is not Sequential:
        yield net, start
        return
    for layer, place in zip(net.layers, net.places, strict=True):
        yield from chain(layer, start + place.start)
