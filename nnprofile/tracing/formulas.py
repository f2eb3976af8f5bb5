"""What each layer, loss and optimizer computes, as formulas: one entry each, forward and backward side by side.

Nothing is computed from them. The numbers of a trace are the library's own; a formula says how a number came about, and a
test evaluates every one and compares. Equations are those of docs/backprop.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..contract import Array, Layer, Loss, Optimizer
from ..layers import Dense, Dropout, Identity, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from ..losses import (
    BinaryCrossEntropy,
    HalfSquaredError,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
)
from ..optimizers import SGD, Adam
from .expression import Constant, Expression, Quantities, Square, Sum, call


@dataclass(frozen=True)
class Formula:
    """How a quantity came about.

    Attributes
    ----------
    matrix : str
        For whole arrays, with the names of quantities in braces: "{z1} = {x} {W1} + {b1}".
    element : Expression or None
        The right-hand side for one element; None where there is nothing to show, such as a random draw.
    index : tuple of str
        The letters of the element's indices.
    equation : str
        Its number in docs/backprop.md.
    why : str
        One sentence.
    """

    matrix: str
    element: Expression | None = None
    index: tuple[str, ...] = ()
    equation: str = ""
    why: str = ""


@dataclass(frozen=True)
class Place:
    """A layer's place in the network: the names of what goes in and comes out, and the sizes."""

    x: str
    y: str
    tail: str  # the number that the names of this layer's own quantities end in
    n_samples: int
    n_in: int
    n_out: int
    params: dict[str, str] = field(default_factory=dict)  # "W" -> "W1"

    def q(self, name: str) -> Quantities:
        """Return the quantity called so here: "x", "y", "dx", "dy", "W", "dW" ..., or an own one."""
        return Quantities(self.name(name))

    def name(self, name: str) -> str:
        """Return the name in the trace of what is called so here."""
        if name in ("x", "y"):
            return str(getattr(self, name))
        if name in ("dx", "dy"):
            return "d" + str(getattr(self, name[1]))
        if name in self.params:
            return self.params[name]
        return "d" + self.params[name[1:]] if name[1:] in self.params else name + self.tail


@dataclass(frozen=True)
class LayerRule:
    """The formulas of a layer.

    Attributes
    ----------
    title : str
        What the layer does, for a heading.
    forward, backward : Formula
        Of y and of dx.
    gradients : dict of str to Formula
        Of the parameters' gradients.
    slope : (str, Formula) or None
        The name and the formula of dy/dx, where the layer works on each element alone.
    """

    title: str
    forward: Formula
    backward: Formula
    gradients: dict[str, Formula] = field(default_factory=dict)
    slope: tuple[str, Formula] | None = None


NJ, NI = ("n", "j"), ("n", "i")
_LOGISTIC = "Written so that nothing is rounded to log 0: −log σ(z) = log(1 + exp(−z)), and 1 − σ(z) = σ(−z)."
_LOG_SUM = "The logarithm of a softmax: −log p[n,j] = log Σ_k exp(z[n,k]) − z[n,j]."


def _dense(layer: Layer, at: Place) -> LayerRule:
    x, W, b, dy = at.q("x"), at.q("W"), at.q("b"), at.q("dy")
    y_, x_, W_, b_, dx_, dy_, dW_, db_ = (at.name(n) for n in ("y", "x", "W", "b", "dx", "dy", "dW", "db"))
    return LayerRule(
        f"Dense layer {at.tail}",
        Formula(
            f"{{{y_}}} = {{{x_}}} {{{W_}}} + {{{b_}}}",
            Sum("i", at.n_in, x["n", "i"] * W["i", "j"]) + b["j"],
            NJ,
            "2",
            "Each unit j weighs all inputs of a row, and adds its bias.",
        ),
        Formula(
            f"{{{dx_}}} = {{{dy_}}} {{{W_}}}ᵀ",
            Sum("j", at.n_out, dy["n", "j"] * W["i", "j"]),
            NI,
            "22",
            f"Input i of row n reaches every unit j, through the weight [i,j]: so the sum is over j, the second index of "
            f"{{{W_}}}, and that is a product with {{{W_}}} transposed.",
        ),
        {
            "W": Formula(
                f"{{{dW_}}} = {{{x_}}}ᵀ {{{dy_}}}",
                Sum("n", at.n_samples, x["n", "i"] * dy["n", "j"]),
                ("i", "j"),
                "22",
                "The weight [i,j] is used once in every row n, times the input i of that row: so the sum is over rows.",
            ),
            "b": Formula(
                f"{{{db_}}} = Σ_n {{{dy_}}}",
                Sum("n", at.n_samples, dy["n", "j"]),
                ("j",),
                "22",
                "The bias [j] is added once in every row: so its gradient is the sum over rows.",
            ),
        },
    )


