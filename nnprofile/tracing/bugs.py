"""Known bugs of hand-written backpropagation, each a layer or a loss whose backward is wrong in one well-known way.

Their forwards are right, so that the check beside each gradient shows what is wrong, and training shows what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contract import Array, Cache, Layer, Loss, Optimizer, Parameters
from ..formulas import formula_of
from ..layers import LAYERS, Dense, ReLU, Sequential, Sigmoid, Tanh
from ..layers.activations import Elementwise
from ..losses import HalfSquaredError, MeanLoss, SoftmaxCrossEntropy


class WithoutWeights(Dense):
    """dx_ni = sum_j dy_nj: the weights between the layers are missing, as in an article (docs/errata.md, 7)."""

    base = Dense
    formula = {**Dense.formula, "dx": "sum(j, dy[n, j])"}
    words = {"dx": ("{dx} = Σ_k {dy}", "", "Bug: the weights are missing.")}

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        """Return dx without W."""
        _, grads = super().backward(dy, cache)
        return np.repeat(dy.sum(axis=1, keepdims=True), self.in_features, axis=1), grads


class NotTransposed(Dense):
    """dx = dy @ W: not transposed, which goes unnoticed where W is square."""

    base = Dense
    formula = {**Dense.formula, "dx": "sum(j, dy[n, j] * W[j, i])"}
    words = {"dx": ("{dx} = {dy} {W}", "", "Bug: the transpose is missing.")}

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        """Return dx with W in place of its transpose."""
        _, grads = super().backward(dy, cache)
        return dy @ self.params["W"], grads


class UpdatedWeights(Dense):
    """dx = dy @ (W - learning_rate * dW).T: the weights step before the gradient has passed through them."""

    base = Dense
    learning_rate = 0.0
    formula = {**Dense.formula, "dx": "sum(j, dy[n, j] * (W[i, j] - learning_rate * dW[i, j]))"}
    words = {"dx": ("{dx} = {dy} ({W} − η {dW})ᵀ", "", "Bug: {W} has been updated already.")}

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        """Return dx through the updated weights."""
        _, grads = super().backward(dy, cache)
        return dy @ (self.params["W"] - self.learning_rate * grads["W"]).T, grads


class BiasOfOneRow(Dense):
    """db = dy[0]: the bias's gradient is taken from one row, not summed over all."""

    base = Dense
    formula = {**Dense.formula, "db": "dy[0, j]"}
    words = {"db": ("{db} = the first row of {dy}", "", "Bug: the sum over rows is missing.")}

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        """Return db of the first row."""
        dx, grads = super().backward(dy, cache)
        grads["b"] = dy[0]
        return dx, grads


class MaskFromDy(ReLU):
    """dx = dy where dy > 0: the mask is taken from the gradient, not from the forward pass."""

    base, symbol = ReLU, "relu"
    formula = {**ReLU.formula, "slope": "dy > 0"}
    words = {"slope": ("{s} = [{dy} > 0]", "", "Bug: the mask looks at dy, and should look at what went in.")}

    def trace_slope(self, dy: Array, cache: Cache) -> Array:
        """Return 1 where dy > 0."""
        return (dy > 0).astype(float)

    def backward(self, dy: Array, cache: Cache) -> tuple[Array, Parameters]:
        """Return dy where it is positive."""
        return dy * self.trace_slope(dy, cache), Parameters({})


def _without_slope(kind: type[Elementwise]) -> type[Elementwise]:
    """Return an activation with dx = dy: the factor f'(z) is lost, as in an article (docs/errata.md, 3)."""

    def backward(self: Elementwise, dy: Array, cache: Cache) -> tuple[Array, Parameters]:
        return dy.copy(), Parameters({})

    body = {
        "base": kind,
        "symbol": kind.symbol or kind.__name__.lower(),
        "formula": {**kind.formula, "slope": "1"},
        "words": {"slope": ("{s} = 1", "", "Bug: the slope of the activation is lost.")},
        "backward": backward,
    }
    return type(f"LostSlopeOf{kind.__name__}", (kind,), body)


