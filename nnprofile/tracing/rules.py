"""What a trace says of each layer, loss and optimizer: its formulas, read from the class, and the words beside them.

Nothing is computed from the formulas. The numbers of a trace are the library's own; a formula says how a number came about, and a
test evaluates every one and compares. Equations are those of docs/backprop.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..contract import Array, Layer, Loss, Optimizer
from ..formulas import formula_of, parse
from ..formulas.expression import Binary, Element, Expression, Sum, Token
from ..formulas.parse import free_letters
from ..layers import (
    GRU,
    LSTM,
    RNN,
    Conv1D,
    Dense,
    Dropout,
    Embedding,
    LastEvent,
    LayerNorm,
    MaxOverEvents,
    MeanOverEvents,
    PositionalEmbedding,
    SelfAttention,
    Softmax,
    Tied,
)
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
from ..optimizers import SGD, FirstOrder

NJ, NI = ("n", "j"), ("n", "i")


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
    own: tuple[str, ...] = ()  # "s", a slope; "m", a mask; or what a formula names on the way

    def name(self, name: str) -> str:
        """Return the name in the trace of what is called so here: "x", "y", "dx", "dy", "W", "dW", ..., or an own one.

        Raises
        ------
        KeyError
            If nothing is called so.
        """
        if name in ("x", "y"):
            return str(getattr(self, name))
        if name in ("dx", "dy"):
            return "d" + str(getattr(self, name[1]))
        if name in self.own:
            return name + self.tail
        return self.params[name] if name in self.params else "d" + self.params[name.removeprefix("d")]

    def filled(self, text: str) -> str:
        """Return a text with the names in its braces as the trace has them."""
        return re.sub(r"\{([\w.]+)\}", lambda found: f"{{{self.name(found[1])}}}", text)


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
    inner : dict of str to Formula
        Of what comes about between x and y, by name.
    slope : (str, Formula) or None
        The name and the formula of dy/dx, where the layer works on each element alone.
    """

    title: str
    forward: Formula
    backward: Formula
    gradients: dict[str, Formula] = field(default_factory=dict)
    inner: dict[str, Formula] = field(default_factory=dict)
    slope: tuple[str, Formula] | None = None


# For whole arrays; the equation; why.
Words = Mapping[str, tuple[str, str, str]]
_TITLES: dict[type[Layer], str] = {
    Dense: "Dense layer {tail}",
    Dropout: "Dropout",
    LayerNorm: "Layer norm {tail}",
    Softmax: "Softmax",
}
_WORDS: dict[type[Layer], Words] = {
    Dense: {
        "y": ("{y} = {x} {W} + {b}", "2", "Each unit j weighs all inputs of a row, and adds its bias."),
        "dx": (
            "{dx} = {dy} {W}ᵀ",
            "22",
            "Input i of row n reaches every unit j, through the weight [i,j]: so the sum is over j, the second index of {W}, and "
            "that is a product with {W} transposed.",
        ),
        "dW": (
            "{dW} = {x}ᵀ {dy}",
            "22",
            "The weight [i,j] is used once in every row n, times the input i of that row: so the sum is over rows.",
        ),
        "db": (
            "{db} = Σ_n {dy}",
            "22",
            "The bias [j] is added once in every row: so its gradient is the sum over rows.",
        ),
    },
    Dropout: {
        "y": ("{y} = {x} ⊙ {m}", "8", "What is dropped is multiplied by 0."),
        "dx": ("{dx} = {dy} ⊙ {m}", "8", "With the mask of the forward pass."),
        "m": ("{m} = mask", "8", "Drawn: 0 for the share that is dropped, else 1 / (1 − rate)."),
    },
    LayerNorm: {
        "m": ("{m} = 1/K Σ_k {x}", "43", "The mean of each row."),
        "r": ("{r} = 1 / sqrt(1/K Σ_k ({x} − {m})² + ε)", "43", "One over the spread of each row."),
        "h": ("{h} = ({x} − {m}) {r}", "43", "Each row with mean 0 and variance 1."),
        "y": ("{y} = {g} ⊙ {h} + {b}", "43", "Each column gets a scale and a shift of its own, which are learnt."),
        "dx": (
            "{dx} = {r} ({dy} ⊙ {g} − mean({dy} ⊙ {g}) − {h} mean({dy} ⊙ {g} ⊙ {h}))",
            "44",
            "What moves all numbers of a row alike changes nothing behind the mean, and what stretches them nothing behind the "
            "variance: both parts are taken out of the gradient.",
        ),
        "dg": ("{dg} = Σ_n {dy} ⊙ {h}", "44", "The scale [j] is used once in every row, times h."),
        "db": (
            "{db} = Σ_n {dy}",
            "44",
            "The shift [j] is added once in every row: so its gradient is the sum over rows.",
        ),
    },
    Softmax: {
        "y": ("{y} = softmax({x})", "7", "Exponentials, divided by their sum over the row."),
        "dx": (
            "{dx} = {y} ⊙ ({dy} − Σ_k {dy} ⊙ {y})",
            "26",
            "Every logit of a row moves every probability of that row.",
        ),
    },
}


