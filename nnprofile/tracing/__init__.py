"""Show one training step: each number with its formula, and the right value beside each gradient.

Read the modules in this order: expression, formulas, large, reference, record, replay, recorder, paths, text, page; then bugs
and presets.
"""

from .paths import ChainPath as ChainPath
from .record import Quantity as Quantity
from .record import Step as Step
from .record import Trace as Trace
from .recorder import trace as trace
from .reference import Check as Check
