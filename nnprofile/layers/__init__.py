"""The layers there are. A new one is a class in one of these modules, and its line in ``LAYERS``.

``LAYERS`` is the registry: model files look up classes there, and the checker's self-test spoils each one's gradients. Beside
each class stands what makes a small example of it, for rows of a given width.
"""

from __future__ import annotations

from collections.abc import Callable

from ..contract import Layer
from .activations import GELU, Exp, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from .branches import Concatenate, Parallel, Residual
from .compose import Composite, Sequential
from .dense import Dense
from .dropout import Dropout
from .norm import LayerNorm
from .softmax import Softmax

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
}
COMPOSITES: tuple[type[Composite], ...] = (Sequential, Residual, Concatenate, Parallel)

__all__ = [
    "GELU",
    "Concatenate",
    "Dense",
    "Dropout",
    "Exp",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Parallel",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
]
