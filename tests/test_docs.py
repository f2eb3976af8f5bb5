"""The pages keep their promises: cells run, each equation is cited by a docstring and checked by a cell, each erratum shown."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from nnprofile.tracing.presets import PRESETS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SLOW = ("example", "recommendation")
PAGES = sorted(
    path for path in DOCS.rglob("*.md") if "{code-cell}" in path.read_text("utf-8") and "_build" not in path.parts
)
NUMBERED = {name: (DOCS / f"{name}.md").read_text("utf-8") for name in ("backprop", "sequences", "scale", "privacy")}
BACKPROP = NUMBERED["backprop"]
OF_PAGE = {name: [int(n) for n in re.findall(r"\$\$ \(eq-(\d+)\)", text)] for name, text in NUMBERED.items()}
N_EQUATIONS, ALL = len(OF_PAGE["backprop"]), sum(map(len, OF_PAGE.values()))


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
    [pytest.param(page, marks=pytest.mark.slow if page.stem in SLOW else (), id=page.stem) for page in PAGES],
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
    if "collect.journey()" in text:
        pytest.importorskip("pyarrow")
    namespace: dict[str, object] = {}
    for k, cell in enumerate(cells(text)):
        exec(compile(cell, f"{page.name}, cell {k}", "exec", dont_inherit=True), namespace)
    if "import matplotlib" in text:
        pyplot.close("all")
    assert capsys.readouterr().out


def test_the_course_is_whole() -> None:
    """Eighteen questions, each with a cell that asserts something; the later ones end with an exercise and its solution."""
    listed = re.findall(r"^\d+\. \[.*\]\((\w+)\.md\)$", (DOCS / "course" / "index.md").read_text("utf-8"), re.MULTILINE)
    assert len(listed) == 18
    for name in listed[12:]:
        page = (DOCS / "course" / f"{name}.md").read_text("utf-8")
        assert page.index("## Exercise") < page.index("## Solution"), name
    for name in listed:
        page = (DOCS / "course" / f"{name}.md").read_text("utf-8")
        assert any("assert " in cell for cell in cells(page)), name
        assert re.search(r"^# .*\?$", page, re.MULTILINE), f"{name} asks no question"


def test_equations_are_numbered_in_order() -> None:
    assert [n for found in OF_PAGE.values() for n in found] == list(range(1, ALL + 1))
    first = {name: found[0] for name, found in OF_PAGE.items() if name != "backprop"}
    assert f"FIRST_EQUATION = {str(first).replace(chr(39), chr(34))}" in (DOCS / "conf.py").read_text("utf-8")
    others = [
        path.name for path in DOCS.rglob("*.md") if path.stem not in NUMBERED and "$$ (" in path.read_text("utf-8")
    ]
    assert not others, "numbers would shift: only these pages have numbered equations"


def test_every_equation_is_cited_by_a_docstring() -> None:
    cited: set[int] = set()
    for path in (ROOT / "nnprofile").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for page, text in re.findall(r"docs/(\w+)\.md,\s+eq\. ([\d, -]*\d)", ast.get_docstring(node) or ""):
                    cited |= numbers(text)
                    assert numbers(text) <= set(OF_PAGE[page]), (path, text)
    assert cited == set(range(1, ALL + 1))


def test_every_equation_is_checked_by_a_cell() -> None:
    checked: set[int] = set()
    for cell in (cell for page in NUMBERED.values() for cell in cells(page)):
        for text in re.findall(r"# eq\. (\d+)", cell):
            checked.add(int(text))
    missing = set(range(1, ALL + 1)) - checked
    assert not missing - {34}, missing
    assert "complex_step = np.tanh(0.7 + 1e-30j).imag / 1e-30  # eq. 34" in BACKPROP


def test_every_formula_of_a_trace_cites_an_equation_that_there_is() -> None:
    for preset in PRESETS.values():
        for name, q in preset.trace().items():
            if q.formula.matrix:
                assert numbers(q.formula.equation) <= set(range(1, N_EQUATIONS + 1)), name
                assert q.formula.equation or q.role == "update", f"{name} cites no equation"


@pytest.mark.parametrize(("page", "mistake", "omission"), [("errata", "Erratum", "Omission"), ("zh", "错误", "遗漏")])
def test_every_erratum_has_its_cell(page: str, mistake: str, omission: str) -> None:
    text = (DOCS / f"{page}.md").read_text("utf-8")
    shown = [int(n) for cell in cells(text) for n in re.findall(r"# erratum (\d+)", cell)]
    told = {
        word: [int(n) for n in re.findall(rf"^\*\*{word} (\d+)\*\*", text, re.MULTILINE)]
        for word in (mistake, omission)
    }
    assert told[omission] == [11, 12, 15]
    assert sorted(told[mistake] + told[omission]) == list(range(1, 18)) == sorted(set(shown))
    table = text.split("|---|")[-1] if page == "errata" else text
    for n in range(1, 18):
        assert re.search(rf"\b{n}\b", table), n


def test_chinese_has_the_same_cells_for_the_errata() -> None:
    """A cell of the errata is the same code in both languages, but for comments and printed words."""

    def code(page: str) -> list[str]:
        found = [cell for cell in cells((DOCS / f"{page}.md").read_text("utf-8")) if "# erratum" in cell]
        return [re.sub(r" *#.*", "", cell).strip() for cell in found]

    assert code("errata") == code("zh")


LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)(#[^)]*)?\)")


def test_pages_can_be_read_where_nothing_builds_them() -> None:
    """A code host shows plain Markdown: links lead to files that are there, and no role of Sphinx stands in the text."""
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")):
        if "_build" in page.parts:
            continue
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
        for target, _ in LINK.findall(text):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
        assert not re.search(r"\{(doc|eq|ref)\}`", text), page.name
        assert not re.search(r'href="(?!https?:)', text), page.name
    for page in DOCS.rglob("*.md"):
        if page.name != "index.md" and "_build" not in page.parts:
            assert "{toctree}" not in page.read_text("utf-8"), page.name


def test_the_worked_example_is_the_text_of_the_trace() -> None:
    def plain(text: str) -> str:
        return re.sub(
            r"\d+ digits? agrees?|to \d+ digits or more|    \[.*\]", "", text
        )  # the last digits differ by machine

    text = (DOCS / "worked_example.txt").read_text("utf-8")
    assert plain(text) == plain(PRESETS["document"].trace().to_text()), (
        "python -m nnprofile trace > docs/worked_example.txt"
    )


def test_the_readmes_commands_are_there() -> None:
    """A reader's first commands are of make, which sets up what it needs; others say by which one they come after."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for page in (ROOT / "README.md", DOCS / "zh.md"):
        blocks = re.findall(r"^```(.*?)\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
        commands = [line for kind, block in blocks if not kind for line in block.splitlines() if line.strip()]
        assert commands
        for command in commands:
            first, *rest = command.split()
            assert first in ("make", ".venv/bin/python"), command
            if first == "make":
                assert re.search(rf"^{rest[0]}:", makefile, re.MULTILINE), command