def _elementwise(
    symbol: str,
    f: Callable[[Expression, Layer], Expression],
    slope: Callable[[Expression, Expression, Layer], Expression],
) -> Callable[[Layer, Place], LayerRule]:
    def rule(layer: Layer, at: Place) -> LayerRule:
        x, y, dy = at.q("x")["n", "j"], at.q("y")["n", "j"], at.q("dy")["n", "j"]
        x_, y_, dx_, dy_ = (at.name(n) for n in ("x", "y", "dx", "dy"))
        own = f"s{at.tail}"
        return LayerRule(
            f"Activation {symbol}",
            Formula(
                f"{{{y_}}} = {symbol}({{{x_}}})", f(x, layer), NJ, "3", f"The function {symbol}, element by element."
            ),
            Formula(
                f"{{{dx_}}} = {{{dy_}}} ⊙ {{{own}}}",
                dy * Quantities(own)["n", "j"],
                NJ,
                "24",
                "Element [n,j] goes in only at [n,j]: so its gradient is one product, and no sum. (⊙ is the product element by "
                "element.)",
            ),
            slope=(
                own,
                Formula(
                    f"{{{own}}} = {symbol}′({{{x_}}})",
                    slope(x, y, layer),
                    NJ,
                    "25",
                    f"The slope of {symbol} where the forward pass was.",
                ),
            ),
        )

    return rule


def _dropout(layer: Layer, at: Place) -> LayerRule:
    own = f"m{at.tail}"
    x_, y_, dx_, dy_ = (at.name(n) for n in ("x", "y", "dx", "dy"))
    m = Quantities(own)["n", "j"]
    return LayerRule(
        "Dropout",
        Formula(
            f"{{{y_}}} = {{{x_}}} ⊙ {{{own}}}", at.q("x")["n", "j"] * m, NJ, "8", "What is dropped is multiplied by 0."
        ),
        Formula(
            f"{{{dx_}}} = {{{dy_}}} ⊙ {{{own}}}",
            at.q("dy")["n", "j"] * m,
            NJ,
            "8",
            "With the mask of the forward pass.",
        ),
        slope=(
            own,
            Formula(f"{{{own}}} = mask", None, NJ, "8", "Drawn: 0 for the share that is dropped, else 1 / (1 − rate)."),
        ),
    )


def _softmax(layer: Layer, at: Place) -> LayerRule:
    x, y, dy = at.q("x"), at.q("y"), at.q("dy")
    x_, y_, dx_, dy_ = (at.name(n) for n in ("x", "y", "dx", "dy"))
    return LayerRule(
        "Softmax",
        Formula(
            f"{{{y_}}} = softmax({{{x_}}})",
            call("exp", x["n", "j"]) / Sum("k", at.n_out, call("exp", x["n", "k"])),
            NJ,
            "7",
            "Exponentials, divided by their sum over the row.",
        ),
        Formula(
            f"{{{dx_}}} = {{{y_}}} ⊙ ({{{dy_}}} − Σ_k {{{dy_}}} ⊙ {{{y_}}})",
            y["n", "j"] * (dy["n", "j"] - Sum("k", at.n_out, dy["n", "k"] * y["n", "k"])),
            NJ,
            "26",
            "Every logit of a row moves every probability of that row.",
        ),
    )


def _unknown(layer: Layer, at: Place) -> LayerRule:
    kind = type(layer).__name__
    x_, y_, dx_, dy_ = (at.name(n) for n in ("x", "y", "dx", "dy"))
    by = f"Computed by {kind}, which has no formulas here; the values are its own, and checked like all others."
    gradients = {
        name: Formula(f"{{{at.name('d' + name)}}} from {kind}.backward({{{dy_}}})", why=by) for name in layer.params
    }
    return LayerRule(
        kind,
        Formula(f"{{{y_}}} = {kind}({{{x_}}})", why=by),
        Formula(f"{{{dx_}}} = {kind}.backward({{{dy_}}})", why=by),
        gradients,
    )


def _leak(x: Expression, layer: Layer) -> Expression:
    return call("max", x, Constant("c", layer.negative_slope) * x)  # type: ignore[attr-defined]


def _leak_slope(x: Expression, y: Expression, layer: Layer) -> Expression:
    return call(">", x, 0) + Constant("c", layer.negative_slope) * call("≤", x, 0)  # type: ignore[attr-defined]


