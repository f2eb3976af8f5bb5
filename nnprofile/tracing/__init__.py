"""Show one training step: each number with its formula, and the right value beside each gradient.

Read the modules in this order: rules, large, reference, record, replay, recorder, branching, measure, update, paths, text, page,
traces; then bugs and presets.
"""

from .paths import ChainPath as ChainPath
from .record import Quantity as Quantity
from .record import Step as Step
from .reference import Check as Check
from .traces import Trace as Trace
from .traces import trace as trace
