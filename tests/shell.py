"""What a shell block of the documentation names: it must exist. Nothing is run."""

import pathlib
import re
import shlex
import tomllib

from trainers.command.arguments import parse_with_file
from trainers.command.cli import COMMANDS

ROOT = pathlib.Path(__file__).parents[1]


def check_commands(text):
    """Checks each line that begins with a program of this project, make, pip or python.

    Raises:
      ValueError: for an option, an extra, a target or a file that is not there.
    """
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.fullmatch(r"\w+=.*", words[0]):  # NAME=value program …
            del words[0]
        for program, check in _CHECKS.items():
            if words[: len(program)] == list(program):
                check(words[len(program) :])


def _rbig_nnx(words):
    if not {"--help", "--version"} & set(words):
        parse_with_file(COMMANDS, words, prog="rbig-nnx")


def _make(words):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    _must_exist([w for w in words if "=" not in w], targets, "a target of the Makefile")


def _pip(words):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words:
        if found := re.fullmatch(r"(?:rbig-nnx|\.)\[(.*)\]", word):
            extras = project["optional-dependencies"]
            _must_exist(found[1].split(","), extras, "an extra")


def _python(words):
    if words[:1] == ["-m"] and words[1].partition(".")[0] != "benchmarks":
        return
    if words[:1] == ["-m"]:
        stem = ROOT / words[1].replace(".", "/")
        path = stem.with_suffix(".py")
        path = path if path.exists() else stem / "__main__.py"
        del words[0]
    elif words and words[0].endswith(".py"):
        path = ROOT / words[0]
        path = path if path.exists() else ROOT / "examples" / path.name
    else:
        return
    if not path.exists():
        raise ValueError(f"{words[0]} is not there")
    source = path.read_text().replace("_", "-")
    for option in (w.partition("=")[0] for w in words if w.startswith("--")):
        if option.removeprefix("--") not in source:
            raise ValueError(f"{option} is no option of {words[0]}")


def _must_exist(names, known, kind):
    if missing := sorted(set(names) - set(known)):
        raise ValueError(f"{missing} is not {kind}")


_CHECKS = {
    ("rbig-nnx",): _rbig_nnx,
    ("make",): _make,
    ("pip", "install"): _pip,
    ("python",): _python,
}
