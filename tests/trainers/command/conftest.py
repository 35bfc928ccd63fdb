"""One small fitted run for every test of the command, and a way to call the command."""

import contextlib
import io
import pathlib
from typing import NamedTuple

import numpy as np
import pytest

from trainers.command import cli

SETTINGS = (  # of a flow that is fitted in a moment
    *("--num-blocks", "1", "--num-components", "2", "--hidden", "8"),
    *("--rotation", "pca", "--tails", "False", "--marginals", "False"),
    *("--radial", "False", "--clusters", "0"),
    *("--train.num-steps", "20", "--train.eval-every", "10"),
)
QUICK = (*SETTINGS, "--no-html")  # whose pictures take some seconds


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


def command(*args) -> Ended:
    """Runs the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(list(map(str, args)))
    return Ended(code, out.getvalue(), err.getvalue())


def mixed_lines(n=300, seed=0):
    """A CSV of a price, words, counts and dates."""
    random = np.random.default_rng(seed)
    color = random.choice(["red", "green", "blue"], n, p=[0.5, 0.3, 0.2])
    price = np.exp(random.normal(size=n) + (color == "red"))
    count = random.poisson(3, n)
    day = np.datetime64("2024-01-01") + random.integers(0, 300, n)
    rows = zip(price.round(4), color, count, day, strict=True)
    return ["price,color,count,day", *(",".join(map(str, row)) for row in rows)]


class Fitted(NamedTuple):
    """A run, its file, and how the fit ended."""

    run: pathlib.Path
    file: pathlib.Path
    ended: Ended


@pytest.fixture(scope="session")
def mixed(tmp_path_factory) -> Fitted:
    folder = tmp_path_factory.mktemp("mixed")
    file, run = folder / "shop.csv", folder / "run"
    file.write_text("\n".join(mixed_lines()) + "\n")
    ended = command("fit", file, "--workdir", run, *QUICK)
    assert ended.code == 0, ended.err
    return Fitted(run, file, ended)


@pytest.fixture(scope="session")
def bare(tmp_path_factory) -> Fitted:
    """Of two columns of numbers without names."""
    folder = tmp_path_factory.mktemp("bare")
    file, run = folder / "rows.npy", folder / "run"
    np.save(file, np.random.default_rng(0).normal(size=(300, 2)))
    ended = command("fit", file, "--workdir", run, *QUICK)
    assert ended.code == 0, ended.err
    return Fitted(run, file, ended)


@pytest.fixture(scope="session")
def conditional(tmp_path_factory) -> Fitted:
    """Of the shop's columns given the color."""
    folder = tmp_path_factory.mktemp("conditional")
    file, run = folder / "shop.csv", folder / "run"
    file.write_text("\n".join(mixed_lines()) + "\n")
    ended = command("fit", file, "--workdir", run, "--given", "color", *QUICK)
    assert ended.code == 0, ended.err
    return Fitted(run, file, ended)