def _back(equations: str) -> tuple[str, str, str]:
    return (
        "",
        equations,
        "Not written out number by number; the values are the layer's own, and checked like all others.",
    )


# Of one event t: what goes on between events has no formula that the elements of one array would tell.
_IN_TIME: dict[type[Layer], Words] = {
    Embedding: {
        "y": ("{y}[n] = {E}[{x}[n]]", "45", "Row x_n of the table."),
        "dE": ("{dE}[i] = Σ_n {dy}[n] where {x}[n] = i", "45", "A row that is used several times gets the sum."),
    },
    PositionalEmbedding: {
        "y": ("{y}[t] = {x}[t] + {E}[t]", "46", "What is learnt of the place t in a sequence, added."),
        "dx": ("{dx} = {dy}", "46", "A sum hands its gradient on to both of its terms."),
        "dE": ("{dE}[t] = Σ {dy}[t]", "46", "Over all sequences that have an event t."),
    },
    LastEvent: {"y": ("{y} = {x}[T]", "47", "The last event of each sequence."), "back": _back("47")},
    MeanOverEvents: {
        "y": ("{y} = 1/T Σ_t {x}[t]", "48", "The mean over the T events of each sequence."),
        "back": _back("48"),
    },
    MaxOverEvents: {
        "y": ("{y} = max {x}[t]", "49", "The largest of each column, over the events of a sequence."),
        "back": _back("49"),
    },
    Conv1D: {
        "y": ("{y}[t] = Σ_k {x}[t+s] {W}[k] + {b}, s = (k − K + 1) d", "50", "A Dense layer on a window."),
        "back": _back("51, 52"),
    },
    RNN: {
        "y": ("{y}[t] = tanh({x}[t] {W} + {b} + {y}[t−1] {U})", "57", "From {y}[0] = 0."),
        "back": _back("54, 55, 57"),
    },
    GRU: {
        "y": (
            "{y}[t] = (1 − z) n + z {y}[t−1], r = σ(a_r + u_r), z = σ(a_z + u_z), n = tanh(a_n + r u_n), "
            "a = {x}[t] {W} + {b}, u = {y}[t−1] {U} + {c}",
            "58",
            "z keeps, r reads; from {y}[0] = 0.",
        ),
        "back": _back("54, 55, 59, 60"),
    },
    LSTM: {
        "y": (
            "{y}[t] = o tanh(c[t]), c[t] = f c[t−1] + i g, with i, f, o = σ and g = tanh of {x}[t] {W} + {b} + {y}[t−1] {U}",
            "61",
            "The cell c is added to, not overwritten; from c[0] = {y}[0] = 0.",
        ),
        "back": _back("54, 55, 62, 63"),
    },
    SelfAttention: {
        "y": (
            "{y}[t] = Σ_s A[t,s] v[s] {V} + {c}, A[t] = softmax(q[t] · k[s] / sqrt(d)) over s ≤ t, q, k, v = {x} {W} + {b}",
            "64",
            "Each event takes a mean of what the events up to it offer.",
        ),
        "back": _back("67, 68"),
    },
    Tied: {
        "y": ("{y} = f(E[{x}]) Eᵀ + {b}", "69", "One logit for each id: how well its vector fits."),
        "back": _back("69"),
    },
}
_BOTH_WAYS: dict[type[Layer], Words] = {  # with causal=False
    Conv1D: {"y": ("{y}[t] = Σ_k {x}[t+s] {W}[k] + {b}, s = (k − (K − 1) / 2) d", "50", "A Dense layer on a window.")},
    SelfAttention: {
        "y": (
            "{y}[t] = Σ_s A[t,s] v[s] {V} + {c}, A[t] = softmax(q[t] · k[s] / sqrt(d)) over all s, q, k, v = {x} {W} + {b}",
            "64",
            "Each event takes a mean of what the events of its sequence offer.",
        ),
    },
}


