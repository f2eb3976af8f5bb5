"""Errors of the code that is checked, and faults of the checker, are told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nnprofile as nn
import nnprofile.gradcheck as gc
from nnprofile.gradcheck import diagnosis
from nnprofile.gradcheck.foreign import ForeignError, foreign, handed_over

x4 = np.array([0.3, -0.7, 1.1, 2.0])


def test_all_errors_are_caught_at_one_border_only() -> None:
    package = Path(gc.__file__).parent
    found = {p.name for p in package.rglob("*.py") if "except Exception" in p.read_text(encoding="utf-8")}
    assert found == {"foreign.py", "__init__.py"}  # that of the diagnosis warns, which is an error in the tests


def test_a_fault_of_a_hypothesis_is_said_and_costs_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(facts: object) -> None:
        raise KeyError("our own fault")

    monkeypatch.setattr(diagnosis, "_HYPOTHESES", (broken, *diagnosis._HYPOTHESES))
    with pytest.warns(UserWarning, match="the hypothesis broken failed, and was left out: KeyError"):
        report = nn.check_function(lambda x: (x**3).sum(), lambda x: 6 * x**2, x4)
    assert not report.ok and report.findings[0].kind == "scale"


def test_a_fault_of_the_judge_is_not_taken_for_one_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError("our own fault")

    monkeypatch.setattr("nnprofile.gradcheck.judge.Judge.terms", broken)
    monkeypatch.setattr("nnprofile.gradcheck.elsewhere._agrees", broken)
    with pytest.raises(IndexError, match="our own fault"):
        nn.check_function(lambda x: (x**3).sum(), lambda x: 3 * x**2, x4)


def test_the_callers_own_error_comes_through_with_its_cause() -> None:
    class Lookup:
        params: dict[str, np.ndarray] = {}

        def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            try:
                raise KeyError("table")
            except KeyError as error:
                raise LookupError("no such table") from error

        def backward(self, dy: np.ndarray, cache: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
            raise AssertionError

    with pytest.raises(LookupError, match="no such table") as caught:
        nn.check_layer(Lookup(), np.ones((3, 2)))
    assert isinstance(caught.value.__cause__, KeyError)


def test_what_has_another_shape_at_other_numbers_is_the_codes_own_doing() -> None:
    def distinct(x: np.ndarray) -> np.ndarray:  # as many numbers as there are signs
        return np.array([x[x.real > 0].sum(), x[x.real <= 0].sum()][: len(np.unique(np.sign(x.real)))])

    report = nn.check_function(distinct, lambda dy, x: np.where(x.real > 0, dy[0], dy[-1]), x4)
    assert report.ok, report


def test_the_border_is_crossed_once_and_back() -> None:
    @foreign()
    def outer() -> None:
        with foreign():
            raise ValueError("theirs")

    with pytest.raises(ForeignError, match="ValueError: theirs") as caught:
        outer()
    assert isinstance(caught.value.error, ValueError)
    with pytest.raises(ValueError, match="theirs"), handed_over():
        outer()
    with pytest.raises(KeyboardInterrupt), foreign():
        raise KeyboardInterrupt
