"""What training descends: the loss of a network, and the L2 term; its value and its gradient, stated once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from .contract import Array, Layer, Loss, Parameters, forward_pair, n_rows, take

if TYPE_CHECKING:
    from .contract import Rng


def penalty(matrices: Iterable[Array], share: float) -> Any:
    """Return share / 2 * sum W^2, the L2 term with share = l2 / sum w; its gradient by W is share * W."""
    return share / 2 * sum((W * W).sum() for W in matrices)


class Objective:
    """J = L(net(x), y) + l2 / (2 sum_n w_n) * sum W^2 over all matrices W (docs/backprop.md, eq. 17, 27).

    Without sample weights, sum_n w_n is the number of the rows it is given: in ``fit``, of the mini-batch.

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
        self._compare = loss.of_targets if trusted else loss.forward

    def value_and_gradient(
        self, x: Any, y: Any, sample_weight: Array | None = None, rng: Rng = None
    ) -> tuple[Any, Parameters]:
        """Return J and dJ by each parameter. With ``rng``: training mode."""
        value, grads = self._of_rows(x, y, sample_weight, rng)
        return self._with_l2(value, grads, _total(x, sample_weight))

    def in_pieces(self, x: Any, y: Array, sample_weight: Array | None, n_rows_at_once: int) -> tuple[Any, Parameters]:
        """Return the same in inference mode, piece by piece, so that a piece's numbers stay in the cache."""
        n, total = n_rows(x), _total(x, sample_weight)
        value, grads = 0.0, self.net.params.like(np.float64)
        for start in range(0, n, n_rows_at_once):
            rows = slice(start, start + n_rows_at_once)
            part, w = take(x, rows), None if sample_weight is None else sample_weight[rows]
            share = _total(part, w) / (total or 1.0)
            if share:
                part_value, part_grads = self._of_rows(part, y[rows], w, None)
                value += share * float(part_value)
                grads.vector[...] += share * part_grads.vector
        return self._with_l2(value, grads, total)

    def _of_rows(self, x: Any, y: Any, w: Array | None, rng: Rng) -> tuple[Any, Parameters]:
        y_pred, cache = forward_pair(self.net, self.net.forward(x, rng))
        value, loss_cache = self._compare(y_pred, y, w)
        return value, self.net.gradients(self.loss.backward(loss_cache), cache)

    def _with_l2(self, value: Any, grads: Parameters, total: float) -> tuple[Any, Parameters]:
        if self.l2 and total:
            matrices = {name: self.net.params[name] for name in self.net.params.matrices()}
            value = value + penalty(matrices.values(), self.l2 / total)
            for name, W in matrices.items():
                grads[name] += (self.l2 / total) * W
        return value, grads


def _total(x: Any, sample_weight: Array | None) -> float:
    return float(n_rows(x) if sample_weight is None else np.sum(sample_weight, dtype=np.float64))


def objective(
    net: Layer,
    loss: Loss,
    x: Any,
    y: Array,
    *,
    sample_weight: Array | None = None,
    l2: float = 0.0,
    rng: np.random.Generator | None = None,
) -> tuple[Any, Parameters]:
    """Return J and its gradients: J = L(net(x), y) + l2 / (2 sum_n w_n) * sum W^2 over all matrices W, not biases.

    So dJ/dW = dL/dW + l2 / (sum_n w_n) * W (docs/backprop.md, eq. 17, 27). Without sample weights, sum_n w_n is the
    number of these rows: in ``fit``, of the mini-batch, as in scikit-learn.
    """
    return Objective(net, loss, l2).value_and_gradient(x, y, sample_weight, rng)
