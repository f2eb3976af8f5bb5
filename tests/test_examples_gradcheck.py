"""The examples of checking foreign code run, and say what the documentation says that they do."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "gradcheck"


def main(name: str) -> Any:
    return runpy.run_path(str(FOLDER / name))["main"]()


def test_the_notebooks_softmax_lacks_a_factor_in_its_penalty() -> None:
    report = main("softmax_notebook.py")
    assert [f.kind for f in report.errors] == ["weight-decay"] and "0.1 * theta, is missing" in report.errors[0].message


def test_attention_without_its_scale() -> None:
    right, wrong = main("attention.py")
    assert right.ok and [row.tensor for row in right.rows] == ["x", "q.W", "q.b", "k.W", "k.b", "v.W", "v.b"]
    assert {f.tensor for f in wrong.errors} == {"x", "q.W", "q.b", "k.W"} | ({"k.b"} & {f.tensor for f in wrong.errors})
    assert wrong.errors[0].kind == "scale" and "sqrt(5)" in wrong.errors[0].message


def test_a_torch_function() -> None:
    pytest.importorskip("torch")
    report = main("torch_function.py")
    assert {f.tensor for f in report.errors} <= {"b", ""} and not report.ok
    assert any("dy" in f.message for f in report.errors)
