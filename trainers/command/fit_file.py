"""A table from a file to a trained, checkpointed density with its baselines."""

import dataclasses
import functools
import importlib.metadata
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rbig_nnx import output_kernel_magnitudes
from trainers.checkpoints.identity import file_digest
from trainers.checkpoints.start import find_start, keep_start
from trainers.command.output import Printer
from trainers.command.reports import show_fit, show_folder, show_scores
from trainers.command.settings import FitFile, options_of
from trainers.command.steps import runs, verdict
from trainers.command.steps.baselines import Mixture
from trainers.command.steps.entrance import Table, open_table
from trainers.estimators import starts
from trainers.estimators.fitting import compile_ahead, refuse_patterns, train_flow
from trainers.estimators.rungs import steps_within, train_rungs
from trainers.estimators.settings import (
    VALID_ROWS,
    budget_of,
    left_for_training,
    settings_for,
)
from trainers.estimators.table_flow import TableFlow
from trainers.paths import Path, local_folder, located, move, placed
from trainers.placement.compilation import use_cache
from trainers.placement.lock import alone_in
from trainers.rows.encoded import PARTS
from trainers.rows.files import RowFiles
from trainers.run.interrupt import received
from trainers.run.progress import Progress
from trainers.tables.files.sources import find

_SCORED = 10_000  # training rows whose log p outliers are compared with
_VERSIONS = ("rbig-nnx", "jax", "flax", "numpy", "scikit-learn")


def run(
    path: pathlib.Path,
    settings: FitFile,
    printer: Printer,
    progress: Progress,
    *,
    html: bool = False,
    rows: bool = True,
) -> dict[str, Any] | None:
    """Reads, splits, warm-starts, trains and saves; prints the verdict.

    Args:
      path: the file, or - for standard input.
      settings: what to fit and how.
      printer: where lines and tables go.
      progress: is told of the phases.
      html: whether the page is written too.
      rows: whether it shows single rows.

    Returns:
      The report that is also written as JSON; None where a signal ended the run before.

    Raises:
      InputError: for a file or rows that cannot be fitted.
      CheckpointError: the folder holds another run.
      InUseError: another process is at work in it.
    """
    workdir = placed(settings.workdir or runs.default_workdir(settings, path))
    runs.check_workdir(workdir)
    source = find(path)
    with alone_in(workdir):
        return _run(
            path, source, settings, workdir, printer, progress, html=html, rows=rows
        )


def _run(path, source, settings, workdir, printer, progress, *, html, rows):
    """The part of `run` during which nobody else works in the folder."""
    identity = settings.result_settings() | {"file": file_digest(source.path)}
    found = find_start(workdir, identity, resume=settings.resume)
    ends = (runs.REPORT, runs.FLOW)
    if found is not None and all((workdir / name).exists() for name in ends):
        printer.line(f"{path}: this line has been run before; its report:")
        report = runs.read_report(workdir)
        show_fit(report, workdir, printer)
        return report
    if settings.cache:
        use_cache()
    if sys.stderr.isatty():  # elsewhere what is refused is one line
        progress.phase(f"reading {source.name}")
    table = open_table(source, settings, printer)
    done = _fit(table, path, settings, workdir, found, identity, progress, printer)
    if done is None:
        return None
    report, model = done
    show_scores(report, printer)
    if html:
        _page(workdir, report, model, table, printer, progress, rows=rows)
    show_folder(workdir, printer)
    return report


def _page(workdir, report, model, table, printer, progress, *, rows):
    """The page, or the line that says what it lacks."""
    from trainers.command.html import write

    progress.phase("page")
    try:
        write(workdir / runs.PAGE, report, model, table, rows=rows)
    except ImportError as error:
        printer.line(f"No report.html: {error} Or give --no-html.")


