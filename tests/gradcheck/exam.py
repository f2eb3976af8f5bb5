"""Examine the checker on bugs and traps that are real code: python -m tests.gradcheck.exam [--seeds N] [--sizes 0 1 2]."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import nnprofile as nn
from nnprofile.gradcheck.mutations import Outcome, SelfTest

from .corpus import BUGS, TRAPS, Case

CHECKS: dict[str, Callable[..., nn.GradCheckReport]] = {
    "function": nn.check_function,
    "layer": nn.check_layer,
    "loss": nn.check_loss,
    "network": nn.check_network,
    "step": nn.check_step,
}


def run(case: Case, seed: int, size: int) -> Outcome:
    """Make a trial, and check it."""
    trial = case.make(np.random.default_rng([seed, size]), size)
    return Outcome(case.name, case.kinds, trial.layer, CHECKS[trial.check](*trial.args, seed=seed))


def exam(n_seeds: int = 1, sizes: tuple[int, ...] = (0,)) -> SelfTest:
    """Run all of the corpus."""
    start, result = time.perf_counter(), SelfTest()
    for case in (*BUGS, *TRAPS):
        for seed in range(n_seeds):
            for size in sizes:
                result.add(run(case, seed, size))
    result.seconds = time.perf_counter() - start
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.gradcheck.exam", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    outcome = exam(options.seeds, tuple(options.sizes))
    print(outcome)
    raise SystemExit(not outcome.ok)
