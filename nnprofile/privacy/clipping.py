"""Clipped sums of gradients: each example's gradient g_n made no longer than C, then added up, in one pass.

An example's dy scales with its weight all the way back, so with c_n = min(1, C / norm(g_n)) the clipped sum is the gradient
with weights c_n: clipping is a sample weight (docs/privacy.md, eq. 76-78). Of a Dense layer, norm(g_n)^2 is
(|x_n|^2 + 1) |dy_n|^2; what comes back from the loss, and each layer's x, are all that is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Array, Layer, Loss, Parameters, backward_pair, is_sparse, n_rows, numbers_of, take
from ..layers import LAYERS, Dense, Embedding, LayerNorm, PositionalEmbedding
from ..layers.compose import Composite, is_open
from ..layers.walk import Step, run_steps
from ..losses import LOSSES, BinaryCrossEntropy
from ..ragged import Ragged
from ..validation import check_number

if TYPE_CHECKING:
    from ..contract import Rng

BLOCK = 1024  # examples at a time


def of_dense(step: Step, offsets: Array | None) -> Array:
    """Return |x_n|^2 |dy_n|^2 + |dy_n|^2; of a sequence, |sum_e x_e^T dy_e|^2 + |sum_e dy_e|^2."""
    x, dy = step.cache, step.dy
    if offsets is None:
        of_x = np.asarray(x.multiply(x).sum(axis=1), np.float64).ravel() if is_sparse(x) else squares_of_rows(x)
        return (of_x + 1) * squares_of_rows(dy)
    found = squares_of_rows(_sums(dy, offsets))
    for i, (first, after) in enumerate(pairwise(offsets)):
        dW = x[first:after].T @ dy[first:after]
        found[i] += (dW * dW).sum()
    return found


def of_norm(step: Step, offsets: Array | None) -> Array:
    """Return |dy_n * h_n|^2 + |dy_n|^2, with sums over a sequence's events inside."""
    h, dy = step.cache[2], step.dy
    return squares_of_rows(_sums(dy * h, offsets)) + squares_of_rows(_sums(dy, offsets))


def of_embedding(step: Step, offsets: Array | None) -> Array:
    """Return the sum over ids of |sum of dy_e over events of that id|^2: each id has a row of its own."""
    ids, dy = step.cache, step.dy
    if offsets is None:
        return squares_of_rows(dy)
    sequence = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    pairs, place = np.unique(np.stack([sequence, ids]), axis=1, return_inverse=True)
    rows = np.zeros((pairs.shape[1], dy.shape[1]))
    np.add.at(rows, place.ravel(), dy)
    found: Array = np.bincount(pairs[0], squares_of_rows(rows), len(offsets) - 1)
    return found


# How the square of an example's gradient by the parameters of a layer is found, from (x, dy): all of it in one pass.
SQUARES: dict[type[Layer], Callable[[Step, Array | None], Array]] = {
    Dense: of_dense,
    LayerNorm: of_norm,
    Embedding: of_embedding,
    PositionalEmbedding: of_embedding,  # its ids are the places
}


def squares_of_rows(a: Array) -> Array:
    """Return the square of each row's length."""
    found: Array = np.einsum("nj,nj->n", a, a, dtype=np.float64)  # a square must not vanish, or the row is not clipped
    return found


def _sums(a: Array, offsets: Array | None) -> Array:
    """Return the sums over the events of each sequence; rows as they are."""
    if offsets is None:
        return a
    out = np.zeros((len(offsets) - 1, a.shape[1]))
    filled = np.diff(offsets) > 0
    if filled.any():
        out[filled] = np.add.reduceat(a, offsets[:-1][filled], axis=0)
    return out


def check_layers(net: Layer, name: str = "") -> None:
    """Check that every layer keeps rows apart, and that the norms of those with parameters are known.

    Raises
    ------
    ValueError
        If that is not known of one; it is named.
    """
    if isinstance(net, Composite) and is_open(net):
        inside = sum(layer.params.vector.size for layer in net.children)
        if net.params.vector.size != inside or type(net).__name__ == "Tied":
            raise ValueError(f"private training cannot clip {net!r}: its layers share parameters")
        for i, layer in enumerate(net.children):
            check_layers(layer, f"{name}.{i}".lstrip("."))
    elif type(net) not in SQUARES and not hasattr(net, "square_norms"):
        known = ", ".join(sorted(cls.__name__ for cls in SQUARES))
        if net.params.vector.size:
            raise ValueError(
                f"private training cannot clip layer {name}, {net!r}: how long the gradient of one example is, is known of "
                f"{known}; a layer of your own says it by square_norms(cache, dy, offsets)"
            )
        if type(net) not in LAYERS:
            raise ValueError(
                f"private training does not know whether layer {name}, {net!r}, keeps rows apart; a layer of your own that does "
                "says so by a method square_norms(cache, dy, offsets), which returns a 0 for each row"
            )


