"""One self-contained HTML page about a fit: what was learned, how well, and where not."""

import dataclasses
import importlib.metadata
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from trainers.estimators.table_flow import TableFlow
from trainers.pages import judging, pictures
from trainers.pages.drawing import Picture
from trainers.pages.strange import Strange, strangest
from trainers.pages.subject import Subject
from trainers.pages.views import most_dependent, views
from trainers.paths import Path, write_whole
from trainers.tables.frame import Frame
from trainers.tables.kinds.found import span

NEEDED = ("jinja2", "matplotlib")  # of the extra `plot`
_MARGINALS = 60  # columns
_PAIRS = 12  # columns of the matrix of pairs
_GIVEN = 2  # columns that are sliced
_LEAST = 20  # rows from which two samples are compared


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
      title: its heading.
      how: how to read what follows.
      pictures: side by side.
      strange: rows of a table, instead of pictures.
    """

    title: str
    how: str
    pictures: tuple[Picture, ...] = ()
    strange: tuple[Strange, ...] = ()


def write(
    path: Path,
    report: Mapping[str, Any],
    model: TableFlow,
    data: Frame,
    context: Frame | None = None,
    *,
    rows: bool = True,
    numbers: np.ndarray | None = None,
    seed: int = 0,
) -> None:
    """Writes the page, whole or not at all.

    Args:
      path: of the .html file.
      report: what was found; sections whose keys it lacks are left out.
      model: the density.
      data: rows that took no part in the fit, of which at most 2,000 are looked at.
      context: their given columns.
      rows: whether single rows are shown, as points and in a table.
      numbers: what the rows of `data` are called, [n]; None counts them from 0.
      seed: of what is drawn.

    Raises:
      ImportError: without the extra `plot`, naming it.
    """
    template = _template()
    subject = Subject.of(model, data, context, numbers=numbers, seed=seed)
    sections = [*_run(report), *_rows(subject, rows=rows, seed=seed)]
    text = template.render(
        report=report,
        sections=sections,
        version=importlib.metadata.version("rbig-nnx"),
        style=pathlib.Path(__file__)
        .with_name("templates")
        .joinpath("page.css")
        .read_text(),
    )
    write_whole(path, text)


def _template() -> Any:
    try:
        import jinja2
        import matplotlib as _  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the page needs {error.name}; install it with pip install 'rbig-nnx[plot]'."
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainers.pages"),
        autoescape=True,  # names of columns are anyone's
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "options": _options, "span": span}
    return environment.get_template("page.html.j2")


def _run(report: Mapping[str, Any]) -> list[Section]:
    """How the model came about."""
    found = []
    if "history" in report:
        found += pictures.curves(report["history"], report["best_step"])
    if "warm_start" in report:
        found.append(pictures.warm_start(report["warm_start"]["layers"]))
    if "kernels" in report:
        found.append(pictures.kernels(report["kernels"]))
    how = (
        "The curve of the valid rows chooses the step that is returned; where the curve of"
        " the train rows goes on rising and that of the valid rows falls, the flow learns"
        " single rows. Each layer of the warm start is kept for what it removes from rows"
        " that its fit left out; with kernels at zero the start depends on nothing but its"
        " biases, and what training adds is how one column bends with another."
    )
    return [Section("Training", how, tuple(found))] if found else []


def _rows(subject: Subject, *, rows: bool, seed: int) -> list[Section]:
    """What the rows say of the model."""
    schema = subject.model.schema
    modelled = views(schema.kept, subject.data, subject.drawn)
    n = len(subject.data)
    told = f"{n:,} test rows and {len(subject.drawn):,} drawn ones"
    shown = modelled[:_MARGINALS]
    left = len(modelled) - len(shown)
    more = f" The first {_MARGINALS}; {left} more are not shown." if left else ""
    sections = [
        Section(
            "Columns one by one",
            f"Shares of {told}: bars are the data, the line is the model. Bins hold whole"
            f" steps of a grid; bounds and levels are those of the table.{more}",
            tuple(map(pictures.marginal, shown)),
        )
    ]
    if rows and len(modelled) > 1:
        chosen = most_dependent(modelled, _PAIRS)
        which = (
            f" The {_PAIRS} of {len(modelled)} columns with most mutual information."
            if len(chosen) < len(modelled)
            else ""
        )
        sections.append(
            Section(
                "Columns two by two",
                "Below the diagonal the data, above it what the model draws: a cell and its"
                f" mirror image should look alike.{which}",
                (pictures.pairs(chosen),),
            )
        )
    if subject.context is not None and subject.model.given is not None:
        given = views(subject.model.given.kept, subject.context, subject.drawn_context)
        slices = [p for v in given[:_GIVEN] for p in pictures.slices(v, modelled)]
        sections.append(
            Section(
                "Slices over what is given",
                "The columns that depend most on what is given, in parts of its range: bars"
                " are the data there, the line is drawn given the same values.",
                tuple(slices),
            )
        )
    sections.append(_calibration(subject, seed))
    if rows:
        sections.append(
            Section(
                "The strangest rows",
                "Test rows of lowest density, with their number in the table (from 0), and"
                " the share of drawn rows whose density is lower still. A value is to blame"
                " for the nats that the row would gain with the value behind the arrow in its"
                " place: large gains are values that do not go with the rest of the row.",
                strange=tuple(strangest(subject)),
            )
        )
    return sections


def _calibration(subject: Subject, seed: int) -> Section:
    told = ""
    if len(subject.data) >= _LEAST:
        data, drawn = subject.encoded, subject.drawn_encoded
        if subject.context is not None and subject.model.given is not None:
            given = subject.model.given.context(subject.context)
            data, drawn = (np.concatenate([x, given], 1) for x in (data, drawn))
        auc = judging.two_sample_auc(data, drawn, seed=seed)
        sure = abs(auc.value - 0.5) > 2 * auc.error
        told = (
            f" Boosted trees tell test rows from drawn ones with an area under the curve of"
            f" {auc.value:.3f} ± {auc.error:.3f}, where .5 is guessing:"
            f" {'they find a difference' if sure else 'they find none'}."
        )
    return Section(
        "Is the model right?",
        "A model may beat another and still be wrong. These tests compare it with the test"
        f" rows alone.{told}",
        (pictures.latent(subject), pictures.density_levels(subject)),
    )


def _figure(value: Any, sign: str = "") -> str:
    """A number as tables have it."""
    if value is None:
        return "not finite"
    return f"{value:{sign}.4f}" if isinstance(value, float) else f"{value:,}"


def _options(text: str) -> Any:
    """A sentence whose options are set as code, so that no line breaks within them."""
    from markupsafe import Markup, escape

    plain = str(escape(text))  # markupsafe's own strings would be escaped once more
    found = re.sub(r"(?<!\w)--[a-z][\w.-]*\w", r"<code>\g<0></code>", plain)
    return Markup(found)
