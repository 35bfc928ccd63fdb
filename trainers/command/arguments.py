"""A command line, and a YAML file of settings, as the command that they ask for.

Without JAX, so that a command line is read at once. What is wrong ends as one line in the
words of the command line: tyro's boxes and Python's names of arguments stay inside.
"""

import argparse
import contextlib
import dataclasses
import difflib
import io
import pathlib
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tyro
import yaml

from trainers.command.settings import (
    in_settings,
    in_typed_words,
    looks_like_option,
    option,
    options_of,
)
from trainers.run.progress import visible

_RULE, _BORDER = re.compile(r"^[─\s-]*$"), re.compile(r"^\s*[╭╰]")
_SHIELD = "\0"  # before a value, as a column's name, that would be taken for an option
_TRUTH = dict.fromkeys(("true", "yes", "on"), True)
_TRUTH |= dict.fromkeys(("false", "no", "off"), False)
_NOTHING = ("", "null", "Null", "NULL", "~")  # what YAML has for no value
_PLACES = ("--workdir", "--out", "--config")
_FORMS = {"INT": "whole numbers", "FLOAT": "numbers"}
_SIMPLER = {
    r"^Error parsing (?:\S*dummy\S*|[A-Z]\w*): ": "",
    r"^Error parsing \w+: (?=`)": "",  # of settings within others
    r"^Error parsing (\S+?): ": r"\1 ",
    r"^-\w/(?=--)": "",
    r"no type matching \{None\}\|INT could be instantiated from \[(.*)\]": (
        r"must be a whole number; got \1"
    ),
    r"no type matching \{None\}\|FLOAT could be instantiated from \[(.*)\]": (
        r"must be a number; got \1"
    ),
    r"no type matching \{\[STR FLOAT .*?instantiated from \[(.*)\]": (
        r"must be pairs of a pattern and a factor, as '*.vectors' 0.1; got \1"
    ),
    r"invalid literal for int\(\) with base 10: (.*)": r"must be a whole number; got \1",
    r"could not convert string to float: (.*)": r"must be a number; got \1",
    r"Could not find valid parse for arguments: \[(.*)\]": r"must be something else; got \1",
    r"^invalid choice (.*) for argument '(\S+)'\. Expected one of \((.*)\)": (
        r"\2 must be one of \3; got \1"
    ),
    r"(got '[^']{60})[^']+'": r"\1…'",
    # Of a set, whose order is another in every process.
    r"one of '(None|True|False)', '(?!\1)\w+', '(?!\1)\w+';": "one of 'True', 'False', 'None';",
    r"^Missing value for argument '(?:\S*/)?(\S+)'.*": (
        r"\1 must be followed by a value; one that begins with a dash as \1=-a"
    ),
    r"^Missing from \S+ \S+: (\S+).*": r"\1 is missing",
    r"^Expected one of \{(.*)\}": r"give a command: \1",
}


def parse(commands: Any, args: Sequence[str], *, prog: str, **options: Any) -> Any:
    """The command that a command line asks for.

    Args:
      commands: a union of dataclasses, or one.
      args: the line without the program's name.
      prog: the program's name.
      options: of `tyro.cli`.

    Raises:
      ValueError: one line, for a line that cannot be understood.
    """
    said = io.StringIO()
    _check_words(args)
    kind = _kind(commands, args)
    args = _joined(args, kind) if kind else args
    try:
        with contextlib.redirect_stderr(said):
            found = tyro.cli(commands, args=list(args), prog=prog, **options)
    except SystemExit as end:
        if end.code in (None, 0):
            raise
        raise ValueError(_one_line(said.getvalue(), kind, prog)) from None
    words = {
        name: tuple(word.removeprefix(_SHIELD) for word in value)
        for name, value in vars(found).items()
        if isinstance(value, tuple) and value and isinstance(value[0], str)
    }
    return dataclasses.replace(found, **words)


def _check_words(args: Sequence[str]) -> None:
    """Refuses what the values no longer tell: an empty path, the same setting twice."""
    for word, value in zip(args, [*args[1:], None], strict=False):
        name, sign, inside = word.partition("=")
        if name in _PLACES and (inside if sign else value) == "":
            raise ValueError(f"{name} must name a file or folder; got ''.")
    if {"--seed", "--train.seed"} <= _named(args):
        raise ValueError("--seed must be given once; --train.seed is the same.")


