"""ONNX Runtime, with io_binding."""

from __future__ import annotations

from . import onnx_

predict = onnx_.predict_bound