LAYERS: dict[type, Callable[[Layer, Place], LayerRule]] = {
    Dense: _dense,
    Sigmoid: _elementwise("σ", lambda x, _: 1 / (1 + call("exp", -x)), lambda x, y, _: y * (1 - y)),
    Tanh: _elementwise("tanh", lambda x, _: call("tanh", x), lambda x, y, _: 1 - Square(y)),
    ReLU: _elementwise("relu", lambda x, _: call("max", x, 0), lambda x, y, _: call(">", x, 0)),
    LeakyReLU: _elementwise("lrelu", _leak, _leak_slope),
    Identity: _elementwise("id", lambda x, _: x, lambda x, y, _: Constant("1", 1.0)),
    Dropout: _dropout,
    Softmax: _softmax,
}


def has_formulas(layer: Layer) -> bool:
    """Tell whether a layer has formulas here, or a ``trace_rule`` of its own."""
    return type(layer) in LAYERS or hasattr(type(layer), "trace_rule")


def slope_formula(layer: Layer, at: Place, method: str) -> tuple[str, Formula]:
    """Return name and formula of the slope of an elementwise layer without formulas."""
    kind, own = type(layer).__name__, f"s{at.tail}"
    why = f"The slope of {kind} where the forward pass was, by {method}: it is what the paths of the chain rule need of it."
    return own, Formula(f"{{{own}}} = {kind}′({{{at.name('x')}}})", None, NJ, "25", why)


def layer_rule(layer: Layer, at: Place) -> LayerRule:
    """Return the formulas of a layer; a layer may define ``trace_rule(at)``."""
    own = getattr(type(layer), "trace_rule", None)
    if own is not None:
        return own(layer, at)  # type: ignore[no-any-return]
    return LAYERS.get(type(layer), _unknown)(layer, at)


@dataclass(frozen=True)
class LossRule:
    """The formulas of a loss.

    Attributes
    ----------
    sample : Formula
        Of l, a sample's loss, without its weight.
    slope : Expression or None
        dl_nj / dy_nj.
    probabilities : Formula or None
        Of p, what the link makes of logits.
    """

    sample: Formula
    slope: Expression | None
    probabilities: Formula | None = None


def _squares(y: Quantities, k: int) -> Expression:
    return Sum("j", k, Square(y["n", "j"] - Quantities("t")["n", "j"]))


def loss_rule(loss: Loss, y_name: str, k: int, *, labels: bool = False) -> LossRule | None:
    """Return the formulas of a loss of k outputs called ``y_name``, or None if it is not one of the library's.

    With ``labels`` the targets are 1 and 0, and sum to 1 exactly.
    """
    own = getattr(type(loss), "trace_rule", None)
    if own is not None:
        return own(loss, y_name, k, labels=labels)  # type: ignore[no-any-return]
    y, t, p = Quantities(y_name), Quantities("t")["n", "j"], Quantities("p")["n", "j"]
    y_nj, share = y["n", "j"], Constant("K", k)
    name = f"{{{y_name}}}"
    n, kind = ("n",), type(loss)
    mean: Callable[[Expression], Expression] = (lambda e: e) if k == 1 else (lambda e: e / share)
    if kind is HalfSquaredError:
        return LossRule(Formula(f"{{l}} = ½ Σ_j ({name} − {{t}})²", _squares(y, k) / 2, n, "10"), y_nj - t)
    if kind is MeanSquaredError:
        head = "" if k == 1 else "1/K "
        return LossRule(
            Formula(f"{{l}} = {head}Σ_j ({name} − {{t}})²", mean(_squares(y, k)), n, "11"), mean(2 * (y_nj - t))
        )
    if kind is MeanAbsoluteError:
        return LossRule(
            Formula(f"{{l}} = 1/K Σ_j |{name} − {{t}}|", mean(Sum("j", k, call("abs", y_nj - t))), n, "12"),
            mean(call("sign", y_nj - t)),
        )
    if kind is Huber:
        d, delta = y_nj - t, Constant("δ", loss.delta)  # type: ignore[attr-defined]
        near, far = call("≤", call("abs", d), delta), call(">", call("abs", d), delta)
        h = near * (Square(d) / 2) + far * (delta * (call("abs", d) - delta / 2))
        return LossRule(
            Formula(
                f"{{l}} = 1/K Σ_j h({name} − {{t}})",
                mean(Sum("j", k, h)),
                n,
                "13",
                "h(d) is d²/2 up to δ, and δ (|d| − δ/2) beyond.",
            ),
            mean(near * d + far * (delta * call("sign", d))),
        )
    if kind is BinaryCrossEntropy:
        l = -Sum("j", k, t * call("log", y_nj) + (1 - t) * call("log", 1 - y_nj))
        return LossRule(
            Formula(f"{{l}} = −1/K Σ_j [{{t}} log {name} + (1 − {{t}}) log(1 − {name})]", mean(l), n, "14"),
            mean((1 - t) / (1 - y_nj) - t / y_nj),
        )
    if kind is SigmoidCrossEntropy:
        l = Sum("j", k, t * call("log", 1 + call("exp", -y_nj)) + (1 - t) * call("log", 1 + call("exp", y_nj)))
        return LossRule(
            Formula("{l} = −1/K Σ_j [{t} log {p} + (1 − {t}) log(1 − {p})]", mean(l), n, "15", _LOGISTIC),
            mean(p - t),
            Formula(f"{{p}} = σ({name})", 1 / (1 + call("exp", -y_nj)), NJ, "5", "Probabilities out of logits."),
        )
    if kind is SoftmaxCrossEntropy:
        all_, total = Sum("k", k, call("exp", y["n", "k"])), Sum("k", k, Quantities("t")["n", "k"])
        l = call("log", all_) - Sum("j", k, t * y_nj) if labels else Sum("j", k, t * (call("log", all_) - y_nj))
        return LossRule(
            Formula("{l} = −Σ_j {t} log {p}", l, n, "16", _LOG_SUM),
            p - t if labels else total * p - t,
            Formula(f"{{p}} = softmax({name})", call("exp", y_nj) / all_, NJ, "7", "Probabilities out of logits."),
        )
    return None


