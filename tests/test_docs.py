"""The pages keep their promises: cells run, each equation is cited by a docstring and checked by a cell, each erratum shown."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from nnprofile.tracing.presets import PRESETS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path for path in DOCS.rglob("*.md") if "{code-cell}" in path.read_text("utf-8") and "_build" not in path.parts
)
BACKPROP = (DOCS / "backprop.md").read_text("utf-8")
N_EQUATIONS = 36


def cells(text: str) -> list[str]:
    found = re.findall(r"```\{code-cell\} python\n(.*?)```", text, re.DOTALL)
    return [re.sub(r"\A(:.*\n)+", "", cell) for cell in found]  # without options


def numbers(text: str) -> set[int]:
    """Read "1-2, 21-23" or "5, 25"."""
    found: set[int] = set()
    for part in re.findall(r"\d+(?:-\d+)?", text):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page.stem == "example" else (), id=page.stem) for page in PAGES],
)
def test_cells_run(page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As the docs build runs them, but for the kernel; what they assert holds."""
    text = page.read_text("utf-8")
    if "import matplotlib" in text:
        pyplot = pytest.importorskip("matplotlib.pyplot")
        pyplot.switch_backend("Agg")
    if "import skl2onnx" in text:
        pytest.importorskip("skl2onnx")
        pytest.importorskip("onnxruntime")
    namespace: dict[str, object] = {}
    for k, cell in enumerate(cells(text)):
        exec(compile(cell, f"{page.name}, cell {k}", "exec", dont_inherit=True), namespace)
    if "import matplotlib" in text:
        pyplot.close("all")
    assert capsys.readouterr().out


def test_the_course_is_whole() -> None:
    """Twelve questions, each with a cell that asserts something."""
    listed = re.search(r"maxdepth: 1\n\n(.*?)\n```", (DOCS / "course" / "index.md").read_text("utf-8"), re.DOTALL)[
        1
    ].split()  # type: ignore[index]
    assert len(listed) == 12
    for name in listed:
        page = (DOCS / "course" / f"{name}.md").read_text("utf-8")
        assert any("assert " in cell for cell in cells(page)), name
        assert re.search(r"^# .*\?$", page, re.MULTILINE), f"{name} asks no question"


def test_equations_are_numbered_in_order() -> None:
    assert [int(n) for n in re.findall(r"\$\$ \(eq-(\d+)\)", BACKPROP)] == list(range(1, N_EQUATIONS + 1))
    others = [
        path.name for path in DOCS.rglob("*.md") if path.name != "backprop.md" and "$$ (" in path.read_text("utf-8")
    ]
    assert not others, "numbers would shift: only backprop.md has numbered equations"


def test_every_equation_is_cited_by_a_docstring() -> None:
    cited: set[int] = set()
    for path in (ROOT / "nnprofile").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for text in re.findall(r"docs/backprop\.md,\s+eq\. ([\d, -]*\d)", ast.get_docstring(node) or ""):
                    cited |= numbers(text)
    assert cited == set(range(1, N_EQUATIONS + 1))


def test_every_equation_is_checked_by_a_cell() -> None:
    checked: set[int] = set()
    for cell in cells(BACKPROP):
        for text in re.findall(r"# eq\. (\d+)", cell):
            checked.add(int(text))
    missing = set(range(1, N_EQUATIONS + 1)) - checked
    assert not missing - {34}, missing
    assert "complex_step = np.tanh(0.7 + 1e-30j).imag / 1e-30  # eq. 34" in BACKPROP


def test_every_formula_of_a_trace_cites_an_equation_that_there_is() -> None:
    for preset in PRESETS.values():
        for name, q in preset.trace().items():
            if q.formula.matrix:
                assert numbers(q.formula.equation) <= set(range(1, N_EQUATIONS + 1)), name
                assert q.formula.equation or q.role == "update", f"{name} cites no equation"


def test_every_erratum_has_its_cell() -> None:
    shown = [int(n) for cell in cells(BACKPROP) for n in re.findall(r"# erratum (\d+)", cell)]
    told = [int(n) for n in re.findall(r"^\*\*Erratum (\d+)\*\*", BACKPROP, re.MULTILINE)]
    assert shown == told == list(range(1, 12))
