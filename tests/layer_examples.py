"""One row a layer: the tests of what holds for every layer run over this table. A new layer is one more row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

import nnprofile as nn
from nnprofile.layers.activations import Elementwise


class Example(NamedTuple):
    """A layer for rows of a given width, without values yet.

    Attributes
    ----------
    make : function (width) -> Layer
    kink : float or None
        The slope on the left of 0, where the slope jumps there; the right one is 1.
    engine : bool
        Whether the compiled engine runs it.
    grows : bool
        Whether some of it, one behind the other, overflow.
    """

    make: Callable[[int], nn.Layer]
    kink: float | None = None
    engine: bool = True
    grows: bool = False


EXAMPLES = (
    Example(lambda width: nn.Dense(width, width + 2)),
    Example(lambda width: nn.Identity()),
    Example(lambda width: nn.Sigmoid()),
    Example(lambda width: nn.Tanh()),
    Example(lambda width: nn.ReLU(), kink=0.0),
    Example(lambda width: nn.LeakyReLU(0.2), kink=0.2),
    Example(lambda width: nn.Exp(), grows=True),
    Example(lambda width: nn.GELU()),
    Example(lambda width: nn.LayerNorm(width)),
    Example(lambda width: nn.Softmax()),
    Example(lambda width: nn.Dropout(0.4)),
)


# Layers on sequences, with the width of their events; one of ids takes that many of them.
SEQUENCES: tuple[tuple[Callable[[], nn.Layer], int], ...] = (
    (lambda: nn.RNN(3, 4), 3),
    (lambda: nn.GRU(3, 4), 3),
    (lambda: nn.LSTM(3, 4), 3),
    (lambda: nn.Conv1D(3, 2, 3), 3),
    (lambda: nn.Conv1D(3, 2, 2, dilation=3), 3),
    (lambda: nn.Conv1D(3, 2, 3, causal=False), 3),
    (lambda: nn.SelfAttention(4, 1), 4),
    (lambda: nn.SelfAttention(4, 2), 4),
    (lambda: nn.SelfAttention(4, 2, causal=False), 4),
    (lambda: nn.PositionalEmbedding(12, 3), 3),
    (lambda: nn.Embedding(6, 3), 6),
    (lambda: nn.LastEvent(), 3),
    (lambda: nn.MeanOverEvents(), 3),
    (lambda: nn.MaxOverEvents(), 3),
    (lambda: nn.Tied(nn.Embedding(6, 3), [nn.GRU(3, 3)]), 6),
    (lambda: nn.Tied(nn.Embedding(6, 3), [nn.RNN(3, 3), nn.LastEvent()]), 6),
)


def draw_sequences(rng: np.random.Generator, layer: nn.Layer, width: int, lengths: Iterable[int]) -> nn.Ragged:
    """Return sequences of these lengths, as the layer takes them."""
    offsets = np.concatenate([[0], np.cumsum(list(lengths))]).astype(int)
    n = int(offsets[-1])
    return nn.Ragged(rng.integers(0, width, n) if layer.takes == "ids" else rng.normal(size=(n, width)), offsets)


def keeps_width(example: Example) -> bool:
    """Tell whether y is as wide as x."""
    return example.make(3).output_width(3) == 3


def layers(examples: Iterable[Example] = EXAMPLES, width: int = 3) -> list[nn.Layer]:
    """Return one layer of each."""
    return [example.make(width) for example in examples]


BETWEEN = [example for example in EXAMPLES if keeps_width(example) and not example.grows]  # may stand anywhere
COMPILED = [example for example in BETWEEN if example.engine]  # in any order
ELEMENTWISE = [example.make(3) for example in EXAMPLES if isinstance(example.make(3), Elementwise)]
KINKED = [example for example in EXAMPLES if example.kink is not None]


def made(example: Example, width: int = 3) -> nn.Layer:
    """Return a layer with values."""
    layer = example.make(width)
    layer.initialize(np.random.default_rng(0))
    return layer
