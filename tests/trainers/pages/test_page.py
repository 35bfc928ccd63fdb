import html.parser
import json
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

import trainers
from tests.trainers.command.conftest import SETTINGS, command, mixed_lines
from trainers.command.steps.reopening import reopened
from trainers.pages.page import _options
from trainers.pages.strange import strangest
from trainers.pages.subject import Subject

SMALL = {"num_steps": 20, "num_blocks": 1, "num_components": 2, "hidden": (8,)}
SMALL |= {
    "rotation": "pca",
    "tails": False,
    "marginals": False,
    "radial": False,
    "clusters": 0,
}
VOID = {"meta", "link", "br", "path", "use"}


class Checked(html.parser.HTMLParser):
    """What a page holds: headings, pictures with their words, and addresses."""

    def __init__(self):
        super().__init__()
        self.open, self.pictures, self.ids, self.addresses = [], [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if attrs.get("role") == "img":
            self.pictures.append(attrs["aria-label"])
        if "id" in attrs:
            self.ids.append(attrs["id"])
        self.addresses += [
            value
            for name, value in attrs.items()
            if name in ("src", "href", "xlink:href")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def checked(path):
    text = path.read_text()
    assert path.stat().st_size < 3_000_000
    assert "<script" not in text
    page = Checked()
    page.feed(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    outside = [a for a in page.addresses if not a.startswith(("#", "data:"))]
    assert outside == []  # nothing is fetched
    assert all(len(words) > 20 for words in page.pictures)
    return text, page


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    file, run = folder / "shop.csv", folder / "run"
    file.write_text("\n".join(mixed_lines()) + "\n")
    ended = command("fit", file, "--workdir", run, "--given", "color", *SETTINGS)
    assert ended.code == 0, ended.err
    assert "report.html" in ended.out
    return run


def test_fit_ends_with_a_page(shop):
    text, page = checked(shop / "report.html")
    told = json.loads((shop / "report.json").read_text())["decisions"][0]
    assert "--tails" in told
    for words in (
        *("Slices over what is given", "The strangest rows", "rbig-nnx fit"),
        *("warm start: ", "<code>--tails</code>", f"--workdir {shop}"),
    ):
        assert words in text
    # two curves, start, kernels; three columns; three colours of them; two tests; pairs
    assert len(page.pictures) == 4 + 3 + 9 + 2 + 1
    assert any("color = red" in words for words in page.pictures)


def test_options_are_set_as_code():
    assert _options("Try --num-blocks 1 <b>.") == (
        "Try <code>--num-blocks</code> 1 &lt;b&gt;."
    )


def test_report_writes_it_again_without_rows(shop):
    ended = command("report", shop, "--html", "--no-rows")
    assert ended.code == 0, ended.err
    text, _ = checked(shop / "report.html")
    assert "strangest" not in text
    assert "Columns two by two" not in text


def test_page_of_a_file_that_has_changed_is_refused(shop, tmp_path):
    file = reopened(shop, instead="").report["path"]
    with open(file, "a", encoding="utf-8") as lines:
        lines.write("1.0,red,3,2024-02-02\n")
    ended = command("report", shop, "--html")
    assert ended.code == 2
    assert "gone or has changed. Fit it again." in " ".join(ended.err.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--json", "--html"), "--json and --html must not both be given"),
        (("--no-rows",), "--no-rows is of the page"),
    ],
)
def test_options_that_do_not_go_together(shop, options, words):
    ended = command("report", shop, *options)
    assert ended.code == 2
    assert words in " ".join(ended.err.split())


@pytest.fixture(scope="module")
def density():
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 3))
    x[:, 1] = x[:, 0] + 0.1 * x[:, 1]
    table = pd.DataFrame(x, columns=["a", "<b> & $c$", "far\x1b"])
    return trainers.FlowDensity(**SMALL).fit(table[:400]), table[400:]


@pytest.mark.slow
def test_page_of_an_estimator_with_names_that_are_markup(density, tmp_path):
    model, rows = density
    with warnings.catch_warnings(action="error"):  # a font without a control character
        path = trainers.report(model, rows, tmp_path / "page.html")
    text, page = checked(path)
    assert "<b>" not in text
    assert "&lt;b&gt; &amp; $c$" in text
    assert any(words.startswith("<b> & $c$:") for words in page.pictures)


def test_what_report_lacks_is_said(density, shop, tmp_path):
    with pytest.raises(ValueError, match="`x_test` and `path` must be given"):
        trainers.report(density[0])
    with pytest.raises(ValueError, match="`x_test` and `context` must be left out"):
        trainers.report(shop, density[1])


def test_strange_value_is_to_blame(density):
    model, rows = density
    rows = rows.copy().reset_index(drop=True)
    rows.loc[7, ["a", "<b> & $c$"]] = 1.0, -1.0  # each common, not together
    rows.loc[9, "far\x1b"] = 5.0
    frame = model.table_.schema.matched(rows)
    found = {
        row.number: row for row in strangest(Subject.of(model.table_, frame, None))
    }
    assert {7, 9} <= set(found)
    assert found[9].blame[0].column == "far\x1b"
    assert found[9].blame[0].value == "5"
    assert {b.column for b in found[7].blame[:2]} == {"a", "<b> & $c$"}
    assert found[7].blame[0].gain > 10
    assert found[7].rank < 0.05


def test_without_the_extra_the_page_names_it(monkeypatch, density, tmp_path):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(
        ImportError, match=r"needs jinja2.*pip install 'rbig-nnx\[plot\]'"
    ):
        trainers.report(*density, tmp_path / "page.html")