def _named(args: Sequence[str]) -> set[str]:
    """The options of a line, and its other words."""
    return {word.partition("=")[0] for word in args}


def parse_with_file(commands: Any, args: Sequence[str], *, prog: str, **options: Any):
    """As `parse`; a first command with `--config FILE` takes its defaults from there."""
    kind = _kind(commands, args)
    names = {field.name for field in dataclasses.fields(kind)} if kind else set()
    if kind and "config" in names and "--config" in _named(args[:-1]):
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, prog=prog)
        parser.add_argument("--config", type=pathlib.Path)
        path = parser.parse_known_args(list(args))[0].config
        found = read_settings(path, kind)
        if "--train.seed" in _named(args):
            found = dataclasses.replace(found, seed=None)  # else it would win
        options["default"] = found
    return parse(commands, args, prog=prog, **options)


def read_settings(path: pathlib.Path, command: type) -> Any:
    """A command with the settings of a YAML file.

    Args:
      path: a mapping of names to values, which are read as those of the options are;
        dataclasses inside are mappings too.
      command: a dataclass with options and `file`, which stays to be given.

    Raises:
      ValueError: a file that is no such mapping, a name that does not exist, a value of
        another type.
    """
    try:
        found = _AsWritten(path.read_text()).get_single_data()
    except OSError as error:
        raise ValueError(
            f"--config must be a file; got {path}: {error.strerror}."
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        told = " ".join(str(error).split()).replace('in "<unicode string>", ', "in ")
        raise ValueError(f"{path} must be YAML; {visible(told)}") from None
    args = list(_as_options(command, found or {}, str(path)))
    try:
        settings = parse(command, ["FILE", *args], prog="rbig-nnx")
    except ValueError as error:
        raise ValueError(f"{path}: {in_settings(str(error))}") from None
    return dataclasses.replace(settings, file=tyro.MISSING)


class _AsWritten(yaml.BaseLoader):
    """Words as they stand: 007 is no 7, 1:30 no 90, and no tag makes an object."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:  # noqa: FBT001,FBT002
        keys = [str(key.value) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"it names {twice} twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def _joined(args: Sequence[str], kind: type) -> list[str]:
    """The line with all values of an option behind its first place: --drop a --drop b.

    Raises:
      ValueError: an option of several values has none, as `--drop $UNSET`.
    """
    several = set(_several(kind))
    runs: list[list[str]] = [[]]
    first: dict[str, list[str]] = {}
    run = runs[0]
    for word, following in zip(args, [*args[1:], "--"], strict=False):
        name, sign, value = word.partition("=")
        if not word.startswith("--"):
            run.append(word)
        elif name not in several:
            run = [word]
            runs.append(run)
        else:
            if not value and (sign or looks_like_option(following)):
                raise ValueError(
                    f"{name} must be followed by a value; one that begins with a dash"
                    f" as {name}=-a."
                )
            if name not in first:
                runs.append(first.setdefault(name, [name]))
            run = first[name]
            run += [_SHIELD * looks_like_option(value) + value] * bool(sign)
    return [word for run in runs for word in run]


def _several(kind: type, prefix: str = "") -> Iterator[str]:
    """The options of a command that take several values."""
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.type):
            yield from _several(field.type, f"{field.name}.")
        elif isinstance(field.default, tuple):
            yield option(prefix + field.name)


def _kind(commands: Any, args: Sequence[str]) -> type | None:
    """The dataclass of the command that a line begins with."""
    if dataclasses.is_dataclass(commands):
        return commands
    by_name = {kind.__name__.lower(): kind for kind in commands.__args__}
    return by_name.get(args[0]) if args else None


def _as_options(
    command: type, found: Any, where: str, prefix: str = ""
) -> Iterator[str]:
    fields = {field.name: field for field in dataclasses.fields(command)}
    kinds = typing.get_type_hints(command)
    for name in ("file", "config"):
        fields.pop(name, None)
    if not isinstance(found, dict):
        raise ValueError(
            f"{where} must be a mapping of names to values; got {found!r}."
        )
    unknown = sorted(set(found) - set(fields), key=str)
    if unknown:
        raise ValueError(
            f"{where} has no setting {unknown}; there are {sorted(fields)}."
        )
    for name, value in found.items():
        kind = kinds[name]
        truth = _TRUTH.get(value.lower()) if isinstance(value, str) else None
        if dataclasses.is_dataclass(kind):
            yield from _as_options(kind, value, f"{where}: {name}", f"{name}.")
        elif value in _NOTHING or value == []:
            raise ValueError(
                f"{where}: {name} must have a value. For the default, leave the line out."
            )
        elif kind is bool and truth is None:
            raise ValueError(f"{where}: {name} must be true or false; got {value!r}.")
        elif kind is bool:
            yield option(prefix + (name if truth else f"no-{name}"))
        elif kind == bool | None and truth is not None:
            yield from (option(prefix + name), str(truth))
        elif not isinstance(value, str) and not _takes_several(kind):
            raise ValueError(f"{where}: {name} must be one value; got {value!r}.")
        elif kind == tuple[str, ...]:
            words = _flat(value, "=", f"{where}: {name}")
            yield from (f"{option(prefix + name)}={word}" for word in words)
        else:
            yield from (option(prefix + name), *_flat(value, None, f"{where}: {name}"))


def _takes_several(kind: Any) -> bool:
    parts = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return any(typing.get_origin(part) in (tuple, Mapping) for part in parts)


def _flat(value: Any, sign: str | None, where: str) -> Iterator[str]:
    """The words of a value, where pairs have a sign between them or are two words."""
    for part in value if isinstance(value, list) else [value]:
        inner = part if isinstance(part, list) else [part]
        pairs = part.items() if isinstance(part, dict) else [(word,) for word in inner]
        for pair in pairs:
            if not all(isinstance(word, str) for word in pair):
                raise ValueError(f"{where} must be a list or a mapping of words.")
            yield from (sign.join(pair),) if sign else pair


def _one_line(box: str, kind: type | None, prog: str) -> str:
    """The message of a box that tyro has drawn, and what it proposes."""
    parts: list[list[str]] = [[]]
    for line in box.splitlines():
        inside = line.strip("│ ")
        if _RULE.match(inside):
            parts.append([])
        elif not _BORDER.match(line):
            parts[-1].append(inside)
    if "│" not in box:  # where it cannot draw, the title is a line of its own
        parts = parts[1:]
    texts = [" ".join(part) for part in parts if part] or [" ".join(box.split())]
    about = {text.partition(": ")[0]: text for text in texts}
    message = texts[0]
    for pattern, words in _SIMPLER.items():
        message = re.sub(pattern, words, message)
    form = re.search(r"--\S+ ([A-Z]+)", about.get("Argument helptext", ""))
    if form:
        message = message.replace("something else", _FORMS.get(form[1], form[1]))
    if kind is not None:
        message = in_typed_words(message, kind)
    unknown = re.match("Unrecognized (?:or misplaced )?options: (.*)", message)
    if unknown:
        words = (
            re.sub(r"\s*\(applied to [^)]*\)", ",", unknown[1]).strip(", ").split(", ")
        )
        typed = [word for word in words if word.startswith("-")] or words
        what = "argument" if typed[0][0] != "-" else "option"
        if kind is None:
            what, typed = "command", typed[:1]
        message = f"there is no {what} {', '.join(typed)}"
        message += _proposed(typed[0], about, kind)
    see = f"{prog} {kind.__name__.lower()} --help" if kind else f"{prog} --help"
    return f"{message.rstrip('.')}. See {see}"


def _proposed(word: str, about: Mapping[str, str], kind: type | None) -> str:
    """Commands, or options of the command that are close to a word."""
    if kind is None:
        names = about.get("Available subcommands", "").partition(": ")[2]
        near = difflib.get_close_matches(word, re.findall(r"[\w-]+", names), n=1)
        there = f"; there are {names}" if names else ""
        return f"; perhaps {near[0]}" if near else there
    places = {option(name) for name in ("file", "run")}
    flags = [flag for flag in options_of(kind).values() if flag not in places]
    last = word.lstrip("-")  # --steps for --train.num-steps, --blocks for --num-blocks
    ends = [flag for flag in flags if flag.endswith((f".{last}", f"-{last}"))]
    ends = [flag for flag in ends if not flag.startswith("--no-")]
    close = ends or difflib.get_close_matches(word, flags, n=2)
    return f"; perhaps {' or '.join(close)}" if close else ""