def _elementwise_words(f: str) -> Words:
    return {
        "y": (f"{{y}} = {f}({{x}})", "3", f"The function {f}, element by element."),
        "dx": (
            "{dx} = {dy} ⊙ {s}",
            "24",
            "Element [n,j] goes in only at [n,j]: so its gradient is one product, and no sum. (⊙ is the product element by "
            "element.)",
        ),
        "slope": (f"{{s}} = {f}′({{x}})", "25", f"The slope of {f} where the forward pass was."),
    }


def words_of(layer: Layer) -> Words:
    """Return what is said of a layer's formulas; of a subclass, what is said of the class, changed by its own ``words``."""
    texts = formula_of(layer)
    if not texts:  # a subclass may compute something else than the class it comes from
        words = _IN_TIME.get(type(layer), {})
        return words if getattr(layer, "causal", True) else {**words, **_BOTH_WAYS.get(type(layer), {})}
    known = next((_WORDS[cls] for cls in type(layer).__mro__ if cls in _WORDS), None)
    if known is None:
        known = _elementwise_words(symbol_of(layer)) if "slope" in texts else {}
    return {**known, **getattr(layer, "words", {})}


def symbol_of(layer: Layer) -> str:
    """Return how an elementwise function is called in formulas."""
    return getattr(layer, "symbol", "") or type(layer).__name__.lower()


def own_names(layer: Layer) -> tuple[str, ...]:
    """Return what a layer makes besides y and gradients: "s", a slope; "m", a mask; or what its formulas name on the way."""
    texts = formula_of(layer)
    if not texts or "slope" in texts:
        return ("s",)
    if isinstance(layer, Dropout):
        return ("m",)
    return tuple(name for name in texts if name not in ("y", "dx") and name.removeprefix("d") not in layer.params)


def slope_formula(layer: Layer, at: Place, method: str) -> tuple[str, Formula]:
    """Return name and formula of the slope of an elementwise layer without formulas."""
    kind, own = type(layer).__name__, at.name("s")
    why = f"The slope of {kind} where the forward pass was, by {method}: it is what the paths of the chain rule need of it."
    return own, Formula(f"{{{own}}} = {kind}′({{{at.x}}})", None, NJ, "25", why)