@dataclass(frozen=True)
class UpdateRule:
    """The formulas of an optimizer for one parameter: of its moments' new values by name, and of its own."""

    moments: dict[str, Formula]
    update: Formula


def update_rule(
    optimizer: Optimizer, name: str, index: tuple[str, ...], *, learning_rate: float, step: int, decays: bool
) -> UpdateRule | None:
    """Return the formulas of a step for the parameter ``name``, or None if they are not known."""
    w, dw = Quantities(name)[index], Quantities(f"d{name}")[index]
    eta = Constant("η", learning_rate)
    decay = getattr(optimizer, "weight_decay", 0.0) if decays else 0.0
    kept = w * (1 - eta * Constant("δ", decay)) if decay else w
    head = f"{{{name}+}} = " + (f"(1 − ηδ) {{{name}}}" if decay else f"{{{name}}}")
    if getattr(optimizer, "lazy", False) and optimizer.moments:
        return None
    if type(optimizer) is SGD:
        if not optimizer.momentum:
            why = "Downhill: against the gradient, by the learning rate η."
            return UpdateRule({}, Formula(f"{head} − η {{d{name}}}", kept - eta * dw, index, "28", why))
        mu, v, new = Constant("μ", optimizer.momentum), Quantities(f"v{name}")[index], Quantities(f"v{name}+")[index]
        velocity = Formula(
            f"{{v{name}+}} = μ {{v{name}}} − η {{d{name}}}", mu * v - eta * dw, index, "29", "The velocity remembers."
        )
        if optimizer.nesterov:
            move = Formula(f"{head} + μ {{v{name}+}} − η {{d{name}}}", kept + mu * new - eta * dw, index, "30")
        else:
            move = Formula(f"{head} + {{v{name}+}}", kept + new, index, "29")
        return UpdateRule({"v": velocity}, move)
    if type(optimizer) is Adam:
        b1, b2 = Constant("β₁", optimizer.beta1), Constant("β₂", optimizer.beta2)
        m, v = Quantities(f"m{name}")[index], Quantities(f"v{name}")[index]
        m_new, v_new = Quantities(f"m{name}+")[index], Quantities(f"v{name}+")[index]
        c1 = Constant("(1 − β₁ᵗ)", 1 - optimizer.beta1**step)
        c2 = Constant("(1 − β₂ᵗ)", 1 - optimizer.beta2**step)
        scaled = eta * (m_new / c1) / (call("sqrt", v_new / c2) + Constant("ε", optimizer.epsilon))
        return UpdateRule(
            {
                "m": Formula(
                    f"{{m{name}+}} = β₁ {{m{name}}} + (1 − β₁) {{d{name}}}", b1 * m + (1 - b1) * dw, index, "31"
                ),
                "v": Formula(
                    f"{{v{name}+}} = β₂ {{v{name}}} + (1 − β₂) {{d{name}}}²",
                    b2 * v + (1 - b2) * Square(dw),
                    index,
                    "31",
                ),
            },
            Formula(
                f"{head} − η ({{m{name}+}}/(1 − β₁ᵗ)) / (sqrt({{v{name}+}}/(1 − β₂ᵗ)) + ε)", kept - scaled, index, "31"
            ),
        )
    return None


def slope_of(layer: Layer, y: Array, dy: Array, cache: Any) -> Array:
    """Return dy/dx of an elementwise layer as its backward has it; a layer with a ``trace_slope`` of its own says itself."""
    own = getattr(layer, "trace_slope", None)
    return own(dy, cache) if own is not None else layer.backward(np.ones_like(y), cache)[0]  # type: ignore[return-value]
