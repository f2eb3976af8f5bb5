"""Check hand-written gradients: never call a right one wrong, never miss a wrong one, and name the bug.

Read the modules in this order: foreign, tree, world, procedures, functions, stateful (how things are called), reference,
report, judge (what is right), contracts, diagnosis (what the bug is), elsewhere, check, parts, checks,
optimizer_formulas, steps, second_order; then adapters and mutations.
"""

from typing import TYPE_CHECKING

from .adapters import from_torch as from_torch
from .checks import check_function as check_function
from .checks import check_layer as check_layer
from .checks import check_loss as check_loss
from .checks import check_network as check_network
from .diagnosis import KINDS as KINDS
from .report import Finding as Finding
from .report import GradCheckReport as GradCheckReport
from .report import Row as Row
from .report import Worst as Worst
from .second_order import gradient_of as gradient_of
from .second_order import hvp as hvp
from .stateful import stateful as stateful
from .steps import check_step as check_step

if TYPE_CHECKING:
    from .mutations import selftest as selftest


def __getattr__(name: str) -> object:
    if name == "selftest":  # loaded when it is asked for
        from .mutations import selftest

        return selftest
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
