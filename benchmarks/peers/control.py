"""The control: a large product by NumPy's BLAS, whose time tells whether the machine was disturbed."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import cases
from benchmarks.cases import Case


def blas(case: Case) -> Any:
    """GFLOP/s of a product of 512 x 512 matrices."""
    a = np.random.default_rng(0).standard_normal((512, 512), np.float32).astype(case["dtype"])
    out = np.empty_like(a)
    measure = cases.per_call(lambda: np.dot(a, a, out))
    return lambda: [2 * 512**3 / (t * 1e3) for t in measure()]
