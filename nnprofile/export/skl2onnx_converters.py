"""``register_converters``: let skl2onnx write pipelines that end with an estimator of ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..estimators import MLPClassifier, MLPRegressor
from .onnx_graph import write
from .source import Source, source_of

_OPTIONS = {"nocl": False}


def register_converters() -> None:
    """Tell skl2onnx how to write ``MLPClassifier`` and ``MLPRegressor`` (not subclasses), alone, in a Pipeline or an ensemble.

    Then ``skl2onnx.to_onnx(pipeline, x)`` works, with the options that it has for scikit-learn's own: ``zipmap``,
    ``output_class_labels`` and ``nocl`` (places in place of labels). The network computes in float64 if it is of float64 and
    what comes to it too, else in float32; a ``zipmap``, which is that converter's default, takes float32 only, as for
    scikit-learn's own. It may be called more than once.

    Raises
    ------
    ImportError
        If the package skl2onnx is missing: pip install "nnprofile[onnx]".
    """
    try:
        from skl2onnx import update_registered_converter
        from skl2onnx._supported_operators import sklearn_classifier_list
    except ImportError as error:
        raise ImportError('register_converters needs the package skl2onnx: pip install "nnprofile[onnx]"') from error
    if MLPClassifier not in sklearn_classifier_list:  # where it looks for classifiers without scikit-learn's mixin
        sklearn_classifier_list.append(MLPClassifier)
    options = {
        "zipmap": [True, False, "columns"],
        "output_class_labels": [False, True],
        "nocl": [True, False],
    }
    update_registered_converter(MLPClassifier, "NnprofileMLPClassifier", _classifier_types, _convert, options=options)
    update_registered_converter(MLPRegressor, "NnprofileMLPRegressor", _regressor_types, _convert)


def _source(operator: Any, options: Any) -> Source:
    from skl2onnx.common.data_types import DoubleTensorType

    model = operator.raw_operator
    if len(operator.inputs) != 1:
        raise ValueError(
            f"{model!r} takes one input of all features, got {len(operator.inputs)}; put a transformer before"
        )
    source = source_of(model, None, None if isinstance(operator.inputs[0].type, DoubleTensorType) else np.float32)
    if options["nocl"] and source.classes is not None:
        source = source._replace(classes=np.arange(len(source.classes)))
    return source


def _classifier_types(operator: Any) -> None:
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType

    options = operator.scope_inst.get_options(operator.raw_operator, dict(_OPTIONS), fail=False) or _OPTIONS
    source = _source(operator, options)
    n, labels = operator.inputs[0].get_first_dimension(), source.labels
    kind = StringTensorType if labels is not None and labels.dtype == object else Int64TensorType
    operator.outputs[0].set_type(kind([n, source.n_outputs] if labels is None else [n]))
    n_columns = source.n_outputs if labels is None else max(2, source.n_outputs)
    operator.outputs[1].set_type(_tensor_type(source.dtype)([n, n_columns]))


def _regressor_types(operator: Any) -> None:
    source = _source(operator, _OPTIONS)
    n = operator.inputs[0].get_first_dimension()
    operator.outputs[0].set_type(_tensor_type(source.dtype)([n, source.n_outputs]))


def _tensor_type(dtype: np.dtype[Any]) -> Any:
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    return DoubleTensorType if dtype == np.float64 else FloatTensorType


def _convert(scope: Any, operator: Any, container: Any) -> None:
    options, names = _OPTIONS, ["variable"]
    if isinstance(operator.raw_operator, MLPClassifier):
        options = container.get_options(operator.raw_operator, dict(_OPTIONS))
        names = ["label", "probabilities"]
    source = _source(operator, options)
    graph = _Container(scope, container, source.dtype)
    made = write(graph, source, graph.add("Cast", operator.inputs[0].full_name, to=graph.kind), names)
    for name, output in zip(names, operator.outputs, strict=True):
        container.add_node("Identity", made[name], output.full_name, name=scope.get_unique_operator_name("Identity"))


class _Container:
    """A graph that skl2onnx builds."""

    def __init__(self, scope: Any, container: Any, dtype: np.dtype[Any]) -> None:
        from onnx import helper

        self.scope, self.container, self.dtype = scope, container, dtype
        self.tensor_dtype = helper.np_dtype_to_tensor_dtype
        self.kind = self.tensor_dtype(dtype)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        name: str = self.scope.get_unique_variable_name(operator.lower())
        self.container.add_node(
            operator, list(inputs), name, name=self.scope.get_unique_operator_name(operator), **attributes
        )
        return name

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Add an array, of the network's dtype unless another is given."""
        array = np.array(value, self.dtype if dtype is None else dtype)
        name: str = self.scope.get_unique_variable_name("constant")
        content = [text.encode() for text in array.ravel()] if array.dtype == object else array.ravel()
        self.container.add_initializer(name, self.tensor_dtype(array.dtype), array.shape, content)
        return name
