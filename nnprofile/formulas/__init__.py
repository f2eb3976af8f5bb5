"""Formulas as data: a layer, a loss or an optimizer states in plain Python syntax what it computes, and others read it.

``Sigmoid.formula["y"]`` is "1 / (1 + exp(-x))": a trace shows it with numbers, an export writes it as C and as ONNX, and a test
evaluates it beside the code. Read ``expression``, then ``parse``.
"""

from .parse import formula_of as formula_of
from .parse import parse as parse
