"""Settings from a YAML file, into the dataclasses that hold them."""

import dataclasses
import pathlib
from typing import Any, TypeVar

import yaml

Settings = TypeVar("Settings")


def read_settings(path: pathlib.Path, defaults: Settings) -> Settings:
    """The settings of a YAML file, over the defaults.

    Args:
      path: a mapping of names to values; dataclasses inside are mappings too.
      defaults: an instance; what the file leaves out stays as it is here.

    Raises:
      ValueError: a file that is no such mapping, a name that does not exist, a value of
        another type.
    """
    try:
        found = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        where = str(error).replace("\n", " ")
        raise ValueError(f"{path} must be YAML; {where}") from None
    return _over(defaults, {} if found is None else found, str(path))


def _over(defaults: Any, found: Any, where: str) -> Any:
    fields = {f.name: getattr(defaults, f.name) for f in dataclasses.fields(defaults)}
    if not isinstance(found, dict):
        raise ValueError(
            f"{where} must be a mapping of names to values; got {found!r}."
        )
    unknown = sorted(set(found) - set(fields), key=str)
    if unknown:
        raise ValueError(
            f"{where} has no setting {unknown}; there are {sorted(fields)}."
        )
    changes = {
        name: _converted(fields[name], value, f"{where}: {name}")
        for name, value in found.items()
    }
    return dataclasses.replace(defaults, **changes)


def _converted(default: Any, value: Any, where: str) -> Any:
    """`value` as the type of the default that it replaces."""
    if dataclasses.is_dataclass(default):
        return _over(default, value, where)
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, pathlib.Path) and isinstance(value, str):
        return pathlib.Path(value)
    if isinstance(default, float) and not isinstance(value, bool):
        try:  # YAML reads 1e-3, without a dot, as a word
            return float(value)
        except (TypeError, ValueError):
            pass
    elif type(value) is type(default):
        return value
    raise ValueError(
        f"{where} must be a {type(default).__name__}, like {default!r}; got {value!r}."
    )
