"""The code in README and docs runs, and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) if "```python" in path.read_text("utf-8")
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "".join(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL))
    exec(compile(code, page.name, "exec", dont_inherit=True), {})
    promised = [line.rpartition("  # ")[2] for line in code.splitlines() if line.startswith("print(")]
    assert capsys.readouterr().out.splitlines() == promised


def test_pages_with_code_are_found() -> None:
    assert [page.name for page in PAGES] == [
        "README.md",
        *(
            "contract.md",
            "engine.md",
            "engineer.md",
            "gradcheck.md",
            "researcher.md",
            "student.md",
        ),
    ]
