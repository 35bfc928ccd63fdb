"""Draws docs/figures/page.png and page_columns.png: a page of a fit, in Chromium.

Run it: python docs/figures/page.py tumours/report.html, behind the fit of docs/start.md.
"""

import pathlib
import shutil
import sys

from playwright.sync_api import sync_playwright

HERE = pathlib.Path(__file__).parent
SIZE = {"width": 1_000, "height": 860}


def main(page: str):
    """The top of the page, and the columns."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        view = chromium.new_page(viewport=SIZE)
        view.goto(pathlib.Path(page).absolute().as_uri())
        view.screenshot(path=HERE / "page.png")
        title = view.get_by_role("heading", name="Columns one by one")
        title.evaluate("e => e.scrollIntoView()")
        view.screenshot(path=HERE / "page_columns.png")
        chromium.close()


if __name__ == "__main__":
    main(sys.argv[1])
