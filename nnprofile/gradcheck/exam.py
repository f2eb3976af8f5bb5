"""Prove, on this machine and with these versions, that the checker still catches what it is meant to catch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..validation import check_size
from .checks import check_function, check_layer, check_loss, check_network
from .corpus import BUGS, TRAPS, Case, Trial
from .report import GradCheckReport
from .steps import check_step

CHECKS: dict[str, Callable[..., GradCheckReport]] = {
    "function": check_function,
    "layer": check_layer,
    "loss": check_loss,
    "network": check_network,
    "step": check_step,
}


@dataclass
class Outcome:
    """One trial: what was to be found, and what was."""

    case: Case
    trial: Trial
    report: GradCheckReport

    @property
    def detected(self) -> bool:
        """Whether the report says that something is wrong."""
        return not self.report.ok

    @property
    def right_layer(self) -> bool:
        """Whether the first error names the layer that has the bug."""
        return self.detected and (not self.trial.layer or self.report.errors[0].layer == self.trial.layer)

    @property
    def diagnosed(self) -> bool:
        """Whether the first error is of a kind that the label allows."""
        return self.detected and self.report.errors[0].kind in self.case.kinds


@dataclass
class SelfTest:
    """The rates of one self-test; true if nothing was missed and nothing right was accused."""

    bugs: list[Outcome] = field(default_factory=list)
    traps: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def detection(self) -> float:
        """The share of bugs that were found."""
        return _share(outcome.detected for outcome in self.bugs)

    @property
    def layers(self) -> float:
        """The share of bugs in networks and steps for which the first wrong layer was named."""
        return _share(outcome.right_layer for outcome in self.bugs if outcome.trial.layer)

    @property
    def diagnosis(self) -> float:
        """The share of bugs that were called by their name."""
        return _share(outcome.diagnosed for outcome in self.bugs)

    @property
    def false_alarms(self) -> int:
        """How many pieces of right code were accused."""
        return sum(outcome.detected for outcome in self.traps)

    @property
    def ok(self) -> bool:
        """Whether it keeps its promises: all found, no false alarm, 95 % of layers, 85 % of diagnoses."""
        return self.detection == 1 and not self.false_alarms and self.layers >= 0.95 and self.diagnosis >= 0.85

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = [
            f"{len(self.bugs)} trials of {len(BUGS)} bugs: {self.detection:.1%} found, {self.diagnosis:.1%} diagnosed, "
            f"{self.layers:.1%} of layers named",
            f"{len(self.traps)} trials of {len(TRAPS)} traps: {self.false_alarms} false alarms",
            f"{self.seconds:.1f} s: {'as it should be' if self.ok else 'THE CHECKER IS BROKEN HERE'}",
        ]
        lines += [f"  missed: {o.case.name}" for o in self.bugs if not o.detected]
        lines += [f"  accused: {o.case.name}: {o.report.errors[0]}" for o in self.traps if o.detected]
        return "\n".join(lines)


def run(case: Case, seed: int, size: int) -> Outcome:
    """Make a trial, and check it."""
    trial = case.make(np.random.default_rng([seed, size]), size)
    return Outcome(case, trial, CHECKS[trial.check](*trial.args, seed=seed))


def selftest(*, n_seeds: int = 1, sizes: tuple[int, ...] = (0,), progress: Callable[[Any], Any] = iter) -> SelfTest:
    """Run the checker on bugs and traps of known answer; ``.ok`` if none is missed and no right code is accused.

    Parameters
    ----------
    n_seeds : int, default 1
    sizes : tuple of 0, 1 and 2, default (0,)
        Small, middle and large trials.
    progress : function, optional
        Wraps the list of cases, as ``tqdm.tqdm`` does.

    Returns
    -------
    SelfTest

    Raises
    ------
    ValueError
        If there is nothing to run.
    """
    check_size(n_seeds, "n_seeds")
    if not sizes or not set(sizes) <= {0, 1, 2}:
        raise ValueError(f"sizes must hold some of 0, 1 and 2, got {sizes!r}")
    start = time.perf_counter()
    result = SelfTest()
    for case in progress([*BUGS, *TRAPS]):
        outcomes = [run(case, seed, size) for seed in range(n_seeds) for size in sizes]
        (result.bugs if case.kinds else result.traps).extend(outcomes)
    result.seconds = time.perf_counter() - start
    return result


def _share(flags: Iterator[bool]) -> float:
    found = list(flags)
    return sum(found) / len(found) if found else 1.0