class _BugLoss(MeanLoss):
    """A loss like another but for its backward: it multiplies the right gradient by something."""

    wrong = "{}"  # the wrong slope, of the right one

    def __init__(self, inner: Loss, n_samples: int) -> None:
        self.inner, self.n_samples = inner, n_samples

    @property
    def link(self) -> Layer:
        """The link of the loss it wraps."""
        return self.inner.link

    def targets(self, y_true: Any, n_outputs: int) -> Array:
        """Return the targets of the loss it wraps."""
        return self.inner.targets(y_true, n_outputs)

    def sample_losses(self, y_pred: Array, y_true: Array) -> tuple[Array, Array]:
        """Return the right losses, and the wrong derivative."""
        l, dl = self.inner.sample_losses(y_pred, y_true)  # type: ignore[attr-defined]
        return l, self.spoil(y_pred, dl)

    def spoil(self, y_pred: Array, dl: Array) -> Array:
        """Return the wrong derivative."""
        raise NotImplementedError

    @property
    def formula(self) -> dict[str, str]:  # type: ignore[override]
        """The formulas of the loss it wraps, with the wrong slope."""
        texts = formula_of(self.inner)
        return {key: self.wrong.format(text) if key.startswith("slope") else text for key, text in texts.items()}

    def __repr__(self) -> str:
        return repr(self.inner)


class FactorTwo(_BugLoss):
    """dl = 2 (y - t) for l = 1/2 (y - t)^2, as in an article (docs/errata.md, 5)."""

    wrong = "2 * ({})"

    def spoil(self, y_pred: Array, dl: Array) -> Array:
        """Return twice the derivative."""
        return 2 * dl


class Uphill(_BugLoss):
    """dl with the wrong sign: t - y."""

    wrong = "-1 * ({})"

    def spoil(self, y_pred: Array, dl: Array) -> Array:
        """Return minus the derivative."""
        return -dl


class SumInsteadOfMean(_BugLoss):
    """dl without its 1/N: the loss is a mean, its gradient that of a sum."""

    wrong = "n_samples * ({})"

    def spoil(self, y_pred: Array, dl: Array) -> Array:
        """Return N times the derivative, which the mean then divides by N."""
        return dl * self.n_samples


class SlopeAfterSoftmax(_BugLoss):
    """dz = (p - t) p (1 - p): softmax's slope once more, although p - t has it already."""

    wrong = "({}) * p * (1 - p)"

    def spoil(self, y_pred: Array, dl: Array) -> Array:
        """Return the derivative times p (1 - p)."""
        p, _ = self.link.forward(y_pred)
        out: Array = dl * p * (1 - p)
        return out


@dataclass(frozen=True)
class Bug:
    """A bug that a network may be given.

    Attributes
    ----------
    key : str
    title : str
        What is done wrong.
    story : str
        Where it comes from, and what comes of it.
    apply : function (net, loss, x, optimizer) -> (net, loss) or None
        A network or a loss with the bug, the other as it was; None where it cannot occur or changes nothing.
    """

    key: str
    title: str
    story: str
    apply: Callable[[Sequential, Loss, Array, Optimizer | None], tuple[Sequential, Loss] | None]


def _in_layers(
    *kinds: type[Layer], after_first: bool = False, when: Callable[[Any], bool] = lambda _: True, rows: int = 1
) -> Any:
    """Return a function that replaces each layer whose type is the base of one of ``kinds``, for batches of so many rows."""
    table = {kind.base: kind for kind in kinds}  # type: ignore[attr-defined]

    def apply(net: Sequential, loss: Loss, x: Array, optimizer: Optimizer | None) -> tuple[Sequential, Loss] | None:
        if len(x) < rows:
            return None
        layers, changed = [], 0
        for i, layer in enumerate(net.layers):
            kind = table.get(type(layer))
            fits = kind is not None and (i > 0 or not after_first) and when(layer)
            twin = _twin(kind if fits and kind else type(layer), layer)
            if kind is UpdatedWeights and isinstance(twin, UpdatedWeights):
                if optimizer is None:
                    return None
                twin.learning_rate = optimizer.learning_rate_at(optimizer.n_steps)
            changed += fits
            layers.append(twin)
        return (Sequential(layers, rng=None, dtype=net.params.dtype), loss) if changed else None

    return apply


