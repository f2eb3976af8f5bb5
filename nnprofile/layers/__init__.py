"""The layers there are. A new one is a class in one of these modules, and its line in ``LAYERS``.

``LAYERS`` is the registry: model files look up classes there, and the checker's self-test spoils each one's gradients. Beside
each class stands what makes a small example of it, for rows of a given width.
"""

from __future__ import annotations

from collections.abc import Callable

from ..contract import Layer
from .activations import GELU, Exp, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from .attention import SelfAttention
from .branches import Concatenate, Parallel, Residual
from .compose import Composite, Sequential
from .convolution import Conv1D
from .dense import Dense
from .dropout import Dropout
from .embedding import Embedding, PositionalEmbedding
from .norm import LayerNorm
from .pooling import LastEvent, MaxOverEvents, MeanOverEvents
from .recurrent import GRU, LSTM, RNN
from .softmax import Softmax
from .tied import Tied

LAYERS: dict[type[Layer], Callable[[int], Layer]] = {
    Dense: lambda width: Dense(width, width + 2),
    Identity: lambda width: Identity(),
    Sigmoid: lambda width: Sigmoid(),
    Tanh: lambda width: Tanh(),
    ReLU: lambda width: ReLU(),
    LeakyReLU: lambda width: LeakyReLU(0.2),
    Exp: lambda width: Exp(),
    GELU: lambda width: GELU(),
    LayerNorm: lambda width: LayerNorm(width),
    Softmax: lambda width: Softmax(),
    Dropout: lambda width: Dropout(0.4),
    Embedding: lambda width: Embedding(width + 4, width),
    PositionalEmbedding: lambda width: PositionalEmbedding(9, width),
    Conv1D: lambda width: Conv1D(width, 2, 2, dilation=2),
    RNN: lambda width: RNN(width, 2),
    GRU: lambda width: GRU(width, 2),
    LSTM: lambda width: LSTM(width, 2),
    SelfAttention: lambda width: SelfAttention(4, 2),
    LastEvent: lambda width: LastEvent(),
    MeanOverEvents: lambda width: MeanOverEvents(),
    MaxOverEvents: lambda width: MaxOverEvents(),
}
COMPOSITES: tuple[type[Composite], ...] = (Sequential, Residual, Concatenate, Parallel, Tied)

__all__ = [
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "Concatenate",
    "Conv1D",
    "Dense",
    "Dropout",
    "Embedding",
    "Exp",
    "Identity",
    "LastEvent",
    "LayerNorm",
    "LeakyReLU",
    "MaxOverEvents",
    "MeanOverEvents",
    "Parallel",
    "PositionalEmbedding",
    "ReLU",
    "Residual",
    "SelfAttention",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Tied",
]
