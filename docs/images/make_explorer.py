"""Photograph the explorer for README and docs: needs Playwright and a Chromium.

python docs/images/make_explorer.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from nnprofile.tracing.presets import PRESETS

HERE = Path(__file__).parent


def main() -> None:
    """Write explorer.png and explorer_bug.png."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, key, step, bug, cell in (
            ("explorer", "document", 10, "", "dW1:0,0"),
            ("explorer_bug", "mazur", 8, "updated-weights", "da1:0,0"),
        ):
            path = Path(folder) / f"{key}.html"
            PRESETS[key].trace().to_html(path, preset=PRESETS[key])
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.goto(path.as_uri())
            page.fill("#slider", str(step))
            page.select_option("#bug", bug)
            page.click(f'#step [data-cell="{cell}"]')
            page.mouse.move(0, 0)
            page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=HERE / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