def layer_rule(layer: Layer, at: Place) -> LayerRule:
    """Return the formulas of a layer; of one that states none, that there are none."""
    texts, words, kind = formula_of(layer), words_of(layer), type(layer).__name__
    sizes = {"n": at.n_samples, "i": at.n_in, "j": at.n_out, "k": at.n_out}
    by = f"Computed by {kind}, which has no formulas here; the values are its own, and checked like all others."
    plain = {"y": f"{{y}} = {kind}({{x}})", "dx": f"{{dx}} = {kind}.backward({{dy}})"}

    def formula(key: str, text: str | None) -> Formula:
        other = f"{{{key}}} of {kind}" if key in at.own else f"{{{key}}} from {kind}.backward({{dy}})"
        head, equation, why = words.get(key) or (
            plain.get(key, other),
            *words.get("back", ("", "", "" if texts else by))[1:],
        )
        if text is None:
            return Formula(at.filled(head), None, NJ if key == "m" else (), equation, at.filled(why))
        element = parse(text, at.name, layer, sizes=sizes)
        letters = free_letters(element)
        index = letters if key not in ("y", "dx", "slope") else NI if "i" in letters else NJ
        return Formula(at.filled(head), element, index, equation, at.filled(why))

    slope = None
    if "slope" in texts:
        slope = (at.name("s"), formula("slope", texts["slope"]))
    elif "m" in at.own and isinstance(layer, Dropout):
        slope = (at.name("m"), formula("m", None))
    title = next((_TITLES[cls] for cls in type(layer).__mro__ if texts and cls in _TITLES), kind)
    return LayerRule(
        f"Activation {symbol_of(layer)}" if "slope" in texts else title.format(tail=at.tail),
        formula("y", texts.get("y")),
        formula("dx", texts.get("dx", "dy * s" if slope is not None and "slope" in texts else None)),
        {name: formula(f"d{name}", texts.get(f"d{name}")) for name in layer.params},
        {name: formula(name, texts[name]) for name in at.own if name in texts},
        slope,
    )


def first_factors(rule: LayerRule, at: Place) -> dict[str, Element | None]:
    """Return, for each parameter whose gradient is a sum over rows of dy times something, that something; None, if it is 1."""
    out: dict[str, Element | None] = {}
    for name, formula in rule.gradients.items():
        match formula.element:
            case Sum(index="n", body=Element(name=dy)) if dy == at.name("dy"):
                out[at.name(name)] = None
            case Sum(index="n", body=Binary(operator="·", left=Element() as a, right=Element() as b)):
                out[at.name(name)] = a if b.name == at.name("dy") else b
    return out


@dataclass(frozen=True)
class LossRule:
    """The formulas of a loss.

    Attributes
    ----------
    sample : Formula
        Of l, a sample's loss, without its weight.
    slope : Expression
        dl_nj / dy_nj.
    probabilities : Formula or None
        Of p, what the link makes of logits.
    """

    sample: Formula
    slope: Expression
    probabilities: Formula | None = None


_CROSS_ENTROPY = "{l} = −1/K Σ_j [{t} log {p} + (1 − {t}) log(1 − {p})]"
_LOGISTIC = "Written so that nothing is rounded to log 0: −log σ(z) = log(1 + exp(−z)), and 1 − σ(z) = σ(−z)."
_LOG_SUM = "The logarithm of a softmax: −log p[n,j] = log Σ_k exp(z[n,k]) − z[n,j]."
_TO_PROBABILITIES = "Probabilities out of logits."
_LOSS_WORDS: dict[type[Loss], Words] = {
    HalfSquaredError: {"l": ("{l} = ½ Σ_j ({y} − {t})²", "10", "")},
    MeanSquaredError: {"l": ("{l} = 1/K Σ_j ({y} − {t})²", "11", "")},
    MeanAbsoluteError: {"l": ("{l} = 1/K Σ_j |{y} − {t}|", "12", "")},
    Huber: {"l": ("{l} = 1/K Σ_j h({y} − {t})", "13", "h(d) is d²/2 up to δ, and δ (|d| − δ/2) beyond.")},
    BinaryCrossEntropy: {"l": (_CROSS_ENTROPY.replace("{p}", "{y}"), "14", "")},
    SigmoidCrossEntropy: {
        "l": (_CROSS_ENTROPY, "15", _LOGISTIC),
        "p": ("{p} = σ({y})", "5", _TO_PROBABILITIES),
    },
    PoissonLoss: {
        "l": ("{l} = Σ_j [{t} log({t}/{p}) + {p} − {t}]", "41", "Half the deviance; e^{y} is the rate."),
        "p": ("{p} = exp({y})", "40", "Rates out of their logarithms."),
    },
    SoftmaxCrossEntropy: {
        "l": ("{l} = −Σ_j {t} log {p}", "16", _LOG_SUM),
        "p": ("{p} = softmax({y})", "7", _TO_PROBABILITIES),
    },
}


