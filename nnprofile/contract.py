"""The library on one page: what a layer, a loss and an optimizer are, and how they share parameters.

Everything else is an instance of these four ideas; read this file first.

The one invariant: every ``backward`` returns exactly the vector-Jacobian product of its own ``forward``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from math import inf, prod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    Array = NDArray[Any]
else:
    Array = np.ndarray
Cache = Any
Shape = tuple[int, ...]


class Parameters(Mapping[str, Array]):
    """Name the pieces of one contiguous vector: ``params[name]`` is a view, shaped, of ``params.vector``.

    One vector holds a whole network, so an optimizer is one line on one array, and a file is one array.
    ``params[name] = a`` copies ``a`` into the view. When a layer is bound into a network, its ``params`` look into the
    network's vector from then on; an array taken out before, ``W = layer.params["W"]``, does not.

    Parameters
    ----------
    layout : mapping of str to tuple of int
        Names and shapes, in the order in which they lie in the vector.
    vector : Array, shape (n_parameters,), optional
        The memory to name. Not copied. By default a new one full of NaN, which means "no value yet".
    dtype : data type, default float64
        Of the new vector, when none is given.

    Raises
    ------
    ValueError
        If ``vector`` does not have the size that the layout needs.

    Examples
    --------
    >>> params = Parameters({"W": (2, 1), "b": (1,)}, np.array([1.0, 2.0, 3.0]))
    >>> params["W"].tolist(), params["b"].tolist()
    ([[1.0], [2.0]], [3.0])
    >>> params["b"] = [5]
    >>> params.vector.tolist()
    [1.0, 2.0, 5.0]
    """

    __slots__ = ("_slices", "_vector", "layout")

    def __init__(
        self, layout: Mapping[str, Shape], vector: Array | None = None, *, dtype: DTypeLike = np.float64
    ) -> None:
        self.layout: dict[str, Shape] = {name: tuple(shape) for name, shape in layout.items()}
        self._slices: dict[str, slice] = {}
        size = 0
        for name, shape in self.layout.items():
            self._slices[name] = slice(size, size + prod(shape))
            size += prod(shape)
        if vector is None:
            vector = np.full(size, np.nan, dtype)
        if vector.shape != (size,):
            raise ValueError(f"vector has shape {vector.shape}, the layout {self.layout} needs ({size},)")
        self._vector = vector

    @property
    def vector(self) -> Array:
        """All parameters in one array, shape (n_parameters,). Assignment copies into it."""
        return self._vector

    @vector.setter
    def vector(self, values: ArrayLike) -> None:
        _copy_into(self._vector, values, "vector")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type of the vector."""
        return self._vector.dtype

    def __getitem__(self, name: str) -> Array:
        return self._vector[self._slices[name]].reshape(self.layout[name])

    def __setitem__(self, name: str, values: ArrayLike) -> None:
        _copy_into(self[name], values, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def sub(self, prefix: str) -> Parameters:
        """Return the parameters whose names start with ``prefix + "."``, without it: a contiguous slice, not a copy."""
        head = prefix.removesuffix(".") + "."
        layout = {name[len(head) :]: shape for name, shape in self.layout.items() if name.startswith(head)}
        slices = [self._slices[head + name] for name in layout]
        if sum(s.stop - s.start for s in slices) != (slices[-1].stop - slices[0].start if slices else 0):
            raise ValueError(f"the parameters under {prefix!r} do not lie side by side in {list(self.layout)}")
        return Parameters(layout, self._vector[slices[0].start : slices[-1].stop] if slices else self._vector[:0])

    def like(self, dtype: DTypeLike | None = None) -> Parameters:
        """Return zeros of the same layout."""
        twin = object.__new__(Parameters)
        twin.layout, twin._slices = self.layout, self._slices
        twin._vector = np.zeros(self._vector.shape, self.dtype if dtype is None else dtype)
        return twin

    def matches(self, other: Parameters) -> bool:
        """Tell whether the names and shapes are the same, in the same order."""
        return list(self.layout.items()) == list(other.layout.items())

    def look_into(self, vector: Array) -> None:
        """Name other memory from now on, of the same size."""
        if vector.shape != self._vector.shape:
            raise ValueError(
                f"the layout {self.layout} needs a vector of shape {self._vector.shape}, got {vector.shape}"
            )
        self._vector = vector

    def weights(self) -> list[str]:
        """Return the names of the weights ``W``: what decay and the L2 term touch, and biases never are."""
        return [name for name in self.layout if name.rpartition(".")[2] == "W"]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parameters) and self.matches(other) and np.array_equal(self._vector, other._vector)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of the numbers, never of the memory that they are a window on.
        return Parameters, (self.layout, self._vector.copy())

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {shape}" for name, shape in self.layout.items())
        return f"Parameters({{{shapes}}}, {self.dtype})"


