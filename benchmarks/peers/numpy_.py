"""Ours without its engine: the NumPy baseline of every table."""

from __future__ import annotations

from typing import Any

from benchmarks import cases
from benchmarks.cases import Case

from . import nnprofile_

nnprofile_.ENGINE = "numpy"
train, curve, sequences = nnprofile_.train, nnprofile_.curve, nnprofile_.sequences


def sparse(case: Case) -> Any:
    """Microseconds per step; its gradient of W is dense, so few rows will do."""
    return nnprofile_.sparse(case | {"rows": 20 * case["batch"], "epochs_per_fit": 1, "least": 0.0})


def predict(case: Case) -> Any:
    """Microseconds per call."""
    net, loss = nnprofile_.network(case)
    x, _ = cases.data(case)
    return cases.per_call(lambda: loss.link.forward(net.predict(x))[0])
