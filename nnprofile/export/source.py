"""An exportable view of a model: its network, its link, and, of a classifier, its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..contract import Array, Layer, Loss, Parameters, apply, check_filled, numbers_of
from ..layers import LAYERS, Dense, Identity, Parallel, Sequential, Sigmoid, Softmax
from ..layers.compose import kind_of
from ..layers.walk import chain
from ..ragged import Ragged
from ..validation import check_dtype, fitted_inside
from .layers import DO_NOTHING, EVENT_FUNCTIONS, NODES, ROW_FUNCTIONS, without_form

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


class Source(NamedTuple):
    """A model to write: link(layers(x)), and what is made of it."""

    net: Layer
    link: list[Layer]  # one, or none
    dtype: np.dtype[Any]
    n_features: Any  # a number, "ids", or, where x is a tuple, a tuple
    n_outputs: int
    classes: Array | None  # of a classifier whose rows have one label each
    is_classifier: bool
    is_estimator: bool
    gives_events: bool = False  # whether y has a row for each event of a sequence

    @property
    def last(self) -> Layer:
        """The last layer that does something."""
        return (self.link or [layer for layer, _ in chain(self.net) if type(layer) not in DO_NOTHING] or [self.net])[-1]

    @property
    def is_probability(self) -> bool:
        """Tell whether the last of all gives probabilities."""
        return type(self.last) in (Sigmoid, Softmax)

    @property
    def is_exclusive(self) -> bool:
        """Tell whether a row has one label of several."""
        return self.classes is not None or type(self.last) is Softmax

    @property
    def is_binary(self) -> bool:
        """Tell whether there are two classes, and one output says the probability of the second."""
        return self.classes is not None and self.n_outputs == 1

    @property
    def labels(self) -> Array | None:
        """The classes, as portable numbers or texts: text stays, whole numbers and bools are int64.

        Raises
        ------
        ValueError
            If they are other numbers, or other objects.
        """
        if self.classes is None:
            return None
        labels = self.classes.tolist() * (2 if len(self.classes) == 1 else 1)  # the only one, whatever is said
        if all(isinstance(label, str) for label in labels):
            return np.array(labels, object)
        if all(isinstance(label, (int, float)) and abs(label) < 2**63 and label == int(label) for label in labels):
            return np.array([int(label) for label in labels], np.int64)
        raise ValueError(f"labels must be texts or whole numbers of 64 bits to be exported, got {self.classes}")


def _way(model: Any, door: str) -> str:
    """Return how a pipeline or a search is exported."""
    inside = fitted_inside(model)
    if not inside:
        return ""
    if not inside.endswith("[-1]"):
        return f"; export {inside}"
    whole, pipeline = inside.removesuffix("[-1]"), model
    for attribute in whole.split(".")[1:]:
        pipeline = getattr(pipeline, attribute)
    if behind_scalers(pipeline)[1]:
        return f"; export {whole}"
    if door == "to_c":
        return f"; to_c({inside}, path) writes its last step: apply the steps before it to x in your own code"
    return (
        f"; nnprofile.export.register_converters() and then skl2onnx.to_onnx({whole}, X[:1]) write all of its steps, "
        f"to_onnx({inside}, path) the last"
    )


def source_of(model: Any, loss: Loss | None, dtype: DTypeLike | None, door: str = "to_onnx") -> Source:
    """Return a view of a network, with the link of ``loss``, of a fitted estimator, or of one behind scalers in a pipeline.

    Raises
    ------
    ValueError
        If it is neither, has a layer that has no form to be written in, or parameters that are not finite.
    """
    classes, is_classifier, is_estimator = None, False, not isinstance(model, Layer)
    model, scalers = behind_scalers(model)
    if isinstance(model, Layer):
        if loss is not None and not isinstance(loss, Loss):
            raise ValueError(f"loss must be of type Loss, got {loss!r}")
        net, link = model, None if loss is None else loss.link
    else:
        from ..estimators import MLPClassifier, MLPRegressor

        if not isinstance(model, (MLPClassifier, MLPRegressor)):
            raise ValueError(
                f"only a network, an MLPClassifier or an MLPRegressor can be exported, got {model!r}{_way(model, door)}"
            )
        if loss is not None:
            raise ValueError("an estimator has a loss of its own; loss is for networks")
        net, link = model.network_, model.loss_function_.link
        is_classifier = isinstance(model, MLPClassifier)
        if isinstance(model, MLPClassifier) and not (model.out_activation_ == "logistic" and model.n_outputs_ > 1):
            classes = model.classes_

    known = NODES if door == "to_onnx" else ROW_FUNCTIONS | EVENT_FUNCTIONS
    after = [] if link is None or isinstance(link, Identity) else [link]
    for layer in (net, *after):
        unknown = without_form(layer, known)
        if unknown is not None:
            names = ", ".join(
                sorted(cls.__name__ for cls, make in LAYERS.items() if without_form(make(2), known) is None)
            )
            raise ValueError(
                f"{unknown!r} can't be exported; {names} can, and elementwise layers of your own that state their formula; "
                "others need a form in nnprofile/export/layers.py"
            )
    width = _widths(net.takes, getattr(net, "in_features", None))
    if not _is_known(width):
        raise ValueError(f"{net!r} can't be exported: no layer says how many features x has")
    if dtype is None:
        dtype = net.params.dtype
    check_dtype(dtype)
    check_filled(net)
    if scalers:
        net = folded(net, scalers, model)
    with np.errstate(over="ignore"):
        if not np.isfinite(net.params.vector.astype(dtype)).all():
            raise ValueError(f"{net!r} has parameters without a finite value in {np.dtype(dtype)}")
    y = apply(net, one_row(net))[0]
    n = numbers_of(y).shape[1]
    return Source(net, after, np.dtype(dtype), width, n, classes, is_classifier, is_estimator, isinstance(y, Ragged))


def _is_known(width: Any) -> bool:
    return all(map(_is_known, width)) if isinstance(width, tuple) else width is not None


def _widths(takes: Any, width: Any) -> Any:
    """Return the width of x, "ids" where it is of ids, or a tuple of these."""
    if isinstance(takes, tuple):
        widths = width if isinstance(width, tuple) else [None] * len(takes)
        return tuple(map(_widths, takes, widths))
    return "ids" if takes == "ids" else width


def one_row(layer: Layer, *, events: bool | None = None) -> Any:
    """Return an x of one row, or one event, for a network; ``events``: whether parts that do not mix events are sequences too."""
    if events is None:
        try:
            x = one_row(layer, events=False)
            apply(layer, x)
        except ValueError:  # what is behind Parallel mixes the events of its parts
            x = one_row(layer, events=True)
        return x
    if kind_of(layer) is Parallel:
        return tuple(one_row(child, events=events) for child in layer.children)
    if kind_of(layer) is Sequential and isinstance(layer.takes, tuple):
        return one_row(layer.children[0], events=events)
    x = np.zeros(1, np.int64) if layer.takes == "ids" else np.zeros((1, layer.in_features))  # type: ignore[attr-defined]
    return Ragged.of(x, np.arange(2)) if layer.mixes_events or events else x


def n_outputs(net: Layer, width: Any) -> int:
    """Return the width of y, of an x of this width, or, of a tuple, of these widths."""
    if (known := net.output_width(None if width == "ids" else width)) is not None:
        return known

    def zeros(width: Any) -> Any:
        return tuple(map(zeros, width)) if isinstance(width, tuple) else np.zeros((1, width))

    return int(net.forward(zeros(width))[0].shape[1])


def folded(net: Layer, scalers: list[tuple[Array, Array]], model: Any) -> Layer:
    """Return a float64 twin of a network whose first Dense does what the scalers x a + c before it do: W' = a W, b' = b + c W.

    Raises
    ------
    ValueError
        If the first layer is no Dense.
    """
    first, start = next(chain(net))
    if type(first) is not Dense:
        raise ValueError(f"the scalers of {model!r} can't be exported: the first layer is no Dense, but {first!r}")
    W, b = first.params["W"].astype(float), first.params["b"].astype(float)
    for a, c in reversed(scalers):
        b, W = b + c @ W, a[:, None] * W
    vector = net.params.vector.astype(float)
    vector[start : start + W.size + b.size] = np.concatenate([W.ravel(), b])
    return net.with_params(Parameters(net.params.layout, vector))


def behind_scalers(model: Any) -> tuple[Any, list[tuple[Array, Array]]]:
    """Return the last step of a pipeline whose other steps are scalers, and what these do; anything else as it is."""
    steps = [step for _, step in getattr(model, "steps", []) if step is not None and not isinstance(step, str)]
    before = [found for step in steps[:-1] if (found := scaling(step)) is not None]
    return (steps[-1], before) if steps and len(before) == len(steps) - 1 else (model, [])


def scaling(step: Any) -> tuple[Array, Array] | None:
    """Return a and c of a fitted scaler of scikit-learn's, which computes x a + c; None of anything else."""
    name, known = type(step).__name__, type(step).__module__.startswith("sklearn.preprocessing")
    if not known or not hasattr(step, "n_features_in_") or getattr(step, "clip", False):
        return None
    one, zero = np.ones(step.n_features_in_), np.zeros(step.n_features_in_)
    if name == "MinMaxScaler":
        return step.scale_, step.min_
    if name not in ("StandardScaler", "RobustScaler", "MaxAbsScaler"):
        return None
    center = getattr(step, "mean_", None) if name == "StandardScaler" else getattr(step, "center_", None)
    if not (getattr(step, "with_mean", True) and getattr(step, "with_centering", True)):
        center = None
    scales = getattr(step, "with_std", True) and getattr(step, "with_scaling", True) and step.scale_ is not None
    scale = step.scale_ if scales else one
    return one / scale, (zero if center is None else -center / scale)
