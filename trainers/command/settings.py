"""The settings of the jobs. Without JAX, so that a command line is read at once."""

# What follows the table may be None in `Training`; a comment behind a field is its help.
# pyright: reportIncompatibleVariableOverride=false

import dataclasses
import pathlib
import re
import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from tyro.conf import FlagCreatePairsOff, arg

from trainers.config import TrainConfig
from trainers.estimators.settings import budget_of

Switch = Annotated[bool, FlagCreatePairsOff]
Names = Annotated[tuple[str, ...], arg(metavar="NAME ...", help_behavior_hint="")]


def _guessed(metavar: str) -> Any:
    return arg(metavar=metavar, help_behavior_hint="(guessed)")


def _follows(metavar: str) -> Any:
    return arg(metavar=metavar, help_behavior_hint="(follows the table)")


Chosen = Annotated[int | None, _follows("INT")]
ChosenFloat = Annotated[float | None, _follows("FLOAT")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """The two-moons experiment: a table, three figures and a checkpoint."""

    out: pathlib.Path = pathlib.Path("runs/demo")  # folder of what it writes
    num_seeds: int = 5  # initialisations, and orders of the batches
    num_steps: int = 550  # optimiser updates of each run
    eval_every: int = 50  # steps
    learning_rate: float = 6e-3  # peak
    rotation: str = "pca"  # of the warm start
    num_test: int = 50_000  # fresh points that judge
    num_valid: int = 3_000  # fresh points that choose the step

    def train_config(self, seed: int) -> TrainConfig:
        """How each of the flows is trained."""
        return TrainConfig(
            num_steps=self.num_steps,
            eval_every=self.eval_every,
            learning_rate=self.learning_rate,
            patience=0,
            seed=seed,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How a file is read; what is left out is guessed, and the guess is printed."""

    # between the cells of a text: ';', ',', '|', tab, space
    sep: Annotated[str | None, _guessed("CHAR")] = None
    decimal: Annotated[str | None, _guessed("CHAR")] = None  # of numbers: '.' or ','
    # number of the line, from 1, that names the columns; or none
    header: Annotated[str | None, _guessed("LINE")] = None
    encoding: Annotated[str | None, _guessed("NAME")] = None  # of a text, as latin-1
    # the one to take from a .npz file
    array: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None

    def reading(self) -> dict[str, Any]:
        """These settings by name."""
        return {field.name: getattr(self, field.name) for field in _READING}


_READING = dataclasses.fields(Reading)
# Far beyond what is of use; what is larger fills the memory before it is refused.
_MOST = {"num_draws": 10_000, "num_blocks": 1_000, "num_components": 1_000}
_MOST |= {"hidden": 100_000}
_FLOW = (
    *("num_blocks", "num_components", "hidden", "rotation"),
    *("tails", "marginals", "whiten", "radial", "clusters"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every job can be told."""

    # show no progress and no tables: what was decided about the data, and the result
    quiet: Switch = False
    cache: bool = True  # keep compiled programs in the user's cache folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """What the page of a fit shows."""

    rows: bool = True  # single rows, as points and the strangest in a table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(TrainConfig):
    """How to train; what is left out follows the table."""

    num_steps: Chosen = None  # optimiser updates of a run
    batch_size: Chosen = None  # rows a step, over all devices
    # std of noise on x, in standard deviations of the rows
    jitter: ChosenFloat = None
    # per step; evaluated and returned are the averages
    ema_decay: ChosenFloat = None
    # on kernels; if left out, several while runs overfit and the valid rows gain
    weight_decay: ChosenFloat = None
    eval_every: Chosen = None  # steps
    # evaluations without a better validation score; 0 = never stop
    patience: Chosen = None

    def __post_init__(self):
        whole = TrainConfig(**self.asked())  # refuses what cannot be
        size = whole.batch_size
        for name in ("accumulate", "strata"):
            parts = getattr(whole, name)
            if size % parts:
                fits = max(n for n in range(1, min(parts, size + 1)) if size % n == 0)
                raise ValueError(
                    f"`{name}` must divide the {size} rows of a step, which"
                    f" --train.batch-size sets; got {parts}. Use {fits}."
                )
        object.__setattr__(self, "learning_rates", whole.learning_rates)

    def asked(self) -> dict[str, Any]:
        """What is not left to the table."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitFile(Reading, Job):
    """Fits a density to the rows of a file, with a Gaussian and a mixture beside it."""

    columns: Names = ()  # keep these only (default: all)
    drop: Names = ()  # leave these out
    # of columns, as price=positive grade=categorical zip=skipped; there are also the
    # kinds continuous, bounded(0, 1), rounded(0.5), integer, boolean, date
    kinds: Annotated[tuple[str, ...], _guessed("NAME=KIND ...")] = ()
    # columns that are given, as a,b: the density of the others is conditional on them
    given: Names = ()
    # what becomes of rows, or columns, with missing values
    missing: Literal["refuse", "drop-rows", "drop-columns"] = "refuse"
    # cells that count as missing, as -9999 or unknown
    na: Annotated[tuple[str, ...], arg(metavar="VALUE ...", help_behavior_hint="")] = ()
    # of the split, the start and the training
    seed: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: 0)")
    ] = None
    # folder of the run
    workdir: Annotated[
        pathlib.Path | None,
        arg(metavar="FOLDER", help_behavior_hint="(default: runs/FILE-SETTINGS)"),
    ] = None
    resume: bool = True  # go on from what is in workdir; --no-resume sets that aside
    # noise to average over for rows with discrete columns
    num_draws: int = 16
    profile: int = 0  # steps to trace before training, into workdir/profile
    # for start, compilation and training, as 90s, 7m or 1h30m: as many steps as fit into
    # it; or steps of all runs, as 3000steps
    budget: Annotated[
        str | None, arg(metavar="TIME", help_behavior_hint="(default: no limit)")
    ] = None
    num_blocks: Chosen = None  # rotation, coupling, complementary coupling
    num_components: Chosen = None  # of each mixture
    # widths of the conditioners
    hidden: Annotated[tuple[int, ...], _follows("INT ...")] = ()
    # of the warm start
    rotation: Literal["auto", "nongaussian", "pca", "random", "ica"] = "auto"
    # take heavy tails off the columns first (default: where the start gains by it)
    tails: Annotated[bool | None, arg(help_behavior_hint="")] = None
    # then map each column by a mixture of its own (default: where the start gains by it)
    marginals: Annotated[bool | None, arg(help_behavior_hint="")] = None
    # take out linear dependence first (default: where there are no clusters)
    whiten: Annotated[bool | None, arg(help_behavior_hint="")] = None
    # then a random scale that all columns share (default: where the start gains by it)
    radial: Annotated[bool | None, arg(help_behavior_hint="")] = None
    # components of a mixture to take off before the blocks, 0 for none (default: up to 16,
    # where the start gains by it)
    clusters: Annotated[int | None, arg(help_behavior_hint="")] = None
    valid_fraction: float = 0.1  # of the rows, held out to choose the step
    test_fraction: float = 0.1  # of the rows, held out to judge
    train: Training = dataclasses.field(default_factory=Training)

    def __post_init__(self):
        if any(budget_of(self.budget)) and self.train.num_steps:
            raise ValueError("`budget` must be left out where `num_steps` is given.")
        for name, most in _MOST.items():
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (value,)
            for wrong in (v for v in values if v is not None and not 1 <= v <= most):
                raise ValueError(f"`{name}` must be 1 to {most:,}; got {wrong}.")
        if not 0 <= (self.clusters or 0) <= _MOST["num_components"]:
            raise ValueError(f"`clusters` must be 0 to 1,000; got {self.clusters}.")
        for name in ("valid_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 0.5:
                raise ValueError(
                    f"`{name}` must lie above 0 and below 0.5; got {getattr(self, name)}."
                )
        if self.seed is not None:
            train = dataclasses.replace(self.train, seed=self.seed)
            object.__setattr__(self, "train", train)
        for name, value in (("seed", self.train.seed), ("profile", self.profile)):
            if value < 0:
                raise ValueError(f"`{name}` must be 0 or more; got {value}.")

    def asked(self) -> dict[str, Any]:
        """The settings of flow and training that are not left to the table."""
        flow = {name: getattr(self, name) for name in _FLOW}
        asked = {k: v for k, v in flow.items() if v not in (None, ())}
        return asked | self.train.asked()

    def result_settings(self) -> dict[str, Any]:
        """All that changes the result, by option."""
        free = ("quiet", "cache", "workdir", "resume", "profile", "seed", "train")
        names = (f.name for f in dataclasses.fields(FitFile) if f.name not in free)
        values = {name: getattr(self, name) for name in names}
        for name, value in vars(self.train).items():
            values["seed" if name == "seed" else f"train.{name}"] = value
        return {option(name): value for name, value in values.items()}

    def command(self, path: pathlib.Path) -> str:
        """The line that fits a file so: what differs from the defaults."""
        usual, words = FitFile().result_settings(), ["rbig-nnx", "fit", str(path)]
        for name, value in self.result_settings().items():
            if value != usual[name]:
                words += _typed(name, value)
        if self.workdir is not None:
            words += [option("workdir"), str(self.workdir)]
        return shlex.join(words)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """What `result_settings` described, as JSON gives it back."""
        values: dict[str, Any] = {}
        train: dict[str, Any] = {}
        for key, value in options.items():
            name = setting(key)
            inner = name.removeprefix("train.")
            into = values if inner == name else train
            into[inner] = tuple(value) if isinstance(value, list) else value
        return cls(**values, train=Training(**train))


def option(name: str) -> str:
    """A setting as it is typed."""
    return f"--{name.replace('_', '-')}"


def _typed(flag: str, value: Any) -> list[str]:
    """An option and its value, of whatever type, as words of a command line."""
    if isinstance(value, list | tuple):
        parts = [part if isinstance(part, list | tuple) else [part] for part in value]
        found = [str(word) for part in parts for word in part]
    else:
        found = [str(value)]
    if any(map(looks_like_option, found)):
        return [f"{flag}={word}" for word in found]
    return [flag, *found]


def looks_like_option(word: str) -> bool:
    """Whether a word begins as an option does, and not as a number below 0."""
    return re.match(r"-(?![\d.])", word) is not None


def setting(flag: str) -> str:
    """An option as a file of settings has it."""
    return flag.removeprefix("--").replace("-", "_")


def options_of(command: type) -> dict[str, str]:
    """The options of a command by the name of the setting, those within others last."""
    found, nested = {}, {}
    for field in dataclasses.fields(command):
        if dataclasses.is_dataclass(field.type):
            inner = dataclasses.fields(field.type)
            nested |= {f.name: option(f"{field.name}.{f.name}") for f in inner}
        else:
            found[field.name] = option(field.name)
    return nested | found


def in_typed_words(message: str, command: type | None) -> str:
    """A message in one line, with options where it names arguments of Python.

    Args:
      message: of an error.
      command: what was asked for, or None.
    """
    known = options_of(command) if command is not None else {}
    known |= dict.fromkeys(("path", "x", "X", "file"), "FILE") | {"run": "RUN"}

    def typed(match: re.Match) -> str:
        name, value = match[1], match[2]
        if name not in known:
            return match[0]
        return option(f"no_{name}") if value == "False" else known[name]

    said = re.sub(r"`(\w+)(?:=([^`]*))?`", typed, " ".join(message.split()))
    said = re.sub(r"; in Python kinds=\{.*?\}", "", said)
    said = re.sub(r"kinds=\{['\"](.*?)['\"]: '(.*?)'\}", _kinds_typed, said)
    said = re.sub(r"`(rbig-nnx[^`]*)`", r"\1", said)
    return re.sub(r"(--[\w.-]+) \(\1\)", r"\1", said)  # some say both


def with_setting(message: str) -> str:
    """A message about an option, with the setting's name beside it where that differs."""

    def both(match: re.Match) -> str:
        name = setting(match[0]).rpartition(".")[2]
        return f"{match[0]} (setting {name})" if "_" in name else match[0]

    return re.sub(r"^--[\w.-]+(?= must)", both, message)


def in_settings(message: str) -> str:
    """A message with the names of a file of settings where it has options."""
    form = r"--(?!help)[\w-]+(?:\.[\w-]+)*"
    return re.sub(form, lambda flag: setting(flag[0]), message)


def _kinds_typed(match: re.Match) -> str:
    return f"--kinds {shlex.quote(f'{match[1]}={match[2]}')}"
