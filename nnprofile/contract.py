"""The library on one page: what a layer, a loss and an optimizer are, and how they share parameters.

Everything else is an instance of these four ideas; read this file first.

The one invariant: every ``backward`` returns exactly the vector-Jacobian product of its own ``forward``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from .parameters import Array as Array
from .parameters import Parameters as Parameters
from .parameters import Shape as Shape
from .ragged import Ragged

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Rng = np.random.Generator | None  # what draws in training mode

Cache = Any


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


class Spent(NamedTuple):
    """A run of private training: n_steps sums over rows drawn with probability ``rate``, with ``noise`` * clip added to each."""

    noise: float
    rate: float
    n_steps: int


class Layer(Configured):
    """Map a batch ``x`` to ``y``, and a cotangent ``dy`` back to ``dx``.

    A layer holds parameters and nothing else: what ``backward`` needs is returned by ``forward`` as ``cache``, so
    several forwards may come before one backward. ``dV`` means d loss / d V. Two rules are left: between forward and
    backward neither the weights nor ``x``, which the cache may hold, are changed.

    What it is given is rows: a row's y depends on that row alone. A layer that *mixes events* says so, and is given sequences,
    a ``Ragged`` x; its dx and dy are arrays all the same, of the shape of x's and y's numbers (see ``apply``).

    A subclass writes ``forward`` and ``backward``; one with parameters sets ``self.params`` in its ``__init__``, and
    ``initialize`` if it is to draw their values. Only a Composite, such as Sequential, holds other layers: its ``children``.
    """

    formula: ClassVar[Mapping[str, str]] = {}  # what it computes, in Python's syntax; see ``nnprofile.formulas``
    takes: Any = "numbers"  # or "ids", integers that stay integers; a tuple, one for each part of a tuple x
    mixes_events: bool = False  # whether it needs to know which events belong together
    causal: bool = False  # of one that does: whether no event's y depends on later ones
    params: Parameters = Parameters({})  # none, unless ``__init__`` sets some
    children: tuple[Layer, ...] = ()  # of a composite
    ledger: tuple[Spent, ...] = ()  # the private runs that it went through
    _place: tuple[int, str] | None = None  # where the layer is bound: its number, and the network

    def forward(self, x: Any, rng: np.random.Generator | None = None) -> tuple[Any, Cache]:
        """Return ``(y, cache)``. With ``rng``: training mode, for layers that draw; without: inference."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        """Return ``(dx, grads)``: dx_i = sum_j dy_j dy_j/dx_i (docs/backprop.md, eq. 18), and grads in the layout of params."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    @classmethod
    def shapes(cls, *args: Any, **config: Any) -> dict[str, Shape]:
        """Return the layout of the parameters that ``cls(*args, **config)`` has, without memory for them; none by default.

        Raises
        ------
        ValueError
            If the configuration is not one of this layer.
        """
        return {}

    def gradients(self, dy: Array, cache: Cache) -> Parameters:
        """Return what ``backward`` returns as grads, for callers that need no dx: a layer may then spare itself to compute it."""
        return backward_pair(self, self.backward(dy, cache))[1]

    def output_width(self, width: Any) -> int | None:
        """Return the width of y for an x of this width, None if that is not known; by default ``out_features``, if there is one.

        Raises
        ------
        ValueError
            If the layer takes no x of this width.
        """
        takes = getattr(self, "in_features", None)
        if takes is not None and width is not None and takes != width:
            raise ValueError(f"{self!r} takes {takes} features, got {width}")
        return getattr(self, "out_features", None)

    def inner(self, cache: Cache) -> dict[str, Array]:
        """Return, of what ``forward`` kept, the quantities that ``formula`` names between x and y; none by default."""
        return {}

    def initialize(self, rng: np.random.Generator) -> None:
        """Give values to the parameters that have none yet."""

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
        twin.__dict__.update(self.__dict__, params=params.view(), _place=None)
        return twin

    def _bind(self, params: Parameters, place: tuple[int, str] | None) -> None:
        """Name this memory, which holds the layer's values already."""
        if len(self.params):
            self.params.rebind(params)
        self._place = place

    def __getstate__(self) -> dict[str, Any]:
        # A layer copied out of its network is free again; Sequential binds its own when it is unpickled.
        return {**self.__dict__, "_place": None}


class Loss(Configured):
    """Compare predictions with the truth: one number, and its exact gradient.

    ``forward(y_pred, y_true, sample_weight)`` returns ``(value, cache)``; ``backward(cache)`` returns d value / d y_pred.
    """

    formula: ClassVar[Mapping[str, str]] = {}  # "l" of one sample, and "slope", dl / dy_pred

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

    def of_targets(self, y_pred: Array, targets: Array, sample_weight: Array | None = None) -> tuple[Any, Cache]:
        """Return what ``forward`` does, of what ``targets`` returned: a loss may spare itself to look at it again."""
        return self.forward(y_pred, targets, sample_weight)

    @property
    def link(self) -> Layer:
        """The layer that turns y_pred into the prediction."""
        raise NotImplementedError(f"{type(self).__name__} has no link")


class Optimizer(Configured):
    """Move parameters along their gradients, in place.

    ``state`` holds one flat array per moment, made at the first step; ``n_steps`` counts the steps taken.
    Parameter arrays are never kept, so one optimizer goes on over copies, files and further calls of ``fit``.
    """

    formula: Mapping[str, str] = {}  # new values of the moments and of "w"; what is new already is called "m_new"
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


def own_type(thing: Layer | Loss | Optimizer) -> type:
    """Return the type of a layer, a loss or an optimizer; of the engine's twin of one, that of the one."""
    return getattr(thing, "twin_of", type(thing))


