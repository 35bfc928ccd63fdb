"""A file for every fit that is done, so that a second call does the others."""

import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence

from benchmarks import report
from benchmarks.density.fits import Fit, run


def place(folder: pathlib.Path, fit: Fit) -> pathlib.Path:
    """Where a fit's record lies: any other setting is another file."""
    text = json.dumps(fit.identity(), sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return folder / f"{digest}.json"


def finished(folder: pathlib.Path, fits: Sequence[Fit]) -> list[report.Row]:
    """The records that there are."""
    paths = (place(folder, fit) for fit in fits)
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def make(folder: pathlib.Path, fits: Sequence[Fit], say: Callable[[str], None]):
    """Makes those that are missing, one after another."""
    folder.mkdir(parents=True, exist_ok=True)
    commit = report.environment()["commit"]
    for number, fit in enumerate(fits, 1):
        path = place(folder, fit)
        if path.exists():
            continue
        record = {"what": "fit", "commit": commit} | run(fit)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(record) + "\n")
        new.replace(path)  # whole or not at all
        say(
            f"{number}/{len(fits)} {fit.table}, {fit.num_rows} rows, seed {fit.seed}:"
            f" {fit.model} {record['log_prob']:.3f} in {record['seconds_taken']:.0f} s"
        )
