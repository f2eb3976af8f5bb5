"""Photograph the example's report for README and docs: needs Playwright and a Chromium.

python docs/images/make_report.py out/report.html
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
PARTS = {  # from one heading of the purchase log's section to another
    "report_short": ("", "Why: what moves a score"),
}


def main(report: str) -> None:
    """Write a picture of each part."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 1000})
        page.goto(Path(report).resolve().as_uri())
        for name, (first, last) in PARTS.items():
            top, bottom = (
                page.locator("#data-cdnow ~ h3", has_text=text).first if text else page.locator("#data-cdnow")
                for text in (first, last)
            )
            y = top.bounding_box()["y"] - 10
            height = bottom.bounding_box()["y"] - y - 20
            page.screenshot(
                path=HERE / f"{name}.png", full_page=True, clip={"x": 0, "y": y, "width": 1000, "height": height}
            )
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
