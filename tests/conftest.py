"""Every test runs with NumPy's floating-point errors raised (except underflow) and warnings as errors (pyproject.toml)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

# Small matrices gain nothing by threads, and on a busy machine these wait for each other. Before NumPy is loaded.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# One machine is slower than another, and a failure should come back tomorrow.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _raise_floating_point_errors() -> Iterator[None]:
    with np.errstate(all="raise", under="ignore"):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def pythons_own_handler() -> Iterator[None]:
    """Put Python's handler in force; a shell starts background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