class ContractError(ValueError):
    """A layer's method returned something other than the contract says."""


def check_filled(layer: Layer) -> None:
    """Check that all parameters have values.

    Raises
    ------
    ValueError
        If some have none; the message names them, and says how they get some.
    """
    if not layer.params.filled:
        missing = layer.params.unfilled()
        raise ValueError(
            f"{layer!r} has no values for {missing}: draw them with rng, here or in Sequential(..., rng=rng), or assign "
            f"params[{missing[0]!r}] = ...; after writing in place, call params.mark_filled()"
        )


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


def apply(layer: Layer, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
    """Return what ``layer.forward(x, rng)`` does; where sequences meet a layer of rows, it is given the events of all of them.

    So y gets x's offsets, and neither such a layer nor its backward knows of sequences.

    Raises
    ------
    ContractError
        If forward returns something else than (y, cache); the message names the layer.
    """
    if not isinstance(x, Ragged):
        return forward_pair(layer, layer.forward(x, rng))
    if layer.mixes_events:
        y, cache = forward_pair(layer, layer.forward(x, rng))
        check_events(layer, x, y)
        return y, cache
    y, cache = forward_pair(layer, layer.forward(x.values, rng))
    return Ragged.of(y, x.offsets), cache


def check_events(layer: Layer, x: Ragged, y: Any) -> None:
    """Check what a layer that mixes events gives.

    Raises
    ------
    ContractError
        If it is neither an event for each of x, nor a row for each sequence.
    """
    fits = x.same_events(y) if isinstance(y, Ragged) else not hasattr(y, "shape") or y.shape[:1] == (len(x),)
    if not fits:
        got = x.difference(y) if isinstance(y, Ragged) else f"an array of shape {y.shape} for {len(x)} sequences"
        wanted = "a Ragged with an event for each of x, or an array with a row for each sequence"
        raise ContractError(f"{layer!r}.forward must return {wanted}; got {got}")


def numbers_of(y: Any) -> Any:
    """Return the rows of an array, or of all sequences: what a loss compares, and what dy has the shape of."""
    return y.values if isinstance(y, Ragged) else y


def needs_sequences(layer: Layer, x: Any) -> str:
    """Return what is to be said where a layer that mixes events is given rows."""
    return f"{layer!r} takes sequences, a Ragged; got {_kind(x)}: see Ragged.from_list, from_padded and from_frame"


def as_sequences(layer: Layer, x: Any) -> Ragged:
    """Return ``x`` if it is a Ragged, of rows as wide as the layer takes and of numbers.

    Raises
    ------
    ValueError
        If it is something else; the message says how to make one.
    """
    if not isinstance(x, Ragged):
        raise ValueError(needs_sequences(layer, x))
    values, width = floating(x.values), getattr(layer, "in_features", None)
    if values.ndim != 2 or width not in (None, values.shape[1]):
        wanted = "n_features" if width is None else width
        raise ValueError(f"{layer!r} takes events of shape (n_events, {wanted}), got {values.shape}")
    return x if values is x.values else Ragged.of(values, x.offsets)


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
    several = isinstance(getattr(layer, "in_features", None), tuple) and isinstance(out[0], tuple)
    if out[0] is not None and not hasattr(out[0], "shape") and not several:
        raise ContractError(f"{layer!r}.backward must return (dx, grads) with an array dx, got {_kind(out[0])}")
    return out


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, Parameters) or (isinstance(value, dict) and not value):
        return repr(value)
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else type(value).__name__


def n_rows(x: Any) -> int:
    """Return the number of rows of an array or a CSR matrix, of sequences of a Ragged, or of either in the parts of a tuple.

    Raises
    ------
    ValueError
        If the parts of a tuple have different numbers of rows.
    """
    if not isinstance(x, tuple):
        return len(x) if isinstance(x, Ragged) else int(x.shape[0])
    found = [n_rows(part) for part in x]
    if len(set(found)) != 1:
        raise ValueError(f"the parts of a tuple x must have as many rows each, got {found}")
    return found[0]


def take(x: Any, rows: Any) -> Any:
    """Return some rows of an array or a CSR matrix, some sequences of a Ragged, or these of each part of a tuple."""
    return tuple(take(part, rows) for part in x) if isinstance(x, tuple) else x[rows]


def join(parts: list[Any]) -> Any:
    """Return the rows of all parts, one after the other: what ``take`` took apart."""
    first = parts[0]
    if isinstance(first, tuple):
        return tuple(join([part[k] for part in parts]) for k in range(len(first)))
    if isinstance(first, Ragged):
        lengths = np.concatenate([part.lengths for part in parts])
        return Ragged.of(join([part.values for part in parts]), np.concatenate([[0], np.cumsum(lengths)]))
    if is_sparse(first):
        from scipy.sparse import vstack

        return vstack(parts, format="csr")
    return np.concatenate(parts)


SPARSE_IS_FOR_DENSE = "sparse x is taken by Dense alone: make it the first layer"


def floating(x: Any) -> Array:
    """Return ``x`` as an array of floats, or of complex numbers, if it is not one already; sparse ones only Dense takes."""
    if is_sparse(x):
        raise ValueError(SPARSE_IS_FOR_DENSE)
    if isinstance(x, Ragged):
        raise ValueError("a layer of rows takes the events, x.values, not the Ragged x; a network does so by itself")
    out: Array = np.asarray(x)
    return out if out.dtype.kind in "fc" else out.astype(np.float64)


def is_sparse(x: object) -> bool:
    """Tell whether ``x`` is a scipy.sparse matrix, without importing scipy."""
    return hasattr(x, "tocsr")
