"""Known bugs of hand-written backpropagation, each a layer or a loss whose backward is wrong in one well-known way.

Their forwards are right, so that the check beside each gradient shows what is wrong, and training shows what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..contract import Array, Cache, Layer, Loss, Optimizer, Parameters
from ..layers import Dense, ReLU, Sequential, Sigmoid, Tanh
from ..losses import HalfSquaredError, MeanLoss, SoftmaxCrossEntropy
from .expression import Constant, Expression, Quantities, Sum, call
from .formulas import LAYERS, Formula, LayerRule, LossRule, Place, loss_rule


class _BugLayer(Layer):
    """A layer like another but for its backward."""

    base: type

    def trace_rule(self, at: Place) -> LayerRule:
        """Return the right formulas, changed where the bug is."""
        return self.bug(LAYERS[self.base](self, at), at)

    def bug(self, rule: LayerRule, at: Place) -> LayerRule:
        """Return the formulas with the bug in them."""
        raise NotImplementedError


class WithoutWeights(_BugLayer, Dense):
    """dx_ni = sum_j dy_nj: the weights between the layers are missing, as in an article (docs/errata.md, 7)."""

    base = Dense

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        """Return dx without W."""
        _, grads = super().backward(dy, cache)
        return np.repeat(dy.sum(axis=1, keepdims=True), self.in_features, axis=1), grads

    def bug(self, rule: LayerRule, at: Place) -> LayerRule:
        """Change dx."""
        dx, dy = at.name("dx"), at.name("dy")
        element = Sum("j", at.n_out, Quantities(dy)["n", "j"])
        return replace(
            rule, backward=Formula(f"{{{dx}}} = Σ_k {{{dy}}}", element, ("n", "i"), "", "Bug: the weights are missing.")
        )


class NotTransposed(_BugLayer, Dense):
    """dx = dy @ W: not transposed, which goes unnoticed where W is square."""

    base = Dense

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        """Return dx with W in place of its transpose."""
        _, grads = super().backward(dy, cache)
        return dy @ self.params["W"], grads

    def bug(self, rule: LayerRule, at: Place) -> LayerRule:
        """Change dx."""
        dx, dy, W = at.name("dx"), at.name("dy"), at.name("W")
        element = Sum("j", at.n_out, Quantities(dy)["n", "j"] * Quantities(W)["j", "i"])
        formula = Formula(f"{{{dx}}} = {{{dy}}} {{{W}}}", element, ("n", "i"), "", "Bug: the transpose is missing.")
        return replace(rule, backward=formula)


class UpdatedWeights(_BugLayer, Dense):
    """dx = dy @ (W - learning_rate * dW).T: the weights step before the gradient has passed through them."""

    base = Dense
    learning_rate = 0.0

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        """Return dx through the updated weights."""
        _, grads = super().backward(dy, cache)
        return dy @ (self.params["W"] - self.learning_rate * grads["W"]).T, grads

    def bug(self, rule: LayerRule, at: Place) -> LayerRule:
        """Change dx."""
        dx, dy, W, dW = (at.name(name) for name in ("dx", "dy", "W", "dW"))
        weight = Quantities(W)["i", "j"] - Constant("η", self.learning_rate) * Quantities(dW)["i", "j"]
        element = Sum("j", at.n_out, Quantities(dy)["n", "j"] * weight)
        why = f"Bug: {{{W}}} has been updated already."
        return replace(
            rule, backward=Formula(f"{{{dx}}} = {{{dy}}} ({{{W}}} − η {{{dW}}})ᵀ", element, ("n", "i"), "", why)
        )


class BiasOfOneRow(_BugLayer, Dense):
    """db = dy[0]: the bias's gradient is taken from one row, not summed over all."""

    base = Dense

    def backward(self, dy: Array, cache: Cache) -> tuple[Array | None, Parameters]:
        """Return db of the first row."""
        dx, grads = super().backward(dy, cache)
        grads["b"] = dy[0]
        return dx, grads

    def bug(self, rule: LayerRule, at: Place) -> LayerRule:
        """Change db."""
        db, dy = at.name("db"), at.name("dy")
        element = Quantities(dy)["0", "j"]
        formula = Formula(
            f"{{{db}}} = the first row of {{{dy}}}", element, ("j",), "", "Bug: the sum over rows is missing."
        )
        return replace(rule, gradients={**rule.gradients, "b": formula})


