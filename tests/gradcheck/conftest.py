"""A check may spend a second in any case, more where it pays; here it may spend ten, so that a busy machine finds the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _time_enough() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nnprofile.gradcheck.check.SECONDS", 10.0)
        patch.setattr("nnprofile.gradcheck.judge.SECONDS", 10.0)
        yield