def _fit(table, path, settings, workdir, found, identity, progress, printer):
    """The part of `run` that takes its time."""
    began, budget = time.perf_counter(), budget_of(settings.budget)
    seed = settings.train.seed
    train, valid, test = (table.encoded(part, seed=seed) for part in PARTS)
    rows = train
    if table.stream is not None:
        rows = dataclasses.replace(train, rows=RowFiles(table.stream, seed=seed))
    choosing, watched = (part.at(slice(VALID_ROWS)) for part in (valid, test))
    decide = functools.partial(
        settings_for,
        table.sizes["train"],
        train.width,
        asked=settings.asked(),
    )
    chosen, typed = decide(budget=budget), options_of(FitFile)
    options = {"monitor": {"test": watched}, "progress": progress}
    workdir.mkdir(parents=True, exist_ok=True)
    if found is None:
        refuse_patterns(train, chosen)
        _set_aside(workdir)
        progress.phase("warm start")
        expect = functools.partial(
            compile_ahead, rows, choosing, chosen, monitor=options["monitor"]
        )
        kept = {"seed": seed, "expect": expect, "callback": progress.layer}
        starting = time.perf_counter()
        flow, about = starts.start(train, chosen.architecture, **kept)
        layers = [dataclasses.asdict(layer) for layer in about.layers]
        for layer in layers:
            del layer["flow"]  # there is one
        took = time.perf_counter() - starting
        decisions = [
            f"warm start: {len(layers)} layers, log p {about.log_prob:.4f} of encoded rows"
            f" (train rows that its fits leave out), {took:.1f} s;"
            f" {starts.told(about, train.width, typed, '{} {}')}"
        ]
        told = {"seconds": took, "log_prob": about.log_prob, "layers": layers}
        if budget.seconds is not None:
            left = budget.seconds - (time.perf_counter() - began)
            told["total_steps"] = steps_within(
                left, flow, rows, choosing, chosen.train, **options
            )
            decisions += left_for_training(budget, left, f"--budget {settings.budget}")
        found = keep_start(
            workdir, flow, identity, about=told | {"decisions": decisions}
        )
        for line in decisions:
            printer.line(line)
    else:
        printer.line(f"The warm start of an earlier call goes on in {workdir}.")
        flow = found.load()
    # What a budget was found to allow is that of the first call, whatever the load is now.
    if "total_steps" in found.about:
        budget = budget._replace(steps=found.about["total_steps"])
    chosen = decide(budget=budget)
    printer.line(chosen.told(typed, "{} {}"))
    if settings.profile:
        _profile(flow, train, chosen.train, settings.profile, workdir)
    done = train_rungs(
        flow,
        rows,
        choosing,
        chosen,
        workdir=workdir,
        resume=settings.resume,
        identity=identity,
        **options,
    )
    if done.interrupted or received:  # a signal may come as the last step ends
        printer.result("Interrupted. The same line goes on from here.")
        return None
    result = done.best.result
    trained = time.perf_counter()
    log_prob, model, mixture = _judged(
        table, flow, result.model, (train, valid), settings, progress
    )
    progress.phase("saving")
    rows, context = table.part("train")
    index = slice(_SCORED)
    scored = model.log_prob(
        rows.take(index), None if context is None else context.take(index)
    )
    about = runs.about_fit(
        table.frame, width=table.width, na=settings.na, train_log_prob=scored
    )
    model.save(workdir / runs.FLOW, about=about)
    given = table.given.about() if table.given else []
    report = {
        "file": str(path),
        "path": str(located(path)),
        "digest": identity["file"],
        "columns": [column.name for column in table.schema.kept],
        "given": [column["column"] for column in given],
        "rows": table.sizes,
        **verdict.judged(log_prob, mixture),
        "best_step": result.best_step,
        "last_step": int(result.history["step"][-1]),
        "stop_reason": result.stop_reason,
        "kinds": table.schema.about(),
        "kinds_of_given": given,
        "notes": list(table.notes),
        "settings": {k: v for k, v in identity.items() if k != "file"},
        "chosen": {typed[name]: value for name, value in chosen.values().items()},
        "choice": done.told(),
        "decisions": list(found.about.get("decisions", ())),
        "candidates": [
            {"name": c.name, "log_prob": verdict.finite(c.log_prob)}
            for c in done.candidates
        ],
        "warm_start": {k: found.about.get(k) for k in ("log_prob", "layers")},
        "history": _curves(result.history),
        "kernels": output_kernel_magnitudes(result.model),
        "command": settings.command(path),
        "seconds": {
            "warm_start": found.about["seconds"],
            "compile": sum(run.compile_seconds for run in done.runs),
            "train": sum(run.train_seconds for run in done.runs),
            "baselines_and_scores": time.perf_counter() - trained,
        },
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
    }
    if budget.seconds is not None:
        spent = (
            f"Of --budget {settings.budget} this call took {trained - began:.0f} s for"
            " start, compilation and training; baselines and scores took"
            f" {report['seconds']['baselines_and_scores']:.0f} s more."
        )
        report["decisions"].append(spent)
        printer.line(spent)
    report["unit"] = verdict.units(report["kinds"])
    report["verdict"] = verdict.sentences(report)
    runs.write_report(workdir, report)
    return report, model


def _curves(history: Mapping[str, np.ndarray]) -> dict[str, list[float | None]]:
    """Scores over steps and seconds, as JSON."""
    names = [name for name in ("step", "seconds", *PARTS) if name in history]
    return {name: [verdict.finite(v) for v in history[name]] for name in names}


def _judged(
    table: Table, start_flow, flow, parts, settings: FitFile, progress: Progress
) -> tuple[dict[str, np.ndarray], TableFlow, str]:
    """log p of the test rows by model, the density, and what the mixture is called."""
    seed, draws = settings.train.seed, settings.num_draws
    progress.phase("baselines")
    options = {"seed": seed, "fitted": progress.advance}
    gaussian = Mixture.fit(*parts, sizes=(1,), **options)
    mixture = Mixture.fit(*parts, **options)
    name = verdict.mixture_name(mixture.num_components)
    progress.phase("test rows")
    frame, context = table.part("test")
    given = None if table.given is None else table.given.context(context)
    density = TableFlow(start_flow, table.schema, table.given, draws)
    trained = dataclasses.replace(density, flow=flow)
    log_prob = {
        model: baseline.log_prob_of(frame, table.schema, context=given, num_draws=draws)
        for model, baseline in ((verdict.GAUSSIAN, gaussian), (name, mixture))
    }
    log_prob[verdict.START] = density.log_prob(frame, context)
    log_prob[verdict.TRAINED] = trained.log_prob(frame, context)
    return log_prob, trained, name


def _set_aside(workdir: Path):
    """An earlier report is of another start."""
    report = workdir / runs.REPORT
    if report.exists():
        move(report, workdir / f"previous.{runs.REPORT}")


def _profile(flow, train, config, steps: int, workdir: Path):
    config = dataclasses.replace(config, num_steps=steps, eval_every=steps)
    with local_folder(workdir / "profile") as folder, jax.profiler.trace(folder):
        train_flow(flow, train, None, config)