class _WrongSlope(_BugLayer):
    """An activation whose slope is wrong."""

    matrix = ""
    why = ""

    def trace_slope(self, dy: Array, cache: Cache) -> Array:
        """Return the slope that backward uses."""
        raise NotImplementedError

    def wrong(self, at: Place) -> Expression:
        """Return the slope's formula."""
        raise NotImplementedError

    def backward(self, dy: Array, cache: Cache) -> tuple[Array, Parameters]:
        """Return dy times the wrong slope."""
        return dy * self.trace_slope(dy, cache), Parameters({})

    def bug(self, rule: LayerRule, at: Place) -> LayerRule:
        """Change the slope."""
        assert rule.slope is not None
        names = {name: at.name(name) for name in ("x", "y", "dy")}
        formula = Formula(
            f"{{{rule.slope[0]}}} = " + self.matrix.format(**names), self.wrong(at), ("n", "j"), "", f"Bug: {self.why}"
        )
        return replace(rule, slope=(rule.slope[0], formula))


class MaskFromDy(_WrongSlope, ReLU):
    """dx = dy where dy > 0: the mask is taken from the gradient, not from the forward pass."""

    base, matrix, why = ReLU, "[{{{dy}}} > 0]", "the mask looks at dy, and should look at what went in."

    def trace_slope(self, dy: Array, cache: Cache) -> Array:
        """Return 1 where dy > 0."""
        return (dy > 0).astype(float)

    def wrong(self, at: Place) -> Expression:
        """Return [dy > 0]."""
        return call(">", at.q("dy")["n", "j"], 0)


class _LostSlope(_WrongSlope):
    """dx = dy: the factor f'(z) is lost, as in an article (docs/errata.md, 3)."""

    matrix, why = "1", "the slope of the activation is lost."

    def trace_slope(self, dy: Array, cache: Cache) -> Array:
        """Return 1."""
        return np.ones_like(dy)

    def wrong(self, at: Place) -> Expression:
        """Return 1."""
        return Constant("1", 1.0)


class LostSlopeOfSigmoid(_LostSlope, Sigmoid):
    """Of the sigmoid."""

    base = Sigmoid


class LostSlopeOfTanh(_LostSlope, Tanh):
    """Of tanh."""

    base = Tanh


class LostSlopeOfReLU(_LostSlope, ReLU):
    """Of relu: where the unit is off, a gradient passes."""

    base = ReLU


class _BugLoss(MeanLoss):
    """A loss like another but for its backward: it multiplies the right gradient by something."""

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

    def trace_rule(self, y_name: str, k: int, *, labels: bool) -> LossRule:
        """Return the formulas with the bug in them."""
        rule = loss_rule(self.inner, y_name, k, labels=labels)
        assert rule is not None and rule.slope is not None
        return replace(rule, slope=self.wrong(rule.slope, y_name))

    def wrong(self, slope: Expression, y_name: str) -> Expression:
        """Return the wrong formula."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return repr(self.inner)


class FactorTwo(_BugLoss):
    """dl = 2 (y - t) for l = 1/2 (y - t)^2, as in an article (docs/errata.md, 5)."""

    def spoil(self, y_pred: Array, dl: Array) -> Array:
        """Return twice the derivative."""
        return 2 * dl

    def wrong(self, slope: Expression, y_name: str) -> Expression:
        """Return twice the formula."""
        return 2 * slope


class Uphill(_BugLoss):
    """dl with the wrong sign: t - y."""

    def spoil(self, y_pred: Array, dl: Array) -> Array:
        """Return minus the derivative."""
        return -dl

    def wrong(self, slope: Expression, y_name: str) -> Expression:
        """Return minus the formula."""
        return Constant("−1", -1.0) * slope


class SumInsteadOfMean(_BugLoss):
    """dl without its 1/N: the loss is a mean, its gradient that of a sum."""

    def spoil(self, y_pred: Array, dl: Array) -> Array:
        """Return N times the derivative, which the mean then divides by N."""
        return dl * self.n_samples

    def wrong(self, slope: Expression, y_name: str) -> Expression:
        """Return N times the formula."""
        return Constant("N", self.n_samples) * slope


class SlopeAfterSoftmax(_BugLoss):
    """dz = (p - t) p (1 - p): softmax's slope once more, although p - t has it already."""

    def spoil(self, y_pred: Array, dl: Array) -> Array:
        """Return the derivative times p (1 - p)."""
        p, _ = self.link.forward(y_pred)
        out: Array = dl * p * (1 - p)
        return out

    def wrong(self, slope: Expression, y_name: str) -> Expression:
        """Return (p - t) p (1 - p)."""
        p = Quantities("p")["n", "j"]
        return slope * p * (1 - p)


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
        _in_layers(LostSlopeOfSigmoid, LostSlopeOfTanh, LostSlopeOfReLU),
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
