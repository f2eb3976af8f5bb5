"""Say what the bug is: try the known ways of being wrong, from the most specific to the least, until one fits exactly.

Each hypothesis computes what the gradient would be if it were true, and fits if that is the claimed gradient up to rounding.
So none is a guess; where nothing fits, the finding says so ("term"). What few numbers could fit by chance has to fit at a
second point too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from ..foreign import ForeignError
from ..judge import Verdict
from . import callees, events, places, samples, scale, slopes, terms
from .facts import Context as Context
from .facts import Diagnosis, Facts
from .kinds import KINDS as KINDS


def diagnose(verdict: Verdict, context: Context) -> Diagnosis:
    """Return (kind, message) of the first hypothesis that fits."""
    facts = Facts(verdict, context)
    if not np.isfinite(facts.yours).all():
        n = int((~np.isfinite(facts.yours)).sum())
        targets = np.asarray(context.y_true) if context.y_true is not None else np.zeros(0)
        if targets.dtype.kind == "f" and np.isnan(targets).any():
            return (
                "overflow",
                f"{n} elements of your gradient are NaN: those of targets that are NaN, masked in the value only?",
            )
        return "overflow", (
            f"{n} of {facts.yours.size} elements of your gradient are inf or NaN, where the right ones are finite: overflow; "
            "subtract the largest logit before exp, or split by sign"
        )
    for hypothesis in _HYPOTHESES:
        facts.unexplained = np.nan
        try:
            found = hypothesis(facts)
        except ForeignError:  # the code is not defined where the hypothesis looks
            continue
        except Exception as error:  # a fault of ours costs no verdict, and is no secret: the tests make it an error
            said = f"{type(error).__name__}: {error}; please report this"
            text = f"the hypothesis {hypothesis.__name__} failed, and was left out: {said}"
            warnings.warn(text, UserWarning, stacklevel=2)
            continue
        if found:
            verdict.unexplained = facts.unexplained
            return found
    ratio = facts.error_size / facts.size if facts.size else np.inf
    if facts.yours.size == 1:
        return "term", f"it is {facts.yours[0]:.6g} where {facts.right[0]:.6g} is right; one number does not tell more"
    return (
        "term",
        f"off by {ratio:.1e} of its size, in no way that is known: a term of the derivative is missing or wrong",
    )


_HYPOTHESES: tuple[Callable[[Facts], Diagnosis | None], ...] = (
    scale.zero,
    scale.unused,
    scale.float32_exact,
    scale.factor,
    places.permuted,
    places.another_tensor,
    scale.clipped,
    terms.updated,  # before decay: for one row, updated weights look like an L2 term on x
    terms.decay,
    samples.other_axis,
    places.repeats,
    samples.miscounted,
    events.crossed,
    events.boundary_events,
    events.truncated,
    events.first_step,
    events.looks_ahead,
    events.one_gate,
    events.handed_over,
    slopes.log_argument,
    slopes.other_slope,
    slopes.forgotten_mask,
    slopes.extra_factor,
    slopes.softmax_again,
    slopes.other_softmax,
    slopes.diagonal,
    terms.passed_on,
    slopes.other_cotangent,
    samples.same_step,
    samples.last_window,
    slopes.output_slope,
    places.symmetric,
    terms.norm_terms,
    terms.norm_term,
    callees.callee,
    terms.other_parameter,
    places.few_elements,
    places.repeated_constants,
    scale.slice_scale,
    places.shifted,
    places.rearranged,
    places.unsorted,
    slopes.unknown_slope,
    scale.few_factors,
    places.confined,
    scale.small,
    terms.lost_reaction,
)
