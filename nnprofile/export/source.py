"""What there is to write of a model: its layers in a row, its link, and, of a classifier, its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..contract import Array, Layer, Loss, check_filled
from ..engine.program import flatten
from ..layers import LAYERS, Dense, Dropout, Identity, Sigmoid, Softmax
from ..validation import check_dtype, fitted_inside
from .layers import can_be_written

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


class Source(NamedTuple):
    """A model to write: link(layers(x)), and what is made of it."""

    layers: list[Layer]  # without those that change nothing
    link: list[Layer]  # one, or none
    dtype: np.dtype[Any]
    n_features: int
    n_outputs: int
    classes: Array | None  # of a classifier whose rows have one label each
    is_classifier: bool
    is_estimator: bool

    @property
    def is_probability(self) -> bool:
        """Tell whether the last of all gives probabilities."""
        return isinstance([*self.layers, *self.link][-1], (Sigmoid, Softmax))

    @property
    def is_exclusive(self) -> bool:
        """Tell whether a row has one label of several."""
        return self.classes is not None or isinstance([*self.layers, *self.link][-1], Softmax)

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
    whole = inside.removesuffix("[-1]")
    if door == "to_c":
        return f"; to_c({inside}, path) writes its last step: apply the steps before it to x in your own code"
    return (
        f"; nnprofile.export.register_converters() and then skl2onnx.to_onnx({whole}, X[:1]) write all of its steps, "
        f"to_onnx({inside}, path) the last"
    )


def source_of(model: Any, loss: Loss | None, dtype: DTypeLike | None, door: str = "to_onnx") -> Source:
    """Return what there is to write of a network, with the link of ``loss``, or of a fitted estimator.

    Raises
    ------
    ValueError
        If it is neither, has a layer that has no form to be written in, or parameters that are not finite.
    """
    classes, is_classifier = None, False
    is_estimator = not isinstance(model, Layer)
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
        if isinstance(model, MLPClassifier) and not model._multilabel:
            classes = model.classes_

    layers = [layer for layer, _ in flatten(net) if not isinstance(layer, (Identity, Dropout))]
    after = [] if link is None or isinstance(link, Identity) else [link]
    for layer in (*layers, *after):
        if not can_be_written(layer):
            names = ", ".join(sorted(cls.__name__ for cls in LAYERS))
            raise ValueError(
                f"{layer!r} can't be exported; {names} can, and elementwise layers of your own that state their formula"
            )
    dense = [layer for layer in layers if isinstance(layer, Dense)]
    if not dense:
        raise ValueError(f"{net!r} can't be exported: without a Dense layer it has no width")
    if dtype is None:
        dtype = net.params.dtype
    check_dtype(dtype)
    check_filled(net)
    with np.errstate(over="ignore"):
        if not np.isfinite(net.params.vector.astype(dtype)).all():
            raise ValueError(f"{net!r} has parameters without a finite value in {np.dtype(dtype)}")
    widths = dense[0].in_features, dense[-1].out_features
    return Source(layers, after, np.dtype(dtype), *widths, classes, is_classifier, is_estimator)
