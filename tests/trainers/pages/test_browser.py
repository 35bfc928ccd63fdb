"""The page of a fit in a browser: Chromium of the system's packages, without a network.

Slow. Where RBIG_NNX_SCREENSHOTS names a folder the pictures are kept there, to be looked at.
"""

import os
import pathlib
import shutil

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import sync_playwright
from sklearn.datasets import load_wine, make_moons

import trainers
from tests.trainers.command.conftest import SETTINGS, command, mixed_lines
from tests.trainers.pages.test_page import SMALL

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt install chromium"),
]

WIDTHS = (380, 1_280)


@pytest.fixture(scope="module")
def browser():
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        ) as chromium,
    ):
        yield chromium


def wine(folder):
    x, _ = load_wine(return_X_y=True, as_frame=True)
    return trainers.report(
        trainers.FlowDensity(**SMALL).fit(x[:150]), x[150:], folder / "page.html"
    )


def good(folder):
    x, _ = make_moons(3_000, noise=0.1, random_state=0)
    model = trainers.FlowDensity(num_steps=500, random_state=0).fit(x[:2_500])
    return trainers.report(model, x[2_500:], folder / "page.html")


def bad(folder):
    """Test rows from elsewhere, of a flow that was hardly trained."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(500, 2)) @ [[1.0, 0.9], [0.0, 0.1]]
    model = trainers.FlowDensity(**SMALL).fit(rows[:300])
    return trainers.report(model, 8 + 30 * rows[300:] ** 3, folder / "page.html")


def wide(folder):
    """60 columns, of which one has a name that does not fit."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(600, 60)) @ random.normal(size=(60, 60))
    names = ["a_name_without_a_space_that_is_longer_than_a_telephone_is_wide" * 2]
    table = pd.DataFrame(rows, columns=[*names, *map("column {}".format, range(59))])
    model = trainers.FlowDensity(**SMALL).fit(table[:500])
    return trainers.report(model, table[500:], folder / "page.html")


def given(folder):
    """A condition, categories, dates and holes."""
    file, run = folder / "shop.csv", folder / "run"
    file.write_text("\n".join(mixed_lines()) + "\n")
    ended = command("fit", file, "--workdir", run, "--given", "color", *SETTINGS)
    assert ended.code == 0, ended.err
    return run / "report.html"


KINDS = {make.__name__: make for make in (wine, good, bad, wide, given)}


@pytest.mark.parametrize("kind", KINDS)
def test_page_fits_and_says_nothing_on_the_console(browser, tmp_path, kind):
    path = KINDS[kind](tmp_path)
    keep = os.environ.get("RBIG_NNX_SCREENSHOTS")
    folder = pathlib.Path(keep or tmp_path)
    said, asked = [], []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(path.as_uri())
            needed = page.evaluate("document.documentElement.scrollWidth")
            assert needed <= width, f"{needed} pixels at {width}"
            cut = page.evaluate(CUT_OFF)
            assert cut == [], f"beyond the edge at {width} pixels"
            name = folder / f"{kind}-{scheme}-{width}.png"
            page.screenshot(path=name, full_page=True)
        if scheme == "light":
            page.pdf(path=folder / f"{kind}.pdf", format="A4")
        page.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


# Texts beyond the right edge that no scrollable box holds.
CUT_OFF = """() => [...document.querySelectorAll("h1, h2, p, td, th, figcaption, li")]
  .filter(e => !e.closest(".scroll, .wide") && e.scrollWidth > e.clientWidth + 1
    && e.clientWidth > 0 && getComputedStyle(e).display !== "inline")
  .map(e => e.textContent.trim().slice(0, 60))"""
