"""A network, a loss and an optimizer as numbers in a table, so that one compiled function runs them all.

The compiled kernels interpret this table; nothing is compiled anew for another network. This module needs no Numba: it says
what the engine knows, and what it does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..contract import Array, Layer, Loss, Optimizer, own_type
from ..layers import (
    GELU,
    GRU,
    LSTM,
    RNN,
    Conv1D,
    Dense,
    Dropout,
    Embedding,
    Exp,
    Identity,
    LastEvent,
    LayerNorm,
    LeakyReLU,
    MaxOverEvents,
    MeanOverEvents,
    PositionalEmbedding,
    ReLU,
    SelfAttention,
    Sigmoid,
    Softmax,
    Tanh,
)
from ..layers.walk import chain
from ..losses import (
    BinaryCrossEntropy,
    HalfSquaredError,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    PoissonLoss,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
)
from ..optimizers import SGD, Adam

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

# Columns of the table: one row a layer. Places in a buffer are columns too: times the rows of a block they are offsets.
KIND = 0
N_IN, N_OUT = 1, 2
PARAMS = 3  # where the layer's parameters start in the vector: a matrix, and behind it what does not decay
X, Y = 4, 5  # where input and output lie in the buffer; the same, if the layer works in place
SLOPE = 6  # Sigmoid, Tanh, GELU: where f'(x) lies; LayerNorm: h and r
TRANSPOSED = 7  # Dense: where W.T is kept for the backward pass; -1 where no layer before has parameters
UNIFORMS = 8  # Dropout: how many uniforms are drawn before its own, per row
BY_BLAS = 9  # Dense: W is too large for the tile
MATRIX, VECTOR = 10, 11  # how many parameters are in the matrix, and behind it
N_COLUMNS = 12

DENSE, RELU, LEAKY_RELU, SIGMOID, TANH, SOFTMAX, DROPOUT, GELU_UNIT, LAYER_NORM, EXP = range(10)
LAYERS: dict[type[Layer], int] = {
    Dense: DENSE,
    ReLU: RELU,
    LeakyReLU: LEAKY_RELU,
    Sigmoid: SIGMOID,
    Tanh: TANH,
    Softmax: SOFTMAX,
    Dropout: DROPOUT,
    GELU: GELU_UNIT,
    LayerNorm: LAYER_NORM,
    Exp: EXP,
}
# What has a twin: these, and what is between the Dense layers of a chain.
TWINNED: tuple[type[Layer], ...] = (
    *(Embedding, PositionalEmbedding, RNN, GRU, LSTM, Conv1D, SelfAttention, LastEvent, MeanOverEvents, MaxOverEvents),
    *(layer for layer in LAYERS if layer not in (Dense, Dropout)),
)
NUMBERS = {LEAKY_RELU: "negative_slope", DROPOUT: "rate"}  # a layer's number

_SLOPED = (SIGMOID, TANH, GELU_UNIT)  # note f'(x) on the way forward
_READERS = (RELU, LEAKY_RELU, SOFTMAX, EXP)  # read their own output in the backward pass

SQUARED, HALF_SQUARED, ABSOLUTE, HUBER, BINARY, SIGMOID_BINARY, SOFTMAX_LABELS, SOFTMAX_ROWS, POISSON = range(9)
_LOSSES: dict[type[Loss], int] = {
    MeanSquaredError: SQUARED,
    HalfSquaredError: HALF_SQUARED,
    MeanAbsoluteError: ABSOLUTE,
    Huber: HUBER,
    BinaryCrossEntropy: BINARY,
    SigmoidCrossEntropy: SIGMOID_BINARY,
    SoftmaxCrossEntropy: SOFTMAX_LABELS,
    PoissonLoss: POISSON,
}

PLAIN, MOMENTUM, NESTEROV, ADAM = range(4)

LARGE = 256 * 1024  # bytes of W, from which on BLAS, which packs its operands, beats the tile, which does not
BLOCK, LARGE_BLOCK = 128, 1024  # rows at a time: few, so that they stay in the cache; many, where BLAS packs


class Unknown(ValueError):
    """The engine does not know this layer, loss or optimizer."""


class Program(NamedTuple):
    """A network as the kernels read it."""

    table: Array  # int64, (n_layers, N_COLUMNS)
    numbers: Array  # float64, (n_layers,): a slope, or a rate
    n_block: int  # rows at a time
    n_buffer: int  # numbers per row in the buffer of a training step
    n_widest: int  # of all outputs
    n_transposed: int  # numbers in all W.T
    n_uniforms: int  # drawn per row


def compile_network(net: Layer, dtype: DTypeLike, *, link: Layer | None = None, sparse: bool = False) -> Program:
    """Return the table of ``net``, followed by ``link``.

    Raises
    ------
    Unknown
        If there is a layer that the engine does not know; the message names it.
    """
    if np.dtype(dtype) not in (np.float32, np.float64) or not np.dtype(dtype).isnative:
        raise Unknown(f"the engine takes float32 and float64, got {np.dtype(dtype)}")
    layers = [(layer, start) for layer, start in chain(net) if type(layer) is not Identity]
    if link is not None and type(link) is not Identity:
        layers.append((link, 0))
    for layer, _ in layers:
        if type(layer) not in LAYERS:
            raise Unknown(f"the engine does not know the layer {layer!r}")
    dense = [layer for layer, _ in layers if isinstance(layer, Dense)]
    if not dense:
        raise Unknown("the engine takes networks with a Dense layer")
    if sparse and type(layers[0][0]) is not Dense:
        raise Unknown(f"the engine takes sparse x only where the first layer is Dense, got {layers[0][0]!r}")

    itemsize = np.dtype(dtype).itemsize
    width = dense[0].in_features
    table: list[list[int]] = []
    numbers: list[float] = []
    x, n_buffer, n_transposed, n_uniforms = 0, 0 if sparse else width, 0, 0
    reader = DENSE  # the kind of the layer that will read x again as its own output; Dense and the input do not
    for layer, start in layers:
        row = [0] * N_COLUMNS
        kind = row[KIND] = LAYERS[type(layer)]
        row[N_IN], row[X], row[PARAMS] = width, x, start
        row[MATRIX] = sum(layer.params[name].size for name in layer.params.matrices())
        row[VECTOR] = layer.params.vector.size - row[MATRIX]
        if getattr(layer, "in_features", width) != width:
            raise Unknown(f"{layer!r} comes after a layer of {width} features")
        if isinstance(layer, Dense):
            first = not any(row[VECTOR] for row in table)
            width = layer.out_features
            row[TRANSPOSED] = -1 if first else n_transposed
            row[BY_BLAS] = layer.params.vector.size * itemsize >= LARGE
            n_transposed += 0 if first else row[N_IN] * width
        elif kind == DROPOUT:
            row[UNIFORMS], n_uniforms = n_uniforms, n_uniforms + width
        elif kind in _SLOPED:
            row[SLOPE], n_buffer = n_buffer, n_buffer + width
        elif kind == LAYER_NORM:
            row[SLOPE], n_buffer = n_buffer, n_buffer + width + 1
        row[N_OUT] = width

        # What ReLU asks of its output, its sign, dropout leaves as it is wherever it lets a gradient through.
        in_place = kind != DENSE and (reader not in _READERS or (kind == DROPOUT and reader not in (SOFTMAX, EXP)))
        if not in_place:
            x, n_buffer = n_buffer, n_buffer + width
        if kind != DROPOUT or not in_place:
            reader = kind
        row[Y] = x
        table.append(row)
        number = getattr(layer, NUMBERS[kind]) if kind in NUMBERS else 0.0
        numbers.append(layer.epsilon_in(dtype) if isinstance(layer, LayerNorm) else number)
    return Program(
        np.array(table, np.int64),
        np.array(numbers, np.float64),
        LARGE_BLOCK if any(row[BY_BLAS] for row in table) else BLOCK,
        n_buffer,
        max(row[N_OUT] for row in table),
        n_transposed,
        n_uniforms,
    )


class Rule(NamedTuple):
    """A loss and an optimizer as the kernels read them."""

    loss: int
    delta: float  # Huber's
    update: int
    momentum: float
    beta1: float
    beta2: float
    epsilon: float
    lazy: bool
    weight_decay: float
    l2: float


MOMENTS: dict[int, tuple[str, ...]] = {PLAIN: (), MOMENTUM: ("v",), NESTEROV: ("v",), ADAM: ("m", "v")}


def compile_rule(loss: Loss, optimizer: Optimizer, y: Array, l2: float) -> Rule:
    """Return the numbers of loss and optimizer.

    Raises
    ------
    Unknown
        If it is none of the library's own.
    """
    if type(loss) not in _LOSSES:
        raise Unknown(f"the engine does not know the loss {loss!r}")
    kind = _LOSSES[type(loss)]
    if kind == SOFTMAX_LABELS and y.ndim == 2:
        kind = SOFTMAX_ROWS
    delta = float(loss.delta) if isinstance(loss, Huber) else 0.0
    return Rule(kind, delta, *update_of(optimizer), float(l2))


def update_of(optimizer: Optimizer) -> tuple[int, float, float, float, float, bool, float]:
    """Return the numbers of an optimizer, in the order that they have in a Rule.

    Raises
    ------
    Unknown
        If it is none of the library's own.
    """
    if own_type(optimizer) is SGD:
        assert isinstance(optimizer, SGD)
        update = NESTEROV if optimizer.nesterov else MOMENTUM if optimizer.momentum else PLAIN
        numbers = (optimizer.momentum, 0.0, 0.0, 0.0)
    elif own_type(optimizer) is Adam:
        assert isinstance(optimizer, Adam)
        update, numbers = ADAM, (0.0, optimizer.beta1, optimizer.beta2, optimizer.epsilon)
    else:
        raise Unknown(f"the engine does not know the optimizer {optimizer!r}")
    momentum, beta1, beta2, epsilon = map(float, numbers)  # another type would be compiled anew
    return update, momentum, beta1, beta2, epsilon, optimizer.lazy and update != PLAIN, float(optimizer.weight_decay)