def clipped_sum(net: Layer, loss: Loss, x: Any, y: Any, clip: float, rng: Rng = None) -> tuple[Parameters, Array]:
    """Return sum_n min(1, C / norm(g_n)) g_n, where g_n is the gradient of example n's loss; and all norm(g_n).

    A sequence is one example: its loss is the sum over its events, where y has a target for each. An example whose gradient
    is not finite is left out. It is the arithmetic of private training: neither noise nor sampling is in it.

    Parameters
    ----------
    net : Layer
        Of Dense, LayerNorm, Embedding, PositionalEmbedding, layers without parameters, and composites of these.
    loss : Loss of the library
    x, y
        As ``fit`` takes them.
    clip : float
        C.
    rng : numpy.random.Generator, optional
        For Dropout, in training mode.

    Raises
    ------
    ValueError
        If there is a layer of another kind, or a loss of your own, of which it is not known that it is a mean over rows.
    """
    check_layers(net)
    check_loss_of(loss)
    clip = check_number(clip, "clip", positive=True)
    total, norms = net.params.like(np.float64), []
    for first in range(0, n_rows(x), BLOCK):
        rows = slice(first, first + BLOCK)
        norms.append(_add_block(net, loss, take(x, rows), take(y, rows), clip, rng, total))
    return total, np.concatenate(norms) if norms else np.zeros(0)


def check_loss_of(loss: Loss) -> None:
    """Raise a ValueError if it is not known to be a mean over rows, whatever these are."""
    if type(loss) is BinaryCrossEntropy:
        raise ValueError(
            "BinaryCrossEntropy refuses rows that are no probabilities, which tells of them: use SigmoidCrossEntropy"
        )
    if type(loss) not in LOSSES:
        raise ValueError(f"private training takes losses of the library, which are means over rows, got {loss!r}")


def _add_block(net: Layer, loss: Loss, x: Any, y: Any, clip: float, rng: Rng, total: Parameters) -> Array:
    """Add the clipped gradients of some examples; return the lengths before."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        whole = run_steps(net, x, rng)
        y_pred = numbers_of(whole.y)
        if not len(y_pred):
            return np.zeros(n_rows(x))
        _, cache = loss.forward(y_pred, numbers_of(y))
        dy = loss.backward(cache) * y_pred.dtype.type(len(y_pred))  # of each row's own loss, not of the mean
        _back(whole, dy, needs_dx=False)
        leaves = [step for step in _leaves(whole) if step.layer.params.vector.size]
        squares = np.zeros(n_rows(x))
        for step in leaves:
            squares += _squares(step)
        norms = np.sqrt(squares)
        finite = np.isfinite(norms)
        if not finite.all():  # what such a row made inside may be infinite too: the others go through without it
            norms[finite] = _add_block(net, loss, take(x, finite), take(y, finite), clip, rng, total)
            return norms
        # Rounded down, so that the sum is no longer than the clip in the network's dtype either.
        c = np.minimum(1, clip / np.maximum(norms, np.finfo(float).tiny)) * (1 - np.finfo(y_pred.dtype).eps)
        for step in leaves:
            _add_gradient(step, c, total)
    return norms


def _back(step: Step, dy: Any, *, needs_dx: bool) -> Any:
    """Send dy back; note it at each step. Gradients by parameters are made later, once, clipped."""
    step.dy = dy
    if step.parts:
        assert isinstance(step.layer, Composite)
        run = lambda i, dy, _, needs_dx: _back(step.parts[i], dy, needs_dx=needs_dx)  # noqa: E731
        return step.layer._backward(dy, step.cache, run, needs_dx)
    if not needs_dx:
        return None
    if type(step.layer) is Dense:
        return None if is_sparse(step.cache) else dy @ step.layer.params["W"].T
    return backward_pair(step.layer, step.layer.backward(dy, step.cache))[0]


def _leaves(step: Step) -> Iterator[Step]:
    if not step.parts:
        yield step
    for i in sorted(step.parts):
        yield from _leaves(step.parts[i])


def _offsets(step: Step) -> Array | None:
    return step.x.offsets if isinstance(step.x, Ragged) else None


def _squares(step: Step) -> Array:
    known = SQUARES.get(type(step.layer))
    if known is not None:
        return known(step, _offsets(step))
    return np.asarray(step.layer.square_norms(step.cache, step.dy, _offsets(step)))  # type: ignore[attr-defined]


def _add_gradient(step: Step, c: Array, total: Parameters) -> None:
    """Add the gradient of a layer with the weights c, one an example."""
    offsets = _offsets(step)
    c = c if offsets is None else np.repeat(c, np.diff(offsets))
    dy = (step.dy * c[:, None]).astype(step.dy.dtype)
    for name, a in step.layer.gradients(dy, step.cache).items():
        total[f"{step.name}.{name}".lstrip(".")] += a
