"""ONNX Runtime, ``run``: all graph optimizations, one thread unless the case says otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from benchmarks import cases
from benchmarks.cases import Case


def session(case: Case) -> ort.InferenceSession:
    """Return a session on the network with the shared weights and its sigmoid."""
    nodes, tensors, name = [], [], "x"
    weights = cases.weights(case)
    for i, (W, b) in enumerate(weights):
        tensors += [numpy_helper.from_array(W, f"W{i}"), numpy_helper.from_array(b, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [name, f"W{i}", f"b{i}"], [f"z{i}"]))
        last = i == len(weights) - 1
        name = "y" if last else f"a{i}"
        nodes.append(helper.make_node("Sigmoid" if last else "Relu", [f"z{i}"], [name]))
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", floats, ["n", case["sizes"][0]])],
        [helper.make_tensor_value_info("y", floats, ["n", case["sizes"][-1]])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = case.get("threads", 1)
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def predict(case: Case) -> Any:
    """Microseconds per call."""
    run, x = session(case).run, cases.data(case)[0]
    names, feed = ["y"], {"x": x}
    return cases.per_call(lambda: run(names, feed)[0])


def predict_bound(case: Case) -> Any:
    """Microseconds per call with input and output bound beforehand: only the bound row may change."""
    model, x = session(case), cases.data(case)[0]
    y = np.empty((len(x), case["sizes"][-1]), np.float32)
    binding = model.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x))
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)

    def call() -> np.ndarray:
        model.run_with_iobinding(binding)
        return y  # and keep it, for the binding holds no reference

    return cases.per_call(call)
