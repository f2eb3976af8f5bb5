"""Models that leave Python: ``to_onnx`` writes a network or an estimator as an ONNX graph, ``to_c`` as one C header.

``layers`` has the table of how each layer is written, ``source`` an exportable view of a model.
"""

from .c_header import to_c as to_c
from .onnx_graph import to_onnx as to_onnx
from .skl2onnx_converters import register_converters as register_converters