def _copy_into(view: Array, values: ArrayLike, name: str) -> None:
    values = np.asarray(values)
    if values.shape != view.shape:
        raise ValueError(f"{name} has shape {view.shape}, got values of shape {values.shape}")
    try:
        np.copyto(view, values, casting="same_kind")
    except TypeError:
        raise ValueError(f"{name} holds {view.dtype}, got values of type {values.dtype}") from None


class Configured:
    """State what an object was made of: ``type(obj)(**obj.config())`` is of the same form, without its numbers.

    ``repr`` and the model file are made from it.
    """

    config_names: ClassVar[tuple[str, ...]] = ()

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {name: getattr(self, name) for name in self.config_names}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"

    def __copy__(self) -> Self:
        # A shallow copy would share parameters or moments, and training one would silently train the other.
        return copy.deepcopy(self)


class Layer(Configured):
    """Map a batch ``x`` to ``y``, and a cotangent ``dy`` back to ``dx``.

    A layer holds parameters and nothing else: what ``backward`` needs is returned by ``forward`` as ``cache``, so
    several forwards may come before one backward. ``dV`` means d loss / d V. Two rules are left: between forward and
    backward neither the weights nor ``x``, which the cache may hold, are changed.

    A subclass writes ``forward`` and ``backward``; one with parameters sets ``self.params`` in its ``__init__``, and
    ``initialize`` if it is to draw their values. Only Sequential holds other layers.
    """

    params: Parameters = Parameters({})  # none, unless ``__init__`` sets some
    _place: tuple[int, str] | None = None  # where the layer is bound: its number, and the network

    def forward(self, x: Array, rng: np.random.Generator | None = None) -> tuple[Array, Cache]:
        """Return ``(y, cache)``. With ``rng``: training mode, for layers that draw; without: inference."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        """Return ``(dx, grads)``: dx_i = sum_j dy_j dy_j/dx_i (docs/backprop.md, eq. 18), and grads in the layout of params."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def initialize(self, rng: np.random.Generator) -> None:
        """Give values to the parameters that have none yet (NaN)."""

    def with_params(self, params: Parameters) -> Self:
        """Return an unbound twin that reads other parameters, of any dtype (complex ones for the complex step).

        Raises
        ------
        ValueError
            If the layouts differ.
        """
        if not params.matches(self.params):
            raise ValueError(f"{self!r} has parameters {self.params.layout}, got {params.layout}")
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, params=Parameters(params.layout, params.vector), _place=None)
        return twin

    def _bind(self, vector: Array, place: tuple[int, str] | None) -> None:
        """Look into this memory, which holds the layer's values already."""
        if len(self.params):
            self.params.look_into(vector)
        self._place = place

    def __getstate__(self) -> dict[str, Any]:
        # A layer copied out of its network is free again; Sequential binds its own when it is unpickled.
        return {**self.__dict__, "_place": None}


