"""``to_onnx``: a network or an estimator as an ONNX graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..contract import Loss
from ..ragged import Ragged
from ..safetensors import write_whole
from .layers import Graph, add_nodes
from .source import Source, one_row, source_of

if TYPE_CHECKING:
    import os

    from numpy.typing import DTypeLike

OPSET, IR_VERSION = 17, 8  # of 2022: runtimes since then read them, and all that is needed is there


def to_onnx(
    model: Any,
    path: str | os.PathLike[str] | BinaryIO | None = None,
    *,
    loss: Loss | None = None,
    outputs: Sequence[str] | None = None,
    dtype: DTypeLike | None = None,
) -> Any:
    """Write a network or an estimator as an ONNX graph, and return it as an ``onnx.ModelProto``.

    The input is "X", of shape (n_samples, n_features) with n_samples free; of a network that takes a tuple "X0", "X1", ... The
    numbers are those of the library to rounding. Of a network on sequences X is one sequence a call: its events, shape
    (n_events, n_features), or ids, int64 of shape (n_events,); what it gives is a row for each event, or one row.
    ONNX Runtime before 1.18 may know no float64 kernel for a Dense before a ReLU; it runs dtype="float32".

    Parameters
    ----------
    model : Layer, MLPClassifier, MLPRegressor, or a Pipeline of scalers and one of these
        StandardScaler, MinMaxScaler, MaxAbsScaler and RobustScaler become part of the first Dense.
    path : path or binary file, optional
        Written whole or not at all. Without it the graph is only returned.
    loss : Loss, optional
        Of a network: its link is applied to the output, as by ``freeze``.
    outputs : sequence of str, optional
        What the graph gives, in this order. Of a classifier "label" and "probabilities", unless told otherwise; of a
        regressor "variable": the names and forms that skl2onnx gives scikit-learn's. Of a network "probabilities", if it
        ends with a sigmoid or softmax, its own or the loss's, and "y" else. Its "label", if asked for, is the place of the
        greatest after a softmax, (n_samples,), and whether each is above 0.5 after a sigmoid, (n_samples, n_outputs).
        "logits" are what goes into the link of the loss.
    dtype : float64 or float32, optional
        Of the numbers in the graph; by default that of the network.

    Raises
    ------
    ValueError
        If the model is none of these, a layer has no form in ONNX, a parameter is not finite, or an output is not known.
    ImportError
        If the package onnx is missing: pip install "nnprofile[onnx]".
    OSError
        If the file cannot be written.
    """
    source = source_of(model, loss, dtype)
    names = _names(source, outputs)
    graph = _Nodes(source.dtype)
    made = write(graph, source, _inputs(source.n_features), names)
    proto = graph.model(source, names, made)
    if path is not None:
        write_whole(path, proto.SerializeToString())
    return proto


def write(g: Graph, source: Source, x: Any, names: Sequence[str]) -> dict[str, str]:
    """Add the nodes that make the outputs ``names`` of x; return the names of these in the graph."""
    made = {}
    x = add_nodes(g, source.net, x)
    made["logits"] = x
    for layer in source.link:
        x = add_nodes(g, layer, x)
    made["y"] = made["variable"] = made["probabilities"] = x
    if source.is_binary and "probabilities" in names:
        made["probabilities"] = g.add("Concat", g.add("Sub", g.constant(1.0), x), x, axis=1)
    if "label" in names:
        made["label"] = _label(g, source, x)
    return made


def _label(g: Graph, source: Source, p: str) -> str:
    """Add what ``predict`` says."""
    if source.is_exclusive and not source.is_binary:
        index = g.add("ArgMax", p, axis=1, keepdims=0)
    else:
        index = g.add("Cast", g.add("Greater", p, g.constant(0.5)), to=7)  # int64
        if source.is_binary:
            index = g.add("Reshape", index, g.constant([-1], np.int64))
    return index if source.labels is None else g.add("Gather", g.constant(source.labels, source.labels.dtype), index)


def _names(source: Source, outputs: Sequence[str] | None) -> list[str]:
    """Return which outputs are asked for."""
    if source.is_classifier:
        known = ["label", "probabilities"]
    elif source.is_estimator:
        known = ["variable"]
    else:
        known = ["probabilities", "label"] if source.is_probability else ["y"]
    names = known if source.is_estimator else known[:1]
    if source.link and "probabilities" in known:
        known = [*known, "logits"]
    if outputs is not None:
        names = [outputs] if not isinstance(outputs, Sequence) or isinstance(outputs, str) else list(outputs)
    if not names or any(names.count(name) > 1 or name not in known for name in names):
        raise ValueError(f"outputs must be some of {known}, each once, got {outputs!r}")
    return names


def _inputs(widths: Any, name: str = "X") -> Any:
    """Return the name of x, or, of a tuple x, a tuple of names: "X0", "X1", ..."""
    if not isinstance(widths, tuple):
        return name
    return tuple(_inputs(width, f"{name}{i}" if name == "X" else f"{name}_{i}") for i, width in enumerate(widths))


def _shapes(source: Source) -> Iterator[tuple[str, Any, list[Any]]]:
    """Yield (name, width, shape) of each input."""

    def flat(*parts: Any) -> Iterator[tuple[Any, ...]]:
        if not isinstance(parts[0], tuple):
            yield parts
            return
        for part in zip(*parts, strict=True):
            yield from flat(*part)

    for name, width, x in flat(_inputs(source.n_features), source.n_features, one_row(source.net)):
        n = "n_events" if isinstance(x, Ragged) else 1 if source.net.mixes_events else "n_samples"
        yield name, width, [n] if width == "ids" else [n, width]


class _Nodes:
    """A graph of its own."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        try:
            from onnx import helper, numpy_helper
        except ImportError as error:
            raise ImportError('to_onnx needs the package onnx: pip install "nnprofile[onnx]"') from error
        self.helper, self.from_array = helper, numpy_helper.from_array
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.numbers = count()  # no two nodes have the same name, inside loops neither

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        name = f"{operator.lower()}_{next(self.numbers)}"
        self.nodes.append(self.helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Add an array, of the graph's dtype unless another is given."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.from_array(np.array(value, self.dtype if dtype is None else dtype), name))
        return name

    def scan(self, x: str, states: Sequence[str], body: Callable[[Any, str, list[str]], list[str]]) -> str:
        """Add a loop over the rows of x, shape (n, width); return the first state after each."""
        inside = copy.copy(self)  # with nodes of its own, and the same constants
        inside.nodes = []
        made = [f"loop_{next(self.numbers)}" for _ in range(2 * len(states) + 3)]
        olds, row, seen, last = made[: len(states)], made[-3], made[-2], made[-1]
        news = body(inside, inside.add("Unsqueeze", row, inside.constant([0], np.int64)), olds)
        ends = [inside.add("Identity", new) for new in news]
        by_row = inside.add("Reshape", news[0], inside.constant([-1], np.int64))
        kind, info = self.helper.np_dtype_to_tensor_dtype(self.dtype), self.helper.make_tensor_value_info
        graph = self.helper.make_graph(
            inside.nodes,
            seen,
            [info(name, kind, None) for name in (*olds, row)],
            [info(name, kind, None) for name in (*ends, by_row)],
        )
        outputs = [*made[len(states) : 2 * len(states)], last]
        self.nodes.append(self.helper.make_node("Scan", [*states, x], outputs, last, num_scan_inputs=1, body=graph))
        return last

    def model(self, source: Source, names: Sequence[str], made: dict[str, str]) -> Any:
        """Return the whole."""
        import onnx

        from .. import __version__

        helper, kind = self.helper, self.helper.np_dtype_to_tensor_dtype(self.dtype)
        outputs = []
        for name in names:
            self.nodes.append(helper.make_node("Identity", [made[name]], [name], name))
            shape: list[Any] = ["n_samples", source.n_outputs]
            if source.net.mixes_events:
                shape[0] = "n_events" if source.gives_events else 1
            output_kind = kind
            if name == "probabilities" and source.classes is not None:
                shape[1] = max(2, source.n_outputs)
            if name == "label":
                text = source.labels is not None and source.labels.dtype == object
                output_kind = onnx.TensorProto.STRING if text else onnx.TensorProto.INT64
                shape = shape[:1] if source.is_exclusive else shape
            outputs.append(helper.make_tensor_value_info(name, output_kind, shape))
        graph = helper.make_graph(
            self.nodes,
            "nnprofile",
            [
                helper.make_tensor_value_info(name, onnx.TensorProto.INT64 if width == "ids" else kind, shape)
                for name, width, shape in _shapes(source)
            ],
            outputs,
            self.constants,
        )
        model = helper.make_model(
            graph,
            producer_name="nnprofile",
            producer_version=__version__,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        return model
