"""What training descends: the loss of a network, and the L2 term; its value and its gradient, stated once.

A softmax over many classes is computed in blocks of rows, last product and loss together (docs/sequences.md, eq. 70): rows x
classes is never held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .contract import Array, Layer, Loss, Parameters, apply, backward_pair, n_rows, numbers_of, own_type, take
from .layers import Dense, Sequential, Tied
from .layers.compose import Gradients
from .losses import SoftmaxCrossEntropy
from .ragged import Ragged
from .validation import weights_of

if TYPE_CHECKING:
    from .contract import Rng

MANY = 1 << 19  # logits at a time: what a softmax over a catalogue computes in blocks of rows


def penalty(matrices: Iterable[Array], share: float) -> Any:
    """Return share / 2 * sum W^2, the L2 term with share = l2 / sum w; its gradient by W is share * W."""
    return share / 2 * sum((W * W).sum() for W in matrices)


class Objective:
    """J = L(net(x), y) + l2 / (2 sum_n w_n) * sum W^2 over all matrices W (docs/backprop.md, eq. 17, 27).

    Without sample weights, sum_n w_n is the number of the rows it is given: in ``fit``, of the mini-batch. Where y has a target
    for each event, a Ragged, n counts events.

    Parameters
    ----------
    net : Layer
    loss : Loss
    l2 : float
    trusted : bool, default False
        y is what ``loss.targets`` returned, so that it is not looked at again.
    """

    def __init__(self, net: Layer, loss: Loss, l2: float = 0.0, *, trusted: bool = False) -> None:
        self.net, self.loss, self.l2 = net, loss, l2
        self._is_trusted, self._compare = trusted, loss.of_targets if trusted else loss.forward

    def value_and_gradient(self, x: Any, y: Any, sample_weight: Any = None, rng: Rng = None) -> tuple[Any, Parameters]:
        """Return J and dJ by each parameter. With ``rng``: training mode."""
        value, grads = self._of_rows(x, y, sample_weight, rng)
        return self._with_l2(value, grads, total_weight(x, y, sample_weight))

    def in_pieces(self, x: Any, y: Any, sample_weight: Any, n_rows_at_once: int) -> tuple[Any, Parameters]:
        """Return the same in inference mode, piece by piece, so that a piece's numbers stay in the cache."""
        n, total = n_rows(x), total_weight(x, y, sample_weight)
        if n <= n_rows_at_once:
            return self.value_and_gradient(x, y, sample_weight)
        value, grads = 0.0, self.net.params.like(np.float64)
        for start in range(0, n, n_rows_at_once):
            rows = slice(start, start + n_rows_at_once)
            part, t = take(x, rows), take(y, rows)
            w = None if sample_weight is None else take(sample_weight, rows)
            share = total_weight(part, t, w) / (total or 1.0)
            if share:
                part_value, part_grads = self._of_rows(part, t, w, None)
                value += share * float(part_value)
                grads.vector[...] += share * part_grads.vector
        return self._with_l2(value, grads, total)

    def is_in_blocks(self, y: Any) -> bool:
        """Tell whether there are so many logits that they are computed in blocks."""
        return self._parts(y) is not None

    def value(self, x: Any, y: Any, sample_weight: Any = None) -> Any:
        """Return L, without the L2 term, in inference mode and in blocks."""
        parts = self._parts(y)
        assert parts is not None
        for layer, _ in parts.body:
            x, _ = apply(layer, x)
        return sum(share * value for value, _, _, share in self._blocks(parts.head, x, y, sample_weight))

    def _check_rows(self, y_pred: Any, y: Any, w: Any) -> None:
        """Refuse targets or weights that are not of the rows, or events, that the network gives."""
        if self._is_trusted:
            return
        if isinstance(y_pred, Ragged) != isinstance(y, Ragged):
            raise ValueError(other_targets(y_pred, y))
        if isinstance(y, Ragged) and not y.same_events(y_pred):
            raise ValueError(f"y must have a target for each event of x: {y_pred.difference(y)}")
        n, found = np.shape(numbers_of(y_pred))[:1], np.shape(numbers_of(y))[:1]
        if own_type(self.loss) is SoftmaxCrossEntropy and found != n:
            raise ValueError(f"y_true has {found[0]} rows, y_pred has {n[0]}")
        if w is not None and (isinstance(w, Ragged) or own_type(self.loss) is SoftmaxCrossEntropy):
            weights_of(w, y)

    def _of_rows(self, x: Any, y: Any, w: Any, rng: Rng) -> tuple[Any, Parameters]:
        if isinstance(y, Ragged) and not y.n_events:  # nothing to learn from
            return 0.0, self.net.params.like()
        if (parts := self._parts(y)) is None:
            y_pred, cache = apply(self.net, x, rng)
            self._check_rows(y_pred, y, w)
            value, loss_cache = self._compare(numbers_of(y_pred), numbers_of(y), numbers_of(w))
            return value, self.net.gradients(self.loss.backward(loss_cache), cache)
        caches = []
        for layer, _ in parts.body:
            x, cache = apply(layer, x, rng)
            caches.append(cache)
        pieces: list[Any] = []
        value, grads, of_head = 0.0, Gradients(self.net.params), Gradients(parts.head.params)
        for part, loss_cache, cache, share in self._blocks(parts.head, x, y, w):
            value = value + share * part
            dy = self.loss.backward(loss_cache)
            dy *= dy.real.dtype.type(share)
            dx, own = parts.head.backward(dy, cache)
            pieces.append(dx)
            of_head.put(0, own)
        parts.put(grads, of_head.finished())
        dh: Any = np.concatenate(pieces) if parts.body else None
        for (layer, start), cache in zip(reversed(parts.body), reversed(caches), strict=True):
            dh, own = backward_pair(layer, layer.backward(dh, cache))
            grads.put(start, own)
        return value, grads.finished()

    def _parts(self, y: Any) -> Ending | None:
        """Return the network in two parts, if all logits together would be many."""
        if own_type(self.loss) is not SoftmaxCrossEntropy:
            return None
        parts = ending(self.net)
        n = np.shape(numbers_of(y))[:1]
        return parts if parts is not None and n and n[0] * parts.head.out_features > MANY else None

    def _blocks(self, head: Dense, x: Any, y: Any, w: Any) -> Iterator[tuple[Any, Any, Any, float]]:
        """Yield (loss, its cache, the head's, the share of all weights) of one block of rows after the other."""
        self._check_rows(x, y, w)
        h, t, w = numbers_of(x), numbers_of(y), numbers_of(w)
        total, size = total_weight(h, t, w), max(1, MANY // head.out_features)
        for start in range(0, h.shape[0], size):
            rows = slice(start, start + size)
            own = None if w is None else w[rows]
            y_pred, cache = head.forward(h[rows])
            value, loss_cache = self._compare(y_pred, t[rows], own)
            yield value, loss_cache, cache, total_weight(h[rows], t[rows], own) / (total or 1.0)

    def _with_l2(self, value: Any, grads: Parameters, total: float) -> tuple[Any, Parameters]:
        if self.l2 and total:
            matrices = {name: self.net.params[name] for name in self.net.params.matrices()}
            value = value + penalty(matrices.values(), self.l2 / total)
            grads.rows = {}
            for name, W in matrices.items():
                grads[name] += (self.l2 / total) * W
        return value, grads


class Ending(NamedTuple):
    """A network that ends with a product, in two parts."""

    body: list[tuple[Layer, int]]  # each layer before it, with the place of its parameters
    head: Dense
    put: Callable[[Gradients, Parameters], None]  # the head's gradients, among those of the network


def ending(net: Layer, start: int = 0) -> Ending | None:
    """Return the layers before the last product of a network of the library, and that product; None if it ends otherwise."""
    if isinstance(net, Dense) and own_type(net) is Dense:
        return Ending([], net, lambda grads, own: grads.put(start, own))
    if isinstance(net, Tied) and own_type(net) is Tied:

        def put(grads: Gradients, own: Parameters) -> None:
            """E is (ids, features), the head's W its transpose."""
            both = net.params.like(own.dtype)
            both["0.E"], both["b"] = own["W"].T, own["b"]
            grads.put(start, both)

        places = [start + place.start for place in net.places]
        return Ending(list(zip(net.children, places, strict=True)), net.head, put)
    if type(net) is not Sequential or (last := ending(net.children[-1], start + net.places[-1].start)) is None:
        return None
    before = [(layer, start + place.start) for layer, place in zip(net.children, net.places, strict=True)][:-1]
    return last._replace(body=before + last.body)


def other_targets(y_pred: Any, y: Any) -> str:
    """Return what is to be said where the network gives events and y has none, or the other way round."""
    if isinstance(y_pred, Ragged):
        return (
            "the network gives a row for each event, so y must be a Ragged with a target for each, see Ragged.from_list"
        )
    return "y is a Ragged, with a target for each event, but the network gives one row for each row or sequence of x"


def total_weight(x: Any, y: Any, sample_weight: Any) -> float:
    """Return sum_n w_n; without weights the number of rows, or of events with a target."""
    if sample_weight is None:
        return float(y.n_events if isinstance(y, Ragged) else n_rows(x))
    return float(np.sum(numbers_of(sample_weight), dtype=np.float64))


def objective(
    net: Layer,
    loss: Loss,
    x: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    l2: float = 0.0,
    rng: np.random.Generator | None = None,
) -> tuple[Any, Parameters]:
    """Return J and its gradients: J = L(net(x), y) + l2 / (2 sum_n w_n) * sum W^2 over all matrices W, not biases.

    So dJ/dW = dL/dW + l2 / (sum_n w_n) * W (docs/backprop.md, eq. 17, 27). Without sample weights, sum_n w_n is the
    number of these rows: in ``fit``, of the mini-batch, as in scikit-learn.
    """
    if isinstance(y, Ragged) and sample_weight is not None:
        sample_weight = weights_of(sample_weight, y)
    return Objective(net, loss, l2).value_and_gradient(x, y, sample_weight, rng)