def _twin(kind: type[Layer], layer: Layer) -> Layer:
    """Return a layer of this kind with the values of another."""
    twin = kind(**layer.config())
    for name in layer.params:
        twin.params[name] = layer.params[name]
    return twin


def _in_loss(kind: type[_BugLoss], *losses: type[Loss], rows: int = 1) -> Any:
    def apply(net: Sequential, loss: Loss, x: Array, optimizer: Optimizer | None) -> tuple[Sequential, Loss] | None:
        fits = isinstance(loss, MeanLoss) and (not losses or type(loss) in losses) and len(x) >= rows
        return (net, kind(loss, len(x))) if fits else None

    return apply


BUGS = (
    Bug(
        "factor-2",
        "factor 2",
        "An article whose formulas we correct prints 2 (y − t) for the derivative of ½ (y − t)². All gradients come out "
        "twice too large: the direction is right, and training behaves as with twice the learning rate, so it is easily "
        "missed.",
        _in_loss(FactorTwo, HalfSquaredError),
    ),
    Bug(
        "missing-weights",
        "the weights between the layers are missing",
        "An article whose formulas we correct multiplies slopes only, and leaves out the weights between the layers. The last "
        "layer "
        "still learns; those before it get another direction.",
        _in_layers(WithoutWeights, after_first=True),
    ),
    Bug(
        "lost-slope",
        "the activation's slope is lost",
        "An article whose formulas we correct sets dL/dz = dL/da, and so loses a factor f′(z) at every layer.",
        _in_layers(*map(_without_slope, (Sigmoid, Tanh, ReLU))),
    ),
    Bug(
        "updated-weights",
        "updated weights in backward",
        "Each layer steps before the gradient has passed through it, so the layers before it see weights from after the step. "
        "The final numbers of Mazur's post come from a program with this bug. Small steps hide it.",
        _in_layers(UpdatedWeights, after_first=True),
    ),
    Bug(
        "not-transposed",
        "W is not transposed",
        "dx = dy W in place of dy Wᵀ. Shapes catch it, but for square matrices.",
        _in_layers(NotTransposed, after_first=True, when=lambda layer: layer.in_features == layer.out_features > 1),
    ),
    Bug(
        "mask-from-dy",
        "ReLU's mask is taken from dy",
        "The mask must be the forward pass's: where the input was positive. Taken from dy it lets only positive gradients pass.",
        _in_layers(MaskFromDy),
    ),
    Bug(
        "sign",
        "uphill: t − y",
        "With the sign turned, every step makes the loss larger.",
        _in_loss(Uphill),
    ),
    Bug(
        "slope-after-softmax",
        "softmax's slope once more",
        "p − t is the whole gradient of softmax with cross-entropy; p (1 − p) does not belong behind it.",
        _in_loss(SlopeAfterSoftmax, SoftmaxCrossEntropy),
    ),
    Bug(
        "bias-of-one-row",
        "the bias's sum over the batch is missing",
        "The bias is added in every row, so its gradient is the sum over rows; here it is that of the first row.",
        _in_layers(BiasOfOneRow, rows=2),
    ),
    Bug(
        "sum-not-mean",
        "the 1/N is missing",
        "The loss is a mean over the batch, its gradient that of the sum: N times too large.",
        _in_loss(SumInsteadOfMean, rows=2),
    ),
)


def applicable(
    net: Layer, loss: Loss, x: Array, optimizer: Optimizer | None, l2: float = 0.0
) -> list[tuple[Bug, Sequential, Loss]]:
    """Return the bugs that this network can have, each with copies that have it."""
    if not isinstance(net, Sequential) or any(type(layer) not in LAYERS for layer in net.layers):
        return []  # a layer of the user's cannot be made anew from its config alone
    found = []
    for bug in BUGS:
        made = bug.apply(net, loss, x, optimizer)
        if bug.key == "updated-weights" and l2:
            continue  # its backward knows no L2 term, so it would step by another gradient than the trace shows
        if made is not None:
            found.append((bug, *made))
    return found
