"""The deployed model, encoding and network, as one ONNX file that scores raw records where there is no Python.

An input for each column, of shape (n, 1): float64 numbers, NaN if missing; texts without white space around them, "" or one of
the words for it if missing. Outputs: "probability", float64, (n, 1), and "answer", bool, (n, 1).
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, compose, helper, numpy_helper

import nnprofile as nn

from .amounts import MISSING
from .deploy import Profiler
from .features import MISSING_TEXT, Encoder
from .train import LOSS, Model

INSIDE = "inside/"  # starts the names of all that is neither a column nor an output
FEATURES = f"{INSIDE}features"
NOWHERE = 1e300  # stands for a missing code; no number of a table is as large


def to_onnx(model: Model, path: Path) -> None:
    """Write the whole model; its answers are those of ``model.predict_proba`` to float32's rounding.

    Raises
    ------
    ValueError
        If a column has the name of an output, or of something inside.
    """
    columns = [column["name"] for column in model.encoder.columns]
    if taken := [name for name in columns if name in ("", "probability", "answer") or name.startswith(INSIDE)]:
        raise ValueError(f"columns {taken} have the name of an output, or of what is inside; rename them")
    network = compose.add_prefix(nn.to_onnx(model.net, loss=LOSS), f"{INSIDE}network/")
    encoding = _Encoding(model.encoder).model(network)
    whole = compose.merge_models(encoding, network, [(FEATURES, f"{INSIDE}network/X")])
    graph = whole.graph
    graph.node.append(
        helper.make_node("Cast", [f"{INSIDE}network/probabilities"], ["probability"], to=TensorProto.DOUBLE)
    )
    graph.initializer.append(numpy_helper.from_array(np.array(model.threshold), f"{INSIDE}threshold"))
    graph.node.append(helper.make_node("GreaterOrEqual", ["probability", f"{INSIDE}threshold"], ["answer"]))
    del graph.output[:]
    for name, kind in (("probability", TensorProto.DOUBLE), ("answer", TensorProto.BOOL)):
        graph.output.append(helper.make_tensor_value_info(name, kind, ["n", 1]))
    onnx.checker.check_model(whole, full_check=True)
    path.write_bytes(whole.SerializeToString())


def difference(path: Path, profiler: Profiler) -> float:
    """Return the largest difference between a file's answers, by ONNX Runtime, and the scores of the stored samples."""
    from onnxruntime import InferenceSession

    frame = profiler.frame([sample["record"] for sample in profiler.samples])
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    probability, _ = session.run(None, inputs(profiler.model.encoder, frame))
    return float(np.abs(probability[:, 0] - [sample["score"] for sample in profiler.samples]).max())


def inputs(encoder: Encoder, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return a typed table as the file's inputs."""
    return {
        column["name"]: (
            frame[[column["name"]]].astype(object).where(frame[[column["name"]]].notna(), "").to_numpy(object)
            if column["kind"] == "category"
            else frame[[column["name"]]].to_numpy(float)
        )
        for column in encoder.columns
    }


class _Encoding:
    """What ``Encoder.transform`` does, as nodes: the same formulas on the same numbers."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def model(self, network: Any) -> Any:
        """Return a graph from the columns to the features."""
        parts, given = [], []
        for column in self.encoder.columns:
            name, is_text = column["name"], column["kind"] == "category"
            given.append(
                helper.make_tensor_value_info(name, TensorProto.STRING if is_text else TensorProto.DOUBLE, ["n", 1])
            )
            if is_text:
                parts.append(self._category(name, column["categories"]))
            else:
                parts += self._number(name, column)
            if column["kind"] == "code":
                parts.append(self._code(name, column["categories"]))
        x = self._add("Sub", self._add("Concat", *parts, axis=1), self._constant(self.encoder.center))
        self.nodes.append(helper.make_node("Cast", [x], [FEATURES], to=TensorProto.FLOAT))
        features = helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["n", len(self.encoder.center)])
        graph = helper.make_graph(self.nodes, "user_profile", given, [features], self.constants)
        opsets = [*network.opset_import, helper.make_opsetid("ai.onnx.ml", 3)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=network.ir_version)

    def _number(self, x: str, column: dict[str, Any]) -> list[str]:
        missing = self._add("IsNaN", x)
        x = self._add("Where", missing, self._constant(column["median"]), x)
        log = self._log1p(self._add("Abs", x))
        z = self._add("Sub", self._add("Mul", self._add("Sign", x), log), self._constant(column["mean"]))
        z = self._add("Div", z, self._constant(column["scale"]))
        parts = [self._as_numbers(missing), self._add("Clip", z, self._constant(-10.0), self._constant(10.0))]
        edges = np.array(column["edges"])
        if len(edges):
            t = self._add("Div", self._add("Sub", x, self._constant(edges[:-1])), self._constant(np.diff(edges)))
            parts.append(self._add("Clip", t, self._constant(0.0), self._constant(1.0)))
            if column["indicators"]:
                above = self._add("Greater", x, self._constant([-np.inf, *edges[1:-1]]))
                below = self._add("LessOrEqual", x, self._constant([*edges[1:-1], np.inf]))
                parts.append(self._as_numbers(self._add("And", above, below)))
        return parts

    def _log1p(self, x: str) -> str:
        """Add log(1 + x), which ONNX has no operator for, with all digits: log(u) x / (u - 1) with u = 1 + x, rounded."""
        one = self._constant(1.0)
        u = self._add("Add", x, one)
        quotient = self._add("Div", self._add("Mul", self._add("Log", u), x), self._add("Sub", u, one))
        return self._add("Where", self._add("Equal", u, one), x, quotient)

    def _category(self, x: str, categories: list[str]) -> str:
        place = {category: k for k, category in enumerate(categories)}
        other = len(categories)
        words = {"".join(letters) for word in MISSING for letters in product(*({c, c.upper()} for c in word))}
        place |= dict.fromkeys(words, place.get(MISSING_TEXT, other))
        index = self._add(
            "LabelEncoder",
            x,
            domain="ai.onnx.ml",
            keys_strings=list(place),
            values_int64s=list(place.values()),
            default_int64=other,
        )
        return self._as_numbers(self._add("Equal", index, self._constant(np.arange(other + 1))))

    def _code(self, x: str, categories: list[str]) -> str:
        values = [NOWHERE if category == MISSING_TEXT else float(category) for category in categories]
        x = self._add("Where", self._add("IsNaN", x), self._constant(NOWHERE), x)
        seen = self._as_numbers(self._add("Equal", x, self._constant(values)))
        any_of_them = self._add("ReduceSum", seen, self._constant([1]), keepdims=1)
        return self._add("Concat", seen, self._add("Sub", self._constant(1.0), any_of_them), axis=1)

    def _as_numbers(self, x: str) -> str:
        return self._add("Cast", x, to=TensorProto.DOUBLE)

    def _add(self, operator: str, *names: str, **attributes: Any) -> str:
        output = f"{INSIDE}{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], output, **attributes))
        return output

    def _constant(self, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.array(value), f"{INSIDE}constant_{len(self.constants)}"))
        return str(self.constants[-1].name)
