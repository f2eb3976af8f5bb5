"""Tied: a network that ends where it began, so that the vectors of an embedding also tell its ids apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Array, Cache, Layer, Parameters, Shape, apply, check_filled, floating, numbers_of
from ..ragged import Ragged
from .compose import Composite
from .dense import Dense
from .embedding import Embedding

if TYPE_CHECKING:
    from ..contract import Rng


class Tied(Composite):
    """y = f(E[x]) E^T + b: one logit for each id, how well its vector fits f's output (docs/sequences.md, eq. 69).

    E is used twice, so dE is the sum of both uses: that of the Embedding, and dy^T h, with h = f(E[x]); dh = dy E, db = sum dy.

    Parameters
    ----------
    embedding : Embedding
    layers : Layer or list of Layer
        f, which gives rows, or events, as wide as the embedding; a list is a Sequential of it.

    Raises
    ------
    ValueError
        If f gives another width.

    References
    ----------
    Press and Wolf (2017), "Using the output embedding to improve language models".

    Examples
    --------
    >>> from nnprofile import Identity
    >>> net = Tied(Embedding(2, 1), Identity())
    >>> net.params["0.E"], net.params["b"] = [[1], [2]], [0, 0]
    >>> net.forward(np.array([1]))[0].tolist()
    [[2.0, 4.0]]
    """

    takes = "ids"

    def __init__(self, embedding: Embedding, layers: Layer | Sequence[Layer]) -> None:
        if not isinstance(embedding, Embedding):
            raise ValueError(f"Tied takes an Embedding and the layers after it, got {embedding!r}")
        super().__init__([embedding, layers])

    def _own_shapes(self) -> dict[str, Shape]:
        embedding = self.children[0]
        assert isinstance(embedding, Embedding)
        return {"b": (embedding.n_ids,)}

    def _width_of_x(self) -> Any:
        return None

    def _kind_of_x(self) -> Any:
        return "ids"

    def output_width(self, width: Any) -> int | None:
        """Return the number of ids."""
        embedding, f = self.children
        assert isinstance(embedding, Embedding)
        if f.output_width(embedding.features) not in (None, embedding.features):
            raise ValueError(
                f"Tied compares f(E[x]) with E, {embedding.features} wide, but {f!r} makes other rows of it"
            )
        return embedding.n_ids

    @property
    def head(self) -> Dense:
        """The product with E^T, as a Dense layer of the parameters as they are now."""
        E, b = self.params["0.E"], self.params["b"]
        dense = Dense(E.shape[1], E.shape[0])
        return dense.with_params(dense.params.of(np.concatenate([E.T.ravel(), b])))

    def forward(self, x: Any, rng: Rng = None) -> tuple[Any, Cache]:
        """Return y, n_ids wide."""
        embedding, f = self.children
        check_filled(self)
        e, ids = apply(embedding, x, rng)
        h, kept = apply(f, e, rng)
        rows = numbers_of(h)
        y = self.head.forward(rows)[0]
        return (Ragged.of(y, h.offsets) if isinstance(h, Ragged) else y), (ids, kept, rows)

    def backward(self, dy: Array, cache: Cache) -> tuple[None, Parameters]:
        """Return None for dx, and the gradients of E, of f and of b."""
        (embedding, f), (ids, kept, h) = self.children, cache
        dh, last = self.head.backward(floating(dy), h)
        de, inner = f.backward(dh, kept)  # type: ignore[arg-type]
        _, first = embedding.backward(de, ids)  # type: ignore[arg-type]
        grads = self.params.like(np.result_type(first.dtype, inner.dtype if len(inner) else first.dtype, last.dtype))
        grads.vector[self.places[1]] = inner.vector
        grads["0.E"], grads["b"] = first["E"] + last["W"].T, last["b"]
        return None, grads

    def initialize(self, rng: np.random.Generator) -> None:
        """Give values to the layers that have none, and set b to zero, if it has none."""
        super().initialize(rng)
        if "b" in self.params.unfilled():
            self.params["b"] = np.zeros(self.params.layout["b"])

    def __repr__(self) -> str:
        return f"Tied({self.children[0]!r}, {self.children[1]!r})"
