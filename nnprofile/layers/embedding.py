"""Embeddings: a vector for each id, and for each position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..contract import Array, Cache, Layer, Parameters, Shape, as_sequences, check_filled, floating
from ..ragged import Ragged
from ..validation import as_ids, check_size

if TYPE_CHECKING:
    from ..contract import Rng


class Embedding(Layer):
    """y_n = E[x_n]: row x_n of a table, for integer ids x in 0 .. n_ids - 1 (docs/sequences.md, eq. 45).

    It is Dense without b on rows that are 1 in place x_n and 0 elsewhere, so dE_i is the sum of dy_n over all n with x_n = i.
    dx is None. ``grads.rows["E"]`` are the ids that occurred, the only rows of dE that are not zero: an optimizer with
    ``lazy=True`` touches those alone.

    Parameters
    ----------
    n_ids, features : int
        E has shape (n_ids, features), and starts at N(0, 1 / features), where the second number is the variance.

    Examples
    --------
    >>> layer = Embedding(3, 2)
    >>> layer.params["E"] = [[0, 0], [1, 2], [3, 4]]
    >>> y, cache = layer.forward(np.array([2, 0, 2]))
    >>> y.tolist(), layer.backward(np.ones((3, 2)), cache)[1]["E"].tolist()
    ([[3.0, 4.0], [0.0, 0.0], [3.0, 4.0]], [[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]])
    """

    config_names = ("n_ids", "features")
    takes = "ids"

    def __init__(self, n_ids: int, features: int) -> None:
        self.params = Parameters(self.shapes(n_ids, features))
        self.n_ids, self.features = self.params.layout["E"]
        self.out_features = self.features

    @classmethod
    def shapes(cls, n_ids: int, features: int) -> dict[str, Shape]:
        """Return {"E": (n_ids, features)}."""
        return {"E": (check_size(n_ids, "n_ids"), check_size(features, "features"))}

    def forward(self, x: Array, rng: Rng = None) -> tuple[Array, Cache]:
        """Return y = E[x], shape (n, features).

        Raises
        ------
        ValueError
            If x does not hold integers, shape (n,), or one is outside of 0 .. n_ids - 1.
        """
        x = as_ids(x, "x")
        outside = (x < 0) | (x >= self.n_ids)
        if outside.any():
            raise ValueError(f"{self!r} takes ids in 0 .. {self.n_ids - 1}, got {x[outside][0]}")
        check_filled(self)
        return self.params["E"][x], x

    def backward(self, dy: Array, cache: Cache) -> tuple[None, Parameters]:
        """Return None for dx, and grads {"E": the sums of dy over equal ids}."""
        dy, E = floating(dy), self.params["E"]
        if dy.shape != (len(cache), self.features):
            raise ValueError(f"dy must have the output's shape {(len(cache), self.features)}, got {dy.shape}")
        grads = self.params.like(np.result_type(dy, E))
        order = np.argsort(cache, kind="stable")
        ids, starts = np.unique(cache[order], return_index=True)
        if len(ids):
            grads["E"][ids] = np.add.reduceat(dy[order], starts, axis=0)
        grads.rows["E"] = ids
        return None, grads

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw E, if it has no values yet."""
        if not self.params.filled:
            self.params["E"] = rng.normal(0, self.features**-0.5, (self.n_ids, self.features))


class PositionalEmbedding(Layer):
    """y_t = x_t + E[t]: what is learnt of the position t of an event in its sequence, added to it (docs/sequences.md, eq. 46).

    dx = dy, and dE_t is the sum of dy over the events at position t of all sequences.

    Parameters
    ----------
    max_length, features : int
        E has shape (max_length, features), and starts at N(0, 1 / features); longer sequences are refused.

    Examples
    --------
    >>> layer = PositionalEmbedding(2, 1)
    >>> layer.params["E"] = [[10], [20]]
    >>> y, cache = layer.forward(Ragged(np.array([[1.0], [2.0], [3.0]]), [0, 1, 3]))
    >>> y.values.tolist(), layer.backward(np.ones((3, 1)), cache)[1]["E"].tolist()
    ([[11.0], [12.0], [23.0]], [[2.0], [1.0]])
    """

    config_names = ("max_length", "features")
    mixes_events = True
    causal = True

    def __init__(self, max_length: int, features: int) -> None:
        self.params = Parameters(self.shapes(max_length, features))
        self.max_length, self.features = self.params.layout["E"]
        self.in_features = self.out_features = self.features

    @classmethod
    def shapes(cls, max_length: int, features: int) -> dict[str, Shape]:
        """Return {"E": (max_length, features)}."""
        return {"E": (check_size(max_length, "max_length"), check_size(features, "features"))}

    def forward(self, x: Ragged, rng: Rng = None) -> tuple[Ragged, Cache]:
        """Return y, of the shape of x.

        Raises
        ------
        ValueError
            If a sequence is longer than ``max_length``.
        """
        x = as_sequences(self, x)
        check_filled(self)
        longest = x.lengths.max(initial=0)
        if longest > self.max_length:
            raise ValueError(f"{self!r} takes sequences of at most {self.max_length} events, got one of {longest}")
        position = np.arange(x.n_events) - np.repeat(x.offsets[:-1], x.lengths)
        return Ragged.of(x.values + self.params["E"][position], x.offsets), position

    def backward(self, dy: Array, cache: Cache) -> tuple[Array, Parameters]:
        """Return dx = dy and grads {"E": the sums of dy over equal positions}."""
        dy, E = floating(dy), self.params["E"]
        if dy.shape != (len(cache), self.features):
            raise ValueError(f"dy must have the output's shape {(len(cache), self.features)}, got {dy.shape}")
        grads = self.params.like(np.result_type(dy, E))
        np.add.at(grads["E"], cache, dy)
        return dy.copy(), grads

    def initialize(self, rng: np.random.Generator) -> None:
        """Draw E, if it has no values yet."""
        if not self.params.filled:
            self.params["E"] = rng.normal(0, self.features**-0.5, (self.max_length, self.features))
