"""Every test runs with NumPy's floating-point errors raised (except underflow) and warnings as errors (pyproject.toml)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings

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