def loss_rule(loss: Loss, y_name: str, k: int, *, labels: bool = False) -> LossRule | None:
    """Return the formulas of a loss of k outputs called ``y_name``, or None if it states none.

    With ``labels`` the targets are 1 and 0, and sum to 1 exactly.
    """
    texts = formula_of(loss)
    if "l" not in texts or "slope" not in texts:
        return None
    names = {"y": y_name, "t": "t", "p": "p", "l": "l"}
    inner: Loss = getattr(loss, "inner", loss)  # of a loss that is wrong on purpose
    numbers = {"n_samples": float(getattr(loss, "n_samples", 0))}
    words = _LOSS_WORDS.get(type(inner), {})

    def element(key: str) -> Expression:
        text = texts.get(f"{key} of labels", texts[key]) if labels else texts[key]
        return parse(text, names.__getitem__, inner, sizes={"n": 1, "j": k, "k": k}, numbers=numbers)

    def formula(key: str, index: tuple[str, ...]) -> Formula:
        head, equation, why = words.get(key, (f"{{{key}}} = {type(loss).__name__}({{y}}, {{t}})", "", ""))
        head = head.replace("{y}", f"{{{y_name}}}").replace("1/K ", "" if k == 1 else "1/K ")
        return Formula(head, element(key), index, equation, why)

    return LossRule(formula("l", ("n",)), element("slope"), formula("p", NJ) if "p" in texts else None)


@dataclass(frozen=True)
class UpdateRule:
    """The formulas of an optimizer for one parameter: of its moments' new values by name, and of its own."""

    moments: dict[str, Formula]
    update: Formula


def update_rule(
    optimizer: Optimizer, name: str, index: tuple[str, ...], *, learning_rate: float, step: int, decays: bool
) -> UpdateRule | None:
    """Return the formulas of a step for the parameter ``name``, or None if they are not known."""
    texts = formula_of(optimizer)
    if "w" not in texts or (getattr(optimizer, "lazy", False) and optimizer.moments):
        return None
    named: dict[str, str | Expression] = {"w": name, "dw": f"d{name}"}
    for moment in optimizer.moments:
        named |= {moment: f"{moment}{name}", f"{moment}_new": f"{moment}{name}+"}
    numbers = {"learning_rate": learning_rate, "t": float(step)}

    def read(text: str, names: Mapping[str, str | Expression]) -> Expression:
        return parse(text, names.__getitem__, optimizer, sizes={}, numbers=numbers, index=index)

    if decays and isinstance(optimizer, FirstOrder) and optimizer.weight_decay:
        named["w"] = read(optimizer.decay_formula, dict(named))

    def formula(key: str, new: str) -> Formula:
        element = read(texts[key], named)
        return Formula(f"{{{new}+}} = {_whole(element.tokens())}", element, index, *_update_words(optimizer, key))

    moments = {moment: formula(moment, f"{moment}{name}") for moment in optimizer.moments}
    return UpdateRule(moments, formula("w", name))


def _update_words(optimizer: Optimizer, key: str) -> tuple[str, str]:
    if not isinstance(optimizer, SGD):
        return "31", ""
    if not optimizer.momentum:
        return "28", "Downhill: against the gradient, by the learning rate η."
    return ("29", "The velocity remembers.") if key == "v" else ("30" if optimizer.nesterov else "29", "")


def _whole(tokens: list[Token]) -> str:
    """Return the formula of an element as one for whole arrays: without indices, as all of them are the same."""
    out = ""
    for token in tokens:
        out += token.replace("·", " ") if isinstance(token, str) else token[1] if token[0] == "c" else f"{{{token[1]}}}"
    return out


def slope_of(layer: Layer, y: Array, dy: Array, cache: Any) -> Array:
    """Return dy/dx of an elementwise layer as its backward has it; ``trace_slope`` is that of a backward that is wrong."""
    own = getattr(layer, "trace_slope", None)
    return own(dy, cache) if own is not None else layer.backward(np.ones_like(y), cache)[0]  # type: ignore[return-value]