class Loss(Configured):
    """Compare predictions with the truth: one number, and its exact gradient.

    ``forward(y_pred, y_true, sample_weight)`` returns ``(value, cache)``; ``backward(cache)`` returns d value / d y_pred.
    """

    def forward(
        self, y_pred: ArrayLike, y_true: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[Any, Cache]:
        """Return ``(value, cache)``: sum(w * l) / sum(w) over the samples' losses l, a scalar of y_pred's kind.

        The prediction comes first and the truth second: d value / d y_pred is what ``backward`` returns.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, cache: Cache) -> Array:
        """Return d value / d y_pred, with y_pred's shape."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def targets(self, y_true: ArrayLike, n_outputs: int) -> Array:
        """Return ``y_true`` in the form that ``forward`` works on, or raise a ValueError that says what is wrong."""
        return np.asarray(y_true)

    @property
    def link(self) -> Layer:
        """The layer that turns y_pred into the prediction."""
        raise NotImplementedError(f"{type(self).__name__} has no link")


class Optimizer(Configured):
    """Move parameters along their gradients, in place.

    ``state`` holds one flat array per moment, made at the first step; ``n_steps`` counts the steps taken.
    Parameter arrays are never kept, so one optimizer goes on over copies, files and further calls of ``fit``.
    """

    learning_rate: float | Callable[[int], float]
    moments: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.n_steps = 0
        self.state: dict[str, Array] = {}
        self.layout: dict[str, Shape] | None = None

    def step(self, params: Parameters, grads: Parameters) -> None:
        """Update ``params`` in place."""
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of the step with this number (the first is 0).

        Raises
        ------
        ValueError
            If a schedule gives none that is finite and at least 0.
        """
        rate = self.learning_rate
        try:
            rate = float(rate(step) if callable(rate) else rate)
        except OverflowError:  # a schedule that grows without bound
            rate = inf
        if not 0 <= rate < inf:
            raise ValueError(f"the learning rate of step {step} is {rate}")
        return rate

    def prepare(self, params: Parameters) -> None:
        """Make the moments at the first step; later, check that they belong to these parameters."""
        self.check(params)
        if self.layout is None:
            self.layout = dict(params.layout)
            self.state = {name: np.zeros_like(params.vector) for name in self.moments}

    def check(self, params: Parameters) -> None:
        """Check that these are parameters it can step, or has stepped.

        Raises
        ------
        ValueError
            If the optimizer has moments of another layout or dtype.
        """
        if self.layout is not None and list(self.layout.items()) != list(params.layout.items()):
            raise ValueError(
                f"this {type(self).__name__} has stepped {self.layout}, got parameters {params.layout}; "
                "make a new optimizer for another network"
            )
        for name, moment in self.state.items():
            if moment.dtype != params.dtype:
                raise ValueError(f"this {type(self).__name__} keeps {name} in {moment.dtype}, got {params.dtype}")


class ContractError(ValueError):
    """A layer's method returned something other than the contract says."""


def forward_pair(layer: Layer, out: Any) -> tuple[Any, Cache]:
    """Return what ``forward`` returned, if that is (y, cache); an array of two rows would unpack too.

    Raises
    ------
    ContractError
        If it is something else; the message names the layer.
    """
    if not isinstance(out, tuple) or len(out) != 2:
        raise ContractError(f"{layer!r}.forward must return (y, cache), got {_kind(out)}")
    return out


def backward_pair(layer: Layer, out: Any) -> tuple[Any, Parameters]:
    """Return what ``backward`` returned, if that is (dx, grads) with grads in the layout of the layer's parameters.

    Raises
    ------
    ContractError
        If it is something else; the message names the layer and what it must return.
    """
    wanted = "grads = self.params.like(), filled" if len(layer.params) else "grads = Parameters({})"
    if not isinstance(out, tuple) or len(out) != 2:
        raise ContractError(f"{layer!r}.backward must return (dx, grads) with {wanted}; got {_kind(out)}")
    if not isinstance(out[1], Parameters) or not out[1].matches(layer.params):
        raise ContractError(
            f"{layer!r} has {layer.params}, its backward returned the gradients {_kind(out[1])}; "
            f"return (dx, grads) with {wanted}"
        )
    if out[0] is not None and not hasattr(out[0], "shape"):
        raise ContractError(f"{layer!r}.backward must return (dx, grads) with an array dx, got {_kind(out[0])}")
    return out


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, Parameters) or value == {}:
        return repr(value)
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else type(value).__name__


def floating(x: Any) -> Array:
    """Return ``x`` as an array of floats, or of complex numbers, if it is not one already; sparse ones only Dense takes."""
    if is_sparse(x):
        raise ValueError("sparse x is taken by Dense alone: make it the first layer")
    out: Array = np.asarray(x)
    return out if out.dtype.kind in "fc" else out.astype(np.float64)


def is_sparse(x: object) -> bool:
    """Tell whether ``x`` is a scipy.sparse matrix, without importing scipy."""
    return hasattr(x, "tocsr")
